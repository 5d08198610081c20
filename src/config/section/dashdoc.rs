//! `[dashdoc]` and `[dashdoc.accounts.NAME]`: the API, and one token per company.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::human::{DurationText, duration};
use crate::config::secret::Secret;
use crate::config::secret_path::SecretPath;
use crate::config::secret_source::{SecretListSource, SecretSource};
use crate::invite::AccountName;

/// The Dashdoc API, and the account that is always there: `default`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dashdoc {
    /// Address of the API, version included.
    pub base_url: String,
    /// API token of the company.
    pub token: Option<Secret>,
    /// File that holds the API token.
    pub token_file: Option<SecretPath>,
    /// Header that carries the token.
    pub auth_header: String,
    /// Word before the token in that header; empty for the bare token.
    pub auth_scheme: String,
    /// How long one call may take.
    #[serde(with = "duration")]
    #[schemars(with = "DurationText")]
    pub timeout: Duration,
    /// Calls per second. Dashdoc allows 10 per API user, shared with the company's other integrations.
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub rate_per_second: f64,
    /// Calls at one time.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: u32,
    /// PEM file with further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Further companies, by name. What is not set is taken from `[dashdoc]`, except the token.
    #[serde(default)]
    pub accounts: BTreeMap<String, AccountSection>,
}

/// One further company. What is not set is taken from `[dashdoc]`, except the token.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountSection {
    /// Address of the API, version included.
    pub base_url: Option<String>,
    /// API token of this company.
    pub token: Option<Secret>,
    /// File that holds the API token.
    pub token_file: Option<SecretPath>,
    /// Header that carries the token.
    pub auth_header: Option<String>,
    /// Word before the token in that header; empty for the bare token.
    pub auth_scheme: Option<String>,
    /// How long one call may take.
    pub timeout: Option<DurationText>,
    /// Calls per second.
    #[schemars(range(min = 0.001, max = 100_000.0))]
    pub rate_per_second: Option<f64>,
    /// Calls at one time.
    #[schemars(range(min = 1, max = 1000))]
    pub max_in_flight: Option<u32>,
    /// PEM file with further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Path on the port of `source.webhook` where every event is this company's.
    pub webhook_path: Option<String>,
    /// Standard Webhooks signing secrets (`whsec_…`) for that path, and for no other; any of them may have signed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub webhook_secrets: Vec<Secret>,
    /// File with one such signing secret per line.
    pub webhook_secrets_file: Option<SecretPath>,
    /// Further queue where every event is this company's, on the broker of `source.rabbitmq`.
    pub queue: Option<String>,
    /// Routing key that binds that queue to `source.rabbitmq.exchange`.
    pub routing_key: Option<String>,
}

/// All that is needed to call the API for one company, inheritance resolved.
#[derive(Clone, Debug)]
pub struct Account {
    /// The company's name in the configuration.
    pub name: AccountName,
    /// Address of the API as it was written; http or https, without user, query and fragment.
    pub base_url: Url,
    /// Where the API token is found.
    pub token: SecretSource,
    /// Header that carries the token; a valid header name.
    pub auth_header: String,
    /// Word before the token in that header; empty for the bare token.
    pub auth_scheme: String,
    /// How long one call may take.
    pub timeout: Duration,
    /// Calls per second, above 0.
    pub rate_per_second: f64,
    /// Calls at one time, at least 1.
    pub max_in_flight: u32,
    /// PEM file with further certificate authorities to trust.
    pub ca_file: Option<PathBuf>,
    /// Where events that are signed for this company are posted to.
    pub webhook: Option<AccountWebhook>,
    /// The queue of this company.
    pub queue: Option<AccountQueue>,
}

/// A webhook path of one company.
#[derive(Clone, Debug)]
pub struct AccountWebhook {
    /// No other company has it.
    pub path: String,
    /// Where the secrets are found that sign there.
    pub secrets: SecretListSource,
}

/// A queue of one company. What is not here is as `source.rabbitmq` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountQueue {
    /// No other company has it.
    pub queue: String,
    /// Fits no event that fits another queue's binding.
    pub routing_key: String,
}

impl super::Config {
    /// Every account, `default` among them.
    pub fn accounts(&self) -> BTreeMap<AccountName, Account> {
        let own = &self.dashdoc;
        let named = own.accounts.iter().map(|(name, section)| {
            let name: AccountName = name.parse().expect("load() refuses a name that is none");
            account(name, section, own)
        });
        std::iter::once(account(AccountName::default_account(), &own.as_account(), own))
            .chain(named)
            .map(|account| (account.name.clone(), account))
            .collect()
    }
}

impl Dashdoc {
    /// The section `[dashdoc]` read as the account `default`, which inherits everything but the token from itself.
    fn as_account(&self) -> AccountSection {
        AccountSection {
            base_url: None,
            token: self.token.clone(),
            token_file: self.token_file.clone(),
            auth_header: None,
            auth_scheme: None,
            timeout: None,
            rate_per_second: None,
            max_in_flight: None,
            ca_file: None,
            // Its ways in are `source.webhook` and `source.rabbitmq`.
            webhook_path: None,
            webhook_secrets: Vec::new(),
            webhook_secrets_file: None,
            queue: None,
            routing_key: None,
        }
    }
}

fn account(name: AccountName, section: &AccountSection, inherited: &Dashdoc) -> Account {
    let base_url = section.base_url.as_ref().unwrap_or(&inherited.base_url);
    Account {
        name,
        base_url: base_url.parse().expect("load() refuses a base_url that is no URL"),
        token: SecretSource::of_pair(section.token.as_ref(), section.token_file.as_ref())
            .expect("load() refuses an account without a token"),
        auth_header: section.auth_header.as_ref().unwrap_or(&inherited.auth_header).clone(),
        auth_scheme: section.auth_scheme.as_ref().unwrap_or(&inherited.auth_scheme).clone(),
        timeout: section.timeout.map_or(inherited.timeout, |text| text.0),
        rate_per_second: section.rate_per_second.unwrap_or(inherited.rate_per_second),
        max_in_flight: section.max_in_flight.unwrap_or(inherited.max_in_flight),
        ca_file: section.ca_file.as_ref().or(inherited.ca_file.as_ref()).cloned(),
        webhook: section.webhook_path.as_ref().map(|path| AccountWebhook {
            path: path.clone(),
            secrets: section.secrets_source().expect("load() refuses a webhook_path without secrets"),
        }),
        queue: section.queue.as_ref().zip(section.routing_key.as_ref()).map(|(queue, routing_key)| {
            AccountQueue { queue: queue.clone(), routing_key: routing_key.clone() }
        }),
    }
}

impl AccountSection {
    /// Where the signing secrets of its own path are found, if there are any.
    pub fn secrets_source(&self) -> Option<SecretListSource> {
        SecretListSource::of_pair(&self.webhook_secrets, self.webhook_secrets_file.as_ref())
    }
}
