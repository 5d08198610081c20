//! The choice of the engine, by the scheme of `store.url`, and its settings.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context as _, bail};

use super::build::rules;
use crate::config::{Config, SecretSource};
use crate::invite::{FingerprintKey, Invite, TruckerKey};
use crate::lifecycle::Lifecycle;
use crate::store::postgres::{self, Address, AddressSource, PostgresStore, Tls};
use crate::store::sqlite::{self, SqliteStore};
use crate::store::{self, DeadCause, Filter, OrderRecord, Selection, Story};
use crate::telemetry::metrics::Metrics;

/// Where the store is.
pub(crate) enum Place {
    /// `sqlite://PATH`.
    Sqlite(PathBuf),
    /// `postgres://…`, with its password and its certificate authorities.
    Postgres(AddressSource),
}

/// Where the configured store is.
pub(crate) fn place(config: &Config) -> anyhow::Result<Place> {
    let url = config.store.url_source().read().context("store.url")?;
    match url.reveal().split_once("://") {
        Some(("sqlite", path)) => Ok(Place::Sqlite(PathBuf::from(path))),
        Some(("postgres" | "postgresql", _)) => {
            let source = address_source(config);
            source().map_err(anyhow::Error::msg)?;
            Ok(Place::Postgres(source))
        }
        _ => bail!("store.url: write sqlite://PATH or postgres://USER@HOST/DATABASE"),
    }
}

/// The address as its files have it at each call.
fn address_source(config: &Config) -> AddressSource {
    let store = &config.store;
    let (url, ca_file) = (store.url_source(), store.ca_file.clone());
    let password = store.password_file.clone().map(SecretSource::File);
    Arc::new(move || {
        let url = url.read().map_err(|error| format!("store.url: {error}"))?;
        let address = Address::parse(url.reveal()).map_err(|error| format!("store.url: {error}"))?;
        let address = address.with_ca_file(ca_file.clone());
        let Some(password) = &password else { return Ok(address) };
        let password = password.read().map_err(|error| format!("store.password_file: {error}"))?;
        Ok(address.with_password(password.reveal()))
    })
}

/// The path of the embedded store.
pub(crate) fn store_path(config: &Config) -> anyhow::Result<PathBuf> {
    match place(config)? {
        Place::Sqlite(path) => Ok(path),
        Place::Postgres(_) => bail!("store.url: not an embedded store"),
    }
}

/// The store, opened for this process.
pub(super) async fn open(
    config: &Config,
    metrics: &Arc<Metrics>,
    life: &Lifecycle,
) -> anyhow::Result<store::Shared> {
    let metrics = Arc::clone(metrics);
    let observer: sqlite::Observer = Arc::new(move |commands, took| metrics.committed(commands, took));
    let (rules, fingerprint_key) = (rules(config)?, fingerprint_key(config)?);
    let (erase_codes_after, retention) = (config.store.erase_codes_after, config.store.retention);
    match place(config)? {
        Place::Sqlite(path) => {
            let settings =
                sqlite::Settings { path, rules, erase_codes_after, retention, fingerprint_key, observer };
            let life = life.clone();
            let opened = tokio::task::spawn_blocking(move || SqliteStore::open(settings, &life)).await?;
            Ok(Arc::new(opened?))
        }
        Place::Postgres(address) => {
            if let Ok(known) = address()
                && known.tls() == Tls::Disabled
            {
                tracing::warn!(store = %known, "the store's connections are not encrypted: sslmode=disable says so");
            }
            let settings = postgres::Settings {
                address,
                rules,
                erase_codes_after,
                retention,
                fingerprint_key,
                observer,
            };
            Ok(Arc::new(PostgresStore::open(settings, life).await?))
        }
    }
}

fn fingerprint_key(config: &Config) -> anyhow::Result<Option<FingerprintKey>> {
    use sha2::Digest as _;
    let Some(path) = &config.store.fingerprint_key_file else { return Ok(None) };
    let secret = SecretSource::File(path.clone()).read().context("store.fingerprint_key_file")?;
    // Whatever its form, all of the file counts.
    Ok(Some(FingerprintKey::new(sha2::Sha256::digest(secret.reveal().as_bytes()).into())))
}

/// A look into the store, also while a service runs on it.
pub(crate) enum Peek {
    /// Into the file.
    Sqlite(sqlite::Peek),
    /// Into the database.
    Postgres(postgres::Peek),
}

impl Peek {
    /// Opens the configured store for reading.
    pub(crate) async fn open(config: &Config) -> anyhow::Result<Self> {
        Ok(match place(config)? {
            Place::Sqlite(path) => Self::Sqlite(sqlite::Peek::open(&path)?),
            Place::Postgres(address) => Self::Postgres(postgres::Peek::open(&address).await?),
        })
    }

    /// See [`store::Store::list`].
    pub(crate) async fn list(&self, filter: &Filter) -> Result<Vec<Invite>, store::Error> {
        match self {
            Self::Sqlite(peek) => peek.list(filter),
            Self::Postgres(peek) => peek.list(filter).await,
        }
    }

    /// See [`store::Store::show`].
    pub(crate) async fn show(&self, key: &TruckerKey) -> Result<Option<Story>, store::Error> {
        match self {
            Self::Sqlite(peek) => peek.show(key),
            Self::Postgres(peek) => peek.show(key).await,
        }
    }

    /// See [`store::Store::causes`].
    pub(crate) async fn causes(&self, which: &Selection) -> Result<Vec<DeadCause>, store::Error> {
        match self {
            Self::Sqlite(peek) => peek.causes(which),
            Self::Postgres(peek) => peek.causes(which).await,
        }
    }

    /// See [`store::Store::orders`].
    pub(crate) async fn orders(&self, limit: usize) -> Result<Vec<OrderRecord>, store::Error> {
        match self {
            Self::Sqlite(peek) => peek.orders(limit),
            Self::Postgres(peek) => peek.orders(limit).await,
        }
    }
}
