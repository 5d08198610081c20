//! `planted secrets, four letters each ␟ environment, one NAME=VALUE a line ␟ flags, one a line ␟ file`
#![no_main]

mod fields;
#[path = "../../tests/laws/overlay.rs"]
mod law;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let [planted, env, sets, file] = fields::split(input);
    let lines = |field| fields::text(field).unwrap_or_default().lines();
    let env: Vec<_> = lines(env)
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (format!("INVITE_RELAY__{name}"), value.to_owned()))
        .collect();
    let sets: Vec<_> = lines(sets).map(str::to_owned).collect();
    let planted: Vec<_> = planted
        .as_chunks::<4>()
        .0
        .iter()
        .take(3)
        .map(|[key, layer, form, place]| law::Planted { key: *key, layer: *layer, form: *form, place: *place })
        .collect();
    law::holds(&String::from_utf8_lossy(file), &env, &sets, &planted);
});
