//! Answers to commands that came again: finds the stored answer, and redirects the one to come.

use std::sync::LazyLock;

use serde::Deserialize;
use uuid::Uuid;

use super::{OutboxEvent, outbox_event};
use crate::payment::command::Reply;
use crate::payment::operation::Operation;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::rows;

/// How many of a payment's answers are searched, newest first.
const LOOKED_THROUGH: i64 = 500;

/// A payment's answers, newest first.
static ANSWERS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM events WHERE payment_id = $1 AND body LIKE '%\"final\":true%' ORDER BY position DESC LIMIT $2",
        *rows::EVENT
    )
});

/// Locks the payment first, as every commit does. Its version is raised, so that a worker that read the operation
/// before must decide again. No commit writes these columns again.
const REDIRECT: &str = include_str!("answers_redirect.sql");

impl Store {
    /// Returns the event that answered an operation, while it is kept.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn answer(&self, operation: &Operation) -> Result<Option<OutboxEvent>, StoreError> {
        let client = self.client().await?;
        let rows = client.query(&ANSWERS, &[&operation.payment_id, &LOOKED_THROUGH]).await?;
        for row in &rows {
            let event = outbox_event(row)?;
            if answers(&event.body, operation) {
                return Ok(Some(event));
            }
        }
        Ok(None)
    }

    /// Redirects the answer of an open operation. Returns `false` if it was answered meanwhile.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn redirect_answer(&self, payment: Uuid, operation: Uuid, reply: &Reply) -> Result<bool, StoreError> {
        let client = self.client().await?;
        Ok(client.execute(REDIRECT, &[&payment, &operation, &reply.to, &reply.correlation_id]).await? == 1)
    }
}

/// Whether an event is the answer to an operation's command.
fn answers(body: &str, operation: &Operation) -> bool {
    #[derive(Deserialize)]
    struct Body {
        data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        command: Option<Named>,
    }
    #[derive(Deserialize)]
    struct Named {
        source: String,
        id: String,
        #[serde(rename = "final")]
        is_final: bool,
    }
    let command = serde_json::from_str::<Body>(body).ok().and_then(|body| body.data.command);
    command.is_some_and(|command| {
        command.is_final && command.source == operation.name.source && command.id == operation.name.id
    })
}
