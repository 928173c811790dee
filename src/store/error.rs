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
    #[error("the database asks to try again")]
    Conflict(#[source] tokio_postgres::Error),
    /// The statement can never succeed with this data.
    #[error("the database refuses the data")]
    Refused(#[source] tokio_postgres::Error),
    /// A stored value cannot be read.
    #[error("the database holds what this version cannot read: {0}")]
    Unreadable(String),
    /// The server rejects the login: the user, its password, or the database.
    #[error(
        "the database server refuses the user, the password or the database of database.url: mend it at the server, or \
         database.url"
    )]
    Login(#[source] tokio_postgres::Error),
    /// The role lacks a privilege; nothing was done.
    #[error("the database's role is not allowed to: give it its rights by deploy/postgres/roles.sql")]
    Forbidden(#[source] tokio_postgres::Error),
    /// Privileges that the worker's role lacks.
    #[error("the database's role lacks {0}: give it its rights by deploy/postgres/roles.sql")]
    Rights(String),
    /// PostgreSQL acknowledges commits that it may lose.
    #[error(
        "the database answers commits before they are on disk (synchronous_commit = off), so that a crash forgets charges: set \
         it to on for the worker's role, or say database.may_lose_commits = true"
    )]
    NotDurable,
    /// The server accepts no writes.
    #[error("the database takes no writes: it is a standby, or made read-only")]
    ReadOnly,
    /// Sequences that are behind the numbers already assigned.
    #[error(
        "the database gives numbers that were given before, so that new events would never be sent: {0}; run `paybus migrate`"
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
        "no connection could be made in time (database.connect_timeout): its server does not answer, or something between \
         drops what is sent to it"
    )]
    NotMade,
    #[error(
        "all connections are in use and none came free in time: it answers too slowly, or database.pool is too small"
    )]
    AllInUse,
    #[error("a connection that was kept does not answer any more")]
    Silent,
    #[error("its connections are closed, for this process ends")]
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
        let told = |error: PoolError| chain(&StoreError::from(error));
        for (error, words) in [
            (PoolError::Timeout(TimeoutType::Create), "database.connect_timeout"),
            (PoolError::Timeout(TimeoutType::Wait), "database.pool"),
            (PoolError::Timeout(TimeoutType::Recycle), "does not answer any more"),
            (PoolError::Closed, "this process ends"),
            (PoolError::PostCreateHook(HookError::message("no answer")), "no answer"),
        ] {
            let told = told(error);
            assert!(told.starts_with("the database cannot be reached: ") && told.contains(words), "{told}");
            assert!(!told.contains("object") && !told.contains("slot") && !told.contains("hook"), "{told}");
        }
    }
}
