//! What single steps cost: to see which of them a change has made slower. `scripts/bench micro` runs it.

#![expect(clippy::unwrap_used, reason = "a benchmark that can't measure fails")]

use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use invite_relay::event::{self, Envelope, IncludedField, Transport};
use invite_relay::invite::{
    Answer, Backoff, Cause, Fingerprint, Generation, Input, Invite, InviteCode, IssuedCode, Moment, Policy,
    Rules, Sink, Sinks, step,
};
use invite_relay::lifecycle::Lifecycle;
use invite_relay::store::sqlite::{Settings, SqliteStore};
use invite_relay::store::{Admission, Arrival, Receipt, Store as _};
use invite_relay::time::Timestamp;

const EVENT: &[u8] =
    br#"{"specversion":"1.0","id":"event-23498","source":"/platform","type":"trucker.created",
    "datacontenttype":"application/json","data":{"trucker":{"pk":23498,"remote_id":"driver-23498","user":
    {"first_name":"Ada","last_name":"L"}}}}"#;
/// Events in one batch, as the broker hands them over.
const BATCH: u32 = 256;

fn parse(criterion: &mut Criterion) {
    let rules = event::Rules {
        include: vec![IncludedField::try_new("remote_id").unwrap()],
        ..event::Rules::default()
    };
    let envelope = Envelope {
        transport: Transport::Amqp,
        content_type: Some("application/cloudevents+json"),
        headers: &[],
        message_id: Some("event-23498"),
        body: EVENT,
    };
    criterion.bench_function("parse an event", |bench| {
        bench.iter(|| event::parse(&rules, black_box(&envelope)).unwrap());
    });
}

fn steps(criterion: &mut Criterion) {
    let rules = rules();
    let moment = Moment { now: Timestamp::from_millis(1_790_000_000_000), dice: 0.5 };
    let received =
        Invite::received("default/23498".parse().unwrap(), Generation::FIRST, cause(1), moment.now);
    let code = InviteCode::new("K7Q2ZD").unwrap();
    let issued = IssuedCode { code, fingerprint: Fingerprint([7; 16]) };
    criterion.bench_function("received, called, ready, published", |bench| {
        bench.iter_batched(
            || (received.clone(), issued.clone()),
            |(invite, issued)| {
                let calling = step(invite, Input::Take, &rules, moment).next;
                let ready = step(calling, Input::Called(Answer::Code(issued)), &rules, moment).next;
                step(ready, Input::Confirmed(Sink::Rabbitmq), &rules, moment)
            },
            BatchSize::SmallInput,
        );
    });
}

fn store(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // On a disk: a commit that waits for nothing would show nothing.
    let directory = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target")).unwrap();
    let store = open(&directory.path().join("store.db"));
    let mut pks = 1_u64..;
    let mut batch = move || -> Vec<Arrival> {
        pks.by_ref().take(BATCH as usize).map(|pk| arrival(pk, Admission::Start)).collect()
    };
    let mut group = criterion.benchmark_group("sqlite");
    group.throughput(Throughput::Elements(BATCH.into())).sample_size(20);
    group.bench_function("accept a batch", |bench| {
        bench.iter_batched(
            &mut batch,
            |arrivals| runtime.block_on(store.accept(arrivals)).unwrap(),
            BatchSize::PerIteration,
        );
    });
    group.bench_function("record the answers of a batch", |bench| {
        bench.iter_batched(
            || runtime.block_on(store.accept(batch())).unwrap(),
            |receipts| {
                let records = receipts.into_iter().map(|receipt| {
                    let Receipt::New(work) = receipt else { unreachable!("each trucker is new") };
                    let code = InviteCode::new("K7Q2ZD").unwrap();
                    let issued = IssuedCode { code, fingerprint: Fingerprint([7; 16]) };
                    store.advance(work.invite, Input::Called(Answer::Code(issued)))
                });
                runtime.block_on(futures_util::future::join_all(records))
            },
            BatchSize::PerIteration,
        );
    });
}

fn open(path: &Path) -> SqliteStore {
    let settings = Settings {
        path: path.to_owned(),
        rules: rules(),
        erase_codes_after: Duration::from_secs(3600),
        retention: Duration::from_secs(30 * 86400),
        fingerprint_key: None,
        observer: Arc::new(|_, _| {}),
    };
    SqliteStore::open(settings, &Lifecycle::new()).unwrap()
}

fn arrival(pk: u64, admission: Admission) -> Arrival {
    Arrival { key: format!("default/{pk}").parse().unwrap(), cause: cause(pk), admission }
}

fn cause(pk: u64) -> Cause {
    let mut trucker = serde_json::Map::new();
    trucker.insert("remote_id".to_owned(), format!("driver-{pk}").into());
    Cause {
        event_id: format!("event-{pk}"),
        event_source: "/platform".to_owned(),
        trucker,
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: None,
    }
}

fn rules() -> Rules {
    Rules {
        policy: Policy::Generate,
        lease: Duration::from_secs(60),
        backoff: Backoff::try_new(Duration::from_secs(1), 2.0, Duration::from_secs(300)).unwrap(),
        max_attempts: 20,
        max_age: Duration::from_secs(72 * 3600),
        not_found_for: Duration::from_secs(120),
        verify_after: Duration::from_secs(300),
        sinks: Sinks::NONE.with(Sink::Rabbitmq),
    }
}

criterion_group!(benches, parse, steps, store);
criterion_main!(benches);
