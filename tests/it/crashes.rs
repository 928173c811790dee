//! Workers die at every step of a command, repeatedly: nothing is lost, and nothing is charged twice.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lapin::options::QueuePurgeOptions;
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::books::Expected;
use crate::support::wait::within;
use crate::support::{Behaviour, Command, Setup, Worker, WorkerSetup, World, eventually};

/// Every step at which a worker can be made to die, and how many gateway calls there are in total if it does.
/// `committed` is reached by each of a command's two commits, before its events are sent.
const STEPS: [(&str, usize); 9] = [
    ("accepted", 1),
    ("decided", 1),
    ("committed", 1),
    ("begun", 1),
    ("called", 2),
    ("committed@2", 1),
    ("settled", 1),
    ("announced", 1),
    ("acknowledged", 1),
];

/// A worker that dies when a payment reaches this step.
fn dies(step: &str, payment: Uuid) -> WorkerSetup {
    let (step, count) = step.split_once('@').unwrap_or((step, "1"));
    WorkerSetup::default().dies_at(&format!("{step}:{payment}@{count}"))
}

/// Waits until a worker has died by itself.
async fn died(worker: &Worker) {
    let status = within(Duration::from_secs(20), "the worker to die", async || {
        worker.exited().ok_or_else(|| format!("it lives:\n{}", worker.log()))
    })
    .await;
    assert!(!status.success(), "it ended normally: {status}");
}

/// Dies at every step, each time with the command of another payment; the next worker takes that over, and dies with
/// the next.
async fn dies_at_every_step(world: &World, commands: &[Command]) {
    let mut last = None;
    for ((step, _), command) in STEPS.iter().zip(commands) {
        let worker = world.spawn_worker(dies(step, command.payment));
        if let Some(last) = last.replace(command) {
            world.final_event(last).await;
        }
        world.publish(command).await;
        died(&worker).await;
    }
    let _worker = world.worker().await;
    for ((step, calls), command) in STEPS.iter().zip(commands) {
        let answer = world.final_event(command).await;
        assert!(answer.code().is_empty(), "{step}: {}", answer.line());
        let operation = command.operation_id();
        let made = world.gateway.calls_of(command.payment);
        let made: Vec<_> = made.iter().filter(|call| call.operation_id == Some(operation)).collect();
        assert_eq!(made.len(), *calls, "gateway calls of {} when the worker died at {step}", command.kind);
        // Whichever worker sends it again sends the same request.
        assert_eq!(made.iter().map(|call| &call.key).collect::<BTreeSet<_>>().len(), 1, "{step}");
        assert_eq!(made.iter().map(|call| &call.body).collect::<BTreeSet<_>>().len(), 1, "{step}");
    }
    world.check_books().await;
}

/// Payments that are ready for a command, one per step; the worker that created them has stopped.
async fn payments(world: &World, create: impl Fn() -> Command) -> Vec<Command> {
    let creates: Vec<Command> = STEPS.iter().map(|_| create()).collect();
    let worker = world.worker().await;
    world.publish_all(&creates).await;
    for create in &creates {
        world.final_event(create).await;
    }
    worker.drain().await;
    creates
}

fn effects(world: &World, commands: &[Command], kind: &str) {
    for (command, (step, _)) in commands.iter().zip(STEPS) {
        let effects = world.gateway.effects(command.payment);
        let of_this: Vec<_> = effects.iter().filter(|effect| effect.operation_id == command.operation_id()).collect();
        assert_eq!(of_this.len(), 1, "{} when the worker died at {step}: {effects:?}", command.kind);
        assert_eq!(of_this[0].kind, kind);
    }
}

#[tokio::test]
async fn a_charge_survives_a_death_at_every_step() {
    let world = World::new().await;
    let charges: Vec<Command> = STEPS.iter().map(|_| Command::charge("http", "10.00", "EUR")).collect();
    dies_at_every_step(&world, &charges).await;
    effects(&world, &charges, "charge");
}

#[tokio::test]
async fn a_process_survives_a_death_at_every_step() {
    let world = World::new().await;
    let creates = payments(&world, || Command::create("http", "10.00", "EUR")).await;
    let processes: Vec<Command> =
        creates.iter().map(|create| create.then("payment.process", json!({"process": {}}))).collect();
    dies_at_every_step(&world, &processes).await;
    effects(&world, &processes, "charge");
}

#[tokio::test]
async fn a_capture_survives_a_death_at_every_step() {
    let world = World::new().await;
    let creates = payments(&world, || Command::charge("http", "10.00", "EUR").with("capture", json!(false))).await;
    let captures: Vec<Command> =
        creates.iter().map(|create| create.then("payment.capture", json!({"amount": "7.00"}))).collect();
    dies_at_every_step(&world, &captures).await;
    effects(&world, &captures, "capture");
}

#[tokio::test]
async fn a_refund_survives_a_death_at_every_step() {
    let world = World::new().await;
    let creates = payments(&world, || Command::charge("http", "10.00", "EUR")).await;
    let refunds: Vec<Command> =
        creates.iter().map(|create| create.then("payment.refund", json!({"amount": "4.00"}))).collect();
    dies_at_every_step(&world, &refunds).await;
    effects(&world, &refunds, "refund");
}

#[tokio::test]
async fn a_sync_survives_a_death_at_every_step() {
    let world = World::new().await;
    let creates = payments(&world, || Command::charge("http", "10.00", "EUR")).await;
    let syncs: Vec<Command> = creates.iter().map(|create| create.then("payment.sync", json!({}))).collect();
    dies_at_every_step(&world, &syncs).await;
}

/// Two replicas, one of which is killed now and then and replaced by a new one, while a few hundred commands are
/// processed.
#[tokio::test]
async fn nothing_is_lost_while_workers_are_killed_again_and_again() {
    const COMMANDS: usize = 400;
    // Enough kills that some commands lose five workers within their first leases, for reasons that are not their own.
    const KILLS: usize = 14;
    let world = Setup::new().set("variants.http.concurrency", "8").build().await;
    world.gateway.set_latency(Duration::from_millis(20));
    let charges: Vec<Command> = (0..COMMANDS).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    let refunds: Vec<Command> =
        charges.iter().map(|charge| charge.then("payment.refund", json!({"amount": "3.00"}))).collect();
    world.publish_all(&charges).await;
    world.publish_all(&refunds).await;
    let mut workers = [world.spawn_worker(WorkerSetup::default()), world.spawn_worker(WorkerSetup::default())];
    for kill in 0..KILLS {
        // At random: between 100 and 400 ms.
        let pause = 100 + u64::from(Uuid::new_v4().as_bytes()[0]) * 300 / 255;
        tokio::time::sleep(Duration::from_millis(pause)).await;
        let slot = kill % workers.len();
        workers[slot].kill().await;
        workers[slot] = world.spawn_worker(WorkerSetup::default());
    }
    // Work that a worker had claimed when it was killed is due again half a minute later, and the next worker to be
    // killed may have claimed it then.
    within(Duration::from_secs(180), "all commands to be settled", async || {
        let sql = "SELECT count(*) FROM operations WHERE state = 'settled'";
        let settled: i64 = world.value(sql, &[]).await;
        if settled == 2 * COMMANDS as i64 { Ok(()) } else { Err(format!("{settled} are settled")) }
    })
    .await;
    for (charge, refund) in charges.iter().zip(&refunds) {
        let kinds: Vec<&str> = world.gateway.effects(charge.payment).iter().map(|effect| effect.kind).collect();
        assert_eq!(kinds, ["charge", "refund"], "{}", charge.payment);
        assert_eq!(world.final_event(refund).await.field("captured_amount"), "7.00");
    }
    world.check_books().await;
}

/// Empties a queue of commands once this many messages have returned to it.
async fn purge(world: &World, queue: &str, messages: u32) {
    eventually("the dead worker's messages to be back", async || {
        let length = world.bus.length(queue).await;
        if length == messages { Ok(()) } else { Err(format!("{length} messages")) }
    })
    .await;
    let (connection, channel) = world.bus.channel().await;
    let name = format!("{}.{queue}", world.bus.prefix);
    channel.queue_purge(name.into(), QueuePurgeOptions::default()).await.expect("a queue");
    connection.close(200, "done".into()).await.expect("the broker");
}

/// The lease has expired, and the broker no longer has the command: the sweep finds it.
#[tokio::test]
async fn a_call_whose_delivery_is_gone_is_taken_over() {
    let world = World::new().await;
    let [begun, called] = [(); 2].map(|()| Command::charge("http", "10.00", "EUR"));
    for (command, step) in [(&begun, "begun"), (&called, "called")] {
        let worker = world.spawn_worker(dies(step, command.payment));
        world.publish(command).await;
        died(&worker).await;
        purge(&world, "commands.http", 1).await;
    }
    let _worker = world.worker().await;
    for (command, calls) in [(&begun, 1), (&called, 2)] {
        assert_eq!(world.final_event(command).await.status(), "confirmed");
        let keys: Vec<_> = world.gateway.calls_of(command.payment).into_iter().map(|call| call.key).collect();
        assert_eq!(keys.len(), calls);
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let takeovers: i32 =
            world.value("SELECT takeovers FROM operations WHERE id = $1", &[&command.operation_id()]).await;
        assert_eq!(takeovers, 1);
    }
    world.check_books().await;
}

/// The events of its last commit were not sent, and the command is not redelivered: the relay sends them.
#[tokio::test]
async fn events_that_a_dead_worker_left_behind_are_relayed() {
    let world = World::new().await;
    let charge = Command::charge("http", "10.00", "EUR");
    let create = Command::create("http", "10.00", "EUR");
    // Only the gateway's answer leads to the second commit, and nothing delays that until the event of the first commit
    // is sent.
    let go_on = Arc::new(Notify::new());
    world.gateway.plan(charge.payment, vec![Behaviour::Until(Arc::clone(&go_on))]);
    for (command, step) in [(&charge, "committed@2"), (&create, "committed")] {
        let worker = world.spawn_worker(dies(step, command.payment));
        world.publish(command).await;
        if command.payment == charge.payment {
            world.event_of(command, "payment.created").await;
            go_on.notify_one();
        }
        died(&worker).await;
        purge(&world, "commands.http", 1).await;
        world.operation_state(command, "settled").await;
    }
    assert_eq!(world.events_of(charge.payment).len(), 1, "{}", world.lines());
    assert_eq!(world.events_of(create.payment).len(), 0, "{}", world.lines());
    let _worker = world.worker().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.final_event(&create).await.kind(), "payment.created");
    world.check_books().await;
}

/// A command that kills its worker on every call ends up alone on its replica: the others, which were in flight at
/// first, are settled, and only this one is parked.
#[tokio::test]
async fn a_command_that_kills_its_worker_every_time_is_parked_alone() {
    // From its third takeover on, it waits for its lease.
    let world = Setup::new()
        .set("variants.http.concurrency", "16")
        .set("variants.http.timeout", "2s")
        .set("worker.lease_margin", "1s")
        .build()
        .await;
    world.gateway.set_latency(Duration::from_millis(100));
    let culprit = Command::charge("http", "66.00", "EUR");
    let mut commands: Vec<Command> = (0..40).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    commands.insert(10, culprit.clone());
    world.publish_all(&commands).await;
    let mut deaths = 0;
    loop {
        let worker = world.spawn_worker(dies("called", culprit.payment));
        let parked = within(Duration::from_secs(30), "the worker to die, or the command to be parked", async || {
            let rows = world.query("SELECT escalated FROM operations WHERE id = $1", &[&culprit.operation_id()]).await;
            let parked = rows.first().is_some_and(|row| row.get(0));
            if parked || worker.exited().is_some() { Ok(parked) } else { Err("neither") }
        })
        .await;
        if parked {
            break;
        }
        deaths += 1;
        assert!(deaths < 10, "it is taken over for ever");
    }
    assert_eq!(deaths, 5, "the first worker, and one for each takeover except the last");
    let event = world.event("the escalation", |event| event.is_of(&culprit) && event.reason() == "escalated").await;
    assert_eq!(event.kind(), "command.delayed");
    for command in commands.iter().filter(|command| command.payment != culprit.payment) {
        assert_eq!(world.final_event(command).await.status(), "confirmed");
    }
    let most: i32 =
        world.value("SELECT max(takeovers) FROM operations WHERE id <> $1", &[&culprit.operation_id()]).await;
    assert!(most <= 3, "another command was taken over {most} times");
    // Its worker died after the charge: an operator sees that at the gateway and states it.
    assert_eq!(world.gateway.charges(culprit.payment).len(), 1);
    let data =
        json!({"operation": culprit.operation_id().to_string(), "outcome": "approved", "evidence": "the ledger"});
    let resolve = culprit.then("payment.resolve", data).user(&world.bus.user());
    world.run(&resolve).await;
    assert_eq!(world.final_event(&culprit).await.status(), "confirmed");
    world.check_books_but(Expected::default()).await;
}
