//! A checker that finds nothing proves nothing: each thing that can be wrong is made wrong and found.

use invite_relay::dashdoc::simulator::{Cause, Fault, IssuedCode};
use invite_relay::time::Timestamp;
use serde_json::json;

use super::*;

const POISON: &[u8] = b"no JSON";

fn ready(pk: u64, generation: u32, code: &str) -> Taken {
    let key: TruckerKey = format!("default/{pk}").parse().unwrap();
    let id = event_id(&key, Generation::from_stored(generation), Announcement::Ready).to_string();
    let data = json!({ "trucker": { "pk": pk }, "invite_code": code, "generation": generation });
    let body = json!({ "type": "invite.ready", "id": id, "data": data }).to_string().into_bytes();
    Taken { id: Some(id), body }
}

fn trucker(pk: u64, codes: &[&str]) -> TruckerReport {
    let issued = |code: &&str| IssuedCode {
        code: (*code).to_owned(),
        at: Timestamp::EPOCH,
        cause: Cause::Generate { fault: Fault::None },
        end: None,
    };
    TruckerReport {
        pk,
        exists: true,
        remote_id: None,
        posts: 2,
        gets: 0,
        effects: 1,
        peak_posts_in_flight: 1,
        post_answers: vec![Some(429), Some(200)],
        code: codes.last().map(|code| (*code).to_owned()),
        codes: codes.iter().map(issued).collect(),
    }
}

fn invite(pk: u64, generation: u32) -> Value {
    json!({ "invite": format!("default/{pk}"), "state": "published", "generation": generation })
}

/// Two truckers, one of them with a second code; one announcement came twice.
fn good() -> Evidence {
    Evidence {
        accepted: [1, 2].into(),
        poison: [POISON.to_vec()].into(),
        announced: vec![
            ready(1, 1, "AAAAA1"),
            ready(2, 1, "BBBBB1"),
            ready(1, 1, "AAAAA1"),
            ready(1, 2, "AAAAA2"),
        ],
        dead_letters: [POISON.to_vec()].into(),
        invites: vec![invite(1, 2), invite(2, 1)],
        truckers: vec![trucker(1, &["AAAAA1", "AAAAA2"]), trucker(2, &["BBBBB1"])],
        stats: Stats::default(),
        books: [("published".to_owned(), 2), ("dead".to_owned(), 0)].into(),
        metrics: String::new(),
        log: "invite.id default/1 AAAAA1x".to_owned(),
        secrets: vec!["the-token".to_owned()],
    }
}

/// Makes something wrong, and expects a finding that says so.
#[track_caller]
fn finds(expected: &str, spoil: impl FnOnce(&mut Evidence)) {
    let mut evidence = good();
    spoil(&mut evidence);
    let (findings, _) = check(&evidence);
    assert!(findings.iter().any(|finding| finding.contains(expected)), "{expected:?} is not in {findings:?}");
}

#[test]
fn where_nothing_is_wrong_nothing_is_found() {
    let (findings, counts) = check(&good());
    assert_eq!(findings, Vec::<String>::new());
    let expected = Counts { truckers: 2, announcements: 4, repeated: 1, reissued: 1, ..Counts::default() };
    assert_eq!(counts, expected);
}

#[test]
fn what_is_lost_or_made_up_is_found() {
    finds("trucker 2: accepted, and no invite-ready", |it| _ = it.announced.remove(1));
    finds("2 truckers were accepted, 1 are stored", |it| _ = it.invites.pop());
    finds("trucker 2: nobody told of it", |it| _ = it.accepted.remove(&2));
    finds("not dead-lettered: no JSON", |it| it.dead_letters.clear());
}

#[test]
fn announcements_that_contradict_each_other_are_found() {
    finds("generation 1 came after 2", |it| it.announced.push(ready(1, 1, "AAAAA1")));
    finds("trucker 1: a generation is missing", |it| {
        it.announced.retain(|taken| *taken.body != ready(1, 1, "AAAAA1").body);
    });
    finds("trucker 2, generation 1: two bodies", |it| it.announced.push(ready(2, 1, "BBBBB2")));
    finds("two ids", |it| {
        it.announced.push(Taken { id: Some("another".to_owned()), ..ready(2, 1, "BBBBB1") });
    });
    finds("the message's id is not the event's", |it| it.announced[1].id = Some("another".to_owned()));
    finds("not the derived id", |it| it.announced[1].id = Some("another".to_owned()));
    finds("announced: {}", |it| it.announced.push(Taken { id: None, body: b"{}".to_vec() }));
}

#[test]
fn a_code_that_is_not_the_valid_one_is_found() {
    finds("trucker 1: the last code, of generation 2, is not the valid one", |it| {
        it.truckers[0] = trucker(1, &["AAAAA1", "AAAAA2", "AAAAA3"]);
    });
    finds("the store has another", |it| it.invites[0] = invite(1, 3));
}

#[test]
fn calls_too_many_are_found() {
    finds("2 POSTs that may have had an effect", |it| it.truckers[1].post_answers[0] = None);
    finds("called again after a success", |it| it.truckers[1].post_answers[0] = Some(200));
    finds("two POSTs at the same time", |it| it.truckers[1].peak_posts_in_flight = 2);
}

#[test]
fn what_is_dead_or_not_in_the_books_is_found() {
    finds("ended as dead", |it| it.invites[1]["state"] = "dead".into());
    finds("the books say", |it| _ = it.books.insert("published".to_owned(), 1));
    finds("the books say", |it| _ = it.books.insert("waiting".to_owned(), 1));
}

#[test]
fn leaks_and_panics_are_found() {
    finds("a code or a secret is in the log", |it| it.log += "\n{\"code\":\"AAAAA1\"}");
    finds("a code or a secret is in the log", |it| it.log += "\nAuthorization: Token the-token");
    finds("a panic", |it| it.log += "\nthread 'main' panicked at");
}
