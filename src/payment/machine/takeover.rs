//! Lost workers and changed gateways: the worker that continues an operation does not know what was sent for it, and
//! must send and ask only where it began.

use uuid::Uuid;

use super::attempt::DELAY_DEFAULT;
use super::{Aggregate, Context, Step, TAKEOVERS_ALONE, TAKEOVERS_MAX, count_up, later};
use crate::payment::code::Code;
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::{Exposure, GatewayError};

impl Aggregate {
    /// Takes an operation over from a worker that is lost, or lost according to the broker. What that worker sent is
    /// unknown: only the same live key, or a look-up, may follow.
    pub fn take_over(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        if operation.state != State::Calling {
            return self.resume(id, context);
        }
        let sends = operation.action().is_some();
        // Its worker may be alive and calling: only a second call under the same key does no harm.
        let key_lives = !operation.sent.lookup_only && operation.key_ends(context).is_some_and(|end| end > context.now);
        // Workers that die within seconds of each other may all die of something else. An operation that has lost some
        // waits for its lease, so that a crash loop does not park it in one go.
        let waits = sends && !key_lives || operation.counts.takeovers >= TAKEOVERS_ALONE;
        if waits && operation.has_live_lease(context) {
            return Step::Stored;
        }
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        count_up(&mut operation.counts.takeovers);
        let too_often = operation.counts.takeovers >= TAKEOVERS_MAX;
        if !sends {
            return self.take_over_question(id, too_often, context);
        }
        operation.sent.exposure = Exposure::Exposed;
        // When the lost worker last sent is unknown; while its lease lives, it may still send.
        let lease_end = operation.lease.map_or(context.now, |lease| lease.until);
        operation.sent.note_until(lease_end.max(context.now));
        let error = GatewayError::new(Code::WorkerLost, "the worker that called the gateway was lost");
        if too_often {
            operation.sent.lookup_only = true;
            self.become_unknown(id, &error);
            self.escalate(id, "too many workers were lost during the operation: an operator must resolve it", context);
            return Step::Stored;
        }
        if self.gateway_changed(context) {
            return self.stand_still(id, context);
        }
        if !key_lives || self.check_still_allowed(id).is_err() {
            return self.resolve_unknown(id, &error, context);
        }
        match (self.become_unknown(id, &error), context.paused_for) {
            (Some(operation), Some(paused_for)) => {
                operation.due_at = Some(later(context.now, paused_for));
                Step::Stored
            }
            (Some(operation), None) => {
                operation.start_attempt(context);
                Step::Call(id)
            }
            (None, _) => Step::Settled,
        }
    }

    /// A lost worker was asking the gateway, for a `payment.sync` say: asking again is always safe, but not for ever.
    fn take_over_question(&mut self, id: Uuid, too_often: bool, context: Context<'_>) -> Step {
        if too_often {
            let error = GatewayError::new(Code::WorkerLost, "too many workers were lost while asking the gateway");
            return self.give_up_question(id, error, context);
        }
        if self.gateway_changed(context) {
            return self.stand_still(id, context);
        }
        self.ask(id, context)
    }

    /// Applies an answer that came back to the worker that called or asked. That worker survived, so the operation is
    /// not what took down those before it, and its takeovers are forgotten. If it is parked or settled, the count stays
    /// for a person to see.
    pub(super) fn apply_from_lease_owner(
        &mut self,
        id: Uuid,
        context: Context<'_>,
        take_in: impl FnOnce(&mut Aggregate) -> Step,
    ) -> Step {
        let is_in_charge = self.operation(id).is_some_and(|operation| operation.is_leased_by(context.worker));
        let step = take_in(self);
        if is_in_charge {
            self.forget_lost_workers(id);
        }
        step
    }

    fn forget_lost_workers(&mut self, id: Uuid) {
        let counts =
            |operation: &Operation| operation.is_open() && (1..TAKEOVERS_MAX).contains(&operation.counts.takeovers);
        if self.operation(id).is_some_and(counts)
            && let Some(operation) = self.operation_mut(id)
        {
            operation.counts.takeovers = 0;
        }
    }

    pub(super) fn gateway_changed(&self, context: Context<'_>) -> bool {
        self.payment().is_some_and(|payment| !payment.began_with(context))
    }

    /// Parks an operation whose variant now points elsewhere: another gateway or account must neither be sent this nor
    /// be asked about it. What was never received fails; the rest waits until the variant points back, or a person
    /// resolves it.
    pub(super) fn stand_still(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let message = "the variant now uses a gateway or account other than the one the payment began with";
        let error = GatewayError::new(Code::GatewayChanged, message);
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let pending = operation.state == State::Pending;
        if let Some(proof) = operation.sent.exposure.not_charged() {
            return self.fail(id, error, proof, context);
        }
        if !pending {
            self.become_unknown(id, &error);
        }
        self.escalate(id, message, context);
        if let Some(operation) = self.operation_mut(id) {
            let delay = context.rules.delayed.last().copied().unwrap_or(DELAY_DEFAULT);
            operation.due_at = Some(later(context.now, delay));
        }
        Step::Stored
    }
}
