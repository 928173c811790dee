//! The gateway's answer is committed: never discarded, whoever was faster. On a conflict the payment is loaded and the
//! same answer decided on again.

use tracing::error;
use uuid::Uuid;

use super::announce::Announced;
use super::engine::{Engine, Failure};
use super::variant::Variant;
use crate::backoff;
use crate::gateway::notification::Fact;
use crate::payment::code::Code;
use crate::payment::machine::{Aggregate, Context, Step};
use crate::payment::outcome::{Found, GatewayResult, Outcome, Trouble};
use crate::store::load::{Loaded, Unsent};

/// What came back from the gateway.
#[derive(Debug, Clone)]
pub enum Answer {
    /// Of an attempt.
    Outcome(Outcome),
    /// Of a look-up.
    Found {
        /// The operation that was asked about.
        target: Option<Uuid>,
        /// What was found.
        found: Found,
    },
    /// Of the question whose the facts of a notification are: each that is ours, with its payment.
    Located(Result<Vec<(Uuid, Fact)>, Trouble>),
}

/// What one answer says of the gateway itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It brought its own word.
    Well,
    /// It failed; it may be about this call alone.
    Ill,
    /// It takes neither our credentials nor any call until they are mended.
    Misconfigured,
    /// Neither can be told.
    Unknown,
}

/// An answer that is stored, or that needs another try at once.
pub struct Settled {
    /// As stored; as decided where another try is needed.
    pub aggregate: Box<Aggregate>,
    /// What follows.
    pub step: Step,
    /// Its events, on their way out.
    pub announced: Announced,
}

impl Engine {
    /// Settles an answer; nothing where the worker ends, or what is stored cannot be read. Where nothing may follow `at_once`,
    /// there is no [`Step::RetryNow`]: the attempts in a row count as used up, unless calls are held back anyway.
    ///
    /// The answer is all that is decided on: what was decided on an answer before, and was not stored, is forgotten when the
    /// payment is loaded anew.
    pub async fn settle(
        &self,
        variant: &Variant,
        aggregate: Box<Aggregate>,
        id: Uuid,
        answer: &Answer,
        tries: u32,
        at_once: bool,
    ) -> Option<Settled> {
        let mut stripped: Option<Answer> = None;
        let payment_id = aggregate.payment_id();
        let mut backoff = backoff::contention();
        let mut current = (!aggregate.misses_waiting()).then_some(Loaded { aggregate, unsent: Unsent::default() });
        loop {
            let answer = stripped.as_ref().unwrap_or(answer);
            let Loaded { mut aggregate, unsent } = match current.take() {
                Some(loaded) => loaded,
                None => self.load(payment_id, &answer.of_operations(id)).await?,
            };
            let context = self.context(Some(variant), false);
            let may_follow = at_once || context.hold.is_some();
            let tries = if may_follow { tries } else { context.rules.immediate_attempts };
            let step = decide(&mut aggregate, id, answer.clone(), tries, context);
            if matches!(step, Step::RetryNow(_)) || !aggregate.is_changed() {
                let announced = Box::pin(self.announcer.announce(payment_id, unsent)).await;
                return Some(Settled { aggregate, step, announced });
            }
            self.prepare(&mut aggregate, step, Some(variant));
            match self.commit(&self.settle, aggregate, context.now, unsent).await {
                Ok(done) => return Some(Settled { aggregate: done.aggregate, step, announced: done.announced }),
                Err(Failure::Again) => {}
                Err(Failure::Refused(reason)) => {
                    error!(payment = %payment_id, operation = %id, reason, "an answer cannot be stored as it came; what it proves is stored without the gateway's words");
                    stripped = Some(answer.clone().stripped()?);
                }
                Err(Failure::Ending) => return None,
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}

fn decide(aggregate: &mut Aggregate, id: Uuid, answer: Answer, tries: u32, context: Context<'_>) -> Step {
    match answer {
        Answer::Outcome(outcome) => aggregate.settle(id, outcome, tries, context),
        Answer::Found { target, found } => aggregate.found(id, target, found, tries, context),
        Answer::Located(located) => aggregate.located(id, located.map(|_| ()), tries, context),
    }
}

impl Answer {
    /// The operations that the answer is for or about. Each may have been settled while the gateway was asked, and what
    /// is said of it counts all the same.
    fn of_operations(&self, id: Uuid) -> Vec<Uuid> {
        match self {
            Answer::Found { target: Some(target), .. } if *target != id => vec![id, *target],
            Answer::Found { .. } | Answer::Outcome(_) | Answer::Located(_) => vec![id],
        }
    }

    /// The same proof without the gateway's words, which the database refuses; nothing where there was nothing to strip.
    fn stripped(self) -> Option<Answer> {
        let strip_result = |result: Box<GatewayResult>| {
            let bare = GatewayResult {
                amount: result.amount,
                currency: result.currency,
                captured: result.captured,
                refunded: result.refunded,
                disputed: result.disputed,
                ..GatewayResult::new(result.verdict.clone())
            };
            (bare != *result).then(|| Box::new(bare))
        };
        let strip_trouble = |trouble: Trouble| {
            let bare = Trouble { retry_after: trouble.retry_after, ..Trouble::new(trouble.code, "") };
            (bare != trouble).then_some(bare)
        };
        let outcome = |outcome| Some(Answer::Outcome(outcome));
        match self {
            Answer::Outcome(Outcome::Result(result)) => outcome(Outcome::Result(strip_result(result)?)),
            Answer::Outcome(Outcome::Refused(trouble)) => outcome(Outcome::Refused(strip_trouble(trouble)?)),
            Answer::Outcome(Outcome::NotSent(trouble)) => outcome(Outcome::NotSent(strip_trouble(trouble)?)),
            Answer::Outcome(Outcome::Unknown(trouble)) => outcome(Outcome::Unknown(strip_trouble(trouble)?)),
            Answer::Found { target, found: Found::Result(result) } => {
                Some(Answer::Found { target, found: Found::Result(strip_result(result)?) })
            }
            Answer::Found { target, found: Found::Failed(trouble) } => {
                let trouble = strip_trouble(trouble)?;
                Some(Answer::Found { target, found: Found::Failed(trouble) })
            }
            Answer::Located(Err(trouble)) => Some(Answer::Located(Err(strip_trouble(trouble)?))),
            Answer::Found { found: Found::Nothing, .. } | Answer::Located(Ok(_)) => None,
        }
    }

    /// What the answer says of the gateway itself: for the breaker.
    pub fn health(&self) -> Health {
        let of_trouble = |trouble: &Trouble| match trouble.code {
            // The gateway is there and says what it wants; linkerd's breaker counts 429 so as well.
            Code::RateLimited | Code::Conflict => Health::Unknown,
            Code::Misconfigured => Health::Misconfigured,
            _ => Health::Ill,
        };
        match self {
            Answer::Outcome(Outcome::Result(_) | Outcome::Refused(_)) => Health::Well,
            Answer::Outcome(Outcome::NotSent(trouble) | Outcome::Unknown(trouble)) => of_trouble(trouble),
            Answer::Found { found: Found::Result(_) | Found::Nothing, .. } => Health::Well,
            Answer::Found { found: Found::Failed(trouble), .. } => of_trouble(trouble),
            // It may have known all without asking.
            Answer::Located(Ok(_)) => Health::Unknown,
            Answer::Located(Err(trouble)) => of_trouble(trouble),
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
        let trouble = |code| Trouble::new(code, "trouble");
        let found = |found| Answer::Found { target: None, found };
        for (answer, health) in [
            (Answer::Outcome(Outcome::Result(result())), Health::Well),
            (Answer::Outcome(Outcome::Refused(trouble(Code::Refused))), Health::Well),
            (Answer::Outcome(Outcome::NotSent(trouble(Code::Unreachable))), Health::Ill),
            (Answer::Outcome(Outcome::NotSent(trouble(Code::RateLimited))), Health::Unknown),
            (Answer::Outcome(Outcome::NotSent(trouble(Code::Misconfigured))), Health::Misconfigured),
            (Answer::Outcome(Outcome::Unknown(trouble(Code::Timeout))), Health::Ill),
            (found(Found::Result(result())), Health::Well),
            (found(Found::Nothing), Health::Well),
            (found(Found::Failed(trouble(Code::Misconfigured))), Health::Misconfigured),
            (found(Found::Failed(trouble(Code::GatewayError))), Health::Ill),
        ] {
            assert_eq!(answer.health(), health, "{answer:?}");
        }
    }

    #[test]
    fn an_answer_needs_whoever_asked_and_what_was_asked_about() {
        let (sync, process) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let found = |target| Answer::Found { target, found: Found::Nothing };
        assert_eq!(found(Some(process)).of_operations(sync), [sync, process]);
        assert_eq!(found(Some(process)).of_operations(process), [process]);
        assert_eq!(found(None).of_operations(sync), [sync]);
    }
}
