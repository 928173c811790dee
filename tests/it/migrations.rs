//! The schema changes while workers use it, and workers wait for the schema that they need.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use paybus::store::schema::migrate::carry_out;
use paybus::store::schema::{Change, STEPS, Step};

use crate::support::wait::within;
use crate::support::worker::paybus;
use crate::support::{Command, Setup, Worker, WorkerSetup, World, eventually};

/// What a later release could contain: it adds columns, fills them in, and builds indexes.
fn next_release(changes: Vec<Change>) -> Vec<Step> {
    let next = changes.into_iter().zip(STEPS.len() + 1..);
    let next = next.map(|(change, number)| Step { number: number as i32, name: "next", needs: 0, change });
    STEPS.iter().cloned().chain(next).collect()
}

/// Waits until `/readyz` has this status and text.
async fn says(worker: &Worker, status: u16, text: &str) {
    eventually("the expected answer of /readyz", async || {
        let (code, why) = worker.get("/readyz").await?;
        if code == status && why.contains(text) { Ok(()) } else { Err(format!("{code} {why}")) }
    })
    .await;
}

fn migrate(world: &World) -> std::process::Output {
    paybus(world.settings()).args(["migrate", "--only", "database"]).output().expect("paybus migrate")
}

/// Workers and migrations may be started in any order.
#[tokio::test]
async fn a_worker_waits_for_its_schema() {
    let world = World::new().await;
    world.query("DROP SCHEMA paybus CASCADE", &[]).await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.publish(&charge).await;
    let worker = world.spawn_worker(WorkerSetup::default());
    says(&worker, 503, "database: the database schema is missing; run `paybus migrate`").await;
    assert_eq!(worker.get("/livez").await.expect("it answers").0, 200, "or it would be restarted in vain");
    let migrated = migrate(&world);
    assert!(migrated.status.success(), "{migrated:?}");
    says(&worker, 200, "ready").await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    world.check_books().await;
}

/// After a backup was restored, tables and types have other numbers than those that open connections know.
#[tokio::test]
async fn a_schema_that_was_made_anew_is_worked_on() {
    let world = World::new().await;
    let _worker = world.worker().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    world.make_schema_anew().await;
    for _ in 0..4 {
        assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    }
}

/// Workers accept the schema of a later release, unless it says that it needs that release.
#[tokio::test]
async fn a_later_schema_is_accepted_unless_it_needs_a_later_worker() {
    let world = World::new().await;
    let add = "INSERT INTO migrations (number, name, hash, needs) VALUES ($1, 'later', '', $2)";
    world.query(add, &[&100_i32, &1_i32]).await;
    let worker = world.worker().await;
    assert_eq!(world.run(&Command::charge("http", "10.00", "EUR")).await.status(), "confirmed");
    worker.drain().await;
    world.query(add, &[&101_i32, &100_i32]).await;
    let worker = world.spawn_worker(WorkerSetup::default());
    says(&worker, 503, "schema is at step 101, which needs a newer paybus").await;
    let checked = paybus(world.settings()).arg("check").output().expect("paybus check");
    let said = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(!checked.status.success() && said.contains("needs a newer paybus"), "{said}");
    // Asked to stop while it waits, it stops.
    worker.drain().await;
}

/// The worker of this release plays the earlier one: the next release's steps run while it works, and a reader that
/// holds a table lock for seconds is in their way.
#[tokio::test]
async fn the_next_schema_comes_while_workers_are_at_work() {
    // A commit may wait for the locks longer than its lease lasts.
    let world = Setup::new().expects_takeovers().build().await;
    let _workers = [world.worker().await, world.worker().await];
    world.gateway.set_latency(Duration::from_millis(10));
    let steps = next_release(vec![
        Change::Statements(
            "ALTER TABLE payments ADD COLUMN loyalty text NOT NULL DEFAULT 'none', ADD COLUMN shop text;
             CREATE TABLE shops (name text PRIMARY KEY);",
        ),
        Change::Backfill(
            "UPDATE payments SET shop = 'first' WHERE id IN (
                 SELECT id FROM payments WHERE shop IS NULL AND created < now() - interval '2 seconds' LIMIT 5)",
        ),
        Change::Index {
            name: "payments_shop",
            create: "CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_shop ON payments (shop)",
        },
    ]);
    let reader = world.sql_client().await.expect("a connection");
    reader.batch_execute("BEGIN; SELECT count(*) FROM payments").await.expect("a lock that is kept");
    let over = AtomicBool::new(false);
    let publishing = async {
        let mut all = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let charges: Vec<Command> = (0..4).map(|_| Command::charge("http", "10.00", "EUR")).collect();
            world.publish_all(&charges).await;
            all.extend(charges);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        all
    };
    let settled = async || world.value::<i64>("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
    let migrating = async {
        let store = world.store().await;
        let migrating = tokio::spawn(async move { carry_out(&store, &steps).await });
        // The migration requests its lock in vain. Statements after it wait too, but only as long as it requests the
        // lock.
        eventually("the migration to wait", async || {
            let waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'ALTER%'
                 AND datname = current_database()";
            if world.value::<i64>(waiting, &[]).await > 0 { Ok(()) } else { Err("it does not") }
        })
        .await;
        let before = settled().await;
        within(Duration::from_secs(20), "commands to go on while it waits", async || {
            let now = settled().await;
            if now > before + 40 { Ok(()) } else { Err(format!("{now}, before were {before}")) }
        })
        .await;
        assert!(!migrating.is_finished(), "the reader still keeps its lock");
        reader.batch_execute("COMMIT").await.expect("the end");
        let done = migrating.await.expect("it ran").expect("it is migrated");
        over.store(true, Ordering::Relaxed);
        done
    };
    let (commands, done) = tokio::join!(publishing, migrating);
    assert_eq!(done.len(), 3, "{done:?}");
    for answer in world.final_events(&commands).await {
        assert_eq!(answer.status(), "confirmed");
    }
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'payments_shop'::regclass";
    assert!(world.value::<bool>(valid, &[]).await);
    // Of the rows that were old enough at its last batch, a moment before it is recorded as done.
    let left = "SELECT count(*) FROM payments WHERE shop IS NULL
         AND created < (SELECT at - interval '3 seconds' FROM migrations WHERE number = $1)";
    let number = STEPS.len() as i32 + 2;
    assert_eq!(world.value::<i64>(left, &[&number]).await, 0, "all rows that existed are filled in");
    // A worker that starts now accepts the schema.
    let _later = world.worker().await;
    world.check_books().await;
}

/// A migration that is interrupted while it builds an index leaves one that is never used.
#[tokio::test]
async fn an_index_that_was_left_half_made_is_made_again() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for _ in 0..2 {
        world.run(&Command::charge("http", "10.00", "EUR")).await;
    }
    let twice = "CREATE UNIQUE INDEX CONCURRENTLY payments_currency ON payments (currency)";
    let client = world.sql_client().await.expect("a connection");
    client.batch_execute(twice).await.expect_err("two payments have the same one");
    let valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'payments_currency'::regclass";
    assert!(!world.value::<bool>(valid, &[]).await);
    let create = "CREATE INDEX CONCURRENTLY IF NOT EXISTS payments_currency ON payments (currency)";
    let steps = next_release(vec![Change::Index { name: "payments_currency", create }]);
    let store = world.store().await;
    // Two at once: one does it, and the other finds it done.
    let (one, other) = tokio::join!(carry_out(&store, &steps), carry_out(&store, &steps));
    let mut done = [one.expect("migrated").len(), other.expect("migrated").len()];
    done.sort_unstable();
    assert_eq!(done, [0, 1]);
    assert!(world.value::<bool>(valid, &[]).await);
}

/// A step that was changed after it was carried out is a different step.
#[tokio::test]
async fn a_step_that_was_changed_is_refused() {
    let world = World::new().await;
    let store = world.store().await;
    let first = next_release(vec![Change::Statements("CREATE TABLE one (id int)")]);
    let other = next_release(vec![Change::Statements("CREATE TABLE two (id int)")]);
    carry_out(&store, &first).await.expect("migrated");
    let error = carry_out(&store, &other).await.expect_err("it differs").to_string();
    assert!(error.contains("changed at migration"), "{error}");
}
