//! What a gateway says, together with the question it answers. An answer proves something only of the payment as it was when
//! the question was sent.

use jiff::Timestamp;

/// When a question was sent, and how far the payment's events had come by then. It is made from the payment in memory when the
/// question goes out and travels with the answer. Read back from a stored row, it would be the stamp of whichever question
/// was stored last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked {
    at: Timestamp,
    after_sequence: i64,
    clocks_agreed: bool,
}

impl Asked {
    /// Only the machine knows what it asks after: see `Aggregate::asked`.
    pub(super) fn new(at: Timestamp, after_sequence: i64) -> Asked {
        Asked { at, after_sequence, clocks_agreed: true }
    }

    /// The same question, with whether the gateway's clock and PostgreSQL's agreed when it was answered. What was missed
    /// while they did not is no proof once they do again.
    pub fn while_clocks(self, agreed: bool) -> Asked {
        Asked { clocks_agreed: self.clocks_agreed && agreed, ..self }
    }

    /// Whether the clocks agreed when it was answered, as far as is known.
    pub fn clocks_agreed(self) -> bool {
        self.clocks_agreed
    }

    /// When the question was sent, by PostgreSQL's clock.
    pub fn at(self) -> Timestamp {
        self.at
    }

    /// The number of the payment's last event at that time.
    pub fn after_sequence(self) -> i64 {
        self.after_sequence
    }
}

/// What a gateway says in answer to a question.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation<T> {
    /// The question.
    pub asked: Asked,
    /// The answer: an [`Outcome`](super::outcome::Outcome) of an attempt, or what a look-up [`Found`](super::outcome::Found).
    pub says: T,
}

impl Asked {
    /// An answer to this question.
    pub fn answered<T>(self, says: T) -> Observation<T> {
        Observation { asked: self, says }
    }
}
