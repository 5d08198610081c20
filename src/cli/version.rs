//! `invite-relay version`

use super::output::{Output, print_json};

#[derive(clap::Args)]
#[command(after_help = "Example:\n  invite-relay version --output json")]
pub(super) struct Args {
    /// Form of the output
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

pub(super) fn run(args: &Args) {
    let (version, sqlite) = (env!("CARGO_PKG_VERSION"), rusqlite::version());
    match args.output {
        Output::Table => println!("invite-relay {version} (SQLite {sqlite})"),
        Output::Json => print_json(&serde_json::json!({ "version": version, "sqlite": sqlite })),
    }
}
