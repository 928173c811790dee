//! Pauses of variants, as operators order them. A row for each command that did, and the last one of a variant counts.

use std::collections::HashMap;

use uuid::Uuid;

use super::connection::pools::Store;
use super::error::StoreError;
use super::row::ReadColumn;
use crate::payment::command::{CommandName, Pause};

const CURRENT: &str = include_str!("pauses_current.sql");
const RECORD: &str = include_str!("pauses_record.sql");

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

    /// Stores what an operator ordered. A command that is stored already changes nothing. Returns whether it is stored: a
    /// pause that would be over already is not.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn record_pause(&self, order: &PauseOrder<'_>) -> Result<bool, StoreError> {
        let PauseOrder { id, name, user, variant, pause, reason } = *order;
        let until = pause.and_then(|pause| pause.until);
        let is_paused = pause.is_some();
        let client = self.client().await?;
        client.execute(RECORD, &[&id, &variant, &is_paused, &until, &reason, &user, &name.source, &name.id]).await?;
        client.query_one("SELECT EXISTS (SELECT 1 FROM variant_pauses WHERE command = $1)", &[&id]).await?.read(0)
    }
}
