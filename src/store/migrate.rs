//! The schema: embedded, forward only, one migration after the other under a lock.

use deadpool_postgres::Object;
use sha2::{Digest, Sha256};

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// One step of the schema.
struct Migration {
    number: i32,
    name: &'static str,
    sql: &'static str,
}

/// Every step, in order. A step that was released is never changed.
const MIGRATIONS: &[Migration] =
    &[Migration { number: 1, name: "foundation", sql: include_str!("migrations/0001_foundation.sql") }];

/// Any number that no other program on this database is likely to use for its lock.
const LOCK: i64 = 0x7061_7962_7573;

/// Brings the schema to this version; returns the names of the steps that were needed.
///
/// # Errors
/// The database refuses, or holds a step that differs from the one this version knows.
pub async fn migrate(store: &Store) -> Result<Vec<String>, StoreError> {
    let mut connection = store.client().await?;
    let client = connection.patient()?;
    make_schema(client).await?;
    let transaction = client.transaction().await?;
    // Held to the end of the transaction, so that replicas that start together migrate once.
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&LOCK]).await?;
    transaction
        .batch_execute(
            "SET LOCAL statement_timeout = 0; SET LOCAL search_path = paybus;
             CREATE TABLE IF NOT EXISTS migrations (
                 number integer PRIMARY KEY, name text NOT NULL, hash bytea NOT NULL,
                 at timestamptz NOT NULL DEFAULT now())",
        )
        .await?;
    let mut done = Vec::new();
    for migration in MIGRATIONS {
        let hash = Sha256::digest(migration.sql.as_bytes()).to_vec();
        let row = transaction.query_opt("SELECT hash FROM migrations WHERE number = $1", &[&migration.number]).await?;
        match row.map(|row| row.read::<Vec<u8>>(0)).transpose()? {
            Some(stored) if stored == hash => continue,
            Some(_) => {
                let what = format!("changed at migration {} ({})", migration.number, migration.name);
                return Err(StoreError::Schema(what));
            }
            None => {}
        }
        transaction.batch_execute(migration.sql).await?;
        let insert = "INSERT INTO migrations (number, name, hash) VALUES ($1, $2, $3)";
        transaction.execute(insert, &[&migration.number, &migration.name, &hash]).await?;
        done.push(format!("{:04} {}", migration.number, migration.name));
    }
    transaction.commit().await?;
    Ok(done)
}

/// Asked for first: `IF NOT EXISTS` takes the right to make schemas even where nothing is to be made.
async fn make_schema(client: &Object) -> Result<(), StoreError> {
    let exists = client.query_one("SELECT to_regnamespace('paybus') IS NOT NULL", &[]).await?;
    if exists.read::<bool>(0)? {
        return Ok(());
    }
    match client.batch_execute("CREATE SCHEMA IF NOT EXISTS paybus").await {
        // Two first migrations at once: the other one made it.
        Err(error) if matches!(error.code().map(|state| state.code()), Some("23505" | "42P06")) => Ok(()),
        made => Ok(made?),
    }
}

/// Checks that the schema is there, at this version or a later one.
///
/// # Errors
/// The schema is missing or too old.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let client = store.client().await?;
    let exists = client.query_one("SELECT to_regclass('paybus.migrations') IS NOT NULL", &[]).await?;
    if !exists.read::<bool>(0)? {
        return Err(StoreError::Schema("missing".to_owned()));
    }
    let row = client.query_one("SELECT coalesce(max(number), 0) FROM migrations", &[]).await?;
    let stored: i32 = row.read(0)?;
    let needed = MIGRATIONS.last().map_or(0, |migration| migration.number);
    if stored < needed {
        return Err(StoreError::Schema(format!("at {stored}, and {needed} is needed")));
    }
    Ok(())
}
