//! Which command is allowed from where, and what every command brings with it.

use serde_json::json;
use strum::IntoEnumIterator;
use uuid::Uuid;

use super::bench::{Bench, approved, command, keys, operation_id, payment_data, result, timed_out};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Command, CommandType, Kind, Reply};
use crate::payment::contract::Lookup;
use crate::payment::event::EventKind;
use crate::payment::machine::Step;
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::Verdict;
use crate::payment::status::Status;
use crate::payment::trace::TraceContext;

/// What each command does to a payment of each status, in the order of `Status`: `call` the gateway, `ask` it, or the
/// code of the rejection.
const PICTURE: [(CommandType, [&str; 8]); 17] = {
    const NO: &str = "not_allowed";
    [
        // waiting, input, preauth, confirmed, rejected, refunded, error, cancelled
        (CommandType::Create, ["already_exists"; 8]),
        (CommandType::Process, ["call", "call", NO, NO, "call", NO, "call", NO]),
        (CommandType::Capture, [NO, NO, "call", NO, NO, NO, NO, NO]),
        (CommandType::Release, [NO, NO, "call", NO, NO, NO, NO, NO]),
        (CommandType::Refund, [NO, NO, NO, "call", NO, NO, NO, NO]),
        (CommandType::Cancel, ["call", "call", NO, NO, NO, NO, NO, NO]),
        (CommandType::Sync, ["ask"; 8]),
        (CommandType::Notification, ["ask"; 8]),
        (CommandType::Resolve, ["not_unknown"; 8]),
        (CommandType::Retry, ["not_retryable"; 8]),
        (CommandType::Withdraw, ["not_withdrawable"; 8]),
        (CommandType::Resend, ["resend"; 8]),
        (CommandType::Snapshot, ["told"; 8]),
        // Answered before a payment is looked for.
        (CommandType::ResendEvents, [NO; 8]),
        (CommandType::Status, [NO; 8]),
        (CommandType::Pause, [NO; 8]),
        (CommandType::Resume, [NO; 8]),
    ]
};

#[test]
fn every_status_and_every_command() {
    for (kind, row) in PICTURE {
        for (status, expected) in Status::iter().zip(row) {
            let mut bench = Bench::with_payment(status);
            let mut command = command("it", kind, data_of(kind));
            command.attributes.user_id = Some("alice".to_owned());
            let id = command.operation_id();
            let done = match bench.send_command(command) {
                Step::Call(called) if called == id => "call",
                Step::LookUp { operation, target: None } if operation == id => "ask",
                Step::Resend { operation, from: 1, to: _ } if operation == id => "resend",
                Step::Settled if bench.emitted() == [("payment.snapshot", true)] => "told",
                Step::Settled => bench.rejection().as_str(),
                step => panic!("{kind} from {status}: {step:?}"),
            };
            assert_eq!(done, expected, "{kind} from {status}");
            assert_eq!(bench.status(), status, "{kind} from {status}");
        }
    }
}

/// The table in the contract says the same of the commands that depend on the status, or ask.
#[test]
fn the_contract_says_what_is_allowed() {
    let page = include_str!("../../../../contract/README.md");
    let table = page.lines().skip_while(|line| !line.starts_with("| command | `waiting` |"));
    let cells = |row: &'static str| -> Vec<&'static str> {
        row.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect()
    };
    let rows: Vec<Vec<&'static str>> = table.take_while(|line| line.starts_with('|')).map(cells).collect();
    let statuses: Vec<&str> = Status::iter().map(Status::as_str).collect();
    assert_eq!(rows[0][1..], statuses);
    for (kind, row) in PICTURE {
        let expected = row.map(|done| if matches!(done, "call" | "ask") { "yes" } else { "no" });
        let depends = expected.contains(&"yes");
        let said = rows.iter().find(|row| row[0] == kind.as_str()).map(|row| &row[1..]);
        assert_eq!(said, depends.then_some(expected.as_slice()), "{kind}");
    }
}

/// What came before is no longer known: a process that came again would charge again.
#[test]
fn nothing_is_done_for_an_archived_payment() {
    for status in [Status::Confirmed, Status::Rejected, Status::Refunded, Status::Error, Status::Cancelled] {
        for (kind, _) in PICTURE {
            let mut bench = Bench::with_payment(status);
            bench.store.operations.clear();
            bench.store.payment.as_mut().unwrap().archived = Some(bench.now);
            let mut command = command("it", kind, data_of(kind));
            command.attributes.user_id = Some("alice".to_owned());
            assert_eq!(bench.rejected_command(command), Code::PaymentArchived, "{kind} from {status}");
        }
    }
}

fn data_of(kind: CommandType) -> serde_json::Value {
    match kind {
        CommandType::Create => payment_data(),
        CommandType::Resolve => {
            json!({"operation": Uuid::nil().to_string(), "outcome": "approved", "evidence": "seen"})
        }
        CommandType::Retry | CommandType::Withdraw => json!({"operation": Uuid::nil().to_string()}),
        CommandType::Notification => json!({"facts": [{"kind": "charge.refunded"}]}),
        CommandType::Resend => json!({"from": "1"}),
        CommandType::Status => json!({"id": "pay-1"}),
        CommandType::Pause => json!({"reason": "it charges twice"}),
        _ => json!({}),
    }
}

#[test]
fn a_create_stores_the_payment_and_with_process_goes_on_in_the_same_command() {
    let mut bench = Bench::new();
    assert_eq!(bench.send("a", CommandType::Create, payment_data()), Step::Settled);
    assert_eq!(bench.emitted(), [("payment.created", true)]);
    assert_eq!(bench.status(), Status::Waiting);

    let mut bench = Bench::new();
    let mut data = payment_data();
    data["process"] = json!({"status": "confirmed"});
    let id = bench.call("a", CommandType::Create, data);
    assert_eq!(bench.emitted(), [("payment.created", false)]);
    bench.settle(id, approved());
    assert_eq!(bench.emitted(), [("payment.status_changed", true)]);
    assert_eq!(bench.status(), Status::Confirmed);
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"]);
}

#[test]
fn a_create_that_says_how_to_capture_is_heard_by_a_later_process() {
    for (said, variants, expected) in
        [(Some(false), true, false), (Some(true), false, true), (None, true, true), (None, false, false)]
    {
        let mut bench = Bench::new();
        bench.rules.capture = variants;
        let mut data = payment_data();
        data["capture"] = json!(said);
        bench.send("a", CommandType::Create, data);
        let id = bench.call("b", CommandType::Process, json!({}));
        assert_eq!(bench.operation(id).request.as_ref().unwrap().capture, expected, "{said:?} {variants}");
    }
    let mut bench = Bench::new();
    let mut data = payment_data();
    data["capture"] = json!(false);
    bench.send("a", CommandType::Create, data);
    let id = bench.call("b", CommandType::Process, json!({"capture": true}));
    assert!(bench.operation(id).request.as_ref().unwrap().capture, "the process overrides");
}

#[test]
fn the_request_holds_no_secret_longer_than_needed_and_a_persons_evidence_is_kept() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({"process": {"token": "secret"}}));
    assert!(!bench.operation(id).data.is_empty());
    bench.decide(&[id], |aggregate, _| {
        aggregate.set_request_body(id, "secret".to_owned());
        Step::Stored
    });
    bench.rules.contract.lookup = Lookup::None;
    bench.rules.contract.keys = keys(None);
    bench.settle(id, timed_out());
    assert_eq!(bench.operation(id).request.as_ref().unwrap().body, "secret");
    let data = json!({"operation": id.to_string(), "outcome": "approved", "evidence": "seen in the portal"});
    let mut resolve = command("b", CommandType::Resolve, data);
    resolve.attributes.user_id = Some("alice".to_owned());
    bench.send_command(resolve);
    assert_eq!(bench.state(id), State::Settled);
    assert!(bench.operation(id).data.is_empty());
    assert_eq!(bench.operation(id).request.as_ref().unwrap().body, "");
    let resolved = bench.operation(operation_id("b"));
    assert_eq!(resolved.data["evidence"], "seen in the portal");
    assert_eq!(resolved.attributes.user_id.as_deref(), Some("alice"));
}

#[test]
fn a_known_command_goes_on_from_where_it_stands() {
    let mut bench = Bench::with_payment(Status::Waiting);
    let id = bench.call("a", CommandType::Process, json!({}));
    assert_eq!(bench.send("a", CommandType::Process, json!({})), Step::Known(id));
    bench.settle(id, approved());
    assert_eq!(bench.send("a", CommandType::Process, json!({})), Step::Known(id));
    assert!(bench.emitted.is_empty());
}

#[test]
fn a_rejection_is_as_final_as_an_acceptance() {
    let mut bench = Bench::with_payment(Status::Waiting);
    assert_eq!(bench.rejected("a", CommandType::Refund, json!({})), Code::NotAllowed);
    let id = bench.call("b", CommandType::Process, json!({}));
    bench.settle(id, approved());
    // Now it would be allowed; but it was answered.
    assert_eq!(bench.send("a", CommandType::Refund, json!({})), Step::Known(operation_id("a")));
    assert_eq!(bench.answer(operation_id("a")), (AnswerKind::Rejected, Some(Code::NotAllowed)));
    assert_eq!(bench.resume(operation_id("a")), Step::Settled);
    assert_eq!(bench.amounts(), ["0.00", "100.00", "0.00"]);
}

#[test]
fn a_name_used_again_is_refused_and_the_first_is_not_disturbed() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let id = bench.call("a", CommandType::Refund, json!({"amount": "10"}));
    let other_data = command("a", CommandType::Refund, json!({"amount": "20"}));
    let other_type = command("a", CommandType::Release, json!({}));
    for other in [other_data, other_type] {
        assert_eq!(bench.rejected_command(other.clone()), Code::IdReused);
        let first = bench.emitted[0].clone();
        assert!(!first.is_final(), "the one answer belongs to the first");
        bench.send_command(other);
        assert_eq!(bench.emitted[0].id, first.id, "delivered again, it tells the same event");
    }
    assert_eq!(bench.state(id), State::Calling);
    bench.settle(id, approved());
    assert_eq!(bench.amounts(), ["0.00", "90.00", "10.00"]);
}

#[test]
fn what_was_rejected_while_reading_is_stored_and_answered() {
    let mut bench = Bench::new();
    let content = Err(Rejection::new(Code::UnknownType, "no such command"));
    let unknown =
        Command { kind: Kind::from_word("payment.bogus"), content, ..command("a", CommandType::Sync, json!({})) };
    assert_eq!(bench.rejected_command(unknown.clone()), Code::UnknownType);
    assert_eq!(bench.emitted(), [("command.rejected", true)]);
    assert_eq!(bench.operation(operation_id("a")).kind.as_str(), "payment.bogus");
    assert_eq!(bench.send_command(unknown), Step::Known(operation_id("a")));
}

#[test]
fn events_carry_what_their_command_carried_and_only_the_answer_replies() {
    let mut bench = Bench::new();
    let mut data = payment_data();
    data["process"] = json!({});
    let mut create = command("a", CommandType::Create, data);
    create.attributes.correlation_id = Some("corr".to_owned());
    let trace = TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", Some("x=1"));
    create.attributes.trace = trace.clone();
    create.attributes.reply = Some(Reply { to: "reply.1".to_owned(), correlation_id: None });
    let id = create.operation_id();
    bench.send_command(create);
    bench.settle(id, approved());
    for event in &bench.store.events {
        let cause = event.cause.as_ref().unwrap();
        assert_eq!(cause.name.id, "a");
        assert_eq!(cause.kind, "payment.create");
        assert_eq!(cause.correlation_id.as_deref(), Some("corr"));
        assert_eq!(cause.trace, trace);
        assert_eq!(cause.reply.is_some(), event.is_final());
        assert_eq!(event.variant, "default");
    }
    let keys: Vec<String> = bench.store.events.iter().map(|event| event.routing_key()).collect();
    assert_eq!(keys, ["default.payment.created", "default.payment.status_changed.confirmed"]);
}

#[test]
fn a_command_is_routed_by_its_payments_variant() {
    for kind in [CommandType::Refund, CommandType::Sync, CommandType::Resolve, CommandType::Notification] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        let other = Command { variant: "other".to_owned(), ..command("a", kind, data_of(kind)) };
        assert_eq!(bench.rejected_command(other), Code::VariantMismatch, "{kind}");
        assert_eq!(bench.emitted[0].variant, "default", "told where the payment's events go");
    }
    // Also where it has to wait: for its turn, or for its payment.
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.call("a", CommandType::Process, json!({}));
    let refund = Command { variant: "other".to_owned(), ..command("b", CommandType::Refund, json!({})) };
    assert_eq!(bench.rejected_command(refund.clone()), Code::VariantMismatch);
    let mut bench = Bench::new();
    assert_eq!(bench.send_command(refund), Step::Stored);
    bench.send("a", CommandType::Create, payment_data());
    assert_eq!(bench.resume(operation_id("b")), Step::Settled);
    assert_eq!(bench.rejection(), Code::VariantMismatch);
}

#[test]
fn a_payment_stays_with_the_gateway_and_the_account_it_began_with() {
    for change in ["gateway", "account"] {
        let mut bench = Bench::with_payment(Status::Confirmed);
        match change {
            "gateway" => bench.rules.gateway = "stripe".to_owned(),
            _ => bench.rules.account = "shop-2".to_owned(),
        }
        assert_eq!(bench.rejected("a", CommandType::Refund, json!({})), Code::GatewayChanged, "{change}");
        assert_eq!(bench.rejected("b", CommandType::Sync, json!({})), Code::GatewayChanged, "{change}");
    }
    // A cancel is refused before it ends anything.
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.paused_for = Some(std::time::Duration::from_secs(30));
    bench.send("a", CommandType::Process, json!({}));
    bench.rules.account = "shop-2".to_owned();
    assert_eq!(bench.rejected("b", CommandType::Cancel, json!({})), Code::GatewayChanged);
    assert_eq!(bench.state(operation_id("a")), State::Scheduled);
}

#[test]
fn a_payment_goes_on_where_its_account_has_another_name() {
    let mut bench = Bench::with_payment(Status::Confirmed);
    let name = bench.payment().account.clone();
    bench.rules.account = "shop-2".to_owned();
    bench.rules.account_aliases = vec!["shop-0".to_owned(), name.clone()];
    let refund = bench.call("a", CommandType::Refund, json!({}));
    assert_eq!(bench.settle(refund, approved()), Step::Settled);
    assert_eq!(bench.status(), Status::Refunded);
    assert_eq!(bench.payment().account, name, "its name stays, for other workers");
    // An alias is of one gateway alone.
    bench.rules.gateway = "stripe".to_owned();
    assert_eq!(bench.rejected("b", CommandType::Sync, json!({})), Code::GatewayChanged);
}

#[test]
fn a_retired_variant_takes_everything_but_create_and_process() {
    let mut bench = Bench::new();
    bench.rules.retired = true;
    assert_eq!(bench.rejected("a", CommandType::Create, payment_data()), Code::VariantRetired);
    assert!(bench.store.payment.is_none());
    let mut bench = Bench::with_payment(Status::Waiting);
    bench.rules.retired = true;
    assert_eq!(bench.rejected("a", CommandType::Process, json!({})), Code::VariantRetired);
    bench.call("b", CommandType::Cancel, json!({}));
    for (status, kind) in [
        (Status::Confirmed, CommandType::Refund),
        (Status::Preauth, CommandType::Capture),
        (Status::Preauth, CommandType::Release),
    ] {
        let mut bench = Bench::with_payment(status);
        bench.rules.retired = true;
        bench.call("a", kind, json!({}));
    }
}

#[test]
fn a_command_that_expired_is_rejected_before_anything_is_stored_of_it_but_the_rejection() {
    for kind in [CommandType::Process, CommandType::Sync] {
        let mut bench = Bench::with_payment(Status::Waiting);
        let mut late = command("a", kind, json!({}));
        late.attributes.expires_at = Some(bench.now);
        assert_eq!(bench.rejected_command(late), Code::Expired);
    }
    let mut bench = Bench::new();
    let mut create = command("a", CommandType::Create, payment_data());
    create.attributes.expires_at = Some(bench.now);
    assert_eq!(bench.rejected_command(create), Code::Expired);
    assert!(bench.store.payment.is_none());
}

#[test]
fn a_payment_of_nothing_is_stored_but_not_processed() {
    let mut bench = Bench::new();
    bench.send("a", CommandType::Create, json!({"variant": "default", "total": "0.00", "currency": "USD"}));
    assert_eq!(bench.rejected("b", CommandType::Process, json!({})), Code::InvalidAmount);
    bench.call("c", CommandType::Cancel, json!({}));
}

#[test]
fn each_end_of_a_process_has_its_status() {
    let redirect = Verdict::CustomerMustAct { redirect_url: Some("https://3ds".to_owned()) };
    for (verdict, capture, status, kind) in [
        (Verdict::Approved, true, Status::Confirmed, AnswerKind::Succeeded),
        (Verdict::Approved, false, Status::Preauth, AnswerKind::Succeeded),
        (Verdict::Authorized, true, Status::Preauth, AnswerKind::Succeeded),
        (redirect, true, Status::Input, AnswerKind::Succeeded),
        (Verdict::Declined(crate::payment::outcome::Decline::Soft), true, Status::Rejected, AnswerKind::Failed),
    ] {
        for from in [Status::Waiting, Status::Input, Status::Rejected, Status::Error] {
            let mut bench = Bench::with_payment(from);
            if from == Status::Input {
                bench.store.payment.as_mut().unwrap().capture = Some(capture);
            }
            let id = bench.call("a", CommandType::Process, json!({"capture": capture}));
            bench.settle(id, result(verdict.clone()));
            assert_eq!(bench.status(), status, "{verdict:?} from {from}");
            assert_eq!(bench.answer(id).0, kind);
            let shown = bench.payment().redirect_url.is_some();
            assert_eq!(shown, status == Status::Input, "the address stands only while the customer must act");
            let emitted: Vec<_> = bench.emitted.iter().filter(|event| event.is_final()).collect();
            assert_eq!(emitted.len(), 1);
            if let EventKind::StatusChanged { previous, payment, .. } = &emitted[0].kind {
                assert_eq!((*previous, payment.status), (from, status));
            }
        }
    }
}

#[test]
fn a_transaction_that_goes_on_is_captured_or_not_as_it_began() {
    let mut bench = Bench::with_payment(Status::Input);
    assert_eq!(bench.rejected("a", CommandType::Process, json!({"capture": false})), Code::InvalidData);
    bench.rules.capture = false;
    let id = bench.call("b", CommandType::Process, json!({}));
    assert!(bench.operation(id).request.as_ref().unwrap().capture);
}
