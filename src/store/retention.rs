//! What is old is deleted, a bounded number at a time.

use jiff::Timestamp;

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

impl Store {
    /// Deletes confirmed events that are older than this, a bounded number at a time; how many went.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn purge_events(&self, older_than: Timestamp, limit: i64) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let row = client
            .query_one(
                "WITH old AS (
                     SELECT e.payment_id, e.id, e.position FROM events e
                     WHERE e.position <= (SELECT position FROM watermarks WHERE name = 'events')
                       AND EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
                     ORDER BY e.position LIMIT $2),
                 gone AS (
                     DELETE FROM events e USING old
                     WHERE e.payment_id = old.payment_id AND e.id = old.id AND e.created < $1 RETURNING e.position),
                 marks AS (DELETE FROM sent s USING gone WHERE s.position = gone.position)
                 SELECT count(*) FROM gone",
                &[&older_than, &limit],
            )
            .await?;
        Ok(row.read::<i64>(0)?.unsigned_abs())
    }

    /// Deletes commands that were rejected for want of a payment and are older than this; how many went. Those of a
    /// payment live as long as it does. Reads a bounded number in order of acceptance, from where it ended the last time.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn purge_orphans(&self, older_than: Timestamp, limit: i64) -> Result<u64, StoreError> {
        let client = self.client().await?;
        let row = client
            .query_one(
                "WITH old AS (
                     SELECT payment_id, id, accepted, state FROM operations
                     WHERE accepted > (SELECT position FROM watermarks WHERE name = 'orphans') AND created < $1
                     ORDER BY accepted LIMIT $2),
                 gone AS (
                     DELETE FROM operations o USING old
                     WHERE o.payment_id = old.payment_id AND o.id = old.id AND old.state = 'settled'
                       AND NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = o.payment_id)
                     RETURNING 1),
                 moved AS (
                     UPDATE watermarks SET position = (SELECT max(accepted) FROM old)
                     WHERE name = 'orphans' AND EXISTS (SELECT 1 FROM old))
                 SELECT count(*) FROM gone",
                &[&older_than, &limit],
            )
            .await?;
        Ok(row.read::<i64>(0)?.unsigned_abs())
    }
}
