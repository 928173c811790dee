//! Payments whose events are set aside, and their release.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

/// A payment whose events are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAside {
    /// The broker's reason.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// How many of its events wait.
    pub events: i64,
}

const SET_ASIDE: &str = include_str!("release_find_set_aside.sql");

const RELEASE: &str = "WITH released AS (DELETE FROM set_aside WHERE payment_id = $1 RETURNING payment_id)
    INSERT INTO audit (who, action, details)
    SELECT $2, 'dead.release', $3 WHERE EXISTS (SELECT 1 FROM released)";

impl Store {
    /// Returns what is set aside of a payment; `None` if nothing is.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn events_set_aside(&self, payment: Uuid) -> Result<Option<SetAside>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(SET_ASIDE, &[&payment]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(SetAside { reason: row.read(0)?, since: row.read(1)?, events: row.read(2)? }))
    }

    /// Releases a payment's events that were set aside, and records who did so. They were noted as overdue like all
    /// unconfirmed events, so the relay finds them and sends them in order. Returns their number; `None` if none were
    /// set aside.
    ///
    /// # Errors
    /// The database query fails. Nothing was changed, unless the error is [`StoreError::Unavailable`]; then the outcome
    /// is unknown.
    pub async fn release(&self, payment: Uuid, who: &str) -> Result<Option<usize>, StoreError> {
        let Some(set_aside) = self.events_set_aside(payment).await? else { return Ok(None) };
        let details = json!({ "payment": payment, "events": set_aside.events });
        let client = self.client().await?;
        client.execute(RELEASE, &[&payment, &who, &details]).await?;
        Ok(Some(usize::try_from(set_aside.events).unwrap_or_default()))
    }
}
