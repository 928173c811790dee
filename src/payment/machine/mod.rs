//! The machine: takes a payment with its operations, and a command or an outcome, and decides what changes and which
//! events to emit. It is pure: the holder of an [`Aggregate`] commits what it collected, or discards it and reloads.
//!
//! - `accept`: a command arrives, or a waiting one takes its turn.
//! - `decide`: what each type of command requires, and what it starts.
//! - `attempt`: calls and retries.
//! - `takeover`: continues after a worker was lost.
//! - `settle`: applies the gateway's results to the payment.
//! - `ready`: confirms what the customer has approved.
//! - `book`: turns what the gateway did with money into movements.
//! - `contradiction`: approvals that the gateway's own money rules out.
//! - `look_up`: what a look-up or a person says about an unknown outcome.
//! - `undo`: undoes what nobody can look up.
//! - `steer`: what operators do with an operation that waits.
//! - `reconcile`: applies what the gateway says about the whole payment, for a `payment.sync`.
//! - `notify`: what a `payment.notification` makes us ask the gateway.
//! - `proof`: what a notification proves by itself, if the contract accepts it as proof.
//! - `resend`: emits events again, for consumers that missed them.
//! - `answer_again`: answers a command that was sent again.
//! - `emit`: answers and events.
//! - `aggregate`: what is stored, and what is to be stored.

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
mod steer;
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
use super::observation::Asked;
use super::operation::{Operation, State};
use super::status::Status;

/// Maximum number of commands that wait for one payment.
pub const WAITING_MAX: u32 = 100;

/// Number of takeovers at which an operation is parked for a person.
pub const TAKEOVERS_MAX: u32 = 5;

/// Number of takeovers in a row, with no answer in between, from which an operation needs its variant's exclusive slot.
pub const TAKEOVERS_ALONE: u32 = 2;

/// Delay after which a command that came before its payment first looks for it.
const FIRST_LOOK: Duration = Duration::from_millis(50);

/// When a waiting command is checked again if nothing woke it: a safety net, because every commit that ends a turn
/// wakes the next command.
const WAITING_RECHECK: SignedDuration = SignedDuration::from_secs(60);

/// What decisions depend on in a variant's configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The adapter's name.
    pub gateway: String,
    /// The account at the gateway.
    pub account: String,
    /// Other names of the same account.
    pub account_aliases: Vec<String>,
    /// The contract that the gateway declares.
    pub contract: Contract,
    /// Whether a process captures at once, unless its command says otherwise.
    pub capture: bool,
    /// Whether it takes no new payments.
    pub retired: bool,
    /// Consecutive calls before a delayed retry; at least 1.
    pub immediate_attempts: u32,
    /// The delays of the later retries.
    pub delayed: Vec<Duration>,
    /// Lease of one call: its timeout and a margin.
    pub lease: Duration,
    /// How long a command waits for its payment to be created.
    pub unknown_payment_grace: Duration,
}

/// The circumstances of a decision: everything it depends on besides the aggregate.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The time by PostgreSQL's clock.
    pub now: Timestamp,
    /// The worker process that will call the gateway.
    pub worker: Uuid,
    /// The variant's rules.
    pub rules: &'a Rules,
    /// For how long calls are paused, because the worker drains, an operator has paused the variant, or its breaker is
    /// open; `None` if they are not.
    pub paused_for: Option<Duration>,
    /// The same for calls that only ask, which an operator's pause does not stop.
    pub questions_paused_for: Option<Duration>,
    /// Whether PostgreSQL's clock and the gateway's agree closely enough for absence to prove something: see
    /// `gateway::clock`.
    pub clocks_agree: bool,
}

impl Context<'_> {
    /// Whether the gateway's clock and PostgreSQL's agree, and agreed when the gateway was asked.
    fn clocks_agree_since(self, asked: Asked) -> bool {
        self.clocks_agree && asked.clocks_agreed()
    }
}

/// What to do once the decision is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing: the operation is answered.
    Settled,
    /// Nothing for now: the operation waits, is scheduled, is pending or unknown.
    Stored,
    /// Call the gateway for the operation.
    Call(Uuid),
    /// Call again after the immediate delay; only the attempt is committed before.
    RetryNow(Uuid),
    /// Look up an outcome at the gateway.
    LookUp {
        /// The operation that asks.
        operation: Uuid,
        /// The one asked about; `None` for the whole payment.
        target: Option<Uuid>,
    },
    /// Have the gateway undo whatever became of the operation; it answers as to a look-up.
    Undo(Uuid),
    /// Ask the gateway which payments a notification's facts are about, and hand each fact to its payment.
    Locate(Uuid),
    /// Send the payment's events of this range again, and then answer the operation that asks for them.
    Resend {
        /// The operation.
        operation: Uuid,
        /// Sequence number of the first.
        from: i64,
        /// Sequence number of the last.
        to: i64,
    },
    /// The command is known: continue from the state of its operation.
    Known(Uuid),
}

/// How a row relates to the database.
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

/// How to write the payment's own row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PaymentWrite {
    /// There is no payment.
    Absent,
    /// The payment is new.
    Insert,
    /// Changes the payment if its version is still this one. Everything that belongs to an existing payment is written
    /// this way, so two writers can never both succeed on what they read.
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

fn count_up(count: &mut u32) {
    *count = count.saturating_add(1);
}

/// The time after `delay`, or the end of time if that is beyond it.
fn later(now: Timestamp, delay: Duration) -> Timestamp {
    SignedDuration::try_from(delay).ok().and_then(|delay| now.checked_add(delay).ok()).unwrap_or(Timestamp::MAX)
}
