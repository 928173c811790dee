//! What a gateway declares of itself, from which the engine derives whether to send again, look up or wait.

use std::time::Duration;

/// A gateway's idempotency contract and capabilities.
#[derive(Debug, Clone, PartialEq)]
pub struct Contract {
    /// How long the gateway remembers an idempotency key from its first use; nothing where it knows no keys.
    pub key_window: Option<Duration>,
    /// Whether a server error is stored and given again for the same key, so that this key can never succeed.
    pub replays_server_errors: bool,
    /// Whether and how an operation is found by our own reference.
    pub lookup: Lookup,
    /// How long after a send a look-up may still miss it.
    pub settle_window: Duration,
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
