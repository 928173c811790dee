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
    /// Taken and never arrived: the capture failed later, or was cancelled.
    CaptureReversed,
}

impl MovementKind {
    /// Every kind.
    pub const ALL: [MovementKind; 7] = [
        MovementKind::Authorized,
        MovementKind::Captured,
        MovementKind::Refunded,
        MovementKind::RefundReversed,
        MovementKind::Voided,
        MovementKind::Disputed,
        MovementKind::CaptureReversed,
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
            MovementKind::CaptureReversed => "capture_reversed",
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
    /// Under what it is stored: the gateway's own reference where that was known; else the id of the operation that told of
    /// it, be it the sync that heard of it.
    pub reference: String,
    /// The gateway's own reference: it may be learnt later than the movement.
    pub gateway_reference: Option<String>,
    /// The gateway's reference of what it belongs to.
    pub parent: Option<String>,
    /// How much.
    pub amount: Money,
    /// The operation that did it, where one of ours did and that is known: it is matched once, and counted once.
    pub operation: Option<Uuid>,
}

impl Movement {
    /// One that an operation told of, and whose it is nobody knows.
    pub fn learnt(kind: MovementKind, teller: Uuid, amount: Money) -> Movement {
        let reference = teller.to_string();
        Movement { kind, reference, gateway_reference: None, parent: None, amount, operation: None }
    }

    /// Whether another one is the same money. The gateway's references decide where both have one; else one operation has one
    /// movement of a kind.
    pub fn is_same(&self, other: &Movement) -> bool {
        if self.kind != other.kind {
            return false;
        }
        match (&self.gateway_reference, &other.gateway_reference) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => {
                let same_operation = self.operation.is_some() && self.operation == other.operation;
                self.reference == other.reference || same_operation
            }
        }
    }
}

/// The sums of a payment's movements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// Everything ever authorized.
    pub authorized: Money,
    /// What was captured minus what was refunded, lost or never arrived, never below zero.
    pub captured: Money,
    /// Everything refunded, without the refunds that failed later.
    pub refunded: Money,
    /// What is still held: authorized, and neither captured nor let go.
    pub capturable: Money,
    /// What was let go without being captured.
    pub voided: Money,
}

impl Amounts {
    /// Nothing moved yet.
    pub fn none(currency: Currency) -> Amounts {
        let zero = Money::zero(currency);
        Amounts { authorized: zero, captured: zero, refunded: zero, capturable: zero, voided: zero }
    }

    /// The sums of all movements of a payment.
    ///
    /// # Errors
    /// A movement in another currency, or sums beyond 28 digits.
    pub fn of<'a>(currency: Currency, movements: impl Iterator<Item = &'a Movement>) -> Result<Amounts, MoneyError> {
        let mut sums = Amounts::none(currency);
        let zero = Money::zero(currency);
        let (mut taken, mut reversed, mut disputed, mut back) = (zero, zero, zero, zero);
        for movement in movements {
            let sum = match movement.kind {
                MovementKind::Authorized => &mut sums.authorized,
                MovementKind::Captured => &mut taken,
                MovementKind::Refunded => &mut sums.refunded,
                MovementKind::RefundReversed => &mut back,
                MovementKind::Disputed => &mut disputed,
                MovementKind::CaptureReversed => &mut reversed,
                MovementKind::Voided => &mut sums.voided,
            };
            *sum = sum.plus(movement.amount)?;
        }
        sums.refunded = sums.refunded.less(back)?;
        let arrived = taken.less(reversed)?;
        sums.captured = arrived.less(sums.refunded.plus(disputed)?)?;
        // What never arrived takes nothing of what is held: it may have been a charge before the authorization.
        sums.capturable = sums.authorized.less(arrived.plus(sums.voided)?)?;
        Ok(sums)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_charge_that_never_arrived_takes_nothing_of_a_later_authorization() {
        let currency = Currency::from_code("USD").unwrap();
        let movement = |kind, reference: &str| Movement {
            kind,
            reference: reference.to_owned(),
            gateway_reference: Some(reference.to_owned()),
            parent: None,
            amount: Money::parse("100.00", currency).unwrap(),
            operation: None,
        };
        let movements = [
            movement(MovementKind::Captured, "charge"),
            movement(MovementKind::CaptureReversed, "charge"),
            movement(MovementKind::Authorized, "authorization"),
        ];
        let amounts = Amounts::of(currency, movements.iter()).unwrap();
        assert_eq!((amounts.captured.is_zero(), amounts.capturable.to_string().as_str()), (true, "100.00"));
    }
}
