//! A simulator of the Dashdoc API: truckers with single-use codes, a real rate limit, and faults on the wire.
//!
//! It backs `invite-relay simulate`, the demo and the tests. It shares no code with the API client, so that a
//! mistake in one cannot hide in the other. Everything in it is made up; it keeps all state in memory.
//!
//! Served below `/api/v4`: `POST manager-truckers/{pk}/generate-invite-code/`, `GET manager-truckers/{pk}/`,
//! `GET manager-truckers/?page=N`, `POST manager-truckers/`. Below `/_simulator/`: the control endpoints, see
//! [`Handle`] for the same from Rust.
//!
//! An API request passes, in this order: token, rate limit, existence (`absent_ms`), scripted or rolled fault,
//! latency, hold, effect, hold, reply.
//!
//! | fault | on the wire | a new code? |
//! |---|---|---|
//! | `none` | 200, the trucker | yes |
//! | `error_before` | 500 | no |
//! | `error_after` | 500 | yes |
//! | `reply_lost` | closed without a byte | yes |
//! | `late_effect` | closed without a byte | yes, `late_effect_ms` later |
//! | `reset` | TCP reset | no |
//! | `half_body` | 200, full `Content-Length`, half of the body, closed | yes |
//! | `drip` | 200, 64 bytes every `drip_ms` | yes |
//! | `no_code` | 200, `invite_code` is `null` | yes |
//! | `empty_code` | 200, `invite_code` is `""` | no |
//! | `throttled` | 429, `retry_after` | no |
//! | `unavailable` | 503, `retry_after` | no |
//! | `unauthorized`, `forbidden` | 401, 403 | no |
//! | `rejected` | 400, another of the API's error shapes each time | no |
//! | `not_found` | 404 | no |
//! | `redirect` | 302 to another host | no |
//! | `garbage` | 200, a page of HTML | no |
//! | `oversized` | 200, a trucker of 4 MiB | yes |
//! | `odd_code` | 200, a code of 10 characters | yes |
//!
//! A GET has the same faults with nothing to apply; `odd_code` does nothing there, `no_code` and `empty_code`
//! hide the code in the answer.

mod api;
mod body;
mod control;
mod dice;
mod faults;
mod handle;
mod profiles;
mod report;
mod server;
mod settings;
mod state;
mod trucker;
mod wire;

pub use faults::{Fault, Faults, FaultsError, Mix, RetryAfter};
pub use handle::{Handle, Held, HoldAt};
pub use report::{Cause, End, IssuedCode, Stats, TruckerReport, View};
pub use server::Simulator;
pub use settings::{DEFAULT_TOKEN, Settings, Truckers};
