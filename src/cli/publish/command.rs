//! The command that `paybus publish` builds from its arguments; pure: ids and the time are passed in.

use std::time::Duration;

use clap::{ArgAction, Args, ValueEnum};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use strum::{IntoEnumIterator, IntoStaticStr};
use uuid::Uuid;

use crate::cli::exit::Failure;
use crate::cli::watch::read_duration;
use crate::payment::command::CommandType;
use crate::payment::json;

/// The variant if none is named.
const VARIANT_DEFAULT: &str = "default";

/// The source if none is named.
const SOURCE_DEFAULT: &str = "cli";

/// The command itself.
#[derive(Debug, Clone, Args)]
pub struct CommandArguments {
    /// The command's type, such as payment.create; `payment.` may be omitted.
    ///
    /// payment.create, process, capture, release, refund, cancel, sync, notification, resolve, retry, withdraw, resend
    /// or snapshot; events.resend or command.status; variant.pause or variant.resume.
    #[arg(value_name = "TYPE", value_parser = read_type)]
    pub kind: CommandType,
    /// The payment's id.
    ///
    /// Required, except for payment.create (default: a new id), payment.notification, events.resend, variant.pause and
    /// variant.resume.
    #[arg(long, value_name = "UUID")]
    pub payment: Option<Uuid>,
    /// The payment's variant, for the routing key.
    ///
    /// Default: the variant in --data, or else `default`.
    #[arg(long, value_name = "NAME")]
    pub variant: Option<String>,
    /// The command's id; default: a new one.
    ///
    /// Payment, source and id together identify a command: published again, it is not carried out a second time.
    #[arg(long)]
    pub id: Option<String>,
    /// The command's source: which service sends it.
    #[arg(long, default_value = SOURCE_DEFAULT)]
    pub source: String,
    /// Reject the command if it has not begun within this time.
    #[arg(long, value_name = "DURATION", value_parser = read_duration)]
    pub expires_in: Option<Duration>,
    /// An id that is copied to every event that the command causes.
    #[arg(long, value_name = "ID")]
    pub correlation_id: Option<String>,
    /// The command's data: a JSON object, @FILE, or - for standard input.
    ///
    /// The options for single fields below override its fields.
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    #[command(flatten)]
    pub fields: FieldArguments,
}

/// Single fields of the command's data.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Data fields")]
pub struct FieldArguments {
    /// payment.create: the amount to collect, such as 12.50.
    #[arg(long, value_name = "AMOUNT")]
    pub total: Option<String>,
    /// payment.create: the ISO 4217 currency code, such as USD.
    #[arg(long, value_name = "CODE")]
    pub currency: Option<String>,
    /// payment.create: what the payment is for.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// payment.create, payment.process: the gateway's own object, such as a payment method's token.
    ///
    /// With it, payment.create also charges the new payment.
    #[arg(long, value_name = "JSON", value_parser = read_object)]
    pub process: Option<Value>,
    /// payment.create, payment.process: whether to capture immediately.
    ///
    /// Default: the variant's setting.
    #[arg(long, value_name = "BOOL", action = ArgAction::Set)]
    pub capture: Option<bool>,
    /// payment.capture, payment.refund, payment.resolve: the amount.
    ///
    /// Default: everything that is left; for payment.resolve, the amount that was requested.
    #[arg(long)]
    pub amount: Option<String>,
    /// payment.resolve, payment.retry, payment.withdraw: the operation; `paybus show` prints its id.
    #[arg(long, value_name = "UUID")]
    pub operation: Option<Uuid>,
    /// payment.resolve: what happened.
    #[arg(long, value_name = "WHAT")]
    pub outcome: Option<OutcomeArgument>,
    /// payment.resolve: how you know what happened.
    #[arg(long, value_name = "TEXT")]
    pub evidence: Option<String>,
    /// payment.resolve: the payment's id at the gateway.
    #[arg(long, value_name = "ID")]
    pub transaction_id: Option<String>,
    /// payment.retry: when to try the operation again, such as 2026-12-01T08:00:00Z.
    ///
    /// Default: now.
    #[arg(long, value_name = "TIME")]
    pub at: Option<Timestamp>,
    /// payment.retry, payment.withdraw, variant.pause, variant.resume: why; kept in the history.
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// variant.pause: when the pause ends by itself.
    ///
    /// Default: only by variant.resume.
    #[arg(long, value_name = "TIME")]
    pub until: Option<Timestamp>,
}

/// The outcome that an operator states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, IntoStaticStr)]
#[value(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum OutcomeArgument {
    /// The gateway carried it out.
    Approved,
    /// The gateway declined it.
    Declined,
    /// The gateway never acted on it.
    NotCharged,
}

/// A command as it is published.
#[derive(Debug, Clone, PartialEq)]
pub struct Made {
    /// Its id.
    pub id: String,
    /// Its payment.
    pub payment: Option<Uuid>,
    /// `<variant>.<type>`
    pub routing_key: String,
    /// The command as CloudEvents JSON.
    pub event: Value,
}

impl CommandArguments {
    /// A command about a variant, with these fields. It is not carried out after `expires_in`.
    pub fn about_variant(
        kind: CommandType,
        variant: String,
        fields: FieldArguments,
        expires_in: Duration,
    ) -> CommandArguments {
        CommandArguments {
            kind,
            payment: None,
            variant: Some(variant),
            id: None,
            source: SOURCE_DEFAULT.to_owned(),
            expires_in: Some(expires_in),
            correlation_id: None,
            data: None,
            fields,
        }
    }
}

fn read_type(text: &str) -> Result<CommandType, String> {
    let whole = if text.contains('.') { text.to_owned() } else { format!("payment.{text}") };
    CommandType::from_word(&whole).ok_or_else(|| {
        let types: Vec<&str> = CommandType::iter().map(CommandType::as_str).collect();
        format!("expected one of {}", types.join(", "))
    })
}

fn read_object(text: &str) -> Result<Value, String> {
    let read = json::read(text).map_err(|error| format!("expected a JSON object: {error}"))?;
    match (read.value, read.twice.first()) {
        // The worker would reject it. Serialized again, it would lose one of them.
        (_, Some(name)) => Err(format!("{name} appears twice")),
        (object @ Value::Object(_), None) => Ok(object),
        _ => Err("expected a JSON object".to_owned()),
    }
}

impl CommandArguments {
    /// Whether the arguments make sense for this many commands.
    pub fn check(&self, count: u64) -> Result<(), Failure> {
        let needs_payment = self.kind != CommandType::Create && !self.kind.may_lack_subject();
        if needs_payment && self.payment.is_none() {
            return Err(Failure::usage(format!("{} requires --payment UUID", self.kind)));
        }
        if count > 1 && self.id.is_some() {
            return Err(Failure::usage("--count cannot be used with --id: all would be the same command"));
        }
        if count > 1 && self.kind == CommandType::Create && self.payment.is_some() {
            return Err(Failure::usage(
                "--count cannot be used with --payment for payment.create: only the first could create it",
            ));
        }
        Ok(())
    }

    /// The data: that of `--data`, overridden by the single fields.
    pub fn data(&self, given: Option<&str>) -> Result<Map<String, Value>, Failure> {
        let mut data = match given.map(read_object) {
            Some(Ok(Value::Object(data))) => data,
            Some(Err(wrong)) => return Err(Failure::usage(format!("--data: {wrong}"))),
            None | Some(Ok(_)) => Map::new(),
        };
        let fields = &self.fields;
        let text = |text: &Option<String>| text.clone().map(Value::from);
        let named = [
            ("total", text(&fields.total)),
            ("currency", text(&fields.currency)),
            ("description", text(&fields.description)),
            ("process", fields.process.clone()),
            ("capture", fields.capture.map(Value::from)),
            ("amount", text(&fields.amount)),
            ("operation", fields.operation.map(|id| Value::from(id.to_string()))),
            ("outcome", fields.outcome.map(|outcome| Value::from(<&str>::from(outcome)))),
            ("evidence", text(&fields.evidence)),
            ("transaction_id", text(&fields.transaction_id)),
            ("at", fields.at.map(|at| Value::from(at.to_string()))),
            ("reason", text(&fields.reason)),
            ("until", fields.until.map(|until| Value::from(until.to_string()))),
        ];
        for (name, value) in named {
            if let Some(value) = value {
                data.insert(name.to_owned(), value);
            }
        }
        if self.kind == CommandType::Create {
            let variant = self.variant(&data).to_owned();
            data.insert("variant".to_owned(), Value::from(variant));
        }
        Ok(data)
    }

    fn variant<'a>(&'a self, data: &'a Map<String, Value>) -> &'a str {
        let given = self.variant.as_deref();
        given.or_else(|| data.get("variant").and_then(Value::as_str)).unwrap_or(VARIANT_DEFAULT)
    }

    /// One command. `fresh` makes the ids that were not given.
    pub fn make(&self, data: &Map<String, Value>, now: Timestamp, fresh: impl Fn() -> Uuid) -> Made {
        let id = self.id.clone().unwrap_or_else(|| fresh().to_string());
        let payment = self.payment.or_else(|| (self.kind == CommandType::Create).then(&fresh));
        let mut event = json!({
            "specversion": "1.0",
            "id": id,
            "source": self.source,
            "type": self.kind.as_str(),
            "time": now.to_string(),
            "datacontenttype": "application/json",
            "data": data,
        });
        let expires = self.expires_in.map(|wait| SignedDuration::try_from(wait).unwrap_or(SignedDuration::MAX));
        let attributes = [
            ("subject", payment.map(|payment| payment.to_string())),
            ("expirytime", expires.map(|wait| now.saturating_add(wait).unwrap_or(Timestamp::MAX).to_string())),
            ("correlationid", self.correlation_id.clone()),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                event[name] = Value::from(value);
            }
        }
        Made { id, payment, routing_key: format!("{}.{}", self.variant(data), self.kind), event }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        command: CommandArguments,
    }

    fn parse(line: &str) -> Result<CommandArguments, clap::Error> {
        Line::try_parse_from(format!("publish {line}").split(' ')).map(|line| line.command)
    }

    fn made(line: &str, data: Option<&str>) -> Made {
        let command = parse(line).expect("good arguments");
        let data = command.data(data).expect("good data");
        command.make(&data, "2026-11-22T12:00:00Z".parse().expect("a time"), || Uuid::from_u128(7))
    }

    #[test]
    fn a_create_gets_a_new_payment_and_its_variant() {
        let made = made("create --total 12.50 --currency USD --process {\"status\":\"confirmed\"}", None);
        assert_eq!(made.routing_key, "default.payment.create");
        assert_eq!(made.payment, Some(Uuid::from_u128(7)));
        assert_eq!(
            made.event,
            json!({ "specversion": "1.0", "id": Uuid::from_u128(7).to_string(), "source": "cli",
                    "type": "payment.create", "subject": Uuid::from_u128(7).to_string(),
                    "time": "2026-11-22T12:00:00Z", "datacontenttype": "application/json",
                    "data": { "variant": "default", "total": "12.50", "currency": "USD",
                              "process": { "status": "confirmed" } } })
        );
    }

    #[test]
    fn options_override_the_data_and_its_variant_routes() {
        let made = made("payment.create --total 3", Some(r#"{"variant":"cards","total":"2","currency":"EUR"}"#));
        assert_eq!(made.routing_key, "cards.payment.create");
        assert_eq!(made.event["data"], json!({ "variant": "cards", "total": "3", "currency": "EUR" }));
    }

    #[test]
    fn a_resolve_states_what_happened() {
        let payment = Uuid::from_u128(1);
        let operation = Uuid::from_u128(2);
        let line = format!(
            "resolve --payment {payment} --variant cards --operation {operation} --outcome not_charged --evidence seen \
             --expires-in 10s --correlation-id c"
        );
        let made = made(&line, None);
        assert_eq!(made.routing_key, "cards.payment.resolve");
        let data = json!({ "operation": operation.to_string(), "outcome": "not_charged", "evidence": "seen" });
        assert_eq!(made.event["data"], data);
        assert_eq!(made.event["expirytime"], "2026-11-22T12:00:10Z");
        assert_eq!(made.event["correlationid"], "c");
    }

    #[test]
    fn a_notification_may_name_no_payment() {
        let made = made("notification", Some("{}"));
        assert_eq!(made.payment, None);
        assert!(made.event.get("subject").is_none());
    }

    #[test]
    fn contradictory_arguments_are_refused() {
        assert!(parse("payment.bogus").is_err());
        assert!(parse("create --process [1]").is_err());
        assert!(parse("create --capture perhaps").is_err());
        let check = |line: &str, count| parse(line).expect("arguments").check(count).is_ok();
        assert!(!check("refund", 1));
        assert!(!check("create --id a", 2));
        assert!(!check(&format!("create --payment {}", Uuid::from_u128(1)), 2));
        assert!(check(&format!("refund --payment {}", Uuid::from_u128(1)), 2));
        assert!(check("create", 2));
        assert!(parse("create").expect("arguments").data(Some("[]")).is_err());
        assert!(parse("create").expect("arguments").data(Some("{")).is_err());
    }
}
