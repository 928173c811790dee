//! Undoing, by the key that was sent.

use serde_json::{Value, json};
use uuid::Uuid;

use super::super::Effect;
use super::{Books, Request, answer_of};

impl Books {
    /// Undoes what is booked under a key, once, and says what it was.
    pub fn undo(&mut self, request: &Request) -> Value {
        let booking = request.undoes.as_ref().and_then(|key| self.bookings.get_mut(key));
        let Some(booking) = booking else { return json!({"result": "not_found"}) };
        let Some(answer) = booking.answer.clone() else { return json!({"result": "pending"}) };
        match answer["result"].as_str().unwrap_or_default() {
            "approved" => {
                let (amount, currency) = (&answer["amount"], &answer["currency"]);
                let reference = &answer["transaction_id"];
                let undone =
                    json!({"result": "undone", "reference": reference, "amount": amount, "currency": currency});
                booking.answer = Some(undone.clone());
                let (operation_id, key) = (Uuid::new_v4(), format!("undo-{}", booking.effect.key));
                let void = Effect { kind: "void", operation_id, key, ..booking.effect.clone() };
                self.report(request.payment_id, &void);
                self.effects.entry(request.payment_id).or_default().push(void);
                undone
            }
            // Nothing was moved, and nothing will be.
            "pending" => {
                booking.answer = Some(answer_of(&booking.effect, "declined"));
                json!({"result": "undone", "transactions": []})
            }
            _ => answer,
        }
    }
}
