//! The schemas of commands, made of the table of fields that the parser reads by.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::shared;
use crate::payment::command::CommandType;
use crate::payment::field::{Field, Form, SEQUENCE_DIGITS_MAX, VARIANT_MAX, fields, needs_data};
use crate::payment::money::{Currency, DECIMALS_MAX, INTEGER_DIGITS_MAX};
use crate::worker::accept::{ATTRIBUTE_MAX, DEPTH_MAX, TRACESTATE_MAX};

const UUID: &str = "^[0-9A-Fa-f]{8}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}-[0-9A-Fa-f]{12}$";

/// Something besides what Unicode calls white space.
const NOT_BLANK: &str = "[^\\t-\\r \\u0085\\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";

/// With its padding, and no bit that is left over.
const BASE64: &str = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/][AQgw]==|[A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=)?$";

/// JSON's, in any case and with any parameters.
const MEDIA_TYPE: &str = "^[Aa][Pp][Pp][Ll][Ii][Cc][Aa][Tt][Ii][Oo][Nn]/[Jj][Ss][Oo][Nn] *(;|$)";

/// Data is one level and the gateway's own object the next; so many are left below that.
const LEVELS_BELOW: usize = DEPTH_MAX - 2;

/// The attributes of every command.
pub(super) fn envelope() -> Value {
    let types: Vec<&str> = CommandType::ALL.iter().map(|kind| kind.as_str()).collect();
    let mut schema = attributes();
    schema["title"] = json!("The envelope of every command");
    schema["description"] = json!("A CloudEvent 1.0, as structured mode has it. What else it holds is ignored.");
    schema["properties"]["type"] = json!({ "enum": types, "description": "What is asked." });
    schema["properties"]["data"] = json!({ "type": "object", "description": "The fields of the command's type." });
    // A notification may not know its payment.
    schema["anyOf"] = json!([
        { "properties": { "type": { "const": CommandType::Notification.as_str() } } },
        { "required": ["subject"], "properties": { "subject": { "type": "string" } } },
    ]);
    schema
}

/// A command of one type, whole.
pub(super) fn message(kind: CommandType) -> Value {
    let mut schema = attributes();
    schema["title"] = json!(format!("Command {kind}"));
    schema["description"] = json!(about(kind));
    schema["properties"]["type"] = json!({ "const": kind.as_str() });
    schema["properties"]["data"] = data(kind);
    let mut required = vec!["specversion", "id", "source", "type"];
    if kind != CommandType::Notification {
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
            "Stores a payment as `waiting`; with `process`, goes on as payment.process. Allowed where there is no such \
             payment."
        }
        CommandType::Process => "Hands the payment to the gateway. Allowed from waiting, input, rejected and error.",
        CommandType::Capture => "Takes authorized money. Allowed from preauth.",
        CommandType::Release => "Lets an authorization go. Allowed from preauth.",
        CommandType::Refund => "Gives money back. Allowed from confirmed.",
        CommandType::Cancel => {
            "Ends the payment before money moved; also a retry that waits, where nothing was sent. Allowed from waiting \
             and input."
        }
        CommandType::Sync => "Asks the gateway for the truth and applies it. Allowed always.",
        CommandType::Notification => "A gateway's webhook: verified, then applied. Its subject may be left out.",
        CommandType::Resolve => {
            "A person says what happened, where the outcome is unknown. The AMQP user_id must name who says so."
        }
        CommandType::Resend => {
            "Sends the payment's counted events once more, from one on and at most 100, each under the same id: to \
             reply_to, where there is one, else to all. Answered by command.succeeded, which says which they were."
        }
        CommandType::Snapshot => "Tells the payment as it is: answered by payment.snapshot. Allowed always.",
    }
}

fn attributes() -> Value {
    let name =
        |about: &str| json!({ "type": "string", "minLength": 1, "maxLength": ATTRIBUTE_MAX, "description": about });
    let optional =
        |max: usize, about: &str| json!({ "type": ["string", "null"], "maxLength": max, "description": about });
    let time = "Not sent to the gateway for the first time after this; then rejected as `expired`.";
    json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": name("With subject and source it names the command: the same three again are the same command."),
            "source": name("Who asks, such as shop/checkout."),
            "subject": {
                "type": ["string", "null"], "pattern": UUID, "description": "The payment's id, chosen by the publisher."
            },
            "time": { "description": "When it was made, as RFC 3339; not read." },
            "datacontenttype": {
                "type": ["string", "null"], "maxLength": ATTRIBUTE_MAX, "pattern": MEDIA_TYPE
            },
            "data_base64": {
                "type": ["string", "null"], "pattern": BASE64, "contentEncoding": "base64",
                "contentMediaType": "application/json",
                "description": "In place of data: the same object, as JSON in base64. Write data where you can."
            },
            "expirytime": {
                "type": ["string", "null"], "maxLength": ATTRIBUTE_MAX, "format": "date-time", "description": time
            },
            "correlationid": optional(ATTRIBUTE_MAX, "Copied to every event that the command causes."),
            "traceparent": optional(ATTRIBUTE_MAX, "W3C trace context; goes on to the gateway and into the events."),
            "tracestate": optional(TRACESTATE_MAX, "W3C trace context; goes on to the gateway and into the events."),
        },
    })
}

fn data(kind: CommandType) -> Value {
    let fields = fields(kind);
    let properties: Map<String, Value> = fields.iter().map(|field| (field.name.to_owned(), property(field))).collect();
    let required: Vec<&str> = fields.iter().filter(|field| field.is_required).map(|field| field.name).collect();
    let mut schema = json!({ "type": "object", "properties": properties, "additionalProperties": false });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if kind == CommandType::Create {
        let mut rules: Vec<Value> = (0..DECIMALS_MAX).filter_map(decimals_rule).collect();
        rules.push(nothing_rule());
        schema["allOf"] = Value::Array(rules);
    }
    schema
}

fn property(field: &Field) -> Value {
    let mut schema = form(field.form);
    if !field.is_required && field.form != Form::Amount {
        allow_null(&mut schema);
    }
    schema["description"] = json!(field.about);
    schema
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
            let forms = json!([{ "maxLength": 0 }, { "format": "ipv4" }, { "format": "ipv6" }]);
            json!({ "type": "string", "maxLength": 45, "anyOf": forms })
        }
        Form::Currency => {
            let codes: Vec<&str> = Currency::all().map(Currency::code).collect();
            json!({ "type": "string", "enum": codes })
        }
        Form::Amount => json!({ "type": "string", "pattern": amount(DECIMALS_MAX) }),
        Form::Sequence => {
            let digits = SEQUENCE_DIGITS_MAX - 1;
            json!({ "type": "string", "pattern": format!("^[1-9][0-9]{{0,{digits}}}$") })
        }
        Form::Boolean => json!({ "type": "boolean" }),
        Form::Object => json!({ "type": "object", "additionalProperties": shared(&levels(LEVELS_BELOW)) }),
        Form::Pairs => {
            let pair = json!({ "type": "array", "items": { "type": "string" }, "minItems": 2, "maxItems": 2 });
            json!({ "type": "array", "items": pair })
        }
    }
}

fn amount(decimals: usize) -> String {
    let fraction = if decimals == 0 { String::new() } else { format!("(\\.[0-9]{{1,{decimals}}})?") };
    format!("^[0-9]{{1,{INTEGER_DIGITS_MAX}}}{fraction}$")
}

fn allow_null(schema: &mut Value) {
    let kind = schema["type"].take();
    schema["type"] = json!([kind, "null"]);
    if let Some(words) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        words.push(Value::Null);
    }
}

/// No more decimals than the currency has.
fn decimals_rule(decimals: usize) -> Option<Value> {
    let has = |currency: &Currency| currency.decimals() as usize == decimals;
    let codes: Vec<&str> = Currency::all().filter(has).map(Currency::code).collect();
    let sum = json!({ "pattern": amount(decimals) });
    (!codes.is_empty()).then(|| {
        json!({
            "if": { "properties": { "currency": { "enum": codes } } },
            "then": { "properties": { "total": sum, "tax": sum, "delivery": sum } },
        })
    })
}

/// A payment of nothing cannot be processed.
fn nothing_rule() -> Value {
    json!({
        "if": { "required": ["process"], "properties": { "process": { "type": "object" } } },
        "then": { "properties": { "total": { "pattern": "[1-9]" } } },
    })
}

fn levels(number: usize) -> String {
    format!("levels_{number:02}")
}

/// JSON of so many levels of objects and lists.
pub(super) fn definitions() -> BTreeMap<String, Value> {
    let define = |number: usize| {
        let schema = match number.checked_sub(1) {
            None => json!({ "type": ["null", "boolean", "number", "string"] }),
            Some(below) => json!({ "additionalProperties": shared(&levels(below)), "items": shared(&levels(below)) }),
        };
        (levels(number), schema)
    };
    (0..=LEVELS_BELOW).map(define).collect()
}
