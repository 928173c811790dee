//! What the gateway's calls meet, drawn for each payment: every way in which a gateway fails, and the answers that are
//! neither a failure nor a plain success.

use std::time::Duration;

use crate::rng::Rng;
use crate::support::Behaviour;

/// What the next calls of one operation meet, in order.
#[derive(Debug, Clone)]
pub struct OperationFaults {
    /// `process`, `capture`, ..., `status`.
    pub operation: &'static str,
    /// One entry per call.
    pub behaviours: Vec<Behaviour>,
}

/// The operations that act.
const ACTIONS: [&str; 5] = ["process", "capture", "refund", "release", "cancel"];

/// Draws the faults of one payment. If an amount is wrong, `text` writes it from the smallest unit.
pub fn draw(rng: &mut Rng, currency: &str, text: impl Fn(u64) -> String, total: u64) -> Vec<OperationFaults> {
    let mut faults = Vec::new();
    for operation in ACTIONS {
        let count = match rng.between(0, 99) {
            0..45 => 0,
            45..80 => 1,
            80..92 => 2,
            _ => rng.between(3, 5),
        };
        let behaviours: Vec<Behaviour> =
            (0..count).map(|_| behaviour(rng, operation, currency, &text, total)).collect();
        faults.push(OperationFaults { operation, behaviours });
    }
    let questions = (0..rng.between(0, 2)).map(|_| failure(rng)).collect();
    faults.push(OperationFaults { operation: "status", behaviours: questions });
    faults.retain(|fault| !fault.behaviours.is_empty());
    faults
}

/// Look-ups of some payments that are true and mislead nevertheless.
pub fn misleading(rng: &mut Rng) -> Option<OperationFaults> {
    let count = rng.between(1, 2);
    let draw = |rng: &mut Rng| match rng.between(0, 2) {
        // Some arrive in time.
        0 => Behaviour::Late(rng.millis(300, 1_700)),
        1 => Behaviour::Repeat,
        _ => Behaviour::Another,
    };
    let behaviours = (0..count).map(|_| draw(rng)).collect();
    rng.chance(30).then_some(OperationFaults { operation: "status", behaviours })
}

/// Every kind of fault once, each for its own charge.
pub fn samples() -> Vec<Behaviour> {
    vec![
        Behaviour::Decline("do_not_honor".to_owned()),
        Behaviour::Redirect("https://bank.example/3ds".to_owned()),
        Behaviour::Pending,
        Behaviour::Refuse,
        Behaviour::Portion(50),
        Behaviour::WrongCurrency("GBP".to_owned()),
        Behaviour::HangBefore,
        Behaviour::HangAfter,
        Behaviour::DropAfter,
        Behaviour::Error500After,
        Behaviour::Status(503, None),
        Behaviour::Status(429, Some(1)),
        Behaviour::Garbage,
        Behaviour::Truncated,
        Behaviour::Trickle(Duration::from_millis(4)),
        Behaviour::Delay(Duration::from_millis(900)),
    ]
}

/// The fault of one call.
fn behaviour(rng: &mut Rng, operation: &str, currency: &str, text: impl Fn(u64) -> String, total: u64) -> Behaviour {
    let moves_money = matches!(operation, "process" | "capture" | "refund");
    match rng.between(0, 99) {
        0..54 => failure(rng),
        54..61 => Behaviour::Decline("do_not_honor".to_owned()),
        61..75 if operation == "process" => Behaviour::Redirect("https://bank.example/3ds".to_owned()),
        61..81 => Behaviour::Pending,
        81..85 => Behaviour::Refuse,
        85..93 if operation == "process" => Behaviour::WrongAmount(text(rng.between(1, total + total / 10))),
        // No gateway refunds or captures more than there is.
        85..93 if moves_money => Behaviour::Portion(u32::try_from(rng.between(1, 99)).unwrap_or(50)),
        // With at least as many decimals, so that the amount can be read.
        93..98 if moves_money => Behaviour::WrongCurrency(if currency == "KWD" { "BHD" } else { "GBP" }.to_owned()),
        _ => Behaviour::Approve,
    }
}

/// A failure that any call may meet, whether it acts or asks.
fn failure(rng: &mut Rng) -> Behaviour {
    match rng.between(0, 10) {
        0 => Behaviour::HangBefore,
        1 => Behaviour::HangAfter,
        2 | 3 => Behaviour::DropAfter,
        4 => Behaviour::Error500After,
        5 => Behaviour::Status(503, None),
        6 => Behaviour::Status(429, Some(1)),
        7 => Behaviour::Garbage,
        8 => Behaviour::Truncated,
        // Some finish in time, some do not.
        9 => Behaviour::Trickle(rng.millis(1, 16)),
        _ => Behaviour::Delay(rng.millis(500, 2_500)),
    }
}
