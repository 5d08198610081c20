//! Where orders are given: to the running service, or to the store while no service has it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use axum::http::StatusCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::app::{self, Place};
use crate::config::{Config, Secret};
use crate::http::orders::{RedriveAnswer, not_published};
use crate::invite::{AccountName, TruckerKey};
use crate::lifecycle::Lifecycle;
use crate::relay;
use crate::store::view::{CauseView, InviteView};
use crate::store::{self, Operator, Reissued, Selection, sqlite};

/// How long the service may take: a large redrive is many transactions.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Who carries out an order.
pub(super) enum Desk {
    /// The service that has the store, over its admin port.
    Service(Admin),
    /// This process, for a moment: nobody else has the store, or it is one to be shared.
    Store(store::Shared, Box<Config>),
}

/// The admin port of the configuration.
pub(super) struct Admin {
    address: SocketAddr,
    token: Option<Secret>,
    http: reqwest::Client,
}

impl Desk {
    pub(super) async fn find(config: Config) -> anyhow::Result<Self> {
        let path = match app::place(&config)? {
            Place::Sqlite(path) => path,
            // Services may be running: all of them, and this process, have the same say.
            Place::Postgres(_) => return Self::alone(config).await,
        };
        match sqlite::inspect(&path)? {
            Some(found) if found.in_use => Ok(Self::Service(Admin::of(&config)?)),
            Some(_) => Self::alone(config).await,
            None => {
                bail!("there is no store at {}; it is made by the first `invite-relay serve`", path.display())
            }
        }
    }

    async fn alone(config: Config) -> anyhow::Result<Self> {
        Ok(Self::Store(app::open_store(&config, &Lifecycle::new()).await?, Box::new(config)))
    }

    /// Puts dead invites back to work if `apply`; otherwise says which.
    pub(super) async fn redrive(
        &self,
        which: &Selection,
        by: &Operator,
        apply: bool,
    ) -> anyhow::Result<RedriveAnswer> {
        match self {
            Self::Service(admin) => {
                let body = json!({
                    "by": by.as_str(), "invite": which.invite.as_ref().map(ToString::to_string),
                    "account": which.account, "cause": which.cause, "all": true, "apply": apply,
                });
                admin.post("/api/v1/redrive", &body).await
            }
            Self::Store(store, config) => {
                let causes = store.causes(which.clone()).await?;
                let mut count = causes.iter().map(|cause| cause.count).sum();
                if apply {
                    let accounts = config.accounts();
                    let rate = |name: &AccountName| accounts.get(name).map(|it| it.rate_per_second);
                    count = relay::redrive(store, rate, which, by).await?;
                }
                let causes = causes.iter().map(CauseView::from).collect();
                Ok(RedriveAnswer { applied: apply, count, causes })
            }
        }
    }

    /// Asks for a new code; the generation that begins.
    pub(super) async fn reissue(&self, key: TruckerKey, by: &Operator) -> anyhow::Result<u64> {
        match self {
            Self::Service(admin) => {
                let path = format!("/api/v1/invites/{}/{}/reissue", key.account, key.pk);
                let begun: Value = admin.post(&path, &json!({ "by": by.as_str() })).await?;
                begun["generation"].as_u64().ok_or_else(|| anyhow!("the service's answer can't be read"))
            }
            Self::Store(store, _) => match store.reissue(key.clone(), by.clone()).await? {
                Reissued::Begun(invite) => Ok(InviteView::from(&*invite).generation.into()),
                Reissued::NotPublished(state) => bail!("{}", not_published(state)),
                Reissued::Unknown => bail!("there is no invite {key} in this store"),
            },
        }
    }
}

/// A problem (RFC 9457), as far as it is shown.
#[derive(Default, Deserialize)]
struct Problem {
    title: Option<String>,
    detail: Option<String>,
}

impl Admin {
    fn of(config: &Config) -> anyhow::Result<Self> {
        let mut address = config.admin.listen;
        if address.ip().is_unspecified() {
            address.set_ip(match address.ip() {
                IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
            });
        }
        let token =
            config.admin.token_source().map(|source| source.read()).transpose().context("admin.token")?;
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .context("no HTTP client can be made")?;
        Ok(Self { address, token, http })
    }

    #[expect(clippy::disallowed_methods, reason = "asks the admin port, not an API")]
    async fn post<T: DeserializeOwned>(&self, path: &str, body: &Value) -> anyhow::Result<T> {
        let mut request = self
            .http
            .post(format!("http://{}{path}", self.address))
            .header("content-type", "application/json")
            .body(body.to_string());
        if let Some(token) = &self.token {
            request = request.bearer_auth(token.reveal());
        }
        let answer = request.send().await.map_err(|_| {
            anyhow!(
                "a process has the store, but its admin port {} does not answer; is admin.listen the same as the \
                 service's?",
                self.address
            )
        })?;
        let status = answer.status();
        let text = answer.bytes().await.unwrap_or_default();
        if status.is_success() {
            return serde_json::from_slice(&text).context("the service's answer can't be read");
        }
        if status == StatusCode::UNAUTHORIZED {
            bail!(
                "the service refuses the admin token; set admin.token_file to the one that it was started with"
            );
        }
        let problem: Problem = serde_json::from_slice(&text).unwrap_or_default();
        let why = problem.detail.or(problem.title).unwrap_or_else(|| "no reason given".to_owned());
        bail!("the service answered {status}: {why}")
    }
}
