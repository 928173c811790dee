//! The schemas of events. They let more come than they name: consumers ignore what they do not know.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::{described, name, shared, without_subject};
use crate::payment::code::{CODES, ReportedIn};
use crate::payment::command::CommandType;
use crate::payment::event::{EventType, Progress};
use crate::payment::field::{Form, fields};
use crate::payment::status::{FraudStatus, Status};

/// The attributes of every event.
pub(super) fn envelope() -> Value {
    let mut schema = attributes();
    schema["title"] = json!("The envelope of every event");
    schema["description"] =
        json!("A CloudEvent 1.0 in structured mode. Other types and attributes may be added: ignore unknown ones.");
    schema["properties"]["type"] = known(EventType::iter().map(EventType::as_str), "What happened.");
    schema["properties"]["data"] = json!({ "type": "object", "description": "The content, by the event's type." });
    schema
}

/// An event of one type, whole.
pub(super) fn message(kind: EventType) -> Value {
    let mut schema = attributes();
    schema["title"] = json!(format!("{} event", kind.as_str()));
    schema["description"] = json!(about(kind));
    schema["properties"]["type"] = json!({ "const": kind.as_str() });
    schema["properties"]["data"] = shared(&data_name(kind));
    if kind == EventType::Heartbeat {
        schema["properties"]["subject"]["description"] = json!("The variant.");
        schema["properties"]["partitionkey"]["description"] = json!("A placeholder for the variant.");
    }
    let required =
        ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "data"];
    let counted: &[&str] = if kind.is_counted() { &["sequence", "sequencetype"] } else { &[] };
    schema["required"] = json!([&required, counted].concat());
    if !kind.is_counted() {
        for name in ["sequence", "sequencetype"] {
            schema["properties"].as_object_mut().and_then(|properties| properties.remove(name));
        }
    }
    schema
}

/// When an event is sent.
pub(super) fn about(kind: EventType) -> &'static str {
    match kind {
        EventType::Created => "A payment was stored.",
        EventType::StatusChanged => "The payment's status changed. The new status is the last word of the routing key.",
        EventType::Updated => "Amounts, fraud or gateway data changed, but not the status.",
        EventType::Rejected => {
            "A command did not reach a gateway: it is invalid, not allowed, or refers to something unknown."
        }
        EventType::Failed => "The gateway refused, or retries ended; the payment is unchanged.",
        EventType::Delayed => {
            "A retry is scheduled, a result is awaited, or the outcome is unknown. Never a final answer."
        }
        EventType::Succeeded => "A command succeeded without changing the payment.",
        EventType::Snapshot => "The payment as it is, the answer to payment.snapshot; not one of the counted events.",
        EventType::Heartbeat => {
            "How many events of the variant exist in a range of positions; no more will ever appear there. It tells a \
             subscriber whether it missed any, including the last one. It has no position itself and is not stored."
        }
    }
}

fn attributes() -> Value {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let uuid = |about: &str| json!({ "type": "string", "format": "uuid", "description": about });
    let sequence = "The number among the payment's counted events: from 1, without gaps.";
    json!({
        "type": "object",
        "required": ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "partitionkey", "data"],
        "properties": {
            "specversion": { "const": "1.0" },
            "id": uuid("The same at every resend: drop an event whose id was already seen. Also the AMQP message_id."),
            "source": { "const": "paybus" },
            "subject": text("The payment's id; in the answer to a command, its subject as given."),
            "time": { "type": "string", "format": "date-time", "description": "When the event was decided." },
            "datacontenttype": { "const": "application/json" },
            "partitionkey": uuid("The payment's id, or a substitute if a command's subject is not one."),
            "sequence": { "type": "string", "pattern": SEQUENCE, "description": sequence },
            "sequencetype": { "const": "Integer" },
            "causationid": text("The id of the command that caused it."),
            "correlationid": text("As in the command that caused it."),
            "traceparent": text("W3C trace context."),
            "tracestate": text("W3C trace context."),
        },
    })
}

fn data_name(kind: EventType) -> String {
    name(kind.as_str(), "event_data")
}

fn data(kind: EventType) -> Value {
    let payment = ("payment", shared("payment"));
    let about = "The sequence of the payment's last event: the payment is in the state after it.";
    let sequence = ("sequence", json!({ "type": "string", "pattern": SEQUENCE, "description": about }));
    let message = ("message", json!({ "type": "string", "description": "A message for people." }));
    let attempts =
        ("attempts", json!({ "type": "integer", "minimum": 0, "description": "Calls to the gateway so far." }));
    let why = vec![
        ("code", shared("failure_code")),
        message.clone(),
        ("gateway_code", json!({ "type": "string", "description": "The gateway's own code." })),
        ("discrepancy", shared("discrepancy")),
    ];
    let (required, optional) = match kind {
        EventType::Created => (vec![payment], vec![]),
        EventType::Succeeded => (
            vec![],
            vec![
                payment,
                sequence,
                ("resent", shared("resent_events")),
                ("page", shared("events_page")),
                ("pause", shared("pause")),
            ],
        ),
        EventType::Snapshot => (vec![payment, sequence], vec![]),
        EventType::Heartbeat => (heartbeat(), vec![]),
        EventType::StatusChanged => {
            (vec![payment, ("previous_status", described(shared("status"), "The status before."))], why)
        }
        EventType::Updated => (vec![payment, ("changed", changed())], why),
        EventType::Rejected => (vec![("code", shared("rejection_code")), message], vec![]),
        EventType::Failed => {
            let (code, others) = (why[0].clone(), why[1..].to_vec());
            (vec![code, attempts], others)
        }
        EventType::Delayed => {
            let reason = ("reason", shared("delay_reason"));
            let about = "When it is retried or looked up again, if known.";
            let next = json!({ "type": "string", "format": "date-time", "description": about });
            (vec![reason, attempts], vec![message, ("next_attempt_at", next)])
        }
    };
    let mut names: Vec<&str> = required.iter().map(|(name, _)| *name).collect();
    let mut properties: Map<String, Value> =
        required.iter().chain(&optional).map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    if kind == EventType::Heartbeat {
        return json!({ "type": "object", "required": names, "properties": properties });
    }
    properties.insert("command".to_owned(), shared("command_reference"));
    properties.insert("operation".to_owned(), shared("operation"));
    if matches!(kind, EventType::Rejected | EventType::Failed | EventType::Delayed) {
        properties.insert("metadata".to_owned(), metadata());
    }
    if !matches!(kind, EventType::StatusChanged | EventType::Updated) {
        names.push("command");
    }
    let mut schema = json!({ "type": "object", "required": names, "properties": properties });
    if kind == EventType::Succeeded {
        // A notification may be about no payment of ours.
        let of_no_payment = json!({ "properties": { "type": { "enum": without_subject() } } });
        schema["if"] = json!({ "properties": { "command": of_no_payment } });
        schema["else"] = json!({ "required": ["payment"] });
    }
    schema
}

fn resent() -> Value {
    let number = |about: &str| json!({ "type": "string", "pattern": SEQUENCE, "description": about });
    json!({
        "type": "object", "required": ["from", "to"],
        "description": "The events that payment.resend sent; omitted if there were none. Events before `from` are no \
                        longer kept; if `sequence` is beyond `to`, request the next ones.",
        "properties": {
            "from": number("The sequence of the first one."), "to": number("The sequence of the last one."),
        },
    })
}

fn heartbeat() -> Vec<(&'static str, Value)> {
    let set_aside = "How many of them are set aside until an operator releases them, because the broker refused them \
                     or an earlier event of their payment.";
    vec![
        ("from", position("The position after which they begin: the `to` of the previous heartbeat.")),
        ("to", position("The last position.")),
        ("events", count("How many events of the variant have a position after `from` and up to `to`.")),
        ("set_aside", count(set_aside)),
    ]
}

fn page() -> Value {
    let kept_after = "Events up to this position may no longer be kept; omitted if all events after `after` are kept.";
    json!({
        "type": "object", "required": ["after", "to", "more", "events", "set_aside"],
        "description": "What events.resend sent.",
        "properties": {
            "after": position("The position after which they begin."),
            "to": position("All kept events up to this position were sent, except those set aside. Request more \
                            `after` it."),
            "more": { "type": "boolean", "description": "Whether there may be more events after it by now." },
            "events": count("How many were sent."),
            "set_aside": count("How many were not sent: they are set aside, and are sent to all subscribers when an \
                                operator releases them."),
            "kept_after": position(kept_after),
        },
    })
}

fn pause() -> Value {
    json!({
        "type": "object", "required": ["paused"],
        "description": "A variant's pause as it is stored, in answers to variant.pause and variant.resume.",
        "properties": {
            "paused": { "type": "boolean", "description": "Whether the variant's calls are paused." },
            "until": {
                "type": "string", "format": "date-time",
                "description": "When the pause ends by itself; omitted if only variant.resume ends it."
            },
            "reason": { "type": "string", "description": "Why it is paused." },
        },
    })
}

fn count(about: &str) -> Value {
    json!({ "type": "integer", "minimum": 0, "description": about })
}

fn position(about: &str) -> Value {
    json!({ "type": "string", "pattern": POSITION, "description": about })
}

fn metadata() -> Value {
    json!({
        "type": "object", "additionalProperties": { "type": "string" },
        "description": "The publisher's own texts with which the payment was created; omitted if `payment`, which \
                        contains them, is present.",
    })
}

/// Words that are known now; others may come.
fn known(words: impl Iterator<Item = &'static str>, about: &str) -> Value {
    json!({ "anyOf": [{ "enum": words.collect::<Vec<_>>() }, { "type": "string" }], "description": about })
}

/// One of these words.
fn one_of(words: impl Iterator<Item = &'static str>) -> Value {
    json!({ "type": "string", "enum": words.collect::<Vec<_>>() })
}

fn code(reported_in: ReportedIn) -> Value {
    let words = CODES.iter().filter(|entry| entry.reported_in.contains(&reported_in)).map(|entry| entry.code.as_str());
    known(words, "The reason as a code: see codes.md.")
}

fn sum(about: &str) -> Value {
    described(shared("amount"), about)
}

fn changed() -> Value {
    let names = payment_members().into_iter().map(|(name, _)| name);
    let about = "The names of the payment's members that changed.";
    json!({ "type": "array", "items": known(names, "A member of the payment."), "description": about })
}

/// What events share.
pub(super) fn definitions() -> BTreeMap<String, Value> {
    let members = payment_members();
    let always: Vec<&str> = members.iter().map(|(name, _)| *name).filter(|name| *name != "redirect_url").collect();
    let properties: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    let cause = "The command that caused it.";
    let how_far = "Its progress. succeeded, failed and rejected are final.";
    let mut all: BTreeMap<String, Value> = EventType::iter().map(|kind| (data_name(kind), data(kind))).collect();
    all.extend([
        ("status".to_owned(), one_of(Status::iter().map(Status::as_str))),
        ("fraud_status".to_owned(), one_of(FraudStatus::iter().map(FraudStatus::as_str))),
        ("failure_code".to_owned(), code(ReportedIn::Failed)),
        ("rejection_code".to_owned(), code(ReportedIn::Rejected)),
        ("delay_reason".to_owned(), code(ReportedIn::Delayed)),
        ("operation_state".to_owned(), known(Progress::iter().map(Progress::as_str), how_far)),
        ("resent_events".to_owned(), resent()),
        ("events_page".to_owned(), page()),
        ("pause".to_owned(), pause()),
        (
            "payment".to_owned(),
            json!({
                "type": "object", "required": always, "properties": properties,
                "description": "The whole payment as stored after the change.",
            }),
        ),
        (
            "command_reference".to_owned(),
            json!({
                "type": "object", "required": ["source", "id", "type", "final", "answer"], "description": cause,
                "properties": {
                    "source": { "type": "string", "description": "Its source." },
                    "id": { "type": "string", "description": "Its id." },
                    "type": { "type": "string", "description": "Its type as given." },
                    "final": {
                        "type": "boolean",
                        "description": "Whether this event finally settles the command with this name: each command gets \
                                        exactly one such event.",
                    },
                    "answer": { "type": "boolean", "description": ANSWER },
                },
            }),
        ),
        (
            "operation".to_owned(),
            json!({
                "type": "object", "required": ["id", "state"],
                "description": "The process, capture, release, refund or cancel that the command carries out.",
                "properties": {
                    "id": {
                        "type": "string", "format": "uuid",
                        "description": "The same in all its events, and known to the gateway.",
                    },
                    "state": shared("operation_state"),
                    "amount": sum("The requested amount, if there is one."),
                    "currency": {
                        "type": "string", "pattern": "^[A-Z]{3}$", "description": "The currency of the amount.",
                    },
                    "reference": {
                        "type": "string", "description": "The gateway's id of the transaction, once known.",
                    },
                },
            }),
        ),
        (
            "discrepancy".to_owned(),
            json!({
                "type": "object", "required": ["asked", "answered", "currency"],
                "description": "The gateway processed a different amount than requested, or exceeded a limit; its \
                                figure counts.",
                "properties": {
                    "asked": sum("The requested amount, or the limit."),
                    "answered": sum("The gateway's figure."),
                    "currency": { "type": "string", "pattern": "^[A-Z]{3}$" },
                },
            }),
        ),
    ]);
    all
}

/// The number of an event.
const SEQUENCE: &str = "^[1-9][0-9]*$";

/// A place among all events; 0 is before the first.
const POSITION: &str = "^[0-9]+$";

const ANSWER: &str = "Whether this answers the message that was sent, so that its sender can stop waiting. The same as \
                      `final`, except for id_reused, which settles nothing: the command that has the name continues.";

const PAID_IN_FULL: &str = "Whether the goods may be shipped: the status is confirmed, the whole total was captured \
                            and not returned, and no fraud review is open or has failed.";

const METADATA: &str = "The publisher's own texts with which the payment was created.";

fn payment_members() -> Vec<(&'static str, Value)> {
    let text = |about: &str| json!({ "type": "string", "description": about });
    let time = |about: &str| json!({ "type": "string", "format": "date-time", "description": about });
    let form = |name: &str| json!({ "type": "string", "format": name });
    let address = json!({
        "anyOf": [form("ipv4"), form("ipv6"), { "type": "null" }], "description": "The customer's IP address.",
    });
    let mut members = vec![
        (
            "id",
            json!({ "type": "string", "format": "uuid", "description": "Chosen by the publisher of payment.create." }),
        ),
        ("variant", text("The variant, which names a configured gateway.")),
        ("status", described(shared("status"), "The status.")),
        ("fraud_status", described(shared("fraud_status"), "The gateway's fraud assessment.")),
        ("fraud_message", text("The gateway's message about fraud.")),
        ("created", time("When it was stored.")),
        ("modified", time("When it last changed.")),
        ("transaction_id", text("Its id at the gateway; empty until there is one.")),
        ("currency", json!({ "type": "string", "pattern": "^[A-Z]{3}$", "description": "An ISO 4217 code." })),
        ("total", sum("The gross amount.")),
        ("delivery", sum("The delivery costs included in the total.")),
        ("tax", sum("The tax included in the total.")),
        ("captured_amount", sum("What was captured minus what was refunded, never below zero.")),
        ("authorized_amount", sum("Everything ever authorized, whether or not it was captured or released later.")),
        ("refunded_amount", sum("What was refunded.")),
        ("capturable_amount", sum("What can still be captured: held, and neither captured nor released.")),
        ("voided_amount", sum("What was authorized and released without being captured.")),
        ("paid_in_full", json!({ "type": "boolean", "description": PAID_IN_FULL })),
        ("customer_ip_address", address),
        (
            "metadata",
            json!({ "type": "object", "additionalProperties": { "type": "string" }, "description": METADATA }),
        ),
        ("message", text("The gateway's last message.")),
        (
            "extra_data",
            json!({
                "type": "object", "additionalProperties": true,
                "description": "Additional data from the gateway, limited in size.",
            }),
        ),
        ("redirect_url", text("Where the customer must act while the status is input.")),
    ];
    // As they were asked for.
    members.extend(fields(CommandType::Create).iter().filter_map(|field| match field.form {
        Form::Text(max) => {
            Some((field.name, json!({ "type": "string", "maxLength": max, "description": field.about })))
        }
        _ => None,
    }));
    members
}
