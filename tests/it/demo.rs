//! `demo` and `send` through a real broker.

use std::process::{Command, Output};

use secrecy::ExposeSecret;

use crate::support::operator::Operator;
use crate::support::rabbitmq::RabbitMq;

fn invite_relay(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_invite-relay"));
    command.env_clear().args(args).envs(env.iter().copied()).output().unwrap()
}

fn screen(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!("{}{}", text(&output.stdout), text(&output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demo_runs_through_a_broker_and_removes_what_it_declared() {
    let url = RabbitMq::shared().url();
    for faults in ["none", "flaky"] {
        let args = ["demo", "--events", "8", "--rate", "50", "--exit", "--faults", faults, "--rabbitmq"];
        let output = invite_relay(&[&args[..], &[url.expose_secret()]].concat(), &[]);
        let screen = screen(&output);
        assert!(output.status.success(), "{screen}");
        assert!(screen.contains("8 of 8"), "{screen}");
        let operator = Operator::at(url.clone()).await;
        let (_, after) = screen.split_once("invite-relay.demo.").unwrap();
        let exchange = format!("invite-relay.demo.{}", &after[..8]);
        for queue in ["trucker-created", "trucker-created.dead", "invites", "invites.dead"] {
            let queue = format!("{exchange}.{queue}");
            assert_eq!(operator.n_ready(&queue).await, None, "{queue} is left\n{screen}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_is_confirmed_only_where_a_queue_takes_it() {
    let url = RabbitMq::shared().url();
    let operator = Operator::at(url.clone()).await;
    let send = |exchange: &str, routing_key: &str| {
        let env = [
            ("INVITE_RELAY__DASHDOC__TOKEN", "t"),
            ("INVITE_RELAY__SINK__STDOUT__ENABLED", "true"),
            ("INVITE_RELAY__SOURCE__RABBITMQ__ENABLED", "true"),
            ("INVITE_RELAY__SOURCE__RABBITMQ__URL", url.expose_secret()),
            ("INVITE_RELAY__SOURCE__RABBITMQ__EXCHANGE", exchange),
            ("INVITE_RELAY__SOURCE__RABBITMQ__ROUTING_KEY", routing_key),
            ("INVITE_RELAY__SOURCE__RABBITMQ__QUEUE", "send-queue"),
        ];
        let output = invite_relay(&["send", "--pk", "5", "--id", "e1"], &env);
        (output.status.code(), screen(&output))
    };

    let (code, text) = send("send-nowhere", "trucker.created");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("exchange \"send-nowhere\"") && text.contains("invite-relay serve"), "{text}");

    let topology = invite_relay::broker::Topology {
        exchange: "send-exchange".to_owned(),
        queue: "send-queue".to_owned(),
        routing_key: "trucker.created".to_owned(),
        queue_type: invite_relay::broker::QueueType::Quorum,
        mode: invite_relay::broker::Mode::Declare,
    };
    let endpoint = invite_relay::broker::Endpoint::parse(&url).unwrap();
    let connection = invite_relay::broker::connect(&endpoint, "test").await.unwrap();
    topology.apply(&connection, &invite_relay::broker::Observer::default()).await.unwrap();

    let (code, text) = send("send-exchange", "trucker.renamed");
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no queue is bound for the routing key \"trucker.renamed\""), "{text}");
    let (code, text) = send("send-exchange", "trucker.created");
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(text, format!("sent e1 for default/5 to exchange send-exchange at {endpoint}: confirmed\n"));
    assert_eq!(operator.n_ready("send-queue").await, Some(1));
    topology.remove(&connection).await.unwrap();
    assert_eq!(operator.n_ready("send-queue").await, None);
    topology.remove(&connection).await.expect("what is gone is not missed");
}
