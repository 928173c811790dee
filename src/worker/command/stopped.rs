//! Why an execution ends early.

use super::authorize::Refusal;

/// Why an execution ended early.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The database refuses it for good, or has stored data for it that cannot be decoded.
    Refused,
    /// Its sender may not send it.
    NotAuthorized(Refusal),
    /// The worker is shutting down; the next worker continues.
    Ending,
    /// The database no longer has the operation whose answer arrived: it must begin again under the same key.
    Gone,
}
