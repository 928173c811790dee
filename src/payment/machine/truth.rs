//! The truth about what is unknown: look-ups, `payment.sync`, `payment.resolve`. "Not found" proves something only where
//! the gateway declares its look-up authoritative, and after its settle window.

use uuid::Uuid;

use super::{Aggregate, Context, Step, later};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{AmountText, Resolution, Resolve};
use crate::payment::contract::Lookup;
use crate::payment::event::{Discrepancy, Why};
use crate::payment::money::Money;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{Decline, Exposure, Found, GatewayResult, Trouble, Verdict};
use crate::payment::status::{Cause, Status};

impl Aggregate {
    /// Begins to ask the gateway for the truth, for a `payment.sync`.
    pub(super) fn begin_sync(&mut self, id: Uuid, context: Context<'_>) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Calling;
            operation.attempts = operation.attempts.saturating_add(1);
            operation.lease_for_call(context);
        }
        self.look_up_step(id)
    }

    /// A `payment.sync` asks about the operation whose outcome is open, and only where there is none about the whole
    /// payment: else a movement could be counted twice, once from the whole and once from its operation.
    pub fn look_up_step(&self, id: Uuid) -> Step {
        let open = self.operations().find(|operation| {
            operation.id != id
                && operation.action().is_some()
                && operation.exposure == Exposure::Exposed
                && operation.is_open()
        });
        Step::LookUp { operation: id, target: open.map(|operation| operation.id) }
    }

    pub(super) fn lease_look_up(&mut self, id: Uuid, context: Context<'_>) {
        if let Some(operation) = self.operation_mut(id) {
            operation.due_at = Some(later(context.now, context.rules.lease));
        }
    }

    /// Takes in what a look-up found.
    pub fn found(&mut self, id: Uuid, target: Option<Uuid>, found: Found, tries: u32, context: Context<'_>) -> Step {
        if !self.operation(id).is_some_and(Operation::is_open) {
            return Step::Settled;
        }
        if target == Some(id) {
            return self.found_of_itself(id, found, context);
        }
        match found {
            Found::Failed(trouble) => self.retry_look_up(id, trouble, tries, context),
            Found::Nothing => {
                if let Some(target) = target {
                    self.not_found(target, context);
                }
                self.answer(id, AnswerKind::Succeeded, Why::default(), context.now)
            }
            Found::Result(result) => {
                let why = match target {
                    Some(target) => {
                        // Settled with its own command as the cause; the sync only asked.
                        if self.operation(target).is_some_and(Operation::is_open) {
                            self.apply(target, *result, context);
                        }
                        Why::default()
                    }
                    None => self.reconcile(id, *result),
                };
                self.answer(id, AnswerKind::Succeeded, why, context.now)
            }
        }
    }

    /// A look-up of an operation whose outcome is unknown or pending.
    fn found_of_itself(&mut self, id: Uuid, found: Found, context: Context<'_>) -> Step {
        match found {
            Found::Result(result) => self.apply(id, *result, context),
            Found::Nothing => self.not_found(id, context),
            Found::Failed(trouble) => {
                self.look_up_again(id, &trouble.message, context);
                Step::Stored
            }
        }
    }

    /// The gateway knows nothing of the operation.
    fn not_found(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let contract = &context.rules.contract;
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        if operation.state != State::Unknown {
            // Pending was the gateway's own word, and a call under way may yet arrive: nothing is proved by absence.
            if operation.state == State::Pending {
                self.look_up_again(id, "the gateway no longer knows what it accepted", context);
            }
            return Step::Stored;
        }
        let settled = operation.last_sent_at.is_some_and(|sent| later(sent, contract.settle_window) <= context.now);
        let authoritative = contract.lookup == Lookup::Authoritative;
        let rounds_left = (operation.rounds as usize) < context.rules.delayed.len();
        let expired = operation.attributes.expires_at.is_some_and(|time| time <= context.now);
        let trouble = Trouble::new(
            operation.last_code.unwrap_or(Code::Unreachable),
            format!("{}; the gateway knows nothing of it", operation.last_message),
        );
        match Exposure::absent(authoritative, settled) {
            Some(_) if expired => self.reject(
                id,
                Rejection::new(Code::Expired, "it expired, and the gateway knows nothing of it"),
                context,
            ),
            Some(proof) if rounds_left && context.hold.is_none() => self.begin_anew(id, proof, context),
            Some(proof) => self.fail(id, trouble, proof, context),
            None => {
                self.look_up_again(id, "the gateway knows nothing of it yet", context);
                Step::Stored
            }
        }
    }

    /// Schedules the next look-up, and after some of them tells that a person may have to act.
    fn look_up_again(&mut self, id: Uuid, message: &str, context: Context<'_>) {
        let Some(operation) = self.operation_mut(id) else {
            return;
        };
        operation.lookups = operation.lookups.saturating_add(1);
        operation.due_at = Some(operation.next_look_up(context));
        operation.last_message = message.to_owned();
        let worry = operation.state == State::Unknown && operation.lookups as usize > context.rules.delayed.len();
        if worry && !std::mem::replace(&mut operation.escalated, true) {
            let message = format!("still unknown after {} look-ups: {message}", operation.lookups);
            self.tell_delayed(id, Code::Escalated, &message, context.now);
        }
    }

    /// A `payment.sync` whose question failed: asking again is always safe.
    fn retry_look_up(&mut self, id: Uuid, trouble: Trouble, tries: u32, context: Context<'_>) -> Step {
        let rules = context.rules;
        if tries < rules.immediate_attempts && trouble.retry_after.is_none() && context.hold.is_none() {
            return Step::RetryNow(id);
        }
        let delay = self.operation(id).and_then(|operation| rules.delayed.get(operation.rounds as usize)).copied();
        let Some(delay) = delay else {
            return self.fail_as(id, trouble, context);
        };
        if let Some(operation) = self.operation_mut(id) {
            operation.rounds = operation.rounds.saturating_add(1);
            operation.state = State::Scheduled;
            operation.lease = None;
            operation.due_at = Some(later(context.now, delay.max(trouble.retry_after.unwrap_or_default())));
        }
        self.tell_delayed(id, trouble.code, &trouble.message, context.now);
        Step::Stored
    }

    /// Brings the payment to what the gateway says of the whole of it. Only what is missing is added: nothing is counted
    /// twice.
    fn reconcile(&mut self, id: Uuid, result: GatewayResult) -> Why {
        let Some(payment) = &self.payment else {
            return Why::default();
        };
        let currency = payment.currency();
        let sums = [result.amount, result.captured, result.refunded];
        if let Some(foreign) = sums.into_iter().flatten().find(|sum| sum.currency() != currency) {
            let message = format!("the gateway answered in {}; nothing was applied", foreign.currency());
            return Why { code: Some(Code::Mismatch), message, ..Why::default() };
        }
        let mut why = self.merge(&result);
        match result.verdict {
            Verdict::Approved | Verdict::Authorized => why.discrepancy = self.reconcile_money(id, &result),
            Verdict::Declined(Decline::Hard | Decline::Soft | Decline::CustomerMustAct) => {
                why.code = Some(Code::Declined);
                self.set_status(Status::Rejected, Cause::Proof);
            }
            Verdict::CustomerMustAct { redirect_url } => {
                let waits = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Waiting);
                if waits
                    && self.set_status(Status::Input, Cause::Proof)
                    && let Some(payment) = &mut self.payment
                {
                    payment.redirect_url = Some(redirect_url);
                }
            }
            Verdict::Pending => {}
        }
        why
    }

    fn reconcile_money(&mut self, id: Uuid, result: &GatewayResult) -> Option<Discrepancy> {
        let payment = self.payment.as_ref()?;
        let zero = Money::zero(payment.currency());
        let reference = id.to_string();
        let ours = payment.amounts;
        let refunded = result.refunded.unwrap_or(ours.refunded);
        let authorizes = payment.capture == Some(false) || result.verdict == Verdict::Authorized;
        let moved = !ours.authorized.is_zero() || !ours.captured.is_zero() || !ours.refunded.is_zero();
        let captured = match result.captured {
            Some(captured) => captured,
            None if moved || authorizes => ours.captured,
            None => result.amount.unwrap_or(payment.order.total),
        };
        let theirs = captured.plus(refunded).ok()?;
        let known = ours.captured.plus(ours.refunded).ok()?;
        let mut missing = Vec::new();
        if authorizes && !moved && theirs.is_zero() {
            missing.push((MovementKind::Authorized, result.amount.unwrap_or(payment.order.total)));
        }
        missing.push((MovementKind::Captured, theirs.less(known).unwrap_or(zero)));
        missing.push((MovementKind::Refunded, refunded.less(ours.refunded).unwrap_or(zero)));
        for (kind, amount) in missing.into_iter().filter(|(_, amount)| !amount.is_zero()) {
            let movement = Movement { kind, reference: reference.clone(), amount, operation: None };
            if self.record(movement).is_err() {
                return Some(Discrepancy { asked: ours.captured, answered: amount });
            }
        }
        let amounts = self.payment.as_ref()?.amounts;
        if !amounts.captured.is_zero() {
            self.set_status(Status::Confirmed, Cause::Proof);
        } else if !amounts.refunded.is_zero() {
            self.set_status(Status::Refunded, Cause::Proof);
        } else if !amounts.authorized.is_zero() {
            self.set_status(Status::Preauth, Cause::Proof);
        }
        // The gateway says less than we counted: nothing is taken away silently, a person must look.
        (amounts.captured != captured).then_some(Discrepancy { asked: amounts.captured, answered: captured })
    }

    /// A person says what happened to an operation with an unknown outcome.
    pub(super) fn resolve(&mut self, id: Uuid, resolve: Resolve, context: Context<'_>) -> Result<Step, Rejection> {
        if self.operation(id).is_none_or(|operation| operation.attributes.user_id.is_none()) {
            return Err(Rejection::new(Code::UserRequired, "the AMQP user_id must say who resolves it"));
        }
        let target = resolve.operation;
        let Some(operation) = self.operation(target).filter(|operation| operation.state == State::Unknown) else {
            return Err(Rejection::new(Code::NotUnknown, format!("operation {target} has no unknown outcome")));
        };
        let asked = operation.amount();
        let amount = match (resolve.amount, &self.payment) {
            (Some(AmountText(text)), Some(payment)) => {
                let amount = Money::parse(&text, payment.currency())
                    .map_err(|error| Rejection::new(Code::InvalidAmount, format!("amount: {error}")))?;
                Some(amount)
            }
            _ => asked,
        };
        let verdict = match resolve.outcome {
            Resolution::Approved => Verdict::Approved,
            Resolution::Declined => Verdict::Declined(Decline::Hard),
            Resolution::NotCharged => {
                let trouble = Trouble::new(Code::Refused, "a person resolved it: nothing was charged");
                self.fail_as(target, trouble, context);
                return Ok(self.answer(id, AnswerKind::Succeeded, Why::default(), context.now));
            }
        };
        let message = "a person resolved it".to_owned();
        let result =
            GatewayResult { amount, transaction_id: resolve.transaction_id, message, ..GatewayResult::new(verdict) };
        self.apply(target, result, context);
        Ok(self.answer(id, AnswerKind::Succeeded, Why::default(), context.now))
    }

    /// No gateway here sends notifications that could be verified.
    pub(super) fn notification(&mut self, context: Context<'_>) -> Result<Step, Rejection> {
        let gateway = &context.rules.gateway;
        Err(Rejection::new(Code::Unsupported, format!("the gateway {gateway} sends no notifications")))
    }
}
