//! Wrong commands of every kind: each must be rejected, finally, and must not affect others.

use serde_json::json;

use crate::rng::Rng;
use crate::support::Command;

/// The beginning of bodies that are not commands: they must become dead letters.
const GARBAGE: &[u8] = b"chaos: no command ";

/// Whether a command was drawn here.
pub fn is_wrong(command: &Command) -> bool {
    command.source == SOURCE || command.data["amount"] == SPOILT
}

/// The source of wrong commands.
const SOURCE: &str = "chaos/wrong";
/// Whether a wrong command uses the name of a correct one.
pub fn is_name_taken(command: &Command) -> bool {
    command.source != SOURCE && is_wrong(command)
}

/// The amount that replaces that of a correct command.
const SPOILT: &str = "0.00001";

/// Draws a wrong command for a correct one.
pub fn draw(rng: &mut Rng, right: &Command, number: u32) -> Command {
    let then = |kind: &str, data| right.then(kind, data).source(SOURCE).id(&format!("w{number}"));
    let refund = |amount| then("payment.refund", json!({"amount": amount}));
    match rng.between(0, 13) {
        0 => refund(json!("1")).payment(rng.uuid()),
        1 => then("payment.frobnicate", json!({})),
        2 => {
            let create = json!({"variant": "nowhere", "total": "1", "currency": "EUR"});
            let mut command = then("payment.create", create).payment(rng.uuid());
            "nowhere".clone_into(&mut command.variant);
            command
        }
        3 => refund(json!("1")).routed(&format!("{}.payment.capture", right.variant)),
        4 => refund(json!(3.5)),
        5 => refund(json!("-1")),
        6 => refund(json!("1.23456")),
        7 => refund(json!("1")).with("surprise", json!(true)),
        // The same name with other data.
        8 => right.clone().with("amount", json!(SPOILT)),
        9 => then(
            "payment.resolve",
            // Belongs to no payment, so that no unknown outcome is resolved.
            json!({"operation": rng.uuid(), "outcome": "declined", "evidence": "none"}),
        ),
        10 => {
            let data = json!({"received_at": "2026-11-22T12:00:00Z", "method": "POST", "url": "/", "headers": [],
                              "body_base64": ""});
            then("payment.notification", data)
        }
        11 => {
            let create =
                json!({"variant": "http", "total": "1", "currency": "EUR", "description": "4111 1111 1111 1111"});
            then("payment.create", create)
        }
        12 => {
            let create = json!({"variant": "http", "total": "1", "currency": "EUR", "process": {}});
            then("payment.create", create).payment(rng.uuid()).attribute("expirytime", json!("2020-01-01T00:00:00Z"))
        }
        _ => then("payment.refund", json!({})).raw([GARBAGE, rng.uuid().to_string().as_bytes()].concat()),
    }
}
