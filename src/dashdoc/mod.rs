//! Dashdoc: its API as this service speaks it, and a simulator of that API.

pub mod simulator;
