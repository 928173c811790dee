//! Stores what the machine decided: one statement for up to some hundred payments, which commits by itself.
//!
//! A payment's row is inserted, or changed if its version is still the one that was read; everything else of that payment
//! follows only if that succeeded. So each payment is stored whole or not at all, and one that meets another writer does
//! not disturb the others of the batch.
//!
//! The statement is planned once on each connection: to plan it costs as much as to carry it out for some ten payments. A
//! plan that was made on an empty table is used on a full one then, so it must be the same for both: each row is found by
//! its primary key, one after the other. Sequential scans are switched off on these connections, and `= ANY(ARRAY[...])`
//! leaves the planner no join but that one, where `=` would let it read whole tables into a hash.

use std::collections::HashMap;

use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::columns::{Rows, assignments, names, unnest};
use super::connection::Connection;
use super::error::StoreError;
use super::row::ReadColumn;
use super::rows::{EventRow, MovementRow, OperationChange, OperationFixed, PaymentChange, PaymentFixed};
use crate::payment::event::Event;
use crate::payment::machine::{Aggregate, PaymentWrite};
use crate::payment::operation::State;

/// Of each new payment the operation that it is stored with.
const FIRST_OPERATION: Rows = Rows { sql: "uuid[]", columns: &[("first_operation", "uuid")] };
/// Of each changed operation the state that was read.
const STATE_READ: Rows = Rows { sql: "text[]", columns: &[("state_read", "text")] };

/// What is to be stored of one payment.
#[derive(Debug)]
pub struct Unit {
    /// The payment with what was decided.
    pub aggregate: Box<Aggregate>,
    /// The events' wire form, in the order of the aggregate's events.
    pub bodies: Vec<String>,
    /// When it was decided.
    pub now: Timestamp,
}

/// What became of one unit.
#[derive(Debug, Default)]
pub struct Stored {
    /// Whether it was stored; else another writer was first.
    pub stored: bool,
    /// For a new payment: how many commands waited for it.
    pub waiting: Option<u32>,
    /// Ids and positions of the events that are new.
    pub events: Vec<(Uuid, i64)>,
}

/// Stores all units that still stand on what they read.
///
/// # Errors
/// The statement failed; nothing was stored unless the error is [`StoreError::Unavailable`], where that is not known.
pub async fn commit(client: &Connection, units: &mut [Unit]) -> Result<Vec<Stored>, StoreError> {
    let writes: Vec<PaymentWrite> = units.iter_mut().map(|unit| unit.aggregate.seal()).collect();
    let keys: Vec<Vec<String>> = units.iter().map(routing_keys).collect();
    let mut batch = Batch::default();
    for ((unit, write), keys) in units.iter().zip(&writes).zip(&keys) {
        batch.push(unit, *write, keys);
    }
    let (sql, parameters) = batch.statement();
    let rows = client.query(&sql, &parameters).await?;
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

    /// The statement with only the parts that this batch needs. There are few such combinations, so that the cache of
    /// prepared statements stays small: no value is ever part of the text.
    fn statement(&self) -> (String, Vec<&(dyn ToSql + Sync)>) {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::new();
        let mut parts: Vec<String> = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        if !self.payments_new.is_empty() {
            parts.push(self.insert_payments(&mut parameters));
            done.push("SELECT id, waiting FROM payment_insert");
        }
        if !self.payments_changed.is_empty() {
            let rows = unnest(&[PaymentChange::ROWS], parameters.len() + 1);
            parameters.push(&self.payments_changed);
            parts.push(format!(
                "payment_update AS (UPDATE payments p SET {} FROM {rows} \
                 WHERE p.id = ANY(ARRAY[r.id]) AND p.version = r.expected RETURNING p.id)",
                assignments(PaymentChange::COLUMNS, 2)
            ));
            done.push("SELECT id, NULL::int4 FROM payment_update");
        }
        if !self.absent.is_empty() {
            parameters.push(&self.absent);
            parts.push(format!(
                "absent AS (SELECT r.id FROM unnest(${}::uuid[]) AS r(id) \
                 WHERE NOT EXISTS (SELECT 1 FROM payments p WHERE p.id = ANY(ARRAY[r.id])))",
                parameters.len()
            ));
            done.push("SELECT id, NULL::int4 FROM absent");
        }
        parts.push(format!("done(id, waiting) AS ({})", done.join(" UNION ALL ")));
        let mut answer = vec!["SELECT id AS payment_id, NULL::uuid AS id, NULL::int8 AS position, waiting FROM done"];
        if !self.operations_new.is_empty() {
            parts.push(self.insert_operations(&mut parameters));
        }
        if !self.operations_changed.is_empty() {
            parts.push(self.update_operations(&mut parameters));
        }
        if !self.movements.is_empty() {
            parts.push(self.insert_movements(&mut parameters));
        }
        if !self.events.is_empty() {
            parts.push(self.insert_events(&mut parameters));
            answer.push("SELECT payment_id, id, position, NULL::int4 FROM event_insert");
        }
        (format!("WITH {} {}", parts.join(", "), answer.join(" UNION ALL ")), parameters)
    }

    /// New payments. The commands that wait for one are counted while it is stored, so that its first turn wakes them. A
    /// name that was rejected before the payment existed keeps its rejection: then nothing is inserted.
    fn insert_payments<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let columns: Vec<(&str, &str)> = PaymentFixed::COLUMNS
            .iter()
            .chain(&PaymentChange::COLUMNS[2..])
            .copied()
            .filter(|(name, _)| *name != "waiting")
            .collect();
        let rows = unnest(&[PaymentFixed::ROWS, PaymentChange::ROWS, FIRST_OPERATION], parameters.len() + 1);
        parameters.extend([&self.payments_fixed as &(dyn ToSql + Sync), &self.payments_new, &self.first_operation]);
        format!(
            "payment_insert AS (INSERT INTO payments ({}, waiting) SELECT {}, stored.waiting FROM {rows}, \
             LATERAL (SELECT count(*) FILTER (WHERE o.state = 'waiting') AS waiting, \
             bool_or(o.id = r.first_operation) AS is_known FROM operations o WHERE o.payment_id = r.id) stored \
             WHERE stored.is_known IS NOT TRUE ON CONFLICT (id) DO NOTHING RETURNING id, waiting)",
            names(&columns, ""),
            names(&columns, "r.")
        )
    }

    /// New operations. A name that another writer stored meanwhile violates the key and undoes the statement: the batch
    /// is then tried in halves, until only that one is left to be loaded anew.
    fn insert_operations<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let columns: Vec<(&str, &str)> =
            OperationFixed::COLUMNS.iter().chain(&OperationChange::COLUMNS[2..]).copied().collect();
        let rows = unnest(&[OperationFixed::ROWS, OperationChange::ROWS], parameters.len() + 1);
        parameters.extend([&self.operations_fixed as &(dyn ToSql + Sync), &self.operations_new]);
        format!(
            "operation_insert AS (INSERT INTO operations ({}) SELECT {} FROM {rows} \
             WHERE r.payment_id IN (SELECT id FROM done) ORDER BY r.ordinality)",
            names(&columns, ""),
            names(&columns, "r.")
        )
    }

    /// Changed operations, each if its state is still the one that was read; else the statement is undone, as above.
    ///
    /// With a payment its version would be enough. A command that waits for its payment has no version to stand on: one
    /// writer finds no payment and rejects it, while another stores the payment, and a third gives the command its turn.
    /// That there is no payment is no more than what this statement's snapshot shows, so the two writers of the command
    /// are told apart at its row: whoever comes second waits for the first at the row's lock, then PostgreSQL works out the
    /// row anew from what the first one committed, and finds another state than was read, whatever either snapshot shows.
    /// So nobody writes over an answer, and no command has two.
    fn update_operations<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let columns = OperationChange::COLUMNS;
        let rows = unnest(&[OperationChange::ROWS, STATE_READ], parameters.len() + 1);
        parameters.extend([&self.operations_changed as &(dyn ToSql + Sync), &self.states_read]);
        let plain: Vec<(&str, &str)> = columns.iter().copied().filter(|(name, _)| *name != "state").collect();
        format!(
            "operation_update AS (UPDATE operations o SET {}, \
             state = CASE WHEN o.state = r.state_read THEN r.state ELSE overtaken() END FROM {rows} \
             WHERE o.payment_id = ANY(ARRAY[r.payment_id]) AND o.id = ANY(ARRAY[r.id]) \
             AND r.payment_id IN (SELECT id FROM done))",
            assignments(&plain, 2)
        )
    }

    /// Movements. Of one that is stored already nothing changes but the operation that it is matched to.
    fn insert_movements<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let columns = MovementRow::COLUMNS;
        let rows = unnest(&[MovementRow::ROWS], parameters.len() + 1);
        parameters.push(&self.movements);
        format!(
            "movement_insert AS (INSERT INTO movements ({}, created) SELECT {}, now() FROM {rows} \
             WHERE r.payment_id IN (SELECT id FROM done) \
             ON CONFLICT (payment_id, kind, reference) DO UPDATE SET operation_id = excluded.operation_id)",
            names(columns, ""),
            names(columns, "r.")
        )
    }

    /// New events, in their order. One that is stored already (a command that reuses a name, delivered again) is left.
    fn insert_events<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let columns = EventRow::COLUMNS;
        let rows = unnest(&[EventRow::ROWS], parameters.len() + 1);
        parameters.push(&self.events);
        format!(
            "event_insert AS (INSERT INTO events ({}) SELECT {} FROM {rows} \
             WHERE r.payment_id IN (SELECT id FROM done) ORDER BY r.ordinality \
             ON CONFLICT DO NOTHING RETURNING payment_id, id, position)",
            names(columns, ""),
            names(columns, "r.")
        )
    }
}

fn read_back(units: &[Unit], rows: &[tokio_postgres::Row]) -> Result<Vec<Stored>, StoreError> {
    let mut answers: Vec<Stored> = units.iter().map(|_| Stored::default()).collect();
    let places: HashMap<Uuid, usize> =
        units.iter().enumerate().map(|(place, unit)| (unit.aggregate.payment_id(), place)).collect();
    for row in rows {
        let payment_id: Uuid = row.read(0)?;
        let Some(answer) = places.get(&payment_id).and_then(|place| answers.get_mut(*place)) else {
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
