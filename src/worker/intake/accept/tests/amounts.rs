//! An amount that is given is either read or the command is rejected: without one it would apply to the full amount.
//! And a command that is encoded in another way is the same command.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::payment::command::{AmountText, Capture, Refund};

const KINDS: [CommandType; 2] = [CommandType::Capture, CommandType::Refund];

/// A command with these members beside those that name it, as JSON text.
fn command(kind: CommandType, members: &str) -> String {
    let envelope = json!({
        "specversion": "1.0", "id": "c-1", "source": "shop", "type": kind.as_str(), "subject": PAYMENT,
    });
    let envelope = envelope.to_string();
    format!("{}{}{members}}}", &envelope[..envelope.len() - 1], if members.is_empty() { "" } else { "," })
}

fn taken(kind: CommandType, members: &str) -> Box<Command> {
    match read(command(kind, members).as_bytes(), &key_of(kind)) {
        Accepted::Command(command) => command,
        dead => panic!("{members}: {dead:?}"),
    }
}

fn content(kind: CommandType, members: &str) -> Result<Body, Rejection> {
    taken(kind, members).content
}

fn amount_of(body: Body) -> Option<String> {
    match body {
        Body::Capture(Capture { amount, .. }) | Body::Refund(Refund { amount, .. }) => {
            amount.map(|AmountText(text)| text)
        }
        other => panic!("{other:?}"),
    }
}

fn base64(text: &str) -> String {
    format!(r#""data_base64": "{}""#, STANDARD.encode(text))
}

#[test]
fn data_in_base64_is_read() {
    for kind in KINDS {
        let body = content(kind, &base64(r#"{"amount": "10.00"}"#)).unwrap();
        assert_eq!(amount_of(body).as_deref(), Some("10.00"), "{kind}");
        let typed = format!(r#""datacontenttype": "application/json", {}"#, base64(r#"{"amount": "10.00"}"#));
        assert_eq!(amount_of(content(kind, &typed).unwrap()).as_deref(), Some("10.00"), "{kind}");
        // An object without an amount means the full amount, in either form.
        assert_eq!(amount_of(content(kind, &base64("{}")).unwrap()), None, "{kind}");
        assert_eq!(amount_of(content(kind, r#""data": {}"#).unwrap()), None, "{kind}");
        assert_eq!(amount_of(content(kind, r#""data": {}, "data_base64": null"#).unwrap()), None, "{kind}");
    }
    let create = json!({"variant": "default", "total": "12.50", "currency": "EUR", "capture": false, "process": {}});
    let Ok(Body::Create(new)) = content(CommandType::Create, &base64(&create.to_string())) else { panic!("no create") };
    assert_eq!((new.order.total.to_string(), new.capture), ("12.50".to_owned(), Some(false)));
}

#[test]
fn one_command_in_two_forms_is_the_same_command() {
    let plain = taken(CommandType::Refund, r#""data": {"amount": "10.00"}"#);
    let encoded = taken(CommandType::Refund, &base64(r#"{ "amount" : "10.00" }"#));
    let other = taken(CommandType::Refund, &base64(r#"{"amount": "10.01"}"#));
    assert_eq!((plain.hash, &plain.data), (encoded.hash, &encoded.data));
    assert_ne!(plain.hash, other.hash);
}

#[test]
fn missing_or_ambiguous_data_is_rejected() {
    for members in [
        // No data at all: what it contained may have been lost on the way.
        String::new(),
        r#""data_base64": null"#.to_owned(),
        r#""data": null"#.to_owned(),
        r#""dataref": "https://shop.example/7""#.to_owned(),
        // Two values, and nothing says which one counts.
        format!(r#""data": {{}}, {}"#, base64(r#"{"amount": "10.00"}"#)),
        format!(r#""data": {{"amount": "10.00"}}, {}"#, base64(r#"{"amount": "10.00"}"#)),
        format!(r#""data": null, {}"#, base64(r#"{"amount": "10.00"}"#)),
        // Not an object.
        r#""data": "{\"amount\": \"10.00\"}""#.to_owned(),
        r#""data": [{"amount": "10.00"}]"#.to_owned(),
        r#""data_base64": {"amount": "10.00"}"#.to_owned(),
        r#""data_base64": "{}""#.to_owned(),
        r#""data_base64": "eyJhbW91bnQiOiAiMSJ9_-""#.to_owned(),
        r#""data_base64": """#.to_owned(),
        base64("amount=10.00"),
        base64(r#"[{"amount": "10.00"}]"#),
        base64(r#""{\"amount\": \"10.00\"}""#),
        base64(r#"{"amount": "10.00""#),
        base64("\u{feff}{\"amount\": \"10.00\"}"),
        format!(r#""data_base64": "{}""#, STANDARD.encode(b"{\"amount\": \"\xff\"}")),
    ] {
        for kind in KINDS {
            let code = content(kind, &members).expect_err(&members).code;
            assert_eq!(code, Code::InvalidData, "{kind} {members}");
        }
    }
    let of_another_type = format!(r#""datacontenttype": "text/plain", {}"#, base64("{}"));
    assert_eq!(content(CommandType::Refund, &of_another_type).unwrap_err().code, Code::InvalidEnvelope);
    // Commands that need no data may omit it.
    for kind in [CommandType::Process, CommandType::Cancel, CommandType::Release, CommandType::Sync] {
        assert!(content(kind, "").is_ok(), "{kind}");
    }
}

#[test]
fn what_comes_twice_is_refused() {
    for (members, code, named) in [
        (r#""data": {"amount": "1", "amount": "100"}"#, Code::InvalidData, "amount"),
        (r#""data": {"amount": "1", "amount": "1"}"#, Code::InvalidData, "amount"),
        (r#""data": {"amount": "1", "\u0061mount": "100"}"#, Code::InvalidData, "amount"),
        (r#""data": {"amount": "1"}, "data": {}"#, Code::InvalidEnvelope, "data"),
        (r#""data": {}, "x": 1, "x": 2"#, Code::InvalidEnvelope, "x"),
        (r#""data": {}, "type": "payment.capture""#, Code::InvalidEnvelope, "type"),
    ] {
        let kind = if members.contains("payment.capture") { CommandType::Capture } else { CommandType::Refund };
        let rejection = content(kind, members).expect_err(members);
        assert_eq!((rejection.code, rejection.message), (code, format!("{named}: is given twice")), "{members}");
    }
    let nested = content(CommandType::Process, r#""data": {"process": {"a": [{"token": "1", "token": "2"}]}}"#);
    assert_eq!(nested.unwrap_err().message, "token: is given twice");
    let encoded = content(CommandType::Refund, &base64(r#"{"amount": "1", "amount": "100"}"#));
    assert_eq!(encoded.unwrap_err().message, "amount: is given twice");
    // A command with two names belongs to nobody.
    for name in ["id", "source", "subject"] {
        let body = command(CommandType::Refund, &format!(r#""data": {{}}, "{name}": "{PAYMENT}""#));
        let accepted = read(body.as_bytes(), "default.payment.refund");
        let Accepted::Dead(rejection) = accepted else { panic!("{name}: {accepted:?}") };
        assert_eq!(rejection.message, format!("{name}: is given twice"));
    }
}

#[test]
fn an_amount_in_another_place_or_spelling_is_refused() {
    for (members, code) in [
        (r#""data": {}, "amount": "10.00""#, Code::InvalidEnvelope),
        (r#""data": {}, "Amount": "10.00""#, Code::InvalidEnvelope),
        (r#""data": {}, "Data": {"amount": "10.00"}"#, Code::InvalidEnvelope),
        (r#""data": {}, "data ": {"amount": "10.00"}"#, Code::InvalidEnvelope),
        (r#""data": {}, "dataBase64": "e30=""#, Code::InvalidEnvelope),
        (r#""data": {"Amount": "10.00"}"#, Code::UnknownField),
        (r#""data": {"amount ": "10.00"}"#, Code::UnknownField),
        (r#""data": {"\u200bamount": "10.00"}"#, Code::UnknownField),
        (r#""data": {"\u0430mount": "10.00"}"#, Code::UnknownField),
        (r#""data": {"refund": {"amount": "10.00"}}"#, Code::UnknownField),
        (r#""data": {"data": {"amount": "10.00"}}"#, Code::UnknownField),
        (r#""data": {"total": "10.00"}"#, Code::UnknownField),
        (r#""data": {"": "10.00"}"#, Code::UnknownField),
    ] {
        for kind in KINDS {
            assert_eq!(content(kind, members).expect_err(members).code, code, "{kind} {members}");
        }
    }
    // If the command has no such field, it is an attribute like any other.
    assert!(content(CommandType::Cancel, r#""amount": "10.00""#).is_ok());
    assert!(content(CommandType::Refund, r#""data": {}, "variant": "default", "dataref": "x""#).is_ok());
}

#[test]
fn only_a_decimal_string_is_an_amount() {
    for amount in [
        "null",
        "10",
        "10.00",
        "true",
        "[]",
        "{}",
        r#"["10.00"]"#,
        r#"{"value": "10.00"}"#,
        r#""""#,
        r#"" ""#,
        r#""1e1""#,
        r#""1E1""#,
        r#""+10""#,
        r#""-10""#,
        r#""1,000.00""#,
        r#""10,00""#,
        r#""1 000""#,
        r#""1_000""#,
        r#""1'000""#,
        r#""10.""#,
        r#"".5""#,
        r#""10.00 ""#,
        r#"" 10.00""#,
        r#""10.00\n""#,
        r#""10.0.0""#,
        r#""0x10""#,
        r#""NaN""#,
        r#""Infinity""#,
        r#""null""#,
        r#""10 USD""#,
        r#""$10""#,
        r#""١٠""#,
        r#""１０""#,
        r#""10٫00""#,
        r#""10\u2024""#,
        r#""0000000000010""#,
        r#""1.00000""#,
    ] {
        for kind in KINDS {
            let code = content(kind, &format!(r#""data": {{"amount": {amount}}}"#)).expect_err(amount).code;
            assert_eq!(code, Code::InvalidAmount, "{kind} {amount}");
        }
    }
    for name in ["total", "tax", "delivery"] {
        let mut data = json!({"variant": "default", "total": "12.50", "currency": "EUR"});
        data[name] = Value::Null;
        let code = content(CommandType::Create, &format!(r#""data": {data}"#)).unwrap_err().code;
        assert_eq!(code, Code::InvalidAmount, "{name}");
    }
    let mut resolve = good(CommandType::Resolve);
    resolve["data"]["amount"] = Value::Null;
    let Accepted::Command(read) = read(resolve.to_string().as_bytes(), &key_of(CommandType::Resolve)) else { panic!() };
    assert_eq!(read.content.unwrap_err().code, Code::InvalidAmount);
    // Leading zeros do not change the number.
    let body = content(CommandType::Refund, r#""data": {"amount": "010.00"}"#).unwrap();
    assert_eq!(amount_of(body).as_deref(), Some("010.00"));
}

#[test]
fn a_card_number_in_base64_is_found() {
    let escaped: String = CARD.chars().map(|digit| format!("\\u{:04x}", u32::from(digit))).collect();
    for card in [CARD, &escaped] {
        let data = base64(&format!(r#"{{"process": {{"number": "{card}"}}}}"#));
        let read = taken(CommandType::Process, &data);
        assert_eq!(read.content.as_ref().unwrap_err().code, Code::CardNumber);
        assert!(check(&Accepted::Command(read)).is_ok());
    }
}

proptest! {
    /// However an object is encoded, the command asks for the same thing or is rejected.
    #[test]
    fn base64_says_what_data_says(kind in kind(), data in value()) {
        let text = data.to_string();
        let (plain, encoded) = (taken(kind, &format!(r#""data": {text}"#)), taken(kind, &base64(&text)));
        // Base64 yields an object or nothing.
        if data.is_object() {
            prop_assert_eq!(plain.content.map_err(|why| why.code), encoded.content.map_err(|why| why.code));
            prop_assert_eq!((plain.data, plain.hash), (encoded.data, encoded.hash));
        } else {
            prop_assert!(encoded.content.is_err());
        }
    }
}
