//! An event in one line: time, payment, type, status, total and remarks.

use jiff::Timestamp;
use serde_json::Value;

use super::output::{Output, Style};
use super::tame::tame;
use super::time::clock;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::command::Pause;
use crate::plural::counted;

/// How wide the columns are, in characters; a longer text moves what follows.
const TYPE_WIDTH: usize = 22;
const STATUS_WIDTH: usize = 22;
const AMOUNT_WIDTH: usize = 15;
/// How much of one text is shown: others may publish to the exchange, too.
const TEXT_MAX: usize = 2_048;
/// How many characters a short payment id has: the last ones, because ids created in sequence have the same beginning.
const SHORT_WIDTH: usize = 8;

/// The content of an event, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventSummary {
    /// The CloudEvents type.
    pub kind: String,
    /// The payment's id, or what the command named.
    pub subject: String,
    /// The event's time.
    pub time: Option<Timestamp>,
    /// The previous and the new status; or the code.
    pub status: String,
    /// The style of the status.
    pub style: Style,
    /// The total with its currency.
    pub amount: String,
    /// Remarks.
    pub message: String,
    /// The type of the command that this finally answers.
    pub answers: Option<String>,
}

impl EventSummary {
    /// Reads an event. Missing fields stay empty, so that the events of a later version can be shown too.
    pub fn read(event: &Value) -> EventSummary {
        let kind = text(event, "/type");
        let status = text(event, "/data/payment/status");
        let code = [text(event, "/data/code"), text(event, "/data/reason")].concat();
        let (status, style) = match kind.as_str() {
            "payment.status_changed" => {
                let style = style_of(&status);
                (format!("{} > {status}", text(event, "/data/previous_status")), style)
            }
            "command.rejected" | "command.failed" => (code.clone(), Style::Bad),
            "command.delayed" if code == "escalated" || code == "mismatch" => (code.clone(), Style::Bad),
            "command.delayed" => (code.clone(), Style::Open),
            _ => {
                let style = style_of(&status);
                (status, style)
            }
        };
        let is_final = event.pointer("/data/command/final").and_then(Value::as_bool) == Some(true);
        let total = text(event, "/data/payment/total");
        EventSummary {
            subject: text(event, "/subject"),
            time: text(event, "/time").parse().ok(),
            amount: if total.is_empty() { total } else { format!("{total} {}", text(event, "/data/payment/currency")) },
            message: message(event, &kind),
            answers: is_final.then(|| text(event, "/data/command/type")),
            kind,
            status,
            style,
        }
    }

    /// The whole line, with the full or the short payment id.
    pub fn line(&self, output: Output, whole_id: bool) -> String {
        let time = self.time.map(clock).unwrap_or_default();
        let subject = if whole_id { self.subject.clone() } else { short(&self.subject) };
        let id_width = if whole_id { 36 } else { SHORT_WIDTH };
        format!(
            "{}  {}  {}  {}  {}  {}",
            output.column(Style::Faint, &time, 12),
            output.column(Style::Plain, &subject, id_width),
            output.column(Style::Plain, &self.kind, TYPE_WIDTH),
            output.column(self.style, &self.status, STATUS_WIDTH),
            format_args!("{:>AMOUNT_WIDTH$}", self.amount),
            self.remark(output),
        )
    }

    /// The message, and which command this answers.
    pub fn remark(&self, output: Output) -> String {
        let Some(command) = &self.answers else { return self.message.clone() };
        let answers = output.paint(Style::Faint, &format!("[answers {command}]"));
        if self.message.is_empty() { answers } else { format!("{}  {answers}", self.message) }
    }
}

/// The end of an id.
pub fn short(id: &str) -> String {
    let skipped = id.chars().count().saturating_sub(SHORT_WIDTH);
    id.chars().skip(skipped).collect()
}

/// The style of a payment's status.
pub fn style_of(status: &str) -> Style {
    match status {
        "confirmed" => Style::Good,
        "waiting" | "input" | "preauth" => Style::Open,
        "rejected" | "error" => Style::Bad,
        "refunded" | "cancelled" => Style::Faint,
        _ => Style::Plain,
    }
}

fn text(event: &Value, pointer: &str) -> String {
    let text = event.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    tame(&excerpt(text, TEXT_MAX))
}

fn message(event: &Value, kind: &str) -> String {
    let mut parts = vec![text(event, "/data/message")];
    let changed = event.pointer("/data/changed").and_then(Value::as_array);
    parts.extend(changed.into_iter().flatten().filter_map(Value::as_str).map(|name| change(event, name)));
    if kind == "payment.status_changed" {
        parts.insert(0, text(event, "/data/code"));
    }
    if event.pointer("/data/discrepancy").is_some() {
        let said = |name: &str| text(event, &format!("/data/discrepancy/{name}"));
        parts.push(format!("requested {}, the gateway processed {}", said("asked"), said("answered")));
    }
    parts.extend(event.pointer("/data/pause/paused").and_then(Value::as_bool).map(|is_paused| pause(event, is_paused)));
    let redirect_url = text(event, "/data/payment/redirect_url");
    if kind.starts_with("payment.") && !redirect_url.is_empty() {
        parts.push(format!("the customer must act at {redirect_url}"));
    }
    if let Ok(next) = text(event, "/data/next_attempt_at").parse::<Timestamp>() {
        parts.push(format!("next attempt at {}", clock(next)));
    }
    if let Some(attempts) = event.pointer("/data/attempts").and_then(Value::as_u64).filter(|attempts| *attempts > 0) {
        parts.push(counted(attempts, "attempt"));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// The pause of a variant, as it is after an order.
fn pause(event: &Value, is_paused: bool) -> String {
    let pause =
        || Pause { until: text(event, "/data/pause/until").parse().ok(), reason: text(event, "/data/pause/reason") };
    if is_paused { pause().to_string() } else { "not paused".to_owned() }
}

/// `captured_amount 10.00`; only the name if the value is not a short text.
fn change(event: &Value, name: &str) -> String {
    let value = text(event, &format!("/data/payment/{name}"));
    let name = tame(&excerpt(name, NAME_MAX));
    if value.is_empty() { name } else { format!("{name} {value}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn line(event: Value) -> String {
        EventSummary::read(&event).line(Output::plain(), false)
    }

    fn event(kind: &str, data: Value) -> Value {
        json!({ "type": kind, "subject": "0192f0c1-7c5e-7000-8000-0123456789ab", "time": "2026-11-22T12:00:01.25Z",
                "data": data })
    }

    fn payment(status: &str) -> Value {
        json!({ "status": status, "total": "120.00", "currency": "USD", "captured_amount": "100.00" })
    }

    #[test]
    fn a_change_of_status() {
        let data = json!({ "payment": payment("confirmed"), "previous_status": "waiting", "message": "thanks",
                           "command": { "type": "payment.create", "final": true } });
        assert_eq!(
            line(event("payment.status_changed", data)),
            "12:00:01.250  456789ab  payment.status_changed  waiting > confirmed          120.00 USD  thanks  \
             [answers payment.create]"
        );
    }

    #[test]
    fn the_answer_to_an_order_says_whether_the_variant_is_paused() {
        let remark = |pause: Value| {
            let data = json!({ "pause": pause, "command": { "type": "variant.pause", "final": true } });
            EventSummary::read(&event("command.succeeded", data)).message
        };
        assert_eq!(remark(json!({ "paused": false })), "not paused");
        let reason = "charges twice";
        let forever = "paused until an operator resumes it: charges twice";
        assert_eq!(remark(json!({ "paused": true, "reason": reason })), forever);
        let until = json!({ "paused": true, "until": "2026-11-22T14:00:00Z", "reason": reason });
        assert_eq!(remark(until), "paused until 2026-11-22T14:00:00Z: charges twice");
    }

    #[test]
    fn changed_fields_are_shown_with_their_values() {
        let data = json!({ "payment": payment("confirmed"), "changed": ["captured_amount", "extra_data"],
                           "discrepancy": { "asked": "120.00", "answered": "100.00", "currency": "USD" } });
        assert_eq!(
            line(event("payment.updated", data)),
            "12:00:01.250  456789ab  payment.updated         confirmed                    120.00 USD  \
             captured_amount 100.00; extra_data; requested 120.00, the gateway processed 100.00"
        );
    }

    #[test]
    fn a_delay_shows_the_next_attempt() {
        let data = json!({ "reason": "timeout", "message": "no answer", "attempts": 3,
                           "next_attempt_at": "2026-11-22T12:00:11Z", "command": { "type": "payment.refund" } });
        assert_eq!(
            line(event("command.delayed", data)),
            "12:00:01.250  456789ab  command.delayed         timeout                                  \
             no answer; next attempt at 12:00:11.000; 3 attempts"
        );
    }

    #[test]
    fn colours_follow_status_and_reason() {
        let check =
            |kind: &str, data: Value, style: Style| assert_eq!(EventSummary::read(&event(kind, data)).style, style);
        check("payment.status_changed", json!({ "payment": payment("rejected") }), Style::Bad);
        check("payment.created", json!({ "payment": payment("waiting") }), Style::Open);
        check("command.rejected", json!({ "code": "not_allowed" }), Style::Bad);
        check("command.delayed", json!({ "reason": "escalated" }), Style::Bad);
        check("command.delayed", json!({ "reason": "timeout" }), Style::Open);
        check("something.new", json!({}), Style::Plain);
    }

    #[test]
    fn any_message_can_be_shown() {
        let long = "x".repeat(900_000);
        let data = json!({ "message": long, "changed": [long], "payment": { "status": long } });
        let line_of_it = line(json!({ "type": long, "subject": long, "data": data }));
        assert!(line_of_it.chars().count() < 8 * TEXT_MAX, "{}", line_of_it.len());
        for strange in [json!(null), json!([]), json!({ "type": 1, "data": "x" }), json!({ "type": "\u{1b}[2J" })] {
            assert!(!line(strange).contains('\u{1b}'));
        }
    }
}
