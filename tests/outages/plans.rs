//! The database's plans: a worker that began on an empty database must not keep plans for empty tables, or every
//! command would eventually read whole tables.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::support::skip::needed;
use crate::support::wait::within;
use crate::support::{Command, Setup, World};

/// The number of payments that go through the worker, and the number after each of them was copied.
const CARRIED_OUT: usize = 1_000;
const PAYMENTS: usize = 100_000;
/// The number of charges, each with a refund, and of refunds without a payment, whose plans are examined.
const SHOWN: usize = 50;

/// The tables that grow.
const TABLES: [&str; 5] = ["payments", "operations", "movements", "events", "sent"];

/// How many rows of such a table one node of a plan may read: more than any statement takes at a time, and a small part
/// of the table.
const READ_MAX: f64 = 20_000.0;

/// Parts of the statements that run for every command and must not read a whole table.
const HOT: [&str; 10] = [
    "payment_insert AS",
    "absent AS",
    "payment_update AS",
    "FROM payments WHERE id = ANY",
    "FROM operations WHERE payment_id = ANY",
    "FROM movements WHERE payment_id = ANY",
    "FROM events e WHERE e.payment_id = ANY",
    "INSERT INTO sent",
    "UPDATE operations SET attempts",
    "WITH due AS",
];

/// Parts of the statements that every replica repeats.
const AGAIN: [&str; 10] = [
    "RECURSIVE halves",
    "INSERT INTO overdue",
    "FROM overdue o",
    "AS confirmed FROM events e",
    "(SELECT count(*) FROM set_aside)",
    "GROUP BY p.gateway, p.account",
    "WITH span AS",
    "SET due_at = greatest(o.lease_until",
    "marks AS (DELETE FROM sent",
    "AS goes FROM next",
];

#[tokio::test]
async fn no_plan_reads_whole_tables_once_they_are_full() {
    let Some(data) = needed("PAYBUS_TEST_PGDATA") else { return };
    let log = PathBuf::from(data).with_file_name("postgres.log");
    let world = Setup::new().alone().set("variants.http.concurrency", "32").build().await;
    // No statistics except those that the statements see, as on a database without ANALYZE.
    for table in TABLES {
        world.query(&format!("ALTER TABLE {table} SET (autovacuum_enabled = off)"), &[]).await;
    }
    let database = world.settings()["database.url"].rsplit_once('/').expect("a database").1;
    world.query(&format!("ALTER DATABASE {database} SET session_preload_libraries = 'auto_explain'"), &[]).await;
    let worker = world.worker().await;
    let charges: Vec<Command> = (0..CARRIED_OUT).map(|_| Command::charge("default", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    settled(&world, CARRIED_OUT).await;
    let before = Plans::of(&world, &log).await;

    // One sweep over the full table, from an old watermark, is allowed; here it would look like one of many.
    worker.stop();
    copy_all(&world).await;
    look_at_all(&world).await;
    worker.cont();
    let full = Plans::of(&world, &log).await;
    full.read_no_whole_table();
    for table in TABLES {
        world.query(&format!("ANALYZE {table}"), &[]).await;
    }
    let analyzed = Plans::of(&world, &log).await;
    analyzed.read_no_whole_table();

    println!(
        "pages touched by {SHOWN} charges, refunds and lone refunds: {}, {}, {}",
        before.pages, full.pages, analyzed.pages
    );
    for later in [&full, &analyzed] {
        assert!(later.pages <= 2 * before.pages, "{} pages, previously {}", later.pages, before.pages);
        for part in HOT[..8].iter().chain(&AGAIN) {
            assert!(later.with(part).next().is_some(), "there is no plan of {part:?}");
        }
    }
}

/// The plans of everything that ran for a while, with their actual costs.
struct Plans {
    entries: Vec<String>,
    /// The number of pages that the statements of the commands touched.
    pages: u64,
}

impl Plans {
    /// Examines some commands, and what replicas repeat.
    async fn of(world: &World, log: &PathBuf) -> Plans {
        let stored: i64 = world.value("SELECT count(*) FROM operations", &[]).await;
        explain(world, "0").await;
        let begin = std::fs::metadata(log).expect("PostgreSQL's log").len();
        // Left by a lost worker, so that there is something to relay.
        world
            .query(
                "UPDATE events SET stored = now() - interval '1 hour' WHERE stored > now() - interval '1 minute'",
                &[],
            )
            .await;
        world.query(LOST, &[]).await;
        let charges: Vec<Command> = (0..SHOWN).map(|_| Command::charge("http", "10.00", "EUR")).collect();
        let refunds: Vec<Command> = charges.iter().map(|charge| charge.then("payment.refund", json!({}))).collect();
        world.publish_all(&charges).await;
        world.publish_all(&refunds).await;
        let lone = || Command::new("http", "payment.refund", Uuid::new_v4(), json!({}));
        let alone: Vec<Command> = (0..SHOWN).map(|_| lone()).collect();
        world.publish_all(&alone).await;
        settled(world, usize::try_from(stored).unwrap() + 3 * SHOWN).await;
        do_again(world).await;
        let entries = entries_since(log, begin);
        explain(world, "-1").await;
        let hot = entries.iter().filter(|entry| HOT.iter().any(|part| entry.contains(part)));
        let pages = hot.map(|entry| pages(entry)).sum();
        Plans { entries, pages }
    }

    fn with(&self, part: &'static str) -> impl Iterator<Item = &String> {
        self.entries.iter().filter(move |entry| entry.contains(part))
    }

    fn read_no_whole_table(&self) {
        for entry in HOT.iter().chain(&AGAIN).flat_map(|part| self.with(part)) {
            for node in entry.lines().filter(|line| line.contains("actual ")) {
                let Some(table) = TABLES.iter().find(|table| is_scan_of(node, table)) else { continue };
                assert!(!node.contains("Seq Scan"), "a statement reads all {table}:\n{entry}");
                assert!(rows(node) < READ_MAX, "a statement reads much of {table}:\n{entry}");
            }
            let removed = entry.lines().filter_map(|line| line.trim().strip_prefix("Rows Removed by Filter: "));
            let most = removed.filter_map(|count| count.parse::<f64>().ok()).fold(0.0, f64::max);
            assert!(most < READ_MAX, "a statement reads {most} rows for nothing:\n{entry}");
        }
    }
}

/// Some events that were not sent, old enough for the relay.
const LOST: &str = "INSERT INTO events (payment_id, id, event_type, routing_key, body, created, stored)
     SELECT payment_id, gen_random_uuid(), event_type, routing_key, body, created, now() - interval '1 minute'
     FROM events ORDER BY position DESC LIMIT 10";

async fn settled(world: &World, count: usize) {
    within(Duration::from_secs(180), "all commands to be settled", async || {
        let settled: i64 = world.value("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
        if settled == count as i64 { Ok(()) } else { Err(format!("{settled} of {count}")) }
    })
    .await;
}

/// Logs the plans of all statements that take at least this long.
async fn explain(world: &World, milliseconds: &str) {
    world.query("LOAD 'auto_explain'", &[]).await;
    for setting in ["log_analyze = on", "log_buffers = on", "log_timing = off"] {
        world.query(&format!("ALTER SYSTEM SET auto_explain.{setting}"), &[]).await;
    }
    world.query(&format!("ALTER SYSTEM SET auto_explain.log_min_duration = {milliseconds}"), &[]).await;
    world.query("SELECT pg_reload_conf()", &[]).await;
    within(Duration::from_secs(10), "the setting", async || {
        let now: String = world.value("SHOW auto_explain.log_min_duration", &[]).await;
        if now == milliseconds { Ok(()) } else { Err(now) }
    })
    .await;
}

/// Copies every row that the worker created until there are this many payments. All of them are finished, but so recent
/// that a commit of that time might still appear: they differ from new work only by having been scanned.
async fn copy_all(world: &World) {
    let mut sql = world.sql_client().await.expect("a connection");
    let transaction = sql.transaction().await.expect("a transaction");
    let copies = PAYMENTS / CARRIED_OUT - 1;
    for table in ["operations", "events"] {
        let all = format!("UPDATE {table} SET stored = now() - interval '90 seconds'");
        transaction.execute(&all, &[]).await.expect("all rows");
    }
    for table in ["payments", "operations", "movements", "events"] {
        let columns: String = transaction
            .query_one(
                "SELECT string_agg(column_name, ',') FROM information_schema.columns
                 WHERE table_schema = 'paybus' AND table_name = $1 AND is_identity = 'NO'",
                &[&table],
            )
            .await
            .expect("the columns")
            .get(0);
        let values: Vec<String> = columns.split(',').map(copied).collect();
        let all = format!(
            "INSERT INTO {table} ({columns}) SELECT {} FROM {table}, generate_series(1, {copies}) AS copy",
            values.join(", ")
        );
        transaction.execute(&all, &[]).await.unwrap_or_else(|error| panic!("{all}: {error:?}"));
    }
    let marks = "INSERT INTO sent SELECT position, now() FROM events
         WHERE position > (SELECT max(position) FROM sent) ORDER BY position";
    transaction.execute(marks, &[]).await.expect("marks");
    transaction.commit().await.expect("all of it");
}

/// A column of a copied row: the copy has its own ids, the same in every table.
fn copied(column: &str) -> String {
    match column {
        "id" | "payment_id" => format!("md5({column}::text || copy)::uuid"),
        _ => column.to_owned(),
    }
}

/// How long an operation is in progress before the sweep looks at it.
const LONG: Duration = Duration::from_secs(10);

/// Scans everything that is scanned once; a worker would do it after a while.
async fn look_at_all(world: &World) {
    let store = world.store().await;
    world
        .eventually("everything to be scanned", async || {
            while store.note_overdue().await.unwrap() || store.note_late().await.unwrap() {}
            while store.sweep(LONG).await.unwrap().more || store.sweep_late().await.unwrap().more {}
            let behind = "SELECT (SELECT count(*) FROM watermarks WHERE name = 'events'
                 AND position < (SELECT max(position) FROM events WHERE stored < now() - interval '60 seconds'))
             + (SELECT count(*) FROM watermarks WHERE name = 'new operations'
                 AND position < (SELECT max(accepted) FROM operations WHERE stored < now() - interval '60 seconds'))";
            let behind: i64 = world.value(behind, &[]).await;
            if behind == 0 { Ok(()) } else { Err(format!("{behind} watermarks are behind")) }
        })
        .await;
}

/// Does once what every replica repeats.
async fn do_again(world: &World) {
    let store = world.store().await;
    store.note_overdue().await.expect("overdue events are noted");
    store.note_late().await.expect("late events are noted");
    let buckets: Vec<i16> = (0..16).collect();
    store.relay_batch(&buckets, 0, 500).await.expect("overdue events are read");
    store.sweep(Duration::ZERO).await.expect("operations are swept");
    store.sweep_late().await.expect("late operations are swept");
    store.figures().await.expect("figures");
    store.unserved_operations(&[]).await.expect("open operations are compared with the configuration");
    store.unserved_payments(&[]).await.expect("a sample of the payments is compared");
    let now = store.clock().now();
    store.purge_events(now, 5_000).await.expect("old events are deleted");
    store.purge_commands(now, 5_000).await.expect("old commands are deleted");
}

fn is_scan_of(node: &str, table: &str) -> bool {
    let on = format!(" on {table} ");
    // An index-only or bitmap index scan names only the index.
    node.contains(" Scan ") && (node.contains(&on) || node.contains(&format!("{table}_")))
}

/// How many rows a node read, over all its loops.
fn rows(node: &str) -> f64 {
    let actual = node.split_once("(actual ").map_or("", |(_, actual)| actual);
    let figure = |name: &str| {
        let text = actual.split_once(name)?.1;
        text.split([' ', ')']).next()?.parse::<f64>().ok()
    };
    figure("rows=").unwrap_or_default() * figure("loops=").unwrap_or(1.0)
}

/// How many pages the nodes of a plan touched, each with its child nodes.
fn pages(entry: &str) -> u64 {
    let buffers = entry.lines().filter_map(|line| line.trim().strip_prefix("Buffers: shared "));
    let figures =
        buffers.flat_map(str::split_whitespace).filter(|word| word.starts_with("hit=") || word.starts_with("read="));
    figures.filter_map(|word| word.split_once('=')?.1.parse::<u64>().ok()).sum()
}

fn entries_since(log: &PathBuf, begin: u64) -> Vec<String> {
    let text = std::fs::read(log).expect("PostgreSQL's log");
    entries(&String::from_utf8_lossy(&text[usize::try_from(begin).unwrap()..]))
}

/// The entries of the log: each begins with its time; continuation lines begin with a tab.
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
