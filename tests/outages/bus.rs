//! The bus while the broker has problems. These tests disturb every user of the broker, so they run alone.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use paybus::bus::connection::{ConnectionState, connect};
use paybus::bus::message_size::{self, MESSAGE_MAX, MessageLimit};
use paybus::bus::publish::publisher::{Outgoing, Published, Publisher};
use paybus::bus::publish::verdict::Verdict;
use paybus::bus::topology;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::services::{Service, has_rabbitmqctl, rabbitmqctl};
use crate::support::topology::{Bus, TIMEOUT, event, is_confirmed, reaches};

/// Publishes events of 20 payments as long as `outage` lasts, then checks that the last copies of the events that the
/// broker holds are in order.
async fn nothing_is_lost_while(outage: impl Future<Output = ()>) {
    let bus = Bus::alone().await;
    let publisher = bus.publisher();
    let over = Arc::new(AtomicBool::new(false));
    let publishing: Vec<_> =
        (0..20).map(|payment| tokio::spawn(keep_publishing(publisher.clone(), payment, Arc::clone(&over)))).collect();
    outage.await;
    over.store(true, Ordering::Relaxed);
    let mut published = Vec::new();
    for one in publishing {
        published.push(timeout(TIMEOUT, one).await.expect("in time").expect("no panic"));
    }
    let (sequences, copies) = read_all(&bus).await;
    let total: u32 = published.iter().sum();
    println!("{copies} copies of {total} events");
    for (payment, count) in published.into_iter().enumerate() {
        assert_eq!(sequences[&payment.to_string()], (0..count).collect::<Vec<_>>(), "payment {payment}");
    }
    bus.end().await;
}

/// Returns how many events it published.
async fn keep_publishing(publisher: Publisher, payment: u128, over: Arc<AtomicBool>) -> u32 {
    let mut next = 0;
    while !over.load(Ordering::Relaxed) {
        let batch = (next..next + 5).map(|number| event(payment, number)).collect();
        let published = publisher.publish(batch).await;
        assert!(published.len() == 5 && published.iter().all(is_confirmed), "{published:?}");
        next += 5;
        sleep(Duration::from_millis(20)).await;
    }
    next
}

/// What the broker holds of each payment, in the order of the last copies, and the number of copies.
async fn read_all(bus: &Bus) -> (HashMap<String, Vec<u32>>, usize) {
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.unrouted(), 500);
    let mut copies: Vec<(String, u32)> = Vec::new();
    while let Ok(Some(delivery)) = timeout(Duration::from_secs(3), deliveries.recv()).await {
        let text = String::from_utf8(delivery.body.clone()).expect("text");
        let (payment, number) = text.split_once(' ').expect("two numbers");
        copies.push((payment.to_owned(), number.parse().expect("a number")));
        delivery.acker.ack().await;
    }
    let mut sequences: HashMap<String, Vec<u32>> = HashMap::new();
    let mut seen = std::collections::HashSet::new();
    for copy in copies.iter().rev() {
        if seen.insert(copy) {
            sequences.entry(copy.0.clone()).or_default().insert(0, copy.1);
        }
    }
    (sequences, copies.len())
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_connections_are_closed() {
    if !has_rabbitmqctl() {
        return;
    }
    nothing_is_lost_while(async {
        for _ in 0..3 {
            rabbitmqctl(&["close_all_connections", "test"]).await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_broker_restarts() {
    if !Service::Broker.may_be_stopped() {
        return;
    }
    nothing_is_lost_while(async {
        sleep(Duration::from_millis(300)).await;
        Service::Broker.run("restart").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_broker_crashes() {
    if !Service::Broker.may_be_stopped() {
        return;
    }
    nothing_is_lost_while(async {
        sleep(Duration::from_millis(300)).await;
        Service::Broker.run("kill").await;
        Service::Broker.run("start").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_the_broker_is_frozen() {
    if !has_rabbitmqctl() {
        return;
    }
    nothing_is_lost_while(async {
        let process = rabbitmqctl(&["eval", "io:format(\"~s~n\", [os:getpid()])."]).await;
        let process = process.lines().next().expect("a process").to_owned();
        let signal = |signal: &str| {
            let status = Command::new("kill").args([signal, process.as_str()]).status().expect("kill runs");
            assert!(status.success(), "{signal} {process}");
        };
        signal("-STOP");
        // Longer than a confirm may take.
        sleep(Duration::from_secs(8)).await;
        signal("-CONT");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_publisher_waits() {
    if !has_rabbitmqctl() {
        return;
    }
    let bus = Bus::alone().await;
    let publisher = bus.publisher();
    assert!(publisher.publish(vec![event(1, 0)]).await.iter().all(is_confirmed));
    rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish((1..100).map(|number| event(1, number)).collect()).await }
    });
    reaches(&mut publisher.state(), |state| *state == ConnectionState::Blocked).await;
    // Longer than a confirm may take.
    sleep(Duration::from_secs(7)).await;
    rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    let published = timeout(TIMEOUT, publishing).await.expect("in time").expect("no panic");
    assert!(published.len() == 99 && published.iter().all(is_confirmed));
    let sequences = topology::queue_length(bus.client.connection(), &bus.names.unrouted()).await.expect("a queue");
    assert_eq!(sequences, 100, "nothing was sent twice");
    bus.end().await;
}

/// RabbitMQ 3.10 reads the setting for every message; 4.0 caches it at its start.
async fn limit_messages(bytes: u32) {
    let setting = format!("application:set_env(rabbit, max_message_size, {bytes})");
    rabbitmqctl(&["eval", &format!("{setting}, persistent_term:put(max_message_size, {bytes}).")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_too_large_is_found_among_others() {
    if !has_rabbitmqctl() {
        return;
    }
    let bus = Bus::alone().await;
    let publisher = bus.publisher();
    limit_messages(100_000).await;
    let huge = Outgoing { body: Bytes::from(vec![b'x'; 200_000]), ..event(3, 1) };
    let position = huge.position;
    let all = (0..40).flat_map(|payment| (0..10).map(move |number| event(payment, number)));
    let batch: Vec<Outgoing> =
        all.map(|outgoing| if outgoing.position == position { huge.clone() } else { outgoing }).collect();
    let started = Instant::now();
    let published = timeout(TIMEOUT, publisher.publish(batch)).await.expect("in time");
    println!("one message too large among 400 found after {:?}", started.elapsed());
    let is_aside = |published: &&Published| published.verdict != Verdict::Confirmed;
    let aside = published.iter().filter(is_aside).map(|published| published.position);
    assert_eq!(aside.collect::<Vec<_>>(), (position..position + 9).collect::<Vec<_>>());
    assert_eq!(publisher.publish(vec![Outgoing { payment_id: Uuid::from_u128(99), ..event(9, 99) }]).await.len(), 1);
    limit_messages(16_777_216).await;
    bus.end().await;
}

/// The limit applies to all users of the broker; that of the private broker is 16 MiB.
#[tokio::test]
async fn the_brokers_limit_on_messages_is_found() {
    if !has_rabbitmqctl() {
        return;
    }
    let bus = Bus::alone().await;
    let connection = connect(&bus.settings, "limit").await.expect("the broker");
    let limit = || message_size::find(&connection, &bus.settings);
    assert_eq!(limit().await.expect("the broker"), MessageLimit::Higher);
    let largest = u32::try_from(MESSAGE_MAX).expect("it fits");
    limit_messages(largest).await;
    assert_eq!(limit().await.expect("the broker"), MessageLimit::Same);
    limit_messages(largest - 1).await;
    let lower = limit().await.expect("the broker");
    limit_messages(16_777_216).await;
    assert!(matches!(&lower, MessageLimit::Lower(reason) if reason.contains("larger than")), "{lower:?}");
    connection.close().await;
    bus.end().await;
}
