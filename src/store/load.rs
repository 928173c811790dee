//! What is known of payments: loaded for the machine, many at once.

use std::collections::HashMap;

use futures_util::future::try_join;
use futures_util::try_join;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connect::Store;
use super::error::StoreError;
use super::outbox::{OutboxEvent, outbox_event};
use super::rows;
use crate::payment::machine::Aggregate;
use crate::payment::model::Payment;
use crate::payment::operation::Operation;

/// A payment as stored, and its events that the broker has not confirmed yet.
#[derive(Debug)]
pub struct Loaded {
    /// For the machine.
    pub aggregate: Aggregate,
    /// In their order.
    pub unsent: Vec<OutboxEvent>,
}

const PAYMENTS: &str = "SELECT * FROM payments WHERE id = ANY($1)";
/// What is open, and what is asked about by name.
const OPERATIONS: &str =
    "SELECT * FROM operations WHERE payment_id = ANY($1) AND (state <> 'settled' OR id = ANY($2)) ORDER BY accepted";
const MOVEMENTS: &str = "SELECT * FROM movements WHERE payment_id = ANY($1)";
const UNSENT: &str = "SELECT * FROM events e WHERE e.payment_id = ANY($1)
      AND NOT EXISTS (SELECT 1 FROM sent s WHERE s.position = e.position)
      AND NOT EXISTS (SELECT 1 FROM set_aside a WHERE a.payment_id = e.payment_id)
    ORDER BY e.position";

impl Store {
    /// Loads payments; `operations` are those that are wanted although they may be settled.
    ///
    /// # Errors
    /// The database cannot be asked, or holds what cannot be read.
    pub async fn load(&self, payments: &[Uuid], operations: &[Uuid]) -> Result<HashMap<Uuid, Loaded>, StoreError> {
        let client = self.client().await?;
        let prepared = try_join(
            try_join(client.prepare_cached(PAYMENTS), client.prepare_cached(OPERATIONS)),
            try_join(client.prepare_cached(MOVEMENTS), client.prepare_cached(UNSENT)),
        );
        let ((payments_sql, operations_sql), (movements_sql, unsent_sql)) = prepared.await?;
        // Sent together and carried out in this order: the payment's row is read first, so that whatever changed after it
        // raised its version, and a decision on this mixture is refused by the compare-and-set.
        let by_payment: [&(dyn ToSql + Sync); 1] = [&payments];
        let by_both: [&(dyn ToSql + Sync); 2] = [&payments, &operations];
        let (payment_rows, operation_rows, movement_rows, unsent_rows) = try_join!(
            client.query(&payments_sql, &by_payment),
            client.query(&operations_sql, &by_both),
            client.query(&movements_sql, &by_payment),
            client.query(&unsent_sql, &by_payment),
        )?;
        assemble(payments, &payment_rows, &operation_rows, &movement_rows, &unsent_rows)
    }

    /// Loads one payment.
    ///
    /// # Errors
    /// As [`Store::load`].
    pub async fn load_one(&self, payment: Uuid, operations: &[Uuid]) -> Result<Loaded, StoreError> {
        let mut loaded = self.load(&[payment], operations).await?;
        Ok(loaded
            .remove(&payment)
            .unwrap_or_else(|| Loaded { aggregate: Aggregate::absent(payment), unsent: Vec::new() }))
    }
}

fn assemble(
    ids: &[Uuid],
    payment_rows: &[Row],
    operation_rows: &[Row],
    movement_rows: &[Row],
    unsent_rows: &[Row],
) -> Result<HashMap<Uuid, Loaded>, StoreError> {
    let mut payments: HashMap<Uuid, Payment> = HashMap::new();
    for row in payment_rows {
        let payment = rows::payment(row)?;
        payments.insert(payment.id, payment);
    }
    let mut operations: HashMap<Uuid, Vec<Operation>> = HashMap::new();
    for row in operation_rows {
        let id: Uuid = row.try_get("payment_id")?;
        let currency = payments.get(&id).map(Payment::currency);
        operations.entry(id).or_default().push(rows::operation(row, currency)?);
    }
    let mut movements: HashMap<Uuid, Vec<_>> = HashMap::new();
    for row in movement_rows {
        movements.entry(row.try_get("payment_id")?).or_default().push(rows::movement(row)?);
    }
    let mut unsent: HashMap<Uuid, Vec<OutboxEvent>> = HashMap::new();
    for row in unsent_rows {
        unsent.entry(row.try_get("payment_id")?).or_default().push(outbox_event(row)?);
    }
    let mut loaded = HashMap::new();
    for id in ids {
        let aggregate = Aggregate::loaded(
            *id,
            payments.remove(id),
            operations.remove(id).unwrap_or_default(),
            movements.remove(id).unwrap_or_default(),
        );
        loaded.insert(*id, Loaded { aggregate, unsent: unsent.remove(id).unwrap_or_default() });
    }
    Ok(loaded)
}
