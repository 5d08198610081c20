//! What the chart refuses before anything reaches a cluster, and how it says so.

use serde_json::{Value, json};

use crate::helm::{postgres, sqlite, template_values};

#[track_caller]
fn refused(base: &Value, values: &Value, said: &str) {
    let refusal = template_values(&[base, values]).expect_err(said);
    assert!(refusal.contains(said), "expected: {said}\nsaid: {refusal}");
}

#[test]
fn sqlite_with_several_replicas() {
    refused(
        &sqlite(),
        &json!({"replicaCount": 2}),
        "replicaCount is 2, but an SQLite store serves one replica: set replicaCount to 1, or store.engine to postgres",
    );
    refused(
        &sqlite(),
        &json!({"autoscaling": {"enabled": true, "kind": "hpa"}}),
        "autoscaling.enabled is true, but an SQLite store serves one replica",
    );
}

#[test]
fn a_termination_grace_that_is_not_longer_than_a_stop_may_take() {
    refused(
        &sqlite(),
        &json!({"terminationGracePeriodSeconds": 25}),
        "terminationGracePeriodSeconds is 25, but a stop may take 25 seconds",
    );
    refused(
        &sqlite(),
        &json!({"config": {"shutdown": {"grace": "soon"}}}),
        "config.shutdown.grace is \"soon\"",
    );
    template_values(&[&sqlite(), &json!({"terminationGracePeriodSeconds": 26})]).unwrap();
}

#[test]
fn a_relay_without_a_source_or_a_sink() {
    let nothing = json!({"config": {"source": {"rabbitmq": {"enabled": false}, "webhook": {"enabled": false}},
        "sink": {"rabbitmq": {"enabled": false}}}});
    refused(
        &sqlite(),
        &nothing,
        "no source: set config.source.rabbitmq.enabled or config.source.webhook.enabled",
    );
    refused(&sqlite(), &nothing, "no sink: set config.sink.rabbitmq.enabled");
}

#[test]
fn secrets_that_come_from_nowhere_or_go_nowhere() {
    let none = json!({"secrets": {"existingSecret": ""}});
    refused(&sqlite(), &none, "secrets missing: admin-token, dashdoc-token, rabbitmq-url, webhook-secrets.");
    refused(&postgres(), &none, "store-url");
    let both = json!({"secrets": {"values": {"dashdoc-token": "t"}}});
    refused(&sqlite(), &both, "both secrets.existingSecret and secrets.values are set");
    let idle = json!({"secrets": {"from": {"sink-secret": {"name": "a", "key": "b"}}}});
    refused(&sqlite(), &idle, "secrets.from has sink-secret, which nothing reads");
    let idle = json!({"secrets": {"existingSecret": "", "values": {"sink-secret": "x"}}});
    refused(&sqlite(), &idle, "secrets.values has sink-secret, which nothing reads");
}

#[test]
fn a_secret_in_the_configuration() {
    for (place, values) in [
        ("dashdoc.token", json!({"dashdoc": {"token": "canary"}})),
        ("dashdoc.accounts.acme.token", json!({"dashdoc": {"accounts": {"acme": {"token": "canary"}}}})),
        (
            "dashdoc.accounts.acme.webhook_secrets",
            json!({"dashdoc": {"accounts": {"acme": {"webhook_secrets": ["canary"]}}}}),
        ),
        ("admin.token", json!({"admin": {"token": "canary"}})),
        ("source.rabbitmq.url", json!({"source": {"rabbitmq": {"url": "amqp://relay:canary@b"}}})),
        ("source.webhook.secrets", json!({"source": {"webhook": {"secrets": ["canary"]}}})),
        ("source.webhook.tokens", json!({"source": {"webhook": {"tokens": ["canary"]}}})),
        ("sink.rabbitmq.url", json!({"sink": {"rabbitmq": {"url": "amqp://relay:canary@b"}}})),
        ("sink.webhook.secret", json!({"sink": {"webhook": {"secret": "canary"}}})),
    ] {
        let values = json!({"config": values});
        let refusal = template_values(&[&sqlite(), &values]).expect_err(place);
        let said = format!("config.{place} is a secret, which would stand in a ConfigMap");
        assert!(refusal.contains(&said), "{said}\n{refusal}");
        assert!(!refusal.contains("canary"), "the secret is not repeated: {refusal}");
    }
}

#[test]
fn what_the_chart_sets_itself() {
    refused(
        &sqlite(),
        &json!({"config": {"admin": {"listen": "0.0.0.0:1"}}}),
        "config.admin.listen is set by the chart",
    );
    let listen = json!({"config": {"source": {"webhook": {"listen": "0.0.0.0:1"}}}});
    refused(&sqlite(), &listen, "config.source.webhook.listen is set by the chart");
    refused(
        &sqlite(),
        &json!({"config": {"store": {"url": "sqlite://x"}}}),
        "config.store.url is set by the chart",
    );
    refused(
        &sqlite(),
        &json!({"config": {"store": {"url_file": "x"}}}),
        "config.store.url_file goes with store.engine postgres",
    );
}

#[test]
fn a_way_in_without_a_webhook_a_host_or_a_gateway() {
    let closed = json!({"config": {"source": {"webhook": {"enabled": false}}},
        "ingress": {"enabled": true, "hosts": ["a"]}, "httpRoute": {"enabled": true, "parentRefs": [{"name": "g"}]}});
    refused(&sqlite(), &closed, "ingress.enabled is true, but there is no webhook");
    refused(&sqlite(), &closed, "httpRoute.enabled is true, but there is no webhook");
    refused(&sqlite(), &json!({"ingress": {"enabled": true}}), "ingress.hosts is empty");
    refused(&sqlite(), &json!({"httpRoute": {"enabled": true}}), "httpRoute.parentRefs is empty");
}

#[test]
fn monitoring_and_scaling_that_cannot_work() {
    let twice = json!({"monitoring": {"serviceMonitor": {"enabled": true}, "podMonitor": {"enabled": true}}});
    refused(&sqlite(), &twice, "would scrape twice");
    refused(
        &postgres(),
        &json!({"autoscaling": {"enabled": true}}),
        "autoscaling.keda.serverAddress is empty",
    );
    let upside_down = json!({"autoscaling": {"minReplicas": 5}});
    refused(&postgres(), &upside_down, "autoscaling.minReplicas is above autoscaling.maxReplicas");
}

#[test]
fn all_problems_are_said_at_once() {
    let values = json!({"replicaCount": 2, "terminationGracePeriodSeconds": 1, "ingress": {"enabled": true}});
    refused(&sqlite(), &values, "3 problem(s) in the values");
}

#[test]
fn a_value_that_does_not_exist_or_has_another_type() {
    for (values, said) in [
        (json!({"replicas": 2}), "additional properties 'replicas' not allowed"),
        (json!({"ingress": {"host": "a"}}), "additional properties 'host' not allowed"),
        (
            json!({"config": {"source": {"rabbitmq": {"prefetsh": 1}}}}),
            "additional properties 'prefetsh' not allowed",
        ),
        (json!({"config": {"source": {"rabbitmq": {"prefetch": 0}}}}), "prefetch"),
        (json!({"config": {"invite": {"policy": "guess"}}}), "policy"),
        (json!({"replicaCount": "two"}), "replicaCount"),
        (json!({"store": {"engine": "mysql"}}), "engine"),
        (json!({"store": {"persistence": {"accessModes": ["ReadWriteMany"]}}}), "accessModes"),
        (json!({"image": {"digest": "latest"}}), "digest"),
        (json!({"tracing": {"endpoint": "collector:4317"}}), "endpoint"),
    ] {
        refused(&sqlite(), &values, said);
    }
}
