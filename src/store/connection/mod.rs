//! A pooled connection with bounded waits, which returns to the pool only while it is usable.

pub mod clock;
mod hosts;
mod parameters;
pub mod pools;
pub(in crate::store) mod session;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use deadpool_postgres::{Object, Pool};
use futures_util::future::{join_all, join3, try_join_all};
use tokio::time::timeout;
use tokio_postgres::Row;
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};

use super::error::StoreError;
use session::{BRIEFLY, Isolation, Lent, Session};

/// A connection borrowed from a pool until it is dropped.
///
/// The server cancels a statement that takes too long, but a server that vanished cancels nothing: its host lost power,
/// or a firewall forgot the connection. So every statement also has a client-side timeout, a little longer than the
/// server's.
pub struct Connection {
    /// `None` only while it is being dropped.
    object: Option<Object>,
    pool: Pool,
    session: Session,
    answer_timeout: Duration,
    /// Whether it must not be reused.
    spoilt: AtomicBool,
}

/// A statement timed out on the client side; whether it was carried out is unknown.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0:?}")]
struct NoAnswer(Duration);

/// The connection was already given up.
#[derive(Debug, thiserror::Error)]
#[error("the connection was abandoned")]
struct GivenUp;

/// A statement with its parameters.
pub(super) type Asked<'a> = (&'a str, &'a [&'a (dyn ToSql + Sync)]);

impl Connection {
    pub(super) fn new(object: Object, pool: &Pool, session: &Session, answer_timeout: Duration) -> Connection {
        let (pool, session) = (pool.clone(), session.clone());
        Connection { object: Some(object), pool, session, answer_timeout, spoilt: AtomicBool::new(false) }
    }

    /// Runs a query and returns its rows.
    pub(super) async fn query(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let [rows] = self.query_together([(sql, with)]).await?;
        Ok(rows)
    }

    /// Like [`Connection::query`], but waits only briefly for locks held by other transactions.
    pub(super) async fn query_briefly(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let object = self.object()?;
        let mut rows = match &self.session {
            Session::Own => {
                let statement = self.within(object.prepare_cached(sql)).await?;
                let begin = format!("{}; {BRIEFLY}", Isolation::EachStatement.begin());
                self.transaction(object, &begin, [object.query(&statement, with)]).await?
            }
            Session::Lent(lent) => {
                let types = self.types_of(object, lent, sql).await?;
                let typed = typed(with, &types);
                let begin = format!("{}; {BRIEFLY}", lent.begin(Isolation::EachStatement));
                self.transaction(object, &begin, [object.query_typed(sql, &typed)]).await?
            }
        };
        Ok(rows.pop().unwrap_or_default())
    }

    /// Runs a query that must return exactly one row.
    pub(super) async fn query_one(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Row, StoreError> {
        let rows = <[Row; 1]>::try_from(self.query(sql, with).await?);
        let [row] = rows.map_err(|rows| StoreError::Unreadable(format!("{} rows instead of one", rows.len())))?;
        Ok(row)
    }

    /// Pipelines several queries. They run in this order, each on what is committed by then.
    pub(super) async fn query_together<const N: usize>(
        &self,
        asked: [Asked<'_>; N],
    ) -> Result<[Vec<Row>; N], StoreError> {
        self.query_all(Isolation::EachStatement, asked).await
    }

    /// Runs several queries on one snapshot.
    pub(super) async fn query_snapshot<const N: usize>(
        &self,
        asked: [Asked<'_>; N],
    ) -> Result<[Vec<Row>; N], StoreError> {
        self.query_all(Isolation::Snapshot, asked).await
    }

    async fn query_all<const N: usize>(
        &self,
        isolation: Isolation,
        asked: [Asked<'_>; N],
    ) -> Result<[Vec<Row>; N], StoreError> {
        let object = self.object()?;
        let rows = match &self.session {
            Session::Own => {
                // Prepare all before sending the first: otherwise one that must still be prepared would be sent last.
                let mut statements = Vec::with_capacity(N);
                for (sql, _) in asked {
                    statements.push(self.within(object.prepare_cached(sql)).await?);
                }
                let each = statements.iter().zip(asked).map(|(statement, (_, with))| object.query(statement, with));
                match isolation {
                    Isolation::EachStatement => self.within(try_join_all(each)).await,
                    Isolation::Snapshot => self.transaction(object, isolation.begin(), each).await,
                }
            }
            Session::Lent(lent) => {
                let mut parameters = Vec::with_capacity(N);
                for (sql, with) in asked {
                    parameters.push(typed(with, &self.types_of(object, lent, sql).await?));
                }
                let each = asked.iter().zip(&parameters).map(|((sql, _), typed)| object.query_typed(sql, typed));
                self.transaction(object, lent.begin(isolation), each).await
            }
        };
        // One result per query.
        rows?
            .try_into()
            .map_err(|rows: Vec<_>| StoreError::Unreadable(format!("{} results of {N} queries", rows.len())))
    }

    /// Runs a statement and returns the number of changed rows.
    pub(super) async fn execute(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<u64, StoreError> {
        let object = self.object()?;
        match &self.session {
            Session::Own => {
                self.within(async {
                    let statement = object.prepare_cached(sql).await?;
                    object.execute(&statement, with).await
                })
                .await
            }
            Session::Lent(lent) => {
                let types = self.types_of(object, lent, sql).await?;
                let typed = typed(with, &types);
                let begin = lent.begin(Isolation::EachStatement);
                let changed = self.transaction(object, begin, [object.execute_typed(sql, &typed)]).await?;
                Ok(changed.into_iter().sum())
            }
        }
    }

    /// Sends a transaction in one go: the server proceeds without waiting for us. If one statement fails, the others
    /// fail with it and the final `COMMIT` rolls them back.
    async fn transaction<T, F>(
        &self,
        object: &Object,
        begin: &str,
        each: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>, StoreError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        // Each future sends its statement when first polled, so they must be polled in this order.
        let all = join3(object.batch_execute(begin), join_all(each), object.batch_execute("COMMIT"));
        self.within(async {
            let (begun, done, committed) = all.await;
            begun?;
            let done = done.into_iter().collect::<Result<Vec<T>, _>>()?;
            committed?;
            Ok(done)
        })
        .await
    }

    /// Returns the types of a statement's parameters. The server is asked once, within a transaction, so that a pooler
    /// sends all of it to one server.
    async fn types_of(&self, object: &Object, lent: &Lent, sql: &str) -> Result<Arc<[Type]>, StoreError> {
        if let Some(types) = lent.types_of(sql) {
            return Ok(types);
        }
        // If this is cancelled midway, the connection is left in the middle of a transaction.
        self.spoilt.store(true, Ordering::Relaxed);
        let types = self
            .within(async {
                object.batch_execute(lent.begin(Isolation::EachStatement)).await?;
                let types = parameters::types_of(object, sql).await.map(|types| lent.remember(sql, types));
                object.batch_execute("ROLLBACK").await?;
                types
            })
            .await?;
        self.spoilt.store(false, Ordering::Relaxed);
        Ok(types)
    }

    /// The underlying connection, for work without a client-side timeout.
    pub(super) fn patient(&mut self) -> Result<&mut Object, StoreError> {
        self.object.as_mut().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    /// Keeps the connection out of the pool after this use.
    pub(super) fn keep_out(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    fn object(&self) -> Result<&Object, StoreError> {
        self.object.as_ref().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        match timeout(self.answer_timeout, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if error.code().is_some_and(is_of_server) {
                    self.spoilt.store(true, Ordering::Relaxed);
                    // Idle connections lead to the same server.
                    self.pool.retain(|_, _| false);
                } else if error.code().is_some_and(is_stale) {
                    self.spoilt.store(true, Ordering::Relaxed);
                    if let Session::Lent(lent) = &self.session {
                        lent.forget();
                    }
                }
                Err(error.into())
            }
            Err(_) => {
                self.spoilt.store(true, Ordering::Relaxed);
                // Idle connections lead to the same host; each of them would have to time out in turn.
                self.pool.retain(|_, _| false);
                Err(StoreError::Unavailable(Box::new(NoAnswer(self.answer_timeout))))
            }
        }
    }
}

fn typed<'a>(with: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    with.iter().zip(types).map(|(parameter, kind)| (*parameter, kind.clone())).collect()
}

/// Whether the server no longer knows what this connection prepared, or knows its types by other OIDs: the table has
/// changed since ("cached plan must not change result type"), the schema was recreated, or a pooler switched the
/// connection to another server. A retry on this connection would fail every time.
fn is_stale(state: &SqlState) -> bool {
    [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DATATYPE_MISMATCH,
        SqlState::UNDEFINED_OBJECT,
        // A type that no longer exists: "cache lookup failed".
        SqlState::INTERNAL_ERROR,
    ]
    .contains(state)
}

/// Whether the cause lies with the server behind this connection (it became a standby, takes no writes for another
/// reason, or shuts down), so that a new connection may reach another server or find it recovered.
fn is_of_server(state: &SqlState) -> bool {
    [
        SqlState::READ_ONLY_SQL_TRANSACTION,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
    ]
    .contains(state)
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(object) = self.object.take()
            && self.spoilt.load(Ordering::Relaxed)
        {
            // Taken out of the pool, which opens another one on demand.
            drop(Object::take(object));
        }
    }
}
