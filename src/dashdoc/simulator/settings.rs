//! What a simulator is started with.

use std::net::{Ipv4Addr, SocketAddr};

use super::faults::Faults;

/// The token that is accepted unless others are configured.
pub const DEFAULT_TOKEN: &str = "demo-token";

/// Requests per second and token, as Dashdoc documents it.
const DOCUMENTED_RATE_LIMIT: u32 = 10;

/// Truckers per page of the list, the smaller of the two sizes that Dashdoc documents.
const DOCUMENTED_PAGE_SIZE: usize = 20;

/// What a simulator is started with. Has no `Debug`, because it holds tokens.
#[derive(Clone)]
pub struct Settings {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The faults to begin with; they can be changed while it runs.
    pub faults: Faults,
    /// The accepted tokens; they can be changed while it runs.
    pub tokens: Vec<String>,
    /// Requests per token in any one second, 0 for no limit. `faults.rate_limit` wins where it is set.
    pub rate_limit: u32,
    /// Whether a 429 of the rate limit carries `Retry-After`. Dashdoc documents none.
    pub retry_after_on_limit: bool,
    /// Which truckers exist.
    pub truckers: Truckers,
    /// The seed of codes and faults. One seed, trucker and number of the request give one outcome, in
    /// whatever order the requests of several truckers arrive.
    pub seed: u64,
    /// The origin (`https://api.example.com`) that `next` and `previous` of the list point at, instead of
    /// the simulator itself.
    pub foreign_next: Option<String>,
    /// Truckers per page of the list; at least 1.
    pub page_size: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            faults: Faults::default(),
            tokens: vec![DEFAULT_TOKEN.to_owned()],
            rate_limit: DOCUMENTED_RATE_LIMIT,
            retry_after_on_limit: false,
            truckers: Truckers::Any,
            seed: 1,
            foreign_next: None,
            page_size: DOCUMENTED_PAGE_SIZE,
        }
    }
}

/// Which truckers exist.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Truckers {
    /// Every one: a trucker is created, with a code, when it is first asked for.
    #[default]
    Any,
    /// Only those that were created; the others are 404.
    Known,
}
