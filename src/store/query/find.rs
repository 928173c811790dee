//! Searches payments by state or by attributes, page by page and read-only.
//!
//! Operations that are unknown, escalated or scheduled are read by their partial index. All other searches scan the
//! payments from the newest back: every payment would pay for an index per search criterion.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use jiff::Timestamp;
use rust_decimal::Decimal;
use strum::IntoEnumIterator;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};
use uuid::Uuid;

use crate::payment::model::Metadata;
use crate::payment::money::Money;
use crate::payment::operation::State;
use crate::payment::status::Status;
use crate::store::connection::Connection;
use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;
use crate::store::rows::{currency, money, word};

/// Maximum number of payments that one statement examines.
const PAGE: usize = 5_000;

/// The required state of an open operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// In this state, which is not [`State::Settled`].
    In(State),
    /// A person must say what happened.
    Escalated,
    /// Any state, as long as it is open.
    Open,
}

impl Standing {
    /// Every value.
    pub fn iter() -> impl Iterator<Item = Standing> {
        let open = State::iter().filter(|state| *state != State::Settled);
        open.map(Standing::In).chain([Standing::Escalated, Standing::Open])
    }

    /// Its word, in arguments and in SQL.
    pub fn as_str(self) -> &'static str {
        match self {
            Standing::In(state) => state.as_str(),
            Standing::Escalated => "escalated",
            Standing::Open => "open",
        }
    }

    /// Parses a word; `None` if it is unknown.
    pub fn from_word(word: &str) -> Option<Standing> {
        Standing::iter().find(|standing| standing.as_str() == word)
    }
}

/// Search criteria; all that are given must match.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Payments with an operation in this state. Where an index covers it, each such operation is a result of its own.
    pub standing: Option<Standing>,
    /// Payments with this status.
    pub status: Option<Status>,
    /// Payments of this variant.
    pub variant: Option<String>,
    /// Payments whose metadata has this text under this name.
    pub metadata: Option<(String, String)>,
    /// Payments with this id at the gateway, of the payment itself or of a movement.
    pub reference: Option<String>,
    /// Payments with this billing e-mail address, ignoring case.
    pub email: Option<String>,
    /// Created at or after this time.
    pub since: Option<Timestamp>,
    /// Created before this time.
    pub until: Option<Timestamp>,
}

/// Limits of one call.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Maximum number of results; at least 1.
    pub found: usize,
    /// Maximum number of payments or operations examined; at least 1.
    pub looked_at: usize,
}

/// Where to continue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Position {
    /// After this payment; older ones follow.
    Payment {
        /// When it was created.
        created: Timestamp,
        /// Its id.
        id: Uuid,
    },
    /// After this operation; ones accepted later follow, and then the next variant.
    Operation {
        /// Its variant.
        variant: String,
        /// Its position in the order of acceptance.
        accepted: i64,
    },
}

/// The text is not a position.
#[derive(Debug, thiserror::Error)]
#[error("expected the value that follows --after in the last line of an earlier list")]
pub struct InvalidPosition;

/// A single shell word.
impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Position::Payment { created, id } => write!(formatter, "{created},{id}"),
            Position::Operation { variant, accepted } => write!(formatter, "{accepted},{variant}"),
        }
    }
}

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Position, InvalidPosition> {
        let (first, second) = text.split_once(',').ok_or(InvalidPosition)?;
        if let Ok(accepted) = first.parse() {
            return Ok(Position::Operation { variant: second.to_owned(), accepted });
        }
        let created = first.parse().map_err(|_| InvalidPosition)?;
        Ok(Position::Payment { created, id: second.parse().map_err(|_| InvalidPosition)? })
    }
}

/// A payment, with the open operation that matched, or else its most urgent one.
#[derive(Debug, Clone, PartialEq)]
pub struct Found {
    /// The payment's id.
    pub payment_id: Uuid,
    /// The payment; `None` if a command was stored for one that does not exist.
    pub payment: Option<FoundPayment>,
    /// The operation; `None` if the payment has no open one.
    pub operation: Option<FoundOperation>,
}

/// What a list shows of a payment: nothing that identifies the customer.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundPayment {
    /// When it was created.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
    /// Its variant.
    pub variant: String,
    /// Its status.
    pub status: Status,
    /// The amount to collect.
    pub total: Money,
    /// Total ever authorized.
    pub authorized: Money,
    /// The captured amount that is still there.
    pub captured: Money,
    /// The refunded amount.
    pub refunded: Money,
    /// Its id at the gateway.
    pub transaction_id: String,
    /// The publisher's own key-value pairs.
    pub metadata: Metadata,
}

/// What a list shows of an operation.
#[derive(Debug, Clone, PartialEq)]
pub struct FoundOperation {
    /// Its id.
    pub id: Uuid,
    /// The command's type.
    pub kind: String,
    /// Its variant.
    pub variant: String,
    /// Its state.
    pub state: State,
    /// Whether a person must say what happened.
    pub escalated: bool,
    /// The amount that it asked for, if any.
    pub amount: Option<Money>,
    /// When it was accepted.
    pub created: Timestamp,
    /// When it was first sent to the gateway.
    pub first_sent_at: Option<Timestamp>,
    /// When it is due next.
    pub due_at: Option<Timestamp>,
    /// Number of attempts.
    pub attempts: i32,
    /// Why it is not done yet.
    pub last_code: Option<String>,
    /// The message that goes with it.
    pub last_message: String,
}

/// The results of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Listing {
    /// Time of the read, by PostgreSQL's clock.
    pub now: Timestamp,
    /// The results, in order.
    pub found: Vec<Found>,
    /// Number of payments or operations examined.
    pub looked_at: usize,
    /// Where to continue; `None` at the end.
    pub after: Option<Position>,
}

/// An examined row, and its result if it matched.
struct Looked {
    position: Position,
    found: Option<Found>,
}

/// The order of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Walk {
    /// Payments, newest first.
    Payments,
    /// Operations with an unknown outcome and those that a person must resolve: by variant, oldest first.
    Unknown,
    /// Operations with a due time, in the same order.
    Due,
}

impl Search {
    fn walk(&self) -> Walk {
        match self.standing {
            Some(Standing::In(State::Unknown) | Standing::Escalated) => Walk::Unknown,
            Some(Standing::In(State::Scheduled)) => Walk::Due,
            _ => Walk::Payments,
        }
    }

    /// Whether a position belongs to this search, or to one in the same order.
    pub fn takes(&self, position: &Position) -> bool {
        (self.walk() == Walk::Payments) == matches!(position, Position::Payment { .. })
    }

    /// Whether operations are examined one by one, rather than payments.
    pub fn is_by_operation(&self) -> bool {
        self.walk() != Walk::Payments
    }
}

/// Parameters: `$1` and `$2` are the position, `$3` the number of rows, `$4` to `$12` the search.
///
/// Movements are matched by `= ANY(ARRAY[...])`, so that the planner cannot hash a whole table.
const WANTED: &str = "($4::text IS NULL OR p.status = $4)
    AND ($5::text IS NULL OR p.metadata ->> $5 = $6::text)
    AND ($7::text IS NULL OR p.transaction_id = $7 OR EXISTS (
        SELECT 1 FROM movements m WHERE m.payment_id = ANY(ARRAY[p.id])
        AND (m.gateway_reference = $7 OR m.reference = $7)))
    AND ($8::text IS NULL OR lower(p.billing_email) = lower($8))
    AND ($9::timestamptz IS NULL OR p.created >= $9)
    AND ($10::timestamptz IS NULL OR p.created < $10)";

const STANDS: &str = "($12::text IS NULL OR CASE $12 WHEN 'open' THEN true
    WHEN 'escalated' THEN o.escalated AND o.state IN ('unknown', 'pending') ELSE o.state = $12 END)";

const COLUMNS: &str = "true AS is_found, p.id AS stored_id, p.created, p.modified, p.variant, p.status, p.currency,
    p.total, p.authorized_amount, p.captured_amount, p.refunded_amount, p.transaction_id, p.metadata,
    o.id AS operation_id, o.payment_id, o.command_type, o.variant AS operation_variant, o.state, o.escalated, o.amount,
    o.created AS accepted_at, o.first_sent_at, o.due_at, o.attempts, o.last_code, o.last_message";

static PAYMENTS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "WITH page AS (
             SELECT * FROM payments
             WHERE archived_at IS NULL AND (created, id) < (coalesce($1::timestamptz, 'infinity'), $2::uuid)
               AND ($9::timestamptz IS NULL OR created >= $9)
             ORDER BY created DESC, id DESC LIMIT $3::int8)
         SELECT p.created AS looked_created, p.id AS looked_id, f.*
         FROM page p LEFT JOIN LATERAL (
             SELECT {COLUMNS} FROM (SELECT 1) one LEFT JOIN LATERAL (
                 SELECT o.* FROM operations o
                 WHERE o.payment_id = p.id AND o.state <> 'settled' AND {STANDS}
                 ORDER BY array_position(ARRAY['unknown', 'pending', 'scheduled', 'calling', 'waiting'], o.state),
                     o.accepted
                 LIMIT 1) o ON true
             WHERE ($12::text IS NULL OR o.id IS NOT NULL) AND ($11::text IS NULL OR p.variant = $11) AND {WANTED}) f
             ON true
         ORDER BY p.created DESC, p.id DESC"
    )
});
static UNKNOWN: LazyLock<String> =
    LazyLock::new(|| by_operation("(o.state = 'unknown' OR o.state = 'pending' AND o.escalated)"));
static DUE: LazyLock<String> = LazyLock::new(|| by_operation("o.due_at IS NOT NULL"));

/// Searches by a partial index with this condition. The order of acceptance has an index of its own, in which the
/// planner would read all operations for the few that are wanted; `+ 0` prevents that.
fn by_operation(condition: &str) -> String {
    format!(
        "WITH page AS (
             SELECT o.* FROM operations o
             WHERE {condition} AND {STANDS} AND ($11::text IS NULL OR o.variant = $11)
               AND (o.variant, o.accepted) > ($1::text, $2::int8)
             ORDER BY o.variant, o.accepted + 0 LIMIT $3::int8)
         SELECT o.variant AS looked_variant, o.accepted AS looked_accepted, f.*
         FROM page o LEFT JOIN LATERAL (
             SELECT {COLUMNS} FROM (SELECT 1) one LEFT JOIN LATERAL (
                 SELECT * FROM payments WHERE id = o.payment_id LIMIT 1) p ON true
             WHERE {WANTED}) f ON true
         ORDER BY o.variant, o.accepted"
    )
}

impl Store {
    /// Returns matches after a position, within these bounds. Archived payments are skipped.
    ///
    /// Each page is read in a read-only transaction, and within the server's `statement_timeout`.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn find(&self, search: &Search, after: Option<Position>, bounds: Bounds) -> Result<Listing, StoreError> {
        let client = self.client().await?;
        let mut listing = Listing { now: self.clock().now(), found: Vec::new(), looked_at: 0, after };
        // Reads one row more than wanted, to learn whether there are more. Pages grow while few rows match.
        let mut size = bounds.found.saturating_add(1).min(PAGE);
        loop {
            size = size.min(bounds.looked_at.saturating_sub(listing.looked_at));
            let (now, page) = look(&client, search, listing.after.as_ref(), size).await?;
            listing.now = now;
            let is_last = page.len() < size;
            for looked in page {
                if listing.found.len() == bounds.found {
                    return Ok(listing);
                }
                listing.looked_at += 1;
                listing.after = Some(looked.position);
                listing.found.extend(looked.found);
            }
            if is_last {
                listing.after = None;
                return Ok(listing);
            }
            if listing.looked_at >= bounds.looked_at {
                return Ok(listing);
            }
            size = size.saturating_mul(4).min(PAGE);
        }
    }
}

/// Reads the next rows after a position, and the time of the read.
async fn look(
    client: &Connection,
    search: &Search,
    behind: Option<&Position>,
    size: usize,
) -> Result<(Timestamp, Vec<Looked>), StoreError> {
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    let (created, id) = match behind {
        Some(Position::Payment { created, id }) => (Some(*created), *id),
        _ => (search.until, Uuid::nil()),
    };
    let (variant, accepted) = match behind {
        Some(Position::Operation { variant, accepted }) => (variant.as_str(), *accepted),
        _ => ("", 0_i64),
    };
    let (name, text) = search.metadata.as_ref().map(|(name, text)| (name.as_str(), text.as_str())).unzip();
    let status = search.status.map(Status::as_str);
    let standing = search.standing.map(Standing::as_str);
    let walk = search.walk();
    let [first, second]: [&(dyn ToSql + Sync); 2] = match walk {
        Walk::Payments => [&created, &id],
        Walk::Unknown | Walk::Due => [&variant, &accepted],
    };
    let sql: &str = match walk {
        Walk::Payments => &PAYMENTS,
        Walk::Unknown => &UNKNOWN,
        Walk::Due => &DUE,
    };
    let parameters: [&(dyn ToSql + Sync); 12] = [
        first,
        second,
        &size,
        &status,
        &name,
        &text,
        &search.reference,
        &search.email,
        &search.since,
        &search.until,
        &search.variant,
        &standing,
    ];
    let [now, rows] = client.query_snapshot([("SELECT clock_timestamp()", &[]), (sql, &parameters)]).await?;
    let now: Timestamp = now.first().ok_or_else(|| StoreError::Unreadable("no time".to_owned()))?.read(0)?;
    let looked: Vec<Looked> = rows.iter().map(|row| looked(row, walk)).collect::<Result<_, _>>()?;
    Ok((now, looked))
}

fn looked(row: &Row, walk: Walk) -> Result<Looked, StoreError> {
    Ok(Looked { position: position(row, walk)?, found: found(row)? })
}

fn position(row: &Row, walk: Walk) -> Result<Position, StoreError> {
    Ok(match walk {
        Walk::Payments => Position::Payment { created: row.read("looked_created")?, id: row.read("looked_id")? },
        Walk::Unknown | Walk::Due => {
            Position::Operation { variant: row.read("looked_variant")?, accepted: row.read("looked_accepted")? }
        }
    })
}

fn found(row: &Row) -> Result<Option<Found>, StoreError> {
    if row.read::<Option<bool>>("is_found")?.is_none() {
        return Ok(None);
    }
    let stored: Option<Uuid> = row.read("stored_id")?;
    let named: Option<Uuid> = row.read("payment_id")?;
    let payment_id = stored.or(named).ok_or_else(|| StoreError::Unreadable("a row of no payment".to_owned()))?;
    let payment = stored.is_some().then(|| payment(row)).transpose()?;
    let operation: Option<Uuid> = row.read("operation_id")?;
    let operation = operation.map(|id| self::operation(row, id, payment.as_ref())).transpose()?;
    Ok(Some(Found { payment_id, payment, operation }))
}

fn payment(row: &Row) -> Result<FoundPayment, StoreError> {
    let currency = currency(row.read("currency")?)?;
    let sum = |name: &str| -> Result<Money, StoreError> { money(row.read(name)?, currency) };
    Ok(FoundPayment {
        created: row.read("created")?,
        modified: row.read("modified")?,
        variant: row.read("variant")?,
        status: word(row.read("status")?, Status::from_word)?,
        total: sum("total")?,
        authorized: sum("authorized_amount")?,
        captured: sum("captured_amount")?,
        refunded: sum("refunded_amount")?,
        transaction_id: row.read("transaction_id")?,
        metadata: row.read::<Json<Metadata>>("metadata")?.0,
    })
}

/// The amount is in the payment's currency, so without a payment it is `None`.
fn operation(row: &Row, id: Uuid, payment: Option<&FoundPayment>) -> Result<FoundOperation, StoreError> {
    let amount: Option<Decimal> = row.read("amount")?;
    let amount = amount.zip(payment).map(|(amount, payment)| money(amount, payment.total.currency()));
    Ok(FoundOperation {
        id,
        kind: row.read("command_type")?,
        variant: row.read("operation_variant")?,
        state: word(row.read("state")?, State::from_word)?,
        escalated: row.read("escalated")?,
        amount: amount.transpose()?,
        created: row.read("accepted_at")?,
        first_sent_at: row.read("first_sent_at")?,
        due_at: row.read("due_at")?,
        attempts: row.read("attempts")?,
        last_code: row.read("last_code")?,
        last_message: row.read("last_message")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_from_one_word_and_belongs_to_one_order() {
        let created = "2026-11-22T12:00:00.123456Z".parse().expect("a time");
        let payment = Position::Payment { created, id: Uuid::from_u128(7) };
        let operation = Position::Operation { variant: "cards-eu".to_owned(), accepted: 17 };
        for position in [&payment, &operation] {
            let text = position.to_string();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b",.:-".contains(&byte)), "{text}");
            assert_eq!(text.parse::<Position>().ok().as_ref(), Some(position));
        }
        for wrong in ["", "17", "yesterday,cards", "2026-11-22T12:00:00Z,7"] {
            assert!(wrong.parse::<Position>().is_err(), "{wrong}");
        }
        for standing in Standing::iter() {
            let search = Search { standing: Some(standing), ..Search::default() };
            assert!(search.takes(&payment) != search.takes(&operation), "{standing:?}");
            assert_eq!(Standing::from_word(standing.as_str()), Some(standing));
        }
        assert!(Search::default().takes(&payment));
    }
}
