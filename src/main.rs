//! The `invite-relay` binary: everything it does is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    invite_relay::cli::main()
}
