//! The command line: one file per command. Exit codes: 0 ok, 1 failed, 2 usage or configuration.

mod config;
mod dead_letters;
mod demo;
mod doctor;
mod invites;
mod output;
mod send;
mod serve;
mod simulate;
mod version;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::config::{self as configuration, Loaded, Problems, Sources};
use crate::crash;

/// Turns trucker-created events into Dashdoc invite codes: one valid code for each trucker, announced once.
#[derive(Parser)]
#[command(name = "invite-relay", version, propagate_version = true, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  invite-relay demo --events 20 --exit          see it work: no broker, no token, no other service
  invite-relay demo --faults flaky              the same against an API that fails in every way
  invite-relay config check --config relay.toml every problem at once
  invite-relay serve --config relay.toml        run the service

Exit codes: 0 ok, 1 failed, 2 usage or configuration.";

#[derive(Subcommand)]
enum Command {
    /// Run the service
    Serve(serve::Args),
    /// Watch it work: API simulator, relay, embedded store and sample events in one process
    Demo(demo::Args),
    /// Run the Dashdoc API simulator alone
    Simulate(simulate::Args),
    /// Send a trucker-created event to the configured queue or webhook
    Send(send::Args),
    /// Check store, broker, API and token, each with a verdict and the mend
    Doctor(doctor::Args),
    /// Check, show or describe the configuration
    Config(config::Args),
    /// Look at stored invites, put dead ones back to work, ask for a new code
    Invites(invites::Args),
    /// Look at messages that could not be read, move them back after a mend
    DeadLetters(dead_letters::Args),
    /// Print the version
    Version(version::Args),
}

/// Where the configuration comes from.
#[derive(Args)]
struct ConfigArgs {
    /// TOML file over the built-in defaults; the environment (`INVITE_RELAY__SECTION__KEY`) goes over the file
    #[arg(long, short, value_name = "FILE", env = "INVITE_RELAY_CONFIG")]
    config: Option<PathBuf>,
    /// One setting over all others, for example --set source.rabbitmq.prefetch=50 (not for secrets)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

impl ConfigArgs {
    fn load(self) -> Result<Loaded, Failure> {
        let sources = Sources { file: self.config, env: configuration::environment(), sets: self.sets };
        Ok(configuration::load(sources)?)
    }
}

/// Why a command ends with another code than 0.
enum Failure {
    /// Code 2: the configuration or the arguments are wrong.
    Usage(String),
    /// Code 1: it was understood and failed.
    Failed(anyhow::Error),
    /// Code 1: the output has said it all.
    Unsatisfied,
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::Usage(problems.to_string())
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::Failed(error)
    }
}

/// Runs the command of the process's arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // One TLS provider for the whole process, before anything may use TLS.
    let _ = rustls::crypto::ring::default_provider().install_default();
    match prepare().and_then(|()| run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Unsatisfied) => ExitCode::from(1),
        Err(Failure::Failed(error)) => {
            eprintln!("error: {error:#}");
            ExitCode::from(1)
        }
        Err(Failure::Usage(problem)) => {
            eprintln!("error: {problem}");
            ExitCode::from(2)
        }
    }
}

fn prepare() -> Result<(), Failure> {
    match std::env::var(crash::VARIABLE) {
        Ok(point) => crash::arm(&point).map_err(|error| Failure::Usage(error.to_string())),
        Err(_) => Ok(()),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    match cli.command {
        Command::Serve(args) => blocking(serve::run(args)),
        Command::Demo(args) => blocking(demo::run(args)),
        Command::Simulate(args) => blocking(simulate::run(args)),
        Command::Send(args) => blocking(send::run(args)),
        Command::Doctor(args) => blocking(doctor::run(args)),
        Command::Config(args) => config::run(args),
        Command::Invites(args) => blocking(invites::run(args)),
        Command::DeadLetters(args) => blocking(dead_letters::run(args)),
        Command::Version(args) => {
            version::run(&args);
            Ok(())
        }
    }
}

fn blocking(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(error.into()))?.block_on(command)
}
