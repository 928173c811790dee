//! Dead letters: messages that could not be understood, kept with the reason until a person decides.
//!
//! There are two sources: a worker dead-letters a message and gives the reason in its headers, and the broker
//! dead-letters what was redelivered too often, with headers of its own. Both look the same when they are listed.

use bytes::Bytes;
use jiff::Timestamp;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString};
use uuid::Uuid;

use crate::bus::consume::attributes::attribute_name;
use crate::bus::consume::delivery::{Delivery, Properties};
use crate::bus::publish::batch::Message;
use crate::bus::publish::publisher::{Publisher, base_properties};
use crate::bus::publish::verdict::Refused;
use crate::bus::topology::Names;
use crate::bus::{BusError, describe, short};
use crate::excerpt::excerpt_bytes;
use crate::payment::code::Rejection;

const REASON: &str = "x-paybus-reason";
const CODE: &str = "x-paybus-code";
const QUEUE: &str = "x-paybus-queue";
const ROUTING_KEY: &str = "x-paybus-routing-key";
const TIME: &str = "x-paybus-time";
/// The first sender of a dead letter, and of one that is sent again; empty if none was named.
const SENDER: &str = "x-paybus-sender";

/// The longest reason, in bytes.
const REASON_BYTES: usize = 1024;

/// How much of a message's own headers is kept, in bytes. All headers must fit into one frame, which a broker may limit
/// to 4,096 bytes; a longer one would cost the publishing connection.
const HEADER_BYTES: usize = 1024;

/// Why a message could not be dead-lettered.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The broker refuses it. Reject the delivery: the broker then dead-letters it without a reason.
    #[error("the broker refused the dead letter: {0}")]
    Refused(String),
    /// The publisher was shut down. Leave the delivery unsettled: it is redelivered.
    #[error("the publisher has shut down")]
    Closed,
}

/// Publishes a delivery to the dead letters, with the reason, and waits until the broker has it. Acknowledge the
/// delivery only after that: a crash in between makes a second copy, but the other order would lose the message.
///
/// # Errors
/// The broker refuses it, or the publisher was shut down. A lost connection is not an error: publishing is retried.
pub async fn publish_dead_letter(
    publisher: &Publisher,
    delivery: &Delivery,
    code: &str,
    reason: &str,
) -> Result<(), DeadLetterError> {
    let message = dead_letter(publisher.names(), delivery, code, reason, Timestamp::now());
    let message = message.map_err(|error| DeadLetterError::Refused(describe(&error)))?;
    let taken = publisher.publish_unordered(message).await.ok_or(DeadLetterError::Closed)?;
    taken.map_err(|Refused(reason)| DeadLetterError::Refused(reason))
}

fn dead_letter(
    names: &Names,
    delivery: &Delivery,
    code: &str,
    reason: &str,
    now: Timestamp,
) -> Result<Message, BusError> {
    let mut headers = own_headers(&delivery.properties.headers);
    let mut set = |name: &str, text: &str| {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(text)));
    };
    set(REASON, &excerpt_bytes(reason, REASON_BYTES));
    set(CODE, &excerpt_bytes(code, 255));
    set(QUEUE, &excerpt_bytes(&delivery.queue, 255));
    set(ROUTING_KEY, &excerpt_bytes(&delivery.routing_key, 255));
    set(TIME, &now.to_string());
    name_sender(&mut headers, delivery.properties.user_id.as_deref());
    Ok(Message {
        mandatory: true,
        exchange: short("exchange name", names.dead())?,
        routing_key: short("routing key", delivery.routing_key.as_str())?,
        properties: kept(&delivery.properties, &delivery.body)?.with_headers(headers),
        body: Bytes::copy_from_slice(&delivery.body),
    })
}

/// Returns the properties that a message keeps when it is forwarded, no matter by whom. Its user is not among them,
/// because the broker refuses any user but ours; nor its expiration, which would empty the dead letters.
fn kept(properties: &Properties, body: &[u8]) -> Result<BasicProperties, BusError> {
    let mut kept = base_properties().with_message_id(short("message id", id(properties, body))?);
    let text = |text: &Option<String>| text.as_deref().map(|text| short("property", text)).transpose();
    if let Some(id) = text(&properties.correlation_id)? {
        kept = kept.with_correlation_id(id);
    }
    if let Some(kind) = text(&properties.kind)? {
        kept = kept.with_type(kind);
    }
    if let Some(content_type) = text(&properties.content_type)? {
        kept = kept.with_content_type(content_type);
    }
    if let Some(reply_to) = text(&properties.reply_to)? {
        kept = kept.with_reply_to(reply_to);
    }
    Ok(kept)
}

/// Returns the id of a message; if it has none, one that is derived from its body.
fn id(properties: &Properties, body: &[u8]) -> String {
    match &properties.message_id {
        Some(id) if !id.is_empty() => id.clone(),
        _ => Uuid::new_v5(&Uuid::NAMESPACE_OID, body).to_string(),
    }
}

/// Returns the publisher's own headers. If they are too long, only the CloudEvents attributes remain, which identify
/// the message; if those are too long as well, nothing does. The broker's headers must go: RabbitMQ before 4.0 takes a
/// message that is published with `x-death` for one in a cycle, and drops it after confirming it.
fn own_headers(headers: &FieldTable) -> FieldTable {
    short_enough(headers, |name| !is_transport(name))
        .or_else(|| short_enough(headers, |name| attribute_name(name).is_some()))
        .unwrap_or_default()
}

fn short_enough(headers: &FieldTable, keep: impl Fn(&str) -> bool) -> Option<FieldTable> {
    let mut kept = FieldTable::default();
    for (name, value) in headers.inner().iter().filter(|(name, _)| keep(name.as_str())) {
        kept.insert(name.clone(), value.clone());
    }
    let properties = Properties { headers: kept, ..Properties::default() };
    (properties.headers_size() <= HEADER_BYTES).then_some(properties.headers)
}

fn is_transport(name: &str) -> bool {
    const PREFIXES: [&str; 4] = ["x-death", "x-first-death-", "x-last-death-", "x-paybus-"];
    const NAMES: [&str; 4] = ["x-delivery-count", "x-acquired-count", "CC", "BCC"];
    PREFIXES.iter().any(|prefix| name.starts_with(prefix)) || NAMES.contains(&name)
}

/// A dead letter, as it is shown to people.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its `message_id`; if it has none, an id derived from its body.
    pub id: String,
    /// The reason in one word: a code of ours, or the broker's own.
    pub code: String,
    /// The reason in a sentence. Empty if the broker dead-lettered it, unless the message cannot be read.
    pub reason: String,
    /// The queue it came from.
    pub queue: String,
    /// The routing key it was published with.
    pub routing_key: String,
    /// When it was dead-lettered, according to its headers.
    pub time: String,
    /// The broker user that first sent it, if known.
    pub sender: Option<String>,
    /// The AMQP properties.
    pub properties: Properties,
    /// The payload.
    pub body: Vec<u8>,
}

impl DeadLetter {
    pub(in crate::bus) fn read(properties: Properties, routing_key: String, body: Vec<u8>) -> DeadLetter {
        let header = |name: &str| {
            let stated = properties.headers.inner().get(name).and_then(text)?;
            Some(excerpt_bytes(&stated, REASON_BYTES).into_owned())
        };
        let is_brokers = is_brokers(&properties);
        // If the broker dead-lettered it, such headers were written by the publisher, who could choose the routing key
        // of the resend.
        let ours = |name: &str| header(name).filter(|_| !is_brokers);
        let first = |name: &str, brokers: &str| ours(name).or_else(|| header(brokers));
        // A message that a worker dead-lettered no longer has a marker.
        let unread = properties.flaw().map(Rejection::from);
        let code = || unread.as_ref().map(|flaw| flaw.code.as_str().to_owned());
        let reason = unread.as_ref().map(|flaw| flaw.message.clone());
        let size = properties.unread_size(&body);
        let id = match size {
            // The size stands in for the body that was not read.
            Some(size) => id(&properties, size.to_string().as_bytes()),
            None => id(&properties, &body),
        };
        let stated = first(CODE, "x-first-death-reason");
        DeadLetter {
            id,
            // A worker can only reject such a message, and the broker's reason would say no more than that.
            code: stated.filter(|_| size.is_none()).or_else(code).unwrap_or_default(),
            reason: reason.or_else(|| ours(REASON)).unwrap_or_default(),
            queue: first(QUEUE, "x-first-death-queue").unwrap_or_default(),
            time: ours(TIME).or_else(|| death_time(&properties.headers)).unwrap_or_default(),
            routing_key: ours(ROUTING_KEY).unwrap_or(routing_key),
            sender: first_sender(&properties),
            properties,
            body,
        }
    }
}

impl DeadLetter {
    /// Returns the size of the body if it is too large to be read. Then `body` is empty, and only the broker has it.
    pub fn unread_size(&self) -> Option<u64> {
        self.properties.unread_size(&self.body)
    }

    /// Returns the message as it was first published, to be sent by this user.
    pub(in crate::bus) fn revived(
        &self,
        names: &Names,
        user: Option<&str>,
        rights: Rights,
    ) -> Result<Message, BusError> {
        let mut properties = kept(&self.properties, &self.body)?;
        if let Some(user) = user {
            properties = properties.with_user_id(short("user", user)?);
        }
        let mut headers = own_headers(&self.properties.headers);
        if rights == Rights::Sender {
            name_sender(&mut headers, self.sender.as_deref());
        }
        Ok(Message {
            mandatory: true,
            exchange: short("exchange name", names.commands())?,
            routing_key: short("routing key", self.routing_key.as_str())?,
            properties: properties.with_headers(headers),
            body: Bytes::copy_from_slice(&self.body),
        })
    }
}

/// Whose rights apply when a dead letter is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Those that its first sender has now.
    Sender,
    /// Those of the user who sends it again.
    Own,
}

/// Returns the first sender of a message that an operator sends again, as its header says; empty if none was named.
/// Anybody can write that header: trust it only from an operator.
pub fn sender(headers: &FieldTable) -> Option<String> {
    headers.inner().get(SENDER).and_then(text)
}

fn name_sender(headers: &mut FieldTable, sender: Option<&str>) {
    let sender = excerpt_bytes(sender.unwrap_or_default(), 255);
    headers.insert(SENDER.into(), AMQPValue::LongString(LongString::from(&*sender)));
}

/// Returns the first sender of a dead letter. A message that a worker dead-lettered names it. One that the broker
/// dead-lettered has its publisher, which the broker checked; but if it also has a sender header, its publisher wrote
/// that, and the first sender is unknown.
fn first_sender(properties: &Properties) -> Option<String> {
    let stated = sender(&properties.headers);
    let first = match (is_brokers(properties), stated) {
        (false, stated) => stated,
        (true, None) => properties.user_id.clone(),
        (true, Some(_)) => None,
    };
    first.filter(|sender| !sender.is_empty())
}

/// Returns whether the broker dead-lettered the message. One that a worker dead-lettered has none of the broker's
/// headers, and nothing unreadable. Any value of `x-death` counts, even one that the publisher wrote: RabbitMQ before
/// 4.0 keeps it.
fn is_brokers(properties: &Properties) -> bool {
    properties.headers.contains_key("x-death") || properties.flaw().is_some()
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

/// Returns why the broker dead-lettered a message, in its own word: `delivery_limit`, `expired`, ... `None` for a
/// message that a worker dead-lettered, because that has none of the broker's headers.
pub fn broker_reason(delivery: &Delivery) -> Option<String> {
    let death = last_death(&delivery.properties.headers)?;
    Some(death.inner().get("reason").and_then(text).unwrap_or_default())
}

/// Returns the broker's record of when it last dead-lettered the message.
fn last_death(headers: &FieldTable) -> Option<&FieldTable> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get("x-death")? else {
        return None;
    };
    match deaths.as_slice().first()? {
        AMQPValue::FieldTable(death) => Some(death),
        _ => None,
    }
}

fn death_time(headers: &FieldTable) -> Option<String> {
    let AMQPValue::Timestamp(seconds) = last_death(headers)?.inner().get("time")? else {
        return None;
    };
    let time = Timestamp::from_second(i64::try_from(*seconds).ok()?).ok()?;
    Some(time.to_string())
}

#[cfg(test)]
mod tests {
    use lapin::types::ShortString;
    use proptest::prelude::*;

    use super::*;
    use crate::bus::connection::guard::{Flaw, MARKER};

    fn long(text: &str) -> AMQPValue {
        AMQPValue::LongString(LongString::from(text))
    }

    fn delivery() -> Delivery {
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), long("any"));
        headers.insert("x-first-death-queue".into(), long("any"));
        headers.insert("CC".into(), long("any"));
        headers.insert("traceparent".into(), long("00-1-2-01"));
        let mut delivery = Delivery::unconnected("p.commands.cards", "cards.payment.create", b"not JSON".to_vec());
        delivery.properties = Properties {
            correlation_id: Some("c".to_owned()),
            user_id: Some("shop".to_owned()),
            headers,
            ..Properties::default()
        };
        delivery
    }

    fn dead_lettered() -> Message {
        let now = "2026-11-22T12:00:00Z".parse().expect("a time");
        dead_letter(&Names::new("p"), &delivery(), "invalid_envelope", "it is no JSON", now).expect("a message")
    }

    #[test]
    fn a_dead_letter_has_its_reason_and_none_of_the_brokers_headers() {
        let message = dead_lettered();
        assert_eq!(message.exchange.as_str(), "p.dead");
        assert_eq!(message.properties.user_id(), &None);
        assert!(message.properties.message_id().is_some());
        let headers = message.properties.headers().clone().expect("headers");
        let names: Vec<&str> = headers.inner().keys().map(ShortString::as_str).collect();
        assert_eq!(names, ["traceparent", CODE, QUEUE, REASON, ROUTING_KEY, SENDER, TIME]);
    }

    #[test]
    fn a_dead_letter_reads_as_it_was_written() {
        let message = dead_lettered();
        let letter = DeadLetter::read(message.properties.into(), "any".to_owned(), message.body.to_vec());
        assert_eq!(letter.code, "invalid_envelope");
        assert_eq!(letter.reason, "it is no JSON");
        assert_eq!(letter.queue, "p.commands.cards");
        assert_eq!(letter.routing_key, "cards.payment.create");
        assert_eq!(letter.time, "2026-11-22T12:00:00Z");
        assert_eq!(letter.properties.correlation_id.as_deref(), Some("c"));
    }

    #[test]
    fn a_dead_letter_of_the_broker_reads_the_same() {
        let mut death = FieldTable::default();
        death.insert("time".into(), AMQPValue::Timestamp(1_795_348_800));
        let mut headers = FieldTable::default();
        headers.insert("x-first-death-queue".into(), long("p.commands.cards"));
        headers.insert("x-first-death-reason".into(), long("delivery_limit"));
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        let properties = Properties { headers, ..Properties::default() };
        let letter = DeadLetter::read(properties, "cards.payment.create".to_owned(), Vec::new());
        assert_eq!(letter.code, "delivery_limit");
        assert_eq!(letter.queue, "p.commands.cards");
        assert_eq!(letter.routing_key, "cards.payment.create");
        assert_eq!(letter.time, "2026-11-22T12:00:00Z");
        // Headers of ours that the publisher wrote are ignored, above all the routing key to send it again with.
        let mut forged = letter.properties.clone();
        for name in [REASON, CODE, QUEUE, ROUTING_KEY, TIME] {
            forged.headers.insert(name.into(), long("cards.payment.resolve"));
        }
        let reread = DeadLetter::read(forged.clone(), "cards.payment.create".to_owned(), Vec::new());
        assert_eq!(DeadLetter { properties: letter.properties.clone(), ..reread }, letter);
    }

    #[test]
    fn what_cannot_be_read_of_a_letter_is_its_reason() {
        let mut headers = FieldTable::default();
        headers.insert(MARKER.into(), long(&Flaw::Depth.to_string()));
        headers.insert(REASON.into(), long("a publisher's own"));
        let read = |headers: &FieldTable| {
            let properties = Properties { headers: headers.clone(), ..Properties::default() };
            DeadLetter::read(properties, "cards.payment.create".to_owned(), Vec::new())
        };
        let letter = read(&headers);
        assert_eq!((letter.code.as_str(), letter.reason), ("invalid_envelope", Flaw::Depth.to_string()));
        headers.insert("x-first-death-reason".into(), long("delivery_limit"));
        let letter = read(&headers);
        assert_eq!((letter.code.as_str(), letter.reason.clone()), ("delivery_limit", Flaw::Depth.to_string()));
        let revived = letter.revived(&Names::new("p"), None, Rights::Own).expect("a message");
        assert!(revived.properties.headers().as_ref().is_some_and(|headers| headers.inner().is_empty()));
    }

    /// Returns the first sender of a letter, and the one named when it is sent again.
    fn senders(properties: Properties) -> (Option<String>, Option<String>) {
        let letter = DeadLetter::read(properties, "cards.payment.refund".to_owned(), Vec::new());
        let revived = letter.revived(&Names::new("p"), Some("alice"), Rights::Sender).expect("a message");
        assert_eq!(revived.properties.user_id().as_ref().map(ToString::to_string).as_deref(), Some("alice"));
        (letter.sender, sender(&revived.properties.headers().clone().unwrap_or_default()))
    }

    #[test]
    fn a_letter_is_replayed_in_the_name_of_its_first_sender() {
        let named = |name: &str| (Some(name.to_owned()), Some(name.to_owned()));
        let unknown = (None, Some(String::new()));
        assert_eq!(senders(dead_lettered().properties.into()), named("shop"));
        let mut forged = delivery();
        forged.properties.headers.insert(SENDER.into(), long("operator"));
        let message = dead_letter(&Names::new("p"), &forged, "c", "r", Timestamp::UNIX_EPOCH).expect("a message");
        assert_eq!(senders(message.properties.into()), named("shop"), "a publisher's own word is not kept");
        forged.properties.user_id = None;
        let message = dead_letter(&Names::new("p"), &forged, "c", "r", Timestamp::UNIX_EPOCH).expect("a message");
        assert_eq!(senders(message.properties.into()), unknown);

        // Dead-lettered by the broker.
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(FieldTable::default())].into());
        let user_id = Some("shop".to_owned());
        let mut expired = Properties { user_id, ..Properties::default() };
        expired.headers.insert("x-death".into(), deaths);
        assert_eq!(senders(expired.clone()), named("shop"));
        expired.headers.insert(SENDER.into(), long("operator"));
        assert_eq!(senders(expired.clone()), unknown);
        expired.user_id = None;
        assert_eq!(senders(expired), unknown);
        // Headers that the publisher wrote in place of the broker's, or hid where they are not read.
        for (name, value) in [("x-death", long("any")), (MARKER, long(&Flaw::Depth.to_string()))] {
            let mut forged = Properties { user_id: Some("shop".to_owned()), ..Properties::default() };
            forged.headers.insert(name.into(), value);
            forged.headers.insert(SENDER.into(), long("operator"));
            assert_eq!(senders(forged), unknown, "{name}");
        }

        let letter = DeadLetter::read(dead_lettered().properties.into(), "any".to_owned(), Vec::new());
        let revived = letter.revived(&Names::new("p"), Some("alice"), Rights::Own).expect("a message");
        assert_eq!(sender(&revived.properties.headers().clone().unwrap_or_default()), None);
    }

    #[test]
    fn a_dead_letter_that_is_too_large_is_identified_by_its_size() {
        let mut headers = FieldTable::default();
        headers.insert(MARKER.into(), long(&Flaw::Body(15_000_000).to_string()));
        headers.insert("x-first-death-reason".into(), long("rejected"));
        let read = |body: &[u8]| {
            let properties = Properties { headers: headers.clone(), ..Properties::default() };
            DeadLetter::read(properties, "cards.payment.create".to_owned(), body.to_vec())
        };
        let letter = read(b"");
        assert_eq!((letter.code.as_str(), letter.unread_size()), ("too_large", Some(15_000_000)));
        assert_eq!(letter.reason, "the body is 15000000 bytes; the limit is 1048576");
        // A publisher who writes the marker itself hides no body with it.
        assert_eq!((read(b"{}").code.as_str(), read(b"{}").unread_size()), ("rejected", None));
    }

    #[test]
    fn headers_that_a_publisher_forged_are_cut_short() {
        let mut headers = FieldTable::default();
        for name in [REASON, CODE, QUEUE, ROUTING_KEY, TIME, "x-first-death-reason"] {
            headers.insert(name.into(), long(&"x".repeat(100_000)));
        }
        let letter = DeadLetter::read(Properties { headers, ..Properties::default() }, "k".to_owned(), Vec::new());
        for text in [&letter.reason, &letter.code, &letter.queue, &letter.routing_key, &letter.time] {
            assert!(text.len() <= REASON_BYTES, "{} bytes", text.len());
        }
    }

    /// A value of any AMQP type, possibly nested.
    fn any_value() -> impl Strategy<Value = AMQPValue> {
        let leaf = prop_oneof![
            any::<bool>().prop_map(AMQPValue::Boolean),
            any::<i32>().prop_map(AMQPValue::LongInt),
            any::<i64>().prop_map(AMQPValue::LongLongInt),
            any::<f64>().prop_map(AMQPValue::Double),
            any::<u64>().prop_map(AMQPValue::Timestamp),
            "[ -~]{0,40}".prop_map(|text| AMQPValue::ShortString(text.into())),
            any::<Vec<u8>>().prop_map(|bytes| AMQPValue::LongString(bytes.into())),
            any::<Vec<u8>>().prop_map(|bytes| AMQPValue::ByteArray(bytes.into())),
            (0..5_000_usize).prop_map(|length| long(&"é".repeat(length))),
            Just(AMQPValue::Void),
        ];
        leaf.prop_recursive(3, 12, 3, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..3).prop_map(|values| AMQPValue::FieldArray(values.into())),
                any_table(inner).prop_map(AMQPValue::FieldTable),
            ]
        })
    }

    fn any_table(value: impl Strategy<Value = AMQPValue> + 'static) -> BoxedStrategy<FieldTable> {
        let names =
            vec!["x-death", "time", REASON, CODE, QUEUE, TIME, "x-first-death-reason", "traceparent", "CC", "é"];
        let name = prop_oneof![3 => proptest::sample::select(names).prop_map(str::to_owned), 1 => "[a-z-]{0,60}"];
        let members = proptest::collection::vec((name, value), 0..5);
        let table = members.prop_map(|members| {
            let mut table = FieldTable::default();
            for (name, value) in members {
                table.insert(name.into(), value);
            }
            table
        });
        table.boxed()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Any message is dead-lettered with its body and the reason, in headers that fit into a frame. It is the same
        /// when it is listed and when it is sent again.
        #[test]
        fn a_message_with_any_headers_is_dead_lettered_and_replayed(
            headers in any_table(any_value()),
            texts in proptest::collection::vec(proptest::option::of("[ -~é]{0,120}"), 4),
            reason in prop_oneof![any::<String>(), Just("é".repeat(5_000))],
            body in any::<Vec<u8>>(),
        ) {
            let mut delivery = Delivery::unconnected("p.commands.cards", "cards.payment.create", body);
            let [reply_to, correlation_id, message_id, kind] = texts.try_into().unwrap();
            delivery.properties = Properties { reply_to, correlation_id, message_id, kind, headers, ..Properties::default() };
            let names = Names::new("p");
            let message = dead_letter(&names, &delivery, "invalid_envelope", &reason, Timestamp::UNIX_EPOCH).unwrap();
            let properties = Properties::from(message.properties.clone());
            prop_assert!(properties.headers_size() < 4_000, "{}", properties.headers_size());
            let letter = DeadLetter::read(properties, "any".to_owned(), message.body.to_vec());
            prop_assert_eq!(letter.code.as_str(), "invalid_envelope");
            prop_assert_eq!(letter.reason.as_str(), excerpt_bytes(&reason, REASON_BYTES));
            prop_assert_eq!(&letter.body, &delivery.body);
            prop_assert_eq!(&letter.properties.reply_to, &delivery.properties.reply_to);
            let revived = letter.revived(&names, Some("operator"), Rights::Sender).unwrap();
            prop_assert_eq!(revived.routing_key.as_str(), "cards.payment.create");
            prop_assert_eq!(&revived.body[..], &delivery.body[..]);
            // A message that the broker dead-lettered can be read as well.
            DeadLetter::read(delivery.properties, delivery.routing_key, delivery.body);
        }
    }

    #[test]
    fn headers_that_may_not_fit_into_a_frame_are_left_out() {
        let mut headers = FieldTable::default();
        headers.insert("big".into(), long(&"x".repeat(2000)));
        assert!(own_headers(&headers).inner().is_empty());
        // The attributes that identify the message are kept as long as they fit.
        headers.insert("cloudEvents:id".into(), long("c-1"));
        let own = own_headers(&headers);
        assert_eq!(own.inner().keys().map(ShortString::as_str).collect::<Vec<_>>(), ["cloudEvents:id"]);
        headers.insert("cloudEvents:tracestate".into(), long(&"x".repeat(2000)));
        assert!(own_headers(&headers).inner().is_empty());
    }

    #[test]
    fn only_what_the_broker_dead_lettered_has_its_reason() {
        let mut dead = delivery();
        assert_eq!(broker_reason(&dead), None, "no death can be read");
        let mut death = FieldTable::default();
        death.insert("reason".into(), long("expired"));
        let deaths = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into());
        dead.properties.headers.insert("x-death".into(), deaths);
        assert_eq!(broker_reason(&dead).as_deref(), Some("expired"));
        let now = Timestamp::UNIX_EPOCH;
        let message = dead_letter(&Names::new("p"), &dead, "invalid_envelope", "no JSON", now).expect("a message");
        dead.properties = message.properties.into();
        assert_eq!(broker_reason(&dead), None, "a worker dead-lettered it");
    }
}
