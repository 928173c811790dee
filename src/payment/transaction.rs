//! Transactions: what a gateway says it did with money, each by the gateway's own object. Money belongs to that object; which
//! operation of ours caused it is an attribute that the gateway must state.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::money::{Money, with_currency};

/// The longest reference that is kept, in characters.
pub const REFERENCE_CHARACTERS_MAX: usize = 255;

/// One thing that the gateway did with money, or is about to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transaction {
    /// What was done.
    pub kind: TransactionKind,
    /// The gateway's own id of it. `None` where the gateway gives none: then one operation has one transaction of a kind.
    pub reference: Option<String>,
    /// The gateway's id of what it belongs to: the authorization of a capture, the charge of a refund.
    pub parent: Option<String>,
    /// Whose it is, and how that is known.
    pub attribution: Attribution,
    /// How far it has come.
    pub state: TransactionState,
    /// How much.
    #[serde(with = "with_currency")]
    pub amount: Money,
}

/// What was done with the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionKind {
    /// Held on the customer's side.
    Authorization,
    /// Taken, with or without an authorization before.
    Capture,
    /// Given back.
    Refund,
    /// An authorization, or a part of one, that was let go.
    Void,
    /// Taken back by the customer's bank.
    Dispute,
}

impl TransactionKind {
    /// Every kind.
    pub const ALL: [TransactionKind; 5] = [
        TransactionKind::Authorization,
        TransactionKind::Capture,
        TransactionKind::Refund,
        TransactionKind::Void,
        TransactionKind::Dispute,
    ];

    /// The word in the `http` protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            TransactionKind::Authorization => "authorization",
            TransactionKind::Capture => "capture",
            TransactionKind::Refund => "refund",
            TransactionKind::Void => "void",
            TransactionKind::Dispute => "dispute",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<TransactionKind> {
        TransactionKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// How far a transaction has come. A reference only moves forward: pending to ready to done to reversed. Failed may still
/// become done (a late authorization); what was done comes to nothing only as reversed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransactionState {
    /// Accepted, not done yet.
    Pending,
    /// The customer has approved it: it is done when we confirm it.
    Ready,
    /// Done.
    Done,
    /// Not done.
    Failed,
    /// It has come to nothing, whether or not it had been done: a refund that bounced, a capture that never settled.
    Reversed,
}

impl TransactionState {
    /// Every state.
    pub const ALL: [TransactionState; 5] = [
        TransactionState::Pending,
        TransactionState::Ready,
        TransactionState::Done,
        TransactionState::Failed,
        TransactionState::Reversed,
    ];

    /// The word in the `http` protocol.
    pub fn as_str(self) -> &'static str {
        match self {
            TransactionState::Pending => "pending",
            TransactionState::Ready => "ready",
            TransactionState::Done => "done",
            TransactionState::Failed => "failed",
            TransactionState::Reversed => "reversed",
        }
    }

    /// The state of a word.
    pub fn from_word(word: &str) -> Option<TransactionState> {
        TransactionState::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// Whose a transaction is, and how that is known. There is no default, and a look-up's question is no source: a look-up of one
/// operation may find the money of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Attribution {
    /// The gateway keeps our operation's id with it: in metadata, in a reference field, or as what it is found by.
    Recorded(Uuid),
    /// It stands in the direct answer to this operation's own request.
    Answered(Uuid),
    /// The gateway does not say, or it was made elsewhere: at the gateway's own portal, by the customer's bank.
    Unattributed,
}

impl Attribution {
    /// The operation, where it is known.
    pub fn operation(self) -> Option<Uuid> {
        match self {
            Attribution::Recorded(operation) | Attribution::Answered(operation) => Some(operation),
            Attribution::Unattributed => None,
        }
    }
}

impl Transaction {
    /// Whether the gateway did it for this operation.
    pub fn is_done_for(&self, operation: Uuid) -> bool {
        self.state == TransactionState::Done && self.attribution.operation() == Some(operation)
    }
}
