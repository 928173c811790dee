//! What the fake knows: payment intents, charges, refunds, disputes and reviews, as Stripe's own objects.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::cards::{self, Authentication, Card, Effect, Refunds, Risk};

/// An answer: its status and body.
#[derive(Debug, Clone, PartialEq)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

/// The objects, in order of their making.
#[derive(Debug, Default)]
pub struct Objects {
    pub base: String,
    pub intents: Vec<Value>,
    pub charges: Vec<Value>,
    pub refunds: Vec<Value>,
    pub disputes: Vec<Value>,
    pub reviews: Vec<Value>,
    /// How far its clock is ahead of ours, in seconds.
    pub clock_ahead: i64,
    /// How many payment intents its search knows; all of them where nothing is said.
    pub indexed: Option<usize>,
    /// The refunds of what was held and not captured.
    pub released: Vec<String>,
    /// What happened and is to be told: type and object.
    pub pending_events: Vec<(&'static str, Value)>,
}

pub type Reply = Result<Value, Answer>;

pub fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs().try_into().unwrap_or(i64::MAX))
}

fn new_id(prefix: &str) -> String {
    format!("{prefix}_{}", &Uuid::new_v4().simple().to_string()[..24])
}

/// An error of Stripe's form.
pub fn error(status: u16, kind: &str, code: &str, message: &str) -> Answer {
    let mut error = json!({"type": kind, "message": message,
        "doc_url": format!("https://stripe.com/docs/error-codes/{code}")});
    if !code.is_empty() {
        error["code"] = json!(code);
    }
    Answer { status, body: json!({"error": error}) }
}

fn invalid(code: &str, param: &str, message: &str) -> Answer {
    let mut answer = error(400, "invalid_request_error", code, message);
    answer.body["error"]["param"] = json!(param);
    answer
}

fn missing(what: &str, id: &str) -> Answer {
    error(404, "invalid_request_error", "resource_missing", &format!("No such {what}: '{id}'"))
}

fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    object[name].as_str().unwrap_or_default()
}

fn units(object: &Value, name: &str) -> Result<Option<i64>, Answer> {
    match &object[name] {
        Value::Null => Ok(None),
        Value::String(digits) => match digits.parse::<i64>() {
            Ok(units) if units > 0 => Ok(Some(units)),
            _ => Err(invalid("parameter_invalid_integer", name, &format!("Invalid integer: {digits}"))),
        },
        _ => Err(invalid("parameter_invalid_integer", name, "Invalid integer")),
    }
}

fn is_true(object: &Value, name: &str) -> bool {
    object[name] == "true"
}

fn position(all: &[Value], id: &str) -> Option<usize> {
    all.iter().position(|object| object["id"] == id)
}

impl Objects {
    fn intent(&self, id: &str) -> Result<usize, Answer> {
        position(&self.intents, id).ok_or_else(|| missing("payment_intent", id))
    }

    fn emit(&mut self, kind: &'static str, object: Value) {
        self.pending_events.push((kind, object));
    }

    /// `POST /v1/payment_intents`
    pub fn create(&mut self, form: &Value) -> Reply {
        check_fields(form, CREATE)?;
        let amount = units(form, "amount")?
            .ok_or_else(|| invalid("parameter_missing", "amount", "Missing required param: amount."))?;
        let currency = text(form, "currency");
        if currency.len() != 3 || currency.to_ascii_lowercase() != currency {
            return Err(invalid("", "currency", "Invalid currency"));
        }
        if let Some(method) = form["payment_method"].as_str() {
            find_card(method)?;
        }
        let capture_method = form["capture_method"].as_str().unwrap_or("automatic");
        let types = if form["payment_method_types"].is_array() {
            form["payment_method_types"].clone()
        } else {
            json!(["card"])
        };
        let id = new_id("pi");
        let intent = json!({
            "id": id, "object": "payment_intent", "amount": amount, "amount_capturable": 0, "amount_received": 0,
            "amount_details": {"tip": {}}, "capture_method": capture_method,
            "client_secret": format!("{id}_secret_{}", Uuid::new_v4().simple()), "confirmation_method": "automatic",
            "created": now() + self.clock_ahead, "currency": currency, "customer": form["customer"], "description": form["description"],
            "livemode": false, "metadata": metadata(form), "payment_method": form["payment_method"],
            "payment_method_options": form["payment_method_options"].as_object().cloned().unwrap_or_default(),
            "payment_method_types": types,
            "setup_future_usage": form["setup_future_usage"],
            "statement_descriptor_suffix": form["statement_descriptor_suffix"],
            "status": if form["payment_method"].is_null() { "requires_payment_method" } else { "requires_confirmation" },
        });
        let intent = with_nulls(intent, INTENT_NULLS);
        self.emit("payment_intent.created", intent.clone());
        self.intents.push(intent);
        let place = self.intents.len() - 1;
        if is_true(form, "confirm") {
            self.attempt(place, form)?;
        }
        Ok(self.intents[place].clone())
    }

    /// `POST /v1/payment_intents/{id}`
    pub fn update(&mut self, id: &str, form: &Value) -> Reply {
        check_fields(form, UPDATE)?;
        let place = self.intent(id)?;
        if let Some(method) = form["payment_method"].as_str() {
            find_card(method)?;
            let status = text(&self.intents[place], "status").to_owned();
            if !matches!(&*status, "requires_payment_method" | "requires_confirmation" | "requires_action") {
                let what = format!(
                    "This PaymentIntent's payment_method could not be updated because it has a status of {status}."
                );
                return Err(self.unexpected(place, &what));
            }
            let intent = &mut self.intents[place];
            intent["payment_method"] = json!(method);
            intent["status"] = json!("requires_confirmation");
            intent["next_action"] = Value::Null;
        }
        let intent = &mut self.intents[place];
        intent["last_payment_error"] = Value::Null;
        for (name, value) in metadata(form) {
            intent["metadata"][name] = value;
        }
        for name in ["capture_method", "customer", "description", "payment_method_types", "setup_future_usage"] {
            if !form[name].is_null() {
                intent[name] = form[name].clone();
            }
        }
        Ok(intent.clone())
    }

    /// `POST /v1/payment_intents/{id}/confirm`
    pub fn confirm(&mut self, id: &str, form: &Value) -> Reply {
        check_fields(form, CONFIRM)?;
        let place = self.intent(id)?;
        let status = text(&self.intents[place], "status").to_owned();
        if !matches!(&*status, "requires_payment_method" | "requires_confirmation") {
            let what = format!("This PaymentIntent could not be confirmed because it has a status of {status}.");
            return Err(self.unexpected(place, &what));
        }
        if let Some(method) = form["payment_method"].as_str() {
            find_card(method)?;
            self.intents[place]["payment_method"] = json!(method);
        }
        if self.intents[place]["payment_method"].is_null() {
            let what = "You cannot confirm this PaymentIntent because it's missing a payment method.";
            return Err(self.unexpected(place, what));
        }
        self.attempt(place, form)?;
        Ok(self.intents[place].clone())
    }

    fn unexpected(&self, place: usize, message: &str) -> Answer {
        let mut answer = error(400, "invalid_request_error", "payment_intent_unexpected_state", message);
        answer.body["error"]["payment_intent"] = self.intents[place].clone();
        answer
    }

    /// One attempt to pay.
    fn attempt(&mut self, place: usize, form: &Value) -> Result<(), Answer> {
        let card = find_card(text(&self.intents[place], "payment_method"))?;
        self.intents[place]["last_payment_error"] = Value::Null;
        if card.authentication == Authentication::None {
            return self.charge(place, card);
        }
        if is_true(form, "off_session") {
            let message = "Your card was declined. This transaction requires authentication.";
            return Err(self.fail(place, card, "authentication_required", Some("authentication_required"), message));
        }
        let id = text(&self.intents[place], "id").to_owned();
        let return_url = form["return_url"].as_str().filter(|_| !is_true(form, "use_stripe_sdk"));
        let next = match return_url {
            Some(return_url) => {
                let url = format!("{}/authenticate/{id}", self.base);
                json!({"type": "redirect_to_url", "redirect_to_url": {"return_url": return_url, "url": url}})
            }
            None => json!({"type": "use_stripe_sdk", "use_stripe_sdk": {"type": "three_d_secure_redirect"}}),
        };
        let intent = &mut self.intents[place];
        intent["status"] = json!("requires_action");
        intent["next_action"] = next;
        let snapshot = intent.clone();
        self.emit("payment_intent.requires_action", snapshot);
        Ok(())
    }

    /// The customer comes back from authenticating. Where to, if anywhere.
    pub fn authenticate(&mut self, id: &str, succeeds: bool) -> Reply {
        let place = self.intent(id)?;
        if self.intents[place]["status"] != "requires_action" {
            return Err(self.unexpected(place, "There is nothing to authenticate."));
        }
        let back = self.intents[place]["next_action"]["redirect_to_url"]["return_url"].clone();
        let card = find_card(text(&self.intents[place], "payment_method"))?;
        self.intents[place]["next_action"] = Value::Null;
        if succeeds {
            // That the issuer declines then is told by the payment intent.
            self.charge(place, card).ok();
        } else {
            let code = "payment_intent_authentication_failure";
            let message = "We are unable to authenticate your payment method. Please choose a different payment \
                method and try again.";
            let error = json!({"type": "invalid_request_error", "code": code, "message": message});
            self.end_attempt(place, error);
        }
        Ok(back)
    }

    fn charge(&mut self, place: usize, card: &Card) -> Result<(), Answer> {
        if let Effect::Decline(code, decline_code, message) = card.effect {
            return Err(self.fail(place, card, code, decline_code, message));
        }
        let mut charge = self.new_charge(place, card, true);
        let holds = self.intents[place]["capture_method"] == "manual";
        let amount = self.intents[place]["amount"].clone();
        charge["captured"] = json!(!holds);
        charge["amount_captured"] = if holds { json!(0) } else { amount.clone() };
        if card.risk == Risk::Elevated {
            let review = json!({
                "id": new_id("prv"), "object": "review", "billing_zip": null, "charge": charge["id"],
                "closed_reason": null, "created": now(), "ip_address": null, "ip_address_location": null,
                "livemode": false, "open": true, "opened_reason": "rule", "reason": "rule", "session": null,
                "payment_intent": self.intents[place]["id"],
            });
            charge["review"] = review["id"].clone();
            self.intents[place]["review"] = review["id"].clone();
            self.emit("review.opened", review.clone());
            self.reviews.push(review);
        }
        let intent = &mut self.intents[place];
        intent["latest_charge"] = charge["id"].clone();
        intent["status"] = json!(if holds { "requires_capture" } else { "succeeded" });
        intent[if holds { "amount_capturable" } else { "amount_received" }] = amount;
        let (id, snapshot) = (text(intent, "id").to_owned(), intent.clone());
        self.charges.push(charge);
        self.emit(
            if holds { "payment_intent.amount_capturable_updated" } else { "payment_intent.succeeded" },
            snapshot,
        );
        if let Some(reason) = card.dispute {
            self.dispute(&id, "needs_response", reason)?;
        }
        Ok(())
    }

    fn new_charge(&self, place: usize, card: &Card, is_paid: bool) -> Value {
        let intent = &self.intents[place];
        let (kind, network, reason, level, score) = match (card.risk, is_paid) {
            (Risk::Blocked, _) => ("blocked", "not_sent_to_network", json!("highest_risk_level"), "highest", 92),
            (Risk::Elevated, true) => {
                ("manual_review", "approved_by_network", json!("elevated_risk_level"), "elevated", 71)
            }
            (Risk::Highest, true) => ("authorized", "approved_by_network", Value::Null, "highest", 85),
            (_, true) => ("authorized", "approved_by_network", Value::Null, "normal", 12),
            (_, false) => ("issuer_declined", "declined_by_network", json!("generic_decline"), "normal", 12),
        };
        let charge = json!({
            "id": new_id("ch"), "object": "charge", "amount": intent["amount"], "amount_captured": 0,
            "amount_refunded": 0, "billing_details": {"address": null, "email": null, "name": null, "phone": null},
            "captured": false, "created": now(), "currency": intent["currency"], "customer": intent["customer"],
            "description": intent["description"], "disputed": false, "fraud_details": {}, "livemode": false,
            "metadata": intent["metadata"],
            "outcome": {"network_status": network, "reason": reason, "risk_level": level, "risk_score": score,
                "seller_message": null, "type": kind},
            "paid": is_paid, "payment_intent": intent["id"], "payment_method": intent["payment_method"],
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": card.last4,
                "exp_month": 12, "exp_year": 2034, "funding": "credit", "country": "US"}},
            "refunded": false, "status": if is_paid { "succeeded" } else { "failed" },
        });
        with_nulls(charge, CHARGE_NULLS)
    }

    /// A declined attempt: a failed charge, and the payment intent waits for another payment method.
    fn fail(
        &mut self,
        place: usize,
        card: &Card,
        code: &'static str,
        decline_code: Option<&'static str>,
        message: &str,
    ) -> Answer {
        let mut charge = self.new_charge(place, card, false);
        charge["failure_code"] = json!(code);
        charge["failure_message"] = json!(message);
        self.intents[place]["latest_charge"] = charge["id"].clone();
        let mut answer = error(402, "card_error", code, message);
        answer.body["error"]["charge"] = charge["id"].clone();
        if let Some(decline_code) = decline_code {
            answer.body["error"]["decline_code"] = json!(decline_code);
        }
        self.charges.push(charge);
        self.end_attempt(place, answer.body["error"].clone());
        answer.body["error"]["payment_intent"] = self.intents[place].clone();
        answer
    }

    fn end_attempt(&mut self, place: usize, error: Value) {
        let intent = &mut self.intents[place];
        intent["status"] = json!("requires_payment_method");
        intent["payment_method"] = Value::Null;
        intent["last_payment_error"] = error;
        let snapshot = intent.clone();
        self.emit("payment_intent.payment_failed", snapshot);
    }

    /// `POST /v1/payment_intents/{id}/capture`
    pub fn capture(&mut self, id: &str, form: &Value) -> Reply {
        check_fields(form, &["amount_to_capture", "expand", "final_capture", "metadata"])?;
        let place = self.intent(id)?;
        let status = text(&self.intents[place], "status").to_owned();
        if status != "requires_capture" {
            let what = format!("This PaymentIntent could not be captured because it has a status of {status}.");
            return Err(self.unexpected(place, &what));
        }
        let held = self.intents[place]["amount_capturable"].as_i64().unwrap_or_default();
        let several = self.intents[place]["payment_method_options"]["card"]["request_multicapture"] == "if_available";
        let received = self.intents[place]["amount_received"].as_i64().unwrap_or_default();
        // A last capture of nothing lets go of what is left of one that was captured in part.
        let lets_go = several && received > 0 && form["amount_to_capture"] == "0" && form["final_capture"] == "true";
        let amount = if lets_go { 0 } else { units(form, "amount_to_capture")?.unwrap_or(held) };
        if amount > held {
            return Err(invalid("amount_too_large", "amount_to_capture", "The amount to capture is too large."));
        }
        let intent = &mut self.intents[place];
        let is_last = !(several && form["final_capture"] == "false") || amount == held;
        let received = received + amount;
        if is_last {
            intent["status"] = json!("succeeded");
        }
        intent["amount_capturable"] = json!(if is_last { 0 } else { held - amount });
        intent["amount_received"] = json!(received);
        for (name, value) in metadata(form) {
            intent["metadata"][name] = value;
        }
        let (answer, charge) = (intent.clone(), text(intent, "latest_charge").to_owned());
        if let Some(charge) = position(&self.charges, &charge) {
            self.charges[charge]["captured"] = json!(is_last);
            self.charges[charge]["amount_captured"] = json!(received);
            if is_last {
                self.let_go(charge, held - amount);
            }
        }
        self.emit(
            if is_last { "payment_intent.succeeded" } else { "payment_intent.amount_capturable_updated" },
            answer.clone(),
        );
        Ok(answer)
    }

    /// What is not captured is refunded by itself.
    fn let_go(&mut self, charge: usize, rest: i64) {
        if rest == 0 {
            return;
        }
        let refund = new_refund(&self.charges[charge], rest, "succeeded");
        self.released.push(text(&refund, "id").to_owned());
        self.refunds.push(refund);
        self.count_refund(charge, rest);
    }

    /// `POST /v1/payment_intents/{id}/cancel`
    pub fn cancel(&mut self, id: &str, form: &Value) -> Reply {
        check_fields(form, &["cancellation_reason", "expand"])?;
        let place = self.intent(id)?;
        let status = text(&self.intents[place], "status").to_owned();
        if matches!(&*status, "succeeded" | "canceled" | "processing") {
            let what = format!("You cannot cancel this PaymentIntent because it has a status of {status}.");
            return Err(self.unexpected(place, &what));
        }
        let intent = &mut self.intents[place];
        intent["status"] = json!("canceled");
        intent["canceled_at"] = json!(now());
        intent["cancellation_reason"] = form["cancellation_reason"].clone();
        intent["amount_capturable"] = json!(0);
        intent["next_action"] = Value::Null;
        let answer = intent.clone();
        self.emit("payment_intent.canceled", answer.clone());
        Ok(answer)
    }

    /// `POST /v1/refunds`
    pub fn refund(&mut self, form: &Value) -> Reply {
        check_fields(form, &["payment_intent", "amount", "metadata", "reason", "expand"])?;
        let place = self.intent(text(form, "payment_intent"))?;
        let charge = position(&self.charges, text(&self.intents[place], "latest_charge"))
            .filter(|_| self.intents[place]["status"] == "succeeded")
            .ok_or_else(|| invalid("", "payment_intent", "This PaymentIntent does not have a successful charge."))?;
        let sum = |name: &str| self.charges[charge][name].as_i64().unwrap_or_default();
        let left = sum("amount") - sum("amount_refunded");
        if left == 0 {
            return Err(invalid("charge_already_refunded", "", "The charge has already been refunded."));
        }
        let amount = units(form, "amount")?.unwrap_or(left);
        if amount > left {
            let message = format!("Refund amount ({amount}) is greater than unrefunded amount on charge ({left})");
            return Err(invalid("", "amount", &message));
        }
        let card = find_card(text(&self.charges[charge], "payment_method"))?;
        let is_pending = card.refunds == Refunds::Pending;
        let mut refund = new_refund(&self.charges[charge], amount, if is_pending { "pending" } else { "succeeded" });
        refund["metadata"] = Value::Object(metadata(form));
        refund["reason"] = form["reason"].clone();
        self.count_refund(charge, amount);
        self.refunds.push(refund.clone());
        self.emit("refund.created", refund.clone());
        let snapshot = self.charges[charge].clone();
        self.emit("charge.refunded", snapshot);
        Ok(refund)
    }

    /// What was captured of a payment intent and not refunded.
    pub fn refundable(&self, payment_intent: &str) -> i64 {
        let charge =
            self.charges.iter().rfind(|charge| charge["payment_intent"] == payment_intent && charge["paid"] == true);
        let sum = |name: &str| charge.and_then(|charge| charge[name].as_i64()).unwrap_or_default();
        if sum("amount_captured") == 0 { 0 } else { sum("amount") - sum("amount_refunded") }
    }

    fn count_refund(&mut self, charge: usize, amount: i64) {
        let charge = &mut self.charges[charge];
        let refunded = charge["amount_refunded"].as_i64().unwrap_or_default() + amount;
        charge["refunded"] = json!(charge["amount"] == refunded);
        charge["amount_refunded"] = json!(refunded);
    }

    /// A refund that ends, or that fails later.
    pub fn end_refund(&mut self, id: &str, status: &str) -> Reply {
        let place = position(&self.refunds, id).ok_or_else(|| missing("refund", id))?;
        let was_given = matches!(text(&self.refunds[place], "status"), "pending" | "succeeded");
        let refund = &mut self.refunds[place];
        refund["status"] = json!(status);
        let fails = matches!(status, "failed" | "canceled");
        if fails {
            refund["failure_reason"] = json!("expired_or_canceled_card");
        }
        let (amount, charge) = (refund["amount"].as_i64().unwrap_or_default(), text(refund, "charge").to_owned());
        let answer = refund.clone();
        if let Some(charge) = position(&self.charges, &charge).filter(|_| fails && was_given) {
            self.count_refund(charge, -amount);
        }
        self.emit(if fails { "refund.failed" } else { "refund.updated" }, answer.clone());
        Ok(answer)
    }

    /// A dispute is opened, or goes on.
    pub fn dispute(&mut self, payment_intent: &str, status: &str, reason: &str) -> Reply {
        let place = self.intent(payment_intent)?;
        let charge = position(&self.charges, text(&self.intents[place], "latest_charge"))
            .ok_or_else(|| missing("charge", payment_intent))?;
        self.charges[charge]["disputed"] = json!(true);
        if let Some(known) = self.disputes.iter().position(|dispute| dispute["payment_intent"] == payment_intent) {
            self.disputes[known]["status"] = json!(status);
            let answer = self.disputes[known].clone();
            let is_closed = matches!(status, "won" | "lost" | "warning_closed");
            self.emit(if is_closed { "charge.dispute.closed" } else { "charge.dispute.updated" }, answer.clone());
            return Ok(answer);
        }
        let dispute = json!({
            "id": new_id("dp"), "object": "dispute", "amount": self.charges[charge]["amount_captured"],
            "balance_transactions": [], "charge": self.charges[charge]["id"], "created": now(),
            "currency": self.charges[charge]["currency"], "evidence": {}, "evidence_details": {"due_by": null,
            "has_evidence": false, "past_due": false, "submission_count": 0}, "is_charge_refundable": false,
            "livemode": false, "metadata": {}, "payment_intent": payment_intent, "reason": reason,
            "status": status,
        });
        self.disputes.push(dispute.clone());
        self.emit("charge.dispute.created", dispute.clone());
        Ok(dispute)
    }

    /// A person ends the review of a payment.
    pub fn close_review(&mut self, payment_intent: &str, reason: &str) -> Reply {
        let of_it = |review: &&mut Value| review["payment_intent"] == payment_intent;
        let review = self.reviews.iter_mut().find(of_it).ok_or_else(|| missing("review", payment_intent))?;
        review["open"] = json!(false);
        review["closed_reason"] = json!(reason);
        review["reason"] = json!(reason);
        let answer = review.clone();
        self.emit("review.closed", answer.clone());
        Ok(answer)
    }

    /// Which of our payments a request is for.
    pub fn payment_of(&self, path: &str, form: &Value) -> Option<String> {
        let named = form["metadata"]["paybus_payment"].as_str().or_else(|| searched(form)).map(str::to_owned);
        let id = path.split('/').nth(3).or_else(|| form["payment_intent"].as_str());
        let of_intent = |id: &str| self.intents[position(&self.intents, id)?]["metadata"]["paybus_payment"].as_str();
        named.or_else(|| id.and_then(of_intent).map(str::to_owned))
    }

    /// What was taken was another sum, in another currency.
    pub fn put_right(&mut self, payment_intent: &str, units: i64, currency: &str) {
        let Some(place) = position(&self.intents, payment_intent) else { return };
        let intent = &mut self.intents[place];
        intent["currency"] = json!(currency);
        for name in ["amount", "amount_received", "amount_capturable"] {
            if intent[name] != 0 {
                intent[name] = json!(units);
            }
        }
        for charge in self.charges.iter_mut().filter(|charge| charge["payment_intent"] == payment_intent) {
            charge["currency"] = json!(currency);
            for name in ["amount", "amount_captured"] {
                if charge[name] != 0 {
                    charge[name] = json!(units);
                }
            }
        }
    }

    /// `GET /v1/payment_intents/{id}`
    pub fn retrieve(&self, id: &str) -> Reply {
        Ok(self.intents[self.intent(id)?].clone())
    }

    /// `GET /v1/payment_intents/search`, by our payment's id in the metadata alone.
    pub fn search(&self, url: &str, query: &Value) -> Reply {
        check_fields(query, &["query", "limit"])?;
        let payment = searched(query).ok_or_else(|| invalid("", "query", "The fake takes one query alone."))?;
        let indexed = self.intents.iter().take(self.indexed.unwrap_or(usize::MAX));
        let data: Vec<&Value> = indexed.filter(|it| it["metadata"]["paybus_payment"] == payment).rev().collect();
        Ok(json!({"object": "search_result", "url": url, "has_more": false, "next_page": null, "data": data}))
    }

    /// Others who use the same account make so many payment intents.
    pub fn make_others(&mut self, count: usize) -> Reply {
        let form = json!({"amount": "500", "currency": "usd"});
        let one = self.create(&form)?;
        let made = (1..count).map(|_| {
            let mut intent = one.clone();
            intent["id"] = json!(new_id("pi"));
            intent
        });
        self.intents.extend(made);
        Ok(one)
    }

    /// A list, newest first, as `limit`, `starting_after`, `created` and `payment_intent` ask for it.
    pub fn list(&self, url: &str, query: &Value) -> Reply {
        let all = match url {
            "/v1/payment_intents" => &self.intents,
            "/v1/refunds" => &self.refunds,
            "/v1/disputes" => &self.disputes,
            _ => &self.charges,
        };
        let bound = |name: &str| query["created"][name].as_str().and_then(|text| text.parse::<i64>().ok());
        let (from, to) = (bound("gte").unwrap_or(i64::MIN), bound("lte").unwrap_or(i64::MAX));
        let of = query["payment_intent"].as_str();
        let mut found: Vec<&Value> = all
            .iter()
            .rev()
            .filter(|object| (from..=to).contains(&object["created"].as_i64().unwrap_or_default()))
            .filter(|object| of.is_none_or(|of| object["payment_intent"] == of))
            .collect();
        if let Some(after) = query["starting_after"].as_str() {
            let place = found.iter().position(|object| object["id"] == after);
            found = found.split_off(place.ok_or_else(|| missing("object", after))? + 1);
        }
        let limit = query["limit"].as_str().and_then(|text| text.parse().ok()).unwrap_or(10).clamp(1, 100);
        let has_more = found.len() > limit;
        let data: Vec<&Value> = found.into_iter().take(limit).collect();
        Ok(json!({"object": "list", "url": url, "has_more": has_more, "data": data}))
    }

    /// Puts charges and reviews in the place of their ids, where `expand` asks for them.
    pub fn expand(&self, mut object: Value, form: &Value) -> Value {
        let paths: Vec<&str> = form["expand"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        if paths.is_empty() {
            return object;
        }
        // Once for a whole page: a soak has thousands of charges.
        let known = self.charges.iter().chain(&self.reviews);
        let known: HashMap<&str, &Value> = known.filter_map(|it| Some((it["id"].as_str()?, it))).collect();
        for path in paths {
            let parts: Vec<&str> = path.split('.').collect();
            expand_path(&known, &mut object, &parts);
        }
        object
    }
}

fn expand_path(known: &HashMap<&str, &Value>, object: &mut Value, parts: &[&str]) {
    let Some((first, rest)) = parts.split_first() else { return };
    if let Value::Array(items) = &mut object[*first] {
        items.iter_mut().for_each(|item| expand_path(known, item, rest));
        return;
    }
    if let Some(found) = object[*first].as_str().and_then(|id| known.get(id)) {
        object[*first] = (*found).clone();
    }
    if object[*first].is_object() {
        expand_path(known, &mut object[*first], rest);
    }
}

/// What these objects have besides, and is never anything here.
const INTENT_NULLS: &[&str] = &[
    "application",
    "application_fee_amount",
    "automatic_payment_methods",
    "canceled_at",
    "cancellation_reason",
    "invoice",
    "last_payment_error",
    "latest_charge",
    "next_action",
    "on_behalf_of",
    "processing",
    "receipt_email",
    "review",
    "shipping",
    "statement_descriptor",
    "transfer_data",
    "transfer_group",
];
const CHARGE_NULLS: &[&str] = &[
    "application",
    "application_fee",
    "application_fee_amount",
    "balance_transaction",
    "calculated_statement_descriptor",
    "failure_balance_transaction",
    "failure_code",
    "failure_message",
    "invoice",
    "on_behalf_of",
    "receipt_email",
    "receipt_number",
    "receipt_url",
    "review",
    "shipping",
    "source_transfer",
    "statement_descriptor",
    "statement_descriptor_suffix",
    "transfer_data",
    "transfer_group",
];

fn with_nulls(mut object: Value, names: &[&str]) -> Value {
    for name in names {
        object[*name] = Value::Null;
    }
    object
}

const CREATE: &[&str] = &[
    "amount",
    "automatic_payment_methods",
    "capture_method",
    "confirm",
    "currency",
    "customer",
    "description",
    "expand",
    "mandate",
    "metadata",
    "off_session",
    "payment_method",
    "payment_method_options",
    "payment_method_types",
    "return_url",
    "setup_future_usage",
    "statement_descriptor_suffix",
    "use_stripe_sdk",
];
const UPDATE: &[&str] = &[
    "capture_method",
    "customer",
    "description",
    "expand",
    "metadata",
    "payment_method",
    "payment_method_types",
    "setup_future_usage",
];
const CONFIRM: &[&str] = &[
    "capture_method",
    "expand",
    "mandate",
    "off_session",
    "payment_method",
    "return_url",
    "setup_future_usage",
    "use_stripe_sdk",
];

fn new_refund(charge: &Value, amount: i64, status: &str) -> Value {
    json!({
        "id": new_id("re"), "object": "refund", "amount": amount, "balance_transaction": null,
        "charge": charge["id"], "created": now(), "currency": charge["currency"], "metadata": {},
        "payment_intent": charge["payment_intent"], "reason": null, "receipt_number": null,
        "source_transfer_reversal": null, "status": status, "transfer_reversal": null,
    })
}

/// Which of our payments is searched for.
fn searched(query: &Value) -> Option<&str> {
    query["query"].as_str()?.strip_prefix("metadata['paybus_payment']:'")?.strip_suffix('\'')
}

fn check_fields(form: &Value, known: &[&str]) -> Result<(), Answer> {
    let unknown = form.as_object().into_iter().flatten().find(|(name, _)| !known.contains(&name.as_str()));
    match unknown {
        Some((name, _)) => Err(invalid("parameter_unknown", name, &format!("Received unknown parameter: {name}"))),
        None => Ok(()),
    }
}

fn find_card(token: &str) -> Result<&'static Card, Answer> {
    cards::find(token).ok_or_else(|| missing("PaymentMethod", token))
}

fn metadata(form: &Value) -> Map<String, Value> {
    form["metadata"].as_object().cloned().unwrap_or_default()
}
