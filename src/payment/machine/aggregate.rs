//! What is stored of a payment, and what a decision adds or changes.

use std::hash::{DefaultHasher, Hash, Hasher};

use uuid::Uuid;

use super::{Aggregate, Context, PaymentWrite, Stored, Tracked, later};
use crate::payment::event::Event;
use crate::payment::model::Payment;
use crate::payment::money::{Money, MoneyError};
use crate::payment::movement::{Amounts, Movement, MovementKind};
use crate::payment::operation::{Lease, Operation, State};
use crate::payment::status::{Cause, Status};

impl Aggregate {
    /// A payment of which nothing is stored.
    pub fn absent(payment_id: Uuid) -> Aggregate {
        Aggregate::loaded(payment_id, None, Vec::new(), Vec::new())
    }

    /// A payment as stored, with every operation that is open or asked about, and all its movements. The payment itself
    /// must be read first, or everything in one snapshot: only then does its version vouch for the rest.
    pub fn loaded(
        payment_id: Uuid,
        mut payment: Option<Payment>,
        operations: Vec<Operation>,
        movements: Vec<Movement>,
    ) -> Aggregate {
        let same = Stored::Same;
        if let Some(payment) = &mut payment {
            // Commands that came before their payment were stored without its version, so the stored count may have
            // missed them.
            payment.waiting = count(operations.iter().filter(|operation| is_waiting(operation)));
            // These have no columns. Sums that are out of range were refused when the movements were recorded.
            if let Ok(amounts) = Amounts::of(payment.currency(), movements.iter()) {
                payment.amounts.capturable = amounts.capturable;
                payment.amounts.voided = amounts.voided;
            }
        }
        Aggregate {
            payment_id,
            version_read: payment.as_ref().map(|payment| payment.version),
            payment,
            states_read: operations.iter().map(|operation| (operation.id, operation.state)).collect(),
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

    /// The payment, if it exists.
    pub fn payment(&self) -> Option<&Payment> {
        self.payment.as_ref()
    }

    /// An operation that was loaded or is new.
    pub fn operation(&self, id: Uuid) -> Option<&Operation> {
        self.operations.iter().map(|tracked| &tracked.row).find(|operation| operation.id == id)
    }

    /// Every operation that was loaded or is new.
    pub fn operations(&self) -> impl Iterator<Item = &Operation> {
        self.operations.iter().map(|tracked| &tracked.row)
    }

    /// Seals the decision, and returns how to write the payment's row. This raises the version, once per commit.
    pub fn seal(&mut self) -> PaymentWrite {
        let stamp = self.stamp();
        match (&mut self.payment, self.version_read) {
            (None, _) => PaymentWrite::Absent,
            (Some(payment), None) => {
                payment.version = version_after(0, stamp);
                PaymentWrite::Insert
            }
            (Some(payment), Some(expected)) => {
                payment.version = version_after(expected, stamp);
                PaymentWrite::Update { expected }
            }
        }
    }

    /// Tells this commit from any other on the same version: no two have the same ids, owners and times.
    fn stamp(&self) -> u16 {
        let mut hasher = DefaultHasher::new();
        for row in self.operations.iter().filter(|tracked| tracked.stored != Stored::Same).map(|tracked| &tracked.row) {
            (row.id, row.state, row.counts.attempts, row.due_at).hash(&mut hasher);
            row.lease.map(|lease| (lease.owner, lease.until)).hash(&mut hasher);
        }
        for event in &self.events {
            (event.id, event.time).hash(&mut hasher);
        }
        let [low, high, ..] = hasher.finish().to_le_bytes();
        u16::from_le_bytes([low, high])
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

    /// The state in which an operation was read, and in which it must still be when it is written; `None` for a new
    /// one.
    pub fn state_read(&self, id: Uuid) -> Option<State> {
        self.states_read.get(&id).copied()
    }

    /// Movements to insert, and known ones that were matched to their operation.
    pub fn changed_movements(&self) -> impl Iterator<Item = &Movement> {
        self.movements.iter().filter(|tracked| tracked.stored != Stored::Same).map(|tracked| &tracked.row)
    }

    /// The events to emit, in order.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// Marks everything as stored, after the commit. `waiting` is the number of commands that were stored before a new
    /// payment, as the database counted them while it stored the payment.
    pub fn committed(&mut self, waiting: Option<u32>) {
        if let Some(payment) = &mut self.payment {
            self.version_read = Some(payment.version);
            if let Some(waiting) = waiting {
                let with_it = self.operations.iter().map(|tracked| &tracked.row);
                let with_it = count(with_it.filter(|operation| is_waiting(operation) && operation.accepted == 0));
                payment.waiting = waiting.saturating_add(with_it);
            }
        }
        for tracked in &mut self.operations {
            tracked.stored = Stored::Same;
            self.states_read.insert(tracked.row.id, tracked.row.state);
        }
        for tracked in &mut self.movements {
            tracked.stored = Stored::Same;
        }
        // Replaced rather than cleared, to free the memory: thousands of payments may wait for their gateway.
        self.events = Vec::new();
        self.changed.clear();
        self.status_before = None;
    }

    /// Whether commands wait whose operations this aggregate has not loaded. It must then be reloaded before the turn
    /// ends, or nobody would wake them.
    pub fn misses_waiting(&self) -> bool {
        let loaded = self.waiting_count();
        self.payment.as_ref().is_some_and(|payment| payment.waiting > loaded)
    }

    /// How many of the loaded operations wait.
    pub(super) fn waiting_count(&self) -> u32 {
        count(self.operations().filter(|operation| is_waiting(operation)))
    }

    /// Sets the body that the adapter wrote for a request.
    pub fn set_request_body(&mut self, id: Uuid, body: String) {
        if let Some(request) = self.operation_mut(id).and_then(|operation| operation.request.as_mut()) {
            request.body = body;
        }
    }

    /// Takes in an attempt that was stored outside the machine: an immediate retry renews its lease by itself, and
    /// nothing else of the payment changes. What is stored with it must include how far earlier attempts may have
    /// reached ([`Operation::exposure`]), so that a reload does not forget it.
    pub fn attempt_stored(&mut self, id: Uuid, attempts: u32, context: Context<'_>) {
        if let Some(tracked) = self.operations.iter_mut().find(|tracked| tracked.row.id == id) {
            tracked.row.counts.attempts = attempts;
            tracked.row.lease = Some(Lease { owner: context.worker, until: later(context.now, context.rules.lease) });
            tracked.row.sent.note_until(context.now);
        }
    }

    pub(super) fn operation_mut(&mut self, id: Uuid) -> Option<&mut Operation> {
        let tracked = self.operations.iter_mut().find(|tracked| tracked.row.id == id)?;
        if tracked.stored == Stored::Same {
            tracked.stored = Stored::Changed;
        }
        Some(&mut tracked.row)
    }

    pub(super) fn insert(&mut self, operation: Operation) -> Uuid {
        let id = operation.id;
        // A vector that grows by itself starts with room for four, and an operation is large.
        self.operations.reserve_exact(1);
        self.operations.push(Tracked { row: operation, stored: Stored::New });
        id
    }

    /// The sum of all movements of a kind.
    pub(super) fn sum_of(&self, kind: MovementKind) -> Result<Money, MoneyError> {
        let nothing = self.payment.as_ref().map(|payment| Money::zero(payment.currency()));
        let mut amounts = self.movements_of(kind).map(|movement| movement.amount).chain(nothing);
        let first = amounts.next().ok_or(MoneyError::Currency)?;
        amounts.try_fold(first, Money::plus)
    }

    /// Records a movement once, and updates the payment's amounts. A movement that is already known changes nothing.
    /// Returns whether it was new.
    pub(super) fn record(&mut self, movement: Movement) -> Result<bool, MoneyError> {
        let Some(payment) = &mut self.payment else {
            return Ok(false);
        };
        if self.movements.iter().any(|known| known.row.is_same(&movement)) {
            return Ok(false);
        }
        let rows = self.movements.iter().map(|tracked| &tracked.row).chain([&movement]);
        let amounts = Amounts::of(payment.currency(), rows)?;
        for (name, before, after) in [
            ("authorized_amount", payment.amounts.authorized, amounts.authorized),
            ("captured_amount", payment.amounts.captured, amounts.captured),
            ("refunded_amount", payment.amounts.refunded, amounts.refunded),
            ("voided_amount", payment.amounts.voided, amounts.voided),
        ] {
            if before != after && !self.changed.contains(&name) {
                self.changed.push(name);
            }
        }
        payment.amounts = amounts;
        self.movements.push(Tracked { row: movement, stored: Stored::New });
        Ok(true)
    }

    /// Takes over a message for a person. An empty one says nothing, and does not clear an earlier one.
    pub(super) fn set_message(&mut self, message: &str) {
        if let Some(payment) = &mut self.payment
            && !message.is_empty()
            && payment.message != message
        {
            message.clone_into(&mut payment.message);
            self.changed.push("message");
        }
    }

    /// Moves the payment's status if the table of statuses allows it, and replaces the message of the earlier status.
    /// Returns whether it moved.
    pub(super) fn set_status(&mut self, to: Status, cause: Cause, message: &str) -> bool {
        let Some(payment) = &mut self.payment else { return false };
        if payment.status == to || !payment.status.may_become(to, cause) {
            return false;
        }
        self.status_before.get_or_insert(payment.status);
        payment.status = to;
        message.clone_into(&mut payment.message);
        if to != Status::Input {
            payment.redirect_url = None;
        }
        true
    }
}

/// The version after another. Its upper bits count; its lower 16 identify the commit. When a database loses its last
/// commits, as a failover to an asynchronous standby does, others count up to the same number, and a worker that still
/// holds what was lost must not commit over them.
fn version_after(before: i64, stamp: u16) -> i64 {
    (((before >> u16::BITS) + 1) << u16::BITS) | i64::from(stamp)
}

fn of_state<T>(rows: &[Tracked<T>], stored: Stored) -> impl Iterator<Item = &T> {
    rows.iter().filter(move |tracked| tracked.stored == stored).map(|tracked| &tracked.row)
}

/// Whether an operation waits for its turn or its payment, and so has a due time. One that is just being decided on has
/// none.
pub(super) fn is_waiting(operation: &Operation) -> bool {
    operation.state == State::Waiting && operation.due_at.is_some()
}

fn count<'a>(operations: impl Iterator<Item = &'a Operation>) -> u32 {
    u32::try_from(operations.count()).unwrap_or(u32::MAX)
}
