//! A command in binary mode means the same as in structured mode, or it is rejected under its own name. Its answer goes
//! where it is wanted, whatever else is wrong.

use super::*;
use crate::payment::command::VALUES_MAX;

const JSON: Option<&str> = Some("application/json");
const STRUCTURED: Option<&str> = Some("application/cloudevents+json; charset=utf-8");

/// The attributes of a structured command as headers, and its data as the body.
fn in_binary(command: &Value) -> (Vec<(String, Value)>, String) {
    let members = command.as_object().unwrap();
    let headers = members.iter().filter(|(name, _)| *name != "data" && *name != "datacontenttype");
    let body = members.get("data").map(Value::to_string).unwrap_or_default();
    (headers.map(|(name, value)| (name.clone(), value.clone())).collect(), body)
}

fn accept(content_type: Option<&str>, headers: &[(String, Value)], body: &[u8], key: &str) -> Accepted {
    ACCEPTANCE.accept(&Message { content_type, headers, ..message(body, key) })
}

fn taken(content_type: Option<&str>, headers: &[(String, Value)], body: &[u8], kind: CommandType) -> Box<Command> {
    match accept(content_type, headers, body, &key_of(kind)) {
        Accepted::Command(command) => command,
        dead => panic!("{headers:?} {}: {dead:?}", String::from_utf8_lossy(body)),
    }
}

/// The headers of a valid command with some of them changed; null removes one.
fn headers(kind: CommandType, changes: &[(&str, Value)]) -> Vec<(String, Value)> {
    let (mut headers, _) = in_binary(&good(kind));
    for (name, value) in changes {
        headers.retain(|(header, _)| header != name);
        headers.push(((*name).to_owned(), value.clone()));
    }
    headers.retain(|(_, value)| !value.is_null());
    headers
}

/// Why a command is rejected that is answered under its own name and at its own reply address.
fn refused(command: &Command) -> (Code, &str) {
    let rejection = command.content.as_ref().expect_err("it is refused");
    assert_eq!((command.payment_id.to_string(), command.name.id.as_str()), (PAYMENT.to_owned(), "c-1"));
    assert_eq!(command.attributes.reply.as_ref().map(|reply| reply.to.as_str()), Some("reply.shop"), "{rejection:?}");
    (rejection.code, rejection.message.as_str())
}

#[test]
fn a_command_is_the_same_in_both_modes() {
    for kind in CommandType::iter() {
        let command = good(kind);
        let (headers, body) = in_binary(&command);
        let Accepted::Command(structured) = read(command.to_string().as_bytes(), &key_of(kind)) else {
            panic!("{kind}")
        };
        for content_type in [None, Some(""), JSON, Some("Application/JSON; charset=utf-8")] {
            let binary = taken(content_type, &headers, body.as_bytes(), kind);
            assert!(binary.content.is_ok(), "{kind}: {:?}", binary.content);
            assert_eq!(binary, structured, "{kind}");
        }
    }
}

#[test]
fn only_a_command_without_fields_may_have_an_empty_body() {
    for kind in CommandType::iter() {
        let empty = taken(JSON, &headers(kind, &[]), b"", kind);
        if crate::payment::field::fields(kind).is_empty() {
            assert!(empty.content.is_ok(), "{kind}");
        } else {
            assert_eq!(refused(&empty).0, Code::InvalidData, "{kind}");
        }
    }
    for (kind, body) in [(CommandType::Refund, "{}"), (CommandType::Capture, " {}\n"), (CommandType::Process, "{}")] {
        assert!(taken(JSON, &headers(kind, &[]), body.as_bytes(), kind).content.is_ok(), "{kind}");
    }
}

#[test]
fn a_body_that_is_no_json_object_is_refused_under_the_commands_own_name() {
    for (body, code) in [
        (&b"amount=1"[..], Code::InvalidData),
        (b"{\"amount\": \"1\"", Code::InvalidData),
        (b"\xef\xbb\xbf{\"amount\": \"1\"}", Code::InvalidData),
        (b"[]", Code::InvalidData),
        (b"null", Code::InvalidData),
        (b" ", Code::InvalidData),
        (b"{} {}", Code::InvalidData),
        (b"{\"amount\": \"1\", \"amount\": \"2\"}", Code::InvalidData),
        (b"{\"amount\": \"\xff\"}", Code::InvalidEncoding),
        (b"{\"amount\": \"4242424242424242\"}", Code::CardNumber),
        (b"card=4242424242424242", Code::CardNumber),
        // A structured envelope is no data of a refund.
        (b"{\"data\": {\"amount\": \"1\"}}", Code::UnknownField),
        (b"{\"data_base64\": \"e30=\"}", Code::UnknownField),
    ] {
        let command = taken(JSON, &headers(CommandType::Refund, &[]), body, CommandType::Refund);
        assert_eq!(refused(&command).0, code, "{}", String::from_utf8_lossy(body));
        assert!(check(&Accepted::Command(command)).is_ok());
    }
    let deep = format!("{{\"process\": {}1{}}}", "{\"a\":".repeat(5_000), "}".repeat(5_000));
    let command = taken(JSON, &headers(CommandType::Process, &[]), deep.as_bytes(), CommandType::Process);
    assert_eq!(refused(&command).0, Code::TooDeep);
    let long = format!("{{\"process\": {{\"a\": \"{}\"}}}}", "x".repeat(BODY_MAX));
    let command = taken(JSON, &headers(CommandType::Process, &[]), long.as_bytes(), CommandType::Process);
    assert_eq!(refused(&command).0, Code::TooLarge);
}

/// Each would use many times its size in memory.
#[test]
fn a_command_of_very_many_values_is_too_large_with_any_texts() {
    let with = |list: String| {
        let body = format!("{{\"process\": {{\"a\": {list}}}}}");
        let headers = headers(CommandType::Process, &[]);
        // This gateway accepts anything in `process`.
        match accept(JSON, &headers, body.as_bytes(), "cards.payment.process") {
            Accepted::Command(command) => command,
            dead => panic!("{dead:?}"),
        }
    };
    // There are two opening brackets besides those in the list.
    assert!(with(format!("[{}0]", "0,".repeat(VALUES_MAX - 3))).content.is_ok());
    for list in [format!("[{}0]", "0,".repeat(VALUES_MAX - 2)), format!("[{}[]]", "[],".repeat(VALUES_MAX / 2))] {
        assert_eq!(refused(&with(list)).0, Code::TooLarge);
    }
    assert!(with(format!("\"{}\"", ",[{\\\"".repeat(VALUES_MAX))).content.is_ok());
}

#[test]
fn headers_are_validated_like_attributes() {
    let refund = CommandType::Refund;
    for (name, value, code) in [
        ("specversion", Value::Null, Code::InvalidEnvelope),
        ("specversion", json!("0.3"), Code::InvalidEnvelope),
        ("type", Value::Null, Code::InvalidEnvelope),
        ("correlationid", json!("x".repeat(256)), Code::InvalidEnvelope),
        ("correlationid", json!("a\u{0}b"), Code::InvalidEncoding),
        ("correlationid", json!(CARD), Code::CardNumber),
        ("expirytime", json!([]), Code::InvalidEnvelope),
        ("expirytime", json!("tomorrow"), Code::InvalidEnvelope),
        // Data and amounts in places where they would be overlooked.
        ("data", json!("{\"amount\": \"1\"}"), Code::InvalidEnvelope),
        ("data_base64", json!("e30="), Code::InvalidEnvelope),
        ("amount", json!("1.00"), Code::InvalidEnvelope),
        ("datacontenttype", json!("text/plain"), Code::InvalidEnvelope),
    ] {
        for body in ["{}", ""] {
            let command = taken(JSON, &headers(refund, &[(name, value.clone())]), body.as_bytes(), refund);
            let (found, message) = refused(&command);
            // An empty body is invalid by itself.
            assert!(
                found == code || body.is_empty() && found == Code::InvalidData,
                "{name} {value}: {found:?} {message}"
            );
        }
    }
    for content_type in ["text/xml", "application/jsonx", "application/cloudevents+avro"] {
        let command = taken(Some(content_type), &headers(refund, &[]), b"\x01", refund);
        assert!(refused(&command).1.starts_with("datacontenttype"), "{content_type}");
    }
    // A repeated attribute with the same value counts once.
    let typed = headers(refund, &[("datacontenttype", json!("application/json"))]);
    assert!(taken(JSON, &typed, b"{}", refund).content.is_ok());
    for (name, value) in [("id", json!([])), ("source", Value::Null), ("subject", json!(7)), ("id", json!("x\u{0}"))] {
        let accepted = accept(JSON, &headers(refund, &[(name, value)]), b"{}", &key_of(refund));
        assert!(matches!(&accepted, Accepted::Dead(why) if why.message.starts_with(name)), "{accepted:?}");
    }
    // Under both prefixes, with two values.
    let twice = |name: &str| {
        let mut headers = headers(refund, &[]);
        headers.push((name.to_owned(), json!("other")));
        accept(JSON, &headers, b"{}", &key_of(refund))
    };
    assert!(matches!(twice("id"), Accepted::Dead(why) if why.message == "id: is given twice"));
    let Accepted::Command(command) = twice("specversion") else { panic!("it names itself") };
    assert_eq!(refused(&command).1, "specversion: is given twice");
}

#[test]
fn where_both_modes_are_mixed_they_agree_or_the_command_is_refused() {
    let refund = CommandType::Refund;
    let mut command = good(refund);
    command["expirytime"] = json!("2026-11-23T12:00:00.000Z");
    let body = command.to_string();
    // Copies of the attributes, which CloudEvents allows; a header has times in its own notation.
    let copies = headers(
        refund,
        &[("expirytime", json!("2026-11-23T12:00:00Z")), ("time", json!("2026-11-22T12:00:01Z")), ("other", json!(7))],
    );
    assert!(taken(STRUCTURED, &copies, body.as_bytes(), refund).content.is_ok());
    assert!(taken(JSON, &headers(refund, &[("specversion", Value::Null)]), body.as_bytes(), refund).content.is_ok());
    for (name, value) in [
        ("id", json!("c-2")),
        ("source", json!("other")),
        ("subject", json!(Uuid::nil())),
        ("type", json!("payment.capture")),
        ("specversion", json!("0.3")),
        ("expirytime", json!("2026-11-23T12:00:01Z")),
        ("correlationid", json!([])),
    ] {
        let command = taken(STRUCTURED, &headers(refund, &[(name, value)]), body.as_bytes(), refund);
        assert_eq!(
            refused(&command),
            (Code::InvalidEnvelope, &*format!("{name}: differs between the header and the body"))
        );
    }
    for name in ["data", "data_base64"] {
        let command = taken(STRUCTURED, &headers(refund, &[(name, json!("e30="))]), body.as_bytes(), refund);
        assert_eq!(refused(&command).1, format!("{name}: belongs in the body"));
    }
    // An envelope within binary mode: nothing says which of them counts.
    let command = taken(JSON, &headers(refund, &[]), body.as_bytes(), refund);
    assert!(refused(&command).1.starts_with("specversion: appears in a header and in the body"));
    // An attribute only in a header is part of the event, but no envelope is assembled from headers and body.
    let without = |name: &str| command_without(&body, name).to_string();
    let timed = taken(STRUCTURED, &headers(refund, &[]), without("expirytime").as_bytes(), refund);
    assert!(timed.content.is_ok() && timed.attributes.expires_at.is_some(), "{:?}", timed.content);
    for name in ["id", "source", "subject", "type"] {
        let command = taken(STRUCTURED, &headers(refund, &[]), without(name).as_bytes(), refund);
        assert_eq!(refused(&command).1, format!("{name}: appears in a header but not in the body"));
    }
    // A binary-mode body is never an envelope, whatever its content type says.
    for body in ["{}", "{\"amount\": \"1.00\"}", "[]"] {
        let command = taken(STRUCTURED, &headers(refund, &[]), body.as_bytes(), refund);
        assert!(refused(&command).1.starts_with("datacontenttype"), "{body}");
    }
}

fn command_without(body: &str, name: &str) -> Value {
    let mut command: Value = serde_json::from_str(body).unwrap();
    command.as_object_mut().unwrap().remove(name);
    command
}

#[test]
fn an_attribute_of_the_wrong_form_takes_no_other_away() {
    for (name, value) in [
        ("expirytime", json!("tomorrow")),
        ("expirytime", json!(1_795_348_800)),
        ("correlationid", json!(7)),
        ("correlationid", json!("x".repeat(256))),
        ("traceparent", json!({})),
        ("tracestate", json!("x".repeat(513))),
        ("tracestate", json!("a\u{0}b")),
    ] {
        for kind in [CommandType::Create, CommandType::Refund, CommandType::Sync] {
            let mut command = good(kind);
            command[name] = value.clone();
            let Accepted::Command(read) = read(command.to_string().as_bytes(), &key_of(kind)) else { panic!("{name}") };
            assert!(refused(&read).1.starts_with(name), "{name}");
            let attributes = &read.attributes;
            assert_eq!(attributes.user_id.as_deref(), Some("shop"));
            assert_eq!(attributes.correlation_id.is_some(), name != "correlationid", "{name}");
            assert_eq!(attributes.trace.is_some(), name != "traceparent", "{name}");
            assert_eq!(attributes.expires_at.is_some(), name != "expirytime", "{name}");
        }
    }
    // A card number beside the reply address does not hide the address.
    let mut command = good(CommandType::Refund);
    command["correlationid"] = json!(CARD);
    let Accepted::Command(read) = read(command.to_string().as_bytes(), &key_of(CommandType::Refund)) else { panic!() };
    assert_eq!(refused(&read).0, Code::CardNumber);
}

fn header() -> impl Strategy<Value = (String, Value)> {
    let names = vec![
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "expirytime",
        "correlationid",
        "traceparent",
        "tracestate",
        "data",
        "data_base64",
        "amount",
    ];
    let name = prop_oneof![4 => select(names).prop_map(str::to_owned), 1 => text()];
    let value = prop_oneof![4 => text().prop_map(Value::String), 1 => Just(json!([])), 1 => Just(json!(7))];
    (name, value)
}

proptest! {
    /// Whatever the headers and the body contain, the command is named or dead-lettered.
    #[test]
    fn any_headers_are_named_or_dead_lettered(
        kind in kind(),
        changes in proptest::collection::vec(header(), 0..4),
        content_type in proptest::option::of(prop_oneof![
            text(),
            select(vec!["application/json", "application/cloudevents+json", "application/cloudevents-batch+json"])
                .prop_map(str::to_owned),
        ]),
        body in prop_oneof![
            value().prop_map(|value| value.to_string()),
            text(),
            Just(good(CommandType::Refund).to_string()),
        ],
    ) {
        let mut headers = headers(kind, &[]);
        headers.extend(changes);
        check(&accept(content_type.as_deref(), &headers, body.as_bytes(), &key_of(kind)))?;
    }

    /// Whatever its data is, it means the same in binary mode as in structured mode.
    #[test]
    fn binary_mode_says_what_structured_mode_says(kind in kind(), data in value()) {
        let mut command = good(kind);
        command["data"] = data;
        let (headers, body) = in_binary(&command);
        let binary = accept(JSON, &headers, body.as_bytes(), &key_of(kind));
        check(&binary)?;
        let Accepted::Command(structured) = read(command.to_string().as_bytes(), &key_of(kind)) else { panic!() };
        // Data that contains `specversion` could be an envelope.
        prop_assume!(command["data"].get("specversion").is_none());
        let Accepted::Command(binary) = binary else { panic!("{binary:?}") };
        prop_assert_eq!(&binary.content, &structured.content);
        prop_assert_eq!((binary.data, binary.hash), (structured.data, structured.hash));
    }
}
