//! A command arrives, or a waiting one takes its turn.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::aggregate::is_waiting;
use super::decide::in_progress;
use super::{Aggregate, Context, FIRST_LOOK, Step, WAITING_MAX, WAITING_RECHECK, later};
use crate::payment::action::Action;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, CommandType, Kind, NewPayment};
use crate::payment::event::{Event, EventCause, EventKind, Reason};
use crate::payment::model::{Metadata, Payment};
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::status::Status;

impl Aggregate {
    /// Decides on a command that names itself. Every such command is stored, and a rejection is as final as any other
    /// answer.
    pub fn accept(&mut self, command: Command, context: Context<'_>) -> Step {
        let id = command.operation_id();
        if let Some(known) = self.operation(id) {
            if known.is_of(&command) {
                return Step::Known(id);
            }
            self.emit_id_reused(command, context);
            return Step::Settled;
        }
        let (operation, content) = Operation::accept(command, id, context.now);
        let id = self.insert(operation);
        match content.and_then(|body| self.admit(id, body, context)) {
            Ok(step) => step,
            Err(rejection) => self.reject(id, rejection, context),
        }
    }

    /// Admits a new command: at once, or to wait for its turn or its payment.
    fn admit(&mut self, id: Uuid, body: Body, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_expiry(id, context)?;
        if let Body::Create(new) = body {
            return self.create(id, *new, context);
        }
        let Some(payment) = &self.payment else {
            // A command that names no payment waits for none: the gateway's adapter must find it, or reports that it
            // cannot.
            return match body {
                Body::Notification(_) if self.names_no_payment(id) => self.decide(id, body, context),
                _ => self.wait_for_payment(id, context),
            };
        };
        // Commands that wait only for the payment, such as a sync that came before it, block nobody.
        let free = payment.busy.is_none() && self.next_waiting().is_none();
        if free || body.kind().is_inbound() {
            return self.decide(id, body, context);
        }
        self.check_payment_fits(id, body.kind(), context)?;
        match body {
            Body::Process(_) if self.other_at_gateway(id, &[Action::Process]).is_some() => {
                Err(in_progress(Action::Process))
            }
            Body::Cancel if self.end_unsent(context) => self.decide(id, body, context),
            _ => self.wait_for_turn(id, context),
        }
    }

    fn names_no_payment(&self, id: Uuid) -> bool {
        self.operation(id).is_some_and(|operation| operation.subject.as_deref() == Some(""))
    }

    fn create(&mut self, id: Uuid, new: NewPayment, context: Context<'_>) -> Result<Step, Rejection> {
        let rules = context.rules;
        if let Some(payment) = &self.payment {
            payment.check_not_archived()?;
            return Err(Rejection::new(Code::AlreadyExists, "a payment with this id already exists"));
        }
        if rules.retired {
            return Err(Rejection::new(Code::VariantRetired, "the variant accepts no new payments"));
        }
        let mut payment = Payment::new(self.payment_id, new.order, &rules.gateway, &rules.account, context.now);
        payment.source = self.operation(id).map(|operation| operation.name.source.clone());
        payment.capture = new.capture;
        payment.last_sequence = 1;
        payment.waiting = self.waiting_count();
        let created = EventKind::Created { payment: Box::new(payment.clone()) };
        self.payment = Some(payment);
        self.emit(id, created, new.process.is_none(), context.now);
        if let Some(process) = new.process {
            return self.process(id, process, context);
        }
        if let Some(operation) = self.operation_mut(id) {
            operation.close(AnswerKind::Succeeded, &Reason::default());
        }
        self.end_turn(id, context.now);
        Ok(Step::Settled)
    }

    fn wait_for_payment(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_waiting_count()?;
        self.postpone(id, next_look(context.now, context));
        Ok(Step::Stored)
    }

    fn wait_for_turn(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_waiting_count()?;
        self.postpone(id, context.now + WAITING_RECHECK);
        if let Some(payment) = &mut self.payment {
            payment.waiting = payment.waiting.saturating_add(1);
        }
        Ok(Step::Stored)
    }

    fn check_waiting_count(&self) -> Result<(), Rejection> {
        let waiting = self.payment.as_ref().map_or(0, |payment| payment.waiting).max(self.waiting_count());
        if waiting >= WAITING_MAX {
            return Err(Rejection::new(
                Code::TooManyWaiting,
                format!("{WAITING_MAX} commands already wait for this payment"),
            ));
        }
        Ok(())
    }

    /// A cancel ends the scheduled operation that holds the turn, if all its attempts are proven not sent, and only if
    /// the cancel itself is allowed. Returns whether it did.
    fn end_unsent(&mut self, context: Context<'_>) -> bool {
        let unsent = self.unsent();
        if let Some(unsent) = unsent {
            let message = "payment.cancel ended the command before anything was sent".to_owned();
            let why = Reason { code: Some(Code::Cancelled), message, ..Reason::default() };
            self.answer(unsent, AnswerKind::Failed, why, context.now);
        }
        unsent.is_some()
    }

    /// The operation that a cancel would end.
    fn unsent(&self) -> Option<Uuid> {
        let cancellable = |payment: &&Payment| matches!(payment.status, Status::Waiting | Status::Input);
        let busy = self.payment.as_ref().filter(cancellable).and_then(|payment| payment.busy)?;
        let unsent = |operation: &&Operation| operation.state == State::Scheduled && !operation.sent.is_exposed();
        self.operation(busy).filter(unsent).map(|operation| operation.id)
    }

    /// Makes waiting cancels due at once: they came while the operation was being called, and may end it now that it is
    /// scheduled with nothing sent. Returns whether there is one.
    pub(super) fn wake_cancel(&mut self, now: Timestamp) -> bool {
        if self.unsent().is_none() {
            return false;
        }
        let waits = |operation: &&Operation| is_waiting(operation) && operation.action() == Some(Action::Cancel);
        let cancels: Vec<Uuid> = self.operations().filter(waits).map(|operation| operation.id).collect();
        for cancel in &cancels {
            self.postpone(*cancel, now);
        }
        !cancels.is_empty()
    }

    /// If a waiting command is a cancel, ends the operation that holds the turn where that is allowed. Returns whether
    /// it did, so that the cancel need not wait.
    fn ends_the_turn(&mut self, id: Uuid, context: Context<'_>) -> bool {
        self.operation(id).is_some_and(|operation| operation.action() == Some(Action::Cancel))
            && self.check_expiry(id, context).is_ok()
            && self.check_payment_fits(id, CommandType::Cancel, context).is_ok()
            && self.end_unsent(context)
    }

    /// Handles a waiting command whose time has come: its turn, or the end of its grace period.
    pub(super) fn take_turn(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let now = context.now;
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let Some(payment) = &self.payment else {
            let next = next_look(operation.created, context);
            if next > now {
                self.postpone(id, next);
                return Step::Stored;
            }
            return self.reject(id, Rejection::new(Code::UnknownPayment, "there is no payment with this id"), context);
        };
        // A worker of an earlier release does not know archived payments, and let it wait.
        if let Err(rejection) = payment.check_not_archived() {
            return self.reject_due(id, rejection, context);
        }
        // Commands that resolve unknown outcomes, or only read, waited for their payment alone, and never wait for a
        // turn.
        let inbound = operation.kind.known().is_some_and(CommandType::is_inbound);
        let goes_first = inbound || payment.busy.is_some() && self.ends_the_turn(id, context);
        let is_busy = self.payment.as_ref().is_some_and(|payment| payment.busy.is_some());
        if is_busy && !inbound {
            self.postpone(id, now + WAITING_RECHECK);
            return Step::Stored;
        }
        // The first in the queue goes first, and at a due time of its own: this worker has only this command in
        // progress.
        if let Some(first) = self.next_waiting().filter(|first| *first != id && !goes_first) {
            self.postpone(first, now);
            self.postpone(id, now + WAITING_RECHECK);
            return Step::Stored;
        }
        self.stop_waiting(id);
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let body = match &operation.kind {
            Kind::Known(kind) => Body::parse(*kind, &operation.data),
            Kind::Unknown(_) => Err(Rejection::new(Code::UnknownType, "unknown command type")),
        };
        match body.and_then(|body| self.decide(id, body, context)) {
            Ok(step) => step,
            Err(rejection) => self.reject(id, rejection, context),
        }
    }

    /// Rejects a command whose time has come, for a reason that only the caller knows.
    pub fn reject_due(&mut self, id: Uuid, rejection: Rejection, context: Context<'_>) -> Step {
        if self.operation(id).is_none_or(|operation| !operation.is_open()) {
            return Step::Settled;
        }
        self.stop_waiting(id);
        self.reject(id, rejection, context)
    }

    /// Ends its waiting: it has no due time any more, and its payment no longer counts it.
    pub(super) fn stop_waiting(&mut self, id: Uuid) {
        let Some(operation) = self.operation_mut(id) else { return };
        let waited = is_waiting(operation);
        operation.due_at = None;
        if let Some(payment) = self.payment.as_mut().filter(|_| waited) {
            payment.waiting = payment.waiting.saturating_sub(1);
        }
    }

    pub(super) fn postpone(&mut self, id: Uuid, until: Timestamp) {
        if let Some(operation) = self.operation_mut(id) {
            operation.due_at = Some(until);
        }
    }

    /// Rejects a command before it reaches a gateway.
    pub(super) fn reject(&mut self, id: Uuid, rejection: Rejection, context: Context<'_>) -> Step {
        let why = Reason { code: Some(rejection.code), message: rejection.message, ..Reason::default() };
        self.answer(id, AnswerKind::Rejected, why, context.now)
    }

    /// Refuses a message that reuses an earlier command's name with other content; the first command is not affected.
    fn emit_id_reused(&mut self, command: Command, context: Context<'_>) {
        let message = "this subject, source and id were already used with another type or other data".to_owned();
        // The id is made from the content, so that a redelivery emits the same event again and not a second one.
        let id = Uuid::new_v5(&command.operation_id(), &command.hash);
        // The name's one final answer belongs to the command that came first.
        let cause = EventCause::of_command(&command, false);
        self.events.push(Event {
            id,
            payment_id: self.payment_id,
            variant: command.variant,
            kind: EventKind::Rejected { code: Code::IdReused, message },
            sequence: None,
            cause: Some(cause),
            metadata: Metadata::new(),
            time: context.now,
        });
    }
}

/// When a command that waits for its payment looks for it next: soon at first, because its create is most likely on its
/// way, then each time after as long as it has waited, until the grace period ends.
fn next_look(since: Timestamp, context: Context<'_>) -> Timestamp {
    let waited = Duration::try_from(context.now.duration_since(since)).unwrap_or_default();
    let end = later(since, context.rules.unknown_payment_grace);
    later(context.now, waited.max(FIRST_LOOK)).min(end)
}
