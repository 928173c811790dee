//! The exchanges and queues: their names, their arguments, and whether they are there.
//!
//! Everything is durable and every queue a quorum queue, with the same arguments on every version of RabbitMQ. The
//! broker compares arguments at every declaration, so they are part of the contract: a changed one is a new queue.

use std::time::Duration;

use lapin::options::{
    ExchangeDeclareOptions, ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString};
use lapin::{Channel, ExchangeKind};
use tracing::debug;

use super::connection::Connection;
use super::refusal::{TopologyError, named};
use super::{BusError, BusSettings, bounded, describe, short};
use crate::payment::command::CommandType;

/// How many events that nobody subscribed to are kept.
const UNROUTED_KEPT: i64 = 100_000;

/// Listing dead letters takes and returns them, and each return counts as a redelivery. RabbitMQ 4 drops a message
/// after 20 unless told otherwise, and 3.10 takes "unlimited" (-1) for "none": a number nobody reaches means the same
/// on both.
const NEVER: i64 = i32::MAX as i64;

/// How often a copy of a dead letter is delivered before it is dropped. It may be what kills its workers, and the letter
/// itself stays.
const ANSWER_TRIES: i64 = 20;

/// Every name, made from the prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    prefix: String,
}

impl Names {
    /// The names that begin with this prefix.
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

    /// The queue of a variant's commands; a breaker pauses it.
    pub fn commands_of(&self, variant: &str) -> String {
        format!("{}.commands.{variant}", self.prefix)
    }

    /// The queue of what reaches a variant at any time: notification, sync, resolve, and what only asks.
    pub fn inbound_of(&self, variant: &str) -> String {
        format!("{}.inbound.{variant}", self.prefix)
    }

    /// The exchange that events are published to.
    pub fn events(&self) -> String {
        format!("{}.events", self.prefix)
    }

    /// The exchange that heartbeats are published to. One that nobody subscribed to is dropped.
    pub fn heartbeats(&self) -> String {
        format!("{}.heartbeats", self.prefix)
    }

    /// Exchange and queue of events that nobody subscribed to.
    pub fn unrouted(&self) -> String {
        format!("{}.unrouted", self.prefix)
    }

    /// Exchange and queue of what could not be understood, or was redelivered too often.
    pub fn dead(&self) -> String {
        format!("{}.dead", self.prefix)
    }

    /// The queue of the dead letters' copies, from which workers answer those that name themselves.
    pub fn unanswered(&self) -> String {
        format!("{}.unanswered", self.prefix)
    }
}

/// An exchange as it has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Exchange {
    /// Its name.
    pub name: String,
    /// How it routes.
    pub kind: ExchangeKind,
    /// Where it sends what it cannot route.
    pub alternate: Option<String>,
}

/// What a queue is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    /// A variant's commands.
    Commands,
    /// What reaches a variant at any time.
    Inbound,
    /// Commands of an unknown variant or type.
    Unroutable,
    /// Events that nobody subscribed to.
    Unrouted,
    /// What could not be understood, or was redelivered too often.
    Dead,
    /// Copies of that, to be answered.
    Unanswered,
}

impl QueueKind {
    /// The word in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            QueueKind::Commands => "commands",
            QueueKind::Inbound => "inbound",
            QueueKind::Unroutable => "unroutable",
            QueueKind::Unrouted => "unrouted",
            QueueKind::Dead => "dead",
            QueueKind::Unanswered => "unanswered",
        }
    }
}

/// A queue as it has to be.
#[derive(Debug, Clone, PartialEq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub kind: QueueKind,
    /// What it is declared with.
    pub arguments: Vec<(&'static str, Argument)>,
    /// The exchange that it is bound to.
    pub exchange: String,
    /// By which routing keys.
    pub keys: Vec<String>,
}

/// An argument's value.
#[derive(Debug, Clone, PartialEq)]
pub enum Argument {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

/// What has to be there, each exchange before what refers to it.
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

/// The queues, those of each variant behind the common ones.
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
        // Workers read it like a command queue, so it needs the same fuse and the same way out.
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

/// The arguments of a queue that workers read: nothing in it may be dropped.
fn work(names: &Names, delivery_limit: u32) -> Vec<(&'static str, Argument)> {
    vec![
        ("x-dead-letter-exchange", Argument::Text(names.dead())),
        ("x-dead-letter-strategy", Argument::Text("at-least-once".to_owned())),
        ("x-overflow", Argument::Text("reject-publish".to_owned())),
        ("x-delivery-limit", Argument::Number(i64::from(delivery_limit))),
    ]
}

/// One binding per type: a command of an unknown type is unroutable and gets its answer from there.
fn keys(variant: &str, inbound: bool) -> Vec<String> {
    CommandType::ALL
        .into_iter()
        .filter(|kind| kind.is_inbound() == inbound)
        .map(|kind| format!("{variant}.{kind}"))
        .collect()
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

/// Declares or only checks everything, as `settings.declare` says.
///
/// # Errors
/// An object that is missing, differs or may not be used, by name; or the connection is lost.
pub async fn prepare(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    match settings.declare {
        true => declare(connection, settings, variants).await,
        false => {
            let hidden = check(connection, settings, variants).await?;
            if !hidden.is_empty() {
                debug!(objects = hidden.join(", "), "this user may not look whether these are there");
            }
            Ok(())
        }
    }
}

/// Declares everything; what is there already as it has to be is left alone.
///
/// # Errors
/// An object that differs or may not be declared, by name; or the connection is lost.
pub async fn declare(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    let names = Names::new(&settings.prefix);
    let channel = connection.channel().await?;
    for exchange in exchanges(&names) {
        let arguments = exchange.alternate.map(|name| ("alternate-exchange", Argument::Text(name)));
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let name = short("name of an exchange", exchange.name.as_str())?;
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
    let name = short("name of a queue", queue.name.as_str())?;
    let declaring = channel.queue_declare(name.clone(), options, arguments);
    bounded("declaring a queue", settings.connect_timeout, declaring).await?;
    for key in &queue.keys {
        let exchange = short("name of an exchange", queue.exchange.as_str())?;
        let key = short("binding key", key.as_str())?;
        let nothing = FieldTable::default();
        let binding = channel.queue_bind(name.clone(), exchange, key, QueueBindOptions::default(), nothing);
        bounded("binding a queue", settings.connect_timeout, binding).await?;
    }
    Ok(())
}

/// Checks that everything is there, without the right to declare it. Arguments and bindings cannot be seen this way. From
/// RabbitMQ 4.3 on a user may not even look at what it has no right to; these are returned, for they are not its business:
/// a right that it needs and lacks is told when it is used.
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

/// The name of what may not be looked at.
fn seen<T>(looked: Result<T, BusError>) -> Result<Option<String>, BusError> {
    match looked {
        Ok(_) => Ok(None),
        Err(BusError::Topology(TopologyError::Forbidden { object, .. })) => Ok(Some(object)),
        Err(error) => Err(error),
    }
}

/// Checks that an exchange is there.
///
/// # Errors
/// It is missing or may not be used; or the connection is lost.
pub async fn exchange_exists(connection: &Connection, name: &str) -> Result<(), BusError> {
    let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
    // A miss closes the channel: each question gets its own.
    let channel = connection.channel().await?;
    let name = short("name of an exchange", name)?;
    // The kind is ignored when only asking.
    let asking = channel.exchange_declare(name.clone(), ExchangeKind::Topic, options, FieldTable::default());
    let found = bounded("looking for an exchange", connection.patience(), asking).await;
    found.map_err(|error| named(error, || format!("exchange {name}")))
}

/// How many messages of a queue are ready to be delivered.
///
/// # Errors
/// It is missing or may not be used; or the connection is lost.
pub async fn queue_length(connection: &Connection, name: &str) -> Result<u32, BusError> {
    let channel = connection.channel().await?;
    let found = queue_depth(&channel, connection.patience(), name).await;
    let depth = found.map_err(|error| named(error, || format!("queue {name}")))?;
    Ok(depth.messages)
}

/// What the broker tells of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Messages that are ready to be delivered.
    pub messages: u32,
    /// Who consumes it.
    pub consumers: u32,
}

/// What the broker tells of queues, each where it tells it. It takes no right beyond those of consuming them.
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
        let depth = queue_depth(&channel, connection.patience(), name).await;
        // A miss closes the channel.
        kept = depth.is_ok().then_some(channel);
        depths.push(depth);
    }
    if let Some(channel) = kept
        && let Err(error) = bounded("closing a channel", connection.patience(), channel.close(200, "done".into())).await
    {
        debug!(error = describe(&error), "the channel that looked at the queues was closed already");
    }
    depths
}

async fn queue_depth(channel: &Channel, patience: Duration, name: &str) -> Result<Depth, BusError> {
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let asking = channel.queue_declare(short("name of a queue", name)?, options, FieldTable::default());
    let queue = bounded("looking for a queue", patience, asking).await?;
    Ok(Depth { messages: queue.message_count(), consumers: queue.consumer_count() })
}

/// Deletes everything with all it holds: for tests.
///
/// # Errors
/// The connection is lost, or something may not be deleted.
pub async fn delete(connection: &Connection, settings: &BusSettings, variants: &[&str]) -> Result<(), BusError> {
    let names = Names::new(&settings.prefix);
    let channel = connection.channel().await?;
    for queue in queues(&names, settings.delivery_limit, variants) {
        let name = short("name of a queue", queue.name)?;
        let deleting = channel.queue_delete(name, QueueDeleteOptions::default());
        bounded("deleting a queue", settings.connect_timeout, deleting).await?;
    }
    for exchange in exchanges(&names) {
        let name = short("name of an exchange", exchange.name)?;
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
                "cards.payment.resend",
                "cards.payment.snapshot",
                "cards.events.resend",
                "cards.command.status"
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
