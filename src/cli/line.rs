//! An event in one line: when, which payment, what, the status, the sum, and what there is to say of it.

use jiff::Timestamp;
use serde_json::Value;

use super::output::{Output, Style};
use super::tame::tame;
use super::time::clock;
use crate::excerpt::{NAME_MAX, excerpt};

/// How wide the columns are, in characters; a longer text moves what follows.
const TYPE_WIDTH: usize = 22;
const STATUS_WIDTH: usize = 22;
const AMOUNT_WIDTH: usize = 15;
/// How much of one text is shown: others may publish to the exchange, too.
const TEXT_MAX: usize = 2_048;
/// A payment's id in short: its end, for ids that were made one after the other begin alike.
const SHORT_WIDTH: usize = 8;

/// What an event says, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The CloudEvents type.
    pub kind: String,
    /// The payment's id, or what the command named.
    pub subject: String,
    /// When it was decided.
    pub time: Option<Timestamp>,
    /// The status, and the one before it; or the code.
    pub status: String,
    /// How the status is meant.
    pub style: Style,
    /// The total with its currency.
    pub amount: String,
    /// What there is to say.
    pub message: String,
    /// The type of the command that this answers for good.
    pub answers: Option<String>,
}

impl Told {
    /// Reads an event. Whatever is missing is left out: the events of a later version can be watched, too.
    pub fn read(event: &Value) -> Told {
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
        Told {
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

    /// The whole line. The payment's id in full, or short.
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

/// How a status of a payment is meant.
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
        parts.push(format!("asked for {}, the gateway did {}", said("asked"), said("answered")));
    }
    let redirect_url = text(event, "/data/payment/redirect_url");
    if kind.starts_with("payment.") && !redirect_url.is_empty() {
        parts.push(format!("the customer must act at {redirect_url}"));
    }
    if let Ok(next) = text(event, "/data/next_attempt_at").parse::<Timestamp>() {
        parts.push(format!("next at {}", clock(next)));
    }
    if let Some(attempts) = event.pointer("/data/attempts").and_then(Value::as_u64).filter(|attempts| *attempts > 0) {
        parts.push(format!("{attempts} attempt{}", if attempts == 1 { "" } else { "s" }));
    }
    parts.retain(|part| !part.is_empty());
    parts.join("; ")
}

/// `captured_amount 10.00`; of what is no short text, the name alone.
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
        Told::read(&event).line(Output::plain(), false)
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
    fn what_changed_is_told_with_its_value() {
        let data = json!({ "payment": payment("confirmed"), "changed": ["captured_amount", "extra_data"],
                           "discrepancy": { "asked": "120.00", "answered": "100.00", "currency": "USD" } });
        assert_eq!(
            line(event("payment.updated", data)),
            "12:00:01.250  456789ab  payment.updated         confirmed                    120.00 USD  \
             captured_amount 100.00; extra_data; asked for 120.00, the gateway did 100.00"
        );
    }

    #[test]
    fn a_delay_tells_when_it_goes_on() {
        let data = json!({ "reason": "timeout", "message": "no answer", "attempts": 3,
                           "next_attempt_at": "2026-11-22T12:00:11Z", "command": { "type": "payment.refund" } });
        assert_eq!(
            line(event("command.delayed", data)),
            "12:00:01.250  456789ab  command.delayed         timeout                                  \
             no answer; next at 12:00:11.000; 3 attempts"
        );
    }

    #[test]
    fn colours_say_how_it_is_meant() {
        let check = |kind: &str, data: Value, style: Style| assert_eq!(Told::read(&event(kind, data)).style, style);
        check("payment.status_changed", json!({ "payment": payment("rejected") }), Style::Bad);
        check("payment.created", json!({ "payment": payment("waiting") }), Style::Open);
        check("command.rejected", json!({ "code": "not_allowed" }), Style::Bad);
        check("command.delayed", json!({ "reason": "escalated" }), Style::Bad);
        check("command.delayed", json!({ "reason": "timeout" }), Style::Open);
        check("something.new", json!({}), Style::Plain);
    }

    #[test]
    fn anything_can_be_watched() {
        let long = "x".repeat(900_000);
        let data = json!({ "message": long, "changed": [long], "payment": { "status": long } });
        let line_of_it = line(json!({ "type": long, "subject": long, "data": data }));
        assert!(line_of_it.chars().count() < 8 * TEXT_MAX, "{}", line_of_it.len());
        for strange in [json!(null), json!([]), json!({ "type": 1, "data": "x" }), json!({ "type": "\u{1b}[2J" })] {
            assert!(!line(strange).contains('\u{1b}'));
        }
    }
}
