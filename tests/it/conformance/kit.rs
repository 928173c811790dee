//! The world that the cases of one gateway run in, what they share, and the report.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex};

use futures_util::future::{FutureExt, join_all};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use paybus::gateway::{Gateway, registry};
use paybus::payment::contract::{Contract, Lookup};

use super::cases::{CASES, Case, When};
use super::fake::{Booked, Deed, Ended, Fake, Meets, On, PROCESS, SignedWebhook, Unsupported};
use crate::support::world::read;
use crate::support::{Command, Event, Expected, Setup, Worker, WorkerSetup, World};

/// The variant that points at the fake.
pub const VARIANT: &str = "kit";
/// One whose gateway forgets a key after a second.
pub const BRIEF: &str = "brief";
/// What a payment costs here.
pub const TOTAL: &str = "120.00";
/// The same for a case's payment.
pub const CURRENCY: &str = "USD";

/// How an operation whose answer was lost comes to its end, by the gateway's contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cure {
    /// It is sent again under the same key.
    SameKey,
    /// The gateway is asked; not to find it is a proof.
    LookUp,
    /// The gateway is asked; not to find it proves nothing.
    FindOnly,
    /// The gateway undoes it, which only a charge can be.
    Undo,
    /// A person says.
    Person,
}

/// The cases' world.
pub struct Kit {
    pub fake: Box<dyn Fake>,
    pub world: World,
    pub adapter: Arc<dyn Gateway>,
    payments: Mutex<Vec<Uuid>>,
}

/// How a case ended.
enum Verdict {
    Kept,
    Unsupported(&'static str),
    Broken(String),
}

/// Runs every case against a gateway, tells how each ended, and fails where one is broken or the documentation says
/// something else.
pub async fn run(fake: impl Fake + 'static) {
    let kit = Kit::new(Box::new(fake)).await;
    let mut report: BTreeMap<&str, Verdict> = BTreeMap::new();
    for case in CASES.iter().filter(|case| case.when == When::First) {
        report.insert(case.name, kit.try_out(case).await);
    }
    kit.world.worker().await;
    let together = CASES.iter().filter(|case| case.when == When::Together);
    report.extend(join_all(together.map(async |case| (case.name, kit.try_out(case).await))).await);
    for case in CASES.iter().filter(|case| case.when == When::Alone) {
        report.insert(case.name, kit.try_out(case).await);
    }
    let name = kit.fake.name();
    for case in CASES {
        println!("{name}: {}: {}", case.name, report[case.name].word());
    }
    let broken: Vec<String> = report.iter().filter_map(|(case, verdict)| verdict.broken(case)).collect();
    assert!(broken.is_empty(), "{name} breaks:\n{}\nevents:\n{}", broken.join("\n"), kit.world.lines());
    check_column(name, &report);
    kit.check_books().await;
}

impl Verdict {
    fn word(&self) -> String {
        match self {
            Verdict::Kept => "yes".to_owned(),
            Verdict::Unsupported(why) => format!("no: {why}"),
            Verdict::Broken(how) => format!("BROKEN: {how}"),
        }
    }

    fn broken(&self, case: &str) -> Option<String> {
        match self {
            Verdict::Broken(how) => Some(format!("{case}: {how}")),
            Verdict::Kept | Verdict::Unsupported(_) => None,
        }
    }
}

/// The table's cells, by case, each row from its first.
fn table() -> Vec<Vec<String>> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/gateways.md");
    let text = std::fs::read_to_string(path).expect("docs/gateways.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| case |")).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

/// The gateways that the table has a column for.
pub fn columns() -> Vec<&'static str> {
    let head = table().into_iter().next().expect("a table that begins with `| case |`");
    registry::NAMES.iter().copied().filter(|name| head.iter().any(|cell| cell == name)).collect()
}

/// Holds the documentation's column against what was found. A gateway under another contract has none.
fn check_column(name: &str, report: &BTreeMap<&str, Verdict>) {
    let table = table();
    let Some(column) = table[0].iter().position(|cell| cell == name) else {
        return;
    };
    let said: Vec<(&str, &str)> = table[2..].iter().map(|row| (row[0].as_str(), row[column].as_str())).collect();
    let found: Vec<(&str, String)> = CASES.iter().map(|case| (case.name, report[case.name].word())).collect();
    let found: Vec<(&str, &str)> = found.iter().map(|(case, word)| (*case, word.as_str())).collect();
    assert_eq!(said, found, "the column {name} of docs/gateways.md");
}

fn build_adapter(world: &World) -> Arc<dyn Gateway> {
    registry::build(&read(world.settings()).variants[VARIANT]).expect("an adapter")
}

impl Kit {
    async fn new(fake: Box<dyn Fake>) -> Kit {
        let mut setup = Setup::new();
        let brief = fake.brief_keys().unwrap_or_default();
        for (variant, over) in [(VARIANT, Vec::new()), (BRIEF, brief)] {
            let usual = [("timeout", "1s".to_owned()), ("breaker.failures", "100000".to_owned())];
            for (key, value) in usual.into_iter().chain(fake.settings()).chain(over) {
                setup = setup.set(&format!("variants.{variant}.{key}"), &value);
            }
        }
        let world = setup.build().await;
        let adapter = build_adapter(&world);
        Kit { fake, world, adapter, payments: Mutex::default() }
    }

    /// The adapter anew, without the connections that it has.
    pub fn new_adapter(&self) -> Arc<dyn Gateway> {
        build_adapter(&self.world)
    }

    /// Runs a case; that it breaks stops no other.
    async fn try_out(&self, case: &Case) -> Verdict {
        match AssertUnwindSafe((case.run)(self)).catch_unwind().await {
            Ok(Ok(())) => Verdict::Kept,
            Ok(Err(Unsupported(why))) => Verdict::Unsupported(why),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let word = panic.downcast_ref::<&str>().map(|word| (*word).to_owned());
                Verdict::Broken(text.or(word).unwrap_or_else(|| "it panicked".to_owned()))
            }
        }
    }

    pub fn contract(&self) -> &Contract {
        self.adapter.contract()
    }

    /// What follows when nobody knows whether a call arrived that ended in this way.
    pub fn cure(&self, way: Meets) -> Cure {
        let is_error = matches!(way, Meets::ErrorBefore | Meets::ErrorAfter | Meets::StoreError);
        // An error that may be kept under its key is no reason to send that key again.
        let keys = self.contract().keys.process;
        let honours_key = keys.window.is_some() && (!is_error || keys.after_server_error.allows_another_attempt());
        match self.contract().lookup {
            _ if honours_key => Cure::SameKey,
            Lookup::Authoritative => Cure::LookUp,
            Lookup::Indicative => Cure::FindOnly,
            Lookup::None if self.contract().undo => Cure::Undo,
            Lookup::None => Cure::Person,
        }
    }

    /// A command that charges a new payment at once.
    pub fn charge(&self) -> Command {
        self.charge_of(TOTAL, CURRENCY)
    }

    /// The same for a sum.
    pub fn charge_of(&self, total: &str, currency: &str) -> Command {
        let charge = Command::create(VARIANT, total, currency).with("process", self.fake.process());
        self.payments.lock().unwrap().push(charge.payment);
        charge
    }

    /// A command that charges a new payment, and what its calls meet.
    pub fn charge_that_meets(&self, meets: &[Meets]) -> Ended<Command> {
        let charge = self.charge();
        let process = self.fake.plan(charge.payment, PROCESS, meets)?;
        Ok(charge.with("process", process))
    }

    /// `payment.process` of a payment that is there already.
    pub fn again(&self, charge: &Command) -> Command {
        charge.then("payment.process", json!({"process": self.fake.process()}))
    }

    /// A new payment, charged.
    pub async fn charged(&self) -> Command {
        let charge = self.charge();
        let answer = self.world.run(&charge).await;
        assert_eq!((answer.status(), answer.field("captured_amount")), ("confirmed", TOTAL), "{}", answer.line());
        charge
    }

    /// A new payment, authorized.
    pub async fn authorized(&self) -> Command {
        let charge = self.charge().with("capture", json!(false));
        let answer = self.world.run(&charge).await;
        let sums = (answer.status(), answer.field("authorized_amount"), answer.field("captured_amount"));
        assert_eq!(sums, ("preauth", TOTAL, "0.00"), "{}", answer.line());
        charge
    }

    /// What the next calls of this kind for a payment meet.
    pub fn plan(&self, command: &Command, on: On, meets: &[Meets]) -> Ended<Value> {
        self.fake.plan(command.payment, on, meets)
    }

    /// The gateway's books of a payment are these, where it keeps any.
    pub fn assert_booked(&self, command: &Command, expected: &[(Deed, &str)]) {
        let Ok(books) = self.fake.books(command.payment) else { return };
        let booked: Vec<(Deed, Decimal)> = books.iter().map(|line| (line.deed, line.amount)).collect();
        let expected: Vec<(Deed, Decimal)> =
            expected.iter().map(|(deed, amount)| (*deed, Decimal::from_str_exact(amount).unwrap())).collect();
        assert_eq!(booked, expected, "the gateway's books of {}", command.payment);
    }

    /// All calls for a payment that were to act, in as many keys as are expected, each with one content.
    pub fn assert_keys(&self, command: &Command, expected: usize) {
        let Ok(sent) = self.fake.sent(command.payment) else { return };
        let mut keys: BTreeMap<&str, &[u8]> = BTreeMap::new();
        for call in &sent {
            let first = keys.entry(&call.key).or_insert(&call.content);
            assert_eq!(*first, call.content, "one key came with two contents");
        }
        assert_eq!(keys.len(), expected, "the keys of {}, sent {} times", command.payment, sent.len());
    }

    /// Waits until nothing more happens to a command by itself.
    pub async fn escalated(&self, command: &Command) {
        let ends = |event: &Event| event.reason() == "escalated" || event.is_final();
        let event = self.world.event("the escalation", |event| event.is_of(command) && ends(event)).await;
        assert_eq!(event.reason(), "escalated", "{}", event.line());
    }

    /// A person says what happened to a command; its answer.
    pub async fn resolve(&self, command: &Command, outcome: &str) -> Event {
        let data = json!({"operation": command.operation_id(), "outcome": outcome, "evidence": "the gateway's portal"});
        let resolve = command.then("payment.resolve", data).user(&self.world.bus.user());
        let answer = self.world.run(&resolve).await;
        assert_eq!(answer.kind(), "command.succeeded", "{}", answer.line());
        self.world.final_event(command).await
    }

    /// The end of a command that the gateway acted on although no answer came: by the contract, without a second deed.
    pub async fn end_of_lost_answer(&self, command: &Command, way: Meets) -> Event {
        let is_charge = matches!(command.kind.as_str(), "payment.create" | "payment.process");
        match self.cure(way) {
            Cure::SameKey | Cure::LookUp | Cure::FindOnly => self.world.final_event(command).await,
            Cure::Undo if is_charge => self.world.final_event(command).await,
            Cure::Undo | Cure::Person => {
                self.escalated(command).await;
                self.resolve(command, "approved").await
            }
        }
    }

    /// Tells the worker something as the gateway does; the status of its answer.
    pub async fn deliver(&self, webhook: &SignedWebhook) -> u16 {
        let workers = self.world.workers();
        let worker = workers.last().expect("a worker");
        let request = reqwest::Client::new().post(format!("{}/webhooks/{VARIANT}", worker.http()));
        let request = request.header(webhook.header, &webhook.signature).body(webhook.body.clone());
        request.send().await.expect("an answer").status().as_u16()
    }

    /// Whether a charge was undone, for its answer was lost in this way: then nothing is taken, and it can be tried again.
    pub async fn is_undone(&self, charge: &Command, answer: &Event, way: Meets) -> bool {
        if self.cure(way) != Cure::Undo {
            return false;
        }
        assert_eq!((answer.status(), answer.field("captured_amount")), ("error", "0.00"), "{}", answer.line());
        let undone = [(Deed::Charge, TOTAL), (Deed::Undo, TOTAL)];
        self.assert_booked(charge, &undone);
        assert_eq!(self.world.run(&self.again(charge)).await.status(), "confirmed");
        self.assert_booked(charge, &[&undone[..], &[(Deed::Charge, TOTAL)]].concat());
        true
    }

    /// A worker that dies at a step; returns when it is gone.
    pub async fn dies_at(&self, step: &str, command: &Command) {
        let worker: Worker = self.world.spawn_worker(WorkerSetup::default().dies_at(step));
        self.world.publish(command).await;
        worker.wait().await;
    }

    /// The world's own books, and the gateway's against what is stored of every payment.
    async fn check_books(&self) {
        let payments = self.payments.lock().unwrap().clone();
        let expected = Expected { off_ledger: payments.clone(), ..Expected::default() };
        self.world.check_books_but(expected).await;
        for payment in payments {
            let Ok(books) = self.fake.books(payment) else { return };
            self.check_ledger(payment, &books).await;
        }
    }

    async fn check_ledger(&self, payment: Uuid, books: &[Booked]) {
        let count = |deeds: &[Deed]| books.iter().filter(|line| deeds.contains(&line.deed)).count();
        let charges = count(&[Deed::Charge, Deed::Authorization]) - count(&[Deed::Undo]);
        assert!(charges <= 1, "{payment} was charged {charges} times: {books:?}");
        let sql = "SELECT captured_amount, refunded_amount, currency FROM payments WHERE id = $1";
        let rows = self.world.query(sql, &[&payment]).await;
        let Some(row) = rows.first() else {
            assert!(books.is_empty(), "{payment} is not stored: {books:?}");
            return;
        };
        let currency: &str = row.get("currency");
        // What was done in another currency is applied to nothing.
        let sum = |deeds: &[Deed]| -> Decimal {
            let ours = books.iter().filter(|line| line.currency == currency && deeds.contains(&line.deed));
            ours.map(|line| line.amount).sum()
        };
        let captured = sum(&[Deed::Charge, Deed::Capture]) - sum(&[Deed::Undo]);
        let refunded = sum(&[Deed::Refund]);
        let stored: (Decimal, Decimal) = (row.get("captured_amount"), row.get("refunded_amount"));
        assert_eq!(stored, (captured - refunded, refunded), "{payment}: {books:?}");
    }
}
