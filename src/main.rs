//! The `invite-relay` binary.

fn main() {}
