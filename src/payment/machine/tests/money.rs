//! Amounts: what may be asked, what the gateway makes of it, and what is told when it goes beyond.

use serde_json::json;

use super::bench::{Bench, approved, approved_of, found, not_sent, operation_id, payment_data, result, timed_out, usd};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::event::{Discrepancy, EventKind};
use crate::payment::machine::Step;
use crate::payment::money::{Currency, Money};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, GatewayResult, Outcome, Verdict};
use crate::payment::status::{FraudStatus, Status};

/// A discrepancy that the last commit told.
fn discrepancy(bench: &Bench) -> Option<Discrepancy> {
    bench.emitted.iter().find_map(|event| match &event.kind {
        EventKind::StatusChanged { why, .. } | EventKind::Updated { why, .. } | EventKind::Failed { why, .. } => {
            why.discrepancy
        }
        _ => None,
    })
}

#[test]
fn what_may_be_captured_and_refunded() {
    for (status, kind, amount, expected) in [
        (Status::Preauth, CommandType::Capture, None, Ok("100.00")),
        (Status::Preauth, CommandType::Capture, Some("100"), Ok("100.00")),
        (Status::Preauth, CommandType::Capture, Some("0.01"), Ok("0.01")),
        (Status::Preauth, CommandType::Capture, Some("100.01"), Err(Code::InvalidAmount)),
        (Status::Preauth, CommandType::Capture, Some("0"), Err(Code::InvalidAmount)),
        (Status::Preauth, CommandType::Capture, Some("-5"), Err(Code::InvalidAmount)),
        (Status::Preauth, CommandType::Capture, Some("1.001"), Err(Code::InvalidAmount)),
        (Status::Confirmed, CommandType::Refund, None, Ok("100.00")),
        (Status::Confirmed, CommandType::Refund, Some("33.33"), Ok("33.33")),
        (Status::Confirmed, CommandType::Refund, Some("100.01"), Err(Code::InvalidAmount)),
        (Status::Confirmed, CommandType::Refund, Some("0.00"), Err(Code::InvalidAmount)),
        (Status::Confirmed, CommandType::Refund, Some("1e2"), Err(Code::InvalidAmount)),
    ] {
        let mut bench = Bench::with_payment(status);
        let data = amount.map_or(json!({}), |amount| json!({"amount": amount}));
        match expected {
            Ok(sum) => {
                let id = bench.call("a", kind, data);
                assert_eq!(bench.operation(id).amount(), Some(usd(sum)), "{kind} {amount:?}");
            }
            Err(code) => assert_eq!(bench.rejected("a", kind, data), code, "{kind} {amount:?}"),
        }
    }
}

#[test]
fn what_the_gateway_holds_bounds_the_capture_and_not_the_total() {
    let hold = |amount: &str| {
        let mut bench = Bench::with_payment(Status::Waiting);
        let process = bench.call("a", CommandType::Process, json!({"capture": false}));
        bench.settle(process, approved_of(amount));
        assert_eq!(bench.status(), Status::Preauth);
        bench
    };
    let mut less = hold("60.00");
    assert_eq!(less.rejected("b", CommandType::Capture, json!({"amount": "60.01"})), Code::InvalidAmount);
    let capture = less.call("c", CommandType::Capture, json!({}));
    assert_eq!(less.operation(capture).amount(), Some(usd("60.00")));
    let mut more = hold("110.00");
    assert_eq!(more.rejected("b", CommandType::Capture, json!({"amount": "100.01"})), Code::InvalidAmount);
    let capture = more.call("c", CommandType::Capture, json!({}));
    assert_eq!(more.operation(capture).amount(), Some(usd("100.00")));
}

#[test]
fn a_partial_capture_ends_the_preauth_and_bounds_the_refunds() {
    let mut bench = Bench::with_payment(Status::Preauth);
    let capture = bench.call("a", CommandType::Capture, json!({"amount": "60"}));
    bench.settle(capture, approved());
    assert_eq!((bench.status(), bench.amounts()), (Status::Confirmed, ["100.00", "60.00", "0.00"].map(str::to_owned)));
    assert_eq!(bench.rejected("b", CommandType::Capture, json!({"amount": "40"})), Code::NotAllowed);
    assert_eq!(bench.rejected("c", CommandType::Refund, json!({"amount": "60.01"})), Code::InvalidAmount);
    let refund = bench.call("d", CommandType::Refund, json!({}));
    assert_eq!(bench.operation(refund).amount(), Some(usd("60")));
}

#[test]
fn partial_refunds_leave_the_payment_confirmed_until_nothing_is_left() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    for (id, amount, left) in [("a", "30", "70.00"), ("b", "30", "40.00")] {
        let refund = bench.call(id, CommandType::Refund, json!({"amount": amount}));
        bench.settle(refund, approved());
        assert_eq!(bench.emitted(), [("payment.updated", true)]);
        assert_eq!((bench.status(), &bench.amounts()[1]), (Status::Confirmed, &left.to_owned()));
    }
    let rest = bench.call("c", CommandType::Refund, json!({}));
    assert_eq!(bench.operation(rest).amount(), Some(usd("40")));
    bench.settle(rest, approved());
    assert_eq!(bench.emitted(), [("payment.status_changed", true)]);
    assert_eq!((bench.status(), bench.amounts()), (Status::Refunded, ["0.00", "0.00", "100.00"].map(str::to_owned)));
}

#[test]
fn a_full_refund_that_is_tried_again_stands_not_in_its_own_way() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("a", CommandType::Refund, json!({}));
    bench.settle_after(refund, not_sent(), 2);
    assert_eq!(bench.resume_when_due(refund), Step::Call(refund));
    bench.settle_after(refund, timed_out(), 2);
    assert_eq!(bench.resume_when_due(refund), Step::Call(refund));
}

#[test]
fn a_release_ends_refunded_and_moves_nothing_captured() {
    let mut bench = Bench::with_payment(Status::Preauth);
    let release = bench.call("a", CommandType::Release, json!({}));
    assert_eq!(bench.operation(release).amount(), Some(usd("100")));
    bench.settle(release, approved());
    assert_eq!((bench.status(), bench.amounts()), (Status::Refunded, ["100.00", "0.00", "0.00"].map(str::to_owned)));
}

#[test]
fn pending_refunds_give_up_the_turn_and_reserve_their_amount() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
    assert_eq!(bench.settle(first, result(Verdict::Pending)), Step::Stored);
    assert_eq!(bench.delayed(), Some(Code::Pending));
    assert_eq!(bench.payment().busy, None);
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"], "nothing moved yet");
    assert_eq!(bench.rejected("b", CommandType::Refund, json!({"amount": "70.01"})), Code::InvalidAmount);
    let second = bench.call("c", CommandType::Refund, json!({}));
    assert_eq!(bench.operation(second).amount(), Some(usd("70")));
    bench.settle(second, result(Verdict::Pending));
    assert_eq!(bench.rejected("d", CommandType::Refund, json!({})), Code::InvalidAmount, "nothing is left");
    // One fails at last: its amount is free again.
    bench.found(first, Some(first), found(Verdict::Declined(Decline::Hard)));
    assert_eq!(bench.emitted(), [("command.failed", true)]);
    bench.found(second, Some(second), found(Verdict::Approved));
    assert_eq!((bench.status(), bench.amounts()), (Status::Confirmed, ["0.00", "30.00", "70.00"].map(str::to_owned)));
    bench.call("e", CommandType::Refund, json!({"amount": "30"}));
}

#[test]
fn a_pending_capture_or_release_lets_no_other_begin() {
    for kind in [CommandType::Capture, CommandType::Release] {
        let mut bench = Bench::with_payment(Status::Preauth);
        let id = bench.call("a", kind, json!({}));
        bench.settle(id, result(Verdict::Pending));
        assert_eq!(bench.status(), Status::Preauth);
        assert_eq!(bench.rejected("b", CommandType::Capture, json!({})), Code::InProgress);
        assert_eq!(bench.rejected("c", CommandType::Release, json!({})), Code::InProgress);
        bench.found(id, Some(id), found(Verdict::Approved));
        let ended = if kind == CommandType::Capture { Status::Confirmed } else { Status::Refunded };
        assert_eq!(bench.status(), ended);
    }
}

#[test]
fn the_gateways_amount_wins_and_is_reported() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, approved_of("60"));
    assert_eq!(discrepancy(&bench), Some(Discrepancy { asked: usd("100"), answered: usd("60") }));
    assert_eq!(bench.amounts(), ["0.00", "60.00", "0.00"]);
    let refund = bench.call("b", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(refund, approved_of("15"));
    assert_eq!(discrepancy(&bench), Some(Discrepancy { asked: usd("10"), answered: usd("15") }));
    assert_eq!(bench.amounts(), ["0.00", "45.00", "15.00"]);
    // Beyond every limit: stored and told all the same, and never below nothing.
    let refund = bench.call("c", CommandType::Refund, json!({}));
    bench.settle(refund, approved_of("50"));
    assert_eq!(discrepancy(&bench), Some(Discrepancy { asked: usd("45"), answered: usd("50") }));
    assert_eq!((bench.status(), bench.amounts()), (Status::Refunded, ["0.00", "0.00", "65.00"].map(str::to_owned)));
}

#[test]
fn money_captured_twice_is_reported_although_each_amount_was_requested() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let first = bench.call("a", CommandType::Process, json!({}));
    bench.settle(first, result(Verdict::Declined(Decline::Soft)));
    let second = bench.call("b", CommandType::Process, json!({}));
    bench.settle(second, approved());
    // The gateway takes its decline back.
    bench.settle(first, approved());
    assert_eq!(bench.emitted(), [("payment.updated", false)]);
    assert_eq!(discrepancy(&bench), Some(Discrepancy { asked: usd("100"), answered: usd("200") }));
    assert_eq!(bench.amounts(), ["0.00", "200.00", "0.00"]);
}

#[test]
fn an_answer_in_another_currency_is_applied_to_nothing() {
    let euros = Money::parse("100", Currency::from_code("EUR").unwrap()).unwrap();
    let of = |amount, captured, currency| {
        let result = GatewayResult { total: amount, captured, currency, ..GatewayResult::new(Verdict::Approved) };
        Outcome::Result(Box::new(result))
    };
    let named = Some(euros.currency());
    for foreign in [of(Some(euros), None, named), of(None, Some(euros), None), of(None, None, named)] {
        let mut bench = Bench::with_payment(Status::Waiting);
        let id = bench.call("a", CommandType::Process, json!({}));
        assert_eq!(bench.settle(id, foreign), Step::Stored);
        assert_eq!((bench.state(id), bench.delayed()), (State::Unknown, Some(Code::Mismatch)));
        assert!(bench.operation(id).escalated);
        assert_eq!((bench.status(), bench.amounts()), (Status::Waiting, ["0.00", "0.00", "0.00"].map(str::to_owned)));
        // The gateway knew it: that it is gone now is no proof, and no second charge, whatever else failed since.
        bench.wait(3600);
        bench.store.operation_mut(id).last_code = Some(Code::Timeout);
        let asks = bench.send("s", CommandType::Sync, json!({}));
        assert_eq!(asks, Step::LookUp { operation: operation_id("s"), target: Some(id) });
        bench.found(operation_id("s"), Some(id), crate::payment::outcome::Found::Nothing);
        assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0));
        // The gateway's own word in the right currency ends it.
        bench.settle(id, approved());
        assert_eq!(bench.status(), Status::Confirmed);
    }
}

#[test]
fn an_approval_that_cannot_be_what_was_asked_is_applied_to_nothing() {
    let mut bench = Bench::with_payment(Status::Preauth);
    let capture = bench.call("a", CommandType::Capture, json!({}));
    bench.settle(capture, result(Verdict::Authorized));
    assert_eq!((bench.state(capture), bench.delayed()), (State::Unknown, Some(Code::Mismatch)));
    assert_eq!((bench.status(), bench.amounts()), (Status::Preauth, ["100.00", "0.00", "0.00"].map(str::to_owned)));

    let mut bench = Bench::with_payment(Status::Confirmed);
    let refund = bench.call("a", CommandType::Refund, json!({}));
    bench.settle(refund, approved_of("0"));
    assert_eq!((bench.state(refund), bench.status()), (State::Unknown, Status::Confirmed));
}

#[test]
fn what_failed_changes_no_status() {
    for (status, kind) in [
        (Status::Preauth, CommandType::Capture),
        (Status::Preauth, CommandType::Release),
        (Status::Confirmed, CommandType::Refund),
        (Status::Waiting, CommandType::Cancel),
        (Status::Input, CommandType::Cancel),
    ] {
        let refused = Outcome::Refused(crate::payment::outcome::GatewayError::new(Code::Refused, "no"));
        for outcome in [refused, result(Verdict::Declined(Decline::Hard)), not_sent(), timed_out()] {
            let mut bench = Bench::with_payment(status);
            bench.rules.delayed.clear();
            let before = bench.amounts();
            let id = bench.call("a", kind, json!({}));
            bench.settle_after(id, outcome.clone(), 9);
            assert_eq!((bench.status(), bench.amounts()), (status, before), "{kind} {outcome:?}");
            if outcome != timed_out() {
                assert_eq!(bench.emitted(), [("command.failed", true)]);
                assert_eq!(bench.answer(id).0, AnswerKind::Failed);
            }
        }
    }
}

#[test]
fn a_refund_that_is_declined_changes_nothing_of_the_payment() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let id = bench.call("a", CommandType::Refund, json!({}));
    let mut declined = GatewayResult::new(Verdict::Declined(Decline::Hard));
    declined.fraud = Some((FraudStatus::Review, "odd".to_owned()));
    declined.code = Some("R1".to_owned());
    bench.settle(id, Outcome::Result(Box::new(declined)));
    assert_eq!(bench.emitted(), [("command.failed", true)]);
    assert_eq!(bench.payment().fraud_status, FraudStatus::Unknown);
    let EventKind::Failed { why, attempts } = &bench.emitted[0].kind else { panic!("{:?}", bench.emitted) };
    assert_eq!((why.code, why.gateway_code.as_deref(), *attempts), (Some(Code::Declined), Some("R1"), 1));
}

#[test]
fn other_data_of_the_gateway_is_merged_and_reported_once() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    let mut result = GatewayResult::new(Verdict::Pending);
    result.transaction_id = Some("tx-1".to_owned());
    result.fraud = Some((FraudStatus::Accept, "looks well".to_owned()));
    result.extra_data = serde_json::from_value(json!({"card": "visa"})).unwrap();
    bench.settle(id, Outcome::Result(Box::new(result.clone())));
    let EventKind::Updated { changed, .. } = &bench.emitted[0].kind else { panic!("{:?}", bench.emitted) };
    assert_eq!(changed, &["transaction_id", "fraud_status", "fraud_message", "extra_data"]);
    assert_eq!(bench.emitted(), [("payment.updated", false), ("command.delayed", false)]);
    bench.found(id, Some(id), crate::payment::outcome::Found::Result(Box::new(result)));
    assert!(bench.emitted.is_empty(), "the same again is no news");
    assert_eq!(bench.payment().transaction_id, "tx-1");

    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    let mut big = GatewayResult::new(Verdict::Approved);
    big.extra_data = serde_json::from_value(json!({"blob": "x".repeat(100_000)})).unwrap();
    bench.settle(id, Outcome::Result(Box::new(big)));
    assert_eq!(json!(bench.payment().extra_data), json!({"truncated": true}));
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn a_message_is_reported_if_it_differs_and_an_empty_one_removes_none() {
    let says = |message: &str, transaction_id: &str| {
        let (message, transaction_id) = (message.to_owned(), Some(transaction_id.to_owned()));
        let result = GatewayResult { message, transaction_id, ..GatewayResult::new(Verdict::Declined(Decline::Hard)) };
        Outcome::Result(Box::new(result))
    };
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, says("no money", "first"));
    bench.rules.delayed.clear();
    let process = bench.call("b", CommandType::Process, json!({}));
    bench.settle(process, says("", "second"));
    assert_eq!(bench.emitted(), [("payment.updated", false), ("command.failed", true)]);
    assert_eq!((bench.payment().message.as_str(), bench.payment().transaction_id.as_str()), ("no money", "second"));
    let process = bench.call("c", CommandType::Process, json!({}));
    bench.settle(process, says("stolen", "second"));
    let EventKind::Updated { changed, .. } = &bench.emitted[0].kind else { panic!("{:?}", bench.emitted) };
    assert_eq!(changed, &["message"]);
    // The message of an earlier status does not outlive it.
    let process = bench.call("d", CommandType::Process, json!({}));
    bench.settle(process, approved());
    assert_eq!((bench.status(), bench.payment().message.as_str()), (Status::Confirmed, ""));
    // A refund's id is not the payment's.
    let refund = bench.call("e", CommandType::Refund, json!({"amount": "1"}));
    let result = GatewayResult { transaction_id: Some("refund-1".to_owned()), ..GatewayResult::new(Verdict::Approved) };
    bench.settle(refund, Outcome::Result(Box::new(result)));
    assert_eq!((bench.amounts()[2].as_str(), bench.payment().transaction_id.as_str()), ("1.00", "second"));
}

#[test]
fn amounts_have_the_decimals_of_their_currency() {
    let mut bench = Bench::new();
    bench.send("a", CommandType::Create, json!({"variant": "default", "total": "500", "currency": "JPY"}));
    let id = bench.call("b", CommandType::Process, json!({}));
    bench.settle(id, approved());
    assert_eq!(bench.amounts(), ["0", "500", "0"]);
    assert_eq!(bench.rejected("c", CommandType::Refund, json!({"amount": "1.5"})), Code::InvalidAmount);
    assert_eq!(bench.rejected("d", CommandType::Create, payment_data()), Code::AlreadyExists);
}
