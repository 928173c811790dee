//! The test's own way to the broker, apart from paybus's: it publishes, listens and counts. It connects again whenever the
//! broker comes back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
    ExchangeDeleteOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::command::Command;
use crate::event::{Event, Log};
use crate::wait::{START, within};

/// How long one question to the broker may take before it is asked on a new connection: a broker that died may not say so.
const ANSWER: Duration = Duration::from_secs(15);

/// What is wrong where a question was not answered in that time.
pub const NO_ANSWER: &str = "no answer";

/// How long the listener may take to begin before it tries again.
const SUBSCRIBING: Duration = Duration::from_secs(10);

/// The broker, as one world sees it.
pub struct Bus {
    /// Its address.
    pub url: String,
    /// What the world's names begin with.
    pub prefix: String,
    link: Mutex<Option<(Connection, Channel)>>,
    listening: Option<JoinHandle<()>>,
    is_listening: Arc<AtomicBool>,
}

impl Bus {
    /// Begins to collect every event of the prefix; the topology must be there.
    pub async fn listen(url: &str, prefix: &str, log: Arc<Log>) -> Bus {
        let (url, prefix) = (url.to_owned(), prefix.to_owned());
        let (ready, mut bound) = mpsc::channel(1);
        let is_listening = Arc::default();
        let listening = tokio::spawn(listen(url.clone(), prefix.clone(), log, ready, Arc::clone(&is_listening)));
        assert_eq!(bound.recv().await, Some(()));
        Bus { url, prefix, link: Mutex::new(None), listening: Some(listening), is_listening }
    }

    /// Another client of the same prefix, with a connection of its own. It collects nothing.
    pub fn another(&self) -> Bus {
        let (url, prefix) = (self.url.clone(), self.prefix.clone());
        Bus { url, prefix, link: Mutex::new(None), listening: None, is_listening: Arc::default() }
    }

    /// The same as another user of the broker.
    pub fn as_user(&self, name: &str, password: &str) -> Bus {
        let (scheme, rest) = self.url.split_once("://").expect("an address");
        let place = rest.split_once('@').map_or(rest, |(_, place)| place);
        let mut bus = self.another();
        bus.url = format!("{scheme}://{name}:{password}@{place}");
        bus
    }

    /// Whether events are collected just now: not while the broker is away.
    pub fn is_listening(&self) -> bool {
        self.is_listening.load(Ordering::Relaxed)
    }

    /// Publishes commands in order, and returns when the broker has confirmed all of them. Where the connection is lost,
    /// all are published once more, which is no other command.
    pub async fn publish(&self, commands: &[Command]) {
        within(START, "the broker to take commands", async || self.try_publish(commands).await).await;
    }

    /// The same, tried once.
    pub async fn try_publish(&self, commands: &[Command]) -> Result<(), String> {
        let are_taken = self.ask(async |channel| {
            let mut confirms = Vec::with_capacity(commands.len());
            for command in commands {
                let exchange = format!("{}.commands", self.prefix);
                let options = BasicPublishOptions::default();
                let (key, body) = (command.key(), command.bytes());
                let sent = channel.basic_publish(exchange.into(), key.into(), options, &body, properties(command));
                confirms.push(sent.await?);
            }
            let mut are_taken = true;
            for confirm in confirms {
                are_taken &= matches!(confirm.await?, Confirmation::Ack(_));
            }
            Ok(are_taken)
        });
        if are_taken.await? {
            return Ok(());
        }
        // After a change of leaders, what goes over the old channel may all be refused.
        *self.link.lock().await = None;
        Err("the broker refused a command".to_owned())
    }

    /// The whole name of a queue of the prefix.
    pub fn queue(&self, name: &str) -> String {
        format!("{}.{name}", self.prefix)
    }

    /// Whether a queue of the prefix is there.
    pub async fn exists(&self, name: &str) -> bool {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        // A miss closes the channel: it is asked on one of its own.
        let (connection, channel) = self.channel().await;
        let asked = channel.queue_declare(self.queue(name).into(), options, FieldTable::default()).await;
        connection.close(200, "done".into()).await.expect("the broker");
        asked.is_ok()
    }

    /// How many messages are ready in a queue of the prefix.
    pub async fn length(&self, queue: &str) -> u32 {
        let name = format!("{}.{queue}", self.prefix);
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        within(START, "the length of a queue", async || {
            self.ask(async |channel| {
                Ok(channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await?.message_count())
            })
            .await
        })
        .await
    }

    /// Takes every message that is ready in a queue of the prefix: its headers and its body.
    pub async fn take_all(&self, queue: &str) -> Vec<(BasicProperties, Vec<u8>)> {
        self.take_all_of(&self.queue(queue)).await
    }

    /// The same of a queue by its whole name.
    pub async fn take_all_of(&self, name: &str) -> Vec<(BasicProperties, Vec<u8>)> {
        let mut taken = Vec::new();
        let mut link = self.link.lock().await;
        let channel = connected(&self.url, &mut link).await.expect("a channel");
        let options = lapin::options::BasicGetOptions { no_ack: true };
        while let Some(message) = channel.basic_get(name.into(), options).await.expect("a queue") {
            taken.push((message.delivery.properties, message.delivery.data));
        }
        taken
    }

    /// A subscriber's queue that is full: what is routed there by this key is nacked.
    pub async fn full_queue(&self, key: &str) -> String {
        let name = format!("{}.full-{}", self.prefix, uuid::Uuid::new_v4().simple());
        self.try_full_queue(&name, key).await.expect("a full queue");
        name
    }

    /// The same by its whole name, of a broker that may be away. Where it fails, the queue may be there nevertheless.
    pub async fn try_full_queue(&self, name: &str, key: &str) -> Result<(), String> {
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
        arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let exchange = format!("{}.events", self.prefix);
        self.ask(async |channel| {
            channel.queue_declare(name.into(), options, arguments.clone()).await?;
            let (exchange, binding) = (exchange.as_str().into(), QueueBindOptions::default());
            channel.queue_bind(name.into(), exchange, key.into(), binding, FieldTable::default()).await
        })
        .await
    }

    /// Deletes a queue by its whole name, whether or not it is there, at a broker that may be away.
    pub async fn try_delete_queue(&self, name: &str) -> Result<(), String> {
        self.ask(async |channel| {
            channel.queue_delete(name.into(), QueueDeleteOptions::default()).await?;
            Ok(())
        })
        .await
    }

    /// Makes a durable queue of this whole name.
    pub async fn declare_queue(&self, name: &str) {
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        let (connection, channel) = self.channel().await;
        channel.queue_declare(name.into(), options, arguments).await.expect("a queue");
        connection.close(200, "done".into()).await.expect("the broker");
    }

    /// Deletes a queue by its whole name.
    pub async fn delete_queue(&self, name: &str) {
        let (connection, channel) = self.channel().await;
        channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("the broker");
        connection.close(200, "done".into()).await.expect("the broker");
    }

    /// Publishes a command on a channel of the test's own: direct replies come back on the one they were asked on.
    pub async fn publish_on(&self, channel: &Channel, command: &Command) {
        let exchange = format!("{}.commands", self.prefix);
        let (key, options) = (command.key().into(), BasicPublishOptions::default());
        let sent = channel.basic_publish(exchange.into(), key, options, &command.bytes(), properties(command)).await;
        let confirm = sent.expect("the broker").await.expect("the broker");
        assert!(matches!(confirm, Confirmation::Ack(_)), "the broker refused a command");
    }

    /// The user that the address names.
    pub fn user(&self) -> String {
        let uri: lapin::uri::AMQPUri = self.url.parse().expect("an address");
        uri.authority.userinfo.username
    }

    /// A channel of its own, for what else a test does at the broker.
    pub async fn channel(&self) -> (Connection, Channel) {
        open(&self.url).await.expect("the broker")
    }

    async fn ask<T>(&self, question: impl AsyncFn(&Channel) -> lapin::Result<T>) -> Result<T, String> {
        let mut link = self.link.lock().await;
        let answer = async {
            let channel = connected(&self.url, &mut link).await?;
            question(channel).await
        };
        let answer = timeout(ANSWER, answer).await;
        if !matches!(answer, Ok(Ok(_))) {
            *link = None;
        }
        answer.map_err(|_| NO_ANSWER.to_owned())?.map_err(|error| error.to_string())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.listening.iter().for_each(JoinHandle::abort);
    }
}

async fn connected<'a>(url: &str, link: &'a mut Option<(Connection, Channel)>) -> lapin::Result<&'a Channel> {
    if link.as_ref().is_none_or(|(connection, _)| !connection.status().connected()) {
        *link = Some(open(url).await?);
    }
    Ok(&link.as_ref().expect("a link").1)
}

async fn open(url: &str) -> lapin::Result<(Connection, Channel)> {
    let connection = Connection::connect(url, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok((connection, channel))
}

/// The text of a header; empty where there is none.
pub fn header(properties: &BasicProperties, name: &str) -> String {
    match properties.headers().as_ref().and_then(|headers| headers.inner().get(name)) {
        Some(AMQPValue::LongString(text)) => String::from_utf8_lossy(text.as_bytes()).into_owned(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn properties(command: &Command) -> BasicProperties {
    let content_type = command.properties.content_type().clone();
    let mut properties = command
        .properties
        .clone()
        .with_delivery_mode(2)
        .with_content_type(content_type.unwrap_or_else(|| "application/cloudevents+json; charset=utf-8".into()))
        .with_message_id(command.id.chars().take(60).collect::<String>().into());
    if let Some(queue) = &command.reply_to {
        properties = properties.with_reply_to(queue.as_str().into());
    }
    if let Some(id) = &command.correlation_id {
        properties = properties.with_correlation_id(id.as_str().into());
    }
    if let Some(user) = &command.user_id {
        properties = properties.with_user_id(user.as_str().into());
    }
    properties
}

/// Collects for ever. The queue is durable: no event is missed while the broker is away.
async fn listen(url: String, prefix: String, log: Arc<Log>, ready: mpsc::Sender<()>, is_listening: Arc<AtomicBool>) {
    let mut last = String::new();
    loop {
        let collected = collect(&url, &prefix, &log, &ready, &is_listening).await;
        is_listening.store(false, Ordering::Relaxed);
        if let Err(error) = collected {
            let error = error.to_string();
            if last != error {
                eprintln!("the test's listener connects again: {error}");
                last = error;
            }
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn collect(
    url: &str,
    prefix: &str,
    log: &Log,
    ready: &mpsc::Sender<()>,
    is_listening: &AtomicBool,
) -> lapin::Result<()> {
    // A broker that dies in the middle of a handshake may leave it waiting for ever.
    let Ok(subscribed) = timeout(SUBSCRIBING, subscribe(url, prefix)).await else {
        return Ok(());
    };
    let (_connection, _channel, mut deliveries) = subscribed?;
    ready.try_send(()).unwrap_or_default();
    is_listening.store(true, Ordering::Relaxed);
    while let Some(delivery) = deliveries.next().await {
        let delivery = delivery?;
        log.push(Event {
            routing_key: delivery.routing_key.to_string(),
            properties: delivery.properties.clone(),
            body: serde_json::from_slice(&delivery.data).expect("an event is JSON"),
            at: Instant::now(),
        });
        match timeout(ANSWER, delivery.acker.ack(BasicAckOptions::default())).await {
            Ok(acknowledged) => acknowledged?,
            Err(_) => return Ok(()),
        };
    }
    Ok(())
}

async fn subscribe(url: &str, prefix: &str) -> lapin::Result<(Connection, Channel, Consumer)> {
    let (connection, channel) = open(url).await?;
    let queue = format!("{prefix}.test");
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), options, arguments).await?;
    let (exchange, nothing) = (format!("{prefix}.events"), FieldTable::default());
    let binding = QueueBindOptions::default();
    channel.queue_bind(queue.as_str().into(), exchange.into(), "#".into(), binding, nothing.clone()).await?;
    channel.basic_qos(500, BasicQosOptions::default()).await?;
    let consuming = BasicConsumeOptions::default();
    let deliveries = channel.basic_consume(queue.as_str().into(), "".into(), consuming, nothing).await?;
    Ok((connection, channel, deliveries))
}

/// Deletes what a world had at the broker.
pub async fn delete(url: &str, prefix: &str, variants: &[String]) -> lapin::Result<()> {
    let (connection, channel) = open(url).await?;
    let mut queues: Vec<String> = ["test", "dead", "unanswered", "unroutable", "unrouted"].map(str::to_owned).to_vec();
    queues.extend(variants.iter().flat_map(|name| [format!("commands.{name}"), format!("inbound.{name}")]));
    for queue in queues {
        channel.queue_delete(format!("{prefix}.{queue}").into(), QueueDeleteOptions::default()).await?;
    }
    for exchange in ["commands", "events", "heartbeats", "dead", "unroutable", "unrouted"] {
        channel.exchange_delete(format!("{prefix}.{exchange}").into(), ExchangeDeleteOptions::default()).await?;
    }
    connection.close(200, "done".into()).await
}
