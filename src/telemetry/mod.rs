//! What operators see: log lines, traces and metrics.
//!
//! Read [`setup`] for how logs and traces start and end, [`spans`] for every span the service makes,
//! [`propagation`] for how a trace passes through, and [`metrics`] for every number it counts.

mod delivery;
mod filter;
mod lines;
mod otlp;
mod panics;

pub mod metrics;
pub mod propagation;
pub mod setup;
pub mod spans;

#[cfg(test)]
mod testing;
