//! Whatever is stored of a payment: its page is printed, and nothing of it steers the terminal.

use jiff::Timestamp;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;
use uuid::Uuid;

use super::samples::{history, operation};
use super::{json, page};
use crate::cli::output::Output;
use crate::cli::tame::tame_json;
use crate::payment::code::Code;
use crate::payment::command::{Attributes, CommandName};
use crate::payment::operation::{Answer, AnswerKind, Counts, Lease, Operation, Sent, State};
use crate::payment::status::FraudStatus;
use crate::store::query::report::{History, OperationRecord};

fn text() -> impl Strategy<Value = String> {
    let hostile = vec![
        "\u{1b}[2J\u{1b}[H",
        "\u{1b}]0;title\u{7}",
        "\u{1b}[31mred",
        "\u{9b}2J",
        "a\r\nb\tc",
        "\u{7f}\u{8}\u{0}",
        "\u{202e}evil",
        "\u{2066}\u{61c}\u{200f}",
        "",
    ];
    prop_oneof![4 => select(hostile).prop_map(str::to_owned), 2 => any::<String>(), 1 => Just("é".repeat(5_000))]
}

fn time() -> impl Strategy<Value = Timestamp> {
    let seconds = Timestamp::MIN.as_second()..=Timestamp::MAX.as_second();
    prop_oneof![
        1 => Just(Timestamp::MIN),
        1 => Just(Timestamp::MAX),
        4 => seconds.prop_map(|second| Timestamp::from_second(second).unwrap()),
        4 => (0..200_000_i64).prop_map(|second| Timestamp::from_second(1_795_348_000 + second).unwrap()),
    ]
}

fn count() -> impl Strategy<Value = u32> {
    select(vec![0, 1, 2, 500, u32::MAX])
}

/// An operation in any state, with anything in its texts.
fn any_operation() -> impl Strategy<Value = Operation> {
    let kinds = vec!["payment.create", "payment.resolve", "payment.sync", "payment.refund", "payment.?"];
    let parts = (
        (1..5_u128, select(kinds), select(State::iter().collect::<Vec<_>>()), any::<bool>(), count(), count()),
        proptest::collection::vec(text(), 11),
        proptest::collection::vec(proptest::option::of(time()), 5),
        proptest::option::of(select(AnswerKind::iter().collect::<Vec<_>>())),
        (any::<bool>(), any::<bool>()),
    );
    parts.prop_map(|((number, kind, state, escalated, attempts, lookups), texts, times, answer, (odd, resolves))| {
        let text = |index: usize| texts[index].clone();
        let kind = if odd { text(0) } else { kind.to_owned() };
        let said = json!({
            "operation": if resolves { Uuid::from_u128(number + 1).to_string() } else { text(1) },
            "outcome": text(2), "amount": text(3), "transaction_id": text(4), "evidence": text(5),
        });
        Operation {
            name: CommandName { source: text(6), id: text(7) },
            variant: text(8),
            data: said.as_object().cloned().unwrap_or_default(),
            attributes: Attributes { user_id: Some(text(9)), expires_at: times[0], ..Attributes::default() },
            created: times[1].unwrap_or_default(),
            counts: Counts { attempts, lookups, takeovers: lookups, ..Counts::default() },
            sent: Sent { first_at: times[2], ..Sent::NOTHING },
            due_at: times[3],
            lease: times[4].map(|until| Lease { owner: Uuid::nil(), until }),
            escalated,
            last_code: Some(Code::Timeout).filter(|_| escalated),
            last_message: text(10),
            answer: answer.map(|kind| Answer { kind, code: Some(Code::Refused), message: text(1) }),
            ..operation(number, &kind, state)
        }
    })
}

fn any_event_body() -> impl Strategy<Value = String> {
    let body = (text(), text(), text(), any::<bool>()).prop_map(|(one, two, three, is_final)| {
        let kind = if is_final { "payment.status_changed" } else { &one };
        let data = json!({
            "payment": {"status": two, "total": one, "currency": three, "redirect_url": two, "message": [one]},
            "changed": ["message", three, "captured_amount", 5], "message": two, "code": one, "reason": three,
            "previous_status": one, "discrepancy": {"asked": two, "answered": three}, "attempts": 3,
            "command": {"type": one, "final": is_final}, "next_attempt_at": two,
        });
        json!({"type": kind, "subject": two, "time": one, "data": data}).to_string()
    });
    prop_oneof![4 => body, 1 => text()]
}

fn any_history() -> impl Strategy<Value = History> {
    let parts = (
        proptest::collection::vec(any_operation(), 0..4),
        proptest::collection::vec(any_event_body(), 3),
        proptest::collection::vec(text(), 12),
        proptest::collection::vec(time(), 4),
        (any::<bool>(), any::<bool>(), count()),
    );
    parts.prop_map(|(operations, bodies, texts, times, (exists, aside, waiting))| {
        let mut history = history();
        let text = |index: usize| texts[index].clone();
        history.now = times[0];
        let record = |operation: Operation| OperationRecord { settled_at: operation.sent.first_at, operation };
        history.operations = operations.into_iter().map(record).collect();
        for (event, body) in history.events.iter_mut().zip(bodies) {
            event.event.body = body;
            event.event.event_type = text(0);
            event.event.routing_key = text(1);
            event.created = times[1];
            event.sent_at = event.sent_at.map(|_| times[2]);
            event.set_aside = Some(text(2)).filter(|_| aside);
        }
        history.movements[0].movement.reference = text(3);
        history.movements[0].created = times[3];
        history.payment = history.payment.filter(|_| exists);
        if let Some(payment) = &mut history.payment {
            (payment.created, payment.modified) = (times[1], times[2]);
            payment.order.variant = text(4);
            payment.order.description = text(5);
            (payment.gateway, payment.account) = (text(6), text(7));
            (payment.transaction_id, payment.message) = (text(8), text(9));
            (payment.fraud_status, payment.fraud_message) = (FraudStatus::Review, text(10));
            payment.redirect_url = Some(text(11));
            payment.extra_data = Map::from_iter([(text(0), Value::from(text(1)))]);
            payment.waiting = waiting;
        }
        history
    })
}

/// What a terminal would act on.
fn steers(char: char) -> bool {
    char.is_control()
        || matches!(char, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_page_is_printed_and_steers_nothing(history in any_history()) {
        for line in page::lines(Uuid::nil(), &history, Output::plain()) {
            prop_assert!(!line.chars().any(steers), "{line:?}");
        }
        for line in page::lines(Uuid::nil(), &history, Output::coloured()) {
            let mut plain = line.clone();
            for code in ["0", "1", "2", "31", "32", "33"] {
                plain = plain.replace(&format!("\u{1b}[{code}m"), "");
            }
            prop_assert!(!plain.chars().any(steers), "{line:?}");
        }
    }

    #[test]
    fn its_json_says_all_and_steers_nothing(history in any_history()) {
        let value = json::value(&history);
        let printed = tame_json(&value.to_string());
        prop_assert!(!printed.chars().any(steers), "{printed:?}");
        prop_assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }
}
