//! What an execution starts from.

use std::sync::Arc;

use tokio::time::Instant;
use uuid::Uuid;

use super::attempt::Purpose;
use super::in_progress::Turn;
use crate::payment::command::{Body, Command, CommandType, Kind};
use crate::payment::fact::proved_operations;
use crate::payment::operation::Operation;
use crate::telemetry::spans::Span;
use crate::worker::variant::Variant;

/// All that an execution starts with.
pub struct Execution {
    /// What is executed.
    pub entry: Entry,
    /// The variant, if it is configured.
    pub variant: Option<Arc<Variant>>,
    /// The turn in the payment's queue, for commands that arrived.
    pub turn: Option<Turn>,
    /// Why it is executed.
    pub purpose: Purpose,
    /// The span of the message, if it has one.
    pub span: Span,
}

/// What is executed: a command that arrived, or an operation that is due.
pub enum Entry {
    /// A command from a message.
    Command {
        /// The parsed command.
        command: Box<Command>,
        /// The id of its operation. Kept here because it is a hash and is needed often.
        id: Uuid,
        /// Whether the broker marked the message as redelivered.
        redelivered: bool,
        /// Whether this worker made the command itself, from one that was authorized.
        is_own: bool,
        /// When it arrived.
        came: Instant,
    },
    /// An operation that is due.
    Due {
        /// The id of its payment.
        payment_id: Uuid,
        /// The id of the operation.
        id: Uuid,
    },
}

impl Entry {
    /// An entry for a command that arrived.
    pub fn of(command: Box<Command>, redelivered: bool) -> Entry {
        Entry::Command { id: command.operation_id(), command, redelivered, is_own: false, came: Instant::now() }
    }

    /// An entry for a command that this worker made from one that was authorized.
    pub fn own(command: Box<Command>) -> Entry {
        Entry::Command { id: command.operation_id(), command, redelivered: false, is_own: true, came: Instant::now() }
    }

    /// The id of the payment.
    pub fn payment_id(&self) -> Uuid {
        match self {
            Entry::Command { command, .. } => command.payment_id,
            Entry::Due { payment_id, .. } => *payment_id,
        }
    }

    /// The id of the operation.
    pub fn id(&self) -> Uuid {
        match self {
            Entry::Command { id, .. } | Entry::Due { id, .. } => *id,
        }
    }

    /// When the command arrived; `None` for a due operation.
    pub fn came(&self) -> Option<Instant> {
        match self {
            Entry::Command { came, .. } => Some(*came),
            Entry::Due { .. } => None,
        }
    }

    /// The operations that a notification carries proof of. Empty for every other entry.
    pub(crate) fn proves(&self) -> Vec<Uuid> {
        match self {
            Entry::Command { command, .. } => match &command.content {
                Ok(Body::Notification(facts)) => proved_operations(facts),
                _ => Vec::new(),
            },
            Entry::Due { .. } => Vec::new(),
        }
    }

    pub(crate) fn is_surely_new(&self) -> bool {
        match self {
            Entry::Command { command, redelivered, .. } => {
                !redelivered && command.content.is_ok() && command.kind == Kind::Known(CommandType::Create)
            }
            Entry::Due { .. } => false,
        }
    }

    /// Whether it may call the gateway, as far as is known before the decision.
    pub fn may_call(&self) -> bool {
        match self {
            Entry::Command { command, .. } => match &command.content {
                Ok(Body::Create(new)) => new.process.is_some(),
                Ok(body) => !body.kind().is_inbound(),
                Err(_) => false,
            },
            Entry::Due { .. } => true,
        }
    }

    /// Whether it is a command that is already stored as this operation.
    pub(crate) fn is_known(&self, known: Option<&Operation>) -> bool {
        let is_of = |command: &Command| known.is_some_and(|known| known.is_of(command));
        matches!(self, Entry::Command { command, .. } if is_of(command))
    }
}
