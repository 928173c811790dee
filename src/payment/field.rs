//! The fields of commands' data: the one table that the parser reads by and the published schemas are made of.

use std::net::IpAddr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::civil::DateTime;
use serde_json::{Map, Value};
use strum::VariantNames;
use uuid::Uuid;

use super::card;
use super::code::{Code, Rejection};
use super::command::{CommandType, Resolution};
use super::money::{self, Currency};
use crate::excerpt::{NAME_MAX, excerpt};

/// How long a description may be, in characters.
const DESCRIPTION_MAX: usize = 4096;
/// How long other texts may be where django-payments' columns say nothing else, in characters.
const TEXT_MAX: usize = 256;
/// How long a person's evidence may be, in characters.
const EVIDENCE_MAX: usize = 4096;
/// How long a variant's name may be.
pub const VARIANT_MAX: usize = 64;
/// How many members metadata may have.
pub const METADATA_MAX: usize = 50;
/// How long a name in metadata may be, in characters.
pub const METADATA_NAME_MAX: usize = 40;
/// How long a text in metadata may be, in characters.
pub const METADATA_TEXT_MAX: usize = 500;
/// How many digits an event's number may have, so that it is one.
pub const SEQUENCE_DIGITS_MAX: usize = 18;

/// One field of a command's data. Null is as good as left out, but for amounts: where one was meant, it is not to be taken
/// for all.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// Its name.
    pub name: &'static str,
    /// What it may hold.
    pub form: Form,
    /// Whether the command needs it.
    pub is_required: bool,
    /// What it means, for who publishes commands.
    pub about: &'static str,
}

/// What a field may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A text of at most so many characters.
    Text(usize),
    /// The same, with more in it than blanks.
    Words(usize),
    /// Bytes in base64, as many as the message lets them be.
    Base64,
    /// A time as RFC 3339 writes it.
    Time,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// A variant's name.
    Variant,
    /// A UUID with its dashes.
    Uuid,
    /// An IPv4 or IPv6 address, or nothing.
    IpAddress,
    /// A code of ISO 4217.
    Currency,
    /// A decimal string in currency units.
    Amount,
    /// The number of an event, as in its `sequence`.
    Sequence,
    /// A position among all events, as in the header `paybus-position`; 0 is before the first.
    Position,
    /// True or false.
    Boolean,
    /// An object.
    Object,
    /// A list of pairs of texts.
    Pairs,
    /// An object of texts, bounded in number and length.
    Metadata,
}

const fn optional(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, form, is_required: false, about }
}

const fn required(name: &'static str, form: Form, about: &'static str) -> Field {
    Field { name, form, is_required: true, about }
}

const PROCESS: &str = "The gateway's own object: a payment method's token, return_url, ...";
const CAPTURE: &str = "Whether processing captures at once; overrides the variant's `capture`.";

const FINAL: &str = "Whether this is the last capture. true, the default, releases the rest of the authorization; \
                     false keeps it held, if the gateway supports several captures.";

const METADATA: &str = "The publisher's own texts by name, such as an order number. Every event of the payment \
                        contains them, and the gateway receives them; paybus does not interpret them.";

const CREATE: &[Field] = &[
    required("currency", Form::Currency, "An ISO 4217 code: three capital letters."),
    required("total", Form::Amount, "The gross amount, with at most as many decimals as the currency has."),
    required("variant", Form::Variant, "The configured gateway to use; the first word of the routing key."),
    optional("tax", Form::Amount, "The tax included in the total."),
    optional("delivery", Form::Amount, "The delivery costs included in the total."),
    optional("description", Form::Text(DESCRIPTION_MAX), "What the payment is for."),
    optional("billing_first_name", Form::Text(TEXT_MAX), "The name of the person to bill."),
    optional("billing_last_name", Form::Text(TEXT_MAX), "The name of the person to bill."),
    optional("billing_address_1", Form::Text(TEXT_MAX), "The billing address."),
    optional("billing_address_2", Form::Text(TEXT_MAX), "The billing address."),
    optional("billing_city", Form::Text(TEXT_MAX), "The billing address."),
    optional("billing_postcode", Form::Text(TEXT_MAX), "The billing address."),
    optional("billing_country_code", Form::Text(2), "An ISO 3166 code: two letters."),
    optional("billing_country_area", Form::Text(TEXT_MAX), "State, county or province."),
    optional("billing_email", Form::Text(254), "The customer's e-mail address."),
    optional("billing_phone", Form::Text(128), "The customer's phone number."),
    optional("customer_ip_address", Form::IpAddress, "The customer's IP address: IPv4 or IPv6."),
    optional("metadata", Form::Metadata, METADATA),
    optional("capture", Form::Boolean, CAPTURE),
    optional(
        "process",
        Form::Object,
        "The gateway's own object. If present, the command continues as payment.process.",
    ),
];

const PROCESS_FIELDS: &[Field] =
    &[optional("process", Form::Object, PROCESS), optional("capture", Form::Boolean, CAPTURE)];

const CAPTURE_FIELDS: &[Field] = &[
    optional("amount", Form::Amount, "How much to capture, never null. If omitted: everything that can be captured."),
    optional("final", Form::Boolean, FINAL),
];

const REFUND: &[Field] = &[
    optional(
        "amount",
        Form::Amount,
        "How much to refund, never null. If omitted: everything that can still be refunded.",
    ),
    optional("reference", Form::Text(255), "The gateway's id of the charge to refund. If omitted: the payment's own."),
];

const NOTIFICATION: &[Field] = &[
    required("received_at", Form::Time, "When the webhook was received; its age is measured from here."),
    optional("method", Form::Text(255), "Its HTTP method."),
    optional("url", Form::Text(4096), "The path and query of its URL."),
    optional("headers", Form::Pairs, "Its HTTP headers in order, as pairs of name and value."),
    required("body_base64", Form::Base64, "Its body, byte for byte, in base64."),
];

const RESOLVE: &[Field] = &[
    required("operation", Form::Uuid, "The operation with the unknown outcome."),
    required("outcome", Form::OneOf(Resolution::VARIANTS), "What happened at the gateway."),
    optional("transaction_id", Form::Text(255), "The payment's id at the gateway."),
    required("evidence", Form::Words(EVIDENCE_MAX), "How the operator knows."),
    optional("amount", Form::Amount, "How much, if it was approved, never null. If omitted: the requested amount."),
];

const OPERATION: &str = "The operation, by its id, as `paybus show` and events of its command have it.";

const RETRY: &[Field] = &[
    required("operation", Form::Uuid, OPERATION),
    optional("at", Form::Time, "When to try it, at most 30 days ahead; left out: now."),
    optional("reason", Form::Words(EVIDENCE_MAX), "Why; kept for the payment's history."),
];

const WITHDRAW: &[Field] = &[
    required("operation", Form::Uuid, OPERATION),
    optional("reason", Form::Words(EVIDENCE_MAX), "Why; kept for the payment's history."),
];

const RESEND: &[Field] = &[required("from", Form::Sequence, "The `sequence` of the first event that is missing.")];

const AFTER: &str = "Events after this position: the `from` of a heartbeat, or the `to` of the last answer.";

const SINCE: &str = "Events stored at or after this time, and some from a few minutes before. If `after` is given as \
                     well, the later of the two applies; without either, events start at the oldest one kept.";

const RESEND_EVENTS: &[Field] = &[optional("after", Form::Position, AFTER), optional("since", Form::Time, SINCE)];

const STATUS: &[Field] = &[
    required("id", Form::Words(TEXT_MAX), "The `id` of the command in question."),
    optional("source", Form::Text(TEXT_MAX), "Its `source`. If omitted: that of the command.status itself."),
];

const PAUSE: &[Field] = &[
    required("reason", Form::Words(EVIDENCE_MAX), "Why; shown wherever the pause is."),
    optional("until", Form::Time, "When it ends by itself, in the future. If omitted: only by variant.resume."),
];

const RESUME: &[Field] = &[optional("reason", Form::Words(EVIDENCE_MAX), "Why; kept for the variant's history.")];

/// The fields of a command's data.
pub fn fields(kind: CommandType) -> &'static [Field] {
    match kind {
        CommandType::Create => CREATE,
        CommandType::Process => PROCESS_FIELDS,
        CommandType::Capture => CAPTURE_FIELDS,
        CommandType::Refund => REFUND,
        CommandType::Resend => RESEND,
        CommandType::ResendEvents => RESEND_EVENTS,
        CommandType::Status => STATUS,
        CommandType::Release | CommandType::Cancel | CommandType::Sync | CommandType::Snapshot => &[],
        CommandType::Notification => NOTIFICATION,
        CommandType::Resolve => RESOLVE,
        CommandType::Retry => RETRY,
        CommandType::Withdraw => WITHDRAW,
        CommandType::Pause => PAUSE,
        CommandType::Resume => RESUME,
    }
}

/// Whether a command is none without data: it has a field that it needs, or an amount, and that this is left out means all
/// only where there is data to leave it out of.
pub fn needs_data(kind: CommandType) -> bool {
    fields(kind).iter().any(|field| field.is_required || field.form == Form::Amount)
}

/// Checks a command's data, each field by itself.
///
/// # Errors
/// The first field that is missing, wrong or unknown, by its name.
pub fn check(kind: CommandType, data: &Map<String, Value>) -> Result<(), Rejection> {
    let fields = fields(kind);
    for field in fields {
        match data.get(field.name).filter(|value| field.form == Form::Amount || !value.is_null()) {
            Some(value) => field.form.check(field.name, value)?,
            None if field.is_required => return Err(Rejection::missing(field.name)),
            None => {}
        }
    }
    match data.keys().find(|name| fields.iter().all(|field| field.name != name.as_str())) {
        Some(name) => {
            Err(Rejection::new(Code::UnknownField, format!("{}: this command has no such field", quoted(name))))
        }
        None => Ok(()),
    }
}

impl Form {
    fn check(self, name: &str, value: &Value) -> Result<(), Rejection> {
        match (self, value) {
            (Form::Boolean, Value::Bool(_)) => Ok(()),
            (Form::Object, Value::Object(_)) => Ok(()),
            (Form::Pairs, Value::Array(pairs)) if pairs.iter().all(is_pair) => Ok(()),
            (Form::Boolean, _) => Err(no(name, "true or false", value)),
            (Form::Metadata, Value::Object(metadata)) => check_metadata(name, metadata),
            (Form::Object | Form::Metadata, _) => Err(no(name, "an object", value)),
            (Form::Pairs, _) => Err(Rejection::invalid(name, "must be a list of [name, value]")),
            (_, Value::String(text)) => self.check_text(name, text),
            // A JSON number is a float to many.
            (Form::Amount, _) => {
                let message = format!("{name}: must be a decimal string such as \"12.50\", not {}", type_of(value));
                Err(Rejection::new(Code::InvalidAmount, message))
            }
            _ => Err(no(name, "a string", value)),
        }
    }

    fn check_text(self, name: &str, text: &str) -> Result<(), Rejection> {
        match self {
            Form::Text(max) => check_length(name, text, max),
            Form::Words(_) if text.trim().is_empty() => Err(Rejection::invalid(name, "must not be empty")),
            Form::Words(max) => check_length(name, text, max),
            Form::OneOf(words) if !words.contains(&text) => {
                Err(Rejection::invalid(name, &format!("must be one of {}", words.join(", "))))
            }
            Form::Base64 if STANDARD.decode(text).is_err() => Err(Rejection::invalid(name, "must be base64")),
            Form::Time if time(text).is_none() => {
                Err(Rejection::invalid(name, "must be a time such as 2026-11-22T12:00:00Z"))
            }
            Form::Variant if !is_variant(text) => Err(Rejection::invalid(name, "must match [a-z0-9_-]{1,64}")),
            Form::Uuid if text.len() != 36 || Uuid::parse_str(text).is_err() => {
                Err(Rejection::invalid(name, "must be a UUID"))
            }
            Form::IpAddress if !text.is_empty() && text.parse::<IpAddr>().is_err() => {
                Err(Rejection::invalid(name, "must be an IPv4 or IPv6 address"))
            }
            Form::Currency if Currency::from_code(text).is_none() => {
                let shown = excerpt(text, 10);
                Err(Rejection::new(Code::InvalidCurrency, format!("{name}: {shown:?} is not an ISO 4217 code")))
            }
            Form::Sequence if !is_sequence(text) => {
                Err(Rejection::invalid(name, "must be the number of an event, such as \"4\""))
            }
            Form::Position if text != "0" && !is_sequence(text) => {
                Err(Rejection::invalid(name, "must be the position of an event, such as \"41\", or \"0\""))
            }
            Form::Amount => {
                money::check_text(text).map_err(|error| Rejection::new(Code::InvalidAmount, format!("{name}: {error}")))
            }
            _ => Ok(()),
        }
    }
}

fn check_metadata(name: &str, metadata: &Map<String, Value>) -> Result<(), Rejection> {
    if metadata.len() > METADATA_MAX {
        return Err(Rejection::invalid(name, &format!("must have at most {METADATA_MAX} members")));
    }
    for (key, value) in metadata {
        if !(1..=METADATA_NAME_MAX).contains(&key.chars().count()) {
            return Err(Rejection::invalid(
                name,
                &format!("{:?}: a name must have 1 to {METADATA_NAME_MAX} characters", quoted(key)),
            ));
        }
        let path = format!("{name}.{}", quoted(key));
        match value {
            Value::String(text) => check_length(&path, text, METADATA_TEXT_MAX)?,
            _ => return Err(no(&path, "a string", value)),
        }
    }
    Ok(())
}

fn check_length(name: &str, text: &str, max: usize) -> Result<(), Rejection> {
    match text.chars().count() > max {
        true => Err(Rejection::invalid(name, &format!("must have at most {max} characters"))),
        false => Ok(()),
    }
}

/// How long the date and the time of RFC 3339 are, before a fraction and the offset.
const CIVIL_LENGTH: usize = "9999-12-31T23:59:59".len();

/// A time as RFC 3339 writes it, which CloudEvents ask for; `Timestamp` reads much else. `9999-12-31T23:59:59Z`, many a
/// program's "never", lies behind the last `Timestamp` and is read as that one.
pub fn time(text: &str) -> Option<Timestamp> {
    let digit = |byte: u8| if byte.is_ascii_digit() { b'9' } else { byte.to_ascii_uppercase() };
    let shape: Vec<u8> = text.bytes().map(digit).collect();
    let behind = shape.strip_prefix(b"9999-99-99T99:99:99")?;
    let offset = match behind.strip_prefix(b".") {
        Some(fraction) if fraction.first() == Some(&b'9') => {
            &fraction[fraction.iter().take_while(|byte| **byte == b'9').count()..]
        }
        Some(_) => return None,
        None => behind,
    };
    if !matches!(offset, b"Z" | b"+99:99" | b"-99:99") {
        return None;
    }
    text.parse().ok().or_else(|| is_beyond(text, offset.len()).then_some(Timestamp::MAX))
}

/// Whether a text of the right shape is a time behind the last `Timestamp`, and not one that does not exist.
fn is_beyond(text: &str, offset_length: usize) -> bool {
    let (Some(civil), Some(offset)) = (text.get(..CIVIL_LENGTH), text.get(text.len() - offset_length..)) else {
        return false;
    };
    let is_late = civil.parse::<DateTime>().is_ok_and(|civil| civil.year() == 9999);
    is_late && format!("2000-01-01T00:00:00{offset}").parse::<Timestamp>().is_ok()
}

fn is_pair(value: &Value) -> bool {
    value.as_array().is_some_and(|pair| pair.len() == 2 && pair.iter().all(Value::is_string))
}

fn is_variant(text: &str) -> bool {
    let allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
    (1..=VARIANT_MAX).contains(&text.len()) && text.bytes().all(allowed)
}

fn is_sequence(text: &str) -> bool {
    (1..=SEQUENCE_DIGITS_MAX).contains(&text.len())
        && !text.starts_with('0')
        && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn no(name: &str, what: &str, value: &Value) -> Rejection {
    Rejection::invalid(name, &format!("must be {what}, not {}", type_of(value)))
}

/// A name that a stranger wrote. First scrubbed: of a card number that is cut through, most would be left.
pub(crate) fn quoted(name: &str) -> String {
    excerpt(&card::scrub(name), NAME_MAX).into_owned()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_behind_the_last_one_is_the_last_one() {
        for never in [
            "9999-12-31T23:59:59Z",
            "9999-12-31t23:59:59.999999999z",
            "9999-12-31T23:59:59+00:00",
            "9999-12-31T23:59:59-12:00",
            "9999-12-30T22:00:00.999999999Z",
        ] {
            assert_eq!(time(never), Some(Timestamp::MAX), "{never}");
        }
        assert_eq!(time("9999-12-30T21:59:59Z").map(|time| time.to_string()).as_deref(), Some("9999-12-30T21:59:59Z"));
        for wrong in ["9999-13-31T23:59:59Z", "9999-12-32T00:00:00Z", "9999-12-31T23:59:59+99:00", "9999-12-31"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}
