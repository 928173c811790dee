//! The machine: it takes a payment with its operations and a command or an outcome, and decides what changes and what is
//! told. It is pure; whoever holds an [`Aggregate`] commits what it collected, or throws it away and loads it anew.
//!
//! - `accept`: a command arrives, or a waiting one takes its turn.
//! - `decide`: what each type of command needs and begins.
//! - `attempt`: calls and retries.
//! - `takeover`: what is done where a worker was lost.
//! - `settle`: what an answer of the gateway does to the payment.
//! - `ready`: what is confirmed because the customer has approved it.
//! - `book`: what the gateway did with money becomes movements.
//! - `contradiction`: what it approves although its own money rules it out.
//! - `truth`: what a look-up or a person says of an unknown outcome.
//! - `undo`: what is undone because nobody can say it.
//! - `reconcile`: what a `payment.sync` makes of the gateway's word on the whole payment.
//! - `notify`: what a `payment.notification` makes the gateway be asked.
//! - `proof`: what one proves by itself, at a gateway whose word is taken.
//! - `catch_up`: what is told once more to who missed it.
//! - `tell`: answers and events.
//! - `rows`: what is stored, and what is to be stored.

mod accept;
mod aggregate;
mod answer_again;
mod attempt;
mod book;
mod contradiction;
mod decide;
mod emit;
mod look_up;
mod notify;
mod proof;
mod ready;
mod reconcile;
mod resend;
mod settle;
mod takeover;
mod undo;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use super::contract::Contract;
use super::event::Event;
use super::model::Payment;
use super::movement::Movement;
use super::operation::{Operation, State};
use super::status::Status;

/// How many commands may wait for one payment.
pub const WAITING_MAX: u32 = 100;

/// How many takeovers an operation survives before it is parked for a person.
pub const TAKEOVERS_MAX: u32 = 5;

/// How many takeovers in a row, with no answer in between, let an operation run beside no other such one of its variant.
pub const TAKEOVERS_ALONE: u32 = 2;

/// When a command that came before its payment looks for it for the first time.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// When a waiting command is looked at again although nothing woke it; a safety net, for a wake-up is part of every
/// commit that ends a turn.
const WAITING_RECHECK: SignedDuration = SignedDuration::from_secs(60);

/// What the machine has to know of a variant.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The adapter's name.
    pub gateway: String,
    /// The account at the gateway.
    pub account: String,
    /// Other names of the same account.
    pub account_aliases: Vec<String>,
    /// What the gateway declares.
    pub contract: Contract,
    /// Whether a process captures at once unless its command says otherwise.
    pub capture: bool,
    /// Takes no new payments.
    pub retired: bool,
    /// Calls in a row before a delayed retry, at least 1.
    pub immediate_attempts: u32,
    /// The delays of the later retries.
    pub delayed: Vec<Duration>,
    /// How long one call is leased: its time-out and a margin.
    pub lease: Duration,
    /// How long a command waits for its payment to be created.
    pub unknown_payment_grace: Duration,
}

/// The circumstances of a decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// PostgreSQL's clock.
    pub now: Timestamp,
    /// The worker process that will call the gateway.
    pub worker: Uuid,
    /// The variant's rules.
    pub rules: &'a Rules,
    /// Calls are held back for this long: the worker drains, or the variant's breaker is open.
    pub hold: Option<Duration>,
    /// Whether PostgreSQL's clock and the gateway's agree as far as absence must be judged by both: see `worker::clocks`.
    pub clocks_agree: bool,
}

/// What is to be done once the decision is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: it is answered.
    Settled,
    /// Nothing for now: it waits, is scheduled, is pending or unknown.
    Stored,
    /// Call the gateway for the operation.
    Call(Uuid),
    /// Call again at once, after the immediate delay; nothing is committed but the attempt.
    RetryNow(Uuid),
    /// Ask the gateway for the truth.
    LookUp {
        /// The operation that asks.
        operation: Uuid,
        /// The one asked about; nothing for the whole payment.
        target: Option<Uuid>,
    },
    /// Have the gateway undo whatever became of the operation; its answer is that of a look-up.
    Undo(Uuid),
    /// Ask the gateway which payments the facts of a notification are about, and hand each to its payment.
    Locate(Uuid),
    /// Send the payment's events of these numbers once more, and then answer the operation that asks for them.
    Resend {
        /// The operation.
        operation: Uuid,
        /// The number of the first.
        from: i64,
        /// The number of the last.
        to: i64,
    },
    /// The command is known: go on from where its operation stands.
    Known(Uuid),
}

/// How a row stands to the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stored {
    New,
    Changed,
    Same,
}

#[derive(Debug, Clone)]
struct Tracked<T> {
    row: T,
    stored: Stored,
}

/// How the payment's own row is to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentWrite {
    /// There is no payment.
    Absent,
    /// It is new.
    Insert,
    /// It is changed if its version is still this one. Everything that belongs to an existing payment is written so:
    /// two writers can never both succeed on what they read.
    Update {
        /// The version that was read.
        expected: i64,
    },
}

/// A payment with its open operations and movements, and what was decided but not yet committed.
#[derive(Debug, Clone)]
pub struct Aggregate {
    payment_id: Uuid,
    payment: Option<Payment>,
    version_read: Option<i64>,
    operations: Vec<Tracked<Operation>>,
    states_read: HashMap<Uuid, State>,
    movements: Vec<Tracked<Movement>>,
    events: Vec<Event>,
    changed: Vec<&'static str>,
    status_before: Option<Status>,
}

/// A time so much later; the end of time where that is beyond it.
fn later(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}
