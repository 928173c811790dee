//! The bus against a real broker: what is published arrives, in order, whatever happens to the connection.
//!
//! Each test has its own prefix. Tests that disturb the whole broker are in `tests/outages`.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::collections::HashMap;
use std::time::Instant;

use paybus::bus::connection::ConnectionState;
use paybus::bus::connection::refusal::TopologyError;
use paybus::bus::publish::publisher::{Outgoing, ReplyState};
use paybus::bus::publish::verdict::Verdict;
use paybus::bus::{BusError, BusSettings, topology};
use paybus::payment::command::Reply;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::topology::{Bus, TIMEOUT, event, is_confirmed, rabbitmqctl, reaches};

#[tokio::test(flavor = "multi_thread")]
async fn the_topology_is_declared_checked_and_found_wanting() {
    let bus = Bus::new().await;
    let connection = bus.client.connection();
    topology::declare(connection, &bus.settings, &["cards"]).await.expect("declaring twice is harmless");
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
    // There is no subscriber: the events end up in a quorum queue.
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
        let watched = timeout(TIMEOUT, watch.next()).await.expect("in time").expect("a broker").expect("an event");
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
        assert_eq!((&published.verdict, published.reply), (&Verdict::Confirmed, wanted), "{published:?}");
    }
    let reply = timeout(TIMEOUT, replies.next()).await.expect("in time").expect("a broker").expect("a reply");
    assert_eq!(reply.properties.correlation_id.as_deref(), Some("c0"));
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_no_queue_takes_is_set_aside_with_those_behind_it() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let mut watch = bus.client.subscribe_events("cards.payment.created").await.expect("a watch");
    // Without the queue for unrouted events, they are returned.
    rabbitmqctl(&["delete_queue", &bus.names.unrouted()]);
    let good = |payment, number| Outgoing { routing_key: "cards.payment.created".to_owned(), ..event(payment, number) };
    let batch = vec![good(1, 0), event(1, 1), good(1, 2), good(2, 0), good(2, 1)];
    let published = publisher.publish(batch).await;
    let aside: Vec<bool> = published.iter().map(|published| !is_confirmed(published)).collect();
    assert_eq!(aside, [false, true, true, false, false], "{published:?}");
    assert!(matches!(&published[1].verdict, Verdict::Refused(reason) if reason.contains("NO_ROUTE")), "{published:?}");
    for _ in 0..3 {
        timeout(TIMEOUT, watch.next()).await.expect("in time").expect("a broker").expect("an event");
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
    let published = timeout(TIMEOUT, publishing).await.expect("in time").expect("no panic");
    assert_eq!(published.len(), 49);
    assert!(published.iter().all(is_confirmed), "{published:?}");
    bus.end().await;
}
