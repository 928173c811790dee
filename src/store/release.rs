//! Payments whose events are set aside, and the way back.

use jiff::Timestamp;
use serde_json::json;
use uuid::Uuid;

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// A payment whose events are set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aside {
    /// Why, in the broker's words.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// How many of its events wait.
    pub events: i64,
}

const ASIDE: &str = "SELECT a.reason, a.at,
        (SELECT count(*) FROM events e WHERE e.payment_id = $1
         AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position))
    FROM set_aside a WHERE a.payment_id = $1 ORDER BY a.position LIMIT 1";

const RELEASE: &str = "WITH released AS (DELETE FROM set_aside WHERE payment_id = $1 RETURNING payment_id)
    INSERT INTO audit (who, action, details)
    SELECT $2, 'dead.release', $3 WHERE EXISTS (SELECT 1 FROM released)";

impl Store {
    /// What is set aside of a payment; nothing where nothing is.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn aside(&self, payment: Uuid) -> Result<Option<Aside>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(ASIDE, &[&payment]).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        Ok(Some(Aside { reason: row.read(0)?, since: row.read(1)?, events: row.read(2)? }))
    }

    /// Lets a payment's events out that were set aside, and records who did so. They were noted as overdue like all that are
    /// not confirmed, so the relay finds them and sends them in their order. How many they are; nothing where none were set
    /// aside.
    ///
    /// # Errors
    /// The database cannot be asked; nothing was changed then.
    pub async fn release(&self, payment: Uuid, who: &str) -> Result<Option<usize>, StoreError> {
        let Some(aside) = self.aside(payment).await? else { return Ok(None) };
        let details = json!({ "payment": payment, "events": aside.events });
        let client = self.client().await?;
        client.execute(RELEASE, &[&payment, &who, &details]).await?;
        Ok(Some(usize::try_from(aside.events).unwrap_or_default()))
    }
}
