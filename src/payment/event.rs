//! Events: what is told to the bus, in the words of the contract.

use jiff::Timestamp;
use uuid::Uuid;

use super::code::Code;
use super::command::{CommandName, Reply};
use super::model::{Metadata, Payment};
use super::money::Money;
use super::operation::{AnswerKind, Operation, State};
use super::outcome::GatewayResult;
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
    /// The payment's metadata, where the event does not hold the payment itself.
    pub metadata: Metadata,
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
    /// Whether this event settles the command of this name, for good.
    pub is_final: bool,
    /// Whether this event answers the message that was sent: who waits for an answer to it need wait no longer.
    pub is_answer: bool,
    /// Copied from the command.
    pub correlation_id: Option<String>,
    /// Where in a trace the command belongs.
    pub trace: Option<TraceContext>,
    /// Where a final answer also goes.
    pub reply: Option<Reply>,
    /// The process, capture, release, refund or cancel that the command is.
    pub operation: Option<EventOperation>,
}

/// An operation at the gateway, as it is told beside the payment.
#[derive(Debug, Clone, PartialEq)]
pub struct EventOperation {
    /// Its id, which the gateway knows too.
    pub id: Uuid,
    /// How far it is.
    pub progress: Progress,
    /// The sum that was asked for, where there is one.
    pub amount: Option<Money>,
    /// The gateway's own reference of the money that it moved.
    pub reference: Option<String>,
}

/// How far an operation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It waits for its turn, is being sent, or is tried again later.
    InProgress,
    /// The gateway accepted it; its result comes later.
    Pending,
    /// Nobody knows yet whether the gateway carried it out.
    Unknown,
    /// Answered for good.
    Ended(AnswerKind),
}

impl Progress {
    /// Every one.
    pub const ALL: [Progress; 6] = [
        Progress::InProgress,
        Progress::Pending,
        Progress::Unknown,
        Progress::Ended(AnswerKind::Succeeded),
        Progress::Ended(AnswerKind::Failed),
        Progress::Ended(AnswerKind::Rejected),
    ];

    /// Of an operation as it stands.
    pub fn of(operation: &Operation) -> Progress {
        match (&operation.answer, operation.state) {
            (Some(answer), _) => Progress::Ended(answer.kind),
            (None, State::Pending) => Progress::Pending,
            (None, State::Unknown) => Progress::Unknown,
            (None, State::Waiting | State::Calling | State::Scheduled | State::Settled) => Progress::InProgress,
        }
    }

    /// The word in events.
    pub fn as_str(self) -> &'static str {
        match self {
            Progress::InProgress => "in_progress",
            Progress::Pending => "pending",
            Progress::Unknown => "unknown",
            Progress::Ended(answer) => answer.as_str(),
        }
    }
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
        why: Reason,
    },
    /// `payment.updated`
    Updated {
        /// As stored after the change.
        payment: Box<Payment>,
        /// The names of the fields that differ.
        changed: Vec<&'static str>,
        /// Why, where there is a reason.
        why: Reason,
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
        why: Reason,
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
    /// `command.succeeded` of an `events.resend`
    EventsResent(ResentPage),
}

/// Events of a variant that went out once more, of whichever payments: a part of what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResentPage {
    /// Behind which position they are.
    pub after: i64,
    /// Up to which position all were sent that are kept.
    pub to: i64,
    /// Whether there may be more behind that.
    pub more: bool,
    /// How many were sent.
    pub events: usize,
    /// How many were not, for the broker has refused them, or an earlier one of their payment.
    pub set_aside: usize,
    /// Behind which position all are kept, where that is beyond `after`.
    pub kept_after: Option<i64>,
}

/// A stretch of positions, and how many of a variant's events are there. No other will ever be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// Behind which position it begins: where the one before ended.
    pub from: i64,
    /// The last position.
    pub to: i64,
    /// How many events of the variant there are.
    pub events: i64,
    /// How many of them wait for a person, for the broker has refused them, or an earlier one of their payment.
    pub set_aside: i64,
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
pub struct Reason {
    /// Our code.
    pub code: Option<Code>,
    /// For a person.
    pub message: String,
    /// The gateway's own code.
    pub gateway_code: Option<String>,
    /// What was asked and what the gateway did, where they differ or go beyond a limit.
    pub discrepancy: Option<Discrepancy>,
}

impl Reason {
    /// What the gateway says of it.
    pub fn of(result: &GatewayResult) -> Reason {
        Reason { message: result.message.clone(), gateway_code: result.code.clone(), ..Reason::default() }
    }
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
    /// How many events there were lately.
    Heartbeat,
}

impl EventType {
    /// Every type.
    pub const ALL: [EventType; 9] = [
        EventType::Created,
        EventType::StatusChanged,
        EventType::Updated,
        EventType::Rejected,
        EventType::Failed,
        EventType::Delayed,
        EventType::Succeeded,
        EventType::Snapshot,
        EventType::Heartbeat,
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
            EventType::Heartbeat => "paybus.heartbeat",
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
            EventKind::Succeeded { .. } | EventKind::EventsResent(_) => EventType::Succeeded,
            EventKind::Snapshot { .. } => EventType::Snapshot,
        }
    }

    /// Whether it holds the payment.
    pub fn has_payment(&self) -> bool {
        match self {
            EventKind::Created { .. }
            | EventKind::StatusChanged { .. }
            | EventKind::Updated { .. }
            | EventKind::Snapshot { .. } => true,
            EventKind::Succeeded { payment, .. } => payment.is_some(),
            EventKind::Rejected { .. }
            | EventKind::Failed { .. }
            | EventKind::Delayed { .. }
            | EventKind::EventsResent(_) => false,
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
