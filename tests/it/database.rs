//! A database with problems: read-only after a failover, with rows that somebody else has locked, restored without its
//! sequences, with a full disk, or unreachable.

use std::time::Duration;

use serde_json::json;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::gate::Gate;
use crate::support::wait::within;
use crate::support::{Command, Setup, Worker, WorkerSetup, World};

/// How long a worker may take to notice and report it; it queries its database every few seconds.
const NOTICED: Duration = Duration::from_secs(20);

async fn is_not_ready(worker: &Worker, why: &str) {
    within(NOTICED, why, async || {
        let (status, body) = worker.get("/readyz").await?;
        if status == 503 && body.contains(why) { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
}

/// One worker connects to no read-only server; the other one may connect to any server, but keeps no such connection.
#[tokio::test]
async fn a_read_only_server_is_reported_and_left_without_a_restart() {
    let world = Setup::new().expects_relay().expects_takeovers().build().await;
    let url = &world.settings()["database.url"];
    let any = format!("{url}{}target_session_attrs=any", if url.contains('?') { "&" } else { "?" });
    // Existing connections can still write.
    let writer = world.sql_client().await.expect("a connection");
    let picky = world.worker().await;
    let any = world.worker_with(WorkerSetup::default().set("database.url", &any)).await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");

    let alter = |what: &str| format!("ALTER DATABASE {} {what}", world.bus.prefix);
    writer.batch_execute(&alter("SET default_transaction_read_only = on")).await.expect("the owner");
    let terminate = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
         WHERE datname = current_database() AND application_name = 'paybus'";
    writer.batch_execute(terminate).await.expect("a superuser");
    is_not_ready(&picky, "does not allow writes").await;
    is_not_ready(&any, "accepts no writes").await;

    let charges: Vec<Command> = (0..10).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    writer.batch_execute(&alter("RESET default_transaction_read_only")).await.expect("the owner");
    for answer in world.final_events(&charges).await {
        assert_eq!(answer.status(), "confirmed", "{}", answer.line());
    }
    picky.ready().await;
    any.ready().await;
    world.check_books().await;
}

#[tokio::test]
async fn locked_rows_block_only_their_own_payments() {
    // A lease keeps running while its commit waits in a batch with a locked payment.
    let world = Setup::new().expects_takeovers().build().await;
    let _worker = world.worker().await;
    let locked: Vec<Command> = (0..4).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&locked).await;
    world.final_events(&locked).await;
    let mut sql = world.sql_client().await.expect("a connection");
    let somebody = sql.transaction().await.expect("a transaction");
    let payments: Vec<Uuid> = locked.iter().map(|charge| charge.payment).collect();
    let lock = "SELECT id FROM payments WHERE id = ANY($1) FOR UPDATE";
    assert_eq!(somebody.query(lock, &[&payments]).await.expect("rows").len(), locked.len());

    let refunds: Vec<Command> = locked.iter().map(|charge| charge.then("payment.refund", json!({}))).collect();
    // The first ones share a batch with the locked rows; the later ones overtake those that are known to be locked.
    for seconds in [10, 5] {
        let others: Vec<Command> = (0..30).map(|_| Command::charge("http", "10.00", "EUR")).collect();
        if seconds == 10 {
            world.publish_all(&refunds).await;
        }
        world.publish_all(&others).await;
        let answers = timeout(Duration::from_secs(seconds), world.final_events(&others)).await;
        for answer in answers.expect("the others are answered meanwhile") {
            assert_eq!(answer.status(), "confirmed", "{}", answer.line());
        }
    }
    let early = world.log.find(|event| event.is_final() && refunds.iter().any(|refund| event.is_of(refund)));
    assert!(early.is_none(), "a locked payment was changed");
    somebody.rollback().await.expect("the end");
    for answer in world.final_events(&refunds).await {
        assert_eq!(answer.status(), "refunded", "{}", answer.line());
    }
    world.check_books().await;
}

/// As after a cut-over by logical replication: the rows are there, but their sequences start from the beginning.
#[tokio::test]
async fn sequences_that_were_left_behind_stop_the_start_until_they_are_moved() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charges: Vec<Command> = (0..5).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    worker.drain().await;
    for (table, column) in [("paybus.events", "position"), ("paybus.operations", "accepted")] {
        world.query("SELECT setval(pg_get_serial_sequence($1, $2)::regclass, 1)", &[&table, &column]).await;
    }

    let worker = world.spawn_worker(WorkerSetup::default());
    is_not_ready(&worker, "run `paybus migrate`").await;
    let (code, said) = run(&world, &["check"]).await;
    assert_ne!(code, Some(0), "{said}");
    assert!(said.contains("events.position") && said.contains("run `paybus migrate`"), "{said}");

    let (code, said) = run(&world, &["migrate", "--only", "database"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("sequence of events.position"), "{said}");
    assert!(said.contains("sequence of operations.accepted"), "{said}");
    let (_, said) = run(&world, &["migrate", "--only", "database"]).await;
    assert!(said.contains("up to date"), "{said}");
    worker.ready().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    let twice: i64 = world.value("SELECT count(*) - count(DISTINCT position) FROM events", &[]).await;
    assert_eq!(twice, 0, "positions that were given twice");
    world.check_books().await;
}

/// As with a full disk: every query is answered, and nothing is stored.
#[tokio::test]
async fn a_database_that_stores_nothing_is_reported_although_it_can_be_read() {
    let world = World::new().await;
    let worker = world.worker().await;
    let owner = world.sql_client().await.expect("a connection");
    let full = "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE EXCEPTION 'could not extend file' USING ERRCODE = 'disk_full'; END $$;
         CREATE TRIGGER full_disk BEFORE INSERT ON payments FOR EACH ROW EXECUTE FUNCTION full_disk()";
    owner.batch_execute(full).await.expect("the owner");
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    is_not_ready(&worker, "commits: no commit for ").await;
    assert!(worker.metric("paybus_commits_stalled_seconds").await >= 10.0);
    owner.batch_execute("DROP TRIGGER full_disk ON payments; DROP FUNCTION full_disk").await.expect("the owner");
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    worker.ready().await;
    assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    world.check_books().await;
}

/// Messages that a worker has prefetched do not wait for its database if another worker can reach one.
#[tokio::test]
async fn a_worker_without_its_database_leaves_its_messages_to_another() {
    let world = World::new().await;
    let gate = Gate::closed(&world.settings()["database.url"]).await;
    gate.open();
    let cut_off = world.worker_with(WorkerSetup::default().set("database.url", gate.url())).await;
    gate.close();
    let charges: Vec<Command> = (0..10).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    within(NOTICED, "all of them to be fetched", async || match world.bus.length("commands.http").await {
        0 => Ok(()),
        left => Err(left),
    })
    .await;
    let other = world.worker().await;
    within(Duration::from_secs(40), "the other one to carry them out", async || {
        let settled: i64 = world.value("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
        if settled == 10 { Ok(()) } else { Err(format!("{settled} are settled")) }
    })
    .await;
    world.final_events(&charges).await;
    assert_eq!(cut_off.get("/readyz").await.expect("it answers").0, 503);
    gate.open();
    cut_off.ready().await;
    other.drain().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed", "it fetches again");
    for charge in &charges {
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    }
    world.check_books().await;
}

/// Runs `paybus` with these arguments; returns its exit code and all its output.
async fn run(world: &World, arguments: &[&str]) -> (Option<i32>, String) {
    let ran = world.paybus(arguments).await;
    let said = [ran.stdout, ran.stderr].concat();
    (ran.status.code(), String::from_utf8_lossy(&said).into_owned())
}
