//! Database errors, classified in one place.

use deadpool_postgres::{HookError, PoolError, TimeoutType};
use tokio_postgres::error::SqlState;

/// Why a statement did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// No connection, or it was lost; the outcome of a statement in flight is unknown.
    #[error("the database cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Two writers conflicted; a retry decides it.
    #[error("the database asks for a retry")]
    Conflict(#[source] tokio_postgres::Error),
    /// The statement can never succeed with this data.
    #[error("the database rejects the data")]
    Refused(#[source] tokio_postgres::Error),
    /// A stored value cannot be read.
    #[error("the database contains data that this version cannot read: {0}")]
    Unreadable(String),
    /// The server rejects the login: the user, its password, or the database.
    #[error(
        "the database server rejects the user, the password or the database of database.url: correct it at the server \
         or in database.url"
    )]
    Login(#[source] tokio_postgres::Error),
    /// The role lacks a privilege; nothing was done.
    #[error("the database role lacks a privilege: grant its privileges with deploy/postgres/roles.sql")]
    Forbidden(#[source] tokio_postgres::Error),
    /// Privileges that the worker's role lacks.
    #[error("the database role lacks {0}: grant its privileges with deploy/postgres/roles.sql")]
    Rights(String),
    /// PostgreSQL acknowledges commits that it may lose.
    #[error(
        "the database confirms commits before they are on disk (synchronous_commit = off), so a crash can lose \
         charges: set it to on for the worker's role, or set database.may_lose_commits = true"
    )]
    NotDurable,
    /// The server accepts no writes.
    #[error("the database accepts no writes: it is a standby or read-only")]
    ReadOnly,
    /// Sequences that are behind the numbers already assigned.
    #[error(
        "the database would assign numbers a second time, so new events would never be sent: {0}; run `paybus migrate`"
    )]
    Sequences(String),
    /// The schema is not the one this version needs.
    #[error("the database schema is {0}")]
    Schema(String),
}

impl StoreError {
    /// Whether a new connection, or time, is all that is needed.
    pub fn is_unavailable(&self) -> bool {
        matches!(self, StoreError::Unavailable(_) | StoreError::Login(_) | StoreError::ReadOnly)
    }

    /// Whether an operator must fix something first.
    pub fn needs_somebody(&self) -> bool {
        matches!(self, StoreError::Login(_) | StoreError::Forbidden(_) | StoreError::Rights(_) | StoreError::NotDurable)
    }

    /// Whether another transaction held a lock for longer than the lock timeout.
    pub(super) fn is_locked(&self) -> bool {
        matches!(self, StoreError::Conflict(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> StoreError {
        let Some(state) = error.code() else {
            return StoreError::Unavailable(Box::new(error));
        };
        let class = state.code().get(..2).unwrap_or_default();
        match class {
            // Integrity violation: another writer was first. Transaction rollback: deadlock or serialization failure.
            "23" | "40" => StoreError::Conflict(error),
            _ if *state == SqlState::LOCK_NOT_AVAILABLE => StoreError::Conflict(error),
            _ if *state == SqlState::READ_ONLY_SQL_TRANSACTION => StoreError::ReadOnly,
            _ if *state == SqlState::INSUFFICIENT_PRIVILEGE => StoreError::Forbidden(error),
            // Invalid authorization: the user or its password.
            "28" => StoreError::Login(error),
            _ if *state == SqlState::INVALID_CATALOG_NAME => StoreError::Login(error),
            // Data exceptions and program limits: a row that can never be stored.
            "22" | "54" => StoreError::Refused(error),
            _ => StoreError::Unavailable(Box::new(error)),
        }
    }
}

/// Why the pool has no connection to give.
#[derive(Debug, thiserror::Error)]
enum NoConnection {
    #[error(
        "connecting timed out (database.connect_timeout): the server does not answer, or a firewall drops the packets"
    )]
    NotMade,
    #[error(
        "all connections are in use and none became free in time: the database is too slow, or database.pool is too \
         small"
    )]
    AllInUse,
    #[error("a pooled connection no longer answers")]
    Silent,
    #[error("its connections are closed because this process is shutting down")]
    Closed,
}

impl From<PoolError> for StoreError {
    fn from(error: PoolError) -> StoreError {
        let why = match error {
            PoolError::Backend(error) => return error.into(),
            PoolError::PostCreateHook(HookError::Backend(error)) => return StoreError::Unavailable(Box::new(error)),
            PoolError::PostCreateHook(HookError::Message(message)) => return StoreError::Unavailable(message.into()),
            PoolError::Timeout(TimeoutType::Create) => NoConnection::NotMade,
            PoolError::Timeout(TimeoutType::Wait) => NoConnection::AllInUse,
            PoolError::Timeout(TimeoutType::Recycle) => NoConnection::Silent,
            PoolError::Closed => NoConnection::Closed,
            PoolError::NoRuntimeSpecified => return StoreError::Unavailable(Box::new(error)),
        };
        StoreError::Unavailable(Box::new(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error_chain::chain;

    #[test]
    fn a_pool_without_a_connection_says_why_and_what_to_look_at() {
        let text_of = |error: PoolError| chain(&StoreError::from(error));
        for (error, words) in [
            (PoolError::Timeout(TimeoutType::Create), "database.connect_timeout"),
            (PoolError::Timeout(TimeoutType::Wait), "database.pool"),
            (PoolError::Timeout(TimeoutType::Recycle), "no longer answers"),
            (PoolError::Closed, "this process is shutting down"),
            (PoolError::PostCreateHook(HookError::message("no answer")), "no answer"),
        ] {
            let text = text_of(error);
            assert!(text.starts_with("the database cannot be reached: ") && text.contains(words), "{text}");
            assert!(!text.contains("object") && !text.contains("slot") && !text.contains("hook"), "{text}");
        }
    }
}
