//! Removing what was declared, for whoever made it for a while only. The service itself never removes anything.

use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};

use super::connection::{Connection, REQUEST_TIMEOUT, within};
use super::message::short;
use super::{Error, Topology};

impl Topology {
    /// Removes queue, dead-letter queue and exchange, with the messages in them. What is not there is not missed.
    pub async fn remove(&self, connection: &Connection) -> Result<(), Error> {
        let channel = connection.channel().await?;
        for queue in [&self.queue, &self.dead_queue()] {
            let name = short(queue, "the queue's name")?;
            let removing = channel.queue_delete(name, QueueDeleteOptions::default());
            within(REQUEST_TIMEOUT, "removing the queue", removing).await?;
        }
        if !self.exchange.is_empty() {
            let name = short(&self.exchange, "the exchange's name")?;
            let removing = channel.exchange_delete(name, ExchangeDeleteOptions::default());
            within(REQUEST_TIMEOUT, "removing the exchange", removing).await?;
        }
        Ok(())
    }
}
