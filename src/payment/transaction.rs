//! Transactions: what a gateway says it did with money, one per object at the gateway. Money belongs to that object;
//! which of our operations caused it is an attribute that the gateway must state.

use serde::{Deserialize, Serialize};
use strum::{EnumString, IntoStaticStr};
use uuid::Uuid;

use super::money::{Money, with_currency};

/// Maximum length of a reference, in characters.
pub const REFERENCE_CHARACTERS_MAX: usize = 255;

/// One thing that the gateway did with money, or is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What was done.
    pub kind: TransactionKind,
    /// The gateway's id of it. `None` if the gateway assigns none: then an operation has at most one transaction of a
    /// kind.
    pub reference: Option<String>,
    /// The gateway's id of the parent object: the authorization of a capture, the charge of a refund.
    pub parent: Option<String>,
    /// Which operation caused it, and how that is known.
    pub attribution: Attribution,
    /// Its current state.
    pub state: TransactionState,
    /// How much.
    #[serde(with = "with_currency")]
    pub amount: Money,
}

/// What was done with the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TransactionKind {
    /// Money was held on the customer's account.
    Authorization,
    /// Money was taken, with or without a prior authorization.
    Capture,
    /// Money was refunded.
    Refund,
    /// An authorization, or part of one, was released.
    Void,
    /// The customer's bank took the money back.
    Dispute,
}

impl TransactionKind {
    /// The word in the `http` protocol.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the word in the `http` protocol.
    pub fn from_word(word: &str) -> Option<TransactionKind> {
        word.parse().ok()
    }
}

/// The state of a transaction. It only moves forward: pending, ready, done, reversed. A failed transaction may still
/// become done (a late authorization); a done one can only be undone by becoming reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, EnumString, IntoStaticStr)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum TransactionState {
    /// Accepted, not done yet.
    Pending,
    /// The customer has approved it; it is done once we confirm it.
    Ready,
    /// Done.
    Done,
    /// Not done.
    Failed,
    /// It came to nothing, whether or not it had been done: a refund that bounced, a capture that never settled.
    Reversed,
}

impl TransactionState {
    /// The word in the `http` protocol.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the word in the `http` protocol.
    pub fn from_word(word: &str) -> Option<TransactionState> {
        word.parse().ok()
    }
}

/// Which operation caused a transaction, and how that is known. There is no default, and the target of a look-up is no
/// evidence: a look-up of one operation may find another's money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The gateway stores our operation's id with it: in metadata, in a reference field, or as its look-up key.
    Recorded(Uuid),
    /// It is in the direct answer to this operation's own request.
    Answered(Uuid),
    /// The gateway does not say, or it was made elsewhere: in the gateway's dashboard, by the customer's bank.
    Unattributed,
}

impl Attribution {
    /// The operation, if known.
    pub fn operation(self) -> Option<Uuid> {
        match self {
            Attribution::Recorded(operation) | Attribution::Answered(operation) => Some(operation),
            Attribution::Unattributed => None,
        }
    }
}

impl Transaction {
    /// Whether it is done and attributed to this operation.
    pub fn is_done_for(&self, operation: Uuid) -> bool {
        self.state == TransactionState::Done && self.attribution.operation() == Some(operation)
    }
}
