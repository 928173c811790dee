//! What the gateway knows: its keys, its ledger, and what it is planned to do.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::http::StatusCode;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{Behaviour, CallRecord, Effect, News, Pending, Refused};

mod approvals;
mod look_ups;
mod proofs;
mod undo;

/// What the keys begin with of a gateway that knows none.
pub(super) const KEYLESS: &str = "keyless";

/// Why a request is not acted on.
pub(super) type Refusal = (StatusCode, &'static str);

/// The parts of a request that the gateway looks at.
#[derive(Debug)]
pub(super) struct Request {
    pub operation: String,
    pub operation_id: Uuid,
    pub payment_id: Uuid,
    pub variant: String,
    pub target: Option<Uuid>,
    /// The key of what is to be undone.
    pub undoes: Option<String>,
    /// It is a process of a payment whose customer had to act.
    pub continues: bool,
    /// It is a capture that is not the last.
    pub is_partial: bool,
    pub key: String,
    pub body: Bytes,
    pub effect: Effect,
}

/// What is booked under a key.
#[derive(Debug)]
struct Booking {
    operation_id: Uuid,
    is_process: bool,
    body: Bytes,
    /// Its customer was sent away.
    is_redirected: bool,
    /// Its customer must approve, and then it must be confirmed.
    needs_confirmation: bool,
    /// A confirmation came.
    is_confirmed: bool,
    /// Nothing while it is being worked on.
    answer: Option<Value>,
    /// What completing it will do.
    effect: Effect,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    /// By payment and operation; nothing stands for any.
    pub plans: HashMap<(Option<Uuid>, Option<String>), VecDeque<Behaviour>>,
    pub default: Option<Behaviour>,
    pub latency: Duration,
    pub calls: Vec<CallRecord>,
    pub met: BTreeMap<&'static str, usize>,
    bookings: HashMap<String, Booking>,
    /// Keys by payment, in order of their first use.
    keys: HashMap<Uuid, Vec<String>>,
    pub effects: HashMap<Uuid, Vec<Effect>>,
    pub refused: Vec<Refused>,
    /// Operations that it was working on when it stopped.
    pub forgotten: BTreeSet<Uuid>,
    pub news: Vec<News>,
    /// By payment.
    variants: HashMap<Uuid, String>,
    /// Whether cancels of what is charged void it; where this is not said, they are declined.
    pub cancels_void: Option<bool>,
    /// Payments whose authorization was captured for good.
    captured: BTreeSet<Uuid>,
    /// Captures that leave the rest held.
    partial: BTreeSet<Uuid>,
    /// When something of a payment changed last.
    changed: HashMap<Uuid, Instant>,
    /// The last answer to each question, and when it was given: of a payment, and of an operation or the whole.
    last_answers: HashMap<(Uuid, Option<Uuid>), (Instant, Value)>,
}

impl Books {
    /// What this call meets: the most particular plan first.
    pub fn behaviour(&mut self, request: &Request) -> Behaviour {
        let payment = Some(request.payment_id);
        let operation = Some(request.operation.clone());
        let mut plans = vec![(payment, operation.clone()), (payment, None), (None, operation), (None, None)];
        if matches!(request.operation.as_str(), "status" | "undo") {
            plans.retain(|(_, operation)| operation.is_some());
        }
        let planned = plans.iter().find_map(|plan| self.plans.get_mut(plan)?.pop_front());
        planned.or_else(|| self.default.clone()).unwrap_or(Behaviour::Approve)
    }

    /// Takes a key into work, or brings the answer that is stored under it.
    pub fn reserve(&mut self, request: &Request) -> Result<Option<Value>, Refusal> {
        if let Some(booking) = self.bookings.get(&request.key) {
            if booking.body != request.body {
                let reason = "the key came before with another body";
                self.refuse(request.payment_id, &request.effect, reason);
                return Err((StatusCode::UNPROCESSABLE_ENTITY, reason));
            }
            let busy = (StatusCode::CONFLICT, "the key is being worked on");
            return booking.answer.clone().map(Some).ok_or(busy);
        }
        if request.is_partial {
            self.partial.insert(request.operation_id);
        }
        let booking = Booking {
            operation_id: request.operation_id,
            is_process: matches!(request.operation.as_str(), "process" | "confirm"),
            body: request.body.clone(),
            is_redirected: false,
            needs_confirmation: false,
            is_confirmed: false,
            answer: None,
            effect: request.effect.clone(),
        };
        self.bookings.insert(request.key.clone(), booking);
        self.variants.entry(request.payment_id).or_insert_with(|| request.variant.clone());
        self.changed.insert(request.payment_id, Instant::now());
        self.keys.entry(request.payment_id).or_default().push(request.key.clone());
        Ok(None)
    }

    /// Drops the keys that are in work: the gateway stopped before it acted on them.
    pub fn forget_unfinished(&mut self) {
        let unfinished = self.bookings.values().filter(|booking| booking.answer.is_none());
        self.forgotten.extend(unfinished.map(|booking| booking.operation_id));
        self.bookings.retain(|_, booking| booking.answer.is_some());
        for keys in self.keys.values_mut() {
            keys.retain(|key| self.bookings.contains_key(key));
        }
    }

    /// Notes that a call met this behaviour.
    pub fn meet(&mut self, behaviour: &Behaviour) {
        if !matches!(behaviour, Behaviour::Approve) {
            *self.met.entry(behaviour.name()).or_default() += 1;
        }
    }

    /// The payments that have something pending.
    pub fn pending(&self) -> HashMap<Uuid, Pending> {
        let mut all: HashMap<Uuid, Pending> = HashMap::new();
        for (payment, keys) in &self.keys {
            for booking in keys.iter().filter_map(|key| self.bookings.get(key)).filter(|booking| booking.is_pending()) {
                let pending = all.entry(*payment).or_default();
                let count = if booking.is_redirected { &mut pending.customers } else { &mut pending.others };
                *count += 1;
            }
        }
        all
    }

    /// Ends what is pending of a payment.
    pub fn complete(&mut self, payment_id: Uuid, approved: bool) {
        let mut customer_came = false;
        for key in self.keys.get(&payment_id).cloned().unwrap_or_default() {
            let Some(booking) = self.bookings.get(&key).filter(|booking| booking.is_pending()) else {
                continue;
            };
            let effect = booking.effect.clone();
            // Whoever went on with a transaction whose customer was sent away has a key of that same transaction.
            let is_same = booking.is_redirected && std::mem::replace(&mut customer_came, true);
            self.report(payment_id, &effect);
            // What is accepted reserves its own money.
            if let Some(booking) = self.bookings.get_mut(&key) {
                booking.answer = None;
            }
            let approved = approved && self.objection(payment_id, &effect).is_none();
            if let Some(booking) = self.bookings.get_mut(&key).filter(|it| approved && it.needs_confirmation) {
                booking.answer = Some(answer_of(&effect, "ready"));
                continue;
            }
            if let Some(booking) = self.bookings.get_mut(&key) {
                booking.answer = Some(answer_of(&effect, if approved { "approved" } else { "declined" }));
            }
            if approved && !is_same {
                self.do_it(payment_id, effect);
            }
        }
    }

    /// Why the ledger does not allow an effect, if it does not: what a real gateway would refuse.
    fn objection(&self, payment_id: Uuid, effect: &Effect) -> Option<&'static str> {
        let done = self.effects.get(&payment_id).map(Vec::as_slice).unwrap_or_default();
        let has = |kinds: &[&str]| done.iter().any(|done| kinds.contains(&done.kind));
        match effect.kind {
            "capture" if !has(&["authorization"]) => Some("nothing is authorized"),
            "capture" if self.captured.contains(&payment_id) => Some("it is captured already"),
            "capture" | "release" if has(&["release"]) => Some("the authorization is voided"),
            "capture"
                if effect.amount + self.sum(payment_id, &effect.currency, &["capture"])
                    > self.sum(payment_id, &effect.currency, &["authorization"]) =>
            {
                Some("more than is authorized")
            }
            "release" if !has(&["authorization"]) => Some("nothing is authorized"),
            "release" if self.captured.contains(&payment_id) => Some("it is captured"),
            "refund" if effect.amount > self.refundable(payment_id, &effect.currency) => {
                Some("more than can be refunded")
            }
            "cancel" if self.cancels_void.is_some() => None,
            "cancel" if has(&["charge", "authorization"]) => Some("it is charged"),
            "cancel" if has(&["cancel"]) => Some("it is cancelled already"),
            _ => None,
        }
    }

    /// What was captured and not refunded, less what refunds that are accepted will take.
    pub fn refundable(&self, payment_id: Uuid, currency: &str) -> Decimal {
        let keys = self.keys.get(&payment_id).into_iter().flatten().filter_map(|key| self.bookings.get(key));
        let accepted = keys.filter(|booking| booking.is_pending()).map(|booking| &booking.effect);
        let accepted = accepted.filter(|effect| effect.kind == "refund" && effect.currency == currency);
        let accepted: Decimal = accepted.map(|effect| effect.amount).sum();
        let gone = self.sum(payment_id, currency, &["refund", "void"]);
        self.sum(payment_id, currency, &["charge", "capture"]) - gone - accepted
    }

    /// Whether more of an authorization could be captured.
    pub fn holds(&self, payment_id: Uuid, currency: &str) -> bool {
        let done = self.effects.get(&payment_id).map(Vec::as_slice).unwrap_or_default();
        let is_over = self.captured.contains(&payment_id) || done.iter().any(|effect| effect.kind == "release");
        let sum = |kind| self.sum(payment_id, currency, &[kind]);
        !is_over && sum("authorization") > sum("capture")
    }

    fn refuse(&mut self, payment_id: Uuid, effect: &Effect, reason: &str) {
        self.refused.push(Refused { payment_id, effect: effect.clone(), reason: reason.to_owned() });
    }

    fn report(&mut self, payment_id: Uuid, effect: &Effect) {
        self.changed.insert(payment_id, Instant::now());
        let variant = self.variants.get(&payment_id).cloned().unwrap_or_default();
        self.news.push(News { payment_id, operation_id: effect.operation_id, variant });
    }

    /// Books an effect. A cancel is the end of whatever its payment had pending.
    fn do_it(&mut self, payment_id: Uuid, effect: Effect) {
        if effect.kind == "cancel" {
            for key in self.keys.get(&payment_id).into_iter().flatten() {
                let is_open = |booking: &&mut Booking| booking.is_pending() || booking.is_ready();
                if let Some(booking) = self.bookings.get_mut(key).filter(is_open) {
                    booking.answer = Some(answer_of(&booking.effect, "declined"));
                }
            }
            let charged = self.sum(payment_id, &effect.currency, &["charge"]);
            if self.cancels_void == Some(true) && !charged.is_zero() {
                let void = Effect { kind: "void", amount: charged, ..effect.clone() };
                self.effects.entry(payment_id).or_default().push(void);
            }
        }
        if effect.kind == "capture" && !self.partial.contains(&effect.operation_id) {
            self.captured.insert(payment_id);
        }
        self.effects.entry(payment_id).or_default().push(effect);
    }

    /// The process of this payment that sent its customer away.
    fn redirected(&self, payment_id: Uuid) -> Option<String> {
        let keys = self.keys.get(&payment_id)?;
        let is_redirected = |key: &&String| self.bookings.get(*key).is_some_and(|booking| booking.is_redirected);
        keys.iter().rev().find(is_redirected).cloned()
    }

    /// Acts: fixes the answer of a key that is in work, and books the effect.
    pub fn book(&mut self, request: Request, behaviour: &Behaviour) -> Value {
        if request.operation == "confirm" {
            return self.confirm(request, behaviour);
        }
        self.report(request.payment_id, &request.effect);
        let earlier = self.redirected(request.payment_id).filter(|_| request.continues);
        let ended = earlier.as_ref().and_then(|key| self.bookings.get(key)).filter(|booking| !booking.is_pending());
        // The customer came back: it is the same transaction, which may have ended meanwhile.
        let (answer, effect) = match ended.and_then(|booking| booking.answer.clone()) {
            Some(answer) => (answer, None),
            None => match self.objection(request.payment_id, &request.effect) {
                Some(reason) => {
                    self.refuse(request.payment_id, &request.effect, reason);
                    (answer_of(&request.effect, "declined"), None)
                }
                None => act(request.effect, behaviour),
            },
        };
        if let Some(effect) = effect {
            self.do_it(request.payment_id, effect);
        }
        for key in earlier.iter().chain([&request.key]) {
            if let Some(booking) = self.bookings.get_mut(key) {
                let is_sent_away = matches!(behaviour, Behaviour::Redirect(_) | Behaviour::Approval(_));
                booking.is_redirected = earlier.is_some() || is_sent_away;
                booking.needs_confirmation |= matches!(behaviour, Behaviour::Approval(_));
                booking.answer = Some(answer.clone());
            }
        }
        answer
    }

    /// Corrects the sum and the currency of what an operation did, and of what is told of it.
    pub fn put_right(&mut self, payment_id: Uuid, operation_id: Uuid, amount: Decimal, currency: &str) {
        self.changed.insert(payment_id, Instant::now());
        for effect in self.effects.entry(payment_id).or_default() {
            if effect.operation_id == operation_id {
                effect.amount = amount;
                currency.clone_into(&mut effect.currency);
            }
        }
        let bookings = self.bookings.values_mut().filter(|booking| booking.operation_id == operation_id);
        for answer in bookings.filter_map(|booking| booking.answer.as_mut()) {
            if answer.get("amount").is_some() {
                answer["amount"] = json!(amount.to_string());
                answer["currency"] = json!(currency);
            }
        }
    }

    /// The truth of one operation, or of a whole payment: that of a process that was approved, else of the last.
    pub fn status(&self, request: &Request) -> Value {
        let keys = self.keys.get(&request.payment_id).into_iter().flatten();
        let bookings = keys.filter_map(|key| self.bookings.get(key));
        let asked = match request.target {
            // Without keys one operation may be booked several times: what was done counts most.
            Some(target) => {
                bookings.filter(|booking| booking.operation_id == target).max_by_key(|booking| booking.is_approved())
            }
            None => bookings.filter(|booking| booking.is_process).max_by_key(|booking| booking.is_approved()),
        };
        let Some(booking) = asked else {
            return json!({"result": "not_found"});
        };
        let mut answer = booking.answer.clone().unwrap_or_else(|| json!({"result": "pending"}));
        // Sums are of the answer's own currency.
        let currency = answer["currency"].as_str().unwrap_or(&booking.effect.currency).to_owned();
        let refunded = self.sum(request.payment_id, &currency, &["refund"]);
        let captured = self.sum(request.payment_id, &currency, &["charge", "capture"])
            - refunded
            - self.sum(request.payment_id, &currency, &["void"]);
        answer["captured_amount"] = json!(captured.max(Decimal::ZERO).to_string());
        answer["refunded_amount"] = json!(refunded.to_string());
        answer
    }

    fn sum(&self, payment_id: Uuid, currency: &str, kinds: &[&str]) -> Decimal {
        let effects = self.effects.get(&payment_id).into_iter().flatten().filter(|effect| effect.currency == currency);
        effects.filter(|effect| kinds.contains(&effect.kind)).map(|effect| effect.amount).sum()
    }
}

impl Booking {
    fn is_pending(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer["result"] == "pending")
    }

    fn is_approved(&self) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer["result"] == "approved")
    }
}

/// What the gateway does and what it answers.
fn act(mut effect: Effect, behaviour: &Behaviour) -> (Value, Option<Effect>) {
    match behaviour {
        Behaviour::Decline(code) => {
            let mut answer = answer_of(&effect, "declined");
            answer["code"] = json!(code);
            (answer, None)
        }
        Behaviour::Pending => (answer_of(&effect, "pending"), None),
        Behaviour::Redirect(url) | Behaviour::Approval(url) => {
            let mut answer = answer_of(&effect, "pending");
            answer["redirect_url"] = json!(url);
            (answer, None)
        }
        Behaviour::WrongAmount(amount) => {
            effect.amount = Decimal::from_str_exact(amount).unwrap_or(effect.amount);
            let mut answer = answer_of(&effect, "approved");
            answer["amount"] = json!(amount);
            (answer, Some(effect))
        }
        Behaviour::Portion(percent) => {
            effect.amount = portion(effect.amount, *percent);
            (answer_of(&effect, "approved"), Some(effect))
        }
        Behaviour::WrongCurrency(currency) => {
            effect.currency.clone_from(currency);
            (answer_of(&effect, "approved"), Some(effect))
        }
        Behaviour::Say(members) | Behaviour::SayWhenNotified(_, members) => {
            let mut answer = answer_of(&effect, "approved");
            say(&mut answer, members);
            // What it says it did not do, it did not do.
            let effect = (answer["result"] != "declined").then_some(effect);
            (answer, effect)
        }
        _ => (answer_of(&effect, "approved"), Some(effect)),
    }
}

/// So many percent of an amount, in whole units of its last digit, and never nothing.
fn portion(amount: Decimal, percent: u32) -> Decimal {
    let scale = amount.scale();
    let mut part = (amount * Decimal::from(percent) / Decimal::ONE_HUNDRED).trunc_with_scale(scale);
    part.rescale(scale);
    if part.is_zero() { amount } else { part }
}

/// Puts members beside, or in place of, those of an answer. One that is null is left out.
pub(super) fn say(answer: &mut Value, members: &Value) {
    let Some(said) = answer.as_object_mut() else { return };
    for (name, value) in members.as_object().into_iter().flatten() {
        match value {
            Value::Null => said.remove(name),
            value => said.insert(name.clone(), value.clone()),
        };
    }
}

/// The answer that tells of an effect; of one without a sum, such as a cancel, it tells none.
fn answer_of(effect: &Effect, result: &str) -> Value {
    let mut answer = json!({"result": result, "transaction_id": format!("fake-{}", effect.operation_id)});
    answer["currency"] = json!(effect.currency);
    if !effect.amount.is_zero() {
        answer["amount"] = json!(effect.amount.to_string());
    }
    answer
}
