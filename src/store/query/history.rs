//! Reads stored events for people: from a time on, or of one payment.

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// Maximum number of events per read.
pub const PAGE: i64 = 500;

/// How far events are out of time order. An event's position is assigned a while before its commit is visible, and its
/// time a while before that; positions this much older than a time come before all events of that time.
const DISORDER: SignedDuration = SignedDuration::from_mins(5);

/// A stored event.
#[derive(Debug, Clone, PartialEq)]
pub struct KeptEvent {
    /// Its position; the next page starts after it.
    pub position: i64,
    /// The body as it was sent.
    pub body: String,
}

/// Which events to read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Only of this payment.
    pub payment: Option<Uuid>,
    /// Decided at or after this time.
    pub since: Option<Timestamp>,
}

impl Store {
    /// Returns the position after which to start reading.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn first_position(&self, wanted: Wanted) -> Result<i64, StoreError> {
        // One payment's events are few, and indexed by payment.
        match wanted {
            Wanted { payment: None, since: Some(since) } => self.position_before(since).await,
            _ => Ok(0),
        }
    }

    /// Returns events after a position, in order, at most [`PAGE`].
    ///
    /// # Errors
    /// The database query fails.
    pub async fn kept_events(&self, wanted: Wanted, behind: i64) -> Result<Vec<KeptEvent>, StoreError> {
        let client = self.client().await?;
        let since = wanted.since.unwrap_or(Timestamp::UNIX_EPOCH);
        let rows = match wanted.payment {
            Some(payment) => {
                let sql = "SELECT position, body FROM events
                           WHERE payment_id = $1 AND position > $2 AND created >= $3 ORDER BY position LIMIT $4";
                client.query(sql, &[&payment, &behind, &since, &PAGE]).await?
            }
            None => {
                let sql = "SELECT position, body FROM events
                           WHERE position > $1 AND created >= $2 ORDER BY position LIMIT $3";
                client.query(sql, &[&behind, &since, &PAGE]).await?
            }
        };
        rows.iter().map(|row| Ok(KeptEvent { position: row.read("position")?, body: row.read("body")? })).collect()
    }

    /// Returns a position before all events of this time or later. Events have no index by time, but are nearly in time
    /// order, so a binary search finds it.
    async fn position_before(&self, time: Timestamp) -> Result<i64, StoreError> {
        let client = self.client().await?;
        let time = time.saturating_sub(DISORDER).unwrap_or(Timestamp::MIN);
        let ends = client.query_one("SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM events", &[]);
        let ends = ends.await?;
        let (mut before, mut behind): (i64, i64) = (ends.read::<i64>(0)? - 1, ends.read(1)?);
        let next = "SELECT created FROM events WHERE position > $1 ORDER BY position LIMIT 1";
        while before < behind {
            let middle = before + (behind - before) / 2;
            let rows = client.query(next, &[&middle]).await?;
            let is_later = match rows.first() {
                Some(row) => row.read::<Timestamp>(0)? >= time,
                None => true,
            };
            if is_later { behind = middle } else { before = middle + 1 }
        }
        Ok(before)
    }
}
