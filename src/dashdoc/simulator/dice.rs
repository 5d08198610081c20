//! Seeded chance: the same seed gives the same faults and codes, whatever the order of arrival.
//!
//! Every roll has a generator of its own, made from the seed, the trucker and the number of the request.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::faults::{Fault, Mix};

/// Capital letters and digits that aren't mistaken for each other when a driver types them.
const ALPHABET: &[u8] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";

/// Length of the codes that Dashdoc documents.
const CODE_LENGTH: usize = 6;

/// What is rolled for; keeps the streams apart.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Post = 1,
    Get = 2,
    Code = 3,
}

/// The generator for the `n`th roll of one trucker.
pub(super) fn generator(seed: u64, purpose: Purpose, pk: u64, n: u64) -> StdRng {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&pk.to_le_bytes());
    bytes[16..24].copy_from_slice(&n.to_le_bytes());
    bytes[24] = purpose as u8;
    StdRng::from_seed(bytes)
}

/// One fault, or none, by the chances of `mix`.
pub(super) fn fault(mix: &Mix, rng: &mut StdRng) -> Fault {
    let mut left: f64 = rng.random();
    for (fault, _, chance) in mix.chances() {
        if left < chance {
            return fault;
        }
        left -= chance;
    }
    Fault::None
}

/// The latency with its jitter.
pub(super) fn latency(mix: &Mix, rng: &mut StdRng) -> Duration {
    let jitter = if mix.jitter_ms == 0 { 0 } else { rng.random_range(0..=mix.jitter_ms) };
    Duration::from_millis(mix.latency_ms.saturating_add(jitter))
}

/// A code of six characters.
pub(super) fn code(rng: &mut StdRng) -> String {
    (0..CODE_LENGTH).map(|_| char::from(ALPHABET[rng.random_range(0..ALPHABET.len())])).collect()
}
