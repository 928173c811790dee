//! A connection from a pool that does not wait for ever, and that goes back only if it is still good for something.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use tokio::time::timeout;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Row, Statement, ToStatement};

use super::error::StoreError;

/// A connection, until it is dropped.
///
/// The server ends a statement that takes too long, but a server that vanished ends nothing: its host lost power, or a
/// firewall forgot the connection. So every statement is given up here a little later than there.
pub struct Connection {
    /// Empty only while it is dropped.
    object: Option<Object>,
    pool: Pool,
    patience: Duration,
    /// Nothing more is to be expected of it.
    spoilt: AtomicBool,
}

/// Why a statement was given up: whether it was carried out is not known.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// The connection is gone.
#[derive(Debug, thiserror::Error)]
#[error("the connection was given up")]
struct GivenUp;

impl Connection {
    pub(super) fn new(object: Object, pool: &Pool, patience: Duration) -> Connection {
        Connection { object: Some(object), pool: pool.clone(), patience, spoilt: AtomicBool::new(false) }
    }

    /// A prepared statement; prepared once for each connection.
    pub(super) async fn prepare_cached(&self, sql: &str) -> Result<Statement, StoreError> {
        let object = self.object()?;
        self.within(object.prepare_cached(sql)).await
    }

    pub(super) async fn query<S>(&self, statement: &S, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError>
    where
        S: ?Sized + ToStatement,
    {
        let object = self.object()?;
        self.within(object.query(statement, with)).await
    }

    pub(super) async fn query_one<S>(&self, statement: &S, with: &[&(dyn ToSql + Sync)]) -> Result<Row, StoreError>
    where
        S: ?Sized + ToStatement,
    {
        let object = self.object()?;
        self.within(object.query_one(statement, with)).await
    }

    pub(super) async fn execute<S>(&self, statement: &S, with: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError>
    where
        S: ?Sized + ToStatement,
    {
        let object = self.object()?;
        self.within(object.execute(statement, with)).await
    }

    /// The connection itself, for what may take as long as it takes.
    pub(super) fn patient(&mut self) -> Result<&mut Object, StoreError> {
        self.object.as_mut().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    fn object(&self) -> Result<&Object, StoreError> {
        self.object.as_ref().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        match timeout(self.patience, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if error.code().is_some_and(is_stale) {
                    self.spoilt.store(true, Ordering::Relaxed);
                }
                Err(error.into())
            }
            Err(_) => {
                self.spoilt.store(true, Ordering::Relaxed);
                // Those that lie idle lead to the same host: one after the other would be waited for.
                self.pool.retain(|_, _| false);
                Err(StoreError::Unavailable(Box::new(NoAnswer(self.patience))))
            }
        }
    }
}

/// Whether the server no longer knows what this connection has prepared: the table has changed since ("cached plan must not
/// change result type"), or a pooler between us gave the connection another server. It would fail again every time.
fn is_stale(state: &SqlState) -> bool {
    *state == SqlState::FEATURE_NOT_SUPPORTED || *state == SqlState::INVALID_SQL_STATEMENT_NAME
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && self.spoilt.load(Ordering::Relaxed)
        {
            // Taken out of the pool, which makes another one when it is needed.
            drop(Object::take(object));
        }
    }
}
