//! Laws of everything that reads what others wrote, over near-valid inputs. The same laws are fuzzed (`fuzz/`).
#![expect(clippy::unwrap_used, reason = "a test's helper may fail the test")]

mod answer;
mod event;
mod overlay;
mod retry_after;
mod signature;

mod near_valid;
