//! What one payment's upstream, customer and gateway will do, drawn from the seed: the commands, the faults that the
//! gateway's calls meet, and whether the customer returns.

use std::time::Duration;

use serde_json::json;
use uuid::Uuid;

use crate::faults::{self, OperationFaults};
use crate::ledger::GatewayName;
use crate::rng::Rng;
use crate::support::{Behaviour, Command};
use crate::wrong;

pub mod captures;
mod look_ups;
pub mod unasked;

/// The variant that calls the gateway with a ledger.
pub const CARDS: &str = "cards";
/// The variant that calls the same gateway as one without idempotency keys.
pub const KEYLESS: &str = "keyless";
/// The variant that calls it as one that cannot be asked, and whose webhooks are proof.
pub const PROVED: &str = "proved";
/// The variant that calls it as one that cannot be asked, and undoes what is lost.
pub const UNDOING: &str = "undoing";
/// The variant of the gateway that keeps no ledger.
pub const DUMMY: &str = "default";

/// The queue for replies; its name is the same in every world (see `replies`).
pub const REPLIES: &str = "reply.chaos";

/// Currencies with their decimals.
const CURRENCIES: [(&str, u32); 4] = [("EUR", 2), ("USD", 2), ("JPY", 0), ("KWD", 3)];

/// One payment's script.
#[derive(Debug, Clone)]
pub struct Script {
    /// When it begins.
    pub at: Duration,
    /// The payment.
    pub payment: Uuid,
    /// Its variant.
    pub variant: &'static str,
    /// The commands.
    pub steps: Vec<Step>,
    /// What the gateway's calls meet.
    pub faults: Vec<OperationFaults>,
    /// What customers do when they are redirected, and how pending operations end.
    pub customer: Customer,
}

/// Commands that are published together, and when.
#[derive(Debug, Clone)]
pub struct Step {
    /// When.
    pub pace: Pace,
    /// What: several of them race.
    pub commands: Vec<Command>,
}

/// When a step follows the one before.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// When the previous one is answered, as a careful upstream does.
    Answered,
    /// After a pause, whatever happened to it.
    Pause(Duration),
}

/// How pending operations end.
#[derive(Debug, Clone, Copy)]
pub struct Customer {
    /// After this time.
    pub after: Duration,
    /// Whether the customer pays.
    pub pays: bool,
    /// The customer never returns from a redirect, and is given up only at the end.
    pub vanishes: bool,
    /// The shop sees the customer return and asks with `payment.sync`. Otherwise only a webhook reports it.
    pub is_seen: bool,
}

/// Draws the commands of one payment.
struct Writer<'a> {
    rng: &'a mut Rng,
    payment: Uuid,
    variant: &'static str,
    gateway: GatewayName,
    currency: &'static str,
    decimals: u32,
    /// In the smallest unit.
    total: u64,
    steps: Vec<Step>,
    written: u32,
}

impl Script {
    /// Draws a script that begins at this time.
    pub fn draw(at: Duration, gateway: GatewayName, rng: &mut Rng) -> Script {
        let variant = match rng.between(0, 99) {
            0..8 => DUMMY,
            8..28 if gateway == GatewayName::Http => KEYLESS,
            _ => CARDS,
        };
        Script::write(at, variant, gateway, rng, |writer| writer.write())
    }

    /// A script whose only call meets this, so that it happens whatever else is drawn.
    pub fn sample(at: Duration, gateway: GatewayName, behaviour: Behaviour, rng: &mut Rng) -> Script {
        let mut script = Script::write(at, CARDS, gateway, rng, |writer| writer.charge());
        // In another currency the amount must have as many decimals, so that it can be read.
        let is_long = script.steps[0].commands[0].data["currency"] == "KWD";
        let behaviour = match behaviour {
            Behaviour::WrongCurrency(_) if is_long => Behaviour::WrongCurrency("BHD".to_owned()),
            behaviour => behaviour,
        };
        script.faults = vec![OperationFaults { operation: "process", behaviours: vec![behaviour] }];
        script
    }

    fn write(
        at: Duration,
        variant: &'static str,
        gateway: GatewayName,
        rng: &mut Rng,
        write: impl FnOnce(&mut Writer<'_>),
    ) -> Script {
        let payment = rng.uuid();
        let (currency, decimals) = *rng.pick(&CURRENCIES);
        let total = rng.between(200, 99_999);
        let customer = Customer {
            after: rng.millis(100, 4_000),
            pays: rng.chance(75),
            vanishes: rng.chance(15),
            is_seen: rng.chance(50),
        };
        let mut writer =
            Writer { rng, payment, variant, gateway, currency, decimals, total, steps: vec![], written: 0 };
        write(&mut writer);
        let steps = writer.steps;
        let faults = faults::draw(rng, currency, |minor| text(minor, decimals), total);
        Script { at, payment, variant, steps, faults, customer }
    }
}

/// An amount in the smallest unit as text.
fn text(minor: u64, decimals: u32) -> String {
    rust_decimal::Decimal::new(i64::try_from(minor).unwrap_or(i64::MAX), decimals).to_string()
}

impl Writer<'_> {
    /// The whole life of a payment.
    fn write(&mut self) {
        match self.rng.between(0, 10) {
            0..=3 => {
                self.charge();
                self.refunds();
            }
            4 => {
                self.create_then_process();
                self.refunds();
            }
            5..=7 => {
                self.authorize();
                self.end_authorization();
                self.refunds();
            }
            8 => {
                self.charge();
                let again = self.process();
                self.step(vec![again]);
                self.refunds();
            }
            9 => self.cancel(),
            _ => {
                self.charge();
                self.crowd();
            }
        }
    }

    /// Many commands at once for one payment.
    fn crowd(&mut self) {
        let size = self.rng.between(6, 15);
        let mut crowd: Vec<Command> = (0..size).map(|_| self.refund_up_to(self.total / 10)).collect();
        crowd.push(self.command("payment.sync", json!({})));
        self.rng.shuffle(&mut crowd);
        self.step(crowd);
    }

    fn charge(&mut self) {
        let process = self.process_object();
        let create = self.create().with("process", process);
        self.step(vec![create]);
    }

    fn create_then_process(&mut self) {
        let create = self.create();
        self.step(vec![create]);
        let mut processes = vec![self.process()];
        if self.rng.chance(30) {
            processes.push(self.process());
        }
        self.step(processes);
    }

    fn authorize(&mut self) {
        let process = self.process_object();
        let create = self.create().with("capture", json!(false)).with("process", process);
        self.step(vec![create]);
    }

    fn end_authorization(&mut self) {
        let part = self.rng.between(1, self.total);
        let (part, whole) = (text(part, self.decimals), text(self.total, self.decimals));
        let commands = match self.rng.between(0, 5) {
            0 => vec![self.command("payment.capture", json!({}))],
            1 => vec![self.command("payment.capture", json!({"amount": part}))],
            2 => vec![self.command("payment.release", json!({}))],
            3 => vec![
                self.command("payment.capture", json!({"amount": whole})),
                self.command("payment.release", json!({})),
            ],
            4 => vec![
                self.command("payment.release", json!({})),
                self.command("payment.capture", json!({"amount": part})),
            ],
            _ => vec![
                self.command("payment.capture", json!({"amount": part})),
                self.command("payment.capture", json!({"amount": whole})),
            ],
        };
        self.step(commands);
    }

    fn refunds(&mut self) {
        for _ in 0..self.rng.between(0, 3) {
            let mut refunds = vec![self.refund()];
            if self.rng.chance(25) {
                refunds.push(self.refund());
            }
            self.step(refunds);
        }
    }

    fn refund(&mut self) -> Command {
        let most = if self.rng.chance(70) { self.total / 2 } else { self.total + 1 };
        self.refund_up_to(most)
    }

    fn refund_up_to(&mut self, most: u64) -> Command {
        let amount = text(self.rng.between(1, most), self.decimals);
        let data = if self.rng.chance(20) { json!({}) } else { json!({"amount": amount}) };
        self.command("payment.refund", data)
    }

    fn cancel(&mut self) {
        let create = self.create();
        let cancel = self.command("payment.cancel", json!({}));
        match self.rng.between(0, 2) {
            0 => {
                self.step(vec![create]);
                self.step(vec![cancel]);
            }
            1 => {
                let process = self.process_object();
                self.step(vec![create.with("process", process)]);
                self.step(vec![cancel]);
            }
            _ => {
                self.step(vec![create]);
                let process = self.process();
                self.step(vec![process, cancel]);
            }
        }
        self.refunds();
    }

    fn create(&mut self) -> Command {
        let data = json!({"variant": self.variant, "total": text(self.total, self.decimals), "currency": self.currency,
                          "description": "chaos"});
        self.command("payment.create", data)
    }

    fn process(&mut self) -> Command {
        let process = self.process_object();
        self.command("payment.process", json!({"process": process}))
    }

    fn command(&mut self, kind: &str, data: serde_json::Value) -> Command {
        self.written += 1;
        let id = format!("c{}", self.written);
        let command = Command::new(self.variant, kind, self.payment, data).source("chaos").id(&id);
        if self.rng.chance(25) { command.reply_to(REPLIES, &id) } else { command }
    }

    /// A `process` object for the variant's gateway.
    fn process_object(&mut self) -> serde_json::Value {
        if self.variant != DUMMY {
            return self.gateway.process();
        }
        match self.rng.between(0, 4) {
            0 => json!({"status": "confirmed", "fail_times": 2}),
            1 => json!({"status": "confirmed", "latency_ms": 300}),
            2 => json!({"gateway_response": "failure"}),
            _ => json!({"status": "confirmed"}),
        }
    }

    /// Adds a step; now and then with exact duplicates of its commands, something wrong, or a look-up beside it.
    fn step(&mut self, mut commands: Vec<Command>) {
        if self.rng.chance(15) {
            let duplicate = self.rng.pick(&commands).clone();
            commands.extend(vec![duplicate; self.rng.between(1, 2) as usize]);
        }
        if self.rng.chance(8) {
            commands.push(self.command("payment.sync", json!({})));
        }
        if self.rng.chance(6) {
            commands.push(self.command("payment.snapshot", json!({})));
        }
        if self.rng.chance(6) {
            commands.push(self.command("payment.resend", json!({"from": "1"})));
        }
        if self.rng.chance(10) {
            let base = self.rng.pick(&commands).clone();
            self.written += 1;
            commands.push(wrong::draw(self.rng, &base, self.written));
        }
        let pace = if self.rng.chance(65) { Pace::Answered } else { Pace::Pause(self.rng.millis(0, 600)) };
        self.steps.push(Step { pace, commands });
    }
}
