//! Loads payments for the machine, many at once.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Instant;

use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connection::pools::Store;
use super::error::StoreError;
use super::outbox::{OutboxEvent, outbox_event};
use super::row::ReadColumn;
use super::rows;
use crate::payment::machine::Aggregate;
use crate::payment::model::Payment;
use crate::payment::operation::Operation;

/// A payment as stored, with its events that the broker has not confirmed yet.
#[derive(Debug)]
pub struct Loaded {
    /// For the machine. Stays boxed: it is passed from step to step, and some thousand wait at once.
    pub aggregate: Box<Aggregate>,
    /// Events still to be sent.
    pub unsent: Unsent,
}

/// A payment's events that the broker has not confirmed yet. The default knows of none, because the database was not
/// queried.
#[derive(Debug, Default)]
pub struct Unsent {
    /// In order.
    pub events: Vec<OutboxEvent>,
    /// Positions of those stored so recently that their worker is most likely about to mark them as sent.
    pub fresh: Vec<i64>,
    /// Whether the payment's events are set aside; then none may be sent, not even new ones.
    pub set_aside: bool,
    /// When the database was queried: what happened before is included. `None` if it was not queried.
    pub read_at: Option<Instant>,
}

static PAYMENTS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM payments WHERE id = ANY($1)", *rows::PAYMENT));
/// Open operations, and those requested by id.
static OPERATIONS: LazyLock<String> = LazyLock::new(|| {
    format!(
        "SELECT {} FROM operations WHERE payment_id = ANY($1) AND (state <> 'settled' OR id = ANY($2)) ORDER BY accepted",
        *rows::OPERATION
    )
});
static MOVEMENTS: LazyLock<String> =
    LazyLock::new(|| format!("SELECT {} FROM movements WHERE payment_id = ANY($1)", *rows::MOVEMENT));
/// Adds a bare row for each payment whose events are set aside. One statement reads both, or a release in between would
/// hide both.
const UNSENT: &str = include_str!("load_unsent.sql");

impl Store {
    /// Loads payments; `operations` are those wanted even if settled.
    ///
    /// # Errors
    /// The database query fails, or a stored value cannot be read.
    pub async fn load(&self, payments: &[Uuid], operations: &[Uuid]) -> Result<HashMap<Uuid, Loaded>, StoreError> {
        let read_at = Instant::now();
        let client = self.client().await?;
        // Pipelined, and executed in this order. The payment's row is read first: whatever changes later raises its
        // version, so the compare-and-set refuses a decision on a mixed state.
        let by_payment: [&(dyn ToSql + Sync); 1] = [&payments];
        let by_both: [&(dyn ToSql + Sync); 2] = [&payments, &operations];
        let [payment_rows, operation_rows, movement_rows, unsent_rows] = client
            .query_together([
                (&PAYMENTS, &by_payment),
                (&OPERATIONS, &by_both),
                (&MOVEMENTS, &by_payment),
                (UNSENT, &by_payment),
            ])
            .await?;
        let unsent = unsent(&unsent_rows)?;
        assemble(payments, &payment_rows, &operation_rows, &movement_rows, unsent, read_at)
    }

    /// Loads one payment.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn load_one(&self, payment: Uuid, operations: &[Uuid]) -> Result<Loaded, StoreError> {
        let mut loaded = self.load(&[payment], operations).await?;
        Ok(loaded
            .remove(&payment)
            .unwrap_or_else(|| Loaded { aggregate: Box::new(Aggregate::absent(payment)), unsent: Unsent::default() }))
    }
}

fn assemble(
    ids: &[Uuid],
    payment_rows: &[Row],
    operation_rows: &[Row],
    movement_rows: &[Row],
    mut unsent: HashMap<Uuid, Unsent>,
    read_at: Instant,
) -> Result<HashMap<Uuid, Loaded>, StoreError> {
    let mut payments: HashMap<Uuid, Payment> = HashMap::new();
    for row in payment_rows {
        let payment = rows::payment(row)?;
        payments.insert(payment.id, payment);
    }
    let mut operations: HashMap<Uuid, Vec<Operation>> = HashMap::new();
    for row in operation_rows {
        let id: Uuid = row.read("payment_id")?;
        let currency = payments.get(&id).map(Payment::currency);
        operations.entry(id).or_default().push(rows::operation(row, currency)?);
    }
    let mut movements: HashMap<Uuid, Vec<_>> = HashMap::new();
    for row in movement_rows {
        movements.entry(row.read("payment_id")?).or_default().push(rows::movement(row)?);
    }
    let mut loaded = HashMap::new();
    for id in ids {
        let aggregate = Aggregate::loaded(
            *id,
            payments.remove(id),
            operations.remove(id).unwrap_or_default(),
            movements.remove(id).unwrap_or_default(),
        );
        let unsent = Unsent { read_at: Some(read_at), ..unsent.remove(id).unwrap_or_default() };
        loaded.insert(*id, Loaded { aggregate: Box::new(aggregate), unsent });
    }
    Ok(loaded)
}

fn unsent(rows: &[Row]) -> Result<HashMap<Uuid, Unsent>, StoreError> {
    let mut unsent: HashMap<Uuid, Unsent> = HashMap::new();
    for row in rows {
        let of_payment = unsent.entry(row.read("payment_id")?).or_default();
        match row.read::<Option<i64>>("position")? {
            Some(position) => {
                if row.read("is_fresh")? {
                    of_payment.fresh.push(position);
                }
                of_payment.events.push(outbox_event(row)?);
            }
            None => of_payment.set_aside = true,
        }
    }
    Ok(unsent)
}
