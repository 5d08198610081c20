//! A private Prometheus that scrapes one target every quarter of a second and evaluates rules as often.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};

use invite_relay::time;
use serde_json::Value;
use tempfile::TempDir;
use url::Url;

use super::leash::Leash;
use super::until;

/// Holds `process`, whose data is in `home`. Dropping it kills it.
pub(crate) struct Prometheus {
    process: Child,
    leash: Option<Leash>,
    home: TempDir,
    address: SocketAddr,
    started: f64,
}

impl Prometheus {
    /// Starts it with the text of a rule file, and waits until it answers.
    pub(crate) async fn start(rules: &str, target: SocketAddr) -> Self {
        let home = tempfile::Builder::new().prefix("relay-prometheus-").tempdir().unwrap();
        let address = free_address();
        let config = format!(
            "global: {{ scrape_interval: 250ms, scrape_timeout: 250ms, evaluation_interval: 250ms }}\n\
             rule_files: [ rules.yaml ]\n\
             scrape_configs: [ {{ job_name: relay, static_configs: [ {{ targets: [ \"{target}\" ] }} ] }} ]\n"
        );
        std::fs::write(home.path().join("rules.yaml"), rules).unwrap();
        std::fs::write(home.path().join("prometheus.yaml"), config).unwrap();
        let log = std::fs::File::create(home.path().join("log")).unwrap();
        let spawned = Command::new("prometheus")
            .arg(format!("--config.file={}", home.path().join("prometheus.yaml").display()))
            .arg(format!("--storage.tsdb.path={}", home.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--enable-feature=exemplar-storage", "--log.level=warn"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        let Ok(process) = spawned else {
            panic!("Prometheus is not installed: apt-get install prometheus (or run scripts/test)");
        };
        let leash = Some(Leash::on(&process));
        let prometheus = Self { process, leash, home, address, started: seconds() };
        until("Prometheus to be ready", async || {
            let url = prometheus.url("-/ready", &[]);
            client().execute(client().get(url).build().unwrap()).await.is_ok_and(|it| it.status() == 200)
        })
        .await;
        prometheus
    }

    /// Each alert with its state, `inactive`, `pending` or `firing`. A rule that can't be evaluated is an error.
    pub(crate) async fn alerts(&self) -> BTreeMap<String, String> {
        let found = self.get("api/v1/rules", &[]).await;
        let groups = found["groups"].as_array().unwrap();
        let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        let states = rules.map(|rule| {
            assert_ne!(rule["health"], "err", "{rule}");
            let text = |name: &str| rule[name].as_str().unwrap().to_owned();
            (text("name"), text("state"))
        });
        states.collect()
    }

    /// How many samples, that are numbers, a query has had since the start.
    pub(crate) async fn n_samples(&self, query: &str) -> usize {
        // A step beyond now: the last of the moments that are looked at is then no earlier than the newest sample.
        let (start, end) = (self.started.to_string(), (seconds() + 1.0).to_string());
        let parameters = [("query", query), ("start", &start), ("end", &end), ("step", "1")];
        let found = self.get("api/v1/query_range", &parameters).await;
        let series = found["result"].as_array().unwrap();
        let values = series.iter().flat_map(|one| one["values"].as_array().unwrap());
        values.filter(|value| value[1].as_str().unwrap() != "NaN").count()
    }

    /// The trace ids of the exemplars of a query.
    pub(crate) async fn exemplars(&self, query: &str) -> Vec<String> {
        let (start, end) = (self.started.to_string(), seconds().to_string());
        let found =
            self.get("api/v1/query_exemplars", &[("query", query), ("start", &start), ("end", &end)]).await;
        let series = found.as_array().unwrap().iter();
        let exemplars = series.flat_map(|one| one["exemplars"].as_array().unwrap());
        exemplars.map(|one| one["labels"]["trace_id"].as_str().unwrap().to_owned()).collect()
    }

    async fn get(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let request = client().get(self.url(path, parameters)).build().unwrap();
        let text = client().execute(request).await.unwrap().text().await.unwrap();
        let mut answer: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {text}");
        answer["data"].take()
    }

    fn url(&self, path: &str, parameters: &[(&str, &str)]) -> Url {
        let mut url: Url = format!("http://{}/{path}", self.address).parse().unwrap();
        if !parameters.is_empty() {
            url.query_pairs_mut().extend_pairs(parameters);
        }
        url
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.leash.take());
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("Prometheus said: {}", std::fs::read_to_string(self.home.path().join("log")).unwrap());
        }
    }
}

/// A port that was free a moment ago.
pub(crate) fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds since the epoch fit")]
fn seconds() -> f64 {
    time::now().as_millis() as f64 / 1000.0
}

fn client() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().no_proxy().build().unwrap()
}
