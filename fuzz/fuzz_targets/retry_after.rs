//! `value ␟ date ␟ our seconds ␟ their seconds ␟ wait in seconds`
#![no_main]

use std::time::{Duration, SystemTime};

mod fields;
#[path = "../../tests/laws/retry_after.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [value, date, ours, theirs, wait] = fields::split(input);
    let at = |field| SystemTime::UNIX_EPOCH + Duration::from_secs(fields::number::<u32>(field).unwrap_or(0).into());
    law::holds(fields::text(value).unwrap_or_default(), fields::text(date), at(ours));
    let wait = fields::number::<u32>(wait).unwrap_or(0);
    law::skew_cancels_out(Duration::from_secs(wait.into()), at(theirs), at(ours));
});
