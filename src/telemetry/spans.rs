//! Every span the service makes, in one place.
//!
//! Names and attributes follow the OpenTelemetry semantic conventions [`SEMCONV`]; messaging is still in
//! development there.
//!
//! | constructor | kind | name | parent | ends |
//! |---|---|---|---|---|
//! | [`process_delivery`] | CONSUMER | `process {destination}` | the message's context | when the event is stored |
//! | [`serve_webhook`] | SERVER | `POST {route}` | the request's context | when the request is answered |
//! | [`attempt`] | INTERNAL | `attempt` | the intake span; a later one none, linked to the stored context | when the attempt's outcome is stored |
//! | [`call_api`] | CLIENT | `{method} {url.template}` | the attempt | with the answer |
//! | [`publish`] | PRODUCER | `publish {destination}` | the attempt | with the confirm |
//! | [`send_webhook`] | CLIENT | `POST` | the attempt | with the answer |
//!
//! The attempt that follows an event at once is part of its trace. Hours may lie between an event and a later attempt,
//! so that one is a trace of its own, linked to the stored context and to the previous attempt.
//!
//! All carry `invite.id` (`account/pk`) and `event.id` (of the incoming event) as soon as they are known;
//! from the attempt on also `invite.generation` and `invite.attempt`. No span carries a code, a body, a
//! header or a full URL.

use opentelemetry::trace::TraceId;
use tracing::field::{Empty, display};
use tracing::{Span, info_span};

use super::propagation;
use crate::invite::{Generation, TruckerKey};

/// The version of the semantic conventions that names and attributes follow.
pub const SEMCONV: &str = "1.44.0";

/// Where a peer is: host and port, as configured.
#[derive(Clone, Copy, Debug)]
pub struct Server<'a> {
    /// Host name or address.
    pub host: &'a str,
    /// Port number.
    pub port: u16,
}

impl<'a> Server<'a> {
    /// The host and port of a URL.
    pub fn of(url: &'a url::Url) -> Self {
        Self {
            host: url.host_str().unwrap_or_default(),
            port: url.port_or_known_default().unwrap_or_default(),
        }
    }
}

/// Which try at which code a span belongs to.
#[derive(Clone, Copy, Debug)]
pub struct Work<'a> {
    /// The trucker.
    pub invite: &'a TruckerKey,
    /// Which code of the trucker.
    pub generation: Generation,
    /// Which attempt at it, counted from 1; 0 where none is made.
    pub attempt: u32,
}

/// A message that the broker delivered.
#[derive(Clone, Copy, Debug)]
pub struct Delivery<'a> {
    /// The broker.
    pub server: Server<'a>,
    /// The exchange it was published to.
    pub exchange: &'a str,
    /// Its routing key.
    pub routing_key: &'a str,
    /// The queue it came from.
    pub queue: &'a str,
    /// Its delivery tag.
    pub tag: u64,
    /// Its `message_id`.
    pub message_id: Option<&'a str>,
}

/// Taking one delivery in.
pub fn process_delivery(delivery: &Delivery<'_>) -> Span {
    let destination = consumer_destination(delivery.exchange, delivery.routing_key, delivery.queue);
    info_span!(
        parent: None,
        "process",
        otel.name = format!("process {destination}"),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        "messaging.destination.name" = destination,
        "messaging.rabbitmq.destination.routing_key" = delivery.routing_key,
        "messaging.rabbitmq.message.delivery_tag" = i64::try_from(delivery.tag).unwrap_or(i64::MAX),
        "messaging.message.id" = delivery.message_id,
        "server.address" = delivery.server.host,
        "server.port" = i64::from(delivery.server.port),
        "cloudevents.event_id" = Empty,
        "cloudevents.event_source" = Empty,
        "cloudevents.event_type" = Empty,
        "event.id" = Empty,
        "invite.id" = Empty,
        "error.type" = Empty,
    )
}

/// Serving one request to the webhook; `route` is the configured path, never the requested one.
pub fn serve_webhook(route: &str) -> Span {
    info_span!(
        parent: None,
        "serve",
        otel.name = format!("POST {route}"),
        otel.kind = "server",
        otel.status_code = Empty,
        "http.request.method" = "POST",
        "http.route" = route,
        "http.response.status_code" = Empty,
        "cloudevents.event_id" = Empty,
        "cloudevents.event_source" = Empty,
        "cloudevents.event_type" = Empty,
        "event.id" = Empty,
        "invite.id" = Empty,
        "error.type" = Empty,
    )
}

/// One attempt at a code: calls and publishing are its children.
pub fn attempt(work: &Work<'_>, event_id: Option<&str>) -> Span {
    info_span!(
        parent: None,
        "attempt",
        otel.kind = "internal",
        otel.status_code = Empty,
        "invite.id" = display(work.invite),
        "invite.generation" = i64::from(work.generation.get()),
        "invite.attempt" = i64::from(work.attempt),
        "event.id" = event_id,
        "error.type" = Empty,
    )
}

/// The span of an attempt once its parent is set, and whether it is recorded. Requests and announcements are its parts.
///
/// At a thousand events per second most attempts are not recorded, and then a span for each part would be made only to
/// be thrown away: the attempt's own stands for them, in log lines and in the context that leaves with a message.
#[derive(Debug)]
pub struct Attempt {
    span: Span,
    trace: Option<TraceId>,
}

impl Attempt {
    /// Takes the span as it is: a parent that is set later is not seen.
    pub fn of(span: Span) -> Self {
        let trace = propagation::sampled_trace(&span);
        Self { span, trace }
    }

    /// The trace it is recorded in: what an exemplar refers to.
    pub const fn trace(&self) -> Option<TraceId> {
        self.trace
    }

    /// The span of a part: what `make` makes as a child of the attempt, or the attempt where that is not recorded.
    pub fn part(&self, make: impl FnOnce(&Span) -> Span) -> Span {
        if self.trace.is_some() { make(&self.span) } else { self.span.clone() }
    }
}

/// A request to the API.
#[derive(Clone, Copy, Debug)]
pub struct ApiRequest<'a> {
    /// The API.
    pub server: Server<'a>,
    /// The HTTP method.
    pub method: &'static str,
    /// The path with its parameters as placeholders, such as `/manager-truckers/{pk}/`.
    pub template: &'static str,
    /// 0 for the first sending of this request, one more for each repeat.
    pub resend_count: u32,
}

/// One request on the wire.
pub fn call_api(parent: &Span, request: &ApiRequest<'_>, work: &Work<'_>) -> Span {
    let repeats = (request.resend_count > 0).then_some(i64::from(request.resend_count));
    info_span!(
        parent: parent,
        "call",
        otel.name = format!("{} {}", request.method, request.template),
        otel.kind = "client",
        otel.status_code = Empty,
        "http.request.method" = request.method,
        "url.template" = request.template,
        "server.address" = request.server.host,
        "server.port" = i64::from(request.server.port),
        "http.request.resend_count" = repeats,
        "http.response.status_code" = Empty,
        "invite.id" = display(work.invite),
        "invite.generation" = i64::from(work.generation.get()),
        "invite.attempt" = i64::from(work.attempt),
        "error.type" = Empty,
    )
}

/// An event on its way out.
#[derive(Clone, Copy, Debug)]
pub struct OutgoingEvent<'a> {
    /// The receiver.
    pub server: Server<'a>,
    /// Its id, which is also the `message_id`.
    pub id: &'a str,
    /// Its `CloudEvents` type.
    pub kind: &'a str,
}

/// Publishing one event; its context is what the message carries.
pub fn publish(
    parent: &Span,
    event: &OutgoingEvent<'_>,
    exchange: &str,
    routing_key: &str,
    work: &Work<'_>,
) -> Span {
    let destination = joined(&[exchange, routing_key]);
    info_span!(
        parent: parent,
        "publish",
        otel.name = format!("publish {destination}"),
        otel.kind = "producer",
        otel.status_code = Empty,
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "publish",
        "messaging.operation.type" = "send",
        "messaging.destination.name" = destination,
        "messaging.rabbitmq.destination.routing_key" = routing_key,
        "messaging.message.id" = event.id,
        "server.address" = event.server.host,
        "server.port" = i64::from(event.server.port),
        "cloudevents.event_id" = event.id,
        "cloudevents.event_type" = event.kind,
        "invite.id" = display(work.invite),
        "invite.generation" = i64::from(work.generation.get()),
        "invite.attempt" = i64::from(work.attempt),
        "error.type" = Empty,
    )
}

/// Delivering one event to the webhook sink. The URL stays out: its path may be a secret.
pub fn send_webhook(parent: &Span, event: &OutgoingEvent<'_>, work: &Work<'_>) -> Span {
    info_span!(
        parent: parent,
        "send",
        otel.name = "POST",
        otel.kind = "client",
        otel.status_code = Empty,
        "http.request.method" = "POST",
        "server.address" = event.server.host,
        "server.port" = i64::from(event.server.port),
        "http.response.status_code" = Empty,
        "cloudevents.event_id" = event.id,
        "cloudevents.event_type" = event.kind,
        "invite.id" = display(work.invite),
        "invite.generation" = i64::from(work.generation.get()),
        "invite.attempt" = i64::from(work.attempt),
        "error.type" = Empty,
    )
}

/// Longest text from outside that goes onto a span; a sender may choose ids of any length.
const OUTSIDE_TEXT_MAX: usize = 256;

/// Notes which event an intake span is about, once it is parsed. Overlong values are cut.
pub fn identify_event(span: &Span, id: &str, source: Option<&str>, kind: Option<&str>) {
    let id = cut(id);
    span.record("event.id", id).record("cloudevents.event_id", id);
    if let Some(source) = source {
        span.record("cloudevents.event_source", cut(source));
    }
    if let Some(kind) = kind {
        span.record("cloudevents.event_type", cut(kind));
    }
}

/// Notes which invite an intake span is about, once it is known.
pub fn identify_invite(span: &Span, invite: &TruckerKey) {
    span.record("invite.id", display(invite));
}

/// Notes the answer to a request we sent: any status from 400 on is an error of a CLIENT span.
pub fn answered(span: &Span, status: u16) {
    note_status(span, status, status >= 400);
}

/// Notes the answer we gave: only a status from 500 on is an error of a SERVER span.
pub fn gave_answer(span: &Span, status: u16) {
    note_status(span, status, status >= 500);
}

/// Notes that the work of `span` failed; `kind` is one of a small set of words, such as `timeout`.
pub fn failed(span: &Span, kind: &str) {
    span.record("error.type", kind).record("otel.status_code", "ERROR");
}

fn note_status(span: &Span, status: u16, is_error: bool) {
    span.record("http.response.status_code", i64::from(status));
    if is_error {
        failed(span, &status.to_string());
    }
}

fn cut(text: &str) -> &str {
    text.char_indices().nth(OUTSIDE_TEXT_MAX).map_or(text, |(end, _)| &text[..end])
}

/// `messaging.destination.name` of a consumer: the queue is left out where it repeats the routing key.
fn consumer_destination(exchange: &str, routing_key: &str, queue: &str) -> String {
    joined(&[exchange, routing_key, if queue == routing_key { "" } else { queue }])
}

fn joined(parts: &[&str]) -> String {
    let present: Vec<_> = parts.iter().copied().filter(|part| !part.is_empty()).collect();
    present.join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::testing::spans_of;
    use opentelemetry::Value;
    use opentelemetry::trace::{SpanKind, Status};
    use opentelemetry_sdk::trace::SpanData;

    const SERVER: Server<'static> = Server { host: "peer.example", port: 5671 };

    fn work(invite: &TruckerKey) -> Work<'_> {
        Work { invite, generation: Generation::FIRST.next(), attempt: 3 }
    }

    fn invite() -> TruckerKey {
        "default/23498".parse().unwrap()
    }

    /// The one span that `make` makes, after `then` was done to it.
    fn span(make: impl FnOnce(&Work<'_>) -> Span, then: impl FnOnce(&Span)) -> SpanData {
        let mut spans = spans_of(|| then(&make(&work(&invite()))));
        assert_eq!(spans.len(), 1);
        spans.remove(0)
    }

    fn attribute(span: &SpanData, key: &str) -> Option<Value> {
        let mut found = span.attributes.iter().filter(|kv| kv.key.as_str() == key).map(|kv| kv.value.clone());
        let first = found.next();
        assert!(found.next().is_none(), "{key} is there twice");
        first
    }

    fn check(span: &SpanData, kind: &SpanKind, name: &str, attributes: &[(&str, Value)]) {
        assert_eq!((&span.span_kind, span.name.as_ref()), (kind, name));
        for (key, value) in attributes {
            assert_eq!(attribute(span, key).as_ref(), Some(value), "{key} of {name}");
        }
    }

    #[test]
    fn a_delivery_is_a_consumer_span() {
        let delivery = Delivery {
            server: SERVER,
            exchange: "trucker.events",
            routing_key: "trucker.created",
            queue: "invite-relay.trucker-created",
            tag: 7,
            message_id: None,
        };
        let made = span(
            |_| process_delivery(&delivery),
            |span| {
                identify_event(span, "e-1", Some("/platform"), None);
                identify_invite(span, &invite());
            },
        );
        let destination = "trucker.events:trucker.created:invite-relay.trucker-created";
        check(
            &made,
            &SpanKind::Consumer,
            &format!("process {destination}"),
            &[
                ("messaging.system", "rabbitmq".into()),
                ("messaging.operation.name", "process".into()),
                ("messaging.operation.type", "process".into()),
                ("messaging.destination.name", destination.into()),
                ("messaging.rabbitmq.message.delivery_tag", 7_i64.into()),
                ("server.port", 5671_i64.into()),
                ("cloudevents.event_id", "e-1".into()),
                ("cloudevents.event_source", "/platform".into()),
                ("event.id", "e-1".into()),
                ("invite.id", "default/23498".into()),
            ],
        );
        assert_eq!(attribute(&made, "messaging.message.id"), None);
        assert_eq!(made.status, Status::Unset);
    }

    #[test]
    fn a_destination_drops_what_is_empty_or_said_twice() {
        assert_eq!(consumer_destination("", "q", "q"), "q");
        assert_eq!(consumer_destination("x", "", "q"), "x:q");
        assert_eq!(consumer_destination("x", "k", "q"), "x:k:q");
    }

    #[test]
    fn a_senders_overlong_id_is_cut() {
        let id = "é".repeat(10_000);
        let made = span(|_| serve_webhook("/in"), |span| identify_event(span, &id, None, None));
        assert_eq!(attribute(&made, "event.id").unwrap().as_str().chars().count(), OUTSIDE_TEXT_MAX);
    }

    #[test]
    fn a_webhook_request_is_a_server_span_and_a_refusal_is_no_error_of_ours() {
        let refused = span(|_| serve_webhook("/webhooks/x"), |span| gave_answer(span, 401));
        check(
            &refused,
            &SpanKind::Server,
            "POST /webhooks/x",
            &[
                ("http.request.method", "POST".into()),
                ("http.route", "/webhooks/x".into()),
                ("http.response.status_code", 401_i64.into()),
            ],
        );
        assert_eq!(refused.status, Status::Unset);
        let down = span(|_| serve_webhook("/webhooks/x"), |span| gave_answer(span, 503));
        assert_eq!(down.status, Status::error(""));
        assert_eq!(attribute(&down, "error.type"), Some("503".into()));
    }

    #[test]
    fn an_api_request_is_a_client_span_named_by_its_template() {
        let template = "/manager-truckers/{pk}/generate-invite-code/";
        let request = ApiRequest { server: SERVER, method: "POST", template, resend_count: 0 };
        let made = span(|work| call_api(&Span::none(), &request, work), |span| answered(span, 429));
        check(
            &made,
            &SpanKind::Client,
            "POST /manager-truckers/{pk}/generate-invite-code/",
            &[
                ("http.request.method", "POST".into()),
                ("url.template", template.into()),
                ("server.address", "peer.example".into()),
                ("http.response.status_code", 429_i64.into()),
                ("error.type", "429".into()),
                ("invite.id", "default/23498".into()),
                ("invite.generation", 2_i64.into()),
                ("invite.attempt", 3_i64.into()),
            ],
        );
        assert_eq!(made.status, Status::error(""));
        assert_eq!(attribute(&made, "http.request.resend_count"), None);
        let again = ApiRequest { resend_count: 1, ..request };
        let made = span(|work| call_api(&Span::none(), &again, work), |span| failed(span, "timeout"));
        check(
            &made,
            &SpanKind::Client,
            "POST /manager-truckers/{pk}/generate-invite-code/",
            &[("http.request.resend_count", 1_i64.into()), ("error.type", "timeout".into())],
        );
    }

    #[test]
    fn calls_and_publishing_are_children_of_their_attempt_even_from_elsewhere() {
        let event = OutgoingEvent { server: SERVER, id: "id-1", kind: "invite.ready" };
        let spans = spans_of(|| {
            let invite = invite();
            let unrelated = info_span!("the publisher's own task").entered();
            let attempt = attempt(&work(&invite), Some("e-1"));
            drop(publish(&attempt, &event, "trucker.events", "invite.ready", &work(&invite)));
            drop(send_webhook(&attempt, &event, &work(&invite)));
            drop(attempt);
            drop(unrelated);
        });
        let [publish, send, attempt, unrelated] = spans.as_slice() else { panic!("{} spans", spans.len()) };
        check(
            publish,
            &SpanKind::Producer,
            "publish trucker.events:invite.ready",
            &[
                ("messaging.operation.name", "publish".into()),
                ("messaging.operation.type", "send".into()),
                ("messaging.message.id", "id-1".into()),
                ("cloudevents.event_id", "id-1".into()),
                ("invite.id", "default/23498".into()),
            ],
        );
        check(send, &SpanKind::Client, "POST", &[("cloudevents.event_type", "invite.ready".into())]);
        check(
            attempt,
            &SpanKind::Internal,
            "attempt",
            &[("event.id", "e-1".into()), ("invite.attempt", 3_i64.into())],
        );
        for child in [publish, send] {
            assert_eq!(child.parent_span_id, attempt.span_context.span_id());
        }
        assert_ne!(attempt.span_context.trace_id(), unrelated.span_context.trace_id());
    }

    #[test]
    fn the_parts_of_an_attempt_that_is_not_recorded_are_the_attempt_itself() {
        let invite = invite();
        let parts = |parent: Option<&str>| {
            let made = std::cell::Cell::new(0);
            let spans = spans_of(|| {
                let span = attempt(&work(&invite), None);
                propagation::set_parent(&span, propagation::TraceHeaders::parse(parent, None).as_ref());
                let attempt = Attempt::of(span.clone());
                let part = attempt.part(|parent| {
                    made.set(made.get() + 1);
                    send_webhook(
                        parent,
                        &OutgoingEvent { server: SERVER, id: "id-1", kind: "k" },
                        &work(&invite),
                    )
                });
                assert_eq!(part == span, attempt.trace().is_none());
                assert!(propagation::inject(&part).is_some(), "the context goes on either way");
            });
            (made.get(), spans.len())
        };
        assert_eq!(parts(None), (1, 2));
        assert_eq!(parts(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")), (1, 2));
        assert_eq!(parts(Some("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")), (0, 0));
    }
}
