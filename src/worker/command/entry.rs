//! What a command's way begins with.

use tokio::time::Instant;
use uuid::Uuid;

use crate::payment::command::{Body, Command, CommandType, Kind};
use crate::payment::fact::proved_operations;
use crate::payment::operation::Operation;

/// What is begun: a command that came, or an operation that is due.
pub enum Entry {
    /// A message.
    Command {
        /// What it says.
        command: Box<Command>,
        /// Its operation: a hash, that is asked for again and again.
        id: Uuid,
        /// The broker delivered it before.
        redelivered: bool,
        /// It was made here, of one that was let in.
        is_own: bool,
        /// When it came.
        came: Instant,
    },
    /// An operation whose time has come.
    Due {
        /// Its payment.
        payment_id: Uuid,
        /// The operation.
        id: Uuid,
    },
}

impl Entry {
    /// A command that came.
    pub fn of(command: Box<Command>, redelivered: bool) -> Entry {
        Entry::Command { id: command.operation_id(), command, redelivered, is_own: false, came: Instant::now() }
    }

    /// A command that was made here, of one that was let in.
    pub fn own(command: Box<Command>) -> Entry {
        Entry::Command { id: command.operation_id(), command, redelivered: false, is_own: true, came: Instant::now() }
    }

    /// The payment it is for.
    pub fn payment_id(&self) -> Uuid {
        match self {
            Entry::Command { command, .. } => command.payment_id,
            Entry::Due { payment_id, .. } => *payment_id,
        }
    }

    /// Its operation.
    pub fn id(&self) -> Uuid {
        match self {
            Entry::Command { id, .. } | Entry::Due { id, .. } => *id,
        }
    }

    /// When it came, where it is a message.
    pub fn came(&self) -> Option<Instant> {
        match self {
            Entry::Command { came, .. } => Some(*came),
            Entry::Due { .. } => None,
        }
    }

    /// The operations that it proves something of.
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

    /// Whether it will call the gateway, as far as can be told before it is decided on.
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

    /// Whether it is a command that is stored already, as this operation.
    pub(crate) fn is_known(&self, known: Option<&Operation>) -> bool {
        let is_of = |command: &Command| known.is_some_and(|known| known.is_of(command));
        matches!(self, Entry::Command { command, .. } if is_of(command))
    }
}
