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

use super::columns::{assignments, names, unnest};
use super::connection::Connection;
use super::error::StoreError;
use super::row::ReadColumn;
use super::rows::{EventRows, MovementRows, OperationChange, OperationFixed, PaymentChange, PaymentFixed};
use crate::payment::event::Event;
use crate::payment::machine::{Aggregate, PaymentWrite};
use crate::payment::operation::State;
use crate::payment::trace::TraceContext;

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
    payments_fixed: PaymentFixed<'a>,
    payments_new: PaymentChange<'a>,
    first_operation: Vec<Option<Uuid>>,
    payments_changed: PaymentChange<'a>,
    absent: Vec<Uuid>,
    operations_fixed: OperationFixed<'a>,
    operations_new: OperationChange<'a>,
    operations_changed: OperationChange<'a>,
    states_read: Vec<Option<&'static str>>,
    movements: MovementRows<'a>,
    events: EventRows<'a>,
}

impl<'a> Batch<'a> {
    fn push(&mut self, unit: &'a Unit, write: PaymentWrite, routing_keys: &'a [String]) {
        let aggregate = &unit.aggregate;
        let payment_id = aggregate.payment_id();
        match (write, aggregate.payment()) {
            (PaymentWrite::Insert, Some(payment)) => {
                self.payments_fixed.push(payment);
                self.payments_new.push(payment, 0);
                self.first_operation.push(aggregate.new_operations().next().map(|operation| operation.id));
            }
            (PaymentWrite::Update { expected }, Some(payment)) => self.payments_changed.push(payment, expected),
            _ => self.absent.push(payment_id),
        }
        for operation in aggregate.new_operations() {
            self.operations_fixed.push(operation);
            self.operations_new.push(operation, unit.now);
        }
        for operation in aggregate.changed_operations() {
            self.operations_changed.push(operation, unit.now);
            self.states_read.push(aggregate.state_read(operation.id).map(State::as_str));
        }
        for movement in aggregate.changed_movements() {
            self.movements.push(payment_id, movement);
        }
        for ((event, body), routing_key) in aggregate.events().iter().zip(&unit.bodies).zip(routing_keys) {
            self.events.push(event, body, routing_key);
        }
    }

    /// The statement with only the parts that this batch needs. There are few such combinations, so that the cache of
    /// prepared statements stays small: no value is ever part of the text.
    fn statement(&self) -> (String, Vec<&(dyn ToSql + Sync)>) {
        let mut parameters: Vec<&(dyn ToSql + Sync)> = Vec::new();
        let mut parts: Vec<String> = Vec::new();
        let mut done: Vec<&str> = Vec::new();
        if !self.payments_new.id.is_empty() {
            parts.push(self.insert_payments(&mut parameters));
            done.push("SELECT id, waiting FROM payment_insert");
        }
        if !self.payments_changed.id.is_empty() {
            let columns = PaymentChange::COLUMNS;
            let rows = unnest(columns, parameters.len() + 1);
            parameters.extend(self.payments_changed.parameters());
            parts.push(format!(
                "payment_update AS (UPDATE payments p SET {} FROM {rows} \
                 WHERE p.id = ANY(ARRAY[r.id]) AND p.version = r.expected RETURNING p.id)",
                assignments(columns, 2)
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
        if !self.operations_new.id.is_empty() {
            parts.push(self.insert_operations(&mut parameters));
        }
        if !self.operations_changed.id.is_empty() {
            parts.push(self.update_operations(&mut parameters));
        }
        if !self.movements.payment_id.is_empty() {
            parts.push(self.insert_movements(&mut parameters));
        }
        if !self.events.id.is_empty() {
            parts.push(self.insert_events(&mut parameters));
            answer.push("SELECT payment_id, id, position, NULL::int4 FROM event_insert");
        }
        (format!("WITH {} {}", parts.join(", "), answer.join(" UNION ALL ")), parameters)
    }

    /// New payments. The commands that wait for one are counted while it is stored, so that its first turn wakes them. A
    /// name that was rejected before the payment existed keeps its rejection: then nothing is inserted.
    fn insert_payments<'b>(&'b self, parameters: &mut Vec<&'b (dyn ToSql + Sync)>) -> String {
        let fixed = PaymentFixed::COLUMNS;
        let change = &PaymentChange::COLUMNS[2..];
        let first = parameters.len() + 1;
        let columns: Vec<(&str, &str)> =
            fixed.iter().chain(change).copied().filter(|(name, _)| *name != "waiting").collect();
        let all: Vec<(&str, &str)> = fixed.iter().chain(change).copied().chain([("first_operation", "uuid")]).collect();
        let rows = unnest(&all, first);
        parameters.extend(self.payments_fixed.parameters());
        parameters.extend(self.payments_new.parameters().into_iter().skip(2));
        parameters.push(&self.first_operation);
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
        let rows = unnest(&columns, parameters.len() + 1);
        parameters.extend(self.operations_fixed.parameters());
        parameters.extend(self.operations_new.parameters().into_iter().skip(2));
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
        let all: Vec<(&str, &str)> = columns.iter().copied().chain([("state_read", "text")]).collect();
        let rows = unnest(&all, parameters.len() + 1);
        parameters.extend(self.operations_changed.parameters());
        parameters.push(&self.states_read);
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
        let columns = MovementRows::COLUMNS;
        let rows = unnest(columns, parameters.len() + 1);
        parameters.extend(self.movements.parameters());
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
        let columns = EventRows::COLUMNS;
        let rows = unnest(columns, parameters.len() + 1);
        parameters.extend(self.events.parameters());
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

impl<'a> EventRows<'a> {
    fn push(&mut self, event: &'a Event, body: &'a str, routing_key: &'a str) {
        let cause = event.cause.as_ref();
        let reply = cause.and_then(|cause| cause.reply.as_ref());
        self.payment_id.push(event.payment_id);
        self.id.push(event.id);
        self.sequence.push(event.sequence);
        self.event_type.push(event.kind.type_name());
        self.routing_key.push(routing_key);
        self.body.push(body);
        self.correlation_id.push(cause.and_then(|cause| cause.correlation_id.as_deref()));
        let trace = cause.and_then(|cause| cause.trace.as_ref());
        self.traceparent.push(trace.map(TraceContext::parent));
        self.tracestate.push(trace.and_then(TraceContext::state));
        self.reply_to.push(reply.map(|reply| reply.to.as_str()));
        self.reply_correlation_id.push(reply.and_then(|reply| reply.correlation_id.as_deref()));
        self.created.push(event.time);
    }
}
