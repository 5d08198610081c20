//! `RabbitMQ`, as this service uses it. The only place that knows the client library.
//!
//! Two connections, one to [consume](Consumer) and one to [publish](Publisher), because a broker that blocks
//! publishers stops everything on their connection, acknowledgements included. Both reconnect for ever with
//! jittered backoff, and neither uses the library's own recovery, which leaves a consumer pending for ever
//! after a channel error. A session is thrown away as a whole when any part of it is in doubt: new connection,
//! topology, prefetch, subscription. That is one path to get right, and it is exercised by every fault.
//!
//! What the rest of the service may rely on:
//! - a delivery is acknowledged only after the handler said so, and is given back to the broker otherwise;
//! - a publish is `Ok` only if the broker confirmed the message **and** routed it to a queue;
//! - prefetch is always set, and set again with every subscription;
//! - while the [way in](WayIn) is closed nothing is consumed, so that an outage behind us uses up no message's
//!   delivery limit;
//! - no error, log line or `Debug` output holds a password or a message body.

mod connection;
mod consumer;
mod dead_letter;
mod dead_queue;
mod endpoint;
mod error;
mod greeting;
mod hand;
mod ledger;
mod link;
mod message;
mod publisher;
mod removal;
mod session;
mod state;
mod survey;
mod tls;
mod topology;
mod way_in;
mod window;

pub use connection::{Connection, connect};
pub use consumer::{Consumer, ConsumerOptions};
pub use dead_queue::{DeadLetter, DeadQueue, Which};
pub use endpoint::{Address, Endpoint};
pub use error::{Error, PublishError};
pub use greeting::{Server, greet};
pub use message::{Delivery, Message, Verdict};
pub use publisher::{Publisher, PublisherOptions};
pub use state::{BrokerEvent, BrokerState, Observer};
pub use survey::{Argument, Taking};
pub use topology::{Difference, Mode, QueueLook, QueueType, SinkTopology, Topology};
pub use way_in::WayIn;
