//! Migrates the schema to this version while workers are running on it: step by step, under an advisory lock.

use std::time::Duration;

use deadpool_postgres::Object;
use sha2::{Digest, Sha256};
use tokio::time::sleep;
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;
use tracing::warn;

use super::sequences;
use super::{Change, STEPS, Step};
use crate::backoff::Backoff;
use crate::error_chain::chain;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// An arbitrary number ("paybus" in ASCII) that no other program on this database is likely to use as its lock key.
const LOCK: i64 = 0x7061_7962_7573;
/// How often to poll for the end of another migration.
const LOCK_POLL: Duration = Duration::from_millis(200);

/// Settings of the migration's connection. Building an index takes as long as it takes. But waiting for a table's lock
/// blocks everyone who comes later, workers included, so no wait is longer than this; then it is retried.
const PATIENT: &str = "SET search_path = paybus; SET statement_timeout = 0; SET lock_timeout = '2s';
     SET idle_in_transaction_session_timeout = 0";
/// How often a step that does not get its locks is tried: with the pauses in between, for about ten minutes.
const TRIES: u32 = 60;
/// Pause of a backfill between two batches, for the sake of others.
const BREATHER: Duration = Duration::from_millis(20);

/// Migrates the schema to this version, and moves sequences that were left behind up to what they number. Returns the
/// names of the steps applied and the sequences moved.
///
/// # Errors
/// The database refuses, does not give a lock for ten minutes, or has a step that differs from the one this version
/// knows.
pub async fn migrate(store: &Store) -> Result<Vec<String>, StoreError> {
    carry_out(store, STEPS).await
}

/// Like [`migrate`], with these steps.
///
/// # Errors
/// As [`migrate`].
pub async fn carry_out(store: &Store, steps: &[Step]) -> Result<Vec<String>, StoreError> {
    let mut connection = store.client().await?;
    // The connection keeps its settings and, while it is open, the lock, so it must not go back to the pool.
    connection.keep_out();
    let client = connection.patient()?;
    client.batch_execute(PATIENT).await?;
    lock(client).await?;
    make_schema(client).await?;
    let mut done = Vec::new();
    for step in steps {
        if is_done(client, step).await? {
            continue;
        }
        patiently(client, step).await?;
        done.push(format!("{:04} {}", step.number, step.name));
    }
    done.extend(move_sequences(client).await?);
    client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK]).await?;
    Ok(done)
}

/// Makes replicas that start together migrate only once. The lock is polled: a concurrent index build would wait for
/// any statement that blocks on the lock.
async fn lock(client: &Object) -> Result<(), StoreError> {
    let mut is_logged = false;
    while !client.query_one("SELECT pg_try_advisory_lock($1)", &[&LOCK]).await?.read::<bool>(0)? {
        if !is_logged {
            warn!("another migration is running; waiting for it to end");
            is_logged = true;
        }
        sleep(LOCK_POLL).await;
    }
    Ok(())
}

/// Checks before it creates: `IF NOT EXISTS` needs the right to create schemas, and the table's lock, even if there is
/// nothing to do.
async fn make_schema(client: &Object) -> Result<(), StoreError> {
    let exists = client.query_one("SELECT to_regnamespace('paybus') IS NOT NULL", &[]).await?;
    if !exists.read::<bool>(0)? {
        client.batch_execute("CREATE SCHEMA paybus").await?;
    }
    let sql = "SELECT to_regclass('paybus.migrations') IS NOT NULL, EXISTS (
                   SELECT 1 FROM pg_attribute
                   WHERE attrelid = to_regclass('paybus.migrations') AND attname = 'needs' AND NOT attisdropped)";
    let exists = client.query_one(sql, &[]).await?;
    if !exists.read::<bool>(0)? {
        let create = "CREATE TABLE migrations (
             number integer PRIMARY KEY, name text NOT NULL, hash bytea NOT NULL,
             at timestamptz NOT NULL DEFAULT now(), needs integer NOT NULL DEFAULT 0)";
        client.batch_execute(create).await?;
    } else if !exists.read::<bool>(1)? {
        client.batch_execute("ALTER TABLE migrations ADD COLUMN needs integer NOT NULL DEFAULT 0").await?;
    }
    Ok(())
}

async fn is_done(client: &Object, step: &Step) -> Result<bool, StoreError> {
    let row = client.query_opt("SELECT hash FROM migrations WHERE number = $1", &[&step.number]).await?;
    match row.map(|row| row.read::<Vec<u8>>(0)).transpose()? {
        None => Ok(false),
        Some(stored) if stored == hash(step) => Ok(true),
        Some(_) => Err(StoreError::Schema(format!("changed at migration {} ({})", step.number, step.name))),
    }
}

fn hash(step: &Step) -> Vec<u8> {
    Sha256::digest(step.change.sql().as_bytes()).to_vec()
}

/// Applies a step, retrying while it does not get its locks.
async fn patiently(client: &mut Object, step: &Step) -> Result<(), StoreError> {
    let mut pauses = Backoff::new(Duration::from_secs(1), 1.5, Duration::from_secs(10));
    let mut attempt = 0;
    loop {
        attempt += 1;
        match once(client, step).await {
            Err(error) if is_busy(&error) && attempt < TRIES => {
                let (number, name) = (step.number, step.name);
                warn!(error = chain(&error), number, name, attempt, "a migration did not get its lock; retrying");
            }
            done => return Ok(done?),
        }
        sleep(pauses.next_delay()).await;
    }
}

/// Moves sequences that were left behind, retrying while it does not get its lock.
async fn move_sequences(client: &mut Object) -> Result<Vec<String>, StoreError> {
    let mut pauses = Backoff::new(Duration::from_secs(1), 1.5, Duration::from_secs(10));
    let mut attempt = 0;
    loop {
        attempt += 1;
        match sequences::repair(client).await {
            Err(error) if is_busy(&error) && attempt < TRIES => {
                warn!(
                    error = chain(&error),
                    attempt, "cannot lock the tables to move sequences that were left behind; retrying"
                );
            }
            done => return Ok(done?),
        }
        sleep(pauses.next_delay()).await;
    }
}

/// Whether others use the table; nothing was changed.
fn is_busy(error: &Error) -> bool {
    let busy = [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED];
    error.code().is_some_and(|state| busy.contains(state))
}

async fn once(client: &mut Object, step: &Step) -> Result<(), Error> {
    let done = "INSERT INTO migrations (number, name, hash, needs) VALUES ($1, $2, $3, $4)";
    let hash = hash(step);
    match &step.change {
        Change::Statements(sql) => {
            let transaction = client.transaction().await?;
            transaction.batch_execute(sql).await?;
            transaction.execute(done, &[&step.number, &step.name, &hash, &step.needs]).await?;
            return transaction.commit().await;
        }
        Change::Index { name, create } => make_index(client, name, create).await?,
        Change::Backfill(sql) => {
            while client.execute(*sql, &[]).await? > 0 {
                sleep(BREATHER).await;
            }
        }
    }
    // If this insert is lost, the step is applied again and finds nothing to do.
    client.execute(done, &[&step.number, &step.name, &hash, &step.needs]).await?;
    Ok(())
}

/// Builds an index while others write. It waits for every older transaction but blocks nobody meanwhile, so it may wait
/// for as long as it must.
async fn make_index(client: &Object, name: &str, create: &str) -> Result<(), Error> {
    // What an interrupted migration left half built: PostgreSQL maintains it and never reads it.
    let half_made = "SELECT count(*) FROM pg_index WHERE indexrelid = to_regclass($1) AND NOT indisvalid";
    let half_made: i64 = client.query_one(half_made, &[&format!("paybus.{name}")]).await?.try_get(0)?;
    client.batch_execute("SET lock_timeout = 0").await?;
    if half_made > 0 {
        client.batch_execute(&format!("DROP INDEX CONCURRENTLY IF EXISTS paybus.{name}")).await?;
    }
    client.batch_execute(create).await?;
    client.batch_execute(PATIENT).await
}

/// Checks that this version can work on the schema: it exists, at this version's step or at a later one that every
/// worker of this version can work on.
///
/// # Errors
/// [`StoreError::Schema`] if it cannot.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let client = store.client().await?;
    let exists = client.query_one("SELECT to_regclass('paybus.migrations') IS NOT NULL", &[]).await?;
    if !exists.read::<bool>(0)? {
        return Err(StoreError::Schema("missing; run `paybus migrate`".to_owned()));
    }
    // Read as JSON, because older schemas have no such column.
    let sql =
        "SELECT coalesce(max(number), 0), coalesce(max((to_jsonb(m) ->> 'needs')::int4), 0) FROM paybus.migrations m";
    let row = client.query_one(sql, &[]).await?;
    let (stored, needs): (i32, i32) = (row.read(0)?, row.read(1)?);
    let known = STEPS.last().map_or(0, |step| step.number);
    if stored < known {
        return Err(StoreError::Schema(format!("at step {stored}, but {known} is needed; run `paybus migrate`")));
    }
    if needs > known {
        return Err(StoreError::Schema(format!(
            "at step {stored}, which needs a newer paybus: this one knows steps up to {known}"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_numbered_and_need_no_later_worker_than_their_own() {
        for (index, step) in STEPS.iter().enumerate() {
            assert_eq!(step.number, i32::try_from(index).unwrap() + 1, "{}", step.name);
            assert!(step.needs < step.number, "{}: expand first, contract a release later", step.name);
        }
    }
}
