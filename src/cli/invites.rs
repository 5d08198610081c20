//! `invite-relay invites`: looking at stored invites, and what a person may ask of them.

mod desk;

use clap::Subcommand;

use self::desk::Desk;
use super::output::{Output, print_json, print_table, table};
use super::{ConfigArgs, Failure};
use crate::app::Peek;
use crate::http::orders::RedriveAnswer;
use crate::invite::{AccountName, Invite, StateName, TruckerKey, TruckerPk};
use crate::store::view::{CauseView, InviteView, OrderView};
use crate::store::{Filter, Operator, Selection};
use crate::time::{self, Timestamp};

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List invites, newest first; the service may be running
    #[command(after_help = "\
Examples:
  invite-relay invites list --config relay.toml --state dead
  invite-relay invites list --config relay.toml --output json | jq '.[].invite'")]
    List {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only invites in this state
        #[arg(long, value_parser = state)]
        state: Option<StateName>,
        /// Only invites of this account
        #[arg(long)]
        account: Option<AccountName>,
        /// Only invites whose last failure is this: a class, a code, or class/code
        #[arg(long)]
        cause: Option<String>,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// What the dead invites died of: the work list in short
    #[command(after_help = "Example:\n  invite-relay invites causes --config relay.toml")]
    Causes {
        #[command(flatten)]
        config: ConfigArgs,
        /// Only invites of this account
        #[arg(long)]
        account: Option<AccountName>,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Put dead invites back to work, with all attempts and all patience; shows which unless --apply is given
    #[command(after_help = "\
Examples:
  invite-relay invites redrive --cause http_400.phone_number.invalid --by ada        what would be done
  invite-relay invites redrive --cause http_400.phone_number.invalid --by ada --apply
  invite-relay invites redrive default/23498 default/23499 --by ada --apply
  invite-relay invites redrive --all --by ada --apply

They take half of the account's pace, so that new events find a way between. Where a call may ever have had an
effect that nobody knows of, the trucker is read first.")]
    Redrive {
        /// These invites: ACCOUNT/PK
        ids: Vec<TruckerKey>,
        #[command(flatten)]
        config: ConfigArgs,
        /// All that died of this: a class, a code, or class/code, as `invites causes` shows it
        #[arg(long, conflicts_with = "ids")]
        cause: Option<String>,
        /// Only invites of this account
        #[arg(long, conflicts_with = "ids")]
        account: Option<AccountName>,
        /// All dead invites
        #[arg(long, conflicts_with_all = ["ids", "cause", "account"])]
        all: bool,
        /// Who gives the order; recorded in the store
        #[arg(long, value_name = "NAME")]
        by: Operator,
        /// Do it; without this, nothing is changed
        #[arg(long)]
        apply: bool,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Ask for a new code for a trucker whose code was published: the next generation
    #[command(after_help = "\
Example:
  invite-relay invites reissue default 23498 --by ada --config relay.toml

The code that was published stops working.")]
    Reissue {
        /// The account's name
        account: AccountName,
        /// Dashdoc's key of the trucker
        pk: TruckerPk,
        #[command(flatten)]
        config: ConfigArgs,
        /// Who gives the order; recorded in the store
        #[arg(long, value_name = "NAME")]
        by: Operator,
    },
    /// The orders that people gave, newest first
    #[command(after_help = "Example:\n  invite-relay invites orders --config relay.toml")]
    Orders {
        #[command(flatten)]
        config: ConfigArgs,
        /// At most this many
        #[arg(long, default_value_t = 50)]
        limit: usize,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show one invite with the events that asked for it
    #[command(after_help = "Example:\n  invite-relay invites show default/23498 --config relay.toml")]
    Show {
        /// The invite's id: ACCOUNT/PK
        id: TruckerKey,
        #[command(flatten)]
        config: ConfigArgs,
        /// Form of the output
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

fn state(word: &str) -> Result<StateName, String> {
    StateName::from_stored(word).ok_or_else(|| {
        let words: Vec<&str> = StateName::ALL.into_iter().map(StateName::as_str).collect();
        format!("the states are {}", words.join(", "))
    })
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::List { config, state, account, cause, limit, output } => {
            let filter = Filter { state, account, cause, limit };
            let invites = open(config).await?.list(&filter).await.map_err(anyhow::Error::from)?;
            match output {
                Output::Json => {
                    print_json(&invites.iter().map(InviteView::from).collect::<Vec<_>>());
                }
                Output::Table => list(&invites, limit),
            }
        }
        Command::Causes { config, account, output } => {
            let which = Selection { account, ..Selection::default() };
            let causes = open(config).await?.causes(&which).await.map_err(anyhow::Error::from)?;
            let causes: Vec<CauseView> = causes.iter().map(CauseView::from).collect();
            match output {
                Output::Json => print_json(&causes),
                Output::Table if causes.is_empty() => println!("no invite is dead"),
                Output::Table => show_causes(&causes),
            }
        }
        Command::Orders { config, limit, output } => {
            let orders = open(config).await?.orders(limit).await.map_err(anyhow::Error::from)?;
            let orders: Vec<OrderView> = orders.iter().map(OrderView::from).collect();
            match output {
                Output::Json => print_json(&orders),
                Output::Table if orders.is_empty() => println!("no orders were given"),
                Output::Table => show_orders(&orders),
            }
        }
        Command::Redrive { ids, config, cause, account, all, by, apply, output } => {
            if ids.is_empty() && cause.is_none() && account.is_none() && !all {
                return Err(Failure::Usage(
                    "say which invites: ACCOUNT/PK, --cause, --account or --all; `invites causes` shows what there is"
                        .to_owned(),
                ));
            }
            let desk = Desk::find(config.load()?.config).await?;
            let mut selections: Vec<Selection> =
                ids.into_iter().map(|id| Selection { invite: Some(id), ..Selection::default() }).collect();
            if selections.is_empty() {
                selections.push(Selection { invite: None, account, cause });
            }
            let mut answer = RedriveAnswer { applied: apply, count: 0, causes: Vec::new() };
            for which in &selections {
                let part = desk.redrive(which, &by, apply).await?;
                answer.count += part.count;
                answer.causes.extend(part.causes);
            }
            match output {
                Output::Json => print_json(&answer),
                Output::Table => show_redrive(&answer),
            }
        }
        Command::Reissue { account, pk, config, by } => {
            let key = TruckerKey { account, pk };
            let generation = Desk::find(config.load()?.config).await?.reissue(key.clone(), &by).await?;
            println!("{key}: generation {generation} begins; the code before it stops working");
        }
        Command::Show { id, config, output } => {
            let story = open(config).await?.show(&id).await.map_err(anyhow::Error::from)?;
            let Some(story) = story else {
                return Err(Failure::Failed(anyhow::anyhow!("there is no invite {id} in this store")));
            };
            let shown = InviteView::from(&story);
            match output {
                Output::Json => print_json(&shown),
                Output::Table => show(&shown),
            }
        }
    }
    Ok(())
}

async fn open(config: ConfigArgs) -> Result<Peek, Failure> {
    let loaded = config.load()?;
    Ok(Peek::open(&loaded.config).await?)
}

fn list(invites: &[Invite], limit: usize) {
    if invites.is_empty() {
        println!("no invites");
        return;
    }
    let mut rows = table(&["invite", "state", "gen", "attempts", "age", "cause"]);
    let now = time::now();
    for invite in invites {
        rows.add_row([
            invite.key.to_string(),
            invite.state.name().to_string(),
            invite.generation.to_string(),
            invite.attempts.to_string(),
            age(now, invite.accepted_at),
            invite.last_failure.as_ref().map(ToString::to_string).unwrap_or_default(),
        ]);
    }
    print_table(&rows);
    if invites.len() == limit {
        println!("(the newest {limit}; see --limit)");
    }
}

fn show_causes(causes: &[CauseView]) {
    let mut rows = table(&["account", "cause", "dead", "first", "last"]);
    for cause in causes {
        let count = cause.count.to_string();
        rows.add_row([&cause.account, &cause.cause, &count, &cause.first, &cause.last]);
    }
    print_table(&rows);
}

fn show_orders(orders: &[OrderView]) {
    let mut rows = table(&["at", "by", "order", "invites", "which"]);
    for order in orders {
        let count = order.count.to_string();
        rows.add_row([&order.at, &order.by, order.kind.as_str(), &count, &order.target]);
    }
    print_table(&rows);
}

fn show_redrive(answer: &RedriveAnswer) {
    if answer.count == 0 {
        println!("no dead invite fits");
        return;
    }
    show_causes(&answer.causes);
    let invites = if answer.count == 1 { "1 invite".to_owned() } else { format!("{} invites", answer.count) };
    if answer.applied {
        println!("{invites} back to work");
    } else {
        println!("{invites} would be put back to work; add --apply to do it");
    }
}

fn show(shown: &InviteView) {
    let mut rows = table(&["", ""]);
    let mut row = |name: &str, value: String| {
        rows.add_row([name.to_owned(), value]);
    };
    row("invite", shown.invite.clone());
    row("state", shown.state.to_string());
    row("generation", shown.generation.to_string());
    row("attempts", shown.attempts.to_string());
    row("accepted", shown.accepted_at.clone());
    for (name, value) in [("ready", &shown.ready_at), ("ended", &shown.ended_at), ("goes on", &shown.next_at)]
    {
        if let Some(value) = value {
            row(name, value.clone());
        }
    }
    if let Some(failure) = &shown.failure {
        row("last failure", format!("{} ({})", failure.class, failure.code));
    }
    row("was ever unknown", if shown.ever_unknown { "yes" } else { "no" }.to_owned());
    row("code", if shown.code_kept { "kept (masked)" } else { "not kept" }.to_owned());
    for event in &shown.events {
        row("event", format!("{} from {} at {}", event.id, event.source, event.accepted_at));
    }
    for line in rows.to_string().lines().skip(1) {
        println!("{}", line.trim_end());
    }
}

fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.since(then).as_secs();
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}
