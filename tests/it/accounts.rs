//! A payment stays with its account, whatever the account is called; payments that no variant serves are reported.

use std::time::Duration;

use serde_json::json;

use crate::support::wait::within;
use crate::support::worker::paybus;
use crate::support::{Behaviour, Command, Expected, Setup, Worker, WorkerSetup, World};

/// The gateway's address with its host renamed.
fn renamed(world: &World) -> String {
    world.gateway.url().replace("127.0.0.1", "localhost")
}

/// A payment of 120.00 that is authorized.
async fn held(world: &World) -> Command {
    let held = Command::charge("http", "120.00", "USD").with("capture", json!(false));
    assert_eq!(world.run(&held).await.status(), "preauth");
    held
}

async fn account_of(world: &World, payment: &Command) -> String {
    world.payment_row(payment.payment).await.get("account")
}

/// Runs `paybus check` with these settings on top of the world's; returns its exit code and what it prints about
/// payments.
async fn check(world: &World, settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut all = world.settings().clone();
    all.extend(settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let checked = tokio::task::spawn_blocking(move || paybus(&all).arg("check").output()).await.unwrap();
    let output = checked.expect("it runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let of_payments: Vec<&str> =
        said.lines().filter(|line| line.split_whitespace().nth(1) == Some("payments")).collect();
    assert!(!of_payments.is_empty(), "{said}");
    (output.status.code(), of_payments.join("\n"))
}

/// Waits until the worker counts this many unserved operations and reports them in `/readyz` while it is ready.
async fn stand_still(worker: &Worker, variant: &str, count: i64, note: &str) {
    // The worker queries the database every five seconds.
    within(Duration::from_secs(30), note, async || {
        let counted = worker.count(&format!(r#"paybus_operations_unserved{{variant="{variant}"}}"#)).await;
        let (status, body) = worker.get("/readyz").await?;
        let is_reported = if note.is_empty() { body == "ready\n" } else { body.contains(note) };
        let is_so = (counted, status, is_reported) == (count, 200, true);
        if is_so { Ok(()) } else { Err(format!("{counted} {status} {body}")) }
    })
    .await;
}

#[tokio::test]
async fn a_renamed_host_serves_its_payments_by_an_alias() {
    let world = World::new().await;
    let worker = world.worker().await;
    let payment = held(&world).await;
    worker.drain().await;

    let (before, now) = (world.gateway.url(), renamed(&world));
    let url = ("variants.http.url", now.as_str());
    let worker = world.worker_with(WorkerSetup::default().set(url.0, url.1)).await;
    let answer = world.run(&payment.then("payment.capture", json!({}))).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "gateway_changed"), "{}", answer.line());
    let (code, said) = check(&world, &[url]).await;
    assert_eq!(code, Some(0), "nothing is open: {said}");
    let looked_at = "1 of 1 sampled payments (1 with money to capture or refund)";
    let found = format!("{looked_at} of variant http that began with http at {before}");
    assert!(said.starts_with("warn") && said.contains(&found) && said.contains("account_aliases"), "{said}");
    assert!(said.contains(&payment.payment.to_string()), "{said}");
    stand_still(&worker, "http", 0, &format!("note: {found}")).await;
    assert!(worker.log().contains("no configured variant serves stored payments"), "{}", worker.log());
    worker.drain().await;

    // Names that are URLs are compared as URLs.
    let alias = format!("HTTP{}/", before.strip_prefix("http").expect("a url"));
    let alias = ("variants.http.account_aliases", alias.as_str());
    let worker = world.worker_with(WorkerSetup::default().set(url.0, url.1).set(alias.0, alias.1)).await;
    assert_eq!(world.run(&payment.then("payment.capture", json!({}))).await.status(), "confirmed");
    let fresh = held(&world).await;
    assert_eq!(account_of(&world, &fresh).await, now);
    let (code, said) = check(&world, &[url, alias]).await;
    assert!(code == Some(0) && said.starts_with("ok"), "{code:?} {said}");
    stand_still(&worker, "http", 0, "").await;
    worker.drain().await;

    // A worker with the earlier settings continues with the payments that it knows.
    assert_eq!(account_of(&world, &payment).await, before);
    let _worker = world.worker().await;
    assert_eq!(world.run(&payment.then("payment.refund", json!({}))).await.status(), "refunded");
    world.check_books().await;
}

#[tokio::test]
async fn an_account_with_a_name_outlives_its_address() {
    let world = Setup::new().set("variants.http.account", "cards-main").build().await;
    let worker = world.worker().await;
    let payment = held(&world).await;
    worker.drain().await;
    let _worker = world.worker_with(WorkerSetup::default().set("variants.http.url", &renamed(&world))).await;
    assert_eq!(world.run(&payment.then("payment.capture", json!({}))).await.status(), "confirmed");
    assert_eq!(account_of(&world, &payment).await, "cards-main");
    world.check_books().await;
}

#[tokio::test]
async fn open_operations_that_no_variant_serves_are_reported_and_block_no_others() {
    let world = Setup::new().set("variants.http.retry.delayed", "1h").build().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "120.00", "USD");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None); 3]);
    world.publish(&charge).await;
    world.event_of(&charge, "command.delayed").await;
    worker.drain().await;

    let (before, now) = (world.gateway.url(), renamed(&world));
    let url = ("variants.http.url", now.as_str());
    let worker = world.worker_with(WorkerSetup::default().set(url.0, url.1)).await;
    let found = format!("1 open operation of variant http that began with http at {before}");
    stand_still(&worker, "http", 1, &format!("note: {found}")).await;
    let (code, said) = check(&world, &[url]).await;
    assert!(code == Some(1) && said.starts_with("failed") && said.contains(&found), "{code:?} {said}");
    assert_eq!(world.run(&Command::charge("http", "5.00", "USD")).await.status(), "confirmed");
    worker.drain().await;

    let alias = ("variants.http.account_aliases", before.as_str());
    let worker = world.worker_with(WorkerSetup::default().set(url.0, url.1).set(alias.0, alias.1)).await;
    stand_still(&worker, "http", 0, "").await;
    let (code, said) = check(&world, &[url, alias]).await;
    assert!(code == Some(0) && said.starts_with("ok"), "{code:?} {said}");

    // The same for a variant that was removed from the configuration.
    world.query("UPDATE operations SET variant = 'old' WHERE state <> 'settled'", &[]).await;
    let found = "note: 1 open operation of variant old that began with http";
    stand_still(&worker, "old", 1, found).await;
    let (code, said) = check(&world, &[url, alias]).await;
    assert!(code == Some(1) && said.contains("the variant is not configured"), "{code:?} {said}");
    world.check_books_but(Expected { open: 1, ..Expected::default() }).await;
}
