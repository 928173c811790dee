//! Why a command's way ends before it has come to its end.

use super::authorize::Refusal;

/// Why nothing was begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// The database will never take it, or holds of it what cannot be read.
    Refused,
    /// Its sender may not send it.
    NotAuthorized(Refusal),
    /// The worker ends; whoever comes next goes on.
    Ending,
    /// The database no longer has the operation whose answer came: it must be begun again, under the same key.
    Gone,
}
