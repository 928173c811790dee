//! Movements: the money a gateway says it moved. A payment's amounts are nothing but their sums.

use uuid::Uuid;

use super::money::{Currency, Money, MoneyError};

/// What was done with the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MovementKind {
    /// Held on the customer's side.
    Authorized,
    /// Taken.
    Captured,
    /// Given back.
    Refunded,
    /// Given back and there again: the refund failed later.
    RefundReversed,
    /// An authorization that was let go.
    Voided,
    /// Lost to a dispute.
    Disputed,
}

impl MovementKind {
    /// Every kind.
    pub const ALL: [MovementKind; 6] = [
        MovementKind::Authorized,
        MovementKind::Captured,
        MovementKind::Refunded,
        MovementKind::RefundReversed,
        MovementKind::Voided,
        MovementKind::Disputed,
    ];

    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            MovementKind::Authorized => "authorized",
            MovementKind::Captured => "captured",
            MovementKind::Refunded => "refunded",
            MovementKind::RefundReversed => "refund_reversed",
            MovementKind::Voided => "voided",
            MovementKind::Disputed => "disputed",
        }
    }

    /// The kind of a word.
    pub fn from_word(word: &str) -> Option<MovementKind> {
        MovementKind::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

/// One movement. `kind` and `reference` together are unique within a payment, so that a truth learnt twice (from an
/// answer and from a notification) counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// What was done.
    pub kind: MovementKind,
    /// The operation's id where an operation told of it, be it the sync that heard of it; else the gateway's own reference.
    pub reference: String,
    /// How much.
    pub amount: Money,
    /// The operation that did it, where one of ours did and that is known: it is matched once, and counted once.
    pub operation: Option<Uuid>,
}

/// The sums of a payment's movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// Everything ever authorized.
    pub authorized: Money,
    /// What was captured minus what was refunded or lost, never below zero.
    pub captured: Money,
    /// Everything refunded, without the refunds that failed later.
    pub refunded: Money,
}

impl Amounts {
    /// Nothing moved yet.
    pub fn none(currency: Currency) -> Amounts {
        let zero = Money::zero(currency);
        Amounts { authorized: zero, captured: zero, refunded: zero }
    }

    /// The sums of all movements of a payment.
    ///
    /// # Errors
    /// A movement in another currency, or sums beyond 28 digits.
    pub fn of<'a>(currency: Currency, movements: impl Iterator<Item = &'a Movement>) -> Result<Amounts, MoneyError> {
        let mut sums = Amounts::none(currency);
        let (mut gone, mut back) = (Money::zero(currency), Money::zero(currency));
        for movement in movements {
            match movement.kind {
                MovementKind::Authorized => sums.authorized = sums.authorized.plus(movement.amount)?,
                MovementKind::Captured => sums.captured = sums.captured.plus(movement.amount)?,
                MovementKind::Refunded => sums.refunded = sums.refunded.plus(movement.amount)?,
                MovementKind::RefundReversed => back = back.plus(movement.amount)?,
                MovementKind::Disputed => gone = gone.plus(movement.amount)?,
                MovementKind::Voided => {}
            }
        }
        sums.refunded = sums.refunded.less(back)?;
        sums.captured = sums.captured.less(sums.refunded.plus(gone)?)?;
        Ok(sums)
    }
}
