//! Commands: what upstream services may ask for, checked and typed.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::code::Rejection;
use super::fact::Fact;
use super::json;
use super::model::Order;
use super::trace::TraceContext;

/// The largest body of a command's message, in bytes.
pub const BODY_MAX: usize = 1024 * 1024;

/// The deepest `data`, in levels.
pub const DEPTH_MAX: usize = 16;
/// The most commas and opening brackets in `data`, outside of its texts: a bound of its values, each of which takes a multiple
/// of what it is written in.
pub const VALUES_MAX: usize = 10_000;
/// The longest `source`, `id`, type and extension attribute, in bytes.
pub const ATTRIBUTE_MAX: usize = 255;
/// The longest `tracestate`, in bytes; W3C trace context.
pub const TRACESTATE_MAX: usize = 512;

/// The namespace-free name of an operation: with the payment's id, the command's source and id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CommandName {
    /// CloudEvents `source`.
    pub source: String,
    /// CloudEvents `id`.
    pub id: String,
}

impl CommandName {
    /// The operation's id: UUIDv5 of the JSON array `[subject, source, id]`. Subject, source and id name a command, and
    /// nothing else does.
    pub fn operation_id(&self, subject: &str) -> Uuid {
        let name = json::write(&(subject, &self.source, &self.id));
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }
}

/// What a command asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CommandType {
    /// Stores a payment, and with `process` goes on to charge it.
    Create,
    /// Hands the payment to the gateway.
    Process,
    /// Takes authorized money.
    Capture,
    /// Lets an authorization go.
    Release,
    /// Gives money back.
    Refund,
    /// Ends a payment before money moved.
    Cancel,
    /// Asks the gateway for the truth.
    Sync,
    /// A gateway's webhook.
    Notification,
    /// A person says what happened.
    Resolve,
    /// Sends events of the payment once more.
    Resend,
    /// Tells the payment as it is.
    Snapshot,
    /// Sends a variant's events once more, whatever payments they are of.
    ResendEvents,
    /// Tells how another command stands.
    Status,
}

impl CommandType {
    /// Every type.
    pub const ALL: [CommandType; 13] = [
        CommandType::Create,
        CommandType::Process,
        CommandType::Capture,
        CommandType::Release,
        CommandType::Refund,
        CommandType::Cancel,
        CommandType::Sync,
        CommandType::Notification,
        CommandType::Resolve,
        CommandType::Resend,
        CommandType::Snapshot,
        CommandType::ResendEvents,
        CommandType::Status,
    ];

    /// The CloudEvents type.
    pub fn as_str(self) -> &'static str {
        match self {
            CommandType::Create => "payment.create",
            CommandType::Process => "payment.process",
            CommandType::Capture => "payment.capture",
            CommandType::Release => "payment.release",
            CommandType::Refund => "payment.refund",
            CommandType::Cancel => "payment.cancel",
            CommandType::Sync => "payment.sync",
            CommandType::Notification => "payment.notification",
            CommandType::Resolve => "payment.resolve",
            CommandType::Resend => "payment.resend",
            CommandType::Snapshot => "payment.snapshot",
            CommandType::ResendEvents => "events.resend",
            CommandType::Status => "command.status",
        }
    }

    /// The type of a word.
    pub fn from_word(word: &str) -> Option<CommandType> {
        CommandType::ALL.into_iter().find(|kind| kind.as_str() == word)
    }

    /// Whether it never waits for its turn and no breaker pauses it: it carries the cure, or only tells.
    pub fn is_inbound(self) -> bool {
        self.only_tells() || matches!(self, CommandType::Sync | CommandType::Notification | CommandType::Resolve)
    }

    /// Whether it changes nothing and asks no gateway.
    pub fn only_tells(self) -> bool {
        matches!(self, CommandType::Resend | CommandType::Snapshot | CommandType::ResendEvents | CommandType::Status)
    }

    /// Whether it may do without a payment.
    pub fn may_lack_subject(self) -> bool {
        matches!(self, CommandType::Notification | CommandType::ResendEvents)
    }
}

impl fmt::Display for CommandType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// A command's type as it was written, known or not: a rejected command is stored too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// One of the contract.
    Known(CommandType),
    /// Another word.
    Unknown(String),
}

impl Kind {
    /// The kind of a word.
    pub fn from_word(word: &str) -> Kind {
        CommandType::from_word(word).map_or_else(|| Kind::Unknown(word.to_owned()), Kind::Known)
    }

    /// The word.
    pub fn as_str(&self) -> &str {
        match self {
            Kind::Known(kind) => kind.as_str(),
            Kind::Unknown(word) => word,
        }
    }

    /// SHA-256 of the word alone. It stands for a notification: the same fact told again comes with other headers, another
    /// signature, another time.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.as_str().as_bytes()).into()
    }

    /// The type, where it is one of the contract.
    pub fn known(&self) -> Option<CommandType> {
        match self {
            Kind::Known(kind) => Some(*kind),
            Kind::Unknown(_) => None,
        }
    }
}

/// What a command carries beside its data, stored with the operation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attributes {
    /// CloudEvents `correlationid`, copied to every event the command causes.
    pub correlation_id: Option<String>,
    /// Where in a trace it belongs.
    pub trace: Option<TraceContext>,
    /// CloudEvents `expirytime`: nothing is sent for the first time after it.
    pub expires_at: Option<Timestamp>,
    /// Where the final answer also goes.
    pub reply: Option<Reply>,
    /// The AMQP `user_id`, which the broker checked.
    pub user_id: Option<String>,
}

/// Where the final answer also goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// The queue.
    pub to: String,
    /// The AMQP `correlation_id` to send along.
    pub correlation_id: Option<String>,
}

/// A command that names itself; what it asks for was understood, or is rejected for a reason.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The payment it is for; where its subject is no UUID, a UUID made from the subject.
    pub payment_id: Uuid,
    /// The subject as written, where it is no UUID; empty where there is none, which its type must allow.
    pub subject: Option<String>,
    /// Source and id.
    pub name: CommandName,
    /// Its type.
    pub kind: Kind,
    /// The routing key's variant.
    pub variant: String,
    /// What is asked.
    pub content: Result<Body, Rejection>,
    /// What of its data a later turn needs.
    pub data: Map<String, Value>,
    /// SHA-256 of type and data.
    pub hash: [u8; 32],
    /// What came beside the data.
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

/// What is asked, by type.
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
    /// `payment.notification`, verified; without facts where it tells nothing of a payment.
    Notification(Vec<Fact>),
    /// `payment.resolve`
    Resolve(Box<Resolve>),
    /// `payment.resend`, from this event of the payment on.
    Resend(i64),
    /// `payment.snapshot`
    Snapshot,
    /// `events.resend`
    ResendEvents(EventsWanted),
    /// `command.status`
    Status(CommandWanted),
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
            Body::Resend(_) => CommandType::Resend,
            Body::Snapshot => CommandType::Snapshot,
            Body::ResendEvents(_) => CommandType::ResendEvents,
            Body::Status(_) => CommandType::Status,
        }
    }
}

/// From where on events are wanted once more; from the later of both, and without any from the oldest that is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EventsWanted {
    /// Behind this position.
    pub after: Option<i64>,
    /// Stored at this time or later.
    pub since: Option<Timestamp>,
}

/// The command that a `command.status` asks after; its payment is the subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandWanted {
    /// Its CloudEvents `source`; `None` for that of the `command.status`.
    pub source: Option<String>,
    /// Its CloudEvents `id`.
    pub id: String,
}

/// An amount as a message gave it: it becomes money only with the payment's currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AmountText(pub String);

/// How to capture an authorization.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Capture {
    /// How much; `None` for all that can be captured.
    pub amount: Option<AmountText>,
    /// Whether the rest of the authorization is let go.
    pub is_final: bool,
}

/// How to give money back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refund {
    /// How much; `None` for all that can still be refunded.
    pub amount: Option<AmountText>,
    /// The gateway's reference of the charge to take it from; `None` for the payment's own.
    pub reference: Option<String>,
}

/// `payment.create`: what to collect, and whether to go on at once.
#[derive(Debug, Clone, PartialEq)]
pub struct NewPayment {
    /// The payment.
    pub order: Order,
    /// Overrides the variant's `capture`, also for a later `payment.process` that does not say.
    pub capture: Option<bool>,
    /// With it, the command goes on as `payment.process`.
    pub process: Option<Process>,
}

/// How to hand a payment to its gateway.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Process {
    /// The gateway's own object.
    pub data: Map<String, Value>,
    /// Overrides the variant's `capture`.
    pub capture: Option<bool>,
}

/// What a person says happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolve {
    /// The operation with the unknown outcome.
    pub operation: Uuid,
    /// What happened.
    pub outcome: Resolution,
    /// How much, where it was approved; else what was asked.
    pub amount: Option<AmountText>,
    /// The payment's id at the gateway.
    pub transaction_id: Option<String>,
    /// How the person knows.
    pub evidence: String,
}

/// What a person may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resolution {
    /// The gateway did it.
    Approved,
    /// The gateway declined it.
    Declined,
    /// The gateway never acted on it.
    NotCharged,
}

impl Resolution {
    /// The words of all.
    pub const WORDS: [&str; 3] = ["approved", "declined", "not_charged"];

    /// What a word says.
    pub fn from_word(word: &str) -> Option<Resolution> {
        match word {
            "approved" => Some(Resolution::Approved),
            "declined" => Some(Resolution::Declined),
            "not_charged" => Some(Resolution::NotCharged),
            _ => None,
        }
    }
}
