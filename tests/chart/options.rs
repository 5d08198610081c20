//! One short case per option: where a value arrives.

use std::collections::BTreeSet;
use std::fs;

use serde_json::{Value, json};

use crate::helm::{Manifests, chart, nested, postgres, sqlite};

/// A value of an option, what else must be set for it, and the place where it arrives.
struct Case {
    option: &'static str,
    value: Value,
    with: Value,
    what: &'static str,
    pointer: &'static str,
    arrives: Value,
}

const RELAY: &str = "/spec/template/spec/containers/0";

/// A case whose value arrives as it is.
fn same(option: &'static str, value: Value, what: &'static str, pointer: &'static str) -> Case {
    Case { option, arrives: value.clone(), value, with: json!({}), what, pointer }
}

impl Case {
    fn with(mut self, with: Value) -> Self {
        self.with = with;
        self
    }

    fn as_(mut self, arrives: Value) -> Self {
        self.arrives = arrives;
        self
    }
}

fn names_and_image() -> Vec<Case> {
    const IMAGE: &str = "/spec/template/spec/containers/0/image";
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    vec![
        same("nameOverride", json!("other"), "ServiceAccount", "/metadata/name").as_(json!("relay-other")),
        same("fullnameOverride", json!("other"), "ServiceAccount", "/metadata/name"),
        same("commonLabels", json!({"team": "a"}), "Service/relay-invite-relay", "/metadata/labels/team")
            .as_(json!("a")),
        same("replicaCount", json!(0), "StatefulSet", "/spec/replicas"),
        same("image.repository", json!("r.example/relay"), "StatefulSet", IMAGE)
            .as_(json!(concat!("r.example/relay:", env!("CARGO_PKG_VERSION")))),
        same("image.tag", json!("edge"), "StatefulSet", IMAGE).as_(json!("invite-relay:edge")),
        same("image.digest", json!(digest), "StatefulSet", IMAGE)
            .as_(json!(format!("invite-relay@{digest}"))),
        same(
            "image.pullPolicy",
            json!("Always"),
            "StatefulSet",
            "/spec/template/spec/containers/0/imagePullPolicy",
        ),
        same(
            "imagePullSecrets",
            json!([{"name": "a"}]),
            "StatefulSet",
            "/spec/template/spec/imagePullSecrets",
        ),
    ]
}

fn configuration() -> Vec<Case> {
    const TOML: &str = "relay.toml";
    let items = "/spec/template/spec/volumes/1/projected/sources/0/secret";
    let by_hand =
        json!({"dashdoc-token": "t", "admin-token": "a", "rabbitmq-url": "u", "webhook-secrets": "w"});
    vec![
        same("config.source.rabbitmq.enabled", json!(true), TOML, "/source/rabbitmq/enabled"),
        same("config.source.webhook.enabled", json!(true), TOML, "/source/webhook/enabled"),
        same("config.source.webhook.path", json!("/in"), TOML, "/source/webhook/path"),
        same("config.sink.rabbitmq.enabled", json!(true), TOML, "/sink/rabbitmq/enabled"),
        same("config.sink.webhook.enabled", json!(true), TOML, "/sink/webhook/secret_file")
            .as_(json!("/run/secrets/invite-relay/sink-secret")),
        same("config.shutdown.grace", json!("50s"), TOML, "/shutdown/grace"),
        // Any other key of the program's: numbers, fractions, lists, quotes, a further company.
        same("config.source.rabbitmq.prefetch", json!(50), TOML, "/source/rabbitmq/prefetch"),
        same("config.store.max_backlog", json!(20_000_000), TOML, "/store/max_backlog"),
        same("config.dashdoc.rate_per_second", json!(2.5), TOML, "/dashdoc/rate_per_second"),
        same("config.event.include", json!(["a", "b \"c\" \\ €"]), TOML, "/event/include"),
        same("config.dashdoc.accounts", json!({"a.b": {}}), TOML, "/dashdoc/accounts/a.b/token_file")
            .as_(json!("/run/secrets/invite-relay/dashdoc-token-a.b")),
        same("config.dashdoc.ca_file", json!("company.pem"), TOML, "/dashdoc/ca_file")
            .as_(json!("/run/secrets/invite-relay/company.pem")),
        same("config.dashdoc.ca_file", json!("/etc/ssl/a.pem"), TOML, "/dashdoc/ca_file"),
        same("secrets.existingSecret", json!("mine"), "StatefulSet", items).as_(json!({"name": "mine", "items": [
            {"key": "admin-token", "path": "admin-token"}, {"key": "dashdoc-token", "path": "dashdoc-token"},
            {"key": "rabbitmq-url", "path": "rabbitmq-url"}, {"key": "webhook-secrets", "path": "webhook-secrets"}]})),
        same("secrets.from", json!({"rabbitmq-url": {"name": "broker", "key": "uri"}}), "StatefulSet",
            "/spec/template/spec/volumes/1/projected/sources/1/secret")
            .as_(json!({"name": "broker", "items": [{"key": "uri", "path": "rabbitmq-url"}]})),
        same("secrets.values", by_hand, "Secret", "/stringData")
            .with(json!({"secrets": {"existingSecret": ""}})),
        same("listenAddress", json!("::"), TOML, "/admin/listen").as_(json!("[::]:9090")),
    ]
}

fn store() -> Vec<Case> {
    const CLAIM: &str = "/spec/volumeClaimTemplates/0/spec";
    vec![
        same("store.engine", json!("postgres"), "relay.toml", "/store/url_file")
            .as_(json!("/run/secrets/invite-relay/store-url")),
        same(
            "store.persistence.size",
            json!("9Gi"),
            "StatefulSet",
            "/spec/volumeClaimTemplates/0/spec/resources/requests/storage",
        ),
        same(
            "store.persistence.storageClass",
            json!("fast"),
            "StatefulSet",
            "/spec/volumeClaimTemplates/0/spec/storageClassName",
        ),
        same("store.persistence.accessModes", json!(["ReadWriteOncePod"]), "StatefulSet", CLAIM)
            .as_(json!({"accessModes": ["ReadWriteOncePod"], "resources": {"requests": {"storage": "2Gi"}}})),
        same(
            "store.persistence.annotations",
            json!({"a": "b"}),
            "StatefulSet",
            "/spec/volumeClaimTemplates/0/metadata/annotations",
        ),
        same(
            "store.persistence.existingClaim",
            json!("old"),
            "StatefulSet",
            "/spec/template/spec/volumes/3/persistentVolumeClaim/claimName",
        ),
        same(
            "store.persistence.whenDeleted",
            json!("Delete"),
            "StatefulSet",
            "/spec/persistentVolumeClaimRetentionPolicy/whenDeleted",
        ),
    ]
}

fn ways_in() -> Vec<Case> {
    const SERVICE: &str = "Service/relay-invite-relay";
    const POLICY: &str = "NetworkPolicy/relay-invite-relay";
    let ingress = || json!({"ingress": {"enabled": true, "hosts": ["a.example"]}});
    let route = || json!({"httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]}});
    let policy = || nested("networkPolicy.enabled", &json!(true));
    let peer = || json!([{"podSelector": {"matchLabels": {"a": "b"}}}]);
    vec![
        same("service.type", json!("LoadBalancer"), SERVICE, "/spec/type"),
        same("service.port", json!(8443), SERVICE, "/spec/ports/0/port"),
        same("service.annotations", json!({"a": "b"}), SERVICE, "/metadata/annotations"),
        same("ingress.enabled", json!(true), "Ingress", "/spec/rules/0/http/paths/0/path")
            .with(ingress())
            .as_(json!("/webhooks/trucker-created")),
        same("ingress.className", json!("nginx"), "Ingress", "/spec/ingressClassName").with(ingress()),
        same("ingress.annotations", json!({"a": "b"}), "Ingress", "/metadata/annotations").with(ingress()),
        same("ingress.hosts", json!(["x.example", "y.example"]), "Ingress", "/spec/rules/1/host")
            .with(ingress())
            .as_(json!("y.example")),
        same("ingress.tls", json!([{"hosts": ["a.example"], "secretName": "t"}]), "Ingress", "/spec/tls")
            .with(ingress()),
        same("httpRoute.enabled", json!(true), "HTTPRoute", "/spec/rules/0/matches").with(route()).as_(
            json!([{"path": {"type": "Exact", "value": "/webhooks/trucker-created"}, "method": "POST"}]),
        ),
        same("httpRoute.annotations", json!({"a": "b"}), "HTTPRoute", "/metadata/annotations").with(route()),
        same(
            "httpRoute.parentRefs",
            json!([{"name": "g", "namespace": "n"}]),
            "HTTPRoute",
            "/spec/parentRefs",
        )
        .with(route()),
        same("httpRoute.hostnames", json!(["x.example"]), "HTTPRoute", "/spec/hostnames").with(route()),
        same("networkPolicy.enabled", json!(true), POLICY, "/spec/policyTypes")
            .as_(json!(["Ingress", "Egress"])),
        same("networkPolicy.webhookFrom", peer(), POLICY, "/spec/ingress/0/from").with(policy()),
        same("networkPolicy.adminFrom", peer(), POLICY, "/spec/ingress/1/from").with(policy()),
        same("networkPolicy.egressPorts", json!([15671]), POLICY, "/spec/egress/1/ports/3/port")
            .with(policy())
            .as_(json!(15671)),
        same("networkPolicy.extraEgress", json!([{"to": peer()}]), POLICY, "/spec/egress/2/to")
            .with(policy())
            .as_(peer()),
    ]
}

fn scaling() -> Vec<Case> {
    const HPA: &str = "HorizontalPodAutoscaler";
    const KEDA: &str = "ScaledObject";
    let hpa = || json!({"store": {"engine": "postgres"}, "autoscaling": {"enabled": true, "kind": "hpa"}});
    let keda = || {
        json!({"store": {"engine": "postgres"},
        "autoscaling": {"enabled": true, "keda": {"serverAddress": "http://p:9090"}}})
    };
    let slow = || json!({"scaleDown": {"stabilizationWindowSeconds": 900}});
    vec![
        same("autoscaling.enabled", json!(true), HPA, "/spec/minReplicas").with(hpa()).as_(json!(2)),
        same("autoscaling.kind", json!("keda"), KEDA, "/spec/minReplicaCount").with(keda()).as_(json!(2)),
        same("autoscaling.minReplicas", json!(3), HPA, "/spec/minReplicas").with(hpa()),
        same("autoscaling.minReplicas", json!(3), KEDA, "/spec/minReplicaCount").with(keda()),
        same("autoscaling.maxReplicas", json!(9), HPA, "/spec/maxReplicas").with(hpa()),
        same("autoscaling.maxReplicas", json!(9), KEDA, "/spec/maxReplicaCount").with(keda()),
        same("autoscaling.targetPerReplica", json!(70), HPA, "/spec/metrics/0/external/target/averageValue")
            .with(hpa())
            .as_(json!("70")),
        same("autoscaling.targetPerReplica", json!(70), KEDA, "/spec/triggers/0/metadata/threshold")
            .with(keda())
            .as_(json!("70")),
        same("autoscaling.behavior", slow(), HPA, "/spec/behavior").with(hpa()),
        same("autoscaling.behavior", slow(), KEDA, "/spec/advanced/horizontalPodAutoscalerConfig/behavior")
            .with(keda()),
        same(
            "autoscaling.keda.serverAddress",
            json!("http://q:1"),
            KEDA,
            "/spec/triggers/0/metadata/serverAddress",
        )
        .with(keda()),
        same("autoscaling.keda.query", json!("max(x)"), KEDA, "/spec/triggers/0/metadata/query").with(keda()),
        same(
            "autoscaling.keda.authenticationRef",
            json!({"name": "a"}),
            KEDA,
            "/spec/triggers/0/authenticationRef",
        )
        .with(keda()),
        same("autoscaling.hpa.metricName", json!("m"), HPA, "/spec/metrics/0/external/metric/name")
            .with(hpa()),
        same(
            "autoscaling.hpa.matchLabels",
            json!({"a": "b"}),
            HPA,
            "/spec/metrics/0/external/metric/selector/matchLabels",
        )
        .with(hpa()),
    ]
}

fn monitoring() -> Vec<Case> {
    let service = || nested("monitoring.serviceMonitor.enabled", &json!(true));
    let pod = || nested("monitoring.podMonitor.enabled", &json!(true));
    let label = || json!({"release": "prometheus"});
    vec![
        same("monitoring.serviceMonitor.enabled", json!(true), "ServiceMonitor", "/spec/endpoints/0/path")
            .as_(json!("/metrics")),
        same("monitoring.serviceMonitor.labels", label(), "ServiceMonitor", "/metadata/labels/release")
            .with(service())
            .as_(json!("prometheus")),
        same(
            "monitoring.serviceMonitor.interval",
            json!("10s"),
            "ServiceMonitor",
            "/spec/endpoints/0/interval",
        )
        .with(service()),
        same("monitoring.podMonitor.enabled", json!(true), "PodMonitor", "/spec/podMetricsEndpoints/0/port")
            .as_(json!("admin")),
        same("monitoring.podMonitor.labels", label(), "PodMonitor", "/metadata/labels/release")
            .with(pod())
            .as_(json!("prometheus")),
        same(
            "monitoring.podMonitor.interval",
            json!("10s"),
            "PodMonitor",
            "/spec/podMetricsEndpoints/0/interval",
        )
        .with(pod()),
        same(
            "tracing.endpoint",
            json!("http://c:4318"),
            "StatefulSet",
            "/spec/template/spec/containers/0/env/1",
        )
        .as_(json!({"name": "OTEL_EXPORTER_OTLP_ENDPOINT", "value": "http://c:4318"})),
    ]
}

fn pod() -> Vec<Case> {
    const POD: &str = "/spec/template/spec";
    let at = |name: &'static str| -> &'static str { Box::leak(format!("{POD}/{name}").into_boxed_str()) };
    let relay =
        |name: &'static str| -> &'static str { Box::leak(format!("{RELAY}/{name}").into_boxed_str()) };
    vec![
        same("serviceAccount.create", json!(false), "StatefulSet", at("serviceAccountName"))
            .as_(json!("default")),
        same("serviceAccount.name", json!("mine"), "StatefulSet", at("serviceAccountName")),
        same("serviceAccount.annotations", json!({"a": "b"}), "ServiceAccount", "/metadata/annotations"),
        same("resources.requests.cpu", json!("1"), "StatefulSet", relay("resources/requests/cpu")),
        same("resources.requests.memory", json!("1Gi"), "StatefulSet", relay("resources/requests/memory")),
        same("resources.limits.memory", json!("2Gi"), "StatefulSet", relay("resources/limits/memory")),
        same("preStopSleepSeconds", json!(9), "StatefulSet", relay("lifecycle/preStop/sleep/seconds")),
        same("terminationGracePeriodSeconds", json!(99), "StatefulSet", at("terminationGracePeriodSeconds")),
        same("startupFailureThreshold", json!(7), "StatefulSet", relay("startupProbe/failureThreshold")),
        same("podSecurityContext.runAsNonRoot", json!(true), "Pod", "/spec/securityContext/runAsNonRoot"),
        same("podSecurityContext.runAsUser", json!(7), "StatefulSet", at("securityContext/runAsUser")),
        same("podSecurityContext.runAsGroup", json!(7), "StatefulSet", at("securityContext/runAsGroup")),
        same("podSecurityContext.fsGroup", json!(7), "StatefulSet", at("securityContext/fsGroup")),
        same(
            "podSecurityContext.fsGroupChangePolicy",
            json!("Always"),
            "StatefulSet",
            at("securityContext/fsGroupChangePolicy"),
        ),
        same(
            "podSecurityContext.seccompProfile.type",
            json!("Localhost"),
            "StatefulSet",
            at("securityContext/seccompProfile/type"),
        ),
        same(
            "securityContext.allowPrivilegeEscalation",
            json!(false),
            "StatefulSet",
            relay("securityContext/allowPrivilegeEscalation"),
        ),
        same(
            "securityContext.readOnlyRootFilesystem",
            json!(false),
            "StatefulSet",
            relay("securityContext/readOnlyRootFilesystem"),
        ),
        same(
            "securityContext.capabilities.drop",
            json!(["NET_RAW"]),
            "StatefulSet",
            relay("securityContext/capabilities/drop"),
        ),
        same("podAnnotations", json!({"a": "b"}), "StatefulSet", "/spec/template/metadata/annotations/a")
            .as_(json!("b")),
        same("podLabels", json!({"a": "b"}), "StatefulSet", "/spec/template/metadata/labels/a")
            .as_(json!("b")),
        same("priorityClassName", json!("high"), "StatefulSet", at("priorityClassName")),
        same("nodeSelector", json!({"a": "b"}), "StatefulSet", at("nodeSelector")),
        same("tolerations", json!([{"operator": "Exists"}]), "StatefulSet", at("tolerations")),
        same("affinity", json!({"podAntiAffinity": {}}), "StatefulSet", at("affinity")),
        same(
            "topologySpreadConstraints",
            json!([{"topologyKey": "rack"}]),
            "StatefulSet",
            at("topologySpreadConstraints"),
        ),
        same("extraEnv", json!([{"name": "A", "value": "b"}]), "StatefulSet", relay("env/1"))
            .as_(json!({"name": "A", "value": "b"})),
        same("extraVolumes", json!([{"name": "a", "emptyDir": {}}]), "StatefulSet", at("volumes/3"))
            .as_(json!({"name": "a", "emptyDir": {}})),
        same(
            "extraVolumeMounts",
            json!([{"name": "tmp", "mountPath": "/a"}]),
            "StatefulSet",
            relay("volumeMounts/4"),
        )
        .as_(json!({"name": "tmp", "mountPath": "/a"})),
        same("test.image.repository", json!("r.example/curl"), "Pod", "/spec/containers/0/image")
            .as_(json!("r.example/curl:8.11.1")),
        same("test.image.tag", json!("9"), "Pod", "/spec/containers/0/image")
            .as_(json!("docker.io/curlimages/curl:9")),
    ]
}

/// Options whose case needs more than one look.
const ELSEWHERE: [(&str, &str); 8] = [
    ("podDisruptionBudget.enabled", "a_disruption_budget_can_be_left_out"),
    (
        "monitoring.rules.enabled",
        "monitoring::every_rule_file_and_every_dashboard_is_taken_however_many_there_are",
    ),
    ("monitoring.rules.disabled", "the same"),
    ("monitoring.rules.runbookUrl", "the same"),
    ("monitoring.rules.labels", "rules_and_dashboards_have_their_labels"),
    ("monitoring.dashboards.enabled", "the same"),
    ("monitoring.dashboards.labels.grafana_dashboard", "the same"),
    ("monitoring.dashboards.annotations", "the same"),
];

fn cases() -> Vec<Case> {
    [names_and_image(), configuration(), store(), ways_in(), scaling(), monitoring(), pod()]
        .into_iter()
        .flatten()
        .collect()
}

#[test]
fn every_option_arrives_where_it_belongs() {
    let mut wrong = Vec::new();
    for case in cases() {
        let values = nested(case.option, &case.value);
        let manifests = Manifests::of(&[&sqlite(), &case.with, &values]);
        let object = if case.what == "relay.toml" {
            serde_json::to_value(manifests.relay_toml().parse::<toml::Table>().unwrap()).unwrap()
        } else {
            manifests.find(case.what).cloned().unwrap_or_default()
        };
        let found = object.pointer(case.pointer);
        if found != Some(&case.arrives) {
            wrong.push(format!(
                "{}: {} {} is {found:?}, not {}",
                case.option, case.what, case.pointer, case.arrives
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_option_of_values_yaml_has_a_case() {
    let values: Value =
        serde_saphyr::from_str(&fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap();
    let mut options = BTreeSet::new();
    leaves(&values, "", &mut options);
    let cases = cases();
    let shown: BTreeSet<&str> =
        cases.iter().map(|case| case.option).chain(ELSEWHERE.iter().map(|(option, _)| *option)).collect();
    let missing: Vec<_> = options.iter().filter(|option| !shown.contains(option.as_str())).collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
    println!("{} options, {} cases", options.len(), cases.len());
}

fn leaves(values: &Value, path: &str, into: &mut BTreeSet<String>) {
    match values.as_object() {
        Some(table) if !table.is_empty() => {
            for (key, value) in table {
                leaves(value, &if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, into);
            }
        }
        _ => {
            into.insert(path.to_owned());
        }
    }
}

#[test]
fn a_disruption_budget_can_be_left_out() {
    let three = json!({"replicaCount": 3});
    assert!(Manifests::of(&[&postgres(), &three]).find("PodDisruptionBudget").is_some());
    let without = nested("podDisruptionBudget.enabled", &json!(false));
    assert!(Manifests::of(&[&postgres(), &three, &without]).find("PodDisruptionBudget").is_none());
}
