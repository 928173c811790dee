//! `paybus list`: finds payments for an operator who has no payment id.

use std::process::Output;

use serde_json::{Value, json};
use uuid::Uuid;

use paybus::store::query::find::{Bounds, Search};

use crate::support::{Behaviour, Command, Setup, World};

async fn run(world: &World, arguments: &[&str]) -> Output {
    world.paybus(&[&["list"], arguments].concat()).await
}

/// Its output for people.
async fn text(world: &World, arguments: &[&str]) -> String {
    let output = run(world, arguments).await;
    assert!(output.status.success(), "{output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Its output for scripts: what was found, and the last line.
async fn list(world: &World, arguments: &[&str]) -> (Vec<Value>, Value) {
    let text = text(world, &[arguments, &["--json"]].concat()).await;
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let last = lines.pop().expect("a last line");
    (lines, last["summary"].clone())
}

fn ids(found: &[Value]) -> Vec<Uuid> {
    found.iter().map(|found| found["payment"].as_str().expect("an id").parse().expect("a UUID")).collect()
}

/// All pages; `between` runs after each.
async fn pages(world: &World, arguments: &[&str], mut between: impl AsyncFnMut()) -> Vec<Uuid> {
    let mut all = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let go_on: Vec<&str> = after.iter().flat_map(|after| ["--after", after.as_str()]).collect();
        let (found, summary) = list(world, &[arguments, &go_on[..]].concat()).await;
        all.extend(ids(&found));
        match summary["after"].as_str() {
            Some(next) => after = Some(next.to_owned()),
            None => return all,
        }
        between().await;
    }
}

#[tokio::test]
async fn unknown_outcomes_are_listed_with_the_money_at_risk() {
    let world = Setup::new()
        .set("variants.http.retry.delayed", "50ms,100ms")
        .set("variants.http.breaker.failures", "10000")
        .build()
        .await;
    let _worker = world.worker().await;
    let well = Command::charge("default", "7.00", "USD");
    world.run(&well).await;
    let lost = [Command::charge("http", "120.00", "USD"), Command::charge("http", "5.00", "EUR")];
    for charge in &lost {
        world.gateway.plan(charge.payment, vec![Behaviour::DropAfter]);
    }
    world.gateway.set_default(Some(Behaviour::Status(503, None)));
    world.publish_all(&lost).await;
    for charge in &lost {
        world.event("the escalation", |event| event.is_of(charge) && event.reason() == "escalated").await;
    }
    let mut expected: Vec<Uuid> = lost.iter().map(|charge| charge.payment).collect();
    expected.sort();
    for state in ["unknown", "escalated"] {
        let (found, summary) = list(&world, &["--state", state]).await;
        let mut listed = ids(&found);
        listed.sort();
        assert_eq!(listed, expected, "{state}");
        assert_eq!(summary["unknown"], json!({"count": 2, "amounts": {"EUR": "5.00", "USD": "120.00"}}));
        for found in &found {
            let operation = &found["operation"];
            assert_eq!((&operation["type"], &operation["state"]), (&json!("payment.create"), &json!("unknown")));
            assert_eq!((&operation["escalated"], &operation["amount"]), (&json!(true), &found["total"]));
            assert!(operation["last_code"].is_string(), "{operation}");
        }
    }
    let output = text(&world, &["--state", "unknown"]).await;
    assert!(output.contains("at risk: 5.00 EUR, 120.00 USD (2 unknown outcomes)"), "{output}");
    assert!(output.contains("unknown, escalated for ") && output.contains("2 operations"), "{output}");
    assert!(text(&world, &["--state", "unknown", "--variant", "default"]).await.starts_with("nothing found"));
    assert_eq!(ids(&list(&world, &["--state", "open"]).await.0).len(), 2);

    world.gateway.set_default(None);
    world.final_events(&lost).await;
    assert!(list(&world, &["--state", "unknown"]).await.0.is_empty(), "what is known is not listed");
    world.check_books().await;
}

#[tokio::test]
async fn retries_and_the_commands_behind_them_are_listed_separately() {
    let world = Setup::new()
        .set("variants.http.retry.delayed", "1h")
        .set("variants.http.breaker.failures", "10000")
        .build()
        .await;
    let _worker = world.worker().await;
    world.gateway.set_default(Some(Behaviour::Status(429, None)));
    let charges: Vec<Command> = (0..5).map(|_| Command::charge("http", "50.00", "EUR")).collect();
    for charge in &charges {
        world.publish(charge).await;
        world.operation_state(charge, "scheduled").await;
    }
    let refund = charges[0].then("payment.refund", json!({"amount": "20.00"}));
    world.publish(&refund).await;
    world.operation_state(&refund, "waiting").await;

    let (found, summary) = list(&world, &["--state", "scheduled", "--limit", "1"]).await;
    assert_eq!(ids(&found), [charges[0].payment], "the oldest first");
    assert!(summary["after"].is_string(), "{summary}");
    let operation = &found[0]["operation"];
    assert_eq!((&operation["last_code"], operation["due_at"].is_string()), (&json!("rate_limited"), true));
    let output = text(&world, &["--state", "scheduled"]).await;
    assert!(output.contains("5 operations") && output.contains("http: 5 rate_limited"), "{output}");
    assert!(output.contains("; next in ") && !output.contains("at risk"), "{output}");

    let (found, _) = list(&world, &["--state", "waiting"]).await;
    assert_eq!(ids(&found), [refund.payment]);
    assert_eq!(found[0]["operation"]["id"], refund.operation_id().to_string());
    // For payments in general, it says what holds them up.
    let (found, _) = list(&world, &["--state", "open"]).await;
    assert_eq!(found.len(), 5);
    assert!(found.iter().all(|found| found["operation"]["state"] == "scheduled"), "{found:?}");
    assert!(list(&world, &["--state", "calling"]).await.0.is_empty());

    // More of them appear while the pages are read.
    let seen = pages(&world, &["--state", "scheduled", "--limit", "2"], async || {
        let more = Command::charge("http", "1.00", "EUR");
        if world.published().len() < 8 {
            world.publish(&more).await;
            world.operation_state(&more, "scheduled").await;
        }
    })
    .await;
    let published = world.published();
    let charged = published.iter().filter(|command| command.kind == "payment.create");
    assert_eq!(seen, charged.map(|charge| charge.payment).collect::<Vec<_>>());

    world.gateway.set_default(None);
    world.query("UPDATE operations SET due_at = now() WHERE due_at IS NOT NULL", &[]).await;
    world.final_events(&published).await;
    world.check_books().await;
}

#[tokio::test]
async fn a_payment_is_found_by_its_order_its_reference_and_its_customer() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let order = |number: &str, email: &str| {
        Command::charge("http", "120.00", "USD")
            .with("metadata", json!({"order": number}))
            .with("billing_email", json!(email))
            .with("billing_last_name", json!("Holmes"))
    };
    let wanted = order("1021", "S.Holmes@example.org");
    let other = order("102", "watson@example.org");
    for charge in [&other, &wanted] {
        assert_eq!(world.run(charge).await.status(), "confirmed");
    }
    world.run(&wanted.then("payment.refund", json!({"amount": "20.00"}))).await;
    let references = "SELECT transaction_id FROM payments WHERE id = $1
         UNION SELECT coalesce(gateway_reference, reference) FROM movements WHERE payment_id = $1";
    let references = world.query(references, &[&wanted.payment]).await;
    let references: Vec<String> = references.iter().map(|row| row.get(0)).collect();
    assert!(references.len() > 1, "{references:?}");

    let mut searches = vec![vec!["--metadata", "order=1021"], vec!["--email", "s.holmes@EXAMPLE.org"]];
    searches.extend(references.iter().map(|reference| vec!["--reference", reference.as_str()]));
    let all_at_once = "--email s.holmes@example.org --status confirmed --variant http --since 1h";
    searches.push(all_at_once.split(' ').collect());
    for search in &searches {
        let (found, summary) = list(&world, search).await;
        assert_eq!(ids(&found), [wanted.payment], "{search:?}");
        assert_eq!((&found[0]["captured_amount"], &found[0]["refunded_amount"]), (&json!("100.00"), &json!("20.00")));
        assert_eq!((&found[0]["operation"], &summary["after"]), (&Value::Null, &Value::Null));
        let output = text(&world, search).await;
        assert!(
            output.contains("120.00 USD") && output.contains("order 1021") && output.contains("1 payment"),
            "{output}"
        );
        let personal = output.to_lowercase() + &found[0].to_string().to_lowercase();
        assert!(!personal.contains("holmes"), "the list shows no customer data: {personal}");
    }
    for search in [
        ["--metadata", "order=10"],
        ["--metadata", "wish=1021"],
        ["--reference", "102"],
        ["--email", "holmes@example.org"],
        ["--status", "rejected"],
        ["--until", "1h"],
        ["--state", "open"],
    ] {
        assert!(list(&world, &search).await.0.is_empty(), "{search:?}");
    }
    world.check_books().await;
}

#[tokio::test]
async fn wrong_arguments_are_answered_with_the_right_ones() {
    let world = World::new().await;
    for (arguments, answer) in [
        (["--metadata", "1021"], "order=1021"),
        (["--state", "confirmed"], "--status confirmed"),
        (["--after", "17,http"], "another --state"),
    ] {
        let output = run(&world, &arguments).await;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(answer), "{said}");
    }
    let output = text(&world, &["--variant", "htp"]).await;
    assert!(output.contains("variant htp is not configured here; configured: default, http"), "{output}");
}

#[tokio::test]
async fn pages_have_no_gap_and_no_repeat_while_payments_are_added() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let creates: Vec<Command> = (0..25).map(|_| Command::create("http", "1.00", "EUR")).collect();
    world.publish_all(&creates).await;
    world.final_events(&creates).await;
    let mut seen = pages(&world, &["--limit", "7"], async || {
        let more: Vec<Command> = (0..3).map(|_| Command::create("http", "2.00", "EUR")).collect();
        world.publish_all(&more).await;
        world.final_events(&more).await;
    })
    .await;
    let mut expected: Vec<Uuid> = creates.iter().map(|create| create.payment).collect();
    expected.sort();
    seen.sort();
    assert_eq!(seen, expected);
    world.check_books().await;
}

#[tokio::test]
async fn a_search_without_an_index_stops_in_time_and_can_be_continued() {
    let world = World::new().await;
    let worker = world.worker().await;
    let old = Command::create("http", "1.00", "EUR").with("metadata", json!({"order": "1"}));
    world.run(&old).await;
    worker.drain().await;
    let copies = "INSERT INTO payments SELECT (jsonb_populate_record(p, jsonb_build_object('id', gen_random_uuid(),
             'created', p.created + number * interval '1 ms', 'metadata', '{}'::jsonb))).*
         FROM payments p, generate_series(1, 300) number WHERE p.id = $1";
    world.query(copies, &[&old.payment]).await;
    let store = world.store().await;
    let search = Search { metadata: Some(("order".to_owned(), "1".to_owned())), ..Search::default() };
    let (mut after, mut looked_at, mut found) = (None, Vec::new(), Vec::new());
    loop {
        let listing = store.find(&search, after, Bounds { found: 10, looked_at: 120 }).await.expect("a listing");
        looked_at.push(listing.looked_at);
        found.extend(listing.found.into_iter().map(|found| found.payment_id));
        after = listing.after;
        if after.is_none() {
            break;
        }
    }
    assert_eq!((looked_at, found), (vec![120, 120, 61], vec![old.payment]));
}
