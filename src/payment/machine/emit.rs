//! Answers and events: every change of the payment is emitted in order, and every command gets exactly one answer.

use jiff::Timestamp;
use uuid::Uuid;

use super::aggregate::is_waiting;
use super::{Aggregate, Step};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::event::{Event, EventCause, EventKind, EventOperation, Progress, Reason};
use crate::payment::operation::{Answer, AnswerKind, Operation, State};

impl Aggregate {
    /// Emits what changed in the payment since the last event, if anything (its status, or other data), but not as an
    /// answer.
    pub(super) fn emit_change(&mut self, id: Uuid, why: &Reason, now: Timestamp) {
        if let Some(change) = self.payment_event(why, now) {
            self.emit(id, change, false, now);
        }
    }

    fn payment_event(&mut self, why: &Reason, now: Timestamp) -> Option<EventKind> {
        let payment = self.payment.as_mut()?;
        let previous = self.status_before.take().filter(|previous| *previous != payment.status);
        let changed = std::mem::take(&mut self.changed);
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

    /// Answers an operation for good and emits the answer: as the payment's change if that says how it ended, otherwise
    /// as an event of its own.
    pub(super) fn answer(&mut self, id: Uuid, kind: AnswerKind, why: Reason, now: Timestamp) -> Step {
        let change = self.payment_event(&why, now);
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.close(kind, &why);
        let attempts = operation.counts.attempts;
        let by_itself = self.ending(kind, why, attempts);
        match change {
            Some(change) if kind == AnswerKind::Succeeded || matches!(change, EventKind::StatusChanged { .. }) => {
                self.emit(id, change, true, now);
            }
            // Other data may change although the command failed; then the change is not the answer.
            Some(change) => {
                self.emit(id, change, false, now);
                self.emit(id, by_itself, true, now);
            }
            None => self.emit(id, by_itself, true, now),
        }
        self.end_turn(id, now);
        Step::Settled
    }

    /// Ends an operation's turn and wakes the next waiting command, in the same commit.
    pub(super) fn end_turn(&mut self, id: Uuid, now: Timestamp) {
        // An operation that became unknown during this turn takes it now: it had given up its own while pending.
        let unknown = self.operations().find(|other| other.id != id && other.state == State::Unknown);
        let unknown = unknown.map(|operation| operation.id);
        if let Some(payment) = &mut self.payment
            && payment.busy == Some(id)
        {
            payment.busy = unknown;
        }
        self.wake_next(now);
        self.wake_notifications(now);
    }

    fn wake_next(&mut self, now: Timestamp) {
        if self.payment.as_ref().is_none_or(|payment| payment.busy.is_some()) {
            return;
        }
        if let Some(next) = self.next_waiting()
            && let Some(operation) = self.operation_mut(next)
        {
            operation.due_at = operation.due_at.map(|due| due.min(now));
        }
    }

    /// The command accepted first, of those that wait for their turn.
    pub(super) fn next_waiting(&self) -> Option<Uuid> {
        let inbound = |operation: &Operation| operation.kind.known().is_some_and(|kind| kind.is_inbound());
        let waiting = self.operations().filter(|operation| is_waiting(operation) && !inbound(operation));
        // One that is not committed yet has no place in that order, but comes after all others.
        let number = |operation: &&Operation| if operation.accepted > 0 { operation.accepted } else { i64::MAX };
        waiting.min_by_key(number).map(|operation| operation.id)
    }

    /// Adds an event caused by an operation. Ids are made from the content, so that the same event always has the same
    /// id.
    pub(super) fn emit(&mut self, id: Uuid, kind: EventKind, is_final: bool, now: Timestamp) {
        let Some(operation) = self.operation(id) else { return };
        let sequence = match &kind {
            EventKind::Created { payment }
            | EventKind::StatusChanged { payment, .. }
            | EventKind::Updated { payment, .. } => Some(payment.last_sequence),
            EventKind::Rejected { .. }
            | EventKind::Failed { .. }
            | EventKind::Delayed { .. }
            | EventKind::Succeeded { .. }
            | EventKind::Snapshot { .. }
            | EventKind::EventsResent(_)
            | EventKind::PauseChanged(_) => None,
        };
        let event_id = match sequence {
            Some(sequence) => Uuid::new_v5(&self.payment_id, &sequence.to_be_bytes()),
            None if is_final => Uuid::new_v5(&id, b"final"),
            // The version differs between commits, the index between events of one commit.
            None => {
                // Without a payment there is no version, and the time takes its place.
                let version = self.payment.as_ref().map_or(now.as_microsecond(), |payment| payment.version);
                Uuid::new_v5(&id, format!("{version}/{}", self.events.len()).as_bytes())
            }
        };
        let event = self.event(operation, event_id, kind, sequence, is_final, now);
        self.events.reserve_exact(1);
        self.events.push(event);
    }

    /// Builds an event caused by an operation.
    pub(super) fn event(
        &self,
        operation: &Operation,
        id: Uuid,
        kind: EventKind,
        sequence: Option<i64>,
        is_final: bool,
        time: Timestamp,
    ) -> Event {
        let attributes = &operation.attributes;
        let subject = operation.subject.clone().filter(|subject| !subject.is_empty());
        let cause = EventCause {
            subject: subject.unwrap_or_else(|| self.payment_id.to_string()),
            name: operation.name.clone(),
            kind: operation.kind.as_str().to_owned(),
            is_final,
            is_answer: is_final,
            correlation_id: attributes.correlation_id.clone(),
            trace: attributes.trace.clone(),
            reply: attributes.reply.clone().filter(|_| is_final),
            operation: operation.action().map(|_| self.event_operation(operation)),
        };
        let payment = self.payment.as_ref();
        let variant = payment.map_or(&operation.variant, |payment| &payment.order.variant).clone();
        // A sender that is not authorized for the payment must learn nothing about it.
        let is_foreign = matches!(kind, EventKind::Rejected { code: Code::NotAuthorized, .. });
        let visible = payment.filter(|_| !kind.has_payment() && !is_foreign);
        let metadata = visible.map(|payment| payment.order.metadata.clone()).unwrap_or_default();
        Event { id, payment_id: self.payment_id, variant, kind, sequence, cause: Some(cause), metadata, time }
    }

    /// The event that says how an operation ended, if no change of the payment says it.
    pub(super) fn ending(&self, kind: AnswerKind, why: Reason, attempts: u32) -> EventKind {
        match kind {
            AnswerKind::Rejected => {
                EventKind::Rejected { code: why.code.unwrap_or(Code::NotAllowed), message: why.message }
            }
            AnswerKind::Succeeded => EventKind::Succeeded { payment: self.payment.clone().map(Box::new), resent: None },
            AnswerKind::Failed => EventKind::Failed { why, attempts },
        }
    }

    fn event_operation(&self, operation: &Operation) -> EventOperation {
        let mut own =
            self.movements.iter().map(|tracked| &tracked.row).filter(|row| row.operation == Some(operation.id));
        let reference = own.find_map(|movement| movement.gateway_reference.clone());
        EventOperation { id: operation.id, progress: Progress::of(operation), amount: operation.amount(), reference }
    }

    /// Reports that an operation continues later, and why.
    pub(super) fn emit_delayed(&mut self, id: Uuid, reason: Code, message: &str, now: Timestamp) {
        if let Some(operation) = self.operation(id) {
            let kind = operation.delayed(reason, message.to_owned());
            self.emit(id, kind, false, now);
        }
    }
}

impl Operation {
    /// The event that says that it continues later, and why.
    pub(super) fn delayed(&self, reason: Code, message: String) -> EventKind {
        EventKind::Delayed { reason, message, next_attempt_at: self.due_at, attempts: self.counts.attempts }
    }

    /// Settles it. What was sent, and what came with the command, is kept no longer than needed, because it may hold a
    /// payment method's token. What an operator said is kept.
    pub(super) fn close(&mut self, kind: AnswerKind, why: &Reason) {
        self.move_to(State::Settled);
        self.lease = None;
        self.due_at = None;
        self.answer = Some(Answer { kind, code: why.code, message: why.message.clone() });
        if let Some(request) = &mut self.request {
            request.body.clear();
        }
        if !self.kind.known().is_some_and(CommandType::is_of_operators) {
            self.data.clear();
        }
    }
}
