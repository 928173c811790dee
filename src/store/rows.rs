//! Rows to and from the domain.

use std::net::IpAddr;
use std::sync::LazyLock;

use jiff::Timestamp;
use rust_decimal::Decimal;
use serde_json::Value;
use tokio_postgres::Row;
use uuid::Uuid;

use super::columns::{columns, selection};
use super::error::StoreError;
use super::row::ReadColumn;
use crate::payment::code::Code;
use crate::payment::command::{CommandName, Kind};
use crate::payment::model::{Billing, Order, Payment};
use crate::payment::money::{Currency, Money};
use crate::payment::movement::{Amounts, Movement, MovementKind};
use crate::payment::operation::{Answer, AnswerKind, Attributes, Lease, Operation, Reply, Request, State};
use crate::payment::outcome::Exposure;
use crate::payment::status::{FraudStatus, Status};
use crate::payment::trace::TraceContext;

columns! {
    /// A new payment's fixed columns; the others are shared with an update.
    PaymentFixed {
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
    }
}

columns! {
    /// What a change of a payment may write.
    PaymentChange {
        id: Uuid => "uuid",
        expected: i64 => "int8",
        status: &'static str => "text",
        fraud_status: &'static str => "text",
        fraud_message: &'a str => "text",
        modified: Timestamp => "timestamptz",
        transaction_id: &'a str => "text",
        message: &'a str => "text",
        extra_data: Value => "jsonb",
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

columns! {
    /// A new operation's fixed columns.
    OperationFixed {
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

columns! {
    /// What a change of an operation may write.
    OperationChange {
        payment_id: Uuid => "uuid",
        id: Uuid => "uuid",
        data: Value => "jsonb",
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

columns! {
    /// New movements.
    MovementRows {
        payment_id: Uuid => "uuid",
        kind: &'static str => "text",
        reference: &'a str => "text",
        amount: Decimal => "numeric",
        currency: &'static str => "text",
        operation_id: Option<Uuid> => "uuid",
    }
}

columns! {
    /// New events.
    EventRows {
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

/// What `payment` reads.
pub(super) static PAYMENT: LazyLock<String> =
    LazyLock::new(|| selection(&[PaymentFixed::COLUMNS, &PaymentChange::COLUMNS[2..]], &[]));
/// What `operation` reads, and when it was answered.
pub(super) static OPERATION: LazyLock<String> =
    LazyLock::new(|| selection(&[OperationFixed::COLUMNS, &OperationChange::COLUMNS[2..]], &["accepted"]));
/// What `movement` reads, and when it was stored.
pub(super) static MOVEMENT: LazyLock<String> = LazyLock::new(|| selection(&[MovementRows::COLUMNS], &["created"]));
/// What is read of an event.
pub(super) static EVENT: LazyLock<String> = LazyLock::new(|| selection(&[EventRows::COLUMNS], &["position"]));

impl<'a> PaymentFixed<'a> {
    pub(super) fn push(&mut self, payment: &'a Payment) {
        let order = &payment.order;
        let billing = &order.billing;
        self.id.push(payment.id);
        self.variant.push(&order.variant);
        self.gateway.push(&payment.gateway);
        self.account.push(&payment.account);
        self.created.push(payment.created);
        self.currency.push(payment.currency().code());
        self.total.push(order.total.amount());
        self.delivery.push(order.delivery.amount());
        self.tax.push(order.tax.amount());
        self.description.push(&order.description);
        self.billing_first_name.push(&billing.first_name);
        self.billing_last_name.push(&billing.last_name);
        self.billing_address_1.push(&billing.address_1);
        self.billing_address_2.push(&billing.address_2);
        self.billing_city.push(&billing.city);
        self.billing_postcode.push(&billing.postcode);
        self.billing_country_code.push(&billing.country_code);
        self.billing_country_area.push(&billing.country_area);
        self.billing_email.push(&billing.email);
        self.billing_phone.push(&billing.phone);
        self.customer_ip_address.push(order.customer_ip_address);
    }
}

impl<'a> PaymentChange<'a> {
    pub(super) fn push(&mut self, payment: &'a Payment, expected: i64) {
        self.id.push(payment.id);
        self.expected.push(expected);
        self.status.push(payment.status.as_str());
        self.fraud_status.push(payment.fraud_status.as_str());
        self.fraud_message.push(&payment.fraud_message);
        self.modified.push(payment.modified);
        self.transaction_id.push(&payment.transaction_id);
        self.message.push(&payment.message);
        self.extra_data.push(Value::Object(payment.extra_data.clone()));
        self.captured_amount.push(payment.amounts.captured.amount());
        self.authorized_amount.push(payment.amounts.authorized.amount());
        self.refunded_amount.push(payment.amounts.refunded.amount());
        self.redirect_url.push(payment.redirect_url.as_deref());
        self.capture.push(payment.capture);
        self.version.push(payment.version);
        self.busy_operation.push(payment.busy);
        self.waiting.push(to_int(payment.waiting));
        self.last_sequence.push(payment.last_sequence);
    }
}

impl<'a> OperationFixed<'a> {
    pub(super) fn push(&mut self, operation: &'a Operation) {
        let attributes = &operation.attributes;
        let reply = attributes.reply.as_ref();
        self.payment_id.push(operation.payment_id);
        self.id.push(operation.id);
        self.subject.push(operation.subject.as_deref());
        self.source.push(&operation.name.source);
        self.command_id.push(&operation.name.id);
        self.command_type.push(operation.kind.as_str());
        self.variant.push(&operation.variant);
        self.hash.push(&operation.hash);
        self.correlation_id.push(attributes.correlation_id.as_deref());
        self.traceparent.push(attributes.trace.as_ref().map(TraceContext::parent));
        self.tracestate.push(attributes.trace.as_ref().and_then(TraceContext::state));
        self.expires_at.push(attributes.expires_at);
        self.reply_to.push(reply.map(|reply| reply.to.as_str()));
        self.reply_correlation_id.push(reply.and_then(|reply| reply.correlation_id.as_deref()));
        self.user_id.push(attributes.user_id.as_deref());
        self.created.push(operation.created);
    }
}

impl<'a> OperationChange<'a> {
    pub(super) fn push(&mut self, operation: &'a Operation, now: Timestamp) {
        let request = operation.request.as_ref();
        let answer = operation.answer.as_ref();
        self.payment_id.push(operation.payment_id);
        self.id.push(operation.id);
        self.data.push(Value::Object(operation.data.clone()));
        self.state.push(operation.state.as_str());
        self.attempts.push(to_int(operation.attempts));
        self.rounds.push(to_int(operation.rounds));
        self.lookups.push(to_int(operation.lookups));
        self.takeovers.push(to_int(operation.takeovers));
        self.generation.push(to_int(operation.generation));
        self.exposed.push(operation.exposure == Exposure::Exposed);
        self.acted_on.push(operation.acted_on);
        self.lookup_only.push(operation.lookup_only);
        self.first_sent_at.push(operation.first_sent_at);
        self.last_sent_at.push(operation.last_sent_at);
        self.lease_owner.push(operation.lease.map(|lease| lease.owner));
        self.lease_until.push(operation.lease.map(|lease| lease.until));
        self.due_at.push(operation.due_at);
        self.escalated.push(operation.escalated);
        self.amount.push(request.and_then(|request| request.amount).map(Money::amount));
        self.capture.push(request.map(|request| request.capture));
        self.request.push(request.map(|request| request.body.as_str()).filter(|body| !body.is_empty()));
        self.last_code.push(operation.last_code.map(Code::as_str));
        self.last_message.push(&operation.last_message);
        self.answer.push(answer.map(|answer| answer.kind.as_str()));
        self.answer_code.push(answer.and_then(|answer| answer.code).map(Code::as_str));
        self.answer_message.push(answer.map(|answer| answer.message.as_str()));
        self.settled_at.push((operation.state == State::Settled).then_some(now));
    }
}

impl<'a> MovementRows<'a> {
    pub(super) fn push(&mut self, payment_id: Uuid, movement: &'a Movement) {
        self.payment_id.push(payment_id);
        self.kind.push(movement.kind.as_str());
        self.reference.push(&movement.reference);
        self.amount.push(movement.amount.amount());
        self.currency.push(movement.amount.currency().code());
        self.operation_id.push(movement.operation);
    }
}

fn to_int(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn from_int(count: i32) -> u32 {
    u32::try_from(count).unwrap_or_default()
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
        },
        gateway: text("gateway")?,
        account: text("account")?,
        status: word(row.read("status")?, Status::from_word)?,
        fraud_status: word(row.read("fraud_status")?, FraudStatus::from_word)?,
        fraud_message: text("fraud_message")?,
        created: row.read("created")?,
        modified: row.read("modified")?,
        transaction_id: text("transaction_id")?,
        message: text("message")?,
        extra_data: object(row.read("extra_data")?),
        redirect_url: row.read("redirect_url")?,
        capture: row.read("capture")?,
        amounts: Amounts {
            authorized: sum("authorized_amount")?,
            captured: sum("captured_amount")?,
            refunded: sum("refunded_amount")?,
        },
        version: row.read("version")?,
        busy: row.read("busy_operation")?,
        waiting: from_int(row.read("waiting")?),
        last_sequence: row.read("last_sequence")?,
    })
}

/// An operation; its amount is in the payment's currency, and there is none where there is no payment.
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
        data: object(row.read("data")?),
        attributes: attributes(row)?,
        state: word(row.read("state")?, State::from_word)?,
        accepted: row.read("accepted")?,
        created: row.read("created")?,
        attempts: from_int(row.read("attempts")?),
        rounds: from_int(row.read("rounds")?),
        lookups: from_int(row.read("lookups")?),
        takeovers: from_int(row.read("takeovers")?),
        generation: from_int(row.read("generation")?),
        exposure: if exposed { Exposure::Exposed } else { Exposure::Clean },
        acted_on: row.read("acted_on")?,
        lookup_only: row.read("lookup_only")?,
        first_sent_at: row.read("first_sent_at")?,
        last_sent_at: row.read("last_sent_at")?,
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

/// Where in a trace an operation or an event belongs.
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
        amount: money(row.read("amount")?, currency)?,
        operation: row.read("operation_id")?,
    })
}

fn currency(code: &str) -> Result<Currency, StoreError> {
    Currency::from_code(code).ok_or_else(|| StoreError::Unreadable(format!("currency {code}")))
}

fn money(amount: Decimal, currency: Currency) -> Result<Money, StoreError> {
    Money::new(amount, currency).map_err(|error| StoreError::Unreadable(format!("an amount {error}")))
}

fn word<T>(word: &str, read: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    read(word).ok_or_else(|| StoreError::Unreadable(format!("the word {word}")))
}

fn object(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(object) => object,
        _ => serde_json::Map::new(),
    }
}
