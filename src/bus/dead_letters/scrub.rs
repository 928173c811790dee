//! Removes card numbers from messages that are set aside: these are stored, and shown to people.

use std::borrow::Cow;

use lapin::types::{AMQPValue, FieldTable};

use crate::bus::consume::delivery::{Delivery, Properties};
use crate::payment::card;

/// Replaces each card number in a delivery. One without card numbers is returned unchanged.
pub fn without_cards(delivery: Delivery) -> Delivery {
    let body = String::from_utf8_lossy(&delivery.body);
    let body = match card::scrub(&body) {
        Cow::Owned(clean) => Some(clean.into_bytes()),
        Cow::Borrowed(_) => None,
    };
    let properties = Properties {
        reply_to: clean(delivery.properties.reply_to),
        correlation_id: clean(delivery.properties.correlation_id),
        user_id: clean(delivery.properties.user_id),
        content_type: clean(delivery.properties.content_type),
        message_id: clean(delivery.properties.message_id),
        kind: clean(delivery.properties.kind),
        headers: clean_headers(delivery.properties.headers),
    };
    Delivery {
        routing_key: card::scrub(&delivery.routing_key).into_owned(),
        properties,
        body: body.unwrap_or(delivery.body),
        ..delivery
    }
}

fn clean(text: Option<String>) -> Option<String> {
    text.map(|text| card::scrub(&text).into_owned())
}

/// Headers are for programs, so one with a card number is removed as a whole.
fn clean_headers(headers: FieldTable) -> FieldTable {
    let mut clean = FieldTable::default();
    for (name, value) in headers.inner() {
        if !card::contains_card_number(name.as_str()) && !contains_card(value) {
            clean.insert(name.clone(), value.clone());
        }
    }
    clean
}

fn contains_card(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::FieldArray(values) => {
            let values = values.as_slice();
            // The elements may be parts of one number.
            let joined = values.iter().map(scalar).collect::<Vec<_>>().join(", ");
            values.iter().any(contains_card) || card::contains_card_number(&joined)
        }
        AMQPValue::FieldTable(table) => {
            table.inner().iter().any(|(name, value)| card::contains_card_number(name.as_str()) || contains_card(value))
        }
        value => card::contains_card_number(&scalar(value)),
    }
}

/// Returns a value without nested ones as text; of a number, its digits.
fn scalar(value: &AMQPValue) -> Cow<'_, str> {
    match value {
        AMQPValue::LongString(text) => String::from_utf8_lossy(text.as_bytes()),
        AMQPValue::ShortString(text) => Cow::Borrowed(text.as_str()),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()),
        AMQPValue::FieldArray(_) | AMQPValue::FieldTable(_) => Cow::Borrowed("nested"),
        value => Cow::Owned(format!("{value:?}").trim_matches(|sign: char| !sign.is_ascii_digit()).to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivery(body: &[u8]) -> Delivery {
        Delivery::unconnected("q", "cards.payment.create", body.to_vec())
    }

    #[test]
    fn a_message_without_a_card_number_stays_as_it_came() {
        for body in [&b"\xff\xfe\x00 7"[..], b"{\"a\": \"\\u0034\\u00e9\\ud83d\\u\"}", b""] {
            assert_eq!(without_cards(delivery(body)).body, body);
        }
    }

    #[test]
    fn card_numbers_are_replaced_escaped_ones_too() {
        for body in [
            "{\"a\": \"4111111111111111\"}",
            "{\"a\": \"\\u0034111 1111\\u00a01111 1111\"}",
            "{\"a\": \"4111\\u002d1111-1111-1111\"}",
            "{\"a\": \"NDExMTExMTExMTExMTExMQ\"}",
        ] {
            let clean = String::from_utf8(without_cards(delivery(body.as_bytes())).body).expect("a text");
            assert_eq!(clean, "{\"a\": \"[card number]\"}", "{body}");
        }
    }

    #[test]
    fn what_stands_beside_the_body_is_looked_at_as_well() {
        let card = || "4111111111111111".to_owned();
        let mut dirty = delivery(b"x");
        dirty.routing_key = format!("{}.payment.create", card());
        dirty.properties.correlation_id = Some(card());
        let mut inner = FieldTable::default();
        inner.insert("pan".into(), AMQPValue::LongLongInt(4_111_111_111_111_111));
        dirty.properties.headers.insert("kept".into(), AMQPValue::LongString("yes".into()));
        dirty.properties.headers.insert("a".into(), AMQPValue::LongString(card().into()));
        dirty.properties.headers.insert("b".into(), AMQPValue::FieldTable(inner));
        let mut named = FieldTable::default();
        named.insert(card().into(), AMQPValue::Boolean(true));
        dirty.properties.headers.insert("c".into(), AMQPValue::FieldTable(named));
        let parts = [4111, 1111, 1111, 1111].map(AMQPValue::LongInt);
        dirty.properties.headers.insert("d".into(), AMQPValue::FieldArray(parts.to_vec().into()));
        let clean = without_cards(dirty);
        assert_eq!(clean.routing_key, "[card number].payment.create");
        assert_eq!(clean.properties.correlation_id.as_deref(), Some("[card number]"));
        let names: Vec<&str> = clean.properties.headers.inner().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["kept"]);
    }
}
