//! The platform: tells of truckers over RabbitMQ and the webhook, repeats what is not accepted, repeats itself, and
//! sends nonsense in between. It remembers what was accepted: that is what the service is held to.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use invite_relay::signature::{self, Secret};
use invite_relay::time;
use rand::RngExt as _;
use rand::rngs::StdRng;
use secrecy::SecretString;
use serde_json::json;
use tokio::sync::{Mutex as AsyncMutex, mpsc};

use crate::http;
use crate::line::{Failed, Line};
use crate::service::Service;
use crate::settings::Settings;
use crate::timeline::Timeline;

const EXCHANGE: &str = "chaos.events";
const ANNOUNCED: &str = "chaos.announced";
const ANNOUNCEMENTS: &str = "invite.*";
pub(crate) const SOURCE_QUEUE: &str = "chaos.trucker-created";

/// Most messages that wait for their confirms together.
const TOGETHER: usize = 50;
/// Before something is sent again.
const PAUSE: Duration = Duration::from_millis(200);
/// How long the sender of a webhook waits for an answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Something that was or will be told.
#[derive(Clone)]
struct Told {
    /// `None` for nonsense.
    pk: Option<u64>,
    /// The event's id, or the nonsense's number.
    id: String,
    body: Vec<u8>,
}

/// What was accepted: confirmed by the broker, or answered with 202.
#[derive(Default)]
pub(crate) struct Ledger {
    /// The ids of the accepted events, by trucker.
    pub(crate) events: BTreeMap<u64, BTreeSet<String>>,
    /// Nonsense that the broker has confirmed.
    pub(crate) poison: BTreeSet<Vec<u8>>,
    pub(crate) n_over_rabbitmq: usize,
    pub(crate) n_over_webhook: usize,
    /// Tries of a webhook that had to be repeated.
    pub(crate) n_repeated: usize,
    /// Answers that no sender should ever get.
    pub(crate) wrong_answers: Vec<String>,
    /// Everything the broker has confirmed, in case its queue is deleted.
    confirmed: Vec<Told>,
}

/// The platform's side.
pub(crate) struct Platform {
    url: SecretString,
    secret: Secret,
    ledger: Mutex<Ledger>,
    /// To the task that publishes.
    outgoing: mpsc::UnboundedSender<Told>,
    inbox: AsyncMutex<mpsc::UnboundedReceiver<Told>>,
    /// Told and not accepted yet.
    n_pending: AtomicUsize,
    timeline: Arc<Timeline>,
}

impl Platform {
    /// With its exchange and its queue on the broker at `url`.
    pub(crate) async fn at(url: SecretString, timeline: Arc<Timeline>) -> Self {
        let line = Line::open(&url).await.unwrap();
        line.declare_topic(EXCHANGE).await.unwrap();
        line.declare(ANNOUNCED).await.unwrap();
        line.bind(ANNOUNCED, EXCHANGE, ANNOUNCEMENTS).await.unwrap();
        let (outgoing, inbox) = mpsc::unbounded_channel();
        Self {
            url,
            secret: Secret::generate(),
            ledger: Mutex::default(),
            outgoing,
            inbox: AsyncMutex::new(inbox),
            n_pending: AtomicUsize::new(0),
            timeline,
        }
    }

    /// Makes it source and sink of the service, whose way to the broker is `url`.
    pub(crate) fn settings(&self, settings: Settings, url: &str) -> Settings {
        settings
            .with("source.rabbitmq.enabled", true)
            .with("source.rabbitmq.url", url)
            .with("source.rabbitmq.exchange", EXCHANGE)
            .with("source.rabbitmq.queue", SOURCE_QUEUE)
            .with("sink.rabbitmq.enabled", true)
            .with("sink.rabbitmq.exchange", EXCHANGE)
            .with("source.webhook.enabled", true)
            .with("source.webhook.secrets", vec![toml::Value::from(self.secret.reveal())])
    }

    /// What must not show in a log.
    pub(crate) fn secret(&self) -> String {
        self.secret.reveal()
    }

    /// Tells of truckers at this pace, until then.
    pub(crate) async fn tell(
        self: &Arc<Self>,
        service: &Arc<Service>,
        mut rng: StdRng,
        per_second: f64,
        until: Instant,
    ) {
        let mut told: Vec<Told> = Vec::new();
        let mut n_poison = 0;
        let mut sending = tokio::task::JoinSet::new();
        while Instant::now() < until {
            let over_webhook = rng.random_bool(0.45);
            let n_truckers = u64::try_from(told.len()).unwrap();
            let next = match rng.random_range(0..100) {
                0..8 if !over_webhook => {
                    n_poison += 1;
                    nonsense(n_poison)
                }
                // Told again, perhaps another way.
                8..20 if n_truckers > 0 => told[rng.random_range(0..told.len())].clone(),
                // Something else was told about the same trucker.
                20..32 if n_truckers > 0 => {
                    let pk = rng.random_range(1..=n_truckers);
                    event(pk, &format!("event-{pk}-again-{}", rng.random::<u32>()))
                }
                _ => {
                    let pk = n_truckers + 1;
                    let next = event(pk, &format!("event-{pk}"));
                    told.push(next.clone());
                    next
                }
            };
            self.n_pending.fetch_add(1, Ordering::Relaxed);
            if over_webhook {
                let (platform, service) = (Arc::clone(self), Arc::clone(service));
                sending.spawn(async move { platform.post(&service, next).await });
            } else {
                let _ = self.outgoing.send(next);
            }
            let pause = rng.random_range(0.5..1.5) / per_second;
            tokio::time::sleep(Duration::from_secs_f64(pause)).await;
        }
        while sending.join_next().await.is_some() {}
    }

    /// How much of what was told is not accepted yet.
    pub(crate) fn n_pending(&self) -> usize {
        self.n_pending.load(Ordering::Relaxed)
    }

    /// Sends a webhook again and again until it is accepted, as a sender of Standard Webhooks does.
    async fn post(&self, service: &Service, told: Told) {
        let body = String::from_utf8(told.body).unwrap();
        loop {
            let answer = match service.ports() {
                Some(ports) => {
                    let url = format!("http://{}/webhooks/trucker-created", ports.webhook);
                    tokio::time::timeout(PATIENCE, self.post_once(url, &told.id, &body)).await.ok().flatten()
                }
                None => None,
            };
            match answer {
                Some(answer) if answer.status == 202 => break,
                Some(answer) if answer.status < 500 && answer.status != 429 => {
                    let wrong = format!("the webhook of {} was answered {}", told.id, answer.status);
                    self.timeline.note(&wrong);
                    self.ledger.lock().unwrap().wrong_answers.push(wrong);
                }
                _ => {}
            }
            self.ledger.lock().unwrap().n_repeated += 1;
            tokio::time::sleep(PAUSE).await;
        }
        let mut ledger = self.ledger.lock().unwrap();
        ledger.n_over_webhook += 1;
        let pk = told.pk.expect("nonsense goes over RabbitMQ");
        ledger.events.entry(pk).or_default().insert(told.id);
        self.n_pending.fetch_sub(1, Ordering::Relaxed);
    }

    async fn post_once(&self, url: String, id: &str, body: &str) -> Option<http::Answer> {
        let seconds = time::now().as_millis() / 1000;
        let signature = signature::sign(&self.secret, id, seconds, body.as_bytes());
        let headers = [
            ("content-type", "application/cloudevents+json"),
            (signature::ID_HEADER, id),
            (signature::TIMESTAMP_HEADER, &seconds.to_string()),
            (signature::SIGNATURE_HEADER, &signature),
        ];
        http::post(url, &headers, body).await
    }

    /// Publishes what is told over RabbitMQ, again and again until it is confirmed. Runs for ever.
    pub(crate) async fn publish(&self) {
        let mut inbox = self.inbox.lock().await;
        let mut waiting: Vec<Told> = Vec::new();
        let mut line = None;
        loop {
            if waiting.is_empty() && inbox.recv_many(&mut waiting, TOGETHER).await == 0 {
                return;
            }
            let published = self.publish_some(&mut line, &waiting).await;
            let Ok(safe) = published else {
                line = None;
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            if safe.len() < waiting.len() {
                tokio::time::sleep(PAUSE).await;
            }
            let safe: HashSet<usize> = safe.into_iter().collect();
            let (confirmed, left): (Vec<_>, Vec<_>) =
                waiting.into_iter().enumerate().partition(|(place, _)| safe.contains(place));
            waiting = left.into_iter().map(|(_, told)| told).collect();
            self.confirmed(confirmed.into_iter().map(|(_, told)| told).collect());
        }
    }

    async fn publish_some(&self, line: &mut Option<Line>, waiting: &[Told]) -> Result<Vec<usize>, Failed> {
        let open = match line.take() {
            Some(open) => open,
            None => Line::open(&self.url).await?,
        };
        let bodies: Vec<_> = waiting.iter().map(|told| told.body.clone()).collect();
        let safe = open.publish(EXCHANGE, "trucker.created", &bodies).await?;
        *line = Some(open);
        Ok(safe)
    }

    fn confirmed(&self, confirmed: Vec<Told>) {
        let mut ledger = self.ledger.lock().unwrap();
        for told in confirmed {
            ledger.n_over_rabbitmq += 1;
            match told.pk {
                Some(pk) => _ = ledger.events.entry(pk).or_default().insert(told.id.clone()),
                None => _ = ledger.poison.insert(told.body.clone()),
            }
            ledger.confirmed.push(told);
            self.n_pending.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Deletes the source's queue, and tells again what may have been in it: everything about truckers that the
    /// service did not know before, and all nonsense.
    pub(crate) async fn delete_source_queue(&self, known: &HashSet<u64>) -> Result<(), Failed> {
        Line::open(&self.url).await?.delete(SOURCE_QUEUE).await?;
        let again: Vec<Told> = {
            let mut ledger = self.ledger.lock().unwrap();
            let was_safe = |told: &Told| told.pk.is_some_and(|pk| known.contains(&pk));
            let (safe, again) = std::mem::take(&mut ledger.confirmed).into_iter().partition(was_safe);
            ledger.confirmed = safe;
            again
        };
        self.timeline.note(&format!("{} messages are told again", again.len()));
        self.n_pending.fetch_add(again.len(), Ordering::Relaxed);
        for told in again {
            let _ = self.outgoing.send(told);
        }
        Ok(())
    }

    /// Binds its queue for what is announced, or no longer.
    pub(crate) async fn listen(&self, listen: bool) -> Result<(), Failed> {
        let line = Line::open(&self.url).await?;
        if listen {
            line.bind(ANNOUNCED, EXCHANGE, ANNOUNCEMENTS).await
        } else {
            line.unbind(ANNOUNCED, EXCHANGE, ANNOUNCEMENTS).await
        }
    }

    /// Everything announced, in order, and the bodies of everything that was dead-lettered.
    pub(crate) async fn take(&self) -> Result<(Vec<crate::line::Taken>, BTreeSet<Vec<u8>>), Failed> {
        let line = Line::open(&self.url).await?;
        let announced = line.take_all(ANNOUNCED).await?;
        let dead = line.take_all(&format!("{SOURCE_QUEUE}.dead")).await?;
        Ok((announced, dead.into_iter().map(|taken| taken.body).collect()))
    }

    pub(crate) fn with_ledger<T>(&self, look: impl FnOnce(&Ledger) -> T) -> T {
        look(&self.ledger.lock().unwrap())
    }
}

fn event(pk: u64, id: &str) -> Told {
    let data = json!({ "trucker": { "pk": pk, "remote_id": format!("driver-{pk}") } });
    let body = json!({
        "specversion": "1.0", "id": id, "source": "/platform", "type": "trucker.created",
        "datacontenttype": "application/json", "data": data,
    });
    Told { pk: Some(pk), id: id.to_owned(), body: body.to_string().into_bytes() }
}

fn nonsense(number: usize) -> Told {
    let body = match number % 4 {
        0 => format!("no JSON, number {number}"),
        1 => json!({ "specversion": "1.0", "id": number.to_string(), "source": "/platform",
                     "type": "trucker.created", "data": { "trucker": { "remote_id": "no key" } } })
        .to_string(),
        2 => json!({ "specversion": "1.0", "id": number.to_string(), "source": "/platform",
                     "type": "truck.created", "data": { "trucker": { "pk": 1 } } })
        .to_string(),
        _ => json!({ "specversion": "1.0", "source": "/platform", "type": "trucker.created",
                     "data": { "trucker": { "pk": 1 } }, "number": number })
        .to_string(),
    };
    Told { pk: None, id: format!("nonsense-{number}"), body: body.into_bytes() }
}
