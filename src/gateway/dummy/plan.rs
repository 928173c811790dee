//! What a token makes of a payment. The answer to a request follows from its body and key, from when its operation was
//! stored and what time it is; the answer to a look-up from that, or from what the payment's `extra_data` keeps. So
//! every replica answers the same, and none has to remember anything.

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

/// The longest time that a token can be given.
const SECONDS_MAX: u64 = 24 * 60 * 60;

/// The field of `extra_data` in which a plan waits for what comes later.
const PLAN: &str = "dummy";

/// A token, and how far its payment has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Plan {
    #[serde(with = "tokens")]
    token: &'static Token,
    /// How long things take, from when their operation is stored.
    seconds: u32,
    /// When the payment's last step has come to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    settles_at: Option<Timestamp>,
    /// The transaction that the token governs: another one is none of its business.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    transaction_id: Option<String>,
    /// What the last step moved, by the gateway's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
}

/// What an answer is about: an attempt, or an operation that is asked about.
#[derive(Debug, Clone, Copy)]
struct Deed {
    operation: Uuid,
    action: Action,
    captures: bool,
    amount: Option<Money>,
    stored_at: Timestamp,
}

impl Plan {
    /// Reads the `token` of a `process` object; `None` where it has none.
    ///
    /// # Errors
    /// There is no such token, or something stands beside it that does not belong there.
    pub(super) fn read(data: &Map<String, Value>) -> Result<Option<Plan>, Rejection> {
        let seconds = data.get("seconds").map(|value| number("seconds", value, SECONDS_MAX)).transpose()?;
        let Some(word) = data.get("token") else {
            return seconds.map_or(Ok(None), |_| Err(invalid("seconds", "must stand beside a token")));
        };
        let token = word.as_str().and_then(tokens::find).ok_or_else(|| {
            let words: Vec<&str> = tokens::TOKENS.iter().map(|token| token.word).collect();
            invalid("token", &format!("must be one of {}", words.join(", ")))
        })?;
        if data.keys().any(|name| !matches!(name.as_str(), "token" | "seconds")) {
            return Err(invalid("token", "must stand alone, or beside seconds"));
        }
        if token.course == Course::Slow && seconds.is_none() {
            return Err(invalid("seconds", "must be given with tok_slow"));
        }
        let seconds = seconds.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or_default();
        Ok(Some(Plan { token, seconds, settles_at: None, transaction_id: None, reference: None }))
    }

    /// The plan that governs a request: that of its own token; else of the payment's, where a customer comes back, or
    /// where it is no process.
    pub(super) fn of(ask: &Ask<'_>) -> Option<Plan> {
        let is_process = ask.action == Action::Process;
        let goes_on = !is_process || ask.payment.status == Status::Input && ask.data.is_empty();
        let own = if is_process { Plan::read(ask.data).ok().flatten() } else { None };
        own.or_else(|| Plan::stored(ask.payment).filter(|_| goes_on))
    }

    /// The plan of a payment's transaction.
    fn stored(payment: &Payment) -> Option<Plan> {
        let plan: Plan = serde_json::from_value(payment.extra_data.get(PLAN)?.clone()).ok()?;
        (plan.transaction_id.as_deref() == Some(payment.transaction_id.as_str())).then_some(plan)
    }

    /// The answer to one attempt.
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

    /// What a process meets before its end; `None` where it has come to that. The first attempt meets it however little
    /// time is given.
    async fn before_its_end(&self, call: &Call<'_>, left: Duration) -> Option<Outcome> {
        let is_early = call.attempt == 1 || !left.is_zero();
        // Where it must wait, it is told so: no other attempt follows at once, and the delay is told.
        let trouble =
            |code: Code, message: &str| GatewayError { retry_after: Some(left), ..GatewayError::new(code, message) };
        match self.token.course {
            Course::Unanswered(code) if is_early => Some(Outcome::Unknown(trouble(code, "no answer, as asked"))),
            Course::Unreachable if is_early => {
                Some(Outcome::NotSent(trouble(Code::Unreachable, "a network failure, as asked")))
            }
            Course::Refused => Some(Outcome::Refused(GatewayError::new(Code::Refused, "a refusal, as asked"))),
            Course::Mismatched => {
                let message = "an answer that does not fit, as asked: a person must resolve it";
                Some(Outcome::Unknown(GatewayError::new(Code::Mismatch, message)))
            }
            Course::Slow => {
                tokio::time::sleep(left.min(call.timeout)).await;
                let is_late = left >= call.timeout;
                is_late.then(|| Outcome::Unknown(GatewayError::new(Code::Timeout, "a slow answer, as asked")))
            }
            Course::AtOnce
            | Course::Pending
            | Course::Redirect
            | Course::Twice
            | Course::Unanswered(_)
            | Course::Unreachable => None,
        }
    }

    /// What is found of an operation that this was sent for.
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

    /// What is found of a payment as a whole, where its token has more to say than what is known.
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

    /// Of a payment whose customer must act: what came of it, or that they still must.
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

    /// What the gateway says of an operation.
    fn result(&self, deed: Deed, is_answer: bool) -> GatewayResult {
        let is_due = left_until(self.due(deed)).is_zero();
        let end = match (deed.action, self.token.course, self.token.later) {
            (Action::Process, Course::Redirect, _) if !self.comes_back() || !is_due => return self.must_act(deed),
            // The answer to it only says that it was accepted.
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
            result.fraud = Some((FraudStatus::Review, "in review, as asked".to_owned()));
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

    /// Keeps with the payment what a later answer follows from: the token where it governs more than the process, and
    /// when the last step comes to its end.
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

    /// Whether the customer was sent away before, and has come back.
    fn comes_back(&self) -> bool {
        self.token.course == Course::Redirect && self.settles_at.is_some()
    }

    /// The payment's id at the gateway: of each process another, but for one that goes on with it.
    fn transaction_id(&self, deed: Deed) -> String {
        let own = || format!("dummy-{}", deed.operation.simple());
        self.transaction_id.clone().unwrap_or_else(own)
    }

    /// When an operation comes to its end; the customer's time runs from when they were sent away.
    fn due(&self, deed: Deed) -> Timestamp {
        let waits = self.settles_at.filter(|_| deed.action == Action::Process);
        waits.unwrap_or_else(|| self.end_of(deed))
    }

    fn end_of(&self, deed: Deed) -> Timestamp {
        let seconds = SignedDuration::from_secs(i64::from(self.seconds));
        deed.stored_at.checked_add(seconds).unwrap_or(Timestamp::MAX)
    }
}

/// How long until then; nothing where it has passed.
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

/// A payment that was paid while nobody here knew.
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

/// What the gateway did, and says of no operation of ours.
fn elsewhere(kind: TransactionKind, reference: String, amount: Money) -> Transaction {
    let (attribution, state) = (Attribution::Unattributed, TransactionState::Done);
    Transaction { kind, reference: Some(reference), parent: None, attribution, state, amount }
}
