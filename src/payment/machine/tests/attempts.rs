//! Retries: at once, later, not any more; and what an attempt that may have been received changes.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::json;
use uuid::Uuid;

use super::bench::{Bench, approved, command, keys, not_sent, operation_id, replaying, timed_out};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Exposure, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;

fn error(code: Code, retry_after: Option<u64>) -> GatewayError {
    GatewayError { retry_after: retry_after.map(Duration::from_secs), ..GatewayError::new(code, "trouble") }
}

fn refused() -> Outcome {
    Outcome::Refused(error(Code::Refused, None))
}

/// A bench whose payment's process is being called.
fn calling() -> (Bench, Uuid) {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    (bench, id)
}

/// A bench whose payment's process timed out and waits to be sent again.
fn unknown() -> (Bench, Uuid) {
    let (mut bench, id) = calling();
    assert_eq!(bench.settle_after(id, timed_out(), 2), Step::Stored);
    assert_eq!(bench.state(id), State::Unknown);
    (bench, id)
}

#[test]
fn an_attempt_not_sent_is_tried_at_once_then_later_then_given_up_with_proof() {
    let (mut bench, id) = calling();
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::RetryNow(id));
    for (round, delay) in [(1, 10), (2, 60)] {
        assert_eq!(bench.settle_after(id, not_sent(), 2), Step::Stored);
        assert_eq!(bench.emitted(), [("command.delayed", false)]);
        assert_eq!(bench.delayed(), Some(Code::Unreachable));
        let operation = bench.operation(id);
        assert_eq!((operation.state, operation.counts.rounds, operation.lease), (State::Scheduled, round, None));
        assert_eq!(operation.due_at, Some(bench.now + SignedDuration::from_secs(delay)));
        assert_eq!(bench.payment().busy, Some(id), "it keeps its turn");
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
    }
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::RetryNow(id));
    assert_eq!(bench.settle_after(id, not_sent(), 2), Step::Settled);
    assert_eq!(bench.emitted(), [("payment.status_changed", true)]);
    assert_eq!((bench.status(), bench.answer(id)), (Status::Error, (AnswerKind::Failed, Some(Code::Unreachable))));
    assert_eq!(bench.payment().message, "no connection");
    assert_eq!(bench.operation(id).sent.generation, 0);
    // Nothing was charged: a new process may begin.
    bench.call("b", CommandType::Process, json!({}));
}

#[test]
fn an_attempt_begun_and_paused_uses_up_nothing() {
    let paused = || Outcome::NotSent(error(Code::Held, None));
    for (paused_for, emitted) in [(Some(Duration::from_secs(30)), vec![("command.delayed", false)]), (None, vec![])] {
        for (begin, state) in [(calling as fn() -> (Bench, Uuid), State::Scheduled), (unknown, State::Unknown)] {
            let (mut bench, id) = begin();
            if state == State::Unknown {
                assert_eq!(bench.resume_when_due(id), Step::Call(id));
            }
            bench.rules.delayed.clear();
            let (attempts, rounds) = (bench.operation(id).counts.attempts, bench.operation(id).counts.rounds);
            bench.paused_for = paused_for;
            bench.emitted.clear();
            // In the last of its immediate tries, and with no delayed ones left: it is neither failed nor given up.
            assert_eq!(bench.settle_after(id, paused(), 2), Step::Stored);
            assert_eq!(bench.emitted(), emitted);
            let operation = bench.operation(id);
            assert_eq!((operation.state, operation.lease), (state, None));
            assert_eq!((operation.counts.attempts, operation.counts.rounds), (attempts - 1, rounds));
            assert_eq!(operation.due_at, Some(bench.now + paused_for.unwrap_or_default()));
            bench.paused_for = None;
            assert_eq!(bench.resume_when_due(id), Step::Call(id));
        }
    }
}

#[test]
fn the_gateways_wish_to_wait_is_honoured_and_no_immediate_try_made() {
    for (retry_after, delay) in [(1, 10), (45, 45)] {
        let (mut bench, id) = calling();
        let slow_down = Outcome::NotSent(error(Code::RateLimited, Some(retry_after)));
        assert_eq!(bench.settle_after(id, slow_down, 1), Step::Stored);
        assert_eq!(bench.operation(id).due_at, Some(bench.now + SignedDuration::from_secs(delay)));
        assert_eq!(bench.operation(id).sent.exposure, Exposure::Clean);
    }
    // For ever is for ever.
    let (mut bench, id) = calling();
    let never = Outcome::NotSent(error(Code::RateLimited, Some(u64::MAX)));
    bench.settle_after(id, never, 1);
    assert_eq!(bench.operation(id).due_at, Some(jiff::Timestamp::MAX));
}

#[test]
fn no_immediate_retry_is_made_while_calls_are_paused() {
    let (mut bench, id) = calling();
    bench.paused_for = Some(Duration::from_secs(30));
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::Stored);
    assert_eq!(bench.state(id), State::Scheduled);
}

#[test]
fn a_paused_attempt_uses_up_no_retry_and_ends_nothing() {
    for paused_for in [Duration::from_secs(30), Duration::ZERO] {
        let (mut bench, id) = calling();
        bench.rules.delayed.clear();
        bench.paused_for = Some(paused_for);
        assert_eq!(bench.settle_after(id, not_sent(), 1), Step::Stored);
        assert_eq!((bench.state(id), bench.operation(id).counts.rounds), (State::Scheduled, 0));
        assert_eq!(bench.operation(id).due_at, Some(bench.now + paused_for));
        assert_eq!(bench.delayed(), (!paused_for.is_zero()).then_some(Code::Unreachable), "a drain is no news");
        bench.paused_for = None;
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
        // What may have been received is tried again under its key.
        bench.paused_for = Some(paused_for);
        assert_eq!(bench.settle_after(id, timed_out(), 1), Step::Stored);
        assert_eq!((bench.state(id), bench.operation(id).counts.rounds), (State::Unknown, 0));
        bench.paused_for = None;
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
        bench.settle(id, approved());
        assert_eq!(bench.status(), Status::Confirmed);
    }
}

#[test]
fn no_look_up_comes_sooner_than_the_gateway_asks_for() {
    let (mut bench, id) = calling();
    bench.rules.contract.keys = keys(None);
    let busy = || error(Code::GatewayError, Some(500));
    bench.settle(id, Outcome::Unknown(busy()));
    assert_eq!(bench.operation(id).due_at, Some(bench.now + SignedDuration::from_secs(500)));
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    bench.found(id, Some(id), Found::Failed(busy()));
    assert_eq!(bench.operation(id).due_at, Some(bench.now + SignedDuration::from_secs(500)));
}

#[test]
fn wrong_credentials_never_give_up_and_use_up_no_retries() {
    let (mut bench, id) = calling();
    for _ in 0..20 {
        let misconfigured = Outcome::NotSent(error(Code::Misconfigured, None));
        assert_eq!(bench.settle_after(id, misconfigured, 1), Step::Stored);
        assert_eq!((bench.state(id), bench.delayed()), (State::Scheduled, Some(Code::Misconfigured)));
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
    }
    // The token was mended. Now a gateway that is away for a moment must not end it.
    bench.settle_after(id, not_sent(), 2);
    assert_eq!(bench.state(id), State::Scheduled);
    bench.rules.delayed.clear();
    bench.resume_when_due(id);
    bench.settle_after(id, Outcome::NotSent(error(Code::Misconfigured, None)), 1);
    assert_eq!(bench.state(id), State::Scheduled, "not even where no delays are configured");
}

#[test]
fn a_request_refused_while_nothing_else_is_open_fails() {
    let (mut bench, id) = calling();
    assert_eq!(bench.settle(id, refused()), Step::Settled);
    assert_eq!((bench.status(), bench.answer(id).1), (Status::Error, Some(Code::Refused)));
}

#[test]
fn a_process_that_went_on_from_input_and_did_nothing_leaves_the_transaction_open() {
    // The customer may still act at the gateway: `error` would let a second transaction begin beside it.
    for outcome in [refused(), not_sent()] {
        let mut bench = Bench::with_payment(Status::Input);
        bench.rules.delayed.clear();
        let id = bench.call("a", CommandType::Process, json!({}));
        bench.settle_after(id, outcome, 9);
        assert_eq!(bench.emitted(), [("command.failed", true)]);
        assert_eq!(bench.status(), Status::Input);
        assert!(bench.payment().redirect_url.is_some());
    }
}

#[test]
fn once_one_attempt_may_have_been_received_nothing_but_a_result_ends_the_unknown() {
    let rate_limited = || Outcome::NotSent(error(Code::RateLimited, None));
    let server_error = || Outcome::Unknown(error(Code::GatewayError, None));
    for later in [not_sent, refused, rate_limited, server_error, timed_out] {
        let (mut bench, id) = unknown();
        for _ in 0..6 {
            match bench.resume_when_due(id) {
                Step::Call(_) => bench.settle_after(id, later(), 2),
                Step::LookUp { target, .. } => bench.found(id, target, Found::Failed(error(Code::GatewayError, None))),
                step => panic!("{step:?}"),
            };
            assert_eq!((bench.state(id), bench.status()), (State::Unknown, Status::Waiting), "{:?}", later());
            assert_eq!(bench.operation(id).sent.exposure, Exposure::Exposed);
            assert_eq!(bench.operation(id).sent.generation, 0, "no new key");
        }
        assert!(bench.operation(id).escalated, "after some look-ups a person is told");
        bench.settle(id, approved());
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    }
}

#[test]
fn an_unknown_is_sent_again_under_its_live_key_and_then_looked_up() {
    let (mut bench, id) = unknown();
    assert_eq!(bench.delayed(), Some(Code::Timeout));
    let key = bench.operation(id).key();
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
    assert_eq!((bench.operation(id).key(), bench.operation(id).counts.attempts), (key, 2));
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::RetryNow(id));
    bench.settle_after(id, not_sent(), 2);
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
    // The retries are used up: from here on only look-ups.
    assert_eq!(bench.settle_after(id, not_sent(), 2), Step::Stored);
    assert!(bench.operation(id).sent.lookup_only);
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
}

#[test]
fn a_conflict_forgets_no_attempt_that_may_have_been_received() {
    // The first attempt timed out and the second was not sent; between them another command was accepted, so that the
    // outcome of the second is decided on what was stored.
    let (mut bench, id) = calling();
    let mut mine = bench.store.load(&[id]);
    assert_eq!(mine.settle(id, bench.asked(id).answered(timed_out()), 1, bench.context()), Step::RetryNow(id));
    mine.attempt_stored(id, 2, bench.context());
    let exposed = mine.operation(id).unwrap().sent.exposure;
    let row = bench.store.operation_mut(id);
    (row.counts.attempts, row.sent.exposure) = (2, exposed);
    bench.send("b", CommandType::Cancel, json!({}));
    bench.settle_after(id, not_sent(), 9);
    assert_eq!(bench.state(id), State::Unknown);
}

#[test]
fn nothing_is_sent_under_a_key_past_its_window_less_a_margin() {
    let (mut bench, id) = unknown();
    // 24 hours, less a lease of 15 seconds.
    bench.wait(24 * 60 * 60 - 16);
    assert_eq!(bench.resume(id), Step::Call(id));
    bench.wait(1);
    assert_eq!(bench.settle_after(id, timed_out(), 1), Step::Stored, "not even at once");
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    // What was never received is sent for the first time, however late.
    let (mut bench, id) = calling();
    bench.settle_after(id, not_sent(), 2);
    bench.wait(30 * 24 * 60 * 60);
    assert_eq!(bench.resume(id), Step::Call(id));
    assert_eq!(bench.operation(id).sent.first_at, Some(bench.now), "the window begins when it may have been received");
}

#[test]
fn a_gateway_without_keys_is_never_sent_the_same_twice() {
    let (mut bench, id) = calling();
    bench.rules.contract.keys = keys(None);
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::RetryNow(id), "never received");
    assert_eq!(bench.settle_after(id, timed_out(), 1), Step::Stored);
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    // And where it cannot be asked either, only a person can say.
    let (mut bench, id) = calling();
    bench.rules.contract.keys = keys(None);
    bench.rules.contract.lookup = Lookup::None;
    assert_eq!(bench.settle_after(id, timed_out(), 1), Step::Stored);
    assert_eq!(bench.delayed(), Some(Code::Escalated));
    assert!(bench.operation(id).escalated && bench.operation(id).due_at.is_none());
}

#[test]
fn a_key_under_which_a_server_error_is_replayed_is_sent_no_more() {
    let server_error = Outcome::Unknown(error(Code::GatewayError, None));
    let (mut bench, id) = calling();
    assert_eq!(
        bench.settle_after(id, server_error.clone(), 1),
        Step::RetryNow(id),
        "others carry it out on the next try"
    );
    bench.rules.contract.keys = replaying();
    assert_eq!(bench.settle_after(id, server_error.clone(), 1), Step::Stored);
    // Each new key follows a proof, and uses up a retry.
    for generation in 1..=2 {
        assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
        assert_eq!(bench.found(id, Some(id), Found::Nothing), Step::Stored);
        assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Scheduled, generation));
        assert_eq!(bench.resume_when_due(id), Step::Call(id));
        bench.settle_after(id, server_error.clone(), 1);
    }
    bench.resume_when_due(id);
    assert_eq!(bench.found(id, Some(id), Found::Nothing), Step::Settled);
    assert_eq!((bench.status(), bench.answer(id).1), (Status::Error, Some(Code::GatewayError)));
}

#[test]
fn an_expirytime_bounds_every_send_until_one_may_have_been_received() {
    let send = |bench: &mut Bench| {
        let mut process = command("a", CommandType::Process, json!({}));
        process.attributes.expires_at = Some(bench.now + SignedDuration::from_secs(30));
        assert_eq!(bench.send_command(process), Step::Call(operation_id("a")));
        operation_id("a")
    };
    // At the next round, and between two tries in a row.
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = send(&mut bench);
    bench.settle_after(id, not_sent(), 2);
    bench.wait(30);
    assert_eq!(bench.resume(id), Step::Settled);
    assert_eq!(bench.rejection(), Code::Expired);
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = send(&mut bench);
    bench.wait(30);
    assert_eq!(bench.settle_after(id, not_sent(), 1), Step::Settled);
    assert_eq!((bench.rejection(), bench.status()), (Code::Expired, Status::Waiting));
    // Once received, it is seen to its end.
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = send(&mut bench);
    bench.settle_after(id, timed_out(), 2);
    bench.wait(30);
    assert_eq!(bench.resume(id), Step::Call(id));
    // But nothing new is begun.
    bench.rules.contract.keys = keys(None);
    bench.settle_after(id, timed_out(), 2);
    bench.resume_when_due(id);
    assert_eq!(bench.found(id, Some(id), Found::Nothing), Step::Settled);
    assert_eq!((bench.rejection(), bench.status()), (Code::Expired, Status::Waiting));
}

#[test]
fn every_delay_emits_an_event_of_its_own() {
    // The bench refuses two events of one id.
    let (mut bench, id) = calling();
    bench.settle_after(id, not_sent(), 2);
    bench.resume_when_due(id);
    bench.settle_after(id, timed_out(), 2);
    bench.rules.contract.keys = keys(None);
    bench.resume_when_due(id);
    bench.found(id, Some(id), super::bench::found(Verdict::Pending));
    bench.settle(id, super::bench::approved_of("0"));
    let delays = bench.store.events.iter().filter(|event| event.kind.type_name() == "command.delayed").count();
    assert_eq!(delays, 4);
}

#[test]
fn the_settle_window_begins_when_the_outcome_was_learnt_and_no_look_up_is_due_before_its_end() {
    let (mut bench, id) = calling();
    bench.rules.contract.keys = keys(None);
    bench.rules.delayed = vec![Duration::from_secs(1)];
    // It may have been held back for a while before it was sent.
    bench.wait(9);
    bench.settle(id, timed_out());
    assert_eq!(bench.operation(id).due_at, Some(bench.now + SignedDuration::from_secs(10)));
}

#[test]
fn a_new_key_is_as_good_as_the_first_was() {
    let (mut bench, id) = calling();
    bench.rules.contract.keys = replaying();
    bench.settle(id, Outcome::Unknown(error(Code::GatewayError, None)));
    bench.store.operation_mut(id).escalated = true;
    bench.resume_when_due(id);
    bench.found(id, Some(id), Found::Nothing);
    assert!(!bench.operation(id).escalated, "it goes on by itself");
    bench.resume(id);
    bench.settle_after(id, timed_out(), 2);
    assert_eq!(bench.resume_when_due(id), Step::Call(id), "under the new key it may be sent again");
}

#[test]
fn an_attempt_paused_for_too_long_is_not_sent() {
    let may_send = |bench: &Bench, id| bench.store.load(&[id]).may_send(id, bench.context());
    // Past its expirytime, while nothing was received.
    let mut bench = Bench::with_payment(Status::Waiting);
    let mut process = command("a", CommandType::Process, json!({}));
    process.attributes.expires_at = Some(bench.now + SignedDuration::from_secs(30));
    let id = process.operation_id();
    bench.send_command(process);
    assert!(may_send(&bench, id));
    bench.wait(30);
    assert!(!may_send(&bench, id));
    bench.settle(id, not_sent());
    assert_eq!(bench.rejection(), Code::Expired);
    // Past its key's window, where an earlier one may have been received.
    let (mut bench, id) = unknown();
    bench.resume_when_due(id);
    assert!(may_send(&bench, id));
    bench.wait(24 * 60 * 60);
    assert!(!may_send(&bench, id));
    bench.settle(id, not_sent());
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
}

#[test]
fn what_the_payment_no_longer_allows_is_not_sent_for_the_first_time() {
    // The customer ended the first process at the gateway; the second was not sent yet when that was learnt.
    let mut bench = Bench::with_payment(Status::Input);
    let second = bench.call("b", CommandType::Process, json!({}));
    bench.settle_after(second, not_sent(), 2);
    bench.send("s", CommandType::Sync, json!({}));
    bench.found(operation_id("s"), None, super::bench::found(Verdict::Approved));
    assert_eq!(bench.status(), Status::Confirmed);
    assert_eq!(bench.resume_when_due(second), Step::Settled);
    assert_eq!((bench.rejection(), bench.amounts()[1].as_str()), (Code::NotAllowed, "100.00"));
    // A refund was made at the gateway's own desk.
    let refund = bench.call("r", CommandType::Refund, json!({"amount": "60"}));
    bench.settle_after(refund, not_sent(), 2);
    bench.send("t", CommandType::Sync, json!({}));
    let half = GatewayResult {
        captured: Some(super::bench::usd("50")),
        refunded: Some(super::bench::usd("50")),
        ..GatewayResult::new(Verdict::Approved)
    };
    bench.found(operation_id("t"), None, Found::Result(Box::new(half)));
    assert_eq!(bench.resume_when_due(refund), Step::Settled);
    assert_eq!(bench.rejection(), Code::InvalidAmount);
}

#[test]
fn what_the_payment_no_longer_allows_is_not_sent_again_but_looked_up() {
    for is_lost in [false, true] {
        let mut bench = Bench::with_payment(Status::Waiting);
        let first = bench.call("a", CommandType::Process, json!({}));
        bench.settle(first, super::bench::result(Verdict::Declined(Decline::Soft)));
        let second = bench.call("b", CommandType::Process, json!({}));
        if !is_lost {
            bench.settle_after(second, timed_out(), 2);
        }
        // The gateway takes its decline back.
        bench.settle(first, approved());
        assert_eq!(bench.status(), Status::Confirmed);
        bench.wait(30);
        if is_lost {
            assert_eq!(bench.resume(second), Step::Stored);
        }
        assert_eq!(bench.resume_when_due(second), Step::LookUp { operation: second, target: Some(second) });
        bench.found(second, Some(second), Found::Nothing);
        assert_eq!(bench.resume_when_due(second), Step::Settled);
        assert_eq!((bench.rejection(), bench.amounts()[1].as_str()), (Code::NotAllowed, "100.00"));
    }
}

#[test]
fn an_answer_that_cannot_be_the_one_to_this_is_for_a_person() {
    let (mut bench, id) = calling();
    let odd = Outcome::Unknown(GatewayError::new(Code::Mismatch, "it is another payment's"));
    assert_eq!(bench.settle(id, odd), Step::Stored);
    assert_eq!((bench.state(id), bench.delayed()), (State::Unknown, Some(Code::Mismatch)));
    assert!(bench.operation(id).escalated);
    // The gateway acted on something: that it does not find this proves nothing.
    bench.wait(3_600);
    bench.found(id, Some(id), Found::Nothing);
    assert_eq!(bench.state(id), State::Unknown);
}
