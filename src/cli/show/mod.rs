//! `paybus show`: a payment and its timeline, for a person on call.

#[cfg(test)]
mod anything;
mod json;
mod page;
mod words;

use std::collections::BTreeSet;

use clap::Args;
use tokio::join;
use uuid::Uuid;

use super::exit::{Exit, Failure};
use super::open_database;
use super::output::Output;
use super::tame::tame;
use crate::config::Settings;
use crate::store::{Store, StoreError};

/// Show a payment: its status, its history, and what happens next.
///
/// Reads only the database. Requests to the gateway and secrets are not shown.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  paybus show 0192f0c1-7c5e-7000-8000-0123456789ab\n\nTimes are UTC.")]
pub struct ShowArguments {
    /// The payment's id.
    #[arg(value_name = "PAYMENT")]
    payment: Uuid,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

pub async fn run(arguments: &ShowArguments, settings: &Settings) -> Result<Exit, Failure> {
    let store = open_database(settings).await?;
    let history = store.history(arguments.payment).await?;
    let Some(history) = history else {
        // Only a hint: a role that may not read these tables gets none.
        let waiting = waiting_variants(&store).await.unwrap_or_default();
        store.close();
        let message = format!("nothing is stored for payment {}{waiting}", arguments.payment);
        return Err(Failure::new(Exit::Failed, message));
    };
    store.close();
    let output = Output::new();
    if arguments.json {
        output.json(&json::value(&history))?;
        return Ok(Exit::Done);
    }
    for line in page::lines(arguments.payment, &history, output) {
        output.line(&line)?;
    }
    Ok(Exit::Done)
}

/// Names the variants whose commands wait in the broker now: the payment's may be among them.
async fn waiting_variants(store: &Store) -> Result<String, StoreError> {
    let (pauses, workers) = join!(store.pauses(), store.workers());
    let known = workers?.into_iter().filter(|worker| !worker.is_lost() && !worker.report.draining);
    let open = known.flat_map(|worker| worker.report.variants).filter(|variant| !variant.is_breaker_closed());
    let mut variants: BTreeSet<String> = open.map(|variant| variant.name).collect();
    variants.extend(pauses?.into_keys());
    if variants.is_empty() {
        return Ok(String::new());
    }
    let variants: Vec<String> = variants.iter().map(|name| tame(name)).collect();
    Ok(format!("; commands of {} may wait in the broker, see `paybus workers`", variants.join(", ")))
}

/// Histories to try the pages with.
#[cfg(test)]
mod samples {
    use jiff::Timestamp;
    use serde_json::{Map, json};
    use uuid::Uuid;

    use crate::payment::code::Code;
    use crate::payment::command::{Attributes, CommandName, Kind};
    use crate::payment::model::{Billing, Order, Payment};
    use crate::payment::money::{Currency, Money};
    use crate::payment::movement::{Movement, MovementKind};
    use crate::payment::operation::{Answer, AnswerKind, Counts, Operation, Request, Sent, State};
    use crate::payment::outcome::Exposure;
    use crate::payment::status::Status;
    use crate::store::outbox::OutboxEvent;
    use crate::store::query::report::{EventRecord, History, MovementRecord, OperationRecord};

    pub const PAYMENT: Uuid = Uuid::from_u128(0x0192_f0c1_7c5e_7000_8000_0123_4567_89ab);

    pub fn at(clock: &str) -> Timestamp {
        format!("2026-11-22T{clock}Z").parse().expect("a time")
    }

    pub fn money(text: &str) -> Money {
        Money::parse(text, Currency::from_code("USD").expect("a currency")).expect("an amount")
    }

    pub fn operation(number: u128, kind: &str, state: State) -> Operation {
        Operation {
            payment_id: PAYMENT,
            id: Uuid::from_u128(number),
            subject: None,
            name: CommandName { source: "shop/checkout".to_owned(), id: format!("order-{number}") },
            kind: Kind::from_word(kind),
            variant: "cards".to_owned(),
            hash: [0; 32],
            data: Map::new(),
            attributes: Attributes::default(),
            state,
            accepted: 1,
            created: at("12:00:00"),
            counts: Counts { attempts: 1, ..Counts::default() },
            sent: Sent::NOTHING,
            lease: None,
            due_at: None,
            escalated: false,
            request: None,
            last_code: None,
            last_message: String::new(),
            answer: None,
        }
    }

    pub fn settled(number: u128, kind: &str, answer: AnswerKind, code: Option<Code>, message: &str) -> Operation {
        let answer = Answer { kind: answer, code, message: message.to_owned() };
        Operation { answer: Some(answer), ..operation(number, kind, State::Settled) }
    }

    /// Charged, and a refund whose answer never came.
    pub fn history() -> History {
        let order = Order {
            variant: "cards".to_owned(),
            total: money("120.00"),
            tax: money("20.00"),
            delivery: money("0.00"),
            description: "Book purchase".to_owned(),
            billing: Billing::default(),
            customer_ip_address: None,
            metadata: crate::payment::model::Metadata::new(),
        };
        let mut payment = Payment::new(PAYMENT, order, "http", "http://127.0.0.1:9000", at("12:00:00"));
        payment.status = Status::Confirmed;
        payment.modified = at("12:00:01");
        payment.transaction_id = "ch_123".to_owned();
        payment.amounts.captured = money("120.00");
        payment.busy = Some(Uuid::from_u128(2));
        payment.waiting = 1;
        let refund = Operation {
            counts: Counts { attempts: 3, ..Counts::default() },
            sent: Sent { exposure: Exposure::Exposed, ..Sent::NOTHING },
            due_at: Some(at("12:03:42")),
            last_code: Some(Code::Timeout),
            last_message: "no answer within 10 s".to_owned(),
            request: Some(Request {
                amount: Some(money("20.00")),
                capture: false,
                body: "{\"token\":\"x\"}".to_owned(),
            }),
            ..operation(2, "payment.refund", State::Unknown)
        };
        let record = |operation: Operation| OperationRecord {
            settled_at: (!operation.is_open()).then(|| at("12:00:01")),
            operation,
        };
        let movement = Movement {
            kind: MovementKind::Captured,
            reference: Uuid::from_u128(1).to_string(),
            gateway_reference: None,
            parent: None,
            amount: money("120.00"),
            operation: Some(Uuid::from_u128(1)),
        };
        History {
            now: at("12:03:00"),
            payment: Some(payment),
            operations: vec![
                record(settled(1, "payment.create", AnswerKind::Succeeded, None, "")),
                record(refund),
                record(Operation {
                    due_at: Some(at("12:04:00")),
                    counts: Counts::default(),
                    ..operation(3, "payment.refund", State::Waiting)
                }),
            ],
            movements: vec![MovementRecord { movement, created: at("12:00:01") }],
            events: vec![
                event(1, Some(1), "payment.created", json!({ "payment": { "status": "waiting" } }), Some("12:00:00.2")),
                event(
                    2,
                    Some(2),
                    "payment.status_changed",
                    json!({ "payment": { "status": "confirmed" }, "previous_status": "waiting",
                            "command": { "type": "payment.create", "final": true } }),
                    Some("12:00:01.2"),
                ),
                event(
                    3,
                    None,
                    "command.delayed",
                    json!({ "reason": "timeout", "message": "no answer within 10 s" }),
                    None,
                ),
            ],
            truncated: false,
        }
    }

    fn event(
        position: i64,
        sequence: Option<i64>,
        kind: &str,
        data: serde_json::Value,
        sent: Option<&str>,
    ) -> EventRecord {
        let body =
            json!({ "type": kind, "subject": PAYMENT.to_string(), "time": "2026-11-22T12:00:00Z", "data": data });
        EventRecord {
            event: OutboxEvent {
                position,
                payment_id: PAYMENT,
                id: Uuid::from_u128(100),
                event_type: kind.to_owned(),
                routing_key: format!("cards.{kind}"),
                body: body.to_string(),
                correlation_id: None,
                trace: None,
                reply: None,
            },
            sequence,
            created: at("12:00:00"),
            sent_at: sent.map(at),
            set_aside: None,
        }
    }
}
