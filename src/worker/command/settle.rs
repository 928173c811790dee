//! Commits the gateway's answer, which is never discarded: on a conflict the payment is loaded and decided on again,
//! with the same answer.

use tracing::error;
use uuid::Uuid;

use super::attempt::{Attempt, Retry};
use super::call_slot::is_question;
use super::engine::{Engine, Failure};
use super::stopped::Stopped;
use crate::backoff;
use crate::gateway::notification::Fact;
use crate::payment::code::Code;
use crate::payment::machine::{Aggregate, Context, Step};
use crate::payment::observation::Observation;
use crate::payment::operation::Operation;
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Outcome};
use crate::store::load::{Loaded, Unsent};
use crate::telemetry::metrics;
use crate::worker::outbox::announce::Announced;
use crate::worker::variant::Variant;

/// The gateway's answer.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The outcome of an attempt.
    Outcome(Observation<Outcome>),
    /// The result of a look-up or of an undo.
    Found {
        /// The operation that was asked about; `None` for the whole payment.
        target: Option<Uuid>,
        /// What the gateway answered.
        found: Observation<Found>,
    },
    /// The facts of a notification that are about payments of ours, each with its payment.
    Located(Result<Vec<(Uuid, Fact)>, GatewayError>),
}

/// What an answer says about the health of the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// The gateway is working: it answered with a result of its own.
    Well,
    /// The call failed; the cause may be this call alone.
    Ill,
    /// The gateway rejects our credentials, and will reject every call until they are fixed.
    Misconfigured,
    /// The answer says nothing about the gateway's health.
    Unknown,
}

/// An answer that was stored, or that requires an immediate retry.
pub struct Settled {
    /// The aggregate as stored, or as decided if a retry is required.
    pub aggregate: Box<Aggregate>,
    /// What to do next.
    pub step: Step,
    /// The events, handed to the publisher.
    pub announced: Announced,
}

impl Engine {
    /// Commits an answer. With [`Retry::Later`], no [`Step::RetryNow`] follows: the immediate attempts count as used
    /// up. While calls are paused this is not needed, as nothing is retried immediately then.
    ///
    /// Each try decides on the answer anew: a decision that could not be stored is dropped with the aggregate that it
    /// changed.
    ///
    /// # Errors
    /// The worker is shutting down, stored data cannot be decoded, or the database no longer has the operation.
    pub async fn settle(
        &self,
        attempt: &Attempt<'_>,
        aggregate: Box<Aggregate>,
        id: Uuid,
        answer: &Answer,
        retry: Retry,
    ) -> Result<Settled, Stopped> {
        let sent = aggregate.operation(id).cloned();
        let mut stripped: Option<Answer> = None;
        let payment_id = aggregate.payment_id();
        let mut backoff = backoff::contention();
        let mut current = (!aggregate.misses_waiting()).then_some(Loaded { aggregate, unsent: Unsent::default() });
        loop {
            let answer = stripped.as_ref().unwrap_or(answer);
            let Loaded { mut aggregate, unsent } = match current.take() {
                Some(loaded) => loaded,
                None => self.load(payment_id, &answer.of_operations(id)).await.ok_or(Stopped::Refused)?,
            };
            if aggregate.operation(id).is_none() {
                report_gone(attempt.variant, sent.as_ref(), Some(answer));
                return Err(Stopped::Gone);
            }
            let context = self.context(Some(attempt.variant));
            let paused_for = match is_question(&aggregate, id) {
                true => context.questions_paused_for,
                false => context.paused_for,
            };
            let may_follow = retry == Retry::AtOnce || paused_for.is_some();
            let tries = if may_follow { attempt.tries } else { context.rules.immediate_attempts };
            let step = decide(&mut aggregate, id, answer.clone(), tries, context);
            if matches!(step, Step::RetryNow(_)) || !aggregate.is_changed() {
                let announced = Box::pin(self.announcer.announce(payment_id, unsent)).await;
                return Ok(Settled { aggregate, step, announced });
            }
            match self.commit(&self.settle_commits, aggregate, context.now, unsent).await {
                Ok(done) => return Ok(Settled { aggregate: done.aggregate, step, announced: done.announced }),
                Err(Failure::Again) => {}
                Err(Failure::Refused(reason)) => {
                    error!(
                        payment = %payment_id,
                        operation = %id,
                        reason,
                        "cannot store an answer as received; storing what it proves without the gateway's text"
                    );
                    stripped = Some(answer.clone().stripped().ok_or(Stopped::Refused)?);
                }
                Err(Failure::Ending) => return Err(Stopped::Ending),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

/// Reports that the database lost what was stored before the call, as happens in a failover to a standby that had not
/// received it yet. The log line is the only record of what the gateway did until the command has begun again. It then
/// goes out under the same idempotency key, so that the gateway gives the same answer.
pub(crate) fn report_gone(variant: &Variant, sent: Option<&Operation>, answer: Option<&Answer>) {
    metrics::operation_gone(&variant.name);
    let Some(operation) = sent else { return };
    let result = answer.and_then(Answer::result);
    let references = result.iter().flat_map(|result| &result.transactions).filter_map(|it| it.reference.as_deref());
    let reference = references.chain(result.and_then(|result| result.transaction_id.as_deref())).next();
    error!(
        payment = %operation.payment_id,
        operation = %operation.id,
        key = %operation.key().value(),
        reference,
        amount = operation.amount().map(tracing::field::display),
        answer = answer.map(Answer::word),
        "the operation of a gateway call is missing from the database; its message stays unacknowledged and starts \
         over with the same key"
    );
}

fn decide(aggregate: &mut Aggregate, id: Uuid, answer: Answer, tries: u32, context: Context<'_>) -> Step {
    match answer {
        Answer::Outcome(outcome) => aggregate.settle(id, outcome, tries, context),
        Answer::Found { target, found } => aggregate.found(id, target, found, tries, context),
        Answer::Located(located) => aggregate.located(id, located.map(|_| ()), tries, context),
    }
}

impl Answer {
    /// The gateway's result, if the answer has one.
    fn result(&self) -> Option<&GatewayResult> {
        match self {
            Answer::Outcome(Observation { says: Outcome::Result(result), .. })
            | Answer::Found { found: Observation { says: Found::Result(result), .. }, .. } => Some(result),
            Answer::Outcome(_) | Answer::Found { .. } | Answer::Located(_) => None,
        }
    }

    /// One word for the log.
    fn word(&self) -> &'static str {
        match self {
            Answer::Outcome(outcome) => outcome.says.as_str(),
            Answer::Found { found, .. } => found.says.as_str(),
            Answer::Located(_) => "located",
        }
    }

    /// The operations that the answer belongs to and is about. They are loaded even if they were settled during the
    /// call: the answer still counts.
    fn of_operations(&self, id: Uuid) -> Vec<Uuid> {
        match self {
            Answer::Found { target: Some(target), .. } if *target != id => vec![id, *target],
            Answer::Found { .. } | Answer::Outcome(_) | Answer::Located(_) => vec![id],
        }
    }

    /// Returns the same proof without the gateway's texts, which the database refused. `None` if there are none to
    /// strip.
    fn stripped(self) -> Option<Answer> {
        let strip_result = |result: Box<GatewayResult>| {
            let bare = GatewayResult {
                transactions: result.transactions.clone(),
                total: result.total,
                currency: result.currency,
                captured: result.captured,
                refunded: result.refunded,
                disputed: result.disputed,
                ..GatewayResult::new(result.verdict.clone())
            };
            (bare != *result).then(|| Box::new(bare))
        };
        let strip_error = |error: GatewayError| {
            let bare = GatewayError { retry_after: error.retry_after, ..GatewayError::new(error.code, "") };
            (bare != error).then_some(bare)
        };
        Some(match self {
            Answer::Outcome(Observation { asked, says }) => Answer::Outcome(asked.answered(match says {
                Outcome::Result(result) => Outcome::Result(strip_result(result)?),
                Outcome::Refused(error) => Outcome::Refused(strip_error(error)?),
                Outcome::NotSent(error) => Outcome::NotSent(strip_error(error)?),
                Outcome::Unknown(error) => Outcome::Unknown(strip_error(error)?),
            })),
            Answer::Found { target, found: Observation { asked, says } } => {
                let found = asked.answered(match says {
                    Found::Result(result) => Found::Result(strip_result(result)?),
                    Found::Failed(error) => Found::Failed(strip_error(error)?),
                    Found::OfOthers(_) | Found::Undone(_) | Found::Nothing => return None,
                });
                Answer::Found { target, found }
            }
            Answer::Located(Err(error)) => Answer::Located(Err(strip_error(error)?)),
            Answer::Located(Ok(_)) => return None,
        })
    }

    /// What the answer says about the gateway's health, for the breaker.
    pub fn health(&self) -> Health {
        let of_error = |error: &GatewayError| match error.code {
            // The gateway is up and says what it wants. linkerd's breaker treats 429 the same way.
            Code::RateLimited | Code::Conflict => Health::Unknown,
            // The gateway is up. A mismatch or a refused query is about what was asked, not about the gateway. An
            // unreadable answer (`InvalidAnswer`) may also be about one payment, which the breaker counts once; many in
            // a row point to the gateway or to a proxy in front of it.
            Code::Mismatch | Code::Refused => Health::Unknown,
            Code::Misconfigured => Health::Misconfigured,
            _ => Health::Ill,
        };
        match self {
            Answer::Outcome(Observation { says, .. }) => match says {
                Outcome::Result(_) | Outcome::Refused(_) => Health::Well,
                Outcome::NotSent(error) | Outcome::Unknown(error) => of_error(error),
            },
            Answer::Found { found: Observation { says, .. }, .. } => match says {
                Found::Result(_) | Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => Health::Well,
                Found::Failed(error) => of_error(error),
            },
            // The payments may have been known without a request.
            Answer::Located(Ok(_)) => Health::Unknown,
            Answer::Located(Err(error)) => of_error(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::outcome::Verdict;

    #[test]
    fn what_each_answer_says_of_the_gateway() {
        let result = || Box::new(GatewayResult::new(Verdict::Approved));
        let error = |code| GatewayError::new(code, "trouble");
        let asked = Aggregate::absent(Uuid::nil()).asked(jiff::Timestamp::UNIX_EPOCH);
        let outcome = |outcome| Answer::Outcome(asked.answered(outcome));
        let found = |found| Answer::Found { target: None, found: asked.answered(found) };
        for (answer, health) in [
            (outcome(Outcome::Result(result())), Health::Well),
            (outcome(Outcome::Refused(error(Code::Refused))), Health::Well),
            (outcome(Outcome::NotSent(error(Code::Unreachable))), Health::Ill),
            (outcome(Outcome::NotSent(error(Code::RateLimited))), Health::Unknown),
            (outcome(Outcome::NotSent(error(Code::Misconfigured))), Health::Misconfigured),
            (outcome(Outcome::Unknown(error(Code::Timeout))), Health::Ill),
            (outcome(Outcome::Unknown(error(Code::InvalidAnswer))), Health::Ill),
            (outcome(Outcome::Unknown(error(Code::Mismatch))), Health::Unknown),
            (found(Found::Result(result())), Health::Well),
            (found(Found::Nothing), Health::Well),
            (found(Found::Failed(error(Code::Misconfigured))), Health::Misconfigured),
            (found(Found::Failed(error(Code::GatewayError))), Health::Ill),
            (found(Found::Failed(error(Code::InvalidAnswer))), Health::Ill),
            (found(Found::Failed(error(Code::Mismatch))), Health::Unknown),
            (found(Found::Failed(error(Code::Refused))), Health::Unknown),
            (outcome(Outcome::NotSent(error(Code::Refused))), Health::Unknown),
        ] {
            assert_eq!(answer.health(), health, "{answer:?}");
        }
    }

    #[test]
    fn an_answer_needs_its_asker_and_its_target() {
        let (sync, process) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let asked = Aggregate::absent(Uuid::nil()).asked(jiff::Timestamp::UNIX_EPOCH);
        let found = |target| Answer::Found { target, found: asked.answered(Found::Nothing) };
        assert_eq!(found(Some(process)).of_operations(sync), [sync, process]);
        assert_eq!(found(Some(process)).of_operations(process), [process]);
        assert_eq!(found(None).of_operations(sync), [sync]);
    }
}
