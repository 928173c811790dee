//! Ready: the customer has approved, and paybus goes on by itself, once, under a key of its own.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, approved, command, found, keys, operation_id, result, timed_out, usd};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::{Lookup, NotificationRole};
use crate::payment::fact::{Fact, Proof, Proved};
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{Decline, Exposure, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// The processes that paybus began by itself.
fn own(bench: &Bench) -> Vec<&Operation> {
    bench.store.operations.iter().filter(|operation| operation.name.source == "paybus").collect()
}

/// A payment whose customer approved and closed the tab; the process that paybus began.
fn approved_alone() -> (Bench, Uuid) {
    let mut bench = Bench::with_payment(Status::Input);
    learn(&mut bench, "hook", CommandType::Notification);
    let id = own(&bench).first().expect("a process").id;
    (bench, id)
}

/// A sync, or a notification, learns that the payment is ready.
fn learn(bench: &mut Bench, id: &str, kind: CommandType) {
    let facts = if kind == CommandType::Notification { json!({"facts": [{"kind": "approved"}]}) } else { json!({}) };
    let operation = operation_id(id);
    assert_eq!(bench.send(id, kind, facts), Step::LookUp { operation, target: None });
    assert_eq!(bench.found(operation, None, found(Verdict::Ready)), Step::Settled);
    assert_eq!(bench.answer(operation), (AnswerKind::Succeeded, None));
}

#[test]
fn an_open_process_goes_on_under_a_key_of_its_own() {
    for state in [State::Calling, State::Pending, State::Unknown] {
        let mut bench = Bench::with_payment(Status::Waiting);
        bench.rules.contract.keys = keys(None);
        let pay = bench.call("pay", CommandType::Process, json!({}));
        let first_key = bench.operation(pay).key();
        if state == State::Calling {
            assert_eq!(bench.settle(pay, result(Verdict::Ready)), Step::Stored);
        } else {
            bench.settle(pay, if state == State::Pending { result(Verdict::Pending) } else { timed_out() });
            assert_eq!(bench.state(pay), state);
            assert_eq!(bench.resume_when_due(pay), Step::LookUp { operation: pay, target: Some(pay) });
            assert_eq!(bench.found(pay, Some(pay), found(Verdict::Ready)), Step::Stored);
        }
        let ready = bench.operation(pay);
        assert_eq!(
            (ready.state, ready.sent.exposure, ready.due_at),
            (State::Scheduled, Exposure::Clean, Some(bench.now))
        );
        assert!(ready.confirms() && ready.key() != first_key, "{state:?}");
        assert_eq!(ready.request.as_ref().unwrap().body, "", "it is written anew");
        assert_eq!((bench.payment().busy, bench.emitted()), (Some(pay), Vec::new()));
        assert_eq!(bench.resume(pay), Step::Call(pay));
        assert_eq!(bench.settle(pay, approved()), Step::Settled);
        assert_eq!((bench.status(), bench.emitted()), (Status::Confirmed, vec![("payment.status_changed", true)]));
        assert_eq!(own(&bench).len(), 0, "its own command is answered");
    }
}

#[test]
fn where_the_process_was_answered_paybus_begins_one_of_its_own() {
    let (mut bench, id) = approved_alone();
    let begun = bench.operation(id);
    assert_eq!((begun.state, begun.due_at), (State::Scheduled, Some(bench.now)));
    assert_eq!((begun.confirms(), begun.amount(), bench.payment().busy), (true, Some(usd("100")), Some(id)));
    assert!(begun.request.as_ref().unwrap().capture);
    assert_eq!(bench.status(), Status::Input, "until the gateway says more, it is the customer's turn");
    // Learnt again, it is begun already.
    for (name, kind) in [("again", CommandType::Notification), ("sync", CommandType::Sync)] {
        let operation = operation_id(name);
        let facts = if kind == CommandType::Notification { json!({"facts": [{"kind": "more"}]}) } else { json!({}) };
        bench.send(name, kind, facts);
        bench.found(operation, None, found(Verdict::Ready));
    }
    assert_eq!(own(&bench).len(), 1);
    assert_eq!(bench.resume(id), Step::Call(id));
    bench.settle(id, approved());
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    let change = bench.emitted.iter().find(|event| event.kind.type_name() == "payment.status_changed").unwrap();
    assert_eq!(change.cause.as_ref().unwrap().name.source, "paybus");
}

#[test]
fn a_customer_who_comes_back_is_not_charged_twice() {
    let (mut bench, id) = approved_alone();
    // The shop's own process waits for its turn while nothing is sent, and is refused while something is.
    assert_eq!(bench.send("back", CommandType::Process, json!({})), Step::Stored);
    assert_eq!(bench.resume(id), Step::Call(id));
    assert_eq!(bench.rejected("again", CommandType::Process, json!({})), Code::InProgress);
    bench.settle(id, approved());
    assert_eq!(bench.resume(operation_id("back")), Step::Settled);
    assert_eq!((bench.rejection(), bench.amounts()[1].as_str()), (Code::NotAllowed, "100.00"));
    // The shop was faster: nothing is begun beside it, whatever is learnt.
    let mut bench = Bench::with_payment(Status::Input);
    let back = bench.call("back", CommandType::Process, json!({}));
    let sync = operation_id("sync");
    assert_eq!(bench.send("sync", CommandType::Sync, json!({})), Step::LookUp { operation: sync, target: Some(back) });
    bench.found(sync, Some(back), found(Verdict::Ready));
    assert_eq!((own(&bench).len(), bench.state(back)), (0, State::Calling), "its own answer says more");
    bench.settle(back, result(Verdict::Ready));
    assert_eq!(bench.resume(back), Step::Call(back));
    bench.settle(back, approved());
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
}

#[test]
fn a_confirmation_that_was_lost_is_sent_anew_only_with_proof() {
    let (mut bench, id) = approved_alone();
    bench.rules.contract.keys = keys(None);
    bench.resume(id);
    bench.settle(id, timed_out());
    bench.clocks_agree = false;
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    assert_eq!(bench.found(id, Some(id), found(Verdict::Ready)), Step::Stored);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0), "the clocks differ");
    bench.clocks_agree = true;
    bench.resume_when_due(id);
    assert_eq!(bench.found(id, Some(id), found(Verdict::Ready)), Step::Stored);
    let anew = bench.operation(id);
    assert_eq!((anew.state, anew.sent.generation, anew.confirms()), (State::Scheduled, 1, true));
    assert_eq!(bench.resume(id), Step::Call(id));
    // An older word that it is ready stops nothing that is under way.
    let sync = operation_id("sync");
    bench.send("sync", CommandType::Sync, json!({}));
    bench.found(sync, Some(id), found(Verdict::Ready));
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Calling, 1));
    bench.settle(id, timed_out());
    bench.resume_when_due(id);
    bench.found(id, Some(id), found(Verdict::Approved));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
}

#[test]
fn what_is_refused_leaves_the_customers_turn_and_what_is_declined_ends_it() {
    let (mut bench, id) = approved_alone();
    bench.resume(id);
    bench.settle(id, Outcome::Refused(GatewayError::new(Code::Refused, "not approved")));
    assert_eq!((bench.status(), bench.answer(id)), (Status::Input, (AnswerKind::Failed, Some(Code::Refused))));
    learn(&mut bench, "again", CommandType::Sync);
    let second = own(&bench)[1].id;
    assert_ne!(second, id);
    bench.resume(second);
    bench.settle(second, result(Verdict::Declined(Decline::Hard)));
    assert_eq!((bench.status(), bench.answer(second).1), (Status::Rejected, Some(Code::Declined)));
    let sync = operation_id("late");
    bench.send("late", CommandType::Sync, json!({}));
    bench.found(sync, None, found(Verdict::Ready));
    assert_eq!(own(&bench).len(), 2, "what has ended is not gone on with");
}

#[test]
fn what_is_ready_waits_for_a_cancel_that_is_under_way() {
    for (cancelled, status) in [(true, Status::Cancelled), (false, Status::Confirmed)] {
        let mut bench = Bench::with_payment(Status::Waiting);
        let pay = bench.call("pay", CommandType::Process, json!({}));
        bench.settle(pay, result(Verdict::Pending));
        let cancel = bench.call("cancel", CommandType::Cancel, json!({}));
        bench.resume_when_due(pay);
        assert_eq!(bench.found(pay, Some(pay), found(Verdict::Ready)), Step::Stored);
        let waits = bench.operation(pay);
        assert_eq!((waits.state, waits.due_at), (State::Pending, Some(bench.now + SignedDuration::from_secs(60))));
        assert_eq!(bench.payment().busy, Some(cancel));
        bench.settle(cancel, if cancelled { approved() } else { result(Verdict::Declined(Decline::Hard)) });
        if cancelled {
            assert_eq!(bench.answer(pay), (AnswerKind::Failed, Some(Code::Cancelled)));
        } else {
            assert_eq!(bench.resume_when_due(pay), Step::Stored);
            assert_eq!((bench.state(pay), bench.payment().busy), (State::Scheduled, Some(pay)));
            assert_eq!(bench.resume(pay), Step::Call(pay));
            bench.settle(pay, approved());
        }
        assert_eq!(bench.status(), status);
    }
}

#[test]
fn what_the_customer_approved_goes_on_after_the_commands_time_and_at_a_retired_variant() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let mut pay = command("pay", CommandType::Process, json!({}));
    pay.attributes.expires_at = Some(bench.now + SignedDuration::from_secs(5));
    let id = pay.operation_id();
    assert_eq!(bench.send_command(pay), Step::Call(id));
    bench.settle(id, result(Verdict::Pending));
    bench.resume_when_due(id);
    bench.found(id, Some(id), found(Verdict::Ready));
    assert_eq!(bench.resume(id), Step::Call(id));
    bench.settle(id, approved());
    assert_eq!(bench.status(), Status::Confirmed);
    let (mut bench, id) = approved_alone();
    bench.rules.retired = true;
    assert_eq!(bench.resume(id), Step::Call(id));
}

#[test]
fn a_proof_that_it_is_ready_is_gone_on_with_where_nobody_can_be_asked() {
    // Of an operation that is open.
    let mut bench = Bench::with_payment(Status::Waiting);
    proves_but_cannot_be_asked(&mut bench);
    let pay = bench.call("pay", CommandType::Process, json!({}));
    bench.settle(pay, result(Verdict::Pending));
    bench.send("hook", CommandType::Notification, json!({"facts": [ready(Some(pay))]}));
    assert_eq!((bench.state(pay), bench.operation(pay).confirms()), (State::Scheduled, true));
    // Twice is once, and older than what was sent since.
    bench.resume(pay);
    bench.send("late", CommandType::Notification, json!({"facts": [ready(Some(pay))]}));
    assert_eq!((bench.state(pay), bench.operation(pay).sent.generation), (State::Calling, 1));
    // Of one that was answered with the customer's turn, and of the payment alone.
    for loads in [true, false] {
        let mut bench = Bench::with_payment(Status::Input);
        proves_but_cannot_be_asked(&mut bench);
        let setup = operation_id("setup");
        let hook = command("hook", CommandType::Notification, json!({"facts": [ready(loads.then_some(setup))]}));
        let step = bench.decide(&[hook.operation_id(), setup], |aggregate, context| aggregate.accept(hook, context));
        assert_eq!((step, own(&bench).len()), (Step::Settled, 1));
        let id = own(&bench)[0].id;
        bench.resume(id);
        let transactions = vec![money(Some(id), TransactionState::Done)];
        let answer = GatewayResult { transactions, ..GatewayResult::new(Verdict::Approved) };
        bench.settle(id, Outcome::Result(Box::new(answer)));
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    }
}

/// The notification comes while a cancel is under way. It is kept, and what it proves is gone on with if the cancel comes to
/// nothing.
#[test]
fn a_proof_that_it_is_ready_outlasts_a_cancel_that_is_declined() {
    for names in [true, false] {
        for (cancelled, status) in [(true, Status::Cancelled), (false, Status::Confirmed)] {
            let mut bench = Bench::with_payment(Status::Input);
            proves_but_cannot_be_asked(&mut bench);
            let setup = operation_id("setup");
            let cancel = bench.call("cancel", CommandType::Cancel, json!({}));
            let facts = json!({"facts": [ready(names.then_some(setup))]});
            let hook = command("hook", CommandType::Notification, facts);
            let id = hook.operation_id();
            let step = bench.decide(&[id, setup], |aggregate, context| aggregate.accept(hook, context));
            assert_eq!((step, bench.delayed(), own(&bench).len()), (Step::Stored, Some(Code::Pending), 0));
            bench.settle(cancel, if cancelled { approved() } else { result(Verdict::Declined(Decline::Hard)) });
            assert_eq!(bench.operation(id).due_at, Some(bench.now), "the end of the cancel wakes it");
            let step = bench.decide(&[id, setup], |aggregate, context| aggregate.resume(id, context));
            assert_eq!((step, bench.answer(id)), (Step::Settled, (AnswerKind::Succeeded, None)));
            assert_eq!(own(&bench).len(), usize::from(!cancelled));
            let confirmation = own(&bench).first().map(|operation| operation.id);
            if let Some(confirmation) = confirmation {
                assert_eq!(bench.resume(confirmation), Step::Call(confirmation));
                bench.settle(confirmation, approved());
            }
            assert_eq!(bench.status(), status);
        }
    }
}

/// The notification is faster than the answer to the process, and that answer is lost: nobody says it again.
#[test]
fn a_proof_that_it_is_ready_outlasts_an_answer_that_is_lost() {
    let mut bench = Bench::with_payment(Status::Waiting);
    proves_but_cannot_be_asked(&mut bench);
    bench.rules.contract.keys = keys(None);
    let pay = bench.call("pay", CommandType::Process, json!({}));
    let hook = operation_id("hook");
    assert_eq!(bench.send("hook", CommandType::Notification, json!({"facts": [ready(Some(pay))]})), Step::Stored);
    assert_eq!((bench.state(pay), bench.state(hook)), (State::Calling, State::Scheduled), "its own answer says more");
    bench.settle(pay, timed_out());
    assert_eq!(bench.state(pay), State::Unknown);
    assert_eq!(bench.resume_when_due(hook), Step::Settled);
    assert_eq!((bench.state(pay), bench.operation(pay).confirms()), (State::Scheduled, true));
    assert_eq!(bench.resume(pay), Step::Call(pay));
    bench.settle(pay, approved());
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
}

/// A gateway that cannot be asked, and proves by itself what happened.
fn proves_but_cannot_be_asked(bench: &mut Bench) {
    bench.rules.contract.lookup = Lookup::None;
    bench.rules.contract.notifications = NotificationRole::Proof { deadline: Duration::from_secs(3600) };
}

/// The gateway's proof that the customer has approved.
fn ready(operation: Option<Uuid>) -> Fact {
    let what = Proved::Money(money(operation, TransactionState::Ready));
    let proof = Proof { what, transaction_id: None, code: None, message: String::new() };
    Fact { operation_id: operation, kind: "approved".to_owned(), proof: Some(proof), ..Fact::default() }
}

fn money(operation: Option<Uuid>, state: TransactionState) -> Transaction {
    let attribution = operation.map_or(Attribution::Unattributed, Attribution::Recorded);
    let (kind, reference) = (TransactionKind::Capture, Some("tx-1".to_owned()));
    Transaction { kind, reference, parent: None, attribution, state, amount: usd("100") }
}
