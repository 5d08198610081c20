//! Hints between replicas: "there is new work for this account". Only a hint: a dispatcher that hears nothing finds
//! the work at its next look.
//!
//! NOTIFY takes a lock that all commits of the server share, so it is sent apart from them, and a few times a second
//! at most. The connection that listens is also the one that tells.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, broadcast, mpsc};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Socket};
use tokio_util::task::AbortOnDropHandle;

use super::address::Tls;
use super::connect::{self, AddressSource, unavailable};
use super::group::silent;
use super::limits;
use crate::invite::AccountName;
use crate::store::{Error, Hint};

const CHANNEL: &str = "invite_relay";
/// Between two notifications of one process.
const PACE: Duration = Duration::from_millis(300);
/// Between two looks whether the server still takes writes: others tell only where they do.
const CHECK: Duration = Duration::from_secs(5);
/// Between two tries to listen.
const RETRY: Duration = Duration::from_secs(2);
/// A payload is at most 8000 bytes; with more accounts than this, everybody is meant.
const ACCOUNTS_MAX: usize = 100;
/// Hints that a slow listener may fall behind; then it takes it that everybody was meant.
const BACKLOG: usize = 64;

/// Hints on their way out and in.
pub(super) struct Hints {
    owner: i64,
    untold: Mutex<BTreeSet<AccountName>>,
    something: Notify,
    heard: broadcast::Sender<Hint>,
}

impl Hints {
    pub(super) fn new(owner: i64) -> Self {
        let (heard, _) = broadcast::channel(BACKLOG);
        Self { owner, untold: Mutex::default(), something: Notify::new(), heard }
    }

    pub(super) fn listen(&self) -> broadcast::Receiver<Hint> {
        self.heard.subscribe()
    }

    /// Tells the other replicas, soon.
    pub(super) fn tell(&self, account: &AccountName) {
        let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
        if untold.insert(account.clone()) {
            self.something.notify_one();
        }
    }

    /// The next notification: our own id, then the accounts, or nothing for all of them.
    fn payload(&self) -> String {
        let untold = std::mem::take(&mut *self.untold.lock().unwrap_or_else(PoisonError::into_inner));
        let names: Vec<&str> = untold.iter().map(AccountName::as_str).collect();
        let names = if names.len() > ACCOUNTS_MAX { String::new() } else { names.join(",") };
        format!("{}:{names}", self.owner)
    }

    fn hear(&self, payload: &str) {
        let Some((owner, names)) = payload.split_once(':') else { return };
        if owner == self.owner.to_string() {
            return;
        }
        // Nobody may be listening.
        if names.is_empty() {
            let _ = self.heard.send(Hint::Everything);
        }
        for account in names.split(',').filter_map(|name| name.parse().ok()) {
            let _ = self.heard.send(Hint::Account(account));
        }
    }

    /// Listens and tells for as long as it is polled.
    pub(super) async fn exchange(&self, source: &AddressSource) {
        loop {
            if let Err(error) = self.exchange_once(source).await {
                tracing::debug!(%error, "no hints from other replicas for now");
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    async fn exchange_once(&self, source: &AddressSource) -> Result<(), Error> {
        let address = source().map_err(Error::Unavailable)?;
        let (payloads, mut inbox) = mpsc::unbounded_channel();
        let (client, _driver) = match address.tls() {
            Tls::Verified => {
                let tls = connect::tls(address.ca_file.as_deref())?;
                connect::open(&address, tls, |connection| drive(connection, payloads)).await?
            }
            Tls::Local | Tls::Disabled => {
                connect::open(&address, NoTls, |connection| drive(connection, payloads)).await?
            }
        };
        let wrap = |error: tokio_postgres::Error| unavailable(&error);
        let listen = format!("LISTEN {CHANNEL}");
        let listening = client.batch_execute(&listen);
        tokio::time::timeout(limits::ROUND, listening).await.map_err(|_| silent())?.map_err(wrap)?;
        // What was told before is not heard any more.
        let _ = self.heard.send(Hint::Everything);
        let mut check = tokio::time::interval(CHECK);
        loop {
            tokio::select! {
                payload = inbox.recv() => match payload {
                    Some(payload) => self.hear(&payload),
                    None => return Ok(()),
                },
                () = self.something.notified() => {
                    let telling = tokio::time::timeout(limits::ROUND, self.notify(&client));
                    telling.await.map_err(|_| silent())?.map_err(wrap)?;
                    tokio::time::sleep(PACE).await;
                }
                _ = check.tick() => {
                    if !connect::takes_writes(&client).await {
                        return Err(Error::Unavailable("the server takes no writes any more".to_owned()));
                    }
                }
            }
        }
    }

    async fn notify(&self, client: &Client) -> Result<(), tokio_postgres::Error> {
        client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &self.payload()]).await.map(drop)
    }

    /// Tells everybody that there is work.
    pub(super) async fn tell_all(&self, client: &Client) -> Result<(), Error> {
        let payload = format!("{}:", self.owner);
        let told = client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &payload]).await;
        told.map(drop).map_err(|error| unavailable(&error))
    }
}

/// Carries the bytes of the connection, and hands out the notifications among them.
fn drive<S>(
    mut connection: Connection<Socket, S>,
    payloads: mpsc::UnboundedSender<String>,
) -> AbortOnDropHandle<()>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "aborted with the handle, by whoever listens")]
    AbortOnDropHandle::new(tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            if let AsyncMessage::Notification(notification) = message
                && payloads.send(notification.payload().to_owned()).is_err()
            {
                return;
            }
        }
    }))
}
