//! What `paybus workers` says of the replicas.

use serde_json::Value;

use crate::support::{Behaviour, Command, Setup, World, eventually};

async fn workers(world: &World) -> Vec<Value> {
    let output = world.paybus(&["workers", "--json"]).await;
    String::from_utf8_lossy(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// Waits until the rows are as `expected`.
async fn are(world: &World, what: &str, expected: impl Fn(&[Value]) -> bool) -> Vec<Value> {
    eventually(what, async || {
        let found = workers(world).await;
        if expected(&found) { Ok(found) } else { Err(format!("{found:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_replica_that_drained_is_gone_and_one_that_was_killed_is_not_seen() {
    let world = World::new().await;
    let (first, second) = (world.worker().await, world.worker().await);
    let ready = |found: &[Value]| found.len() == 2 && found.iter().all(|worker| worker["not_ready"] == "");
    let found = are(&world, "two replicas", ready).await;
    let is_at = |worker: &Value, http: &str| worker["address"].as_str().is_some_and(|address| http.ends_with(address));
    assert!([&first, &second].iter().all(|worker| found.iter().any(|it| is_at(it, worker.http()))), "{found:?}");
    assert_eq!(found[0]["version"], env!("CARGO_PKG_VERSION"));
    first.drain().await;
    second.kill().await;
    let left = are(&world, "the one that was killed", |found| found.len() == 1).await;
    assert!(is_at(&left[0], second.http()), "{left:?}");
    world.query("UPDATE workers SET seen = now() - interval '1 minute'", &[]).await;
    let output = world.paybus(&["workers"]).await;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!((output.status.code(), said.contains("not seen for 1 min")), (Some(1), true), "{said}");
    world.check_books().await;
}

#[tokio::test]
async fn an_open_breaker_is_seen_also_by_who_looks_for_a_payment_behind_it() {
    let world =
        Setup::new().set("variants.http.breaker.failures", "1").set("variants.http.breaker.open", "1m").build().await;
    let _worker = world.worker().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None)]);
    world.publish(&charge).await;
    let is_open = |found: &[Value]| {
        let variants = found.first().and_then(|worker| worker["variants"].as_array());
        variants.into_iter().flatten().any(|variant| variant["name"] == "http" && variant["breaker"] == "open")
    };
    are(&world, "the breaker to be open", is_open).await;
    let shown = world.paybus(&["show", &uuid::Uuid::new_v4().to_string()]).await;
    let said = String::from_utf8_lossy(&shown.stderr).into_owned();
    assert!(said.contains("; commands of http may wait in the broker"), "{said}");
}
