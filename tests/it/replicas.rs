//! Several workers at once: the commands of one payment run serially and in order, and a worker that was only suspended
//! does no harm when it resumes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::support::wait::within;
use crate::support::{Command, Setup, WorkerSetup, World, eventually};

/// How long every call takes.
const LATENCY: Duration = Duration::from_millis(20);

#[tokio::test]
async fn racing_commands_of_one_payment_go_one_after_the_other() {
    const REFUNDS: usize = 60;
    let world = World::new().await;
    let _workers = [world.worker().await, world.worker().await, world.worker().await];
    let charge = Command::charge("http", "100.00", "EUR");
    world.run(&charge).await;
    world.gateway.set_latency(LATENCY);
    let refunds: Vec<Command> =
        (0..REFUNDS).map(|_| charge.then("payment.refund", json!({"amount": "1.00"}))).collect();
    world.publish_all(&refunds).await;
    for refund in &refunds {
        let answer = world.final_event(refund).await;
        assert_eq!(answer.kind(), "payment.updated", "{}", answer.line());
    }
    let last = world.events_of(charge.payment).pop().expect("an event");
    assert_eq!((last.field("captured_amount"), last.field("refunded_amount")), ("40.00", "60.00"));

    // One after the other: each call begins after the previous one was answered.
    let calls: Vec<_> = world.gateway.calls_of(charge.payment);
    assert_eq!(calls.len(), 1 + REFUNDS);
    for pair in calls[1..].windows(2) {
        let apart = pair[1].at.duration_since(pair[0].at);
        assert!(apart >= LATENCY, "two calls within {apart:?}");
    }
    // In the order of acceptance.
    let sql = "SELECT id FROM operations WHERE payment_id = $1 ORDER BY accepted";
    let accepted: Vec<Uuid> = world.query(sql, &[&charge.payment]).await.iter().map(|row| row.get(0)).collect();
    let done: Vec<Uuid> = world.gateway.effects(charge.payment).iter().map(|effect| effect.operation_id).collect();
    assert_eq!(done, accepted);
    world.check_books().await;
}

/// A single replica sees all commands of a payment in the order of the queue, and carries them out in that order.
#[tokio::test]
async fn one_replica_keeps_the_order_of_the_queue() {
    let world = World::new().await;
    let charge = Command::charge("http", "100.00", "EUR").with("capture", json!(false));
    let mut commands = vec![charge.clone(), charge.then("payment.capture", json!({}))];
    commands.extend((0..20).map(|_| charge.then("payment.refund", json!({"amount": "1.00"}))));
    commands.push(charge.then("payment.refund", json!({})));
    world.publish_all(&commands).await;
    let _worker = world.worker().await;
    for command in &commands {
        world.final_event(command).await;
    }
    let asked: Vec<Uuid> = commands.iter().map(Command::operation_id).collect();
    let done: Vec<Uuid> = world.gateway.effects(charge.payment).iter().map(|effect| effect.operation_id).collect();
    assert_eq!(done, asked);
    assert_eq!(world.events_of(charge.payment).last().expect("an event").status(), "refunded");
    world.check_books().await;
}

#[tokio::test]
async fn the_same_message_at_two_replicas_is_one_command() {
    let world = World::new().await;
    world.gateway.set_latency(LATENCY);
    let _workers = [world.worker().await, world.worker().await];
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    // Ten copies of each command, copies of the same command next to each other.
    let copies: Vec<Command> = charges.iter().flat_map(|charge| vec![charge.clone(); 10]).collect();
    world.publish_all(&copies).await;
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
        assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    }
    world.check_books().await;
}

/// Another command under a name that is in use is rejected, on whichever replica it arrives, and each time.
#[tokio::test]
async fn a_name_in_use_is_refused_to_another_command_at_once() {
    let world = World::new().await;
    world.gateway.set_latency(Duration::from_millis(200));
    let _workers = [world.worker().await, world.worker().await];
    let charges: Vec<Command> = (0..10).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    let others: Vec<Command> = charges.iter().map(|charge| charge.clone().with("total", json!("99.00"))).collect();
    world.publish_all(&charges).await;
    for charge in &charges {
        world.gateway.wait_for_calls(charge.payment, 1).await;
    }
    let copies: Vec<Command> = others.iter().flat_map(|other| vec![other.clone(); 5]).collect();
    world.publish_all(&copies).await;
    for charge in &charges {
        world.event("the refusal", |event| event.is_of(charge) && event.code() == "id_reused").await;
        assert_eq!(world.final_event(charge).await.field("total"), "10.00");
    }
    world.check_books().await;
}

/// A worker is suspended in the middle of its calls, like a machine that hangs; its leases expire, another worker takes
/// over, and then it resumes with its answers.
#[tokio::test]
async fn a_late_answer_counts_once() {
    let world = World::new().await;
    world.gateway.set_latency(Duration::from_millis(400));
    let charges: Vec<Command> = (0..8).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    let sleeper = world.worker().await;
    world.publish_all(&charges).await;
    for charge in &charges {
        world.gateway.wait_for_calls(charge.payment, 1).await;
    }
    sleeper.stop();
    let _worker = world.worker().await;
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    sleeper.cont();
    let another = Command::charge("http", "10.00", "EUR");
    world.run(&another).await;
    sleeper.drain().await;
    for charge in &charges {
        let keys: BTreeSet<_> = world.gateway.calls_of(charge.payment).into_iter().map(|call| call.key).collect();
        assert_eq!((keys.len(), world.gateway.charges(charge.payment).len()), (1, 1), "{}", charge.payment);
    }
    world.check_books().await;
}

/// A worker is suspended when it has stored that it calls but has not called yet: before it checks its lease, or after.
/// The worker that takes over finds that nothing was charged, and charges. Without keys, only its lease prevents the
/// first one from charging again when it resumes.
#[tokio::test]
async fn who_wakes_without_its_lease_sends_nothing() {
    for step in ["begun", "leased"] {
        sends_nothing_after_a_stop_at(step).await;
    }
}

async fn sends_nothing_after_a_stop_at(step: &str) {
    let world = Setup::new()
        .set("variants.http.key_window", "0s")
        .set("variants.http.timeout", "500ms")
        .set("worker.lease_margin", "500ms")
        .build()
        .await;
    let charge = Command::charge("http", "10.00", "EUR");
    let sleeper = world.worker_with(WorkerSetup::default().stops_at(&format!("{step}:{}", charge.payment))).await;
    world.publish(&charge).await;
    sleeper.stopped().await;
    let worker = world.worker().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(worker.count(r#"paybus_takeovers_total{variant="http"}"#).await, 1);
    let sent = || world.gateway.calls_of(charge.payment).iter().filter(|call| call.operation == "process").count();
    assert_eq!(sent(), 1);
    sleeper.cont();
    eventually("the worker to notice that it lost its lease", async || {
        let lost = sleeper.count(r#"paybus_leases_lost_total{variant="http"}"#).await;
        if lost == 1 { Ok(()) } else { Err(format!("{lost} leases lost, {} sent", sent())) }
    })
    .await;
    assert_eq!(sent(), 1, "a worker that had lost its lease sent it again");
    world.check_books().await;
}

/// How many of the relay's buckets each worker owns with a live lease.
async fn shares(world: &World) -> BTreeMap<Uuid, i64> {
    let sql = "SELECT owner, count(*) FROM buckets WHERE until > now() GROUP BY owner";
    world.query(sql, &[]).await.iter().map(|row| (row.get(0), row.get(1))).collect()
}

#[tokio::test]
async fn the_relays_share_their_work_and_take_it_over() {
    let world = Setup::new().build().await;
    let first = world.worker().await;
    let wait = async |what: &str, expected: &[i64]| {
        within(Duration::from_secs(30), what, async || {
            let shares: Vec<i64> = shares(&world).await.into_values().collect();
            if shares == expected { Ok(()) } else { Err(format!("{shares:?}, expected {expected:?}")) }
        })
        .await;
    };
    wait("the only worker to have all", &[16]).await;
    let second = world.worker().await;
    wait("two workers to have half each", &[8, 8]).await;
    first.kill().await;
    wait("the work of a killed worker to be taken over", &[16]).await;
    let _third = world.worker().await;
    wait("a new worker to have its half", &[8, 8]).await;
    second.drain().await;
    wait("the work of a worker that ended to be taken over", &[16]).await;
    eventually("the end", async || Ok::<_, String>(())).await;
    world.check_books().await;
}

/// The replica that refunds reads the charge's events a moment before the other one, which has published them, marks
/// them.
#[tokio::test]
async fn what_another_replica_has_just_published_is_not_published_again() {
    let world = World::new().await;
    let _workers = [world.worker().await, world.worker().await];
    let charges: Vec<Command> = (0..40).map(|_| Command::charge("http", "100.00", "EUR")).collect();
    let pay = async |charge: &Command| {
        world.run(charge).await;
        world.run(&charge.then("payment.refund", json!({"amount": "1.00"}))).await;
    };
    futures_util::future::join_all(charges.iter().map(pay)).await;
    let events: Vec<_> = charges.iter().flat_map(|charge| world.events_of(charge.payment)).collect();
    let ids: BTreeSet<_> = events.iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(events.len(), ids.len(), "nothing failed, so that nothing need be published twice");
    world.check_books().await;
}
