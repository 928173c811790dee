//! What operators do with an operation that waits: have it tried earlier or later, or withdraw it.

use jiff::SignedDuration;
use uuid::Uuid;

use super::aggregate::is_waiting;
use super::{Aggregate, Context, Step};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{CommandType, Retry};
use crate::payment::event::Reason;
use crate::payment::operation::{AnswerKind, Operation, State};

/// How far an attempt may be put off. Its payment is busy until then.
const PUT_OFF_MAX: SignedDuration = SignedDuration::from_hours(30 * 24);

impl Aggregate {
    /// Moves the next attempt or look-up of an operation. What may be sent or asked then is decided when it is due.
    pub(super) fn retry_at(&mut self, id: Uuid, retry: Retry, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_names_user(id)?;
        let at = retry.at.unwrap_or(context.now).max(context.now);
        if at.duration_since(context.now) > PUT_OFF_MAX {
            return Err(Rejection::invalid("at", "must be at most 30 days ahead"));
        }
        let target = retry.operation;
        let Some(operation) = self.operation(target).filter(|operation| operation.waits_for_its_time()) else {
            let message = format!("operation {target} does not wait for an attempt or a look-up");
            return Err(Rejection::new(Code::NotRetryable, message));
        };
        let code = operation.last_code.unwrap_or(Code::Accepted);
        self.postpone(target, at);
        if at > context.now {
            self.emit_delayed(target, code, "an operator put its next attempt off", context.now);
        }
        Ok(self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now))
    }

    /// Ends an operation that waits, and of which nothing was sent.
    pub(super) fn withdraw(&mut self, id: Uuid, target: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_names_user(id)?;
        if self.operation(target).is_none_or(|operation| !operation.may_be_withdrawn()) {
            let message = format!("operation {target} is over, is being called, or may have reached the gateway");
            return Err(Rejection::new(Code::NotWithdrawable, message));
        }
        self.stop_waiting(target);
        let message = "an operator withdrew it before anything was sent".to_owned();
        let why = Reason { code: Some(Code::Withdrawn), message, ..Reason::default() };
        self.answer(target, AnswerKind::Failed, why, context.now);
        Ok(self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now))
    }

    /// What an operator says or does is kept with who it was.
    pub(super) fn check_names_user(&self, id: Uuid) -> Result<(), Rejection> {
        match self.operation(id).and_then(|operation| operation.attributes.user_id.as_ref()) {
            Some(_) => Ok(()),
            None => Err(Rejection::user_required()),
        }
    }
}

impl Operation {
    /// Whether it is scheduled, or looked up again, at some time. A parked one is not.
    fn waits_for_its_time(&self) -> bool {
        let waits = matches!(self.state, State::Scheduled | State::Unknown | State::Pending);
        waits && self.lease.is_none() && self.due_at.is_some()
    }

    /// Whether it can end with nothing having happened. A gateway's notification may carry proof of money, and what the
    /// customer has approved reached the gateway before.
    fn may_be_withdrawn(&self) -> bool {
        let is_of_publisher = self.action().is_some() || self.kind.known() == Some(CommandType::Sync);
        let is_unsent = !self.sent.is_exposed() && !self.sent.acted_on && !self.confirms();
        is_of_publisher && (is_waiting(self) || self.state == State::Scheduled && is_unsent)
    }
}
