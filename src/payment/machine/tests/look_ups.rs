//! What look-ups, late answers and persons say of an unknown outcome.

use std::time::Duration;

use jiff::SignedDuration;
use serde_json::{Value, json};
use uuid::Uuid;

use super::bench::{
    Bench, OTHER_WORKER, approved, approved_of, command, found, keys, not_sent, operation_id, result, timed_out, usd,
};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::contract::Lookup;
use crate::payment::event::EventKind;
use crate::payment::machine::Step;
use crate::payment::money::{Currency, Money};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Decline, Exposure, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;

/// A bench whose payment's process timed out at a gateway without keys, so that it can only be looked up.
fn unknown() -> (Bench, Uuid) {
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.contract.keys = keys(None);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle(id, timed_out());
    (bench, id)
}

fn failed() -> Found {
    Found::Failed(GatewayError::new(Code::Timeout, "no answer"))
}

/// Looks up when it is due, and finds something.
fn look_up(bench: &mut Bench, id: Uuid, what: Found) -> Step {
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    bench.found(id, Some(id), what)
}

#[test]
fn a_look_up_that_finds_the_result_ends_the_unknown_with_its_own_command_as_the_cause() {
    let redirect = Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) };
    for (verdict, status) in [
        (Verdict::Approved, Status::Confirmed),
        (Verdict::Authorized, Status::Preauth),
        (Verdict::Declined(Decline::Hard), Status::Rejected),
        (redirect, Status::Input),
    ] {
        let (mut bench, id) = unknown();
        assert_eq!(look_up(&mut bench, id, found(verdict)), Step::Settled);
        assert_eq!((bench.status(), bench.payment().busy), (status, None));
        assert_eq!(bench.emitted(), [("payment.status_changed", true)]);
        assert_eq!(bench.emitted[0].cause.as_ref().unwrap().name.id, "a");
    }
    let (mut bench, id) = unknown();
    assert_eq!(look_up(&mut bench, id, found(Verdict::Pending)), Step::Stored);
    assert_eq!((bench.state(id), bench.payment().busy), (State::Pending, None));
}

#[test]
fn nothing_found_after_the_settle_window_proves_and_a_new_key_begins() {
    let (mut bench, id) = unknown();
    let old_key = bench.operation(id).key();
    assert_eq!(look_up(&mut bench, id, Found::Nothing), Step::Stored);
    let operation = bench.operation(id);
    assert_eq!((operation.state, operation.sent.generation, operation.counts.rounds), (State::Scheduled, 1, 1));
    assert_eq!((operation.sent.exposure, operation.due_at), (Exposure::Clean, Some(bench.now)));
    assert_ne!(operation.key(), old_key);
    assert_eq!(bench.payment().busy, Some(id), "it keeps its turn");
    assert_eq!(bench.resume(id), Step::Call(id));
    assert_eq!(bench.operation(id).sent.first_at, Some(bench.now), "the new key has its own window");
    bench.settle(id, approved());
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn nothing_found_fails_where_the_retries_are_used_up() {
    let (mut bench, id) = unknown();
    for _ in 0..2 {
        look_up(&mut bench, id, Found::Nothing);
        bench.resume(id);
        bench.settle(id, timed_out());
    }
    assert_eq!(look_up(&mut bench, id, Found::Nothing), Step::Settled);
    assert_eq!((bench.status(), bench.answer(id)), (Status::Error, (AnswerKind::Failed, Some(Code::Timeout))));
}

#[test]
fn nothing_found_is_kept_until_calls_go_out_again() {
    let (mut bench, id) = unknown();
    bench.resume_when_due(id);
    bench.paused_for = Some(Duration::from_secs(30));
    bench.found(id, Some(id), Found::Nothing);
    assert_eq!((bench.state(id), bench.status()), (State::Scheduled, Status::Waiting), "held back, not failed");
    assert_eq!(bench.resume_when_due(id), Step::Stored);
    bench.paused_for = None;
    assert_eq!(bench.resume_when_due(id), Step::Call(id));
}

#[test]
fn nothing_found_proves_nothing_within_the_settle_window() {
    let (mut bench, id) = unknown();
    let sent = bench.now;
    assert_eq!(bench.operation(id).due_at, Some(sent + SignedDuration::from_secs(10)));
    bench.wait(9);
    assert_eq!(bench.resume(id), Step::Stored, "too early to ask");
    assert_eq!(bench.operation(id).due_at, Some(sent + SignedDuration::from_secs(10)));
    // A sync may ask that early; its answer proves nothing, even when it comes late.
    let sync = operation_id("s");
    bench.send("s", CommandType::Sync, json!({}));
    bench.wait(60);
    bench.found(sync, Some(id), Found::Nothing);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0));
}

#[test]
fn nothing_found_while_the_clocks_differed_proves_nothing_when_they_agree_again() {
    let (mut bench, id) = unknown();
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    let asked = bench.asked(id).while_clocks(false);
    assert_eq!(bench.found_of(id, Some(id), asked, Found::Nothing), Step::Stored);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0));
    look_up(&mut bench, id, Found::Nothing);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Scheduled, 1));
}

#[test]
fn the_settle_window_begins_with_the_last_send_of_all() {
    let (mut bench, id) = unknown();
    bench.rules.contract.keys = keys(Some(Duration::from_secs(24 * 60 * 60)));
    // A sync asks; while it waits for its answer, the operation is sent again and times out.
    bench.store.operation_mut(id).sent.lookup_only = false;
    bench.wait(20);
    let sync = operation_id("s");
    bench.send("s", CommandType::Sync, json!({}));
    bench.wait(1);
    assert_eq!(bench.resume(id), Step::Call(id));
    bench.settle_after(id, timed_out(), 9);
    bench.wait(14);
    bench.found(sync, Some(id), Found::Nothing);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0));
}

#[test]
fn nothing_found_proves_nothing_where_the_look_up_is_not_authoritative() {
    let (mut bench, id) = unknown();
    bench.rules.contract.lookup = Lookup::Indicative;
    let mut delays = Vec::new();
    for _ in 0..5 {
        assert_eq!(look_up(&mut bench, id, Found::Nothing), Step::Stored);
        assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Unknown, 0));
        delays.push(bench.operation(id).due_at.unwrap().duration_since(bench.now).as_secs());
    }
    assert_eq!(delays, [60, 60, 60, 60, 60], "less and less often");
    assert!(bench.operation(id).escalated);
    let escalations = bench
        .store
        .events
        .iter()
        .filter(|event| matches!(event.kind, EventKind::Delayed { reason: Code::Escalated, .. }));
    assert_eq!(escalations.count(), 1);
}

#[test]
fn what_is_pending_is_asked_for_again_and_again_and_never_ends_by_absence() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle(id, result(Verdict::Pending));
    let mut delays = Vec::new();
    for _ in 0..4 {
        look_up(&mut bench, id, found(Verdict::Pending));
        delays.push(bench.operation(id).due_at.unwrap().duration_since(bench.now).as_secs());
        assert!(bench.emitted.is_empty());
    }
    assert_eq!(delays, [60, 60, 60, 60]);
    look_up(&mut bench, id, failed());
    assert!(!bench.operation(id).escalated, "a bank may take days");
    look_up(&mut bench, id, Found::Nothing);
    assert_eq!((bench.state(id), bench.operation(id).sent.generation), (State::Pending, 0));
    assert!(bench.operation(id).escalated, "but the gateway should know it");
    look_up(&mut bench, id, found(Verdict::Declined(Decline::Soft)));
    assert_eq!(bench.status(), Status::Rejected);
}

#[test]
fn a_failed_look_up_is_repeated_and_a_stale_one_changes_nothing() {
    let (mut bench, id) = unknown();
    look_up(&mut bench, id, failed());
    assert_eq!((bench.state(id), bench.operation(id).counts.lookups), (State::Unknown, 1));
    assert_eq!(bench.resume_when_due(id), Step::LookUp { operation: id, target: Some(id) });
    // Another worker's answer of long ago.
    let before = bench.operation(id).clone();
    bench.worker = OTHER_WORKER;
    for what in [failed(), Found::Nothing] {
        assert_eq!(bench.found(id, Some(id), what), Step::Stored);
        assert_eq!(bench.operation(id), &before);
    }
    assert_eq!(bench.found(id, Some(id), found(Verdict::Approved)), Step::Settled);
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn a_pending_operation_that_turns_out_unknown_takes_the_turn_when_it_is_free() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let first = bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(first, result(Verdict::Pending));
    let second = bench.call("b", CommandType::Refund, json!({"amount": "10"}));
    bench.send("c", CommandType::Refund, json!({"amount": "10"}));
    bench.settle(first, approved_of("0"));
    assert_eq!((bench.state(first), bench.payment().busy), (State::Unknown, Some(second)));
    bench.settle(second, approved());
    assert_eq!(bench.payment().busy, Some(first));
    assert_eq!(bench.resume_when_due(operation_id("c")), Step::Stored, "busy with what is unknown");
    bench.settle(first, approved());
    assert_eq!(bench.resume_when_due(operation_id("c")), Step::Call(operation_id("c")));
}

#[test]
fn an_answer_that_comes_after_its_operation_was_settled_is_counted_once() {
    // The process was given up as proved not charged; then the gateway says it did it after all.
    let (mut bench, id) = unknown();
    bench.rules.delayed.clear();
    look_up(&mut bench, id, Found::Nothing);
    assert_eq!(bench.status(), Status::Error);
    for emitted in [vec![("payment.status_changed", false)], vec![]] {
        assert_eq!(bench.settle(id, approved()), Step::Settled);
        assert_eq!(bench.emitted(), emitted);
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "100.00"));
    }
    for nothing_new in [not_sent(), timed_out(), result(Verdict::Pending), result(Verdict::Declined(Decline::Soft))] {
        assert_eq!(bench.settle(id, nothing_new), Step::Settled);
        assert!(bench.emitted.is_empty());
    }
}

#[test]
fn an_answer_that_comes_again_much_later_undoes_nothing() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, approved());
    let refund = bench.call("b", CommandType::Refund, json!({}));
    bench.settle(refund, approved());
    bench.settle(process, approved());
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Refunded, "0.00"));
    // Nor does one in another currency do anything.
    let mut bench = Bench::with_payment(Status::Waiting);
    let process = bench.call("a", CommandType::Process, json!({}));
    bench.settle(process, result(Verdict::Declined(Decline::Hard)));
    let euros = Money::parse("100", Currency::from_code("EUR").unwrap()).unwrap();
    let foreign = GatewayResult { captured: Some(euros), ..GatewayResult::new(Verdict::Approved) };
    assert_eq!(bench.settle(process, Outcome::Result(Box::new(foreign))), Step::Settled);
    assert_eq!((bench.status(), bench.emitted().len()), (Status::Rejected, 0));
}

#[test]
fn late_answers_of_every_action_are_heard() {
    for (status, kind, after) in [
        (Status::Preauth, CommandType::Capture, Status::Confirmed),
        (Status::Preauth, CommandType::Release, Status::Refunded),
        (Status::Confirmed, CommandType::Refund, Status::Refunded),
        (Status::Waiting, CommandType::Cancel, Status::Cancelled),
    ] {
        let mut bench = Bench::with_payment(status);
        let id = bench.call("a", kind, json!({}));
        bench.settle(id, result(Verdict::Declined(Decline::Hard)));
        assert_eq!(bench.status(), status);
        bench.settle(id, approved());
        assert_eq!(bench.status(), after, "{kind}");
        bench.settle(id, approved());
        assert!(bench.emitted.is_empty(), "{kind}");
    }
    // A part of the money given back late does not end the payment.
    let mut bench = Bench::with_payment(Status::Confirmed);
    let id = bench.call("a", CommandType::Refund, json!({"amount": "30"}));
    bench.settle(id, result(Verdict::Declined(Decline::Hard)));
    bench.settle(id, approved());
    assert_eq!(bench.emitted(), [("payment.updated", false)]);
    assert_eq!((bench.status(), bench.amounts()[1].as_str()), (Status::Confirmed, "70.00"));
}

#[test]
fn money_learnt_of_the_whole_payment_is_not_counted_again_by_its_operations_own_answer() {
    for (seen, captured) in [("100", "100.00"), ("60", "160.00")] {
        let (mut bench, id) = unknown();
        bench.rules.delayed.clear();
        look_up(&mut bench, id, Found::Nothing);
        assert_eq!(bench.status(), Status::Error);
        let sync = operation_id("s");
        bench.send("s", CommandType::Sync, json!({}));
        let whole = GatewayResult { captured: Some(usd(seen)), ..GatewayResult::new(Verdict::Approved) };
        bench.found(sync, None, Found::Result(Box::new(whole)));
        assert_eq!(bench.status(), Status::Confirmed);
        // The same sum is the same money; another sum is more of it, for all that can be told.
        for _ in 0..2 {
            bench.settle(id, approved());
            assert_eq!(bench.amounts()[1], captured);
        }
        let matched = bench.store.movements.iter().filter(|movement| movement.operation == Some(id));
        assert_eq!(matched.count(), 1);
    }
}

fn resolve(bench: &mut Bench, id: &str, target: Uuid, data: Value) -> Step {
    let mut all = json!({"operation": target.to_string(), "evidence": "seen in the portal"});
    all.as_object_mut().unwrap().extend(data.as_object().unwrap().clone());
    let mut command = command(id, CommandType::Resolve, all);
    command.attributes.user_id = Some("alice".to_owned());
    bench.send_command(command)
}

#[test]
fn a_person_says_what_happened() {
    for (outcome, status, captured) in [
        (json!({"outcome": "approved", "transaction_id": "tx"}), Status::Confirmed, "100.00"),
        (json!({"outcome": "approved", "amount": "60"}), Status::Confirmed, "60.00"),
        (json!({"outcome": "declined"}), Status::Rejected, "0.00"),
        (json!({"outcome": "not_charged"}), Status::Error, "0.00"),
    ] {
        let (mut bench, id) = unknown();
        bench.send("waits", CommandType::Refund, json!({}));
        assert_eq!(resolve(&mut bench, "r", id, outcome.clone()), Step::Settled);
        assert_eq!((bench.status(), bench.amounts()[1].as_str()), (status, captured), "{outcome}");
        assert_eq!(bench.emitted(), [("payment.status_changed", true), ("command.succeeded", true)]);
        let causes: Vec<_> = bench.emitted.iter().map(|event| event.cause.as_ref().unwrap().name.id.clone()).collect();
        assert_eq!(causes, ["a", "r"]);
        assert_eq!(bench.operation(operation_id("waits")).due_at, Some(bench.now), "the turn goes on");
        // Proof from the gateway beats it.
        bench.settle(id, approved());
        assert_eq!(bench.status(), Status::Confirmed);
    }
}

#[test]
fn a_person_may_resolve_only_what_is_unknown_and_must_have_a_name() {
    let approve = || json!({"outcome": "approved"});
    let (mut bench, id) = unknown();
    let data = json!({"operation": id.to_string(), "outcome": "approved", "evidence": "x"});
    assert_eq!(bench.rejected("nobody", CommandType::Resolve, data), Code::UserRequired);
    for (amount, name) in [("0", "nothing"), ("1.001", "decimals"), ("ten", "words")] {
        resolve(&mut bench, name, id, json!({"outcome": "approved", "amount": amount}));
        assert_eq!(bench.rejection(), Code::InvalidAmount);
    }
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    resolve(&mut bench, "called", id, approve());
    assert_eq!(bench.rejection(), Code::NotUnknown);
    bench.settle(id, result(Verdict::Pending));
    resolve(&mut bench, "pending", id, approve());
    assert_eq!(bench.rejection(), Code::NotUnknown, "the gateway will say");
    bench.settle(id, approved());
    resolve(&mut bench, "settled", id, approve());
    assert_eq!(bench.rejection(), Code::NotUnknown);
    resolve(&mut bench, "nobody's", Uuid::nil(), approve());
    assert_eq!(bench.rejection(), Code::NotUnknown);
}

#[test]
fn what_is_pending_at_a_gateway_that_cannot_be_asked_is_escalated_and_resolved() {
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.contract.lookup = Lookup::None;
    let id = bench.call("a", CommandType::Process, json!({}));
    bench.settle(id, result(Verdict::Pending));
    assert!(bench.operation(id).escalated && bench.operation(id).due_at.is_none());
    assert_eq!(bench.delayed(), Some(Code::Escalated));
    resolve(&mut bench, "r", id, json!({"outcome": "approved"}));
    assert_eq!(bench.status(), Status::Confirmed);
}

#[test]
fn a_person_may_resolve_although_the_gateway_changed() {
    let (mut bench, id) = unknown();
    bench.rules.gateway = "stripe".to_owned();
    resolve(&mut bench, "r", id, json!({"outcome": "not_charged"}));
    assert_eq!(bench.status(), Status::Error);
}
