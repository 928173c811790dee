//! Consuming from a real broker: queues that vanish, pauses, dead letters, replies.

#![allow(clippy::expect_used, clippy::panic)] // These are tests, helpers included.

use std::time::{Duration, Instant};

use paybus::bus::client::NewCommand;
use paybus::bus::consume::consumer::QueueState;
use paybus::bus::dead_letters::browser::{self, DeadFilter};
use paybus::bus::dead_letters::letter::{Rights, publish_dead_letter};
use paybus::bus::publish::publisher::{Outgoing, Published, ReplyState};
use paybus::bus::publish::verdict::Verdict;
use paybus::bus::topology;
use paybus::payment::command::Reply;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::topology::{Bus, TIMEOUT, event, reaches};

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_queue_is_consumed_again_once_it_is_back() {
    let bus = Bus::new().await;
    let queue = bus.names.commands_of("cards");
    let (consumption, mut deliveries) = bus.consumer().subscribe(&queue, 10);
    let mut state = consumption.state();
    reaches(&mut state, |state| *state == QueueState::Consuming).await;
    bus.send(1).await;
    let old = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
    topology::delete(bus.client.connection(), &bus.settings, &["cards"]).await.expect("deleted");
    reaches(&mut state, |state| matches!(state, QueueState::Down(reason) if reason.contains("does not exist"))).await;
    topology::declare(bus.client.connection(), &bus.settings, &["cards"]).await.expect("declared again");
    reaches(&mut state, |state| *state == QueueState::Consuming).await;
    assert!(!old.acker.ack().await, "an old acknowledgement goes nowhere");
    bus.send(3).await;
    for number in 0..3 {
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.body, format!("{number}").as_bytes());
        assert!(delivery.acker.ack().await);
    }
    bus.end().await;
}

/// The broker may deliver a little more after it has confirmed that a consumer is cancelled. It is not processed here,
/// and must not be withheld from other consumers.
#[tokio::test(flavor = "multi_thread")]
async fn what_comes_too_late_for_a_pause_goes_to_others() {
    let bus = Bus::new().await;
    let (here, there) = (bus.consumer(), bus.consumer());
    for _ in 0..3 {
        bus.send(1_500).await;
        let (consumption, mut deliveries) = here.subscribe(&bus.names.commands_of("cards"), 100);
        let mut state = consumption.state();
        let mut count = 0;
        let (mut pausing, mut paused) = (false, false);
        while !paused {
            tokio::select! {
                Some(delivery) = deliveries.recv() => {
                    count += 1;
                    assert!(delivery.acker.ack().await);
                    if count >= 300 && !pausing {
                        consumption.pause();
                        pausing = true;
                    }
                }
                changed = state.wait_for(|state| *state == QueueState::Paused), if pausing => {
                    paused = changed.is_ok();
                }
            }
        }
        while let Ok(delivery) = deliveries.try_recv() {
            count += 1;
            assert!(delivery.acker.ack().await);
        }
        let (others, mut deliveries) = there.subscribe(&bus.names.commands_of("cards"), 100);
        while count < 1_500 {
            let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
            count += 1;
            assert!(delivery.acker.ack().await);
        }
        drop((consumption, others));
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
    let first = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
    consumption.pause();
    reaches(&mut state, |state| *state == QueueState::Paused).await;
    let mut taken = vec![first];
    while let Ok(delivery) = deliveries.try_recv() {
        taken.push(delivery);
    }
    assert_eq!(taken.len(), 10);
    for delivery in &taken {
        assert!(delivery.acker.ack().await);
    }
    let probe = consumption.fetch_one().await.expect("a broker").expect("a message");
    assert_eq!(probe.body, b"10");
    assert!(probe.acker.ack().await);
    assert!(timeout(Duration::from_millis(500), deliveries.recv()).await.is_err());
    consumption.resume();
    let started = Instant::now();
    for number in 11..30 {
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.body, format!("{number}").as_bytes());
        assert!(delivery.acker.ack().await);
    }
    println!("19 deliveries after {:?}", started.elapsed());
    assert!(consumption.fetch_one().await.expect("a broker").is_none());
    bus.end().await;
}

/// A message that was fetched as a probe keeps its channel until it is settled, even if that channel starts consuming
/// again and is paused again in the meantime.
#[tokio::test(flavor = "multi_thread")]
async fn a_probe_keeps_its_channel_until_it_is_settled() {
    let bus = Bus::new().await;
    let consumer = bus.consumer();
    let (consumption, mut deliveries) = consumer.subscribe(&bus.names.commands_of("cards"), 10);
    consumption.pause();
    let mut state = consumption.state();
    reaches(&mut state, |state| *state == QueueState::Paused).await;
    bus.send(1).await;
    let probe = consumption.fetch_one().await.expect("a broker").expect("a message");
    for _ in 0..2 {
        consumption.resume();
        reaches(&mut state, |state| *state == QueueState::Consuming).await;
        consumption.pause();
        reaches(&mut state, |state| *state == QueueState::Paused).await;
    }
    consumption.resume();
    bus.send(1).await;
    // If the probe had been returned, it would come first.
    let next = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
    assert!(!next.redelivered, "the probe came again");
    assert!(next.acker.ack().await);
    assert!(probe.acker.ack().await, "its channel is there");
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
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        let acker = delivery.acker;
        acks.spawn(async move { acker.ack().await });
    }
    let acked = acks.join_all().await;
    assert!(acked.into_iter().all(|acked| acked));
    println!("{:.0} deliveries/s, each acknowledged by a task", 20_000.0 / started.elapsed().as_secs_f64());
    bus.end().await;
}

/// RabbitMQ 4.3 no longer counts a message that is returned with `basic.nack`, and 3.10 puts it at the end of a queue
/// without a limit: a message that is returned here must come next, and not for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_comes_next_and_not_for_ever() {
    let bus = Bus::with_delivery_limit(3).await;
    bus.send(3).await;
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.commands_of("cards"), 1);
    let mut taken = Vec::new();
    while taken.last().is_none_or(|last| last == "0") {
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        taken.push(String::from_utf8_lossy(&delivery.body).into_owned());
        match taken.last().is_some_and(|last| last == "0") {
            true => delivery.acker.requeue().await,
            false => delivery.acker.ack().await,
        };
    }
    assert_eq!(taken, ["0", "0", "0", "0", "1"]);
    lie_dead(&bus, 1).await;
    let listed = browser::list(&bus.settings, &DeadFilter::default(), 10).await.expect("listed");
    assert_eq!(listed.iter().map(|letter| letter.code.as_str()).collect::<Vec<_>>(), ["delivery_limit"]);
    bus.end().await;
}

/// Waits until there are this many dead letters: the broker moves a rejected message, and returns one that was only
/// listed, when it has the time.
async fn lie_dead(bus: &Bus, count: u32) {
    let started = Instant::now();
    while topology::queue_length(bus.client.connection(), &bus.names.dead()).await.expect("a queue") != count {
        assert!(started.elapsed() < TIMEOUT, "there are never {count} dead letters");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_listed_replayed_and_dropped() {
    let bus = Bus::new().await;
    let publisher = bus.publisher();
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.commands_of("cards"), 10);
    bus.send(4).await;
    for number in 0..4 {
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        match number {
            3 => assert!(delivery.acker.reject().await),
            _ => {
                let code = ["invalid_envelope", "invalid_envelope", "too_large"][number];
                publish_dead_letter(&publisher, &delivery, code, "no JSON").await.expect("buried");
                assert!(delivery.acker.ack().await);
            }
        }
    }
    let all = DeadFilter::default();
    for _ in 0..30 {
        lie_dead(&bus, 4).await;
        let listed = browser::list(&bus.settings, &all, 100).await.expect("listed");
        let codes: Vec<&str> = listed.iter().map(|letter| letter.code.as_str()).collect();
        assert_eq!(codes, ["invalid_envelope", "invalid_envelope", "too_large", "rejected"]);
        let queue = bus.names.commands_of("cards");
        assert!(listed.iter().all(|letter| letter.queue == queue && letter.routing_key == "cards.payment.create"));
    }
    lie_dead(&bus, 4).await;
    let envelopes = DeadFilter { code: Some("invalid_envelope".to_owned()), ..DeadFilter::default() };
    let replayed = browser::replay(&bus.settings, &envelopes, 1, Rights::Own).await.expect("replayed");
    assert_eq!(replayed.len(), 1);
    assert_eq!(replayed[0].refused, None);
    let again = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
    assert_eq!((again.body.as_slice(), again.properties.message_id.as_deref()), (&b"0"[..], Some("m0")));
    assert!(again.properties.headers.inner().is_empty(), "{:?}", again.properties.headers);
    lie_dead(&bus, 3).await;
    let dropped = browser::drop_matching(&bus.settings, &envelopes, 100).await.expect("dropped");
    assert_eq!(dropped.len(), 1);
    lie_dead(&bus, 2).await;
    assert_eq!(browser::list(&bus.settings, &all, 100).await.expect("listed").len(), 2);
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
    assert_eq!(sent, [Ok(()), Ok(()), Ok(())]);
    let (_consumption, mut deliveries) = bus.consumer().subscribe(&bus.names.unroutable(), 10);
    for key in ["nobody.payment.create", "cards.payment.fly"] {
        let delivery = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a delivery");
        assert_eq!(delivery.routing_key, key);
        assert!(delivery.properties.user_id.is_some());
        assert!(delivery.acker.ack().await);
    }
    bus.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_direct_reply_reaches_the_consumer_that_waits_for_it() {
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
    let asked = timeout(TIMEOUT, deliveries.recv()).await.expect("in time").expect("a command");
    let to = asked.properties.reply_to.clone().expect("a reply queue");
    assert!(to.starts_with(pseudo), "{to}");
    let reply = Reply { to, correlation_id: asked.properties.correlation_id.clone() };
    let answer = |number| Outgoing { reply: Some(reply.clone()), ..event(1, number) };
    let publisher = bus.publisher();
    let sent =
        |number| Published { position: answer(number).position, verdict: Verdict::Confirmed, reply: ReplyState::Sent };
    assert_eq!(publisher.publish(vec![answer(1)]).await, [sent(1)]);
    let got = timeout(TIMEOUT, answers.next()).await.expect("in time").expect("an answer").expect("a broker");
    assert_eq!(got.properties.correlation_id().as_ref().map(|id| id.as_str()), Some("mine"));
    asker.close(200, "gone".into()).await.expect("closed");
    // The broker does not reveal whether a consumer waited for it.
    assert_eq!(publisher.publish(vec![answer(2)]).await, [sent(2)]);
    bus.end().await;
}
