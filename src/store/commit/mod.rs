//! Stores what the machine decided: one auto-committed statement for up to some hundred payments.
//!
//! A payment's row is inserted, or updated if its version is still the one that was read; everything else of that
//! payment is written only if that succeeded. So each payment is stored completely or not at all, and one that
//! conflicts with another writer does not affect the rest of the batch.

pub mod batch;
pub(in crate::store) mod columns;
pub mod durability;
pub(in crate::store) mod gate;
pub mod progress;
mod statement;

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::connection::Connection;
use super::error::StoreError;
use super::row::ReadColumn;
use super::rows::{EventRow, MovementRow, OperationChange, OperationFixed, PaymentChange, PaymentFixed};
use crate::payment::event::Event;
use crate::payment::machine::{Aggregate, PaymentWrite};
use crate::payment::operation::State;
use statement::{Part, statement};

/// What to store of one payment.
#[derive(Debug)]
pub struct Unit {
    /// The payment with what was decided.
    pub aggregate: Box<Aggregate>,
    /// The events' wire form, in the order of the aggregate's events.
    pub bodies: Vec<String>,
    /// When it was decided.
    pub now: Timestamp,
}

/// The result of one unit.
#[derive(Debug, Default)]
pub struct Stored {
    /// Whether it was stored; `false` if another writer was first.
    pub stored: bool,
    /// For a new payment, how many commands were waiting for it.
    pub waiting: Option<u32>,
    /// Ids and positions of newly inserted events.
    pub events: Vec<(Uuid, i64)>,
}

/// How long to wait for a lock held by another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// As long as any other statement.
    Usual,
    /// Barely longer than an undisturbed commit takes, to find out which payments are locked.
    Briefly,
}

/// Stores all units whose payment is unchanged since it was read.
///
/// # Errors
/// The statement failed. Nothing was stored, unless the error is [`StoreError::Unavailable`]; then the outcome is
/// unknown.
pub async fn commit(client: &Connection, units: &mut [Unit], wait: Wait) -> Result<Vec<Stored>, StoreError> {
    let writes: Vec<PaymentWrite> = units.iter_mut().map(|unit| unit.aggregate.seal()).collect();
    let keys: Vec<Vec<String>> = units.iter().map(routing_keys).collect();
    let mut batch = Batch::default();
    for ((unit, write), keys) in units.iter().zip(&writes).zip(&keys) {
        batch.push(unit, *write, keys);
    }
    let (sql, parameters) = batch.statement();
    let rows = match wait {
        Wait::Usual => client.query(sql, &parameters).await?,
        Wait::Briefly => client.query_briefly(sql, &parameters).await?,
    };
    read_back(units, &rows)
}

fn routing_keys(unit: &Unit) -> Vec<String> {
    unit.aggregate.events().iter().map(Event::routing_key).collect()
}

#[derive(Default)]
struct Batch<'a> {
    payments_fixed: Vec<PaymentFixed<'a>>,
    payments_new: Vec<PaymentChange<'a>>,
    first_operation: Vec<Option<Uuid>>,
    sources: Vec<Option<&'a str>>,
    payments_changed: Vec<PaymentChange<'a>>,
    absent: Vec<Uuid>,
    operations_fixed: Vec<OperationFixed<'a>>,
    operations_new: Vec<OperationChange<'a>>,
    operations_changed: Vec<OperationChange<'a>>,
    states_read: Vec<Option<&'static str>>,
    movements: Vec<MovementRow<'a>>,
    events: Vec<EventRow<'a>>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, unit: &'a Unit, write: PaymentWrite, routing_keys: &'a [String]) {
        let aggregate = &unit.aggregate;
        let payment_id = aggregate.payment_id();
        match (write, aggregate.payment()) {
            (PaymentWrite::Insert, Some(payment)) => {
                self.payments_fixed.push(PaymentFixed::of(payment));
                self.payments_new.push(PaymentChange::of(payment, 0));
                self.first_operation.push(aggregate.new_operations().next().map(|operation| operation.id));
                self.sources.push(payment.source.as_deref());
            }
            (PaymentWrite::Update { expected }, Some(payment)) => {
                self.payments_changed.push(PaymentChange::of(payment, expected));
            }
            _ => self.absent.push(payment_id),
        }
        for operation in aggregate.new_operations() {
            self.operations_fixed.push(OperationFixed::of(operation));
            self.operations_new.push(OperationChange::of(operation, unit.now));
        }
        for operation in aggregate.changed_operations() {
            self.operations_changed.push(OperationChange::of(operation, unit.now));
            self.states_read.push(aggregate.state_read(operation.id).map(State::as_str));
        }
        self.movements.extend(aggregate.changed_movements().map(|movement| MovementRow::of(payment_id, movement)));
        let events = aggregate.events().iter().zip(&unit.bodies).zip(routing_keys);
        self.events.extend(events.map(|((event, body), routing_key)| EventRow::of(event, body, routing_key)));
    }

    /// The statement with only the parts that this batch needs, and its parameters.
    fn statement(&self) -> (&'static str, Vec<&(dyn ToSql + Sync)>) {
        let parts: Vec<Part> = Part::ALL.into_iter().filter(|part| self.has(*part)).collect();
        let parameters = parts.iter().flat_map(|part| self.parameters(*part)).collect();
        (statement(&parts), parameters)
    }

    fn has(&self, part: Part) -> bool {
        !match part {
            Part::NewPayments => self.payments_new.is_empty(),
            Part::ChangedPayments => self.payments_changed.is_empty(),
            Part::Absent => self.absent.is_empty(),
            Part::NewOperations => self.operations_new.is_empty(),
            Part::ChangedOperations => self.operations_changed.is_empty(),
            Part::Movements => self.movements.is_empty(),
            Part::Events => self.events.is_empty(),
        }
    }

    /// A part's arrays, in the order of [`Part::arrays`].
    fn parameters(&self, part: Part) -> Vec<&(dyn ToSql + Sync)> {
        match part {
            Part::NewPayments => vec![&self.payments_fixed, &self.payments_new, &self.first_operation, &self.sources],
            Part::ChangedPayments => vec![&self.payments_changed],
            Part::Absent => vec![&self.absent],
            Part::NewOperations => vec![&self.operations_fixed, &self.operations_new],
            Part::ChangedOperations => vec![&self.operations_changed, &self.states_read],
            Part::Movements => vec![&self.movements],
            Part::Events => vec![&self.events],
        }
    }
}

fn read_back(units: &[Unit], rows: &[tokio_postgres::Row]) -> Result<Vec<Stored>, StoreError> {
    let mut answers: Vec<Stored> = units.iter().map(|_| Stored::default()).collect();
    let indexes: HashMap<Uuid, usize> =
        units.iter().enumerate().map(|(index, unit)| (unit.aggregate.payment_id(), index)).collect();
    for row in rows {
        let payment_id: Uuid = row.read(0)?;
        let Some(answer) = indexes.get(&payment_id).and_then(|index| answers.get_mut(*index)) else {
            continue;
        };
        match (row.read::<Option<Uuid>>(1)?, row.read::<Option<i64>>(2)?) {
            (Some(id), Some(position)) => answer.events.push((id, position)),
            _ => {
                answer.stored = true;
                answer.waiting = row.read::<Option<i32>>(3)?.and_then(|count| u32::try_from(count).ok());
            }
        }
    }
    Ok(answers)
}
