//! `dummy`: an in-process gateway for trying out paybus. It takes no money; the command's `process` object determines
//! its answers.
//!
//! A token in that object plays one scenario to its end (`tokens`, `plan`); the other fields determine the next answer
//! (`process`).
//!
//! Its answers follow from the request's body and key and, if a token involves time, from the clock, so that a worker
//! that was killed and restarted gets the same answer. What a later step needs (`verification_result`, a token) is
//! carried in the payment's `extra_data`. Only lost answers not caused by a token are kept in memory, for look-ups: its
//! look-up is therefore only indicative.

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Map, Value};
use uuid::Uuid;

use self::plan::Plan;
use self::process::{Process, Response};
use self::written::Written;
use super::{Action, Ask, Call, Gateway, Question};
use crate::payment::code::{Code, Rejection};
use crate::payment::contract::{Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::model::Payment;
use crate::payment::money::Money;
use crate::payment::outcome::{Decline, Found, GatewayError, GatewayResult, Outcome, Verdict};
use crate::payment::status::Status;
use crate::payment::transaction::{Attribution, Transaction, TransactionState};

mod plan;
mod process;
#[cfg(test)]
mod tests;
mod tokens;
mod written;

/// Maximum number of lost answers in memory; the oldest is dropped first.
const LOST_ANSWERS_MAX: usize = 10_000;

/// The field of `extra_data` that keeps the result of a verification until it is due.
const VERIFICATION_RESULT: &str = "verification_result";

/// The in-process gateway.
#[derive(Debug)]
pub struct DummyGateway {
    contract: Contract,
    lost: Mutex<VecDeque<Lost>>,
}

/// An answer that never arrived.
#[derive(Debug)]
struct Lost {
    key: Uuid,
    payment_id: Uuid,
    result: GatewayResult,
}

impl Default for DummyGateway {
    fn default() -> DummyGateway {
        DummyGateway::new()
    }
}

impl DummyGateway {
    /// A gateway without any history.
    pub fn new() -> DummyGateway {
        let contract = Contract {
            keys: PerAction::all(Keys::kept_for(Duration::from_secs(24 * 60 * 60))),
            lookup: Lookup::Indicative,
            settle_window: Duration::ZERO,
            captures: Captures::Several,
            notifications: NotificationRole::Hint,
            undo: false,
        };
        DummyGateway { contract, lost: Mutex::default() }
    }

    async fn process(&self, written: Written, call: Call<'_>) -> Outcome {
        let process = match Process::read(&written.data) {
            Ok(process) => process,
            Err(rejection) => return Outcome::Refused(GatewayError::new(Code::Refused, rejection.message)),
        };
        tokio::time::sleep(process.latency.min(call.timeout)).await;
        if call.attempt <= process.fail_times {
            let message = format!("attempt {} of {} that fail, as requested", call.attempt, process.fail_times);
            return Outcome::NotSent(GatewayError::new(Code::Unreachable, message));
        }
        let outcome = process.outcome(&written, &call);
        let is_lost = process.lose_answer && call.attempt == process.fail_times.saturating_add(1);
        let is_late = process.latency >= call.timeout;
        match outcome {
            Outcome::Result(result) if is_lost || is_late => {
                self.lose(&call, *result);
                Outcome::Unknown(GatewayError::new(Code::Timeout, "the answer was lost"))
            }
            outcome => outcome,
        }
    }

    fn lose(&self, call: &Call<'_>, result: GatewayResult) {
        let key = call.key.value();
        let mut lost = self.lost.lock();
        lost.retain(|other| other.key != key);
        if lost.len() >= LOST_ANSWERS_MAX {
            lost.pop_front();
        }
        lost.push_back(Lost { key, payment_id: call.payment_id, result });
    }

    fn find(&self, question: &Question<'_>) -> Found {
        if let Some(found) = planned(question) {
            return found;
        }
        let payment = question.payment;
        let lost = self.lost.lock();
        let known = match question.target {
            Some(target) => lost.iter().find(|lost| lost.key == target.key.value()),
            // Once a payment's process has ended, none of its answers is lost any more.
            None if settled(payment).is_some() => None,
            None => lost.iter().rev().find(|lost| lost.payment_id == payment.id),
        };
        if let Some(lost) = known {
            return Found::Result(Box::new(lost.result.clone()));
        }
        match question.target {
            Some(target) if target.action != Action::Process => Found::Nothing,
            Some(target) => match verified(payment) {
                Some(mut result) => {
                    let done = done_by(&result, target.operation_id, Action::Process, true, Some(payment.order.total));
                    result.transactions.extend(done);
                    found(result)
                }
                None => Found::Nothing,
            },
            None => verified(payment).or_else(|| settled(payment)).map_or(Found::Nothing, found),
        }
    }
}

impl Gateway for DummyGateway {
    fn contract(&self) -> &Contract {
        &self.contract
    }

    fn account(&self) -> &str {
        "dummy"
    }

    fn check(&self, data: &Map<String, Value>) -> Result<(), Rejection> {
        match Plan::read(data)? {
            Some(_) => Ok(()),
            None => Process::read(data).map(|_| ()),
        }
    }

    fn prepare(&self, ask: &Ask<'_>) -> Result<String, Rejection> {
        Ok(Written::new(ask).to_json())
    }

    /// Captures, releases, refunds and cancels are approved for the requested amount, unless the payment's token says
    /// otherwise.
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Ok(written) = serde_json::from_str::<Written>(call.body) else {
                return Outcome::Refused(GatewayError::new(
                    Code::Refused,
                    "the stored request was not written by the dummy gateway",
                ));
            };
            if let Some(plan) = &written.plan {
                return plan.answer(&call).await;
            }
            match call.action {
                Action::Process => self.process(written, call).await,
                Action::Capture | Action::Release | Action::Refund | Action::Cancel => {
                    let mut result = answer(Verdict::Approved, call.payment_id);
                    result.transactions.extend(done_by(&result, call.operation_id, call.action, true, call.amount));
                    Outcome::Result(Box::new(result))
                }
            }
        })
    }

    fn look_up<'a>(&'a self, question: Question<'a>) -> BoxFuture<'a, Found> {
        Box::pin(async move { self.find(&question) })
    }

    fn probe(&self) -> BoxFuture<'_, Result<String, String>> {
        Box::pin(async { Ok("the dummy gateway runs inside paybus; it confirms payments that nobody paid".to_owned()) })
    }
}

impl Process {
    /// The answer to this object.
    fn outcome(&self, written: &Written, call: &Call<'_>) -> Outcome {
        match self.response {
            Response::Failure => {
                return Outcome::NotSent(GatewayError::new(Code::Unreachable, "a network failure, as requested"));
            }
            Response::PaymentError => {
                return Outcome::Refused(GatewayError::new(Code::Refused, "Unsupported operation"));
            }
            Response::Redirect => return self.done(self.must_act(call.payment_id, self.verification_result)),
            Response::Direct => {}
        }
        match self.status.unwrap_or_else(|| self.verified_status(written)) {
            Status::Error => Outcome::Refused(GatewayError::new(Code::Refused, "an error, as requested")),
            Status::Input => self.done(self.must_act(call.payment_id, self.verification_result)),
            status => {
                let mut result = answer(verdict(status), call.payment_id);
                result.transactions.extend(done_by(&result, call.operation_id, call.action, call.capture, call.amount));
                if status == Status::Waiting {
                    result.extra_data = extra_data(self.verification_result);
                }
                self.done(result)
            }
        }
    }

    /// The status if the object specifies none: the result of the verification that the payment waits for, else
    /// confirmed.
    fn verified_status(&self, written: &Written) -> Status {
        match written.verification_result() {
            Some(stored) => self.verification_result.unwrap_or(stored),
            None => Status::Confirmed,
        }
    }

    fn must_act(&self, payment_id: Uuid, verification_result: Option<Status>) -> GatewayResult {
        let word = verification_result.map(|status| format!("?{VERIFICATION_RESULT}={status}"));
        let redirect_url = Some(format!("https://dummy.invalid/3ds/{payment_id}{}", word.unwrap_or_default()));
        let mut result = answer(Verdict::CustomerMustAct { redirect_url }, payment_id);
        result.extra_data = extra_data(verification_result);
        result
    }

    fn done(&self, mut result: GatewayResult) -> Outcome {
        result.fraud = self.fraud_status.map(|status| (status, String::new()));
        Outcome::Result(Box::new(result))
    }
}

fn answer(verdict: Verdict, payment_id: Uuid) -> GatewayResult {
    let mut result = GatewayResult::new(verdict);
    let id = payment_id.simple().to_string();
    result.transaction_id = Some(format!("dummy-{}", &id[..8]));
    result
}

/// The money that an approval moved: held if the verdict says so, else according to the action.
fn done_by(
    result: &GatewayResult,
    operation: Uuid,
    action: Action,
    captures: bool,
    amount: Option<Money>,
) -> Option<Transaction> {
    if !result.approves() {
        return None;
    }
    let kind = action.moves(captures && result.verdict != Verdict::Authorized)?;
    let reference = match action {
        Action::Process => result.transaction_id.clone(),
        _ => Some(format!("dummy-{action}-{}", operation.simple())),
    };
    let attribution = Attribution::Recorded(operation);
    let state = TransactionState::Done;
    amount.map(|amount| Transaction { kind, reference, parent: None, attribution, state, amount })
}

fn extra_data(verification_result: Option<Status>) -> Map<String, Value> {
    verification_result
        .map(|status| (VERIFICATION_RESULT.to_owned(), Value::from(status.as_str())))
        .into_iter()
        .collect()
}

fn verdict(status: Status) -> Verdict {
    match status {
        Status::Rejected => Verdict::Declined(Decline::Hard),
        Status::Waiting => Verdict::Pending,
        Status::Preauth => Verdict::Authorized,
        _ => Verdict::Approved,
    }
}

fn found(result: GatewayResult) -> Found {
    Found::Result(Box::new(result))
}

/// A token's answer to a question.
fn planned(question: &Question<'_>) -> Option<Found> {
    let Some(target) = question.target else { return Plan::found_of_payment(question.payment) };
    let request = target.request?;
    let written: Written = serde_json::from_str(&request.body).ok()?;
    Some(written.plan?.found_of(target, request))
}

/// The state of a process that is still open, as far as the payment shows it: the result of its verification, or still
/// open. The payment's status says nothing about other operations.
fn verified(payment: &Payment) -> Option<GatewayResult> {
    let goes_on = match payment.status {
        Status::Waiting if payment.transaction_id.is_empty() => return None,
        Status::Waiting => Verdict::Pending,
        Status::Input => Verdict::CustomerMustAct { redirect_url: payment.redirect_url.clone() },
        _ => return None,
    };
    let result = match process::stored_verification(&payment.extra_data) {
        None => answer(goes_on, payment.id),
        // Nothing was charged, and nothing will be.
        Some(Status::Error) => answer(Verdict::Declined(Decline::Hard), payment.id),
        Some(Status::Confirmed) if payment.capture == Some(false) => answer(Verdict::Authorized, payment.id),
        Some(status) => answer(verdict(status), payment.id),
    };
    Some(result)
}

/// The state of a payment whose process has ended.
fn settled(payment: &Payment) -> Option<GatewayResult> {
    let mut result = match payment.status {
        Status::Preauth => answer(Verdict::Authorized, payment.id),
        Status::Confirmed | Status::Refunded => answer(Verdict::Approved, payment.id),
        Status::Rejected => answer(Verdict::Declined(Decline::Hard), payment.id),
        Status::Waiting | Status::Input | Status::Error | Status::Cancelled => return None,
    };
    if !payment.transaction_id.is_empty() {
        result.transaction_id = Some(payment.transaction_id.clone());
    }
    result.captured = Some(payment.amounts.captured);
    result.refunded = Some(payment.amounts.refunded);
    Some(result)
}
