use super::*;
use crate::store::query::report::UnknownFigures;
use crate::telemetry::recorder::install;

#[test]
fn strangers_words_are_no_labels() {
    let metrics = install(&["default"]).expect("a recorder");
    duplicate("default");
    duplicate("x5f0c7a52");
    command_settled(&Kind::from_word("payment.bogus"), "default", CommandOutcome::Rejected);
    event_published("something.else");
    let text = metrics.render();
    assert!(text.contains("paybus_commands_duplicate_total{variant=\"default\"} "), "{text}");
    assert!(text.contains("paybus_commands_duplicate_total{variant=\"other\"} "), "{text}");
    assert!(!text.contains("x5f0c7a52") && !text.contains("bogus") && !text.contains("something"), "{text}");
}

#[test]
fn a_figure_that_is_gone_falls_to_zero() {
    let metrics = install(&["default"]).expect("a recorder");
    let unknown = UnknownFigures {
        variant: "cards".to_owned(),
        currency: "EUR".to_owned(),
        count: 3,
        escalated: 1,
        oldest_seconds: 7.5,
        amount: "12.50".parse().expect("an amount"),
    };
    figures(&Figures { unknown: vec![unknown], ..Figures::default() });
    let has = |line: &str| {
        let text = metrics.render();
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    };
    has("paybus_operations_unknown{variant=\"cards\",currency=\"EUR\"} 3");
    has("paybus_operations_unknown_amount{variant=\"cards\",currency=\"EUR\"} 12.5");
    figures(&Figures::default());
    has("paybus_operations_unknown{variant=\"cards\",currency=\"EUR\"} 0");
    has("paybus_outbox_events 0");
    has("paybus_operations_unknown{variant=\"default\"} 0");
}

#[test]
fn what_the_broker_does_not_say_is_not_known() {
    let metrics = install(&["default"]).expect("a recorder");
    let queue = QueueLabel { name: "paybus.dead".to_owned(), kind: "dead" };
    let has = |line: &str| assert!(metrics.render().lines().any(|found| found == line), "{line}\n{}", metrics.render());
    queue_depth(&queue, Some((3, 1)));
    has("paybus_queue_messages{queue=\"paybus.dead\",kind=\"dead\"} 3");
    has("paybus_queue_consumers{queue=\"paybus.dead\",kind=\"dead\"} 1");
    queue_depth(&queue, None);
    has("paybus_queue_messages{queue=\"paybus.dead\",kind=\"dead\"} NaN");
}
