//! Attempts, due work, lost workers, and call rates.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::connection::pools::{Store, VISIBLE_FOR_SURE};
use super::error::StoreError;
use super::row::ReadColumn;
use super::scan::{Scan, Window, find_window};
use crate::payment::operation::Operation;

/// An operation that is due, claimed for this worker until it is due again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Due {
    /// Its payment.
    pub payment_id: Uuid,
    /// The operation.
    pub id: Uuid,
    /// When it was due.
    pub due_at: Timestamp,
    /// When it is due again if this worker does nothing with it.
    pub again_at: Timestamp,
}

/// The result of a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Calls whose lease had expired: they are due now.
    pub lost: u64,
    /// Whether there is more to look at.
    pub more: bool,
}

const FIND: &str = find_window!("operations", "accepted");
const LATE: &str = "operations";
const LATE_SCAN: Scan = Scan { name: LATE, late: LATE, find: FIND, age: VISIBLE_FOR_SURE };

/// Gives calls a due time, the end of their lease. Does nothing if another replica is already doing so.
macro_rules! give_due_times {
    ($lock:literal) => {
        concat!(
            "WITH free AS (
                 SELECT 1 FROM watermarks WHERE name = $1 AND position <= $2 FOR UPDATE SKIP LOCKED),
             calls AS (
                 SELECT payment_id, id FROM operations
                 WHERE accepted > $2 AND accepted <= $3 AND state = 'calling' AND due_at IS NULL
                   AND EXISTS (SELECT 1 FROM free)
                 ",
            $lock,
            "),
             given AS (
                 UPDATE operations o SET due_at = greatest(o.lease_until, now()) FROM calls c
                 WHERE o.payment_id = c.payment_id AND o.id = c.id
                 RETURNING o.due_at <= now() AS is_lost),
             moved AS (
                 UPDATE watermarks SET position = $3 WHERE name = $1 AND EXISTS (SELECT 1 FROM free))
             SELECT count(*) FILTER (WHERE is_lost), EXISTS (SELECT 1 FROM free) FROM given"
        )
    };
}

/// Skips locked rows: the writer that locked a call's row is most likely settling it. If not, the late scan finds it.
const GIVE: &str = give_due_times!("FOR UPDATE SKIP LOCKED");
/// Skips no row.
const GIVE_LATE: &str = give_due_times!("FOR UPDATE");

const CLAIM_DUE: &str = include_str!("lease_claim_due.sql");
const RESERVE_CALLS: &str = include_str!("lease_reserve_calls.sql");

impl Store {
    /// Stores one more attempt under this worker's lease and renews the lease, before the attempt is sent. Returns
    /// `false` if the lease was lost: then nothing may be sent.
    ///
    /// # Errors
    /// The database query fails; then nothing may be sent either.
    pub async fn store_attempt(
        &self,
        operation: &Operation,
        worker: Uuid,
        attempts: u32,
        lease: Duration,
    ) -> Result<bool, StoreError> {
        let client = self.client().await?;
        let sql = "UPDATE operations SET attempts = $3, exposed = exposed OR $4, last_sent_at = now(),
                     lease_until = now() + make_interval(secs => $5)
                 WHERE payment_id = $1 AND id = $2 AND state = 'calling' AND lease_owner = $6 AND attempts = $7";
        let exposed = operation.sent.is_exposed();
        let (attempts, before) = (attempts.cast_signed(), operation.counts.attempts.cast_signed());
        let changed = client
            .execute(
                sql,
                &[&operation.payment_id, &operation.id, &attempts, &exposed, &lease.as_secs_f64(), &worker, &before],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Claims due operations of a variant, longest due first, starting at the due time `since`. They are due again
    /// after `again`, so that they are not lost with this worker. With `only`, it claims those at the gateway already,
    /// and commands of these types.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn claim_due(
        &self,
        variant: &str,
        since: Timestamp,
        limit: usize,
        again: Duration,
        only: Option<&[&str]>,
    ) -> Result<Vec<Due>, StoreError> {
        let client = self.client().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = client.query(CLAIM_DUE, &[&variant, &since, &limit, &again.as_secs_f64(), &only]).await?;
        let read = |row: &tokio_postgres::Row| -> Result<Due, StoreError> {
            Ok(Due { payment_id: row.read(0)?, id: row.read(1)?, due_at: row.read(2)?, again_at: row.read(3)? })
        };
        rows.iter().map(read).collect()
    }

    /// Gives back a claimed operation that was not processed: it is due after `pause`, and not before another worker's
    /// lease ends.
    ///
    /// # Errors
    /// The database query fails; then it is due again at `again_at`.
    pub async fn give_back(&self, due: &Due, pause: Duration) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "UPDATE operations SET due_at = greatest(now() + make_interval(secs => $4), lease_until)
                 WHERE payment_id = $1 AND id = $2 AND due_at = $3";
        client.execute(sql, &[&due.payment_id, &due.id, &due.again_at, &pause.as_secs_f64()]).await?;
        Ok(())
    }

    /// Gives first calls that have been in progress for longer than `age` a due time, the end of their lease. Only
    /// first calls have none of their own; with it they are taken over if their worker is lost. Examines each operation
    /// once, and a bounded number at a time.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn sweep(&self, age: Duration) -> Result<Swept, StoreError> {
        self.sweep_calls(Scan { name: "new operations", late: LATE, find: FIND, age }, GIVE).await
    }

    /// The same for operations that were not visible the first time, because their commit took long.
    ///
    /// # Errors
    /// The database query fails, or another transaction has a call's row locked.
    pub async fn sweep_late(&self) -> Result<Swept, StoreError> {
        self.sweep_calls(LATE_SCAN, GIVE_LATE).await
    }

    async fn sweep_calls(&self, scan: Scan, give: &str) -> Result<Swept, StoreError> {
        let client = self.client().await?;
        let Some(Window { after, last, more }) = self.window(&client, scan).await? else {
            return Ok(Swept { lost: 0, more: false });
        };
        let row = client.query_one(give, &[&scan.name, &after, &last]).await?;
        let (lost, has_moved): (i64, bool) = (row.read(0)?, row.read(1)?);
        Ok(Swept { lost: lost.unsigned_abs(), more: more && has_moved })
    }

    /// Reserves the next `count` calls of a variant under a rate that all replicas share. Returns how long to wait for
    /// the first; the others follow at the rate's interval.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn reserve_calls(&self, variant: &str, rate: f64, count: u32) -> Result<Duration, StoreError> {
        let client = self.client().await?;
        let span = f64::from(count) / rate;
        let row = client.query_one(RESERVE_CALLS, &[&variant, &span]).await?;
        let wait: f64 = row.read(0)?;
        Ok(Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or_default())
    }
}
