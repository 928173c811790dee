//! Which command is allowed when, and for how much: everything else is rejected before the gateway is called.

use serde_json::{Value, json};

use crate::support::fake_gateway::FakeGateway;
use crate::support::{Behaviour, Command, Event, WorkerSetup, World};

/// A payment of 120.00 in this status, brought there by commands.
async fn payment_in(world: &World, status: &str) -> Command {
    let create = Command::create("http", "120.00", "USD");
    let process = async |behaviour: Behaviour, capture: bool| {
        world.gateway.plan(create.payment, vec![behaviour]);
        world.run(&create.then("payment.process", json!({"process": {}, "capture": capture}))).await
    };
    world.run(&create).await;
    let last = match status {
        "waiting" => return create,
        "input" => process(Behaviour::Redirect("https://bank.example".to_owned()), true).await,
        "preauth" => process(Behaviour::Approve, false).await,
        "confirmed" => process(Behaviour::Approve, true).await,
        "rejected" => process(Behaviour::Decline("no".to_owned()), true).await,
        "error" => process(Behaviour::Refuse, true).await,
        "refunded" => {
            process(Behaviour::Approve, true).await;
            world.run(&create.then("payment.refund", json!({}))).await
        }
        "cancelled" => world.run(&create.then("payment.cancel", json!({}))).await,
        _ => unreachable!("no such status: {status}"),
    };
    assert_eq!(last.status(), status);
    create
}

fn assert_rejected(answer: &Event, code: &str) {
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", code), "{}", answer.line());
    assert!(!answer.message().is_empty(), "the message should give the reason");
}

#[tokio::test]
async fn each_command_is_allowed_from_its_statuses_alone() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let commands: [(&str, Value, &[&str]); 5] = [
        ("payment.process", json!({"process": {}}), &["waiting", "input", "rejected", "error"]),
        ("payment.capture", json!({"amount": "20.00"}), &["preauth"]),
        ("payment.release", json!({}), &["preauth"]),
        ("payment.refund", json!({"amount": "20.00"}), &["confirmed"]),
        ("payment.cancel", json!({}), &["waiting", "input"]),
    ];
    for status in ["waiting", "input", "preauth", "confirmed", "rejected", "error", "refunded", "cancelled"] {
        let payment = payment_in(&world, status).await;
        let calls = world.gateway.calls_of(payment.payment).len();
        for (kind, data, from) in &commands {
            if !from.contains(&status) {
                let answer = world.run(&payment.then(kind, data.clone())).await;
                assert_rejected(&answer, "not_allowed");
                assert!(answer.message().contains(status), "{}", answer.message());
            }
        }
        assert_eq!(world.gateway.calls_of(payment.payment).len(), calls, "nothing is sent for what is not allowed");
        assert_eq!(world.payment_row(payment.payment).await.get::<_, &str>("status"), status);
    }
    world.check_books().await;
}

#[tokio::test]
async fn amounts_beyond_their_limits_reach_no_gateway() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for (status, kind) in [("preauth", "payment.capture"), ("confirmed", "payment.refund")] {
        let payment = payment_in(&world, status).await;
        if kind == "payment.refund" {
            world.run(&payment.then(kind, json!({"amount": "50.00"}))).await;
        }
        let calls = world.gateway.calls_of(payment.payment).len();
        let limit = if kind == "payment.refund" { "70.01" } else { "120.01" };
        for amount in
            [limit, "0", "0.00", "-5", "-5.00", "1e2", "+5", "5.", ".5", "5.001", "", " 5", "5 USD", "\u{0665}"]
        {
            assert_rejected(&world.run(&payment.then(kind, json!({"amount": amount}))).await, "invalid_amount");
        }
        for amount in [json!(20), json!(20.5), json!(-1), json!(["20.00"]), json!({"value": "20.00"}), json!(true)] {
            let answer = world.run(&payment.then(kind, json!({"amount": amount}))).await;
            assert_eq!(answer.kind(), "command.rejected", "{amount}: {}", answer.line());
            assert!(answer.message().contains("amount"), "{}", answer.message());
        }
        assert_eq!(world.gateway.calls_of(payment.payment).len(), calls);
        let all = if kind == "payment.refund" { "70.00" } else { "120.00" };
        let answer = world.run(&payment.then(kind, json!({"amount": all}))).await;
        assert_eq!(answer.kind(), "payment.status_changed", "the limit itself is allowed: {}", answer.line());
    }
    world.check_books().await;
}

#[tokio::test]
async fn a_gateway_that_says_no_leaves_the_payment_as_it_was() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for (status, kind) in [
        ("preauth", "payment.capture"),
        ("preauth", "payment.release"),
        ("confirmed", "payment.refund"),
        ("waiting", "payment.cancel"),
    ] {
        let payment = payment_in(&world, status).await;
        for (behaviour, code) in [(Behaviour::Decline("no".to_owned()), "declined"), (Behaviour::Refuse, "refused")] {
            world.gateway.plan(payment.payment, vec![behaviour]);
            let answer = world.run(&payment.then(kind, json!({}))).await;
            assert_eq!((answer.kind(), answer.code()), ("command.failed", code), "{}", answer.line());
            assert_eq!(answer.data()["attempts"], 1);
            assert_eq!(world.payment_row(payment.payment).await.get::<_, &str>("status"), status);
        }
        let answer = world.run(&payment.then(kind, json!({}))).await;
        assert_eq!(answer.kind(), "payment.status_changed", "it can be asked again: {}", answer.line());
    }
    world.check_books().await;
}

#[tokio::test]
async fn an_answer_without_an_amount_means_the_one_that_was_asked() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let payment = payment_in(&world, "preauth").await;
    let silent = || Behaviour::Say(json!({"amount": null, "currency": null, "transaction_id": null}));
    world.gateway.plan(payment.payment, vec![silent(), silent()]);
    let captured = world.run(&payment.then("payment.capture", json!({"amount": "80.00"}))).await;
    assert_eq!(captured.field("captured_amount"), "80.00");
    let refunded = world.run(&payment.then("payment.refund", json!({"amount": "30.00"}))).await;
    assert_eq!(refunded.field("captured_amount"), "50.00");
    world.check_books().await;
}

#[tokio::test]
async fn only_one_capture_for_now() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let payment = payment_in(&world, "preauth").await;
    let more = payment.then("payment.capture", json!({"amount": "20.00", "final": false}));
    assert_rejected(&world.run(&more).await, "unsupported");
    let last = payment.then("payment.capture", json!({"amount": "20.00", "final": true}));
    assert_eq!(world.run(&last).await.field("captured_amount"), "20.00");
    world.check_books().await;
}

#[tokio::test]
async fn a_rejection_is_final() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let create = Command::create("http", "120.00", "USD");
    world.run(&create).await;
    let early = create.then("payment.capture", json!({}));
    assert_rejected(&world.run(&early).await, "not_allowed");
    world.run(&create.then("payment.process", json!({"process": {}, "capture": false}))).await;
    // It would be allowed now, but the same message is still the same command.
    world.publish_all(&[early.clone(), early.clone()]).await;
    let fresh = create.then("payment.capture", json!({"amount": "1.00"}));
    assert_eq!(world.run(&fresh).await.field("captured_amount"), "1.00");
    world.check_books().await;
}

#[tokio::test]
async fn the_same_name_with_other_data_is_refused_and_the_first_goes_on() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let first = payment_in(&world, "confirmed").await.then("payment.refund", json!({"amount": "10.00"}));
    world.gateway.plan(first.payment, vec![Behaviour::Delay(std::time::Duration::from_millis(300))]);
    let mut other = first.clone();
    other.data = json!({"amount": "20.00"});
    let mut release = first.clone();
    release.kind = "payment.release".to_owned();
    world.publish_all(&[first.clone(), other.clone(), release, other]).await;
    let answer = world.final_event(&first).await;
    assert_eq!(answer.field("refunded_amount"), "10.00");
    let reused = |event: &Event| event.is_of(&first) && event.code() == "id_reused";
    let event = world.event("id_reused", reused).await;
    assert!(!event.is_final(), "the name's answer belongs to the first");
    world.check_books().await;
    let ids: std::collections::BTreeSet<String> =
        world.log.filter(reused).iter().map(|event| event.id().to_owned()).collect();
    assert_eq!(ids.len(), 2, "one for each message that differs, however often it comes");
}

#[tokio::test]
async fn a_payment_is_created_once_and_stays_with_its_variant() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let payment = payment_in(&world, "confirmed").await;
    let second = Command::charge("http", "55.00", "EUR").payment(payment.payment);
    assert_rejected(&world.run(&second).await, "already_exists");
    let elsewhere = Command::new("default", "payment.refund", payment.payment, json!({}));
    assert_rejected(&world.run(&elsewhere).await, "variant_mismatch");
    assert_eq!(world.payment_row(payment.payment).await.get::<_, &str>("currency"), "USD");
    world.check_books().await;
}

#[tokio::test]
async fn a_retired_variant_finishes_what_it_began() {
    let world = World::new().await;
    let worker = world.worker().await;
    let (held, waiting) = (payment_in(&world, "preauth").await, payment_in(&world, "waiting").await);
    worker.drain().await;
    let _worker = world.worker_with(WorkerSetup::default().set("variants.http.retired", "true")).await;
    assert_rejected(&world.run(&Command::create("http", "5.00", "USD")).await, "variant_retired");
    let process = waiting.then("payment.process", json!({"process": {}}));
    assert_rejected(&world.run(&process).await, "variant_retired");
    assert_eq!(world.run(&held.then("payment.capture", json!({}))).await.status(), "confirmed");
    assert_eq!(world.run(&held.then("payment.refund", json!({}))).await.status(), "refunded");
    assert_eq!(world.run(&waiting.then("payment.cancel", json!({}))).await.status(), "cancelled");
    world.check_books().await;
}

#[tokio::test]
async fn a_variant_that_points_elsewhere_does_not_get_the_refunds() {
    let world = World::new().await;
    let worker = world.worker().await;
    let payment = payment_in(&world, "confirmed").await;
    worker.drain().await;
    let other = FakeGateway::start().await;
    let moved = WorkerSetup::default().set("variants.http.url", &other.url());
    let worker = world.worker_with(moved).await;
    let answer = world.run(&payment.then("payment.refund", json!({}))).await;
    assert_rejected(&answer, "gateway_changed");
    let synced = world.run(&payment.then("payment.sync", json!({}))).await;
    assert_eq!(synced.code(), "gateway_changed", "{}", synced.line());
    assert!(other.calls().is_empty());
    // The rejection concerns the payment, not the command: a new payment goes to the new gateway.
    let fresh = world.run(&Command::charge("http", "5.00", "USD")).await;
    assert_eq!(fresh.status(), "confirmed");
    worker.drain().await;
    let _worker = world.worker().await;
    assert_eq!(world.run(&payment.then("payment.refund", json!({}))).await.status(), "refunded");
    let here = fresh.subject().parse().unwrap();
    world.check_books_but(crate::support::Expected { off_ledger: vec![here], ..Default::default() }).await;
}
