//! Ways in that belong to one account: paths, secrets and queues that lead to no other.

use std::collections::BTreeMap;

use super::ends::amqp_name;
use super::report::{Found, Report};
use super::syntax;
use crate::config::layer::dotted;
use crate::config::secret::Secret;
use crate::config::section::Config;
use crate::config::section::dashdoc::AccountSection;

/// What is known of the ways in so far; each in the words of the key that has it.
struct Taken {
    paths: BTreeMap<String, String>,
    /// Signing secrets, which are compared and never shown.
    secrets: Vec<(String, Secret)>,
    queues: BTreeMap<String, String>,
    routing_keys: Vec<(String, String)>,
}

pub(super) fn of_accounts(config: &Config, report: &mut Report<'_, '_>) {
    let mut taken = by_the_sources(config);
    for (name, account) in &config.dashdoc.accounts {
        let section = dotted(&["dashdoc".to_owned(), "accounts".to_owned(), name.clone()]);
        webhook(&section, account, config.source.webhook.enabled, &mut taken, report);
        queue(&section, account, config.source.rabbitmq.enabled, &mut taken, report);
    }
}

/// The ways in for everybody. Their own rules are in `ends`.
fn by_the_sources(config: &Config) -> Taken {
    let (webhook, rabbitmq) = (&config.source.webhook, &config.source.rabbitmq);
    let secrets = webhook.secrets_source().and_then(|source| source.read().ok()).unwrap_or_default();
    let mut taken = Taken {
        paths: [(webhook.path.clone(), "source.webhook.path".to_owned())].into(),
        secrets: secrets.into_iter().map(|secret| ("source.webhook.secrets".to_owned(), secret)).collect(),
        queues: BTreeMap::new(),
        routing_keys: vec![("source.rabbitmq.routing_key".to_owned(), rabbitmq.routing_key.clone())],
    };
    taken.take_queue("source.rabbitmq.queue", &rabbitmq.queue);
    taken
}

impl Taken {
    /// Takes a queue and the one for its poison; gives who has either already.
    fn take_queue(&mut self, key: &str, queue: &str) -> Option<String> {
        let names = [queue.to_owned(), format!("{queue}.dead")];
        let before = names.iter().find_map(|name| self.queues.get(name).cloned());
        for name in names {
            self.queues.entry(name).or_insert_with(|| key.to_owned());
        }
        before
    }
}

fn webhook(
    section: &str,
    account: &AccountSection,
    enabled: bool,
    taken: &mut Taken,
    report: &mut Report<'_, '_>,
) {
    let key = |key: &str| format!("{section}.{key}");
    let Some(path) = &account.webhook_path else {
        if account.secrets_source().is_some() {
            let mend = "set webhook_path as well, or remove the secrets";
            report.missing(&key("webhook_path"), "is not set, but secrets for it are", mend);
        }
        return;
    };
    if !syntax::is_path(path) {
        report.wrong(&key("webhook_path"), "not a path", "write for example /webhooks/acme");
    } else if let Some(other) = taken.paths.insert(path.clone(), key("webhook_path")) {
        report.wrong(&key("webhook_path"), &format!("the same as {other}"), "write a path of its own");
    }
    if !enabled {
        let mend = "set source.webhook.enabled = true, or remove it";
        report.warn(&key("webhook_path"), "says nothing while source.webhook is not enabled", mend);
        return;
    }
    let found =
        report.list(&key("webhook_secrets"), &account.webhook_secrets, account.webhook_secrets_file.as_ref());
    match found {
        Found::Value { key, value } => {
            if !value.iter().all(|secret| syntax::is_signing_secret(secret.reveal())) {
                report.wrong(&key, "holds something that is no signing secret", syntax::SIGNING_SECRET_MEND);
            }
            let shared = taken.secrets.iter().find(|(_, secret)| value.contains(secret));
            if let Some((other, _)) = shared {
                let message = format!("holds a secret that is one of {other} as well");
                let mend = "give each company a secret of its own; whoever knows it could send for both";
                report.wrong(&key, &message, mend);
            }
            taken.secrets.extend(value.into_iter().map(|secret| (key.clone(), secret)));
        }
        Found::Nothing => {
            let mend = "set it to a file with one signing secret (whsec_…) per line; nothing else is good on this path";
            report.missing(&key("webhook_secrets_file"), "is not set", mend);
        }
        Found::Bad => {}
    }
}

fn queue(
    section: &str,
    account: &AccountSection,
    enabled: bool,
    taken: &mut Taken,
    report: &mut Report<'_, '_>,
) {
    let (queue_key, binding_key) = (format!("{section}.queue"), format!("{section}.routing_key"));
    let (queue, binding) = match (&account.queue, &account.routing_key) {
        (None, None) => return,
        (Some(_), None) => {
            let mend = "write the routing key of this company's events, for example trucker.created.acme";
            return report.missing(&binding_key, "is not set, but queue is", mend);
        }
        (None, Some(_)) => {
            let mend = "write the name of this company's queue, for example acme.trucker-created";
            return report.missing(&queue_key, "is not set, but routing_key is", mend);
        }
        (Some(queue), Some(binding)) => (queue, binding),
    };
    amqp_name(&queue_key, queue, report);
    amqp_name(&binding_key, binding, report);
    if let Some(other) = taken.take_queue(&queue_key, queue) {
        let message = format!("the same queue, or dead-letter queue, as {other}");
        report.wrong(&queue_key, &message, "write a name of its own, not the other's with .dead at its end");
    }
    let overlapping = taken.routing_keys.iter().find(|(_, key)| syntax::topics_overlap(key, binding));
    if let Some((other, _)) = overlapping {
        let message = format!("an event can fit this and {other}");
        let mend = "write keys of which an event fits only one; it would be taken for both companies";
        report.wrong(&binding_key, &message, mend);
    }
    taken.routing_keys.push((binding_key, binding.clone()));
    if !enabled {
        let mend = "set source.rabbitmq.enabled = true, or remove it";
        report.warn(&queue_key, "says nothing while source.rabbitmq is not enabled", mend);
    }
}
