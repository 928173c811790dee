//! The pure parts of a command's path: reading it, deciding, and writing its events. `cargo bench --bench pure`.

#![allow(clippy::expect_used, clippy::panic)] // Any failure ends the measurement.

use std::hint::black_box;
use std::time::Duration;

use divan::Bencher;
use jiff::Timestamp;
use paybus::bus::connection::guard::Frames;
use paybus::bus::envelope::event_body;
use paybus::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use paybus::payment::contract::{Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use paybus::payment::machine::{Aggregate, Context, Rules, Step};
use paybus::payment::money::{Currency, Money};
use paybus::payment::outcome::{GatewayResult, Outcome, Verdict};
use paybus::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};
use serde_json::{Map, Value};
use uuid::Uuid;

const DATA: &str = r#"{"variant":"bench","description":"Book purchase","total":"120.00","tax":"20.00","currency":"USD",
"delivery":"10.00","billing_first_name":"Sherlock","billing_last_name":"Holmes","billing_address_1":"221B Baker Street",
"billing_address_2":"","billing_city":"London","billing_postcode":"NW1 6XE","billing_country_code":"GB",
"billing_country_area":"Greater London","customer_ip_address":"127.0.0.1","process":{"payment_method":"pm_card_visa"}}"#;

fn main() {
    divan::main();
}

/// Checks the frames of a message, as the guard does before lapin parses them.
#[divan::bench]
fn check_frames(bencher: Bencher<'_, '_>) {
    let delivery = delivery();
    let (mut frames, mut out) = (Frames::new(None), Vec::new());
    bencher.bench_local(|| {
        out.clear();
        frames.pass(black_box(&delivery), &mut out);
        out.len()
    });
}

/// Reads the command's data, from text to a payment that could be stored.
#[divan::bench]
fn read_a_command() -> Body {
    body(black_box(DATA))
}

/// Begins a new payment: what is stored, its event, and that the gateway must be called.
#[divan::bench]
fn begin(bencher: Bencher<'_, '_>) {
    let rules = rules();
    bencher.with_inputs(command).bench_values(|command| begun(command, &rules));
}

/// Applies the gateway's answer: status, movement and event.
#[divan::bench]
fn settle(bencher: Bencher<'_, '_>) {
    let rules = rules();
    bencher.with_inputs(|| begun(command(), &rules)).bench_values(|(aggregate, id)| settled(aggregate, id, &rules));
}

/// Writes an event with the whole payment, as it is sent to the broker.
#[divan::bench]
fn write_an_event(bencher: Bencher<'_, '_>) {
    let rules = rules();
    let (aggregate, id) = begun(command(), &rules);
    let aggregate = settled(aggregate, id, &rules);
    let event = aggregate.events().last().expect("an event");
    bencher.bench(|| event_body(black_box(event)));
}

/// The three frames of a message of 1 KB.
fn delivery() -> Vec<u8> {
    let short = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let long = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
    let frame = |kind: u8, payload: &[u8]| [&[kind, 0, 1][..], &long(payload), &[0xce]].concat();
    let tag = short("amq.ctag-0123456789abcdef0123456789");
    let method =
        [&[0, 60, 0, 60][..], &tag, &[0; 9], &short("paybus.commands"), &short("cards.payment.create")].concat();
    let trace = [&short("traceparent")[..], b"S", &long(&[b'0'; 55])].concat();
    let texts = [short("order-17"), short("0192f0c1-7c5e-7000-8000-0000000000aa")].concat();
    let content_type = short("application/cloudevents+json; charset=utf-8");
    let header = [&[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 2, 188, 0xb4, 0x80][..], &content_type, &long(&trace), &[2], &texts];
    [frame(1, &method), frame(2, &header.concat()), frame(3, &[b'x'; 700])].concat()
}

fn body(text: &str) -> Body {
    let data: Map<String, Value> = serde_json::from_str(text).expect("an object");
    Body::parse(CommandType::Create, &data).expect("a command")
}

fn command() -> Command {
    Command {
        payment_id: Uuid::nil(),
        subject: None,
        name: CommandName { source: "shop/checkout".to_owned(), id: "order-1".to_owned() },
        kind: Kind::Known(CommandType::Create),
        variant: "bench".to_owned(),
        content: Ok(body(DATA)),
        data: Map::new(),
        hash: [0; 32],
        attributes: Attributes::default(),
    }
}

fn begun(command: Command, rules: &Rules) -> (Aggregate, Uuid) {
    let mut aggregate = Aggregate::absent(command.payment_id);
    match aggregate.accept(command, context(rules)) {
        Step::Call(id) => (aggregate, id),
        other => panic!("expected a gateway call: {other:?}"),
    }
}

fn settled(mut aggregate: Aggregate, id: Uuid, rules: &Rules) -> Aggregate {
    let charge = Transaction {
        kind: TransactionKind::Capture,
        reference: Some("tx".to_owned()),
        parent: None,
        attribution: Attribution::Answered(id),
        state: TransactionState::Done,
        amount: Money::parse("120", Currency::from_code("USD").expect("a currency")).expect("an amount"),
    };
    let result = GatewayResult { transactions: vec![charge], ..GatewayResult::new(Verdict::Approved) };
    let answer = aggregate.asked(context(rules).now).answered(Outcome::Result(Box::new(result)));
    assert_eq!(aggregate.settle(id, answer, 1, context(rules)), Step::Settled);
    aggregate
}

fn context(rules: &Rules) -> Context<'_> {
    Context {
        now: Timestamp::UNIX_EPOCH,
        worker: Uuid::max(),
        rules,
        paused_for: None,
        questions_paused_for: None,
        clocks_agree: true,
    }
}

fn rules() -> Rules {
    Rules {
        gateway: "http".to_owned(),
        account: "http://127.0.0.1:9000".to_owned(),
        account_aliases: Vec::new(),
        contract: Contract {
            keys: PerAction::all(Keys::kept_for(Duration::from_secs(86_400))),
            lookup: Lookup::Authoritative,
            settle_window: Duration::from_secs(10),
            captures: Captures::One,
            notifications: NotificationRole::Hint,
            undo: false,
        },
        capture: true,
        retired: false,
        immediate_attempts: 3,
        delayed: vec![Duration::from_secs(10)],
        lease: Duration::from_secs(15),
        unknown_payment_grace: Duration::from_secs(5),
    }
}
