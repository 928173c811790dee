//! Commands: what upstream services may request, validated and typed.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use strum::{Display, EnumIter, EnumString, IntoStaticStr, VariantNames};
use uuid::Uuid;

use super::code::{Code, Rejection};
use super::fact::Fact;
use super::json;
use super::model::Order;
use super::trace::TraceContext;

/// Maximum body of a command message, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;

/// Rejects a body of `size` bytes, which is more than [`BODY_MAX`].
pub fn body_too_large(size: u64) -> Rejection {
    Rejection::new(Code::TooLarge, format!("the body is {size} bytes; the limit is {BODY_MAX}"))
}

/// Maximum nesting depth of `data`, in levels.
pub const DEPTH_MAX: usize = 16;
/// Maximum number of commas and opening brackets in `data`, outside strings. This bounds the number of values, each of
/// which takes several times its written size in memory.
pub const VALUES_MAX: usize = 10_000;
/// Maximum length of `source`, `id`, type and extension attributes, in bytes.
pub const ATTRIBUTE_MAX: usize = 255;
/// Maximum length of `tracestate`, in bytes; W3C Trace Context.
pub const TRACESTATE_MAX: usize = 512;

/// A command's source and id. Together with the payment's id they identify an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandName {
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `id`.
    pub id: String,
}

impl CommandName {
    /// Returns the operation's id: UUIDv5 of the JSON array `[subject, source, id]`. Nothing else identifies a command.
    pub fn operation_id(&self, subject: &str) -> Uuid {
        let name = json::write(&(subject, &self.source, &self.id));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
pub enum CommandType {
    /// Stores a payment and, with `process`, also charges it.
    #[strum(serialize = "payment.create")]
    Create,
    /// Submits the payment to the gateway.
    #[strum(serialize = "payment.process")]
    Process,
    /// Captures authorized money.
    #[strum(serialize = "payment.capture")]
    Capture,
    /// Releases an authorization.
    #[strum(serialize = "payment.release")]
    Release,
    /// Refunds money.
    #[strum(serialize = "payment.refund")]
    Refund,
    /// Ends a payment before any money moved.
    #[strum(serialize = "payment.cancel")]
    Cancel,
    /// Looks the payment up at the gateway.
    #[strum(serialize = "payment.sync")]
    Sync,
    /// Carries a gateway's webhook.
    #[strum(serialize = "payment.notification")]
    Notification,
    /// An operator states the outcome of an operation.
    #[strum(serialize = "payment.resolve")]
    Resolve,
    /// An operator moves the next attempt of an operation, usually to now.
    #[strum(serialize = "payment.retry")]
    Retry,
    /// An operator ends an operation of which nothing was sent.
    #[strum(serialize = "payment.withdraw")]
    Withdraw,
    /// Publishes the payment's events again.
    #[strum(serialize = "payment.resend")]
    Resend,
    /// Publishes the payment's current state.
    #[strum(serialize = "payment.snapshot")]
    Snapshot,
    /// Publishes a variant's events again, across payments.
    #[strum(serialize = "events.resend")]
    ResendEvents,
    /// Reports the state of another command.
    #[strum(serialize = "command.status")]
    Status,
    /// An operator stops a variant's calls.
    #[strum(serialize = "variant.pause")]
    Pause,
    /// An operator lets a variant's calls continue.
    #[strum(serialize = "variant.resume")]
    Resume,
}

impl CommandType {
    /// The CloudEvents type.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses a CloudEvents type.
    pub fn from_word(word: &str) -> Option<CommandType> {
        word.parse().ok()
    }

    /// Whether it needs no turn and bypasses the breaker: it resolves or moves open operations, or only reads.
    pub fn is_inbound(self) -> bool {
        self.is_read_only() || self.is_of_operators() || matches!(self, CommandType::Sync | CommandType::Notification)
    }

    /// Whether only operators send it, in their own name: it says what happened to an operation, or what to do about it
    /// or about a variant.
    pub fn is_of_operators(self) -> bool {
        let is_about_operation = matches!(self, CommandType::Resolve | CommandType::Retry | CommandType::Withdraw);
        is_about_operation || self.is_about_variant()
    }

    /// Whether it changes a variant, and no payment.
    pub fn is_about_variant(self) -> bool {
        matches!(self, CommandType::Pause | CommandType::Resume)
    }

    /// Whether it only reads: it changes nothing and does not call the gateway.
    pub fn is_read_only(self) -> bool {
        matches!(self, CommandType::Resend | CommandType::Snapshot | CommandType::ResendEvents | CommandType::Status)
    }

    /// Whether the subject, that is the payment, may be omitted.
    pub fn may_lack_subject(self) -> bool {
        matches!(self, CommandType::Notification | CommandType::ResendEvents) || self.is_about_variant()
    }
}

/// A command's type as written, known or not: rejected commands are stored too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A type of the contract.
    Known(CommandType),
    /// Any other type.
    Unknown(String),
}

impl Kind {
    /// Parses a type as written.
    pub fn from_word(word: &str) -> Kind {
        CommandType::from_word(word).map_or_else(|| Kind::Unknown(word.to_owned()), Kind::Known)
    }

    /// The type as written.
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Known(kind) => kind.as_str(),
            Kind::Unknown(word) => word,
        }
    }

    /// SHA-256 of the type alone: the hash of a notification. The same fact sent again has different headers, another
    /// signature and another time.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.as_str().as_bytes()).into()
    }

    /// The type if it is one of the contract.
    pub fn known(&self) -> Option<CommandType> {
        match self {
            Kind::Known(kind) => Some(*kind),
            Kind::Unknown(_) => None,
        }
    }
}

/// What a command carries besides its data; stored with the operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// CloudEvents `correlationid`, copied to every event the command causes.
    pub correlation_id: Option<String>,
    /// The command's trace context.
    pub trace: Option<TraceContext>,
    /// CloudEvents `expirytime`: after it, nothing is sent for the first time.
    pub expires_at: Option<Timestamp>,
    /// An additional destination for the final answer.
    pub reply: Option<Reply>,
    /// The AMQP `user_id`, validated by the broker.
    pub user_id: Option<String>,
}

/// An additional destination for the final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The queue's name.
    pub to: String,
    /// The AMQP `correlation_id` to return.
    pub correlation_id: Option<String>,
}

/// A command that can be identified; its content was either understood or is rejected with a reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The payment's id; if the subject is not a UUID, a UUID derived from it.
    pub payment_id: Uuid,
    /// The subject as written if it is not a UUID; empty if it was omitted, which only some types allow.
    pub subject: Option<String>,
    /// Source and id.
    pub name: CommandName,
    /// Its type.
    pub kind: Kind,
    /// The variant in the routing key.
    pub variant: String,
    /// What is requested.
    pub content: Result<Body, Rejection>,
    /// The part of its data that is needed if it runs later.
    pub data: Map<String, Value>,
    /// SHA-256 of type and data.
    pub hash: [u8; 32],
    /// What it carries besides the data.
    pub attributes: Attributes,
}

impl Command {
    /// The id of its operation.
    pub fn operation_id(&self) -> Uuid {
        match &self.subject {
            Some(subject) => self.name.operation_id(subject),
            None => self.name.operation_id(&self.payment_id.to_string()),
        }
    }
}

/// What is requested, by type.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// `payment.create`
    Create(Box<NewPayment>),
    /// `payment.process`
    Process(Process),
    /// `payment.capture`
    Capture(Capture),
    /// `payment.release`
    Release,
    /// `payment.refund`
    Refund(Refund),
    /// `payment.cancel`
    Cancel,
    /// `payment.sync`
    Sync,
    /// `payment.notification`, verified; empty if it reports nothing about a payment.
    Notification(Vec<Fact>),
    /// `payment.resolve`
    Resolve(Box<Resolve>),
    /// `payment.retry`
    Retry(Retry),
    /// `payment.withdraw`, of this operation.
    Withdraw(Uuid),
    /// `payment.resend`, starting at this sequence number.
    Resend(i64),
    /// `payment.snapshot`
    Snapshot,
    /// `events.resend`
    ResendEvents(EventsWanted),
    /// `command.status`
    Status(CommandWanted),
    /// `variant.pause`
    Pause(Pause),
    /// `variant.resume`, for this reason
    Resume(String),
}

impl Body {
    /// The command's type.
    pub fn kind(&self) -> CommandType {
        match self {
            Body::Create(_) => CommandType::Create,
            Body::Process(_) => CommandType::Process,
            Body::Capture(_) => CommandType::Capture,
            Body::Release => CommandType::Release,
            Body::Refund(_) => CommandType::Refund,
            Body::Cancel => CommandType::Cancel,
            Body::Sync => CommandType::Sync,
            Body::Notification(_) => CommandType::Notification,
            Body::Resolve(_) => CommandType::Resolve,
            Body::Retry(_) => CommandType::Retry,
            Body::Withdraw(_) => CommandType::Withdraw,
            Body::Resend(_) => CommandType::Resend,
            Body::Snapshot => CommandType::Snapshot,
            Body::ResendEvents(_) => CommandType::ResendEvents,
            Body::Status(_) => CommandType::Status,
            Body::Pause(_) => CommandType::Pause,
            Body::Resume(_) => CommandType::Resume,
        }
    }
}

/// Where an `events.resend` starts: at the later of the two, or at the oldest event kept if neither is given.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventsWanted {
    /// After this position.
    pub after: Option<i64>,
    /// Stored at this time or later.
    pub since: Option<Timestamp>,
}

/// The command that a `command.status` inquires about; its payment is the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandWanted {
    /// Its CloudEvents `source`; `None` means that of the `command.status`.
    pub source: Option<String>,
    /// Its CloudEvents `id`.
    pub id: String,
}

/// An amount as received: it becomes money only once the payment's currency is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountText(pub String);

/// How to capture an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// The amount; `None` for everything that can be captured.
    pub amount: Option<AmountText>,
    /// Whether the rest of the authorization is released.
    pub is_final: bool,
}

/// How to refund money.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// The amount; `None` for everything that can still be refunded.
    pub amount: Option<AmountText>,
    /// The gateway's reference of the charge to refund; `None` for the payment's own.
    pub reference: Option<String>,
}

/// `payment.create`: what to collect, and whether to process it at once.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPayment {
    /// The payment's data.
    pub order: Order,
    /// Overrides the variant's `capture`, also for a later `payment.process` without one.
    pub capture: Option<bool>,
    /// If set, the command goes on as a `payment.process`.
    pub process: Option<Process>,
}

/// How to submit a payment to its gateway.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Process {
    /// The gateway-specific object.
    pub data: Map<String, Value>,
    /// Overrides the variant's `capture`.
    pub capture: Option<bool>,
}

/// An outcome stated by a person.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolve {
    /// The operation with the unknown outcome.
    pub operation: Uuid,
    /// What happened.
    pub outcome: Resolution,
    /// The amount if approved; `None` for the amount requested.
    pub amount: Option<AmountText>,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// How the person knows.
    pub evidence: String,
}

/// When to try an operation again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// The operation that waits for its next attempt or look-up.
    pub operation: Uuid,
    /// When; `None` for now.
    pub at: Option<Timestamp>,
}

/// How long to stop a variant's calls, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pause {
    /// When the pause ends by itself; `None` for only by a `variant.resume`.
    pub until: Option<Timestamp>,
    /// Why; shown wherever the pause is.
    pub reason: String,
}

impl Pause {
    /// Whether it has not ended by itself.
    pub fn lasts(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until > now)
    }

    /// The pause of this variant, for people.
    pub fn words(&self, variant: &str) -> String {
        format!("variant {variant} is {self}")
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(formatter, "paused until {until}: {}", self.reason),
            None => write!(formatter, "paused until an operator resumes it: {}", self.reason),
        }
    }
}

/// The outcomes that a person may state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumString, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Resolution {
    /// The gateway carried it out.
    Approved,
    /// The gateway declined it.
    Declined,
    /// The gateway never acted on it.
    NotCharged,
}
