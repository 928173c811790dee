//! Calls and what follows them: retries, schedules, takeovers. Another try needs an attempt that was proved not sent, or a
//! live key; a new key needs the proof that nothing was charged.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::{Aggregate, Context, Step, TAKEOVERS_MAX, later};
use crate::payment::code::{Code, Rejection};
use crate::payment::contract::Lookup;
use crate::payment::event::Why;
use crate::payment::operation::{AnswerKind, Lease, Operation, Request, State};
use crate::payment::outcome::{Exposure, NotCharged, Outcome, Trouble};
use crate::payment::status::{Cause, Status};

/// The delay of a retry where the configuration names none.
const DELAY_DEFAULT: Duration = Duration::from_secs(60);

impl Aggregate {
    /// Takes the turn for an operation and begins its first attempt, unless calls are held back.
    pub(super) fn begin(&mut self, id: Uuid, request: Request, context: Context<'_>) -> Step {
        if let Some(payment) = &mut self.payment {
            payment.busy = Some(id);
        }
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.request = Some(request);
        let Some(hold) = context.hold else {
            operation.start_attempt(context);
            return Step::Call(id);
        };
        operation.state = State::Scheduled;
        operation.due_at = Some(later(context.now, hold));
        if !hold.is_zero() {
            self.tell_delayed(id, Code::Held, "calls of this variant are held back", context.now);
        }
        Step::Stored
    }

    /// Goes on with an operation that is due, or whose worker was lost.
    pub fn resume(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let expired = operation.attributes.expires_at.is_some_and(|time| time <= context.now);
        match operation.state {
            State::Waiting => self.take_turn(id, context),
            State::Scheduled if expired => self.expire(id, context),
            State::Scheduled => self.attempt_again(id, context),
            State::Unknown if operation.may_send_again(context) => self.attempt_again(id, context),
            State::Unknown if context.rules.contract.lookup == Lookup::None => {
                self.escalate(id, context);
                Step::Stored
            }
            State::Unknown | State::Pending => {
                // Looked at again should this worker be lost meanwhile.
                self.lease_look_up(id, context);
                Step::LookUp { operation: id, target: Some(id) }
            }
            State::Calling if operation.lease.is_some_and(|lease| lease.until > context.now) => Step::Stored,
            State::Calling => self.take_over(id, context),
            State::Settled => Step::Settled,
        }
    }

    /// Takes an operation over from a worker that was lost, or that the broker says has lost it. What that worker sent is
    /// unknown: only the same live key, or a look-up, may follow.
    pub fn take_over(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.takeovers += 1;
        if operation.action().is_none() {
            operation.lease_for_call(context);
            return self.look_up_step(id);
        }
        operation.exposure = Exposure::Exposed;
        if operation.takeovers >= TAKEOVERS_MAX {
            operation.lookup_only = true;
            self.escalate(id, context);
            return Step::Stored;
        }
        if operation.may_send_again(context) {
            operation.state = State::Calling;
            operation.lease_for_call(context);
            operation.last_sent_at = Some(context.now);
            return Step::Call(id);
        }
        self.seek_truth(id, &Trouble::new(Code::WorkerLost, "the worker that called the gateway was lost"), context)
    }

    fn attempt_again(&mut self, id: Uuid, context: Context<'_>) -> Step {
        if let Some(hold) = context.hold {
            if let Some(operation) = self.operation_mut(id) {
                operation.due_at = Some(later(context.now, hold));
            }
            return Step::Stored;
        }
        match self.operation_mut(id) {
            Some(operation) => {
                operation.start_attempt(context);
                Step::Call(id)
            }
            None => Step::Settled,
        }
    }

    /// Ends an operation that was never received and may no longer be sent.
    fn expire(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let why = "it expired before anything was received by the gateway";
        self.reject(id, Rejection::new(Code::Expired, why), context)
    }

    /// What one attempt proved. `tries` counts the attempts in a row, this one included.
    pub fn settle(&mut self, id: Uuid, outcome: Outcome, tries: u32, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        if !operation.is_open() {
            return match outcome {
                Outcome::Result(result) => self.late_result(id, *result, context),
                Outcome::Refused(_) | Outcome::NotSent(_) | Outcome::Unknown(_) => Step::Settled,
            };
        }
        match outcome {
            Outcome::Result(result) => self.apply(id, *result, context),
            Outcome::Refused(trouble) => match operation.exposure.not_charged() {
                Some(proof) => self.fail(id, trouble, proof, context),
                // The gateway refused this attempt; what became of the earlier one is still open.
                None => self.seek_truth(id, &trouble, context),
            },
            Outcome::NotSent(trouble) => self.retry(id, trouble, tries, context),
            Outcome::Unknown(trouble) => {
                operation.exposure = Exposure::Exposed;
                if context.rules.contract.replays_server_errors && trouble.code == Code::GatewayError {
                    operation.lookup_only = true;
                }
                self.retry(id, trouble, tries, context)
            }
        }
    }

    /// Tries again: at once, later, or not any more.
    fn retry(&mut self, id: Uuid, trouble: Trouble, tries: u32, context: Context<'_>) -> Step {
        let rules = context.rules;
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.last_code = Some(trouble.code);
        operation.last_message.clone_from(&trouble.message);
        let clean = operation.exposure == Exposure::Clean;
        if clean && operation.attributes.expires_at.is_some_and(|time| time <= context.now) {
            return self.expire(id, context);
        }
        if !operation.may_send_again(context) {
            return self.seek_truth(id, &trouble, context);
        }
        // Wrong credentials are no fault of the command: it is tried until they are mended.
        let misconfigured = trouble.code == Code::Misconfigured;
        let at_once = !misconfigured && trouble.retry_after.is_none() && context.hold.is_none();
        if at_once && tries < rules.immediate_attempts {
            return Step::RetryNow(id);
        }
        let round = operation.rounds as usize;
        let delay = match rules.delayed.get(round) {
            Some(delay) => Some(*delay),
            None if misconfigured => Some(rules.delayed.last().copied().unwrap_or(DELAY_DEFAULT)),
            None => None,
        };
        match delay {
            Some(delay) => self.schedule(id, delay, &trouble, context),
            None => match operation.exposure.not_charged() {
                Some(proof) => self.fail(id, trouble, proof, context),
                None => {
                    operation.lookup_only = true;
                    self.seek_truth(id, &trouble, context)
                }
            },
        }
    }

    fn schedule(&mut self, id: Uuid, delay: Duration, trouble: &Trouble, context: Context<'_>) -> Step {
        let delay = delay.max(trouble.retry_after.unwrap_or_default());
        if let Some(operation) = self.operation_mut(id) {
            operation.rounds = operation.rounds.saturating_add(1);
            operation.state = match operation.exposure {
                Exposure::Clean => State::Scheduled,
                Exposure::Exposed => State::Unknown,
            };
            operation.lease = None;
            operation.due_at = Some(later(context.now, delay));
        }
        self.tell_delayed(id, trouble.code, &trouble.message, context.now);
        Step::Stored
    }

    /// Nothing more is sent for now: the gateway is asked what happened, or a person must say.
    pub(super) fn seek_truth(&mut self, id: Uuid, trouble: &Trouble, context: Context<'_>) -> Step {
        if context.rules.contract.lookup == Lookup::None {
            self.escalate(id, context);
            return Step::Stored;
        }
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Unknown;
            operation.lease = None;
            operation.last_code = Some(trouble.code);
            operation.last_message.clone_from(&trouble.message);
            operation.due_at = Some(operation.next_look_up(context));
        }
        self.tell_delayed(id, trouble.code, &trouble.message, context.now);
        Step::Stored
    }

    /// A person must say what happened; told once. It stays visible until then.
    pub(super) fn escalate(&mut self, id: Uuid, context: Context<'_>) {
        let Some(operation) = self.operation_mut(id) else {
            return;
        };
        operation.state = State::Unknown;
        operation.lease = None;
        operation.due_at = None;
        if !std::mem::replace(&mut operation.escalated, true) {
            let message = "the outcome is unknown and cannot be looked up: a person must resolve it";
            self.tell_delayed(id, Code::Escalated, message, context.now);
        }
    }

    /// Ends an operation of which it is proved that nothing was charged.
    pub(super) fn fail(&mut self, id: Uuid, trouble: Trouble, _proof: NotCharged, context: Context<'_>) -> Step {
        let is_process = self.operation(id).is_some_and(Operation::is_process);
        if is_process && let Some(payment) = &mut self.payment {
            payment.message.clone_from(&trouble.message);
            self.set_status(Status::Error, Cause::Process);
        }
        let why = Why {
            code: Some(trouble.code),
            message: trouble.message,
            gateway_code: trouble.gateway_code,
            discrepancy: None,
        };
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// Begins anew under a new key, which the proof allows.
    pub(super) fn begin_anew(&mut self, id: Uuid, proof: NotCharged, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.generation = operation.key().next(proof).generation();
        operation.exposure = Exposure::Clean;
        operation.lookup_only = false;
        self.attempt_again(id, context)
    }
}

impl Operation {
    /// One more attempt: it counts, is leased, and may be received from now on.
    fn start_attempt(&mut self, context: Context<'_>) {
        self.state = State::Calling;
        self.attempts = self.attempts.saturating_add(1);
        self.lease_for_call(context);
        self.last_sent_at = Some(context.now);
        // While nothing was received, the key's window has not begun.
        if self.exposure == Exposure::Clean {
            self.first_sent_at = Some(context.now);
        }
    }

    pub(super) fn lease_for_call(&mut self, context: Context<'_>) {
        let until = later(context.now, context.rules.lease);
        self.lease = Some(Lease { owner: context.worker, until });
        // A first call has no due time, so that settling it changes no indexed column: the sweep by order of acceptance
        // finds it should its worker be lost. The sweep may have passed every later call.
        self.due_at = (self.accepted > 0).then_some(until);
    }

    /// Whether the same request may go out once more: nothing was received yet, or the gateway still knows the key.
    fn may_send_again(&self, context: Context<'_>) -> bool {
        self.exposure == Exposure::Clean
            || (!self.lookup_only && self.key_ends(context).is_some_and(|end| end > context.now))
    }

    /// Until when the gateway surely knows the key: its window less a lease, for an answer takes as long.
    fn key_ends(&self, context: Context<'_>) -> Option<Timestamp> {
        let window = context.rules.contract.key_window?.checked_sub(context.rules.lease)?;
        self.first_sent_at.map(|first| later(first, window))
    }

    /// When to look up next: after the gateway's settle window, then at the delays of the retries.
    pub(super) fn next_look_up(&self, context: Context<'_>) -> Timestamp {
        let delays = &context.rules.delayed;
        let delay = delays.get(self.lookups as usize).or(delays.last()).copied().unwrap_or(DELAY_DEFAULT);
        let next = later(context.now, delay);
        match self.last_sent_at {
            Some(sent) => next.max(later(sent, context.rules.contract.settle_window)),
            None => next,
        }
    }

    pub(super) fn is_process(&self) -> bool {
        self.action() == Some(crate::payment::operation::Action::Process)
    }
}
