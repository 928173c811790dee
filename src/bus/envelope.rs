//! Events on the wire: CloudEvents 1.0 as structured JSON. Written once, when an event is stored; every resend is
//! identical.

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;

use crate::payment::command::Pause;
use crate::payment::event::{
    Discrepancy, Event, EventCause, EventKind, EventOperation, EventType, Heartbeat, Reason, Resent, ResentPage,
};
use crate::payment::json;
use crate::payment::model::{Metadata, Payment};
use crate::payment::money::Money;
use crate::payment::trace::TraceContext;
use crate::payment::view::PaymentView;

/// The CloudEvents source of every event.
pub const SOURCE: &str = "paybus";

/// Returns the message body of an event. Empty members are left out.
pub fn event_body(event: &Event) -> String {
    json::write(&Envelope::from(event))
}

/// Returns the message body of a heartbeat. It belongs to a variant and to no payment, and is not stored.
pub fn heartbeat_body(id: Uuid, variant: &str, beat: &Heartbeat, time: Timestamp) -> String {
    let Heartbeat { from, to, events, set_aside } = *beat;
    json::write(&HeartbeatEnvelope {
        specversion: "1.0",
        id,
        source: SOURCE,
        kind: EventType::Heartbeat.as_str(),
        subject: variant,
        time,
        datacontenttype: "application/json",
        partitionkey: Uuid::new_v5(&Uuid::NAMESPACE_OID, variant.as_bytes()),
        data: WireHeartbeat { from: from.to_string(), to: to.to_string(), events, set_aside },
    })
}

#[derive(Serialize)]
struct HeartbeatEnvelope<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: Timestamp,
    datacontenttype: &'static str,
    partitionkey: Uuid,
    data: WireHeartbeat,
}

#[derive(Serialize)]
struct WireHeartbeat {
    from: String,
    to: String,
    events: i64,
    set_aside: i64,
}

#[derive(Serialize)]
struct Envelope<'a> {
    specversion: &'static str,
    id: Uuid,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: Subject<'a>,
    time: Timestamp,
    datacontenttype: &'static str,
    partitionkey: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequencetype: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tracestate: Option<&'a str>,
    data: Data<'a>,
}

/// The subject as the command wrote it, so that an answer names what was asked for; otherwise the payment.
#[derive(Serialize)]
#[serde(untagged)]
enum Subject<'a> {
    Asked(&'a str),
    Payment(Uuid),
}

#[derive(Default, Serialize)]
struct Data<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    payment: Option<PaymentView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resent: Option<WireResent>,
    #[serde(skip_serializing_if = "Option::is_none")]
    page: Option<WirePage>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pause: Option<WirePause<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous_status: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    changed: Option<&'a [&'static str]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_code: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    discrepancy: Option<WireDiscrepancy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_attempt_at: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    command: Option<WireCommand<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    operation: Option<WireOperation<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a Metadata>,
}

#[derive(Serialize)]
struct WireOperation<'a> {
    id: Uuid,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    amount: Option<Money>,
    #[serde(skip_serializing_if = "Option::is_none")]
    currency: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<&'a str>,
}

#[derive(Serialize)]
struct WireCommand<'a> {
    source: &'a str,
    id: &'a str,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(rename = "final")]
    is_final: bool,
    #[serde(rename = "answer")]
    is_answer: bool,
}

/// Sequence numbers, in the format of the events' own.
#[derive(Serialize)]
struct WireResent {
    from: String,
    to: String,
}

/// Positions, in the format of each event's header.
#[derive(Serialize)]
struct WirePage {
    after: String,
    to: String,
    more: bool,
    events: usize,
    set_aside: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_after: Option<String>,
}

#[derive(Serialize)]
struct WirePause<'a> {
    paused: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    until: Option<Timestamp>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct WireDiscrepancy {
    asked: String,
    answered: String,
    currency: &'static str,
}

impl<'a> From<&'a Event> for Envelope<'a> {
    fn from(event: &'a Event) -> Envelope<'a> {
        let cause = event.cause.as_ref();
        let trace = cause.and_then(|cause| cause.trace.as_ref());
        Envelope {
            specversion: "1.0",
            id: event.id,
            source: SOURCE,
            kind: event.kind.type_name(),
            subject: cause.map_or(Subject::Payment(event.payment_id), |cause| Subject::Asked(&cause.subject)),
            time: event.time,
            datacontenttype: "application/json",
            partitionkey: event.payment_id,
            sequence: event.sequence.map(|number| number.to_string()),
            sequencetype: event.sequence.map(|_| "Integer"),
            causationid: cause.map(|cause| cause.name.id.as_str()),
            correlationid: cause.and_then(|cause| cause.correlation_id.as_deref()),
            traceparent: trace.map(TraceContext::parent),
            tracestate: trace.and_then(TraceContext::state),
            data: Data {
                metadata: Some(&event.metadata).filter(|words| !words.is_empty()),
                ..data(&event.kind, cause)
            },
        }
    }
}

fn data<'a>(kind: &'a EventKind, cause: Option<&'a EventCause>) -> Data<'a> {
    let body = match kind {
        EventKind::Created { payment } => whole(payment),
        EventKind::Succeeded { payment, resent } => Data {
            sequence: payment.as_deref().filter(|_| resent.is_some()).map(last),
            resent: resent.map(WireResent::from),
            ..payment.as_deref().map(whole).unwrap_or_default()
        },
        EventKind::Snapshot { payment } => Data { sequence: Some(last(payment)), ..whole(payment) },
        EventKind::EventsResent(page) => Data { page: Some(WirePage::from(page)), ..Data::default() },
        EventKind::PauseChanged(pause) => Data { pause: Some(WirePause::of(pause.as_ref())), ..Data::default() },
        EventKind::StatusChanged { payment, previous, why } => {
            Data { previous_status: Some(previous.as_str()), ..because(why, whole(payment)) }
        }
        EventKind::Updated { payment, changed, why } => Data { changed: Some(changed), ..because(why, whole(payment)) },
        EventKind::Rejected { code, message } => {
            Data { code: Some(code.as_str()), message: Some(message), ..Data::default() }
        }
        EventKind::Failed { why, attempts } => Data { attempts: Some(*attempts), ..because(why, Data::default()) },
        EventKind::Delayed { reason, message, next_attempt_at, attempts } => Data {
            reason: Some(reason.as_str()),
            message: said(message),
            next_attempt_at: *next_attempt_at,
            attempts: Some(*attempts),
            ..Data::default()
        },
    };
    let operation = cause.and_then(|cause| cause.operation.as_ref());
    Data { command: cause.map(WireCommand::from), operation: operation.map(WireOperation::from), ..body }
}

fn whole(payment: &Payment) -> Data<'_> {
    Data { payment: Some(PaymentView::from(payment)), ..Data::default() }
}

/// Returns the sequence number of the payment's last event: the payment is shown as it was after that.
fn last(payment: &Payment) -> String {
    payment.last_sequence.to_string()
}

fn because<'a>(why: &'a Reason, data: Data<'a>) -> Data<'a> {
    Data {
        code: why.code.map(|code| code.as_str()),
        message: said(&why.message),
        gateway_code: why.gateway_code.as_deref(),
        discrepancy: why.discrepancy.map(WireDiscrepancy::from),
        ..data
    }
}

fn said(message: &str) -> Option<&str> {
    Some(message).filter(|message| !message.is_empty())
}

impl<'a> From<&'a EventCause> for WireCommand<'a> {
    fn from(cause: &'a EventCause) -> WireCommand<'a> {
        let EventCause { is_final, is_answer, .. } = *cause;
        WireCommand { source: &cause.name.source, id: &cause.name.id, kind: &cause.kind, is_final, is_answer }
    }
}

impl<'a> From<&'a EventOperation> for WireOperation<'a> {
    fn from(operation: &'a EventOperation) -> WireOperation<'a> {
        WireOperation {
            id: operation.id,
            state: operation.progress.as_str(),
            amount: operation.amount,
            currency: operation.amount.map(|amount| amount.currency().code()),
            reference: operation.reference.as_deref(),
        }
    }
}

impl From<Resent> for WireResent {
    fn from(resent: Resent) -> WireResent {
        WireResent { from: resent.from.to_string(), to: resent.to.to_string() }
    }
}

impl From<&ResentPage> for WirePage {
    fn from(page: &ResentPage) -> WirePage {
        let ResentPage { after, to, more, events, set_aside, kept_after } = *page;
        let kept_after = kept_after.map(|position| position.to_string());
        WirePage { after: after.to_string(), to: to.to_string(), more, events, set_aside, kept_after }
    }
}

impl WirePause<'_> {
    fn of(pause: Option<&Pause>) -> WirePause<'_> {
        WirePause {
            paused: pause.is_some(),
            until: pause.and_then(|pause| pause.until),
            reason: pause.map(|pause| pause.reason.as_str()),
        }
    }
}

impl From<Discrepancy> for WireDiscrepancy {
    fn from(discrepancy: Discrepancy) -> WireDiscrepancy {
        WireDiscrepancy {
            asked: discrepancy.asked.to_string(),
            answered: discrepancy.answered.to_string(),
            currency: discrepancy.answered.currency().code(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::code::Code;
    use crate::payment::command::CommandName;
    use crate::payment::event::Progress;
    use crate::payment::model::{Billing, Order};
    use crate::payment::money::Currency;
    use crate::payment::status::Status;
    use serde_json::{Map, json};

    const PAYMENT: Uuid = Uuid::from_u128(0x0192_f0c1_0000_7000_8000_0000_0000_0001);

    fn money(text: &str) -> Money {
        Money::parse(text, Currency::from_code("USD").expect("a currency")).expect("an amount")
    }

    fn now() -> Timestamp {
        "2026-11-22T12:00:00Z".parse().expect("a time")
    }

    fn payment() -> Payment {
        let order = Order {
            variant: "default".to_owned(),
            total: money("120.00"),
            tax: money("20.00"),
            delivery: money("10.00"),
            description: "Book purchase".to_owned(),
            billing: Billing {
                first_name: "Sherlock".to_owned(),
                last_name: "Holmes".to_owned(),
                address_1: "221B Baker Street".to_owned(),
                city: "London".to_owned(),
                postcode: "NW1 6XE".to_owned(),
                country_code: "GB".to_owned(),
                ..Billing::default()
            },
            customer_ip_address: Some("127.0.0.1".parse().expect("an address")),
            metadata: Metadata::from([("order".to_owned(), "1021".to_owned())]),
        };
        let mut payment = Payment::new(PAYMENT, order, "dummy", "dummy", now());
        payment.status = Status::Confirmed;
        payment.amounts.captured = money("120.00");
        payment.extra_data = Map::from_iter([("risk".to_owned(), json!(1))]);
        payment
    }

    fn event(kind: EventKind, sequence: Option<i64>, cause: Option<EventCause>) -> Event {
        Event {
            id: Uuid::from_u128(5),
            payment_id: PAYMENT,
            variant: "default".to_owned(),
            kind,
            sequence,
            cause,
            metadata: Metadata::new(),
            time: now(),
        }
    }

    fn cause(is_final: bool) -> EventCause {
        EventCause {
            subject: "0192F0C1-0000-7000-8000-000000000001".to_owned(),
            name: CommandName { source: "shop/checkout".to_owned(), id: "5f0c".to_owned() },
            kind: "payment.create".to_owned(),
            is_final,
            is_answer: is_final,
            correlation_id: Some("order 7".to_owned()),
            trace: TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
            reply: None,
            operation: Some(EventOperation {
                id: Uuid::from_u128(6),
                progress: Progress::Succeeded,
                amount: Some(money("120.00")),
                reference: Some("ch_1".to_owned()),
            }),
        }
    }

    fn check(event: &Event, golden: &str) {
        let golden: String = golden.lines().map(str::trim_start).collect();
        assert_eq!(event_body(event), golden);
    }

    const WHOLE: &str = r#""payment":{"id":"0192f0c1-0000-7000-8000-000000000001","variant":"default",
        "status":"confirmed","fraud_status":"unknown","fraud_message":"","created":"2026-11-22T12:00:00Z",
        "modified":"2026-11-22T12:00:00Z","transaction_id":"","currency":"USD","total":"120.00","delivery":"10.00",
        "tax":"20.00","captured_amount":"120.00","authorized_amount":"0.00","refunded_amount":"0.00",
        "capturable_amount":"0.00","voided_amount":"0.00","paid_in_full":true,"description":"Book purchase","billing_first_name":"Sherlock","billing_last_name":"Holmes",
        "billing_address_1":"221B Baker Street","billing_address_2":"","billing_city":"London",
        "billing_postcode":"NW1 6XE","billing_country_code":"GB","billing_country_area":"","billing_email":"",
        "billing_phone":"","customer_ip_address":"127.0.0.1","metadata":{"order":"1021"},"message":"","extra_data":{"risk":1}}"#;

    #[test]
    fn a_change_of_status() {
        let kind = EventKind::StatusChanged {
            payment: Box::new(payment()),
            previous: Status::Waiting,
            why: Reason::default(),
        };
        check(
            &event(kind, Some(2), Some(cause(true))),
            &format!(
                r#"{{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000005","source":"paybus",
                "type":"payment.status_changed","subject":"0192F0C1-0000-7000-8000-000000000001",
                "time":"2026-11-22T12:00:00Z","datacontenttype":"application/json",
                "partitionkey":"0192f0c1-0000-7000-8000-000000000001","sequence":"2","sequencetype":"Integer",
                "causationid":"5f0c","correlationid":"order 7",
                "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                "data":{{{WHOLE},"previous_status":"waiting",
                "command":{{"source":"shop/checkout","id":"5f0c","type":"payment.create","final":true,"answer":true}},
                "operation":{{"id":"00000000-0000-0000-0000-000000000006","state":"succeeded","amount":"120.00",
                "currency":"USD","reference":"ch_1"}}}}}}"#
            ),
        );
    }

    #[test]
    fn an_update_that_nobody_asked_for_and_goes_beyond_what_was_asked() {
        let kind = EventKind::Updated {
            payment: Box::new(payment()),
            changed: vec!["captured_amount"],
            why: Reason {
                code: Some(Code::Mismatch),
                message: "more than asked".to_owned(),
                gateway_code: Some("R1".to_owned()),
                discrepancy: Some(Discrepancy { asked: money("100.00"), answered: money("120.00") }),
            },
        };
        check(
            &event(kind, Some(3), None),
            &format!(
                r#"{{"specversion":"1.0","id":"00000000-0000-0000-0000-000000000005","source":"paybus",
                "type":"payment.updated","subject":"0192f0c1-0000-7000-8000-000000000001",
                "time":"2026-11-22T12:00:00Z","datacontenttype":"application/json",
                "partitionkey":"0192f0c1-0000-7000-8000-000000000001","sequence":"3","sequencetype":"Integer",
                "data":{{{WHOLE},"changed":["captured_amount"],"code":"mismatch","message":"more than asked",
                "gateway_code":"R1","discrepancy":{{"asked":"100.00","answered":"120.00","currency":"USD"}}}}}}"#
            ),
        );
    }

    #[test]
    fn a_delay_carries_no_payment_and_no_number() {
        let kind = EventKind::Delayed {
            reason: Code::Unreachable,
            message: String::new(),
            next_attempt_at: Some(now()),
            attempts: 3,
        };
        let body = event_body(&event(kind, None, Some(cause(false))));
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body.get("sequence"), None);
        assert_eq!(body.get("sequencetype"), None);
        let data = &body["data"];
        assert_eq!(data["next_attempt_at"], "2026-11-22T12:00:00Z");
        assert_eq!(data["attempts"], 3);
        assert_eq!(data["command"]["final"], false);
        assert_eq!((data.get("payment"), data.get("message"), data.get("code")), (None, None, None));
    }
}
