//! `payment.notification`: a gateway's verified webhook, which says where to look. By itself it changes nothing, unless
//! the contract accepts it as proof (`proof`): the gateway is asked, as for a `payment.sync`, and its answer is
//! applied. So it does not matter in which order notifications come, how often, and how late.

use jiff::Timestamp;
use uuid::Uuid;

use super::proof::proof_in;
use super::{Aggregate, Context, Step, count_up, later};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::event::Reason;
use crate::payment::fact::{FACTS, Fact, read_facts};
use crate::payment::observation::Asked;
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::GatewayError;
use crate::payment::status::Status;

/// Data key of how often the gateway had no news for a notification.
const NO_NEWS: &str = "no_news";

impl Aggregate {
    /// Applies what a notification proves, and asks about the rest of it.
    pub(super) fn notification(&mut self, id: Uuid, facts: &[Fact], context: Context<'_>) -> Result<Step, Rejection> {
        let can_be_asked = context.rules.contract.lookup != Lookup::None;
        let proves = facts.iter().any(|fact| proof_in(fact, context).is_some());
        if !can_be_asked && !proves {
            return Err(Rejection::new(Code::Unsupported, "the gateway does not support look-ups"));
        }
        if facts.is_empty() {
            return Ok(self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now));
        }
        // A notification that names no payment must first be handed to the payments it is about.
        if !proves || self.payment.is_none() {
            return Ok(self.ask(id, context));
        }
        Ok(self.take_proofs(id, facts, context))
    }

    /// Applies what a notification proves again: some of it had to wait for something else to end.
    pub(super) fn take_proofs_again(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let facts = self.facts(id);
        self.take_proofs(id, &facts, context)
    }

    fn take_proofs(&mut self, id: Uuid, facts: &[Fact], context: Context<'_>) -> Step {
        let (mut reason, mut contradiction, mut has_hints) = (Reason::default(), None, false);
        for fact in facts {
            // Each change has an event of its own, so that the status only makes transitions that the table has.
            self.emit_change(id, &reason, context.now);
            match proof_in(fact, context).map(|proof| self.take_proof(id, fact, proof, context)) {
                None => has_hints = true,
                Some(Ok(why)) => reason = why,
                Some(Err(why)) => contradiction = contradiction.or(Some(why)),
            }
        }
        if facts.iter().any(|fact| proof_in(fact, context).is_some_and(|proof| self.must_wait(fact, proof, context))) {
            self.emit_change(id, &reason, context.now);
            return self.wait_to_go_on(id, context);
        }
        let can_be_asked = context.rules.contract.lookup != Lookup::None;
        if can_be_asked && (has_hints || contradiction.is_some()) {
            self.emit_change(id, &reason, context.now);
            return self.ask(id, context);
        }
        match contradiction {
            Some(why) => {
                self.emit_change(id, &reason, context.now);
                self.answer(id, AnswerKind::Failed, why, context.now)
            }
            None => self.answer(id, AnswerKind::Succeeded, reason, context.now),
        }
    }

    /// A notification that named no payment was handed to each payment it is about, or could not be yet.
    pub fn located(&mut self, id: Uuid, located: Result<(), GatewayError>, tries: u32, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id).filter(|operation| operation.is_open()) else {
            return Step::Settled;
        };
        // Another worker took it over, and answers it.
        if !operation.is_called_by(context.worker) {
            return Step::Stored;
        }
        match located {
            Ok(()) => self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now),
            Err(error) => self.apply_from_lease_owner(id, context, |it| it.ask_later(id, error, tries, context)),
        }
    }

    /// Answers a question about the whole payment. For a notification that brought no news while the payment waits for
    /// its result, the gateway is asked again, after the settle window and then at the retry delays: a gateway may send
    /// its webhook before its own look-up knows of it, and the same webhook never comes again.
    pub(super) fn answer_or_ask_again(&mut self, id: Uuid, why: Reason, asked: Asked, context: Context<'_>) -> Step {
        let Some(due) = self.asks_again_at(id, asked, context) else {
            return self.answer(id, AnswerKind::Succeeded, why, context.now);
        };
        let Some(operation) = self.operation_mut(id) else { return Step::Settled };
        let no_news = operation.no_news();
        operation.data.insert(NO_NEWS.to_owned(), (no_news + 1).into());
        operation.schedule_at(due);
        if no_news == 0 {
            let message = "the gateway has no news yet; asking it again later";
            self.emit_delayed(id, Code::Pending, message, context.now);
        }
        Step::Stored
    }

    /// When to ask again about a notification without news; `None` if that makes no sense.
    fn asks_again_at(&self, id: Uuid, asked: Asked, context: Context<'_>) -> Option<Timestamp> {
        let operation = self.operation(id).filter(|it| it.kind.known() == Some(CommandType::Notification))?;
        let is_news =
            !self.changed.is_empty() || self.status_before.is_some() || self.changed_movements().next().is_some();
        if is_news || !self.has_no_result() {
            return None;
        }
        let settled = later(operation.created, context.rules.contract.settle_window);
        if asked.at() < settled {
            return Some(settled);
        }
        // The first repetition is the question after the settle window, which uses no retry delay.
        let retries = usize::try_from(operation.no_news().saturating_sub(1)).ok()?;
        let delay = context.rules.delayed.get(retries)?;
        Some(later(context.now, *delay))
    }

    /// The facts of a notification that was not answered yet.
    pub fn facts(&self, id: Uuid) -> Vec<Fact> {
        self.operation(id).and_then(|operation| read_facts(operation.data.get(FACTS)).ok()).unwrap_or_default()
    }

    /// The operation that a notification is about, if the gateway may still be processing it.
    pub(super) fn named_operation(&self, id: Uuid) -> Option<Uuid> {
        let at_gateway = |named: &Uuid| {
            self.operation(*named).is_some_and(|operation| operation.is_at_gateway() && operation.action().is_some())
        };
        self.facts(id).iter().filter_map(|fact| fact.operation_id).find(at_gateway)
    }

    /// Whether a notification is about more than the operation that was just looked up. The whole payment could not be
    /// asked about while that one was open.
    pub(super) fn has_more_to_ask(&self, id: Uuid, target: Option<Uuid>) -> bool {
        target.is_some() && self.facts(id).iter().any(|fact| fact.operation_id != target)
    }

    /// Asks about the rest: at once if no operation is open at the gateway, otherwise once none is.
    pub(super) fn ask_for_the_rest(&mut self, id: Uuid, context: Context<'_>) -> Step {
        if self.open_at_gateway().is_none() {
            return self.ask(id, context);
        }
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        let is_first = operation.counts.lookups == 0;
        let due = operation.next_look_up(None, context);
        count_up(&mut operation.counts.lookups);
        operation.schedule_at(due);
        if is_first {
            let message = "the gateway will be asked about the whole payment once none of its operations is open";
            self.emit_delayed(id, Code::Pending, message, context.now);
        }
        Step::Stored
    }

    /// Whether the payment still waits for the result of its process.
    fn has_no_result(&self) -> bool {
        self.payment.as_ref().is_some_and(|payment| matches!(payment.status, Status::Waiting | Status::Input))
    }

    /// Wakes notifications that wait until no operation is open at the gateway, those whose proof had to wait for
    /// something else to end, and those that wait for news which came another way.
    pub(super) fn wake_notifications(&mut self, now: Timestamp) {
        if self.open_at_gateway().is_some() {
            return;
        }
        let waits = |operation: &&Operation| {
            operation.kind.known() == Some(CommandType::Notification)
                && operation.state == State::Scheduled
                && (operation.counts.lookups > 0
                    || operation.no_news() > 0 && !self.has_no_result()
                    || operation.waits_to_go_on())
        };
        let waiting: Vec<Uuid> = self.operations().filter(waits).map(|operation| operation.id).collect();
        for id in waiting {
            self.postpone(id, now);
        }
    }
}

impl Operation {
    /// How often the gateway had no news for this notification.
    fn no_news(&self) -> u64 {
        self.data.get(NO_NEWS).and_then(serde_json::Value::as_u64).unwrap_or_default()
    }
}
