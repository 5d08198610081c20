//! `G or R ␟ pk ␟ status ␟ Retry-After in seconds ␟ code ␟ where to cut ␟ body`
#![no_main]

use std::time::Duration;

use invite_relay::dashdoc::answer::Operation;
use invite_relay::invite::{InviteCode, TruckerPk};

mod fields;
#[path = "../../tests/laws/answer.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [operation, pk, status, retry_after, code, cut, body] = fields::split(input);
    let operation = if operation == b"R" { Operation::Read } else { Operation::Generate };
    let pk = TruckerPk::try_from(fields::number::<u64>(pk).unwrap_or(1)).unwrap_or(TruckerPk::try_from(1).unwrap());
    let status = fields::number(status).unwrap_or(200);
    let retry_after = fields::number::<u16>(retry_after).map(|seconds| Duration::from_secs(seconds.into()));
    law::holds(operation, pk, status, retry_after, body);
    let code = fields::text(code).filter(|code| InviteCode::new(code).is_some());
    if let Some(code) = code {
        law::only_the_whole_of_a_success_gives_a_code(pk, code, status, fields::number(cut).unwrap_or(0));
    }
});
