//! What must be true at the end, whatever happened on the way.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;

use invite_relay::dashdoc::simulator::{Stats, TruckerReport};
use invite_relay::invite::{Announcement, Generation, TruckerKey, event_id};
use serde_json::Value;

use crate::line::Taken;

/// Answers to a POST that certainly had no effect.
const REFUSALS: [u16; 7] = [301, 302, 401, 403, 404, 429, 503];

/// Everything that is compared.
pub(crate) struct Evidence {
    /// Truckers with an accepted event.
    pub(crate) accepted: BTreeSet<u64>,
    /// Nonsense that was accepted by the broker.
    pub(crate) poison: BTreeSet<Vec<u8>>,
    /// What was announced, in order.
    pub(crate) announced: Vec<Taken>,
    /// What was dead-lettered.
    pub(crate) dead_letters: BTreeSet<Vec<u8>>,
    /// The store, as the command line shows it.
    pub(crate) invites: Vec<Value>,
    /// The API's side.
    pub(crate) truckers: Vec<TruckerReport>,
    pub(crate) stats: Stats,
    /// The gauges of stored invites, by state.
    pub(crate) books: BTreeMap<String, u64>,
    /// The page they were read from.
    pub(crate) metrics: String,
    /// What the service wrote to its log.
    pub(crate) log: String,
    /// Token and secrets.
    pub(crate) secrets: Vec<String>,
}

/// The counts of a run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    truckers: usize,
    announcements: usize,
    /// Announcements of an id that was announced before.
    repeated: usize,
    /// Truckers with more than one generation.
    reissued: usize,
    /// Truckers with an unknown outcome, a crash included.
    ever_unknown: usize,
    /// Calls that ended in an unknown outcome under a living process.
    unknown_opened: usize,
}

/// One code's announcement, the same each time.
struct Announced {
    id: String,
    body: Vec<u8>,
    code: String,
}

type ByTrucker = BTreeMap<u64, BTreeMap<u32, Announced>>;

/// Compares everything with everything. Returns what is wrong, and the counts.
pub(crate) fn check(evidence: &Evidence) -> (Vec<String>, Counts) {
    let mut findings = Vec::new();
    let announced = announcements(&evidence.announced, &mut findings);
    let stored: BTreeMap<u64, &Value> =
        evidence.invites.iter().filter_map(|invite| Some((pk_of(invite)?, invite))).collect();
    let api: BTreeMap<u64, &TruckerReport> =
        evidence.truckers.iter().map(|trucker| (trucker.pk, trucker)).collect();

    for pk in &evidence.accepted {
        if !announced.contains_key(pk) {
            findings.push(format!("trucker {pk}: accepted, and no invite-ready"));
        }
    }
    for pk in stored.keys().chain(announced.keys()).chain(api.keys()) {
        if !evidence.accepted.contains(pk) {
            findings.push(format!("trucker {pk}: nobody told of it"));
        }
    }
    for (pk, generations) in &announced {
        of_trucker(*pk, generations, api.get(pk).copied(), stored.get(pk).copied(), &mut findings);
    }
    for trucker in &evidence.truckers {
        let ever_unknown = stored.get(&trucker.pk).is_some_and(|invite| invite["ever_unknown"] == true);
        calls(trucker, ever_unknown, &mut findings);
    }
    books(evidence, stored.len(), &mut findings);
    for body in evidence.poison.difference(&evidence.dead_letters) {
        findings.push(format!("not dead-lettered: {}", String::from_utf8_lossy(body)));
    }
    leaks(evidence, &mut findings);

    let ids: HashSet<_> = evidence.announced.iter().map(|taken| &taken.id).collect();
    let counts = Counts {
        truckers: evidence.accepted.len(),
        announcements: evidence.announced.len(),
        repeated: evidence.announced.len() - ids.len(),
        reissued: announced.values().filter(|generations| generations.len() > 1).count(),
        ever_unknown: evidence.invites.iter().filter(|invite| invite["ever_unknown"] == true).count(),
        unknown_opened: evidence.log.matches("the outcome of a call is not known").count(),
    };
    (findings, counts)
}

fn announcements(deliveries: &[Taken], findings: &mut Vec<String>) -> ByTrucker {
    let mut truckers = ByTrucker::new();
    for Taken { id, body } in deliveries {
        let text = String::from_utf8_lossy(body);
        let event: Value = serde_json::from_str(&text).unwrap_or_default();
        let data = &event["data"];
        let (pk, generation) = (data["trucker"]["pk"].as_u64(), data["generation"].as_u64());
        let (Some(pk), Some(generation), "invite.ready") =
            (pk, generation, event["type"].as_str().unwrap_or_default())
        else {
            findings.push(format!("announced: {text}"));
            continue;
        };
        let id = id.clone().unwrap_or_default();
        if event["id"] != id.as_str() {
            findings.push(format!("trucker {pk}: the message's id is not the event's"));
        }
        let generation = u32::try_from(generation).unwrap();
        let generations = truckers.entry(pk).or_default();
        let latest = generations.last_key_value().map_or(0, |(latest, _)| *latest);
        if generation < latest {
            findings.push(format!("trucker {pk}: generation {generation} came after {latest}"));
        }
        let code = data["invite_code"].as_str().unwrap_or_default().to_owned();
        let first = generations.entry(generation).or_insert_with(|| Announced {
            id: id.clone(),
            body: body.clone(),
            code,
        });
        if first.id != id {
            findings.push(format!("trucker {pk}, generation {generation}: two ids"));
        }
        if first.body != *body {
            findings.push(format!("trucker {pk}, generation {generation}: two bodies"));
        }
    }
    truckers
}

fn of_trucker(
    pk: u64,
    generations: &BTreeMap<u32, Announced>,
    api: Option<&TruckerReport>,
    stored: Option<&Value>,
    findings: &mut Vec<String>,
) {
    let n_last = u32::try_from(generations.len()).unwrap();
    if !generations.keys().copied().eq(1..=n_last) {
        let there: Vec<_> = generations.keys().collect();
        findings.push(format!("trucker {pk}: a generation is missing, there are {there:?}"));
    }
    let key: TruckerKey = format!("default/{pk}").parse().unwrap();
    for (generation, announced) in generations {
        let derived = event_id(&key, Generation::from_stored(*generation), Announcement::Ready);
        if announced.id != derived.to_string() {
            findings.push(format!("trucker {pk}, generation {generation}: not the derived id"));
        }
    }
    let Some((last, announced)) = generations.last_key_value() else { return };
    if stored.is_some_and(|invite| invite["generation"] != *last) {
        findings.push(format!("trucker {pk}: generation {last} was announced last, the store has another"));
    }
    match api.and_then(|trucker| trucker.code.as_ref()) {
        Some(valid) if *valid == announced.code => {}
        _ => {
            findings.push(format!("trucker {pk}: the last code, of generation {last}, is not the valid one"));
        }
    }
}

fn calls(trucker: &TruckerReport, ever_unknown: bool, findings: &mut Vec<String>) {
    let pk = trucker.pk;
    let is_refusal = |answer: &&Option<u16>| answer.is_some_and(|status| REFUSALS.contains(&status));
    let n_refused = trucker.post_answers.iter().filter(is_refusal).count() as u64;
    let n_calls = trucker.posts.saturating_sub(n_refused);
    if n_calls > 1 {
        // Every read-back shows a code, so even an unknown outcome asks for no second POST here.
        findings.push(format!(
            "trucker {pk}: {n_calls} POSTs that may have had an effect, ever unknown: {ever_unknown}"
        ));
    }
    let n_successes = trucker.post_answers.iter().filter(|answer| **answer == Some(200)).count();
    if n_successes > 1 {
        findings.push(format!("trucker {pk}: called again after a success"));
    }
    if trucker.peak_posts_in_flight > 1 {
        findings.push(format!("trucker {pk}: two POSTs at the same time"));
    }
}

fn books(evidence: &Evidence, n_stored: usize, findings: &mut Vec<String>) {
    let mut states: BTreeMap<String, u64> = BTreeMap::new();
    for invite in &evidence.invites {
        let state = invite["state"].as_str().unwrap_or_default().to_owned();
        if state != "published" {
            let (id, failure) = (&invite["invite"], &invite["failure"]);
            findings.push(format!("{id} ended as {state}: {failure}"));
        }
        *states.entry(state).or_default() += 1;
    }
    if n_stored != evidence.accepted.len() {
        let n_accepted = evidence.accepted.len();
        findings.push(format!("{n_accepted} truckers were accepted, {n_stored} are stored"));
    }
    let there = |books: &BTreeMap<String, u64>| {
        books.iter().filter(|(_, n)| **n > 0).map(|(state, n)| (state.clone(), *n)).collect::<Vec<_>>()
    };
    if there(&evidence.books) != there(&states) {
        findings.push(format!("the books say {:?}, the store {states:?}", there(&evidence.books)));
    }
}

fn leaks(evidence: &Evidence, findings: &mut Vec<String>) {
    let codes: HashSet<&str> = evidence
        .truckers
        .iter()
        .flat_map(|trucker| &trucker.codes)
        .filter_map(|issued| issued.code.rsplit('-').next())
        .collect();
    for line in evidence.log.lines() {
        let mut words = line.split(|letter: char| !letter.is_ascii_alphanumeric());
        if words.any(|word| codes.contains(word))
            || evidence.secrets.iter().any(|secret| line.contains(secret))
        {
            findings.push(format!("a code or a secret is in the log: {line}"));
        }
        if line.contains("panicked") {
            findings.push(format!("a panic: {line}"));
        }
    }
}

fn pk_of(invite: &Value) -> Option<u64> {
    invite["invite"].as_str()?.rsplit_once('/')?.1.parse().ok()
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { truckers, announcements, repeated, reissued, ever_unknown, unknown_opened } = self;
        write!(
            f,
            "{truckers} truckers, {announcements} announcements, {repeated} of them repetitions; {ever_unknown} truckers \
             ever unknown, {unknown_opened} calls with an unknown outcome, {reissued} truckers with more than one \
             generation"
        )
    }
}

mod tests;
