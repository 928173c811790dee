//! Checks the books for impossible states: movements that contradict each other, their operation, or their payment.
//! Earlier releases could store some of them. A person must look, because only the gateway knows what happened.

use serde::Serialize;
use uuid::Uuid;

use crate::store::connection::pools::Store;
use crate::store::error::StoreError;
use crate::store::row::ReadColumn;

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
const SQL: &str = include_str!("books_check.sql");

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
            let name = |reason: &i32| usize::try_from(*reason).ok().and_then(|index| REASONS.get(index)).map(|it| it.0);
            let reasons: Vec<&'static str> = reasons.iter().filter_map(name).collect();
            if !reasons.is_empty() {
                books.doubtful.push(Doubtful { payment: row.read(0)?, reasons });
            }
        }
    }
}
