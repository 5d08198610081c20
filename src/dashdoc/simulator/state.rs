//! The state of the simulated company, behind one short lock that is never held across a wait.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::body::{self, Person};
use super::dice::{self, Purpose};
use super::faults::{Fault, Faults, RetryAfter};
use super::handle::Hold;
use super::report::{Cause, End, IssuedCode, Stats};
use super::settings::{Settings, Truckers};
use super::trucker::Trucker;

/// The window of the rate limit.
const RATE_WINDOW: Duration = Duration::from_secs(1);

/// The first pk that a creation without one gets; above the sample's, to tell them apart.
const FIRST_OWN_PK: u64 = 1_000_000;

/// What connections, handles and late effects share.
pub(super) struct Shared {
    world: Mutex<World>,
    /// Rung after every change, for `Handle::wait_for`.
    pub(super) changed: Notify,
    /// The base of the list's own links: the simulator, or the foreign origin of the settings.
    pub(super) link_base: String,
    pub(super) page_size: usize,
}

impl Shared {
    pub(super) fn new(settings: Settings, base_url: &str) -> Self {
        let link_base = match &settings.foreign_next {
            Some(origin) => format!("{}{}", origin.trim_end_matches('/'), super::api::BASE_PATH),
            None => base_url.to_owned(),
        };
        let page_size = settings.page_size.max(1);
        Self { world: Mutex::new(World::new(settings)), changed: Notify::new(), link_base, page_size }
    }

    /// Reads the state. A panic under the lock leaves counts at worst one off, so poison is ignored.
    pub(super) fn look(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state and wakes who waits for a change.
    pub(super) fn change<T>(&self, with: impl FnOnce(&mut World) -> T) -> T {
        let result = with(&mut self.look());
        self.changed.notify_waiters();
        result
    }
}

/// What kind of request a fault is drawn for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ask {
    Post,
    Get,
}

/// What will happen to an admitted request, all of it decided when it arrives.
pub(super) struct Plan {
    pub(super) fault: Fault,
    pub(super) latency: Duration,
    pub(super) late_effect: Duration,
    pub(super) drip: Duration,
    pub(super) retry_after: RetryAfter,
    pub(super) hold: Option<Hold>,
}

pub(super) struct World {
    pub(super) faults: Faults,
    tokens: HashSet<String>,
    /// When each token's requests of the last second were let in, oldest first.
    windows: HashMap<String, VecDeque<Instant>>,
    pub(super) truckers: BTreeMap<u64, Trucker>,
    codes: HashSet<Box<str>>,
    remote_ids: HashSet<Box<str>>,
    pub(super) stats: Stats,
    /// How many lists were read, the number that their faults are rolled with.
    lists: u64,
    /// How many POSTs were answered 400, so that each gets the next error shape.
    pub(super) rejections: usize,
    next_own_pk: u64,
    rate_limit: u32,
    pub(super) retry_after_on_limit: bool,
    existence: Truckers,
    seed: u64,
}

/// Why a request is refused before any fault is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    BadToken,
    OverTheLimit,
    NoSuchTrucker,
}

impl World {
    fn new(settings: Settings) -> Self {
        Self {
            faults: settings.faults,
            tokens: settings.tokens.into_iter().collect(),
            windows: HashMap::new(),
            truckers: BTreeMap::new(),
            codes: HashSet::new(),
            remote_ids: HashSet::new(),
            stats: Stats::default(),
            lists: 0,
            rejections: 0,
            next_own_pk: FIRST_OWN_PK,
            rate_limit: settings.rate_limit,
            retry_after_on_limit: settings.retry_after_on_limit,
            existence: settings.truckers,
            seed: settings.seed,
        }
    }

    pub(super) fn set_tokens(&mut self, tokens: Vec<String>) {
        self.tokens = tokens.into_iter().collect();
    }

    /// Counts a request in; `left` undoes the part of it that is about being in flight.
    pub(super) fn arrived(&mut self, ask: Option<Ask>, pk: Option<u64>) {
        self.stats.in_flight += 1;
        self.stats.peak_in_flight = self.stats.peak_in_flight.max(self.stats.in_flight);
        match ask {
            Some(Ask::Post) => self.stats.posts += 1,
            Some(Ask::Get) => self.stats.gets += 1,
            None => {}
        }
        let Some(trucker) = pk.map(|pk| self.truckers.entry(pk).or_default()) else { return };
        match ask {
            Some(Ask::Post) => {
                trucker.posts += 1;
                trucker.posts_in_flight += 1;
                trucker.peak_posts_in_flight = trucker.peak_posts_in_flight.max(trucker.posts_in_flight);
            }
            Some(Ask::Get) => trucker.gets += 1,
            None => {}
        }
    }

    /// Counts a request out, with the status it was answered, if it was.
    pub(super) fn left(&mut self, ask: Option<Ask>, pk: Option<u64>, status: Option<StatusCode>) {
        self.stats.in_flight -= 1;
        match status {
            Some(status) => *self.stats.by_status.entry(status.as_u16()).or_default() += 1,
            None => self.stats.unanswered += 1,
        }
        if status == Some(StatusCode::TOO_MANY_REQUESTS) {
            self.stats.throttled += 1;
        }
        if let (Some(Ask::Post), Some(pk)) = (ask, pk) {
            let trucker = self.truckers.entry(pk).or_default();
            trucker.posts_in_flight -= 1;
            trucker.post_answers.push(status.map(|status| status.as_u16()));
        }
    }

    /// The door: token, then rate limit.
    pub(super) fn admit(&mut self, token: Option<&str>) -> Result<(), Refusal> {
        let token = token.filter(|token| self.tokens.contains(*token)).ok_or(Refusal::BadToken)?;
        let limit = self.faults.rate_limit.unwrap_or(self.rate_limit) as usize;
        if limit == 0 {
            return Ok(());
        }
        let now = Instant::now();
        let window = self.windows.entry(token.to_owned()).or_default();
        while window.front().is_some_and(|&oldest| now.duration_since(oldest) >= RATE_WINDOW) {
            window.pop_front();
        }
        if window.len() >= limit {
            return Err(Refusal::OverTheLimit);
        }
        window.push_back(now);
        Ok(())
    }

    /// Finds an admitted trucker, creating it if every trucker exists.
    pub(super) fn find(&mut self, pk: u64) -> Result<(), Refusal> {
        let now = Instant::now();
        let trucker = self.truckers.entry(pk).or_default();
        let first_asked = *trucker.first_asked.get_or_insert(now);
        if now.duration_since(first_asked) < Duration::from_millis(self.faults.absent_ms) {
            return Err(Refusal::NoSuchTrucker);
        }
        match (trucker.exists(), self.existence) {
            (true, _) => Ok(()),
            (false, Truckers::Any) => {
                self.add_code(pk, Cause::Creation);
                Ok(())
            }
            (false, Truckers::Known) => Err(Refusal::NoSuchTrucker),
        }
    }

    /// Decides what will happen to an admitted request; without a pk, one for the list.
    pub(super) fn plan(&mut self, ask: Ask, pk: Option<u64>) -> Plan {
        let (mix, purpose) = match ask {
            Ask::Post => (&self.faults.post, Purpose::Post),
            Ask::Get => (&self.faults.read, Purpose::Get),
        };
        let trucker = pk.and_then(|pk| self.truckers.get_mut(&pk));
        let n = match (&trucker, ask) {
            (Some(trucker), Ask::Post) => trucker.posts,
            (Some(trucker), Ask::Get) => trucker.gets,
            (None, _) => {
                self.lists += 1;
                self.lists
            }
        };
        let mut rng = dice::generator(self.seed, purpose, pk.unwrap_or(0), n);
        let rolled = dice::fault(mix, &mut rng);
        let (scripted, hold) = match (trucker, ask) {
            (Some(trucker), Ask::Post) => (trucker.post_script.pop_front(), trucker.post_holds.pop_front()),
            (Some(trucker), Ask::Get) => (trucker.get_script.pop_front(), trucker.get_holds.pop_front()),
            (None, _) => (None, None),
        };
        Plan {
            fault: scripted.unwrap_or(rolled),
            latency: dice::latency(mix, &mut rng),
            late_effect: Duration::from_millis(mix.late_effect_ms),
            drip: Duration::from_millis(mix.drip_ms),
            retry_after: mix.retry_after,
            hold,
        }
    }

    /// The effect of a POST: a new code, in place of the old one.
    pub(super) fn generate(&mut self, pk: u64, fault: Fault) {
        self.add_code(pk, Cause::Generate { fault });
        self.stats.effects += 1;
        self.truckers.entry(pk).or_default().effects += 1;
    }

    fn add_code(&mut self, pk: u64, cause: Cause) {
        let trucker = self.truckers.entry(pk).or_default();
        if !trucker.exists() {
            self.stats.truckers += 1;
        }
        let mut rng = dice::generator(self.seed, Purpose::Code, pk, trucker.codes.len() as u64);
        let code = loop {
            let mut code = dice::code(&mut rng);
            if matches!(cause, Cause::Generate { fault: Fault::OddCode }) {
                code.insert_str(0, "odd-");
            }
            if self.codes.insert(code.clone().into_boxed_str()) {
                break code;
            }
        };
        trucker.end_code(End::Replaced);
        trucker.codes.push(IssuedCode { code, at: crate::time::now(), cause, end: None });
    }

    /// Creates a trucker; an error names the field that is taken.
    pub(super) fn create(&mut self, pk: Option<u64>, remote_id: Option<&str>) -> Result<u64, &'static str> {
        let pk = pk.unwrap_or_else(|| {
            while self.truckers.get(&self.next_own_pk).is_some_and(Trucker::exists) {
                self.next_own_pk += 1;
            }
            self.next_own_pk
        });
        if self.truckers.get(&pk).is_some_and(Trucker::exists) {
            return Err("pk");
        }
        if let Some(remote_id) = remote_id
            && !self.remote_ids.insert(remote_id.into())
        {
            return Err("remote_id");
        }
        self.truckers.entry(pk).or_default().remote_id = remote_id.map(Into::into);
        self.add_code(pk, Cause::Creation);
        Ok(pk)
    }

    /// A driver signs in: true if `code` (or any, without one) was the trucker's valid code, now used up.
    pub(super) fn use_code(&mut self, pk: u64, code: Option<&str>) -> bool {
        let Some(trucker) = self.truckers.get_mut(&pk) else { return false };
        let valid = trucker.code().is_some_and(|valid| code.is_none_or(|code| code == valid));
        if valid {
            trucker.end_code(End::Used);
        }
        valid
    }

    /// The trucker as the API writes it, with what `fault` does to the code shown.
    pub(super) fn object(&self, pk: u64, fault: Fault) -> String {
        let trucker = self.truckers.get(&pk);
        let invite_code = match fault {
            Fault::NoCode => None,
            Fault::EmptyCode => Some(""),
            _ => Some(trucker.and_then(Trucker::code).unwrap_or_default()),
        };
        let remote_id = trucker.and_then(|trucker| trucker.remote_id.as_deref());
        body::trucker(&Person { pk, remote_id, invite_code })
    }

    /// One page of the truckers that exist, counted from 1, and whether there are more; `None` past the end.
    pub(super) fn page(&self, page: usize, size: usize, fault: Fault) -> Option<(Vec<String>, bool)> {
        let before = page.checked_sub(1)?.checked_mul(size)?;
        let mut existing = self.truckers.iter().filter(|(_, trucker)| trucker.exists()).skip(before);
        let objects: Vec<_> = existing.by_ref().take(size).map(|(&pk, _)| self.object(pk, fault)).collect();
        (page == 1 || !objects.is_empty()).then(|| (objects, existing.next().is_some()))
    }
}
