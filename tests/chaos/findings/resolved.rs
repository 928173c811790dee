//! An operator resolves only what paybus cannot know: the gateway did something other than requested, forgot what it
//! had reported as pending, keeps no ledger, has nothing to prove, or the operation killed several workers.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::{Finding, Kind, Stored};
use crate::ledger::Ledger;
use crate::operators::Operators;
use crate::script::{DUMMY, PROVED};

/// This many workers lost with one operation leave it to an operator.
const TAKEOVERS: i32 = 5;

/// Checks every operation that was resolved.
pub fn check(ledger: &dyn Ledger, operators: &Operators<'_>, stored: &Stored) -> Vec<Finding> {
    let forgotten = ledger.forgotten();
    let proved = proved(ledger);
    let mut found = Vec::new();
    for (operation, resolutions) in operators.resolutions() {
        for resolution in resolutions {
            let payment = resolution.command.payment;
            let is_of = |variant: &str| stored.payments.get(&payment).is_some_and(|row| row.variant == variant);
            let keeps_no_ledger = is_of(DUMMY);
            // The request never arrived there.
            let has_no_proof = is_of(PROVED) && !proved.contains(&operation);
            let has_reason = resolution.code == "mismatch"
                || resolution.takeovers >= TAKEOVERS
                || keeps_no_ledger
                || has_no_proof
                || forgotten.contains(&operation);
            if !has_reason {
                let what = format!("{operation}, {}, {} takeovers", resolution.code, resolution.takeovers);
                found.push(Finding::new(Kind::NeedlessResolve, Some(payment), what));
            }
        }
    }
    found
}

/// The operations about which a webhook that is proof has reported.
fn proved(ledger: &dyn Ledger) -> HashSet<Uuid> {
    let reports = ledger.reports(0).into_iter().filter(|report| report.variant == PROVED);
    let bodies = reports.filter_map(|report| serde_json::from_str::<Value>(&report.body).ok());
    bodies.filter_map(|body| body["operation_id"].as_str()?.parse().ok()).collect()
}
