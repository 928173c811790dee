//! A small client of the bus, for the command line and for tests: it publishes commands and watches events.

use bytes::Bytes;
use futures_util::StreamExt;
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{FieldTable, ShortString};

use super::connection::refusal::named;
use super::connection::{Connection, connect};
use super::consume::delivery::Properties;
use super::publish::batch::{Message, publish};
use super::publish::channel::open;
use super::publish::pending::BATCH_MAX;
use super::publish::publisher::base_properties;
use super::publish::verdict::Refused;
use super::topology::Names;
use super::{BusError, BusSettings, bounded, short};

/// How many events a watcher prefetches.
const AHEAD: u16 = 256;

/// A connection to the bus.
#[derive(Debug)]
pub struct Client {
    connection: Connection,
    channel: Channel,
    names: Names,
    /// The user of `amqp.url`.
    user: Option<String>,
    settings: BusSettings,
}

/// A command to publish.
#[derive(Debug, Clone, Default)]
pub struct NewCommand {
    /// `<variant>.<type>`.
    pub routing_key: String,
    /// The AMQP `message_id`, which identifies a return.
    pub message_id: String,
    /// The command as CloudEvents JSON, or anything else to be tried.
    pub body: Bytes,
    /// The queue that the final answer also goes to.
    pub reply_to: Option<String>,
    /// The AMQP `correlation_id`.
    pub correlation_id: Option<String>,
    /// Whether to send our `user_id`, which configured users and `payment.resolve` require; the broker checks it.
    pub name_user: bool,
}

/// A message that a watcher received.
#[derive(Debug, Clone, PartialEq)]
pub struct Watched {
    /// The event's routing key.
    pub routing_key: String,
    /// The AMQP properties.
    pub properties: Properties,
    /// The payload.
    pub body: Vec<u8>,
}

/// Messages as they arrive. Ends with the connection.
#[derive(Debug)]
pub struct Watch {
    stream: lapin::Consumer,
    // Keeps the channel open, and with it the queue.
    _channel: Channel,
}

impl Client {
    /// Connects, with this role in the connection's name.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub async fn connect(settings: &BusSettings, role: &str) -> Result<Client, BusError> {
        let connection = connect(settings, role).await?;
        let channel = open(&connection).await?;
        Ok(Client {
            connection,
            channel,
            names: Names::new(&settings.prefix),
            user: settings.user(),
            settings: settings.clone(),
        })
    }

    /// Returns the connection, for other requests to the broker.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Publishes commands in order, and waits until the broker has answered for each.
    ///
    /// # Errors
    /// The connection or the channel was lost: it is unknown which of the commands arrived. The same ones can be sent
    /// again.
    pub async fn publish(&self, commands: Vec<NewCommand>) -> Result<Vec<Result<(), Refused>>, BusError> {
        let messages = commands.into_iter().map(|command| self.message(command));
        let messages = messages.collect::<Result<Vec<_>, _>>()?;
        let mut sent = Vec::with_capacity(messages.len());
        for batch in messages.chunks(BATCH_MAX) {
            let timeout = self.settings.confirm_timeout;
            let report = publish(&self.connection, &self.channel, batch.iter(), timeout).await;
            for one in report.sent {
                let Some(taken) = one.only_try() else {
                    return Err(match report.closed {
                        Some(closed) => BusError::Refused(closed.reason),
                        None => BusError::Closed,
                    });
                };
                sent.push(taken);
            }
        }
        Ok(sent)
    }

    fn message(&self, command: NewCommand) -> Result<Message, BusError> {
        let mut properties = base_properties().with_message_id(short("message id", command.message_id)?);
        if let Some(queue) = command.reply_to {
            properties = properties.with_reply_to(short("reply queue", queue)?);
        }
        if let Some(id) = command.correlation_id {
            properties = properties.with_correlation_id(short("correlation id", id)?);
        }
        if let Some(user) = self.user.as_deref().filter(|_| command.name_user) {
            properties = properties.with_user_id(short("user", user)?);
        }
        Ok(Message {
            mandatory: true,
            exchange: short("exchange name", self.names.commands())?,
            routing_key: short("routing key", command.routing_key)?,
            properties,
            body: command.body,
        })
    }

    /// Watches the events that match a binding, such as `#` or `cards.#`, from now on.
    ///
    /// # Errors
    /// The events exchange is missing, or the broker cannot be reached.
    pub async fn subscribe_events(&self, binding: &str) -> Result<Watch, BusError> {
        let channel = self.connection.channel().await?;
        let queue = self.declare(&channel, "").await?;
        let exchange = short("exchange name", self.names.events())?;
        let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
        let key = short("binding", binding)?;
        let binding = channel.queue_bind(queue.clone(), exchange, key, options, nothing);
        let bound = bounded("binding a queue", self.settings.connect_timeout, binding).await;
        bound.map_err(|error| named(error, || format!("exchange {}", self.names.events())))?;
        self.watch(channel, queue).await
    }

    /// Watches an exclusive queue that is created for the purpose, such as one for replies.
    ///
    /// # Errors
    /// The broker cannot be reached, or another connection has a queue of that name.
    pub async fn subscribe_queue(&self, name: &str) -> Result<Watch, BusError> {
        let channel = self.connection.channel().await?;
        let queue = self.declare(&channel, name).await?;
        self.watch(channel, queue).await
    }

    async fn declare(&self, channel: &Channel, name: &str) -> Result<ShortString, BusError> {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: true, ..QueueDeclareOptions::default() };
        let declaring = channel.queue_declare(short("queue name", name)?, options, FieldTable::default());
        let queue = bounded("declaring a queue", self.settings.connect_timeout, declaring).await?;
        Ok(queue.name().clone())
    }

    async fn watch(&self, channel: Channel, queue: ShortString) -> Result<Watch, BusError> {
        let timeout = self.settings.connect_timeout;
        let qos = channel.basic_qos(AHEAD, BasicQosOptions::default());
        bounded("setting the prefetch", timeout, qos).await?;
        let (options, nothing) = (BasicConsumeOptions::default(), FieldTable::default());
        let consuming = channel.basic_consume(queue, ShortString::default(), options, nothing);
        let stream = bounded("consuming from a queue", timeout, consuming).await?;
        Ok(Watch { stream, _channel: channel })
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close().await;
    }
}

impl Watch {
    /// Returns the next message, or `None` when the connection has ended.
    ///
    /// # Errors
    /// The connection was lost.
    pub async fn next(&mut self) -> Result<Option<Watched>, BusError> {
        let doing = "watching messages";
        let Some(delivery) = self.stream.next().await else {
            return Ok(None);
        };
        let delivery = delivery.map_err(|source| BusError::Broker { doing, source })?;
        let acking = delivery.acker.ack(BasicAckOptions::default());
        acking.await.map_err(|source| BusError::Broker { doing, source })?;
        Ok(Some(Watched {
            routing_key: delivery.routing_key.to_string(),
            properties: Properties::from(delivery.properties),
            body: delivery.data,
        }))
    }
}
