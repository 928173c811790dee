//! A person resolves only what no machine can know: the gateway did something else than was asked, forgot what it said was
//! pending, keeps no ledger, has nothing to prove, or the operation took several workers down.

use std::collections::HashSet;

use serde_json::Value;
use uuid::Uuid;

use super::{Finding, Kind, Stored};
use crate::ledger::Ledger;
use crate::operators::Operators;
use crate::script::{DUMMY, PROVED};

/// So many workers lost over one operation leave it to a person.
const TAKEOVERS: i32 = 5;

/// Looks at every operation that was resolved.
pub fn check(ledger: &dyn Ledger, operators: &Operators<'_>, stored: &Stored) -> Vec<Finding> {
    let forgotten = ledger.forgotten();
    let proved = proved(ledger);
    let mut found = Vec::new();
    for (operation, resolutions) in operators.resolutions() {
        for resolution in resolutions {
            let payment = resolution.command.payment;
            let is_of = |variant: &str| stored.payments.get(&payment).is_some_and(|row| row.variant == variant);
            let keeps_no_ledger = is_of(DUMMY);
            // The request never came there.
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

/// The operations that a webhook told of which is proof.
fn proved(ledger: &dyn Ledger) -> HashSet<Uuid> {
    let reports = ledger.reports(0).into_iter().filter(|report| report.variant == PROVED);
    let bodies = reports.filter_map(|report| serde_json::from_str::<Value>(&report.body).ok());
    bodies.filter_map(|body| body["operation_id"].as_str()?.parse().ok()).collect()
}
