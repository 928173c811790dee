//! What a look-up is answered: the truth, or what misleads and is still within the gateway's contract.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{Behaviour, Booking, Books, Request};

/// How long after a change an older answer may still be given. Far below the settle window of whoever is misled: that
/// is how long the gateway says that it may not know of a change.
const BEHIND: Duration = Duration::from_millis(300);

impl Books {
    /// The answer to a look-up that meets this; it is met only where there is something to mislead with.
    pub fn look_up(&mut self, request: &Request, behaviour: &Behaviour) -> Value {
        let current = self.status(request);
        let misleading = match behaviour {
            Behaviour::Repeat => self.repeated(request),
            Behaviour::Another => self.of_another(request),
            _ => None,
        };
        if misleading.is_some() || matches!(behaviour, Behaviour::Late(_)) {
            self.meet(behaviour);
        }
        if let Some(answer) = misleading {
            return answer;
        }
        self.last_answers.insert((request.payment_id, request.target), (Instant::now(), current.clone()));
        current
    }

    /// The last answer to the same question, where nothing changed since, or only just.
    fn repeated(&self, request: &Request) -> Option<Value> {
        let (at, answer) = self.last_answers.get(&(request.payment_id, request.target))?;
        let changed = self.changed.get(&request.payment_id).filter(|changed| *changed > at);
        changed.is_none_or(|changed| changed.elapsed() < BEHIND).then(|| answer.clone())
    }

    /// The approval of another operation of the payment, under its own id and with what it moved.
    fn of_another(&self, request: &Request) -> Option<Value> {
        let target = request.target?;
        let keys = self.keys.get(&request.payment_id)?;
        let bookings: Vec<&Booking> = keys.iter().filter_map(|key| self.bookings.get(key)).collect();
        let moved = |booking: &&Booking| matches!(booking.effect.kind, "refund" | "capture") && booking.is_approved();
        let other = bookings.into_iter().filter(moved).find(|booking| booking.operation_id != target)?;
        let mut answer = other.answer.clone().filter(|answer| answer["currency"] == *request.effect.currency)?;
        answer["operation_id"] = json!(other.operation_id);
        answer["transactions"] = json!([{
            "kind": other.effect.kind, "reference": answer["transaction_id"], "state": "done",
            "amount": answer["amount"], "operation_id": other.operation_id,
        }]);
        Some(answer)
    }
}
