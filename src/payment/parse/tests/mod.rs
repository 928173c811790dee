//! What a command's data may contain, field by field.

use serde_json::{Value, json};
use strum::IntoEnumIterator;

use super::*;
use crate::payment::command::Resolution;

mod anything;

fn parse(kind: CommandType, data: Value) -> Result<Body, Rejection> {
    Body::parse(kind, data.as_object().unwrap())
}

/// The code of the rejection, and the field that it names.
fn refused(kind: CommandType, data: Value) -> (Code, String) {
    let shown = data.to_string();
    let rejection = parse(kind, data).expect_err(&shown);
    let field = rejection.message.split(':').next().unwrap().to_owned();
    (rejection.code, field)
}

fn create(changes: Value) -> Value {
    let mut data = json!({"variant": "default", "total": "120.00", "currency": "USD"});
    data.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    data
}

fn created(changes: Value) -> NewPayment {
    match parse(CommandType::Create, create(changes)) {
        Ok(Body::Create(new)) => *new,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_contracts_own_example_is_read_whole() {
    let new = created(json!({
        "description": "Book purchase", "tax": "20.00", "delivery": "10.00", "billing_first_name": "Sherlock",
        "billing_last_name": "Holmes", "billing_address_1": "221B Baker Street", "billing_address_2": "",
        "billing_city": "London", "billing_postcode": "NW1 6XE", "billing_country_code": "GB",
        "billing_country_area": "Greater London", "customer_ip_address": "127.0.0.1",
        "capture": true, "process": {"status": "confirmed"}
    }));
    let order = &new.order;
    assert_eq!((order.variant.as_str(), order.description.as_str()), ("default", "Book purchase"));
    let sums = [order.total, order.tax, order.delivery].map(|money| money.to_string());
    assert_eq!(sums, ["120.00", "20.00", "10.00"]);
    let billing = &order.billing;
    assert_eq!((billing.first_name.as_str(), billing.last_name.as_str()), ("Sherlock", "Holmes"));
    assert_eq!((billing.address_1.as_str(), billing.address_2.as_str()), ("221B Baker Street", ""));
    assert_eq!((billing.city.as_str(), billing.postcode.as_str()), ("London", "NW1 6XE"));
    assert_eq!((billing.country_code.as_str(), billing.country_area.as_str()), ("GB", "Greater London"));
    assert_eq!(order.customer_ip_address, Some("127.0.0.1".parse().unwrap()));
    let process = new.process.unwrap();
    assert_eq!((json!(process.data), process.capture), (json!({"status": "confirmed"}), Some(true)));
}

#[test]
fn all_but_variant_total_and_currency_may_be_left_out() {
    let new = created(json!({}));
    assert_eq!((new.order.tax, new.order.delivery), (Money::zero(new.order.total.currency()), new.order.tax));
    assert_eq!((new.capture, new.process, new.order.customer_ip_address), (None, None, None));
    assert_eq!(new.order.billing, Billing::default());
    // `null` is as good as omitted, except for amounts.
    assert_eq!(created(json!({"process": null, "billing_city": null, "capture": null})), created(json!({})));
    for name in ["total", "tax", "delivery"] {
        let found = refused(CommandType::Create, create(json!({name: null})));
        assert_eq!(found, (Code::InvalidAmount, name.to_owned()));
    }
    for name in ["variant", "total", "currency"] {
        let mut data = create(json!({}));
        data.as_object_mut().unwrap().remove(name);
        assert_eq!(refused(CommandType::Create, data), (Code::InvalidData, name.to_owned()));
        let found = refused(CommandType::Create, create(json!({name: null})));
        let code = if name == "total" { Code::InvalidAmount } else { Code::InvalidData };
        assert_eq!(found, (code, name.to_owned()));
    }
}

#[test]
fn capture_is_kept_with_and_without_process() {
    let new = created(json!({"capture": false}));
    assert_eq!((new.capture, new.process), (Some(false), None));
    let new = created(json!({"capture": false, "process": {}}));
    assert_eq!((new.capture, new.process.unwrap().capture), (Some(false), Some(false)));
}

#[test]
fn amounts_are_decimal_strings_of_their_currency() {
    for name in ["total", "tax", "delivery"] {
        for wrong in [
            json!(120),
            json!(120.5),
            json!("-1"),
            json!("1.001"),
            json!("1e3"),
            json!(""),
            json!("1,5"),
            json!("1234567890123"),
            json!(true),
            json!({}),
            json!("0".repeat(65)),
        ] {
            let found = refused(CommandType::Create, create(json!({name: wrong})));
            assert_eq!(found, (Code::InvalidAmount, name.to_owned()), "{wrong}");
        }
    }
    for (currency, amount, code) in [
        ("JPY", "120", None),
        ("JPY", "120.5", Some(Code::InvalidAmount)),
        ("KWD", "1.234", None),
        ("USD", "999999999999.99", None),
        ("usd", "1", Some(Code::InvalidCurrency)),
        ("XXX", "1", Some(Code::InvalidCurrency)),
        ("", "1", Some(Code::InvalidCurrency)),
        ("DOLLARS", "1", Some(Code::InvalidCurrency)),
        ("DOLLARSDOLLARS", "1", Some(Code::InvalidCurrency)),
    ] {
        let read = parse(CommandType::Create, create(json!({"currency": currency, "total": amount})));
        assert_eq!(read.err().map(|rejection| rejection.code), code, "{currency} {amount}");
    }
}

#[test]
fn a_total_of_nothing_is_refused_only_with_process() {
    assert!(created(json!({"total": "0.00"})).order.total.is_zero());
    let found = refused(CommandType::Create, create(json!({"total": "0.00", "process": {}})));
    assert_eq!(found, (Code::InvalidAmount, "total".to_owned()));
}

#[test]
fn texts_are_as_long_as_their_columns_in_characters() {
    for (name, max) in [
        ("description", 4096),
        ("billing_first_name", 256),
        ("billing_last_name", 256),
        ("billing_address_1", 256),
        ("billing_address_2", 256),
        ("billing_city", 256),
        ("billing_postcode", 256),
        ("billing_country_code", 2),
        ("billing_country_area", 256),
        ("billing_email", 254),
        ("billing_phone", 128),
    ] {
        created(json!({name: "ü".repeat(max)}));
        let found = refused(CommandType::Create, create(json!({name: "ü".repeat(max + 1)})));
        assert_eq!(found, (Code::InvalidData, name.to_owned()));
        let found = refused(CommandType::Create, create(json!({name: 5})));
        assert_eq!(found, (Code::InvalidData, name.to_owned()));
    }
    assert_eq!(refused(CommandType::Create, create(json!({"variant": "v".repeat(65)}))).0, Code::InvalidData);
}

#[test]
fn addresses_booleans_and_objects_are_what_they_say() {
    for address in ["::1", "203.0.113.9", ""] {
        created(json!({"customer_ip_address": address}));
    }
    for (name, wrong) in [
        ("customer_ip_address", json!("localhost")),
        ("customer_ip_address", json!("127.0.0.1/8")),
        ("capture", json!("true")),
        ("capture", json!(1)),
        ("process", json!("token")),
        ("process", json!([])),
    ] {
        let found = refused(CommandType::Create, create(json!({name: wrong})));
        assert_eq!(found, (Code::InvalidData, name.to_owned()), "{wrong}");
    }
}

#[test]
fn every_command_refuses_what_it_does_not_know_by_name() {
    // For a notification, this reads what is stored.
    for kind in CommandType::iter().filter(|kind| *kind != CommandType::Notification) {
        let mut data = match kind {
            CommandType::Create => create(json!({})),
            CommandType::Resolve => {
                json!({"operation": Uuid::nil(), "outcome": "approved", "evidence": "seen"})
            }
            CommandType::Retry | CommandType::Withdraw => json!({"operation": Uuid::nil()}),
            CommandType::Resend => json!({"from": "1"}),
            CommandType::Status => json!({"id": "pay-1"}),
            CommandType::Pause => json!({"reason": "it charges twice"}),
            _ => json!({}),
        };
        parse(kind, data.clone()).unwrap();
        data["captured_amount"] = json!("5");
        assert_eq!(refused(kind, data), (Code::UnknownField, "captured_amount".to_owned()), "{kind}");
    }
    // Only payment.create has a variant.
    assert_eq!(refused(CommandType::Refund, json!({"variant": "default"})).0, Code::UnknownField);
    let long = refused(CommandType::Sync, json!({"x".repeat(1000): 1}));
    assert_eq!(long.1.chars().count(), 64, "the name is shown, and bounded");
}

#[test]
fn a_process_has_its_object_and_capture_beside_it() {
    let read = parse(CommandType::Process, json!({"process": {"token": "t"}, "capture": false}));
    let Ok(Body::Process(process)) = read else { panic!("{read:?}") };
    assert_eq!((json!(process.data), process.capture), (json!({"token": "t"}), Some(false)));
    assert_eq!(parse(CommandType::Process, json!({})), Ok(Body::Process(Process::default())));
}

#[test]
fn amounts_of_captures_and_refunds_wait_for_the_payments_currency() {
    let text = |text: &str| Some(AmountText(text.to_owned()));
    let capture = |amount, is_final| Capture { amount, is_final };
    assert_eq!(
        parse(CommandType::Capture, json!({"amount": "1.2345"})),
        Ok(Body::Capture(capture(text("1.2345"), true)))
    );
    assert_eq!(parse(CommandType::Capture, json!({"final": true})), Ok(Body::Capture(capture(None, true))));
    assert_eq!(parse(CommandType::Capture, json!({"final": false})), Ok(Body::Capture(capture(None, false))));
    assert_eq!(parse(CommandType::Refund, json!({})), Ok(Body::Refund(Refund { amount: None, reference: None })));
    for kind in [CommandType::Capture, CommandType::Refund] {
        for wrong in [json!(5), json!(null)] {
            assert_eq!(refused(kind, json!({"amount": wrong})), (Code::InvalidAmount, "amount".to_owned()));
        }
    }
    assert_eq!(refused(CommandType::Capture, json!({"final": "no"})).0, Code::InvalidData);
    assert_eq!(refused(CommandType::Refund, json!({"final": true})).0, Code::UnknownField);
}

#[test]
fn a_resolve_says_what_happened_and_how_the_person_knows() {
    let data = |changes: Value| {
        let mut data = json!({"operation": Uuid::from_u128(5), "outcome": "approved", "evidence": " seen "});
        data.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        data
    };
    for (word, outcome) in [
        ("approved", Resolution::Approved),
        ("declined", Resolution::Declined),
        ("not_charged", Resolution::NotCharged),
    ] {
        let read = parse(CommandType::Resolve, data(json!({"outcome": word, "amount": "5", "transaction_id": ""})));
        let Ok(Body::Resolve(resolve)) = read else { panic!("{read:?}") };
        assert_eq!((resolve.operation, resolve.outcome), (Uuid::from_u128(5), outcome));
        assert_eq!((resolve.evidence.as_str(), resolve.transaction_id), ("seen", None));
    }
    for (name, wrong) in [
        ("operation", json!(null)),
        ("operation", json!("5")),
        ("outcome", json!(null)),
        ("outcome", json!("paid")),
        ("evidence", json!(null)),
        ("evidence", json!("  ")),
        ("evidence", json!("x".repeat(4097))),
        ("transaction_id", json!("x".repeat(256))),
    ] {
        let found = refused(CommandType::Resolve, data(json!({name: wrong})));
        assert_eq!(found, (Code::InvalidData, name.to_owned()), "{wrong}");
    }
}

proptest::proptest! {
    /// Any input is either parsed or rejected.
    #[test]
    fn no_data_stops_the_reader(name in "[a-z_]{0,20}", text in ".{0,40}", number in proptest::num::f64::ANY) {
        for kind in CommandType::iter() {
            for value in [json!(text), json!(number), json!([text]), json!({"a": text}), json!(null)] {
                let data = create(json!({name.clone(): value, "amount": text, "description": text}));
                let _read = parse(kind, data);
            }
        }
    }
}
