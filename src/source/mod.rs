//! Where events come from: RabbitMQ and a webhook. Both speak the same formats and acknowledge after the commit.

pub mod rabbitmq;
pub mod webhook;
