//! A database of one payment in memory, which refuses whatever must never be stored.

use std::collections::HashSet;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use strum::IntoEnumIterator;
use uuid::Uuid;

use crate::payment::code::Code;
use crate::payment::event::{Event, EventKind};
use crate::payment::machine::{Aggregate, Context, PaymentWrite};
use crate::payment::model::Payment;
use crate::payment::movement::{Amounts, Movement};
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::Exposure;
use crate::payment::status::{Cause, Status};

pub const PAYMENT: Uuid = Uuid::from_u128(0xfeed);

/// What is committed of one payment.
#[derive(Debug, Default, Clone)]
pub struct Store {
    pub payment: Option<Payment>,
    pub operations: Vec<Operation>,
    pub movements: Vec<Movement>,
    pub events: Vec<Rc<Event>>,
    /// Commits were lost: the gateway may know of more than what is stored.
    pub lost_commits: bool,
}

impl Store {
    /// As the real one loads: what is open, and what is asked about.
    pub fn load(&self, asked: &[Uuid]) -> Aggregate {
        let wanted = |operation: &&Operation| operation.is_open() || asked.contains(&operation.id);
        let operations = self.operations.iter().filter(wanted).cloned().collect();
        Aggregate::loaded(PAYMENT, self.payment.clone(), operations, self.movements.clone())
    }

    /// Commits by compare-and-set on the payment's version; false where another was first.
    pub fn commit(&mut self, aggregate: &mut Aggregate) -> bool {
        let mut waiting = None;
        match aggregate.seal() {
            PaymentWrite::Absent => assert!(aggregate.payment().is_none()),
            PaymentWrite::Insert if self.payment.is_some() => return false,
            PaymentWrite::Insert => {
                let count = self.operations.iter().filter(|operation| operation.state == State::Waiting).count();
                waiting = Some(u32::try_from(count).unwrap());
            }
            PaymentWrite::Update { expected } => {
                if self.payment.as_ref().is_none_or(|payment| payment.version != expected) {
                    return false;
                }
            }
        }
        let known: HashSet<Uuid> = self.operations.iter().map(|operation| operation.id).collect();
        if aggregate.new_operations().any(|operation| known.contains(&operation.id)) {
            return false;
        }
        let state = |id: Uuid| self.operations.iter().find(|known| known.id == id).map(|known| known.state);
        let overtaken = |changed: &Operation| aggregate.state_read(changed.id) != state(changed.id);
        if aggregate.changed_operations().any(overtaken) {
            return false;
        }
        let before = self.payment.clone();
        self.payment = aggregate.payment().cloned();
        for operation in aggregate.new_operations() {
            let accepted = i64::try_from(self.operations.len()).unwrap() + 1;
            self.operations.push(Operation { accepted, ..operation.clone() });
        }
        for operation in aggregate.changed_operations() {
            let known = self.operations.iter_mut().find(|known| known.id == operation.id).unwrap();
            // An attempt may have been stored meanwhile, beside the version.
            let last_at = known.sent.last_at.max(operation.sent.last_at);
            *known = operation.clone();
            known.sent.last_at = last_at;
        }
        for movement in aggregate.changed_movements() {
            let same = |known: &&mut Movement| known.kind == movement.kind && known.reference == movement.reference;
            match self.movements.iter_mut().find(same) {
                Some(known) => {
                    let keeps = |before: Option<&String>, after: Option<&String>| before.is_none() || before == after;
                    let (before, after) = (known.gateway_reference.as_ref(), movement.gateway_reference.as_ref());
                    assert!(
                        (known.operation.is_none() || known.operation == movement.operation)
                            && keeps(before, after)
                            && known.amount == movement.amount,
                        "{movement:?} is counted twice"
                    );
                    *known = movement.clone();
                }
                None => self.movements.push(movement.clone()),
            }
        }
        let new_events: Vec<Event> = aggregate.events().to_vec();
        aggregate.committed(waiting);
        self.check_events(before.as_ref(), &new_events);
        self.events.extend(new_events.into_iter().map(Rc::new));
        self.check();
        true
    }

    /// Stores one more attempt as the real one does it: beside the version, by compare-and-set on lease and attempts.
    pub fn store_attempt(&mut self, machine: &mut Aggregate, id: Uuid, attempts: u32, context: Context<'_>) -> bool {
        let mine = machine.operation(id).unwrap().clone();
        let Some(row) = self.operations.iter_mut().find(|row| row.id == id) else { return false };
        let is_owner = row.lease.is_some_and(|lease| lease.owner == context.worker);
        if row.state != State::Calling || !is_owner || row.counts.attempts != mine.counts.attempts {
            return false;
        }
        machine.attempt_stored(id, attempts, context);
        let stored = machine.operation(id).unwrap();
        row.counts.attempts = attempts;
        if mine.sent.is_exposed() {
            row.sent.exposure = Exposure::Exposed;
        }
        row.lease = stored.lease;
        row.sent.last_at = row.sent.last_at.max(Some(context.now));
        true
    }

    /// What is due.
    pub fn due(&self, now: Timestamp) -> impl Iterator<Item = Uuid> {
        let is_due = move |operation: &&Operation| operation.due_at.is_some_and(|due| due <= now);
        self.operations.iter().filter(is_due).map(|operation| operation.id)
    }

    /// Claims what is due: it is due again should its worker be lost before it has stored anything.
    pub fn claim(&mut self, id: Uuid, now: Timestamp) {
        self.operation_mut(id).due_at = Some(now + SignedDuration::from_secs(30));
    }

    /// Makes first calls due whose workers were lost.
    pub fn sweep(&mut self, now: Timestamp) {
        for operation in &mut self.operations {
            let lost = operation.lease.is_some_and(|lease| lease.until < now);
            if operation.state == State::Calling && operation.due_at.is_none() && lost {
                operation.due_at = Some(now);
            }
        }
    }

    pub fn operation(&self, id: Uuid) -> &Operation {
        self.operations.iter().find(|operation| operation.id == id).unwrap()
    }

    pub fn operation_mut(&mut self, id: Uuid) -> &mut Operation {
        self.operations.iter_mut().find(|operation| operation.id == id).unwrap()
    }

    /// New events have new ids, number the payment's changes without gaps, and move its status along the table.
    fn check_events(&self, before: Option<&Payment>, new: &[Event]) {
        let mut ids: HashSet<Uuid> = self.events.iter().map(|event| event.id).collect();
        let mut finals: HashSet<String> =
            self.events.iter().filter(|event| event.is_final()).map(|event| name_of(event)).collect();
        let mut sequence = before.map_or(0, |payment| payment.last_sequence);
        let mut status = before.map_or(Status::Waiting, |payment| payment.status);
        for event in new {
            let reused = matches!(event.kind, EventKind::Rejected { code: Code::IdReused, .. });
            assert!(ids.insert(event.id) || reused, "two events of one id: {event:?}");
            assert!(!event.is_final() || finals.insert(name_of(event)), "two answers: {event:?}");
            let (payment, previous) = match &event.kind {
                EventKind::StatusChanged { payment, previous, .. } => (payment, *previous),
                EventKind::Updated { payment, .. } | EventKind::Created { payment } => (payment, payment.status),
                _ => {
                    assert_eq!(event.sequence, None);
                    continue;
                }
            };
            sequence += 1;
            assert_eq!(event.sequence, Some(sequence), "a gap: {event:?}");
            assert_eq!(previous, status, "a change of status was not told: {event:?}");
            let moved = payment.status != previous;
            assert_eq!(moved, matches!(event.kind, EventKind::StatusChanged { .. }));
            let allowed = Cause::iter().any(|cause| previous.may_become(payment.status, cause));
            assert!(!moved || allowed, "{previous} to {} is no way of the table", payment.status);
            status = payment.status;
        }
        let after = self.payment.as_ref();
        assert_eq!(status, after.map_or(Status::Waiting, |payment| payment.status), "a status was not told");
        assert_eq!(sequence, after.map_or(0, |payment| payment.last_sequence));
    }

    /// What holds after every commit.
    fn check(&self) {
        for operation in self.operations.iter().filter(|operation| operation.is_open()) {
            let is_remembered = operation.due_at.is_some() || operation.lease.is_some() || operation.escalated;
            assert!(is_remembered, "nobody will look at {operation:?}");
            assert!(operation.state != State::Calling || operation.lease.is_some(), "{operation:?}");
            assert!(operation.state != State::Waiting || operation.due_at.is_some(), "{operation:?}");
            let sent = !matches!(operation.state, State::Waiting | State::Scheduled) && operation.action().is_some();
            let is_known_as_sent = operation.sent.first_at.is_some() && operation.sent.last_at.is_some();
            // One that was sent, lost and begun again is told by the gateway before it is sent again.
            assert!(!sent || is_known_as_sent || self.lost_commits && operation.sent.acted_on, "{operation:?}");
        }
        for operation in self.operations.iter().filter(|operation| !operation.is_open()) {
            let answers = self.events.iter().filter(|event| event.is_final() && is_of(event, operation)).count();
            assert_eq!(answers, 1, "one answer: {operation:?}");
            assert!(operation.answer.is_some() && operation.lease.is_none() && operation.due_at.is_none());
        }
        let Some(payment) = &self.payment else { return };
        let sums = Amounts::of(payment.currency(), self.movements.iter()).unwrap();
        assert_eq!(payment.amounts, sums, "amounts are the sums of the movements");
        let holds_turn = |operation: &&Operation| {
            operation.action().is_some()
                && matches!(operation.state, State::Calling | State::Scheduled | State::Unknown)
        };
        let holding: Vec<Uuid> = self.operations.iter().filter(holds_turn).map(|operation| operation.id).collect();
        match payment.busy {
            Some(busy) => assert!(holding.contains(&busy), "the turn is held by nobody: {busy}"),
            None => assert!(holding.is_empty(), "these should hold the turn: {holding:?}"),
        }
        // Only what let go of its turn while it was pending may be unknown beside another.
        let beside = holding.iter().filter(|id| payment.busy != Some(**id)).map(|id| self.operation(*id));
        assert!(beside.into_iter().all(|operation| operation.state == State::Unknown));
    }
}

fn name_of(event: &Event) -> String {
    let cause = event.cause.as_ref().unwrap();
    format!("{}/{}/{}", cause.subject, cause.name.source, cause.name.id)
}

fn is_of(event: &Event, operation: &Operation) -> bool {
    event.cause.as_ref().is_some_and(|cause| cause.name == operation.name)
}
