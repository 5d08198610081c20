//! Secrets, codes and personal data stay inside, whatever happens and whoever is told about it.
//!
//! The process's environment and its configuration are the operator's own, and hold what he puts there.

mod collector;
mod gossip;
mod search;

use invite_relay::dashdoc::simulator::{self, Fault, Faults, Mix};
use invite_relay::invite::StateName;
use invite_relay::lifecycle::Lifecycle;
use rustix::process::Signal;
use secrecy::SecretString;
use serde_json::json;

use self::collector::Collector;
use self::gossip::{Gossip, PARKING, PERSON};
use self::search::Shown;
use super::harness::Service;
use super::platform::{Bus, trucker_created};
use super::settings::Settings;
use super::webhook::{Receiver, Sender};
use super::{Api, http};
use crate::support::postgres::Postgres;
use crate::support::rabbitmq::RabbitMq;
use crate::support::until;

const TOKEN: &str = "canary-token-1f9b";
const WEBHOOK_TOKEN: &str = "canary-webhook-token-5d20";
const COLLECTOR_KEY: &str = "canary-collector-key-90ae";
const DATABASE_PASSWORD: &str = "canary-database-password-e8c4";

const BROKER_USER: &str = "relay-under-test";
const BROKER_PASSWORD: &str = "canary-password-77c1";

/// Parts of the personal data in every answer of the simulator.
const PEOPLE: [&str; 9] = [
    "Simulated",
    "simulated-user",
    "@example.com",
    "+33600",
    "+33700",
    "0601020304",
    "Adèle",
    "SIM-",
    "Transport Bouvet",
];

/// Every word of every secret that a sender, a receiver and a service share.
fn shared_secrets(sender: &Sender, receiver: &Receiver) -> Vec<String> {
    let signing = [sender.secret.reveal(), receiver.secret()].map(|text| text.replace("whsec_", ""));
    let plain = [TOKEN, BROKER_PASSWORD, WEBHOOK_TOKEN, COLLECTOR_KEY, DATABASE_PASSWORD];
    signing.into_iter().chain(plain.map(str::to_owned)).collect()
}

/// Asks the admin port for what is not there, in words that it must not repeat.
async fn ask_amiss(service: &Service, shown: &mut Shown) {
    let [first_name, last_name, email, phone] = PERSON;
    let path = format!("{first_name}/{email}?code={phone}").replace('é', "%C3%A9");
    for base in ["/api/v1/invites", "/api/v1/causes", "/api/v1/nowhere", ""] {
        shown.add("an answer of the admin port", service.ask(&format!("{base}/{path}")).await);
    }
    shown.add("an answer of the admin port", service.ask(&format!("/api/v1/invites?state={email}")).await);
    for body in [
        format!(r#"{{"by":"ada","cause":"{email}","all":"{phone}"}}"#),
        format!(r#"{{"{phone}":"{email}"}}"#),
        format!("{first_name} {last_name}"),
    ] {
        for path in ["/api/v1/redrive", "/api/v1/invites/default/1/reissue"] {
            shown.add("an answer of the admin port", service.order(path, &body).await.unwrap().body);
        }
    }
}

/// Every command that looks at the service or gives it an order, and the pages of the admin port.
async fn look_around(service: &Service, shown: &mut Shown, broker: bool) {
    for (place, path) in [("/metrics", "/metrics"), ("/readyz", "/readyz"), ("/livez", "/livez")] {
        shown.add(place, service.ask(path).await);
    }
    for path in ["invites", "invites/default/1", "invites/default/8", "causes", "orders"] {
        shown.add("the admin API", service.ask(&format!("/api/v1/{path}")).await);
    }
    shown.add("/proc/PID/cmdline", std::fs::read(format!("/proc/{}/cmdline", service.pid())).unwrap());
    // The doctor may find something.
    for command in ["doctor", "doctor --output json"] {
        shown.run(service, command);
    }
    for command in [
        "config check",
        "config show",
        "config show --output json",
        "invites list",
        "invites list --output json",
        "invites show default/1",
        "invites show default/8 --output json",
        "invites causes",
        "invites causes --output json",
        "invites redrive --all --by ada",
        "invites redrive default/1 --by ada --apply",
        "invites reissue default 12 --by ada",
        "invites orders --output json",
    ] {
        assert_eq!(shown.run(service, command), Some(0), "{command}");
    }
    if broker {
        assert_eq!(shown.run(service, "dead-letters list"), Some(0));
        assert_eq!(shown.run(service, "dead-letters return --all --by ada --apply"), Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_secret_code_or_personal_data_shows_in_logs_metrics_readiness_arguments_or_dumps() {
    // Half bodies, HTML, missing codes: whatever makes parsers quote what they could not read.
    let every = |chance| Mix {
        error_after: chance,
        reply_lost: chance,
        half_body: chance,
        no_code: chance,
        garbage: chance,
        odd_code: chance,
        ..Mix::default()
    };
    let faults = Faults { post: every(0.12), read: every(0.08), ..Faults::default() };
    let settings =
        simulator::Settings { faults, rate_limit: 0, tokens: vec![TOKEN.into()], ..Default::default() };
    let (api, sender) = (Api::start(settings).await, Sender::new());
    let bus = Bus::at(tokio::task::block_in_place(broker_url), "service-canaries").await;
    let (receiver, collector) = (Receiver::start(&api.life).await, Collector::start(&api.life).await);
    let settings = receiver
        .as_sink(bus.as_sink(sender.as_source(bus.as_source(api.settings()))))
        .with("source.webhook.tokens", vec![WEBHOOK_TOKEN])
        .with("dashdoc.token", TOKEN)
        .with("telemetry.log", "trace");
    let mut service = Service::prepare(&settings);
    collector.collect_from(&mut service, COLLECTOR_KEY);
    service.start_again().await;
    api.handle.script_posts(1, [Fault::Rejected]);
    let mut shown = Shown::default();
    shown.add("/readyz before", service.readiness().await.to_string());

    bus.tell(1..=60).await;
    // Poison with a person in it, on both sources, and senders with a wrong signature or token.
    let personal = r#"{"type":"trucker.created","data":{"first_name":"Adèle","phone":"0601020304"#;
    bus.send([personal.to_owned(), personal.replace("created", "renamed") + "\"}}"]).await;
    shown.add("a refusal", sender.send(&service, personal).await.unwrap().body);
    let wrong = format!("Bearer {WEBHOOK_TOKEN}x");
    for header in [("webhook-signature", "v1,AAAA"), ("authorization", &wrong)] {
        let answer = http::post(service.webhook_url(), &[header], personal).await.unwrap();
        assert_eq!(answer.status, 401, "{}", answer.body);
        shown.add("an unverified refusal", answer.body);
    }
    until("the dead letters", async || {
        bus.take_dead_headers().await.into_iter().for_each(|text| shown.add("a dead letter's headers", text));
        shown.n_in("a dead letter's headers") == 2
    })
    .await;
    assert_eq!(sender.send(&service, &trucker_created(61, "event-61")).await.unwrap().status, 202);
    until("the poison to be found", async || {
        service.count("invite_relay_events_received_total", &[r#"outcome="poison""#]).await >= 3
    })
    .await;
    until("most codes", async || receiver.taken().len() >= 55).await;
    service.settle(61).await;

    bus.send([personal.to_owned()]).await;
    until("a dead letter to give back", async || bus.n_dead().await == 1).await;
    ask_amiss(&service, &mut shown).await;
    look_around(&service, &mut shown, true).await;
    service.terminate().await;
    let log = service.log();
    assert!(log.contains("\"TRACE\"") || log.contains("\"DEBUG\""), "the log is verbose");
    shown.add("the log", log);
    let spans = collector.taken();
    assert!(
        String::from_utf8_lossy(&spans).contains("service-canaries.trucker-created"),
        "no spans were sent"
    );
    shown.add("the spans", spans);

    let mut canaries = shared_secrets(&sender, &receiver);
    canaries.extend(PEOPLE.into_iter().chain(PERSON).map(str::to_owned));
    let truckers = api.handle.truckers();
    canaries.extend(truckers.into_iter().flat_map(|trucker| trucker.codes).map(|issued| issued.code));
    shown.hold_none_of(&canaries);
}

/// Truckers whose code comes out of the gossip in the end.
const ANSWERED: [u64; 2] = [8, 12];

/// Accounts at an API that tells everything; the platform's events tell everything as well.
fn told_everything(settings: Settings, gossip: &Gossip) -> Settings {
    let settings = settings
        .with("dashdoc.base_url", gossip.base_url("default"))
        .with("dashdoc.token", TOKEN)
        .with("event.account", "/data/account")
        .with("retry.max_attempts", 2)
        .with("retry.not_found_for", "1s")
        .with("retry.circuit_after", 100)
        .with("telemetry.log", "trace");
    PARKING.into_iter().fold(settings, |settings, account| {
        let key = |name: &str| format!("dashdoc.accounts.{account}.{name}");
        settings.with(&key("base_url"), gossip.base_url(account)).with(&key("token"), TOKEN)
    })
}

fn personal_event(account: &str, pk: u64) -> String {
    let [first_name, last_name, email, phone] = PERSON;
    let user = json!({ "email": email, "display_name": format!("{first_name} {last_name}") });
    let trucker = json!({ "pk": pk, "first_name": first_name, "phone_number": phone, "user": user });
    json!({
        "specversion": "1.0", "id": format!("event-{account}-{pk}"), "source": "/platform",
        "type": "trucker.created", "data": { "account": account, "trucker": trucker },
    })
    .to_string()
}

/// Until each answer was got, and all that is left waits for a person or for another token.
async fn tell_all(service: &Service, sender: &Sender, gossip: &Gossip) {
    let truckers = gossip::TRUCKERS.map(|pk| ("default", pk)).chain(PARKING.map(|account| (account, 1)));
    let mut n = 0;
    for (account, pk) in truckers {
        let answer = sender.send(service, &personal_event(account, pk)).await.unwrap();
        assert_eq!(answer.status, 202, "{}", answer.body);
        n += 1;
    }
    until("every answer", async || gossip.n_asked() == n).await;
    until("all to come to rest", async || {
        service.invites().iter().all(|invite| {
            let published = invite.state.name() == StateName::Published;
            let is_answered =
                invite.key.account.as_str() == "default" && ANSWERED.contains(&invite.key.pk.get());
            // What is unknown stays so while the reads say nothing better.
            published
                || !is_answered
                    && matches!(invite.state.name(), StateName::Dead | StateName::Parked | StateName::Unknown)
        })
    })
    .await;
}

/// Until what [`look_around`] ordered last has come to its end: with it comes one more code to erase.
async fn reissued(service: &Service) {
    until("the reissue", async || {
        service.invites().iter().any(|invite| {
            let is_it = invite.key.account.as_str() == "default" && invite.key.pk.get() == 12;
            is_it && invite.generation.get() == 2 && invite.state.name() == StateName::Published
        })
    })
    .await;
}

/// What the gossip is about, and the secrets.
fn gossiped(sender: &Sender, receiver: &Receiver) -> Vec<String> {
    let mut canaries = shared_secrets(sender, receiver);
    canaries.extend(PERSON.map(str::to_owned));
    canaries.extend(gossip::TRUCKERS.map(gossip::code));
    canaries
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_api_tells_beside_the_code_is_kept_and_shown_nowhere_and_the_code_goes_after_its_time() {
    let (life, sender) = (Lifecycle::new(), Sender::new());
    let (gossip, receiver) = (Gossip::start(&life).await, Receiver::start(&life).await);
    let collector = Collector::start(&life).await;
    let settings = told_everything(
        receiver.as_sink(sender.as_source(Settings::fast(&gossip.base_url("default")))),
        &gossip,
    );
    let mut service = Service::prepare(&settings);
    collector.collect_from(&mut service, COLLECTOR_KEY);
    service.start_again().await;
    tell_all(&service, &sender, &gossip).await;
    let mut shown = Shown::default();
    ask_amiss(&service, &mut shown).await;
    look_around(&service, &mut shown, false).await;
    service.terminate().await;

    service.configure(&settings.with("store.erase_codes_after", "1ms"));
    service.start_again().await;
    reissued(&service).await;
    until("the codes to be erased", async || {
        let mut files = Shown::default();
        files.add_files("the store", service.directory());
        gossip::TRUCKERS.map(gossip::code).all(|code| !files.holds(&code))
    })
    .await;
    shown.add_files("the store in use", service.directory());
    shown.add("/readyz", service.readiness().await.to_string());
    service.kill().await;
    shown.add_files("the store after a kill", service.directory());
    service.start_again().await;
    service.terminate().await;
    shown.add_files("the store", service.directory());
    let spans = collector.taken();
    assert!(String::from_utf8_lossy(&spans).contains("manager-truckers"), "no spans were sent");
    shown.add("the spans", spans);
    shown.add("the log", service.log());
    shown.hold_none_of(&gossiped(&sender, &receiver));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_postgres_the_password_and_what_an_api_tells_are_kept_and_shown_nowhere() {
    let (life, sender) = (Lifecycle::new(), Sender::new());
    let (gossip, receiver) = (Gossip::start(&life).await, Receiver::start(&life).await);
    let server = tokio::task::block_in_place(Postgres::shared);
    let database = tokio::task::block_in_place(|| server.database());
    let role = format!("{database}_role");
    tokio::task::block_in_place(|| {
        server.run(&database, &format!("CREATE ROLE {role} LOGIN PASSWORD '{DATABASE_PASSWORD}'"));
        server.run(&database, &format!("ALTER DATABASE {database} OWNER TO {role}"));
    });
    let url = format!("postgres://{role}:{DATABASE_PASSWORD}@{}/{database}", server.address());
    let settings = told_everything(
        receiver.as_sink(sender.as_source(Settings::fast(&gossip.base_url("default")))),
        &gossip,
    );
    let settings = settings.with("store.url", url);
    let mut service = Service::start(&settings).await;
    tell_all(&service, &sender, &gossip).await;
    let mut shown = Shown::default();
    look_around(&service, &mut shown, false).await;
    service.terminate().await;
    let wrong =
        settings.clone().with("store.url", settings.text("store.url").unwrap().replace(&role, "nobody"));
    service.configure(&wrong);
    wrong.write(&service.file("relay.toml"));
    for command in ["serve", "doctor", "invites list", "config show"] {
        shown.run(&service, command);
    }
    service.configure(&settings.with("store.erase_codes_after", "1ms"));
    service.start_again().await;
    reissued(&service).await;
    let dump = || tokio::task::block_in_place(|| server.dump(&database));
    until("the codes to be erased", async || {
        let mut dumped = Shown::default();
        dumped.add("a dump", dump());
        gossip::TRUCKERS.map(gossip::code).all(|code| !dumped.holds(&code))
    })
    .await;
    service.terminate().await;
    shown.add("a dump", dump());
    shown.add("the log", service.log());
    shown.hold_none_of(&gossiped(&sender, &receiver));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_panic_shows_nothing_of_what_the_thread_had_in_hand() {
    let words = format!("{TOKEN} {}", PERSON.join(" "));
    let (life, sender) = (Lifecycle::new(), Sender::new());
    let (gossip, receiver) = (Gossip::start(&life).await, Receiver::start(&life).await);
    let settings = told_everything(
        receiver.as_sink(sender.as_source(Settings::fast(&gossip.base_url("default")))),
        &gossip,
    );
    let mut shown = Shown::default();
    // In a worker with an answer in hand, in the store's thread with the code, before the code leaves.
    for point in ["call.answered", "advance.commit", "publish.send"] {
        let mut service = Service::prepare(&settings);
        let ended = service.start_to_crash_at(&format!("{point}!{words}")).await;
        assert_eq!(ended, None, "{point}: {}", service.log());
        service.ready().await;
        // Whether the event is answered depends on what the panic ends.
        sender.send(&service, &personal_event("default", 12)).await;
        service.logged("a task panicked").await;
        service.signal(Signal::KILL);
        service.ended().await;
        let log = service.log();
        assert!(log.contains("made at run time"), "{log}");
        shown.add(format!("the log of a panic at {point}"), log);
    }
    shown.hold_none_of(&gossiped(&sender, &receiver));
}

#[test]
fn a_configuration_that_is_refused_shows_none_of_its_secrets() {
    const SECRET: &str = "canary-secret-b7f3";
    let service = Service::prepare(&Settings::fast("http://127.0.0.1:1"));
    let file = service.file("secret");
    std::fs::write(&file, format!("{SECRET}\u{1}\nand {SECRET} again\n")).unwrap();
    let mut shown = Shown::default();
    for mistake in [
        format!("[dashdoc]\ntoken = [\"{SECRET}\"]"),
        format!("[dashdoc]\ntokn = \"{SECRET}\""),
        format!("[dashdoc]\ntoken = \"{SECRET}"),
        format!("[dashdoc]\ntoken = {SECRET}"),
        format!("[dashdoc]\ntoken = \"{SECRET}\"\ntoken = \"{SECRET}\""),
        format!(
            "[dashdoc]\ntoken = \"{SECRET}\"\nbase_url = \"ftp://user:{SECRET}@127.0.0.1/?key={SECRET}\""
        ),
        format!("[dashdoc]\ntoken_file = {:?}", file.display().to_string()),
        format!("[dashdoc]\ntoken_file = \"{SECRET}\""),
        format!("[dashdoc]\ntoken_file = \"{SECRET}/abc==\""),
        format!("[source.rabbitmq]\nenabled = true\nurl = \"amqp://user:{SECRET}@127.0.0.1:port/%2f\""),
        format!("[source.rabbitmq]\nenabled = true\nurl = \"http://user:{SECRET}@127.0.0.1/\""),
        format!("[source.webhook]\nenabled = true\nsecrets = [\"whsec_{SECRET}\", \"{SECRET}\"]"),
        format!("[source.webhook]\nenabled = true\nsecrets = \"whsec_{SECRET}\""),
        format!("[source.webhook]\nenabled = true\ntokens = [\"{SECRET} \", 7]"),
        format!(
            "[sink.webhook]\nenabled = true\nurl = \"https://u:{SECRET}@127.0.0.1\"\nsecret = \"{SECRET}\""
        ),
        format!("[store]\nurl = \"postgres://relay:{SECRET}@127.0.0.1:70000/relay\""),
        format!("[store]\nurl = \"mysql://relay:{SECRET}@127.0.0.1/relay\""),
        format!("[admin]\nlisten = \"0.0.0.0:1\"\ntoken = {{ value = \"{SECRET}\" }}"),
        format!("[nowhere]\nkey = \"{SECRET}\""),
    ] {
        std::fs::write(service.file("relay.toml"), &mistake).unwrap();
        let place = |command: &str| format!("`{command}` with {}", mistake.replace(SECRET, "…"));
        for command in ["config check", "config show", "serve", "doctor", "invites list", "dead-letters list"]
        {
            let mut run = Shown::default();
            let code = run.run(&service, command);
            let refuses = matches!(command, "config check" | "serve");
            assert!(!refuses || code == Some(2), "{} ended with {code:?}", place(command));
            shown.take_over(&place(command), run);
        }
    }
    shown.hold_none_of(&[SECRET.to_owned()]);
}

/// The shared broker with a user whose password is found wherever it shows.
fn broker_url() -> SecretString {
    let broker = RabbitMq::shared();
    broker.ctl(&["add_user", BROKER_USER, BROKER_PASSWORD]);
    broker.ctl(&["set_permissions", BROKER_USER, ".*", ".*", ".*"]);
    format!("amqp://{BROKER_USER}:{BROKER_PASSWORD}@{}/%2f", broker.address()).into()
}
