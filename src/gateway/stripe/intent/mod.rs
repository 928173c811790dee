//! A payment intent as returned by Stripe, checked against the request.

use serde::Deserialize;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::charge::Charge;
use super::reply::{ErrorObject, invalid, mismatch, or_nothing, or_null};
use super::request::{OPERATION, PAYMENT, is_payment_intent};
use super::{amount, declines};
use crate::gateway::clean::{self, MESSAGE_CHARACTERS_MAX};
use crate::gateway::legible;
use crate::payment::money::{Currency, Money, MoneyError};
use crate::payment::outcome::{GatewayError, GatewayResult, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

const URL_CHARACTERS_MAX: usize = 2_048;

/// The members under which a next action contains the URL of its page.
const ADDRESSES: [&str; 4] = ["url", "hosted_instructions_url", "hosted_voucher_url", "hosted_verification_url"];

/// What an answer is checked against.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Our payment.
    pub payment_id: Uuid,
    /// Whether it must be real money; `None` if unknown.
    pub livemode: Option<bool>,
    /// The payment intent that was requested; `None` if it is to be created or found.
    pub id: Option<&'a str>,
}

#[derive(Debug)]
pub(super) struct Intent {
    pub id: String,
    pub status: IntentStatus,
    pub currency: Currency,
    /// The operation that it was last marked with.
    pub operation: Option<Uuid>,
    pub last_error: Option<ErrorObject>,
    pub charge: Option<Charge>,
    wire: Wire,
}

/// The status of a payment intent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum IntentStatus {
    RequiresPaymentMethod,
    RequiresConfirmation,
    RequiresAction,
    Processing,
    RequiresCapture,
    Canceled,
    Succeeded,
}

#[derive(Debug, Deserialize)]
struct Wire {
    id: String,
    object: String,
    status: IntentStatus,
    amount: i64,
    #[serde(default, deserialize_with = "or_null")]
    amount_received: Option<Option<i64>>,
    #[serde(default, deserialize_with = "or_null")]
    amount_capturable: Option<Option<i64>>,
    currency: String,
    livemode: Option<bool>,
    metadata: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "or_nothing")]
    client_secret: Option<String>,
    next_action: Option<Value>,
    last_payment_error: Option<ErrorObject>,
    latest_charge: Option<Value>,
    #[serde(default, deserialize_with = "or_nothing")]
    capture_method: Option<String>,
    #[serde(default, deserialize_with = "or_nothing")]
    cancellation_reason: Option<String>,
}

impl Intent {
    /// Reads a payment intent.
    ///
    /// # Errors
    /// It is not a payment intent, or cannot be the requested one.
    pub fn read(object: Map<String, Value>, asked: Asked<'_>) -> Result<Intent, GatewayError> {
        if let Some(name) = legible::misspelled(&object, &["amount_received", "amount_capturable"]) {
            return Err(invalid(&format!("{name} has another spelling")));
        }
        let mut wire: Wire = serde_json::from_value(Value::Object(object))
            .map_err(|_| invalid("must be a payment intent with id, status, amount and currency"))?;
        if wire.object != "payment_intent" || !is_payment_intent(&wire.id) {
            return Err(invalid("must be a payment intent"));
        }
        if asked.id.is_some_and(|id| id != wire.id) {
            return Err(mismatch("it is not the requested payment intent"));
        }
        if let (Some(ours), Some(theirs)) = (asked.livemode, wire.livemode)
            && ours != theirs
        {
            return Err(mismatch(&format!("its livemode is {theirs}, but the key's is {ours}")));
        }
        let named = |name: &str| wire.metadata.as_ref().and_then(|metadata| metadata.get(name)?.as_str());
        let ours = asked.payment_id.to_string();
        if named(PAYMENT).is_some_and(|payment| payment != ours) {
            return Err(mismatch("the payment intent belongs to another payment"));
        }
        let operation = named(OPERATION).and_then(|id| id.parse().ok());
        let currency = Currency::from_code(&wire.currency.to_ascii_uppercase())
            .ok_or_else(|| invalid("its currency is not an ISO 4217 code"))?;
        let intent = Intent {
            id: wire.id.clone(),
            status: wire.status,
            currency,
            operation,
            last_error: wire.last_payment_error.take(),
            charge: wire.latest_charge.take().map(Charge::read).transpose()?,
            wire,
        };
        intent.check_money()?;
        Ok(intent)
    }

    /// Rejects one whose status says that no money was captured while its amounts say otherwise: from the status alone,
    /// a look-up would conclude that nothing was charged.
    fn check_money(&self) -> Result<(), GatewayError> {
        let has_taken = self.received()?.is_some_and(|received| !received.is_zero());
        // One that is still held may have been partially captured.
        let may_have_taken = match self.status {
            IntentStatus::Succeeded | IntentStatus::Processing => true,
            IntentStatus::RequiresCapture => self.is_captured_in_part()?,
            _ => false,
        };
        if has_taken && !may_have_taken {
            return Err(mismatch("its status says that nothing was taken, but amount_received is not zero"));
        }
        Ok(())
    }

    /// Whether part of it was captured, consistent with what is still held: together at most the total.
    fn is_captured_in_part(&self) -> Result<bool, GatewayError> {
        let sums = |error: MoneyError| invalid(&format!("its amounts do not add up: a sum {error}"));
        let Some(received) = self.received()? else { return Ok(true) };
        let all = self.held()?.map_or(Ok(received), |held| received.plus(held)).map_err(sums)?;
        let (asked, is_all) = (self.asked()?, received == self.asked()?);
        Ok(!is_all && !all.exceeds(asked).map_err(sums)?)
    }

    /// Whether its metadata name the payment for which it was read.
    pub fn names_its_payment(&self) -> bool {
        let metadata = self.wire.metadata.as_ref();
        metadata.is_some_and(|metadata| metadata.get(PAYMENT).is_some_and(|payment| payment.is_string()))
    }

    /// Whether it can never take money again.
    pub fn is_canceled(&self) -> bool {
        self.status == IntentStatus::Canceled
    }

    /// Whether it has money or is about to: it cannot be used for another attempt.
    pub fn has_money(&self) -> bool {
        matches!(self.status, IntentStatus::Succeeded | IntentStatus::RequiresCapture | IntentStatus::Processing)
    }

    /// Whether a payment attempt was declined and none has started since.
    pub fn is_declined(&self) -> bool {
        self.status == IntentStatus::RequiresPaymentMethod && self.last_error.is_some()
    }

    /// Whether no payment attempt was made since it was marked with its operation.
    pub fn is_untouched(&self) -> bool {
        match self.status {
            IntentStatus::RequiresConfirmation => true,
            IntentStatus::RequiresPaymentMethod => self.last_error.is_none(),
            _ => false,
        }
    }

    /// Rejects money that was captured but should only be held.
    ///
    /// # Errors
    /// The money should be held but was captured.
    pub fn check_held(&self, captures: bool) -> Result<(), GatewayError> {
        if !captures && self.status == IntentStatus::Succeeded {
            return Err(mismatch("the payment intent has captured the money instead of only authorizing it"));
        }
        Ok(())
    }

    /// Its result for a process; `None` if no payment attempt was made.
    pub fn of_process(&self, use_stripe_sdk: bool) -> Result<Option<GatewayResult>, GatewayError> {
        let result = match self.status {
            IntentStatus::Succeeded => self.result(Verdict::Approved, self.transactions()?),
            IntentStatus::RequiresCapture => self.result(Verdict::Authorized, self.transactions()?),
            IntentStatus::Processing => self.result(Verdict::Pending, Vec::new()),
            IntentStatus::RequiresAction => self.must_act(use_stripe_sdk)?,
            IntentStatus::Canceled => self.canceled(),
            IntentStatus::RequiresPaymentMethod | IntentStatus::RequiresConfirmation => match &self.last_error {
                Some(error) if self.is_declined() => self.with_facts(declines::declined(error)),
                _ => return Ok(None),
            },
        };
        Ok(Some(result))
    }

    /// Its result for a capture; `None` if it has no mark of the capture and is not final.
    pub fn of_capture(&self, operation: Uuid) -> Result<Option<GatewayResult>, GatewayError> {
        let transactions = self.transactions()?;
        let is_done = transactions.iter().any(|transaction| transaction.is_done_for(operation));
        Ok(match self.status {
            _ if is_done => Some(self.result(Verdict::Approved, transactions)),
            IntentStatus::Canceled => Some(self.canceled()),
            IntentStatus::Processing => Some(self.result(Verdict::Pending, Vec::new())),
            _ => None,
        })
    }

    /// Its result as the direct answer to a capture. If it has no marks at all, nobody else captured: what it received
    /// is what was requested.
    pub fn answers_capture(
        &self,
        operation: Uuid,
        asked: Option<Money>,
    ) -> Result<Option<GatewayResult>, GatewayError> {
        if let Some(result) = self.of_capture(operation)? {
            return Ok(Some(result));
        }
        let marked = self.marks().next().is_some();
        let received = self.received()?.or(asked).filter(|_| self.status == IntentStatus::Succeeded && !marked);
        let Some(amount) = received else { return Ok(None) };
        let own = Transaction {
            kind: TransactionKind::Capture,
            reference: None,
            parent: Some(self.id.clone()),
            attribution: Attribution::Answered(operation),
            state: TransactionState::Done,
            amount,
        };
        Ok(Some(self.result(Verdict::Approved, vec![own])))
    }

    /// The release of what was held. Stripe does not say who caused it.
    fn void(&self, held: Option<Money>) -> Vec<Transaction> {
        let void = held.map(|amount| Transaction {
            kind: TransactionKind::Void,
            reference: Some(self.id.clone()),
            parent: Some(self.id.clone()),
            attribution: Attribution::Unattributed,
            state: TransactionState::Done,
            amount,
        });
        void.into_iter().collect()
    }

    /// Its result for a release made as a last capture of nothing; `None` if more is still held.
    pub fn of_last_capture(&self, held: Option<Money>) -> Option<GatewayResult> {
        (self.status == IntentStatus::Succeeded).then(|| self.result(Verdict::Approved, self.void(held)))
    }

    /// Its result for a release or a cancel; `None` if it can still take money. `held` is the amount released.
    pub fn of_cancel(&self, held: Option<Money>) -> Option<GatewayResult> {
        match self.status {
            IntentStatus::Canceled => Some(self.result(Verdict::Approved, self.void(held))),
            IntentStatus::Succeeded => {
                let message = "the payment intent has captured the money and can no longer be canceled";
                Some(self.declined_as("already_succeeded", message))
            }
            _ => None,
        }
    }

    /// The total amount to be captured.
    pub fn asked(&self) -> Result<Money, GatewayError> {
        self.money(self.wire.amount)
    }

    /// The captured amount, if present. It may be less than the total.
    ///
    /// # Errors
    /// It is null where a value is required: if it were treated as omitted, the requested amount would be assumed.
    pub fn received(&self) -> Result<Option<Money>, GatewayError> {
        let of_charge = self.charge.as_ref().and_then(Charge::captured_units);
        match (self.wire.amount_received, of_charge) {
            (Some(Some(units)), _) | (_, Some(units)) => self.money(units).map(Some),
            (Some(None), None) => Err(invalid("its amount_received is null")),
            (None, None) => Ok(None),
        }
    }

    /// The amount still held; `None` if it is omitted or zero.
    ///
    /// # Errors
    /// It is null where a value is required.
    pub fn held(&self) -> Result<Option<Money>, GatewayError> {
        match self.wire.amount_capturable {
            Some(Some(0)) | None => Ok(None),
            Some(Some(units)) => self.money(units).map(Some),
            Some(None) => Err(invalid("its amount_capturable is null")),
        }
    }

    /// Our captures and their amounts, by the mark that each leaves in the metadata.
    fn marks(&self) -> impl Iterator<Item = (Uuid, i64)> {
        let metadata = self.wire.metadata.iter().flatten();
        metadata
            .filter_map(|(name, value)| Some((super::request::marked_capture(name)?, value.as_str()?.parse().ok()?)))
    }

    /// Whether the money was to be held first.
    fn is_manual(&self) -> bool {
        self.wire.capture_method.as_deref() == Some("manual") || self.status == IntentStatus::RequiresCapture
    }

    /// Its transactions. They belong to the operation it was last marked with; captures of an authorization are
    /// attributed by their marks, and without a mark they are unattributed.
    ///
    /// # Errors
    /// Its amounts are invalid.
    pub fn transactions(&self) -> Result<Vec<Transaction>, GatewayError> {
        let zero = Money::zero(self.currency);
        let received = self.received()?;
        let process = self.operation.map_or(Attribution::Unattributed, Attribution::Recorded);
        let done = |kind, reference: Option<&str>, attribution, amount| Transaction {
            kind,
            reference: reference.map(str::to_owned),
            parent: (kind == TransactionKind::Capture && self.is_manual()).then(|| self.id.clone()),
            attribution,
            state: TransactionState::Done,
            amount,
        };
        let sums = |error: MoneyError| invalid(&format!("its amounts do not add up: a sum {error}"));
        let mut transactions = Vec::new();
        if self.status == IntentStatus::RequiresCapture {
            let held = self.held()?.map_or_else(|| self.asked(), Ok)?;
            let authorized = held.plus(received.unwrap_or(zero)).map_err(sums)?;
            transactions.push(done(TransactionKind::Authorization, Some(&self.id), process, authorized));
        }
        let mut left = match received {
            Some(received) => received,
            None if self.status == IntentStatus::Succeeded => self.asked()?,
            None => zero,
        };
        for (operation, units) in self.marks() {
            let amount = self.money(units)?;
            if left.is_zero() || amount.exceeds(left).map_err(sums)? {
                continue;
            }
            left = left.less(amount).map_err(sums)?;
            transactions.push(done(TransactionKind::Capture, None, Attribution::Recorded(operation), amount));
        }
        if !left.is_zero() {
            let attribution = if self.is_manual() { Attribution::Unattributed } else { process };
            transactions.push(done(TransactionKind::Capture, Some(&self.id), attribution, left));
        }
        Ok(transactions)
    }

    /// An amount in its currency.
    pub fn money(&self, units: i64) -> Result<Money, GatewayError> {
        amount::from_units(units, self.currency).map_err(|error| invalid(&format!("its amount {error}")))
    }

    /// A result with the payment intent's details.
    pub fn result(&self, verdict: Verdict, transactions: Vec<Transaction>) -> GatewayResult {
        self.with_facts(GatewayResult { transactions, ..GatewayResult::new(verdict) })
    }

    fn with_facts(&self, mut result: GatewayResult) -> GatewayResult {
        result.transaction_id = Some(self.id.clone());
        result.currency = Some(self.currency);
        if let Some(charge) = &self.charge {
            result.fraud = charge.fraud().or(result.fraud);
            result.extra_data.extend(charge.facts());
        }
        result
    }

    /// The customer must act: at a URL, or in the shop's own page, which then gets the client secret. Without either
    /// nobody can act: the shop sees a decline, and the next process continues the same payment intent.
    fn must_act(&self, use_stripe_sdk: bool) -> Result<GatewayResult, GatewayError> {
        if let Some(address) = self.address()? {
            return Ok(self.result(Verdict::CustomerMustAct { redirect_url: Some(address) }, Vec::new()));
        }
        if !use_stripe_sdk {
            let message =
                "The customer must authenticate: send payment.process again with return_url or use_stripe_sdk.";
            let error = ErrorObject {
                code: Some("authentication_required".to_owned()),
                message: Some(message.to_owned()),
                ..ErrorObject::default()
            };
            return Ok(self.with_facts(declines::declined(&error)));
        }
        let mut result = self.result(Verdict::CustomerMustAct { redirect_url: None }, Vec::new());
        result.extra_data.insert("client_secret".to_owned(), json!(self.wire.client_secret));
        Ok(result)
    }

    /// The URL where the customer must act.
    fn address(&self) -> Result<Option<String>, GatewayError> {
        let next = match &self.wire.next_action {
            None | Some(Value::Null) => None,
            Some(Value::Object(next)) => Some(next),
            Some(_) => return Err(invalid("its next_action must be an object")),
        };
        let page = next.and_then(|next| next.get(next.get("type")?.as_str()?)?.as_object());
        let Some(address) = page.and_then(|page| ADDRESSES.iter().find_map(|name| page.get(*name)?.as_str())) else {
            return Ok(None);
        };
        let is_printable = !address.chars().any(|c| c.is_whitespace() || c.is_control());
        let is_web = address.starts_with("https://") || address.starts_with("http://");
        if !is_printable || !is_web || address.chars().count() > URL_CHARACTERS_MAX {
            return Err(invalid("its next action's address must be a URL of at most 2048 characters"));
        }
        Ok(Some(address.to_owned()))
    }

    fn canceled(&self) -> GatewayResult {
        let reason = self.wire.cancellation_reason.as_deref().unwrap_or("unknown");
        let message = format!("the payment intent is canceled; reason: {reason}");
        self.declined_as("canceled", &clean::text(&message, MESSAGE_CHARACTERS_MAX))
    }

    fn declined_as(&self, code: &str, message: &str) -> GatewayResult {
        let error =
            ErrorObject { code: Some(code.to_owned()), message: Some(message.to_owned()), ..ErrorObject::default() };
        let declined = declines::declined(&error);
        self.with_facts(GatewayResult { extra_data: Map::new(), ..declined })
    }
}

#[cfg(test)]
mod tests;
