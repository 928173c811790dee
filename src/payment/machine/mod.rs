//! The machine: it takes a payment with its operations and a command or an outcome, and decides what changes and what is
//! told. It is pure; whoever holds an [`Aggregate`] commits what it collected, or throws it away and loads it anew.
//!
//! - `accept`: a command arrives, or a waiting one takes its turn.
//! - `attempt`: calls, retries, takeovers.
//! - `settle`: what an answer of the gateway does to the payment.
//! - `truth`: what a look-up, a sync or a person says of an unknown outcome.

mod accept;
mod attempt;
mod settle;
mod truth;

#[cfg(test)]
mod tests;

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::code::Code;
use super::contract::Contract;
use super::event::{Event, EventCause, EventKind, Why};
use super::model::Payment;
use super::money::MoneyError;
use super::movement::{Amounts, Movement};
use super::operation::{Answer, AnswerKind, Lease, Operation, State};
use super::status::{Cause, Status};

/// How many commands may wait for one payment.
pub const WAITING_MAX: usize = 100;

/// How many takeovers an operation survives before it is parked for a person.
pub const TAKEOVERS_MAX: u32 = 5;

/// How many takeovers make an operation run alone on its replica.
pub const TAKEOVERS_ALONE: u32 = 2;

/// When a waiting command is looked at again although nothing woke it; a safety net, for a wake-up is part of every
/// commit that ends a turn.
const WAITING_RECHECK: SignedDuration = SignedDuration::from_secs(60);

/// What the machine has to know of a variant.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The adapter's name.
    pub gateway: String,
    /// The account at the gateway.
    pub account: String,
    /// What the gateway declares.
    pub contract: Contract,
    /// Whether a process captures at once unless its command says otherwise.
    pub capture: bool,
    /// Takes no new payments.
    pub retired: bool,
    /// Calls in a row before a delayed retry, at least 1.
    pub immediate_attempts: u32,
    /// The delays of the later retries.
    pub delayed: Vec<Duration>,
    /// How long one call is leased: its time-out and a margin.
    pub lease: Duration,
    /// How long a command waits for its payment to be created.
    pub unknown_payment_grace: Duration,
}

/// The circumstances of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// PostgreSQL's clock.
    pub now: Timestamp,
    /// The worker process that will call the gateway.
    pub worker: Uuid,
    /// The variant's rules.
    pub rules: &'a Rules,
    /// Calls are held back for this long: the worker drains, or the variant's breaker is open.
    pub hold: Option<Duration>,
}

/// What is to be done once the decision is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is answered.
    Settled,
    /// Nothing for now: it waits, is scheduled, is pending or unknown.
    Stored,
    /// Call the gateway for the operation.
    Call(Uuid),
    /// Call again at once, after the immediate delay; nothing is committed but the attempt.
    RetryNow(Uuid),
    /// Ask the gateway for the truth.
    LookUp {
        /// The operation that asks.
        operation: Uuid,
        /// The one asked about; nothing for the whole payment.
        target: Option<Uuid>,
    },
    /// The command is known: go on from where its operation stands.
    Known(Uuid),
}

/// How a row stands to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    New,
    Changed,
    Same,
}

#[derive(Debug, Clone)]
struct Tracked<T> {
    row: T,
    stored: Stored,
}

/// How the payment's own row is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentWrite {
    /// There is no payment.
    Absent,
    /// It is new.
    Insert,
    /// It is changed if its version is still this one. Everything that belongs to an existing payment is written so:
    /// two writers can never both succeed on what they read.
    Update {
        /// The version that was read.
        expected: i64,
    },
}

/// A payment with its open operations and movements, and what was decided but not yet committed.
#[derive(Debug, Clone)]
pub struct Aggregate {
    payment_id: Uuid,
    payment: Option<Payment>,
    version_read: Option<i64>,
    operations: Vec<Tracked<Operation>>,
    movements: Vec<Tracked<Movement>>,
    events: Vec<Event>,
    changed: Vec<&'static str>,
    status_before: Option<Status>,
}

impl Aggregate {
    /// A payment of which nothing is stored.
    pub fn absent(payment_id: Uuid) -> Aggregate {
        Aggregate::loaded(payment_id, None, Vec::new(), Vec::new())
    }

    /// A payment as stored: with every operation that is open or that is asked about, and all its movements.
    pub fn loaded(
        payment_id: Uuid,
        payment: Option<Payment>,
        operations: Vec<Operation>,
        movements: Vec<Movement>,
    ) -> Aggregate {
        let same = Stored::Same;
        Aggregate {
            payment_id,
            version_read: payment.as_ref().map(|payment| payment.version),
            payment,
            operations: operations.into_iter().map(|row| Tracked { row, stored: same }).collect(),
            movements: movements.into_iter().map(|row| Tracked { row, stored: same }).collect(),
            events: Vec::new(),
            changed: Vec::new(),
            status_before: None,
        }
    }

    /// The payment's id.
    pub fn payment_id(&self) -> Uuid {
        self.payment_id
    }

    /// The payment, where there is one.
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_ref()
    }

    /// An operation that is open or new.
    pub fn operation(&self, id: Uuid) -> Option<&Operation> {
        self.operations.iter().map(|tracked| &tracked.row).find(|operation| operation.id == id)
    }

    /// Every operation that is open or new.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().map(|tracked| &tracked.row)
    }

    /// How to write the payment's row. Closes the decision: the version is raised here, once for one commit.
    pub fn seal(&mut self) -> PaymentWrite {
        match (&mut self.payment, self.version_read) {
            (None, _) => PaymentWrite::Absent,
            (Some(payment), None) => {
                payment.version = 1;
                PaymentWrite::Insert
            }
            (Some(payment), Some(expected)) => {
                payment.version = expected + 1;
                PaymentWrite::Update { expected }
            }
        }
    }

    /// Whether there is anything to commit.
    pub fn is_changed(&self) -> bool {
        !self.events.is_empty()
            || self.operations.iter().any(|tracked| tracked.stored != Stored::Same)
            || self.movements.iter().any(|tracked| tracked.stored != Stored::Same)
    }

    /// Operations to insert.
    pub fn new_operations(&self) -> impl Iterator<Item = &Operation> {
        of_state(&self.operations, Stored::New)
    }

    /// Operations to update.
    pub fn changed_operations(&self) -> impl Iterator<Item = &Operation> {
        of_state(&self.operations, Stored::Changed)
    }

    /// Movements to insert.
    pub fn new_movements(&self) -> impl Iterator<Item = &Movement> {
        of_state(&self.movements, Stored::New)
    }

    /// What is to be told, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// After the commit: what was decided is now what is stored. `waiting` is what the database counted while it stored a
    /// new payment.
    pub fn committed(&mut self, waiting: Option<u32>) {
        if let Some(payment) = &mut self.payment {
            self.version_read = Some(payment.version);
            if let Some(waiting) = waiting {
                payment.waiting = waiting;
            }
        }
        for tracked in &mut self.operations {
            tracked.stored = Stored::Same;
        }
        for tracked in &mut self.movements {
            tracked.stored = Stored::Same;
        }
        self.events.clear();
        self.changed.clear();
        self.status_before = None;
    }

    /// Whether commands wait of which this aggregate has not loaded the operations; then it must be loaded anew before the
    /// turn ends, or nobody would wake them.
    pub fn misses_waiting(&self) -> bool {
        let loaded = self.operations().filter(|operation| operation.state == State::Waiting).count();
        self.payment.as_ref().is_some_and(|payment| payment.waiting as usize > loaded)
    }

    /// Gives a request the body that the adapter wrote for it.
    pub fn set_request_body(&mut self, id: Uuid, body: String) {
        if let Some(request) = self.operation_mut(id).and_then(|operation| operation.request.as_mut()) {
            request.body = body;
        }
    }

    /// After an attempt was stored beside the machine: an immediate retry renews its lease by itself, and nothing else of
    /// the payment changes.
    pub fn attempt_stored(&mut self, id: Uuid, attempts: u32, context: Context<'_>) {
        if let Some(tracked) = self.operations.iter_mut().find(|tracked| tracked.row.id == id) {
            let until = later(context.now, context.rules.lease);
            tracked.row.attempts = attempts;
            tracked.row.lease = Some(Lease { owner: context.worker, until });
            tracked.row.last_sent_at = Some(context.now);
        }
    }

    fn operation_mut(&mut self, id: Uuid) -> Option<&mut Operation> {
        let tracked = self.operations.iter_mut().find(|tracked| tracked.row.id == id)?;
        if tracked.stored == Stored::Same {
            tracked.stored = Stored::Changed;
        }
        Some(&mut tracked.row)
    }

    fn insert(&mut self, operation: Operation) -> Uuid {
        let id = operation.id;
        self.operations.push(Tracked { row: operation, stored: Stored::New });
        id
    }

    /// Records a movement once; a truth learnt again changes nothing. The payment's amounts follow.
    fn record(&mut self, movement: Movement) -> Result<bool, MoneyError> {
        let known =
            |other: &Tracked<Movement>| other.row.kind == movement.kind && other.row.reference == movement.reference;
        let Some(payment) = &mut self.payment else {
            return Ok(false);
        };
        if self.movements.iter().any(known) {
            return Ok(false);
        }
        let rows = self.movements.iter().map(|tracked| &tracked.row).chain([&movement]);
        let amounts = Amounts::of(payment.currency(), rows)?;
        for (name, before, after) in [
            ("authorized_amount", payment.amounts.authorized, amounts.authorized),
            ("captured_amount", payment.amounts.captured, amounts.captured),
            ("refunded_amount", payment.amounts.refunded, amounts.refunded),
        ] {
            if before != after {
                self.changed.push(name);
            }
        }
        payment.amounts = amounts;
        self.movements.push(Tracked { row: movement, stored: Stored::New });
        Ok(true)
    }

    /// Moves the payment's status where the table has a way; else it stays.
    fn set_status(&mut self, to: Status, cause: Cause) -> bool {
        let Some(payment) = &mut self.payment else { return false };
        if payment.status == to || !payment.status.may_become(to, cause) {
            return false;
        }
        self.status_before.get_or_insert(payment.status);
        payment.status = to;
        if to != Status::Input {
            payment.redirect_url = None;
        }
        true
    }

    /// Tells what changed of the payment since the last event: a change of status, other changes, or nothing.
    fn payment_event(&mut self, why: &Why, now: Timestamp) -> Option<EventKind> {
        let payment = self.payment.as_mut()?;
        let previous = self.status_before.take().filter(|previous| *previous != payment.status);
        let mut changed = std::mem::take(&mut self.changed);
        changed.dedup();
        if previous.is_none() && changed.is_empty() {
            return None;
        }
        payment.modified = now;
        payment.last_sequence += 1;
        let payment = Box::new(payment.clone());
        Some(match previous {
            Some(previous) => EventKind::StatusChanged { payment, previous, why: why.clone() },
            None => EventKind::Updated { payment, changed, why: why.clone() },
        })
    }

    /// Answers an operation for good and tells it: by the change of the payment where there is one, else by itself.
    fn answer(&mut self, id: Uuid, kind: AnswerKind, why: Why, now: Timestamp) -> Step {
        let change = self.payment_event(&why, now);
        let payment = self.payment.clone();
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        let attempts = operation.attempts;
        operation.state = State::Settled;
        operation.lease = None;
        operation.due_at = None;
        operation.answer = Some(Answer { kind, code: why.code, message: why.message.clone() });
        // What was sent is kept no longer than it is needed: it may hold a payment method's token.
        if let Some(request) = &mut operation.request {
            request.body = String::new();
        }
        if operation.action().is_some() {
            operation.data.clear();
        }
        let told = match (change, kind, payment) {
            (Some(change), ..) => change,
            (None, AnswerKind::Rejected, _) => {
                EventKind::Rejected { code: why.code.unwrap_or(Code::NotAllowed), message: why.message }
            }
            (None, AnswerKind::Succeeded, Some(payment)) => EventKind::Succeeded { payment: Box::new(payment) },
            (None, ..) => EventKind::Failed { why, attempts },
        };
        self.tell(id, told, true, now);
        self.end_turn(id, now);
        Step::Settled
    }

    /// Ends an operation's turn and wakes the next command that waits, in the same commit.
    fn end_turn(&mut self, id: Uuid, now: Timestamp) {
        if let Some(payment) = &mut self.payment
            && payment.busy == Some(id)
        {
            payment.busy = None;
        }
        self.wake_next(now);
    }

    fn wake_next(&mut self, now: Timestamp) {
        let free = self.payment.as_ref().is_none_or(|payment| payment.busy.is_none());
        if let (true, Some(next)) = (free, self.next_waiting())
            && let Some(operation) = self.operation_mut(next)
        {
            operation.due_at = Some(now);
        }
    }

    /// The command that was accepted first of those that wait.
    fn next_waiting(&self) -> Option<Uuid> {
        let waiting = self.operations().filter(|operation| operation.state == State::Waiting && operation.accepted > 0);
        waiting.min_by_key(|operation| operation.accepted).map(|operation| operation.id)
    }

    /// Adds an event caused by an operation. Ids are made from what is told, so that the same event always has the same.
    fn tell(&mut self, id: Uuid, kind: EventKind, is_final: bool, now: Timestamp) {
        let Some(operation) = self.operation(id) else { return };
        let sequence = match &kind {
            EventKind::Created { payment }
            | EventKind::StatusChanged { payment, .. }
            | EventKind::Updated { payment, .. } => Some(payment.last_sequence),
            EventKind::Rejected { .. }
            | EventKind::Failed { .. }
            | EventKind::Delayed { .. }
            | EventKind::Succeeded { .. } => None,
        };
        let attributes = &operation.attributes;
        let cause = EventCause {
            subject: operation.subject.clone().unwrap_or_else(|| self.payment_id.to_string()),
            name: operation.name.clone(),
            kind: operation.kind.as_str().to_owned(),
            is_final,
            correlation_id: attributes.correlation_id.clone(),
            traceparent: attributes.traceparent.clone(),
            tracestate: attributes.tracestate.clone(),
            reply: attributes.reply.clone().filter(|_| is_final),
        };
        let event_id = match sequence {
            Some(sequence) => Uuid::new_v5(&self.payment_id, &sequence.to_be_bytes()),
            None if is_final => Uuid::new_v5(&id, b"final"),
            None => {
                let part =
                    format!("{}/{}/{}/{}", operation.attempts, operation.lookups, operation.rounds, self.events.len());
                Uuid::new_v5(&id, part.as_bytes())
            }
        };
        let variant = match &self.payment {
            Some(payment) => payment.order.variant.clone(),
            None => operation.variant.clone(),
        };
        let event =
            Event { id: event_id, payment_id: self.payment_id, variant, kind, sequence, cause: Some(cause), time: now };
        self.events.push(event);
    }

    /// Tells that an operation goes on later, and why.
    fn tell_delayed(&mut self, id: Uuid, reason: Code, message: &str, now: Timestamp) {
        if let Some(operation) = self.operation(id) {
            let kind = EventKind::Delayed {
                reason,
                message: message.to_owned(),
                next_attempt_at: operation.due_at,
                attempts: operation.attempts,
            };
            self.tell(id, kind, false, now);
        }
    }
}

fn of_state<T>(rows: &[Tracked<T>], stored: Stored) -> impl Iterator<Item = &T> {
    rows.iter().filter(move |tracked| tracked.stored == stored).map(|tracked| &tracked.row)
}

/// A time so much later; the end of time where that is beyond it.
fn later(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}
