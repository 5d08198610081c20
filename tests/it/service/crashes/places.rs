//! Every durable write, send, ack and publish in the sources, and the crash points that stand beside it.
//!
//! A new one changes a count here, and the test asks for its point.

use std::collections::BTreeMap;
use std::path::Path;

/// What a write, a send, an ack or a publish looks like in the sources.
const SIGNS: [&str; 9] = [
    "\"COMMIT\"",
    ".commit()",
    "client.execute(",
    "connection.execute(",
    "self.execute(",
    "basic_ack(",
    "basic_nack(",
    "basic_publish(",
    ".send().await",
];

/// File, sign, how often, and the points beside it or why there is none.
const PLACES: &[(&str, &str, usize, &str)] = &[
    ("broker/dead_letter.rs", "basic_publish(", 1, "bury.send, bury.confirmed"),
    ("broker/dead_queue.rs", "basic_ack(", 1, "none: a person's command, which may be given again"),
    ("broker/dead_queue.rs", "basic_publish(", 1, "none: a person's command, which may be given again"),
    ("broker/hand.rs", "basic_ack(", 1, "source.ack, source.acked"),
    ("broker/hand.rs", "basic_nack(", 1, "none: what is not acknowledged goes back anyway"),
    ("broker/survey.rs", "basic_publish(", 1, "none: of the doctor; empty, and to no queue"),
    ("broker/window.rs", "basic_publish(", 1, "publish.send, publish.confirmed"),
    ("dashdoc/client.rs", ".send().await", 1, "call.send, call.answered, read.send, read.answered"),
    ("sink/webhook.rs", ".send().await", 1, "publish.send, publish.confirmed"),
    ("store/postgres/connect.rs", "client.execute(", 1, "none: a setting of the session"),
    (
        "store/postgres/group.rs",
        "\"COMMIT\"",
        1,
        "accept.commit, accept.committed, take.commit, take.committed, advance.commit, advance.committed",
    ),
    ("store/postgres/group.rs", "client.execute(", 1, "within the transaction of the group"),
    ("store/postgres/hints.rs", "client.execute(", 2, "none: a hint, which may get lost"),
    (
        "store/postgres/optimistic.rs",
        "\"COMMIT\"",
        1,
        "accept.commit, accept.committed, advance.commit, advance.committed; also around a statement that goes alone",
    ),
    ("store/postgres/orders.rs", "\"COMMIT\"", 1, "order.commit, order.committed"),
    ("store/postgres/orders.rs", "client.execute(", 1, "within the transaction of the order"),
    ("store/postgres/schema.rs", ".commit()", 1, "prepare.commit"),
    ("store/postgres/schema.rs", "client.execute(", 1, "prepare.commit"),
    ("store/postgres/upkeep.rs", ".commit()", 2, "gate.commit, tidy.commit"),
    (
        "store/postgres/upkeep.rs",
        "client.execute(",
        2,
        "give_back.commit; none at the end of the replica's presence",
    ),
    ("store/sqlite/file.rs", ".commit()", 1, "prepare.commit"),
    ("store/sqlite/file.rs", "connection.execute(", 1, "prepare.commit"),
    (
        "store/sqlite/writer.rs",
        "\"COMMIT\"",
        1,
        "accept.commit, accept.committed, take.commit, take.committed, advance.commit, advance.committed, gate.commit, \
         order.commit, order.committed, tidy.commit",
    ),
    ("store/sqlite/writer.rs", "self.execute(", 6, "within or at the ends of the transaction of the group"),
];

#[test]
fn every_write_send_ack_and_publish_has_a_crash_point_or_a_reason() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = BTreeMap::new();
    count(&sources, &sources, &mut found);
    let known: BTreeMap<_, _> =
        PLACES.iter().map(|(file, sign, n, _)| (((*file).to_owned(), *sign), *n)).collect();
    assert_eq!(found, known, "let it pass a crash point (src/crash.rs), and tell of it here");
}

fn count(sources: &Path, directory: &Path, found: &mut BTreeMap<(String, &'static str), usize>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(sources).unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            count(sources, &path, found);
        } else if is_of_the_service(&name) {
            let text = std::fs::read_to_string(&path).unwrap();
            for sign in SIGNS {
                let n = text.matches(sign).count();
                if n > 0 {
                    found.insert((name.clone(), sign), n);
                }
            }
        }
    }
}

/// Not the tests, the commands beside the service, nor the simulator.
fn is_of_the_service(name: &str) -> bool {
    let beside = ["cli/", "dashdoc/simulator/", "doctor/"].iter().any(|folder| name.starts_with(folder));
    let is_rust = Path::new(name).extension().is_some_and(|extension| extension == "rs");
    is_rust && !beside && !name.ends_with("tests.rs") && !name.contains("conformance")
}
