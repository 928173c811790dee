//! Checks the books for impossible states: movements that contradict each other, their operation, or their payment.
//! Earlier releases could store some of them. A person must look, because only the gateway knows what happened.

use serde::Serialize;
use uuid::Uuid;

use super::connect::Store;
use super::error::StoreError;
use super::row::ReadColumn;

/// How many payments one statement examines.
const BATCH: i64 = 1_000;

/// Why a payment's books cannot be right: the name of each reason, and its description.
const REASONS: [(&str, &str); 6] = [
    ("one_reference_twice", "a gateway reference is booked twice"),
    ("one_operation_twice", "an operation moved money twice"),
    ("of_failed_operation", "a failed or rejected operation moved money"),
    ("more_than_total", "more was captured than the payment's total or authorization allows"),
    ("more_refunded", "more was refunded than captured"),
    ("sums_differ", "the payment's amounts differ from the sums of its movements"),
];

/// Each batch of payments in order of their ids, with the reasons that apply to them.
const SQL: &str = "
    WITH batch AS (
        SELECT id, total, authorized_amount, captured_amount, refunded_amount, archived_at FROM payments
        WHERE id > $1 ORDER BY id LIMIT $2),
    moved AS (
        SELECT m.payment_id, m.kind, m.amount, m.gateway_reference, m.operation_id, o.answer
        FROM batch b JOIN movements m ON m.payment_id = b.id
        LEFT JOIN operations o ON o.payment_id = m.payment_id AND o.id = m.operation_id),
    sums AS (
        SELECT payment_id,
            coalesce(sum(amount) FILTER (WHERE kind = 'authorized'), 0) AS authorized,
            coalesce(sum(amount) FILTER (WHERE kind = 'captured'), 0) AS captured,
            coalesce(sum(amount) FILTER (WHERE kind = 'refunded'), 0) AS refunded,
            coalesce(sum(amount) FILTER (WHERE kind = 'refund_reversed'), 0) AS back,
            coalesce(sum(amount) FILTER (WHERE kind IN ('disputed', 'capture_reversed')), 0) AS gone,
            coalesce(sum(amount) FILTER (WHERE kind = 'capture_reversed'), 0) AS reversed,
            bool_or(answer IN ('failed', 'rejected')) AS of_failed
        FROM moved GROUP BY payment_id),
    found AS (
        SELECT payment_id AS id, 0 AS reason FROM moved WHERE gateway_reference IS NOT NULL
        GROUP BY payment_id, kind, gateway_reference HAVING count(*) > 1
        UNION SELECT payment_id, 1 FROM moved WHERE operation_id IS NOT NULL
        GROUP BY payment_id, kind, operation_id HAVING count(*) > 1
        UNION SELECT payment_id, 2 FROM sums WHERE of_failed
        UNION SELECT b.id, 3 FROM batch b JOIN sums s ON s.payment_id = b.id
        WHERE s.captured - s.reversed > greatest(b.total, s.authorized)
        UNION SELECT payment_id, 4 FROM sums WHERE refunded - back > captured - reversed
        UNION SELECT b.id, 5 FROM batch b LEFT JOIN sums s ON s.payment_id = b.id
        WHERE b.archived_at IS NULL AND (b.authorized_amount <> coalesce(s.authorized, 0)
           OR b.refunded_amount <> greatest(coalesce(s.refunded - s.back, 0), 0)
           OR b.captured_amount <> greatest(coalesce(s.captured - greatest(s.refunded - s.back, 0) - s.gone, 0), 0)))
    SELECT b.id, array_remove(array_agg(f.reason ORDER BY f.reason), NULL)::int4[]
    FROM batch b LEFT JOIN found f ON f.id = b.id GROUP BY b.id ORDER BY b.id";

/// A payment whose books cannot be right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Doubtful {
    /// The payment.
    pub payment: Uuid,
    /// The names of the reasons.
    pub reasons: Vec<&'static str>,
}

impl Doubtful {
    /// The reasons, for a person.
    pub fn words(&self) -> String {
        let words = |name: &&str| REASONS.iter().find(|(known, _)| known == name).map_or("", |(_, words)| words);
        self.reasons.iter().map(words).collect::<Vec<_>>().join("; ")
    }
}

/// The result of a check of the books.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// Number of payments examined.
    pub payments: u64,
    /// Payments that cannot be right, by id.
    pub doubtful: Vec<Doubtful>,
}

/// Checks all payments, in batches.
///
/// # Errors
/// The database query fails.
pub async fn look_through(store: &Store) -> Result<Books, StoreError> {
    let mut books = Books::default();
    let mut after = Uuid::nil();
    let client = store.client().await?;
    loop {
        let rows = client.query(SQL, &[&after, &BATCH]).await?;
        let Some(last) = rows.last() else { return Ok(books) };
        after = last.read(0)?;
        for row in &rows {
            books.payments += 1;
            let reasons: Vec<i32> = row.read(1)?;
            let name = |reason: &i32| usize::try_from(*reason).ok().and_then(|place| REASONS.get(place)).map(|it| it.0);
            let reasons: Vec<&'static str> = reasons.iter().filter_map(name).collect();
            if !reasons.is_empty() {
                books.doubtful.push(Doubtful { payment: row.read(0)?, reasons });
            }
        }
    }
}
