//! Interleavings in which the books once differed from the gateway, or money moved without an event. None of them
//! requires a bug in a gateway: slow look-ups, a lost commit, clocks that differ, an early webhook.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::stripe::{hold, intent_id, pay};
use crate::support::fake_stripe::{FakeStripe, Fault};
use crate::support::webhook::Webhook;
use crate::support::world::amount;
use crate::support::{Behaviour, Command, Event, Expected, Setup, Worker, World, eventually};

const SECRET: &str = "whsec_paybus";

/// A Stripe, a world with a variant for it and its webhooks, and a worker.
async fn started() -> (FakeStripe, World, Worker) {
    let stripe = FakeStripe::start();
    let setup = Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_51paybus")
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.webhook_secret", SECRET)
        .set("variants.stripe.timeout", "8s")
        .set("variants.stripe.settle_window", "300ms");
    let world = setup.build().await;
    let worker = world.worker().await;
    (stripe, world, worker)
}

async fn captured(world: &World, command: &Command) -> String {
    amount(&world.payment_row(command.payment).await, "captured_amount", 2)
}

fn process(charge: &Command, token: &str) -> Command {
    charge.then("payment.process", json!({"process": {"payment_method": token}}))
}

/// A sync to which Stripe answers only when notified, with the state from before.
async fn slow_sync(stripe: &FakeStripe, world: &World, charge: &Command) -> (Command, Arc<Notify>) {
    let go_on = Arc::new(Notify::new());
    let asked = stripe.calls_of("retrieve").len();
    stripe.plan("retrieve", vec![Fault::Until(Arc::clone(&go_on))]);
    let sync = charge.then("payment.sync", json!({}));
    world.publish(&sync).await;
    stripe.wait_for_calls("retrieve", asked + 1).await;
    (sync, go_on)
}

/// A look-up of a declined process is answered after another process has paid: the money belongs to the other one.
#[tokio::test]
async fn a_slow_look_up_of_a_declined_process_does_not_count_the_next_ones_money() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa_chargeDeclined");
    assert_eq!(world.run(&charge).await.status(), "rejected");
    let refuse = Arc::new(Notify::new());
    stripe.plan("confirm", vec![Fault::Until(Arc::clone(&refuse))]);
    let declined = process(&charge, "pm_card_visa_chargeDeclined");
    world.publish(&declined).await;
    stripe.wait_for_calls("confirm", 1).await;
    // Its look-up hangs while its own answer arrives.
    let (sync, go_on) = slow_sync(&stripe, &world, &charge).await;
    refuse.notify_one();
    world.final_event(&declined).await;
    let paid = world.run(&process(&charge, "pm_card_visa")).await;
    assert_eq!((paid.status(), paid.field("captured_amount")), ("confirmed", "120.00"));
    go_on.notify_one();
    world.final_event(&sync).await;
    assert_eq!(captured(&world, &charge).await, "120.00");
    assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1);
    world.check_books().await;
}

/// The same with captures.
#[tokio::test]
async fn a_slow_look_up_of_a_refused_capture_does_not_count_the_next_ones_money() {
    let (stripe, world, _worker) = started().await;
    let held = hold("pm_card_visa");
    assert_eq!(world.run(&held).await.status(), "preauth");
    let refuse = Arc::new(Notify::new());
    stripe.plan("capture", vec![Fault::RefuseAfter(Arc::clone(&refuse))]);
    let refused = held.then("payment.capture", json!({"amount": "100.00"}));
    world.publish(&refused).await;
    stripe.wait_for_calls("capture", 1).await;
    let (sync, go_on) = slow_sync(&stripe, &world, &held).await;
    refuse.notify_one();
    assert_eq!(world.final_event(&refused).await.kind(), "command.failed");
    let taken = world.run(&held.then("payment.capture", json!({"amount": "60.00"}))).await;
    assert_eq!((taken.status(), taken.field("captured_amount")), ("confirmed", "60.00"));
    go_on.notify_one();
    world.final_event(&sync).await;
    assert_eq!(captured(&world, &held).await, "60.00");
    world.check_books().await;
}

/// If the clocks differ, a list may miss a new object: not finding it proves nothing, and no second key is used. What
/// is not indexed yet is not found by search either.
#[tokio::test]
async fn absence_is_no_proof_while_the_clocks_differ() {
    let (stripe, world, worker) = started().await;
    stripe.set_clock_ahead(-3 * 3_600);
    stripe.stop_indexing();
    stripe.plan("create", vec![Fault::Stored500 { acts: true }]);
    let charge = pay("pm_card_visa");
    world.publish(&charge).await;
    world.operation_state(&charge, "unknown").await;
    // paybus looks for it repeatedly and does not find it.
    eventually("some look-ups", async || {
        let lists = stripe.calls_of("list").len();
        if lists >= 4 { Ok(()) } else { Err(format!("{lists} lists")) }
    })
    .await;
    assert_eq!(stripe.calls_of("create").len(), 1, "it was charged once more under another key");
    let ahead = worker.metric(r#"paybus_gateway_clock_ahead_seconds{variant="stripe"}"#).await;
    assert!((-10_810.0..-10_790.0).contains(&ahead), "{ahead}");
    // The clock is corrected, and an operator finds what was dated before.
    stripe.set_clock_ahead(0);
    let id = intent_id(&stripe, &charge);
    let evidence = json!({"operation": charge.operation_id(), "outcome": "approved", "transaction_id": id,
                          "evidence": "the dashboard"});
    world.run(&charge.then("payment.resolve", evidence).user(&world.bus.user())).await;
    assert_eq!(captured(&world, &charge).await, "120.00");
    world.check_books().await;
}

/// A webhook about a payment intent that paybus does not know, with our payment in its metadata.
#[tokio::test]
async fn a_second_charge_is_booked_reported_and_refundable_by_its_reference() {
    let (stripe, world, worker) = started().await;
    let charge = pay("pm_card_visa");
    world.run(&charge).await;
    let first = intent_id(&stripe, &charge);
    let second = stripe.charge_by_hand(&charge.subject(), 12_000);
    let (signature, body) = stripe.signed_event(&second, SECRET);
    let (variant, signature) = ("stripe".to_owned(), Some(signature));
    let webhook = Webhook { variant, body, signature, header: "Stripe-Signature" };
    assert_eq!(webhook.post(&worker).await.0, 200);
    let event = world.event("the second charge", |event| event.field("captured_amount") == "240.00").await;
    assert_eq!((event.kind(), event.code()), ("payment.updated", "double_charge"));
    assert_eq!(worker.count(r#"paybus_alerts_total{variant="stripe",kind="double_charge"}"#).await, 1);
    // A second sync reports nothing new.
    let again = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!(again.kind(), "command.succeeded", "{}", again.line());
    let wrong = world.run(&charge.then("payment.refund", json!({"reference": "pi_other"}))).await;
    assert_eq!((wrong.kind(), wrong.code()), ("command.rejected", "invalid_data"));
    let data = json!({"amount": "120.00", "reference": second});
    let refunded = world.run(&charge.then("payment.refund", data)).await;
    assert_eq!((refunded.status(), refunded.field("captured_amount")), ("confirmed", "120.00"));
    assert_eq!((stripe.refunds_of(&first).len(), stripe.refunds_of(&second).len()), (0, 1));
    world.check_books_but(Expected { off_ledger: vec![charge.payment], ..Expected::default() }).await;
}

/// The database fails over to a standby without the operation while its gateway is being called. The gateway then
/// answers, or does not: then the next attempt finds no operation to be stored with.
#[tokio::test]
async fn what_the_database_lost_during_the_call_begins_again_under_the_same_key() {
    let go_on = Arc::new(Notify::new());
    for behaviour in [Behaviour::Until(Arc::clone(&go_on)), Behaviour::HangAfter] {
        begins_again_under_the_same_key(behaviour, &go_on).await;
    }
}

async fn begins_again_under_the_same_key(behaviour: Behaviour, go_on: &Notify) {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![behaviour]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    world.event_of(&charge, "payment.created").await;
    for table in ["operations", "payments", "movements"] {
        let key = if table == "payments" { "id" } else { "payment_id" };
        world.query(&format!("DELETE FROM {table} WHERE {key} = $1"), &[&charge.payment]).await;
    }
    world.query("DELETE FROM events WHERE payment_id = $1", &[&charge.payment]).await;
    go_on.notify_one();
    let paid = world.final_event(&charge).await;
    assert_eq!((paid.status(), paid.field("captured_amount")), ("confirmed", "120.00"));
    let calls = world.gateway.calls_of(charge.payment);
    assert!(calls.len() >= 2 && calls.iter().all(|call| call.key == calls[0].key), "{calls:?}");
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    assert_eq!(worker.count(r#"paybus_operations_gone_total{variant="http"}"#).await, 1);
    let log = worker.log();
    for known in [charge.subject(), calls[0].key.clone().unwrap(), "120.00".to_owned()] {
        assert!(log.contains(&known), "the log must name {known}");
    }
}

/// A sync asks the gateway, a refund settles, and only then the sync's answer arrives.
#[tokio::test]
async fn what_was_asked_before_a_change_takes_nothing_of_it_away() {
    let world = Setup::new().set("variants.http.settle_window", "0s").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "100.00", "USD");
    world.run(&charge).await;
    let go_on = Arc::new(Notify::new());
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::Until(Arc::clone(&go_on))]);
    let sync = charge.then("payment.sync", json!({}));
    world.publish(&sync).await;
    world.gateway.wait_for_calls(charge.payment, 2).await;
    assert_eq!(
        world.run(&charge.then("payment.refund", json!({"amount": "50.00"}))).await.field("refunded_amount"),
        "50.00"
    );
    go_on.notify_one();
    assert_eq!(world.final_event(&sync).await.kind(), "command.succeeded");
    assert_eq!(captured(&world, &charge).await, "50.00");
    world.check_books().await;
}

/// A look-up finds that a process was paid while its cancel is in progress, and then the gateway approves the cancel.
#[tokio::test]
async fn a_cancel_that_is_approved_over_money_is_asked_about() {
    for voids in [true, false] {
        let world = Setup::new().set("variants.http.settle_window", "300ms").build().await;
        let _worker = world.worker().await;
        let charge = Command::charge("http", "100.00", "USD");
        world.gateway.plan(charge.payment, vec![Behaviour::Pending]);
        world.publish(&charge).await;
        world.operation_state(&charge, "pending").await;
        let go_on = Arc::new(Notify::new());
        let approves = Behaviour::SayWhenNotified(Arc::clone(&go_on), json!({"result": "approved"}));
        world.gateway.plan_operation(charge.payment, "cancel", vec![approves]);
        world.gateway.approve_cancels(voids);
        let cancel = charge.then("payment.cancel", json!({}));
        world.publish(&cancel).await;
        eventually("the cancel at the gateway", async || {
            let calls = world.gateway.calls_of(charge.payment);
            if calls.iter().any(|call| call.operation == "cancel") { Ok(()) } else { Err("no call".to_owned()) }
        })
        .await;
        world.gateway.complete(charge.payment, true);
        world.publish(&charge.then("payment.sync", json!({}))).await;
        assert_eq!(world.final_event(&charge).await.status(), "confirmed");
        go_on.notify_one();
        let delayed = world.event_of(&cancel, "command.delayed").await;
        assert_eq!(delayed.reason(), "mismatch");
        if voids {
            let answer = world.final_event(&cancel).await;
            assert_eq!((answer.status(), answer.field("captured_amount")), ("cancelled", "0.00"));
        } else {
            world.operation_state(&cancel, "unknown").await;
            assert_eq!(captured(&world, &charge).await, "100.00", "the last answer is not believed");
        }
    }
}

/// The customer pays, the webhook arrives immediately, and the look-up knows about it only later.
#[tokio::test]
async fn a_webhook_without_news_is_asked_about_again() {
    let setup = Setup::new().set("variants.http.settle_window", "1s").set("variants.http.webhook_secret", SECRET);
    let world = setup.build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Redirect("https://3ds.example/1".to_owned())]);
    assert_eq!(world.run(&charge).await.status(), "input");
    world.gateway.complete(charge.payment, true);
    let lags = json!({"result": "pending", "redirect_url": "https://3ds.example/1", "captured_amount": null,
                      "refunded_amount": null, "amount": null});
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::Say(lags)]);
    let news = json!({"id": "n-1", "payment_id": charge.payment, "operation_id": charge.operation_id()});
    assert_eq!(Webhook::signed("http", SECRET, &news).post(&worker).await.0, 200);
    let paid = world.event("the payment", |event| event.status() == "confirmed").await;
    assert_eq!(paid.field("captured_amount"), "120.00");
    world.check_books().await;
}

/// An operation is approved under one reference, and its look-up reports another: two charges.
#[tokio::test]
async fn one_operation_under_two_references_is_two_charges() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let (answers, finds) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    world.gateway.plan_operation(charge.payment, "process", vec![Behaviour::Until(Arc::clone(&answers))]);
    let other = json!({"result": "approved", "amount": "120.00", "currency": "USD", "transaction_id": "tx-A"});
    world.gateway.plan_operation(charge.payment, "status", vec![Behaviour::SayWhenNotified(Arc::clone(&finds), other)]);
    world.publish(&charge).await;
    world.gateway.wait_for_calls(charge.payment, 1).await;
    let sync = charge.then("payment.sync", json!({}));
    world.publish(&sync).await;
    world.gateway.wait_for_calls(charge.payment, 2).await;
    answers.notify_one();
    assert_eq!(world.final_event(&charge).await.field("captured_amount"), "120.00");
    finds.notify_one();
    let is_double = |event: &Event| event.code() == "double_charge";
    let event = world.event("the second charge", is_double).await;
    assert_eq!((event.kind(), event.field("captured_amount")), ("payment.updated", "240.00"));
    assert_eq!(event.field("transaction_id"), format!("fake-{}", charge.operation_id()), "still the first charge's");
    assert_eq!(worker.count(r#"paybus_alerts_total{variant="http",kind="double_charge"}"#).await, 1);
    world.gateway.move_by_hand(charge.payment, "charge", "120.00", "USD");
    let refund = charge.then("payment.refund", json!({"amount": "120.00", "reference": "tx-A"}));
    assert_eq!(world.run(&refund).await.field("captured_amount"), "120.00");
    let calls = world.gateway.calls_of(charge.payment);
    let sent: Value =
        serde_json::from_slice(&calls.iter().rfind(|call| call.operation == "refund").unwrap().body).unwrap();
    assert_eq!(sent["parent"], "tx-A");
    world.check_books().await;
}
