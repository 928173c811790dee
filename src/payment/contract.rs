//! What a gateway declares of itself, from which the engine derives whether to send again, look up, undo or wait.

use std::time::Duration;

use serde::Deserialize;

use super::action::Action;

/// A gateway's idempotency contract and capabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// What it promises of an idempotency key, for each action.
    pub keys: PerAction<Keys>,
    /// Whether and how an operation is found by our own reference.
    pub lookup: Lookup,
    /// How long after a send a look-up may still miss it.
    pub settle_window: Duration,
    /// How many captures one authorization takes.
    pub captures: Captures,
    /// What a verified notification is worth.
    pub notifications: NotificationRole,
    /// Whether it undoes a process by our own reference and says what it found.
    pub undo: bool,
}

impl Contract {
    /// Whether a lost process is undone: the gateway can be told to, and cannot be asked.
    pub fn undoes(&self) -> bool {
        self.undo && self.lookup == Lookup::None
    }
}

/// What a verified notification is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationRole {
    /// It says where to look: the gateway is asked.
    Hint,
    /// What it says of money is applied as an answer is. Where the gateway cannot be asked, an operation waits for it.
    Proof {
        /// For how long from the last send; then a person must act.
        deadline: Duration,
    },
}

/// Something that differs by action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the actions'.
pub struct PerAction<T> {
    pub process: T,
    pub capture: T,
    pub release: T,
    pub refund: T,
    pub cancel: T,
}

impl<T: Copy> PerAction<T> {
    /// The same for every action.
    pub fn all(same: T) -> PerAction<T> {
        PerAction { process: same, capture: same, release: same, refund: same, cancel: same }
    }

    /// That of one action.
    pub fn of(self, action: Action) -> T {
        match action {
            Action::Process => self.process,
            Action::Capture => self.capture,
            Action::Release => self.release,
            Action::Refund => self.refund,
            Action::Cancel => self.cancel,
        }
    }
}

/// What a gateway promises of an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// How long it remembers one from its first use; `None` where it knows no keys.
    pub window: Option<Duration>,
    /// What a server error does to one.
    pub after_server_error: AfterServerError,
}

impl Keys {
    /// No keys: nothing that may have been received is ever sent again.
    pub const NONE: Keys = Keys { window: None, after_server_error: AfterServerError::Unpromised };

    /// Keys that work as their name says: a request is carried out at most once under one, whatever it was answered with.
    pub fn kept_for(window: Duration) -> Keys {
        Keys { window: Some(window), after_server_error: AfterServerError::RunsAgain }
    }
}

/// What a server error (5xx) does to the key of its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterServerError {
    /// The same request under the same key is carried out unless it was already.
    #[default]
    RunsAgain,
    /// The error is stored and given again: the key can never succeed.
    Replayed,
    /// The key is forgotten: the same request may be carried out a second time.
    NotKept,
    /// The gateway's documentation does not say.
    Unpromised,
}

impl AfterServerError {
    /// Whether the same request may be sent again under the same key.
    pub fn allows_another_attempt(self) -> bool {
        self == AfterServerError::RunsAgain
    }
}

/// What a look-up by our own reference can prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The gateway cannot be asked.
    None,
    /// It can be asked, but "not found" proves nothing.
    Indicative,
    /// After the settle window, "not found" proves that nothing was done.
    Authoritative,
}

/// How many captures one authorization takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captures {
    /// The first ends it.
    One,
    /// As many as the authorization's sum allows; the last one says so, or a release does.
    Several,
}
