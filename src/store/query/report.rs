//! Figures and pages for people: what the metrics count, everything known of one payment, and the audit of manual
//! actions.
//!
//! Every replica reads the figures every few seconds. They walk the two partial indexes of operations that left the
//! common path, variant by variant, and stop counting at a limit: a million due rows cost no more than the first
//! thousands.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::payment::model::Payment;
use crate::payment::movement::Movement;
use crate::payment::operation::Operation;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::outbox::{Backlog, OutboxEvent, outbox_event};
use crate::store::row::ReadColumn;
use crate::store::rows;

/// How many operations of a variant a figure counts; one that reaches it means "at least this many".
pub const COUNTED_MAX: i64 = 2_000;

/// How many events a figure counts; they are stored side by side, so each costs less.
pub const EVENTS_COUNTED_MAX: i64 = 50_000;

/// Maximum number of operations, of movements and of events shown of one payment, the newest of each.
pub const SHOWN_MAX: usize = 500;

/// The metrics' figures of the database.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// Events that were not confirmed in time.
    pub outbox: Backlog,
    /// Operations with a due time, by variant.
    pub due: Vec<DueFigures>,
    /// Operations with an unknown outcome, and those that a person must resolve, by variant and currency.
    pub unknown: Vec<UnknownFigures>,
    /// Open operations that no configured variant serves, by variant; filled in by a caller that knows the
    /// configuration.
    pub unserved: BTreeMap<String, i64>,
    /// When these were read, as Unix time in seconds.
    pub read_at_seconds: f64,
}

/// Operations of a variant with a due time.
#[derive(Debug, Clone, PartialEq)]
pub struct DueFigures {
    /// The variant.
    pub variant: String,
    /// All of them, due or not.
    pub scheduled: i64,
    /// Those already due.
    pub overdue: i64,
    /// How long the oldest has been due, in seconds; 0 if none is.
    pub oldest_seconds: f64,
}

/// Operations of a variant and a currency with an unknown outcome.
#[derive(Debug, Clone, PartialEq)]
pub struct UnknownFigures {
    /// The variant.
    pub variant: String,
    /// The currency of their payments.
    pub currency: String,
    /// How many have an unknown outcome.
    pub count: i64,
    /// How many a person must resolve, pending ones included.
    pub escalated: i64,
    /// How long ago the oldest was first sent, in seconds.
    pub oldest_seconds: f64,
    /// The sum of their amounts, in currency units.
    pub amount: Decimal,
}

/// Everything known of one payment.
#[derive(Debug, Clone)]
pub struct History {
    /// Time of the read, by PostgreSQL's clock.
    pub now: Timestamp,
    /// The payment; `None` if commands were stored for one that was never created.
    pub payment: Option<Payment>,
    /// Its commands, in order of acceptance.
    pub operations: Vec<OperationRecord>,
    /// Its movements of money, in order.
    pub movements: Vec<MovementRecord>,
    /// Its events, in order.
    pub events: Vec<EventRecord>,
    /// Whether there is more of anything than is shown.
    pub truncated: bool,
}

/// An operation, with what the machine does not need to know of it.
#[derive(Debug, Clone)]
pub struct OperationRecord {
    /// The operation.
    pub operation: Operation,
    /// When it was answered.
    pub settled_at: Option<Timestamp>,
}

/// A movement, with when it was learnt.
#[derive(Debug, Clone)]
pub struct MovementRecord {
    /// The movement.
    pub movement: Movement,
    /// When it was stored.
    pub created: Timestamp,
}

/// An event, with its delivery status.
#[derive(Debug, Clone)]
pub struct EventRecord {
    /// The event.
    pub event: OutboxEvent,
    /// Its sequence number within the payment, for `payment.*`.
    pub sequence: Option<i64>,
    /// When it was stored.
    pub created: Timestamp,
    /// When the broker confirmed it.
    pub sent_at: Option<Timestamp>,
    /// Why it is not sent: the broker refused it, or an earlier one of the payment.
    pub set_aside: Option<String>,
}

/// Lists every variant in a partial index, with one index probe each.
macro_rules! variants {
    ($condition:literal) => {
        concat!(
            "WITH RECURSIVE names AS (
                 (SELECT variant FROM operations WHERE ",
            $condition,
            " ORDER BY variant LIMIT 1)
                 UNION ALL
                 SELECT (SELECT o.variant FROM operations o WHERE o.variant > n.variant AND ",
            $condition,
            " ORDER BY o.variant LIMIT 1) FROM names n WHERE n.variant IS NOT NULL) "
        )
    };
}
pub(in crate::store) use variants;

const DUE: &str = concat!(
    variants!("due_at IS NOT NULL"),
    "SELECT n.variant, f.* FROM names n CROSS JOIN LATERAL (
         SELECT count(*), count(*) FILTER (WHERE due_at <= now()),
             greatest(extract(epoch FROM now() - min(due_at)), 0)::float8
         FROM (SELECT due_at FROM operations o WHERE o.variant = n.variant AND o.due_at IS NOT NULL
               ORDER BY due_at LIMIT $1) d) f
     WHERE n.variant IS NOT NULL"
);

/// Pending operations are of no concern until a person must resolve them.
const UNKNOWN: &str = concat!(
    variants!("(state = 'unknown' OR state = 'pending' AND escalated)"),
    "SELECT n.variant, f.* FROM names n CROSS JOIN LATERAL (
         SELECT coalesce(p.currency, ''), count(*) FILTER (WHERE u.state = 'unknown'),
             count(*) FILTER (WHERE u.escalated),
             coalesce(extract(epoch FROM now() - min(coalesce(u.first_sent_at, u.created))
                 FILTER (WHERE u.state = 'unknown')), 0)::float8,
             coalesce(sum(u.amount) FILTER (WHERE u.state = 'unknown'), 0)
         FROM (SELECT * FROM operations o WHERE o.variant = n.variant
               AND (o.state = 'unknown' OR o.state = 'pending' AND o.escalated) LIMIT $1) u
         LEFT JOIN payments p ON p.id = u.payment_id
         GROUP BY p.currency) f
     WHERE n.variant IS NOT NULL"
);

/// Counts the oldest of the events noted as unsent. Events that their worker still owns do not count: to find the few
/// unsent ones, every replica would keep rereading everything stored in these seconds. Events set aside wait for a
/// person, however old they are, and must not hide that others wait.
const OUTBOX: &str = include_str!("report_outbox.sql");

static PAYMENT: LazyLock<String> = LazyLock::new(|| format!("SELECT {} FROM payments WHERE id = $1", *rows::PAYMENT));
static OPERATIONS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM operations WHERE payment_id = $1 ORDER BY accepted DESC LIMIT $2", *rows::OPERATION)
});
static MOVEMENTS: LazyLock<String> = LazyLock::new(|| {
    format!("SELECT {} FROM movements WHERE payment_id = $1 ORDER BY created DESC, kind LIMIT $2", *rows::MOVEMENT)
});
const EVENTS: &str = include_str!("report_events.sql");

impl Store {
    /// Reads the figures for the metrics, counted up to [`COUNTED_MAX`] and [`EVENTS_COUNTED_MAX`].
    ///
    /// # Errors
    /// The database query fails, or the server accepts no writes.
    pub async fn figures(&self) -> Result<Figures, StoreError> {
        self.check_writable().await?;
        let client = self.client().await?;
        let outbox = client.query_one(OUTBOX, &[&EVENTS_COUNTED_MAX]).await?;
        let due = client.query(DUE, &[&COUNTED_MAX]).await?;
        let unknown = client.query(UNKNOWN, &[&COUNTED_MAX]).await?;
        Ok(Figures {
            outbox: Backlog {
                count: outbox.read(0)?,
                oldest_seconds: outbox.read(1)?,
                set_aside: outbox.read(2)?,
                overdue: outbox.read(3)?,
            },
            due: due.iter().map(due_figures).collect::<Result<_, _>>()?,
            unknown: unknown.iter().map(unknown_figures).collect::<Result<_, _>>()?,
            unserved: BTreeMap::new(),
            read_at_seconds: self.clock().now().as_millisecond() as f64 / 1000.0,
        })
    }

    /// Returns everything known of a payment, the newest [`SHOWN_MAX`] of each kind; `None` if nothing is stored.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn history(&self, payment: Uuid) -> Result<Option<History>, StoreError> {
        let client = self.client().await?;
        let limit = i64::try_from(SHOWN_MAX + 1).unwrap_or(i64::MAX);
        let parameters: [&(dyn ToSql + Sync); 2] = [&payment, &limit];
        // One snapshot: a timeline with parts read before and after a commit would contradict itself.
        let [now, payment, operations, movements, events] = client
            .query_snapshot([
                ("SELECT clock_timestamp()", &[]),
                (&PAYMENT, &parameters[..1]),
                (&OPERATIONS, &parameters),
                (&MOVEMENTS, &parameters),
                (EVENTS, &parameters),
            ])
            .await?;
        let payment = payment.first().map(rows::payment).transpose()?;
        if payment.is_none() && operations.is_empty() {
            return Ok(None);
        }
        let truncated = [&operations, &movements, &events].iter().any(|rows| rows.len() > SHOWN_MAX);
        let currency = payment.as_ref().map(Payment::currency);
        Ok(Some(History {
            now: now.first().ok_or_else(|| StoreError::Unreadable("no time".to_owned()))?.read(0)?,
            operations: last(&operations, |row| {
                Ok(OperationRecord { operation: rows::operation(row, currency)?, settled_at: row.read("settled_at")? })
            })?,
            movements: last(&movements, |row| {
                Ok(MovementRecord { movement: rows::movement(row)?, created: row.read("created")? })
            })?,
            events: last(&events, event_record)?,
            payment,
            truncated,
        }))
    }

    /// Records a manual action and who did it.
    ///
    /// # Errors
    /// The database query fails.
    pub async fn audit(&self, who: &str, action: &str, details: &Value) -> Result<(), StoreError> {
        let client = self.client().await?;
        client
            .execute("INSERT INTO audit (who, action, details) VALUES ($1, $2, $3)", &[&who, &action, details])
            .await?;
        Ok(())
    }
}

/// The rows to show, reversed to oldest first.
fn last<T>(rows: &[Row], read: impl Fn(&Row) -> Result<T, StoreError>) -> Result<Vec<T>, StoreError> {
    rows.iter().take(SHOWN_MAX).rev().map(read).collect()
}

fn due_figures(row: &Row) -> Result<DueFigures, StoreError> {
    Ok(DueFigures {
        variant: row.read(0)?,
        scheduled: row.read(1)?,
        overdue: row.read(2)?,
        oldest_seconds: row.read(3)?,
    })
}

fn unknown_figures(row: &Row) -> Result<UnknownFigures, StoreError> {
    Ok(UnknownFigures {
        variant: row.read(0)?,
        currency: row.read(1)?,
        count: row.read(2)?,
        escalated: row.read(3)?,
        oldest_seconds: row.read(4)?,
        amount: row.read(5)?,
    })
}

fn event_record(row: &Row) -> Result<EventRecord, StoreError> {
    let sent_at: Option<Timestamp> = row.read("sent_at")?;
    let set_aside: Option<String> = row.read("set_aside")?;
    Ok(EventRecord {
        event: outbox_event(row)?,
        sequence: row.read("sequence")?,
        created: row.read("created")?,
        sent_at,
        set_aside: set_aside.filter(|_| sent_at.is_none()),
    })
}
