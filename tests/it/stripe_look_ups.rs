//! Look-ups at Stripe: before a process continues, after an answer was lost, and for payments with more than one
//! payment intent.

use std::collections::BTreeSet;

use serde_json::json;

use crate::stripe::{intent_id, pay, redirected, setup, started};
use crate::support::fake_stripe::{FakeStripe, Fault};
use crate::support::{Command, Worker, World};

fn process(charge: &Command, token: &str) -> Command {
    charge.then("payment.process", json!({"process": {"payment_method": token}}))
}

/// With this setting for Stripe.
async fn started_with(key: &str, value: &str) -> (FakeStripe, World, Worker) {
    let stripe = FakeStripe::start();
    let world = setup(&stripe).set(&format!("variants.stripe.{key}"), value).build().await;
    let worker = world.worker().await;
    (stripe, world, worker)
}

/// Nothing was sent yet: the process is retried, as after every failed look-up, and does not end.
#[tokio::test]
async fn a_process_whose_first_look_up_fails_is_retried_after_any_answer() {
    let (stripe, world, _worker) = started().await;
    for fault in [
        Fault::error(400, "invalid_request_error", "parameter_unknown"),
        Fault::error(402, "card_error", "card_declined"),
        Fault::error(404, "invalid_request_error", ""),
        Fault::status(503),
        Fault::Garbage,
    ] {
        for charge in [redirected("pm_card_threeDSecure2Required"), pay("pm_card_visa_chargeDeclined")] {
            world.run(&charge).await;
            // More failures than there are immediate attempts.
            stripe.plan("retrieve", vec![fault.clone(); 4]);
            let paid = world.run(&process(&charge, "pm_card_visa")).await;
            assert_eq!(paid.status(), "confirmed", "{fault:?}: {}", paid.line());
            assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1, "{fault:?}");
        }
    }
    world.check_books().await;
}

/// Five thousand payment intents of others were created since: the charge whose answer was lost is found nevertheless.
#[tokio::test]
async fn in_a_busy_account_a_lost_charge_is_found_by_search() {
    // Long enough to create the others.
    let (stripe, world, _worker) = started_with("settle_window", "2s").await;
    let charge = pay("pm_card_visa");
    stripe.plan("create", vec![Fault::Stored500 { acts: true }]);
    world.publish(&charge).await;
    world.operation_state(&charge, "unknown").await;
    stripe.make_others(5_000);
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let asked = ["search", "retrieve", "list", "create"].map(|kind| stripe.calls_of(kind).len());
    assert_eq!(asked, [1, 1, 0, 1], "found by search, read, and neither listed nor created again");
    world.check_books().await;
}

/// What the search index does not have yet must be in the list, or the list must prove that it does not exist.
#[tokio::test]
async fn what_is_not_indexed_yet_is_found_in_the_list_or_proved_not_to_be_there() {
    let (stripe, world, _worker) = started_with("timeout", "8s").await;
    stripe.stop_indexing();
    stripe.make_others(1_000);
    for (acts, keys) in [(true, 1), (false, 2)] {
        let charge = pay("pm_card_visa");
        stripe.plan("create", vec![Fault::Stored500 { acts }]);
        assert_eq!(world.run(&charge).await.status(), "confirmed", "{acts}");
        let used: BTreeSet<_> = stripe.calls_of("create").into_iter().map(|call| call.key).collect();
        assert_eq!(used.len(), keys, "{acts}");
        assert_eq!(stripe.charges_of(&intent_id(&stripe, &charge)).len(), 1, "{acts}");
        // One list ends where the charge is; two are read to the end, before a new key and before it is used.
        let pages = if acts { 1 } else { 2 * 11 };
        assert_eq!(stripe.calls_of("list").len(), pages, "{acts}");
        stripe.forget_calls();
    }
    world.check_books().await;
}

/// A list that one look-up cannot read to its end is continued by the next one.
#[tokio::test]
async fn a_list_that_breaks_off_is_gone_on_with_by_the_next_look_up() {
    let (stripe, world, _worker) = started_with("settle_window", "2s").await;
    let charge = pay("pm_card_visa");
    stripe.plan("create", vec![Fault::Stored500 { acts: true }]);
    let passes = || Fault::Say(json!({}));
    let breaks = [Fault::HangBefore, Fault::status(503)];
    let [first, second] = breaks.clone();
    stripe.plan("list", [vec![passes(); 3], vec![first], vec![passes(); 2], vec![second]].concat());
    stripe.stop_indexing();
    world.publish(&charge).await;
    world.operation_state(&charge, "unknown").await;
    stripe.make_others(1_000);
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let lists: Vec<String> = stripe.calls_of("list").into_iter().map(|list| list.query).collect();
    let beginnings = lists.iter().filter(|query| !query.contains("starting_after")).count();
    assert_eq!((beginnings, lists.len()), (1, 11 + breaks.len()), "{lists:?}");
    assert_eq!(stripe.calls_of("create").len(), 1);
    world.check_books().await;
}

/// Charged again at Stripe under the payment's id, without a webhook.
#[tokio::test]
async fn a_sync_finds_a_second_charge_and_its_refund_is_looked_up_where_it_was_taken_from() {
    let (stripe, world, _worker) = started().await;
    let charge = pay("pm_card_visa");
    world.run(&charge).await;
    let first = intent_id(&stripe, &charge);
    let second = stripe.charge_by_hand(&charge.subject(), 12_000);
    let answer = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!((answer.code(), answer.field("captured_amount")), ("double_charge", "240.00"), "{}", answer.line());
    assert_eq!(answer.field("transaction_id"), first, "it is still the first one");
    // Its answer is lost: it must not be refunded twice.
    stripe.plan("refund", vec![Fault::Stored500 { acts: true }]);
    let data = json!({"amount": "20.00", "reference": second});
    let refunded = world.run(&charge.then("payment.refund", data)).await;
    assert_eq!(refunded.field("captured_amount"), "220.00", "{}", refunded.line());
    assert_eq!((stripe.refunds_of(&first).len(), stripe.refunds_of(&second).len()), (0, 1));
    // What is already known is neither news nor a mismatch.
    assert_eq!(world.run(&charge.then("payment.sync", json!({}))).await.kind(), "command.succeeded");
    world.check_books().await;
}

/// The customer left the page of the payment's own payment intent and paid with another one.
#[tokio::test]
async fn a_payment_that_was_paid_with_another_payment_intent_is_given_back_from_that() {
    let (stripe, world, _worker) = started().await;
    let charge = redirected("pm_card_threeDSecure2Required");
    let input = world.run(&charge).await;
    assert_eq!(input.status(), "input");
    let left = intent_id(&stripe, &charge);
    let paid = stripe.charge_by_hand(&charge.subject(), 12_000);
    assert_eq!(input.field("transaction_id"), left);
    let answer = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"), "{}", answer.line());
    assert_eq!(answer.field("transaction_id"), paid);
    assert_eq!(world.run(&charge.then("payment.refund", json!({}))).await.status(), "refunded");
    assert_eq!(stripe.refunds_of(&paid).len(), 1);
    world.check_books().await;
}
