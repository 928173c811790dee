//! Maps rows to and from the domain.

use std::net::IpAddr;
use std::sync::LazyLock;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::{Map, Value};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use uuid::Uuid;

use super::commit::columns::{Rows, row_type, selection};
use super::error::StoreError;
use super::row::ReadColumn;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::Code;
use crate::payment::command::{Attributes, CommandName, Kind, Reply};
use crate::payment::event::Event;
use crate::payment::model::{Billing, Metadata, Order, Payment};
use crate::payment::money::{Currency, Money};
use crate::payment::movement::{Amounts, Movement, MovementKind};
use crate::payment::operation::{Answer, AnswerKind, Counts, Lease, Operation, Request, Sent, State};
use crate::payment::outcome::Exposure;
use crate::payment::status::{FraudStatus, Status};
use crate::payment::trace::TraceContext;

row_type! {
    /// A new payment's immutable columns; the others are shared with an update.
    PaymentFixed, "payment_fixed_2" {
        id: Uuid => "uuid",
        variant: &'a str => "text",
        gateway: &'a str => "text",
        account: &'a str => "text",
        created: Timestamp => "timestamptz",
        currency: &'static str => "text",
        total: Decimal => "numeric",
        delivery: Decimal => "numeric",
        tax: Decimal => "numeric",
        description: &'a str => "text",
        billing_first_name: &'a str => "text",
        billing_last_name: &'a str => "text",
        billing_address_1: &'a str => "text",
        billing_address_2: &'a str => "text",
        billing_city: &'a str => "text",
        billing_postcode: &'a str => "text",
        billing_country_code: &'a str => "text",
        billing_country_area: &'a str => "text",
        billing_email: &'a str => "text",
        billing_phone: &'a str => "text",
        customer_ip_address: Option<IpAddr> => "inet",
        metadata: Json<&'a Metadata> => "jsonb",
    }
}

row_type! {
    /// Columns that an update of a payment may write.
    PaymentChange, "payment_change" {
        id: Uuid => "uuid",
        expected: i64 => "int8",
        status: &'static str => "text",
        fraud_status: &'static str => "text",
        fraud_message: &'a str => "text",
        modified: Timestamp => "timestamptz",
        transaction_id: &'a str => "text",
        message: &'a str => "text",
        extra_data: Json<&'a Map<String, Value>> => "jsonb",
        captured_amount: Decimal => "numeric",
        authorized_amount: Decimal => "numeric",
        refunded_amount: Decimal => "numeric",
        redirect_url: Option<&'a str> => "text",
        capture: Option<bool> => "bool",
        version: i64 => "int8",
        busy_operation: Option<Uuid> => "uuid",
        waiting: i32 => "int4",
        last_sequence: i64 => "int8",
    }
}

row_type! {
    /// A new operation's immutable columns.
    OperationFixed, "operation_fixed" {
        payment_id: Uuid => "uuid",
        id: Uuid => "uuid",
        subject: Option<&'a str> => "text",
        source: &'a str => "text",
        command_id: &'a str => "text",
        command_type: &'a str => "text",
        variant: &'a str => "text",
        hash: &'a [u8] => "bytea",
        correlation_id: Option<&'a str> => "text",
        traceparent: Option<&'a str> => "text",
        tracestate: Option<&'a str> => "text",
        expires_at: Option<Timestamp> => "timestamptz",
        reply_to: Option<&'a str> => "text",
        reply_correlation_id: Option<&'a str> => "text",
        user_id: Option<&'a str> => "text",
        created: Timestamp => "timestamptz",
    }
}

row_type! {
    /// Columns that an update of an operation may write.
    OperationChange, "operation_change" {
        payment_id: Uuid => "uuid",
        id: Uuid => "uuid",
        data: Json<&'a Map<String, Value>> => "jsonb",
        state: &'static str => "text",
        attempts: i32 => "int4",
        rounds: i32 => "int4",
        lookups: i32 => "int4",
        takeovers: i32 => "int4",
        generation: i32 => "int4",
        exposed: bool => "bool",
        acted_on: bool => "bool",
        lookup_only: bool => "bool",
        first_sent_at: Option<Timestamp> => "timestamptz",
        last_sent_at: Option<Timestamp> => "timestamptz",
        lease_owner: Option<Uuid> => "uuid",
        lease_until: Option<Timestamp> => "timestamptz",
        due_at: Option<Timestamp> => "timestamptz",
        escalated: bool => "bool",
        amount: Option<Decimal> => "numeric",
        capture: Option<bool> => "bool",
        request: Option<&'a str> => "text",
        last_code: Option<&'static str> => "text",
        last_message: &'a str => "text",
        answer: Option<&'static str> => "text",
        answer_code: Option<&'static str> => "text",
        answer_message: Option<&'a str> => "text",
        settled_at: Option<Timestamp> => "timestamptz",
    }
}

row_type! {
    /// New movements, and known ones with what was learnt of them since.
    MovementRow, "movement_row_2" {
        payment_id: Uuid => "uuid",
        kind: &'static str => "text",
        reference: &'a str => "text",
        amount: Decimal => "numeric",
        currency: &'static str => "text",
        operation_id: Option<Uuid> => "uuid",
        gateway_reference: Option<&'a str> => "text",
        parent: Option<&'a str> => "text",
    }
}

row_type! {
    /// New events.
    EventRow, "event_row" {
        payment_id: Uuid => "uuid",
        id: Uuid => "uuid",
        sequence: Option<i64> => "int8",
        event_type: &'static str => "text",
        routing_key: &'a str => "text",
        body: &'a str => "text",
        correlation_id: Option<&'a str> => "text",
        traceparent: Option<&'a str> => "text",
        tracestate: Option<&'a str> => "text",
        reply_to: Option<&'a str> => "text",
        reply_correlation_id: Option<&'a str> => "text",
        created: Timestamp => "timestamptz",
    }
}

/// The source of the command that created a payment. Earlier releases did not store it; then the creating command has
/// it.
const SOURCE: &str = "coalesce(payments.source, (SELECT o.source FROM operations o WHERE o.payment_id = payments.id
    AND o.command_type = 'payment.create' AND o.answer IS DISTINCT FROM 'rejected' LIMIT 1)) AS source";
/// The columns that `payment` reads.
pub(super) static PAYMENT: LazyLock<String> =
    LazyLock::new(|| selection(&[PaymentFixed::COLUMNS, &PaymentChange::COLUMNS[2..]], &["archived_at", SOURCE]));
/// The columns that `operation` reads, and when it was answered.
pub(super) static OPERATION: LazyLock<String> =
    LazyLock::new(|| selection(&[OperationFixed::COLUMNS, &OperationChange::COLUMNS[2..]], &["accepted"]));
/// The columns that `movement` reads, and when it was stored.
pub(super) static MOVEMENT: LazyLock<String> = LazyLock::new(|| selection(&[MovementRow::COLUMNS], &["created"]));
/// The columns read of an event.
pub(super) static EVENT: LazyLock<String> = LazyLock::new(|| selection(&[EventRow::COLUMNS], &["position"]));

impl<'a> PaymentFixed<'a> {
    pub(super) fn of(payment: &'a Payment) -> PaymentFixed<'a> {
        let order = &payment.order;
        let billing = &order.billing;
        PaymentFixed {
            id: payment.id,
            variant: &order.variant,
            gateway: &payment.gateway,
            account: &payment.account,
            created: payment.created,
            currency: payment.currency().code(),
            total: order.total.amount(),
            delivery: order.delivery.amount(),
            tax: order.tax.amount(),
            description: &order.description,
            billing_first_name: &billing.first_name,
            billing_last_name: &billing.last_name,
            billing_address_1: &billing.address_1,
            billing_address_2: &billing.address_2,
            billing_city: &billing.city,
            billing_postcode: &billing.postcode,
            billing_country_code: &billing.country_code,
            billing_country_area: &billing.country_area,
            billing_email: &billing.email,
            billing_phone: &billing.phone,
            customer_ip_address: order.customer_ip_address,
            metadata: Json(&order.metadata),
        }
    }
}

impl<'a> PaymentChange<'a> {
    pub(super) fn of(payment: &'a Payment, expected: i64) -> PaymentChange<'a> {
        PaymentChange {
            id: payment.id,
            expected,
            status: payment.status.as_str(),
            fraud_status: payment.fraud_status.as_str(),
            fraud_message: &payment.fraud_message,
            modified: payment.modified,
            transaction_id: &payment.transaction_id,
            message: &payment.message,
            extra_data: Json(&payment.extra_data),
            captured_amount: payment.amounts.captured.amount(),
            authorized_amount: payment.amounts.authorized.amount(),
            refunded_amount: payment.amounts.refunded.amount(),
            redirect_url: payment.redirect_url.as_deref(),
            capture: payment.capture,
            version: payment.version,
            busy_operation: payment.busy,
            waiting: to_int(payment.waiting),
            last_sequence: payment.last_sequence,
        }
    }
}

impl<'a> OperationFixed<'a> {
    pub(super) fn of(operation: &'a Operation) -> OperationFixed<'a> {
        let attributes = &operation.attributes;
        let reply = attributes.reply.as_ref();
        OperationFixed {
            payment_id: operation.payment_id,
            id: operation.id,
            subject: operation.subject.as_deref(),
            source: &operation.name.source,
            command_id: &operation.name.id,
            command_type: operation.kind.as_str(),
            variant: &operation.variant,
            hash: &operation.hash,
            correlation_id: attributes.correlation_id.as_deref(),
            traceparent: attributes.trace.as_ref().map(TraceContext::parent),
            tracestate: attributes.trace.as_ref().and_then(TraceContext::state),
            expires_at: attributes.expires_at,
            reply_to: reply.map(|reply| reply.to.as_str()),
            reply_correlation_id: reply.and_then(|reply| reply.correlation_id.as_deref()),
            user_id: attributes.user_id.as_deref(),
            created: operation.created,
        }
    }
}

impl<'a> OperationChange<'a> {
    pub(super) fn of(operation: &'a Operation, now: Timestamp) -> OperationChange<'a> {
        let request = operation.request.as_ref();
        let answer = operation.answer.as_ref();
        let (counts, sent) = (&operation.counts, &operation.sent);
        OperationChange {
            payment_id: operation.payment_id,
            id: operation.id,
            data: Json(&operation.data),
            state: operation.state.as_str(),
            attempts: to_int(counts.attempts),
            rounds: to_int(counts.rounds),
            lookups: to_int(counts.lookups),
            takeovers: to_int(counts.takeovers),
            generation: to_int(sent.generation),
            exposed: sent.is_exposed(),
            acted_on: sent.acted_on,
            lookup_only: sent.lookup_only,
            first_sent_at: sent.first_at,
            last_sent_at: sent.last_at,
            lease_owner: operation.lease.map(|lease| lease.owner),
            lease_until: operation.lease.map(|lease| lease.until),
            due_at: operation.due_at,
            escalated: operation.escalated,
            amount: request.and_then(|request| request.amount).map(Money::amount),
            capture: request.map(|request| request.capture),
            request: request.map(|request| request.body.as_str()).filter(|body| !body.is_empty()),
            last_code: operation.last_code.map(Code::as_str),
            last_message: &operation.last_message,
            answer: answer.map(|answer| answer.kind.as_str()),
            answer_code: answer.and_then(|answer| answer.code).map(Code::as_str),
            answer_message: answer.map(|answer| answer.message.as_str()),
            settled_at: (operation.state == State::Settled).then_some(now),
        }
    }
}

impl<'a> MovementRow<'a> {
    pub(super) fn of(payment_id: Uuid, movement: &'a Movement) -> MovementRow<'a> {
        MovementRow {
            payment_id,
            kind: movement.kind.as_str(),
            reference: &movement.reference,
            amount: movement.amount.amount(),
            currency: movement.amount.currency().code(),
            operation_id: movement.operation,
            gateway_reference: movement.gateway_reference.as_deref(),
            parent: movement.parent.as_deref(),
        }
    }
}

impl<'a> EventRow<'a> {
    pub(super) fn of(event: &'a Event, body: &'a str, routing_key: &'a str) -> EventRow<'a> {
        let cause = event.cause.as_ref();
        let reply = cause.and_then(|cause| cause.reply.as_ref());
        let trace = cause.and_then(|cause| cause.trace.as_ref());
        EventRow {
            payment_id: event.payment_id,
            id: event.id,
            sequence: event.sequence,
            event_type: event.kind.type_name(),
            routing_key,
            body,
            correlation_id: cause.and_then(|cause| cause.correlation_id.as_deref()),
            traceparent: trace.map(TraceContext::parent),
            tracestate: trace.and_then(TraceContext::state),
            reply_to: reply.map(|reply| reply.to.as_str()),
            reply_correlation_id: reply.and_then(|reply| reply.correlation_id.as_deref()),
            created: event.time,
        }
    }
}

fn to_int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn count(stored: i32) -> Result<u32, StoreError> {
    u32::try_from(stored).map_err(|_| StoreError::Unreadable(format!("the count {stored}")))
}

pub(super) fn payment(row: &Row) -> Result<Payment, StoreError> {
    let currency = currency(row.read("currency")?)?;
    let sum = |name: &str| -> Result<Money, StoreError> { money(row.read(name)?, currency) };
    let text = |name: &str| -> Result<String, StoreError> { row.read(name) };
    Ok(Payment {
        id: row.read("id")?,
        order: Order {
            variant: text("variant")?,
            total: sum("total")?,
            tax: sum("tax")?,
            delivery: sum("delivery")?,
            description: text("description")?,
            billing: Billing {
                first_name: text("billing_first_name")?,
                last_name: text("billing_last_name")?,
                address_1: text("billing_address_1")?,
                address_2: text("billing_address_2")?,
                city: text("billing_city")?,
                postcode: text("billing_postcode")?,
                country_code: text("billing_country_code")?,
                country_area: text("billing_country_area")?,
                email: text("billing_email")?,
                phone: text("billing_phone")?,
            },
            customer_ip_address: row.read("customer_ip_address")?,
            metadata: row.read::<Json<Metadata>>("metadata")?.0,
        },
        source: row.read("source")?,
        gateway: text("gateway")?,
        account: text("account")?,
        status: word(row.read("status")?, Status::from_word)?,
        fraud_status: word(row.read("fraud_status")?, FraudStatus::from_word)?,
        fraud_message: text("fraud_message")?,
        created: row.read("created")?,
        modified: row.read("modified")?,
        transaction_id: text("transaction_id")?,
        message: text("message")?,
        extra_data: object(row.read("extra_data")?)?,
        redirect_url: row.read("redirect_url")?,
        capture: row.read("capture")?,
        amounts: Amounts {
            authorized: sum("authorized_amount")?,
            captured: sum("captured_amount")?,
            refunded: sum("refunded_amount")?,
            // Computed from the movements: there are no columns for them.
            capturable: Money::zero(currency),
            voided: Money::zero(currency),
        },
        version: row.read("version")?,
        busy: row.read("busy_operation")?,
        waiting: count(row.read("waiting")?)?,
        last_sequence: row.read("last_sequence")?,
        archived: row.read("archived_at")?,
    })
}

/// Reads an operation. Its amount is in the payment's currency, so without a payment it is `None`.
pub(super) fn operation(row: &Row, currency: Option<Currency>) -> Result<Operation, StoreError> {
    let amount: Option<Decimal> = row.read("amount")?;
    let amount = match (amount, currency) {
        (Some(amount), Some(currency)) => Some(money(amount, currency)?),
        _ => None,
    };
    let capture: Option<bool> = row.read("capture")?;
    let body: Option<String> = row.read("request")?;
    let owner: Option<Uuid> = row.read("lease_owner")?;
    let until: Option<Timestamp> = row.read("lease_until")?;
    let hash: Vec<u8> = row.read("hash")?;
    let code = |word: Option<&str>| word.and_then(Code::from_word);
    let exposed: bool = row.read("exposed")?;
    Ok(Operation {
        payment_id: row.read("payment_id")?,
        id: row.read("id")?,
        subject: row.read("subject")?,
        name: CommandName { source: row.read("source")?, id: row.read("command_id")? },
        kind: Kind::from_word(row.read("command_type")?),
        variant: row.read("variant")?,
        hash: hash.try_into().map_err(|_| StoreError::Unreadable("operations.hash is not 32 bytes".to_owned()))?,
        data: object(row.read("data")?)?,
        attributes: attributes(row)?,
        state: word(row.read("state")?, State::from_word)?,
        accepted: row.read("accepted")?,
        created: row.read("created")?,
        counts: Counts {
            attempts: count(row.read("attempts")?)?,
            rounds: count(row.read("rounds")?)?,
            lookups: count(row.read("lookups")?)?,
            takeovers: count(row.read("takeovers")?)?,
        },
        sent: Sent {
            generation: count(row.read("generation")?)?,
            exposure: if exposed { Exposure::Exposed } else { Exposure::Clean },
            acted_on: row.read("acted_on")?,
            lookup_only: row.read("lookup_only")?,
            first_at: row.read("first_sent_at")?,
            last_at: row.read("last_sent_at")?,
        },
        lease: owner.zip(until).map(|(owner, until)| Lease { owner, until }),
        due_at: row.read("due_at")?,
        escalated: row.read("escalated")?,
        request: capture.map(|capture| Request { amount, capture, body: body.unwrap_or_default() }),
        last_code: code(row.read("last_code")?),
        last_message: row.read("last_message")?,
        answer: match row.read::<Option<&str>>("answer")? {
            Some(kind) => Some(Answer {
                kind: word(kind, AnswerKind::from_word)?,
                code: code(row.read("answer_code")?),
                message: row.read::<Option<String>>("answer_message")?.unwrap_or_default(),
            }),
            None => None,
        },
    })
}

fn attributes(row: &Row) -> Result<Attributes, StoreError> {
    let reply_to: Option<String> = row.read("reply_to")?;
    let correlation_id = row.read("reply_correlation_id")?;
    Ok(Attributes {
        correlation_id: row.read("correlation_id")?,
        trace: trace(row)?,
        expires_at: row.read("expires_at")?,
        reply: reply_to.map(|to| Reply { to, correlation_id }),
        user_id: row.read("user_id")?,
    })
}

/// The trace context of an operation or an event.
pub(super) fn trace(row: &Row) -> Result<Option<TraceContext>, StoreError> {
    let parent: Option<&str> = row.read("traceparent")?;
    let state: Option<&str> = row.read("tracestate")?;
    Ok(parent.and_then(|parent| TraceContext::read(parent, state)))
}

pub(super) fn movement(row: &Row) -> Result<Movement, StoreError> {
    let currency = currency(row.read("currency")?)?;
    Ok(Movement {
        kind: word(row.read("kind")?, MovementKind::from_word)?,
        reference: row.read("reference")?,
        gateway_reference: row.read("gateway_reference")?,
        parent: row.read("parent")?,
        amount: money(row.read("amount")?, currency)?,
        operation: row.read("operation_id")?,
    })
}

pub(super) fn currency(code: &str) -> Result<Currency, StoreError> {
    Currency::from_code(code).ok_or_else(|| StoreError::Unreadable(format!("currency {}", excerpt(code, NAME_MAX))))
}

pub(super) fn money(amount: Decimal, currency: Currency) -> Result<Money, StoreError> {
    Money::new(amount, currency).map_err(|error| StoreError::Unreadable(format!("an amount {error}")))
}

pub(super) fn word<T>(word: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    read(word).ok_or_else(|| StoreError::Unreadable(format!("the word {}", excerpt(word, NAME_MAX))))
}

/// An empty object instead would be a command without its data.
fn object(value: Value) -> Result<Map<String, Value>, StoreError> {
    match value {
        Value::Object(object) => Ok(object),
        _ => Err(StoreError::Unreadable("a value that is not a JSON object".to_owned())),
    }
}

#[cfg(test)]
mod tests;
