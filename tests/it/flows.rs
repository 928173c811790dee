//! What a payment goes through when all goes well, and the events that its subscribers get: the same for every gateway.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::world::amount;
use crate::support::{Behaviour, Command, Event, World};

/// The dummy gateway, and one behind HTTP.
const VARIANTS: [&str; 2] = ["default", "http"];

/// How a gateway answers a process.
#[derive(Clone, Copy, PartialEq)]
enum Way {
    Approve,
    Decline,
    Redirect { paid: bool },
    Pending { paid: bool },
}

/// A command that hands a new payment to its gateway immediately, which answers it this way.
fn charge(world: &World, variant: &str, way: Way) -> Command {
    let command = Command::charge(variant, "120.00", "USD");
    let process = take(world, &command, way);
    command.with("process", process)
}

/// The `process` object for this way: the dummy gateway reads it; the other gateway gets a plan.
fn take(world: &World, command: &Command, way: Way) -> Value {
    let dummy = |paid| if paid { "confirmed" } else { "rejected" };
    let (behaviour, process) = match way {
        Way::Approve => (Behaviour::Approve, json!({})),
        Way::Decline => (Behaviour::Decline("insufficient_funds".to_owned()), json!({"status": "rejected"})),
        Way::Redirect { paid } => (
            Behaviour::Redirect("https://bank.example/3ds".to_owned()),
            json!({"gateway_response": "3ds-redirect", "verification_result": dummy(paid)}),
        ),
        Way::Pending { paid } => (Behaviour::Pending, json!({"status": "waiting", "verification_result": dummy(paid)})),
    };
    if command.variant == "default" {
        return process;
    }
    world.gateway.plan(command.payment, vec![behaviour]);
    json!({})
}

/// The types and statuses of a payment's events, in order.
fn story(world: &World, payment: Uuid) -> Vec<String> {
    let events = world.events_of(payment);
    events.iter().map(|event| event.routing_key.split_once('.').unwrap().1.to_owned()).collect()
}

#[tokio::test]
async fn charges_at_once() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let charge = charge(&world, variant, Way::Approve);
        let answer = world.run(&charge).await;
        assert_eq!(answer.routing_key, format!("{variant}.payment.status_changed.confirmed"));
        assert_eq!(answer.data()["previous_status"], "waiting");
        assert_eq!(answer.field("captured_amount"), "120.00");
        assert_eq!(story(&world, charge.payment), ["payment.created", "payment.status_changed.confirmed"]);
        let row = world.payment_row(charge.payment).await;
        assert_eq!(amount(&row, "captured_amount", 2), "120.00", "the captured amount must be stored");
        assert_eq!(row.get::<_, &str>("status"), "confirmed");
        assert_eq!(row.get::<_, &str>("transaction_id"), answer.field("transaction_id"));
    }
    world.check_books().await;
}

#[tokio::test]
async fn creates_first_and_processes_later() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let create = Command::create(variant, "120.00", "USD");
        let created = world.run(&create).await;
        assert_eq!((created.kind(), created.status()), ("payment.created", "waiting"));
        assert_eq!(world.gateway.calls_of(create.payment).len(), 0);
        let answer = world.run(&create.then("payment.process", json!({"process": {}}))).await;
        assert_eq!(answer.status(), "confirmed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_declined_payment_can_be_tried_again() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let charge = charge(&world, variant, Way::Decline);
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.code()), ("rejected", "declined"));
        assert_eq!(answer.field("captured_amount"), "0.00");
        if variant == "http" {
            assert_eq!(answer.data()["gateway_code"], "insufficient_funds");
        }
        let again = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
        assert_eq!((again.status(), again.field("captured_amount")), ("confirmed", "120.00"));
        assert_eq!(again.data()["previous_status"], "rejected");
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_customer_who_comes_back_is_charged_once() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        for paid in [true, false] {
            for cure in ["payment.process", "payment.sync"] {
                let charge = charge(&world, variant, Way::Redirect { paid });
                let input = world.run(&charge).await;
                assert_eq!(input.status(), "input");
                assert!(input.field("redirect_url").starts_with("https://"), "{}", input.line());
                world.gateway.complete(charge.payment, paid);
                let data = if cure == "payment.process" { json!({"process": {}}) } else { json!({}) };
                let answer = world.run(&charge.then(cure, data)).await;
                let expected = if paid { ("confirmed", "120.00") } else { ("rejected", "0.00") };
                assert_eq!((answer.status(), answer.field("captured_amount")), expected, "{variant} {cure}");
                assert!(answer.payment()["redirect_url"].is_null(), "the customer has nothing left to do");
                assert!(world.gateway.charges(charge.payment).len() <= 1);
            }
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn captures_what_was_authorized() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        for (asked, captured) in [(None, "120.00"), (Some("120.00"), "120.00"), (Some("45.5"), "45.50")] {
            let authorize = Command::charge(variant, "120.00", "USD").with("capture", json!(false));
            let held = world.run(&authorize).await;
            assert_eq!((held.status(), held.field("captured_amount")), ("preauth", "0.00"));
            assert_eq!(held.field("authorized_amount"), "120.00");
            let data = asked.map_or(json!({}), |amount| json!({"amount": amount}));
            let answer = world.run(&authorize.then("payment.capture", data)).await;
            assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", captured));
            // A partial capture ends the authorization.
            let second = world.run(&authorize.then("payment.capture", json!({"amount": "1.00"}))).await;
            assert_eq!((second.kind(), second.code()), ("command.rejected", "not_allowed"));
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn releases_what_was_authorized() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let authorize = Command::create(variant, "120.00", "USD").with("capture", json!(false));
        world.run(&authorize).await;
        // The command that creates the payment specifies it, so the one that processes it can omit it.
        let held = world.run(&authorize.then("payment.process", json!({"process": {}}))).await;
        assert_eq!(held.status(), "preauth");
        let answer = world.run(&authorize.then("payment.release", json!({}))).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("refunded", "0.00"));
        assert_eq!(answer.field("refunded_amount"), "0.00", "nothing was refunded, because nothing was captured");
    }
    world.check_books().await;
}

#[tokio::test]
async fn refunds_in_parts_until_nothing_is_left() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let charge = charge(&world, variant, Way::Approve);
        world.run(&charge).await;
        let refund = async |data: Value| world.run(&charge.then("payment.refund", data)).await;
        let first = refund(json!({"amount": "30.00"})).await;
        assert_eq!((first.kind(), first.status()), ("payment.updated", "confirmed"));
        assert_eq!((first.field("captured_amount"), first.field("refunded_amount")), ("90.00", "30.00"));
        let changed = first.data()["changed"].as_array().unwrap();
        assert!(changed.contains(&json!("captured_amount")), "{changed:?}");
        // Two equal refunds are two refunds.
        assert_eq!(refund(json!({"amount": "30.00"})).await.field("captured_amount"), "60.00");
        let rest = refund(json!({})).await;
        assert_eq!((rest.status(), rest.field("captured_amount")), ("refunded", "0.00"));
        assert_eq!(rest.field("refunded_amount"), "120.00");
        assert_eq!(refund(json!({"amount": "0.01"})).await.code(), "not_allowed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn cancels_before_money_moved() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let create = Command::create(variant, "120.00", "USD");
        world.run(&create).await;
        let answer = world.run(&create.then("payment.cancel", json!({}))).await;
        assert_eq!((answer.status(), answer.data()["previous_status"].as_str()), ("cancelled", Some("waiting")));

        let redirected = charge(&world, variant, Way::Redirect { paid: true });
        world.run(&redirected).await;
        let answer = world.run(&redirected.then("payment.cancel", json!({}))).await;
        assert_eq!((answer.status(), answer.data()["previous_status"].as_str()), ("cancelled", Some("input")));
        let late = world.run(&redirected.then("payment.process", json!({"process": {}}))).await;
        assert_eq!(late.code(), "not_allowed");
    }
    world.check_books().await;
}

#[tokio::test]
async fn what_is_pending_is_looked_up_until_it_is_settled() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        for paid in [true, false] {
            let charge = charge(&world, variant, Way::Pending { paid });
            world.publish(&charge).await;
            let delayed = world.event_of(&charge, "command.delayed").await;
            assert_eq!(delayed.reason(), "pending");
            assert!(!delayed.is_final());
            world.gateway.complete(charge.payment, paid);
            let answer = world.final_event(&charge).await;
            assert_eq!(answer.status(), if paid { "confirmed" } else { "rejected" });
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_pending_process_does_not_keep_a_cancel_waiting() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = charge(&world, "http", Way::Pending { paid: true });
    world.publish(&charge).await;
    world.event_of(&charge, "command.delayed").await;
    let second = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!((second.kind(), second.code()), ("command.rejected", "in_progress"));
    let cancelled = world.run(&charge.then("payment.cancel", json!({}))).await;
    assert_eq!(cancelled.status(), "cancelled");
    let answer = world.final_event(&charge).await;
    assert_eq!((answer.kind(), answer.code()), ("command.failed", "cancelled"));
    world.check_books().await;
}

#[tokio::test]
async fn a_pending_refund_reserves_its_amount() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = charge(&world, "http", Way::Approve);
    world.run(&charge).await;
    let refund = |amount: &str| charge.then("payment.refund", json!({"amount": amount}));
    let (first, beyond, within) = (refund("100.00"), refund("20.01"), refund("20.00"));
    world.gateway.plan(charge.payment, vec![Behaviour::Pending]);
    world.publish(&first).await;
    assert_eq!(world.event_of(&first, "command.delayed").await.reason(), "pending");
    assert_eq!(world.run(&beyond).await.code(), "invalid_amount", "most of it is already being refunded");
    let second = world.run(&within).await;
    assert_eq!((second.status(), second.field("captured_amount")), ("confirmed", "100.00"));
    world.gateway.complete(charge.payment, true);
    let answer = world.final_event(&first).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("refunded", "0.00"));
    world.check_books().await;
}

#[tokio::test]
async fn reports_what_the_gateway_says_about_fraud() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let mut charge = Command::charge(variant, "120.00", "USD");
        if variant == "default" {
            charge = charge.with("process", json!({"fraud_status": "review"}));
        }
        let review = json!({"fraud_status": "review", "fraud_message": "a new card"});
        world.gateway.plan(charge.payment, vec![Behaviour::Say(review)]);
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("fraud_status")), ("confirmed", "review"));
        if variant == "http" {
            assert_eq!(answer.field("fraud_message"), "a new card");
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_payment_of_nothing_is_stored_and_never_processed() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let create = Command::create("http", "0", "USD");
    let created = world.run(&create).await;
    assert_eq!((created.kind(), created.field("total")), ("payment.created", "0.00"));
    let refusals: Vec<Event> = vec![
        world.run(&create.then("payment.process", json!({"process": {}}))).await,
        world.run(&Command::charge("http", "0.00", "USD")).await,
    ];
    for refusal in refusals {
        assert_eq!((refusal.kind(), refusal.code()), ("command.rejected", "invalid_amount"), "{}", refusal.line());
    }
    assert!(world.gateway.calls().is_empty());
    world.check_books().await;
}
