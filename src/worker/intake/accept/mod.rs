//! Parses a message: either a command that names itself, or one that cannot be answered. No content of a message can
//! stop the worker.

use std::collections::HashMap;
use std::collections::btree_map::{BTreeMap, Entry};
use std::sync::Arc;

use regex::Regex;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::data::{DATA, DATA_BASE64, Data};
use self::envelope::{check_envelope, check_places};
use self::mode::Envelope;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{
    ATTRIBUTE_MAX, Attributes as Attached, BODY_MAX, Body, Command, CommandName, CommandType, Kind, Process, Reply,
    TRACESTATE_MAX, body_too_large,
};
use crate::payment::fact::admitted;
use crate::payment::trace::TraceContext;
use crate::payment::webhook::Webhook;
use crate::payment::{card, field, json};
use crate::worker::variant::Variant;

/// Stands for the variant in routing keys if no variant is known.
const NO_VARIANT: &str = "none";

/// A message as the broker delivered it.
#[derive(Debug)]
pub struct Message<'a> {
    /// The message body.
    pub body: &'a [u8],
    /// The routing key.
    pub routing_key: &'a str,
    /// The AMQP `reply_to`.
    pub reply_to: Option<&'a str>,
    /// The AMQP `correlation_id`.
    pub correlation_id: Option<&'a str>,
    /// The AMQP `user_id`.
    pub user_id: Option<&'a str>,
    /// The AMQP `content_type`.
    pub content_type: Option<&'a str>,
    /// The CloudEvents attributes among the AMQP headers, by name; see `bus::attributes`.
    pub headers: &'a [(String, Value)],
}

/// The result of parsing a message.
#[derive(Debug)]
pub enum Accepted {
    /// A command that names itself, valid or rejected.
    Command(Box<Command>),
    /// It cannot be answered, as it names nobody.
    Dead(Rejection),
}

/// Parses and checks messages.
#[derive(Debug)]
pub struct Acceptance {
    /// The configured variants by name.
    pub variants: Arc<HashMap<String, Arc<Variant>>>,
    /// The pattern of queues that a reply may go to.
    pub reply_to: Regex,
}

/// The members of a message by name, with their raw values.
struct Attributes<'a> {
    members: BTreeMap<String, &'a RawValue>,
    /// Names that occur twice.
    twice: Vec<String>,
    /// Why headers and body contradict each other.
    wrong: Option<Rejection>,
}

impl<'a> Attributes<'a> {
    fn read(envelope: &'a Envelope<'_>) -> serde_json::Result<Attributes<'a>> {
        let mut attributes = Attributes { members: BTreeMap::new(), twice: Vec::new(), wrong: envelope.wrong.clone() };
        for (name, raw) in json::members(&envelope.text)? {
            match attributes.members.entry(name) {
                Entry::Vacant(entry) => {
                    entry.insert(raw);
                }
                Entry::Occupied(first) => attributes.twice.push(first.key().clone()),
            }
        }
        Ok(attributes)
    }

    fn is_twice(&self, name: &str) -> bool {
        self.twice.iter().any(|twice| twice == name)
    }

    fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.members.get(name).copied()
    }
}

impl Acceptance {
    /// Parses a message.
    pub fn accept(&self, message: &Message<'_>) -> Accepted {
        let (body, encoding) = match std::str::from_utf8(message.body) {
            Ok(body) => (std::borrow::Cow::Borrowed(body), Ok(())),
            // Parsed as far as possible, so that it can be answered.
            Err(_) => {
                (String::from_utf8_lossy(message.body), Err(reject(Code::InvalidEncoding, "the body is not UTF-8")))
            }
        };
        let envelope = Envelope::of(message, &body);
        let attributes = match Attributes::read(&envelope) {
            Ok(attributes) => attributes,
            Err(_) => return Accepted::Dead(reject(Code::InvalidEnvelope, "the body is not a JSON object")),
        };
        let names = match Names::read(&attributes) {
            Ok(names) => names,
            Err(rejection) => return Accepted::Dead(rejection),
        };
        let size = if message.body.len() > BODY_MAX { Err(body_too_large(message.body.len() as u64)) } else { Ok(()) };
        let data = Data::read(&attributes);
        let checked =
            size.and(encoding).and_then(|()| check_cards(&envelope.text, &attributes, &data, &names, message));
        let clean = checked.is_ok();
        let content = checked.and_then(|()| self.content(message, &attributes, &names, &data));
        let attached = self.attached(message, &attributes, clean);
        Accepted::Command(Box::new(self.command(message, names, data, content, attached)))
    }

    fn command(
        &self,
        message: &Message<'_>,
        names: Names,
        data: Data<'_>,
        content: Result<Body, Rejection>,
        attached: (Attached, Option<Rejection>),
    ) -> Command {
        let hash = match &content {
            Ok(Body::Notification(_)) => names.kind.hash(),
            _ => data.hash(&names.kind),
        };
        // The message may quote a field name, and a notification's data was not searched for card numbers.
        let content = content.map_err(|Rejection { code, message }| reject(code, card::scrub(&message)));
        let (attached, wrong) = attached;
        let content = content.and_then(|body| wrong.map_or(Ok(body), Err));
        let routed = message.routing_key.split('.').next().unwrap_or_default();
        let variant = if self.variants.contains_key(routed) { routed } else { NO_VARIANT };
        Command {
            payment_id: names.payment_id,
            subject: names.foreign_subject,
            name: names.name,
            kind: names.kind,
            variant: variant.to_owned(),
            data: content.as_ref().map(|body| data.kept_of(body)).unwrap_or_default(),
            content,
            hash,
            attributes: attached,
        }
    }

    fn content(
        &self,
        message: &Message<'_>,
        attributes: &Attributes<'_>,
        names: &Names,
        data: &Data<'_>,
    ) -> Result<Body, Rejection> {
        check_envelope(attributes)?;
        check_places(names.kind.known(), attributes)?;
        // Only commands that may omit the subject get this far with an empty one.
        if let Some(subject) = names.foreign_subject.as_ref().filter(|subject| !subject.is_empty()) {
            let message = format!("subject: {:?} is not a UUID", excerpt(subject, NAME_MAX));
            return Err(reject(Code::InvalidEnvelope, message));
        }
        let Some(kind) = names.kind.known() else {
            let message = format!("unknown command type {:?}", excerpt(names.kind.as_str(), NAME_MAX));
            return Err(reject(Code::UnknownType, message));
        };
        let (routed_variant, routed_type) = message.routing_key.split_once('.').unwrap_or((message.routing_key, ""));
        if routed_type != kind.as_str() {
            let message =
                format!("the routing key {:?} is not <variant>.{kind}", excerpt(message.routing_key, NAME_MAX));
            return Err(reject(Code::RoutingMismatch, message));
        }
        let Some(variant) = self.variants.get(routed_variant) else {
            let message = format!("no variant {:?} is configured", excerpt(routed_variant, NAME_MAX));
            return Err(reject(Code::UnknownVariant, message));
        };
        let empty = Map::new();
        let data = match data.checked()? {
            None if field::needs_data(kind) => return Err(reject(Code::InvalidData, "data: is missing")),
            data => data.unwrap_or(&empty),
        };
        if kind == CommandType::Notification {
            return notification(data, names, variant);
        }
        let body = Body::parse(kind, data)?;
        check_body(&body, variant)?;
        Ok(body)
    }

    /// Reads what comes beside the data. Returns everything that can be read, and why the first invalid part cannot.
    /// The reply address does not depend on the other parts.
    fn attached(
        &self,
        message: &Message<'_>,
        attributes: &Attributes<'_>,
        clean: bool,
    ) -> (Attached, Option<Rejection>) {
        let (reply, mut wrong) = match self.reply(message) {
            Ok(reply) => (reply, None),
            Err(rejection) => (None, Some(rejection)),
        };
        let attached = Attached { reply, user_id: message.user_id.map(str::to_owned), ..Attached::default() };
        if !clean {
            // Nothing else is kept of a message that contains a card number.
            return (attached, wrong);
        }
        let mut text = |name: &str, max: usize| {
            optional_text(attributes, name, max).unwrap_or_else(|rejection| {
                wrong.get_or_insert(rejection);
                None
            })
        };
        let expires_at = text("expirytime", ATTRIBUTE_MAX).map(|expiry| field::time(&expiry));
        let parent = text("traceparent", ATTRIBUTE_MAX);
        let state = text("tracestate", TRACESTATE_MAX);
        let correlation_id = text("correlationid", ATTRIBUTE_MAX);
        if expires_at == Some(None) {
            let message = "expirytime: must be a time such as 2026-11-22T12:00:00Z";
            wrong.get_or_insert_with(|| reject(Code::InvalidEnvelope, message));
        }
        let trace = parent.and_then(|parent| TraceContext::read(&parent, state.as_deref()));
        (Attached { correlation_id, trace, expires_at: expires_at.flatten(), ..attached }, wrong)
    }

    /// Where an answer is wanted; `None` if nowhere, or if the reply address contains a card number.
    fn reply(&self, message: &Message<'_>) -> Result<Option<Reply>, Rejection> {
        let Some(to) = message.reply_to else { return Ok(None) };
        if !self.reply_to.is_match(to) || to.len() > ATTRIBUTE_MAX {
            return Err(reject(Code::InvalidEnvelope, "reply_to: paybus does not publish to this queue"));
        }
        let beside = [Some(to), message.correlation_id].into_iter().flatten();
        if beside.clone().any(|text| text.contains('\0')) {
            return Err(reject(Code::InvalidEncoding, "reply_to or correlation_id: contains a NUL character"));
        }
        let contains_card = beside.clone().any(card::contains_card_number);
        let reply = Reply { to: to.to_owned(), correlation_id: message.correlation_id.map(str::to_owned) };
        Ok((!contains_card).then_some(reply))
    }
}

/// How a message identifies itself.
struct Names {
    payment_id: Uuid,
    foreign_subject: Option<String>,
    name: CommandName,
    kind: Kind,
}

impl Names {
    fn read(attributes: &Attributes<'_>) -> Result<Names, Rejection> {
        // With two values it is unknown whose command it is and who gets the answer.
        if let Some(name) = ["subject", "source", "id"].into_iter().find(|name| attributes.is_twice(name)) {
            return Err(reject(Code::InvalidEnvelope, format!("{name}: is given twice")));
        }
        let required = |name: &str| {
            let text = optional_text(attributes, name, ATTRIBUTE_MAX)?.filter(|text| !text.is_empty());
            let text = text.ok_or_else(|| reject(Code::InvalidEnvelope, format!("{name}: is missing")))?;
            if card::contains_card_number(&text) {
                return Err(reject(Code::CardNumber, format!("{name}: contains a card number")));
            }
            Ok(text)
        };
        let subject = match optional_text(attributes, "subject", ATTRIBUTE_MAX)? {
            // A notification may not know its payment, and `events.resend` concerns no particular one. Source and id
            // identify both.
            None if kind(attributes).known().is_some_and(CommandType::may_lack_subject) => String::new(),
            _ => required("subject")?,
        };
        let (source, id) = (required("source")?, required("id")?);
        let uuid = if subject.len() == 36 { Uuid::parse_str(&subject).ok() } else { None };
        let name = CommandName { source, id };
        let stand_in = || match subject.as_str() {
            // Commands that name no payment are independent of each other.
            "" => name.operation_id(""),
            foreign => Uuid::new_v5(&Uuid::NAMESPACE_OID, foreign.as_bytes()),
        };
        Ok(Names {
            payment_id: uuid.unwrap_or_else(stand_in),
            foreign_subject: if uuid.is_none() { Some(subject) } else { None },
            name,
            kind: kind(attributes),
        })
    }
}

fn kind(attributes: &Attributes<'_>) -> Kind {
    let word = optional_text(attributes, "type", ATTRIBUTE_MAX).ok().flatten().unwrap_or_default();
    if card::contains_card_number(&word) { Kind::Unknown(String::new()) } else { Kind::from_word(&word) }
}

/// Rejects card numbers anywhere except in a notification's data, which is the gateway's and signed as a whole.
/// Everything around the data is published in events.
fn check_cards(
    text: &str,
    attributes: &Attributes<'_>,
    data: &Data<'_>,
    names: &Names,
    message: &Message<'_>,
) -> Result<(), Rejection> {
    let mut beside = [Some(message.routing_key), message.reply_to, message.correlation_id].into_iter().flatten();
    let is_notification = names.kind == Kind::Known(CommandType::Notification);
    let in_body = || {
        if !is_notification {
            return card::contains_card_number(text) || data.hides_card();
        }
        let mut around = attributes.members.iter().filter(|(name, _)| *name != DATA && *name != DATA_BASE64);
        around.any(|(_, raw)| card::contains_card_number(raw.get()))
    };
    if beside.any(card::contains_card_number) || in_body() {
        return Err(reject(Code::CardNumber, "the command contains a card number; nothing of it was stored"));
    }
    Ok(())
}

fn check_body(body: &Body, variant: &Variant) -> Result<(), Rejection> {
    match body {
        Body::Create(new) => {
            if new.order.variant != variant.name {
                let message =
                    format!("data.variant is {:?}, but the routing key names {}", new.order.variant, variant.name);
                return Err(reject(Code::RoutingMismatch, message));
            }
            new.process.as_ref().map_or(Ok(()), |process| check_process(process, variant))
        }
        Body::Process(process) => check_process(process, variant),
        _ => Ok(()),
    }
}

fn check_process(process: &Process, variant: &Variant) -> Result<(), Rejection> {
    variant.gateway.check(&process.data)
}

/// Verifies a notification before anything of it is decided or stored, and keeps only its facts. The receiver has
/// verified it too, but anybody may publish to the bus.
fn notification(data: &Map<String, Value>, names: &Names, variant: &Variant) -> Result<Body, Rejection> {
    let webhook = Webhook::read(data)?;
    let Some(notifications) = variant.gateway.notifications() else {
        let message = format!("no notifications are configured for gateway {}", variant.rules.gateway);
        return Err(reject(Code::Unsupported, message));
    };
    let facts = notifications.verify(&webhook).map_err(|why| reject(Code::NotGenuine, why.to_string()))?;
    let addressed_to = names.foreign_subject.is_none().then_some(names.payment_id);
    Ok(Body::Notification(admitted(facts, addressed_to)?))
}

fn optional_text(attributes: &Attributes<'_>, name: &str, max: usize) -> Result<Option<String>, Rejection> {
    let Some(raw) = attributes.get(name).filter(|raw| raw.get() != "null") else { return Ok(None) };
    let text: String = serde_json::from_str(raw.get())
        .map_err(|_| reject(Code::InvalidEnvelope, format!("{name}: must be a string")))?;
    if text.len() > max {
        return Err(reject(Code::InvalidEnvelope, format!("{name}: must have at most {max} bytes")));
    }
    if text.contains('\0') {
        return Err(reject(Code::InvalidEncoding, format!("{name}: contains a NUL character")));
    }
    Ok(Some(text))
}

fn reject(code: Code, message: impl Into<String>) -> Rejection {
    Rejection::new(code, message)
}

mod data;
mod envelope;
mod mode;
#[cfg(test)]
mod tests;
