//! The schemas of commands, made of the table of fields that the parser reads by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::{described, name, shared, without_subject};
use crate::payment::command::{ATTRIBUTE_MAX, CommandType, DEPTH_MAX, TRACESTATE_MAX};
use crate::payment::field::{
    Field, Form, METADATA_MAX, METADATA_NAME_MAX, METADATA_TEXT_MAX, SEQUENCE_DIGITS_MAX, VARIANT_MAX, fields,
    needs_data,
};
use crate::payment::money::{Currency, DECIMALS_MAX, INTEGER_DIGITS_MAX};

const UUID: &str = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";

/// Something besides what Unicode calls white space.
const NOT_BLANK: &str = "[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

/// With its padding, and no bit that is left over.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// JSON's, in any case and with any parameters.
const MEDIA_TYPE: &str = "^[Aa][Pp][Pp][Ll][Ii][Cc][Aa][Tt][Ii][Oo][Nn]/[Jj][Ss][Oo][Nn] *(;|$)";

/// The attributes of every command.
pub(super) fn envelope() -> Value {
    let types: Vec<&str> = CommandType::iter().map(CommandType::as_str).collect();
    let mut schema = attributes();
    schema["title"] = json!("The envelope of every command");
    schema["description"] = json!("A CloudEvent 1.0 in structured mode. Other members are ignored.");
    schema["properties"]["type"] = json!({ "enum": types, "description": "The type of the command." });
    schema["properties"]["data"] = json!({ "type": "object", "description": "The fields of the command's type." });
    // A notification may not know its payment.
    schema["if"] = json!({ "properties": { "type": { "enum": without_subject() } } });
    schema["else"] = json!({ "required": ["subject"], "properties": { "subject": { "type": "string" } } });
    schema
}

/// A command of one type, whole.
pub(super) fn message(kind: CommandType) -> Value {
    let mut schema = attributes();
    schema["title"] = json!(format!("{kind} command"));
    schema["description"] = json!(about(kind));
    schema["properties"]["type"] = json!({ "const": kind.as_str() });
    schema["properties"]["data"] = shared(&data_name(kind));
    let mut required = vec!["specversion", "id", "source", "type"];
    if !kind.may_lack_subject() {
        required.push("subject");
        schema["properties"]["subject"]["type"] = json!("string");
    }
    schema["required"] = json!(required);
    let in_base64 = json!({ "required": ["data_base64"], "properties": { "data_base64": { "type": "string" } } });
    schema["if"] = in_base64;
    schema["then"] = json!({ "not": { "required": ["data"] } });
    if needs_data(kind) {
        schema["else"] = json!({ "required": ["data"] });
    }
    schema
}

/// What a command does, in a sentence or two.
pub(super) fn about(kind: CommandType) -> &'static str {
    match kind {
        CommandType::Create => {
            "Stores a payment as `waiting`; with `process`, continues as payment.process. Allowed if there is no such \
             payment."
        }
        CommandType::Process => "Submits the payment to the gateway. Allowed from waiting, input, rejected and error.",
        CommandType::Capture => "Captures authorized money. Allowed from preauth.",
        CommandType::Release => "Releases an authorization. Allowed from preauth.",
        CommandType::Refund => "Refunds money. Allowed from confirmed.",
        CommandType::Cancel => {
            "Ends the payment before money moves, including a scheduled retry of which nothing was sent. Allowed from \
             waiting and input."
        }
        CommandType::Sync => "Looks the payment up at the gateway and applies the result. Always allowed.",
        CommandType::Notification => "A gateway's webhook: verified, then applied. Its subject may be omitted.",
        CommandType::Resolve => {
            "An operator states the outcome of an operation if it is unknown. The AMQP user_id must name the operator."
        }
        CommandType::Retry => {
            "An operator moves the next attempt or look-up of an operation to now, or to a later time. It uses up no attempt; \
             circuit breaker, limits, keys and settle window hold as ever. The AMQP user_id must name who asks."
        }
        CommandType::Withdraw => {
            "An operator ends an operation that waits, and of which nothing was sent: it is answered by command.failed, \
             withdrawn. The AMQP user_id must name who asks."
        }
        CommandType::Resend => {
            "Resends the payment's counted events from a given one on, at most 100, each with its original id: to \
             reply_to if there is one, otherwise to all subscribers. The answer, command.succeeded, says which events \
             were sent."
        }
        CommandType::Snapshot => "Reports the payment as it is: answered by payment.snapshot. Always allowed.",
        CommandType::ResendEvents => {
            "Resends the variant's events of all payments in the order of their positions, at most 100, only to \
             reply_to, which is required. The answer there, command.succeeded, says how far they go. It does not \
             concern a single payment: omit its subject."
        }
        CommandType::Status => {
            "Reports the state of another command of the payment, only to reply_to, which is required: with the event \
             that answered it, or with command.delayed while it is in progress. If the command is not stored: \
             command.rejected with unknown_command."
        }
        CommandType::Pause => {
            "An operator stops the variant's calls, on all replicas within seconds: its commands wait in the broker, and what \
             is scheduled is put off. Calls that are under way end; syncs, notifications and look-ups continue. It concerns \
             no payment: omit its subject. The AMQP user_id must name who asks."
        }
        CommandType::Resume => {
            "An operator ends the variant's pause. It concerns no payment: omit its subject. The AMQP user_id must name who \
             asks."
        }
    }
}

fn attributes() -> Value {
    let name =
        |about: &str| json!({ "type": "string", "minLength": 1, "maxLength": ATTRIBUTE_MAX, "description": about });
    let optional =
        |max: usize, about: &str| json!({ "type": ["string", "null"], "maxLength": max, "description": about });
    let time = "After this time the command is not sent to the gateway for the first time; it is rejected as \
                `expired`.";
    json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": name("Together with subject and source it identifies the command: the same three again are the same \
                        command."),
            "source": name("The sender, such as shop/checkout."),
            "subject": {
                "type": ["string", "null"], "pattern": UUID, "description": "The payment's id, chosen by the publisher."
            },
            "time": {
                "anyOf": [{ "type": "string", "format": "date-time" }, {}],
                "description": "When it was created, as RFC 3339; ignored."
            },
            "datacontenttype": {
                "type": ["string", "null"], "maxLength": ATTRIBUTE_MAX, "pattern": MEDIA_TYPE
            },
            "data_base64": {
                "type": ["string", "null"], "pattern": BASE64, "contentEncoding": "base64",
                "contentMediaType": "application/json",
                "description": "Instead of data: the same object as JSON in base64. Prefer data."
            },
            "expirytime": {
                "type": ["string", "null"], "maxLength": ATTRIBUTE_MAX, "format": "date-time", "description": time
            },
            "correlationid": optional(ATTRIBUTE_MAX, "Copied to every event that the command causes."),
            "traceparent": optional(ATTRIBUTE_MAX, "W3C trace context; passed on to the gateway and to the events."),
            "tracestate": optional(TRACESTATE_MAX, "W3C trace context; passed on to the gateway and to the events."),
        },
    })
}

/// The name of the definition of a command's data.
pub(super) fn data_name(kind: CommandType) -> String {
    name(kind.as_str(), "command_data")
}

fn data(kind: CommandType) -> Value {
    let fields = fields(kind);
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if fields.iter().any(|field| field.form == Form::Object) {
        schema["description"] = json!(format!("At most {DEPTH_MAX} levels of objects and lists, including itself."));
    }
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    // Not in an `allOf`: generators of types would take its parts for the whole.
    if let (CommandType::Create, Value::Object(members)) = (kind, &mut schema) {
        members.extend(decimals_rule());
        members.insert("not".to_owned(), payment_of_nothing());
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = form(field.form);
    if !field.is_required && field.form != Form::Amount {
        allow_null(&mut schema);
    }
    described(schema, field.about)
}

fn form(form: Form) -> Value {
    match form {
        Form::Text(max) => json!({ "type": "string", "maxLength": max }),
        Form::Words(max) => json!({ "type": "string", "maxLength": max, "pattern": NOT_BLANK }),
        Form::Base64 => json!({ "type": "string", "pattern": BASE64 }),
        Form::Time => json!({ "type": "string", "format": "date-time" }),
        Form::OneOf(words) => json!({ "type": "string", "enum": words }),
        Form::Variant => json!({ "type": "string", "pattern": format!("^[a-z0-9_-]{{1,{VARIANT_MAX}}}$") }),
        Form::Uuid => json!({ "type": "string", "pattern": UUID }),
        Form::IpAddress => {
            let form = |name: &str| json!({ "type": "string", "format": name });
            json!({ "anyOf": [{ "type": "string", "maxLength": 0 }, form("ipv4"), form("ipv6")] })
        }
        Form::Currency => shared("currency"),
        Form::Amount => json!({ "allOf": [shared("amount")], "pattern": amount(DECIMALS_MAX) }),
        Form::Sequence => {
            let digits = SEQUENCE_DIGITS_MAX - 1;
            json!({ "type": "string", "pattern": format!("^[1-9][0-9]{{0,{digits}}}$") })
        }
        Form::Position => {
            let digits = SEQUENCE_DIGITS_MAX - 1;
            json!({ "type": "string", "pattern": format!("^(0|[1-9][0-9]{{0,{digits}}})$") })
        }
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Object => json!({ "type": "object", "additionalProperties": true }),
        Form::Pairs => {
            let pair = json!({ "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2 });
            json!({ "type": "array", "items": pair })
        }
        Form::Metadata => json!({
            "type": "object", "maxProperties": METADATA_MAX,
            "propertyNames": { "minLength": 1, "maxLength": METADATA_NAME_MAX },
            "additionalProperties": { "type": "string", "maxLength": METADATA_TEXT_MAX },
        }),
    }
}

fn amount(decimals: usize) -> String {
    let fraction = if decimals == 0 { String::new() } else { format!("(\\.[0-9]{{1,{decimals}}})?") };
    format!("^[0-9]{{1,{INTEGER_DIGITS_MAX}}}{fraction}$")
}

fn allow_null(schema: &mut Value) {
    if let Some(forms) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        forms.push(json!({ "type": "null" }));
        return;
    }
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
}

/// No more decimals than the currency has: an `if` for those of none, else one for those of one, and so on.
fn decimals_rule() -> Map<String, Value> {
    let codes = |decimals: usize| -> Vec<&str> {
        Currency::all().filter(|currency| currency.decimals() as usize == decimals).map(Currency::code).collect()
    };
    let rule = |others: Map<String, Value>, decimals: usize| {
        let (codes, sum) = (codes(decimals), json!({ "pattern": amount(decimals) }));
        if codes.is_empty() {
            return others;
        }
        let mut rule = Map::new();
        rule.insert("if".to_owned(), json!({ "properties": { "currency": { "enum": codes } } }));
        rule.insert("then".to_owned(), json!({ "properties": { "total": sum, "tax": sum, "delivery": sum } }));
        if !others.is_empty() {
            rule.insert("else".to_owned(), Value::Object(others));
        }
        rule
    };
    (0..DECIMALS_MAX).rev().fold(Map::new(), rule)
}

/// It cannot be processed.
fn payment_of_nothing() -> Value {
    json!({
        "description": "A payment of zero with a process.",
        "required": ["process", "total"],
        "properties": { "process": { "type": "object" }, "total": { "not": { "pattern": "[1-9]" } } },
    })
}

/// What commands share, and the data of each.
pub(super) fn definitions() -> BTreeMap<String, Value> {
    let codes: Vec<&str> = Currency::all().map(Currency::code).collect();
    let mut all: BTreeMap<String, Value> = CommandType::iter().map(|kind| (data_name(kind), data(kind))).collect();
    all.insert("currency".to_owned(), json!({ "type": "string", "enum": codes, "description": "An ISO 4217 code." }));
    all
}
