//! What a token does to a payment. The answer to a request follows from its body and key, the time its operation was
//! stored, and the current time; the answer to a look-up follows from these or from the payment's `extra_data`. All
//! replicas therefore answer the same, without keeping any state.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::process::{invalid, number};
use super::tokens::{self, Course, End, Later, Reason, Token};
use super::{done_by, settled};
use crate::gateway::{Action, Ask, Call, Request, Target};
use crate::payment::code::{Code, Rejection};
use crate::payment::model::Payment;
use crate::payment::money::Money;
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::{FraudStatus, Status};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// Maximum time that a token can be given, in seconds.
const SECONDS_MAX: u64 = 24 * 60 * 60;

/// The field of `extra_data` that keeps a plan for later steps.
const PLAN: &str = "dummy";

/// A token and the progress of its payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    #[serde(with = "tokens")]
    token: &'static Token,
    /// Duration of each step, counted from when its operation was stored.
    seconds: u32,
    /// When the payment's last step ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settles_at: Option<Timestamp>,
    /// The transaction that the token applies to; it ignores all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction_id: Option<String>,
    /// The gateway's id of what the last step moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// The subject of an answer: an attempt, or the target of a look-up.
#[derive(Debug, Clone, Copy)]
struct Deed {
    operation: Uuid,
    action: Action,
    captures: bool,
    amount: Option<Money>,
    stored_at: Timestamp,
}

impl Plan {
    /// Reads the `token` of a `process` object; `None` if there is none.
    ///
    /// # Errors
    /// The token does not exist, or has fields beside it that do not belong there.
    pub(super) fn read(data: &Map<String, Value>) -> Result<Option<Plan>, Rejection> {
        let seconds = data.get("seconds").map(|value| number("seconds", value, SECONDS_MAX)).transpose()?;
        let Some(word) = data.get("token") else {
            return seconds.map_or(Ok(None), |_| Err(invalid("seconds", "must be given together with a token")));
        };
        let token = word.as_str().and_then(tokens::find).ok_or_else(|| {
            let words: Vec<&str> = tokens::TOKENS.iter().map(|token| token.word).collect();
            invalid("token", &format!("must be one of {}", words.join(", ")))
        })?;
        if data.keys().any(|name| !matches!(name.as_str(), "token" | "seconds")) {
            return Err(invalid("token", "must be given alone or together with seconds"));
        }
        if token.course == Course::Slow && seconds.is_none() {
            return Err(invalid("seconds", "is required with tok_slow"));
        }
        let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default();
        Ok(Some(Plan { token, seconds, settles_at: None, transaction_id: None, reference: None }))
    }

    /// Returns the plan for a request: that of its own token; else the payment's, if a customer returns or the request
    /// is not a process.
    pub(super) fn of(ask: &Ask<'_>) -> Option<Plan> {
        let is_process = ask.action == Action::Process;
        let goes_on = !is_process || ask.payment.status == Status::Input && ask.data.is_empty();
        let own = if is_process { Plan::read(ask.data).ok().flatten() } else { None };
        own.or_else(|| Plan::stored(ask.payment).filter(|_| goes_on))
    }

    /// The plan of the payment's current transaction.
    fn stored(payment: &Payment) -> Option<Plan> {
        let plan: Plan = serde_json::from_value(payment.extra_data.get(PLAN)?.clone()).ok()?;
        (plan.transaction_id.as_deref() == Some(payment.transaction_id.as_str())).then_some(plan)
    }

    /// Answers one attempt.
    pub(super) async fn answer(&self, call: &Call<'_>) -> Outcome {
        let deed = Deed {
            operation: call.operation_id,
            action: call.action,
            captures: call.capture,
            amount: call.amount,
            stored_at: call.stored_at,
        };
        if call.action == Action::Process
            && let Some(outcome) = self.before_its_end(call, left_until(self.due(deed))).await
        {
            return outcome;
        }
        Outcome::Result(Box::new(self.result(deed, true)))
    }

    /// The outcome of a process before its end; `None` once the end is reached. The first attempt always gets it,
    /// however short the time.
    async fn before_its_end(&self, call: &Call<'_>, left: Duration) -> Option<Outcome> {
        let is_early = call.attempt == 1 || !left.is_zero();
        // A retry-after prevents an immediate retry, so that the delay is published.
        let error =
            |code: Code, message: &str| GatewayError { retry_after: Some(left), ..GatewayError::new(code, message) };
        match self.token.course {
            Course::Unanswered(code) if is_early => Some(Outcome::Unknown(error(code, "no answer, as requested"))),
            Course::Unreachable if is_early => {
                Some(Outcome::NotSent(error(Code::Unreachable, "a network failure, as requested")))
            }
            Course::Refused => Some(Outcome::Refused(GatewayError::new(Code::Refused, "a refusal, as requested"))),
            Course::Mismatched => {
                let message = "an answer that does not match the request, as requested: an operator must resolve it";
                Some(Outcome::Unknown(GatewayError::new(Code::Mismatch, message)))
            }
            Course::Slow => {
                tokio::time::sleep(left.min(call.timeout)).await;
                let is_late = left >= call.timeout;
                is_late.then(|| Outcome::Unknown(GatewayError::new(Code::Timeout, "a slow answer, as requested")))
            }
            Course::AtOnce
            | Course::Pending
            | Course::Redirect
            | Course::Twice
            | Course::Unanswered(_)
            | Course::Unreachable => None,
        }
    }

    /// Answers a look-up of an operation that was sent with this request.
    pub(super) fn found_of(&self, target: Target<'_>, request: &Request) -> Found {
        let deed = Deed {
            operation: target.operation_id,
            action: target.action,
            captures: request.capture,
            amount: request.amount,
            stored_at: target.stored_at,
        };
        let is_due = left_until(self.due(deed)).is_zero();
        let is_known = match (target.action, self.token.course) {
            (Action::Process, Course::Pending | Course::Redirect) => true,
            (Action::Process, Course::Refused | Course::Mismatched) => false,
            (Action::Process, _) => is_due,
            _ => matches!(self.token.later, Later::Refund { .. } | Later::CaptureDeclined(_)),
        };
        if is_known { Found::Result(Box::new(self.result(deed, false))) } else { Found::Nothing }
    }

    /// Answers a look-up of the whole payment, if the token adds anything to what is known.
    pub(super) fn found_of_payment(payment: &Payment) -> Option<Found> {
        let result = Plan::stored(payment)?.of_payment(payment)?;
        Some(Found::Result(Box::new(result)))
    }

    fn of_payment(&self, payment: &Payment) -> Option<GatewayResult> {
        let is_due = self.settles_at.is_some_and(|settles_at| left_until(settles_at).is_zero());
        if payment.status == Status::Input && self.token.course == Course::Redirect {
            return Some(self.verified(payment, is_due));
        }
        let zero = Money::zero(payment.currency());
        let (captured, refunded) = (payment.amounts.captured, payment.amounts.refunded);
        let mut result = settled(payment).filter(|_| is_due)?;
        match (self.token.later, payment.status) {
            (Later::Reviewed(status), Status::Confirmed | Status::Preauth) => {
                result.fraud = Some((status, "the review is over".to_owned()));
            }
            (Later::Disputed, Status::Confirmed) => {
                let reference = format!("dummy-dispute-{}", payment.id.simple());
                result.transactions = vec![elsewhere(TransactionKind::Dispute, reference, captured)];
                result.captured = Some(zero);
            }
            (Later::Reversed(TransactionKind::Capture), Status::Confirmed) if refunded.is_zero() => {
                let reference = self.reference.clone()?;
                let gone = elsewhere(TransactionKind::Capture, reference, captured);
                result.transactions = vec![Transaction { state: TransactionState::Reversed, ..gone }];
                result.captured = Some(zero);
            }
            (Later::Reversed(TransactionKind::Refund), Status::Confirmed | Status::Refunded) if !refunded.is_zero() => {
                result.captured = captured.plus(refunded).ok();
                result.refunded = Some(zero);
            }
            (Later::Paid, Status::Rejected) => result = paid(payment),
            _ => return None,
        }
        Some(result)
    }

    /// For a payment whose customer must act: the result, or that they still must.
    fn verified(&self, payment: &Payment, is_due: bool) -> GatewayResult {
        match self.token.end {
            End::Approved if is_due => paid(payment),
            End::Declined(reason) if is_due => {
                GatewayResult { transaction_id: Some(payment.transaction_id.clone()), ..declined(reason) }
            }
            _ => {
                let redirect_url = payment.redirect_url.clone();
                GatewayResult {
                    transaction_id: Some(payment.transaction_id.clone()),
                    ..GatewayResult::new(Verdict::CustomerMustAct { redirect_url })
                }
            }
        }
    }

    /// The gateway's result for an operation.
    fn result(&self, deed: Deed, is_answer: bool) -> GatewayResult {
        let is_due = left_until(self.due(deed)).is_zero();
        let end = match (deed.action, self.token.course, self.token.later) {
            (Action::Process, Course::Redirect, _) if !self.comes_back() || !is_due => return self.must_act(deed),
            // The direct answer only says that the request was accepted.
            (Action::Process, Course::Pending, _) if is_answer || !is_due => return self.pending(deed),
            (Action::Process, _, _) => self.token.end,
            (Action::Capture, _, Later::CaptureDeclined(reason)) => End::Declined(reason),
            (Action::Refund, _, Later::Refund { pends: true, .. }) if is_answer || !is_due => {
                return self.pending(deed);
            }
            (Action::Refund, _, Later::Refund { end, .. }) => end,
            _ => End::Approved,
        };
        let mut result = match end {
            End::Approved => GatewayResult::new(Verdict::Approved),
            End::Declined(reason) => declined(reason),
        };
        result.transaction_id = Some(self.transaction_id(deed));
        result.transactions.extend(done_by(&result, deed.operation, deed.action, deed.captures, deed.amount));
        if deed.action == Action::Process && self.token.course == Course::Twice {
            let second = result.transactions.first().cloned();
            let reference = Some(format!("{}-2", self.transaction_id(deed)));
            result.transactions.extend(second.map(|second| Transaction { reference, ..second }));
        }
        if deed.action == Action::Process && matches!(self.token.later, Later::Reviewed(_)) {
            result.fraud = Some((FraudStatus::Review, "in review, as requested".to_owned()));
        }
        self.remember(deed, &mut result);
        result
    }

    fn pending(&self, deed: Deed) -> GatewayResult {
        let mut result = GatewayResult::new(Verdict::Pending);
        result.transaction_id = Some(self.transaction_id(deed));
        result
    }

    fn must_act(&self, deed: Deed) -> GatewayResult {
        let transaction_id = self.transaction_id(deed);
        let redirect_url = Some(format!("https://dummy.invalid/3ds/{transaction_id}"));
        let mut result = GatewayResult::new(Verdict::CustomerMustAct { redirect_url });
        result.transaction_id = Some(transaction_id);
        let plan = if self.comes_back() { self.clone() } else { self.after(deed, None) };
        result.extra_data = plan.to_extra_data();
        result
    }

    /// Stores in the payment what later answers depend on: the token, if it covers more than the process, and when the
    /// last step ends.
    fn remember(&self, deed: Deed, result: &mut GatewayResult) {
        let is_step = match (deed.action, self.token.later) {
            (Action::Process, Later::Nothing) => false,
            (Action::Process, _) => true,
            (Action::Capture, Later::Reversed(TransactionKind::Capture)) => true,
            (Action::Refund, Later::Reversed(TransactionKind::Refund)) => true,
            _ => false,
        };
        if is_step {
            let reference = result.transactions.first().and_then(|it| it.reference.clone());
            result.extra_data = self.after(deed, reference).to_extra_data();
        }
    }

    fn after(&self, deed: Deed, reference: Option<String>) -> Plan {
        let (settles_at, transaction_id) = (Some(self.end_of(deed)), Some(self.transaction_id(deed)));
        Plan { settles_at, transaction_id, reference, ..self.clone() }
    }

    fn to_extra_data(&self) -> Map<String, Value> {
        serde_json::to_value(self).ok().map(|plan| (PLAN.to_owned(), plan)).into_iter().collect()
    }

    /// Whether the customer was redirected before and has returned.
    fn comes_back(&self) -> bool {
        self.token.course == Course::Redirect && self.settles_at.is_some()
    }

    /// The payment's id at the gateway: a new one for each process, except one that continues an earlier one.
    fn transaction_id(&self, deed: Deed) -> String {
        let own = || format!("dummy-{}", deed.operation.simple());
        self.transaction_id.clone().unwrap_or_else(own)
    }

    /// When an operation ends. The customer's time runs from the redirect.
    fn due(&self, deed: Deed) -> Timestamp {
        let waits = self.settles_at.filter(|_| deed.action == Action::Process);
        waits.unwrap_or_else(|| self.end_of(deed))
    }

    fn end_of(&self, deed: Deed) -> Timestamp {
        let seconds = SignedDuration::from_secs(i64::from(self.seconds));
        deed.stored_at.checked_add(seconds).unwrap_or(Timestamp::MAX)
    }
}

/// Time remaining; zero if the time has passed.
fn left_until(time: Timestamp) -> Duration {
    Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default()
}

fn declined(reason: &'static Reason) -> GatewayResult {
    GatewayResult {
        code: Some(reason.code.to_owned()),
        message: reason.message.to_owned(),
        ..GatewayResult::new(Verdict::Declined(reason.kind))
    }
}

/// The result for a payment that was paid without our knowledge.
fn paid(payment: &Payment) -> GatewayResult {
    let captures = payment.capture != Some(false);
    let kind = if captures { TransactionKind::Capture } else { TransactionKind::Authorization };
    let verdict = if captures { Verdict::Approved } else { Verdict::Authorized };
    GatewayResult {
        transactions: vec![elsewhere(kind, payment.transaction_id.clone(), payment.order.total)],
        transaction_id: Some(payment.transaction_id.clone()),
        ..GatewayResult::new(verdict)
    }
}

/// A transaction that the gateway attributes to none of our operations.
fn elsewhere(kind: TransactionKind, reference: String, amount: Money) -> Transaction {
    let (attribution, state) = (Attribution::Unattributed, TransactionState::Done);
    Transaction { kind, reference: Some(reference), parent: None, attribution, state, amount }
}
