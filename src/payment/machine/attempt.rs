//! Calls and what follows them: retries and schedules. Another attempt needs earlier ones that are proven not sent, or
//! a live key; a new key needs proof that nothing was charged.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Aggregate, Context, Rules, Step, count_up, later};
use crate::payment::action::Action;
use crate::payment::code::{Code, Rejection};
use crate::payment::contract::{Keys, Lookup, NotificationRole};
use crate::payment::observation::Observation;
use crate::payment::operation::{Lease, Operation, Request, State};
use crate::payment::outcome::{Exposure, GatewayError, NotCharged, Outcome};

/// The delay of a retry if the configuration has none.
pub(super) const DELAY_DEFAULT: Duration = Duration::from_secs(60);

/// What follows an attempt, or a question, that brought no result.
pub(super) enum Next {
    /// Another one at once.
    AtOnce,
    /// Another one when calls are no longer paused, instead of at once.
    Paused(Duration),
    /// Another one later; it uses up a retry.
    Later(Duration),
    /// None: all retries are used up.
    Never,
}

impl Rules {
    /// Decides what follows. `tries` counts consecutive attempts, `rounds` the retries that are used up.
    pub(super) fn next(&self, error: &GatewayError, tries: u32, rounds: u32, paused_for: Option<Duration>) -> Next {
        // Wrong credentials are not the command's fault: it is retried until they are fixed.
        let misconfigured = error.code == Code::Misconfigured;
        let delay = self.delayed.get(rounds as usize).copied();
        let some_delay = || delay.or(self.delayed.last().copied()).unwrap_or(DELAY_DEFAULT);
        // No later than its retry would be: calls may be paused on this replica alone, and another one continues.
        let paused = |paused_for: Duration| Next::Paused(paused_for.min(some_delay()));
        if error.code == Code::Held {
            return paused(paused_for.unwrap_or_default());
        }
        if !misconfigured && error.retry_after.is_none() && tries < self.immediate_attempts {
            return paused_for.map_or(Next::AtOnce, paused);
        }
        match delay {
            Some(delay) => Next::Later(delay),
            None if misconfigured => Next::Later(some_delay()),
            None => Next::Never,
        }
    }
}

/// How long an operation that is due at once is put off for a cancel that may end it.
const CANCEL_FIRST: Duration = Duration::from_secs(1);

impl Aggregate {
    /// Takes the turn for an operation and starts its first attempt, unless calls are paused.
    pub(super) fn begin(&mut self, id: Uuid, request: Request, context: Context<'_>) -> Step {
        if let Some(payment) = &mut self.payment {
            payment.busy = Some(id);
        }
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.request = Some(request);
        let Some(paused_for) = context.paused_for else {
            operation.start_attempt(context);
            return Step::Call(id);
        };
        operation.move_to(State::Scheduled);
        operation.due_at = Some(later(context.now, paused_for));
        if !paused_for.is_zero() {
            self.emit_delayed(id, Code::Held, "calls of this variant are paused", context.now);
        }
        self.wake_cancel(context.now);
        Step::Stored
    }

    /// Continues an operation that is due, or whose worker was lost.
    pub fn resume(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        match operation.state {
            State::Settled => Step::Settled,
            State::Waiting => self.take_turn(id, context),
            // Another worker is calling or asking.
            _ if operation.has_live_lease(context) => Step::Stored,
            State::Calling => self.take_over(id, context),
            _ if self.gateway_changed(context) => self.stand_still(id, context),
            State::Scheduled if operation.waits_to_go_on() => self.take_proofs_again(id, context),
            State::Scheduled if operation.is_expired(context) => self.expire(id, context),
            State::Scheduled if operation.action().is_none() => self.ask(id, context),
            State::Scheduled => match self.check_still_allowed(id) {
                Ok(()) => self.attempt_again(id, context),
                Err(rejection) => self.reject(id, rejection, context),
            },
            // Sent again, it might be carried out only now, so it must still be allowed.
            State::Unknown if operation.may_send_again(context) && self.check_still_allowed(id).is_ok() => {
                self.attempt_again(id, context)
            }
            State::Pending if operation.waits_to_confirm() => self.go_on(id, context),
            State::Unknown | State::Pending => self.look_up(id, context),
        }
    }

    /// Whether an attempt that was begun may still be sent now: calls may have been paused for long since. One that may
    /// not is settled as [`Outcome::NotSent`].
    pub fn may_send(&self, id: Uuid, context: Context<'_>) -> bool {
        self.operation(id).is_some_and(|operation| {
            let is_first = !operation.sent.is_exposed();
            operation.may_send_again(context) && !(is_first && operation.is_expired(context))
        })
    }

    fn attempt_again(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        if operation.request.is_none() {
            return self.go_on_without_request(id, context);
        }
        if let Some(paused_for) = context.paused_for {
            operation.due_at = Some(later(context.now, paused_for));
            return Step::Stored;
        }
        operation.start_attempt(context);
        Step::Call(id)
    }

    /// Continues an operation whose request the database lost with its call, in a failover: the gateway's answer is all
    /// that is known of it, and there is nothing to send.
    fn go_on_without_request(&mut self, id: Uuid, context: Context<'_>) -> Step {
        match self.operation(id).and_then(|operation| operation.sent.exposure.not_charged()) {
            Some(proof) => {
                let error = GatewayError::new(Code::WorkerLost, "the database lost the request; nothing was charged");
                self.fail(id, error, proof, context)
            }
            None => self.look_up(id, context),
        }
    }

    /// Ends an operation that the gateway never received and that may no longer be sent.
    fn expire(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let why = "the command expired before the gateway received anything";
        self.reject(id, Rejection::new(Code::Expired, why), context)
    }

    /// Applies what one attempt proved. `tries` counts consecutive attempts, this one included.
    pub fn settle(&mut self, id: Uuid, observation: Observation<Outcome>, tries: u32, context: Context<'_>) -> Step {
        // While calls are paused nothing is sent, so this does not show that a worker survived the call.
        if observation.says.error().is_some_and(|error| error.code == Code::Held) {
            return self.settle_attempt(id, observation, tries, context);
        }
        self.apply_from_lease_owner(id, context, |it| it.settle_attempt(id, observation, tries, context))
    }

    fn settle_attempt(
        &mut self,
        id: Uuid,
        observation: Observation<Outcome>,
        tries: u32,
        context: Context<'_>,
    ) -> Step {
        let Observation { asked, says: outcome } = observation;
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let is_open = operation.is_open();
        // A worker that lost the lease still records what the gateway says, but decides nothing on what it does not
        // say.
        let in_charge = operation.is_called_by(context.worker);
        match outcome {
            Outcome::Result(result) if is_open && self.may_be_undone_since(id, &result) => Step::Stored,
            Outcome::Result(result) if is_open && !in_charge && self.is_before_approval(id, &result) => Step::Stored,
            Outcome::Result(result) if is_open => self.apply(id, *result, asked, context),
            Outcome::Result(result) => self.late_result(id, *result, asked, context),
            Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unknown(_) if !is_open => Step::Settled,
            Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unknown(_) if !in_charge => Step::Stored,
            Outcome::Refused(error) => match operation.sent.exposure.not_charged() {
                Some(proof) => self.fail(id, error, proof, context),
                // The gateway refused this attempt; the outcome of an earlier one is still open.
                None => self.resolve_unknown(id, &error, context),
            },
            Outcome::NotSent(error) => self.retry(id, error, tries, context),
            // The gateway acted, but what it says cannot be the answer to this request.
            Outcome::Unknown(error) if error.code == Code::Mismatch => self.mismatch(id, error.message, context),
            Outcome::Unknown(error) => self.retry_unknown(id, error, tries, context),
        }
    }

    fn retry_unknown(&mut self, id: Uuid, error: GatewayError, tries: u32, context: Context<'_>) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.sent.exposure = Exposure::Exposed;
            // The call was sent at some time before now; the settle window counted from now is never too short.
            operation.sent.note_until(context.now);
            // After a server error the same key may bring the same error for ever, or a second charge.
            let may_go_on = operation.keys(context).after_server_error.allows_another_attempt();
            operation.sent.lookup_only |= error.code == Code::GatewayError && !may_go_on;
        }
        self.retry(id, error, tries, context)
    }

    /// Retries at once, later, or not at all.
    fn retry(&mut self, id: Uuid, error: GatewayError, tries: u32, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.last_code = Some(error.code);
        operation.last_message.clone_from(&error.message);
        if !operation.sent.is_exposed() && operation.is_expired(context) {
            return self.expire(id, context);
        }
        if !operation.may_send_again(context) {
            return self.resolve_unknown(id, &error, context);
        }
        if error.code == Code::Held {
            // It was begun but not sent, which uses up no attempt.
            operation.counts.attempts = operation.counts.attempts.saturating_sub(1);
        }
        let next = context.rules.next(&error, tries, operation.counts.rounds, context.paused_for);
        match (next, operation.sent.exposure.not_charged()) {
            (Next::AtOnce, _) => Step::RetryNow(id),
            (Next::Paused(paused_for), _) => self.defer(id, paused_for, &error, context),
            (Next::Later(delay), _) => self.schedule(id, delay, &error, context),
            (Next::Never, Some(proof)) => self.fail(id, error, proof, context),
            (Next::Never, None) => self.resolve_unknown(id, &error, context),
        }
    }

    /// Calls are paused: what would have been retried at once is retried when they resume, and uses up no retry.
    pub(super) fn defer(&mut self, id: Uuid, paused_for: Duration, error: &GatewayError, context: Context<'_>) -> Step {
        self.put_off(id, paused_for, context);
        // A drain is not reported to the publisher: another replica continues at once.
        if !paused_for.is_zero() {
            self.emit_delayed(id, error.code, &error.message, context.now);
        }
        self.wake_cancel(context.now);
        Step::Stored
    }

    /// Leaves it scheduled, or unknown, until `delay` has passed.
    pub(super) fn put_off(&mut self, id: Uuid, delay: Duration, context: Context<'_>) {
        if let Some(operation) = self.operation_mut(id) {
            operation.move_to(operation.sent.exposure.resting_state());
            operation.lease = None;
            operation.due_at = Some(later(context.now, delay));
        }
    }

    /// Schedules another try, or another question.
    pub(super) fn schedule(&mut self, id: Uuid, delay: Duration, error: &GatewayError, context: Context<'_>) -> Step {
        // A failure that the operator must fix uses up none of the command's own retries.
        if error.code != Code::Misconfigured
            && let Some(operation) = self.operation_mut(id)
        {
            count_up(&mut operation.counts.rounds);
        }
        self.put_off(id, delay.max(error.retry_after.unwrap_or_default()), context);
        self.emit_delayed(id, error.code, &error.message, context.now);
        self.wake_cancel(context.now);
        Step::Stored
    }

    /// Stops sending under this key: the gateway is asked what happened, or undoes it, or sends proof of its own
    /// accord, or a person must say.
    pub(super) fn resolve_unknown(&mut self, id: Uuid, error: &GatewayError, context: Context<'_>) -> Step {
        let Some(operation) = self.become_unknown(id, error) else {
            return Step::Settled;
        };
        operation.sent.lookup_only = true;
        operation.due_at = match context.rules.contract.lookup {
            Lookup::None if !operation.can_be_undone(context) => operation.awaits_proof_until(context),
            Lookup::None | Lookup::Indicative | Lookup::Authoritative => {
                Some(operation.next_look_up(error.retry_after, context))
            }
        };
        if operation.due_at.is_some() {
            self.emit_delayed(id, error.code, &error.message, context.now);
        } else {
            self.escalate(id, "the outcome is unknown and cannot be looked up: an operator must resolve it", context);
        }
        Step::Stored
    }

    /// Marks the outcome as unknown: the payment is busy with the operation until it is known. A pending one, which had
    /// given up its turn, takes it again as soon as it is free.
    pub(super) fn become_unknown(&mut self, id: Uuid, error: &GatewayError) -> Option<&mut Operation> {
        if let Some(payment) = &mut self.payment {
            payment.busy.get_or_insert(id);
        }
        let operation = self.operation_mut(id)?;
        operation.move_to(State::Unknown);
        operation.lease = None;
        operation.due_at = None;
        operation.last_code = Some(error.code);
        operation.last_message.clone_from(&error.message);
        Some(operation)
    }

    /// Leaves an operation to a person, and reports that once. Nothing more happens by itself, and it stays visible
    /// until it is resolved.
    pub(super) fn escalate(&mut self, id: Uuid, message: &str, context: Context<'_>) {
        let Some(operation) = self.operation_mut(id) else {
            return;
        };
        operation.lease = None;
        operation.due_at = None;
        if !std::mem::replace(&mut operation.escalated, true) {
            self.emit_delayed(id, Code::Escalated, message, context.now);
        }
    }

    /// Starts over under a new key, which the proof allows; this uses up one of the retries.
    pub(super) fn begin_anew(&mut self, id: Uuid, proof: NotCharged, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.sent.start_over(operation.key().next(proof));
        operation.escalated = false;
        operation.end_undo();
        count_up(&mut operation.counts.rounds);
        operation.schedule_at(context.now);
        if self.wake_cancel(context.now) {
            self.postpone(id, later(context.now, CANCEL_FIRST));
        }
        Step::Stored
    }
}

impl Exposure {
    /// The state of an operation that is not being called for now.
    fn resting_state(self) -> State {
        match self {
            Exposure::Clean => State::Scheduled,
            Exposure::Exposed => State::Unknown,
        }
    }
}

impl Operation {
    /// Lets go of it until this time.
    pub(super) fn schedule_at(&mut self, due: Timestamp) {
        self.move_to(State::Scheduled);
        self.lease = None;
        self.due_at = Some(due);
    }

    /// Starts one more attempt: it counts, is leased, and may be received from now on.
    pub(super) fn start_attempt(&mut self, context: Context<'_>) {
        self.move_to(State::Calling);
        count_up(&mut self.counts.attempts);
        self.lease_for_call(context);
        self.sent.note_until(context.now);
        // While nothing was received, the key's window has not started.
        if !self.sent.is_exposed() {
            self.sent.first_at = Some(context.now);
        }
    }

    pub(super) fn lease_for_call(&mut self, context: Context<'_>) {
        let until = later(context.now, context.rules.lease);
        self.lease = Some(Lease { owner: context.worker, until });
        // A first call has no due time, so that settling it changes no indexed column: should its worker be lost, the
        // sweep in order of acceptance finds it. Every later call has one, because the sweep may have passed it.
        self.due_at = (self.accepted > 0).then_some(until);
    }

    pub(super) fn has_live_lease(&self, context: Context<'_>) -> bool {
        self.lease.is_some_and(|lease| lease.until > context.now)
    }

    /// Whether this worker process has its lease.
    pub(super) fn is_leased_by(&self, worker: Uuid) -> bool {
        self.lease.is_some_and(|lease| lease.owner == worker)
    }

    /// Whether this worker process is calling or asking for it.
    pub(super) fn is_called_by(&self, worker: Uuid) -> bool {
        self.state == State::Calling && self.is_leased_by(worker)
    }

    /// Whether the same request may be sent again: nothing was received yet, or the gateway still knows the key.
    fn may_send_again(&self, context: Context<'_>) -> bool {
        !self.sent.is_exposed()
            || (!self.sent.lookup_only && self.key_ends(context).is_some_and(|end| end > context.now))
    }

    /// Whether it may no longer start. What the customer has approved has already started.
    pub(super) fn is_expired(&self, context: Context<'_>) -> bool {
        !self.confirms() && self.attributes.expires_at.is_some_and(|time| time <= context.now)
    }

    /// Until when the gateway surely knows the key: its window minus a lease, because an answer may take that long.
    pub(super) fn key_ends(&self, context: Context<'_>) -> Option<Timestamp> {
        let window = self.keys(context).window?.checked_sub(context.rules.lease)?;
        self.sent.first_at.map(|first| later(first, window))
    }

    /// What the gateway promises about its key.
    fn keys(&self, context: Context<'_>) -> Keys {
        self.action().map_or(Keys::NONE, |action| context.rules.contract.keys.of(action))
    }

    /// When to look up next: after the gateway's settle window, then at the retry delays, and no sooner than the
    /// gateway asked for.
    pub(super) fn next_look_up(&self, retry_after: Option<Duration>, context: Context<'_>) -> Timestamp {
        let delays = &context.rules.delayed;
        let delay = delays.get(self.counts.lookups as usize).or(delays.last()).copied().unwrap_or(DELAY_DEFAULT);
        let next = later(context.now, delay.max(retry_after.unwrap_or_default()));
        match self.sent.last_at {
            Some(sent) => next.max(later(sent, context.rules.contract.settle_window)),
            None => next,
        }
    }

    /// Until when it waits for the gateway's proof; `None` if the contract promises none, that time has passed, or its
    /// approval contradicts the payment's money.
    pub(super) fn awaits_proof_until(&self, context: Context<'_>) -> Option<Timestamp> {
        let NotificationRole::Proof { deadline } = context.rules.contract.notifications else { return None };
        let until = later(self.sent.last_at.unwrap_or(self.created), deadline);
        (until > context.now && !self.contradicts()).then_some(until)
    }

    pub(super) fn is_process(&self) -> bool {
        self.action() == Some(Action::Process)
    }
}
