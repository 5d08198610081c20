//! What must be true at the end, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use invite_relay::dashdoc::simulator::{Handle, Stats};
use invite_relay::invite::{Announcement, Generation, TruckerKey, event_id};

use super::platform::Delivery;

/// What was found, for the reader of the test's output.
pub(crate) struct Summary {
    n_truckers: usize,
    n_deliveries: usize,
    n_events: usize,
    n_reissued: usize,
    stats: Stats,
}

/// Every announcement of one code: the same id and the same bytes each time.
struct Announced {
    id: String,
    body: Vec<u8>,
    code: String,
}

/// Checks what was announced against the API, or panics with the first thing that is wrong. Returns the counts.
///
/// For every trucker: what [`check_announced`] says, and at most one new code was made, no call after one that was
/// answered 200.
pub(crate) fn check(pks: impl IntoIterator<Item = u64>, deliveries: &[Delivery], api: &Handle) -> Summary {
    let summary = check_announced(pks, deliveries, api);
    for trucker in api.truckers() {
        let pk = trucker.pk;
        assert!(trucker.effects <= 1, "trucker {pk}: {} codes were made for it", trucker.effects);
        let mut answers = trucker.post_answers.iter().rev().skip(1);
        assert!(answers.all(|answer| *answer != Some(200)), "trucker {pk}: called again after a success");
    }
    summary
}

/// For every trucker: generations 1 to n without a gap, each under its one derived id with one body, never an
/// earlier one after a later one; the last code is the one that is valid at the API; never two calls at a time. No
/// trucker is missing, none is there that was not asked for.
pub(crate) fn check_announced(
    pks: impl IntoIterator<Item = u64>,
    deliveries: &[Delivery],
    api: &Handle,
) -> Summary {
    let expected: BTreeSet<u64> = pks.into_iter().collect();
    let announced = by_trucker(deliveries);
    let missing: Vec<_> = expected.iter().filter(|pk| !announced.contains_key(pk)).collect();
    assert!(missing.is_empty(), "nothing was announced for the truckers {missing:?}");
    let strangers: Vec<_> = announced.keys().filter(|pk| !expected.contains(pk)).collect();
    assert!(strangers.is_empty(), "announced for truckers nobody told of: {strangers:?}");
    let mut ids = BTreeSet::new();
    for (&pk, generations) in &announced {
        let n_last = u32::try_from(generations.len()).unwrap();
        assert!(generations.keys().copied().eq(1..=n_last), "trucker {pk}: a generation is missing");
        for (&generation, announced) in generations {
            let derived = event_id(&key(pk), Generation::from_stored(generation), Announcement::Ready);
            assert_eq!(announced.id, derived.to_string(), "trucker {pk}, generation {generation}: its id");
            assert!(ids.insert(announced.id.clone()), "the id {} was used twice", announced.id);
        }
        let trucker = api.trucker(pk).unwrap();
        let last = &generations[&n_last];
        assert_eq!(
            Some(&last.code),
            trucker.code.as_ref(),
            "trucker {pk}: the last code must be the valid one"
        );
        assert!(trucker.peak_posts_in_flight <= 1, "trucker {pk}: two calls at the same time");
    }
    Summary {
        n_truckers: expected.len(),
        n_deliveries: deliveries.len(),
        n_events: ids.len(),
        n_reissued: announced.values().filter(|generations| generations.len() > 1).count(),
        stats: api.stats(),
    }
}

fn key(pk: u64) -> TruckerKey {
    format!("default/{pk}").parse().unwrap()
}

fn by_trucker(deliveries: &[Delivery]) -> BTreeMap<u64, BTreeMap<u32, Announced>> {
    let mut truckers: BTreeMap<u64, BTreeMap<u32, Announced>> = BTreeMap::new();
    for delivery in deliveries {
        let event = delivery.json();
        assert_eq!(event["type"], "invite.ready", "announced: {event}");
        assert_eq!(event["id"], delivery.id.as_str(), "the message's id is not the event's");
        let data = &event["data"];
        let pk = data["trucker"]["pk"].as_u64().unwrap();
        let generation = u32::try_from(data["generation"].as_u64().unwrap()).unwrap();
        let code = data["invite_code"].as_str().unwrap().to_owned();
        let generations = truckers.entry(pk).or_default();
        let latest = generations.last_key_value().map_or(0, |(latest, _)| *latest);
        assert!(generation >= latest, "trucker {pk}: generation {generation} after {latest}");
        let first = generations.entry(generation).or_insert_with(|| Announced {
            id: delivery.id.clone(),
            body: delivery.body.clone(),
            code,
        });
        assert_eq!(first.id, delivery.id, "trucker {pk}: two ids for generation {generation}");
        assert!(first.body == delivery.body, "trucker {pk}: two bodies for generation {generation}");
    }
    truckers
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { n_truckers, n_deliveries, n_events, n_reissued, stats } = self;
        write!(
            f,
            "{n_truckers} truckers, {n_events} events in {n_deliveries} deliveries, {n_reissued} announced again \
             with another code; {} posts made {} codes, {} gets, {} throttled, {} unanswered, {} in flight at most",
            stats.posts, stats.effects, stats.gets, stats.throttled, stats.unanswered, stats.peak_in_flight
        )
    }
}
