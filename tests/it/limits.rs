//! The limits of a gateway: circuit breaker, calls per second over all replicas, concurrent calls per replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::wait::within;
use crate::support::{Behaviour, Command, Event, Setup, Worker, World, eventually};

async fn breaker_is(worker: &Worker, state: &str) {
    eventually(&format!("the breaker to be {state}"), async || {
        let is = worker.count(&format!(r#"paybus_breaker_state{{variant="http",state="{state}"}}"#)).await;
        if is == 1 { Ok(()) } else { Err(is) }
    })
    .await;
}

fn charges(variant: &str, count: usize) -> Vec<Command> {
    (0..count).map(|_| Command::charge(variant, "5.00", "USD")).collect()
}

#[tokio::test]
async fn a_gateway_that_is_ill_keeps_its_commands_in_the_broker_and_nobody_elses() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "4")
        .set("variants.http.breaker.open", "800ms")
        .set("variants.http.concurrency", "4")
        .set("variants.http.retry.delayed", "100ms,100ms,100ms,100ms,100ms,100ms,100ms,100ms")
        .http_variant("other")
        .build()
        .await;
    let worker = world.worker().await;
    let paid = Command::charge("http", "5.00", "USD");
    world.run(&paid).await;
    world.gateway.plan_all_operation("process", vec![Behaviour::Status(503, None); 10]);
    let ill = charges("http", 60);
    world.publish_all(&ill[..10]).await;
    breaker_is(&worker, "open").await;
    world.publish_all(&ill[10..]).await;
    let left = world.bus.length("commands.http").await;
    assert!(left >= 40, "{left} are left in the broker");
    assert_eq!(worker.get("/readyz").await.map(|(status, _)| status), Ok(200), "the worker itself is healthy");
    // Another variant continues, and so do the commands that can help.
    let begun = Instant::now();
    let other = world.run(&Command::charge("default", "5.00", "USD")).await;
    assert_eq!(other.status(), "confirmed");
    let synced = world.run(&paid.then("payment.sync", json!({}))).await;
    assert_eq!(synced.kind(), "command.succeeded");
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // One probe at a time, until the gateway has recovered.
    for charge in &ill {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    breaker_is(&worker, "closed").await;
    assert_eq!(world.bus.length("commands.http").await, 0);
    world.check_books().await;
}

#[tokio::test]
async fn while_the_breaker_is_open_only_a_probe_goes_out() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "3")
        .set("variants.http.breaker.open", "500ms")
        .set("variants.http.concurrency", "2")
        .set("variants.http.retry.delayed", "100ms,100ms,100ms,100ms,100ms,100ms,100ms,100ms,100ms,100ms")
        .build()
        .await;
    let worker = world.worker().await;
    world.gateway.set_default(Some(Behaviour::Status(503, None)));
    let ill = charges("http", 30);
    world.publish_all(&ill).await;
    breaker_is(&worker, "open").await;
    let calls = world.gateway.calls().len();
    let begun = Instant::now();
    eventually("two probes", async || {
        let probes = world.gateway.calls().len() - calls;
        if probes >= 3 { Ok(()) } else { Err(probes) }
    })
    .await;
    let probes = world.gateway.calls().len() - calls;
    // The first ones may have been in flight when it opened.
    let most = 3 + begun.elapsed().as_millis() as usize / 450;
    assert!(probes <= most, "{probes} calls within {:?}", begun.elapsed());
    world.gateway.set_default(None);
    for charge in &ill {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    world.check_books().await;
}

/// A retry waits for a slot like any other call, and a decision that was right when it was made may be wrong when the
/// slot comes.
#[tokio::test]
async fn a_retry_whose_turn_comes_after_the_command_expired_is_not_sent() {
    let world = Setup::new().set("variants.http.concurrency", "1").set("variants.http.timeout", "5s").build().await;
    let _worker = world.worker().await;
    let go_on = Arc::new(Notify::new());
    let expires = jiff::Timestamp::now() + Duration::from_millis(1500);
    let late = Command::charge("http", "5.00", "USD").attribute("expirytime", json!(expires.to_string()));
    let other = Command::charge("http", "5.00", "USD");
    world.gateway.plan(late.payment, vec![Behaviour::Status(429, None); 20]);
    world.gateway.plan(other.payment, vec![Behaviour::Until(go_on.clone())]);
    world.publish_all(&[late.clone(), other.clone()]).await;
    world.gateway.wait_for_calls(other.payment, 1).await;
    let sent = world.gateway.calls_of(late.payment).len();
    tokio::time::sleep_until((Instant::now() + Duration::from_millis(1600)).into()).await;
    go_on.notify_one();
    let answer = world.final_event(&late).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "expired"), "{}", answer.line());
    assert_eq!(world.gateway.calls_of(late.payment).len(), sent, "it went out after its time");
    assert_eq!(world.final_event(&other).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn a_retry_whose_turn_comes_after_the_keys_window_is_not_sent_but_asked_about() {
    // A lease takes two seconds, so the key may be used for two seconds of its window; there is a slot every three
    // seconds.
    let world = Setup::new()
        .set("variants.http.key_window", "4s")
        .set("variants.http.timeout", "1s")
        .set("variants.http.rate", "0.33")
        .build()
        .await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "5.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::DropAfter]);
    world.publish(&charge).await;
    let answer = world.final_event(&charge).await;
    assert_eq!(answer.status(), "confirmed");
    let calls = world.gateway.calls_of(charge.payment);
    let acting = calls.iter().filter(|call| call.operation == "process").count();
    assert_eq!(acting, 1, "it was sent under a key that the gateway may have forgotten");
    world.check_books().await;
}

/// The probe's events may have to wait for a subscriber; the gateway has recovered nevertheless.
#[tokio::test]
async fn a_probe_whose_events_nobody_takes_closes_the_breaker() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "1")
        .set("variants.http.breaker.open", "500ms")
        .set("variants.http.concurrency", "2")
        .set("variants.http.retry.immediate.attempts", "1")
        .set("variants.http.retry.delayed", "3s")
        .build()
        .await;
    let worker = world.worker().await;
    world.gateway.set_default(Some(Behaviour::Status(503, None)));
    let ill = Command::charge("http", "5.00", "USD");
    world.publish(&ill).await;
    breaker_is(&worker, "open").await;
    world.event_of(&ill, "command.delayed").await;
    let full = world.bus.full_queue("http.#").await;
    world.gateway.set_default(None);
    let (probe, next) = (Command::charge("http", "5.00", "USD"), Command::charge("http", "5.00", "USD"));
    world.publish(&probe).await;
    world.gateway.wait_for_calls(probe.payment, 1).await;
    breaker_is(&worker, "closed").await;
    world.publish(&next).await;
    world.gateway.wait_for_calls(next.payment, 1).await;
    world.bus.delete_queue(&full).await;
    for charge in [&ill, &probe, &next] {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    world.check_books().await;
}

/// A payment that is pending and whose look-ups all fail.
async fn ill_payment(world: &World) -> Command {
    let ill = Command::charge("http", "5.00", "USD");
    world.gateway.plan_operation(ill.payment, "process", vec![Behaviour::Pending]);
    world.gateway.plan_operation(ill.payment, "status", vec![Behaviour::Status(500, None); 1000]);
    world.publish(&ill).await;
    ill
}

/// Others are charged while this one fails; then it recovers.
async fn others_go_on(world: &World, ill: &Command) {
    let well = charges("http", 5);
    world.publish_all(&well).await;
    for charge in &well {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    world.gateway.forget_plans();
    world.gateway.complete(ill.payment, true);
    assert_eq!(world.final_event(ill).await.status(), "confirmed");
    world.check_books().await;
}

/// The failures of a single payment, however often it is tried, do not mean that the gateway fails.
#[tokio::test]
async fn a_payment_whose_look_ups_all_fail_blocks_no_others() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "3")
        .set("variants.http.breaker.open", "1h")
        .set("variants.http.retry.delayed", "100ms,100ms")
        .build()
        .await;
    let _worker = world.worker().await;
    let ill = ill_payment(&world).await;
    world.gateway.wait_for_calls(ill.payment, 5).await;
    others_go_on(&world, &ill).await;
}

/// A single payment opens the breaker again and again and is always due: others probe too, and close it.
#[tokio::test]
async fn a_payment_whose_probe_failed_lets_others_probe() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "1")
        .set("variants.http.breaker.open", "300ms")
        .set("variants.http.retry.delayed", "100ms,100ms")
        .build()
        .await;
    let worker = world.worker().await;
    let ill = ill_payment(&world).await;
    breaker_is(&worker, "open").await;
    // Its probes fail, and nothing else can be called.
    world.gateway.wait_for_calls(ill.payment, 4).await;
    others_go_on(&world, &ill).await;
}

#[tokio::test]
async fn the_rate_holds_over_all_replicas() {
    let world = Setup::new().set("variants.http.rate", "20").build().await;
    let (_one, _two) = (world.worker().await, world.worker().await);
    let many = charges("http", 50);
    let begun = Instant::now();
    world.publish_all(&many).await;
    for charge in &many {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    let took = begun.elapsed();
    let at: Vec<Instant> = world.gateway.calls().iter().map(|call| call.at).collect();
    let spread = *at.iter().max().unwrap() - *at.iter().min().unwrap();
    assert!(spread >= Duration::from_millis(2200), "50 calls within {spread:?}");
    assert!(took < Duration::from_secs(8), "and no slower than it must be: {took:?}");
    // There are never many more than twenty calls within a second; each replica reserves a few in advance.
    let most = at
        .iter()
        .map(|first| at.iter().filter(|other| **other >= *first && **other - *first < Duration::from_secs(1)).count());
    let most = most.max().unwrap();
    assert!(most <= 26, "{most} calls within a second");
    world.check_books().await;
}

#[tokio::test]
async fn no_more_calls_at_once_than_allowed() {
    let world = Setup::new().set("variants.http.concurrency", "3").build().await;
    let worker = world.worker().await;
    let latency = Duration::from_millis(150);
    world.gateway.set_latency(latency);
    let many = charges("http", 18);
    world.publish_all(&many).await;
    world.gateway.wait_for_calls(many[0].payment, 1).await;
    let at_once = worker.count(r#"paybus_gateway_calls_in_flight{variant="http"}"#).await;
    assert!(at_once <= 3, "{at_once}");
    for charge in &many {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    let mut at: Vec<Instant> = world.gateway.calls().iter().map(|call| call.at).collect();
    at.sort();
    for first in at.windows(4) {
        // The fourth call began only after one of the first three had ended.
        assert!(
            first[3] - first[0] >= latency - Duration::from_millis(10),
            "four calls within {:?}",
            first[3] - first[0]
        );
    }
    world.check_books().await;
}

#[tokio::test]
async fn one_refusal_of_our_credentials_pauses_all_calls_and_ends_none() {
    let world = Setup::new()
        .set("variants.http.breaker.open", "500ms")
        .set("variants.http.retry.delayed", "100ms")
        .build()
        .await;
    let worker = world.worker().await;
    let first = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(first.payment, vec![Behaviour::Status(401, None); 3]);
    world.publish(&first).await;
    assert_eq!(world.event_of(&first, "command.delayed").await.reason(), "misconfigured");
    breaker_is(&worker, "open").await;
    let second = Command::charge("http", "10.00", "EUR");
    world.publish(&second).await;
    for answer in world.final_events(&[first, second]).await {
        assert_eq!(answer.status(), "confirmed", "as soon as the token is corrected: {}", answer.line());
    }
    world.check_books().await;
}

/// More connections than many systems allow a process to have files open.
#[tokio::test]
async fn clients_that_connect_and_ask_nothing_take_nothing_from_charging() {
    let world = Setup::new().build().await;
    let worker = world.worker().await;
    let address = worker.http().trim_start_matches("http://").to_owned();
    let mut idle = Vec::new();
    for _ in 0..1024 {
        let mut client = TcpStream::connect(&address).await.unwrap();
        // It may already be closed in favour of later ones.
        drop(client.write_all(b"GET /livez HTTP/1.1\r\nhost:").await);
        idle.push(client);
    }
    within(Duration::from_secs(5), "an answer of /livez", async || match worker.get("/livez").await {
        Ok((200, _)) => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    let first = timeout(Duration::from_secs(5), idle[0].read(&mut [0; 1])).await;
    assert!(matches!(first, Ok(Ok(0) | Err(_))), "the first client is still connected: {first:?}");
    let charge = Command::charge("http", "5.00", "USD");
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    world.check_books().await;
}

/// Prefetched messages are in the worker's memory, and AMQP limits messages, not bytes: each counts as the largest one.
#[tokio::test]
async fn no_more_messages_are_fetched_than_there_is_memory_for() {
    // Room for 22 messages of maximum size. The six queues of two variants would get 320, and this one 96.
    const FETCHED: usize = 5;
    let world = Setup::new().set("amqp.memory", "24").set("variants.http.timeout", "20s").build().await;
    let go_on = Arc::new(Notify::new());
    world.gateway.set_default(Some(Behaviour::Until(Arc::clone(&go_on))));
    let _worker = world.worker().await;
    let charges = charges("http", 20);
    world.publish_all(&charges).await;
    eventually("the prefetched calls at the gateway, the rest in the broker", async || {
        let (calls, left) = (world.gateway.calls().len(), world.bus.length("commands.http").await);
        if (calls, left) == (FETCHED, 15) { Ok(()) } else { Err(format!("{calls} calls, {left} left")) }
    })
    .await;
    // They reach the gateway a few at a time, and each may be just about to wait.
    eventually("all to be answered", async || {
        go_on.notify_waiters();
        let answered = world.log.filter(Event::is_final).len();
        if answered == charges.len() { Ok(()) } else { Err(answered) }
    })
    .await;
    for answer in world.final_events(&charges).await {
        assert_eq!(answer.status(), "confirmed", "{}", answer.line());
    }
    world.check_books().await;
}
