//! A queue for replies, as a publisher of commands has it.

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use lapin::{Channel, Connection, Consumer};
use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::bus::Bus;
use super::wait::TIMEOUT;
use super::world::World;

/// An exclusive queue for replies.
pub struct Replies {
    /// Its name, for `reply_to`.
    pub queue: String,
    consumer: Consumer,
    _link: (Connection, Channel),
}

impl Replies {
    /// Makes one that the default `amqp.reply_to` allows. Each has a name of its own: an exclusive queue is gone only some
    /// time after its connection was dropped.
    pub async fn of(world: &World) -> Replies {
        Replies::at(&world.bus, format!("reply.{}.{}", world.bus.prefix, Uuid::new_v4())).await
    }

    /// Makes one of this name, as this client.
    pub async fn at(bus: &Bus, queue: String) -> Replies {
        let (connection, channel) = bus.channel().await;
        let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default()).await.expect("a queue");
        let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
        let consuming = channel.basic_consume(queue.as_str().into(), "".into(), no_ack, FieldTable::default());
        let consumer = consuming.await.expect("a consumer");
        Replies { queue, consumer, _link: (connection, channel) }
    }

    /// The next reply: its AMQP `correlation_id` and its body.
    pub async fn next(&mut self) -> (String, Value) {
        let reply = timeout(TIMEOUT, self.consumer.next()).await.expect("a reply in time");
        let reply = reply.expect("a consumer").expect("the broker");
        let id = reply.properties.correlation_id().as_ref().map(ToString::to_string).unwrap_or_default();
        (id, serde_json::from_slice(&reply.data).expect("JSON"))
    }
}
