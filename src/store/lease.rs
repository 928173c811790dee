//! Attempts, due work and lost workers.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::connect::{Store, VISIBLE_FOR_SURE};
use super::error::StoreError;
use super::row::ReadColumn;
use crate::payment::operation::Operation;
use crate::payment::outcome::Exposure;

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

/// How old an accepted operation is before the sweep's watermark may pass it: longer than any statement may take, for
/// positions are given before they can be seen.
const SETTLED_FOR_SURE_SECONDS: f64 = VISIBLE_FOR_SURE.as_secs() as f64;

const LOST: &str = "UPDATE operations SET due_at = now()
     WHERE accepted > $1 AND accepted <= $2 AND state = 'calling' AND due_at IS NULL AND lease_until < now()";

/// Nothing is passed that is young, nor what is still being called for the first time.
const PASS: &str = "UPDATE watermarks SET position = greatest(position, least(
         coalesce((SELECT max(accepted) FROM operations
                   WHERE accepted > $1 AND accepted <= $2 AND stored < now() - make_interval(secs => $3)), $1),
         (SELECT min(accepted) - 1 FROM operations
          WHERE accepted > $1 AND accepted <= $2 AND state = 'calling' AND due_at IS NULL)))
     WHERE name = 'operations'";

impl Store {
    /// Stores one more attempt of an operation in this worker's lease and renews the lease, before the attempt is sent.
    /// False where the lease was lost: then nothing may be sent.
    ///
    /// # Errors
    /// The database cannot be asked; then nothing may be sent either.
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
        let exposed = operation.exposure == Exposure::Exposed;
        let (attempts, before) = (attempts.cast_signed(), operation.attempts.cast_signed());
        let changed = client
            .execute(
                sql,
                &[&operation.payment_id, &operation.id, &attempts, &exposed, &lease.as_secs_f64(), &worker, &before],
            )
            .await?;
        Ok(changed == 1)
    }

    /// Claims operations of a variant that are due, the longest due first. They are due again after `again`, so that they
    /// are not lost with this worker.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn claim_due(
        &self,
        variant: &str,
        since: Timestamp,
        limit: usize,
        again: Duration,
    ) -> Result<Vec<Due>, StoreError> {
        let client = self.client().await?;
        let sql = "WITH due AS (
                     SELECT payment_id, id, due_at FROM operations
                     WHERE variant = $1 AND due_at >= $2 AND due_at <= now()
                     ORDER BY due_at LIMIT $3 FOR UPDATE SKIP LOCKED)
                 UPDATE operations o SET due_at = now() + make_interval(secs => $4) FROM due
                 WHERE o.payment_id = due.payment_id AND o.id = due.id
                 RETURNING o.payment_id, o.id, due.due_at, o.due_at";
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = client.query(sql, &[&variant, &since, &limit, &again.as_secs_f64()]).await?;
        let read = |row: &tokio_postgres::Row| -> Result<Due, StoreError> {
            Ok(Due { payment_id: row.read(0)?, id: row.read(1)?, due_at: row.read(2)?, again_at: row.read(3)? })
        };
        rows.iter().map(read).collect()
    }

    /// Gives back what was claimed and nothing was done with: it is due after a pause, and not before another's lease ends.
    ///
    /// # Errors
    /// The database cannot be asked; then it is due again later.
    pub async fn give_back(&self, due: &Due, pause: Duration) -> Result<(), StoreError> {
        let client = self.client().await?;
        let sql = "UPDATE operations SET due_at = greatest(now() + make_interval(secs => $4), lease_until)
                 WHERE payment_id = $1 AND id = $2 AND due_at = $3";
        client.execute(sql, &[&due.payment_id, &due.id, &due.again_at, &pause.as_secs_f64()]).await?;
        Ok(())
    }

    /// Makes operations due whose worker was lost in the middle of its first call: only those have no due time of their
    /// own. Reads in order of acceptance from a watermark that is moved on here.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn sweep_lost(&self) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let bounds = "SELECT position, coalesce((SELECT max(accepted) FROM operations), 0) FROM watermarks
             WHERE name = 'operations'";
        let row = client.query_one(bounds, &[]).await?;
        // Given as values, so that the planner sees how little there is in between.
        let (from, to): (i64, i64) = (row.read(0)?, row.read(1)?);
        let lost = client.execute(LOST, &[&from, &to]).await?;
        client.execute(PASS, &[&from, &to, &SETTLED_FOR_SURE_SECONDS]).await?;
        Ok(lost)
    }

    /// Reserves the next `count` calls of a variant under a rate that holds over all replicas; how long to wait for the
    /// first of them. The others follow at the rate's distance.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn reserve_calls(&self, variant: &str, rate: f64, count: u32) -> Result<Duration, StoreError> {
        let client = self.client().await?;
        let sql = "INSERT INTO rates AS r (variant, next_at)
                 VALUES ($1, now() + make_interval(secs => $2))
                 ON CONFLICT (variant) DO UPDATE
                     SET next_at = greatest(r.next_at, now()) + make_interval(secs => $2)
                 RETURNING extract(epoch FROM next_at - now())::float8 - $2";
        let span = f64::from(count) / rate;
        let row = client.query_one(sql, &[&variant, &span]).await?;
        let wait: f64 = row.read(0)?;
        Ok(Duration::try_from_secs_f64(wait.max(0.0)).unwrap_or_default())
    }
}
