//! Dashdoc's API: the client, the meaning of its answers, and a simulator of it.

pub mod answer;
pub mod client;
pub mod probe;
pub mod retry_after;
pub mod simulator;
