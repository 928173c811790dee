//! Payments whose outcome only a look-up reveals, and that look-up misleads: each way happens, whatever else is drawn.

use std::time::Duration;

use serde_json::json;

use super::{KEYLESS, Script, Writer, text};
use crate::faults::OperationFaults;
use crate::ledger::GatewayName;
use crate::rng::Rng;
use crate::support::Behaviour;

/// The number of payments of each kind.
const SAMPLES: usize = 4;

/// The number of payments that get another operation's answer: more, because a worker that dies or an operator often
/// comes first.
const OTHERS: usize = 12;

impl Script {
    /// At the gateway without keys, where a lost answer is looked up.
    pub fn look_up_samples(length: Duration, rng: &mut Rng) -> Vec<Script> {
        let lost = || OperationFaults { operation: "process", behaviours: vec![Behaviour::DropAfter] };
        let status = |behaviours| OperationFaults { operation: "status", behaviours };
        let late = || vec![lost(), status(vec![Behaviour::Late(Duration::from_millis(700))])];
        // The first answer is lost, so that there is one to repeat.
        let repeat = || vec![lost(), status(vec![Behaviour::Error500After, Behaviour::Repeat])];
        // There is another refund, whose answer can be given instead of the second one's.
        let second =
            || OperationFaults { operation: "refund", behaviours: vec![Behaviour::Approve, Behaviour::DropAfter] };
        let another = || vec![second(), status(vec![Behaviour::Another, Behaviour::Another])];
        let mut scripts = Vec::new();
        for (faults, refunds, samples) in [(late(), 0, SAMPLES), (repeat(), 0, SAMPLES), (another(), 2, OTHERS)] {
            for _ in 0..samples {
                let at = rng.millis(0, length.as_millis() as u64 / 2);
                let sample =
                    Script::write(at, KEYLESS, GatewayName::Http, rng, |writer| writer.charge_and_refund(refunds));
                scripts.push(Script { faults: faults.clone(), ..sample });
            }
        }
        scripts
    }
}

impl Writer<'_> {
    /// A charge and this many refunds, with enough money for all of them.
    pub(super) fn charge_and_refund(&mut self, refunds: usize) {
        self.charge();
        for _ in 0..refunds {
            let amount = text(self.rng.between(1, self.total / 3), self.decimals);
            let refund = self.command("payment.refund", json!({"amount": amount}));
            self.step(vec![refund]);
        }
    }
}
