//! What a gateway says, together with the question it answers. An answer proves something only about the payment as it
//! was when the question was sent.

use jiff::Timestamp;

/// When a question was sent, and the payment's last event at that time. It is made from the payment in memory when the
/// question is sent, and travels with the answer. Read back from a stored row, it might belong to a later question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    at: Timestamp,
    after_sequence: i64,
    clocks_agreed: bool,
}

impl Asked {
    /// Only the machine knows the state that a question is based on: see `Aggregate::asked`.
    pub(super) fn new(at: Timestamp, after_sequence: i64) -> Asked {
        Asked { at, after_sequence, clocks_agreed: true }
    }

    /// Records whether the gateway's clock and PostgreSQL's agreed when the question was answered. Once they disagreed
    /// it stays unproved: what was missed in the meantime proves nothing, even if they agree again.
    pub fn while_clocks(self, agreed: bool) -> Asked {
        Asked { clocks_agreed: self.clocks_agreed && agreed, ..self }
    }

    /// Whether the clocks agreed when it was answered, as far as known.
    pub fn clocks_agreed(self) -> bool {
        self.clocks_agreed
    }

    /// When the question was sent, by PostgreSQL's clock.
    pub fn at(self) -> Timestamp {
        self.at
    }

    /// Sequence number of the payment's last event at that time.
    pub fn after_sequence(self) -> i64 {
        self.after_sequence
    }
}

/// A gateway's answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<T> {
    /// The question.
    pub asked: Asked,
    /// The answer: the [`Outcome`](super::outcome::Outcome) of an attempt, or what a look-up
    /// [`Found`](super::outcome::Found).
    pub says: T,
}

impl Asked {
    /// An answer to this question.
    pub fn answered<T>(self, says: T) -> Observation<T> {
        Observation { asked: self, says }
    }
}
