//! What every store promises, written once. An engine runs the suite by [`for_each_promise`].

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::order::OrderKind;
use super::{
    Admission, Arrival, Due, Error, Filter, GateDecision, Narrow, Operator, Receipt, Redrive, Reissued,
    Selection, Shared, Taken, Work,
};
use crate::invite::{
    AccountName, Answer, Backoff, Cause, Effect, Failure, FailureClass, Gate, GateReason, Generation, Input,
    InviteCode, IssuedCode, Policy, Rules, Setback, Sink, Sinks, State, StateName, TruckerKey,
};
use crate::time::Timestamp;

/// An engine under test: opens the same store again and again. Dropping a store is a crash of its process.
pub(crate) trait Bench {
    /// Opens the store with the rules set last, erasing and retiring whatever is published.
    fn open(&self) -> impl Future<Output = Shared>;
    /// Rules for the next opening.
    fn set_rules(&self, rules: Rules);
    /// A lease that no longer holds when the store is opened again after a crash. Where a store has one process, any:
    /// its successor knows that it is gone. Where it has several, only one that has run out.
    fn ended_lease(&self) -> Duration;
    /// Everything that the engine keeps where it could be found: all bytes on the disk, or, where a server keeps old
    /// versions and logs for a while of its own, all that can still be asked for.
    fn kept_bytes(&self) -> Vec<u8>;
}

/// Calls `$callback!` with the names of all promises.
macro_rules! for_each_promise {
    ($callback:ident) => {
        $callback! {
            a_repeated_event_is_recognised_and_changes_nothing,
            another_event_for_the_same_trucker_joins_its_invite,
            the_same_pk_of_another_account_is_another_trucker,
            due_work_comes_oldest_first_and_not_beyond_the_limit,
            work_that_was_taken_is_not_taken_twice,
            work_in_hand_of_a_process_that_crashed_is_taken_over_and_read_back_first,
            a_second_read_back_comes_no_earlier_for_a_restart,
            a_worker_that_was_overtaken_can_not_write,
            every_state_reads_back_as_it_was_written,
            announcements_are_taken_by_the_sinks_that_are_up,
            a_sink_with_few_places_is_given_no_more_than_it_can_take,
            a_refused_event_is_dead_at_once_and_announced,
            a_closed_gate_is_still_closed_after_a_restart,
            dead_invites_go_back_to_work_by_cause_and_the_order_is_recorded,
            redriven_invites_are_spread_out_and_the_longest_dead_goes_first,
            a_published_invite_begins_its_next_generation_when_a_person_asks,
            an_order_that_does_not_fit_changes_nothing,
            an_erased_code_leaves_no_trace_on_disk_and_its_fingerprint_stays,
            retention_removes_what_is_published_and_never_what_is_dead,
            a_trucker_that_was_retired_goes_on_with_the_next_generation,
            the_books_balance,
        }
    };
}
pub(crate) use for_each_promise;

macro_rules! names {
    ($($name:ident),+ $(,)?) => { &[$(stringify!($name)),+] };
}
/// The names, so that an engine can show that it ran them all.
pub(crate) const ALL: &[&str] = for_each_promise!(names);

/// Rules under which nothing waits.
pub(crate) fn rules() -> Rules {
    Rules {
        policy: Policy::Generate,
        lease: Duration::from_secs(60),
        backoff: Backoff::fixed(Duration::from_nanos(1)),
        max_attempts: 3,
        max_age: Duration::from_secs(3600),
        not_found_for: Duration::from_secs(60),
        verify_after: Duration::ZERO,
        sinks: Sinks::NONE.with(Sink::Rabbitmq),
    }
}

fn key(text: &str) -> TruckerKey {
    text.parse().unwrap()
}

fn arrival(trucker: &str, event: &str, admission: Admission) -> Arrival {
    let mut fields = serde_json::Map::new();
    fields.insert("remote_id".to_owned(), "T-1".into());
    let cause = Cause {
        event_id: event.to_owned(),
        event_source: "/test".to_owned(),
        trucker: fields,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: Some("a=b".to_owned()),
    };
    Arrival { key: key(trucker), cause, admission }
}

/// Waits until the store's clock is well past `moment`.
async fn pass(store: &Shared, moment: Timestamp) {
    while store.now() < moment.after(Duration::from_millis(20)) {
        tokio::task::yield_now().await;
    }
}

async fn accept(store: &Shared, trucker: &str, event: &str, admission: Admission) -> Receipt {
    let mut receipts = store.accept(vec![arrival(trucker, event, admission)]).await.unwrap();
    assert_eq!(receipts.len(), 1);
    receipts.remove(0)
}

pub(crate) async fn start(store: &Shared, trucker: &str) -> Work {
    match accept(store, trucker, "e1", Admission::Start).await {
        Receipt::New(work) => *work,
        other => panic!("expected a new invite, found {other:?}"),
    }
}

async fn take(store: &Shared, limit: usize) -> Taken {
    store.take(Due::Api { account: AccountName::default_account(), limit }).await.unwrap()
}

async fn take_for(store: &Shared, sinks: Sinks) -> Vec<Work> {
    store.take(Due::Publish { sinks, limit: 10, narrow: Narrow::default() }).await.unwrap().work
}

pub(crate) fn issued(store: &Shared, trucker: &str, code: &str) -> Answer {
    let code = InviteCode::new(code).unwrap();
    Answer::Code(IssuedCode { fingerprint: store.fingerprint_key().fingerprint(&key(trucker), &code), code })
}

fn failed(class: FailureClass) -> Answer {
    Answer::Failed { failure: Failure::new(class, "test"), retry_after: None, outage: false }
}

async fn on(store: &Shared, work: Work, input: Input) -> Work {
    store.advance(work.invite, input).await.unwrap()
}

pub(crate) async fn publish(store: &Shared, trucker: &str, code: &str) -> Work {
    let calling = start(store, trucker).await;
    let ready = on(store, calling, Input::Called(issued(store, trucker, code))).await;
    on(store, ready, Input::Confirmed(Sink::Rabbitmq)).await
}

pub(crate) async fn a_repeated_event_is_recognised_and_changes_nothing(bench: &impl Bench) {
    let store = bench.open().await;
    let first = start(&store, "default/1").await;
    assert_eq!(first.effect, Some(Effect::Call));
    let again = accept(&store, "default/1", "e1", Admission::Start).await;
    assert_eq!(again, Receipt::Duplicate(StateName::Calling));
    assert_eq!(store.show(key("default/1")).await.unwrap().unwrap().invite, first.invite);
}

pub(crate) async fn another_event_for_the_same_trucker_joins_its_invite(bench: &impl Bench) {
    let store = bench.open().await;
    start(&store, "default/1").await;
    assert_eq!(
        accept(&store, "default/1", "e2", Admission::Start).await,
        Receipt::Joined(StateName::Calling)
    );
    // Both are remembered: a repeat of either is a duplicate.
    assert_eq!(
        accept(&store, "default/1", "e2", Admission::Queue).await,
        Receipt::Duplicate(StateName::Calling)
    );
    let shown = store.show(key("default/1")).await.unwrap().unwrap();
    assert_eq!(shown.events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["e1", "e2"]);
}

/// Of a trucker whose invite `default/1` was made for the event `e1`.
pub(crate) async fn each_event_is_recognised_and_shown_once(store: &Shared) {
    let again = Receipt::Duplicate(StateName::Calling);
    for (event, receipt) in [
        ("e1", again.clone()),
        ("e2", Receipt::Joined(StateName::Calling)),
        ("e1", again.clone()),
        ("e2", again),
    ] {
        assert_eq!(accept(store, "default/1", event, Admission::Start).await, receipt, "{event}");
    }
    let shown = store.show(key("default/1")).await.unwrap().unwrap();
    assert_eq!(shown.events.iter().map(|event| event.id.as_str()).collect::<Vec<_>>(), ["e1", "e2"]);
}

pub(crate) async fn the_same_pk_of_another_account_is_another_trucker(bench: &impl Bench) {
    let store = bench.open().await;
    start(&store, "default/1").await;
    start(&store, "acme/1").await;
    let filter = Filter { account: Some("acme".parse().unwrap()), limit: 10, ..Filter::default() };
    let listed = store.list(filter).await.unwrap();
    assert_eq!(listed.iter().map(|invite| invite.key.to_string()).collect::<Vec<_>>(), ["acme/1"]);
}

pub(crate) async fn due_work_comes_oldest_first_and_not_beyond_the_limit(bench: &impl Bench) {
    let store = bench.open().await;
    for trucker in ["default/3", "default/1", "acme/9", "default/2"] {
        accept(&store, trucker, "e1", Admission::Queue).await;
        // Due times have milliseconds; the order is only promised between different ones.
        let accepted = store.show(key(trucker)).await.unwrap().unwrap().invite.accepted_at;
        pass(&store, accepted).await;
    }
    let first = take(&store, 2).await;
    let keys = |taken: &Taken| taken.work.iter().map(|work| work.invite.key.to_string()).collect::<Vec<_>>();
    assert_eq!(keys(&first), ["default/3", "default/1"]);
    assert!(first.next_due.is_some_and(|due| due <= store.now()), "there is more");
    assert_eq!(keys(&take(&store, 2).await), ["default/2"]);
}

pub(crate) async fn work_that_was_taken_is_not_taken_twice(bench: &impl Bench) {
    let store = bench.open().await;
    accept(&store, "default/1", "e1", Admission::Queue).await;
    assert_eq!(take(&store, 10).await.work.len(), 1);
    let nothing = take(&store, 10).await;
    assert!(nothing.work.is_empty());
    assert!(nothing.next_due.is_some_and(|due| due > store.now()), "the lease is what falls due next");
}

pub(crate) async fn work_in_hand_of_a_process_that_crashed_is_taken_over_and_read_back_first(
    bench: &impl Bench,
) {
    bench.set_rules(Rules { lease: bench.ended_lease(), ..rules() });
    let store = bench.open().await;
    let calling = start(&store, "default/1").await;
    assert_eq!(calling.invite.state.name(), StateName::Calling);
    drop(store);
    let store = bench.open().await;
    let work = take(&store, 10).await.work.remove(0);
    assert_eq!(work.effect, Some(Effect::Read), "never blindly another POST");
    assert!(work.invite.ever_unknown);
    // The former process can't write any more.
    let late = store.advance(calling.invite, Input::Called(issued(&store, "default/1", "LATE00"))).await;
    assert!(matches!(late, Err(Error::Lost)), "{late:?}");
}

pub(crate) async fn a_second_read_back_comes_no_earlier_for_a_restart(bench: &impl Bench) {
    bench.set_rules(Rules { verify_after: Duration::from_secs(3600), ..rules() });
    let store = bench.open().await;
    let calling = start(&store, "default/1").await;
    let unknown = on(&store, calling, Input::Called(failed(FailureClass::Unknown))).await;
    // Two nanoseconds of backoff have passed; another worker reads the trucker back.
    assert!(unknown.effect.is_none());
    let reading = take(&store, 10).await.work.remove(0);
    let ready = on(&store, reading, Input::Read(issued(&store, "default/1", "K7Q2ZD"))).await;
    let published = on(&store, ready, Input::Confirmed(Sink::Rabbitmq)).await;
    let due = published.invite.state.schedule();
    assert!(due.is_some(), "a second read-back is owed");
    store.close().await.unwrap();
    drop(store);
    // An effect that comes late is looked for when it has had its time, whatever happens to the process.
    let store = bench.open().await;
    assert_eq!(store.show(key("default/1")).await.unwrap().unwrap().invite.state.schedule(), due);
}

pub(crate) async fn a_worker_that_was_overtaken_can_not_write(bench: &impl Bench) {
    bench.set_rules(Rules { lease: Duration::ZERO, ..rules() });
    let store = bench.open().await;
    let slow = start(&store, "default/1").await;
    let fast = take(&store, 1).await.work.remove(0);
    let late = store.advance(slow.invite, Input::Called(issued(&store, "default/1", "SLOW00"))).await;
    assert!(matches!(late, Err(Error::Lost)), "{late:?}");
    let settled = on(&store, fast, Input::Read(issued(&store, "default/1", "FAST00"))).await;
    assert_eq!(store.show(key("default/1")).await.unwrap().unwrap().invite, settled.invite);
}

pub(crate) async fn every_state_reads_back_as_it_was_written(bench: &impl Bench) {
    let store = bench.open().await;
    let mut seen = std::collections::BTreeSet::new();
    let answers = [
        Input::Called(failed(FailureClass::Transient)),
        Input::Called(failed(FailureClass::Throttled)),
        Input::Called(failed(FailureClass::NotFound)),
        Input::Called(failed(FailureClass::Unknown)),
        Input::Called(failed(FailureClass::Rejected)),
        Input::Called(issued(&store, "default/6", "K7Q2ZD")),
    ];
    let mut check = async |work: &Work| {
        seen.insert(work.invite.state.name());
        let stored = store.show(work.invite.key.clone()).await.unwrap().unwrap().invite;
        assert_eq!(stored, work.invite);
    };
    let Receipt::New(received) = accept(&store, "default/99", "e1", Admission::Queue).await else { panic!() };
    check(&received).await;
    for (number, input) in answers.into_iter().enumerate() {
        let calling = start(&store, &format!("default/{}", number + 1)).await;
        check(&calling).await;
        let answered = on(&store, calling, input).await;
        check(&answered).await;
        let round = on(&store, answered, Input::Unconfirmed(Setback::Refused)).await;
        check(&round).await;
        let ended = on(&store, round, Input::Confirmed(Sink::Rabbitmq)).await;
        check(&ended).await;
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), StateName::ALL);
}

pub(crate) async fn announcements_are_taken_by_the_sinks_that_are_up(bench: &impl Bench) {
    let both = Sinks::NONE.with(Sink::Rabbitmq).with(Sink::Webhook);
    bench.set_rules(Rules { sinks: both, ..rules() });
    let store = bench.open().await;
    let calling = start(&store, "default/1").await;
    let ready = on(&store, calling, Input::Called(issued(&store, "default/1", "K7Q2ZD"))).await;
    assert_eq!(ready.effect, Some(Effect::Announce(both)));
    let one_left = on(&store, ready, Input::Confirmed(Sink::Rabbitmq)).await;
    on(&store, one_left, Input::Unconfirmed(Setback::Away)).await;
    assert!(take_for(&store, Sinks::NONE.with(Sink::Rabbitmq)).await.is_empty(), "nothing is pending there");
    let work = take_for(&store, Sinks::NONE.with(Sink::Webhook)).await.remove(0);
    assert_eq!(work.effect, Some(Effect::Announce(Sinks::NONE.with(Sink::Webhook))));
    let done = on(&store, work, Input::Confirmed(Sink::Webhook)).await;
    assert_eq!(done.invite.state.name(), StateName::Published);
}

pub(crate) async fn a_sink_with_few_places_is_given_no_more_than_it_can_take(bench: &impl Bench) {
    let both = Sinks::NONE.with(Sink::Rabbitmq).with(Sink::Webhook);
    let webhook = Sinks::NONE.with(Sink::Webhook);
    bench.set_rules(Rules { sinks: both, ..rules() });
    let store = bench.open().await;
    for number in 1..=4 {
        let trucker = format!("default/{number}");
        let calling = start(&store, &trucker).await;
        let ready = on(&store, calling, Input::Called(issued(&store, &trucker, "K7Q2ZD"))).await;
        // The first three wait for the webhook alone.
        let told = if number < 4 { on(&store, ready, Input::Confirmed(Sink::Rabbitmq)).await } else { ready };
        on(&store, told, Input::Unconfirmed(Setback::Away)).await;
    }
    let take = async |places| {
        let narrow = Narrow { sinks: webhook, places };
        store.take(Due::Publish { sinks: both, limit: 10, narrow }).await.unwrap()
    };
    let first = take(1).await;
    let waiting_for = |work: &Work| match work.effect {
        Some(Effect::Announce(sinks)) => sinks,
        other => panic!("{other:?}"),
    };
    let mut pending: Vec<_> = first.work.iter().map(|work| waiting_for(work).bits()).collect();
    pending.sort_unstable();
    assert_eq!(pending, [webhook.bits(), both.bits()], "the other sink is not held up");
    assert!(take(0).await.work.is_empty());
    assert!(take(0).await.next_due.is_none_or(|due| due > crate::time::now()), "nothing to wake for");
    assert_eq!(take(9).await.work.len(), 2);
}

pub(crate) async fn a_refused_event_is_dead_at_once_and_announced(bench: &impl Bench) {
    let store = bench.open().await;
    let failure = Failure::new(FailureClass::UnknownAccount, "nobody");
    let Receipt::New(work) = accept(&store, "nobody/1", "e1", Admission::Refuse(failure)).await else {
        panic!()
    };
    assert_eq!(work.effect, Some(Effect::Announce(rules().sinks)));
    assert_eq!(work.invite.state.name(), StateName::Dead);
}

pub(crate) async fn a_closed_gate_is_still_closed_after_a_restart(bench: &impl Bench) {
    let account = AccountName::default_account();
    let gate = Gate::Closed {
        reason: GateReason::Credentials,
        until: Timestamp::from_millis(1_800_000_000_000),
        strikes: 2,
    };
    let store = bench.open().await;
    let to = |gate: Gate| -> GateDecision { Arc::new(move |_, _| Some(gate)) };
    assert_eq!(store.move_gate(account.clone(), to(gate)).await.unwrap(), gate);
    drop(store);
    let store = bench.open().await;
    assert_eq!(store.gates().await.unwrap(), [(account.clone(), gate)]);
    let seen: GateDecision = Arc::new(move |kept, now| {
        assert_eq!(kept, gate);
        assert!(now > Timestamp::EPOCH);
        None
    });
    assert_eq!(store.move_gate(account.clone(), seen).await.unwrap(), gate, "it stays as it is");
    assert_eq!(store.move_gate(account, to(Gate::Open)).await.unwrap(), Gate::Open);
    assert_eq!(store.gates().await.unwrap(), []);
}

fn operator() -> Operator {
    "ada".parse().unwrap()
}

fn redrive(which: Selection, limit: usize) -> Redrive {
    let spacing = Duration::from_secs(10);
    Redrive { id: Uuid::now_v7(), by: operator(), which, spacing, after: None, limit }
}

async fn die(store: &Shared, trucker: &str, class: FailureClass) {
    let calling = start(store, trucker).await;
    let dead = on(store, calling, Input::Called(failed(class))).await;
    on(store, dead, Input::Confirmed(Sink::Rabbitmq)).await;
    let state = store.show(key(trucker)).await.unwrap().unwrap().invite.state;
    assert_eq!(state.name(), StateName::Dead);
}

async fn state_of(store: &Shared, trucker: &str) -> StateName {
    store.show(key(trucker)).await.unwrap().unwrap().invite.state.name()
}

pub(crate) async fn dead_invites_go_back_to_work_by_cause_and_the_order_is_recorded(bench: &impl Bench) {
    bench.set_rules(Rules { max_attempts: 1, ..rules() });
    let store = bench.open().await;
    for (trucker, class) in [
        ("default/1", FailureClass::Rejected),
        ("default/2", FailureClass::Transient),
        ("default/3", FailureClass::Rejected),
        ("acme/1", FailureClass::Rejected),
    ] {
        die(&store, trucker, class).await;
    }
    assert_eq!(store.unfinished(), 0);
    let account = Some(AccountName::default_account());
    let ours = Selection { account, ..Selection::default() };
    let causes = store.causes(ours.clone()).await.unwrap();
    let counts: Vec<_> = causes.iter().map(|cause| (cause.failure.class, cause.count)).collect();
    assert_eq!(counts, [(FailureClass::Rejected, 2), (FailureClass::Transient, 1)]);
    assert!(causes[0].first <= causes[0].last);
    let listed = Filter { cause: Some("rejected/test".to_owned()), limit: 10, ..Filter::default() };
    assert_eq!(store.list(listed).await.unwrap().len(), 3);

    for cause in ["rejected", "test", "rejected/test"] {
        let which = Selection { cause: Some(cause.to_owned()), ..ours.clone() };
        let found: u64 = store.causes(which).await.unwrap().iter().map(|cause| cause.count).sum();
        assert_eq!(found, if cause == "test" { 3 } else { 2 }, "{cause}");
    }
    let rejected = Selection { cause: Some("rejected".to_owned()), ..ours };
    let order = redrive(rejected, 10);
    assert_eq!(store.redrive(order.clone()).await.unwrap().count, 2);
    assert_eq!(store.unfinished(), 2, "they wait again");
    for (trucker, expected) in [
        ("default/1", StateName::Received),
        ("default/2", StateName::Dead),
        ("default/3", StateName::Received),
        ("acme/1", StateName::Dead),
    ] {
        assert_eq!(state_of(&store, trucker).await, expected, "{trucker}");
    }
    let rest = Selection { invite: Some(key("acme/1")), ..Selection::default() };
    // A further portion of the same order is counted with it.
    store.redrive(Redrive { which: rest, ..order.clone() }).await.unwrap();
    let orders = store.orders(10).await.unwrap();
    assert_eq!(orders.len(), 1);
    assert_eq!((orders[0].id, orders[0].count, orders[0].kind), (order.id, 3, OrderKind::Redrive));
    assert_eq!(
        (orders[0].by.clone(), orders[0].target.as_str()),
        (operator(), "account=default cause=rejected")
    );
    // They are called for again, with all attempts.
    let work = take(&store, 10).await.work.remove(0);
    assert_eq!((work.effect, work.invite.attempts), (Some(Effect::Call), 1));
}

pub(crate) async fn redriven_invites_are_spread_out_and_the_longest_dead_goes_first(bench: &impl Bench) {
    let store = bench.open().await;
    for trucker in ["default/2", "default/1", "default/3"] {
        die(&store, trucker, FailureClass::Rejected).await;
        pass(&store, store.now()).await;
    }
    let order = redrive(Selection::default(), 2);
    let first = store.redrive(order.clone()).await.unwrap();
    let second = store.redrive(Redrive { after: first.last_due, ..order.clone() }).await.unwrap();
    assert_eq!((first.count, second.count), (2, 1));
    let mut due = Vec::new();
    for trucker in ["default/2", "default/1", "default/3"] {
        due.push(store.show(key(trucker)).await.unwrap().unwrap().invite.state.schedule().unwrap().1);
    }
    assert_eq!(due[1], due[0].after(order.spacing));
    assert_eq!(due[2], due[1].after(order.spacing));
    assert_eq!(second.last_due, Some(due[2]));
}

pub(crate) async fn a_published_invite_begins_its_next_generation_when_a_person_asks(bench: &impl Bench) {
    let store = bench.open().await;
    let published = publish(&store, "default/1", "FIRST0").await;
    let State::Published { fingerprint, .. } = published.invite.state else { panic!() };
    let Reissued::Begun(begun) = store.reissue(key("default/1"), operator()).await.unwrap() else { panic!() };
    assert_eq!(begun.generation, Generation::FIRST.next());
    assert_eq!(begun.previous, Some(fingerprint));
    let stored = store.show(key("default/1")).await.unwrap().unwrap().invite;
    assert_eq!(stored, *begun);
    let calling = take(&store, 10).await.work.remove(0);
    assert_eq!(calling.effect, Some(Effect::Call));
    let ready = on(&store, calling, Input::Called(issued(&store, "default/1", "SECOND"))).await;
    let second = on(&store, ready, Input::Confirmed(Sink::Rabbitmq)).await;
    assert_eq!(second.invite.state.name(), StateName::Published);
    let orders = store.orders(10).await.unwrap();
    let kinds: Vec<_> = orders.iter().map(|order| (order.kind, order.target.as_str(), order.count)).collect();
    assert_eq!(kinds, [(OrderKind::Reissue, "default/1", 1)]);
}

pub(crate) async fn an_order_that_does_not_fit_changes_nothing(bench: &impl Bench) {
    let store = bench.open().await;
    assert_eq!(store.reissue(key("default/1"), operator()).await.unwrap(), Reissued::Unknown);
    let calling = start(&store, "default/1").await;
    let refused = store.reissue(key("default/1"), operator()).await.unwrap();
    assert_eq!(refused, Reissued::NotPublished(StateName::Calling));
    assert_eq!(store.redrive(redrive(Selection::default(), 10)).await.unwrap().count, 0);
    assert_eq!(store.show(key("default/1")).await.unwrap().unwrap().invite, calling.invite);
}

pub(crate) async fn an_erased_code_leaves_no_trace_on_disk_and_its_fingerprint_stays(bench: &impl Bench) {
    const CODE: &str = "CANARYK7Q2ZD";
    let holds = || bench.kept_bytes().windows(CODE.len()).any(|window| window == CODE.as_bytes());
    bench.set_rules(Rules { lease: bench.ended_lease(), ..rules() });
    let store = bench.open().await;
    let dead = start(&store, "default/2").await;
    on(&store, dead, Input::Called(failed(FailureClass::Rejected))).await;
    let calling = start(&store, "default/1").await;
    on(&store, calling, Input::Called(issued(&store, "default/1", CODE))).await;
    assert!(holds(), "a code that is not published yet is needed");
    assert_eq!(store.tidy().await.unwrap().codes, 0);
    drop(store);
    let store = bench.open().await;
    let work = take_for(&store, Sinks::ALL).await;
    let ready = work.into_iter().find(|work| work.invite.key == key("default/1")).unwrap();
    // An erasure that meets the second read-back does not stop it.
    on(&store, ready, Input::Confirmed(Sink::Rabbitmq)).await;
    let before = store.show(key("default/1")).await.unwrap().unwrap().invite;
    assert_eq!(store.tidy().await.unwrap().codes, 1);
    let after = store.show(key("default/1")).await.unwrap();
    // With a retention of zero the portion that erased the code may have retired the invite as well.
    if let Some(story) = after {
        let (State::Published { fingerprint, .. }, State::Published { fingerprint: kept, code, .. }) =
            (before.state, story.invite.state)
        else {
            panic!("expected published invites")
        };
        assert_eq!((fingerprint, code), (kept, None));
    }
    assert!(!holds(), "the code is still on the disk");
}

pub(crate) async fn retention_removes_what_is_published_and_never_what_is_dead(bench: &impl Bench) {
    let store = bench.open().await;
    publish(&store, "default/1", "K7Q2ZD").await;
    let calling = start(&store, "default/2").await;
    let dead = on(&store, calling, Input::Called(failed(FailureClass::Rejected))).await;
    on(&store, dead, Input::Confirmed(Sink::Rabbitmq)).await;
    start(&store, "default/3").await;
    assert_eq!(store.tidy().await.unwrap().invites, 1);
    let left = store.list(Filter { limit: 10, ..Filter::default() }).await.unwrap();
    assert_eq!(
        left.iter().map(|invite| invite.key.to_string()).collect::<Vec<_>>(),
        ["default/3", "default/2"]
    );
}

pub(crate) async fn a_trucker_that_was_retired_goes_on_with_the_next_generation(bench: &impl Bench) {
    let store = bench.open().await;
    publish(&store, "default/1", "K7Q2ZD").await;
    assert_eq!(store.tidy().await.unwrap().invites, 1);
    assert_eq!(start(&store, "default/1").await.invite.generation, Generation::FIRST.next());
}

pub(crate) async fn the_books_balance(bench: &impl Bench) {
    let store = bench.open().await;
    publish(&store, "default/1", "K7Q2ZD").await;
    start(&store, "default/2").await;
    accept(&store, "default/3", "e1", Admission::Queue).await;
    accept(&store, "default/3", "e2", Admission::Queue).await;
    let calling = start(&store, "acme/1").await;
    on(&store, calling, Input::Called(failed(FailureClass::Rejected))).await;
    let count = async |store: &Shared| {
        let tally = store.tally().await.unwrap();
        let mut counts: Vec<String> = tally
            .iter()
            .filter(|tally| tally.count > 0)
            .map(|tally| format!("{} {} {}", tally.account, tally.state, tally.count))
            .collect();
        counts.sort();
        assert!(tally.iter().any(|tally| tally.state == StateName::Received && tally.oldest.is_some()));
        counts
    };
    let expected = ["acme dead 1", "default calling 1", "default published 1", "default received 1"];
    assert_eq!(count(&store).await, expected);
    drop(store);
    let store = bench.open().await;
    assert_eq!(count(&store).await, expected, "counted anew");
    assert_eq!(store.tidy().await.unwrap().invites, 1);
    let expected = ["acme dead 1", "default calling 1", "default received 1"];
    assert_eq!(count(&store).await, expected, "what is retired is not counted any more");
}
