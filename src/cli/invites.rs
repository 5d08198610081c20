//! `invite-relay invites`

use clap::Subcommand;

use super::output::{Output, print_json, print_table, table};
use super::{ConfigArgs, Failure};
use crate::app::store_path;
use crate::invite::{AccountName, Invite, StateName, TruckerKey};
use crate::store::Filter;
use crate::store::sqlite::Peek;
use crate::store::view::InviteView;
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

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::List { config, state, account, limit, output } => {
            let invites =
                open(config)?.list(&Filter { state, account, limit }).map_err(anyhow::Error::from)?;
            match output {
                Output::Json => {
                    print_json(&invites.iter().map(InviteView::from).collect::<Vec<_>>());
                }
                Output::Table => list(&invites, limit),
            }
        }
        Command::Show { id, config, output } => {
            let story = open(config)?.show(&id).map_err(anyhow::Error::from)?;
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

fn open(config: ConfigArgs) -> Result<Peek, Failure> {
    let loaded = config.load()?;
    let path = store_path(&loaded.config)?;
    Ok(Peek::open(&path).map_err(anyhow::Error::from)?)
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
