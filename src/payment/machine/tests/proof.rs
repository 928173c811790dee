//! Notifications as proof: what a gateway signs counts as what it answers, once, and in whatever order it comes.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, approved, command, keys, operation_id, payment_data, result, timed_out, usd};
use super::store::PAYMENT;
use crate::payment::code::Code;
use crate::payment::command::{Command, CommandType};
use crate::payment::contract::{Lookup, NotificationRole};
use crate::payment::event::{Discrepancy, EventKind, Reason};
use crate::payment::fact::{Fact, Proof, Proved, proved_operations};
use crate::payment::machine::Step;
use crate::payment::money::{Currency, Money};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

const DEADLINE: SignedDuration = SignedDuration::from_hours(1);

/// A bench whose gateway cannot be asked and knows no keys: it tells by itself what happened.
fn proving_gateway() -> Bench {
    proving_gateway_at(Status::Waiting)
}

fn proving_gateway_at(status: Status) -> Bench {
    let mut bench = Bench::with_payment(status);
    bench.rules.contract.keys = keys(None);
    bench.rules.contract.lookup = Lookup::None;
    bench.rules.contract.notifications = NotificationRole::Proof { deadline: Duration::from_secs(3600) };
    bench
}

fn transaction(kind: TransactionKind, state: TransactionState, reference: &str, amount: &str) -> Transaction {
    let attribution = Attribution::Unattributed;
    Transaction { kind, reference: Some(reference.to_owned()), parent: None, attribution, state, amount: usd(amount) }
}

fn capture(state: TransactionState, reference: &str) -> Transaction {
    transaction(TransactionKind::Capture, state, reference, "100")
}

/// What the gateway says of money that it keeps an operation of ours with, or none.
fn fact(operation: Option<Uuid>, transaction: Transaction) -> Fact {
    let attribution = operation.map_or(Attribution::Unattributed, Attribution::Recorded);
    proving(operation, Proved::Money(Transaction { attribution, ..transaction }))
}

fn proving(operation: Option<Uuid>, what: Proved) -> Fact {
    let proof = Proof { what, transaction_id: None, code: None, message: String::new() };
    let kind = "news".to_owned();
    Fact { payment_id: Some(PAYMENT), operation_id: operation, kind, proof: Some(proof), ..Fact::default() }
}

fn notification(id: &str, facts: &[Fact]) -> Command {
    command(id, CommandType::Notification, json!({"facts": facts}))
}

/// A notification comes; what is proved of is loaded with it.
fn notify(bench: &mut Bench, id: &str, facts: &[Fact]) -> Step {
    let notification = notification(id, facts);
    let mut wanted = proved_operations(facts);
    wanted.push(notification.operation_id());
    bench.decide(&wanted, |aggregate, context| aggregate.accept(notification, context))
}

/// One that changes what it proves, and is answered at once.
fn prove(bench: &mut Bench, id: &str, fact: Fact) {
    assert_eq!(notify(bench, id, &[fact]), Step::Settled);
    assert_eq!(bench.answer(operation_id(id)), (AnswerKind::Succeeded, None), "{:?}", bench.emitted);
}

/// Why the last commit told that a command failed.
fn failure(bench: &Bench) -> &Reason {
    let failed = bench.emitted.iter().find_map(|event| match &event.kind {
        EventKind::Failed { why, .. } => Some(why),
        _ => None,
    });
    failed.expect("a failure")
}

#[test]
fn an_operation_that_is_open_is_settled_by_its_proof_and_the_answer_counts_once() {
    // Its result was to come; its answer was lost; or the proof was faster than the answer.
    for state in [State::Pending, State::Unknown, State::Calling] {
        let mut bench = proving_gateway();
        let pay = bench.call("pay", CommandType::Process, json!({}));
        match state {
            State::Pending => drop(bench.settle(pay, result(Verdict::Pending))),
            State::Unknown => drop(bench.settle(pay, timed_out())),
            _ => {}
        }
        assert_eq!(bench.state(pay), state);
        prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
        assert_eq!((bench.status(), bench.state(pay)), (Status::Confirmed, State::Settled), "{state:?}");
        let change = bench.emitted.iter().find(|event| event.kind.type_name() == "payment.status_changed").unwrap();
        assert_eq!(change.cause.as_ref().unwrap().name.id, "pay", "its own command is the cause");
        // The same under another name, and the answer, late and under the same reference.
        prove(&mut bench, "again", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
        assert_eq!(bench.emitted(), [("command.succeeded", true)]);
        let charge = Transaction { attribution: Attribution::Answered(pay), ..capture(TransactionState::Done, "tx-1") };
        let answer = GatewayResult { transactions: vec![charge], ..GatewayResult::new(Verdict::Approved) };
        bench.settle(pay, Outcome::Result(Box::new(answer)));
        assert_eq!(bench.amounts()[1], "100.00", "{state:?}");
    }
}

#[test]
fn what_waits_for_a_proof_is_left_to_a_person_at_the_deadline_and_no_sooner() {
    for pending in [true, false] {
        let mut bench = proving_gateway();
        let pay = bench.call("pay", CommandType::Process, json!({}));
        let sent = bench.now;
        bench.settle(pay, if pending { result(Verdict::Pending) } else { timed_out() });
        let waits = bench.operation(pay);
        assert_eq!((waits.due_at, waits.escalated), (Some(sent + DEADLINE), false));
        // Looked at sooner, it waits on.
        bench.wait(60);
        assert_eq!(bench.resume(pay), Step::Stored);
        assert_eq!((bench.operation(pay).due_at, bench.emitted()), (Some(sent + DEADLINE), Vec::new()));
        assert_eq!(bench.resume_when_due(pay), Step::Stored);
        assert_eq!((bench.delayed(), bench.operation(pay).due_at), (Some(Code::Escalated), None));
        // The proof is late, and counts.
        prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
        assert_eq!((bench.status(), bench.state(pay)), (Status::Confirmed, State::Settled));
    }
}

#[test]
fn a_proof_that_it_is_pending_does_not_move_the_deadline() {
    let mut bench = proving_gateway();
    let pay = bench.call("pay", CommandType::Process, json!({}));
    let sent = bench.now;
    bench.settle(pay, timed_out());
    bench.wait(600);
    prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Pending, "tx-1")));
    assert_eq!((bench.state(pay), bench.operation(pay).due_at), (State::Pending, Some(sent + DEADLINE)));
}

#[test]
fn a_reference_only_moves_forward_in_any_order_of_its_proofs() {
    use TransactionState::{Done, Failed, Pending, Reversed};
    let orders: [(&[TransactionState], Status, &str); 8] = [
        (&[Pending, Done], Status::Confirmed, "100.00"),
        (&[Done, Pending], Status::Confirmed, "100.00"),
        (&[Failed, Done], Status::Confirmed, "100.00"),
        (&[Done, Failed], Status::Confirmed, "100.00"),
        (&[Done, Done, Reversed], Status::Rejected, "0.00"),
        (&[Done, Reversed, Done, Failed], Status::Rejected, "0.00"),
        // It was gone before anybody told that it had been there.
        (&[Reversed, Done], Status::Rejected, "0.00"),
        (&[Reversed, Pending, Done, Reversed], Status::Rejected, "0.00"),
    ];
    for (order, status, captured) in orders {
        let mut bench = proving_gateway();
        let pay = bench.call("pay", CommandType::Process, json!({}));
        bench.settle(pay, result(Verdict::Pending));
        for (number, state) in order.iter().enumerate() {
            prove(&mut bench, &number.to_string(), fact(Some(pay), capture(*state, "tx-1")));
        }
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (status, captured), "{order:?}");
    }
}

#[test]
fn money_of_no_operation_belongs_to_the_payment_and_is_reported_once() {
    let refunded = |reference| transaction(TransactionKind::Refund, TransactionState::Done, reference, "30");
    let mut bench = proving_gateway_at(Status::Confirmed);
    prove(&mut bench, "hook", fact(None, refunded("re-1")));
    assert_eq!(bench.emitted(), [("payment.updated", true)], "the notification's own answer tells it");
    prove(&mut bench, "again", fact(None, refunded("re-1")));
    assert_eq!((bench.emitted(), bench.amounts()[2].as_str()), (vec![("command.succeeded", true)], "30.00"));
    // A refund of ours that nobody can be asked about, and one more at the desk.
    let refund = bench.call("refund", CommandType::Refund, json!({"amount": "20"}));
    bench.settle(refund, result(Verdict::Pending));
    prove(&mut bench, "desk", fact(None, refunded("re-2")));
    let ours = transaction(TransactionKind::Refund, TransactionState::Done, "re-3", "20");
    prove(&mut bench, "ours", fact(Some(refund), ours));
    assert_eq!((bench.state(refund), bench.amounts()[2].as_str()), (State::Settled, "80.00"));
    // A dispute comes with the id of the process: it is not what that did.
    let dispute = transaction(TransactionKind::Dispute, TransactionState::Done, "dp-1", "20");
    prove(&mut bench, "dispute", fact(Some(operation_id("setup")), dispute));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Refunded, "0.00"));
}

#[test]
fn several_proofs_in_one_notification_are_each_reported() {
    let mut bench = proving_gateway_at(Status::Confirmed);
    let of = |kind, reference, amount| fact(None, transaction(kind, TransactionState::Done, reference, amount));
    let facts = [of(TransactionKind::Refund, "re-1", "60"), of(TransactionKind::Refund, "re-2", "40")];
    assert_eq!(notify(&mut bench, "hook", &facts), Step::Settled);
    assert_eq!(bench.emitted(), [("payment.updated", false), ("payment.status_changed", true)]);
    assert_eq!((bench.status(), bench.amounts()[2].as_str()), (Status::Refunded, "100.00"));
}

#[test]
fn a_proof_that_contradicts_the_books_changes_nothing() {
    let other = |amount: Money| {
        let captured = capture(TransactionState::Done, "tx-1");
        fact(Some(operation_id("pay")), Transaction { amount, ..captured })
    };
    let euros = Money::parse("100", Currency::from_code("EUR").unwrap()).unwrap();
    for (amount, discrepancy) in
        [(usd("60"), Some(Discrepancy { asked: usd("100"), answered: usd("60") })), (euros, None)]
    {
        let mut bench = proving_gateway();
        let pay = bench.call("pay", CommandType::Process, json!({}));
        bench.settle(pay, result(Verdict::Pending));
        prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
        assert_eq!(notify(&mut bench, "odd", &[other(amount)]), Step::Settled);
        assert_eq!((failure(&bench).code, failure(&bench).discrepancy), (Some(Code::Mismatch), discrepancy));
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
        // A gateway that can be asked is.
        bench.rules.contract.lookup = Lookup::Authoritative;
        let asks = Step::LookUp { operation: operation_id("odder"), target: None };
        assert_eq!(notify(&mut bench, "odder", &[other(amount)]), asks);
    }
    // Of an operation that is open it is a person's, as its answer would be.
    let mut bench = proving_gateway();
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    assert_eq!(notify(&mut bench, "hook", &[other(euros)]), Step::Settled);
    assert_eq!((bench.state(pay), bench.operation(pay).escalated), (State::Unknown, true));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Waiting, "0.00"));
}

#[test]
fn a_cancel_is_proved_and_over_money_it_is_a_contradiction() {
    let cancelled = |cancel| proving(Some(cancel), Proved::Cancel(TransactionState::Done));
    let mut bench = proving_gateway();
    let cancel = bench.call("cancel", CommandType::Cancel, json!({}));
    bench.settle(cancel, result(Verdict::Pending));
    prove(&mut bench, "hook", cancelled(cancel));
    assert_eq!((bench.status(), bench.state(cancel)), (Status::Cancelled, State::Settled));

    let mut bench = proving_gateway();
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    let cancel = bench.call("cancel", CommandType::Cancel, json!({}));
    bench.settle(cancel, result(Verdict::Pending));
    prove(&mut bench, "paid", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
    prove(&mut bench, "hook", cancelled(cancel));
    assert_eq!((bench.status(), bench.state(cancel)), (Status::Confirmed, State::Unknown));
    assert!(bench.operation(cancel).escalated, "nobody can be asked");
}

#[test]
fn a_second_charge_is_booked_and_reported() {
    let mut bench = proving_gateway();
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
    assert_eq!(notify(&mut bench, "other", &[fact(None, capture(TransactionState::Done, "tx-2"))]), Step::Settled);
    let code = bench.emitted.iter().find_map(|event| match &event.kind {
        EventKind::Updated { why, .. } => why.code,
        _ => None,
    });
    assert_eq!((code, bench.amounts()[1].as_str()), (Some(Code::DoubleCharge), "200.00"));
}

#[test]
fn what_proves_nothing_is_a_hint_and_a_hint_at_a_gateway_that_cannot_be_asked_is_refused() {
    let hint = Fact { kind: "news".to_owned(), ..Fact::default() };
    let mut bench = proving_gateway();
    assert_eq!(notify(&mut bench, "hint", std::slice::from_ref(&hint)), Step::Settled);
    assert_eq!(bench.rejection(), Code::Unsupported);
    assert_eq!(bench.rejected("sync", CommandType::Sync, json!({})), Code::Unsupported);
    // What the contract does not take for proof only says where to look.
    let mut bench = Bench::with_payment(Status::Waiting);
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    let facts = [fact(Some(pay), capture(TransactionState::Done, "tx-1"))];
    let asks = Step::LookUp { operation: operation_id("hook"), target: Some(pay) };
    assert_eq!(notify(&mut bench, "hook", &facts), asks);
    assert_eq!((bench.status(), bench.state(pay)), (Status::Waiting, State::Pending));
    // Where both come together, the proof is applied and the rest is asked about.
    let mut bench = proving_gateway_at(Status::Confirmed);
    bench.rules.contract.lookup = Lookup::Authoritative;
    let refund = transaction(TransactionKind::Refund, TransactionState::Done, "re-1", "30");
    let asks = Step::LookUp { operation: operation_id("hook"), target: None };
    assert_eq!(notify(&mut bench, "hook", &[fact(None, refund), hint]), asks);
    assert_eq!((bench.emitted(), bench.amounts()[2].as_str()), (vec![("payment.updated", false)], "30.00"));
}

#[test]
fn a_proof_that_comes_before_its_payment_waits_for_it() {
    let mut bench = Bench::new();
    bench.rules.contract.lookup = Lookup::None;
    bench.rules.contract.notifications = NotificationRole::Proof { deadline: Duration::from_secs(3600) };
    let id = operation_id("hook");
    assert_eq!(notify(&mut bench, "hook", &[fact(None, capture(TransactionState::Done, "tx-1"))]), Step::Stored);
    bench.send("create", CommandType::Create, payment_data());
    bench.wait(5);
    assert_eq!(bench.resume(id), Step::Settled);
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    // A process is no longer wanted.
    assert_eq!(bench.rejected("pay", CommandType::Process, json!({})), Code::NotAllowed);
}

#[test]
fn what_a_person_resolved_is_not_counted_again_by_its_proof() {
    let mut bench = proving_gateway();
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, timed_out());
    let data = json!({"operation": pay.to_string(), "outcome": "approved", "evidence": "the portal"});
    let mut resolve = command("resolve", CommandType::Resolve, data);
    resolve.attributes.user_id = Some("alice".to_owned());
    assert_eq!(bench.send_command(resolve), Step::Settled);
    assert_eq!(bench.amounts()[1], "100.00");
    prove(&mut bench, "hook", fact(Some(pay), capture(TransactionState::Done, "tx-1")));
    assert_eq!((bench.emitted(), bench.amounts()[1].as_str()), (vec![("command.succeeded", true)], "100.00"));
    let refund = bench.call("refund", CommandType::Refund, json!({"reference": "tx-1"}));
    bench.settle(refund, approved());
    assert_eq!(bench.status(), Status::Refunded);
}
