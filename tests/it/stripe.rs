//! Stripe, from a command on the bus to its event, against a Stripe in memory.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::fake_stripe::FakeStripe;
use crate::support::{Command, Event, Setup, World};

/// A world with a variant `stripe`.
async fn world(stripe: &FakeStripe) -> World {
    setup(stripe).build().await
}

fn setup(stripe: &FakeStripe) -> Setup {
    Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_51paybus")
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.timeout", "2s")
        .set("variants.stripe.settle_window", "300ms")
}

/// A payment of 120.00 USD with a token.
fn pay(token: &str) -> Command {
    Command::charge("stripe", "120.00", "USD").with("process", json!({"payment_method": token}))
}

/// One that only holds the money.
fn hold(token: &str) -> Command {
    pay(token).with("capture", json!(false))
}

/// The one payment intent of a payment.
fn intent(stripe: &FakeStripe, command: &Command) -> Value {
    let intents = stripe.intents_of(&command.payment.to_string());
    assert_eq!(intents.len(), 1, "one payment, one payment intent: {intents:?}");
    intents.into_iter().next().unwrap()
}

fn intent_id(stripe: &FakeStripe, command: &Command) -> String {
    intent(stripe, command)["id"].as_str().unwrap().to_owned()
}

fn extra(event: &Event) -> &Value {
    &event.data()["payment"]["extra_data"]
}

#[tokio::test]
async fn a_charge_is_taken_and_given_back_in_parts() {
    let stripe = FakeStripe::start();
    let world = world(&stripe).await;
    let _worker = world.worker().await;
    let charge = pay("pm_card_visa");
    let paid = world.run(&charge).await;
    assert_eq!((paid.status(), paid.field("captured_amount")), ("confirmed", "120.00"));
    let id = intent_id(&stripe, &charge);
    assert_eq!(paid.field("transaction_id"), id);
    assert_eq!(extra(&paid)["card"]["last4"], "4242");
    for (amount, left) in [(json!({"amount": "20.00"}), "100.00"), (json!({"amount": "30.50"}), "69.50")] {
        let refunded = world.run(&charge.then("payment.refund", amount)).await;
        assert_eq!(refunded.field("captured_amount"), left);
    }
    assert_eq!(world.run(&charge.then("payment.refund", json!({}))).await.status(), "refunded");
    let refunds: Vec<Value> = stripe.refunds_of(&id).iter().map(|refund| refund["amount"].clone()).collect();
    assert_eq!(refunds, [2_000, 3_050, 6_950]);
    world.check_books().await;
}

#[tokio::test]
async fn held_money_is_taken_in_part_released_or_all_taken() {
    let stripe = FakeStripe::start();
    let world = world(&stripe).await;
    let _worker = world.worker().await;
    let (part, released, all) = (hold("pm_card_visa"), hold("pm_card_visa"), hold("pm_card_visa"));
    for command in [&part, &released, &all] {
        let held = world.run(command).await;
        assert_eq!((held.status(), held.field("authorized_amount")), ("preauth", "120.00"));
        assert_eq!(intent(&stripe, command)["status"], "requires_capture");
    }
    let taken = world.run(&part.then("payment.capture", json!({"amount": "70.00"}))).await;
    assert_eq!((taken.status(), taken.field("captured_amount")), ("confirmed", "70.00"));
    assert_eq!(intent(&stripe, &part)["amount_received"], 7_000);
    assert_eq!(world.run(&all.then("payment.capture", json!({}))).await.field("captured_amount"), "120.00");
    assert_eq!(world.run(&released.then("payment.release", json!({}))).await.status(), "refunded");
    assert_eq!(intent(&stripe, &released)["status"], "canceled");
    world.check_books().await;
}

#[tokio::test]
async fn what_was_never_begun_is_cancelled_without_a_request() {
    let stripe = FakeStripe::start();
    let world = world(&stripe).await;
    let _worker = world.worker().await;
    let create = Command::create("stripe", "120.00", "USD");
    world.run(&create).await;
    assert_eq!(world.run(&create.then("payment.cancel", json!({}))).await.status(), "cancelled");
    assert!(stripe.calls().is_empty());
    world.check_books().await;
}

#[tokio::test]
async fn our_ids_stand_at_stripe_and_each_request_has_its_own_key() {
    let stripe = FakeStripe::start();
    let world = setup(&stripe).set("variants.stripe.statement_descriptor_suffix", "SHOP").build().await;
    let _worker = world.worker().await;
    let charge = pay("pm_card_visa");
    world.run(&charge).await;
    let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
    world.run(&refund).await;
    let intent = intent(&stripe, &charge);
    assert_eq!(intent["metadata"]["paybus_operation"], charge.operation_id().to_string());
    assert_eq!(intent["statement_descriptor_suffix"], "SHOP");
    let refunds = stripe.refunds_of(intent["id"].as_str().unwrap());
    assert_eq!(refunds[0]["metadata"]["paybus_operation"], refund.operation_id().to_string());
    assert_eq!(refunds[0]["metadata"]["paybus_payment"], charge.payment.to_string());
    let keys: BTreeSet<_> = stripe.calls().into_iter().map(|call| call.key.unwrap()).collect();
    assert_eq!(keys.len(), 2);
    let version = |call: crate::support::fake_stripe::Call| call.headers["stripe-version"].clone();
    assert!(stripe.calls().into_iter().map(version).all(|version| version == "2023-08-16"));
    world.check_books().await;
}
