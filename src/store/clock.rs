//! PostgreSQL's clock, read seldom and carried on by the machine's own: leases and due times must agree over replicas
//! whose clocks do not.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::{SignedDuration, Timestamp};

use super::error::StoreError;

/// The difference between PostgreSQL's clock and ours.
#[derive(Debug, Default)]
pub struct Clock {
    offset_microseconds: AtomicI64,
}

impl Clock {
    /// The time by PostgreSQL's clock, to the microsecond it stores.
    pub fn now(&self) -> Timestamp {
        let offset = SignedDuration::from_micros(self.offset_microseconds.load(Ordering::Relaxed));
        let ours = Timestamp::now();
        let now = ours.checked_add(offset).unwrap_or(ours);
        Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
    }

    /// Reads PostgreSQL's clock.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn calibrate(&self, client: &tokio_postgres::Client) -> Result<(), StoreError> {
        let before = Timestamp::now();
        let row = client.query_one("SELECT clock_timestamp()", &[]).await?;
        let after = Timestamp::now();
        let theirs: Timestamp = row.try_get(0)?;
        // Read half a round trip ago.
        let middle = (before.as_microsecond() + after.as_microsecond()) / 2;
        self.offset_microseconds.store(theirs.as_microsecond() - middle, Ordering::Relaxed);
        Ok(())
    }
}
