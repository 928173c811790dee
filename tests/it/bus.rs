//! The bus against a real broker: what is published arrives, in order, whatever happens to the connection.
//!
//! Each test has a prefix of its own. Those that trouble the whole broker have it for themselves: see `Peace`.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use paybus::bus::client::{Client, CommandSent, NewCommand};
use paybus::bus::connection::{ConnectionState, connect};
use paybus::bus::consumer::Consumer;
use paybus::bus::publisher::{Outgoing, Published, Publisher, ReplyState};
use paybus::bus::refusal::TopologyError;
use paybus::bus::topology::{self, Names};
use paybus::bus::{BusError, BusSettings, BusTls};
use paybus::payment::operation::Reply;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::Peace;

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
        Bus::build(Peace::shared().await, settings()).await
    }

    /// With another fuse against crash loops.
    pub async fn with_delivery_limit(delivery_limit: u32) -> Bus {
        Bus::build(Peace::shared().await, BusSettings { delivery_limit, ..settings() }).await
    }

    /// Nobody else uses the broker meanwhile.
    pub async fn alone() -> Bus {
        Bus::build(Peace::alone().await, settings()).await
    }

    async fn build(peace: Peace, settings: BusSettings) -> Bus {
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

    pub async fn send(&self, count: usize) {
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
        trace: None,
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
