//! The database's plans: a worker that began on an empty database must not keep plans that fit an empty one, or every
//! command would read whole tables after a while.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use crate::support::wait::within;
use crate::support::{Command, Setup, World};

const PAYMENTS: usize = 20_000;

/// The tables that grow.
const TABLES: [&str; 5] = ["payments", "operations", "movements", "events", "sent"];

/// Parts of the statements that are carried out for every command, and that must not read a whole table.
const STATEMENTS: [&str; 9] = [
    "payment_insert AS",
    "payment_update AS",
    "FROM payments WHERE id = ANY",
    "FROM operations WHERE payment_id = ANY",
    "FROM movements WHERE payment_id = ANY",
    "FROM events e WHERE e.payment_id = ANY",
    "INSERT INTO sent",
    "UPDATE operations SET attempts",
    "WITH due AS",
];

#[tokio::test]
async fn no_plan_reads_whole_tables_once_they_are_full() {
    let Ok(data) = std::env::var("PAYBUS_TEST_PGDATA") else {
        println!("skipped: PAYBUS_TEST_PGDATA is not set; run it by scripts/with-services with a private PostgreSQL");
        return;
    };
    let log = PathBuf::from(data).with_file_name("postgres.log");
    let world = Setup::new().alone().set("variants.http.concurrency", "32").build().await;
    // No statistics but what the statements see: as on a database that nobody has analyzed yet.
    for table in TABLES {
        world.query(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"), &[]).await;
    }
    let database = world.settings()["database.url"].rsplit_once('/').expect("a database").1;
    world.query(&format!("ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain'"), &[]).await;
    let _worker = world.worker().await;
    let creates: Vec<Command> = (0..PAYMENTS).map(|_| Command::create("default", "10.00", "EUR")).collect();
    for some in creates.chunks(2_000) {
        world.publish_all(some).await;
    }
    settled(&world, PAYMENTS).await;

    explain(&world, "0").await;
    let before = std::fs::metadata(&log).expect("PostgreSQL's log").len();
    let charges: Vec<Command> = (0..50).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    let refunds: Vec<Command> = charges.iter().map(|charge| charge.then("payment.refund", json!({}))).collect();
    world.publish_all(&charges).await;
    world.publish_all(&refunds).await;
    settled(&world, PAYMENTS + 100).await;
    explain(&world, "-1").await;

    let text = std::fs::read(&log).expect("PostgreSQL's log");
    let text = String::from_utf8_lossy(&text[usize::try_from(before).unwrap()..]).into_owned();
    let mut seen = [0; STATEMENTS.len()];
    for entry in entries(&text) {
        let Some(statement) = STATEMENTS.iter().position(|part| entry.contains(part)) else { continue };
        seen[statement] += 1;
        for table in TABLES {
            assert!(!entry.contains(&format!("Seq Scan on {table}")), "a statement reads all {table}:\n{entry}");
        }
    }
    println!("plans seen: {:?}", STATEMENTS.iter().zip(seen).collect::<Vec<_>>());
    for part in [1, 2, 3, 4, 5, 6] {
        assert!(seen[part] > 0, "no plan of {:?} was seen", STATEMENTS[part]);
    }
    world.check_books().await;
}

async fn settled(world: &World, count: usize) {
    within(Duration::from_secs(180), "all commands to be settled", async || {
        let settled: i64 = world.value("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
        if settled == count as i64 { Ok(()) } else { Err(format!("{settled} of {count}")) }
    })
    .await;
}

/// Has the plans of all statements written into the log, from this duration on.
async fn explain(world: &World, milliseconds: &str) {
    world.query("LOAD 'auto_explain'", &[]).await;
    world.query(&format!("ALTER SYSTEM SET auto_explain.log_min_duration = {milliseconds}"), &[]).await;
    world.query("SELECT pg_reload_conf()", &[]).await;
    within(Duration::from_secs(10), "the setting", async || {
        let now: String = world.value("SHOW auto_explain.log_min_duration", &[]).await;
        if now == milliseconds { Ok(()) } else { Err(now) }
    })
    .await;
}

/// The entries of the log: each begins with its time, its further lines with a tab.
fn entries(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in text.lines() {
        match entries.last_mut() {
            Some(last) if line.starts_with('\t') => {
                last.push('\n');
                last.push_str(line);
            }
            _ => entries.push(line.to_owned()),
        }
    }
    entries
}
