//! Gateways that fail: what is retried, under which key, and what is never given up.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::fake_gateway::CallRecord;
use crate::support::{Behaviour, Command, Setup, World, eventually};

/// The calls of a payment that act at the gateway.
fn acting(world: &World, command: &Command) -> Vec<CallRecord> {
    let calls = world.gateway.calls_of(command.payment).into_iter();
    calls.filter(|call| call.operation != "status").collect()
}

/// All acting calls were one request: one key, and the same body byte for byte.
fn assert_one_request(calls: &[CallRecord]) {
    let keys: BTreeSet<_> = calls.iter().map(|call| call.key.clone()).collect();
    let bodies: BTreeSet<_> = calls.iter().map(|call| call.body.clone()).collect();
    assert_eq!((keys.len(), bodies.len()), (1, 1), "{keys:?}");
}

#[tokio::test]
async fn a_gateway_that_fails_twice_is_asked_a_third_time() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None), Behaviour::Status(425, None)]);
    assert_eq!(world.run(&charge).await.status(), "confirmed");
    let calls = acting(&world, &charge);
    assert_one_request(&calls);
    let attempts: Vec<Option<u32>> = calls.iter().map(|call| call.attempt).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    let failing = Command::charge("default", "120.00", "USD").with("process", json!({"fail_times": 2}));
    assert_eq!(world.run(&failing).await.status(), "confirmed");
    assert_eq!(world.events_of(failing.payment).len(), 2, "immediate retries are not reported");
    let retried = worker.count(r#"paybus_retries_total{variant="http",code="gateway_error"}"#).await;
    assert!(retried >= 1, "{retried}");
    world.check_books().await;
}

#[tokio::test]
async fn later_retries_are_reported_and_are_the_same_request() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None); 7]);
    world.publish(&charge).await;
    let delayed = world.event_of(&charge, "command.delayed").await;
    assert_eq!((delayed.reason(), delayed.data()["attempts"].as_u64()), ("gateway_error", Some(3)));
    let next: jiff::Timestamp = delayed.data()["next_attempt_at"].as_str().unwrap().parse().unwrap();
    let emitted_at: jiff::Timestamp = delayed.body["time"].as_str().unwrap().parse().unwrap();
    assert!(next > emitted_at);
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let calls = acting(&world, &charge);
    assert_one_request(&calls);
    assert_eq!(calls.len(), 8);
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn a_gateway_that_is_away_is_waited_for() {
    let mut world = Setup::new().set("variants.http.retry.delayed", "200ms,200ms,200ms,5s,5s").build().await;
    let _worker = world.worker().await;
    let held = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    world.run(&held).await;
    world.gateway.stop().await;
    let (charge, capture) = (Command::charge("http", "50.00", "USD"), held.then("payment.capture", json!({})));
    world.publish_all(&[charge.clone(), capture.clone()]).await;
    for command in [&charge, &capture] {
        let delayed = world.event_of(command, "command.delayed").await;
        assert_eq!(delayed.reason(), "unreachable");
    }
    let statuses = [world.payment_row(charge.payment).await, world.payment_row(held.payment).await];
    assert_eq!(statuses.map(|row| row.get::<_, String>("status")), ["waiting", "preauth"]);
    world.gateway.start_again().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.final_event(&capture).await.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn a_gateway_may_ask_for_a_pause() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(429, Some(1)), Behaviour::Status(503, Some(1))]);
    world.publish(&charge).await;
    assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), "rate_limited");
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let calls = acting(&world, &charge);
    assert_one_request(&calls);
    for pair in calls.windows(2) {
        let pause = pair[1].at - pair[0].at;
        assert!(pause >= Duration::from_millis(980), "{pause:?}");
    }
    assert_eq!(calls.len(), 3);
    world.check_books().await;
}

#[tokio::test]
async fn a_lost_answer_charges_nobody_twice() {
    let world = Setup::new().set("variants.http.timeout", "400ms").build().await;
    let _worker = world.worker().await;
    let ways = [
        Behaviour::HangAfter,
        Behaviour::DropAfter,
        Behaviour::Error500After,
        Behaviour::Garbage,
        Behaviour::Truncated,
        Behaviour::Delay(Duration::from_millis(700)),
    ];
    let mut charges = Vec::new();
    for way in ways {
        let charge = Command::charge("http", "120.00", "USD");
        world.gateway.plan_operation(charge.payment, "process", vec![way.clone()]);
        world.gateway.plan_operation(charge.payment, "refund", vec![way]);
        charges.push(charge);
    }
    let lost = Command::charge("default", "120.00", "USD").with("process", json!({"lose_answer": true}));
    charges.push(lost);
    let refunds: Vec<Command> =
        charges.iter().map(|charge| charge.then("payment.refund", json!({"amount": "20.00"}))).collect();
    world.publish_all(&charges).await;
    world.publish_all(&refunds).await;
    for (charge, refund) in charges.iter().zip(&refunds) {
        assert_eq!(world.final_event(charge).await.field("captured_amount"), "120.00");
        assert_eq!(world.final_event(refund).await.field("captured_amount"), "100.00");
        if charge.variant == "http" {
            let effects = [world.gateway.charges(charge.payment).len(), world.gateway.refunds(charge.payment).len()];
            assert_eq!(effects, [1, 1]);
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn what_the_gateway_refuses_is_not_tried_again() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for status in [400, 404, 422] {
        let charge = Command::charge("http", "120.00", "USD");
        world.gateway.plan(charge.payment, vec![Behaviour::Status(status, None)]);
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.code()), ("error", "refused"), "{status}");
        assert!(!answer.message().is_empty());
        assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
        let again = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
        assert_eq!(again.status(), "confirmed", "it is proved that nothing was charged");
    }
    world.check_books().await;
}

#[tokio::test]
async fn giving_up_needs_the_proof_that_nothing_was_sent() {
    let mut world = World::new().await;
    let _worker = world.worker().await;
    let paid = Command::charge("http", "120.00", "USD");
    world.run(&paid).await;
    world.gateway.stop().await;
    let (charge, refund) = (Command::charge("http", "50.00", "USD"), paid.then("payment.refund", json!({})));
    world.publish_all(&[charge.clone(), refund.clone()]).await;
    let given_up = world.final_event(&charge).await;
    assert_eq!((given_up.status(), given_up.code()), ("error", "unreachable"), "{}", given_up.line());
    let failed = world.final_event(&refund).await;
    assert_eq!((failed.kind(), failed.code()), ("command.failed", "unreachable"));
    assert_eq!(failed.data()["attempts"], 9, "three rounds of three");
    assert_eq!(world.payment_row(paid.payment).await.get::<_, &str>("status"), "confirmed");
    world.gateway.start_again().await;
    let again = world.run(&charge.then("payment.process", json!({"process": {}}))).await;
    assert_eq!(again.status(), "confirmed");
    world.check_books().await;
}

#[tokio::test]
async fn an_unknown_outcome_never_fails_by_itself() {
    let world = Setup::new().set("variants.http.timeout", "150ms").build().await;
    let worker = world.worker().await;
    world.gateway.set_default(Some(Behaviour::HangBefore));
    let charge = Command::charge("http", "120.00", "USD");
    world.publish(&charge).await;
    let what = "the escalation";
    world.event(what, |event| event.is_of(&charge) && event.reason() == "escalated").await;
    assert!(world.log.find(|event| event.is_of(&charge) && event.is_final()).is_none());
    assert_eq!(world.payment_row(charge.payment).await.get::<_, &str>("status"), "waiting");
    let tried = acting(&world, &charge);
    assert_eq!(tried.len(), 9);
    assert_one_request(&tried);
    eventually("the metric", async || {
        let unknown = worker.count(r#"paybus_operations_unknown{variant="http",currency="USD"}"#).await;
        if unknown == 1 { Ok(()) } else { Err(unknown) }
    })
    .await;
    // Now the gateway can be asked and knows nothing about it: that is proof.
    world.gateway.set_default(None);
    let answer = world.final_event(&charge).await;
    assert_eq!((answer.status(), answer.code()), ("error", "timeout"), "{}", answer.line());
    assert!(world.gateway.charges(charge.payment).is_empty());
    world.check_books().await;
}

/// Charged, the answer lost, and then no gateway to ask, long after all retries: the charge stays unknown and visible,
/// and ends correctly.
#[tokio::test]
async fn a_charge_stays_unknown_until_its_gateway_can_be_asked() {
    let mut world = Setup::new()
        .set("variants.http.retry.delayed", "50ms,100ms")
        .set("variants.http.breaker.failures", "10000")
        .build()
        .await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::DropAfter]);
    world.gateway.set_default(Some(Behaviour::Status(503, None)));
    world.publish(&charge).await;
    world.event("the escalation", |event| event.is_of(&charge) && event.reason() == "escalated").await;
    asked_in_vain(&world, &charge, 25).await;
    // Now even its port is closed.
    world.gateway.stop().await;
    asked_in_vain(&world, &charge, 50).await;

    let labels = r#"{variant="http",currency="USD"}"#;
    eventually("the metrics", async || {
        let seen = [
            worker.count(&format!("paybus_operations_unknown{labels}")).await,
            worker.count(&format!("paybus_operations_unknown_amount{labels}")).await,
            worker.count(&format!("paybus_operations_escalated{labels}")).await,
        ];
        if seen == [1, 120, 1] { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    let oldest = worker.metric(&format!("paybus_operations_unknown_oldest_age_seconds{labels}")).await;
    assert!(oldest > 1.0, "it has been unknown for fifty look-ups, not just {oldest} s");
    let shown = world.paybus(&["show", &charge.payment.to_string(), "--json"]).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!((&shown["payment"]["status"], &shown["needs_a_person"]), (&json!("waiting"), &json!(true)));
    let operation = &shown["operations"][0];
    assert_eq!((&operation["state"], &operation["escalated"]), (&json!("unknown"), &json!(true)), "{operation}");
    assert!(operation["advice"].as_str().is_some_and(|advice| advice.contains("payment.resolve")), "{operation}");

    world.gateway.set_default(None);
    world.gateway.start_again().await;
    let answer = world.final_event(&charge).await;
    assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"), "{}", answer.line());
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    assert_one_request(&acting(&world, &charge));
    world.check_books().await;
}

/// Waits until a charge was looked up this many times; its events only say that it waits.
async fn asked_in_vain(world: &World, charge: &Command, lookups: i32) {
    eventually("many look-ups", async || {
        let sql = "SELECT lookups FROM operations WHERE id = $1";
        let asked: i32 = world.value(sql, &[&charge.operation_id()]).await;
        if asked >= lookups { Ok(()) } else { Err(asked) }
    })
    .await;
    let events = world.log.filter(|event| event.is_of(charge) && event.kind() != "payment.created");
    assert!(events.iter().all(|event| event.kind() == "command.delayed" && !event.is_final()), "{}", world.lines());
    assert_eq!(world.payment_row(charge.payment).await.get::<_, &str>("status"), "waiting");
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
}

#[tokio::test]
async fn what_was_charged_unseen_is_found_by_asking() {
    // The key's window is shorter than a lease: nothing may be sent twice, only looked up.
    let world = Setup::new().set("variants.http.key_window", "1s").set("variants.http.timeout", "300ms").build().await;
    let _worker = world.worker().await;
    for way in [Behaviour::HangAfter, Behaviour::DropAfter, Behaviour::Error500After, Behaviour::Garbage] {
        let charge = Command::charge("http", "120.00", "USD");
        world.gateway.plan(charge.payment, vec![way]);
        let answer = world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", "120.00"));
        assert_eq!(acting(&world, &charge).len(), 1, "it was sent once");
    }
    // The gateway is asked after its settle window and knows nothing: it is proved safe to begin again, under a new
    // key.
    let lost = Command::charge("http", "120.00", "USD");
    world.gateway.plan(lost.payment, vec![Behaviour::HangBefore]);
    assert_eq!(world.run(&lost).await.status(), "confirmed");
    let calls = acting(&world, &lost);
    assert_eq!(calls.len(), 2);
    assert_ne!(calls[0].key, calls[1].key);
    let asked = world.gateway.calls_of(lost.payment).into_iter().find(|call| call.operation == "status").unwrap();
    assert!(asked.at - calls[0].at >= Duration::from_millis(300), "no look-up before the end of the settle window");
    assert_eq!(world.gateway.charges(lost.payment).len(), 1);
    world.check_books().await;
}

#[tokio::test]
async fn wrong_credentials_fail_no_command() {
    let world = Setup::new()
        .set("variants.http.retry.delayed", "100ms")
        .set("variants.http.breaker.failures", "2")
        .set("variants.http.breaker.open", "300ms")
        .build()
        .await;
    let worker = world.worker().await;
    for status in [401, 403] {
        world.gateway.set_default(Some(Behaviour::Status(status, None)));
        let charges: Vec<Command> = (0..4).map(|_| Command::charge("http", "120.00", "USD")).collect();
        world.publish_all(&charges).await;
        eventually("the breaker to open", async || {
            let open = worker.count(r#"paybus_breaker_state{variant="http",state="open"}"#).await;
            if open == 1 { Ok(()) } else { Err(open) }
        })
        .await;
        let before = world.gateway.calls().len();
        eventually("some probes", async || {
            let probes = world.gateway.calls().len() - before;
            if probes >= 3 { Ok(()) } else { Err(probes) }
        })
        .await;
        assert!(world.log.find(|event| charges.iter().any(|charge| event.is_of(charge)) && event.is_final()).is_none());
        // The token is valid again.
        world.gateway.set_default(None);
        for charge in &charges {
            assert_eq!(world.final_event(charge).await.status(), "confirmed");
        }
    }
    world.check_books().await;
}

#[tokio::test]
async fn due_work_in_progress_on_another_worker_is_done_soon_after() {
    let mut world = Setup::new().set("variants.http.retry.delayed", "60s").build().await;
    let _worker = world.worker().await;
    world.gateway.stop().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.publish(&charge).await;
    world.operation_state(&charge, "scheduled").await;
    world.gateway.start_again().await;
    // As if another worker's lease were about to end and the two clocks differed slightly.
    let sql = "UPDATE operations SET due_at = now(), lease_owner = gen_random_uuid(),
               lease_until = now() + interval '1 second' WHERE id = $1 RETURNING id";
    world.query(sql, &[&charge.operation_id()]).await;
    let begun = Instant::now();
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    let took = begun.elapsed();
    assert!(took > Duration::from_millis(900) && took < Duration::from_secs(15), "{took:?}");
    world.check_books().await;
}

/// The second attempt waits for a slot until it is abandoned, while another command changes the payment. What follows
/// is decided on the stored state, and the first attempt may have been received nevertheless.
#[tokio::test]
async fn a_retry_that_finds_no_place_forgets_no_attempt_before_it() {
    let world = Setup::new()
        .set("variants.http.concurrency", "1")
        .set("variants.http.breaker.failures", "2")
        .set("variants.http.breaker.open", "1h")
        .build()
        .await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    let other = Command::charge("http", "5.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Error500After]);
    world.gateway.plan(other.payment, vec![Behaviour::HangAfter]);
    world.publish_all(&[charge.clone(), other.clone()]).await;
    world.gateway.wait_for_calls(other.payment, 1).await;
    let resolve = charge.then("payment.resolve", json!({"operation": charge.operation_id(), "outcome": "approved"}));
    assert_eq!(world.run(&resolve).await.kind(), "command.rejected");
    assert_eq!(world.event_of(&charge, "command.delayed").await.reason(), "gateway_error", "with its own reason");
    world.operation_state(&charge, "unknown").await;
    let retried = worker.count(r#"paybus_retries_total{variant="http",code="gateway_error"}"#).await;
    assert_eq!(retried, 0, "an attempt without a slot is not a retry");
    for open in [&charge, &other] {
        assert_eq!(world.run(&open.then("payment.sync", json!({}))).await.kind(), "command.succeeded");
        assert_eq!(world.final_event(open).await.status(), "confirmed");
    }
    world.check_books().await;
}
