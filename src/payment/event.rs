//! Events: what is published to the bus, in the terms of the contract.

use jiff::Timestamp;
use strum::{EnumIter, IntoStaticStr};
use uuid::Uuid;

use super::code::{Code, Rejection};
use super::command::{Command, CommandName, Pause, Reply};
use super::model::{Metadata, Payment};
use super::money::Money;
use super::operation::{AnswerKind, Operation, State};
use super::outcome::GatewayResult;
use super::status::Status;
use super::trace::TraceContext;

/// One event, as decided. Its wire form is generated once, when it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// Stable: the same event always has the same id.
    pub id: Uuid,
    /// The payment; if the subject is not a UUID, the UUID derived from it.
    pub payment_id: Uuid,
    /// The variant, for the routing key.
    pub variant: String,
    /// Type and content.
    pub kind: EventKind,
    /// For counted `payment.*` events: the position within the payment, gapless, from 1.
    pub sequence: Option<i64>,
    /// The command that caused it.
    pub cause: Option<EventCause>,
    /// The payment's metadata, if the event does not contain the payment itself.
    pub metadata: Metadata,
    /// When it was decided, by PostgreSQL's clock.
    pub time: Timestamp,
}

/// The command that caused an event.
#[derive(Debug, Clone, PartialEq)]
pub struct EventCause {
    /// The subject as written in the command.
    pub subject: String,
    /// Source and id.
    pub name: CommandName,
    /// The command's type as written.
    pub kind: String,
    /// Whether this event is the final answer to the command.
    pub is_final: bool,
    /// Whether this event answers the message: the sender need not wait any longer.
    pub is_answer: bool,
    /// Copied from the command.
    pub correlation_id: Option<String>,
    /// The command's trace context.
    pub trace: Option<TraceContext>,
    /// An additional destination for the final answer.
    pub reply: Option<Reply>,
    /// The gateway operation if the command is a process, capture, release, refund or cancel.
    pub operation: Option<EventOperation>,
}

impl EventCause {
    /// The cause of an answer to a message that is not stored as an operation.
    pub fn of_command(command: &Command, is_final: bool) -> EventCause {
        let subject = command.subject.clone().filter(|subject| !subject.is_empty());
        let attributes = &command.attributes;
        EventCause {
            subject: subject.unwrap_or_else(|| command.payment_id.to_string()),
            name: command.name.clone(),
            kind: command.kind.as_str().to_owned(),
            is_final,
            is_answer: true,
            correlation_id: attributes.correlation_id.clone(),
            trace: attributes.trace.clone(),
            reply: attributes.reply.clone(),
            operation: None,
        }
    }
}

/// A gateway operation, as published next to the payment.
#[derive(Debug, Clone, PartialEq)]
pub struct EventOperation {
    /// Its id, which the gateway knows too.
    pub id: Uuid,
    /// Its progress.
    pub progress: Progress,
    /// The requested amount, if any.
    pub amount: Option<Money>,
    /// The gateway's reference for the money it moved.
    pub reference: Option<String>,
}

/// The progress of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Progress {
    /// It waits for its turn, is being sent, or will be retried.
    InProgress,
    /// The gateway accepted it; the result will follow.
    Pending,
    /// It is not yet known whether the gateway carried it out.
    Unknown,
    /// It was carried out.
    Succeeded,
    /// The gateway refused it, or retries were exhausted.
    Failed,
    /// It never reached a gateway.
    Rejected,
}

impl Progress {
    /// The progress of an operation in its current state.
    pub fn of(operation: &Operation) -> Progress {
        match (&operation.answer, operation.state) {
            (Some(answer), _) => answer.kind.into(),
            (None, State::Pending) => Progress::Pending,
            (None, State::Unknown) => Progress::Unknown,
            (None, State::Waiting | State::Calling | State::Scheduled | State::Settled) => Progress::InProgress,
        }
    }

    /// The word in events.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<AnswerKind> for Progress {
    fn from(answer: AnswerKind) -> Progress {
        match answer {
            AnswerKind::Succeeded => Progress::Succeeded,
            AnswerKind::Rejected => Progress::Rejected,
            AnswerKind::Failed => Progress::Failed,
        }
    }
}

/// The type and content of an event.
#[derive(Debug, Clone, PartialEq)]
pub enum EventKind {
    /// `payment.created`
    Created {
        /// The payment as stored.
        payment: Box<Payment>,
    },
    /// `payment.status_changed`
    StatusChanged {
        /// The payment as stored after the change.
        payment: Box<Payment>,
        /// The previous status.
        previous: Status,
        /// The reason, if there is one.
        why: Reason,
    },
    /// `payment.updated`
    Updated {
        /// The payment as stored after the change.
        payment: Box<Payment>,
        /// Names of the fields that changed.
        changed: Vec<&'static str>,
        /// The reason, if there is one.
        why: Reason,
    },
    /// `command.rejected`
    Rejected {
        /// The reason.
        code: Code,
        /// A message for people.
        message: String,
    },
    /// `command.failed`
    Failed {
        /// The reason.
        why: Reason,
        /// Number of calls made.
        attempts: u32,
    },
    /// `command.delayed`
    Delayed {
        /// The reason.
        reason: Code,
        /// A message for people.
        message: String,
        /// Time of the next retry or look-up, if known.
        next_attempt_at: Option<Timestamp>,
        /// Number of calls made so far.
        attempts: u32,
    },
    /// `command.succeeded`
    Succeeded {
        /// The payment as stored; `None` for a notification that named none.
        payment: Option<Box<Payment>>,
        /// Which events were published before it, for a `payment.resend`.
        resent: Option<Resent>,
    },
    /// `payment.snapshot`
    Snapshot {
        /// The payment as stored, after its last event.
        payment: Box<Payment>,
    },
    /// `command.succeeded` of an `events.resend`
    EventsResent(ResentPage),
    /// `command.succeeded` of a `variant.pause` or `variant.resume`: the variant's pause as stored, if it has one.
    PauseChanged(Option<Pause>),
}

/// A page of a variant's events, across payments, that were published again: part of an `events.resend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResentPage {
    /// The page starts after this position.
    pub after: i64,
    /// Every event kept up to this position was published.
    pub to: i64,
    /// Whether there may be more events after that.
    pub more: bool,
    /// Number of events published.
    pub events: usize,
    /// Number of events skipped because the broker refused them or an earlier event of their payment.
    pub set_aside: usize,
    /// Every event after this position is still kept; set only if it lies beyond `after`.
    pub kept_after: Option<i64>,
}

/// A range of positions and the number of a variant's events in it. No more events can appear in the range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heartbeat {
    /// The range starts after this position, at which the previous heartbeat ended.
    pub from: i64,
    /// The last position of the range.
    pub to: i64,
    /// Number of the variant's events in the range.
    pub events: i64,
    /// How many of them wait for a person because the broker refused them or an earlier event of their payment.
    pub set_aside: i64,
}

/// A payment's events that were published again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resent {
    /// Sequence number of the first.
    pub from: i64,
    /// Sequence number of the last.
    pub to: i64,
}

/// The reason for a change.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Reason {
    /// paybus's code.
    pub code: Option<Code>,
    /// A message for people.
    pub message: String,
    /// The gateway's own code.
    pub gateway_code: Option<String>,
    /// The requested and the actual amount, if they differ or exceed a limit.
    pub discrepancy: Option<Discrepancy>,
}

impl Reason {
    /// The reason that the gateway gives.
    pub fn of(result: &GatewayResult) -> Reason {
        Reason { message: result.message.clone(), gateway_code: result.code.clone(), ..Reason::default() }
    }
}

/// The gateway processed a different amount than requested.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Discrepancy {
    /// The requested amount, or the limit.
    pub asked: Money,
    /// The amount that the gateway reports.
    pub answered: Money,
}

/// The types of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
pub enum EventType {
    /// A payment was stored.
    #[strum(serialize = "payment.created")]
    Created,
    /// A payment's status changed.
    #[strum(serialize = "payment.status_changed")]
    StatusChanged,
    /// Amounts, fraud status or gateway data changed, but not the status.
    #[strum(serialize = "payment.updated")]
    Updated,
    /// A command never reached a gateway.
    #[strum(serialize = "command.rejected")]
    Rejected,
    /// The gateway refused, or retries were exhausted; the payment is unchanged.
    #[strum(serialize = "command.failed")]
    Failed,
    /// A retry is scheduled, an answer is awaited, or the outcome is unknown.
    #[strum(serialize = "command.delayed")]
    Delayed,
    /// The command was carried out; the payment did not change.
    #[strum(serialize = "command.succeeded")]
    Succeeded,
    /// The payment's current state, for the requester.
    #[strum(serialize = "payment.snapshot")]
    Snapshot,
    /// The number of recent events.
    #[strum(serialize = "paybus.heartbeat")]
    Heartbeat,
}

impl EventType {
    /// The CloudEvents type.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Whether it is counted in the payment's sequence.
    pub fn is_counted(self) -> bool {
        matches!(self, EventType::Created | EventType::StatusChanged | EventType::Updated)
    }
}

impl From<Rejection> for EventKind {
    fn from(Rejection { code, message }: Rejection) -> EventKind {
        EventKind::Rejected { code, message }
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
            EventKind::Succeeded { .. } | EventKind::EventsResent(_) | EventKind::PauseChanged(_) => {
                EventType::Succeeded
            }
            EventKind::Snapshot { .. } => EventType::Snapshot,
        }
    }

    /// Whether it contains the payment.
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
            | EventKind::EventsResent(_)
            | EventKind::PauseChanged(_) => false,
        }
    }

    /// The CloudEvents type.
    pub fn type_name(&self) -> &'static str {
        self.event_type().as_str()
    }
}

impl Event {
    /// The routing key: `<variant>.<type>`, followed by the new status for a status change.
    pub fn routing_key(&self) -> String {
        match &self.kind {
            EventKind::StatusChanged { payment, .. } => {
                format!("{}.{}.{}", self.variant, self.kind.type_name(), payment.status)
            }
            _ => format!("{}.{}", self.variant, self.kind.type_name()),
        }
    }

    /// Whether this is the final answer to the command that caused it.
    pub fn is_final(&self) -> bool {
        self.cause.as_ref().is_some_and(|cause| cause.is_final)
    }
}
