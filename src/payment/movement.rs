//! Movements: the money that a gateway reports as moved. A payment's amounts are always the sums of its movements.

use strum::{EnumString, IntoStaticStr};
use uuid::Uuid;

use super::money::{Currency, Money, MoneyError};

/// What was done with the money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EnumString, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum MovementKind {
    /// Held on the customer's account.
    Authorized,
    /// Captured.
    Captured,
    /// Refunded.
    Refunded,
    /// A refund failed later: the money is back.
    RefundReversed,
    /// An authorization was released.
    Voided,
    /// Lost to a dispute.
    Disputed,
    /// A capture failed later or was cancelled: the money never arrived.
    CaptureReversed,
}

impl MovementKind {
    /// The word in the database.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Parses the word in the database.
    pub fn from_word(word: &str) -> Option<MovementKind> {
        word.parse().ok()
    }
}

/// One movement. `kind` and `reference` together are unique within a payment, so that a movement reported twice (by an
/// answer and by a notification) counts once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Movement {
    /// What was done.
    pub kind: MovementKind,
    /// The key under which it is stored: the gateway's reference if known at the time, else the id of the operation
    /// that reported it, which may be a sync.
    pub reference: String,
    /// The gateway's reference; it may become known later than the movement.
    pub gateway_reference: Option<String>,
    /// The gateway's reference of the object that it belongs to.
    pub parent: Option<String>,
    /// How much.
    pub amount: Money,
    /// Our operation that caused it, if known. An operation is matched once and counted once.
    pub operation: Option<Uuid>,
}

impl Movement {
    /// A movement that an operation reported and whose cause is unknown.
    pub fn learnt(kind: MovementKind, reporter: Uuid, amount: Money) -> Movement {
        let reference = reporter.to_string();
        Movement { kind, reference, gateway_reference: None, parent: None, amount, operation: None }
    }

    /// Whether two movements are the same money. If both have a gateway reference, those decide; otherwise one
    /// operation has at most one movement of a kind.
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
    /// Total authorized.
    pub authorized: Money,
    /// Captured minus refunded, disputed and never arrived; never below zero.
    pub captured: Money,
    /// Total refunded, without refunds that failed later.
    pub refunded: Money,
    /// Still held: authorized, and neither captured nor released.
    pub capturable: Money,
    /// Released without being captured.
    pub voided: Money,
}

impl Amounts {
    /// All zero.
    pub fn none(currency: Currency) -> Amounts {
        let zero = Money::zero(currency);
        Amounts { authorized: zero, captured: zero, refunded: zero, capturable: zero, voided: zero }
    }

    /// Sums all movements of a payment.
    ///
    /// # Errors
    /// A movement has another currency, or a sum exceeds 28 digits.
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
        // A capture that never arrived does not reduce what is held: it may have been a charge before the
        // authorization.
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
