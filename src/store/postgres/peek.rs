//! A look into the database without taking part: `invites list` and `show`. One connection, nothing is written.

use tokio::task::JoinHandle;
use tokio_postgres::Client;

use super::connect::{AddressSource, connect, unavailable};
use super::{reader, schema};
use crate::invite::{Invite, TruckerKey};
use crate::store::{DeadCause, Error, Filter, OrderRecord, Selection, Story};

/// An open look.
pub struct Peek {
    client: Client,
    _driver: JoinHandle<()>,
}

impl Peek {
    /// Connects, if there is a store.
    pub async fn open(source: &AddressSource) -> Result<Self, Error> {
        let (client, driver) = connect(source).await?;
        let schema = schema::version(&client).await.map_err(|error| unavailable(&error))?;
        if schema.is_none_or(|schema| schema == 0) {
            let place = source().map(|address| address.to_string()).unwrap_or_default();
            let why = format!("there is no store in {place}; it is made by the first `invite-relay serve`");
            return Err(Error::Open(why));
        }
        Ok(Self { client, _driver: driver })
    }

    /// See [`Store::list`](crate::store::Store::list).
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Invite>, Error> {
        reader::list(&self.client, filter).await
    }

    /// See [`Store::show`](crate::store::Store::show).
    pub async fn show(&self, key: &TruckerKey) -> Result<Option<Story>, Error> {
        reader::show(&self.client, key).await
    }

    /// See [`Store::causes`](crate::store::Store::causes).
    pub async fn causes(&self, which: &Selection) -> Result<Vec<DeadCause>, Error> {
        reader::causes(&self.client, which).await
    }

    /// See [`Store::orders`](crate::store::Store::orders).
    pub async fn orders(&self, limit: usize) -> Result<Vec<OrderRecord>, Error> {
        reader::orders(&self.client, limit).await
    }
}
