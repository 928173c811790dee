//! Stripe, from a command on the bus to its event, against an in-memory Stripe.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::fake_stripe::{FakeStripe, Fault};
use crate::support::{Command, Event, Expected, Setup, Worker, WorkerSetup, World};

/// A world with a variant `stripe`.
async fn world(stripe: &FakeStripe) -> World {
    setup(stripe).build().await
}

/// A Stripe, a world with a variant for it, and a worker.
pub async fn started() -> (FakeStripe, World, Worker) {
    let stripe = FakeStripe::start();
    let world = world(&stripe).await;
    let worker = world.worker().await;
    (stripe, world, worker)
}

pub fn setup(stripe: &FakeStripe) -> Setup {
    Setup::new()
        .set("variants.stripe.gateway", "stripe")
        .set("variants.stripe.secret_key", "sk_test_51paybus")
        .set("variants.stripe.api_base", &stripe.url())
        .set("variants.stripe.timeout", "2s")
        .set("variants.stripe.settle_window", "300ms")
}

/// A payment of 120.00 USD with a token.
pub fn pay(token: &str) -> Command {
    Command::charge("stripe", "120.00", "USD").with("process", json!({"payment_method": token}))
}

/// A payment that only authorizes.
pub fn hold(token: &str) -> Command {
    pay(token).with("capture", json!(false))
}

/// A payment whose customer is redirected to authenticate, with a `return_url`.
pub fn redirected(token: &str) -> Command {
    let process = json!({"payment_method": token, "return_url": "https://shop.example/back"});
    pay(token).with("process", process)
}

/// The one payment intent of a payment.
pub fn intent(stripe: &FakeStripe, command: &Command) -> Value {
    let intents = stripe.intents_of(&command.payment.to_string());
    assert_eq!(intents.len(), 1, "one payment, one payment intent: {intents:?}");
    intents.into_iter().next().unwrap()
}

pub fn intent_id(stripe: &FakeStripe, command: &Command) -> String {
    intent(stripe, command)["id"].as_str().unwrap().to_owned()
}

pub fn extra(event: &Event) -> &Value {
    &event.data()["payment"]["extra_data"]
}

#[tokio::test]
async fn a_charge_is_taken_and_given_back_in_parts() {
    let (stripe, world, _worker) = started().await;
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
    let (stripe, world, _worker) = started().await;
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
    let (stripe, world, _worker) = started().await;
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

#[tokio::test]
async fn every_kind_of_decline_says_what_helps() {
    let (stripe, world, _worker) = started().await;
    for (token, code, retry, shown) in [
        ("pm_card_visa_chargeDeclined", "generic_decline", "later", "generic_decline"),
        ("pm_card_chargeCustomerFail", "generic_decline", "later", "generic_decline"),
        ("pm_card_visa_chargeDeclinedInsufficientFunds", "insufficient_funds", "later", "insufficient_funds"),
        (
            "pm_card_visa_chargeDeclinedVelocityLimitExceeded",
            "card_velocity_exceeded",
            "later",
            "card_velocity_exceeded",
        ),
        ("pm_card_chargeDeclinedProcessingError", "processing_error", "soon", "processing_error"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card", "customer", "expired_card"),
        ("pm_card_chargeDeclinedIncorrectCvc", "incorrect_cvc", "customer", "incorrect_cvc"),
        ("pm_card_visa_chargeDeclinedLostCard", "lost_card", "never", "generic_decline"),
        ("pm_card_visa_chargeDeclinedStolenCard", "stolen_card", "never", "generic_decline"),
    ] {
        let charge = pay(token);
        let declined = world.run(&charge).await;
        assert_eq!((declined.status(), declined.code()), ("rejected", "declined"), "{token}");
        let decline = &extra(&declined)["decline"];
        assert_eq!((decline["code"].as_str(), decline["retry"].as_str()), (Some(code), Some(retry)), "{token}");
        assert_eq!(declined.data()["gateway_code"], shown, "{token}");
        assert!(declined.message().starts_with("Your card") || declined.message().starts_with("An error"), "{token}");
        assert_eq!(stripe.calls_of("create").len(), 1, "a decline is final for its key");
        stripe.forget_calls();
    }
    world.check_books().await;
}

#[tokio::test]
async fn after_a_decline_the_same_payment_intent_goes_on() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa_chargeDeclined");
    assert_eq!(world.run(&charge).await.status(), "rejected");
    let process = |token: &str| charge.then("payment.process", json!({"process": {"payment_method": token}}));
    let again = process("pm_card_visa_chargeDeclinedInsufficientFunds");
    assert_eq!(world.run(&again).await.code(), "declined");
    let event = world.event_of(&again, "payment.updated").await;
    assert_eq!(extra(&event)["decline"]["code"], "insufficient_funds");
    let paid = world.run(&process("pm_card_visa")).await;
    assert_eq!((paid.status(), &extra(&paid)["decline"]), ("confirmed", &Value::Null));
    let intent = intent(&stripe, &charge);
    assert_eq!(stripe.charges_of(intent["id"].as_str().unwrap()).len(), 1);
    let keys: BTreeSet<_> = stripe.calls().into_iter().filter_map(|call| call.key).collect();
    assert_eq!(keys.len(), 3, "each attempt has its own key");
    world.check_books().await;
}

#[tokio::test]
async fn a_canceled_payment_intent_gives_way_to_another() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa_chargeDeclined");
    world.run(&charge).await;
    stripe.cancel_by_hand(&intent_id(&stripe, &charge));
    let process = json!({"process": {"payment_method": "pm_card_visa"}});
    let paid = world.run(&charge.then("payment.process", process)).await;
    assert_eq!(paid.status(), "confirmed");
    let intents = stripe.intents_of(&charge.payment.to_string());
    let statuses: Vec<&str> = intents.iter().map(|intent| intent["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["canceled", "succeeded"]);
    assert_eq!(paid.field("transaction_id"), intents[1]["id"]);
    world.check_books().await;
}

#[tokio::test]
async fn what_an_earlier_key_left_behind_is_gone_on_with_after_a_canceled_one_too() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa_chargeDeclined");
    world.run(&charge).await;
    stripe.cancel_by_hand(&intent_id(&stripe, &charge));
    stripe.plan("create", vec![Fault::StoredHalfway]);
    let process = json!({"process": {"payment_method": "pm_card_visa"}});
    assert_eq!(world.run(&charge.then("payment.process", process)).await.status(), "confirmed");
    let intents = stripe.intents_of(&charge.payment.to_string());
    let statuses: Vec<&str> = intents.iter().map(|intent| intent["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["canceled", "succeeded"], "no payment intent that could be confirmed later is left");
    let lists = stripe.calls_of("list");
    assert!(lists.iter().all(|list| !list.query.contains("expand")), "a page with charges may be too large: {lists:?}");
    world.check_books().await;
}

#[tokio::test]
async fn what_was_taken_and_was_to_be_held_is_never_counted_as_held() {
    let (stripe, world, _worker) = started().await;
    let charge = hold("pm_card_visa");
    stripe.plan("create", vec![Fault::Otherwise(json!({"capture_method": "automatic"}))]);
    world.publish(&charge).await;
    assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), "mismatch");
    let sync = charge.then("payment.sync", json!({}));
    world.publish(&sync).await;
    assert_eq!(world.event_of(&sync, "command.delayed").await.reason(), "mismatch");
    assert_eq!(world.payment_row(charge.payment).await.get::<_, String>("status"), "waiting");
    world.check_books_but(Expected { open: 2, ..Expected::default() }).await;
}

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_under_the_same_key() {
    let stripe = FakeStripe::start();
    let world = setup(&stripe).set("variants.stripe.timeout", "400ms").build().await;
    let _worker = world.worker().await;
    for fault in [
        Fault::LoseAnswer,
        Fault::HangAfter,
        Fault::Delay(Duration::from_millis(700)),
        Fault::status(503).header("stripe-should-retry", "true"),
        Fault::error(429, "invalid_request_error", "rate_limit").header("retry-after", "1"),
        Fault::error(429, "invalid_request_error", "lock_timeout"),
        Fault::error(409, "idempotency_error", "idempotency_key_in_use"),
    ] {
        let charge = hold("pm_card_visa");
        stripe.plan("create", vec![fault.clone()]);
        assert_eq!(world.run(&charge).await.status(), "preauth", "{fault:?}");
        stripe.plan("capture", vec![fault.clone()]);
        assert_eq!(world.run(&charge.then("payment.capture", json!({}))).await.status(), "confirmed", "{fault:?}");
        stripe.plan("refund", vec![fault.clone()]);
        let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
        assert_eq!(world.run(&refund).await.field("captured_amount"), "100.00", "{fault:?}");
        let id = intent_id(&stripe, &charge);
        assert_eq!((stripe.charges_of(&id).len(), stripe.refunds_of(&id).len()), (1, 1), "{fault:?}");
        for kind in ["create", "capture", "refund"] {
            let calls = stripe.calls_of(kind);
            let sent: BTreeSet<_> = calls.iter().map(|call| (call.key.clone(), call.body.clone())).collect();
            assert_eq!(sent.len(), 1, "{kind} {fault:?}");
            assert!(calls.len() > 1, "{kind} {fault:?}");
        }
        stripe.forget_calls();
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_server_error_that_is_kept_is_looked_up_and_a_new_key_goes_on() {
    let (stripe, world, _worker) = started().await;
    for (fault, creates) in [
        // Nothing was done, so a new key may do it.
        (Fault::Stored500 { acts: false }, 2),
        // It was done, so nothing more is sent.
        (Fault::Stored500 { acts: true }, 1),
        // Its payment intent was created but not confirmed: paybus continues with that one.
        (Fault::StoredHalfway, 1),
    ] {
        let charge = pay("pm_card_visa");
        stripe.plan("create", vec![fault.clone()]);
        assert_eq!(world.run(&charge).await.status(), "confirmed", "{fault:?}");
        let keys: BTreeSet<_> = stripe.calls_of("create").into_iter().map(|call| call.key).collect();
        assert_eq!(keys.len(), creates, "{fault:?}");
        assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1, "{fault:?}");
        stripe.forget_calls();
    }
    for acts in [false, true] {
        let charge = pay("pm_card_visa");
        world.run(&charge).await;
        stripe.plan("refund", vec![Fault::Stored500 { acts }]);
        let refunded = world.run(&charge.then("payment.refund", json!({"amount": "20.00"}))).await;
        assert_eq!(refunded.field("captured_amount"), "100.00");
        assert_eq!(stripe.refunds_of(&intent_id(&stripe, &charge)).len(), 1, "{acts}");
        let held = hold("pm_card_visa");
        world.run(&held).await;
        stripe.plan("capture", vec![Fault::Stored500 { acts }]);
        assert_eq!(world.run(&held.then("payment.capture", json!({}))).await.status(), "confirmed", "{acts}");
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_confirmation_that_fails_at_stripe_is_distinguished_from_the_one_before() {
    let (stripe, world, _worker) = started().await;
    for acts in [false, true] {
        let charge = pay("pm_card_visa_chargeDeclined");
        world.run(&charge).await;
        stripe.plan("confirm", vec![Fault::Stored500 { acts }]);
        let process = json!({"process": {"payment_method": "pm_card_visa"}});
        assert_eq!(world.run(&charge.then("payment.process", process)).await.status(), "confirmed", "{acts}");
        assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1, "{acts}");
    }
    world.check_books().await;
}

#[tokio::test]
async fn what_stripe_refuses_is_an_error_and_nothing_is_charged() {
    let (stripe, world, _worker) = started().await;
    let unknown = world.run(&pay("pm_of_nobody")).await;
    assert_eq!((unknown.status(), unknown.code()), ("error", "refused"));
    assert!(unknown.message().contains("No such PaymentMethod"), "{}", unknown.message());
    assert_eq!(world.run(&pay("tok_visa")).await.code(), "invalid_data");
    let odd = pay("pm_card_visa").with("process", json!({"payment_method": "pm_card_visa", "amount": 1}));
    assert_eq!(world.run(&odd).await.code(), "unknown_field");
    let parts = Command::charge("stripe", "1.234", "KWD").with("process", json!({"payment_method": "pm_card_visa"}));
    let refused = world.run(&parts).await;
    assert_eq!((refused.kind(), refused.code()), ("command.rejected", "invalid_amount"));
    assert!(refused.message().contains("third decimal"), "{}", refused.message());
    let stored = world.query("SELECT id FROM payments WHERE id = $1", &[&parts.payment]).await;
    assert!(stored.is_empty(), "a request that Stripe cannot express is not stored");
    assert!(stripe.intents_of(&parts.payment.to_string()).is_empty());
    world.check_books().await;
}

#[tokio::test]
async fn amounts_go_out_in_stripes_units() {
    let (stripe, world, _worker) = started().await;
    for (total, currency, units) in
        [("500", "JPY", 500), ("5", "ISK", 500), ("5", "UGX", 500), ("5.120", "KWD", 5_120), ("10.45", "HUF", 1_045)]
    {
        let charge = Command::charge("stripe", total, currency);
        let charge = charge.with("process", json!({"payment_method": "pm_card_visa"}));
        assert_eq!(world.run(&charge).await.field("captured_amount"), total, "{currency}");
        assert_eq!(intent(&stripe, &charge)["amount"], units, "{currency}");
    }
    world.check_books().await;
}

#[tokio::test]
async fn an_answer_that_cannot_be_ours_is_not_applied() {
    let (stripe, world, _worker) = started().await;
    let wrong = [
        json!({"livemode": true}),
        json!({"currency": "eur"}),
        json!({"metadata": {"paybus_payment": "00000000-0000-0000-0000-000000000000"}}),
    ];
    let mut open = Vec::new();
    for members in wrong {
        let charge = pay("pm_card_visa");
        stripe.plan("create", vec![Fault::Say(members.clone())]);
        world.publish(&charge).await;
        let delayed = world.event_of(&charge, "command.delayed").await;
        assert_eq!(delayed.reason(), "mismatch", "{members}");
        assert_eq!(world.payment_row(charge.payment).await.get::<_, String>("status"), "waiting");
        open.push(charge);
    }
    // Asked again, Stripe gives a matching answer.
    for charge in &open {
        world.run(&charge.then("payment.sync", json!({}))).await;
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn radar_and_review_results_are_reported() {
    let (stripe, world, _worker) = started().await;
    for (token, status, fraud) in [
        ("pm_card_visa", "confirmed", "accept"),
        ("pm_card_riskLevelHighest", "confirmed", "accept"),
        ("pm_card_riskLevelElevated", "confirmed", "review"),
        ("pm_card_radarBlock", "rejected", "reject"),
    ] {
        let answer = world.run(&pay(token)).await;
        assert_eq!((answer.status(), answer.field("fraud_status")), (status, fraud), "{token}");
    }
    for (reason, fraud) in [("approved", "accept"), ("refunded_as_fraud", "reject")] {
        let charge = pay("pm_card_riskLevelElevated");
        world.run(&charge).await;
        stripe.close_review(&intent_id(&stripe, &charge), reason);
        let synced = world.run(&charge.then("payment.sync", json!({}))).await;
        assert_eq!(synced.field("fraud_status"), fraud);
        assert_eq!(synced.field("fraud_message"), format!("reviewed: {reason}"));
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_refund_may_be_pending_and_fail() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_pendingRefund");
    world.run(&charge).await;
    let id = intent_id(&stripe, &charge);
    for (ends, captured, kind) in [("failed", "120.00", "command.failed"), ("succeeded", "100.00", "payment.updated")] {
        let refund = charge.then("payment.refund", json!({"amount": "20.00"}));
        world.publish(&refund).await;
        assert_eq!(world.event_of(&refund, "command.delayed").await.reason(), "pending");
        let refunds = stripe.refunds_of(&id);
        stripe.end_refund(refunds.last().unwrap()["id"].as_str().unwrap(), ends);
        world.publish(&charge.then("payment.sync", json!({}))).await;
        assert_eq!(world.final_event(&refund).await.kind(), kind);
        let row = world.payment_row(charge.payment).await;
        assert_eq!(row.get::<_, rust_decimal::Decimal>("captured_amount").to_string(), captured);
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_sync_learns_what_happened_at_stripe() {
    let (stripe, world, _worker) = started().await;
    let sync = async |charge: &Command| world.run(&charge.then("payment.sync", json!({}))).await;
    let refunded = pay("pm_card_visa");
    world.run(&refunded).await;
    stripe.refund_by_hand(&intent_id(&stripe, &refunded), 5_000);
    assert_eq!(sync(&refunded).await.field("captured_amount"), "70.00");
    let given_back = stripe.refunds_of(&intent_id(&stripe, &refunded));
    stripe.end_refund(given_back[0]["id"].as_str().unwrap(), "failed");
    assert_eq!(sync(&refunded).await.field("captured_amount"), "120.00");

    let expired = hold("pm_card_visa");
    world.run(&expired).await;
    stripe.cancel_by_hand(&intent_id(&stripe, &expired));
    assert_eq!(sync(&expired).await.status(), "refunded");

    let untouched = pay("pm_card_visa");
    world.run(&untouched).await;
    assert_eq!(sync(&untouched).await.kind(), "command.succeeded");
    let unknown = Command::create("stripe", "120.00", "USD");
    world.run(&unknown).await;
    assert_eq!(sync(&unknown).await.kind(), "command.succeeded");
    world.check_books().await;
}

#[tokio::test]
async fn a_dispute_is_reported_and_its_money_gone_when_it_is_lost() {
    let (stripe, world, _worker) = started().await;
    for (end, status, captured) in [("won", "confirmed", "100.00"), ("lost", "refunded", "0.00")] {
        let charge = pay("pm_card_createDispute");
        world.run(&charge).await;
        world.run(&charge.then("payment.refund", json!({"amount": "20.00"}))).await;
        let open = world.run(&charge.then("payment.sync", json!({}))).await;
        assert_eq!(extra(&open)["dispute"]["status"], "needs_response");
        assert_eq!(open.field("captured_amount"), "100.00");
        stripe.dispute(&intent_id(&stripe, &charge), end);
        let closed = world.run(&charge.then("payment.sync", json!({}))).await;
        assert_eq!((closed.status(), closed.field("captured_amount")), (status, captured), "{end}");
        assert_eq!(closed.field("refunded_amount"), "20.00");
        assert_eq!(extra(&closed)["dispute"]["status"], end);
    }
    world.check_books().await;
}

#[tokio::test]
async fn past_its_window_a_key_is_sent_no_more_and_stripe_is_asked() {
    let stripe = FakeStripe::start();
    let world = setup(&stripe)
        .set("variants.stripe.timeout", "400ms")
        .set("retry.immediate.attempts", "1")
        .set("retry.delayed", "2s,500ms,500ms")
        .build()
        .await;
    let _worker = world.worker().await;
    for (fault, creates) in [(Fault::HangAfter, 1), (Fault::HangBefore, 2)] {
        let charge = pay("pm_card_visa");
        stripe.plan("create", vec![fault]);
        world.publish(&charge).await;
        world.event_of(&charge, "command.delayed").await;
        // A day later.
        stripe.expire_keys();
        let sql = "UPDATE operations SET first_sent_at = first_sent_at - interval '25 hours' WHERE id = $1";
        world.query(sql, &[&charge.operation_id()]).await;
        assert_eq!(world.final_event(&charge).await.status(), "confirmed");
        let keys: BTreeSet<_> = stripe.calls_of("create").into_iter().map(|call| call.key).collect();
        assert_eq!(keys.len(), creates);
        assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1);
        stripe.forget_calls();
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_looked_up() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa");
    stripe.plan("create", vec![Fault::error(400, "idempotency_error", "")]);
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let keys: BTreeSet<_> = stripe.calls_of("create").into_iter().map(|call| call.key).collect();
    assert_eq!((keys.len(), stripe.calls_of("list").len()), (2, 2), "one look-up, and one before the second key");
    world.check_books().await;
}

#[tokio::test]
async fn a_key_of_another_account_proves_nothing() {
    let (stripe, other) = (FakeStripe::start(), FakeStripe::start());
    let world = setup(&stripe).set("variants.stripe.account", "acct_1").build().await;
    let worker = world.worker().await;
    let charge = redirected("pm_card_threeDSecure2Required");
    world.run(&charge).await;
    worker.drain().await;
    let elsewhere = WorkerSetup::default().set("variants.stripe.api_base", &other.url());
    let worker = world.worker_with(elsewhere).await;
    // The customer may be paying with this one right now, so it is not cancelled.
    let process = charge.then("payment.process", json!({"process": {"payment_method": "pm_card_visa"}}));
    world.publish(&process).await;
    assert_eq!(world.event_of(&process, "command.delayed").await.reason(), "mismatch");
    assert_eq!(world.payment_row(charge.payment).await.get::<_, String>("status"), "input");
    assert!(other.intents().is_empty(), "no second payment intent");
    let unknown = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!((unknown.kind(), unknown.code()), ("command.failed", "mismatch"));
    assert_eq!(world.payment_row(charge.payment).await.get::<_, String>("status"), "input");
    // The mismatch concerns only this payment: others continue.
    assert_eq!(world.run(&pay("pm_card_visa")).await.status(), "confirmed");
    assert_eq!(worker.count(r#"paybus_breaker_state{variant="stripe",state="open"}"#).await, 0);
    world.check_books_but(Expected { open: 1, ..Expected::default() }).await;
}
