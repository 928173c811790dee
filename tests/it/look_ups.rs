//! What the gateway knows and paybus does not yet know: `payment.sync`, notifications, and unusual answers.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::support::world::amount;
use crate::support::{Behaviour, Command, Event, Setup, World, eventually};

#[tokio::test]
async fn a_sync_takes_in_what_was_done_at_the_gateway() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    let sync = async || world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!(sync().await.kind(), "command.succeeded", "there is nothing new");

    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    let answer = sync().await;
    assert_eq!((answer.kind(), answer.status()), ("payment.updated", "confirmed"));
    assert_eq!((answer.field("captured_amount"), answer.field("refunded_amount")), ("100.00", "20.00"));
    assert_eq!(sync().await.kind(), "command.succeeded", "the same answer counts once");

    world.gateway.move_by_hand(charge.payment, "refund", "100.00", "USD");
    let beyond = world.run(&charge.then("payment.refund", json!({"amount": "0.01"}))).await;
    assert_eq!(beyond.kind(), "command.failed", "paybus cannot know that nothing is left: {}", beyond.line());
    let answer = sync().await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("refunded", "0.00"));
    world.check_books().await;
}

#[tokio::test]
async fn a_sync_learns_that_a_refund_failed_later_and_that_an_authorization_is_gone() {
    let world = Setup::new().set("variants.http.settle_window", "0s").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    assert_eq!(world.run(&charge.then("payment.refund", json!({}))).await.status(), "refunded");
    world.gateway.move_by_hand(charge.payment, "refund", "-120.00", "USD");
    for kind in ["payment.status_changed", "command.succeeded"] {
        let answer = world.run(&charge.then("payment.sync", json!({}))).await;
        assert_eq!((answer.kind(), answer.status()), (kind, "confirmed"));
        assert_eq!((answer.field("captured_amount"), answer.field("refunded_amount")), ("120.00", "0.00"));
    }
    assert_eq!(world.run(&charge.then("payment.refund", json!({}))).await.status(), "refunded");

    let held = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    let declined = Behaviour::Say(json!({"result": "declined"}));
    world.gateway.plan_operation(held.payment, "status", vec![declined.clone(), declined]);
    assert_eq!(world.run(&held.then("payment.sync", json!({}))).await.status(), "refunded");
    assert_eq!(world.run(&held.then("payment.sync", json!({}))).await.kind(), "command.succeeded");
    world.check_books().await;
}

#[tokio::test]
async fn a_sync_brings_a_payment_back_that_was_thought_to_be_lost() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let declined = Command::charge("http", "120.00", "USD");
    world.gateway.plan(declined.payment, vec![Behaviour::Decline("no".to_owned())]);
    assert_eq!(world.run(&declined).await.status(), "rejected");
    world.gateway.move_by_hand(declined.payment, "charge", "120.00", "USD");
    world.gateway.plan_operation(
        declined.payment,
        "status",
        vec![Behaviour::Say(json!({"result": "approved", "captured_amount": "120.00", "refunded_amount": "0.00"}))],
    );
    let answer = world.run(&declined.then("payment.sync", json!({}))).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"));
    world.check_books().await;
}

#[tokio::test]
async fn what_the_gateway_says_of_an_operation_counts_although_a_person_settled_it_meanwhile() {
    // No keys, so that nothing is sent again, and no automatic look-up before the test ends.
    let keyless = Setup::new().set("variants.http.key_window", "0s").set("variants.http.retry.delayed", "1h");
    let world = keyless.build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::DropAfter]);
    world.publish(&charge).await;
    world.operation_state(&charge, "unknown").await;

    let go_on = Arc::new(Notify::new());
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::Until(Arc::clone(&go_on))]);
    let sync = charge.then("payment.sync", json!({}));
    world.publish(&sync).await;
    world.gateway.wait_for_calls(charge.payment, 2).await;
    let data = json!({"operation": charge.operation_id().to_string(), "outcome": "not_charged", "evidence": "a guess"});
    world.run(&charge.then("payment.resolve", data).user(&world.bus.user())).await;
    assert_eq!(world.final_event(&charge).await.status(), "error");
    go_on.notify_one();

    world.final_event(&sync).await;
    let changes_status =
        |event: &Event| event.subject() == charge.subject() && event.kind() == "payment.status_changed";
    let confirmed = world.event("the proof", |event| changes_status(event) && event.status() == "confirmed").await;
    assert_eq!(confirmed.field("captured_amount"), "120.00");
    world.check_books().await;
}

/// An answer counts for all commands that arrived before its question was sent.
#[tokio::test]
async fn many_syncs_of_a_payment_at_once_are_few_look_ups_and_all_get_the_result() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.run(&charge).await;
    world.gateway.move_by_hand(charge.payment, "refund", "20.00", "USD");
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::Late(Duration::from_millis(200)); 100]);
    let syncs: Vec<Command> = (0..100).map(|_| charge.then("payment.sync", json!({}))).collect();
    world.publish_all(&syncs).await;
    let answers = world.final_events(&syncs).await;
    assert!(answers.iter().all(|answer| answer.field("refunded_amount") == "20.00"));
    assert_eq!(answers.iter().filter(|answer| answer.kind() == "payment.updated").count(), 1, "it is reported once");
    let questions = world.gateway.calls_of(charge.payment).iter().filter(|call| call.operation == "status").count();
    assert!(questions <= 75, "{questions} look-ups: none was shared");
    world.check_books().await;
}

#[tokio::test]
async fn a_gateway_without_notifications_says_so() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in ["default", "http"] {
        let charge = Command::charge(variant, "5.00", "USD");
        world.run(&charge).await;
        let data = json!({"received_at": "2026-11-22T12:00:00Z", "method": "POST", "url": "/hook", "headers": [],
                          "body_base64": "e30="});
        let answer = world.run(&charge.then("payment.notification", data.clone())).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unsupported"), "{}", answer.line());
        // The result is the same if it names no payment.
        let nameless = charge.then("payment.notification", data).attribute("subject", Value::Null);
        let answer = world.run(&nameless).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "unsupported"), "{}", answer.line());
    }
    world.check_books().await;
}

#[tokio::test]
async fn what_somebody_must_look_at_is_counted_and_logged() {
    let world = Setup::new().http_variant("blind").set("variants.blind.lookup", "false").build().await;
    let worker = world.worker().await;
    let alerts = async |variant: &str, kind: &str| {
        worker.count(&format!(r#"paybus_alerts_total{{variant="{variant}",kind="{kind}"}}"#)).await
    };
    // What is pending at a gateway that cannot be asked stays pending until an operator states the outcome.
    let pending = Command::charge("blind", "10.00", "USD");
    world.gateway.plan(pending.payment, vec![Behaviour::Pending]);
    world.publish(&pending).await;
    world.operation_state(&pending, "pending").await;
    eventually("the figure", async || {
        let escalated = worker.count(r#"paybus_operations_escalated{variant="blind",currency="USD"}"#).await;
        let unknown = worker.count(r#"paybus_operations_unknown{variant="blind",currency="USD"}"#).await;
        if (escalated, unknown) == (1, 0) { Ok(()) } else { Err(format!("{escalated} escalated, {unknown} unknown")) }
    })
    .await;
    assert_eq!(alerts("blind", "escalated").await, 1);
    assert!(worker.log().contains(&pending.operation_id().to_string()), "the log names the operation");
    world.gateway.complete(pending.payment, true);
    let data = json!({"operation": pending.operation_id(), "outcome": "approved", "evidence": "the gateway's portal"});
    world.run(&pending.then("payment.resolve", data).user(&world.bus.user())).await;

    // Money that is there although the payment was cancelled, and money that is missing although paybus has booked it.
    let cancelled = Command::create("http", "120.00", "USD");
    world.run(&cancelled).await;
    assert_eq!(world.run(&cancelled.then("payment.cancel", json!({}))).await.status(), "cancelled");
    world.gateway.move_by_hand(cancelled.payment, "charge", "120.00", "USD");
    let sums = json!({"result": "approved", "captured_amount": "120.00", "refunded_amount": "0.00"});
    let nothing = json!({"result": "not_found", "captured_amount": null, "refunded_amount": null});
    // paybus asks once more after the settle window.
    let says = vec![Behaviour::Say(sums), Behaviour::Say(nothing.clone()), Behaviour::Say(nothing)];
    world.gateway.plan_operation(cancelled.payment, "status", says);
    assert_eq!(world.run(&cancelled.then("payment.sync", json!({}))).await.status(), "confirmed");
    assert_eq!((alerts("http", "money_after_cancel").await, alerts("http", "discrepancy").await), (1, 0));
    let denied = world.run(&cancelled.then("payment.sync", json!({}))).await;
    assert_eq!((denied.kind(), denied.code()), ("command.failed", "mismatch"));
    assert_eq!(alerts("http", "discrepancy").await, 1);
    world.check_books().await;
}

#[tokio::test]
async fn no_answer_of_a_gateway_is_too_odd_to_be_stored() {
    let world = World::new().await;
    let worker = world.worker().await;
    let odd = [
        json!({"message": "a\u{0}b", "extra_data": {"k\u{0}": "v\u{0}"}}),
        json!({"message": "x".repeat(200_000), "code": "y".repeat(5_000)}),
        json!({"transaction_id": "z".repeat(255)}),
        json!({"extra_data": {"big": "x".repeat(500_000)}}),
        json!({"extra_data": {"number": 1e300, "nested": [[[[[[[[[[1]]]]]]]]]]}, "fraud_message": "\u{202e}\u{1f4a9}"}),
        json!({"surprise": {"nobody": "knows"}, "redirect_url": "https://elsewhere.example"}),
    ];
    for members in odd {
        let charge = Command::charge("http", "120.00", "USD");
        world.gateway.plan(charge.payment, vec![Behaviour::Say(members)]);
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"));
        assert!(answer.body.to_string().len() < 64 * 1024, "every event fits");
        assert_eq!(amount(&world.payment_row(charge.payment).await, "captured_amount", 2), "120.00");
    }
    assert!(!worker.log().contains("panicked"));
    world.check_books().await;
}
