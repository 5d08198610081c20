//! Everything that runs: service, broker, API, the network between them; and how faults are done to it.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use invite_relay::crash::Point;
use invite_relay::dashdoc::simulator::{self, DEFAULT_TOKEN, Faults, Handle, Simulator};
use invite_relay::lifecycle::Lifecycle;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rustix::process::Signal;
use secrecy::ExposeSecret as _;
use tokio::time::sleep;

use crate::api_faults;
use crate::clock::Clock;
use crate::disk::Disk;
use crate::fault::Fault;
use crate::plan::{Planned, generator};
use crate::platform::Platform;
use crate::service::Service;
use crate::settings::Settings;
use crate::support::proxy::Proxy;
use crate::support::rabbitmq::RabbitMq;
use crate::timeline::Timeline;

/// Late effects are looked for once, so long after publishing. Later than any effect is late here, by more than
/// the clock is ever set forth meanwhile.
const VERIFY_AFTER: &str = "15s";
/// From here on a connection that stalled is cut, as by a peer that has given it up: what it held is lost.
const LONGEST_PATIENCE: Duration = Duration::from_secs(2);
/// How long a fault waits for what it has set off.
const PATIENCE: Duration = Duration::from_secs(10);
/// No effect is later than this.
const LATEST_EFFECT: Duration = Duration::from_secs(6);

pub(crate) struct World {
    pub(crate) timeline: Arc<Timeline>,
    pub(crate) service: Arc<Service>,
    pub(crate) broker: RabbitMq,
    pub(crate) platform: Arc<Platform>,
    pub(crate) api: Handle,
    api_life: Lifecycle,
    broker_net: Proxy,
    api_net: Proxy,
    pub(crate) disk: Option<Disk>,
    token_file: PathBuf,
    /// Tokens so far; the last one is valid.
    tokens: Mutex<Vec<String>>,
    api_mood: Mutex<ApiMood>,
}

struct ApiMood {
    faults: Faults,
    /// While the clock leaps, nothing may be late: the second read-back would come too early for it.
    punctual: bool,
}

impl World {
    /// Everything is up and nothing is wrong yet. `store`: a URL instead of a file on a small disk.
    pub(crate) async fn start(timeline: Arc<Timeline>, seed: u64, store: Option<&str>) -> Self {
        let broker = tokio::task::block_in_place(RabbitMq::start);
        let broker_net = Proxy::start(broker.address()).await;
        let settings = simulator::Settings {
            faults: api_faults::calm(),
            rate_limit: 0,
            seed,
            ..simulator::Settings::default()
        };
        let simulator = Simulator::bind(settings).await.unwrap();
        let (api, api_life) = (simulator.handle(), Lifecycle::new());
        let api_net = Proxy::start(simulator.address()).await;
        api_life.spawn_long("simulator", simulator.run(api_life.clone()));
        let platform = Arc::new(Platform::at(broker.url(), Arc::clone(&timeline)).await);

        let disk = if store.is_none() { Disk::mount(&timeline.path("store")) } else { None };
        let token_file = timeline.path("token");
        std::fs::write(&token_file, DEFAULT_TOKEN).unwrap();
        let clock = Clock::find(&timeline.path(""));
        std::fs::create_dir_all(timeline.path("store")).unwrap();
        let own_store = format!("sqlite://{}", timeline.path("store/store.db").display());
        let settings = Settings::fast(&format!("http://{}/api/v4", api_net.address()))
            .without("dashdoc.token")
            .with("dashdoc.token_file", token_file.to_str().unwrap())
            .with("dashdoc.timeout", "2s")
            .with("dashdoc.rate_per_second", 50.0)
            .with("dashdoc.max_in_flight", 8)
            .with("invite.verify_after", VERIFY_AFTER)
            .with("retry.max_delay", "2s")
            // Nothing may die: every fault here passes.
            .with("retry.max_attempts", 1000)
            .with("retry.not_found_for", "30m")
            .with("sink.rabbitmq.confirm_timeout", "2s")
            .with("shutdown.grace", "3s")
            .with("store.url", store.unwrap_or(&own_store));
        let settings = platform.settings(settings, RabbitMq::url_at(broker_net.address()).expose_secret());
        if disk.is_none() {
            timeline.note("left out: a full disk (the store is elsewhere, or mounting is not allowed)");
        }
        if clock.is_none() {
            timeline.note("left out: steps of the clock (faketime is not installed)");
        }
        let service = Arc::new(Service::new(&settings, clock, Arc::clone(&timeline)));
        Self {
            timeline,
            service,
            broker,
            platform,
            api,
            api_life,
            broker_net,
            api_net,
            disk,
            token_file,
            tokens: Mutex::new(vec![DEFAULT_TOKEN.to_owned()]),
            api_mood: Mutex::new(ApiMood { faults: api_faults::calm(), punctual: false }),
        }
    }

    /// Carries out one fault, and ends it.
    pub(crate) async fn suffer(&self, planned: &Planned) {
        let &Planned { fault, lasts, dice, .. } = planned;
        let rng = &mut generator(dice, 0);
        self.timeline.note(&format!("{} for {:.3} s", fault.name(), lasts.as_secs_f64()));
        self.timeline.count(fault);
        match fault {
            Fault::Killed => self.service.signal(Signal::KILL),
            Fault::KilledTwice => {
                self.service.signal(Signal::KILL);
                sleep(lasts).await;
                self.service.signal(Signal::KILL);
            }
            Fault::Down => self.down(lasts).await,
            Fault::Terminated => self.terminate().await,
            Fault::CrashPoint => self.crash_at_a_point(rng, lasts).await,
            Fault::Paused | Fault::PausedBeyondLease => {
                self.service.signal(Signal::STOP);
                sleep(lasts).await;
                self.service.signal(Signal::CONT);
            }
            Fault::DiskFull => self.fill_disk(rng, lasts).await,
            Fault::ClockStep => {
                let by_s: i64 = rng.random_range(1..=4);
                self.set_clock(if rng.random() { by_s } else { -by_s });
            }
            Fault::ClockLeap => self.leap(rng).await,
            Fault::BrokerStopped | Fault::BrokerKilled => {
                tokio::task::block_in_place(|| {
                    if fault == Fault::BrokerKilled { self.broker.kill() } else { self.broker.stop() }
                });
                sleep(lasts).await;
                tokio::task::block_in_place(|| self.broker.start_again());
            }
            Fault::QueueDeleted => self.delete_queue().await,
            Fault::Unbound => {
                self.until_ok("unbinding", async || self.platform.listen(false).await).await;
                sleep(lasts).await;
                self.until_ok("binding", async || self.platform.listen(true).await).await;
            }
            Fault::MemoryAlarm => {
                self.set_watermark(&["0"]);
                sleep(lasts).await;
                self.set_watermark(&["absolute", "1GB"]);
            }
            Fault::BrokerCut => self.broker_net.cut(),
            Fault::BrokerStalled | Fault::BrokerMuted | Fault::BrokerMutedLong | Fault::BrokerRefuses => {
                disturb(&self.broker_net, fault, lasts).await;
            }
            Fault::ApiCut => self.api_net.cut(),
            Fault::ApiStalled | Fault::ApiMuted | Fault::ApiClosed => {
                disturb(&self.api_net, fault, lasts).await;
            }
            Fault::TokenRefused => {
                let valid = self.tokens.lock().unwrap().last().cloned();
                self.api.set_tokens(["nobody has this one".to_owned()]);
                sleep(lasts).await;
                self.api.set_tokens(valid);
            }
            Fault::TokenRotated => {
                let next = format!("token-{:016x}", rng.random::<u64>());
                self.tokens.lock().unwrap().push(next.clone());
                self.api.set_tokens([next.clone()]);
                sleep(lasts).await;
                std::fs::write(&self.token_file, next).unwrap();
            }
            Fault::Slow
            | Fault::Throttled
            | Fault::ThrottledPolitely
            | Fault::Limited
            | Fault::ErrorsBefore
            | Fault::ErrorsAfter
            | Fault::RepliesLost
            | Fault::LateEffects
            | Fault::OddBodies
            | Fault::Forbidden
            | Fault::Redirects
            | Fault::Absent
            | Fault::Mixed => {
                self.set_api(|mood| mood.faults = api_faults::of(fault, rng));
                sleep(lasts).await;
                self.set_api(|mood| mood.faults = api_faults::calm());
            }
        }
    }

    async fn down(&self, lasts: Duration) {
        self.service.want(false);
        self.service.signal(Signal::KILL);
        sleep(lasts).await;
        self.service.want(true);
    }

    async fn terminate(&self) {
        // With a broker or an API that does not answer, the drain is cut short, which is a failure.
        self.service.may_fail(true);
        let n_starts = self.service.n_starts();
        self.service.signal(Signal::TERM);
        if !self.started_since(n_starts).await {
            self.service.surprise("SIGTERM did not end it");
            self.service.signal(Signal::KILL);
        }
        self.service.may_fail(false);
    }

    async fn crash_at_a_point(&self, rng: &mut StdRng, patience: Duration) {
        let point = Point::ALL[rng.random_range(0..Point::ALL.len())];
        let armed = format!("{}:{}", point.name(), rng.random_range(1..=3));
        let n_starts = self.service.n_starts();
        self.service.arm(armed.clone());
        self.service.signal(Signal::KILL);
        sleep(patience).await;
        let passed = self.service.n_starts() > n_starts + 1;
        self.timeline.note(&format!("{armed} was {}passed", if passed { "" } else { "not " }));
        if !passed {
            self.service.signal(Signal::KILL);
        }
    }

    async fn fill_disk(&self, rng: &mut StdRng, lasts: Duration) {
        let Some(disk) = &self.disk else { return };
        // A start needs some bytes.
        self.service.may_fail(true);
        let killed_at = rng.random_bool(0.4).then(|| lasts.mul_f64(rng.random()));
        let begun = tokio::time::Instant::now();
        let mut killed = false;
        while begun.elapsed() < lasts {
            disk.fill();
            if killed_at.is_some_and(|at| begun.elapsed() >= at) && !killed {
                killed = true;
                self.timeline.note("killed on the full disk");
                self.service.signal(Signal::KILL);
            }
            sleep(Duration::from_millis(100)).await;
        }
        disk.free();
        let _ = tokio::time::timeout(PATIENCE, self.service.started()).await;
        self.service.may_fail(false);
    }

    fn set_clock(&self, by_s: i64) {
        if let Some(clock) = self.service.clock() {
            let by_s = clock.step(by_s);
            self.timeline.note(&format!("the clock is set by {by_s:+} s, to {:+} s", clock.offset_s()));
        }
    }

    /// Nothing may be late then: what is found late is found by a second read-back, which is due at once.
    async fn leap(&self, rng: &mut StdRng) {
        self.set_api(|mood| mood.punctual = true);
        sleep(LATEST_EFFECT).await;
        self.set_clock(rng.random_range(35..60));
        sleep(Duration::from_secs(3)).await;
        self.set_api(|mood| mood.punctual = false);
    }

    async fn delete_queue(&self) {
        // What is in the store was in nobody's queue any more.
        let known: HashSet<u64> =
            self.service.invites().await.unwrap_or_default().iter().filter_map(pk_of).collect();
        self.until_ok("deleting the queue", async || self.platform.delete_source_queue(&known).await).await;
    }

    fn set_watermark(&self, to: &[&str]) {
        let arguments: Vec<&str> = ["set_vm_memory_high_watermark"].iter().chain(to).copied().collect();
        tokio::task::block_in_place(|| self.broker.ctl(&arguments));
    }

    fn set_api(&self, change: impl FnOnce(&mut ApiMood)) {
        let mut mood = self.api_mood.lock().unwrap();
        change(&mut mood);
        let faults = mood.faults.clone();
        self.api.set_faults(if mood.punctual { api_faults::punctual(faults) } else { faults });
    }

    async fn started_since(&self, n_starts: usize) -> bool {
        let again = async {
            while self.service.n_starts() == n_starts {
                sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, again).await.is_ok()
    }

    /// For what a healthy broker does at once, and one that has just started a bit later.
    async fn until_ok(&self, what: &str, mut deed: impl AsyncFnMut() -> Result<(), String>) {
        for _ in 0..30 {
            match deed().await {
                Ok(()) => return,
                Err(error) => self.timeline.note(&format!("{what}: {error}; again")),
            }
            sleep(Duration::from_secs(1)).await;
        }
        panic!("{what} does not work on a healthy broker");
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.timeline.note("everything is healed");
        self.set_api(|mood| *mood = ApiMood { faults: Faults::default(), punctual: false });
        for net in [&self.broker_net, &self.api_net] {
            net.cut();
            net.resume();
        }
        self.service.want(true);
        self.service.signal(Signal::CONT);
    }

    /// What must not show in the log.
    pub(crate) fn secrets(&self) -> Vec<String> {
        let mut secrets = self.tokens.lock().unwrap().clone();
        secrets.push(self.platform.secret());
        secrets
    }
}

/// Disturbs the network for a while. Connections that lasted through a long disturbance end with it.
async fn disturb(net: &Proxy, fault: Fault, lasts: Duration) {
    match fault {
        Fault::BrokerStalled | Fault::ApiStalled => net.stall(),
        Fault::BrokerMuted | Fault::BrokerMutedLong | Fault::ApiMuted => net.mute(),
        Fault::BrokerRefuses => net.refuse(),
        _ => net.close(),
    }
    sleep(lasts).await;
    if lasts >= LONGEST_PATIENCE {
        // First, so that not a byte of them moves.
        net.cut();
    }
    net.resume();
}

pub(crate) fn pk_of(invite: &serde_json::Value) -> Option<u64> {
    invite["invite"].as_str()?.rsplit_once('/')?.1.parse().ok()
}

impl Drop for World {
    fn drop(&mut self) {
        self.api_life.begin_drain();
    }
}
