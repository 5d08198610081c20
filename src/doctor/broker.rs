//! The broker, for the source and for the sink: reached, entered, and everything there that is needed.

use std::path::PathBuf;

use super::finding::{Finding, Findings};
use super::keys::Keys;
use super::queue;
use crate::app::source_topology;
use crate::broker::{
    Connection, Endpoint, Error, Mode, Observer, QueueLook, Server, SinkTopology, connect, greet,
};
use crate::config::{self, Config, SecretSource};

/// The checks that need a connection.
const BEHIND_LOGIN: [&str; 6] =
    ["topology", "arguments", "dead_letter_target", "limits", "dead_letters", "alarms"];
/// Those that need the queue, too.
const OF_THE_QUEUE: [&str; 3] = ["arguments", "dead_letter_target", "limits"];

/// The queue for everybody, then those of single accounts, over one connection.
pub(super) async fn sources(config: &Config, keys: Keys<'_>) -> Vec<Finding> {
    let mut findings = Findings::about("source.rabbitmq");
    let section = &config.source.rabbitmq;
    if !section.enabled {
        return Vec::new();
    }
    let door = Door {
        source: section.url_source(),
        ca_file: section.ca_file.as_ref(),
        url_key: keys.secret("source.rabbitmq.url"),
        ca_file_key: keys.place("source.rabbitmq.ca_file"),
    };
    let Some((mut connection, server)) = enter(door, &mut findings).await else {
        for check in BEHIND_LOGIN {
            findings.skipped(check, "there is no connection");
        }
        return findings.found;
    };
    source(&connection, section, &server, keys, &mut findings).await;
    queue::alarms(&mut connection, &mut findings).await;
    let mut found = findings.found;
    for account in config.accounts().into_values() {
        let Some(own) = &account.queue else { continue };
        let mut findings = Findings::about(format!("source.rabbitmq.{}", account.name));
        source(&connection, &section.for_queue(own), &server, keys, &mut findings).await;
        found.extend(findings.found);
    }
    connection.close().await;
    found
}

/// One queue, its dead letters and all.
async fn source(
    connection: &Connection,
    section: &config::RabbitMqSource,
    server: &Server,
    keys: Keys<'_>,
    findings: &mut Findings,
) {
    let topology = source_topology(section, Mode::Verify);
    let applied = topology.apply(connection, &Observer::default()).await.map(drop);
    let seen = match &applied {
        Ok(()) => seen_in(connection, &topology.queue).await,
        Err(_) => String::new(),
    };
    topology_found(applied, section.topology, &seen, keys, findings);
    if connection.look_at_queue(&topology.queue).await.is_ok() {
        queue::check(connection, &topology, server, findings).await;
    } else {
        for check in OF_THE_QUEUE {
            findings.skipped(check, format!("\"{}\" is not there", topology.queue));
        }
    }
    dead_letters(connection, &topology.dead_queue(), findings).await;
}

pub(super) async fn sink(config: &Config, keys: Keys<'_>) -> Vec<Finding> {
    let mut findings = Findings::about("sink.rabbitmq");
    let section = &config.sink.rabbitmq;
    if !section.enabled {
        return Vec::new();
    }
    let own = section.url_source().is_some();
    let own_ca = section.ca_file.is_some() || config.source.rabbitmq.ca_file.is_none();
    let door = Door {
        source: config.sink_rabbitmq_url(),
        ca_file: config.sink_rabbitmq_ca_file(),
        url_key: keys.secret(if own { "sink.rabbitmq.url" } else { "source.rabbitmq.url" }),
        ca_file_key: keys.place(if own_ca { "sink.rabbitmq.ca_file" } else { "source.rabbitmq.ca_file" }),
    };
    let Some((mut connection, _)) = enter(door, &mut findings).await else {
        for check in ["topology", "route", "alarms"] {
            findings.skipped(check, "there is no connection");
        }
        return findings.found;
    };
    let topology = SinkTopology { exchange: section.exchange.clone(), mode: Mode::Verify };
    let applied = topology.apply(&connection, &Observer::default()).await.map(drop);
    let seen = match section.exchange.as_str() {
        "" => "the default exchange always exists".to_owned(),
        exchange => format!("exchange \"{exchange}\" is there"),
    };
    topology_found(applied, config.source.rabbitmq.topology, &seen, keys, &mut findings);
    route(&connection, section, &mut findings).await;
    queue::alarms(&mut connection, &mut findings).await;
    connection.close().await;
    findings.found
}

/// The way in to a broker, and what the settings of it are called.
struct Door<'a> {
    source: Option<SecretSource>,
    ca_file: Option<&'a PathBuf>,
    url_key: String,
    ca_file_key: String,
}

/// Reaches the broker and logs in.
async fn enter(door: Door<'_>, findings: &mut Findings) -> Option<(Connection, Server)> {
    let url = &door.url_key;
    let read = door.source.as_ref().map(SecretSource::read);
    let endpoint = match read {
        Some(Ok(text)) => Endpoint::parse(&text.reveal().into()).map_err(|error| error.to_string()),
        Some(Err(error)) => Err(error.to_string()),
        None => Err("it is not set".to_owned()),
    };
    let endpoint = match endpoint {
        Ok(endpoint) => endpoint.with_ca_file(door.ca_file.cloned()),
        Err(error) => {
            findings.failed("server", error, format!("correct {url}"));
            findings.skipped("login", "there is no address");
            return None;
        }
    };
    let server = match greet(&endpoint).await {
        Ok(server) if server.product == "RabbitMQ" => {
            findings.ok("server", format!("{endpoint} is RabbitMQ {}", server.version));
            server
        }
        Ok(server) => {
            findings.warning(
                "server",
                format!("{endpoint} is {} {}, not RabbitMQ", server.product, server.version),
                "try every outage you care about: the service is tested with RabbitMQ",
            );
            server
        }
        Err(error) => {
            findings.failed("server", format!("{endpoint}: {error}"), mend_of_server(&error, &door));
            findings.skipped("login", "the broker can't be reached");
            return None;
        }
    };
    match connect(&endpoint, "doctor").await {
        Ok(connection) => {
            findings.ok("login", "user, password and virtual host are accepted");
            Some((connection, server))
        }
        Err(error) => {
            findings.failed("login", error.to_string(), mend_of_login(&error, url));
            None
        }
    }
}

fn mend_of_server(error: &Error, door: &Door<'_>) -> String {
    let Door { url_key: url, ca_file_key: ca_file, .. } = door;
    let text = error.to_string();
    if text.contains("ca_file") {
        format!("let {ca_file} name a file that this user may read, with a certificate in PEM form")
    } else if text.contains("lookup") {
        format!("correct the host in {url}, or make its name resolvable")
    } else if text.contains("not in AMQP") || text.contains("hung up") || text.contains("InvalidContentType")
    {
        format!("correct scheme and port (amqp speaks on 5672, amqps on 5671) in {url}")
    } else if text.contains("certificate") {
        format!(
            "let the broker's certificate carry the host's name in {url}; a certificate authority that the system does \
             not know goes into {ca_file}"
        )
    } else {
        format!("start the broker, let a firewall or network policy pass, or correct host and port in {url}")
    }
}

fn mend_of_login(error: &Error, url: &str) -> String {
    match error {
        Error::Refused { code: 403, .. } => {
            format!("correct user and password, percent-encoded where they are special, in {url}")
        }
        // The same code for a virtual host that is not there, and for one that the user may not enter.
        Error::Refused { code: 530, text } if text.contains("refused for user") => {
            format!("rabbitmqctl set_permissions -p VHOST USER '.*' '.*' '.*', or correct the user in {url}")
        }
        Error::Refused { code: 530, .. } => {
            format!("rabbitmqctl add_vhost VHOST, or correct the virtual host (\"/\" is %2f) in {url}")
        }
        _ => format!("look into the broker's log, or correct {url}"),
    }
}

fn topology_found(
    applied: Result<(), Error>,
    mode: config::Topology,
    seen: &str,
    keys: Keys<'_>,
    findings: &mut Findings,
) {
    let setting = keys.place("source.rabbitmq.topology");
    match (applied, mode) {
        (Ok(()), _) => findings.ok("topology", seen),
        (Err(Error::Missing(missing)), config::Topology::Declare) => {
            findings.ok(
                "topology",
                format!(
                    "not there yet; the service declares, if its user may configure: {}",
                    missing.join(", ")
                ),
            );
        }
        (Err(Error::Missing(missing)), config::Topology::Verify) => {
            let mend = format!("create it, or let the service do it: set \"declare\" in {setting}");
            findings.failed("topology", format!("missing: {}", missing.join(", ")), mend);
        }
        (Err(error @ Error::Refused { code: 403, .. }), _) => {
            let mend = "let the user read and write there: rabbitmqctl set_permissions";
            findings.failed("topology", error.to_string(), mend);
        }
        (Err(error), _) => findings.failed("topology", error.to_string(), "look into the broker's log"),
    }
}

/// The binding is not part of it: AMQP shows none.
async fn seen_in(connection: &Connection, name: &str) -> String {
    match connection.look_at_queue(name).await {
        Ok(QueueLook { n_ready, n_consumers }) => {
            format!(
                "exchange and queues are there; \"{name}\" has messages: {n_ready}, consumers: {n_consumers}"
            )
        }
        Err(_) => "exchange and queues are there".to_owned(),
    }
}

async fn dead_letters(connection: &Connection, name: &str, findings: &mut Findings) {
    match connection.look_at_queue(name).await {
        Ok(QueueLook { n_ready: 0, .. }) => findings.ok("dead_letters", format!("\"{name}\" is empty")),
        Ok(QueueLook { n_ready, .. }) => findings.warning(
            "dead_letters",
            format!("\"{name}\" holds messages that could not be read: {n_ready}"),
            "invite-relay dead-letters list tells why; mend the sender or the configuration, then dead-letters return",
        ),
        Err(_) => findings.skipped("dead_letters", format!("\"{name}\" is not there")),
    }
}

/// Only through the default exchange does a routing key name a queue, which can be looked for.
async fn route(connection: &Connection, section: &config::RabbitMqSink, findings: &mut Findings) {
    if !section.exchange.is_empty() {
        return findings.skipped(
            "route",
            format!(
                "AMQP shows no bindings; whether a queue is bound for \"{}\" and \"{}\" is seen when publishing",
                section.routing_key, section.failed_routing_key
            ),
        );
    }
    let mut missing = Vec::new();
    for name in [&section.routing_key, &section.failed_routing_key] {
        if let Err(Error::Refused { code: 404, .. }) = connection.look_at_queue(name).await {
            missing.push(format!("\"{name}\""));
        }
    }
    if missing.is_empty() {
        findings.ok("route", "both queues are there");
    } else {
        let mend = "create it: events wait in the store until there is a queue for them";
        findings.failed("route", format!("no queue {}", missing.join(", ")), mend);
    }
}
