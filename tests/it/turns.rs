//! The commands of one payment, one after the other: races, order, waiting, and the same command many times.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::support::wait::within;
use crate::support::{Behaviour, Command, Event, Setup, World, eventually};

fn codes(events: &[Event]) -> Vec<&str> {
    events.iter().map(Event::code).collect()
}

#[tokio::test]
async fn of_two_captures_at_once_one_wins() {
    let world = World::new().await;
    let (_one, _two) = (world.worker().await, world.worker().await);
    for _ in 0..5 {
        let held = Command::charge("http", "120.00", "USD").with("capture", json!(false));
        world.run(&held).await;
        let captures: Vec<Command> =
            ["100.00", "90.00"].iter().map(|amount| held.then("payment.capture", json!({"amount": amount}))).collect();
        world.publish_all(&captures).await;
        let answers = [world.final_event(&captures[0]).await, world.final_event(&captures[1]).await];
        let won: Vec<&Event> = answers.iter().filter(|answer| answer.kind() == "payment.status_changed").collect();
        assert_eq!(won.len(), 1, "{:?}", codes(&answers));
        assert!(codes(&answers).iter().any(|code| ["not_allowed", "in_progress"].contains(code)));
        assert_eq!(world.gateway.captures(held.payment).len(), 1);
    }
    world.check_books().await;
}

#[tokio::test]
async fn racing_refunds_never_give_back_more_than_there_is() {
    let world = World::new().await;
    let (_one, _two) = (world.worker().await, world.worker().await);
    let charge = Command::charge("http", "100.00", "USD");
    world.run(&charge).await;
    let refunds: Vec<Command> = (0..12).map(|_| charge.then("payment.refund", json!({"amount": "30.00"}))).collect();
    world.publish_all(&refunds).await;
    let mut won = 0;
    for refund in &refunds {
        let answer = world.final_event(refund).await;
        won += usize::from(answer.kind() == "payment.updated");
        assert!(["", "invalid_amount"].contains(&answer.code()), "{}", answer.line());
    }
    assert_eq!((won, world.gateway.refunds(charge.payment).len()), (3, 3));
    let full: Vec<Command> = (0..2).map(|_| charge.then("payment.refund", json!({}))).collect();
    world.publish_all(&full).await;
    let answers = [world.final_event(&full[0]).await, world.final_event(&full[1]).await];
    assert_eq!(answers.iter().filter(|answer| answer.status() == "refunded").count(), 1, "{:?}", codes(&answers));
    world.check_books().await;
}

#[tokio::test]
async fn commands_of_one_payment_are_carried_out_in_their_order() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(400))]);
    let capture = charge.then("payment.capture", json!({"amount": "100.00"}));
    let mut commands = vec![charge.clone(), capture];
    let amounts: Vec<String> = (1..=12).map(|number| format!("{number}.00")).collect();
    commands.extend(amounts.iter().map(|amount| charge.then("payment.refund", json!({"amount": amount}))));
    world.publish_all(&commands).await;
    for command in &commands {
        let answer = world.final_event(command).await;
        assert!(answer.kind().starts_with("payment."), "{}", answer.line());
    }
    let refunded: Vec<String> =
        world.gateway.refunds(charge.payment).iter().map(|refund| refund.amount.to_string()).collect();
    assert_eq!(refunded, amounts);
    world.check_books().await;
}

#[tokio::test]
async fn a_payment_lets_a_hundred_wait_and_refuses_more() {
    let world = Setup::new().set("variants.http.timeout", "30s").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let go_on = Arc::new(Notify::new());
    world.gateway.plan(charge.payment, vec![Behaviour::Until(Arc::clone(&go_on))]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let refunds: Vec<Command> = (0..110).map(|_| charge.then("payment.refund", json!({"amount": "1.00"}))).collect();
    world.publish_all(&refunds).await;
    // Other payments do not wait behind it.
    let other = world.run(&Command::charge("http", "5.00", "USD")).await;
    assert_eq!(other.status(), "confirmed");
    assert!(world.log.find(|event| event.is_of(&charge) && event.is_final()).is_none(), "it is still being charged");
    let refusals = |refund: &&Command| {
        let refused = |event: &Event| event.is_of(refund) && event.code() == "too_many_waiting";
        world.log.find(refused).is_some()
    };
    // A hundred are stored first, one after the other, without an event.
    within(Duration::from_secs(60), "ten refusals", async || match refunds.iter().filter(refusals).count() {
        10 => Ok(()),
        other => Err(format!("{other} refusals")),
    })
    .await;
    go_on.notify_one();
    for refund in &refunds {
        world.final_event(refund).await;
    }
    assert_eq!(refunds.iter().filter(refusals).count(), 10);
    assert_eq!(world.gateway.refunds(charge.payment).len(), 100);
    world.check_books().await;
}

#[tokio::test]
async fn a_process_of_a_payment_that_is_being_charged_is_rejected_at_once() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(1500))]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let begun = Instant::now();
    let answer = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "in_progress"));
    assert!(begun.elapsed() < Duration::from_millis(1200), "it must not wait for the charge");
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn a_command_may_come_a_little_before_its_payment() {
    let world = Setup::new().set("worker.unknown_payment_grace", "2s").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let early = charge.then("payment.refund", json!({"amount": "20.00"}));
    world.publish(&early).await;
    world.operation_state(&early, "waiting").await;
    world.run(&charge).await;
    assert_eq!(world.final_event(&early).await.field("captured_amount"), "100.00");

    let begun = Instant::now();
    let nobodys = Command::new("http", "payment.refund", Uuid::new_v4(), json!({}));
    let answer = world.run(&nobodys).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unknown_payment"));
    assert!(begun.elapsed() >= Duration::from_millis(1900), "after {:?}", begun.elapsed());
    // Stored as finally as any other answer.
    let late = Command::charge("http", "5.00", "USD").payment(nobodys.payment);
    world.run(&late).await;
    world.publish(&nobodys).await;
    let fresh = world.run(&late.then("payment.refund", json!({}))).await;
    assert_eq!(fresh.status(), "refunded");
    world.check_books().await;
}

#[tokio::test]
async fn the_same_command_many_times_is_one_command() {
    let world = World::new().await;
    let (one, two) = (world.worker().await, world.worker().await);
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Delay(Duration::from_millis(300))]);
    world.publish_all(&vec![charge.clone(); 40]).await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.publish_all(&vec![charge.clone(); 40]).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    world.publish_all(&vec![refund.clone(); 40]).await;
    assert_eq!(world.final_event(&refund).await.field("captured_amount"), "100.00");
    eventually("all copies to be taken", async || {
        let queue = world.bus.queue("commands.http");
        let series = format!(r#"paybus_deliveries_total{{queue="{queue}",kind="commands"}}"#);
        let taken = one.count(&series).await + two.count(&series).await;
        if taken >= 120 { Ok(()) } else { Err(taken) }
    })
    .await;
    world.check_books().await;
    let keys: BTreeSet<String> =
        world.gateway.calls_of(charge.payment).iter().filter_map(|call| call.key.clone()).collect();
    assert_eq!(keys.len(), 2, "one key for each command");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 2, "and one call");
}

#[tokio::test]
async fn of_many_creations_of_one_payment_one_wins() {
    let world = World::new().await;
    let (_one, _two) = (world.worker().await, world.worker().await);
    let first = Command::charge("http", "120.00", "USD");
    let mut creations = vec![first.clone()];
    creations.extend((0..19).map(|_| Command::charge("http", "120.00", "USD").payment(first.payment)));
    world.publish_all(&creations).await;
    let answers = world.final_events(&creations).await;
    let won = answers.iter().filter(|answer| answer.status() == "confirmed").count();
    let rejected = answers.iter().filter(|answer| answer.code() == "already_exists").count();
    assert_eq!((won, rejected), (1, 19), "{:?}", codes(&answers));
    assert_eq!(world.gateway.charges(first.payment).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn a_cancel_ends_what_was_never_sent() {
    let mut world = Setup::new().set("variants.http.retry.delayed", "30s").build().await;
    let _worker = world.worker().await;
    world.gateway.stop().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.publish(&charge).await;
    assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), "unreachable");
    world.operation_state(&charge, "scheduled").await;
    world.gateway.start_again().await;
    let cancelled = world.run(&charge.then("payment.cancel", json!({}))).await;
    assert_eq!(cancelled.status(), "cancelled");
    let answer = world.final_event(&charge).await;
    assert_eq!(answer.code(), "cancelled", "{}", answer.line());
    assert!(world.gateway.charges(charge.payment).is_empty());

    // A cancel does not end what may have been received: it waits for the outcome.
    let sent = Command::charge("http", "120.00", "USD");
    world.gateway.plan_operation(sent.payment, "process", vec![Behaviour::Error500After; 3]);
    world.publish(&sent).await;
    world.operation_state(&sent, "unknown").await;
    let cancel = sent.then("payment.cancel", json!({}));
    world.publish(&cancel).await;
    world.operation_state(&cancel, "waiting").await;
    let synced = world.run(&sent.then("payment.sync", json!({}))).await;
    assert_eq!(synced.kind(), "command.succeeded");
    assert_eq!(world.final_event(&sent).await.status(), "confirmed");
    assert_eq!(world.final_event(&cancel).await.code(), "not_allowed");
    world.check_books().await;
}
