//! The published schemas and the worker agree on commands: the schema accepts what the worker accepts, and the worker
//! rejects what the schema rejects. If the schema accepts a command that the worker rejects, the reason is one that no
//! schema can express, as listed in contract/README.md.

use std::collections::BTreeMap;

use jsonschema::Validator;
use strum::IntoEnumIterator;

use super::*;
use crate::contract::schemas;
use crate::payment::command::DEPTH_MAX;

fn validator(name: &str) -> &'static Validator {
    static VALIDATORS: LazyLock<BTreeMap<String, Validator>> = LazyLock::new(|| {
        let build =
            |schema: &Value| jsonschema::draft202012::options().should_validate_formats(true).build(schema).unwrap();
        schemas().iter().map(|(name, schema)| (name.clone(), build(schema))).collect()
    });
    &VALIDATORS[name]
}

/// Whether the reason is one that no schema can express.
fn is_beyond_schemas(rejection: &Rejection, message: &Value) -> bool {
    // The content of base64, and an amount or data under almost their own names.
    let in_base64 = message["data_base64"].is_string();
    let misplaced = ["belongs in data", "must be spelled data or data_base64"];
    if in_base64 || misplaced.iter().any(|end| rejection.message.ends_with(end)) {
        return true;
    }
    if rejection.code == Code::TooDeep {
        return levels(&message["data"]) > DEPTH_MAX;
    }
    let counts_bytes = rejection.code == Code::InvalidEnvelope && rejection.message.ends_with("bytes");
    let of_process = rejection.message.starts_with("process.");
    let beyond = matches!(
        rejection.code,
        Code::CardNumber | Code::InvalidEncoding | Code::TooLarge | Code::RoutingMismatch | Code::NotGenuine
    );
    counts_bytes || of_process || beyond
}

/// The nesting depth of objects and lists.
fn levels(value: &Value) -> usize {
    match value {
        Value::Object(members) => 1 + members.values().map(levels).max().unwrap_or_default(),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

fn compare(kind: CommandType, message: &Value) -> Result<(), TestCaseError> {
    let body = message.to_string();
    let schema = validator(&format!("commands/{kind}"));
    let said = schema.iter_errors(message).map(|error| error.to_string()).next();
    let envelope = validator("commands/envelope").is_valid(message);
    let accepted = match read(body.as_bytes(), &key_of(kind)) {
        Accepted::Dead(rejection) => Err(rejection),
        Accepted::Command(command) => command.content.map(|_| ()),
    };
    match accepted {
        Ok(()) => {
            prop_assert!(said.is_none(), "the worker accepts it, the schema does not: {said:?}\n{body}");
            prop_assert!(envelope, "the worker accepts it, the envelope's schema does not: {body}");
        }
        Err(rejection) => {
            let agreed = said.is_some() || is_beyond_schemas(&rejection, message);
            prop_assert!(agreed, "the schema accepts it, the worker does not: {rejection:?}\n{body}");
        }
    }
    Ok(())
}

/// Values that some field or attribute may have, or almost.
fn likely() -> impl Strategy<Value = Value> {
    let words = vec![
        "",
        " ",
        "\u{85}",
        "\u{feff}",
        "default",
        "Cards",
        "USD",
        "JPY",
        "KWD",
        "CLF",
        "usd",
        "GB",
        "GBR",
        "::1",
        "::ffff:1.2.3.4",
        "127.0.0.1",
        "127.0.0.01",
        "1.2.3",
        "fe80::1%eth0",
        "approved",
        "not_charged",
        "paid",
        "seen",
        PAYMENT,
        "1.0",
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON ;charset=utf-8",
        "application/jsonx",
        "text/plain",
        "0192F0C1-5F0C-7A10-8C21-1F2E3D4C5B6A",
        "0192f0c15f0c7a108c211f2e3d4c5b6a",
        "2026-11-22T12:00:00Z",
        "2026-11-22t12:00:00.5z",
        "2026-11-22 12:00:00Z",
        "2026-11-22T12:00:00+01:00",
        "2026-11-22T12:00Z",
        "2026-11-22T12:00:00Z[UTC]",
        "2026-13-22T12:00:00Z",
        "0",
        "0.00",
        "e30=",
        "e31=",
        "eyJhbW91bnQiOiIxIn0=",
        "AP8=",
        "AA==",
        "AB==",
        "AA",
    ];
    prop_oneof![
        4 => select(words).prop_map(|word| json!(word)),
        4 => "[0-9]{1,13}(\\.[0-9]{1,5})?".prop_map(|amount| json!(amount)),
        1 => "[0-9]{1,4}(\\.[0-9]{1,4})?\n?".prop_map(|amount| json!(amount)),
        1 => Just(Value::Null),
        2 => any::<bool>().prop_map(|flag| json!(flag)),
        1 => (0_usize..5000).prop_map(|length| json!("ü".repeat(length))),
        1 => (0_usize..20).prop_map(|levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": [inner] }))),
        1 => (0_usize..20).prop_map(|levels| (0..levels).fold(json!([]), |inner, _| json!([inner]))),
        2 => Just(json!({})),
        2 => Just(json!([["x", "1"], ["x", "2"]])),
        1 => Just(json!([["x", "1"], ["x"]])),
        2 => value(),
    ]
}

fn fields() -> Vec<&'static str> {
    let all = CommandType::iter().flat_map(crate::payment::field::fields);
    all.map(|field| field.name).collect()
}

fn attribute() -> impl Strategy<Value = &'static str> {
    select(vec![
        "specversion",
        "id",
        "source",
        "subject",
        "time",
        "datacontenttype",
        "expirytime",
        "correlationid",
        "traceparent",
        "tracestate",
        "data",
        "data_base64",
        "Data",
        "amount",
        "other",
    ])
}

proptest! {
    /// One or more fields of a valid command are changed.
    #[test]
    fn schema_and_worker_agree_on_data(
        kind in select(CommandType::iter().collect::<Vec<_>>()),
        changes in proptest::collection::vec((select(fields()), likely()), 1..4),
        taken in proptest::option::of(select(fields())),
    ) {
        let mut message = good(kind);
        for (name, value) in changes {
            message["data"][name] = value;
        }
        if let Some(taken) = taken {
            message["data"].as_object_mut().unwrap().remove(taken);
        }
        compare(kind, &message)?;
    }

    /// The same with the fields that the command has, so that most of the results are accepted.
    #[test]
    fn schema_and_worker_agree_on_the_commands_own_fields(
        kind in select(CommandType::iter().collect::<Vec<_>>()),
        changes in proptest::collection::vec((any::<Index>(), likely()), 1..4),
    ) {
        let mut message = good(kind);
        let own = crate::payment::field::fields(kind);
        for (index, value) in changes.into_iter().filter(|_| !own.is_empty()) {
            message["data"][index.get(own).name] = value;
        }
        compare(kind, &message)?;
    }

    #[test]
    fn schema_and_worker_agree_on_envelopes(
        kind in select(CommandType::iter().collect::<Vec<_>>()),
        changes in proptest::collection::vec((attribute(), proptest::option::weighted(0.8, likely())), 1..3),
    ) {
        let mut message = good(kind);
        for (name, value) in changes {
            match value {
                Some(value) => message[name] = value,
                None => drop(message.as_object_mut().unwrap().remove(name)),
            }
        }
        compare(kind, &message)?;
    }

    /// Amounts in every currency, with and without `process`.
    #[test]
    fn schema_and_worker_agree_on_money(
        currency in select(crate::payment::money::Currency::all().collect::<Vec<_>>()),
        sums in proptest::collection::vec("0{0,2}[0-9]{1,13}(\\.[0-9]{1,5})?|0|0\\.0{1,3}", 3),
        process in proptest::option::of(Just(json!({}))),
    ) {
        let mut message = good(CommandType::Create);
        message["data"]["currency"] = json!(currency.code());
        for (name, sum) in ["total", "tax", "delivery"].into_iter().zip(sums) {
            message["data"][name] = json!(sum);
        }
        message["data"]["process"] = json!(process);
        compare(CommandType::Create, &message)?;
    }
}

#[test]
fn no_currency_has_more_decimals_than_the_schemas_allow() {
    let most = crate::payment::money::Currency::all().map(|currency| currency.decimals()).max();
    assert_eq!(most, Some(crate::payment::money::DECIMALS_MAX as u32));
}
