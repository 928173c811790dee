//! `payment.sync`: the truth about the operation that is open, or else about the whole payment, and nothing counted twice.

use serde_json::json;
use uuid::Uuid;

use super::bench::{
    Bench, OTHER_WORKER, WORKER, approved, found, keys, not_sent, operation_id, result, timed_out, usd,
};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::event::{Discrepancy, EventKind};
use crate::payment::machine::Step;
use crate::payment::money::{Currency, Money};
use crate::payment::movement::MovementKind;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;

/// The whole payment as the gateway has it.
fn whole(captured: Option<&str>, refunded: Option<&str>) -> Found {
    let result = GatewayResult {
        captured: captured.map(usd),
        refunded: refunded.map(usd),
        ..GatewayResult::new(Verdict::Approved)
    };
    Found::Result(Box::new(result))
}

/// Sends a sync about the whole payment.
fn ask(bench: &mut Bench, id: &str) -> Uuid {
    let id = {
        let operation = operation_id(id);
        assert_eq!(bench.send(id, CommandType::Sync, json!({})), Step::LookUp { operation, target: None });
        operation
    };
    assert_eq!(bench.state(id), State::Calling);
    id
}

#[test]
fn what_the_gateway_has_and_we_have_not_is_added_once() {
    for (status, captured, refunded, after, amounts) in [
        (Status::Waiting, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Waiting, "70", "30", Status::Confirmed, ["0.00", "70.00", "30.00"]),
        (Status::Waiting, "0", "100", Status::Refunded, ["0.00", "0.00", "100.00"]),
        (Status::Input, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Error, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Rejected, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Cancelled, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Preauth, "60", "0", Status::Confirmed, ["100.00", "60.00", "0.00"]),
        (Status::Preauth, "0", "0", Status::Preauth, ["100.00", "0.00", "0.00"]),
        (Status::Confirmed, "100", "0", Status::Confirmed, ["0.00", "100.00", "0.00"]),
        (Status::Confirmed, "60", "40", Status::Confirmed, ["0.00", "60.00", "40.00"]),
        (Status::Confirmed, "0", "100", Status::Refunded, ["0.00", "0.00", "100.00"]),
        (Status::Refunded, "0", "100", Status::Refunded, ["0.00", "0.00", "100.00"]),
    ] {
        let mut bench = Bench::with_payment(status);
        for name in ["first", "second"] {
            let sync = ask(&mut bench, name);
            assert_eq!(bench.found(sync, None, whole(Some(captured), Some(refunded))), Step::Settled);
            assert_eq!(bench.answer(sync).0, AnswerKind::Succeeded);
            assert_eq!((bench.status(), bench.amounts()), (after, amounts.map(str::to_owned)), "{status} {captured}");
        }
        assert_eq!(bench.emitted(), [("command.succeeded", true)], "the second learns nothing new");
    }
}

#[test]
fn where_only_a_part_is_said_the_rest_is_as_we_have_it() {
    // All that http says without captured_amount is that it is approved.
    let mut bench = Bench::with_payment(Status::Waiting);
    let sync = ask(&mut bench, "a");
    bench.found(sync, None, found(Verdict::Approved));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    // A refund made at the gateway's own desk.
    let sync = ask(&mut bench, "b");
    bench.found(sync, None, whole(None, Some("30")));
    assert_eq!(bench.amounts(), ["0.00", "70.00", "30.00"]);
    let sync = ask(&mut bench, "c");
    bench.found(sync, None, whole(Some("70"), None));
    assert_eq!(bench.emitted(), [("command.succeeded", true)]);
    let sync = ask(&mut bench, "d");
    bench.found(sync, None, found(Verdict::Approved));
    assert_eq!(bench.amounts(), ["0.00", "70.00", "30.00"]);
}

#[test]
fn an_authorization_that_was_missed_is_found() {
    for (verdict, capture) in [(Verdict::Authorized, json!(null)), (Verdict::Approved, json!(false))] {
        let mut bench = Bench::new();
        let mut data = super::bench::payment_data();
        data["capture"] = capture;
        bench.send("create", CommandType::Create, data);
        let sync = ask(&mut bench, "a");
        bench.found(sync, None, found(verdict));
        assert_eq!((bench.status(), bench.amounts()[0].as_str()), (Status::Preauth, "100.00"));
        bench.call("b", CommandType::Capture, json!({}));
    }
}

#[test]
fn other_verdicts_move_the_status_where_the_table_has_a_way() {
    let redirect = || Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) };
    let declined = || Verdict::Declined(Decline::Hard);
    for (status, verdict, after) in [
        (Status::Waiting, declined(), Status::Rejected),
        (Status::Input, declined(), Status::Rejected),
        (Status::Cancelled, declined(), Status::Cancelled),
        (Status::Waiting, redirect(), Status::Input),
        (Status::Confirmed, redirect(), Status::Confirmed),
        (Status::Waiting, Verdict::Pending, Status::Waiting),
        (Status::Preauth, Verdict::Pending, Status::Preauth),
    ] {
        let mut bench = Bench::with_payment(status);
        let before = bench.amounts();
        let sync = ask(&mut bench, "a");
        bench.found(sync, None, found(verdict.clone()));
        assert_eq!((bench.status(), bench.amounts()), (after, before), "{verdict:?} from {status}");
        assert_eq!(bench.payment().redirect_url.is_some(), after == Status::Input);
    }
    let mut bench = Bench::with_payment(Status::Error);
    let sync = ask(&mut bench, "a");
    assert_eq!(bench.found(sync, None, Found::Nothing), Step::Settled);
    assert_eq!((bench.status(), bench.emitted()), (Status::Error, vec![("command.succeeded", true)]));
}

#[test]
fn sums_count_with_any_result_beside_them() {
    for verdict in [Verdict::Declined(Decline::Hard), Verdict::Pending] {
        for (status, captured, refunded, after) in [
            (Status::Waiting, "70", "0", (Status::Confirmed, ["70.00", "0.00"])),
            (Status::Confirmed, "100", "0", (Status::Confirmed, ["100.00", "0.00"])),
            (Status::Confirmed, "0", "100", (Status::Refunded, ["0.00", "100.00"])),
        ] {
            let mut bench = Bench::with_payment(status);
            let sync = ask(&mut bench, "a");
            let result = GatewayResult {
                captured: Some(usd(captured)),
                refunded: Some(usd(refunded)),
                ..GatewayResult::new(verdict.clone())
            };
            bench.found(sync, None, Found::Result(Box::new(result)));
            let [_, left, given_back] = bench.amounts();
            assert_eq!((bench.status(), [left.as_str(), given_back.as_str()]), after, "{status} {verdict:?}");
            assert_eq!(bench.answer(sync).0, AnswerKind::Succeeded);
        }
    }
    // And where there are none, nothing is authorized or captured by a word that does not say so.
    let mut bench = Bench::with_payment(Status::Waiting);
    let sync = ask(&mut bench, "a");
    let result = GatewayResult { refunded: Some(usd("0")), ..GatewayResult::new(Verdict::Pending) };
    bench.found(sync, None, Found::Result(Box::new(result)));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Waiting, "0.00"));
}

#[test]
fn an_answer_that_denies_booked_money_is_reported_and_removes_nothing() {
    for (status, denies) in [
        (Status::Confirmed, Found::Nothing),
        (Status::Confirmed, found(Verdict::Declined(Decline::Hard))),
        (Status::Preauth, Found::Nothing),
    ] {
        let mut bench = Bench::with_payment(status);
        let before = bench.amounts();
        let sync = ask(&mut bench, "a");
        // The gateway may not know yet of what it just did.
        assert_eq!(bench.found(sync, None, denies.clone()), Step::Stored);
        assert_eq!((bench.delayed(), bench.amounts()), (Some(Code::Pending), before.clone()));
        assert_eq!(bench.resume_when_due(sync), Step::LookUp { operation: sync, target: None });
        assert_eq!(bench.found(sync, None, denies), Step::Settled);
        assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::Mismatch)));
        assert_eq!((bench.status(), bench.amounts()), (status, before));
        let EventKind::Failed { why, .. } = &bench.emitted[0].kind else { panic!("{:?}", bench.emitted) };
        assert_eq!(why.discrepancy, Some(Discrepancy { asked: usd("100"), answered: usd("0") }));
    }
}

#[test]
fn a_gateway_that_says_something_else_every_time_is_not_asked_for_ever() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = ask(&mut bench, "a");
    let declined = |message: &str| {
        let message = message.to_owned();
        let result = GatewayResult { message, ..GatewayResult::new(Verdict::Declined(Decline::Hard)) };
        Found::Result(Box::new(result))
    };
    assert_eq!(bench.found(sync, None, declined("at noon")), Step::Stored);
    bench.resume_when_due(sync);
    assert_eq!(bench.found(sync, None, declined("a little later")), Step::Settled);
    assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::Mismatch)));
}

#[test]
fn an_authorization_that_is_gone_at_the_gateway_ends_refunded() {
    for result in [
        GatewayResult::new(Verdict::Declined(Decline::Hard)),
        GatewayResult {
            captured: Some(usd("0")),
            refunded: Some(usd("0")),
            ..GatewayResult::new(Verdict::Declined(Decline::Hard))
        },
    ] {
        let mut bench = Bench::with_payment(Status::Preauth);
        bench.wait(10);
        let sync = ask(&mut bench, "a");
        bench.found(sync, None, Found::Result(Box::new(result)));
        assert_eq!(bench.emitted(), [("payment.status_changed", true)]);
        assert_eq!(
            (bench.status(), bench.amounts()),
            (Status::Refunded, ["100.00", "0.00", "0.00"].map(str::to_owned))
        );
        assert_eq!(bench.answer(sync), (AnswerKind::Succeeded, None));
        assert!(bench.store.movements.iter().any(|movement| movement.kind == MovementKind::Voided));
    }
}

#[test]
fn a_refund_that_failed_later_is_a_movement_of_its_own() {
    for (refunded, status, sums) in [
        ("0", Status::Refunded, ["100.00", "0.00"]),
        ("60", Status::Refunded, ["40.00", "60.00"]),
        ("0", Status::Confirmed, ["100.00", "0.00"]),
    ] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        let amount = if status == Status::Refunded { "100" } else { "30" };
        let refund = bench.call("refund", CommandType::Refund, json!({"amount": amount}));
        bench.settle(refund, approved());
        assert_eq!(bench.status(), status);
        let before = bench.amounts();
        // Just refunded: the gateway may not know yet what it gave back.
        let sync = ask(&mut bench, "early");
        assert_eq!(bench.found(sync, None, whole(Some(sums[0]), Some(refunded))), Step::Stored);
        assert_eq!((bench.delayed(), bench.amounts()), (Some(Code::Pending), before.clone()));
        bench.resume_when_due(sync);
        bench.found(sync, None, whole(Some(&before[1]), Some(&before[2])));
        assert_eq!((bench.answer(sync).0, bench.amounts()), (AnswerKind::Succeeded, before.clone()));
        // That it is gone from the figures is no proof that it is there.
        let sync = ask(&mut bench, "less");
        bench.found(sync, None, whole(Some("0"), Some(refunded)));
        assert_eq!((bench.answer(sync).1, bench.amounts()), (Some(Code::Mismatch), before));
        for again in ["first", "second"] {
            let sync = ask(&mut bench, again);
            bench.found(sync, None, whole(Some(sums[0]), Some(refunded)));
            assert_eq!(bench.answer(sync), (AnswerKind::Succeeded, None));
            let [_, left, given_back] = bench.amounts();
            assert_eq!((bench.status(), [left.as_str(), given_back.as_str()]), (Status::Confirmed, sums));
        }
        let kinds: Vec<_> = bench.store.movements.iter().map(|movement| movement.kind).collect();
        let all = [MovementKind::Captured, MovementKind::Refunded, MovementKind::RefundReversed];
        assert_eq!(kinds, all, "nothing is deleted, and nothing counted twice");
        // The refund's own answer, once more, gives nothing back again; a new refund does.
        bench.settle(refund, approved());
        assert_eq!(bench.amounts()[1], sums[0]);
        let refund = bench.call("again", CommandType::Refund, json!({}));
        bench.settle(refund, approved());
        assert_eq!(bench.status(), Status::Refunded);
    }
}

/// Whether the gateway was asked late enough, two clocks that differ do not tell.
#[test]
fn while_the_clocks_differ_no_refund_is_taken_for_failed() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("refund", CommandType::Refund, json!({"amount": "30"}));
    bench.settle(refund, approved());
    bench.wait(60);
    bench.clocks_agree = false;
    let sync = ask(&mut bench, "apart");
    assert_eq!(bench.found(sync, None, whole(Some("100"), Some("0"))), Step::Stored);
    bench.resume_when_due(sync);
    bench.found(sync, None, whole(Some("100"), Some("0")));
    assert_eq!((bench.answer(sync).1, bench.amounts()[2].as_str()), (Some(Code::Mismatch), "30.00"));
    bench.clocks_agree = true;
    let sync = ask(&mut bench, "agreed");
    bench.found(sync, None, whole(Some("100"), Some("0")));
    assert_eq!((bench.answer(sync).0, bench.amounts()[2].as_str()), (AnswerKind::Succeeded, "0.00"));
}

#[test]
fn if_the_gateway_reports_less_nothing_is_removed_and_it_is_reported() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    bench.wait(10);
    let sync = ask(&mut bench, "a");
    bench.found(sync, None, whole(Some("60"), Some("0")));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    let EventKind::Failed { why, .. } = &bench.emitted[0].kind else { panic!("{:?}", bench.emitted) };
    assert_eq!(why.code, Some(Code::Mismatch));
    assert_eq!(why.discrepancy, Some(Discrepancy { asked: usd("100"), answered: usd("60") }));
    // More than the total is counted, and told too.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = ask(&mut bench, "a");
    bench.found(sync, None, whole(Some("130"), Some("0")));
    assert_eq!(bench.amounts()[1], "130.00");
    assert_eq!(bench.emitted(), [("payment.updated", false), ("command.failed", true)]);
}

#[test]
fn an_answer_in_another_currency_is_applied_to_nothing() {
    let euros = Money::parse("100", Currency::from_code("EUR").unwrap()).unwrap();
    let mut bench = Bench::with_payment(Status::Waiting);
    let sync = ask(&mut bench, "a");
    let result = GatewayResult { captured: Some(euros), ..GatewayResult::new(Verdict::Approved) };
    bench.found(sync, None, Found::Result(Box::new(result)));
    assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::Mismatch)));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Waiting, "0.00"));
}

#[test]
fn a_sync_asks_about_the_operation_whose_money_may_be_on_its_way() {
    // Called, unknown or pending: what it did may be in the whole, and would be counted again by its own answer.
    for outcome in [None, Some(timed_out()), Some(result(Verdict::Pending))] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        let refund = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
        if let Some(outcome) = outcome.clone() {
            bench.settle_after(refund, outcome, 9);
        }
        let sync = operation_id("s");
        let asks = Step::LookUp { operation: sync, target: Some(refund) };
        assert_eq!(bench.send("s", CommandType::Sync, json!({})), asks, "{outcome:?}");
        bench.found(sync, Some(refund), found(Verdict::Approved));
        assert_eq!(bench.emitted(), [("payment.updated", true), ("command.succeeded", true)]);
        let causes: Vec<_> = bench.emitted.iter().map(|event| event.cause.as_ref().unwrap().name.id.clone()).collect();
        assert_eq!(causes, ["a", "s"], "the operation is settled with its own command as the cause");
        bench.settle(refund, approved());
        assert_eq!(bench.amounts(), ["0.00", "70.00", "30.00"], "counted once");
    }
    // Proved not sent: there is no money of it anywhere.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
    bench.settle_after(refund, not_sent(), 9);
    ask(&mut bench, "s");
}

#[test]
fn what_moved_while_the_gateway_was_asked_is_asked_about_again() {
    // A refund begins and ends between question and answer: the answer may hold it or not.
    for (answer, label) in [(whole(Some("100"), Some("0")), "without it"), (whole(Some("70"), Some("30")), "with it")] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        let sync = ask(&mut bench, "s");
        let refund = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
        let about_it = Step::LookUp { operation: sync, target: Some(refund) };
        assert_eq!(bench.found(sync, None, answer.clone()), about_it, "{label}");
        bench.settle(refund, approved());
        bench.found(sync, Some(refund), found(Verdict::Approved));
        assert_eq!(bench.amounts(), ["0.00", "70.00", "30.00"], "{label}");

        let sync = ask(&mut bench, "t");
        let refund = bench.call("b", CommandType::Refund, json!({"amount": "70"}));
        bench.settle(refund, approved());
        assert_eq!(bench.found(sync, None, answer), Step::LookUp { operation: sync, target: None }, "{label}");
        bench.found(sync, None, whole(Some("0"), Some("100")));
        assert_eq!((bench.status(), bench.amounts()[2].as_str()), (Status::Refunded, "100.00"), "{label}");
    }
}

#[test]
fn a_sync_about_an_operation_that_settled_meanwhile_still_counts_what_it_proves() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, result(Verdict::Pending));
    bench.send("s", CommandType::Sync, json!({}));
    let cancel = bench.call("c", CommandType::Cancel, json!({}));
    bench.settle(cancel, approved());
    bench.found(operation_id("s"), Some(process), found(Verdict::Approved));
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    // And whoever asked may be settled too, by another worker.
    bench.found(operation_id("s"), Some(process), found(Verdict::Approved));
    assert!(bench.emitted.is_empty());
}

#[test]
fn nothing_found_by_a_sync_lets_the_operation_begin_anew() {
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.contract.keys = keys(None);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, timed_out());
    bench.wait(10);
    bench.send("s", CommandType::Sync, json!({}));
    assert_eq!(bench.found(operation_id("s"), Some(process), Found::Nothing), Step::Settled);
    assert_eq!((bench.state(process), bench.operation(process).due_at), (State::Scheduled, Some(bench.now)));
    assert_eq!(bench.resume(process), Step::Call(process));
}

#[test]
fn of_an_old_answer_only_what_the_gateway_says_of_an_operation_counts() {
    // The first worker's answer is old by the time the second has asked again.
    for what in [Found::Nothing, Found::Failed(GatewayError::new(Code::Timeout, "no answer")), found(Verdict::Approved)]
    {
        let mut bench = Bench::with_payment(Status::Waiting);
        bench.rules.contract.keys = keys(None);
        let process = bench.call("a", CommandType::Process, json!({}));
        bench.settle(process, timed_out());
        let sync = operation_id("s");
        bench.send("s", CommandType::Sync, json!({}));
        bench.wait(30);
        bench.worker = OTHER_WORKER;
        assert_eq!(bench.resume(sync), Step::LookUp { operation: sync, target: Some(process) });
        bench.worker = WORKER;
        let is_result = matches!(what, Found::Result(_));
        assert_eq!(bench.found(sync, Some(process), what), Step::Stored);
        assert_eq!((bench.state(sync), bench.operation(process).is_open()), (State::Calling, !is_result));
        assert_eq!(bench.operation(process).sent.generation, 0);
    }
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = ask(&mut bench, "s");
    bench.wait(30);
    bench.worker = OTHER_WORKER;
    bench.resume(sync);
    bench.worker = WORKER;
    assert_eq!(bench.found(sync, None, whole(Some("60"), Some("40"))), Step::Stored);
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"]);
}

#[test]
fn a_question_that_fails_is_asked_again_at_once_later_and_then_given_up() {
    let failed =
        |retry_after| Found::Failed(GatewayError { retry_after, ..GatewayError::new(Code::GatewayError, "500") });
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = ask(&mut bench, "s");
    let answer = bench.asked(sync).answered(failed(None));
    let once = bench.decide(&[sync], |machine, context| machine.found(sync, None, answer, 1, context));
    assert_eq!(once, Step::RetryNow(sync));
    for delay in [10, 60] {
        assert_eq!(bench.found(sync, None, failed(None)), Step::Stored);
        assert_eq!((bench.state(sync), bench.delayed()), (State::Scheduled, Some(Code::GatewayError)));
        assert_eq!(bench.operation(sync).due_at, Some(bench.now + jiff::SignedDuration::from_secs(delay)));
        assert_eq!(bench.payment().busy, None, "it holds nobody up");
        // No breaker holds it up either.
        bench.paused_for = Some(std::time::Duration::from_secs(30));
        assert_eq!(bench.resume_when_due(sync), Step::LookUp { operation: sync, target: None });
        bench.paused_for = None;
    }
    assert_eq!(bench.found(sync, None, failed(None)), Step::Settled);
    assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::GatewayError)));
}

#[test]
fn a_look_up_is_not_given_up_for_wrong_credentials_or_while_calls_are_paused() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let sync = ask(&mut bench, "s");
    let failed = |code| Found::Failed(GatewayError::new(code, "no"));
    for _ in 0..5 {
        assert_eq!(bench.found(sync, None, failed(Code::Misconfigured)), Step::Stored);
        assert_eq!(bench.operation(sync).counts.rounds, 0);
        bench.resume_when_due(sync);
    }
    bench.rules.delayed.clear();
    bench.paused_for = Some(std::time::Duration::ZERO);
    let unreachable = bench.asked(sync).answered(failed(Code::Unreachable));
    let once = bench.decide(&[sync], |machine, context| machine.found(sync, None, unreachable, 1, context));
    assert_eq!((once, bench.operation(sync).due_at), (Step::Stored, Some(bench.now)));
}

#[test]
fn a_look_up_that_fails_during_an_operators_pause_is_retried_and_given_up_as_ever() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    bench.paused_for = Some(std::time::Duration::from_secs(10));
    bench.is_paused_by_operator = true;
    let sync = ask(&mut bench, "s");
    let failed = || Found::Failed(GatewayError::new(Code::Unreachable, "no"));
    let first = bench.asked(sync).answered(failed());
    let once = bench.decide(&[sync], |machine, context| machine.found(sync, None, first, 1, context));
    assert_eq!(once, Step::RetryNow(sync));
    for _ in 0..2 {
        assert_eq!(bench.found(sync, None, failed()), Step::Stored);
        bench.resume_when_due(sync);
    }
    assert_eq!(bench.found(sync, None, failed()), Step::Settled);
    assert_eq!(bench.answer(sync), (AnswerKind::Failed, Some(Code::Unreachable)));
}

#[test]
fn a_gateway_that_cannot_be_asked_is_not_asked() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    bench.rules.contract.lookup = Lookup::None;
    assert_eq!(bench.rejected("s", CommandType::Sync, json!({})), Code::Unsupported);
}

/// The whole payment, of which something was lost to a dispute.
fn lost(captured: &str, refunded: &str, disputed: &str) -> Found {
    let result = GatewayResult {
        captured: Some(usd(captured)),
        refunded: Some(usd(refunded)),
        disputed: Some(usd(disputed)),
        ..GatewayResult::new(Verdict::Approved)
    };
    Found::Result(Box::new(result))
}

#[test]
fn what_is_lost_to_a_dispute_is_counted_once_and_is_no_refund() {
    for (captured, refunded, disputed, after) in [
        ("0", "0", "100", Status::Refunded),
        ("40", "0", "60", Status::Confirmed),
        ("30", "30", "40", Status::Confirmed),
        ("0", "60", "40", Status::Refunded),
    ] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        for name in ["first", "second"] {
            let sync = ask(&mut bench, name);
            assert_eq!(bench.found(sync, None, lost(captured, refunded, disputed)), Step::Settled);
            assert_eq!(bench.answer(sync).0, AnswerKind::Succeeded, "{captured} {refunded} {disputed}");
            let amounts = bench.payment().amounts;
            assert_eq!((amounts.captured, amounts.refunded), (usd(captured), usd(refunded)));
            assert_eq!(bench.payment().status, after);
        }
    }
}

#[test]
fn what_came_of_a_dispute_does_not_vanish_silently() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = ask(&mut bench, "first");
    bench.found(first, None, lost("40", "0", "60"));
    bench.wait(60);
    let second = ask(&mut bench, "second");
    bench.found(second, None, lost("100", "0", "0"));
    assert_eq!(bench.answer(second), (AnswerKind::Failed, Some(Code::Mismatch)));
    assert_eq!(bench.payment().amounts.captured, usd("40"));
}

/// A sync asks about a process while it is being called. Before the gateway's word of it comes, the process has ended with
/// the customer's turn, the customer has paid, and a second process went on with the same transaction.
fn went_on_from_input(capture: bool) -> (Bench, Uuid, Uuid, Uuid) {
    let mut bench = Bench::with_payment(Status::Waiting);
    let first = bench.call("first", CommandType::Process, json!({"capture": capture}));
    let sync = operation_id("sync");
    let asks = Step::LookUp { operation: sync, target: Some(first) };
    assert_eq!(bench.send("sync", CommandType::Sync, json!({})), asks);
    bench.settle(first, result(Verdict::CustomerMustAct { redirect_url: None }));
    let second = bench.call("second", CommandType::Process, json!({}));
    (bench, sync, first, second)
}

#[test]
fn a_transaction_continued_from_input_counts_once_in_either_order_of_reports() {
    for (capture, verdict, amounts) in [
        (true, Verdict::Approved, ["0.00", "100.00", "0.00"]),
        (false, Verdict::Authorized, ["100.00", "0.00", "0.00"]),
    ] {
        for second_first in [true, false] {
            let (mut bench, sync, first, second) = went_on_from_input(capture);
            if second_first {
                bench.settle(second, result(verdict.clone()));
            }
            bench.found(sync, Some(first), found(verdict.clone()));
            assert_eq!(bench.amounts(), amounts);
            if !second_first {
                bench.settle(second, result(verdict.clone()));
            }
            assert_eq!((bench.amounts(), bench.answer(second).0), (amounts.map(str::to_owned), AnswerKind::Succeeded));
        }
    }
}

#[test]
fn another_transaction_than_the_payments_is_counted_beside_it() {
    let paid = |transaction: &str| {
        let transaction_id = Some(transaction.to_owned());
        Box::new(GatewayResult { transaction_id, ..GatewayResult::new(Verdict::Approved) })
    };
    let (mut bench, sync, first, second) = went_on_from_input(true);
    bench.settle(second, Outcome::Result(paid("t2")));
    bench.found(sync, Some(first), Found::Result(paid("t1")));
    assert_eq!(bench.amounts()[1], "200.00", "the customer paid twice, and somebody must see it");
}
