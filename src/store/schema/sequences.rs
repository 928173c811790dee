//! Checks the sequences that number what the sweeps read in order: each must be ahead of everything it has numbered.
//! One that was left behind, by a restore of rows alone or by logical replication (which copies no sequences), assigns
//! numbers again. New rows are then below the watermarks, perhaps under the mark of an old event, and never scanned.

use deadpool_postgres::Object;
use tokio_postgres::Error;

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Each numbered column, its sequence, the greatest known number, and the last number assigned. The marks and
/// watermarks count too, because the rows that had these numbers may be gone. The last number is read after the rows
/// are fixed, so that no concurrent writer makes a sequence seem to be behind. It is `NULL` if the role may not read
/// it.
const NUMBERED: &str = include_str!("sequences_read_numbers.sql");

/// While it is held no numbers are assigned, and readers continue.
const LOCK: &str = "LOCK TABLE paybus.operations, paybus.events IN SHARE ROW EXCLUSIVE MODE";

/// Checks that no sequence assigns numbers again.
///
/// # Errors
/// [`StoreError::Sequences`] with those that do; [`StoreError::Rights`] if the role may not read one.
pub async fn check(store: &Store) -> Result<(), StoreError> {
    let client = store.client().await?;
    let rows = client.query(NUMBERED, &[]).await?;
    let mut behind: Vec<String> = Vec::new();
    for row in &rows {
        let (name, greatest): (String, i64) = (row.read(0)?, row.read(2)?);
        match row.read::<Option<i64>>(3)? {
            Some(last) if last < greatest => {
                behind.push(format!("{name} (at {last}, but {greatest} was already assigned)"))
            }
            Some(_) => {}
            None => return Err(StoreError::Rights(format!("SELECT on the sequence of {name}"))),
        }
    }
    if behind.is_empty() { Ok(()) } else { Err(StoreError::Sequences(behind.join(", "))) }
}

/// Moves every sequence that was left behind up to the greatest assigned number, and returns what was moved. Needs the
/// owner's role.
pub(in crate::store) async fn repair(client: &mut Object) -> Result<Vec<String>, Error> {
    // With only some of the steps applied there may be nothing to look at.
    let exists = "SELECT to_regclass('paybus.watermarks') IS NOT NULL AND to_regclass('paybus.events') IS NOT NULL";
    if !client.query_one(exists, &[]).await?.try_get::<_, bool>(0)?
        || behind(client.query(NUMBERED, &[]).await?)?.is_empty()
    {
        return Ok(Vec::new());
    }
    let transaction = client.transaction().await?;
    transaction.batch_execute(LOCK).await?;
    let mut repaired = Vec::new();
    // Checked again: numbers may have been assigned before the lock was acquired.
    for (name, sequence, greatest) in behind(transaction.query(NUMBERED, &[]).await?)? {
        transaction.execute("SELECT setval($1::text::regclass, $2)", &[&sequence, &greatest]).await?;
        repaired.push(format!("sequence of {name} moved to {greatest}"));
    }
    transaction.commit().await?;
    Ok(repaired)
}

/// Column, sequence and greatest number of those that were left behind.
fn behind(rows: Vec<tokio_postgres::Row>) -> Result<Vec<(String, String, i64)>, Error> {
    let mut behind = Vec::new();
    for row in rows {
        let (greatest, last): (i64, Option<i64>) = (row.try_get(2)?, row.try_get(3)?);
        if last.is_some_and(|last| last < greatest) {
            behind.push((row.try_get(0)?, row.try_get(1)?, greatest));
        }
    }
    Ok(behind)
}
