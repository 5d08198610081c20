//! `invite-relay config`

use clap::Subcommand;

use super::output::{Output, print_json};
use super::{ConfigArgs, Failure};
use crate::config;

#[derive(clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Report every problem at once, each with its key, its origin and the mend
    #[command(after_help = "Example:\n  invite-relay config check --config relay.toml")]
    Check(ConfigArgs),
    /// Print the effective configuration and where each value comes from; secrets are masked
    #[command(
        after_help = "Example:\n  INVITE_RELAY__DASHDOC__TIMEOUT=5s invite-relay config show --config relay.toml"
    )]
    Show {
        #[command(flatten)]
        config: ConfigArgs,
        /// Form of the output (a table here is TOML)
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Print the JSON Schema of the configuration, for editors
    #[command(after_help = "Example:\n  invite-relay config schema > invite-relay.schema.json")]
    Schema,
}

pub(super) fn run(args: Args) -> Result<(), Failure> {
    match args.command {
        Command::Check(config) => {
            let loaded = config.load()?;
            for warning in &loaded.warnings {
                eprintln!("warning: {warning}");
            }
            println!("the configuration is fine");
        }
        Command::Show { config, output } => {
            let loaded = config.load()?;
            match output {
                Output::Table => print!("{}", config::show(&loaded)),
                Output::Json => print_json(&config::show_json(&loaded)),
            }
        }
        Command::Schema => print_json(&config::schema()),
    }
    Ok(())
}
