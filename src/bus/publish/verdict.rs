//! Whether the broker took a message: on one try, and in the end.

/// The outcome of one try.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::bus) enum Sent {
    /// Confirmed and not returned.
    Confirmed,
    /// Returned: no queue takes it.
    Refused(String),
    /// Nacked: a queue is full or could not store it. This is the queue's fault and not the message's.
    Nacked(String),
    /// The confirm never arrived.
    Unknown,
}

impl Sent {
    /// Returns the outcome for a message that is tried only once; `None` if it is unknown.
    pub(in crate::bus) fn only_try(self) -> Option<Result<(), Refused>> {
        match self {
            Sent::Confirmed => Some(Ok(())),
            Sent::Refused(reason) | Sent::Nacked(reason) => Some(Err(Refused(reason))),
            Sent::Unknown => None,
        }
    }
}

/// The final verdict on a message that keeps its order with others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The broker has it.
    Confirmed,
    /// The broker refuses it, in these words.
    Refused(String),
    /// The broker refuses an earlier message, which this one must not overtake.
    Behind,
}

impl Verdict {
    /// Returns the verdict on a message that has no order.
    pub(in crate::bus) fn unordered(self) -> Result<(), Refused> {
        match self {
            Verdict::Confirmed => Ok(()),
            Verdict::Refused(reason) => Err(Refused(reason)),
            Verdict::Behind => Err(Refused("it is queued behind a message that the broker refused".to_owned())),
        }
    }
}

/// The broker refuses a message, in these words: no queue takes it, a queue is full, or it closes the channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused(pub String);
