//! One run: things go wrong, everything is healed, everything drains, everything is compared.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::time::sleep;

use crate::checker::{self, Evidence};
use crate::http;
use crate::plan::{Plan, Planned, generator};
use crate::platform::SOURCE_QUEUE;
use crate::report;
use crate::support;
use crate::timeline::Timeline;
use crate::world::{World, pk_of};

/// How long everything may take to come to an end after the last fault: a lease, a read-back after publishing,
/// the time by which the clock may have been set back, and patience with a busy machine.
const DRAIN_LIMIT: Duration = Duration::from_secs(240);
/// What the load's decisions are drawn with; lanes have 0, 1 and 2.
const LOAD: u64 = 100;

/// What is run.
pub(crate) struct Settings {
    pub(crate) seed: u64,
    pub(crate) lasts: Duration,
    pub(crate) rate: f64,
    pub(crate) store: Option<String>,
    pub(crate) keep: bool,
}

impl Settings {
    /// The command that does the same again.
    pub(crate) fn command(&self) -> String {
        let (seconds, seed, rate) = (self.lasts.as_secs(), self.seed, self.rate);
        let store = self.store.as_ref().map(|store| format!(" --store {store}")).unwrap_or_default();
        format!("scripts/chaos --seconds {seconds} --seed {seed} --rate {rate}{store}")
    }
}

/// Runs, and panics with everything that is wrong.
pub(crate) async fn run(settings: Settings) {
    let timeline = Arc::new(Timeline::begin(settings.seed));
    timeline.note(&format!("seed {}; again with: {}", settings.seed, settings.command()));
    let plan = Plan::new(settings.seed, settings.lasts);
    timeline.write("plan.txt", &plan.to_string());
    let world = World::start(Arc::clone(&timeline), settings.seed, settings.store.as_deref()).await;

    let (service, platform) = (Arc::clone(&world.service), Arc::clone(&world.platform));
    let mut keeping = tokio::task::JoinSet::new();
    keeping.spawn(async move { service.keep().await });
    keeping.spawn(async move { platform.publish().await });
    support::soon("the first start of the service", world.service.started()).await;
    timeline.note("everything has started");

    let started = Instant::now();
    let until = started + settings.lasts;
    let telling = world.platform.tell(&world.service, generator(settings.seed, LOAD), settings.rate, until);
    let lanes = plan.lanes.iter().map(|(_, planned)| suffer(&world, planned, started, until));
    let suffering = async {
        futures_util::future::join_all(lanes).await;
        world.heal();
    };
    // The load ends by itself, and what it has told last is accepted once all is healed.
    tokio::join!(suffering, telling);

    let healed = Instant::now();
    let mut findings = Vec::new();
    if let Err(stuck) = drain(&world).await {
        findings.extend(stuck);
    }
    timeline.note(&format!("drained {:.1} s after the last fault", healed.elapsed().as_secs_f64()));
    let evidence = collect(&world).await;
    let (wrong, counts) = checker::check(&evidence);
    findings.extend(wrong);
    findings.extend(world.service.surprises());
    findings.extend(world.platform.with_ledger(|ledger| ledger.wrong_answers.clone()));

    timeline.note(&report::summary(&world, &evidence, &counts));
    timeline.note(&format!("seed {}; again with: {}", settings.seed, settings.command()));
    if !findings.is_empty() {
        report::keep(&world, &evidence, &findings);
    }
    keeping.shutdown().await;
    // The disk is unmounted before the directory goes.
    drop(world);
    assert!(
        findings.is_empty(),
        "{} findings, evidence in target/chaos/{}; the first:\n  {}",
        findings.len(),
        settings.seed,
        findings[..findings.len().min(20)].join("\n  ")
    );
    if !settings.keep {
        timeline.discard();
    }
}

async fn suffer(world: &World, planned: &[Planned], started: Instant, until: Instant) {
    for planned in planned {
        tokio::time::sleep_until((started + planned.at).into()).await;
        if Instant::now() + planned.lasts + planned.fault.overhead() > until {
            return;
        }
        world.suffer(planned).await;
    }
}

/// Waits until everything that was accepted has come to its end. Names what has not.
async fn drain(world: &World) -> Result<(), Vec<String>> {
    let deadline = Instant::now() + DRAIN_LIMIT;
    loop {
        let stuck = stuck(world).await;
        if stuck.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(stuck);
        }
        sleep(Duration::from_secs(1)).await;
    }
}

async fn stuck(world: &World) -> Vec<String> {
    let n_pending = world.platform.n_pending();
    if n_pending > 0 {
        return vec![format!("stuck: {n_pending} events are told and not accepted")];
    }
    let invites = match world.service.invites().await {
        Ok(invites) => invites,
        Err(error) => return vec![format!("stuck: the store can't be read: {error}")],
    };
    let stored: BTreeSet<u64> = invites.iter().filter_map(pk_of).collect();
    let missing = accepted(world).difference(&stored).count();
    if missing > 0 {
        return vec![format!(
            "stuck: {missing} truckers were accepted by the broker and are not in the store"
        )];
    }
    let unfinished: Vec<_> =
        invites.iter().filter(|invite| !invite["next_at"].is_null()).map(shown).collect();
    if !unfinished.is_empty() {
        return unfinished;
    }
    let text = tokio::task::block_in_place(|| {
        world.broker.ctl(&["list_queues", "name", "messages", "--formatter", "json"])
    });
    let queues: Vec<Value> = serde_json::from_str(&text).unwrap();
    let source = queues.iter().find(|queue| queue["name"] == SOURCE_QUEUE);
    match source.map(|queue| &queue["messages"]) {
        Some(messages) if *messages == 0 => Vec::new(),
        other => vec![format!("stuck: messages in the source's queue: {other:?}")],
    }
}

fn shown(invite: &Value) -> String {
    format!(
        "stuck: {} is {}, generation {}, due {}, last failure {}",
        invite["invite"], invite["state"], invite["generation"], invite["next_at"], invite["failure"]
    )
}

fn accepted(world: &World) -> BTreeSet<u64> {
    world.platform.with_ledger(|ledger| ledger.events.keys().copied().collect())
}

async fn collect(world: &World) -> Evidence {
    let (announced, dead_letters) = world.platform.take().await.unwrap();
    let invites = world.service.invites().await.unwrap_or_default();
    let metrics = metrics(world, invites.len()).await;
    Evidence {
        accepted: accepted(world),
        poison: world.platform.with_ledger(|ledger| ledger.poison.clone()),
        announced,
        dead_letters,
        books: books(&metrics),
        metrics,
        invites,
        truckers: world.api.truckers(),
        stats: world.api.stats(),
        log: std::fs::read_to_string(world.timeline.path("service.log")).unwrap(),
        secrets: world.secrets(),
    }
}

/// The page of metrics, once it agrees with the store: gauges of stored invites are set every five seconds.
async fn metrics(world: &World, n_invites: usize) -> String {
    let mut page = String::new();
    for _ in 0..20 {
        let Some(ports) = world.service.ports() else { break };
        let asked = http::get(format!("http://{}/metrics", ports.admin));
        page = tokio::time::timeout(Duration::from_secs(3), asked).await.unwrap_or_default();
        if books(&page).get("published") == Some(&(n_invites as u64)) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    page
}

/// The gauges of stored invites by state, over all accounts.
fn books(page: &str) -> BTreeMap<String, u64> {
    let mut books = BTreeMap::new();
    for (state, n) in page.lines().filter_map(gauge) {
        *books.entry(state).or_default() += n;
    }
    books
}

fn gauge(line: &str) -> Option<(String, u64)> {
    let labels = line.strip_prefix("invite_relay_invites{")?;
    let (_, state) = labels.split_once("state=\"")?;
    let (state, rest) = state.split_once('"')?;
    Some((state.to_owned(), rest.rsplit_once(' ')?.1.parse().ok()?))
}
