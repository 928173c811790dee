//! Payments at gateways that cannot be asked: one whose webhooks are proof, and one that undoes what is lost. And
//! payments that are charged only by a confirmation, after their customer has approved.

use std::time::Duration;

use serde_json::json;

use super::{CARDS, Customer, PROVED, Script, UNDOING, Writer};
use crate::faults::OperationFaults;
use crate::ledger::{GatewayName, Ledger, Report};
use crate::rng::Rng;
use crate::support::Behaviour;
use crate::tally::Tally;

const TAKEN: &str = "a webhook that is proof is taken";
const UNDONE: &str = "a lost charge is undone";
const CONFIRMED: &str = "a charge is confirmed after its customer approved";

/// How many payments of each kind begin in the first half.
const SAMPLES: u64 = 4;

/// What must have happened at the end, by the names under which it is counted.
pub fn kinds(gateway: GatewayName) -> Vec<&'static str> {
    if gateway == GatewayName::Http { vec![TAKEN, UNDONE, CONFIRMED] } else { Vec::new() }
}

/// Counts what the gateway did, and the webhooks that were answered with 200.
pub fn count(ledger: &dyn Ledger, accepted: &[Report], tally: &Tally) {
    let add = |what: &str, count: usize| {
        if count > 0 {
            tally.add_many(what, count);
        }
    };
    add(TAKEN, accepted.iter().filter(|report| report.variant == PROVED).count());
    add(UNDONE, ledger.effects_of_all().values().flatten().filter(|effect| effect.kind == "void").count());
    add(CONFIRMED, ledger.requests().iter().filter(|request| request.action == "confirm").count());
}

impl Script {
    /// One of each kind every other second, and some more in the first half.
    pub fn unasked(length: Duration, rng: &mut Rng) -> Vec<Script> {
        let millis = length.as_millis() as u64;
        let mut scripts = Vec::new();
        for number in 0..SAMPLES + length.as_secs() / 2 {
            let latest = if number < SAMPLES { millis / 2 } else { millis };
            let mut at = || rng.millis(0, latest);
            let times = [at(), at(), at()];
            scripts.push(Script::proved(times[0], rng));
            scripts.push(Script::undoing(times[1], rng));
            scripts.push(Script::approved(times[2], rng));
        }
        scripts
    }

    /// Whether an older release may not know what its gateway does.
    pub fn is_of_this_release(&self) -> bool {
        let approves = |fault: &OperationFaults| fault.behaviours.iter().any(|it| matches!(it, Behaviour::Approval(_)));
        matches!(self.variant, PROVED | UNDOING) || self.faults.iter().any(approves)
    }

    /// Webhooks that are proof report its results, and none of them is lost.
    fn proved(at: Duration, rng: &mut Rng) -> Script {
        let draw = |rng: &mut Rng| match rng.between(0, 4) {
            0 => Behaviour::Pending,
            1 => Behaviour::Decline("do_not_honor".to_owned()),
            _ => lost(rng),
        };
        let process = OperationFaults { operation: "process", behaviours: vec![draw(rng)] };
        let refunds = OperationFaults { operation: "refund", behaviours: vec![draw(rng), draw(rng)] };
        let script = Script::write(at, PROVED, GatewayName::Http, rng, |writer| writer.charge_and_refund(2));
        let customer = Customer { is_seen: false, ..script.customer };
        Script { faults: vec![process, refunds], customer, ..script }
    }

    /// What is lost is undone, and the shop tries again.
    fn undoing(at: Duration, rng: &mut Rng) -> Script {
        let behaviour = if rng.chance(20) { Behaviour::HangBefore } else { lost(rng) };
        let faults = vec![OperationFaults { operation: "process", behaviours: vec![behaviour] }];
        let script = Script::write(at, UNDOING, GatewayName::Http, rng, |writer| writer.charge_twice());
        Script { faults, ..script }
    }

    /// The customer is redirected to approve, and the approved charge must be confirmed.
    fn approved(at: Duration, rng: &mut Rng) -> Script {
        let approval = Behaviour::Approval("https://wallet.example/approve".to_owned());
        let script = Script::write(at, CARDS, GatewayName::Http, rng, |writer| writer.charge());
        Script { faults: vec![OperationFaults { operation: "process", behaviours: vec![approval] }], ..script }
    }
}

impl Writer<'_> {
    fn charge_twice(&mut self) {
        self.charge();
        let object = self.process_object();
        let again = self.command("payment.process", json!({"process": object}));
        self.step(vec![again]);
    }
}

/// The gateway acts, and its answer does not arrive, or not in time.
fn lost(rng: &mut Rng) -> Behaviour {
    match rng.between(0, 5) {
        0 => Behaviour::HangAfter,
        1 => Behaviour::Error500After,
        2 => Behaviour::Garbage,
        3 => Behaviour::Truncated,
        4 => Behaviour::Delay(rng.millis(1_000, 2_500)),
        _ => Behaviour::DropAfter,
    }
}
