//! A consumer that was offline, or finds a gap, recovers over the bus: it gets events again, or the payment as it is.

use std::sync::Arc;

use futures_util::StreamExt;
use lapin::options::{BasicConsumeOptions, QueueDeclareOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::worker::paybus;
use crate::support::{Behaviour, Command, Event, Setup, WorkerSetup, World, eventually};

/// A payment with three events: created, confirmed, and partly refunded.
async fn refunded(world: &World) -> Command {
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    assert_eq!(world.run(&refund).await.field("captured_amount"), "100.00");
    charge
}

fn resend(charge: &Command, from: &str) -> Command {
    charge.then("payment.resend", json!({ "from": from }))
}

/// The sequence numbers of events in order of arrival; `None` for those without one.
fn numbers(events: &[Event]) -> Vec<Option<i64>> {
    events.iter().map(Event::sequence).collect()
}

#[tokio::test]
async fn events_go_out_once_more_under_the_same_ids_before_the_answer() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = refunded(&world).await;
    let first = world.events_of(charge.payment);
    assert_eq!(numbers(&first), [Some(1), Some(2), Some(3)]);

    let answer = world.run(&resend(&charge, "2")).await;
    let again = world.events_of(charge.payment).split_off(first.len());
    assert_eq!(numbers(&again), [Some(2), Some(3), None], "{}", world.lines());
    for (again, first) in again.iter().zip(&first[1..]) {
        assert_eq!((&again.body, &again.routing_key), (&first.body, &first.routing_key));
        assert_eq!(again.properties.message_id(), first.properties.message_id());
    }
    assert_eq!(answer.kind(), "command.succeeded");
    assert_eq!(answer.data()["resent"], json!({"from": "2", "to": "3"}));
    assert_eq!((answer.data()["sequence"].as_str(), answer.field("captured_amount")), (Some("3"), "100.00"));

    // Nothing is missing.
    let answer = world.run(&resend(&charge, "4")).await;
    assert_eq!((answer.kind(), answer.data().get("resent")), ("command.succeeded", None));
    for wrong in
        [json!("0"), json!("01"), json!(""), json!("-1"), json!("1.0"), json!(2), json!("9".repeat(19)), json!(null)]
    {
        let answer = world.run(&resend(&charge, "1").with("from", wrong)).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_data"), "{}", answer.line());
    }
    world.check_books().await;
}

/// A consumer that finds many gaps at once, or has bad intentions, cannot flood all subscribers with the same events.
#[tokio::test]
async fn commands_that_wait_for_the_same_events_are_answered_by_a_few_runs() {
    const COMMANDS: usize = 30;
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = refunded(&world).await;
    worker.drain().await;
    let waiting: Vec<Command> =
        (0..COMMANDS).map(|number| resend(&charge, if number % 3 == 0 { "1" } else { "2" })).collect();
    world.publish_all(&waiting).await;
    let _worker = world.worker().await;
    for (command, answer) in waiting.iter().zip(world.final_events(&waiting).await) {
        let expected = json!({"from": command.data["from"], "to": "3"});
        assert_eq!((answer.kind(), &answer.data()["resent"]), ("command.succeeded", &expected));
    }
    let again = world.events_of(charge.payment).split_off(3);
    let last = again.iter().filter(|event| event.sequence() == Some(3)).count();
    assert!((1..=5).contains(&last), "{last} runs for {COMMANDS} commands:\n{}", world.lines());

    // Events that were sent before it arrived do not answer it.
    world.run(&resend(&charge, "3")).await;
    let more = world.events_of(charge.payment).split_off(3 + again.len());
    assert_eq!(numbers(&more), [Some(3), None], "{}", world.lines());
    world.check_books().await;
}

/// A replica marks what it has published a moment later. It was already sent, and a consumer that asks missed it
/// nevertheless.
#[tokio::test]
async fn what_another_replica_has_just_published_is_not_left_out() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = refunded(&world).await;
    let last = "SELECT position FROM events WHERE payment_id = $1 AND sequence = 3";
    let position: i64 = world.value(last, &[&charge.payment]).await;
    eventually("the last event to be marked", async || {
        let gone = world.query("DELETE FROM sent WHERE position = $1 RETURNING position", &[&position]).await.len();
        if gone > 0 { Ok(()) } else { Err("not yet") }
    })
    .await;

    let again = resend(&charge, "1");
    world.publish(&again).await;
    eventually("the worker to look for what went out", async || {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
                   AND pid <> pg_backend_pid() AND query LIKE '%AS is_sent%'";
        let looks: i64 = world.value(sql, &[]).await;
        if looks > 0 { Ok(()) } else { Err("not yet") }
    })
    .await;
    let mark = "INSERT INTO sent (position, sent_at) VALUES ($1, now()) RETURNING position";
    world.query(mark, &[&position]).await;
    assert_eq!(world.final_event(&again).await.data()["resent"], json!({"from": "1", "to": "3"}));
    world.check_books().await;
}

#[tokio::test]
async fn who_asks_with_a_reply_queue_gets_them_alone() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = refunded(&world).await;
    let (_connection, channel) = world.bus.channel().await;
    let queue = format!("reply.{}", world.bus.prefix);
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(queue.as_str().into(), exclusive, FieldTable::default()).await.expect("a queue");
    let no_ack = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consuming = channel.basic_consume(queue.as_str().into(), "".into(), no_ack, FieldTable::default());
    let mut replies = consuming.await.expect("a consumer");

    let before = world.events_of(charge.payment);
    let answer = world.run(&resend(&charge, "1").reply_to(&queue, "gap-1")).await;
    let mut expected: Vec<Value> = before.iter().map(|event| event.body.clone()).collect();
    expected.push(answer.body.clone());
    for expected in expected {
        let reply = replies.next().await.unwrap().unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&reply.data).unwrap(), expected);
        assert_eq!(reply.properties.correlation_id().as_ref().map(ToString::to_string).as_deref(), Some("gap-1"));
    }
    let after = world.events_of(charge.payment).split_off(before.len());
    assert_eq!(numbers(&after), [None], "everybody else gets only the answer");

    let snapshot = charge.then("payment.snapshot", json!({})).reply_to(&queue, "now-1");
    let answer = world.run(&snapshot).await;
    let reply = replies.next().await.unwrap().unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&reply.data).unwrap(), answer.body);

    // A reply queue that is gone by then receives nothing and blocks nothing.
    let gone = resend(&charge, "1").reply_to("reply.nobody-is-there", "gap-2");
    let answer = world.run(&gone).await;
    assert_eq!((answer.kind(), answer.data().get("resent")), ("command.succeeded", None));
    world.check_books().await;
}

#[tokio::test]
async fn a_snapshot_shows_the_payment_as_it_is() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = refunded(&world).await;
    let last = world.events_of(charge.payment).pop().unwrap();
    let answer = world.run(&charge.then("payment.snapshot", json!({}))).await;
    assert_eq!((answer.kind(), answer.sequence()), ("payment.snapshot", None));
    assert_eq!(answer.routing_key, "http.payment.snapshot");
    assert_eq!((answer.payment(), answer.data()["sequence"].as_str()), (last.payment(), Some("3")));

    for kind in ["payment.snapshot", "payment.resend"] {
        let stranger = Command::create("http", "1.00", "USD");
        let data = if kind == "payment.resend" { json!({"from": "1"}) } else { json!({}) };
        let answer = world.run(&stranger.then(kind, data)).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unknown_payment"));
    }
    world.check_books().await;
}

/// A hanging gateway, an open breaker and a variant that points to another gateway do not matter.
#[tokio::test]
async fn stored_data_is_sent_while_the_gateway_fails() {
    let world = Setup::new()
        .set("variants.http.breaker.failures", "1")
        .set("variants.http.breaker.open", "60s")
        .set("variants.http.timeout", "20s")
        .build()
        .await;
    let worker = world.worker().await;
    let charge = refunded(&world).await;
    let go_on = Arc::new(Notify::new());
    let refund = charge.then("payment.refund", json!({"amount": "10.00"}));
    world.gateway.plan_operation(charge.payment, "refund", vec![Behaviour::Until(Arc::clone(&go_on))]);
    world.publish(&refund).await;
    world.operation_state(&refund, "calling").await;
    let answer = world.run(&charge.then("payment.snapshot", json!({}))).await;
    assert_eq!((answer.kind(), answer.field("captured_amount")), ("payment.snapshot", "100.00"));
    assert_eq!(world.run(&resend(&charge, "1")).await.data()["resent"], json!({"from": "1", "to": "3"}));
    go_on.notify_one();
    assert_eq!(world.final_event(&refund).await.field("captured_amount"), "90.00");

    let ill = Command::charge("http", "5.00", "USD");
    world.gateway.plan(ill.payment, vec![Behaviour::Refuse, Behaviour::Approve]);
    world.run(&ill).await;
    worker.drain().await;
    // Another account: its payments can be reported, but the gateway cannot be asked.
    let elsewhere = WorkerSetup::default().set("variants.http.url", "http://127.0.0.1:9/elsewhere");
    let _worker = world.worker_with(elsewhere).await;
    let answer = world.run(&charge.then("payment.snapshot", json!({}))).await;
    assert_eq!((answer.kind(), answer.field("captured_amount")), ("payment.snapshot", "90.00"));
    assert_eq!(world.run(&resend(&charge, "4")).await.data()["resent"], json!({"from": "4", "to": "4"}));
    world.check_books().await;
}

#[tokio::test]
async fn a_long_history_comes_a_hundred_events_at_a_time() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("default", "120.00", "USD");
    world.run(&charge).await;
    let refund = || charge.then("payment.refund", json!({"amount": "0.01"}));
    let refunds: Vec<Command> = (0..60).map(|_| refund()).collect();
    world.publish_all(&refunds).await;
    world.final_events(&refunds).await;
    let more: Vec<Command> = (0..50).map(|_| refund()).collect();
    world.publish_all(&more).await;
    world.final_events(&more).await;

    let first = world.run(&resend(&charge, "5")).await;
    assert_eq!(first.data()["resent"], json!({"from": "5", "to": "104"}));
    assert_eq!(first.data()["sequence"], "112");
    let second = world.run(&resend(&charge, "105")).await;
    assert_eq!(second.data()["resent"], json!({"from": "105", "to": "112"}));
    let again = world.events_of(charge.payment).split_off(112);
    let counted: Vec<i64> = numbers(&again).into_iter().flatten().collect();
    assert_eq!(counted, (5..=112).collect::<Vec<_>>());

    world.check_books().await;

    let _worker = world.worker().await;
    // Events past their retention are gone, and the answer says where the stored ones begin.
    let sql = "WITH gone AS (DELETE FROM events WHERE sequence < 100 RETURNING position)
               DELETE FROM sent WHERE position IN (SELECT position FROM gone)";
    world.query(sql, &[]).await;
    let late = world.run(&resend(&charge, "20")).await;
    assert_eq!(late.data()["resent"], json!({"from": "100", "to": "112"}), "{}", late.line());
}

#[tokio::test]
async fn a_worker_that_dies_on_the_way_leaves_it_to_the_next() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = refunded(&world).await;
    worker.drain().await;
    let again = resend(&charge, "1");
    // They were sent, but the answer is not stored.
    let dying = world.worker_with(WorkerSetup::default().dies_at(&format!("decided:{}@1", charge.payment))).await;
    world.publish(&again).await;
    eventually("the worker to die", async || dying.exited().ok_or("it lives")).await;
    let _worker = world.worker().await;
    let answer = world.final_event(&again).await;
    assert_eq!(answer.data()["resent"], json!({"from": "1", "to": "3"}));
    world.check_books().await;
}

/// What `paybus events` prints.
async fn printed(world: &World, arguments: &[&str]) -> Vec<Value> {
    let mut program = paybus(world.settings());
    program.arg("events").args(arguments).arg("--json");
    let output = tokio::task::spawn_blocking(move || program.output().expect("the binary runs")).await.expect("output");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

#[tokio::test]
async fn stored_events_are_printed_and_new_ones_followed() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let (charge, other) = (refunded(&world).await, refunded(&world).await);
    let bodies_of = |charge: &Command| -> Vec<Value> {
        world.events_of(charge.payment).into_iter().map(|event| event.body).collect()
    };
    let payment = charge.payment.to_string();
    assert_eq!(printed(&world, &["--payment", &payment]).await, bodies_of(&charge));
    let all = [bodies_of(&charge), bodies_of(&other)].concat();
    for arguments in [vec![], vec!["--since", "5m"], vec!["--since", "2026-01-01T00:00:00Z"]] {
        assert_eq!(printed(&world, &arguments).await, all, "{arguments:?}");
    }
    let late = jiff::Timestamp::now() + std::time::Duration::from_secs(60);
    assert!(printed(&world, &["--since", &late.to_string()]).await.is_empty());
    // With an old event of one of the two payments, the position to start reading from is still found.
    let sql = "UPDATE events SET created = created - interval '1 day' WHERE payment_id = $1";
    world.query(sql, &[&charge.payment]).await;
    assert_eq!(printed(&world, &[]).await, bodies_of(&other));
    assert_eq!(printed(&world, &["--payment", &payment, "--since", "1h"]).await, Vec::<Value>::new());

    let mut program = paybus(world.settings());
    program.args(["events", "--payment", &other.payment.to_string(), "--follow", "--json"]);
    let mut following = program.stdout(std::process::Stdio::piped()).spawn().expect("the binary runs");
    let lines = std::io::BufRead::lines(std::io::BufReader::new(following.stdout.take().expect("its output")));
    let (send, mut receive) = tokio::sync::mpsc::unbounded_channel();
    let reading = std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let mut next = async || serde_json::from_str::<Value>(&receive.recv().await.expect("a line")).expect("an event");
    for expected in bodies_of(&other) {
        assert_eq!(next().await, expected);
    }
    world.run(&charge.then("payment.snapshot", json!({}))).await;
    let answer = world.run(&other.then("payment.refund", json!({"amount": "5.00"}))).await;
    assert_eq!(next().await, answer.body, "nothing about the other payment, and nothing twice");
    following.kill().and_then(|()| following.wait()).expect("it ends");
    reading.join().expect("it has ended").ok();
    world.check_books().await;
}
