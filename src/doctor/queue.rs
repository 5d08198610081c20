//! The source queue: what became of it where others made it, and what the broker does by itself to its messages.

use super::finding::Findings;
use crate::broker::{Argument, Connection, Error, QueueType, Server, Taking, Topology};

/// A queue that may be given back fewer times than this loses good events to a few restarts in a row.
const DELIVERY_LIMIT_MIN: u64 = 5;
const POLICY: &str = "rabbitmqctl set_policy";

/// Arguments, the target of what the broker drops, and the broker's limits. The queue must be there.
pub(super) async fn check(
    connection: &Connection,
    topology: &Topology,
    server: &Server,
    findings: &mut Findings,
) {
    match topology.differing_arguments(connection).await {
        Ok(differing) => {
            arguments(&differing, topology, findings);
            dead_letter_target(&differing, topology, findings);
            limits(Some(&differing), topology, server, findings);
        }
        Err(error) => {
            let why = match error {
                Error::Refused { code: 403, .. } => {
                    "not visible: AMQP compares only for a user who may configure".to_owned()
                }
                error => error.to_string(),
            };
            findings.skipped("arguments", &*why);
            findings.skipped("dead_letter_target", &*why);
            limits(None, topology, server, findings);
        }
    }
}

fn arguments(differing: &[Argument], topology: &Topology, findings: &mut Findings) {
    if differing.is_empty() {
        return findings.ok("arguments", format!("\"{}\" is as the service declares it", topology.queue));
    }
    let shown: Vec<String> = differing
        .iter()
        .map(|Argument { name, value }| match value {
            Some(value) => format!("{name} is {value}"),
            None => format!("{name} is not set"),
        })
        .collect();
    findings.warning(
        "arguments",
        format!("\"{}\" is used as it is, and differs: {}", topology.queue, shown.join(", ")),
        "leave it if that is meant; else drain and delete the queue, and let the service make it again",
    );
}

fn dead_letter_target(differing: &[Argument], topology: &Topology, findings: &mut Findings) {
    let of_dead_letters = |argument: &&Argument| argument.name.starts_with("x-dead-letter-");
    match differing.iter().find(of_dead_letters) {
        None => findings.ok(
            "dead_letter_target",
            format!("what the broker drops goes to \"{}\"", topology.dead_queue()),
        ),
        Some(Argument { name, value: None }) => findings.warning(
            "dead_letter_target",
            format!("\"{}\" has no {name}: unless a policy sets it, what the broker drops is gone", topology.queue),
            format!(
                "{POLICY} invite-relay '^{}$' '{{\"dead-letter-exchange\":\"\",\"dead-letter-routing-key\":\"{}\"}}' \
                 --apply-to queues",
                topology.queue,
                topology.dead_queue()
            ),
        ),
        Some(Argument { name, value: Some(value) }) => findings.warning(
            "dead_letter_target",
            format!("what the broker drops from \"{}\" goes elsewhere: {name} is \"{value}\"", topology.queue),
            format!("watch that place too, or make the queue again with \"{}\"", topology.dead_queue()),
        ),
    }
}

fn limits(differing: Option<&[Argument]>, topology: &Topology, server: &Server, findings: &mut Findings) {
    let version: Vec<u32> = server.version.split('.').map_while(|part| part.parse().ok()).collect();
    let timeout = match version[..] {
        [4, minor, ..] if minor >= 3 => "an acknowledgement may take 30 min on a quorum queue, by default",
        _ => "an acknowledgement may take 30 min, by default",
    };
    let argument = |wanted: &str| {
        let found = differing?.iter().find(|argument| argument.name == wanted)?;
        found.value.clone()
    };
    let type_differs = differing.unwrap_or_default().iter().find(|argument| argument.name == "x-queue-type");
    let is_quorum = match type_differs {
        Some(Argument { value, .. }) => value.as_deref() == Some("quorum"),
        None => topology.queue_type == QueueType::Quorum,
    };
    let policies = "policies are not visible over AMQP (rabbitmqctl list_policies)";
    let set = argument("x-delivery-limit");
    let limit = match (is_quorum, &set, version.first()) {
        (false, ..) => "a classic queue has no delivery limit".to_owned(),
        (true, Some(limit), _) => format!("the queue's delivery limit is {limit}"),
        (true, None, Some(4..)) => "the delivery limit is 20, by default".to_owned(),
        (true, None, _) => "there is no delivery limit, by default".to_owned(),
    };
    let evidence = format!("{limit}; {timeout}; {policies}");
    match set.and_then(|limit| limit.parse::<u64>().ok()).filter(|limit| *limit < DELIVERY_LIMIT_MIN) {
        Some(_) if is_quorum => findings.warning(
            "limits",
            evidence,
            "make the queue again with an x-delivery-limit of 20 or more: each crash of a consumer counts as one",
        ),
        _ => findings.ok("limits", evidence),
    }
}

/// Whether anything can be published at all; for the source, its dead letters.
pub(super) async fn alarms(connection: &mut Connection, findings: &mut Findings) {
    match connection.takes_messages().await {
        Ok(Taking::Yes) => findings.ok("alarms", "the broker takes messages; one to no queue came back"),
        Ok(Taking::Blocked(reason)) => findings.failed(
            "alarms",
            format!("the broker blocks publishers: {reason}"),
            "free memory or disk on the broker: rabbitmq-diagnostics alarms",
        ),
        Err(Error::Refused { code: 403, .. }) => findings.warning(
            "alarms",
            "the user may not write to the default exchange, through which poison reaches its queue",
            "let the user write there: rabbitmqctl set_permissions, with amq\\.default among what it may write",
        ),
        Err(error) => findings.failed("alarms", error.to_string(), "look into the broker's log"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Mode;

    /// What is said about the limits of a queue that is as the service declares it, but for `differing`.
    fn said(version: &str, queue_type: QueueType, differing: &[(&str, &str)]) -> (String, &'static str) {
        let topology = Topology {
            exchange: "trucker.events".to_owned(),
            queue: "q".to_owned(),
            routing_key: "trucker.created".to_owned(),
            queue_type,
            mode: Mode::Verify,
        };
        let differing: Vec<_> = differing
            .iter()
            .map(|(name, value)| Argument { name: (*name).to_owned(), value: Some((*value).to_owned()) })
            .collect();
        let server = Server { product: "RabbitMQ".to_owned(), version: version.to_owned() };
        let mut findings = Findings::about("x");
        limits(Some(&differing), &topology, &server, &mut findings);
        let finding = findings.found.remove(0);
        (finding.evidence, finding.verdict.as_str())
    }

    #[test]
    fn the_rules_of_the_brokers_version_go_with_the_queue() {
        use QueueType::{Classic, Quorum};
        let (none, twenty) = ("no delivery limit", "delivery limit is 20, by default");
        let (any, quorum_only) = ("30 min, by default", "30 min on a quorum queue");
        for (version, queue_type, limit, timeout) in [
            ("3.10.8", Quorum, none, any),
            ("3.13.7", Quorum, none, any),
            ("4.0.5", Quorum, twenty, any),
            ("4.2.1", Quorum, twenty, any),
            ("4.3.0", Quorum, twenty, quorum_only),
            ("4.3.0", Classic, "classic queue has no delivery limit", quorum_only),
            ("3.10.8", Classic, "classic queue has no delivery limit", any),
            ("a name", Quorum, none, any),
        ] {
            let (evidence, verdict) = said(version, queue_type, &[]);
            assert!(evidence.contains(limit) && evidence.contains(timeout), "{version}: {evidence}");
            assert_eq!(verdict, "ok", "{version}: {evidence}");
        }
    }

    #[test]
    fn a_limit_that_a_few_restarts_use_up_is_warned_of_on_a_quorum_queue_alone() {
        use QueueType::{Classic, Quorum};
        let limited = |limit, queue_type| said("4.2.1", queue_type, &[("x-delivery-limit", limit)]).1;
        assert_eq!(limited("2", Quorum), "warning");
        assert_eq!(limited("20", Quorum), "ok");
        assert_eq!(limited("2", Classic), "ok");
        let made_otherwise = [("x-queue-type", "quorum"), ("x-delivery-limit", "2")];
        assert_eq!(said("4.2.1", Classic, &made_otherwise).1, "warning");
    }
}
