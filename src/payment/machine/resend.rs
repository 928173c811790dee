//! Emits events again, for consumers that were offline or detect a gap.

use jiff::Timestamp;
use uuid::Uuid;

use super::{Aggregate, Context, Step};
use crate::payment::code::{Code, Rejection};
use crate::payment::event::{EventKind, Reason, Resent};
use crate::payment::operation::AnswerKind;

/// Maximum number of events that one command sends again.
pub const RESEND_MAX: i64 = 100;

impl Aggregate {
    /// Determines which events to send again, a bounded number. If there are none, this answers the command.
    pub(super) fn resend(&mut self, id: Uuid, from: i64, context: Context<'_>) -> Result<Step, Rejection> {
        let payment = self.payment.as_ref().ok_or_else(no_payment)?;
        let to = payment.last_sequence.min(from.saturating_add(RESEND_MAX - 1));
        if from > to {
            return Ok(self.resent(id, None, context.now));
        }
        Ok(Step::Resend { operation: id, from, to })
    }

    /// Answers the command with what was sent again.
    pub fn resent(&mut self, id: Uuid, resent: Option<Resent>, now: Timestamp) -> Step {
        let Some(payment) = self.payment.clone() else { return Step::Settled };
        self.answer_with(id, EventKind::Succeeded { payment: Some(Box::new(payment)), resent }, now)
    }

    /// Answers with the payment as it is.
    pub(super) fn snapshot(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        let payment = self.payment.clone().ok_or_else(no_payment)?;
        Ok(self.answer_with(id, EventKind::Snapshot { payment: Box::new(payment) }, context.now))
    }

    fn answer_with(&mut self, id: Uuid, kind: EventKind, now: Timestamp) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.close(AnswerKind::Succeeded, &Reason::default());
        }
        self.emit(id, kind, true, now);
        self.end_turn(id, now);
        Step::Settled
    }
}

fn no_payment() -> Rejection {
    Rejection::new(Code::UnknownPayment, "there is no payment with this id")
}
