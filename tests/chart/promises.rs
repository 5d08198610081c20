//! What holds in every scenario, whatever the values say.

use std::fs;

use serde_json::{Value, json};

use crate::helm::{Manifests, NAMESPACE, chart, nested, postgres, root, scenarios, sqlite, template};
use crate::scenarios::mounted;

fn all() -> Vec<(String, Manifests)> {
    scenarios()
        .into_iter()
        .map(|(name, file)| (name, Manifests::parse(&template(&chart(), &[&file]).unwrap())))
        .collect()
}

/// Specs of all pods: the workload's and the test's.
fn pods(manifests: &Manifests) -> Vec<&Value> {
    let mut pods = vec![&manifests.pod()["spec"]];
    pods.extend(manifests.kind("Pod").into_iter().map(|pod| &pod["spec"]));
    pods
}

#[test]
fn every_pod_fits_the_restricted_pod_security_standard() {
    for (name, manifests) in all() {
        for pod in pods(&manifests) {
            assert_eq!(pod["securityContext"]["runAsNonRoot"], true, "{name}");
            assert_ne!(pod["securityContext"]["runAsUser"], 0, "{name}");
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault", "{name}");
            for forbidden in ["hostNetwork", "hostPID", "hostIPC"] {
                assert!(pod.get(forbidden).is_none(), "{name}: {forbidden}");
            }
            for container in pod["containers"].as_array().unwrap() {
                let context = &container["securityContext"];
                assert_eq!(context["allowPrivilegeEscalation"], false, "{name}");
                assert_eq!(context["capabilities"], json!({"drop": ["ALL"]}), "{name}");
                assert_eq!(context["readOnlyRootFilesystem"], true, "{name}");
                assert!(context.get("privileged").is_none(), "{name}");
                assert!(container["resources"]["limits"]["memory"].is_string(), "{name}");
                for port in container["ports"].as_array().into_iter().flatten() {
                    assert!(port.get("hostPort").is_none(), "{name}");
                }
            }
            for volume in pod["volumes"].as_array().into_iter().flatten() {
                assert!(volume.get("hostPath").is_none(), "{name}");
            }
        }
    }
}

#[test]
fn no_pod_has_a_token_of_the_cluster_or_a_right_in_it() {
    for (name, manifests) in all() {
        for pod in pods(&manifests) {
            assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        }
        assert_eq!(manifests.get("ServiceAccount")["automountServiceAccountToken"], false, "{name}");
        for kind in ["Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"] {
            assert!(manifests.kind(kind).is_empty(), "{name}: {kind}");
        }
    }
}

#[test]
fn nothing_leads_from_outside_to_the_admin_port() {
    for (name, manifests) in all() {
        let services = manifests.kind("Service");
        let admin: Vec<_> = services
            .iter()
            .filter(|service| service["spec"]["ports"].to_string().contains("admin"))
            .collect();
        assert_eq!(admin.len(), 1, "{name}");
        assert_eq!(admin[0]["spec"]["type"], "ClusterIP", "{name}");
        assert_eq!(admin[0]["spec"]["clusterIP"], "None", "{name}");
        let admin_name = admin[0]["metadata"]["name"].as_str().unwrap();
        for way_in in manifests.kind("Ingress").into_iter().chain(manifests.kind("HTTPRoute")) {
            let rules = way_in["spec"]["rules"].to_string();
            assert!(!rules.contains(admin_name) && !rules.contains("9090"), "{name}: {rules}");
            assert!(
                rules.contains("\"Exact\"") && !rules.contains("Prefix"),
                "{name}: one path only: {rules}"
            );
        }
    }
}

#[test]
fn the_webhook_path_of_each_company_is_let_in_and_its_secrets_are_mounted() {
    let several = json!({
        "config": {"dashdoc": {"accounts": {
            "acme": {"webhook_path": "/webhooks/acme"},
            "globex": {"webhook_path": "/webhooks/globex", "webhook_secrets_file": "of-globex"},
            "initech": {"queue": "initech.trucker-created", "routing_key": "trucker.created.initech"},
        }}},
        "ingress": {"enabled": true, "hosts": ["a.example"]},
        "httpRoute": {"enabled": true, "parentRefs": [{"name": "public"}]},
    });
    let manifests = Manifests::of(&[&sqlite(), &several]);
    let expected = ["/webhooks/trucker-created", "/webhooks/acme", "/webhooks/globex"];
    let paths = manifests.get("Ingress")["spec"]["rules"][0]["http"]["paths"].as_array().unwrap();
    let found: Vec<_> = paths.iter().map(|path| path["path"].as_str().unwrap()).collect();
    assert_eq!(found, expected);
    for path in paths {
        assert_eq!(path["pathType"], "Exact");
        let service = json!({"name": "relay-invite-relay", "port": {"name": "webhook"}});
        assert_eq!(path["backend"]["service"], service);
    }
    let matches = &manifests.get("HTTPRoute")["spec"]["rules"][0]["matches"];
    let expected =
        expected.map(|path| json!({"path": {"type": "Exact", "value": path}, "method": "POST"})).to_vec();
    assert_eq!(matches, &Value::from(expected));
    let files = mounted(&manifests);
    for file in ["dashdoc-token-acme", "dashdoc-token-initech", "webhook-secrets-acme", "of-globex"] {
        assert!(files.iter().any(|mounted| mounted == file), "{file} in {files:?}");
    }
    assert!(!files.iter().any(|mounted| mounted == "webhook-secrets-initech"), "it has no path: {files:?}");
    assert!(manifests.relay_toml().contains("/run/secrets/invite-relay/webhook-secrets-acme"));
}

#[test]
fn every_selector_finds_the_pods_and_only_them() {
    for (name, manifests) in all() {
        let labels = manifests.pod()["metadata"]["labels"].as_object().unwrap();
        let test = manifests.get("Pod")["metadata"]["labels"].as_object().unwrap();
        let mut selectors = Vec::new();
        for (kind, pointer) in [
            ("Service", "/spec/selector"),
            ("StatefulSet", "/spec/selector/matchLabels"),
            ("Deployment", "/spec/selector/matchLabels"),
            ("PodDisruptionBudget", "/spec/selector/matchLabels"),
            ("PodMonitor", "/spec/selector/matchLabels"),
            ("NetworkPolicy", "/spec/podSelector/matchLabels"),
        ] {
            selectors.extend(
                manifests.kind(kind).into_iter().map(|object| (kind, object.pointer(pointer).unwrap())),
            );
        }
        for (kind, selector) in selectors {
            let wanted = selector.as_object().unwrap();
            assert!(wanted.iter().all(|(key, value)| labels.get(key) == Some(value)), "{name}: {kind}");
            assert!(
                !wanted.iter().all(|(key, value)| test.get(key) == Some(value)),
                "{name}: {kind} finds the test"
            );
        }
        for monitor in manifests.kind("ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"].as_object().unwrap();
            let found: Vec<_> = manifests
                .kind("Service")
                .into_iter()
                .filter(|service| {
                    wanted.iter().all(|(key, value)| &service["metadata"]["labels"][key] == value)
                })
                .collect();
            assert_eq!(found.len(), 1, "{name}: the admin Service, and not twice the same pod");
        }
    }
}

#[test]
fn secrets_are_files_of_whole_directories_and_never_in_the_configuration_or_the_environment() {
    for (name, manifests) in all() {
        let pod = &manifests.pod()["spec"];
        let container = &pod["containers"][0];
        assert!(!pod.to_string().contains("subPath") && !pod.to_string().contains("secretKeyRef"), "{name}");
        assert!(container.get("envFrom").is_none(), "{name}");
        let toml: toml::Table = manifests.relay_toml().parse().unwrap();
        let files = mounted(&manifests);
        let mut read = Vec::new();
        walk(&toml, &mut |key, value| {
            assert!(
                !["token", "secret", "secrets", "tokens", "password"].contains(&key),
                "{name}: {key} in clear"
            );
            if let Some(file) =
                value.as_str().and_then(|value| value.strip_prefix("/run/secrets/invite-relay/"))
            {
                assert!(key.ends_with("_file"), "{name}: {key}");
                read.push(file.to_owned());
            }
        });
        // Two ends may trust the same authority.
        read.sort();
        read.dedup();
        let mut sorted = files.clone();
        sorted.sort();
        assert_eq!(read, sorted, "{name}: what is read is mounted, and nothing else");
    }
}

fn walk(table: &toml::Table, seen: &mut impl FnMut(&str, &toml::Value)) {
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => walk(inner, seen),
            other => seen(key, other),
        }
    }
}

#[test]
fn every_command_that_a_person_runs_in_the_pod_finds_its_configuration() {
    for (name, manifests) in all() {
        let container = &manifests.pod()["spec"]["containers"][0];
        let mount = |volume: &str| {
            let mounts = container["volumeMounts"].as_array().unwrap();
            let mount = mounts.iter().find(|mount| mount["name"] == volume).unwrap();
            mount["mountPath"].as_str().unwrap()
        };
        let of_the_program =
            json!({"name": "INVITE_RELAY_CONFIG", "value": format!("{}/relay.toml", mount("config"))});
        let environment = container["env"].as_array().unwrap();
        assert!(environment.contains(&of_the_program), "{name}: {environment:?}");
        assert_eq!(container["args"], json!(["serve"]), "{name}: the service reads the same");
    }
}

#[test]
fn a_pod_is_killed_only_after_the_program_had_its_grace() {
    for (grace, sleep, expected) in
        [("20s", 5, 35), ("1m30s", 10, 110), ("500ms", 0, 11), ("2h", 5, 7215), ("1m 30s", 5, 105)]
    {
        let values = json!({"config": {"shutdown": {"grace": grace}}, "preStopSleepSeconds": sleep});
        let manifests = Manifests::of(&[&sqlite(), &values]);
        assert_eq!(
            manifests.pod()["spec"]["terminationGracePeriodSeconds"],
            expected,
            "{grace} and {sleep} s"
        );
    }
    // Without a webhook nobody sends requests to a pod that leaves.
    let without = json!({"config": {"source": {"webhook": {"enabled": false}}}});
    let manifests = Manifests::of(&[&sqlite(), &without]);
    assert_eq!(manifests.pod()["spec"]["terminationGracePeriodSeconds"], 30);
    assert!(manifests.pod()["spec"]["containers"][0].get("lifecycle").is_none());
}

#[test]
fn both_stores_run_the_same_pod_but_for_the_volume_of_sqlite() {
    let on_sqlite = Manifests::of(&[&sqlite()]);
    let on_postgres = Manifests::of(&[&postgres()]);
    assert!(on_sqlite.find("Deployment").is_none() && on_postgres.find("StatefulSet").is_none());
    assert_eq!(on_sqlite.get("StatefulSet")["spec"]["replicas"], 1);
    assert_eq!(on_sqlite.get("StatefulSet")["spec"]["volumeClaimTemplates"][0]["metadata"]["name"], "data");
    let comparable = |manifests: &Manifests| {
        let mut pod = manifests.pod().clone();
        pod["metadata"]["annotations"].as_object_mut().unwrap().remove("checksum/config");
        let mounts = pod["spec"]["containers"][0]["volumeMounts"].as_array_mut().unwrap();
        mounts.retain(|mount| mount["name"] != "data");
        for volume in pod["spec"]["volumes"].as_array_mut().unwrap() {
            if volume["name"] == "secrets" {
                let items = volume["projected"]["sources"][0]["secret"]["items"].as_array_mut().unwrap();
                items.retain(|item| item["key"] != "store-url");
            }
        }
        pod
    };
    assert_eq!(comparable(&on_sqlite), comparable(&on_postgres));
}

#[test]
fn a_changed_configuration_makes_new_pods_and_a_changed_secret_does_not() {
    let checksum = |values: &[&Value]| {
        Manifests::of(values).pod()["metadata"]["annotations"]["checksum/config"].as_str().unwrap().to_owned()
    };
    let before = checksum(&[&sqlite()]);
    assert_eq!(before, checksum(&[&sqlite(), &json!({"secrets": {"existingSecret": "another"}})]));
    assert_ne!(before, checksum(&[&sqlite(), &json!({"config": {"invite": {"policy": "reuse"}}})]));
}

#[test]
fn probes_ask_the_admin_port_and_liveness_asks_nothing_of_others() {
    for (name, manifests) in all() {
        let container = &manifests.pod()["spec"]["containers"][0];
        for (probe, path) in
            [("startupProbe", "/livez"), ("livenessProbe", "/livez"), ("readinessProbe", "/readyz")]
        {
            assert_eq!(
                container[probe]["httpGet"],
                json!({"path": path, "port": "admin"}),
                "{name}: {probe}"
            );
        }
    }
}

#[test]
fn several_replicas_have_a_disruption_budget_and_are_spread_and_one_blocks_no_drain() {
    let several = Manifests::of(&[&postgres(), &json!({"replicaCount": 3})]);
    assert_eq!(several.get("Deployment")["spec"]["replicas"], 3);
    assert_eq!(several.get("PodDisruptionBudget")["spec"]["maxUnavailable"], 1);
    let spread = several.pod()["spec"]["topologySpreadConstraints"].as_array().unwrap();
    let keys: Vec<_> = spread.iter().map(|constraint| constraint["topologyKey"].as_str().unwrap()).collect();
    assert_eq!(keys, ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]);
    for one in [Manifests::of(&[&postgres()]), Manifests::of(&[&sqlite()])] {
        assert!(one.find("PodDisruptionBudget").is_none());
        assert!(one.pod()["spec"].get("topologySpreadConstraints").is_none());
    }
}

#[test]
fn a_scaled_deployment_says_no_number_of_replicas_and_is_scaled_by_the_due_invites_of_this_release() {
    let hpa = json!({"autoscaling": {"enabled": true, "kind": "hpa"}});
    let manifests = Manifests::of(&[&postgres(), &hpa]);
    assert!(manifests.get("Deployment")["spec"].get("replicas").is_none());
    let target = &manifests.get("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"];
    assert_eq!(target["name"], manifests.get("Deployment")["metadata"]["name"]);
    assert!(manifests.find("ScaledObject").is_none());
    let keda = json!({"autoscaling": {"enabled": true, "keda": {"serverAddress": "http://prometheus:9090"}}});
    let manifests = Manifests::of(&[&postgres(), &keda]);
    assert!(manifests.get("Deployment")["spec"].get("replicas").is_none());
    assert!(manifests.find("HorizontalPodAutoscaler").is_none());
    let query = manifests.get("ScaledObject")["spec"]["triggers"][0]["metadata"]["query"].as_str().unwrap();
    assert!(
        query.contains(&format!("namespace=\"{NAMESPACE}\"")) && query.contains("relay-invite-relay-.+"),
        "{query}"
    );
    // The metric and its states, as the program exports them.
    let exported = fs::read_to_string(
        root().join("src/telemetry/snapshots/invite_relay__telemetry__metrics__tests__metrics_at_zero.snap"),
    )
    .unwrap();
    assert!(query.contains("invite_relay_invites{"), "{query}");
    let states = query.split("state=~\"").nth(1).unwrap().split('"').next().unwrap();
    for state in states.split('|') {
        let series = format!("invite_relay_invites{{account=\"default\",state=\"{state}\"}} 0");
        assert!(exported.contains(&series), "the program exports no {series}");
    }
}

#[test]
fn the_network_policy_opens_the_ports_that_are_used_and_no_others() {
    let on = nested("networkPolicy.enabled", &true.into());
    let ports = |values: &Value| {
        let manifests = Manifests::of(&[values, &on]);
        let policy = &manifests.get("NetworkPolicy/relay-invite-relay")["spec"];
        assert_eq!(policy["policyTypes"], json!(["Ingress", "Egress"]));
        let outwards: Vec<u64> = policy["egress"][1]["ports"]
            .as_array()
            .unwrap()
            .iter()
            .map(|port| port["port"].as_u64().unwrap())
            .collect();
        let inwards: Vec<String> = policy["ingress"]
            .as_array()
            .unwrap()
            .iter()
            .map(|rule| rule["ports"][0]["port"].as_str().unwrap().to_owned())
            .collect();
        (inwards.join(" "), outwards)
    };
    assert_eq!(ports(&sqlite()), ("webhook admin".into(), vec![443, 5671, 5672]));
    assert_eq!(ports(&postgres()), ("webhook admin".into(), vec![443, 5671, 5672, 5432]));
    let mut quiet = sqlite();
    quiet["config"] =
        json!({"source": {"webhook": {"enabled": true}}, "sink": {"stdout": {"enabled": true}}});
    quiet["networkPolicy"] = json!({"adminFrom": []});
    quiet["tracing"] = json!({"endpoint": "http://collector:4319"});
    assert_eq!(ports(&quiet), ("webhook".into(), vec![443, 4319]));
}
