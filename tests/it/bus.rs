//! The bus against a real broker: what is published arrives, in order, whatever happens to the connection.
//!
//! Each test has a prefix of its own. Those that trouble the whole broker have it for themselves: see `PEACE`.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use paybus::bus::client::{Client, CommandSent, NewCommand};
use paybus::bus::connection::{ConnectionState, connect};
use paybus::bus::consumer::{Consumer, QueueState};
use paybus::bus::dead::bury;
use paybus::bus::graveyard::{self, DeadFilter};
use paybus::bus::publisher::{Outgoing, Published, Publisher, ReplyState};
use paybus::bus::refusal::TopologyError;
use paybus::bus::topology::{self, Names};
use paybus::bus::{BusError, BusSettings, BusTls};
use paybus::payment::operation::Reply;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub const PATIENCE: Duration = Duration::from_secs(60);

fn settings() -> BusSettings {
    let file = |variable| std::env::var_os(variable).map(PathBuf::from);
    let url = std::env::var("PAYBUS__AMQP__URL").expect("PAYBUS__AMQP__URL: run this with scripts/with-services");
    BusSettings {
        url: url.into(),
        prefix: format!("test-{}", Uuid::new_v4().simple()),
        declare: true,
        reply_to: String::new(),
        tls: BusTls {
            ca: file("PAYBUS__AMQP__TLS__CA"),
            cert: file("PAYBUS__AMQP__TLS__CERT"),
            key: file("PAYBUS__AMQP__TLS__KEY"),
        },
        confirm_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        delivery_limit: 100,
    }
}

/// Held by every test: to read by those that need the broker in peace, to write by those that trouble it.
static PEACE: RwLock<()> = RwLock::const_new(());

#[allow(dead_code)] // Only held.
enum Peace {
    Shared(RwLockReadGuard<'static, ()>),
    Alone(RwLockWriteGuard<'static, ()>),
}

/// A topology of its own, with one variant.
pub struct Bus {
    pub settings: BusSettings,
    pub names: Names,
    pub client: Client,
    pub stop: CancellationToken,
    _peace: Peace,
}

impl Bus {
    pub async fn new() -> Bus {
        Bus::build(Peace::Shared(PEACE.read().await)).await
    }

    /// Nobody else uses the broker meanwhile.
    pub async fn alone() -> Bus {
        Bus::build(Peace::Alone(PEACE.write().await)).await
    }

    async fn build(peace: Peace) -> Bus {
        let settings = settings();
        let client = Client::connect(&settings, "test").await.expect("a broker");
        let declared = topology::declare(client.connection(), &settings, &["cards"]).await;
        declared.expect("a topology");
        Bus { names: Names::new(&settings.prefix), client, stop: CancellationToken::new(), settings, _peace: peace }
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::spawn(self.settings.clone(), self.stop.clone())
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::spawn(self.settings.clone(), self.stop.clone())
    }

    /// The first client's connection may have been closed by the test.
    pub async fn end(self) {
        self.stop.cancel();
        let connection = connect(&self.settings, "cleanup").await.expect("a broker");
        topology::delete(&connection, &self.settings, &["cards"]).await.expect("deleted");
        connection.close().await;
    }

    async fn send(&self, count: usize) {
        let commands = (0..count).map(|number| NewCommand {
            routing_key: "cards.payment.create".to_owned(),
            message_id: format!("m{number}"),
            body: Bytes::from(format!("{number}")),
            ..NewCommand::default()
        });
        let sent = self.client.publish(commands.collect()).await.expect("published");
        assert!(sent.iter().all(|sent| *sent == CommandSent::Routed), "{sent:?}");
    }
}

pub fn event(payment: u128, number: u32) -> Outgoing {
    let position = i64::try_from(payment * 1_000_000).expect("small") + i64::from(number);
    Outgoing {
        position,
        payment_id: Uuid::from_u128(payment),
        event_id: Uuid::new_v4(),
        routing_key: "cards.payment.updated".to_owned(),
        body: Bytes::from(format!("{payment} {number}")),
        correlation_id: None,
        traceparent: None,
        tracestate: None,
        reply: None,
    }
}

pub async fn reaches<T: PartialEq + std::fmt::Debug>(state: &mut watch::Receiver<T>, wanted: impl Fn(&T) -> bool) {
    let reached = timeout(PATIENCE, state.wait_for(&wanted)).await.map(|reached| reached.is_ok());
    assert!(matches!(reached, Ok(true)), "still {:?}", *state.borrow());
}

pub fn rabbitmqctl(arguments: &[&str]) -> String {
    let program = std::env::var("PAYBUS_TEST_RABBITMQCTL").expect("PAYBUS_TEST_RABBITMQCTL: scripts/with-services");
    let output = Command::new(program).args(arguments).output().expect("rabbitmqctl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

pub fn is_confirmed(published: &Published) -> bool {
    matches!(published, Published::Confirmed { .. })
}

#[tokio::test(flavor = "multi_thread")]
async fn the_topology_is_declared_checked_and_found_wanting() {
    let bus = Bus::new().await;
    let connection = bus.client.connection();
    topology::declare(connection, &bus.settings, &["cards"]).await.expect("twice is well");
    topology::check(connection, &bus.settings, &["cards"]).await.expect("all there");
    let missing = topology::check(connection, &bus.settings, &["other"]).await;
    let Err(BusError::Topology(TopologyError::Missing { object })) = missing else {
        panic!("{missing:?}");
    };
    assert_eq!(object, format!("queue {}", bus.names.commands_of("other")));
    let other = BusSettings { delivery_limit: 7, ..bus.settings.clone() };
    let differs = topology::declare(connection, &other, &["cards"]).await;
    assert!(matches!(differs, Err(BusError::Topology(TopologyError::Differs { .. }))), "{differs:?}");
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn five_thousand_events_arrive_in_order() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    reaches(&mut publisher.state(), |state| *state == ConnectionState::Connected).await;
    let batch = |count: u32| -> Vec<Outgoing> {
        (0..count).flat_map(|number| (0..100).map(move |payment| event(payment, number))).collect()
    };
    // Nobody listens: the events end in a quorum queue.
    let started = Instant::now();
    let published = publisher.publish(batch(50)).await;
    let rate = 5000.0 / started.elapsed().as_secs_f64();
    println!("{rate:.0} events/s in one batch of 5,000 into a quorum queue");
    assert_eq!(published.len(), 5000);
    assert!(published.iter().all(is_confirmed));
    assert_eq!(topology::queue_length(bus.client.connection(), &bus.names.unrouted()).await.expect("a queue"), 5000);
    let started = Instant::now();
    let workers = (0..64).map(|_| {
        let publisher = publisher.clone();
        tokio::spawn(async move {
            for number in 0..80 {
                let payment = Uuid::new_v4().as_u128() >> 100;
                assert!(publisher.publish(vec![event(payment, number)]).await.iter().all(is_confirmed));
            }
        })
    });
    futures_util::future::join_all(workers).await;
    let rate = 5120.0 / started.elapsed().as_secs_f64();
    println!("{rate:.0} events/s by 64 tasks, one at a time each");
    let mut watch = bus.client.subscribe_events("#").await.expect("a watch");
    let publishing = tokio::spawn(async move { publisher.publish(batch(10)).await });
    let mut last = HashMap::new();
    for _ in 0..1000 {
        let watched = timeout(PATIENCE, watch.next()).await.expect("in time").expect("a broker").expect("an event");
        let text = String::from_utf8(watched.body).expect("text");
        let (payment, number) = text.split_once(' ').expect("two numbers");
        let number: i64 = number.parse().expect("a number");
        assert_eq!(number, last.insert(payment.to_owned(), number).unwrap_or(-1) + 1, "{payment}");
    }
    assert!(publishing.await.expect("no panic").iter().all(is_confirmed));
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn replies_are_sent_or_dropped() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let queue = format!("{}.reply", bus.settings.prefix);
    let mut replies = bus.client.subscribe_queue(&queue).await.expect("a queue");
    let with_reply = |number: u32, to: &str| Outgoing {
        reply: Some(Reply { to: to.to_owned(), correlation_id: Some(format!("c{number}")) }),
        ..event(1, number)
    };
    let batch = (0..200).map(|number| match number % 2 {
        0 => with_reply(number, &queue),
        _ => with_reply(number, "reply.nobody"),
    });
    let published = publisher.publish(batch.collect()).await;
    for (number, published) in published.iter().enumerate() {
        let wanted = if number % 2 == 0 { ReplyState::Sent } else { ReplyState::Unroutable };
        assert!(matches!(published, Published::Confirmed { reply, .. } if *reply == wanted), "{published:?}");
    }
    let reply = timeout(PATIENCE, replies.next()).await.expect("in time").expect("a broker").expect("a reply");
    assert_eq!(reply.properties.correlation_id.as_deref(), Some("c0"));
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_queue_takes_is_set_aside_with_those_behind_it() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let mut watch = bus.client.subscribe_events("cards.payment.created").await.expect("a watch");
    // Without the queue that keeps unrouted events, they come back.
    rabbitmqctl(&["delete_queue", &bus.names.unrouted()]);
    let good = |payment, number| Outgoing { routing_key: "cards.payment.created".to_owned(), ..event(payment, number) };
    let batch = vec![good(1, 0), event(1, 1), good(1, 2), good(2, 0), good(2, 1)];
    let published = publisher.publish(batch).await;
    let aside: Vec<bool> = published.iter().map(|published| !is_confirmed(published)).collect();
    assert_eq!(aside, [false, true, true, false, false], "{published:?}");
    assert!(
        matches!(&published[1], Published::SetAside { reason, .. } if reason.contains("NO_ROUTE")),
        "{published:?}"
    );
    for _ in 0..3 {
        timeout(PATIENCE, watch.next()).await.expect("in time").expect("a broker").expect("an event");
    }
    topology::declare(bus.client.connection(), &bus.settings, &["cards"]).await.expect("declared again");
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_exchange_is_waited_for() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    assert!(publisher.publish(vec![event(1, 0)]).await.iter().all(is_confirmed));
    let connection = bus.client.connection();
    topology::delete(connection, &bus.settings, &["cards"]).await.expect("deleted");
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish((1..50).map(|number| event(1, number)).collect()).await }
    });
    reaches(&mut publisher.state(), |state| match state {
        ConnectionState::Disconnected(reason) => reason.contains("does not exist"),
        _ => false,
    })
    .await;
    topology::declare(connection, &bus.settings, &["cards"]).await.expect("declared again");
    let published = timeout(PATIENCE, publishing).await.expect("in time").expect("no panic");
    assert_eq!(published.len(), 49);
    assert!(published.iter().all(is_confirmed), "{published:?}");
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_consumed_again_once_it_is_back() {
    let bus = Bus::new().await;
    let queue = bus.names.commands_of("cards");
    let (consumption, mut deliveries) = bus.consumer().subscribe(&queue, 10);
    let mut state = consumption.state();
    reaches(&mut state, |state| *state == QueueState::Consuming).await;
    bus.send(1).await;
    let old = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
    topology::delete(bus.client.connection(), &bus.settings, &["cards"]).await.expect("deleted");
    reaches(&mut state, |state| matches!(state, QueueState::Down(reason) if reason.contains("does not exist"))).await;
    topology::declare(bus.client.connection(), &bus.settings, &["cards"]).await.expect("declared again");
    reaches(&mut state, |state| *state == QueueState::Consuming).await;
    assert!(!old.acker.ack().await, "an old acknowledgement goes nowhere");
    bus.send(3).await;
    for number in 0..3 {
        let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.body, format!("{number}").as_bytes());
        assert!(delivery.acker.ack().await);
    }
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_queue_gives_out_what_was_prefetched_and_then_one_at_a_time() {
    let bus = Bus::new().await;
    bus.send(30).await;
    let consumer = bus.consumer();
    let (consumption, mut deliveries) = consumer.subscribe(&bus.names.commands_of("cards"), 10);
    let mut state = consumption.state();
    let first = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
    consumption.pause();
    reaches(&mut state, |state| *state == QueueState::Paused).await;
    let mut held = vec![first];
    while let Ok(delivery) = deliveries.try_recv() {
        held.push(delivery);
    }
    assert_eq!(held.len(), 10);
    for delivery in &held {
        assert!(delivery.acker.ack().await);
    }
    let probe = consumption.fetch_one().await.expect("a broker").expect("a message");
    assert_eq!(probe.body, b"10");
    assert!(probe.acker.ack().await);
    assert!(timeout(Duration::from_millis(500), deliveries.recv()).await.is_err());
    consumption.resume();
    let started = Instant::now();
    for number in 11..30 {
        let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.body, format!("{number}").as_bytes());
        assert!(delivery.acker.ack().await);
    }
    println!("19 deliveries after {:?}", started.elapsed());
    assert!(consumption.fetch_one().await.expect("a broker").is_none());
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn consuming_is_fast() {
    let bus = Bus::new().await;
    bus.send(20_000).await;
    let consumer = bus.consumer();
    let started = Instant::now();
    let (_consumption, mut deliveries) = consumer.subscribe(&bus.names.commands_of("cards"), 300);
    let mut acks = tokio::task::JoinSet::new();
    for _ in 0..20_000 {
        let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
        let acker = delivery.acker;
        acks.spawn(async move { acker.ack().await });
    }
    let acked = acks.join_all().await;
    assert!(acked.into_iter().all(|acked| acked));
    println!("{:.0} deliveries/s, each acknowledged by a task", 20_000.0 / started.elapsed().as_secs_f64());
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_dropped() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.commands_of("cards"), 10);
    bus.send(4).await;
    for number in 0..4 {
        let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
        match number {
            3 => assert!(delivery.acker.reject().await),
            _ => {
                let code = ["invalid_envelope", "invalid_envelope", "too_large"][number];
                bury(&publisher, &delivery, code, "no JSON").await.expect("buried");
                assert!(delivery.acker.ack().await);
            }
        }
    }
    // The broker moves a rejected message when it has the time.
    let started = Instant::now();
    while topology::queue_length(bus.client.connection(), &bus.names.dead()).await.expect("a queue") < 4 {
        assert!(started.elapsed() < PATIENCE, "the rejected message did not arrive");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let all = DeadFilter::default();
    for _ in 0..30 {
        let listed = graveyard::list(&bus.settings, &all, 100).await.expect("listed");
        let codes: Vec<&str> = listed.iter().map(|letter| letter.code.as_str()).collect();
        assert_eq!(codes, ["invalid_envelope", "invalid_envelope", "too_large", "rejected"]);
        let queue = bus.names.commands_of("cards");
        assert!(listed.iter().all(|letter| letter.queue == queue && letter.routing_key == "cards.payment.create"));
    }
    let envelopes = DeadFilter { code: Some("invalid_envelope".to_owned()), ..DeadFilter::default() };
    let replayed = graveyard::replay(&bus.settings, &envelopes, 1).await.expect("replayed");
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0].refused, None);
    let again = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
    assert_eq!((again.body.as_slice(), again.properties.message_id.as_deref()), (&b"0"[..], Some("m0")));
    assert!(again.properties.headers.inner().is_empty(), "{:?}", again.properties.headers);
    let dropped = graveyard::drop_matching(&bus.settings, &envelopes, 100).await.expect("dropped");
    assert_eq!(dropped.len(), 1);
    assert_eq!(graveyard::list(&bus.settings, &all, 100).await.expect("listed").len(), 2);
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_for_nobody_goes_to_the_unroutable() {
    let bus = Bus::new().await;
    let command = |routing_key: &str| NewCommand {
        routing_key: routing_key.to_owned(),
        message_id: Uuid::new_v4().to_string(),
        name_user: true,
        ..NewCommand::default()
    };
    let commands =
        vec![command("cards.payment.resolve"), command("nobody.payment.create"), command("cards.payment.fly")];
    let sent = bus.client.publish(commands).await.expect("published");
    assert_eq!(sent, [CommandSent::Routed, CommandSent::Routed, CommandSent::Routed]);
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.unroutable(), 10);
    for key in ["nobody.payment.create", "cards.payment.fly"] {
        let delivery = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.routing_key, key);
        assert!(delivery.properties.user_id.is_some());
        assert!(delivery.acker.ack().await);
    }
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_reply_reaches_whoever_waits_for_it() {
    use futures_util::StreamExt;
    use lapin::options::{BasicConsumeOptions, BasicPublishOptions};
    use secrecy::ExposeSecret;

    let bus = Bus::new().await;
    let url = bus.settings.url.expose_secret();
    let asker = lapin::Connection::connect(url, lapin::ConnectionProperties::default()).await.expect("a broker");
    let channel = asker.create_channel().await.expect("a channel");
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let pseudo = "amq.rabbitmq.reply-to";
    let mut answers = channel
        .basic_consume(pseudo.into(), "".into(), no_ack, lapin::types::FieldTable::default())
        .await
        .expect("a consumer");
    let properties = lapin::BasicProperties::default().with_reply_to(pseudo.into()).with_correlation_id("mine".into());
    let options = BasicPublishOptions::default();
    let exchange = bus.names.commands();
    let asking =
        channel.basic_publish(exchange.as_str().into(), "cards.payment.sync".into(), options, b"{}", properties);
    asking.await.expect("sent").await.expect("no confirm was asked for");
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.inbound_of("cards"), 1);
    let asked = timeout(PATIENCE, deliveries.recv()).await.expect("in time").expect("a command");
    let to = asked.properties.reply_to.clone().expect("a reply queue");
    assert!(to.starts_with(pseudo), "{to}");
    let reply = Reply { to, correlation_id: asked.properties.correlation_id.clone() };
    let answer = |number| Outgoing { reply: Some(reply.clone()), ..event(1, number) };
    let publisher = bus.publisher();
    let sent = |number| Published::Confirmed { position: answer(number).position, reply: ReplyState::Sent };
    assert_eq!(publisher.publish(vec![answer(1)]).await, [sent(1)]);
    let got = timeout(PATIENCE, answers.next()).await.expect("in time").expect("an answer").expect("a broker");
    assert_eq!(got.properties.correlation_id().as_ref().map(|id| id.as_str()), Some("mine"));
    asker.close(200, "gone".into()).await.expect("closed");
    // The broker does not tell whether anybody waited for it.
    assert_eq!(publisher.publish(vec![answer(2)]).await, [sent(2)]);
    bus.end().await;
}
