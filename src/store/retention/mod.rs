//! Deletes old rows, a bounded number at a time.

pub mod archive;
pub mod forget;

use jiff::Timestamp;

use super::connection::pools::Store;
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
const EVENTS: &str = include_str!("purge_events.sql");

/// The rows after the watermark are limited first and examined then; the watermark advances up to the first young one.
const COMMANDS: &str = include_str!("purge_commands.sql");

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
