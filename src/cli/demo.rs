//! x
use super::Failure;
#[derive(clap::Args)]
pub(super) struct Args {}
pub(super) async fn run(_args: Args) -> Result<(), Failure> {
    Ok(())
}
