//! The gateway call. No database connection and no lock is held while the gateway works.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use tracing::{debug, info};
use uuid::Uuid;

use super::attempt::Attempt;
use super::engine::Engine;
use super::settle::{Answer, Health};
use super::spans;
use crate::error_chain::chain;
use crate::failpoint;
use crate::gateway::{Call, Question, Target};
use crate::payment::code::Code;
use crate::payment::command::CommandType;
use crate::payment::machine::{Aggregate, Step};
use crate::payment::operation::Operation;
use crate::payment::outcome::{GatewayError, Outcome};
use crate::telemetry::metrics;
use crate::telemetry::spans::Span;
use crate::worker::variant::Variant;

/// The earliest time at which the gateway may have received anything of an operation. With a later key, it may also
/// have received something under an earlier one.
fn received_since(operation: &Operation) -> Timestamp {
    operation.sent.first_at.filter(|_| operation.key().generation() == 0).unwrap_or(operation.created)
}

fn asked_about(operation: &Operation) -> Option<Target<'_>> {
    Some(Target {
        operation_id: operation.id,
        action: operation.action()?,
        key: operation.key(),
        request: operation.request.as_ref(),
        stored_at: received_since(operation),
        last_sent_at: operation.sent.last_at,
    })
}

impl Engine {
    /// Makes the gateway request of a step. Returns `None` if the lease was lost, so that nothing may be sent. A call
    /// without a slot, or one that may no longer go out, is answered as not sent.
    pub async fn ask(
        &self,
        attempt: &Attempt<'_>,
        aggregate: &Aggregate,
        step: Step,
        within: &Span,
    ) -> Option<(Uuid, Answer)> {
        let variant = attempt.variant;
        match step {
            Step::Call(id) => {
                let operation = aggregate.operation(id)?;
                if attempt.slot.is_none() {
                    return Some((id, self.paused_answer(aggregate)));
                }
                let Some(lease_end) = self.ensure_lease(operation, variant).await else {
                    metrics::lease_lost(&variant.name);
                    debug!(operation = %id, "the lease was lost before the call");
                    return None;
                };
                failpoint::reach("leased", aggregate.payment_id());
                // Check again: since it was begun, it may have waited for its retry delay, for a slow database or while
                // the process was suspended. The command or its key may have expired by now, or the breaker may be
                // open.
                let context = self.context_of(Some(attempt));
                if context.paused_for.is_some() || !aggregate.may_send(id, context) {
                    return Some((id, self.paused_answer(aggregate)));
                }
                variant.enter();
                let answer = self.call(variant, aggregate, operation, lease_end, within).await;
                variant.leave();
                Some((id, answer?))
            }
            Step::LookUp { operation, target } => {
                variant.enter();
                let answer = self.look_up(variant, aggregate, operation, target, within).await;
                variant.leave();
                Some((operation, answer?))
            }
            Step::Undo(id) => {
                if self.context_of(Some(attempt)).paused_for.is_some() {
                    debug!(operation = %id, "calls were paused before the gateway was asked to undo the operation");
                    return None;
                }
                if self.lease_outlasts(aggregate.operation(id)?, variant).is_none() {
                    debug!(operation = %id, "the lease expired before the gateway was asked to undo the operation");
                    return None;
                }
                variant.enter();
                let answer = self.undo(variant, aggregate, id, within).await;
                variant.leave();
                Some((id, answer?))
            }
            Step::Locate(id) => {
                variant.enter();
                let answer = self.locate(variant, aggregate, id).await;
                variant.leave();
                self.note_health(variant, aggregate.payment_id(), &answer);
                Some((id, answer))
            }
            Step::Settled | Step::Stored | Step::RetryNow(_) | Step::Resend { .. } | Step::Known(_) => None,
        }
    }

    /// Returns the end of a lease that outlasts the call. A lease that is too short is renewed before anything is sent:
    /// otherwise another worker could take the operation over while this one sends it. Returns `None` if it was lost.
    async fn ensure_lease(&self, operation: &Operation, variant: &Variant) -> Option<Timestamp> {
        if let Some(lease_end) = self.lease_outlasts(operation, variant) {
            return Some(lease_end);
        }
        // Read before the renewal: the lease starts no earlier, even if the process is suspended during it.
        let renewed_at = self.store.clock().now();
        let is_ours = Box::pin(self.store_attempt(operation, operation.counts.attempts, variant)).await;
        let lease = SignedDuration::try_from(variant.rules.lease).unwrap_or(SignedDuration::MAX);
        renewed_at.checked_add(lease).ok().filter(|_| is_ours)
    }

    /// Returns the end of an operation's lease if it outlasts a call that starts now.
    fn lease_outlasts(&self, operation: &Operation, variant: &Variant) -> Option<Timestamp> {
        let lease = operation.lease?;
        self.is_in_time(lease.until, variant).then_some(lease.until)
    }

    /// Whether a call that starts now times out before a lease with this end is over.
    fn is_in_time(&self, lease_end: Timestamp, variant: &Variant) -> bool {
        let needed = SignedDuration::try_from(variant.timeout).unwrap_or(SignedDuration::MAX);
        let now = self.store.clock().now();
        now.checked_add(needed).is_ok_and(|end| end < lease_end)
    }

    /// Stores an attempt and renews the lease. Returns false if the lease was lost or the attempt could not be stored.
    pub async fn store_attempt(&self, operation: &Operation, attempts: u32, variant: &Variant) -> bool {
        match self.store.store_attempt(operation, self.worker, attempts, variant.rules.lease).await {
            Ok(ours) => ours,
            Err(error) => {
                // Not known to be stored, so it is not sent. The lease runs out and the scheduler continues.
                info!(
                    error = chain(&error),
                    operation = %operation.id,
                    "cannot store an attempt; not sending it until the lease has expired"
                );
                false
            }
        }
    }

    async fn call(
        &self,
        variant: &Variant,
        aggregate: &Aggregate,
        operation: &Operation,
        lease_end: Timestamp,
        within: &Span,
    ) -> Option<Answer> {
        let (payment, request, action) = (aggregate.payment()?, operation.request.as_ref()?, operation.action()?);
        let span = spans::gateway(action.as_str(), variant, operation, within);
        let own = span.context();
        let call = Call {
            operation_id: operation.id,
            payment_id: operation.payment_id,
            action,
            key: operation.key(),
            attempt: operation.counts.attempts,
            body: &request.body,
            amount: request.amount,
            currency: payment.currency(),
            capture: request.capture,
            confirms: operation.confirms(),
            stored_at: operation.created,
            trace: own.as_ref().or(operation.attributes.trace.as_ref()),
            timeout: variant.timeout,
        };
        // The last check before sending: the process may have been suspended beyond its lease since the previous one.
        if !self.is_in_time(lease_end, variant) {
            metrics::lease_lost(&variant.name);
            debug!(operation = %operation.id, "the lease expired before the call");
            spans::record_outcome(span, "not_sent", None);
            return Some(self.paused_answer(aggregate));
        }
        let asked = aggregate.asked(self.store.clock().now());
        let begun = Instant::now();
        let outcome = variant.gateway.call(call).await;
        metrics::gateway_call(&variant.name, action, &outcome, begun.elapsed());
        spans::record_outcome(span, outcome.as_str(), outcome.error());
        let answer = Answer::Outcome(asked.answered(outcome));
        self.note_health(variant, operation.payment_id, &answer);
        Some(answer)
    }

    async fn look_up(
        &self,
        variant: &Variant,
        aggregate: &Aggregate,
        id: Uuid,
        target: Option<Uuid>,
        within: &Span,
    ) -> Option<Answer> {
        let operation = aggregate.operation(id)?;
        let asked_about = match target {
            Some(target) => Some(asked_about(aggregate.operation(target)?)?),
            None => None,
        };
        let span = spans::gateway("status", variant, operation, within);
        let own = span.context();
        let question = Question {
            operation_id: id,
            target: asked_about,
            payment: aggregate.payment()?,
            references: aggregate.facts(id).into_iter().filter_map(|fact| fact.reference).collect(),
            trace: own.as_ref().or(operation.attributes.trace.as_ref()),
            timeout: variant.timeout,
        };
        let asking = async {
            let asked = aggregate.asked(self.store.clock().now());
            let begun = Instant::now();
            let found = variant.gateway.look_up(question).await;
            metrics::gateway_look_up(&variant.name, "status", &found, begun.elapsed());
            asked.while_clocks(self.clocks_agree(variant)).answered(found)
        };
        let is_shared = target.is_none() && operation.kind.known() == Some(CommandType::Sync);
        let (found, was_asked) = if is_shared {
            let sequence = aggregate.asked(self.store.clock().now()).after_sequence();
            variant.questions.ask(operation.payment_id, sequence, asking).await
        } else {
            (asking.await, true)
        };
        spans::record_outcome(span, found.says.as_str(), found.says.error());
        let answer = Answer::Found { target, found };
        if was_asked {
            self.note_health(variant, operation.payment_id, &answer);
        }
        Some(answer)
    }

    async fn undo(&self, variant: &Variant, aggregate: &Aggregate, id: Uuid, within: &Span) -> Option<Answer> {
        let operation = aggregate.operation(id)?;
        let span = spans::gateway("undo", variant, operation, within);
        let own = span.context();
        let question = Question {
            operation_id: id,
            target: Some(asked_about(operation)?),
            payment: aggregate.payment()?,
            references: Vec::new(),
            trace: own.as_ref().or(operation.attributes.trace.as_ref()),
            timeout: variant.timeout,
        };
        let asked = aggregate.asked(self.store.clock().now());
        let begun = Instant::now();
        let found = variant.gateway.undo(question).await;
        metrics::gateway_look_up(&variant.name, "undo", &found, begun.elapsed());
        spans::record_outcome(span, found.as_str(), found.error());
        let found = asked.while_clocks(self.clocks_agree(variant)).answered(found);
        let answer = Answer::Found { target: Some(id), found };
        self.note_health(variant, operation.payment_id, &answer);
        Some(answer)
    }

    /// The answer for a call that was begun and not sent.
    fn paused_answer(&self, aggregate: &Aggregate) -> Answer {
        let error = GatewayError::new(Code::Held, "calls of this variant are paused");
        Answer::Outcome(aggregate.asked(self.store.clock().now()).answered(Outcome::NotSent(error)))
    }

    fn note_health(&self, variant: &Variant, payment: Uuid, answer: &Answer) {
        if let Some(ahead) = self.clock_ahead(variant) {
            metrics::gateway_clock_ahead(&variant.name, ahead.as_secs_f64());
        }
        match answer.health() {
            Health::Well => variant.breaker.succeeded(),
            Health::Ill => variant.breaker.failed(payment),
            Health::Misconfigured => variant.breaker.trip(payment),
            Health::Unknown => {}
        }
    }
}
