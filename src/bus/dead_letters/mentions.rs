//! Finds the dead letters about a person by payment ids and e-mail address, whether a letter can be read or not.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use uuid::Uuid;

use super::letter::DeadLetter;
use crate::bus::consume::attributes::attributes;

/// A person, as a dead letter may identify them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Person {
    /// Their payments.
    pub payments: Vec<Uuid>,
    /// Their e-mail address.
    pub email: Option<String>,
}

impl Person {
    /// Returns whether there is nothing to identify them by.
    pub fn is_nobody(&self) -> bool {
        self.payments.is_empty() && self.email.is_none()
    }

    /// Returns whether a letter contains one of the ids, or the address in any case.
    pub(in crate::bus) fn is_in(&self, letter: &DeadLetter) -> bool {
        let text = text(letter).to_lowercase();
        let named = self.payments.iter().any(|payment| text.contains(&payment.to_string()));
        named || self.email.as_ref().is_some_and(|email| contains_address(&text, &email.to_lowercase()))
    }
}

/// Returns all text of a letter: as received, with JSON escapes resolved, and with base64 decoded.
fn text(letter: &DeadLetter) -> String {
    let mut text = String::from_utf8_lossy(&letter.body).into_owned();
    if let Ok(body) = serde_json::from_slice::<Value>(&letter.body) {
        add(&mut text, &body);
    }
    // In CloudEvents' binary mode the payment is in a header.
    for (_, value) in attributes(&letter.properties.headers) {
        add(&mut text, &value);
    }
    for beside in [&letter.properties.message_id, &letter.properties.correlation_id].into_iter().flatten() {
        text.push('\n');
        text.push_str(beside);
    }
    text
}

/// Recurses no deeper than serde_json parses.
fn add(text: &mut String, value: &Value) {
    match value {
        Value::String(string) => {
            text.push('\n');
            text.push_str(string);
            if let Ok(bytes) = STANDARD.decode(string) {
                text.push('\n');
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
        }
        Value::Array(values) => values.iter().for_each(|value| add(text, value)),
        Value::Object(members) => {
            for (name, value) in members {
                text.push('\n');
                text.push_str(name);
                add(text, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Returns whether an address occurs in a text, other than as part of another address.
fn contains_address(text: &str, address: &str) -> bool {
    text.match_indices(address).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let mut after = text[at + address.len()..].chars();
        let (next, one_more) = (after.next(), after.next());
        let goes_on = match next {
            // It ends a sentence, or another label of the domain follows.
            Some('.') => one_more.is_some_and(char::is_alphanumeric),
            Some(next) => next.is_alphanumeric() || next == '-',
            None => false,
        };
        !goes_on && !before.is_some_and(|before| before.is_alphanumeric() || "._%+-".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use lapin::types::{AMQPValue, FieldTable, LongString};
    use serde_json::json;

    use super::*;
    use crate::bus::consume::delivery::Properties;

    fn letter(body: &str) -> DeadLetter {
        DeadLetter::read(Properties::default(), "cards.payment.create".to_owned(), body.as_bytes().to_vec())
    }

    fn of_payment(payment: Uuid) -> Person {
        Person { payments: vec![Uuid::from_u128(1), payment], email: None }
    }

    fn of_email(email: &str) -> Person {
        Person { payments: Vec::new(), email: Some(email.to_owned()) }
    }

    #[test]
    fn a_payment_is_found_wherever_it_stands() {
        let payment: Uuid = "0192f0c1-1111-7000-8000-0123456789ab".parse().expect("an id");
        let webhook = STANDARD.encode(json!({ "metadata": { "payment_id": payment } }).to_string());
        let person = of_payment(payment);
        for body in [
            json!({ "subject": payment }).to_string(),
            json!({ "data": { "body_base64": webhook } }).to_string(),
            format!("no JSON, but {}", payment.to_string().to_uppercase()),
        ] {
            assert!(person.is_in(&letter(&body)), "{body}");
        }
        let mut headers = FieldTable::default();
        let subject = AMQPValue::LongString(LongString::from(payment.to_string()));
        headers.insert("cloudEvents:subject".into(), subject);
        let properties = Properties { headers, ..Properties::default() };
        assert!(person.is_in(&DeadLetter::read(properties, String::new(), Vec::new())));
        assert!(!of_payment(Uuid::from_u128(2)).is_in(&letter(&payment.to_string())));
    }

    #[test]
    fn an_address_is_found_as_a_whole() {
        let ada = of_email("Ada@example.org");
        for body in [
            r#"{"billing_email": "ada@example.org"}"#,
            r#"{"billing_email": "ADA@Example.org"}"#,
            r#"{"billing_email": "ada\u0040example.org"}"#,
            "Write to ada@example.org. Or do not.",
            "<ada@example.org>",
        ] {
            assert!(ada.is_in(&letter(body)), "{body}");
        }
        for body in ["canada@example.org", "x.ada@example.org", "ada@example.org.uk", "ada@example.organic", "ada"] {
            assert!(!ada.is_in(&letter(body)), "{body}");
        }
    }
}
