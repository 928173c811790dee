//! Amounts: as requested, as the gateway reports them, and what happens if the two differ.

use serde_json::{Value, json};

use crate::support::world::amount;
use crate::support::{Behaviour, Command, Expected, World};

#[tokio::test]
async fn the_gateways_amount_wins_and_the_difference_is_reported() {
    let world = World::new().await;
    let worker = world.worker().await;
    let less = Command::charge("http", "120.00", "USD");
    world.gateway.plan(less.payment, vec![Behaviour::WrongAmount("100.00".to_owned())]);
    let answer = world.run(&less).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "100.00"));
    let discrepancy = json!({"asked": "120.00", "answered": "100.00", "currency": "USD"});
    assert_eq!(answer.data()["discrepancy"], discrepancy);
    let beyond = world.run(&less.then("payment.refund", json!({"amount": "100.01"}))).await;
    assert_eq!(beyond.code(), "invalid_amount", "the limit is what was captured, not what was requested");

    let more = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    world.run(&more).await;
    world.gateway.plan(more.payment, vec![Behaviour::WrongAmount("150.00".to_owned())]);
    let captured = world.run(&more.then("payment.capture", json!({}))).await;
    assert_eq!((captured.status(), captured.field("captured_amount")), ("confirmed", "150.00"));
    assert_eq!(captured.data()["discrepancy"]["answered"], "150.00");
    assert_eq!(amount(&world.payment_row(more.payment).await, "captured_amount", 2), "150.00");
    world.gateway.plan(more.payment, vec![Behaviour::WrongAmount("200.00".to_owned())]);
    let refunded = world.run(&more.then("payment.refund", json!({"amount": "50.00"}))).await;
    assert_eq!((refunded.status(), refunded.field("captured_amount")), ("refunded", "0.00"), "never below zero");
    assert_eq!(refunded.field("refunded_amount"), "200.00");
    assert_eq!(refunded.data()["discrepancy"]["asked"], "50.00");

    assert_eq!(worker.count(r#"paybus_alerts_total{variant="http",kind="discrepancy"}"#).await, 3);
    world.check_books().await;
}

#[tokio::test]
async fn an_answer_in_another_currency_is_applied_to_nothing_until_a_person_resolves_it() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let user = world.bus.user();
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::WrongCurrency("EUR".to_owned())]);
    world.publish(&charge).await;
    let delayed = world.event_of(&charge, "command.delayed").await;
    assert_eq!(delayed.reason(), "mismatch");
    world.operation_state(&charge, "unknown").await;
    let row = world.payment_row(charge.payment).await;
    assert_eq!((row.get::<_, &str>("status"), amount(&row, "captured_amount", 2).as_str()), ("waiting", "0.00"));
    let again = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!(again.code(), "in_progress");
    assert_eq!(show(&world, &charge).await["needs_a_person"], true);
    let synced = world.run(&charge.then("payment.sync", json!({}))).await;
    assert_ne!(synced.kind(), "payment.status_changed", "the gateway's answer is the same again");

    let resolve = charge.then(
        "payment.resolve",
        json!({"operation": charge.operation_id(), "outcome": "approved", "amount": "118.50",
               "transaction_id": "by-hand", "evidence": "the statement of account"}),
    );
    let anonymous = world.run(&resolve.clone().id("anonymous")).await;
    assert_eq!((anonymous.kind(), anonymous.code()), ("command.rejected", "user_required"));
    let resolved = world.run(&resolve.clone().user(&user)).await;
    assert_eq!(resolved.kind(), "command.succeeded");
    let answer = world.final_event(&charge).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "118.50"));
    assert_eq!(answer.field("transaction_id"), "by-hand");
    let shown = show(&world, &charge).await;
    assert_eq!(shown["needs_a_person"], false);
    let said = shown["operations"].as_array().unwrap().iter().find(|operation| operation["user_id"] == *user).unwrap();
    assert_eq!(said["resolution"]["evidence"], "the statement of account");
    assert_eq!((&said["resolution"]["outcome"], &said["resolution"]["amount"]), (&json!("approved"), &json!("118.50")));
    let who: String = world.value("SELECT user_id FROM operations WHERE id = $1", &[&resolve.operation_id()]).await;
    assert_eq!(who, user);
    let late = world.run(&resolve.id("late").user(&user)).await;
    assert_eq!((late.kind(), late.code()), ("command.rejected", "not_unknown"));
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    world.check_books_but(Expected { off_ledger: vec![charge.payment], ..Expected::default() }).await;
}

/// `paybus show --json` of a payment.
async fn show(world: &World, command: &Command) -> Value {
    let shown = world.paybus(&["show", &command.payment.to_string(), "--json"]).await;
    serde_json::from_slice(&shown.stdout).expect("JSON")
}

#[tokio::test]
async fn a_person_may_say_that_nothing_was_charged() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::WrongCurrency("EUR".to_owned())]);
    world.publish(&charge).await;
    world.event_of(&charge, "command.delayed").await;
    let resolve = charge.then(
        "payment.resolve",
        json!({"operation": charge.operation_id(), "outcome": "not_charged", "evidence": "the gateway's support"}),
    );
    world.run(&resolve.user(&world.bus.user())).await;
    let answer = world.final_event(&charge).await;
    assert_eq!(answer.status(), "error");
    let again = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!((again.status(), again.field("captured_amount")), ("confirmed", "120.00"));
    world.check_books_but(Expected { off_ledger: vec![charge.payment], ..Expected::default() }).await;
}

#[tokio::test]
async fn amounts_have_the_decimals_of_their_currency() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for (total, currency, written, most) in [
        ("1200", "JPY", "1200", "1200"),
        ("1.5", "KWD", "1.500", "1.500"),
        ("007.5", "EUR", "7.50", "7.50"),
        ("999999999999.99", "USD", "999999999999.99", "999999999999.99"),
    ] {
        for variant in ["default", "http"] {
            let charge = Command::charge(variant, total, currency);
            let answer = world.run(&charge).await;
            assert_eq!((answer.field("total"), answer.field("captured_amount")), (written, most));
            let refunded = world.run(&charge.then("payment.refund", json!({"amount": "1"}))).await;
            assert_eq!(refunded.kind(), "payment.updated");
            if variant == "http" {
                let call = &world.gateway.calls_of(charge.payment)[0];
                let sent: serde_json::Value = serde_json::from_slice(&call.body).unwrap();
                assert_eq!(sent["amount"], written);
            }
        }
    }
    for (total, currency) in [("12.5", "JPY"), ("1.2345", "KWD"), ("1.234", "EUR"), ("1000000000000", "USD")] {
        let answer = world.run(&Command::charge("http", total, currency)).await;
        assert_eq!((answer.kind(), answer.code()), ("command.rejected", "invalid_amount"), "{total} {currency}");
    }
    world.check_books().await;
}
