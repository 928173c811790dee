//! What the customer has approved, and is done when it is confirmed.

use serde_json::Value;
use uuid::Uuid;

use super::super::Behaviour;
use super::{Booking, Books, Request, act, answer_of};

impl Booking {
    /// Whether its customer has approved, and it awaits a confirmation.
    pub(super) fn is_ready(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer["result"] == "ready")
    }
}

impl Books {
    /// Confirms, once, under whatever key: the answer is that of the transaction.
    pub(super) fn confirm(&mut self, request: Request, behaviour: &Behaviour) -> Value {
        self.report(request.payment_id, &request.effect);
        let ready = self.keys_of(request.payment_id, Booking::is_ready);
        let done = self.keys_of(request.payment_id, |booking| booking.is_confirmed && booking.is_approved());
        let answered = done.first().and_then(|key| self.bookings.get(key)).and_then(|booking| booking.answer.clone());
        let (answer, effect) = match answered {
            Some(answer) => (answer, None),
            None if ready.is_empty() => {
                self.refuse(request.payment_id, &request.effect, "nothing is approved");
                (answer_of(&request.effect, "declined"), None)
            }
            None => act(request.effect, behaviour),
        };
        if let Some(effect) = effect {
            self.do_it(request.payment_id, effect);
        }
        for key in ready.iter().chain([&request.key]) {
            if let Some(booking) = self.bookings.get_mut(key) {
                booking.is_redirected = true;
                booking.is_confirmed = true;
                booking.answer = Some(answer.clone());
            }
        }
        answer
    }

    /// The keys of a payment whose bookings are so, in order of their first use.
    fn keys_of(&self, payment_id: Uuid, is_so: impl Fn(&Booking) -> bool) -> Vec<String> {
        let keys = self.keys.get(&payment_id).into_iter().flatten();
        keys.filter(|key| self.bookings.get(*key).is_some_and(&is_so)).cloned().collect()
    }
}
