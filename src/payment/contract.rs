//! What a gateway declares about itself. From this the engine derives whether to retry, look up, undo or wait.

use std::time::Duration;

use serde::Deserialize;

use super::action::Action;

/// A gateway's idempotency contract and capabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// What it guarantees for an idempotency key, per action.
    pub keys: PerAction<Keys>,
    /// Whether, and how reliably, an operation can be looked up by our reference.
    pub lookup: Lookup,
    /// How long after a send a look-up may still miss it.
    pub settle_window: Duration,
    /// How many captures one authorization takes.
    pub captures: Captures,
    /// How far a verified notification is trusted.
    pub notifications: NotificationRole,
    /// Whether it can undo a process by our reference and report what it found.
    pub undo: bool,
}

impl Contract {
    /// Whether a process with an unknown outcome is undone: the gateway supports undo but no look-up.
    pub fn undoes(&self) -> bool {
        self.undo && self.lookup == Lookup::None
    }
}

/// How far a verified notification is trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotificationRole {
    /// It only says where to look: the gateway is then asked.
    Hint,
    /// What it says about money is applied like an answer. If the gateway supports no look-up, an operation waits for
    /// it.
    Proof {
        /// How long to wait after the last send before a person must act.
        deadline: Duration,
    },
}

/// A value per action.
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
    /// The same value for every action.
    pub fn all(same: T) -> PerAction<T> {
        PerAction { process: same, capture: same, release: same, refund: same, cancel: same }
    }

    /// The value for one action.
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

/// What a gateway guarantees for an idempotency key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// How long it remembers a key from its first use; `None` if it does not support keys.
    pub window: Option<Duration>,
    /// What a server error does to the key.
    pub after_server_error: AfterServerError,
}

impl Keys {
    /// No keys: a request that may have been received is never sent again.
    pub const NONE: Keys = Keys { window: None, after_server_error: AfterServerError::Unpromised };

    /// Keys that guarantee at most one execution of a request, whatever its earlier answers.
    pub fn kept_for(window: Duration) -> Keys {
        Keys { window: Some(window), after_server_error: AfterServerError::RunsAgain }
    }
}

/// What a server error (5xx) does to the key of its request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AfterServerError {
    /// The same request under the same key is carried out unless it already was.
    #[default]
    RunsAgain,
    /// The error is stored and replayed: the key can never succeed.
    Replayed,
    /// The key is forgotten: the same request may be carried out twice.
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

/// What a look-up by our reference can prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// The gateway does not support look-ups.
    None,
    /// Look-ups are supported, but "not found" proves nothing.
    Indicative,
    /// After the settle window, "not found" proves that nothing was done.
    Authoritative,
}

/// How many captures one authorization takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Captures {
    /// One: the first capture ends it.
    One,
    /// As many as the authorized amount allows; the last one is marked as such, or a release ends it.
    Several,
}
