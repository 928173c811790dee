//! The broker goes away, blocks, or loses a queue.

use std::time::{Duration, Instant};

use lapin::options::QueueDeleteOptions;
use lapin::uri::AMQPUri;

use crate::load::under_load;
use crate::services::{Service, has_rabbitmqctl, rabbitmqctl};
use crate::support::wait::within;
use crate::support::worker::paybus;
use crate::support::{Behaviour, Command, Setup, WorkerSetup};

#[tokio::test]
async fn the_broker_restarts_under_load() {
    if !Service::Broker.may_be_stopped() {
        return;
    }
    under_load(async |load| {
        Service::Broker.run("stop").await;
        load.is_not_ready("publisher: ").await;
        load.is_not_ready("consumer commands.http: ").await;
        Service::Broker.run("start").await;
    })
    .await;
}

#[tokio::test]
async fn the_broker_crashes_under_load() {
    if !Service::Broker.may_be_stopped() {
        return;
    }
    under_load(async |_| {
        Service::Broker.run("kill").await;
        Service::Broker.run("start").await;
    })
    .await;
}

#[tokio::test]
async fn connections_are_closed_under_load() {
    if !has_rabbitmqctl() {
        return;
    }
    under_load(async |load| {
        for _ in 0..2 {
            rabbitmqctl(&["close_all_connections", "as a test"]).await;
            load.goes_on().await;
        }
    })
    .await;
}

/// Memory runs short: the broker accepts no messages. Calls in flight are settled; their events wait.
#[tokio::test]
async fn the_broker_blocks_publishers_under_load() {
    if !has_rabbitmqctl() {
        return;
    }
    under_load(async |load| {
        rabbitmqctl(&["set_vm_memory_high_watermark", "absolute", "1MB"]).await;
        load.is_not_ready("the broker blocks publishers").await;
        // Longer than a confirm may take.
        tokio::time::sleep(Duration::from_secs(6)).await;
        rabbitmqctl(&["set_vm_memory_high_watermark", "0.4"]).await;
    })
    .await;
}

/// A queue is deleted by mistake and declared again: the worker reports what is wrong, and continues without a restart.
#[tokio::test]
async fn a_deleted_queue_is_made_again() {
    let world = Setup::new().alone().build().await;
    let worker = world.worker().await;
    let (connection, channel) = world.bus.channel().await;
    let queue = format!("{}.commands.http", world.bus.prefix);
    channel.queue_delete(queue.as_str().into(), QueueDeleteOptions::default()).await.expect("a queue");
    connection.close(200, "done".into()).await.expect("the broker");
    within(Duration::from_secs(20), "the worker to report what is missing", async || {
        match worker.get("/readyz").await? {
            (503, text) if text.contains(&queue) && text.contains("paybus migrate") => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        }
    })
    .await;
    // Other variants are not affected.
    let other = world.run(&Command::charge("default", "1.00", "EUR")).await;
    assert_eq!(other.status(), "confirmed");
    let migrated = paybus(world.settings()).arg("migrate").output().expect("the binary runs");
    assert!(migrated.status.success(), "{migrated:?}");
    worker.ready().await;
    let answer = world.run(&Command::charge("http", "10.00", "EUR")).await;
    assert_eq!(answer.status(), "confirmed");
    world.check_books().await;
}

/// The broker waits only so long for an acknowledgement and then takes the command away: it is redelivered and
/// recognized.
#[tokio::test]
async fn the_brokers_consumer_timeout_hits_a_command() {
    if !has_rabbitmqctl() {
        return;
    }
    let world = Setup::new().alone().set("variants.http.timeout", "20s").build().await;
    let timeouts = |milliseconds: &str, tick: &str| {
        format!(
            "application:set_env(rabbit, consumer_timeout, {milliseconds}), \
             application:set_env(rabbit, channel_tick_interval, {tick})."
        )
    };
    rabbitmqctl(&["eval", &timeouts("1000", "1000")]).await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_secs(6))]);
    world.publish(&charge).await;
    within(Duration::from_secs(15), "the broker to close the channel", async || {
        let log = worker.log();
        if log.contains("consumption of a queue failed") { Ok(()) } else { Err(log) }
    })
    .await;
    let answer = world.final_event(&charge).await;
    rabbitmqctl(&["eval", &timeouts("1800000", "60000")]).await;
    assert_eq!(answer.status(), "confirmed");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1, "it was calling all the time");
    world.check_books().await;
}

/// Without a broker nothing can be finished: a drain ends after its grace period, and what is left continues later.
#[tokio::test]
async fn a_drain_without_a_broker_ends_with_its_grace() {
    if !Service::Broker.may_be_stopped() {
        return;
    }
    let world = Setup::new().alone().set("worker.drain", "3s").build().await;
    let worker = world.worker().await;
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.gateway.set_latency(Duration::from_secs(1));
    world.publish_all(&charges).await;
    for charge in &charges {
        world.gateway.wait_for_calls(charge.payment, 1).await;
    }
    Service::Broker.run("stop").await;
    for charge in &charges {
        world.operation_state(charge, "settled").await;
    }
    // Long enough for the relay to check for unsent events.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let begun = Instant::now();
    worker.term();
    let status = worker.wait().await;
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_millis(6_500), "{:?}", begun.elapsed());
    Service::Broker.run("start").await;
    let _worker = world.worker().await;
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
        assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    }
    world.check_books().await;
}

/// Somebody revoked the worker's rights. It reports that, does not retry in a tight loop, charges nothing twice, and
/// continues without a restart.
#[tokio::test]
async fn a_worker_that_lost_its_rights_says_so_and_goes_on_with_them() {
    if !has_rabbitmqctl() {
        return;
    }
    let world = Setup::new().alone().build().await;
    let uri: AMQPUri = world.bus.url.parse().expect("an address");
    let user = format!("{}-worker", world.bus.prefix);
    rabbitmqctl(&["add_user", &user, "secret"]).await;
    let permit =
        async |write: &str| rabbitmqctl(&["set_permissions", "-p", &uri.vhost, &user, ".*", write, ".*"]).await;
    permit(".*").await;
    let (scheme, rest) = world.bus.url.split_once("://").expect("an address");
    let server = rest.rsplit_once('@').map_or(rest, |(_, server)| server);
    let url = format!("{scheme}://{user}:secret@{server}");
    let worker = world.worker_with(WorkerSetup::default().set("amqp.url", &url)).await;
    permit("^$").await;
    // The broker checks rights once for each channel.
    rabbitmqctl(&["close_all_connections", "its rights have changed"]).await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    within(Duration::from_secs(30), "the worker to report the missing right", async || {
        match worker.get("/readyz").await? {
            (503, text) if text.to_lowercase().contains("access") => Ok(()),
            (status, text) => Err(format!("{status} {text}")),
        }
    })
    .await;
    let lines = || worker.log().lines().count();
    let before = lines();
    let until = Instant::now() + Duration::from_secs(4);
    while Instant::now() < until {
        let (status, text) = worker.get("/readyz").await.expect("it answers");
        assert_eq!(status, 503, "it connects again and again, and is refused each time: {text}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let said = lines() - before;
    assert!(said < 60, "{said} lines in 4 s:\n{}", worker.log());
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    permit(".*").await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    worker.ready().await;
    world.check_books().await;
    rabbitmqctl(&["delete_user", &user]).await;
}
