//! Look-ups: payment intents by their id, or among all of their time by our ids in their metadata. Lists are read, and not
//! searched: Stripe's search learns of what is new up to an hour later.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::api::{Session, made_between};
use super::dispute::Dispute;
use super::intent::{Asked, Intent, IntentStatus};
use super::refund::{Refund, RefundStatus};
use super::reply::Denial;
use super::request::{CAPTURE_PATH, CHARGE, Plan, is_payment_intent};
use crate::gateway::failure::{Failure, Reach};
use crate::gateway::{Action, Question, Target};
use crate::payment::code::Code;
use crate::payment::money::{Money, MoneyError};
use crate::payment::outcome::{Found, GatewayResult, Trouble, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// What `extra_data` tells of an attempt to pay, and is over with the payment's approval: what it was declined with, and
/// with what the customer's page may go on.
pub(super) const OF_AN_ATTEMPT: [&str; 2] = ["decline", "client_secret"];

/// Asks for the truth.
pub(super) async fn look_up(session: &Session<'_>, question: &Question<'_>, livemode: Option<bool>) -> Found {
    let search = Search { session, question, livemode };
    let found = match &question.target {
        Some(target) => search.of_operation(target).await,
        None => search.of_payment().await.map(Answer::from),
    };
    match found {
        Ok(Answer::OfOthers(transactions)) => Found::OfOthers(transactions),
        Ok(Answer::Of(mut result)) => {
            let told = |name: &str| question.payment.extra_data.get(name).is_some_and(|told| !told.is_null());
            if result.approves() {
                for name in OF_AN_ATTEMPT.into_iter().filter(|name| told(name)) {
                    result.extra_data.insert(name.to_owned(), Value::Null);
                }
            }
            Found::Result(result)
        }
        Ok(Answer::Nothing) => Found::Nothing,
        Err(denial) => denial.into(),
    }
}

/// One payment intent, with its charge.
pub(super) async fn intent(session: &Session<'_>, id: &str, asked: Asked<'_>) -> Result<Intent, Denial> {
    let object = session.get(&format!("payment_intents/{id}"), &format!("expand%5B%5D={CHARGE}")).await?;
    Ok(Intent::read(object, asked)?)
}

/// Searches the payment intents that a filter lets through for the payment's, or for one operation's. Those of others are
/// passed over, and come without their charges: with these, a page of them might be larger than any answer may be.
pub(super) async fn search(
    session: &Session<'_>,
    filter: &str,
    asked: Asked<'_>,
    operation: Option<Uuid>,
) -> Result<Vec<Intent>, Denial> {
    let ours = asked.payment_id.to_string();
    let is_ours = |object: &Map<String, Value>| {
        object.get("metadata").is_some_and(|metadata| metadata[super::request::PAYMENT] == ours.as_str())
    };
    let mut found = Vec::new();
    for object in session.list("payment_intents", filter, is_ours).await? {
        let listed = Intent::read(object, asked)?;
        if operation.is_none_or(|operation| listed.operation == Some(operation)) {
            found.push(intent(session, &listed.id, Asked { id: Some(&listed.id), ..asked }).await?);
        }
    }
    Ok(found)
}

/// The one that has come furthest.
pub(super) fn best(mut intents: Vec<Intent>) -> Option<Intent> {
    take_best(&mut intents)
}

/// How far a payment intent has come.
fn progress(intent: &Intent) -> u8 {
    match intent.status {
        IntentStatus::Canceled => 0,
        IntentStatus::RequiresPaymentMethod => 1,
        IntentStatus::RequiresConfirmation => 2,
        IntentStatus::RequiresAction => 3,
        IntentStatus::Processing => 4,
        IntentStatus::RequiresCapture => 5,
        IntentStatus::Succeeded => 6,
    }
}

/// The refunds that gave money back, of all, newest first. Where a part was captured, Stripe lists the rest, which was never
/// taken, as a refund too: the oldest of just that sum, and of no operation of ours.
fn given_back(mut refunds: Vec<Refund>, intent: &Intent, received: Money) -> Result<Vec<Refund>, Denial> {
    let sums = |error: MoneyError| super::reply::invalid(&format!("its sums: {error}"));
    let rest = intent.asked()?.less(received).map_err(sums)?;
    let is_rest = |refund: &Refund| refund.operation.is_none() && !rest.is_zero() && refund.amount == rest;
    if let Some(place) = refunds.iter().rposition(is_rest) {
        refunds.remove(place);
    }
    Ok(refunds)
}

/// Takes the one that has come furthest out of some.
fn take_best(intents: &mut Vec<Intent>) -> Option<Intent> {
    let place = intents.iter().enumerate().max_by_key(|(_, intent)| progress(intent)).map(|(place, _)| place)?;
    Some(intents.remove(place))
}

/// What a dispute that was lost took.
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

/// A payment intent without the mark of a capture. Each capture of ours leaves its own, in the same request: without it, nothing
/// was captured. But what was captured without any mark may be an earlier release's, and of this one.
fn not_captured(intent: &Intent) -> Result<Answer, Denial> {
    let transactions = intent.transactions()?;
    let is_unmarked = |transaction: &Transaction| {
        transaction.kind == TransactionKind::Capture && transaction.attribution == Attribution::Unattributed
    };
    Ok(if transactions.iter().any(is_unmarked) { Answer::OfOthers(transactions) } else { Answer::Nothing })
}

/// What a look-up of one operation found.
enum Answer {
    Of(Box<GatewayResult>),
    /// Money of other operations, and nothing of the one that was asked about.
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

    /// The payment's own payment intent, where one is known.
    async fn known(&self) -> Result<Option<Intent>, Denial> {
        let id = self.question.payment.transaction_id.as_str();
        if !is_payment_intent(id) {
            return Ok(None);
        }
        match intent(self.session, id, self.asked(Some(id))).await {
            Ok(intent) => Ok(Some(intent)),
            // Stripe forgets none: the key is another account's, and what that does not know proves nothing.
            Err(denial) if denial.is_missing() => {
                let message = "Stripe does not know the payment intent: is secret_key of the account that made it?";
                let trouble = Trouble::new(Code::Misconfigured, message);
                Err(Failure { reach: Reach::NotSent, trouble }.into())
            }
            Err(denial) => Err(denial),
        }
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

    /// What a process did: it went on with the payment's payment intent, or made one.
    async fn of_process(&self, target: &Target<'_>) -> Result<Option<GatewayResult>, Denial> {
        let plan = target.request.and_then(|request| Plan::read(&request.body).ok());
        let only_looks = matches!(plan, Some(Plan::Process { forms: None, .. }));
        let is_of_it = |intent: &Intent| intent.operation == Some(target.operation_id);
        // Money that the payment's own has is the answer, whichever operation it was given to: no process takes more.
        let counts = |intent: &Intent| is_of_it(intent) || intent.has_money() || only_looks && !intent.is_canceled();
        let known = self.known().await?.filter(counts);
        let (intent, others) = match known {
            Some(known) if !known.is_canceled() => (Some(known), Vec::new()),
            known => {
                let filter = made_between(target.stored_at, target.last_sent_at);
                let mut found = search(self.session, &filter, self.asked(None), Some(target.operation_id)).await?;
                let furthest = take_best(&mut found);
                (furthest.or(known), found)
            }
        };
        let Some(intent) = intent else { return Ok(None) };
        intent.check_held(target.request.is_none_or(|request| request.capture))?;
        let use_stripe_sdk = matches!(plan, Some(Plan::Process { use_stripe_sdk: true, .. }));
        let Some(mut result) = intent.of_process(use_stripe_sdk)? else { return Ok(None) };
        // Where two have money the customer paid twice, which neither of them may hide.
        for other in others {
            result.transactions.extend(other.transactions()?);
        }
        Ok(Some(result))
    }

    async fn of_refund(&self, target: &Target<'_>) -> Result<Option<GatewayResult>, Denial> {
        let id = self.question.payment.transaction_id.as_str();
        let refunds = self.refunds(id).await?;
        let refund = refunds.iter().find(|refund| refund.operation == Some(target.operation_id));
        Ok(refund.map(Refund::result))
    }

    async fn refunds(&self, payment_intent: &str) -> Result<Vec<Refund>, Denial> {
        if !is_payment_intent(payment_intent) {
            return Ok(Vec::new());
        }
        let all = self.session.list("refunds", &format!("&payment_intent={payment_intent}"), |_| true).await?;
        let read = |object| Refund::read(object, payment_intent).map_err(Denial::from);
        all.into_iter().map(read).collect()
    }

    /// The payment as a whole: its payment intents, what was given back, and what was lost.
    async fn of_payment(&self) -> Result<Option<GatewayResult>, Denial> {
        let payment = self.question.payment;
        let mut intents: Vec<Intent> = self.known().await?.into_iter().collect();
        // One that a notification names may be another than the payment's own.
        for id in self.question.references.iter().filter(|id| is_payment_intent(id)) {
            if intents.iter().all(|known| known.id != *id) {
                intents.extend(self.named(id).await?);
            }
        }
        if intents.is_empty() {
            let filter = made_between(payment.created, Some(payment.modified));
            intents = search(self.session, &filter, self.asked(None), None).await?;
        }
        let mut others = intents;
        let is_own = |intent: &Intent| intent.id == payment.transaction_id && !intent.is_canceled();
        let own = others.iter().position(is_own).map(|place| others.remove(place));
        let Some(intent) = own.or_else(|| take_best(&mut others)) else { return Ok(None) };
        let use_stripe_sdk = payment.extra_data.get("client_secret").is_some_and(|secret| !secret.is_null());
        let mut result = match intent.of_process(use_stripe_sdk)? {
            Some(result) => result,
            None if others.iter().any(Intent::has_money) => intent.result(Verdict::Pending, Vec::new()),
            None => return Ok(None),
        };
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

    /// A payment intent that a notification named: where it is this payment's.
    async fn named(&self, id: &str) -> Result<Option<Intent>, Denial> {
        let named = match intent(self.session, id, self.asked(Some(id))).await {
            Err(denial) if denial.is_missing() || denial.failure.trouble.code == Code::Mismatch => return Ok(None),
            named => named?,
        };
        Ok(Some(named).filter(Intent::names_its_payment))
    }

    /// Adds what was taken with a payment intent, given back and lost, each by itself and as sums.
    async fn add_sums(&self, intent: &Intent, result: &mut GatewayResult) -> Result<(), Denial> {
        let sums = |error: MoneyError| super::reply::invalid(&format!("its sums: {error}"));
        let received = intent.received()?.ok_or_else(|| super::reply::invalid("it does not tell what was taken"))?;
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
                    // What was refunded before was not there to be lost once more.
                    let left = kept.less(lost).map_err(sums)?;
                    let amount = if dispute.amount.exceeds(left).map_err(sums)? { left } else { dispute.amount };
                    lost = lost.plus(amount).map_err(sums)?;
                    result.transactions.extend(lost_to(&dispute, amount, intent));
                }
                result.extra_data.insert("dispute".to_owned(), dispute.told());
            }
        }
        let zero = Money::zero(intent.currency);
        let add = |sum: Option<Money>, more: Money| sum.unwrap_or(zero).plus(more).map(Some).map_err(sums);
        result.captured = add(result.captured, kept.less(lost).map_err(sums)?)?;
        result.disputed = add(result.disputed, lost)?;
        result.refunded = add(result.refunded, refunded)?;
        Ok(())
    }

    /// The disputes, the newest last.
    async fn disputes(&self, intent: &Intent) -> Result<Vec<Dispute>, Denial> {
        let mut all = self.session.list("disputes", &format!("&payment_intent={}", intent.id), |_| true).await?;
        all.reverse();
        all.into_iter().map(|object| Dispute::read(object, intent.currency).map_err(Denial::from)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::extract::RawQuery;
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

    fn read(id: &str, status: &str) -> Intent {
        let payment = Uuid::from_u128(9);
        let intent = json!({"id": id, "object": "payment_intent", "status": status, "amount": 2_050, "currency": "eur",
            "metadata": {"paybus_payment": payment.to_string()}});
        let asked = Asked { payment_id: payment, livemode: None, id: None };
        Intent::read(intent.as_object().unwrap().clone(), asked).unwrap()
    }

    #[test]
    fn the_one_that_has_come_furthest_is_the_payments() {
        let found = best(vec![read("pi_1", "canceled"), read("pi_2", "succeeded"), read("pi_3", "requires_action")]);
        assert_eq!(found.unwrap().id, "pi_2");
        assert!(best(Vec::new()).is_none());
    }

    /// What Stripe, behind these paths, is found to say of an operation.
    async fn found(app: Router, action: Action, operation: Uuid, transaction_id: &str) -> Found {
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
            references: Vec::new(),
            trace: None,
            timeout,
        };
        gateway(app).await.look_up(question).await
    }

    /// An account that takes in more than a look-up reads: what it did not get to see may still be there.
    #[tokio::test]
    async fn a_list_that_is_cut_short_proves_nothing() {
        let page = async |RawQuery(query): RawQuery| {
            let after = query.as_deref().and_then(|query| query.split_once("starting_after=pi_"));
            let number: u32 = after.map_or(0, |(_, number)| number.parse().unwrap());
            Json(json!({"data": [{"id": format!("pi_{}", number + 1)}], "has_more": true}))
        };
        let app = Router::new().route("/v1/payment_intents", get(page));
        let found = found(app, Action::Process, Uuid::from_u128(1), "").await;
        assert!(matches!(&found, Found::Failed(trouble) if trouble.code == Code::InvalidAnswer), "{found:?}");
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
}
