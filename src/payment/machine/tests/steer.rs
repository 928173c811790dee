//! What operators do with an operation that waits.

use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bench::{Bench, approved, command, not_sent, operation_id, result, timed_out};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::Verdict;
use crate::payment::status::Status;

/// Sends it as an operator; the rejection's code, if it is rejected.
fn steer(bench: &mut Bench, id: &str, kind: CommandType, target: Uuid, data: Value) -> Option<Code> {
    let mut all = json!({"operation": target.to_string(), "reason": "the gateway is back"});
    all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    let mut command = command(id, kind, all);
    command.attributes.user_id = Some("alice".to_owned());
    assert_eq!(bench.send_command(command), Step::Settled);
    match bench.answer(operation_id(id)) {
        (AnswerKind::Succeeded, None) => None,
        (AnswerKind::Rejected, Some(code)) => Some(code),
        answer => panic!("{answer:?}"),
    }
}

fn retry(bench: &mut Bench, id: &str, target: Uuid) -> Option<Code> {
    steer(bench, id, CommandType::Retry, target, json!({}))
}

fn withdraw(bench: &mut Bench, id: &str, target: Uuid) -> Option<Code> {
    steer(bench, id, CommandType::Withdraw, target, json!({}))
}

/// A refund of 30 that could not be sent, and one of 20 that waits for it.
fn scheduled() -> (Bench, Uuid, Uuid) {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
    bench.send("b", CommandType::Refund, json!({"amount": "20"}));
    bench.settle_after(first, not_sent(), 9);
    assert_eq!(bench.state(first), State::Scheduled);
    (bench, first, operation_id("b"))
}

#[test]
fn an_attempt_is_moved_and_none_is_used_up() {
    let (mut bench, first, _) = scheduled();
    let before = bench.operation(first).clone();
    assert_eq!(retry(&mut bench, "r", first), None);
    let after = bench.operation(first).clone();
    assert_eq!(after.due_at, Some(bench.now));
    assert_eq!((after.counts.attempts, after.counts.rounds), (before.counts.attempts, before.counts.rounds));
    assert_eq!(bench.emitted(), [("command.succeeded", true)]);
    assert_eq!(bench.resume(first), Step::Call(first));
    // Later, too; and its publisher learns when.
    bench.settle_after(first, not_sent(), 9);
    let at = bench.now + SignedDuration::from_hours(5);
    assert_eq!(steer(&mut bench, "later", CommandType::Retry, first, json!({"at": at.to_string()})), None);
    assert_eq!(bench.operation(first).due_at, Some(at));
    assert_eq!(bench.emitted(), [("command.delayed", false), ("command.succeeded", true)]);
    // The payment is busy all that time.
    let far = json!({"at": (bench.now + SignedDuration::from_hours(31 * 24)).to_string()});
    assert_eq!(steer(&mut bench, "far", CommandType::Retry, first, far), Some(Code::InvalidData));
    let past = json!({"at": "2001-01-01T00:00:00Z"});
    assert_eq!(steer(&mut bench, "past", CommandType::Retry, first, past), None);
    assert_eq!(bench.operation(first).due_at, Some(bench.now));
}

#[test]
fn a_look_up_is_moved_but_not_into_the_settle_window() {
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.contract.keys = super::bench::keys(None);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle_after(id, timed_out(), 9);
    assert_eq!(bench.state(id), State::Unknown);
    let sent = bench.operation(id).sent.last_at.unwrap();
    assert_eq!(retry(&mut bench, "r", id), None);
    assert_eq!(bench.resume(id), Step::Stored, "too early to ask");
    assert_eq!(bench.operation(id).due_at.unwrap(), sent + SignedDuration::from_secs(10));
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    assert_eq!(retry(&mut bench, "asked", id), Some(Code::NotRetryable), "it is being asked");
}

#[test]
fn what_waits_for_no_time_cannot_be_moved() {
    let (mut bench, first, second) = scheduled();
    assert_eq!(retry(&mut bench, "waits", second), Some(Code::NotRetryable), "it waits for its turn");
    assert_eq!(retry(&mut bench, "nobody's", Uuid::nil()), Some(Code::NotRetryable));
    assert_eq!(bench.resume_when_due(first), Step::Call(first));
    assert_eq!(retry(&mut bench, "called", first), Some(Code::NotRetryable));
    bench.settle(first, approved());
    assert_eq!(retry(&mut bench, "settled", first), Some(Code::NotRetryable));
}

#[test]
fn what_was_not_sent_is_withdrawn_and_the_next_goes_on() {
    let (mut bench, first, second) = scheduled();
    assert_eq!(withdraw(&mut bench, "w", first), None);
    assert_eq!(bench.answer(first), (AnswerKind::Failed, Some(Code::Withdrawn)));
    assert_eq!(bench.emitted(), [("command.failed", true), ("command.succeeded", true)]);
    assert_eq!((bench.payment().busy, bench.status()), (None, Status::Confirmed));
    assert_eq!(bench.operation(second).due_at, Some(bench.now));
    assert_eq!(bench.resume(second), Step::Call(second));
    bench.settle(second, approved());
    assert_eq!(bench.amounts(), ["0.00", "80.00", "20.00"]);

    // What waits for its turn, too.
    let (mut bench, first, second) = scheduled();
    assert_eq!(withdraw(&mut bench, "w", second), None);
    assert_eq!(bench.answer(second), (AnswerKind::Failed, Some(Code::Withdrawn)));
    assert_eq!((bench.payment().busy, bench.payment().waiting), (Some(first), 0));

    // A process leaves the payment as it was: it can be processed again.
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle_after(id, not_sent(), 9);
    assert_eq!(withdraw(&mut bench, "w", id), None);
    assert_eq!(bench.status(), Status::Waiting);
    bench.call("again", CommandType::Process, json!({}));
}

#[test]
fn what_may_have_been_sent_is_not_withdrawn() {
    let (mut bench, first, _) = scheduled();
    bench.resume_when_due(first);
    assert_eq!(withdraw(&mut bench, "called", first), Some(Code::NotWithdrawable));
    bench.settle_after(first, timed_out(), 9);
    assert_eq!(withdraw(&mut bench, "unknown", first), Some(Code::NotWithdrawable));
    bench.settle(first, result(Verdict::Pending));
    assert_eq!(withdraw(&mut bench, "pending", first), Some(Code::NotWithdrawable));
    bench.settle(first, approved());
    assert_eq!(withdraw(&mut bench, "settled", first), Some(Code::NotWithdrawable));
    assert_eq!(bench.amounts()[2], "30.00");
}

#[test]
fn who_steers_must_have_a_name() {
    let (mut bench, first, _) = scheduled();
    for (id, kind) in [("r", CommandType::Retry), ("w", CommandType::Withdraw)] {
        assert_eq!(bench.rejected(id, kind, json!({"operation": first.to_string()})), Code::UserRequired);
    }
    assert_eq!(bench.state(first), State::Scheduled);
}
