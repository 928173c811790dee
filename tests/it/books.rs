//! Inconsistent books are found, and no books are kept where PostgreSQL may forget them.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::wait::within;
use crate::support::{Behaviour, Command, Expected, WorkerSetup, World};

/// Runs `paybus check --books --json`; returns its exit code and its output.
async fn check(world: &World) -> (Option<i32>, Value) {
    let checked = world.paybus(&["check", "--books", "--json"]).await;
    (checked.status.code(), serde_json::from_slice(&checked.stdout).expect("JSON"))
}

#[tokio::test]
async fn payments_with_inconsistent_movements_are_listed() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let good = Command::charge("http", "50.00", "USD");
    world.run(&good).await;
    world.run(&good.then("payment.refund", json!({"amount": "10.00"}))).await;
    let held = Command::charge("http", "50.00", "USD").with("capture", json!(false));
    world.run(&held).await;
    world.run(&held.then("payment.capture", json!({"amount": "20.00"}))).await;
    assert_eq!(check(&world).await, (Some(0), json!({"ok": true, "payments": 2, "doubtful": []})));

    // What earlier releases could store: the money of one operation twice, and money of a declined one.
    let twice = Command::charge("http", "120.00", "USD");
    world.run(&twice).await;
    let again = "INSERT INTO movements (payment_id, kind, reference, amount, currency, operation_id, created)
         SELECT payment_id, kind, $2, amount, currency, $3, now() FROM movements WHERE payment_id = $1";
    world.query(again, &[&twice.payment, &"again", &twice.operation_id()]).await;
    let declined = twice.then("payment.refund", json!({"amount": "1.00"}));
    world.gateway.plan(twice.payment, vec![Behaviour::Decline("no".to_owned())]);
    world.run(&declined).await;
    let of_declined = "INSERT INTO movements (payment_id, kind, reference, amount, currency, operation_id, created)
         VALUES ($1, 'refunded', 'declined', 500, 'USD', $2, now())";
    world.query(of_declined, &[&twice.payment, &declined.operation_id()]).await;
    let (code, report) = check(&world).await;
    assert_eq!((code, &report["payments"]), (Some(1), &json!(3)));
    let reasons = ["one_operation_twice", "of_failed_operation", "more_than_total", "more_refunded", "sums_differ"];
    assert_eq!(report["doubtful"], json!([{"payment": twice.payment, "reasons": reasons}]));
    let all = vec![twice.payment];
    world.query("DELETE FROM movements WHERE reference IN ('again', 'declined')", &[]).await;
    world.check_books_but(Expected { off_ledger: all, ..Expected::default() }).await;
}

#[tokio::test]
async fn no_worker_starts_if_commits_may_be_lost_unless_configured() {
    let world = World::new().await;
    let url = &world.settings()["database.url"];
    let parameter = "options=-c%20synchronous_commit%3Doff";
    let url = format!("{url}{}{parameter}", if url.contains('?') { "&" } else { "?" });
    let refusing = world.spawn_worker(WorkerSetup::default().set("database.url", &url));
    let ready = async |worker: &crate::support::Worker, expected: u16, why: &str| {
        within(Duration::from_secs(20), why, async || {
            let (status, body) = worker.get("/readyz").await?;
            if status == expected && body.contains(why) { Ok(()) } else { Err(format!("{status}: {body}")) }
        })
        .await;
    };
    ready(&refusing, 503, "synchronous_commit").await;
    let setup = WorkerSetup::default().set("database.url", &url).set("database.may_lose_commits", "true");
    let worker = world.spawn_worker(setup);
    ready(&worker, 200, "").await;
    assert!(worker.log().contains("may_lose_commits"), "{}", worker.log());
    assert_eq!(world.run(&Command::charge("http", "5.00", "USD")).await.status(), "confirmed");
    world.check_books().await;
}

/// A gateway that lists all transactions, each under its own reference, including those that others caused.
#[tokio::test]
async fn what_a_gateway_lists_is_booked_by_its_references() {
    let world = crate::support::Setup::new().set("variants.http.settle_window", "0s").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "100.00", "USD");
    let paid = world.run(&charge).await;
    let (tx, operation) = (paid.field("transaction_id").to_owned(), charge.operation_id());
    let list = |transactions: Value| {
        Behaviour::Say(json!({"result": "approved", "captured_amount": null, "refunded_amount": null,
                              "amount": null, "transactions": transactions}))
    };
    let taken = |state: &str| json!({"kind": "capture", "reference": tx, "operation_id": operation, "state": state, "amount": "100.00"});
    let refund =
        |state: &str| json!({"kind": "refund", "reference": "re-1", "parent": tx, "state": state, "amount": "30.00"});
    let sync = async |transactions: Value| {
        world.gateway.plan_operation(charge.payment, "status", vec![list(transactions)]);
        let answer = world.run(&charge.then("payment.sync", json!({}))).await;
        let row = world.payment_row(charge.payment).await;
        let sum = |name| crate::support::world::amount(&row, name, 2);
        (answer.kind().to_owned(), sum("captured_amount"), sum("refunded_amount"))
    };
    let result =
        |kind: &str, captured: &str, refunded: &str| (kind.to_owned(), captured.to_owned(), refunded.to_owned());
    assert_eq!(sync(json!([taken("done")])).await, result("command.succeeded", "100.00", "0.00"));
    assert_eq!(sync(json!([taken("done"), refund("done")])).await, result("payment.updated", "70.00", "30.00"));
    assert_eq!(sync(json!([taken("done"), refund("done")])).await, result("command.succeeded", "70.00", "30.00"));
    assert_eq!(sync(json!([taken("done"), refund("reversed")])).await, result("payment.updated", "100.00", "0.00"));
    // The settlement is declined: none of the money ever arrives.
    let gone = sync(json!([refund("reversed"), taken("reversed")])).await;
    assert_eq!(gone, result("payment.status_changed", "0.00", "0.00"));
    let row = world.payment_row(charge.payment).await;
    assert_eq!(row.get::<_, &str>("status"), "rejected");
    let all = Expected { off_ledger: vec![charge.payment], ..Expected::default() };
    world.check_books_but(all).await;
}
