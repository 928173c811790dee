//! Any command data is either parsed, or rejected with a short reason that starts with the field's name.

use proptest::prelude::*;
use proptest::sample::select;
use strum::IntoEnumIterator;

use super::*;

/// The fields of all commands, so that most members are ones that are parsed.
const FIELDS: &[&str] = &[
    "variant",
    "total",
    "tax",
    "delivery",
    "currency",
    "description",
    "billing_city",
    "billing_country_code",
    "customer_ip_address",
    "capture",
    "process",
    "amount",
    "final",
    "operation",
    "outcome",
    "transaction_id",
    "evidence",
    "received_at",
    "method",
    "url",
    "headers",
    "body_base64",
];

fn name() -> impl Strategy<Value = String> {
    prop_oneof![9 => select(FIELDS).prop_map(str::to_owned), 1 => any::<String>(), 1 => "[a-z_]{100}"]
}

fn text() -> impl Strategy<Value = String> {
    let words = vec!["default", "USD", "JPY", "KWD", "GB", "127.0.0.1", "::1", "approved", "not_charged", "x"];
    let uuid = "0192f0c1-5f0c-7a10-8c21-1f2e3d4c5b6a";
    prop_oneof![
        4 => select(words).prop_map(str::to_owned),
        4 => "-?[0-9]{0,14}(\\.[0-9]{0,4})?",
        1 => Just(uuid.to_owned()),
        2 => any::<String>(),
        1 => Just("9".repeat(70)),
        1 => Just("\u{10ffff}".repeat(5_000)),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        6 => text().prop_map(Value::String),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::Bool),
        1 => any::<f64>().prop_map(|number| json!(number)),
        1 => any::<u64>().prop_map(|number| json!(number)),
        1 => proptest::collection::vec(text(), 0..3).prop_map(|texts| json!(texts)),
        1 => proptest::collection::hash_map(name(), text(), 0..3).prop_map(|members| json!(members)),
    ]
}

proptest! {
    #[test]
    fn no_data_makes_it_panic(
        kind in select(CommandType::iter().collect::<Vec<_>>()),
        members in proptest::collection::hash_map(name(), value(), 0..6),
        whole in any::<bool>(),
    ) {
        let members = Value::Object(members.into_iter().collect());
        let data = if whole && kind == CommandType::Create { create(members) } else { members };
        let shown = data.to_string();
        match parse(kind, data) {
            Ok(Body::Create(new)) => prop_assert!(new.process.is_none() || !new.order.total.is_zero(), "{shown}"),
            Ok(body) => prop_assert_eq!(body.kind(), kind),
            Err(rejection) => {
                prop_assert!(rejection.message.contains(": "), "{}", rejection.message);
                prop_assert!(rejection.message.chars().count() < 300, "{}", rejection.message);
            }
        }
    }

    /// Money is parsed exactly or not at all.
    #[test]
    fn amounts_are_what_was_written(text in "[0-9]{1,13}(\\.[0-9]{0,4})?|\\.[0-9]{1,3}|[ -~]{0,8}") {
        let read = parse(CommandType::Create, create(json!({"total": text, "currency": "KWD"})));
        if let Ok(Body::Create(new)) = read {
            let digits = |text: &str| {
                let (whole, part) = text.split_once('.').unwrap_or((text, ""));
                (whole.trim_start_matches('0').to_owned(), part.trim_end_matches('0').to_owned())
            };
            prop_assert_eq!(digits(&new.order.total.to_string()), digits(&text));
        }
    }
}
