//! Readiness: each part says for itself whether it works, and why not.

use std::sync::Arc;

use tokio::sync::watch;

use crate::broker::{BrokerState, Difference};
use crate::http::health::{Health, Part};
use crate::invite::Gate;
use crate::lifecycle::Lifecycle;
use crate::relay::Relay;

/// Adds the parts that the relay knows about. Only the store is needed to accept work: an account or a sink that
/// is away makes invites wait, and loses none.
pub(super) fn follow(health: &Health, relay: &Arc<Relay>, life: &Lifecycle) {
    follow_state(health.required("store"), relay.watch_store(), life, |works| match works {
        Ok(()) => Ok("reads and writes".to_owned()),
        Err(why) => Err(why.clone()),
    });
    follow_state(health.required("intake"), relay.watch_open(), life, |open| match open {
        Ok(()) => Ok("takes events".to_owned()),
        Err(why) => Err(why.clone()),
    });
    for account in relay.accounts() {
        let part = health.optional(format!("account.{}", account.name));
        follow_state(part, account.watch_gate(), life, |gate| match gate {
            Gate::Open => Ok("may call the API".to_owned()),
            Gate::Closed { reason, until, .. } => {
                Err(format!("parked: {}, tried again at {until}", reason.as_str()))
            }
        });
    }
    if let Some(state) = relay.watch_rabbitmq_sink() {
        follow_broker(health, "sink.rabbitmq", false, state, None, life);
    }
    if let Some(open) = relay.watch_webhook_sink() {
        follow_state(health.optional("sink.webhook"), open, life, |open| {
            if *open {
                Ok("takes events".to_owned())
            } else {
                Err("fails, left alone for a while".to_owned())
            }
        });
    }
}

/// Adds a connection to the broker.
pub(super) fn follow_broker(
    health: &Health,
    name: &'static str,
    required: bool,
    state: watch::Receiver<BrokerState>,
    differences: Option<watch::Receiver<Vec<Difference>>>,
    life: &Lifecycle,
) {
    let part = if required { health.required(name) } else { health.optional(name) };
    follow_state(part, state, life, move |state| match state {
        BrokerState::Up => Ok(connected(differences.as_ref())),
        BrokerState::Connecting => Err("connecting".to_owned()),
        BrokerState::Blocked { reason } => Err(format!("the broker blocks publishers: {reason}")),
        BrokerState::Waiting { reason } => Err(format!("not subscribed: {reason}")),
        BrokerState::Down { reason } => Err(format!("not connected: {reason}")),
    });
}

/// Says what is used although it has other arguments than ours.
fn connected(differences: Option<&watch::Receiver<Vec<Difference>>>) -> String {
    let differences: Vec<String> = differences
        .iter()
        .flat_map(|found| found.borrow().iter().map(Difference::to_string).collect::<Vec<_>>())
        .collect();
    if differences.is_empty() {
        "connected".to_owned()
    } else {
        format!("connected; used as it is: {}", differences.join(", "))
    }
}

fn follow_state<T: Send + Sync + 'static>(
    part: Part,
    mut state: watch::Receiver<T>,
    life: &Lifecycle,
    describe: impl Fn(&T) -> Result<String, String> + Send + 'static,
) {
    let drain = life.clone();
    life.spawn_long("readiness", async move {
        loop {
            let described = describe(&state.borrow_and_update());
            match described {
                Ok(detail) => part.set_ok(detail),
                Err(reason) => part.set_not_ready(reason),
            }
            let changed = tokio::select! {
                () = drain.draining() => return,
                changed = state.changed() => changed,
            };
            if changed.is_err() {
                // Its owner has ended; during a drain that is as it should be.
                drain.draining().await;
            }
        }
    });
}
