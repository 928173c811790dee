//! The people: customers who are redirected and return or do not, the gateway's own staff, who complete what is
//! pending, and the clerk who resolves what paybus cannot know. They act while the faults happen and after them.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_postgres::Row;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ledger::{Ledger, standing};
use crate::script::{CARDS, Customer, PROVED, Script};
use crate::support::{Command, World};
use crate::upstream::Upstream;

/// How often they check for something to do.
const LOOK: Duration = Duration::from_millis(400);
/// How long the clerk waits for paybus to find out by itself after the faults have ended.
const TRUST: Duration = Duration::from_secs(8);
/// The same for a gateway whose webhooks are proof: the last ones are still to come.
const TRUST_IN_PROOF: Duration = Duration::from_secs(15);
/// The same for an operation that is still being looked up: a long list is continued from look-up to look-up.
const TRUST_IN_LOOK_UPS: Duration = Duration::from_secs(20);
/// The pause after a sync before another one is sent for the same payment.
const SYNC_AGAIN: Duration = Duration::from_secs(4);

/// The clerk's statement about an operation.
#[derive(Debug, Clone)]
pub struct Resolution {
    /// The command with the statement.
    pub command: Command,
    /// How much money moved; `None` if none did.
    pub amount: Option<Decimal>,
    /// The operation's code in paybus when an operator was needed.
    pub code: String,
    /// How many workers it lost.
    pub takeovers: i32,
}

/// All the people.
pub struct Operators<'a> {
    world: &'a World,
    ledger: &'a dyn Ledger,
    upstream: &'a Upstream,
    customers: HashMap<Uuid, Customer>,
    variants: HashMap<Uuid, &'static str>,
    publish: mpsc::Sender<Command>,
    /// By the resolved operation; the last accepted one counts.
    resolutions: Mutex<HashMap<Uuid, Vec<Resolution>>>,
    /// When each thing was first seen.
    seen: Mutex<HashMap<Uuid, Instant>>,
    synced: Mutex<HashMap<Uuid, Instant>>,
    /// Payments whose orders the shop has given up.
    given_up: Mutex<HashSet<Uuid>>,
    number: AtomicU64,
    /// Whether the faults are over: what is left must now end.
    calm: AtomicBool,
}

impl<'a> Operators<'a> {
    /// Creates them.
    pub fn new(
        world: &'a World,
        ledger: &'a dyn Ledger,
        upstream: &'a Upstream,
        scripts: &[Script],
        publish: mpsc::Sender<Command>,
    ) -> Operators<'a> {
        Operators {
            world,
            ledger,
            upstream,
            customers: scripts.iter().map(|script| (script.payment, script.customer)).collect(),
            variants: scripts.iter().map(|script| (script.payment, script.variant)).collect(),
            publish,
            resolutions: Mutex::default(),
            seen: Mutex::default(),
            synced: Mutex::default(),
            given_up: Mutex::default(),
            number: AtomicU64::new(0),
            calm: AtomicBool::new(false),
        }
    }

    /// Acts until the end.
    pub async fn run(&self, over: &CancellationToken) {
        while over.run_until_cancelled(sleep(LOOK)).await.is_some() {
            self.end_pending().await;
            self.resolve().await;
            if self.calm.load(Ordering::Relaxed) {
                self.bring_back().await;
                self.give_up_orders().await;
            }
        }
    }

    /// The faults are over.
    pub fn all_is_well(&self) {
        self.calm.store(true, Ordering::Relaxed);
        // The waiting times start again.
        self.seen.lock().unwrap().clear();
    }

    /// The statements about each operation.
    pub fn resolutions(&self) -> HashMap<Uuid, Vec<Resolution>> {
        self.resolutions.lock().unwrap().clone()
    }

    /// Completes what is pending at the gateway when its time has come; customers who vanished are given up there at
    /// the end. paybus gets no report about a customer: the shop asks when it sees the customer return.
    async fn end_pending(&self) {
        let is_calm = self.calm.load(Ordering::Relaxed);
        for (payment, pending) in self.ledger.pending() {
            let Some(customer) = self.customers.get(&payment) else { continue };
            let waits = pending.others == 0 && customer.vanishes && !is_calm;
            if waits || self.age(payment) < customer.after {
                continue;
            }
            self.ledger.complete(payment, customer.pays && !customer.vanishes);
            self.forget(payment);
            if pending.customers > 0 && customer.is_seen {
                self.sync(payment).await;
            }
        }
    }

    /// Handles customers who returned and whose sync failed. About the others only a webhook reports.
    async fn bring_back(&self) {
        let rows = self.world.query("SELECT id FROM payments WHERE status = 'input'", &[]).await;
        let pending = self.ledger.pending();
        let is_seen = |payment: &Uuid| self.customers.get(payment).is_none_or(|customer| customer.is_seen);
        let back = rows.iter().map(|row| row.get::<_, Uuid>(0)).filter(|payment| !pending.contains_key(payment));
        for payment in back.filter(is_seen) {
            let last = self.synced.lock().unwrap().get(&payment).copied();
            if last.is_none_or(|last| last.elapsed() > SYNC_AGAIN) {
                self.sync(payment).await;
            }
        }
    }

    /// Handles payments that wait for their customer and whose last process failed, which may have ended what the
    /// customer was asked for before. A shop would process again or give the order up; here it gives up.
    async fn give_up_orders(&self) {
        let sql = "SELECT p.id FROM payments p CROSS JOIN LATERAL (
                SELECT o.state, o.answer FROM operations o
                WHERE o.payment_id = p.id AND o.command_type IN ('payment.create', 'payment.process')
                ORDER BY o.accepted DESC LIMIT 1) last
            WHERE p.status = 'input' AND p.busy_operation IS NULL AND last.state = 'settled' AND last.answer = 'failed'";
        let pending = self.ledger.pending();
        for row in self.world.query(sql, &[]).await {
            let payment: Uuid = row.get(0);
            let is_new = !pending.contains_key(&payment) && self.given_up.lock().unwrap().insert(payment);
            if is_new {
                self.send(self.command(payment, "payment.cancel", json!({}))).await;
            }
        }
    }

    /// Resolves what the gateway answered in another currency and, once the faults are over, everything else that was
    /// left to an operator: for example, what the gateway reported as pending and forgot when it stopped.
    async fn resolve(&self) {
        let sql = "SELECT o.payment_id, o.id, p.currency, o.last_code, o.takeovers::int, o.due_at IS NOT NULL FROM operations o
             JOIN payments p ON p.id = o.payment_id
             WHERE o.state IN ('unknown', 'pending') AND o.escalated";
        for row in self.world.query(sql, &[]).await {
            let operation: Uuid = row.get(1);
            let is_mismatch = row.get::<_, Option<&str>>(3) == Some("mismatch");
            let is_proved = self.variants.get(&row.get::<_, Uuid>(0)) == Some(&PROVED);
            let trust = match (is_proved, row.get(5)) {
                (true, _) => TRUST_IN_PROOF,
                (false, true) => TRUST_IN_LOOK_UPS,
                (false, false) => TRUST,
            };
            let is_the_clerks = is_mismatch || (self.calm.load(Ordering::Relaxed) && self.age(operation) > trust);
            let asked = self.resolutions.lock().unwrap().get(&operation).and_then(|all| all.last().cloned());
            let is_under_way = asked.is_some_and(|last| !self.upstream.is_answered(&last.command));
            if is_the_clerks && !is_under_way {
                self.say(operation, &row).await;
            }
        }
    }

    async fn say(&self, operation: Uuid, row: &Row) {
        let (payment, currency): (Uuid, &str) = (row.get(0), row.get(2));
        let effects = standing(&self.ledger.effects(payment));
        let effect = effects.iter().find(|effect| effect.operation_id == operation);
        let amount = effect.map(|effect| match effect.currency == currency {
            true => effect.amount,
            false => exchanged(effect.amount, currency),
        });
        if let Some(amount) = amount {
            // The gateway's staff corrects it on the clerk's word; otherwise its figures would contradict the books for
            // ever.
            self.ledger.put_right(payment, operation, amount, currency);
        }
        let mut data =
            json!({"operation": operation, "outcome": "not_charged", "evidence": "the statement of account"});
        if let Some(amount) = amount {
            data["outcome"] = json!("approved");
            data["transaction_id"] = json!("by-hand");
            if !amount.is_zero() {
                data["amount"] = json!(amount.to_string());
            }
        }
        let command = self.command(payment, "payment.resolve", data).user(&self.world.bus.user());
        let code = row.get::<_, Option<&str>>(3).unwrap_or_default().to_owned();
        let resolution = Resolution { command: command.clone(), amount, code, takeovers: row.get(4) };
        self.resolutions.lock().unwrap().entry(operation).or_default().push(resolution);
        self.send(command).await;
    }

    async fn sync(&self, payment: Uuid) {
        self.synced.lock().unwrap().insert(payment, Instant::now());
        self.send(self.command(payment, "payment.sync", json!({}))).await;
    }

    fn command(&self, payment: Uuid, kind: &str, data: Value) -> Command {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let variant = self.variants.get(&payment).copied().unwrap_or(CARDS);
        Command::new(variant, kind, payment, data).source("desk").id(&format!("d{number}"))
    }

    async fn send(&self, command: Command) {
        // After the end, nothing receives commands any more.
        self.publish.send(command).await.unwrap_or_default();
    }

    fn age(&self, id: Uuid) -> Duration {
        self.seen.lock().unwrap().entry(id).or_insert_with(Instant::now).elapsed()
    }

    fn forget(&self, id: Uuid) {
        self.seen.lock().unwrap().remove(&id);
    }
}

/// The amount that the clerk takes a foreign amount for.
fn exchanged(amount: Decimal, currency: &str) -> Decimal {
    let decimals = match currency {
        "JPY" => 0,
        "KWD" => 3,
        _ => 2,
    };
    let sum = amount * Decimal::new(9, 1);
    let mut sum = sum.round_dp_with_strategy(decimals, RoundingStrategy::AwayFromZero);
    sum.rescale(decimals);
    sum
}
