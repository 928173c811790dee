//! The AsyncAPI document: where messages go, by which routing keys, and who sends what.

use serde_json::{Map, Value, json};
use strum::IntoEnumIterator;

use super::{
    SHARED, VERSION, binary_mode, command_name, commands, definitions, event_name, events, examples, messages,
};
use crate::bus::topology::{Argument, Names, Queue, exchanges, queues};
use crate::payment::command::CommandType;
use crate::payment::event::EventType;

/// What stands for a configured variant.
const VARIANT: &str = "{variant}";
const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";
const BINDING: &str = "0.3.0";
/// The default of `amqp.prefix`, and of the delivery limit.
const PREFIX: &str = "paybus";
const DELIVERY_LIMIT: u32 = 100;

const DESCRIPTION: &str = "Payments over a message bus. Publish commands to the exchange `paybus.commands` with the \
                           routing key `<variant>.<type>`, persistent, with publisher confirms and `mandatory`, in \
                           structured mode or in binary mode. Consume events from a queue of your own, bound to the \
                           exchange `paybus.events` by `<variant>.<type>`, or by \
                           `<variant>.payment.status_changed.<status>` for a change of status. Every command that \
                           identifies itself gets exactly one event whose `data.command.final` is true: its answer, \
                           which is also sent to the command's `reply_to`. An `events.resend` or `command.status` is \
                           answered only at its `reply_to`. Heartbeats are published to the exchange \
                           `paybus.heartbeats`. codes.md lists the codes of answers, and the README.md next to this \
                           file says what may change. All names begin with the configured prefix, `paybus` by default.";

const POSITION: &str = "The event's position among all events of the installation, the same at each resend. The \
                        positions of one variant have gaps. Heartbeats and answers that are not events have none.";

/// The document.
pub(super) fn document() -> Value {
    let mut document = json!({
        "asyncapi": "3.0.0",
        "id": format!("urn:paybus:{VERSION}"),
        "info": {
            "title": "paybus", "version": format!("{VERSION}.0.0"), "description": DESCRIPTION,
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "defaultContentType": CONTENT_TYPE,
        "servers": { "broker": {
            "host": "127.0.0.1:5672", "pathname": "/%2f", "protocol": "amqp", "protocolVersion": "0.9.1",
            "description": "RabbitMQ, at the address in `amqp.url`.",
        } },
        "channels": channels(),
        "operations": operations(),
        "components": {
            "messages": all_messages(),
            "schemas": schemas(),
            "parameters": { "variant": { "description": "A configured variant, such as default." } },
        },
    });
    refer_to_components(&mut document);
    document
}

/// A name that a component may have.
fn key(name: &str) -> String {
    name.replace('/', ".")
}

/// The messages of a command: in structured mode and in binary mode.
fn modes(name: &str) -> [String; 2] {
    [name.to_owned(), format!("{name}.binary")]
}

fn channels() -> Value {
    let names = Names::new(PREFIX);
    let mut channels = Map::new();
    for kind in CommandType::iter() {
        let name = key(&command_name(kind));
        let bindings = by_routing_key(&names.commands());
        let address = format!("{VARIANT}.{kind}");
        let channel = channel(&address, &modes(&name), bindings, commands::about(kind));
        channels.insert(name, channel);
    }
    for kind in EventType::iter() {
        let name = key(&event_name(kind));
        let mut address = format!("{VARIANT}.{}", kind.as_str());
        if kind == EventType::StatusChanged {
            address.push_str(".{status}");
        }
        let exchange = if kind == EventType::Heartbeat { names.heartbeats() } else { names.events() };
        let mut channel =
            channel(&address, std::slice::from_ref(&name), by_routing_key(&exchange), events::about(kind));
        if kind == EventType::StatusChanged {
            channel["parameters"]["status"] = json!({ "description": "The payment's status after the change." });
        }
        channels.insert(name, channel);
    }
    for queue in queues(&names, DELIVERY_LIMIT, &[VARIANT]) {
        channels.insert(format!("queues.{}", queue.name.replace(VARIANT, "variant")), queue_channel(&queue));
    }
    channels.insert("replies".to_owned(), replies());
    Value::Object(channels)
}

fn channel(address: &str, messages: &[String], bindings: Value, about: &str) -> Value {
    json!({
        "address": address, "description": about,
        "parameters": { "variant": { "$ref": "#/components/parameters/variant" } },
        "messages": references(messages), "bindings": { "amqp": bindings },
    })
}

fn references(messages: &[String]) -> Value {
    let reference = |name: &String| (name.clone(), json!({ "$ref": format!("#/components/messages/{name}") }));
    Value::Object(messages.iter().map(reference).collect())
}

fn by_routing_key(exchange: &str) -> Value {
    let names = Names::new(PREFIX);
    let alternate =
        exchanges(&names).into_iter().find(|other| other.name == exchange).and_then(|other| other.alternate);
    let mut bindings = json!({
        "is": "routingKey", "bindingVersion": BINDING,
        "exchange": { "name": exchange, "type": "topic", "durable": true, "autoDelete": false, "vhost": "/" },
    });
    if let Some(alternate) = alternate {
        bindings["exchange"]["x-alternate-exchange"] = json!(alternate);
    }
    bindings
}

/// A queue of paybus's own, with the keys that bind it.
fn queue_channel(queue: &Queue) -> Value {
    let argument = |argument: &Argument| match argument {
        Argument::Text(text) => json!(text),
        Argument::Number(number) => json!(number),
    };
    let mut arguments: Map<String, Value> =
        queue.arguments.iter().map(|(name, value)| ((*name).to_owned(), argument(value))).collect();
    arguments.insert("x-queue-type".to_owned(), json!("quorum"));
    let keys: Vec<String> =
        queue.keys.iter().filter_map(|key| key.split_once('.')).map(|(_, kind)| kind.to_owned()).collect();
    let messages: Vec<String> = keys.iter().flat_map(|kind| modes(&key(&format!("commands/{kind}")))).collect();
    let mut channel = json!({
        "address": queue.name, "description": "A queue of paybus; nobody else may consume it.",
        "messages": references(&messages),
        "x-bindings": { "exchange": queue.exchange, "routingKeys": queue.keys },
        "bindings": { "amqp": {
            "is": "queue", "bindingVersion": BINDING,
            "queue": {
                "name": queue.name, "durable": true, "exclusive": false, "autoDelete": false, "vhost": "/",
                "x-arguments": arguments,
            },
        } },
    });
    if queue.name.contains(VARIANT) {
        channel["parameters"] = json!({ "variant": { "$ref": "#/components/parameters/variant" } });
    }
    channel
}

/// The events that come to a `reply_to`.
fn answers() -> impl Iterator<Item = EventType> {
    EventType::iter().filter(|kind| *kind != EventType::Heartbeat)
}

/// Where an answer goes besides the events: to the queue that the command names.
fn replies() -> Value {
    let messages: Vec<String> = answers().map(|kind| key(&event_name(kind))).collect();
    json!({
        "address": null,
        "description": "The queue in a command's reply_to: amq.rabbitmq.reply-to, or one whose name begins with \
                        `reply.` (amqp.reply_to). The final answer is sent there, with the command's AMQP \
                        correlation_id.",
        "messages": references(&messages),
    })
}

fn operations() -> Value {
    let mut operations = Map::new();
    for kind in CommandType::iter() {
        operations.insert(key(&command_name(kind)), command(kind));
    }
    for kind in EventType::iter() {
        let name = key(&event_name(kind));
        let event = json!({
            "action": "send", "summary": events::about(kind), "channel": { "$ref": format!("#/channels/{name}") },
            "messages": [{ "$ref": format!("#/channels/{name}/messages/{name}") }],
            "bindings": { "amqp": {
                "deliveryMode": 2, "mandatory": kind != EventType::Heartbeat, "timestamp": true, "bindingVersion": BINDING,
            } },
        });
        operations.insert(name, event);
    }
    Value::Object(operations)
}

fn command(kind: CommandType) -> Value {
    let name = key(&command_name(kind));
    let answers: Vec<Value> = answers()
        .map(|kind| json!({ "$ref": format!("#/channels/replies/messages/{}", key(&event_name(kind))) }))
        .collect();
    let messages = modes(&name).map(|message| json!({ "$ref": format!("#/channels/{name}/messages/{message}") }));
    json!({
        "action": "receive", "summary": commands::about(kind), "channel": { "$ref": format!("#/channels/{name}") },
        "messages": messages,
        "reply": {
            "address": { "location": "$message.header#/reply_to", "description": "The AMQP property reply_to." },
            "channel": { "$ref": "#/channels/replies" },
            "messages": answers,
        },
        "bindings": { "amqp": { "deliveryMode": 2, "mandatory": true, "ack": true, "bindingVersion": BINDING } },
    })
}

fn all_messages() -> Value {
    let mut all = Map::new();
    for kind in CommandType::iter() {
        let own: Vec<_> = examples::commands().into_iter().filter(|example| example.kind == kind).collect();
        let examples = own
            .iter()
            .map(|example| json!({ "name": example.message["id"], "summary": example.summary, "payload": example.message }))
            .collect();
        let name = key(&command_name(kind));
        let [structured, binary] = modes(&name);
        let message = |title: &str, schema: &str, headers, examples| {
            message(title, commands::about(kind), schema, headers, examples)
        };
        all.insert(structured, message(kind.as_str(), &name, command_properties(kind), examples));
        let examples = own.iter().map(binary_mode::example).collect();
        let headers = binary_mode::headers(kind, command_properties(kind));
        let mut in_binary = message(&format!("{kind} in binary mode"), &commands::data_name(kind), headers, examples);
        in_binary["contentType"] = json!(binary_mode::CONTENT_TYPE);
        all.insert(binary, in_binary);
    }
    for (kind, body) in examples::events() {
        let name = key(&event_name(kind));
        let examples = vec![json!({ "name": kind.as_str(), "payload": body })];
        all.insert(name.clone(), message(kind.as_str(), events::about(kind), &name, event_properties(), examples));
    }
    Value::Object(all)
}

fn message(title: &str, about: &str, schema: &str, headers: Value, examples: Vec<Value>) -> Value {
    json!({
        "name": title, "title": title, "summary": about, "contentType": CONTENT_TYPE,
        "correlationId": { "location": "$message.header#/correlation_id", "description": "The AMQP correlation_id." },
        "headers": headers,
        "payload": { "$ref": format!("#/components/schemas/{schema}") },
        "examples": examples,
    })
}

/// AMQP properties of a command.
fn command_properties(kind: CommandType) -> Value {
    let mut properties = json!({
        "type": "object", "description": "AMQP properties.",
        "properties": {
            "content_type": {
                "type": "string", "examples": [CONTENT_TYPE],
                "description": "Read only if the message also has headers of binary mode.",
            },
            "delivery_mode": { "const": 2, "description": "Persistent." },
            "reply_to": {
                "type": "string", "maxLength": 255, "pattern": "^(amq\\.rabbitmq\\.reply-to|reply\\.)",
                "description": "Where the final answer is sent in addition to the events, if amqp.reply_to allows it.",
            },
            "correlation_id": { "type": "string", "description": "Returned with the answer to reply_to." },
            "user_id": {
                "type": "string",
                "description": "The publishing user; the broker verifies it. Required if users are configured.",
            },
        },
    });
    if kind.is_of_operators() {
        properties["required"] = json!(["user_id"]);
    }
    properties
}

/// AMQP properties of an event.
fn event_properties() -> Value {
    json!({
        "type": "object", "description": "AMQP properties; traceparent, tracestate and paybus-position are headers.",
        "required": ["content_type", "delivery_mode", "message_id", "type", "app_id", "timestamp"],
        "properties": {
            "content_type": { "const": CONTENT_TYPE },
            "delivery_mode": { "const": 2 },
            "message_id": { "type": "string", "format": "uuid", "description": "The event's id." },
            "type": { "type": "string", "description": "The event's type." },
            "app_id": { "const": "paybus" },
            "timestamp": {
                "type": "integer", "description": "When it was sent, in seconds; it differs at each resend.",
            },
            "correlation_id": {
                "type": "string",
                "description": "The command's correlationid; in a reply, the AMQP correlation_id of the command.",
            },
            "traceparent": { "type": "string" },
            "tracestate": { "type": "string" },
            "paybus-position": { "type": "string", "pattern": "^[1-9][0-9]*$", "description": POSITION },
        },
    })
}

fn schemas() -> Value {
    let messages = messages().into_iter().map(|(name, schema)| (key(&name), schema));
    Value::Object(messages.chain(definitions()).collect())
}

/// What messages share is among the document's components.
fn refer_to_components(value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" => {
                        if let Some(shared) = text.strip_prefix(SHARED) {
                            *text = format!("#/components/schemas/{shared}");
                        }
                    }
                    member => refer_to_components(member),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(refer_to_components),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
