//! Answers a command that was sent again, to where it asks now: at once how it stands, and later how it ended.

use jiff::Timestamp;
use uuid::Uuid;

use super::Aggregate;
use crate::payment::code::Code;
use crate::payment::event::{Event, EventKind, Reason};
use crate::payment::operation::AnswerKind;

impl Aggregate {
    /// Reports how an operation stands, to the sender of the repeated command: how it ended, or that it is in progress.
    /// The event is none of the payment's events, and goes to nobody else.
    pub fn standing(&self, id: Uuid, now: Timestamp) -> Option<Event> {
        let operation = self.operation(id)?;
        let attempts = operation.attempts;
        let kind = match &operation.answer {
            None => EventKind::Delayed {
                reason: operation.last_code.unwrap_or(Code::Accepted),
                message: operation.last_message.clone(),
                next_attempt_at: operation.due_at,
                attempts,
            },
            Some(answer) => {
                let message = answer.message.clone();
                match answer.kind {
                    AnswerKind::Succeeded => {
                        EventKind::Succeeded { payment: self.payment.clone().map(Box::new), resent: None }
                    }
                    AnswerKind::Rejected => {
                        EventKind::Rejected { code: answer.code.unwrap_or(Code::NotAllowed), message }
                    }
                    AnswerKind::Failed => {
                        EventKind::Failed { why: Reason { code: answer.code, message, ..Reason::default() }, attempts }
                    }
                }
            }
        };
        Some(self.event(operation, Uuid::new_v4(), kind, None, operation.answer.is_some(), now))
    }
}
