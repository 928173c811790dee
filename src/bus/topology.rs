//! The exchanges and queues: their names, their arguments, and whether they exist.
//!
//! Everything is durable, and every queue is a quorum queue with the same arguments on every version of RabbitMQ. The
//! broker compares arguments at every declaration, so they are part of the contract: a change requires a new queue.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};
use strum::IntoEnumIterator;
use strum::IntoStaticStr;
use tracing::debug;

use super::connection::Connection;
use super::connection::refusal::{TopologyError, named};
use super::{BusError, BusSettings, bounded, describe, short};
use crate::payment::command::CommandType;

/// How many events that nobody subscribed to are kept.
const UNROUTED_KEPT: i64 = 100_000;

/// Listing dead letters fetches and returns them, and each return counts as a redelivery. RabbitMQ 4 drops a message
/// after 20 unless configured otherwise, and 3.10 takes "unlimited" (-1) for "none". A number that is never reached
/// means the same to both.
const NEVER: i64 = i32::MAX as i64;

/// How often a copy of a dead letter is delivered before it is dropped. It may be what crashes the workers, and the
/// letter itself is kept.
const ANSWER_TRIES: i64 = 20;

/// All names, derived from the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// Creates the names that begin with this prefix.
    pub fn new(prefix: &str) -> Names {
        Names { prefix: prefix.to_owned() }
    }

    /// The exchange that upstream services publish commands to.
    pub fn commands(&self) -> String {
        format!("{}.commands", self.prefix)
    }

    /// Exchange and queue of commands for an unknown variant or of an unknown type.
    pub fn unroutable(&self) -> String {
        format!("{}.unroutable", self.prefix)
    }

    /// The queue of a variant's commands; an open breaker pauses it.
    pub fn commands_of(&self, variant: &str) -> String {
        format!("{}.commands.{variant}", self.prefix)
    }

    /// The queue of the commands that are never paused: notification, sync, resolve, and those that only read.
    pub fn inbound_of(&self, variant: &str) -> String {
        format!("{}.inbound.{variant}", self.prefix)
    }

    /// The exchange that events are published to.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The exchange that heartbeats are published to. A heartbeat that nobody subscribed to is dropped.
    pub fn heartbeats(&self) -> String {
        format!("{}.heartbeats", self.prefix)
    }

    /// Exchange and queue of events that nobody subscribed to.
    pub fn unrouted(&self) -> String {
        format!("{}.unrouted", self.prefix)
    }

    /// Exchange and queue of messages that could not be understood or were redelivered too often.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue of the copies of dead letters, from which workers answer those whose sender can be identified.
    pub fn unanswered(&self) -> String {
        format!("{}.unanswered", self.prefix)
    }
}

/// An exchange to declare or check.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its full name.
    pub name: String,
    /// The type of its routing.
    pub kind: ExchangeKind,
    /// The exchange that receives what this one cannot route.
    pub alternate: Option<String>,
}

/// The purpose of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum QueueKind {
    /// A variant's commands.
    Commands,
    /// Commands of a variant that are never paused.
    Inbound,
    /// Commands for an unknown variant or of an unknown type.
    Unroutable,
    /// Events that nobody subscribed to.
    Unrouted,
    /// Messages that could not be understood or were redelivered too often.
    Dead,
    /// Copies of dead letters, to be answered.
    Unanswered,
}

impl QueueKind {
    /// Returns the label value for metrics.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A queue to declare or check.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its full name.
    pub name: String,
    /// Its purpose.
    pub kind: QueueKind,
    /// The arguments of its declaration, apart from its type.
    pub arguments: Vec<(&'static str, Argument)>,
    /// The exchange that it is bound to.
    pub exchange: String,
    /// The routing keys of its bindings.
    pub keys: Vec<String>,
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// Returns all exchanges, each before those that refer to it.
pub fn exchanges(names: &Names) -> Vec<Exchange> {
    let exchange = |name: String, kind, alternate| Exchange { name, kind, alternate };
    vec![
        exchange(names.dead(), ExchangeKind::Fanout, None),
        exchange(names.unroutable(), ExchangeKind::Fanout, None),
        exchange(names.unrouted(), ExchangeKind::Fanout, None),
        exchange(names.commands(), ExchangeKind::Topic, Some(names.unroutable())),
        exchange(names.events(), ExchangeKind::Topic, Some(names.unrouted())),
        exchange(names.heartbeats(), ExchangeKind::Topic, None),
    ]
}

/// Returns all queues, those of the variants after the common ones.
pub fn queues(names: &Names, delivery_limit: u32, variants: &[&str]) -> Vec<Queue> {
    let kept = |kind, name: String, arguments: Vec<(&'static str, Argument)>| Queue {
        exchange: name.clone(),
        name,
        kind,
        arguments,
        keys: vec![String::new()],
    };
    let unrouted =
        vec![("x-max-length", Argument::Number(UNROUTED_KEPT)), ("x-overflow", Argument::Text("drop-head".to_owned()))];
    let tries = vec![("x-delivery-limit", Argument::Number(ANSWER_TRIES))];
    let mut all = vec![
        kept(QueueKind::Dead, names.dead(), vec![("x-delivery-limit", Argument::Number(NEVER))]),
        // Workers read it like a command queue, so it needs the same delivery limit and the same dead-lettering.
        kept(QueueKind::Unroutable, names.unroutable(), work(names, delivery_limit)),
        kept(QueueKind::Unrouted, names.unrouted(), unrouted),
        Queue { exchange: names.dead(), ..kept(QueueKind::Unanswered, names.unanswered(), tries) },
    ];
    for variant in variants {
        let queue = |kind, name| Queue {
            name,
            kind,
            arguments: work(names, delivery_limit),
            exchange: names.commands(),
            keys: keys(variant, kind == QueueKind::Inbound),
        };
        all.push(queue(QueueKind::Commands, names.commands_of(variant)));
        all.push(queue(QueueKind::Inbound, names.inbound_of(variant)));
    }
    all
}

/// Returns the arguments of a queue that workers read: nothing in it may be dropped.
fn work(names: &Names, delivery_limit: u32) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-dead-letter-exchange", Argument::Text(names.dead())),
        ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
        ("x-delivery-limit", Argument::Number(i64::from(delivery_limit))),
    ]
}

/// Returns one key per type: a command of an unknown type is unroutable and is answered from there.
fn keys(variant: &str, inbound: bool) -> Vec<String> {
    CommandType::iter().filter(|kind| kind.is_inbound() == inbound).map(|kind| format!("{variant}.{kind}")).collect()
}

fn table(arguments: &[(&'static str, Argument)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, argument) in arguments {
        let value = match argument {
            Argument::Text(text) => AMQPValue::LongString(LongString::from(text.as_str())),
            Argument::Number(number) => AMQPValue::LongLongInt(*number),
        };
        table.insert((*name).into(), value);
    }
    table
}

/// Declares or only checks the topology, depending on `settings.declare`.
///
/// # Errors
/// An object is missing, differs or may not be used, and is named; or the connection is lost.
pub async fn prepare(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    match settings.declare {
        true => declare(connection, settings, variants).await,
        false => {
            let hidden = check(connection, settings, variants).await?;
            if !hidden.is_empty() {
                debug!(
                    objects = hidden.join(", "),
                    "cannot check whether these objects exist: the broker user has no permission on them"
                );
            }
            Ok(())
        }
    }
}

/// Declares the topology. Objects that already exist as required are left alone.
///
/// # Errors
/// An object differs or may not be declared, and is named; or the connection is lost.
pub async fn declare(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    let names = Names::new(&settings.prefix);
    let channel = connection.channel().await?;
    for exchange in exchanges(&names) {
        let arguments = exchange.alternate.map(|name| ("alternate-exchange", Argument::Text(name)));
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = short("exchange name", exchange.name.as_str())?;
        let declaring = channel.exchange_declare(name, exchange.kind, options, table(arguments.as_slice()));
        let declared = bounded("declaring an exchange", settings.connect_timeout, declaring).await;
        declared.map_err(|error| named(error, || format!("exchange {}", exchange.name)))?;
    }
    for queue in queues(&names, settings.delivery_limit, variants) {
        let declared = declare_queue(&channel, settings, &queue).await;
        declared.map_err(|error| named(error, || format!("queue {}", queue.name)))?;
    }
    bounded("closing a channel", settings.connect_timeout, channel.close(200, "done".into())).await
}

async fn declare_queue(channel: &Channel, settings: &BusSettings, queue: &Queue) -> Result<(), BusError> {
    let mut arguments = table(&queue.arguments);
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    let name = short("queue name", queue.name.as_str())?;
    let declaring = channel.queue_declare(name.clone(), options, arguments);
    bounded("declaring a queue", settings.connect_timeout, declaring).await?;
    for key in &queue.keys {
        let exchange = short("exchange name", queue.exchange.as_str())?;
        let key = short("binding key", key.as_str())?;
        let nothing = FieldTable::default();
        let binding = channel.queue_bind(name.clone(), exchange, key, QueueBindOptions::default(), nothing);
        bounded("binding a queue", settings.connect_timeout, binding).await?;
    }
    Ok(())
}

/// Checks that everything exists, which does not require the right to declare it. Arguments and bindings cannot be
/// checked this way. From RabbitMQ 4.3 on, a user cannot even check objects that it has no permission for. These are
/// returned and are not an error: if the user needs such a permission, its use reports the lack.
///
/// # Errors
/// The first object that is missing, by name; or the connection is lost.
pub async fn check(
    connection: &Connection,
    settings: &BusSettings,
    variants: &[&str],
) -> Result<Vec<String>, BusError> {
    let names = Names::new(&settings.prefix);
    let mut hidden = Vec::new();
    for exchange in exchanges(&names) {
        hidden.extend(seen(exchange_exists(connection, &exchange.name).await)?);
    }
    for queue in queues(&names, settings.delivery_limit, variants) {
        hidden.extend(seen(queue_length(connection, &queue.name).await)?);
    }
    Ok(hidden)
}

/// Returns the name of an object that the user may not check.
fn seen<T>(looked: Result<T, BusError>) -> Result<Option<String>, BusError> {
    match looked {
        Ok(_) => Ok(None),
        Err(BusError::Topology(TopologyError::Forbidden { object, .. })) => Ok(Some(object)),
        Err(error) => Err(error),
    }
}

/// Checks that an exchange exists.
///
/// # Errors
/// It is missing or may not be used; or the connection is lost.
pub async fn exchange_exists(connection: &Connection, name: &str) -> Result<(), BusError> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // A missing exchange closes the channel, so each check uses its own.
    let channel = connection.channel().await?;
    let name = short("exchange name", name)?;
    // The kind is ignored in a passive declaration.
    let asking = channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, FieldTable::default());
    let found = bounded("checking an exchange", connection.timeout(), asking).await;
    found.map_err(|error| named(error, || format!("exchange {name}")))
}

/// Returns how many messages of a queue are ready for delivery.
///
/// # Errors
/// It is missing or may not be used; or the connection is lost.
pub async fn queue_length(connection: &Connection, name: &str) -> Result<u32, BusError> {
    let channel = connection.channel().await?;
    let found = queue_depth(&channel, connection.timeout(), name).await;
    let depth = found.map_err(|error| named(error, || format!("queue {name}")))?;
    Ok(depth.messages)
}

/// What the broker reports about a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are ready to be delivered.
    pub messages: u32,
    /// The number of its consumers.
    pub consumers: u32,
}

/// Returns what the broker reports about each queue. Requires no permission beyond consuming them.
pub async fn queue_depths(connection: &Connection, names: &[String]) -> Vec<Result<Depth, BusError>> {
    let mut depths = Vec::with_capacity(names.len());
    let mut kept: Option<Channel> = None;
    for name in names {
        let channel = match kept.take() {
            Some(channel) => channel,
            None => match connection.channel().await {
                Ok(channel) => channel,
                Err(error) => {
                    depths.push(Err(error));
                    continue;
                }
            },
        };
        let depth = queue_depth(&channel, connection.timeout(), name).await;
        // A missing queue closes the channel.
        kept = depth.is_ok().then_some(channel);
        depths.push(depth);
    }
    if let Some(channel) = kept
        && let Err(error) = bounded("closing a channel", connection.timeout(), channel.close(200, "done".into())).await
    {
        debug!(error = describe(&error), "the channel that checked the queues was already closed");
    }
    depths
}

async fn queue_depth(channel: &Channel, timeout: Duration, name: &str) -> Result<Depth, BusError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asking = channel.queue_declare(short("queue name", name)?, options, FieldTable::default());
    let queue = bounded("checking a queue", timeout, asking).await?;
    Ok(Depth { messages: queue.message_count(), consumers: queue.consumer_count() })
}

/// Deletes the topology with all its messages, for tests.
///
/// # Errors
/// The connection is lost, or something may not be deleted.
pub async fn delete(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    let names = Names::new(&settings.prefix);
    let channel = connection.channel().await?;
    for queue in queues(&names, settings.delivery_limit, variants) {
        let name = short("queue name", queue.name)?;
        let deleting = channel.queue_delete(name, QueueDeleteOptions::default());
        bounded("deleting a queue", settings.connect_timeout, deleting).await?;
    }
    for exchange in exchanges(&names) {
        let name = short("exchange name", exchange.name)?;
        let deleting = channel.exchange_delete(name, ExchangeDeleteOptions::default());
        bounded("deleting an exchange", settings.connect_timeout, deleting).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variant_has_a_queue_that_pauses_and_one_that_never_does() {
        let names = Names::new("paybus");
        let all = queues(&names, 100, &["cards"]);
        let find = |name: &str| all.iter().find(|queue| queue.name == name).expect("the queue");
        let commands = find("paybus.commands.cards");
        assert_eq!(
            commands.keys,
            [
                "cards.payment.create",
                "cards.payment.process",
                "cards.payment.capture",
                "cards.payment.release",
                "cards.payment.refund",
                "cards.payment.cancel"
            ]
        );
        assert_eq!(commands.exchange, "paybus.commands");
        assert_eq!(
            commands.arguments,
            [
                ("x-dead-letter-exchange", Argument::Text("paybus.dead".to_owned())),
                ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
                ("x-overflow", Argument::Text("reject-publish".to_owned())),
                ("x-delivery-limit", Argument::Number(100)),
            ]
        );
        assert_eq!(
            find("paybus.inbound.cards").keys,
            [
                "cards.payment.sync",
                "cards.payment.notification",
                "cards.payment.resolve",
                "cards.payment.retry",
                "cards.payment.withdraw",
                "cards.payment.resend",
                "cards.payment.snapshot",
                "cards.events.resend",
                "cards.command.status",
                "cards.variant.pause",
                "cards.variant.resume"
            ]
        );
    }

    #[test]
    fn a_dead_letter_has_a_copy_to_be_answered_that_ends_by_itself() {
        let all = queues(&Names::new("p"), 100, &[]);
        let copies = all.iter().find(|queue| queue.name == "p.unanswered").expect("the queue");
        assert_eq!((copies.exchange.as_str(), copies.keys.as_slice()), ("p.dead", &[String::new()][..]));
        assert_eq!(copies.arguments, [("x-delivery-limit", Argument::Number(20))], "it is dead-lettered nowhere");
    }

    #[test]
    fn every_exchange_is_declared_before_it_is_referred_to() {
        let names = Names::new("p");
        let mut seen: Vec<String> = Vec::new();
        for exchange in exchanges(&names) {
            if let Some(alternate) = &exchange.alternate {
                assert!(seen.contains(alternate), "{alternate}");
            }
            seen.push(exchange.name);
        }
        for queue in queues(&names, 1, &["a"]) {
            assert!(seen.contains(&queue.exchange), "{}", queue.name);
        }
    }
}
