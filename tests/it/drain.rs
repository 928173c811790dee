//! Workers that are asked to stop: they finish what they have begun, and leave the rest unchanged to others.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use lapin::options::BasicGetOptions;

use crate::support::wait::{TIMEOUT, within};
use crate::support::{Behaviour, Command, Setup, Worker, WorkerSetup, World, eventually};

/// Asks a worker to stop, checks that it drained, and returns how long that took.
async fn drained(worker: &Worker) -> Duration {
    let begun = Instant::now();
    worker.term();
    let status = worker.wait().await;
    assert!(status.success(), "{status}:\n{}", worker.log());
    assert!(worker.log().contains("worker drained"), "{}", worker.log());
    begun.elapsed()
}

/// How many messages are left in a queue. They are returned to it. A few may have been delivered before: the broker
/// continues for a moment after it has confirmed that a consumer is cancelled, and those messages are not processed.
async fn left_in(world: &World, queue: &str) -> usize {
    let (connection, channel) = world.bus.channel().await;
    let name = format!("{}.{queue}", world.bus.prefix);
    let mut count = 0;
    while channel.basic_get(name.as_str().into(), BasicGetOptions::default()).await.expect("a queue").is_some() {
        count += 1;
    }
    connection.close(200, "done".into()).await.expect("the broker");
    count
}

async fn count(world: &World, condition: &str) -> usize {
    let count: i64 = world.value(&format!("SELECT count(*) FROM operations WHERE {condition}"), &[]).await;
    usize::try_from(count).expect("a count")
}

#[tokio::test]
async fn an_idle_worker_ends_at_once() {
    let world = World::new().await;
    let worker = world.worker().await;
    let took = drained(&worker).await;
    assert!(took < Duration::from_secs(2), "{took:?}");
    world.check_books().await;
}

/// Commands that were called are settled, prefetched ones are scheduled, and the others stay in the queue.
#[tokio::test]
async fn a_drain_under_load_costs_nobody_an_attempt() {
    const COMMANDS: usize = 200;
    let world = Setup::new().set("variants.http.concurrency", "8").build().await;
    world.gateway.set_latency(Duration::from_millis(100));
    let charges: Vec<Command> = (0..COMMANDS).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    let worker = world.worker().await;
    eventually("some calls", async || {
        let calls = world.gateway.calls().len();
        if calls >= 20 { Ok(()) } else { Err(calls) }
    })
    .await;
    let took = drained(&worker).await;
    assert!(took < Duration::from_secs(3), "the calls take 100 ms, the drain took {took:?}");

    let called = world.gateway.calls().len();
    assert!(called < COMMANDS, "nothing was left to leave behind");
    let ready = left_in(&world, "commands.http").await;
    let (settled, scheduled) = (count(&world, "state = 'settled'").await, count(&world, "state = 'scheduled'").await);
    assert_eq!(settled, called, "every call was settled");
    assert_eq!(settled + scheduled + ready, COMMANDS, "{settled} settled, {scheduled} scheduled, {ready} in the queue");
    assert_eq!(count(&world, "state = 'scheduled' AND attempts + rounds + takeovers > 0").await, 0);

    world.gateway.set_latency(Duration::ZERO);
    let _worker = world.worker().await;
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    assert_eq!(world.gateway.calls().len(), COMMANDS, "one call each");
    assert_eq!(count(&world, "attempts <> 1 OR rounds + takeovers > 0").await, 0);
    world.check_books().await;
}

/// Replicas are replaced one after the other, as a deployment does, without any effect: no attempt is used up, nothing
/// is sent twice, and no command waits longer than a restart takes.
#[tokio::test]
async fn a_rolling_restart_under_load_calls_once_for_each_command() {
    const RESTARTS: usize = 6;
    let world = Setup::new().set("variants.http.concurrency", "8").build().await;
    world.gateway.set_latency(Duration::from_millis(30));
    let mut workers = vec![world.worker().await, world.worker().await];
    let over = AtomicBool::new(false);
    // Published at a rate well below the capacity of one replica, so that a command waits only for the restart.
    let publish = async {
        let mut charges: Vec<(Instant, Command)> = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let few: Vec<Command> = (0..5).map(|_| Command::charge("http", "10.00", "EUR")).collect();
            charges.extend(few.iter().map(|charge| (Instant::now(), charge.clone())));
            world.publish_all(&few).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        charges
    };
    let restart = async {
        let mut slowest = Duration::ZERO;
        for _ in 0..RESTARTS {
            let begun = Instant::now();
            workers.push(world.worker().await);
            drained(&workers.remove(0)).await;
            slowest = slowest.max(begun.elapsed());
        }
        over.store(true, Ordering::Relaxed);
        slowest
    };
    let (charges, slowest) = tokio::join!(publish, restart);
    let mut longest = Duration::ZERO;
    for (published, charge) in &charges {
        let answer = world.final_event(charge).await;
        assert_eq!(answer.status(), "confirmed");
        longest = longest.max(answer.at - *published);
    }
    println!("{} commands; the longest took {longest:?}, the slowest restart {slowest:?}", charges.len());
    assert!(charges.len() >= 50, "{} commands are not enough load", charges.len());
    // Far less than the time that a lease takes to expire.
    assert!(longest < slowest + TIMEOUT, "{longest:?}, and a restart takes {slowest:?}");
    assert_eq!(world.gateway.calls().len(), charges.len(), "one call each");
    assert_eq!(count(&world, "attempts <> 1 OR rounds + takeovers + lookups > 0").await, 0);
    let delayed = world.log.filter(|event| event.kind() == "command.delayed");
    assert!(delayed.is_empty(), "{}", world.lines());
    world.check_books().await;
}

/// The gateway is unreachable, calls are held back, and probes fail: none of that may delay a stop.
#[tokio::test]
async fn a_worker_with_an_open_breaker_ends_at_once() {
    for open in ["60s", "50ms"] {
        let world = Setup::new()
            .set("variants.http.breaker.failures", "2")
            .set("variants.http.breaker.open", open)
            .set("retry.delayed", "100ms,100ms,100ms,100ms,1s,1s,1s,1s,1s,1s")
            .build()
            .await;
        let mut world = world;
        world.gateway.stop().await;
        let worker = world.worker().await;
        let charges: Vec<Command> = (0..10).map(|_| Command::charge("http", "10.00", "EUR")).collect();
        world.publish_all(&charges).await;
        eventually("the breaker to open", async || {
            let closed = worker.metric("paybus_breaker_state{variant=\"http\",state=\"closed\"}").await;
            if closed == 0.0 { Ok(()) } else { Err(worker.metrics().await) }
        })
        .await;
        let took = drained(&worker).await;
        assert!(took < Duration::from_secs(3), "open for {open}: {took:?}");
        world.gateway.start_again().await;
        let _worker = world.worker().await;
        for charge in &charges {
            world.final_event(charge).await;
        }
        world.check_books().await;
    }
}

/// The first signal waits for the call, the second does not.
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    let world = Setup::new().expects_takeovers().build().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(1_500))]);
    let worker = world.worker().await;
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let begun = Instant::now();
    worker.term();
    eventually("the first signal to be heard", async || {
        if worker.log().contains("draining") { Ok(()) } else { Err(worker.log()) }
    })
    .await;
    worker.term();
    let status = within(Duration::from_millis(1_200), "the end", async || worker.exited().ok_or("it runs")).await;
    assert!(!status.success(), "it did not finish: {status}");
    assert!(begun.elapsed() < Duration::from_millis(1_400), "{:?}", begun.elapsed());
    // Another worker takes over the call, under the same key.
    let _worker = world.worker_with(WorkerSetup::default()).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    world.check_books().await;
}

/// A call that takes longer than the grace period is left behind and taken over.
#[tokio::test]
async fn a_call_beyond_the_grace_is_left_to_another_worker() {
    let world = Setup::new().expects_takeovers().build().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::HangAfter]);
    let worker = world.worker_with(WorkerSetup::default().set("worker.drain", "300ms")).await;
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let took = drained(&worker).await;
    // The last statements take two seconds at most.
    assert!(took < Duration::from_millis(3_000), "{took:?}");
    let _worker = world.worker().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    world.check_books().await;
}

/// A subscriber's queue accepts nothing, so the command's events are not sent: for two seconds its message is not
/// acknowledged, and it is delivered again if the worker dies within that time.
#[tokio::test]
async fn a_message_is_kept_until_the_broker_has_confirmed_its_events() {
    let world = Setup::new().expects_relay().build().await;
    let full = world.bus.full_queue("http.payment.status_changed.#").await;
    let charge = Command::charge("http", "10.00", "EUR");
    // The last step before the acknowledgement.
    let worker = world.worker_with(WorkerSetup::default().dies_at(&format!("announced:{}", charge.payment))).await;
    world.publish(&charge).await;
    eventually("the worker to die", async || worker.exited().ok_or("it lives")).await;
    let sql = "SELECT clock_timestamp() - max(stored) >= '2 seconds' FROM events";
    assert!(world.value::<bool>(sql, &[]).await, "it was about to acknowledge before its events were out");
    eventually("the message to be back", async || match world.bus.length("commands.http").await {
        1 => Ok(()),
        left => Err(format!("{left} are in the queue: it was acknowledged before its events were out")),
    })
    .await;
    world.bus.delete_queue(&full).await;
    let _worker = world.worker().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    world.check_books().await;
}
