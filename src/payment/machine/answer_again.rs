//! Answers a command that was sent again, to where it asks now: at once how it stands, and later how it ended.

use jiff::Timestamp;
use uuid::Uuid;

use super::Aggregate;
use crate::payment::code::Code;
use crate::payment::event::{Event, Reason};

impl Aggregate {
    /// Reports how an operation stands, to the sender of the repeated command: how it ended, or that it is in progress.
    /// The event is none of the payment's events, and goes to nobody else.
    pub fn standing(&self, id: Uuid, now: Timestamp) -> Option<Event> {
        let operation = self.operation(id)?;
        let kind = match &operation.answer {
            None => operation.delayed(operation.last_code.unwrap_or(Code::Accepted), operation.last_message.clone()),
            Some(answer) => {
                let why = Reason { code: answer.code, message: answer.message.clone(), ..Reason::default() };
                self.ending(answer.kind, why, operation.counts.attempts)
            }
        };
        Some(self.event(operation, Uuid::new_v4(), kind, None, operation.answer.is_some(), now))
    }
}
