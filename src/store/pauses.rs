//! Pauses of variants, as operators order them. A row for each command that did, and the last one of a variant counts.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connection::pools::Store;
use super::error::StoreError;
use super::row::ReadColumn;
use crate::payment::command::{CommandName, Pause};

const CURRENT: &str = include_str!("pauses_current.sql");
const RECORD: &str = include_str!("pauses_record.sql");
const STORED: &str = include_str!("pauses_stored.sql");

/// A command that pauses a variant or lets it continue.
#[derive(Debug, Clone, Copy)]
pub struct PauseOrder<'a> {
    /// The id of its operation.
    pub id: Uuid,
    /// Its source and id.
    pub name: &'a CommandName,
    /// The broker's user who sent it.
    pub user: &'a str,
    /// The variant.
    pub variant: &'a str,
    /// The pause; `None` to let the variant continue.
    pub pause: Option<&'a Pause>,
    /// Why.
    pub reason: &'a str,
    /// After this time it is no longer carried out.
    pub expires_at: Option<Timestamp>,
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is stored, now or before.
    Stored,
    /// Its name belongs to another order, which is stored.
    OfAnother,
    /// It came too late: it has expired, or its pause would be over already.
    TooLate,
}

impl Store {
    /// Returns the variants that are paused now.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn pauses(&self) -> Result<HashMap<String, Pause>, StoreError> {
        let client = self.client().await?;
        let mut pauses = HashMap::new();
        for row in client.query(CURRENT, &[]).await? {
            if row.read("is_paused")? {
                pauses.insert(row.read("variant")?, Pause { until: row.read("until")?, reason: row.read("reason")? });
            }
        }
        Ok(pauses)
    }

    /// Stores what an operator ordered. An order that is stored already changes nothing.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn record_pause(&self, order: &PauseOrder<'_>) -> Result<Recorded, StoreError> {
        let PauseOrder { id, name, user, variant, pause, reason, expires_at } = *order;
        let until = pause.and_then(|pause| pause.until);
        let is_paused = pause.is_some();
        let client = self.client().await?;
        let order: [&(dyn ToSql + Sync); 9] =
            [&id, &variant, &is_paused, &until, &reason, &user, &name.source, &name.id, &expires_at];
        client.execute(RECORD, &order).await?;
        let stored = client.query(STORED, &order[..5]).await?;
        Ok(match stored.first().map(|row| row.read(0)).transpose()? {
            Some(true) => Recorded::Stored,
            Some(false) => Recorded::OfAnother,
            None => Recorded::TooLate,
        })
    }
}
