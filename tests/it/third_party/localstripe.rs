//! Payments from command to event at localstripe, an independent imitation of Stripe. It keeps no idempotency keys and
//! has no decline codes; it checks the course of payment intents and refunds, one step after the other.

use serde_json::{Value, json};

use super::{Server, installed};
use crate::stripe::pay;
use crate::support::{Setup, World};

/// A world with a variant `stripe` at localstripe, if that is installed.
async fn world() -> Option<(Server, World)> {
    let python = installed("python", "bin/python")?;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/third_party/localstripe_server.py");
    let server = Server::start(&python, |port| vec![script.to_owned(), port.to_string()]).await;
    let setup = Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_localstripe")
        .set("variants.stripe.api_base", &server.url)
        .set("variants.stripe.timeout", "5s")
        .set("variants.stripe.settle_window", "0s");
    let world = setup.build().await;
    Some((server, world))
}

/// What localstripe has under a path.
async fn at(server: &Server, path: &str) -> Value {
    let client = reqwest::Client::new();
    let request = client.get(format!("{}/v1/{path}", server.url)).bearer_auth("sk_test_localstripe");
    let text = request.send().await.expect("an answer").text().await.expect("a body");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn payments_go_at_somebody_elses_stripe_as_at_ours() {
    let Some((server, world)) = world().await else { return };
    let _worker = world.worker().await;
    let charge = pay("pm_card_visa");
    let paid = world.run(&charge).await;
    assert_eq!((paid.status(), paid.field("captured_amount")), ("confirmed", "120.00"), "{}", paid.line());
    let intent = at(&server, &format!("payment_intents/{}", paid.field("transaction_id"))).await;
    assert_eq!((&intent["amount"], &intent["status"]), (&json!(12_000), &json!("succeeded")));
    assert_eq!(intent["metadata"]["paybus_payment"], charge.subject());
    for (amount, left) in [("20.00", "100.00"), ("30.50", "69.50")] {
        let answer = world.run(&charge.then("payment.refund", json!({"amount": amount}))).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", left), "{}", answer.line());
    }
    assert_eq!(world.run(&charge.then("payment.sync", json!({}))).await.kind(), "command.succeeded");
    let answer = world.run(&charge.then("payment.refund", json!({}))).await;
    assert_eq!((answer.status(), answer.field("refunded_amount")), ("refunded", "120.00"), "{}", answer.line());
    let refunds = at(&server, &format!("refunds?payment_intent={}", paid.field("transaction_id"))).await;
    assert_eq!(refunds["data"].as_array().map(Vec::len), Some(3), "{refunds}");

    let held = pay("pm_card_visa").with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    let answer = world.run(&held.then("payment.release", json!({}))).await;
    assert_eq!(answer.status(), "refunded", "{}", answer.line());
    let declined = world.run(&pay("pm_card_chargeCustomerFail")).await;
    assert_eq!((declined.code(), declined.field("captured_amount")), ("declined", "0.00"), "{}", declined.line());
    world.check_books().await;
}

/// As at Stripe, the part that was not captured is listed among the refunds: no money was refunded.
#[tokio::test]
async fn a_captured_part_stays_a_part_at_somebody_elses_stripe() {
    let Some((_server, world)) = world().await else { return };
    let _worker = world.worker().await;
    let held = pay("pm_card_visa").with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    let answer = world.run(&held.then("payment.capture", json!({"amount": "45.50"}))).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "45.50"), "{}", answer.line());
    world.run(&held.then("payment.refund", json!({"amount": "5.50"}))).await;
    let answer = world.run(&held.then("payment.sync", json!({}))).await;
    assert_eq!(
        (answer.field("captured_amount"), answer.field("refunded_amount")),
        ("40.00", "5.50"),
        "{}",
        answer.line()
    );
    world.check_books().await;
}
