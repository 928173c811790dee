//! Look-ups of an operation or of the whole payment.

use serde_json::Value;
use uuid::Uuid;

use super::api::{Session, made_between};
use super::dispute::Dispute;
use super::find::{Sought, find, intent, search, take_best};
use super::intent::{Asked, Intent};
use super::refund::{Refund, RefundStatus};
use super::reply::{Denial, mismatch};
use super::request::{CAPTURE_PATH, Plan, is_payment_intent, refunded_intent};
use crate::gateway::{Action, Question, Target};
use crate::payment::code::Code;
use crate::payment::money::{Money, MoneyError};
use crate::payment::outcome::{Found, GatewayResult, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// Members of `extra_data` about one payment attempt, obsolete once the payment is approved: why it was declined, and
/// the secret with which the customer's page can continue.
pub(super) const OF_AN_ATTEMPT: [&str; 2] = ["decline", "client_secret"];

/// Carries out a look-up.
pub(super) async fn look_up(session: &Session<'_>, question: &Question<'_>, livemode: Option<bool>) -> Found {
    let search = Search { session, question, livemode };
    let found = match &question.target {
        Some(target) => search.of_operation(target).await,
        None => search.of_payment().await.map(Answer::from),
    };
    match found {
        Ok(Answer::OfOthers(transactions)) => Found::OfOthers(transactions),
        Ok(Answer::Of(mut result)) => {
            let is_known = |name: &str| question.payment.extra_data.get(name).is_some_and(|value| !value.is_null());
            if result.approves() {
                for name in OF_AN_ATTEMPT.into_iter().filter(|name| is_known(name)) {
                    result.extra_data.insert(name.to_owned(), Value::Null);
                }
            }
            Found::Result(result)
        }
        Ok(Answer::Nothing) => Found::Nothing,
        Err(denial) => denial.into(),
    }
}

/// Of all refunds, those that returned money, newest first. After a partial capture Stripe also lists the remainder,
/// which was never captured, as a refund: the oldest with exactly that amount and without an operation of ours.
fn given_back(mut refunds: Vec<Refund>, intent: &Intent, received: Money) -> Result<Vec<Refund>, Denial> {
    let sums = |error: MoneyError| super::reply::invalid(&format!("its amounts do not add up: a sum {error}"));
    let rest = intent.asked()?.less(received).map_err(sums)?;
    let is_rest = |refund: &Refund| refund.operation.is_none() && !rest.is_zero() && refund.amount == rest;
    if let Some(index) = refunds.iter().rposition(is_rest) {
        refunds.remove(index);
    }
    Ok(refunds)
}

/// The money that a lost dispute took.
fn lost_to(dispute: &Dispute, amount: Money, intent: &Intent) -> Option<Transaction> {
    let dispute = Transaction {
        kind: TransactionKind::Dispute,
        reference: Some(dispute.id().to_owned()),
        parent: Some(intent.id.clone()),
        attribution: Attribution::Unattributed,
        state: TransactionState::Done,
        amount,
    };
    (!amount.is_zero()).then_some(dispute)
}

/// A payment intent without the mark of a capture. Each of our captures sets its mark in the same request, so without
/// it nothing was captured. But an unmarked capture may be by an earlier release, and include this one.
fn not_captured(intent: &Intent) -> Result<Answer, Denial> {
    let transactions = intent.transactions()?;
    let is_unmarked = |transaction: &Transaction| {
        transaction.kind == TransactionKind::Capture && transaction.attribution == Attribution::Unattributed
    };
    Ok(if transactions.iter().any(is_unmarked) { Answer::OfOthers(transactions) } else { Answer::Nothing })
}

/// Stripe never deletes a payment intent. If it does not know one of ours, the key belongs to another account or mode,
/// or test data was deleted. This proves nothing, and says nothing about other payments.
fn unknown_intent(denial: Denial) -> Denial {
    if !denial.is_missing() {
        return denial;
    }
    mismatch("the payment intent does not exist; check that secret_key belongs to the account that created it").into()
}

/// The result of looking up one operation.
enum Answer {
    Of(Box<GatewayResult>),
    /// Money of other operations, which says nothing about the one asked about.
    OfOthers(Vec<Transaction>),
    Nothing,
}

impl From<Option<GatewayResult>> for Answer {
    fn from(found: Option<GatewayResult>) -> Answer {
        found.map_or(Answer::Nothing, |result| Answer::Of(Box::new(result)))
    }
}

struct Search<'a> {
    session: &'a Session<'a>,
    question: &'a Question<'a>,
    livemode: Option<bool>,
}

impl Search<'_> {
    fn asked<'b>(&self, id: Option<&'b str>) -> Asked<'b> {
        Asked { payment_id: self.question.payment.id, livemode: self.livemode, id }
    }

    /// The payment's current payment intent, if known.
    async fn known(&self) -> Result<Option<Intent>, Denial> {
        let id = self.question.payment.transaction_id.as_str();
        if !is_payment_intent(id) {
            return Ok(None);
        }
        intent(self.session, id, self.asked(Some(id))).await.map(Some).map_err(unknown_intent)
    }

    async fn of_operation(&self, target: &Target<'_>) -> Result<Answer, Denial> {
        match target.action {
            Action::Process => Ok(self.of_process(target).await?.into()),
            Action::Refund => Ok(self.of_refund(target).await?.into()),
            Action::Capture => match self.known().await? {
                Some(intent) => match intent.of_capture(target.operation_id)? {
                    Some(result) => Ok(Answer::Of(Box::new(result))),
                    None => Ok(not_captured(&intent)?),
                },
                None => Ok(Answer::Nothing),
            },
            Action::Release => {
                let held = target.request.and_then(|request| request.amount);
                let plan = target.request.and_then(|request| Plan::read(&request.body).ok());
                let by_capture = matches!(plan, Some(Plan::Post { path, .. }) if path.ends_with(CAPTURE_PATH));
                let released = |intent: Intent| match by_capture {
                    true => intent.of_last_capture(held),
                    false => intent.of_cancel(held),
                };
                Ok(self.known().await?.and_then(released).into())
            }
            Action::Cancel => Ok(match self.known().await? {
                Some(intent) => intent.of_cancel(None).into(),
                None => Answer::Of(Box::new(GatewayResult::new(Verdict::Approved))),
            }),
        }
    }

    /// What a process did: it continued the payment's payment intent or created one.
    async fn of_process(&self, target: &Target<'_>) -> Result<Option<GatewayResult>, Denial> {
        let plan = target.request.and_then(|request| Plan::read(&request.body).ok());
        let only_looks = matches!(plan, Some(Plan::Process { forms: None, .. }));
        let is_of_it = |intent: &Intent| intent.operation == Some(target.operation_id);
        // If the payment has money, that is the answer whichever operation marked it: no process takes more.
        let counts = |intent: &Intent| is_of_it(intent) || intent.has_money() || only_looks && !intent.is_canceled();
        let known = self.known().await?.filter(counts);
        let mut intents = match known {
            Some(known) if !known.is_canceled() => vec![known],
            known => {
                let mut found = find(self.session, &self.sought(target)).await?;
                found.extend(known);
                found
            }
        };
        let named = self.named(&intents).await?;
        intents.extend(named.into_iter().filter(|intent| is_of_it(intent) || intent.has_money()));
        let Some(intent) = take_best(&mut intents) else { return Ok(None) };
        intent.check_held(target.request.is_none_or(|request| request.capture))?;
        let use_stripe_sdk = matches!(plan, Some(Plan::Process { use_stripe_sdk: true, .. }));
        let Some(mut result) = intent.of_process(use_stripe_sdk)? else { return Ok(None) };
        // If two have money, the customer paid twice, and neither must hide the other.
        for other in intents.iter().filter(|other| other.id != intent.id) {
            result.transactions.extend(other.transactions()?);
        }
        Ok(Some(result))
    }

    /// The payment intents created by a process. Under its first key it created at most one, besides a canceled one
    /// that it found.
    fn sought(&self, target: &Target<'_>) -> Sought<'static> {
        // An operation asks about itself once everything sent for it is settled; others may ask while Stripe is still
        // working on it.
        let asks_itself = self.question.operation_id == target.operation_id;
        let sent = target.last_sent_at.filter(|_| asks_itself);
        Sought {
            asked: self.asked(None),
            operation: Some(target.operation_id),
            made: made_between(target.stored_at, target.last_sent_at),
            one_is_enough: target.key.generation() == 0,
            cursor: sent.map(|sent| Uuid::new_v5(&target.key.value(), sent.to_string().as_bytes())),
        }
    }

    async fn of_refund(&self, target: &Target<'_>) -> Result<Option<GatewayResult>, Denial> {
        // Its command may have named a charge other than the payment's.
        let named = match target.request.and_then(|request| Plan::read(&request.body).ok()) {
            Some(Plan::Post { form, .. }) => refunded_intent(&form),
            _ => None,
        };
        let refunds = self.refunds(named.as_deref().unwrap_or(&self.question.payment.transaction_id)).await?;
        let refund = refunds.iter().find(|refund| refund.operation == Some(target.operation_id));
        Ok(refund.map(Refund::result))
    }

    async fn refunds(&self, payment_intent: &str) -> Result<Vec<Refund>, Denial> {
        if !is_payment_intent(payment_intent) {
            return Ok(Vec::new());
        }
        let all = self.session.list("refunds", &format!("&payment_intent={payment_intent}")).await;
        let all = all.map_err(unknown_intent)?;
        let read = |object| Refund::read(object, payment_intent).map_err(Denial::from);
        all.into_iter().map(read).collect()
    }

    /// The whole payment: its payment intents, refunds and lost disputes.
    async fn of_payment(&self) -> Result<Option<GatewayResult>, Denial> {
        let payment = self.question.payment;
        let mut others: Vec<Intent> = self.known().await?.into_iter().collect();
        let named = self.named(&others).await?;
        others.extend(named);
        if others.is_empty() {
            others = find(self.session, &self.sought_of_payment()).await?;
        } else if self.question.references.is_empty() || self.counts_more_than(&others)? {
            // Nothing names what else may exist, such as a second charge.
            let found = search(self.session, self.asked(None), &others).await?;
            others.extend(found);
        }
        let is_paid = others.iter().any(Intent::has_money);
        let is_own = |intent: &Intent| {
            intent.id == payment.transaction_id && !intent.is_canceled() && (intent.has_money() || !is_paid)
        };
        let own = others.iter().position(is_own).map(|index| others.remove(index));
        let Some(intent) = own.or_else(|| take_best(&mut others)) else { return Ok(None) };
        let use_stripe_sdk = payment.extra_data.get("client_secret").is_some_and(|secret| !secret.is_null());
        let Some(mut result) = intent.of_process(use_stripe_sdk)? else { return Ok(None) };
        for other in &others {
            result.transactions.extend(other.transactions()?);
        }
        for intent in [&intent].into_iter().chain(&others) {
            if intent.received()?.is_some_and(|received| !received.is_zero()) {
                self.add_sums(intent, &mut result).await?;
            }
        }
        Ok(Some(result))
    }

    /// Whether our captured total exceeds what these payment intents received: then another one has the rest.
    fn counts_more_than(&self, intents: &[Intent]) -> Result<bool, Denial> {
        let amounts = &self.question.payment.amounts;
        let mut rest = amounts.captured.plus(amounts.refunded);
        for intent in intents {
            if let Some(received) = intent.received()? {
                rest = rest.and_then(|rest| rest.less(received));
            }
        }
        // A different currency is for the engine to judge.
        Ok(rest.is_ok_and(|rest| !rest.is_zero()))
    }

    /// All payment intents of the payment. None of its operations is open, so none is created in the meantime.
    fn sought_of_payment(&self) -> Sought<'static> {
        let Question { operation_id, payment, .. } = self.question;
        Sought {
            asked: self.asked(None),
            operation: None,
            made: made_between(payment.created, Some(payment.modified)),
            one_is_enough: true,
            cursor: Some(Uuid::new_v5(operation_id, payment.modified.to_string().as_bytes())),
        }
    }

    /// The payment's payment intents named by a notification, except those `known`.
    async fn named(&self, known: &[Intent]) -> Result<Vec<Intent>, Denial> {
        let mut named: Vec<Intent> = Vec::new();
        for id in self.question.references.iter().filter(|id| is_payment_intent(id)) {
            if known.iter().chain(&named).any(|known| known.id == *id) {
                continue;
            }
            match intent(self.session, id, self.asked(Some(id))).await {
                Err(denial) if denial.is_missing() || denial.failure.error.code == Code::Mismatch => {}
                found => named.extend(Some(found?).filter(Intent::names_its_payment)),
            }
        }
        Ok(named)
    }

    /// Adds a payment intent's captures, refunds and lost disputes, individually and as sums.
    async fn add_sums(&self, intent: &Intent, result: &mut GatewayResult) -> Result<(), Denial> {
        let sums = |error: MoneyError| super::reply::invalid(&format!("its amounts do not add up: a sum {error}"));
        let received =
            intent.received()?.ok_or_else(|| super::reply::invalid("it does not contain the captured amount"))?;
        let mut refunded = Money::zero(intent.currency);
        if intent.charge.as_ref().is_none_or(|charge| charge.may_be_refunded()) {
            for refund in given_back(self.refunds(&intent.id).await?, intent, received)? {
                if refund.status == RefundStatus::Succeeded {
                    refunded = refunded.plus(refund.amount).map_err(sums)?;
                }
                result.transactions.push(refund.transaction());
            }
        }
        let kept = received.less(refunded).map_err(sums)?;
        let mut lost = Money::zero(intent.currency);
        if intent.charge.as_ref().is_none_or(|charge| charge.may_be_disputed()) {
            for dispute in self.disputes(intent).await? {
                if dispute.is_lost() {
                    // What was refunded before cannot be lost again.
                    let left = kept.less(lost).map_err(sums)?;
                    let amount = if dispute.amount.exceeds(left).map_err(sums)? { left } else { dispute.amount };
                    lost = lost.plus(amount).map_err(sums)?;
                    result.transactions.extend(lost_to(&dispute, amount, intent));
                }
                result.extra_data.insert("dispute".to_owned(), dispute.details());
            }
        }
        let zero = Money::zero(intent.currency);
        let add = |sum: Option<Money>, more: Money| sum.unwrap_or(zero).plus(more).map(Some).map_err(sums);
        result.captured = add(result.captured, kept.less(lost).map_err(sums)?)?;
        result.disputed = add(result.disputed, lost)?;
        result.refunded = add(result.refunded, refunded)?;
        Ok(())
    }

    /// All disputes, newest last.
    async fn disputes(&self, intent: &Intent) -> Result<Vec<Dispute>, Denial> {
        let mut all = self.session.list("disputes", &format!("&payment_intent={}", intent.id)).await?;
        all.reverse();
        all.into_iter().map(|object| Dispute::read(object, intent.currency).map_err(Denial::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::extract::Path;
    use axum::routing::get;
    use axum::{Json, Router};
    use jiff::Timestamp;
    use serde_json::json;

    use super::*;
    use crate::gateway::Gateway;
    use crate::gateway::stripe::api::tests::gateway;
    use crate::payment::model::{Billing, Order, Payment};
    use crate::payment::money::Currency;
    use crate::payment::outcome::GatewayKey;

    /// The result of looking up an operation at a Stripe with these routes.
    async fn found(app: Router, action: Action, operation: Uuid, transaction_id: &str) -> Found {
        found_by(app, action, operation, transaction_id, Vec::new()).await
    }

    /// The same, with these ids named by a notification.
    async fn found_by(
        app: Router,
        action: Action,
        operation: Uuid,
        transaction_id: &str,
        references: Vec<String>,
    ) -> Found {
        let total = Money::parse("20.50", Currency::from_code("EUR").unwrap()).unwrap();
        let zero = Money::zero(total.currency());
        let order = Order {
            variant: "cards".to_owned(),
            total,
            tax: zero,
            delivery: zero,
            description: String::new(),
            billing: Billing::default(),
            customer_ip_address: None,
            metadata: crate::payment::model::Metadata::new(),
        };
        let now = Timestamp::UNIX_EPOCH;
        let mut payment = Payment::new(Uuid::from_u128(9), order, "stripe", "", now);
        transaction_id.clone_into(&mut payment.transaction_id);
        let target = Target {
            operation_id: operation,
            action,
            key: GatewayKey::first(operation),
            request: None,
            stored_at: now,
            last_sent_at: Some(now),
        };
        let timeout = Duration::from_secs(10);
        let question = Question {
            operation_id: operation,
            target: Some(target),
            payment: &payment,
            references,
            trace: None,
            timeout,
        };
        gateway(app).await.look_up(question).await
    }

    #[tokio::test]
    async fn a_refund_is_found_by_its_operation_alone() {
        let refund = |id: &str, operation: Option<u128>| {
            let metadata = operation.map(|id| json!({"paybus_operation": Uuid::from_u128(id).to_string()}));
            json!({"id": id, "object": "refund", "amount": 2_050, "currency": "eur", "status": "succeeded",
                "payment_intent": "pi_1", "metadata": metadata.unwrap_or_else(|| json!({}))})
        };
        // One made in Stripe's dashboard, ours, and one of another operation.
        let refunds = [refund("re_3", None), refund("re_2", Some(2)), refund("re_1", Some(1))];
        let all = json!({"data": refunds, "has_more": false});
        let app = || {
            let all = all.clone();
            Router::new().route("/v1/refunds", get(async move || Json(all)))
        };
        for (operation, id) in [(1, "re_1"), (2, "re_2")] {
            let found = found(app(), Action::Refund, Uuid::from_u128(operation), "pi_1").await;
            let Found::Result(result) = found else { panic!("{found:?}") };
            assert_eq!(result.transaction_id.as_deref(), Some(id));
        }
        let none = found(app(), Action::Refund, Uuid::from_u128(3), "pi_1").await;
        assert!(matches!(none, Found::Nothing), "another's refund: {none:?}");
    }

    /// The customer pays twice while a process is open, and a webhook names the unknown payment intent.
    #[tokio::test]
    async fn what_a_notification_names_is_seen_beside_what_is_known() {
        let retrieved = async |Path(id): Path<String>| {
            let payment = Uuid::from_u128(if id == "pi_others" { 8 } else { 9 }).to_string();
            let metadata = json!({"paybus_payment": payment, "paybus_operation": Uuid::from_u128(1).to_string()});
            Json(json!({"id": id, "object": "payment_intent", "status": "succeeded", "amount": 2_050,
                "amount_received": 2_050, "currency": "eur", "metadata": metadata}))
        };
        let app = Router::new().route("/v1/payment_intents/{id}", get(retrieved));
        let references = ["pi_1", "pi_2", "pi_others"].map(str::to_owned).to_vec();
        let found = found_by(app, Action::Process, Uuid::from_u128(1), "pi_1", references).await;
        let Found::Result(result) = found else { panic!("{found:?}") };
        let mut charges: Vec<_> = result.transactions.iter().filter_map(|it| it.reference.as_deref()).collect();
        charges.sort_unstable();
        assert_eq!((result.verdict, charges), (Verdict::Approved, vec!["pi_1", "pi_2"]));
    }

    /// A test key asks for a live payment intent, or test data was deleted: this is not an error of the gateway.
    #[tokio::test]
    async fn a_payment_intent_that_stripe_does_not_know_is_a_mismatch_of_this_payment() {
        let error = json!({"type": "invalid_request_error", "code": "resource_missing", "message": "No such thing"});
        let missing = move || {
            let body = json!({"error": error.clone()});
            async move { (axum::http::StatusCode::NOT_FOUND, Json(body)) }
        };
        let app = || Router::new().fallback(missing.clone());
        for action in [Action::Process, Action::Capture, Action::Refund] {
            let found = found(app(), action, Uuid::from_u128(1), "pi_1").await;
            assert!(matches!(&found, Found::Failed(error) if error.code == Code::Mismatch), "{action}: {found:?}");
        }
    }
}
