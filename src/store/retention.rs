//! Deletes old rows, a bounded number at a time.

use jiff::Timestamp;

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// The result of one purge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purged {
    /// Number of rows deleted.
    pub gone: u64,
    /// Whether there may be more that are old enough.
    pub more: bool,
}

/// Reads nothing while the first event is young. Single rows are looked up in a way that leaves the planner no choice:
/// it does not know how few they are, and would join whole tables.
///
/// It starts after a watermark; otherwise it would read the index entries of everything deleted since the last vacuum.
/// The watermark passes nothing that stays: neither young events nor unsent ones, all of which are noted as overdue.
const EVENTS: &str = "WITH old AS (
         SELECT e.position, e.created FROM events e
         CROSS JOIN LATERAL (SELECT 1 FROM sent s WHERE s.position = e.position LIMIT 1) s
         WHERE e.position > $4 AND e.position <= $3
           AND (SELECT created FROM events WHERE position > $4 ORDER BY position LIMIT 1) < $1
         ORDER BY e.position LIMIT $2),
     gone AS (
         DELETE FROM events WHERE position = ANY(ARRAY(SELECT position FROM old WHERE created < $1))
         RETURNING position),
     marks AS (DELETE FROM sent WHERE position = ANY(ARRAY(SELECT position FROM gone))),
     notes AS (DELETE FROM overdue WHERE position = ANY(ARRAY(SELECT position FROM gone))),
     moved AS (
         UPDATE watermarks SET position = greatest(position, least(
             (SELECT max(position) FROM gone),
             (SELECT min(position) - 1 FROM old WHERE created >= $1),
             (SELECT min(position) - 1 FROM overdue)))
         WHERE name = 'purged events' AND EXISTS (SELECT 1 FROM gone))
     SELECT count(*) FROM gone";

/// The rows after the watermark are limited first and examined then; the watermark advances up to the first young one.
const COMMANDS: &str = "WITH next AS (
         SELECT payment_id, accepted, state, command_type, stored FROM operations
         WHERE accepted > $3
           AND (SELECT stored FROM operations WHERE accepted > $3 ORDER BY accepted LIMIT 1) < $1
         ORDER BY accepted LIMIT $2),
     old AS (
         SELECT accepted, state = 'settled'
             AND (command_type = 'payment.notification' OR p.id IS NULL OR p.archived_at IS NOT NULL) AS goes FROM next
         LEFT JOIN LATERAL (SELECT p.id, p.archived_at FROM payments p WHERE p.id = next.payment_id LIMIT 1) p ON true
         WHERE accepted < coalesce((SELECT min(accepted) FROM next WHERE stored >= $1), 9223372036854775807)),
     gone AS (
         DELETE FROM operations WHERE accepted = ANY(ARRAY(SELECT accepted FROM old WHERE goes)) RETURNING 1),
     moved AS (
         UPDATE watermarks SET position = greatest(position, (SELECT max(accepted) FROM old))
         WHERE name = 'old commands' AND EXISTS (SELECT 1 FROM old))
     SELECT (SELECT count(*) FROM gone), (SELECT count(*) FROM old)";

impl Store {
    /// Deletes confirmed events older than this, a bounded number at a time.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn purge_events(&self, older_than: Timestamp, limit: i64) -> Result<Purged, StoreError> {
        let client = self.client().await?;
        let after = self.watermark(&client, "purged events").await?;
        let looked_at = self.watermark(&client, "late events").await?;
        let row = client.query_one(EVENTS, &[&older_than, &limit, &looked_at, &after]).await?;
        let gone: i64 = row.read(0)?;
        Ok(Purged { gone: gone.unsigned_abs(), more: gone == limit })
    }

    /// Deletes settled commands older than this that no payment needs: gateways' notifications, and commands whose
    /// payment was never created or was archived. All others live as long as their payment. Reads a bounded number in
    /// order of acceptance, from where it last ended.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn purge_commands(&self, older_than: Timestamp, limit: i64) -> Result<Purged, StoreError> {
        let client = self.client().await?;
        let watermark = self.watermark(&client, "old commands").await?;
        let row = client.query_one(COMMANDS, &[&older_than, &limit, &watermark]).await?;
        let (gone, read): (i64, i64) = (row.read(0)?, row.read(1)?);
        Ok(Purged { gone: gone.unsigned_abs(), more: read == limit })
    }
}
