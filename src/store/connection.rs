//! A connection from a pool that does not wait for ever, and that goes back only if it is still good for something.

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
use super::parameters;
use super::session::{BRIEFLY, Isolation, Lent, Session};

/// A connection, until it is dropped.
///
/// The server ends a statement that takes too long, but a server that vanished ends nothing: its host lost power, or a
/// firewall forgot the connection. So every statement is given up here a little later than there.
pub struct Connection {
    /// Empty only while it is dropped.
    object: Option<Object>,
    pool: Pool,
    session: Session,
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

/// A statement with its parameters.
pub(super) type Asked<'a> = (&'a str, &'a [&'a (dyn ToSql + Sync)]);

impl Connection {
    pub(super) fn new(object: Object, pool: &Pool, session: &Session, patience: Duration) -> Connection {
        let (pool, session) = (pool.clone(), session.clone());
        Connection { object: Some(object), pool, session, patience, spoilt: AtomicBool::new(false) }
    }

    /// Asks, and returns the rows.
    pub(super) async fn query(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, StoreError> {
        let [rows] = self.query_together([(sql, with)]).await?;
        Ok(rows)
    }

    /// The same, but a lock that somebody else has is waited for only briefly.
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

    /// Asks for exactly one row.
    pub(super) async fn query_one(&self, sql: &str, with: &[&(dyn ToSql + Sync)]) -> Result<Row, StoreError> {
        let rows = <[Row; 1]>::try_from(self.query(sql, with).await?);
        let [row] = rows.map_err(|rows| StoreError::Unreadable(format!("{} rows in place of one", rows.len())))?;
        Ok(row)
    }

    /// Asks several things in one go, which are carried out in this order, each on what is committed by then.
    pub(super) async fn query_together<const N: usize>(
        &self,
        asked: [Asked<'_>; N],
    ) -> Result<[Vec<Row>; N], StoreError> {
        self.query_all(Isolation::EachStatement, asked).await
    }

    /// Asks several things of one moment.
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
                // All are prepared before the first is sent: else one that must be waited for would come last.
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
        // As many answers as there were questions.
        rows?
            .try_into()
            .map_err(|rows: Vec<_>| StoreError::Unreadable(format!("{} answers to {N} questions", rows.len())))
    }

    /// Changes something, and returns how many rows.
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

    /// A transaction that is sent in one go: the server goes on without waiting for us, and where one statement fails, the
    /// others fail with it and the end of it undoes them.
    async fn transaction<T, F>(
        &self,
        object: &Object,
        begin: &str,
        each: impl IntoIterator<Item = F>,
    ) -> Result<Vec<T>, StoreError>
    where
        F: Future<Output = Result<T, tokio_postgres::Error>>,
    {
        // Each is sent when it is first looked at, so that they must be looked at in this order.
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

    /// The types of a statement's parameters; the server is asked once, within a transaction of its own: all of it is asked
    /// of one server.
    async fn types_of(&self, object: &Object, lent: &Lent, sql: &str) -> Result<Arc<[Type]>, StoreError> {
        if let Some(types) = lent.types_of(sql) {
            return Ok(types);
        }
        // Given up on its way, it would be in the middle of a transaction.
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

    /// The connection itself, for what may take as long as it takes.
    pub(super) fn patient(&mut self) -> Result<&mut Object, StoreError> {
        self.object.as_mut().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    /// Nobody else gets it after this use.
    pub(super) fn keep_out(&self) {
        self.spoilt.store(true, Ordering::Relaxed);
    }

    fn object(&self) -> Result<&Object, StoreError> {
        self.object.as_ref().ok_or_else(|| StoreError::Unavailable(Box::new(GivenUp)))
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, StoreError> {
        match timeout(self.patience, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => {
                if error.code().is_some_and(is_of_server) {
                    self.spoilt.store(true, Ordering::Relaxed);
                    // Those that lie idle lead to the same server.
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
                // Those that lie idle lead to the same host: one after the other would be waited for.
                self.pool.retain(|_, _| false);
                Err(StoreError::Unavailable(Box::new(NoAnswer(self.patience))))
            }
        }
    }
}

fn typed<'a>(with: &[&'a (dyn ToSql + Sync)], types: &[Type]) -> Vec<(&'a (dyn ToSql + Sync), Type)> {
    with.iter().zip(types).map(|(parameter, kind)| (*parameter, kind.clone())).collect()
}

/// Whether the server no longer knows what this connection has prepared, or by which number: the table has changed since
/// ("cached plan must not change result type"), the schema was made anew, or a pooler between us gave the connection another
/// server. It would fail again every time.
fn is_stale(state: &SqlState) -> bool {
    [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INVALID_SQL_STATEMENT_NAME,
        SqlState::DATATYPE_MISMATCH,
        SqlState::UNDEFINED_OBJECT,
        // A type that is no more: "cache lookup failed".
        SqlState::INTERNAL_ERROR,
    ]
    .contains(state)
}

/// Whether the reason lies with the server behind this connection, and a new connection may lead to another one or find it
/// well again: it became a standby, or takes no writes for another reason, or ends.
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
            // Taken out of the pool, which makes another one when it is needed.
            drop(Object::take(object));
        }
    }
}
