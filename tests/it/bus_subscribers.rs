//! Subscribers whose queues accept nothing, and how that affects others.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Confirmation};
use paybus::bus::BusSettings;
use paybus::bus::publish::publisher::{OnPublished, Outgoing, Published, Publisher};
use secrecy::ExposeSecret;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::support::topology::{Bus, TIMEOUT, event, is_confirmed, rabbitmqctl, reaches};
use crate::support::wait::within;
use crate::support::{Behaviour, Command, Setup, World};

/// Routed only to the queue that accepts nothing.
fn refused(payment: u128, number: u32) -> Outgoing {
    Outgoing { routing_key: "cards.payment.created".to_owned(), ..event(payment, number) }
}

/// A queue that is full, and the channel for deleting it.
async fn full_queue(bus: &Bus, key: &str) -> (lapin::Connection, lapin::Channel, String) {
    let connection = lapin::Connection::connect(bus.settings.url.expose_secret(), Default::default()).await;
    let connection = connection.expect("a broker");
    let channel = connection.create_channel().await.expect("a channel");
    let name = format!("{}.full", bus.settings.prefix);
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(0));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.expect("a queue");
    let (exchange, binding) = (bus.names.events(), QueueBindOptions::default());
    let bound = channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), binding, FieldTable::default());
    bound.await.expect("a binding");
    (connection, channel, name)
}

/// The callback to report to, and what it receives.
fn results() -> (OnPublished, mpsc::UnboundedReceiver<Published>) {
    let (sender, results) = mpsc::unbounded_channel();
    (Arc::new(move |published| sender.send(published).expect("somebody listens")), results)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_blocks_no_events_of_other_subscribers() {
    const FULL: u128 = 18_000;
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let (connection, channel, name) = full_queue(&bus, "cards.payment.created").await;
    // More payments than the channels would accept if these were not nacked.
    let nacked = (0..FULL).map(|payment| refused(payment, 0)).collect();
    let (all, mut later) = results();
    timeout(TIMEOUT, publisher.post(nacked, all)).await.expect("the channels accept them all");
    // One batch: each event is reported as soon as its outcome is known, whatever happens to the others.
    let mut batch: Vec<Outgoing> = (FULL..FULL + 200).map(|payment| event(payment, 0)).collect();
    batch.insert(0, refused(FULL + 1000, 0));
    let (all, mut each) = results();
    publisher.post(batch, all).await;
    for _ in 0..200 {
        assert!(timeout(TIMEOUT, each.recv()).await.expect("in time").is_some_and(|one| is_confirmed(&one)));
    }
    assert!(later.is_empty());
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("deleted");
    connection.close(200, "done".into()).await.expect("closed");
    for _ in 0..FULL {
        assert!(timeout(TIMEOUT, later.recv()).await.expect("in time").is_some_and(|one| is_confirmed(&one)));
    }
    assert!(timeout(TIMEOUT, each.recv()).await.expect("in time").is_some_and(|one| is_confirmed(&one)));
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_queue_without_a_leader_is_reported() {
    let bus = Bus::new().await;
    let settings = BusSettings { confirm_timeout: Duration::from_millis(500), ..bus.settings.clone() };
    let publisher = Publisher::spawn(settings, bus.stop.clone());
    assert!(publisher.publish(vec![event(1, 0)]).await.iter().all(is_confirmed));
    // Its process accepts everything and answers nothing, like one that waits for an election.
    let server = |what: &str| {
        let queue = format!("rabbit_misc:r(<<\"{}\">>, queue, <<\"{}\">>)", vhost(&bus), bus.names.unrouted());
        let found = format!("{{ok, Q}} = rabbit_amqqueue:lookup({queue}), {{Name, _}} = amqqueue:get_pid(Q)");
        rabbitmqctl(&["eval", &format!("{found}, ok = sys:{what}(Name).")]);
    };
    server("suspend");
    let publishing = tokio::spawn({
        let publisher = publisher.clone();
        async move { publisher.publish(vec![event(1, 1)]).await }
    });
    reaches(&mut publisher.silent(), |channels| *channels == 1).await;
    server("resume");
    let published = timeout(TIMEOUT, publishing).await.expect("in time").expect("no panic");
    assert!(published.iter().all(is_confirmed), "{published:?}");
    reaches(&mut publisher.silent(), |channels| *channels == 0).await;
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_accepts_nothing_is_reported_until_it_accepts_something() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let (connection, channel, name) = full_queue(&bus, "cards.payment.created").await;
    let (all, mut later) = results();
    publisher.post(vec![refused(1, 0)], all).await;
    // It is retried after two seconds, and after four more.
    reaches(&mut publisher.nacked(), |nacked| nacked.only && nacked.total >= 3).await;
    assert!(publisher.publish(vec![event(2, 0)]).await.iter().all(is_confirmed));
    reaches(&mut publisher.nacked(), |nacked| !nacked.only).await;
    channel.queue_delete(name.into(), QueueDeleteOptions::default()).await.expect("deleted");
    connection.close(200, "done".into()).await.expect("closed");
    assert!(timeout(TIMEOUT, later.recv()).await.expect("in time").is_some_and(|one| is_confirmed(&one)));
    bus.end().await;
}

fn vhost(bus: &Bus) -> String {
    let uri: lapin::uri::AMQPUri = bus.settings.url.expose_secret().parse().expect("an address");
    uri.vhost
}

/// A subscriber of these events whose queue is full by a policy: its name, and the policy's virtual host.
async fn full_subscriber(world: &World, key: &str) -> (String, String) {
    let uri: lapin::uri::AMQPUri = world.bus.url.parse().expect("an address");
    let (name, exchange) = (world.bus.queue("subscriber"), world.bus.queue("events"));
    let (connection, channel) = world.bus.channel().await;
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name.as_str().into(), options, FieldTable::default()).await.expect("a queue");
    let binding = QueueBindOptions::default();
    let bound =
        channel.queue_bind(name.as_str().into(), exchange.as_str().into(), key.into(), binding, FieldTable::default());
    bound.await.expect("a binding");
    let (pattern, full) = (format!("^{name}$"), json!({"max-length": 0, "overflow": "reject-publish"}).to_string());
    rabbitmqctl(&["set_policy", "-p", &uri.vhost, "--apply-to", "queues", &name, &pattern, &full]);
    within(Duration::from_secs(20), "the queue to be full", async || {
        let (exchange, key, options) = ("".into(), name.as_str().into(), BasicPublishOptions::default());
        let sent = channel.basic_publish(exchange, key, options, b"probe", BasicProperties::default()).await;
        match sent.expect("the broker").await.expect("the broker") {
            Confirmation::Nack(_) => Ok(()),
            taken => Err(format!("{taken:?}")),
        }
    })
    .await;
    connection.close(200, "done".into()).await.expect("the broker");
    // What it accepted until then.
    world.bus.take_all_of(&name).await;
    (name, uri.vhost)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_of_one_subscriber_stops_no_variant() {
    // More declines than the worker prefetches. The relay takes care of what the worker leaves behind.
    let world = Setup::new().set("variants.http.concurrency", "4").expects_relay().build().await;
    let (queue, vhost) = full_subscriber(&world, "#.rejected").await;
    let _worker = world.worker().await;
    let charges = |count: usize| (0..count).map(|_| Command::charge("http", "5.00", "USD")).collect::<Vec<_>>();
    let (declined, good) = (charges(40), charges(20));
    for charge in &declined {
        world.gateway.plan(charge.payment, vec![Behaviour::Decline("no".to_owned())]);
    }
    world.publish_all(&declined).await;
    world.publish_all(&good).await;
    let answers = timeout(Duration::from_secs(20), world.final_events(&good)).await.expect("others do not wait");
    assert!(answers.iter().all(|answer| answer.status() == "confirmed"), "{}", world.lines());
    // A later event of a payment whose earlier event is still unsent is sent after it.
    let again = declined[0].then("payment.process", json!({"process": {}}));
    world.publish(&again).await;
    world.operation_state(&again, "settled").await;
    assert!(world.bus.take_all_of(&queue).await.is_empty(), "it is full");

    rabbitmqctl(&["clear_policy", "-p", &vhost, &queue]);
    let mut came: Vec<String> = Vec::new();
    within(Duration::from_secs(60), "all declines to arrive", async || {
        let taken = world.bus.take_all_of(&queue).await;
        came.extend(
            taken
                .iter()
                .map(|(properties, _)| properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default()),
        );
        if came.len() >= declined.len() { Ok(()) } else { Err(format!("{} came", came.len())) }
    })
    .await;
    within(Duration::from_secs(60), "all events to be out", async || {
        let sql = "SELECT count(*) FROM events e WHERE NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)";
        let unsent: i64 = world.value(sql, &[]).await;
        if unsent == 0 { Ok(()) } else { Err(format!("{unsent} are not")) }
    })
    .await;
    let different: BTreeSet<&String> = came.iter().collect();
    assert_eq!((came.len(), different.len()), (declined.len(), declined.len()), "each comes once");
    assert_eq!(world.final_event(&again).await.status(), "confirmed");
    // A subscriber whose queue is not full may see an event more than once, but never a gap.
    let mut seen: Vec<i64> = Vec::new();
    for sequence in world.events_of(again.payment).iter().filter_map(|event| event.sequence()) {
        if !seen.contains(&sequence) {
            seen.push(sequence);
        }
    }
    assert!(seen.is_sorted(), "{seen:?}");
    world.bus.delete_queue(&queue).await;
    world.check_books().await;
}
