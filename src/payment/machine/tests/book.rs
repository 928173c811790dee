//! Booking by the gateway's own references: whose money it is, how far it has come, and what a contradiction does.

use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, approved, command, found, operation_id, payment_data, result, usd};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Captures;
use crate::payment::event::EventKind;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

fn transaction(kind: TransactionKind, reference: &str, amount: &str) -> Transaction {
    Transaction {
        kind,
        reference: Some(reference.to_owned()),
        parent: None,
        attribution: Attribution::Unattributed,
        state: TransactionState::Done,
        amount: usd(amount),
    }
}

fn capture(reference: &str, amount: &str) -> Transaction {
    transaction(TransactionKind::Capture, reference, amount)
}

fn of(operation: Uuid, transaction: Transaction) -> Transaction {
    Transaction { attribution: Attribution::Recorded(operation), ..transaction }
}

fn reversed(transaction: Transaction) -> Transaction {
    Transaction { state: TransactionState::Reversed, ..transaction }
}

fn saying(verdict: Verdict, transactions: Vec<Transaction>) -> Box<GatewayResult> {
    Box::new(GatewayResult { transactions, ..GatewayResult::new(verdict) })
}

/// A payment of 100.00 that was charged as `tx-1`.
fn charged() -> (Bench, Uuid) {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("pay", CommandType::Process, json!({}));
    let charge = of(process, capture("tx-1", "100"));
    bench.settle(process, Outcome::Result(saying(Verdict::Approved, vec![charge])));
    assert_eq!(bench.status(), Status::Confirmed);
    (bench, process)
}

/// A payment of which 100.00 is held as `auth-1`, at a gateway that takes several captures.
fn held() -> Bench {
    let mut bench = Bench::new();
    bench.rules.contract.captures = Captures::Several;
    bench.send("create", CommandType::Create, payment_data());
    let process = bench.call("hold", CommandType::Process, json!({"capture": false}));
    let authorization = of(process, transaction(TransactionKind::Authorization, "auth-1", "100"));
    bench.settle(process, Outcome::Result(saying(Verdict::Authorized, vec![authorization])));
    assert_eq!((bench.status(), bench.payment().capturable()), (Status::Preauth, usd("100")));
    bench
}

/// A sync learns this of the whole payment; what it is answered.
fn sync(bench: &mut Bench, id: &str, transactions: Vec<Transaction>) -> (AnswerKind, Option<Code>) {
    let id = {
        let operation = operation_id(id);
        assert_eq!(bench.send(id, CommandType::Sync, json!({})), Step::LookUp { operation, target: None });
        operation
    };
    bench.found(id, None, Found::Result(saying(Verdict::Pending, transactions)));
    bench.answer(id)
}

/// The code that the last commit told with a change of the payment.
fn code(bench: &Bench) -> Option<Code> {
    bench.emitted.iter().find_map(|event| match &event.kind {
        EventKind::Updated { why, .. } | EventKind::StatusChanged { why, .. } => why.code,
        _ => None,
    })
}

#[test]
fn a_look_up_that_finds_the_money_of_another_operation_says_nothing_of_its_own() {
    let mut bench = Bench::with_payment(Status::Preauth);
    bench.rules.contract.keys = super::bench::keys(None);
    let first = bench.call("first", CommandType::Capture, json!({}));
    bench.settle(first, super::bench::timed_out());
    // Another one that took 60.00 was settled before; its money is told once more.
    let other = Uuid::from_u128(77);
    let money = of(other, capture("cap-9", "60"));
    bench.resume_when_due(first);
    assert_eq!(bench.found(first, Some(first), Found::OfOthers(vec![money])), Step::Stored);
    assert_eq!((bench.state(first), bench.amounts()[1].as_str()), (State::Unknown, "60.00"));
    assert_eq!(bench.operation(first).sent.generation, 0, "it is no proof of absence");
}

#[test]
fn a_reference_only_moves_forward() {
    let (mut bench, process) = charged();
    for state in [TransactionState::Pending, TransactionState::Failed] {
        let older = Transaction { state, ..of(process, capture("tx-1", "100")) };
        sync(&mut bench, state.as_str(), vec![older]);
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"), "{state:?}");
    }
    // What was never done came to nothing.
    sync(&mut bench, "other", vec![reversed(capture("tx-2", "100"))]);
    assert_eq!(bench.amounts()[1], "100.00");
    sync(&mut bench, "reversed", vec![reversed(of(process, capture("tx-1", "100")))]);
    assert_eq!((bench.status(), bench.amounts()), (Status::Rejected, ["0.00", "0.00", "0.00"].map(str::to_owned)));
    // Done again is an older word.
    sync(&mut bench, "again", vec![of(process, capture("tx-1", "100"))]);
    assert_eq!(bench.amounts()[1], "0.00");
    // The customer may try again.
    let again = bench.call("again-pay", CommandType::Process, json!({}));
    let charge = of(again, capture("tx-3", "100"));
    bench.settle(again, Outcome::Result(saying(Verdict::Approved, vec![charge])));
    assert_eq!((bench.status(), code(&bench)), (Status::Confirmed, None), "what never arrived is no double charge");
}

#[test]
fn what_was_asked_before_the_last_change_takes_nothing_away() {
    let (mut bench, process) = charged();
    let id = operation_id("s");
    bench.send("s", CommandType::Sync, json!({}));
    let asked = bench.asked(id);
    let refund = bench.call("refund", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(refund, approved());
    let gone = vec![reversed(of(process, capture("tx-1", "100")))];
    let step = bench.found_of(id, None, asked, Found::Result(saying(Verdict::Pending, gone)));
    assert_eq!(step, Step::LookUp { operation: id, target: None }, "it is asked again");
    assert_eq!(bench.amounts(), ["0.00", "90.00", "10.00"]);
}

#[test]
fn two_charges_are_both_booked_and_reported() {
    // Of one operation under two references.
    let (mut bench, process) = charged();
    let other = of(process, capture("tx-2", "100"));
    bench.settle(process, Outcome::Result(saying(Verdict::Approved, vec![other.clone()])));
    assert_eq!((bench.amounts()[1].as_str(), code(&bench)), ("200.00", Some(Code::DoubleCharge)));
    bench.settle(process, Outcome::Result(saying(Verdict::Approved, vec![other])));
    assert!(bench.emitted.is_empty(), "the same again is no news");
    // Of nobody known, told with the whole payment.
    let (mut bench, process) = charged();
    let both = || vec![of(process, capture("tx-1", "100")), capture("tx-9", "100")];
    assert_eq!(sync(&mut bench, "a", both()).0, AnswerKind::Succeeded);
    assert_eq!((bench.amounts()[1].as_str(), code(&bench)), ("200.00", Some(Code::DoubleCharge)));
    sync(&mut bench, "b", both());
    assert_eq!(bench.amounts()[1], "200.00");
    assert_eq!(bench.rejected("r", CommandType::Refund, json!({"reference": "tx-8"})), Code::InvalidData);
    let refund = bench.call("r2", CommandType::Refund, json!({"amount": "100", "reference": "tx-9"}));
    assert_eq!(bench.operation(refund).refunds_from(), Some("tx-9"));
}

#[test]
fn money_of_an_operation_is_counted_once_with_and_without_a_reference() {
    // What an earlier release booked has no reference; it is filled in, and counted no second time.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let process = operation_id("setup");
    assert_eq!(bench.store.movements[0].gateway_reference, None);
    sync(&mut bench, "a", vec![of(process, capture("tx-1", "100"))]);
    assert_eq!(bench.store.movements[0].gateway_reference.as_deref(), Some("tx-1"));
    assert_eq!((bench.store.movements.len(), bench.amounts()[1].as_str()), (1, "100.00"));
    sync(&mut bench, "b", vec![of(process, capture("tx-1", "100"))]);
    assert_eq!(bench.store.movements.len(), 1);
}

#[test]
fn an_authorization_is_captured_in_parts_and_the_rest_let_go() {
    let mut bench = held();
    let capturable = |bench: &Bench| bench.payment().capturable().to_string();
    for (id, amount, left) in [("a", "30", "70.00"), ("b", "20", "50.00")] {
        let part = bench.call(id, CommandType::Capture, json!({"amount": amount, "final": false}));
        bench.settle(part, approved());
        assert_eq!((bench.status(), capturable(&bench).as_str()), (Status::Preauth, left), "{id}");
        assert_eq!(bench.emitted(), [("payment.updated", true)]);
    }
    assert_eq!(bench.rejected("c", CommandType::Capture, json!({"amount": "50.01"})), Code::InvalidAmount);
    // Refunded while more is held.
    let refund = bench.call("d", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(refund, approved());
    assert_eq!((bench.status(), bench.amounts()), (Status::Preauth, ["100.00", "40.00", "10.00"].map(str::to_owned)));
    let last = bench.call("e", CommandType::Capture, json!({"amount": "15"}));
    bench.settle(last, approved());
    assert_eq!((bench.status(), capturable(&bench).as_str()), (Status::Confirmed, "0.00"));
    // Voided, and not only out of reach because of the status.
    assert_eq!(bench.payment().amounts.capturable, usd("0"));
    assert_eq!(bench.amounts(), ["100.00", "55.00", "10.00"]);
    assert_eq!(bench.rejected("f", CommandType::Capture, json!({})), Code::NotAllowed);
}

#[test]
fn a_release_lets_the_rest_of_several_captures_go() {
    let mut bench = held();
    let part = bench.call("a", CommandType::Capture, json!({"amount": "30", "final": false}));
    bench.settle(part, approved());
    let release = bench.call("b", CommandType::Release, json!({}));
    assert_eq!(bench.operation(release).amount(), Some(usd("70")), "what is left");
    bench.settle(release, approved());
    assert_eq!((bench.status(), bench.payment().capturable()), (Status::Confirmed, usd("0")));
    assert_eq!(bench.amounts(), ["100.00", "30.00", "0.00"]);
    // All of it captured in parts: the last part ends it by itself.
    let mut bench = held();
    for id in ["a", "b"] {
        let part = bench.call(id, CommandType::Capture, json!({"amount": "50", "final": false}));
        bench.settle(part, approved());
    }
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn several_captures_are_refused_where_the_gateway_takes_one() {
    let mut bench = Bench::with_payment(Status::Preauth);
    let part = json!({"amount": "30", "final": false});
    assert_eq!(bench.rejected("a", CommandType::Capture, part), Code::Unsupported);
}

#[test]
fn a_cancel_that_is_approved_over_money_is_no_cancel() {
    for (says, status, captured) in [
        (Some("0"), Status::Cancelled, "0.00"),
        (Some("100"), Status::Confirmed, "100.00"),
        (None, Status::Confirmed, "100.00"),
    ] {
        let mut bench = Bench::with_payment(Status::Waiting);
        let process = bench.call("pay", CommandType::Process, json!({}));
        bench.settle(process, result(Verdict::Pending));
        let cancel = bench.call("cancel", CommandType::Cancel, json!({}));
        // Meanwhile it was paid.
        bench.found(process, Some(process), found(Verdict::Approved));
        assert_eq!(bench.status(), Status::Confirmed);
        bench.wait(20);
        let step = bench.settle(cancel, approved());
        assert_eq!((bench.state(cancel), bench.delayed()), (State::Unknown, Some(Code::Mismatch)));
        let asks = Step::LookUp { operation: cancel, target: None };
        if step != asks {
            assert_eq!(bench.resume_when_due(cancel), asks);
        }
        let whole = GatewayResult {
            captured: says.map(usd),
            refunded: says.map(|_| usd("0")),
            ..GatewayResult::new(Verdict::Pending)
        };
        bench.found(cancel, None, Found::Result(Box::new(whole)));
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (status, captured), "{says:?}");
        assert_eq!(bench.state(cancel) == State::Settled, says == Some("0"), "until it is known, it stays open");
    }
}

#[test]
fn the_id_that_a_person_names_is_no_second_charge_beside_the_gateways_own() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(process, Outcome::Unknown(GatewayError::new(Code::Mismatch, "the gateway answered in GBP")));
    let escalated = bench.store.operations.iter_mut().find(|row| row.id == process).unwrap();
    escalated.escalated = true;
    let data = json!({
        "operation": process.to_string(), "outcome": "approved", "transaction_id": "by hand", "evidence": "the statement",
    });
    let mut resolve = command("resolve", CommandType::Resolve, data);
    resolve.attributes.user_id = Some("alice".to_owned());
    assert_eq!(bench.send_command(resolve), Step::Settled);
    assert_eq!(bench.amounts()[1], "100.00");

    let charge = || of(process, capture("tx-1", "100"));
    assert_eq!(sync(&mut bench, "a", vec![charge()]).0, AnswerKind::Succeeded);
    assert_eq!((bench.amounts()[1].as_str(), code(&bench)), ("100.00", None));
    assert_eq!(bench.store.movements[0].gateway_reference.as_deref(), Some("tx-1"), "it is kept from now on");

    // Another one under another reference is one too many.
    sync(&mut bench, "b", vec![charge(), of(process, capture("tx-2", "100"))]);
    assert_eq!((bench.amounts()[1].as_str(), code(&bench)), ("200.00", Some(Code::DoubleCharge)));
}

#[test]
fn a_bare_approval_stands_for_no_money_that_was_lost_again() {
    let lost_to_a_dispute = transaction(TransactionKind::Dispute, "dp-1", "100");
    for lost in [reversed(capture("tx-1", "100")), lost_to_a_dispute] {
        let (mut bench, _) = charged();
        sync(&mut bench, "a", vec![lost.clone()]);
        assert_eq!(bench.amounts()[1], "0.00", "{lost:?}");
        let id = operation_id("b");
        bench.send("b", CommandType::Sync, json!({}));
        bench.found(id, None, found(Verdict::Approved));
        assert_eq!(bench.amounts()[1], "0.00", "{lost:?}");
    }
}
