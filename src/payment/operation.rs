//! Operations: commands as stored, with their attempts, their outcome and their place in retrying.

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::action::Action;
use super::code::{Code, Rejection};
use super::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use super::money::Money;
use super::outcome::{Exposure, GatewayKey};

/// Where an operation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// Waits for its turn, or for its payment to be created.
    Waiting,
    /// A worker is calling the gateway for it, until its lease ends.
    Calling,
    /// A retry is due later; every attempt so far is proved not received.
    Scheduled,
    /// An attempt may have been received: it is sent again under its key, looked up, or left to a person.
    Unknown,
    /// The gateway accepted it; its result is awaited.
    Pending,
    /// Answered for good.
    Settled,
}

impl State {
    /// Every state.
    pub const ALL: [State; 6] =
        [State::Waiting, State::Calling, State::Scheduled, State::Unknown, State::Pending, State::Settled];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Calling => "calling",
            State::Scheduled => "scheduled",
            State::Unknown => "unknown",
            State::Pending => "pending",
            State::Settled => "settled",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<State> {
        State::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// How a command was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnswerKind {
    /// Done.
    Succeeded,
    /// Never reached a gateway.
    Rejected,
    /// The gateway refused, or retrying was given up.
    Failed,
}

impl AnswerKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            AnswerKind::Succeeded => "succeeded",
            AnswerKind::Rejected => "rejected",
            AnswerKind::Failed => "failed",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<AnswerKind> {
        [AnswerKind::Succeeded, AnswerKind::Rejected, AnswerKind::Failed].into_iter().find(|kind| kind.as_str() == word)
    }
}

/// A command's answer, given once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub kind: AnswerKind,
    /// Why, where it did not succeed.
    pub code: Option<Code>,
    /// For a person.
    pub message: String,
}

/// What is sent to the gateway: fixed when the operation begins, and the same byte for byte on every try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The sum asked for, where there is one.
    pub amount: Option<Money>,
    /// Whether a process captures at once.
    pub capture: bool,
    /// The body as the adapter wrote it.
    pub body: String,
}

/// Who is calling the gateway, and until when by PostgreSQL's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The worker process.
    pub owner: Uuid,
    /// When another may take over.
    pub until: Timestamp,
}

/// A command as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The payment.
    pub payment_id: Uuid,
    /// UUIDv5 of the command's name.
    pub id: Uuid,
    /// The command's subject as written, where it is no UUID.
    pub subject: Option<String>,
    /// The command's name: source and id (its subject is the payment).
    pub name: CommandName,
    /// What was asked.
    pub kind: Kind,
    /// The routing key's variant.
    pub variant: String,
    /// Of type and data: the same name with another hash is refused.
    pub hash: [u8; 32],
    /// What a later turn needs of the command's data; empty where nothing does.
    pub data: Map<String, Value>,
    /// What came beside the data.
    pub attributes: Attributes,
    /// Where it stands.
    pub state: State,
    /// Order of acceptance; given by the database.
    pub accepted: i64,
    /// When it was stored.
    pub created: Timestamp,
    /// Calls to the gateway so far.
    pub attempts: u32,
    /// Delayed retries used so far.
    pub rounds: u32,
    /// Look-ups so far.
    pub lookups: u32,
    /// How often another worker had to take it over.
    pub takeovers: u32,
    /// The generation of its gateway key. Raised by the machine with a proof, and restored by the store; no one else.
    pub(crate) generation: u32,
    /// How far its attempts may have reached. Of the machine and the store, as the generation.
    pub(crate) exposure: Exposure,
    /// The gateway has said that it acted on it, or will, though not yet what could be applied. Nothing else that it says
    /// or fails to say later takes that back: not to find it proves nothing.
    pub(crate) acted_on: bool,
    /// Nothing more is sent under its key: retrying is over, or the key can never succeed. Only look-ups follow.
    pub lookup_only: bool,
    /// When its key was first used.
    pub first_sent_at: Option<Timestamp>,
    /// When it was last sent.
    pub last_sent_at: Option<Timestamp>,
    /// Who is calling.
    pub lease: Option<Lease>,
    /// When it is looked at again.
    pub due_at: Option<Timestamp>,
    /// Whether it was told that a person must act.
    pub escalated: bool,
    /// What is sent.
    pub request: Option<Request>,
    /// The last trouble, for a person.
    pub last_code: Option<Code>,
    /// The last trouble's message.
    pub last_message: String,
    /// Its answer.
    pub answer: Option<Answer>,
}

impl Operation {
    /// A command that was just accepted, as the operation of this id, and what it asks for.
    pub fn accept(command: Command, id: Uuid, now: Timestamp) -> (Operation, Result<Body, Rejection>) {
        let operation = Operation {
            id,
            payment_id: command.payment_id,
            subject: command.subject,
            name: command.name,
            kind: command.kind,
            variant: command.variant,
            hash: command.hash,
            data: command.data,
            attributes: command.attributes,
            state: State::Waiting,
            accepted: 0,
            created: now,
            attempts: 0,
            rounds: 0,
            lookups: 0,
            takeovers: 0,
            generation: 0,
            exposure: Exposure::Clean,
            acted_on: false,
            lookup_only: false,
            first_sent_at: None,
            last_sent_at: None,
            lease: None,
            due_at: None,
            escalated: false,
            request: None,
            last_code: None,
            last_message: String::new(),
            answer: None,
        };
        (operation, command.content)
    }

    /// What it makes the gateway do, where it makes it do something.
    pub fn action(&self) -> Option<Action> {
        match self.kind.known()? {
            CommandType::Create | CommandType::Process => Some(Action::Process),
            CommandType::Capture => Some(Action::Capture),
            CommandType::Release => Some(Action::Release),
            CommandType::Refund => Some(Action::Refund),
            CommandType::Cancel => Some(Action::Cancel),
            CommandType::Sync
            | CommandType::Notification
            | CommandType::Resolve
            | CommandType::Resend
            | CommandType::Snapshot
            | CommandType::ResendEvents
            | CommandType::Status => None,
        }
    }

    /// Whether a command under this name is the one it was made from.
    pub fn is_of(&self, command: &Command) -> bool {
        self.hash == command.hash && self.kind == command.kind
    }

    /// The gateway key in force.
    pub fn key(&self) -> GatewayKey {
        GatewayKey::stored(self.id, self.generation)
    }

    /// The sum asked for, where it was fixed.
    pub fn amount(&self) -> Option<Money> {
        self.request.as_ref().and_then(|request| request.amount)
    }

    /// Whether the gateway may still act on it, or has acted and we do not know: it is being called, pending or unknown.
    pub fn is_at_gateway(&self) -> bool {
        matches!(self.state, State::Calling | State::Unknown | State::Pending)
    }

    /// Whether it still has to be answered.
    pub fn is_open(&self) -> bool {
        self.state != State::Settled
    }
}
