//! What the gateway signs by itself, where that is proof.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::Effect;
use super::{Booking, Books};

impl Books {
    /// What can be proved of a payment as it stands now.
    pub fn proofs(&self, payment_id: Uuid) -> Vec<Value> {
        let bookings = self.keys.get(&payment_id).into_iter().flatten().filter_map(|key| self.bookings.get(key));
        let of_operations = bookings.filter_map(Booking::proof);
        let by_hand = self.effects.get(&payment_id).into_iter().flatten().filter(|effect| effect.key.is_empty());
        let of_manual_moves = by_hand.map(|effect| {
            let mut proof = proof_of(effect, "done", &format!("desk-{}", effect.operation_id));
            if let Some(members) = proof.as_object_mut() {
                members.remove("operation_id");
            }
            proof
        });
        let named = of_operations.chain(of_manual_moves).map(|mut proof| {
            proof["payment_id"] = json!(payment_id);
            proof
        });
        named.collect()
    }
}

impl Booking {
    /// What its answer would be as a proof; nothing while it is being worked on.
    fn proof(&self) -> Option<Value> {
        let answer = self.answer.as_ref()?;
        let state = match answer["result"].as_str()? {
            "approved" => "done",
            "ready" => "ready",
            "declined" => "failed",
            "undone" => "reversed",
            _ => "pending",
        };
        let mut proof = proof_of(&self.effect, state, answer["transaction_id"].as_str().unwrap_or_default());
        // What it answers is what it did.
        for name in ["amount", "currency"] {
            if let Some(value) = answer.get(name) {
                proof[name] = value.clone();
            }
        }
        Some(proof)
    }
}

/// A webhook's news of an effect, under the gateway's reference.
fn proof_of(effect: &Effect, state: &str, reference: &str) -> Value {
    let kind = match effect.kind {
        "charge" => "capture",
        "release" | "void" => "void",
        kind => kind,
    };
    let mut proof = json!({"operation_id": effect.operation_id, "kind": kind, "state": state});
    if kind != "cancel" {
        proof["reference"] = json!(reference);
        proof["amount"] = json!(effect.amount.to_string());
        proof["currency"] = json!(effect.currency);
    }
    proof
}
