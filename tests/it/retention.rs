//! Settled, old data leaves the database: `paybus archive`, `paybus export`, and what a worker deletes.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command as Program, Stdio};

use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::worker::{output_of, paybus};
use crate::support::{Behaviour, Command, World, eventually};

/// Makes these payments look as if nothing had happened to them for 400 days, with all events marked as sent.
pub async fn age(world: &World, payments: &[Uuid]) {
    world.events_are_marked().await;
    for sql in [
        "UPDATE payments SET created = created - interval '400 days', modified = modified - interval '400 days'
         WHERE id = ANY($1)",
        "UPDATE operations SET stored = stored - interval '400 days', settled_at = settled_at - interval '400 days'
         WHERE payment_id = ANY($1)",
    ] {
        world.query(sql, &[&payments]).await;
    }
}

/// A file for this test; it does not exist yet.
pub fn file(world: &World, name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.jsonl", world.bus.prefix))
}

fn archiving(world: &World, to: &Path) -> Program {
    let mut command = paybus(world.settings());
    command.args(["archive", "--before", "30d", "--yes", "--who", "test", "--json", "--to"]).arg(to);
    command
}

/// The counts that a successful archive reports.
async fn counts(command: Program) -> Value {
    let output = output_of(command).await;
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice::<Value>(&output.stdout).expect("JSON")["counts"].clone()
}

fn lines(text: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(text).lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The contents of a file, which is deleted.
fn taken(path: &Path) -> Vec<Value> {
    let documents = lines(&std::fs::read(path).expect("the file"));
    std::fs::remove_file(path).expect("it goes");
    documents
}

fn ids(documents: &[Value]) -> BTreeSet<Uuid> {
    let ids = documents.iter().filter_map(|document| document["payment"]["id"].as_str());
    ids.map(|id| id.parse().expect("an id")).collect()
}

async fn archived(world: &World) -> BTreeSet<Uuid> {
    let rows = world.query("SELECT id FROM payments WHERE archived_at IS NOT NULL", &[]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

/// How many operations, movements, events and marks there are.
async fn rows(world: &World) -> Vec<i64> {
    let counted = ["operations", "movements", "events", "sent"];
    let mut counts = Vec::new();
    for table in counted {
        counts.push(world.value(&format!("SELECT count(*) FROM {table}"), &[]).await);
    }
    counts
}

#[tokio::test]
async fn only_old_settled_payments_are_archived() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = || Command::charge("http", "50.00", "USD");
    let paid = charge();
    world.run(&paid).await;
    world.run(&paid.then("payment.refund", json!({"amount": "10.00"}))).await;
    let declined = charge();
    world.gateway.plan(declined.payment, vec![Behaviour::Decline("no".to_owned())]);
    world.run(&declined).await;
    let cancelled = Command::create("http", "5.00", "EUR");
    world.run(&cancelled).await;
    world.run(&cancelled.then("payment.cancel", json!({}))).await;

    let held = charge().with("capture", json!(false));
    let waiting = Command::create("default", "5.00", "EUR");
    let (open, unsent, aside, asked, young) = (charge(), charge(), charge(), charge(), charge());
    for command in [&held, &waiting, &open, &unsent, &aside, &asked, &young] {
        world.run(command).await;
    }
    world.gateway.plan(open.payment, vec![Behaviour::Pending]);
    let refund = open.then("payment.refund", json!({}));
    world.publish(&refund).await;
    world.operation_state(&refund, "pending").await;
    let old = [&paid, &declined, &cancelled, &held, &waiting, &open, &unsent, &aside, &asked].map(|it| it.payment);
    age(&world, &old).await;
    world.run(&asked.then("payment.snapshot", json!({}))).await;
    // Otherwise the worker would find and send what looks unsent.
    worker.stop();
    worker.stopped().await;
    let set_aside = "INSERT INTO set_aside SELECT payment_id, min(position), 'test', now() FROM events
         WHERE payment_id = $1 GROUP BY payment_id";
    world.query(set_aside, &[&aside.payment]).await;
    let of_unsent = "SELECT max(position) FROM events WHERE payment_id = $1";
    let position: i64 = world.value(of_unsent, &[&unsent.payment]).await;
    world.query("DELETE FROM sent WHERE position = $1", &[&position]).await;
    let audit = "INSERT INTO audit VALUES (now() - interval '400 days', 'ada', 'dead.drop', '{}')";
    world.query(audit, &[]).await;

    let mut young_ones = paybus(world.settings());
    young_ones.args(["archive", "--before", "23h"]);
    assert_eq!(output_of(young_ones).await.status.code(), Some(2), "their commands may still be in the broker");
    let mut dry = paybus(world.settings());
    dry.args(["archive", "--before", "30d", "--json"]);
    assert_eq!(counts(dry).await, json!({"looked_at": 9, "settled": 3, "archived": 0, "audit": 0}));
    assert_eq!(archived(&world).await, BTreeSet::new());

    let path = file(&world, "settled");
    let mut archiving = archiving(&world, &path);
    archiving.arg("--audit");
    assert_eq!(counts(archiving).await, json!({"looked_at": 9, "settled": 3, "archived": 3, "audit": 1}));
    let expected = BTreeSet::from([paid.payment, declined.payment, cancelled.payment]);
    let documents = taken(&path);
    assert_eq!((archived(&world).await, ids(&documents)), (expected.clone(), expected.clone()));
    let of_paid = documents.iter().find(|it| it["payment"]["id"] == json!(paid.payment)).expect("the payment");
    assert_eq!((&of_paid["payment"]["total"], &of_paid["payment"]["status"]), (&json!("50.00"), &json!("confirmed")));
    let list = |name: &str| of_paid[name].as_array().expect("a list").clone();
    assert_eq!((list("operations").len(), list("operations")[1]["amount"].clone()), (2, json!("10.00")));
    assert_eq!(list("movements").iter().map(|it| it["kind"].clone()).collect::<Vec<_>>(), ["captured", "refunded"]);
    let emitted = world.events_of(paid.payment);
    let bodies = list("events").iter().map(|event| event["body"].clone()).collect::<Vec<_>>();
    let bodies = bodies.iter().map(|body| serde_json::from_str::<Value>(body.as_str().unwrap()).unwrap());
    assert_eq!(bodies.collect::<Vec<_>>(), emitted.iter().map(|event| event.body.clone()).collect::<Vec<_>>());
    assert_eq!(documents.iter().filter(|it| it["audit"]["who"] == "ada").count(), 1);
    let who: Vec<String> = world.query("SELECT who FROM audit", &[]).await.iter().map(|row| row.get(0)).collect();
    assert_eq!(who, ["test"], "the archive is in the audit");

    let gone: Vec<Uuid> = expected.iter().copied().collect();
    for table in ["operations", "movements", "events"] {
        let left: i64 =
            world.value(&format!("SELECT count(*) FROM {table} WHERE payment_id = ANY($1)"), &[&gone]).await;
        assert_eq!(left, 0, "{table}");
    }
    let marks: i64 = world.value("SELECT count(*) - count(DISTINCT position) FROM sent", &[]).await;
    let orphans = "SELECT count(*) FROM sent s WHERE NOT EXISTS (SELECT FROM events e WHERE e.position = s.position)";
    assert_eq!((marks, world.value::<i64>(orphans, &[]).await), (0, 0), "marks are deleted with their events");

    world.query("DELETE FROM set_aside", &[]).await;
    world.query("INSERT INTO sent VALUES ($1, now())", &[&position]).await;
    worker.cont();

    // Payments that stay can be exported.
    let mut exporting = paybus(world.settings());
    exporting.args(["export", "--until", "30d", "--variant", "http"]);
    let exported = output_of(exporting).await;
    let stays = [&held, &open, &unsent, &aside, &asked].map(|it| it.payment);
    assert_eq!(ids(&lines(&exported.stdout)), BTreeSet::from(stays), "{exported:?}");
    let mut exporting = paybus(world.settings());
    exporting.args(["export", "--since", "30d"]);
    assert_eq!(ids(&lines(&output_of(exporting).await.stdout)), BTreeSet::from([young.payment]));
    let mut showing = paybus(world.settings());
    showing.args(["show", &paid.payment.to_string()]);
    assert!(String::from_utf8_lossy(&output_of(showing).await.stdout).contains("archived"));
    world.gateway.complete(open.payment, true);
    assert_eq!(world.final_event(&refund).await.status(), "refunded");
    world.check_books().await;
}

/// An archived payment is unknown: its process must not charge again when it is replayed from the dead letters.
#[tokio::test]
async fn nothing_is_charged_under_an_archived_id() {
    let world = World::new().await;
    let worker = world.worker().await;
    let (paid, declined) = (Command::charge("http", "50.00", "USD"), Command::charge("http", "50.00", "USD"));
    world.gateway.plan(declined.payment, vec![Behaviour::Decline("no".to_owned())]);
    for charge in [&paid, &declined] {
        world.run(charge).await;
    }
    let process = declined.then("payment.process", json!({"process": {}}));
    world.gateway.plan(declined.payment, vec![Behaviour::Decline("no".to_owned())]);
    world.run(&process).await;
    age(&world, &[paid.payment, declined.payment]).await;
    let path = file(&world, "charged");
    assert_eq!(counts(archiving(&world, &path)).await["archived"], 2);
    let calls = |payment| world.gateway.calls_of(payment).len();
    let before = (calls(paid.payment), calls(declined.payment));

    let mut commands = vec![paid.clone(), declined.clone(), process.clone()];
    for charge in [&paid, &declined] {
        commands.push(Command::charge("http", "50.00", "USD").payment(charge.payment));
        for (kind, data) in [
            ("payment.process", json!({"process": {}})),
            ("payment.capture", json!({})),
            ("payment.refund", json!({"amount": "1.00"})),
            ("payment.cancel", json!({})),
            ("payment.sync", json!({})),
            ("payment.snapshot", json!({})),
        ] {
            commands.push(charge.then(kind, data));
        }
    }
    for command in &commands {
        world.publish(command).await;
        let is_answer = |event: &crate::support::Event| event.is_of(command) && event.code() == "payment_archived";
        world.event(&format!("the rejection of {}", command.kind), is_answer).await;
    }
    assert_eq!((calls(paid.payment), calls(declined.payment)), before, "the gateway was not called");
    assert_eq!(archived(&world).await, BTreeSet::from([paid.payment, declined.payment]));
    worker.drain().await;

    // The rejections belong to no payment and are deleted when they are old, like a gateway's notifications.
    let other = Command::charge("default", "5.00", "EUR");
    let worker = world.worker().await;
    world.run(&other).await;
    let news = other.then("payment.sync", json!({}));
    world.run(&news).await;
    worker.drain().await;
    let as_news = "UPDATE operations SET command_type = 'payment.notification' WHERE id = $1";
    world.query(as_news, &[&news.operation_id()]).await;
    world.query("UPDATE operations SET stored = stored - interval '31 days'", &[]).await;
    let store = world.store().await;
    let month = store.clock().now() - SignedDuration::from_hours(30 * 24);
    let purged = store.purge_commands(month, 1_000).await.expect("old commands go");
    assert_eq!(purged.gone, commands.len() as u64 + 1);
    let left: Vec<Uuid> = world.query("SELECT id FROM operations", &[]).await.iter().map(|row| row.get(0)).collect();
    assert_eq!(left, [other.operation_id()], "a payment keeps the commands that created it");
    store.close();
    assert_eq!(taken(&path).len(), 2);
}

/// The archive has written its batch but not deleted it from the database yet.
#[tokio::test]
async fn a_refund_in_between_keeps_its_payment_in_the_database() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charges: Vec<Command> = (0..3).map(|_| Command::charge("http", "50.00", "USD")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    age(&world, &charges.iter().map(|charge| charge.payment).collect::<Vec<_>>()).await;
    let path = file(&world, "between");
    let mut archiving = archiving(&world, &path);
    archiving.env("PAYBUS_FAILPOINT", "kept").env("PAYBUS_FAILPOINT_ACTION", "stop");
    let child = archiving.stdout(Stdio::piped()).spawn().expect("it starts");
    let stat = format!("/proc/{}/stat", child.id());
    eventually("the archive to stop", async || {
        let stat = std::fs::read_to_string(&stat).map_err(|error| error.to_string())?;
        if stat.contains(") T ") { Ok(()) } else { Err(stat) }
    })
    .await;
    let refund = charges[0].then("payment.refund", json!({}));
    assert_eq!(world.run(&refund).await.status(), "refunded");
    let going_on = Program::new("kill").args(["-s", "CONT", &child.id().to_string()]).status();
    assert!(going_on.expect("kill").success());
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("no panic");
    let output = output.expect("it ended");
    assert!(output.status.success(), "{output:?}");
    let said: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(said["counts"], json!({"looked_at": 3, "settled": 3, "archived": 2, "audit": 0}));
    let gone = BTreeSet::from([charges[1].payment, charges[2].payment]);
    assert_eq!(archived(&world).await, gone);
    assert_eq!(ids(&taken(&path)).len(), 3);
    let late = charges[1].then("payment.refund", json!({}));
    assert_eq!(world.run(&late).await.code(), "payment_archived");
    world.check_books().await;
}

#[tokio::test]
async fn each_refund_beside_the_archive_is_made_or_rejected() {
    let world = World::new().await;
    let _workers = [world.worker().await, world.worker().await];
    let charges: Vec<Command> = (0..150).map(|_| Command::charge("http", "50.00", "USD")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    age(&world, &charges.iter().map(|charge| charge.payment).collect::<Vec<_>>()).await;
    let refunds: Vec<Command> = charges.iter().map(|charge| charge.then("payment.refund", json!({}))).collect();
    let path = file(&world, "beside");
    let (said, ()) = tokio::join!(counts(archiving(&world, &path)), world.publish_all(&refunds));
    let answers = world.final_events(&refunds).await;
    let archived = archived(&world).await;
    assert_eq!(said["archived"], json!(archived.len()));
    for (refund, answer) in refunds.iter().zip(&answers) {
        let refunded = world.gateway.effects(refund.payment).iter().filter(|effect| effect.kind == "refund").count();
        if archived.contains(&refund.payment) {
            assert_eq!((answer.code(), refunded), ("payment_archived", 0), "{}", answer.line());
        } else {
            assert_eq!((answer.status(), refunded), ("refunded", 1), "{}", answer.line());
        }
    }
    assert!(archived.is_subset(&ids(&taken(&path))), "everything deleted is in the file");
    world.check_books().await;
}

#[tokio::test]
async fn killing_archive_before_it_deletes_loses_nothing() {
    let world = World::new().await;
    let _worker = world.worker().await;
    let charges: Vec<Command> = (0..120).map(|_| Command::charge("default", "5.00", "EUR")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    let all: Vec<Uuid> = charges.iter().map(|charge| charge.payment).collect();
    age(&world, &all).await;
    let before = rows(&world).await;
    // While it is in its second batch.
    let first = file(&world, "first");
    let mut killed = archiving(&world, &first);
    killed.env("PAYBUS_FAILPOINT", "kept@2");
    assert!(!output_of(killed).await.status.success());
    let gone = archived(&world).await;
    assert_eq!(gone.len(), 100, "the first batch");
    let left = rows(&world).await;
    assert_eq!((before[0], left[0]), (120, 20));

    // An existing file is left unchanged.
    let refused = output_of(archiving(&world, &first)).await;
    assert!(!refused.status.success() && String::from_utf8_lossy(&refused.stderr).contains("exists"), "{refused:?}");
    let second = file(&world, "second");
    assert_eq!(counts(archiving(&world, &second)).await["archived"], 20);
    let (first, second) = (taken(&first), taken(&second));
    assert_eq!((first.len(), second.len()), (120, 20), "the second batch is in both");
    let kept: BTreeSet<Uuid> = ids(&first).union(&ids(&second)).copied().collect();
    assert_eq!(kept, all.iter().copied().collect());
    assert_eq!(rows(&world).await, [0, 0, 0, 0]);
    world.check_books().await;
}
