//! The practical ceiling: what a bare loop does with the same libraries when it promises nothing.
//!
//! `as-bare AMQP_URL NAME IN_FLIGHT [API_URL]`. It consumes, calls, publishes with a confirm, acknowledges; without an
//! API it makes codes up. A crash between call and publish loses a code, a repeated delivery makes a second one.

use futures_util::StreamExt as _;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use serde::Deserialize;
use serde_json::json;

#[derive(Deserialize)]
struct Event {
    id: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    trucker: Trucker,
}

#[derive(Deserialize)]
struct Trucker {
    pk: u64,
    remote_id: String,
}

#[derive(Deserialize)]
struct Answer {
    invite_code: String,
}

pub(crate) fn main(arguments: &[String]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(run(arguments));
}

async fn run(arguments: &[String]) {
    let (url, name) = (&arguments[0], &arguments[1]);
    let in_flight: u16 = arguments[2].parse().unwrap();
    let api = arguments.get(3).map(String::as_str);
    let connection = Connection::connect(url, ConnectionProperties::default()).await.unwrap();
    let consuming = connection.create_channel().await.unwrap();
    consuming.basic_qos(in_flight, BasicQosOptions::default()).await.unwrap();
    let publishing = connection.create_channel().await.unwrap();
    publishing.confirm_select(ConfirmSelectOptions::default()).await.unwrap();
    let http = reqwest::Client::builder().no_proxy().http1_only().build().unwrap();
    let queue = format!("{name}.trucker-created");
    let deliveries = consuming
        .basic_consume(
            queue.as_str().into(),
            "bare".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await
        .unwrap();
    let exchange = format!("{name}.events");
    deliveries
        .for_each_concurrent(usize::from(in_flight), async |delivery| {
            let delivery = delivery.unwrap();
            let event: Event = serde_json::from_slice(&delivery.data).unwrap();
            let code = match api {
                Some(api) => call(&http, api, event.data.trucker.pk).await,
                None => "B00000".to_owned(),
            };
            publish(&publishing, &exchange, &event, &code).await;
            delivery.acker.ack(BasicAckOptions::default()).await.unwrap();
        })
        .await;
}

#[expect(clippy::disallowed_methods, reason = "not the service: the loop that it is compared with")]
async fn call(http: &reqwest::Client, api: &str, pk: u64) -> String {
    let url = format!("{api}/manager-truckers/{pk}/generate-invite-code/");
    let request = http
        .post(url)
        .header("authorization", "Token demo-token")
        .header("content-type", "application/json")
        .timeout(std::time::Duration::from_secs(10))
        .body("{}");
    let body = request.send().await.unwrap().error_for_status().unwrap().bytes().await.unwrap();
    serde_json::from_slice::<Answer>(&body).unwrap().invite_code
}

async fn publish(channel: &Channel, exchange: &str, event: &Event, code: &str) {
    let Trucker { pk, remote_id } = &event.data.trucker;
    let id = uuid::Uuid::now_v7().to_string();
    let data = json!({
        "account": "default", "trucker": { "pk": pk, "remote_id": remote_id }, "invite_code": code,
        "generation": 1, "origin": "generated",
    });
    let body = json!({
        "specversion": "1.0", "id": id, "source": "/bare", "type": "invite.ready", "subject": pk.to_string(),
        "datacontenttype": "application/json", "causationid": event.id, "data": data,
    })
    .to_string();
    let properties = BasicProperties::default()
        .with_delivery_mode(2)
        .with_content_type("application/cloudevents+json".into())
        .with_message_id(id.into());
    let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
    let confirm =
        channel.basic_publish(exchange.into(), "invite.ready".into(), options, body.as_bytes(), properties);
    let confirm = confirm.await.unwrap().await.unwrap();
    assert!(matches!(confirm, Confirmation::Ack(None)), "an event was not taken");
}
