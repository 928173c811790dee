//! Operations: commands as stored, with their attempts, outcome and retry state.

use jiff::Timestamp;
use serde_json::{Map, Value};
use strum::{Display, EnumIter, EnumString, IntoStaticStr};
use uuid::Uuid;

use super::action::Action;
use super::code::{Code, Rejection};
use super::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use super::money::Money;
use super::outcome::{Exposure, GatewayKey};

/// The state of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Display, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Waits for its turn, or for its payment to be created.
    Waiting,
    /// A worker is calling the gateway for it, at most until its lease expires.
    Calling,
    /// A retry is due later; every attempt so far is proved not received.
    Scheduled,
    /// An attempt may have been received: it is retried under the same key, looked up, or left to a person.
    Unknown,
    /// The gateway accepted it; the result is awaited.
    Pending,
    /// It has its final answer.
    Settled,
}

impl State {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the word in the database.
    pub fn from_word(word: &str) -> Option<State> {
        word.parse().ok()
    }

    /// Whether the table below allows the transition to `to`. An open operation may also stay as it is, which gives it
    /// another lease or due time.
    pub fn may_become(self, to: State) -> bool {
        let stays = self == to && self != State::Settled;
        stays || TRANSITIONS.iter().any(|(from, targets)| *from == self && targets.contains(&to))
    }
}

use State::{Calling, Pending, Scheduled, Settled, Unknown, Waiting};

/// All allowed transitions; `docs/states.md` has the picture.
const TRANSITIONS: &[(State, &[State])] = &[
    // Its turn: it is called, or scheduled while calls are paused; or it is answered without its gateway.
    (Waiting, &[Calling, Scheduled, Settled]),
    // PostgreSQL lost the commit that began the call, in a failover, and the gateway's answer comes all the same.
    (Waiting, &[Unknown, Pending]),
    // What the call, or the question, brought.
    (Calling, &[Settled, Pending, Scheduled, Unknown]),
    // It is due; or it ends without another attempt.
    (Scheduled, &[Calling, Settled]),
    // A late answer to an earlier attempt, or a proof from the gateway, comes before it is due.
    (Scheduled, &[Pending, Unknown]),
    // The same request again; the outcome; or a new key, because nothing was charged under this one.
    (Unknown, &[Calling, Settled, Pending, Scheduled]),
    // The result; an answer that contradicts the payment's money; or the customer's approval, to be confirmed.
    (Pending, &[Settled, Unknown, Scheduled]),
];

/// How a command was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum AnswerKind {
    /// Carried out.
    Succeeded,
    /// Never reached a gateway.
    Rejected,
    /// The gateway refused, or retries were exhausted.
    Failed,
}

impl AnswerKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the word in the database.
    pub fn from_word(word: &str) -> Option<AnswerKind> {
        word.parse().ok()
    }
}

/// A command's final answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// How it ended.
    pub kind: AnswerKind,
    /// The reason, if it did not succeed.
    pub code: Option<Code>,
    /// A message for people.
    pub message: String,
}

/// What is sent to the gateway: fixed when the operation begins, and byte for byte the same on every attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The requested amount, if any.
    pub amount: Option<Money>,
    /// Whether a process captures at once.
    pub capture: bool,
    /// The body as written by the adapter.
    pub body: String,
}

/// The right to call the gateway, held by one worker until a time by PostgreSQL's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// The worker process.
    pub owner: Uuid,
    /// When another worker may take over.
    pub until: Timestamp,
}

/// What was done for an operation so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Number of gateway calls.
    pub attempts: u32,
    /// Number of delayed retries.
    pub rounds: u32,
    /// Number of look-ups.
    pub lookups: u32,
    /// How often another worker took it over.
    pub takeovers: u32,
}

/// What the gateway may have received of an operation, and under which key. Only the machine changes it, and only the
/// store restores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// Generation of the gateway key. Only a proof raises it.
    pub(crate) generation: u32,
    /// How far the attempts under the key may have got.
    pub(crate) exposure: Exposure,
    /// The gateway has said that it acted on this or will, but not yet with a result that could be applied. No later
    /// answer takes that back: "not found" proves nothing from then on.
    pub(crate) acted_on: bool,
    /// Nothing more is sent under the key, because retries are exhausted or the key can never succeed. Only look-ups
    /// follow.
    pub lookup_only: bool,
    /// When the key was first used.
    pub first_at: Option<Timestamp>,
    /// When something was last sent.
    pub last_at: Option<Timestamp>,
}

impl Sent {
    /// Nothing was sent yet.
    pub(crate) const NOTHING: Sent = Sent {
        generation: 0,
        exposure: Exposure::Clean,
        acted_on: false,
        lookup_only: false,
        first_at: None,
        last_at: None,
    };

    /// Whether an attempt may have been received.
    pub fn is_exposed(&self) -> bool {
        self.exposure == Exposure::Exposed
    }

    /// Notes that something may be sent until then: no look-up proves anything before the settle window that starts
    /// there.
    pub(super) fn note_until(&mut self, until: Timestamp) {
        self.last_at = Some(self.last_at.map_or(until, |before| before.max(until)));
    }

    /// Notes that the gateway acted on it, or will.
    pub(super) fn note_acted_on(&mut self) {
        self.exposure = Exposure::Exposed;
        self.acted_on = true;
    }

    /// Starts over under another key, under which nothing was sent yet.
    pub(super) fn start_over(&mut self, key: GatewayKey) {
        let (first_at, last_at) = (self.first_at, self.last_at);
        *self = Sent { generation: key.generation(), first_at, last_at, ..Sent::NOTHING };
    }
}

/// A command as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Operation {
    /// The payment.
    pub payment_id: Uuid,
    /// UUIDv5 of the command's name.
    pub id: Uuid,
    /// The command's subject as written, if it is not a UUID.
    pub subject: Option<String>,
    /// The command's source and id (its subject is the payment).
    pub name: CommandName,
    /// The command's type.
    pub kind: Kind,
    /// The variant in the routing key.
    pub variant: String,
    /// SHA-256 of type and data: the same name with another hash is rejected.
    pub hash: [u8; 32],
    /// The part of the command's data that is needed if it runs later; empty if none is.
    pub data: Map<String, Value>,
    /// What the command carries besides its data.
    pub attributes: Attributes,
    /// The current state.
    pub state: State,
    /// Order of acceptance, assigned by the database.
    pub accepted: i64,
    /// When it was stored.
    pub created: Timestamp,
    /// What was done for it so far.
    pub counts: Counts,
    /// What the gateway may have received of it.
    pub sent: Sent,
    /// The lease of the worker that calls the gateway.
    pub lease: Option<Lease>,
    /// When it is due for a retry, look-up or takeover.
    pub due_at: Option<Timestamp>,
    /// Whether it was already reported that a person must act.
    pub escalated: bool,
    /// The request to the gateway.
    pub request: Option<Request>,
    /// Code of the last error.
    pub last_code: Option<Code>,
    /// Message of the last error, for people.
    pub last_message: String,
    /// The final answer.
    pub answer: Option<Answer>,
}

impl Operation {
    /// Makes an operation of a command that was just accepted; also returns what the command requests.
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
            counts: Counts::default(),
            sent: Sent::NOTHING,
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

    /// The gateway action, if it has one.
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
            | CommandType::Retry
            | CommandType::Withdraw
            | CommandType::Resend
            | CommandType::Snapshot
            | CommandType::ResendEvents
            | CommandType::Status
            | CommandType::Pause
            | CommandType::Resume => None,
        }
    }

    /// Whether a command with this name is the one that the operation was made from.
    pub fn is_of(&self, command: &Command) -> bool {
        self.hash == command.hash && self.kind == command.kind
    }

    /// The values of all keys under which it may have been sent to the gateway, the current one last. The gateway's own
    /// desk finds requests by them.
    pub fn keys_sent(&self) -> Vec<Uuid> {
        let is_sent = self.action().is_some() && self.counts.attempts > 0;
        let generations = 0..=self.sent.generation;
        generations.filter(|_| is_sent).map(|generation| GatewayKey::stored(self.id, generation).value()).collect()
    }

    /// The current gateway key.
    pub fn key(&self) -> GatewayKey {
        GatewayKey::stored(self.id, self.sent.generation)
    }

    /// The requested amount, if already fixed.
    pub fn amount(&self) -> Option<Money> {
        self.request.as_ref().and_then(|request| request.amount)
    }

    /// Whether the gateway may still act on it, or may have acted without our knowing: it is calling, pending or
    /// unknown.
    pub fn is_at_gateway(&self) -> bool {
        matches!(self.state, State::Calling | State::Unknown | State::Pending)
    }

    /// Moves it to another state, or leaves it in the same. Every change of the state goes through here.
    pub(super) fn move_to(&mut self, to: State) {
        debug_assert!(self.state.may_become(to), "operation {} moves from {} to {to}", self.id, self.state);
        self.state = to;
    }

    /// Whether it still has to be answered.
    pub fn is_open(&self) -> bool {
        self.state != State::Settled
    }
}
