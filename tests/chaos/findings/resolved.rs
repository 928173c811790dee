//! A person resolves only what no machine can know: the gateway did something else than was asked, forgot what it said was
//! pending, keeps no ledger, or the operation took several workers down.

use super::{Finding, Kind, Stored};
use crate::desk::Desk;
use crate::ledger::Ledger;
use crate::script::DUMMY;

/// So many workers lost over one operation leave it to a person.
const TAKEOVERS: i32 = 5;

/// Looks at every operation that was resolved.
pub fn check(ledger: &dyn Ledger, desk: &Desk<'_>, stored: &Stored) -> Vec<Finding> {
    let forgotten = ledger.forgotten();
    let mut found = Vec::new();
    for (operation, resolutions) in desk.resolutions() {
        for resolution in resolutions {
            let payment = resolution.command.payment;
            let keeps_no_ledger = stored.payments.get(&payment).is_some_and(|row| row.variant == DUMMY);
            let has_reason = resolution.code == "mismatch"
                || resolution.takeovers >= TAKEOVERS
                || keeps_no_ledger
                || forgotten.contains(&operation);
            if !has_reason {
                let what = format!("{operation}, {}, {} takeovers", resolution.code, resolution.takeovers);
                found.push(Finding::new(Kind::NeedlessResolve, Some(payment), what));
            }
        }
    }
    found
}
