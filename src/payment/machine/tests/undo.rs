//! Undoing: what is lost at a gateway that cannot be asked is taken back, and what the gateway says of that counts alone.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, OTHER_WORKER, approved, found, keys, result, timed_out, usd};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::event::EventKind;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Exposure, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// A bench whose gateway knows no keys, cannot be asked, and undoes.
fn undoing(status: Status) -> Bench {
    let mut bench = Bench::with_payment(status);
    bench.rules.contract.keys = keys(None);
    bench.rules.contract.lookup = Lookup::None;
    bench.rules.contract.undo = true;
    bench
}

/// One whose process timed out.
fn lost(capture: bool) -> (Bench, Uuid) {
    let mut bench = undoing(Status::Waiting);
    let pay = bench.call("pay", CommandType::Process, json!({"capture": capture}));
    bench.settle(pay, timed_out());
    (bench, pay)
}

fn transaction(pay: Uuid, capture: bool, state: TransactionState) -> Transaction {
    let kind = if capture { TransactionKind::Capture } else { TransactionKind::Authorization };
    let (reference, attribution) = (Some("tx-1".to_owned()), Attribution::Recorded(pay));
    Transaction { kind, reference, parent: None, attribution, state, amount: usd("100") }
}

fn undone(pay: Uuid, capture: bool) -> Found {
    Found::Undone(vec![transaction(pay, capture, TransactionState::Reversed)])
}

/// Tells the gateway to undo it, when that is due; what it says.
fn undo(bench: &mut Bench, pay: Uuid, says: Found) -> Step {
    assert_eq!(bench.resume_when_due(pay), Step::Undo(pay));
    bench.found(pay, Some(pay), says)
}

fn charged(pay: Uuid, capture: bool) -> Outcome {
    let verdict = if capture { Verdict::Approved } else { Verdict::Authorized };
    let transactions = vec![transaction(pay, capture, TransactionState::Done)];
    Outcome::Result(Box::new(GatewayResult { transactions, ..GatewayResult::new(verdict) }))
}

#[test]
fn nothing_is_undone_while_calls_are_paused() {
    let (mut bench, pay) = lost(true);
    bench.paused_for = Some(Duration::from_secs(10));
    assert_eq!(bench.resume_when_due(pay), Step::Stored);
    assert_eq!(bench.operation(pay).due_at, Some(bench.now + Duration::from_secs(10)));
    bench.paused_for = None;
    undo(&mut bench, pay, undone(pay, true));
    assert_eq!(bench.operation(pay).state, State::Settled);
}

#[test]
fn what_is_undone_fails_with_nothing_held_and_can_be_tried_again() {
    for capture in [true, false] {
        let (mut bench, pay) = lost(capture);
        let sent = bench.now;
        assert_eq!(bench.operation(pay).due_at, Some(sent + SignedDuration::from_secs(10)), "after the settle window");
        assert_eq!((bench.state(pay), bench.delayed()), (State::Unknown, Some(Code::Timeout)));
        assert_eq!(undo(&mut bench, pay, undone(pay, capture)), Step::Settled);
        assert_eq!((bench.status(), bench.answer(pay)), (Status::Error, (AnswerKind::Failed, Some(Code::Timeout))));
        assert_eq!((bench.amounts()[1].as_str(), bench.payment().amounts.capturable), ("0.00", usd("0")));
        // The answer that was lost is found after all: it is older.
        bench.settle(pay, charged(pay, capture));
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Error, "0.00"));
        assert!(bench.emitted.is_empty());
        // Another process is no second charge, and of no more than there is.
        let again = bench.call("again", CommandType::Process, json!({"capture": capture}));
        bench.settle(again, approved());
        assert_eq!(bench.status(), if capture { Status::Confirmed } else { Status::Preauth });
        let reason = bench.emitted.iter().find_map(|event| match &event.kind {
            EventKind::StatusChanged { why, .. } => Some((why.code, why.discrepancy)),
            _ => None,
        });
        assert_eq!(reason, Some((None, None)));
        if !capture {
            assert_eq!(bench.payment().capturable(), usd("100"), "the second one alone is held");
        }
    }
}

#[test]
fn that_nothing_was_there_to_be_undone_is_proof_by_the_rules_of_absence() {
    let (mut bench, pay) = lost(true);
    bench.clocks_agree = false;
    assert_eq!(undo(&mut bench, pay, Found::Nothing), Step::Stored);
    assert_eq!((bench.state(pay), bench.operation(pay).sent.generation), (State::Unknown, 0), "the clocks differ");
    bench.clocks_agree = true;
    assert_eq!(undo(&mut bench, pay, Found::Nothing), Step::Stored);
    let anew = bench.operation(pay);
    assert_eq!((anew.state, anew.sent.generation, anew.sent.exposure), (State::Scheduled, 1, Exposure::Clean));
    assert_eq!(bench.resume(pay), Step::Call(pay));
    // What it is told now is of the new key.
    bench.settle(pay, approved());
    assert_eq!(bench.status(), Status::Confirmed);
    // Where the retries are used up, it fails.
    let (mut bench, pay) = lost(true);
    bench.rules.delayed = Vec::new();
    undo(&mut bench, pay, Found::Nothing);
    assert_eq!((bench.status(), bench.answer(pay)), (Status::Error, (AnswerKind::Failed, Some(Code::Timeout))));
}

#[test]
fn while_it_is_undone_no_older_word_counts_but_that_it_was_declined() {
    let (mut bench, pay) = lost(true);
    assert_eq!(bench.resume_when_due(pay), Step::Undo(pay));
    // The answer comes after all, while the gateway undoes what it tells of.
    bench.settle(pay, charged(pay, true));
    assert_eq!((bench.status(), bench.state(pay)), (Status::Waiting, State::Unknown));
    // The answer to that is lost too; it is undone again.
    let no_answer = Found::Failed(GatewayError::new(Code::Timeout, "no answer"));
    assert_eq!(bench.found(pay, Some(pay), no_answer), Step::Stored);
    bench.settle(pay, charged(pay, true));
    assert_eq!((bench.status(), bench.state(pay)), (Status::Waiting, State::Unknown));
    assert_eq!(undo(&mut bench, pay, undone(pay, true)), Step::Settled);
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Error, "0.00"));

    let (mut bench, pay) = lost(true);
    bench.resume_when_due(pay);
    bench.settle(pay, result(Verdict::Declined(Decline::Hard)));
    assert_eq!((bench.status(), bench.answer(pay).1), (Status::Rejected, Some(Code::Declined)));
    bench.found(pay, Some(pay), Found::Undone(Vec::new()));
    assert_eq!((bench.status(), bench.emitted()), (Status::Rejected, Vec::new()));
}

#[test]
fn what_cannot_be_undone_is_what_the_gateway_says_or_a_persons() {
    // It was captured, and stays so.
    let (mut bench, pay) = lost(true);
    assert_eq!(undo(&mut bench, pay, found(Verdict::Approved)), Step::Settled);
    assert_eq!((bench.status(), bench.answer(pay).0), (Status::Confirmed, AnswerKind::Succeeded));
    // It refuses: a person must say, at once.
    let (mut bench, pay) = lost(true);
    assert_eq!(undo(&mut bench, pay, Found::Failed(GatewayError::new(Code::Refused, "too late"))), Step::Stored);
    assert_eq!((bench.delayed(), bench.operation(pay).due_at), (Some(Code::Escalated), None));
    // It cannot be reached: tried again and again, and told after some.
    let (mut bench, pay) = lost(true);
    for _ in 0..3 {
        undo(&mut bench, pay, Found::Failed(GatewayError::new(Code::Timeout, "no answer")));
    }
    assert!(bench.operation(pay).escalated && bench.operation(pay).due_at.is_some());
    assert_eq!(undo(&mut bench, pay, undone(pay, true)), Step::Settled);
    assert_eq!(bench.status(), Status::Error);
}

#[test]
fn only_a_lost_process_at_a_gateway_that_cannot_be_asked_is_undone() {
    let mut bench = undoing(Status::Confirmed);
    let refund = bench.call("refund", CommandType::Refund, json!({}));
    bench.settle(refund, timed_out());
    assert_eq!((bench.delayed(), bench.operation(refund).due_at), (Some(Code::Escalated), None));
    // What it accepted it has not lost.
    let mut bench = undoing(Status::Waiting);
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    assert_eq!((bench.state(pay), bench.operation(pay).escalated), (State::Pending, true));
    // What may be sent again is.
    let mut bench = undoing(Status::Waiting);
    bench.rules.contract.keys = keys(Some(Duration::from_secs(24 * 60 * 60)));
    let pay = bench.call("pay", CommandType::Process, json!({}));
    assert_eq!(bench.settle(pay, timed_out()), Step::RetryNow(pay));
    // Who can be asked is.
    let (mut bench, pay) = lost(true);
    bench.rules.contract.lookup = Lookup::Authoritative;
    assert_eq!(bench.resume_when_due(pay), Step::LookUp { operation: pay, target: Some(pay) });
}

#[test]
fn who_is_no_longer_in_charge_ends_nothing_by_what_was_undone() {
    let (mut bench, pay) = lost(true);
    bench.resume_when_due(pay);
    // Its worker stalls; another one finds nothing to undo, and begins anew.
    bench.worker = OTHER_WORKER;
    bench.wait(20);
    assert_eq!(bench.resume(pay), Step::Undo(pay));
    bench.found(pay, Some(pay), Found::Nothing);
    assert_eq!(bench.resume(pay), Step::Call(pay));
    bench.worker = super::bench::WORKER;
    assert_eq!(bench.found(pay, Some(pay), undone(pay, true)), Step::Stored);
    assert_eq!((bench.state(pay), bench.status()), (State::Calling, Status::Waiting));
    bench.worker = OTHER_WORKER;
    let second = Transaction { reference: Some("tx-2".to_owned()), ..transaction(pay, true, TransactionState::Done) };
    let answer = GatewayResult { transactions: vec![second], ..GatewayResult::new(Verdict::Approved) };
    bench.settle(pay, Outcome::Result(Box::new(answer)));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
}
