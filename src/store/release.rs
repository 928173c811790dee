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

/// How long commits may be held up: they wait behind whoever waits for this lock.
const PATIENCE: &str = "SET LOCAL lock_timeout = '3s'";

/// Positions are given before they can be seen: with this lock, nobody has one that is not seen yet.
const LOCK: &str = "LOCK TABLE events IN SHARE ROW EXCLUSIVE MODE";

const UNSENT: &str = "SELECT e.id FROM events e WHERE e.payment_id = $1
        AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
    ORDER BY e.position";

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

    /// Lets a payment's events out that were set aside, and records who did so. They line up again at the end of the
    /// outbox, where the relay finds them in their order: its watermark may have passed their old places long ago, and
    /// moved back there it would read everything since. How many they are; nothing where none were set aside.
    ///
    /// # Errors
    /// The database cannot be asked, or commits hold the outbox for too long; nothing was changed then.
    pub async fn release(&self, payment: Uuid, who: &str) -> Result<Option<usize>, StoreError> {
        let mut client = self.client().await?;
        let transaction = client.patient()?.transaction().await?;
        transaction.batch_execute(PATIENCE).await?;
        transaction.batch_execute(LOCK).await?;
        if transaction.execute("DELETE FROM set_aside WHERE payment_id = $1", &[&payment]).await? == 0 {
            return Ok(None);
        }
        let unsent = transaction.query(UNSENT, &[&payment]).await?;
        let line_up =
            transaction.prepare("UPDATE events SET position = DEFAULT WHERE payment_id = $1 AND id = $2").await?;
        for row in &unsent {
            // One by one: the order of a single statement is nobody's promise.
            transaction.execute(&line_up, &[&payment, &row.read::<Uuid>(0)?]).await?;
        }
        let details = json!({ "payment": payment, "events": unsent.len() });
        transaction
            .execute("INSERT INTO audit (who, action, details) VALUES ($1, $2, $3)", &[&who, &"dead.release", &details])
            .await?;
        transaction.commit().await?;
        Ok(Some(unsent.len()))
    }
}
