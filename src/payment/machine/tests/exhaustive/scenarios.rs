//! What is explored. A scenario whose worlds are many is given fewer faults, so that all of them together take seconds.

use std::time::Duration;

use super::super::bench::{keys, replaying};
use super::explore;
use super::moves::Move;
use super::scenario::{
    Line, Scenario, Verdict, authorize, cancel, capture, charge, notification, process, proof, refund, release,
    resolve, sync,
};
use crate::payment::contract::{Contract, Lookup, NotificationRole};

const PENDING: [Verdict; 2] = [Verdict::Pending { approved: true }, Verdict::Pending { approved: false }];

fn without_keys(contract: &mut Contract) {
    contract.keys = keys(None);
}

fn without_look_up(contract: &mut Contract) {
    contract.lookup = Lookup::None;
}

fn without_either(contract: &mut Contract) {
    without_keys(contract);
    without_look_up(contract);
}

fn proving(contract: &mut Contract) {
    contract.notifications = NotificationRole::Proof { deadline: Duration::from_secs(60) };
}

/// It cannot be asked and knows no keys: what happened it tells by itself.
fn proving_alone(contract: &mut Contract) {
    without_either(contract);
    proving(contract);
}

/// It cannot be asked, and undoes what is lost.
fn undoing(contract: &mut Contract) {
    without_either(contract);
    contract.undo = true;
}

/// It proves by itself what happened, too.
fn undoing_and_proving(contract: &mut Contract) {
    undoing(contract);
    proving(contract);
}

fn replaying_errors(contract: &mut Contract) {
    contract.keys = replaying();
}

fn of_indicative_look_up(contract: &mut Contract) {
    without_keys(contract);
    contract.lookup = Lookup::Indicative;
}

fn forgetting_keys(contract: &mut Contract) {
    contract.keys = keys(Some(Duration::from_secs(24)));
}

macro_rules! scenarios {
    ($($name:ident: $scenario:expr;)*) => {
        $(#[test]
        fn $name() {
            explore($scenario);
        })*
    };
}

fn after_charge(line: Line) -> Scenario {
    Scenario::new(vec![charge(), line])
}

scenarios! {
    a_charge: Scenario::new(vec![charge()]).verdicts(&[Verdict::Approved, Verdict::Declined]).within(3, 4);
    a_charge_without_keys: Scenario::new(vec![charge()]).contract(without_keys).within(4, 5);
    a_charge_without_look_up: Scenario::new(vec![charge()]).contract(without_look_up).within(3, 4);
    a_charge_without_either: Scenario::new(vec![charge()]).contract(without_either).within(3, 4);
    a_charge_with_errors_replayed: Scenario::new(vec![charge()]).contract(replaying_errors).within(3, 4);
    a_charge_with_look_ups_that_prove_nothing: Scenario::new(vec![charge()]).contract(of_indicative_look_up).within(3, 4);
    a_charge_with_keys_that_are_forgotten: Scenario::new(vec![charge()]).contract(forgetting_keys).within(3, 4);
    a_charge_that_pends: Scenario::new(vec![charge()]).verdicts(&PENDING).within(2, 4);
    a_charge_and_a_refund: after_charge(refund("refund", "40.00")).within(2, 3);
    two_refunds_of_more_than_there_is:
        Scenario::new(vec![charge(), refund("refund-1", "60.00"), refund("refund-2", "60.00")]).within(1, 2);
    two_refunds_that_pend: Scenario::new(vec![charge(), refund("refund-1", "60.00"), refund("refund-2", "60.00")])
        .verdicts(&[Verdict::Approved, PENDING[0]]).within(0, 3);
    two_captures_of_one_authorization:
        Scenario::new(vec![authorize(), capture("capture-1", "60.00"), capture("capture-2", "60.00")]).within(1, 2);
    a_capture_and_a_release: Scenario::new(vec![authorize(), capture("capture", "60.00"), release()]).within(1, 2);
    a_charge_and_a_cancel: after_charge(cancel()).within(2, 3);
    a_charge_that_pends_and_a_cancel: after_charge(cancel()).verdicts(&[PENDING[0], Verdict::Approved]).within(1, 2);
    a_charge_that_pends_and_a_process: after_charge(process("process"))
        .verdicts(&[PENDING[0], Verdict::Approved]).within(1, 2);
    a_charge_from_input: Scenario::new(vec![charge(), process("process"), Line::CustomerPays])
        .verdicts(&[Verdict::Approved, Verdict::Input]).within(2, 2);
    a_charge_that_the_customer_approves: Scenario::new(vec![charge(), Line::CustomerPays, process("process")])
        .verdicts(&[Verdict::Approved, Verdict::Input]).with_confirmation().within(1, 2);
    a_charge_that_the_customer_approves_and_leaves: Scenario::new(vec![charge(), Line::CustomerPays])
        .verdicts(&[Verdict::Approved, Verdict::Input]).with_confirmation().within(1, 2);
    a_charge_from_input_without_references: Scenario::new(vec![charge(), process("process"), Line::CustomerPays])
        .verdicts(&[Verdict::Approved, Verdict::Input]).without_references().within(1, 2);
    a_refund_and_a_sync_without_references: Scenario::new(vec![charge(), refund("refund", "40.00"), sync()])
        .without_references().within(1, 1);
    a_charge_and_a_sync: after_charge(sync()).within(1, 2);
    a_charge_and_a_notification: after_charge(notification("charge")).within(1, 2);
    a_refund_and_a_sync: Scenario::new(vec![charge(), refund("refund", "40.00"), sync()]).within(1, 1);
    a_refund_and_a_notification:
        Scenario::new(vec![charge(), refund("refund", "40.00"), notification("refund")]).within(1, 1);
    a_capture_and_a_sync: Scenario::new(vec![authorize(), capture("capture", "60.00"), sync()]).within(1, 1);
    a_charge_and_its_proof: after_charge(proof("charge", "proof")).contract(proving).within(1, 2);
    a_charge_and_its_proof_alone: after_charge(proof("charge", "proof")).contract(proving_alone)
        .verdicts(&[Verdict::Approved, Verdict::Declined]).within(1, 3);
    a_charge_that_pends_and_its_proofs:
        Scenario::new(vec![charge(), proof("charge", "proof-1"), proof("charge", "proof-2")])
        .contract(proving_alone).verdicts(&PENDING).within(1, 2);
    a_refund_that_pends_and_its_proof: Scenario::new(vec![charge(), refund("refund", "40.00"), proof("refund", "proof")])
        .contract(proving_alone).verdicts(&[Verdict::Approved, PENDING[0]]).within(1, 2);
    a_cancel_and_the_proof_that_the_charge_went_through:
        Scenario::new(vec![charge(), cancel(), proof("charge", "proof")])
        .contract(proving_alone).verdicts(&[PENDING[0], Verdict::Approved]).within(0, 3);
    a_charge_that_is_undone: Scenario::new(vec![charge()]).contract(undoing)
        .verdicts(&[Verdict::Approved, Verdict::Declined]).within(2, 4);
    an_authorization_that_is_undone_and_another: Scenario::new(vec![authorize(), process("process")])
        .contract(undoing).within(1, 3);
    a_charge_that_is_undone_while_it_is_proved: after_charge(proof("charge", "proof")).contract(undoing_and_proving)
        .within(1, 3);
    a_charge_that_a_person_resolves: after_charge(resolve("charge")).contract(without_either).within(2, 2);
    a_refund_that_a_person_resolves:
        Scenario::new(vec![charge(), refund("refund", "40.00"), resolve("refund")]).contract(without_either).within(2, 2);
}

/// The sync asks, and the refund is done; then the sync asks anew, for what it was told is old, and the commit of that brings
/// no answer. Its worker decides on the old answer once more: it still is the answer to the old question.
#[test]
fn an_old_answer_whose_first_decision_was_lost() {
    let scenario = Scenario::new(vec![charge(), sync(), refund("refund", "40.00")]);
    explore(scenario.where_only(|by| matches!(by, Move::Tick | Move::Settle { lost: true, .. })).within(2, 1));
}
