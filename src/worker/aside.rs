//! What is put aside is kept, and shown to people: it holds no card number.

use std::borrow::Cow;

use lapin::types::{AMQPValue, FieldTable};

use crate::bus::delivery::{Delivery, Properties};
use crate::payment::card;

/// The delivery with each card number in it replaced; as it came where there is none.
pub fn without_cards(delivery: Delivery) -> Delivery {
    let body = String::from_utf8_lossy(&delivery.body);
    let body = match card::scrub(&unescaped(&body)) {
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

/// Headers are for programs: one with a card number goes as a whole.
fn clean_headers(headers: FieldTable) -> FieldTable {
    let mut clean = FieldTable::default();
    for (name, value) in headers.inner() {
        if !card::contains_card_number(name.as_str()) && !holds_card(value) {
            clean.insert(name.clone(), value.clone());
        }
    }
    clean
}

fn holds_card(value: &AMQPValue) -> bool {
    match value {
        AMQPValue::LongString(text) => card::contains_card_number(&String::from_utf8_lossy(text.as_bytes())),
        AMQPValue::ShortString(text) => card::contains_card_number(text.as_str()),
        AMQPValue::ByteArray(bytes) => card::contains_card_number(&String::from_utf8_lossy(bytes.as_slice())),
        AMQPValue::FieldArray(values) => values.as_slice().iter().any(holds_card),
        AMQPValue::FieldTable(table) => table.inner().values().any(holds_card),
        value => card::contains_card_number(&format!("{value:?}").replace(['(', ')'], " ")),
    }
}

/// The text with the signs that JSON wrote as `\u0034`, for a card number may hide behind them.
fn unescaped(text: &str) -> Cow<'_, str> {
    let mut parts = text.split("\\u");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    if plain.len() == text.len() {
        return Cow::Borrowed(text);
    }
    for part in parts {
        let code = part.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok());
        // Those that JSON has to escape stay as they are.
        match code.and_then(char::from_u32).filter(|sign| !sign.is_control() && !"\"\\".contains(*sign)) {
            Some(sign) => {
                plain.push(sign);
                plain.push_str(&part[4..]);
            }
            None => {
                plain.push_str("\\u");
                plain.push_str(part);
            }
        }
    }
    Cow::Owned(plain)
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
        let clean = without_cards(dirty);
        assert_eq!(clean.routing_key, "[card number].payment.create");
        assert_eq!(clean.properties.correlation_id.as_deref(), Some("[card number]"));
        let names: Vec<&str> = clean.properties.headers.inner().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["kept"]);
    }
}
