//! The `invite-relay` binary: everything it does is in the library.

use std::process::ExitCode;

/// An event is some hundred small allocations on several threads; this allocator takes half the time for them.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    invite_relay::cli::main()
}
