//! Events: what is told to the bus, in the words of the contract.

use jiff::Timestamp;
use uuid::Uuid;

use super::code::Code;
use super::command::CommandName;
use super::model::Payment;
use super::money::Money;
use super::operation::Reply;
use super::status::Status;
use super::trace::TraceContext;

/// One event, as decided; its wire form is made from it once, when it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Stable: the same event always has the same id.
    pub id: Uuid,
    /// The payment, or what stands for one where the subject names none.
    pub payment_id: Uuid,
    /// The variant, for the routing key.
    pub variant: String,
    /// What is told.
    pub kind: EventKind,
    /// The number within the payment, for `payment.*`: gapless, from 1.
    pub sequence: Option<i64>,
    /// The command that caused it.
    pub cause: Option<EventCause>,
    /// When it was decided, by PostgreSQL's clock.
    pub time: Timestamp,
}

/// The command that caused an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventCause {
    /// The subject as the command wrote it.
    pub subject: String,
    /// Source and id.
    pub name: CommandName,
    /// The command's type as it was written.
    pub kind: String,
    /// Whether this event is the command's answer.
    pub is_final: bool,
    /// Copied from the command.
    pub correlation_id: Option<String>,
    /// Where in a trace the command belongs.
    pub trace: Option<TraceContext>,
    /// Where a final answer also goes.
    pub reply: Option<Reply>,
}

/// What is told.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// `payment.created`
    Created {
        /// As stored.
        payment: Box<Payment>,
    },
    /// `payment.status_changed`
    StatusChanged {
        /// As stored after the change.
        payment: Box<Payment>,
        /// The status before.
        previous: Status,
        /// Why, where there is a reason.
        why: Why,
    },
    /// `payment.updated`
    Updated {
        /// As stored after the change.
        payment: Box<Payment>,
        /// The names of the fields that differ.
        changed: Vec<&'static str>,
        /// Why, where there is a reason.
        why: Why,
    },
    /// `command.rejected`
    Rejected {
        /// Why.
        code: Code,
        /// For a person.
        message: String,
    },
    /// `command.failed`
    Failed {
        /// Why.
        why: Why,
        /// Calls made.
        attempts: u32,
    },
    /// `command.delayed`
    Delayed {
        /// Why.
        reason: Code,
        /// For a person.
        message: String,
        /// When it is tried or looked up again, where that is known.
        next_attempt_at: Option<Timestamp>,
        /// Calls made so far.
        attempts: u32,
    },
    /// `command.succeeded`
    Succeeded {
        /// As stored; nothing for a notification that named none.
        payment: Option<Box<Payment>>,
        /// Which events went out before it, where it was asked for.
        resent: Option<Resent>,
    },
    /// `payment.snapshot`
    Snapshot {
        /// As stored, after its last event.
        payment: Box<Payment>,
    },
}

/// Events of a payment that went out once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    /// The number of the first.
    pub from: i64,
    /// The number of the last.
    pub to: i64,
}

/// The reason of a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Why {
    /// Our code.
    pub code: Option<Code>,
    /// For a person.
    pub message: String,
    /// The gateway's own code.
    pub gateway_code: Option<String>,
    /// What was asked and what the gateway did, where they differ or go beyond a limit.
    pub discrepancy: Option<Discrepancy>,
}

/// The gateway did something else than was asked.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Discrepancy {
    /// What was asked for, or the limit.
    pub asked: Money,
    /// What the gateway says.
    pub answered: Money,
}

/// The types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventType {
    /// A payment was stored.
    Created,
    /// A payment's status differs.
    StatusChanged,
    /// Amounts, fraud or gateway data differ, the status does not.
    Updated,
    /// A command never reached a gateway.
    Rejected,
    /// The gateway refused, or retrying was given up, and the payment is as it was.
    Failed,
    /// A retry is scheduled, an answer is awaited, or the outcome is unknown.
    Delayed,
    /// Done, and nothing of the payment changed.
    Succeeded,
    /// The payment as it is, for who asked.
    Snapshot,
}

impl EventType {
    /// Every type.
    pub const ALL: [EventType; 8] = [
        EventType::Created,
        EventType::StatusChanged,
        EventType::Updated,
        EventType::Rejected,
        EventType::Failed,
        EventType::Delayed,
        EventType::Succeeded,
        EventType::Snapshot,
    ];

    /// The CloudEvents type.
    pub fn as_str(self) -> &'static str {
        match self {
            EventType::Created => "payment.created",
            EventType::StatusChanged => "payment.status_changed",
            EventType::Updated => "payment.updated",
            EventType::Rejected => "command.rejected",
            EventType::Failed => "command.failed",
            EventType::Delayed => "command.delayed",
            EventType::Succeeded => "command.succeeded",
            EventType::Snapshot => "payment.snapshot",
        }
    }

    /// Whether it is one of those that a payment's sequence counts.
    pub fn is_counted(self) -> bool {
        matches!(self, EventType::Created | EventType::StatusChanged | EventType::Updated)
    }
}

impl EventKind {
    /// Its type.
    pub fn event_type(&self) -> EventType {
        match self {
            EventKind::Created { .. } => EventType::Created,
            EventKind::StatusChanged { .. } => EventType::StatusChanged,
            EventKind::Updated { .. } => EventType::Updated,
            EventKind::Rejected { .. } => EventType::Rejected,
            EventKind::Failed { .. } => EventType::Failed,
            EventKind::Delayed { .. } => EventType::Delayed,
            EventKind::Succeeded { .. } => EventType::Succeeded,
            EventKind::Snapshot { .. } => EventType::Snapshot,
        }
    }

    /// The CloudEvents type.
    pub fn type_name(&self) -> &'static str {
        self.event_type().as_str()
    }
}

impl Event {
    /// The routing key: `<variant>.<type>`, and the status behind it where it changed.
    pub fn routing_key(&self) -> String {
        match &self.kind {
            EventKind::StatusChanged { payment, .. } => {
                format!("{}.{}.{}", self.variant, self.kind.type_name(), payment.status)
            }
            _ => format!("{}.{}", self.variant, self.kind.type_name()),
        }
    }

    /// Whether this is the answer of the command that caused it.
    pub fn is_final(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.is_final)
    }
}
