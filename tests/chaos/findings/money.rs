//! The gateway's ledger is the truth: per payment, to the cent.

use std::collections::{BTreeSet, HashMap};

use rust_decimal::Decimal;
use uuid::Uuid;

use super::{Finding, Kind, Stored, StoredPayment};
use crate::ledger::{Ledger, standing};
use crate::operators::{Operators, Resolution};
use crate::support::fake_gateway::Effect;

/// Compares the ledger with the books, which must not contain what was undone.
pub fn check(ledger: &dyn Ledger, stored: &Stored, operators: &Operators<'_>) -> Vec<Finding> {
    let said = accepted(stored, &operators.resolutions());
    let mut found = Vec::new();
    let touched: BTreeSet<Uuid> = stored.payments.keys().copied().chain(ledger.effects_of_all().into_keys()).collect();
    for payment in touched {
        let effects = standing(&ledger.effects(payment));
        let mut add = |kind, what: String| found.push(Finding::new(kind, Some(payment), what));
        once(&effects, &mut add);
        let Some(row) = stored.payments.get(&payment) else {
            add(Kind::Books, format!("the gateway moved money for a payment that is not stored: {effects:?}"));
            continue;
        };
        if !ledger.variants().contains(&row.variant.as_str()) {
            without_ledger(row, &mut add);
            continue;
        }
        let sums =
            LedgerSums { holds: ledger.holds(payment, &row.currency), ..LedgerSums::of(&effects, &row.currency) };
        sums.compare_with(row, &mut add);
        answers(payment, &effects, stored, &said, &mut add);
    }
    found
}

/// If the gateway keeps no ledger, the books must at least be possible.
fn without_ledger(row: &StoredPayment, add: &mut impl FnMut(Kind, String)) {
    let taken = row.captured + row.refunded;
    if row.captured.is_sign_negative() || row.refunded.is_sign_negative() || taken > row.total {
        let (captured, refunded, total) = (row.captured, row.refunded, row.total);
        add(Kind::Books, format!("{captured} captured and {refunded} refunded of {total}"));
    }
}

/// The clerk's statements that paybus accepted, by operation.
fn accepted(stored: &Stored, said: &HashMap<Uuid, Vec<Resolution>>) -> HashMap<Uuid, Option<Decimal>> {
    let is_accepted = |resolution: &&Resolution| {
        let operation = stored.operations.get(&resolution.command.operation_id());
        operation.is_some_and(|operation| operation.answer.as_deref() == Some("succeeded"))
    };
    let last = said.iter().filter_map(|(id, all)| Some((*id, all.iter().rfind(is_accepted)?.amount)));
    last.collect()
}

/// One operation has one effect, and one payment has one charge.
fn once(effects: &[Effect], add: &mut impl FnMut(Kind, String)) {
    let mut seen = BTreeSet::new();
    for effect in effects {
        if !seen.insert(effect.operation_id) {
            add(Kind::DoubleCharge, format!("operation {} was carried out twice", effect.operation_id));
        }
    }
    let charges = effects.iter().filter(|effect| matches!(effect.kind, "charge" | "authorization")).count();
    if charges > 1 {
        add(Kind::DoubleCharge, format!("{charges} charges for one payment"));
    }
}

/// What the gateway did for a payment.
#[derive(Debug, Default)]
struct LedgerSums {
    captured: Decimal,
    refunded: Decimal,
    authorized: bool,
    released: bool,
    /// Whether more of an authorization can be captured.
    holds: bool,
}

impl LedgerSums {
    /// Sums up the ledger. What was booked in another currency counts once the gateway's staff has corrected it, as the
    /// clerk stated.
    fn of(effects: &[Effect], currency: &str) -> LedgerSums {
        let mut sums = LedgerSums::default();
        for effect in effects.iter().filter(|effect| effect.currency == currency) {
            let amount = effect.amount;
            match effect.kind {
                "charge" | "capture" => sums.captured += amount,
                "refund" => sums.refunded += amount,
                "authorization" => sums.authorized = true,
                "release" => sums.released = true,
                _ => {}
            }
        }
        sums
    }

    fn compare_with(&self, row: &StoredPayment, add: &mut impl FnMut(Kind, String)) {
        let left = (self.captured - self.refunded).max(Decimal::ZERO);
        if row.captured != left || row.refunded != self.refunded {
            let (captured, refunded) = (row.captured, row.refunded);
            let what = format!(
                "stored are {captured} captured and {refunded} refunded, the ledger has {left} and {}",
                self.refunded
            );
            add(Kind::Books, what);
        }
        let fits: &[&str] = if self.holds {
            &["preauth"]
        } else if !left.is_zero() {
            &["confirmed"]
        } else if !self.captured.is_zero() || self.released {
            &["refunded"]
        } else if self.authorized {
            &["preauth"]
        } else {
            &["waiting", "input", "rejected", "error", "cancelled"]
        };
        if !fits.contains(&row.status.as_str()) {
            add(Kind::Books, format!("its status is {}, the ledger allows {fits:?}: {self:?}", row.status));
        }
    }
}

/// What was answered as failed was not done, and what was answered as done was done.
fn answers(
    payment: Uuid,
    effects: &[Effect],
    stored: &Stored,
    said: &HashMap<Uuid, Option<Decimal>>,
    add: &mut impl FnMut(Kind, String),
) {
    for effect in effects {
        let (kind, id) = (effect.kind, effect.operation_id);
        match stored.operations.get(&id) {
            None => add(Kind::Contradiction, format!("a {kind} of operation {id}, which is not stored")),
            Some(operation) if operation.state == "settled" && operation.answer.as_deref() != Some("succeeded") => {
                add(Kind::Contradiction, format!("{kind} {id} was answered {:?}, and is done", operation.answer));
            }
            Some(_) => {}
        }
    }
    let answered = stored.operations.iter().filter(|(_, operation)| operation.payment == payment);
    for (id, operation) in answered.filter(|(_, operation)| operation.answer.as_deref() == Some("succeeded")) {
        let moves = matches!(operation.kind.as_str(), "payment.capture" | "payment.refund" | "payment.release");
        if moves && !said.contains_key(id) && !effects.iter().any(|effect| effect.operation_id == *id) {
            add(Kind::Contradiction, format!("{} {id} was answered as done, and is not", operation.kind));
        }
    }
}
