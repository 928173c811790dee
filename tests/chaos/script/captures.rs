//! Several captures of one authorization, and the release of the rest.

use std::time::Duration;

use serde_json::{Value, json};

use super::{CARDS, Script, Writer, text};
use crate::ledger::{GatewayName, Ledger};
use crate::rng::Rng;
use crate::support::Command;
use crate::tally::Tally;

const SEVERAL: &str = "several captures of one authorization";
const RELEASED: &str = "a release of what several captures left";

/// What must have happened at the end, by the names under which it is counted.
pub const KINDS: [&str; 2] = [SEVERAL, RELEASED];

/// The number of payments without faults of the gateway, so that each kind happens whatever else is drawn.
const SAMPLES: usize = 4;

/// Counts what the gateway did.
pub fn count(ledger: &dyn Ledger, tally: &Tally) {
    for effects in ledger.effects_of_all().into_values() {
        let captures = effects.iter().filter(|effect| effect.kind == "capture").count();
        if captures > 1 {
            tally.add(SEVERAL);
        }
        if captures > 0 && effects.iter().any(|effect| effect.kind == "release") {
            tally.add(RELEASED);
        }
    }
}

impl Script {
    /// Payments with partial captures, one every other second.
    pub fn several_captures(length: Duration, gateway: GatewayName, rng: &mut Rng) -> Vec<Script> {
        let millis = length.as_millis() as u64;
        let mut scripts = Vec::new();
        for _ in 0..length.as_secs() / 2 {
            let at = rng.millis(0, millis);
            scripts.push(Script::write(at, CARDS, gateway, rng, |writer| writer.capture_in_parts(gateway)));
        }
        for _ in 0..SAMPLES {
            let at = rng.millis(0, millis / 2);
            let mut sample = Script::write(at, CARDS, gateway, rng, |writer| writer.capture_and_release());
            sample.faults.clear();
            scripts.push(sample);
        }
        scripts
    }
}

impl Writer<'_> {
    /// Captures of any size, possibly more than is left, and one of several endings, or none: the rest then stays held.
    fn capture_in_parts(&mut self, gateway: GatewayName) {
        self.authorize();
        for _ in 0..self.rng.between(1, 3) {
            let amount = text(self.rng.between(1, self.total * 2 / 3), self.decimals);
            self.capture(json!({"amount": amount, "final": false}));
        }
        match self.rng.between(0, 3) {
            0 => self.release_the_rest(),
            1 => self.capture(json!({})),
            2 => {
                let amount = text(self.rng.between(1, self.total / 3), self.decimals);
                self.capture(json!({"amount": amount, "final": true}));
            }
            _ => {}
        }
        // Stripe allows no refund before the last capture.
        if gateway == GatewayName::Http {
            self.refunds();
        }
    }

    fn capture_and_release(&mut self) {
        self.authorize();
        for _ in 0..2 {
            let amount = text(self.rng.between(1, self.total / 3), self.decimals);
            self.capture(json!({"amount": amount, "final": false}));
        }
        self.release_the_rest();
    }

    fn capture(&mut self, data: Value) {
        let capture: Command = self.command("payment.capture", data);
        self.step(vec![capture]);
    }

    fn release_the_rest(&mut self) {
        let release = self.command("payment.release", json!({}));
        self.step(vec![release]);
    }
}
