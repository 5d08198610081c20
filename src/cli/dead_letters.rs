//! `invite-relay dead-letters`: messages that could not be read, and their way back after a mend.

use anyhow::{Context as _, anyhow};
use clap::Subcommand;
use serde::Serialize;

use super::output::{Output, print_json, print_table, table};
use super::{ConfigArgs, Failure};
use crate::app;
use crate::broker::{self, DeadLetter, DeadQueue, Endpoint, Mode, Which};
use crate::config::RabbitMqSource;
use crate::invite::AccountName;
use crate::store::Operator;
use crate::time;

/// Not set on a message that the broker moved by itself, for example beyond a delivery limit.
const BY_THE_BROKER: &str = "(moved by the broker)";

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Args)]
struct Selected {
    #[command(flatten)]
    config: ConfigArgs,
    /// Look at the queue of this account, not at the one for everybody
    #[arg(long, value_name = "NAME")]
    account: Option<AccountName>,
    /// Only those that died of this reason, as `dead-letters list` shows it
    #[arg(long, value_name = "CODE")]
    reason: Option<String>,
    /// Only the one with this message id
    #[arg(long, value_name = "ID")]
    message_id: Option<String>,
    /// Look at the oldest so many
    #[arg(long, default_value_t = 1000)]
    limit: usize,
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// List the messages in the dead-letter queue, oldest first; never their bodies
    #[command(after_help = "Example:\n  invite-relay dead-letters list --config relay.toml")]
    List {
        #[command(flatten)]
        selected: Selected,
    },
    /// Move messages back to the source queue, after a mend; shows which unless --apply is given
    #[command(after_help = "\
Examples:
  invite-relay dead-letters return --reason no-trucker-pk --by ada          what would be done
  invite-relay dead-letters return --reason no-trucker-pk --by ada --apply
  invite-relay dead-letters return --all --by ada --apply

Each one is safe in the source queue before it leaves this one. It carries who gave it back, and when, in the headers
x-invite-relay-returned-by and x-invite-relay-returned-at. What still can't be read comes back here.")]
    Return {
        #[command(flatten)]
        selected: Selected,
        /// All of them
        #[arg(long, conflicts_with_all = ["reason", "message_id"])]
        all: bool,
        /// Who gives the order; recorded in the message's headers
        #[arg(long, value_name = "NAME")]
        by: Operator,
        /// Do it; without this, nothing is changed
        #[arg(long)]
        apply: bool,
    },
}

#[derive(Serialize)]
struct View<'a> {
    message_id: Option<&'a str>,
    reason_code: Option<&'a str>,
    reason: Option<&'a str>,
    died_at: Option<&'a str>,
    bytes: usize,
}

#[derive(Serialize)]
struct Returned<'a> {
    applied: bool,
    count: usize,
    messages: Vec<View<'a>>,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::List { selected } => {
            let Selected { config, account, reason, message_id, limit, output } = selected;
            let which = Which { reason_code: reason, message_id };
            let queue = open(config, account).await?;
            let letters = queue.dead.list(&which, limit).await;
            queue.dead.close().await;
            let letters = letters.map_err(|error| queue.place.failure(&error))?;
            match output {
                Output::Json => print_json(&letters.iter().map(View::of).collect::<Vec<_>>()),
                Output::Table if letters.is_empty() => println!("no dead letters"),
                Output::Table => show(&letters),
            }
        }
        Command::Return { selected, all, by, apply } => {
            let Selected { config, account, reason, message_id, limit, output } = selected;
            if reason.is_none() && message_id.is_none() && !all {
                return Err(Failure::Usage(
                    "say which messages: --reason, --message-id or --all; `dead-letters list` shows what there is"
                        .to_owned(),
                ));
            }
            let which = Which { reason_code: reason, message_id };
            let queue = open(config, account).await?;
            let letters = if apply {
                queue.dead.give_back(&which, limit, by.as_str(), time::now()).await
            } else {
                queue.dead.list(&which, limit).await
            };
            queue.dead.close().await;
            let letters = letters.map_err(|error| queue.place.failure(&error))?;
            let (count, messages) = (letters.len(), letters.iter().map(View::of).collect());
            match output {
                Output::Json => print_json(&Returned { applied: apply, count, messages }),
                Output::Table if letters.is_empty() => println!("no dead letter fits"),
                Output::Table => {
                    show(&letters);
                    let n = if count == 1 { "1 message".to_owned() } else { format!("{count} messages") };
                    if apply {
                        println!("{n} moved back to {}", queue.place.queue);
                    } else {
                        println!("{n} would be moved back to {}; add --apply to do it", queue.place.queue);
                    }
                }
            }
        }
    }
    Ok(())
}

struct Open {
    dead: DeadQueue,
    place: Place,
}

/// Where it is, for messages.
struct Place {
    endpoint: Endpoint,
    queue: String,
}

impl Place {
    fn failure(&self, error: &broker::Error) -> Failure {
        let Self { endpoint, queue } = self;
        let mend = match error {
            broker::Error::Refused { code: 404, .. } => {
                "; `invite-relay serve` with this configuration makes the queues"
            }
            _ => "; what was not moved is still in the dead-letter queue",
        };
        Failure::Failed(anyhow!("queue {queue}.dead at {endpoint}: {error}{mend}"))
    }
}

async fn open(config: ConfigArgs, account: Option<AccountName>) -> Result<Open, Failure> {
    let config = config.load()?.config;
    let source = match account {
        None => config.source.rabbitmq,
        Some(name) => {
            let queue = config.accounts().remove(&name).and_then(|account| account.queue);
            let mend = format!("the account {name} has no queue of its own; leave out --account");
            config.source.rabbitmq.for_queue(&queue.ok_or(Failure::Usage(mend))?)
        }
    };
    let place = place(&source)?;
    let topology = app::source_topology(&source, Mode::Verify);
    match DeadQueue::open(&place.endpoint, &topology).await {
        Ok(dead) => Ok(Open { dead, place }),
        Err(error) => {
            let endpoint = &place.endpoint;
            Err(Failure::Failed(anyhow!("the broker at {endpoint}: {error}; check source.rabbitmq.url")))
        }
    }
}

fn place(source: &RabbitMqSource) -> anyhow::Result<Place> {
    let url = source.url_source().context("source.rabbitmq.url is not set; set source.rabbitmq.url_file")?;
    let url = url.read().map_err(|error| anyhow!("source.rabbitmq.url: {error}"))?;
    let endpoint =
        Endpoint::parse(&url.reveal().into()).map_err(|error| anyhow!("source.rabbitmq.url: {error}"))?;
    Ok(Place { endpoint: endpoint.with_ca_file(source.ca_file.clone()), queue: source.queue.clone() })
}

impl<'a> View<'a> {
    fn of(letter: &'a DeadLetter) -> Self {
        Self {
            message_id: letter.message_id.as_deref(),
            reason_code: letter.reason_code.as_deref(),
            reason: letter.reason.as_deref(),
            died_at: letter.died_at.as_deref(),
            bytes: letter.n_bytes,
        }
    }
}

fn show(letters: &[DeadLetter]) {
    let mut rows = table(&["died", "reason", "bytes", "message id", "detail"]);
    for letter in letters {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        rows.add_row([
            text(&letter.died_at),
            letter.reason_code.clone().unwrap_or_else(|| BY_THE_BROKER.to_owned()),
            letter.n_bytes.to_string(),
            text(&letter.message_id),
            text(&letter.reason),
        ]);
    }
    print_table(&rows);
}
