//! `payment.sync`: the gateway is asked for the truth, about the operation whose outcome is open, or else about the whole
//! payment. Only what is missing is added: nothing is counted twice, and nothing is taken away silently.

use uuid::Uuid;

use super::attempt::Next;
use super::settle::foreign_currency;
use super::{Aggregate, Context, Step};
use crate::payment::code::Code;
use crate::payment::event::{Discrepancy, Why};
use crate::payment::money::MoneyError;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Found, GatewayResult, Trouble, Verdict};
use crate::payment::status::{Cause, Status};

/// Under what name a sync remembers how far the payment's events had come when it asked.
const ASKED_AFTER: &str = "asked_after_sequence";

impl Aggregate {
    /// Asks the gateway for the truth, for a `payment.sync`.
    pub(super) fn ask(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let sequence = self.last_sequence();
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Calling;
            operation.attempts = operation.attempts.saturating_add(1);
            operation.last_sent_at = Some(context.now);
            operation.data.insert(ASKED_AFTER.to_owned(), sequence.into());
            operation.lease_for_call(context);
        }
        Step::LookUp { operation: id, target: self.open_at_gateway() }
    }

    fn last_sequence(&self) -> i64 {
        self.payment.as_ref().map_or(0, |payment| payment.last_sequence)
    }

    /// The operation whose money may be on its way: one that is unknown, pending or being called. Only where there is none
    /// may the whole payment be asked about: else its money could be counted twice, once from the whole and once by itself.
    fn open_at_gateway(&self) -> Option<Uuid> {
        let of_state = |state| self.operations().find(|other| other.state == state && other.action().is_some());
        let open = of_state(State::Unknown).or_else(|| of_state(State::Pending)).or_else(|| of_state(State::Calling));
        open.map(|operation| operation.id)
    }

    /// A `payment.sync` whose question failed: asking again is always safe.
    pub(super) fn ask_later(&mut self, id: Uuid, trouble: Trouble, tries: u32, context: Context<'_>) -> Step {
        let rounds = self.operation(id).map_or(0, |operation| operation.rounds);
        match context.rules.next(&trouble, tries, rounds, context.hold) {
            Next::AtOnce => Step::RetryNow(id),
            Next::Held(hold) => self.hold_back(id, hold, &trouble, context),
            Next::Later(delay) => self.schedule(id, delay, &trouble, context),
            Next::Never => self.give_up_question(id, trouble, context),
        }
    }

    /// What the gateway says of the whole payment.
    pub(super) fn found_of_payment(&mut self, id: Uuid, found: Found, context: Context<'_>) -> Step {
        let asked_after = self.operation(id).and_then(|operation| operation.data.get(ASKED_AFTER)?.as_i64());
        // What moved while the gateway was asked may be in its answer or not: it is asked again.
        if self.open_at_gateway().is_some() || asked_after != Some(self.last_sequence()) {
            return self.ask(id, context);
        }
        let Found::Result(result) = found else {
            return self.answer(id, AnswerKind::Succeeded, Why::default(), context.now);
        };
        if let Some(foreign) = self.payment.as_ref().and_then(|payment| foreign_currency(payment, &result)) {
            let message = format!("the gateway answered in {foreign}; nothing was applied");
            return self.give_up_question(id, Trouble::new(Code::Mismatch, message), context);
        }
        let mut why = self.merge(&result, true);
        match &result.verdict {
            Verdict::Approved | Verdict::Authorized => match self.reconcile(id, &result, &why, context) {
                Ok(None) => {}
                Ok(Some(discrepancy)) => {
                    why.code = Some(Code::Mismatch);
                    why.discrepancy = Some(discrepancy);
                    return self.answer(id, AnswerKind::Failed, why, context.now);
                }
                Err(error) => {
                    let message = format!("the gateway's amount {error}");
                    return self.give_up_question(id, Trouble::new(Code::Mismatch, message), context);
                }
            },
            Verdict::Declined(_) => {
                why.code = Some(Code::Declined);
                self.set_status(Status::Rejected, Cause::Proof, &why.message);
            }
            Verdict::CustomerMustAct { redirect_url } => self.customer_still_must_act(redirect_url, &why),
            Verdict::Pending => {}
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    fn customer_still_must_act(&mut self, redirect_url: &str, why: &Why) {
        let waits = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Waiting);
        if waits
            && self.set_status(Status::Input, Cause::Proof, &why.message)
            && let Some(payment) = &mut self.payment
        {
            payment.redirect_url = Some(redirect_url.to_owned());
        }
    }

    /// Adds the movements that the gateway knows of and we do not, one after the other: each with its own event, so that
    /// the status goes no way that the table does not have. Returns where the gateway's figures and ours still differ.
    fn reconcile(
        &mut self,
        id: Uuid,
        result: &GatewayResult,
        why: &Why,
        context: Context<'_>,
    ) -> Result<Option<Discrepancy>, MoneyError> {
        let Some(payment) = &self.payment else {
            return Ok(None);
        };
        let ours = payment.amounts;
        let moved = [ours.authorized, ours.captured, ours.refunded].iter().any(|amount| !amount.is_zero());
        let authorizes = payment.capture == Some(false) || result.verdict == Verdict::Authorized;
        let sum = result.amount.unwrap_or(payment.order.total);
        // `captured` is what is left; what was refunded had been captured before.
        let ours_ever = ours.captured.plus(ours.refunded)?;
        let refunded = result.refunded.unwrap_or(ours.refunded);
        let ever_captured = match result.captured {
            Some(captured) => captured.plus(refunded)?,
            None if moved || authorizes => ours_ever,
            None => sum,
        };
        let mut missing = Vec::new();
        if authorizes && !moved && ever_captured.is_zero() {
            missing.push((MovementKind::Authorized, sum));
        }
        missing.push((MovementKind::Captured, ever_captured.less(ours_ever)?));
        missing.push((MovementKind::Refunded, refunded.less(ours.refunded)?));
        missing.retain(|(_, amount)| !amount.is_zero());
        let mut discrepancy = None;
        for (place, (kind, amount)) in missing.into_iter().enumerate() {
            if place > 0 {
                self.tell_change(id, why, context.now);
            }
            discrepancy = self.beyond(kind, amount)?.or(discrepancy);
            self.record(Movement { kind, reference: id.to_string(), amount, operation: None })?;
            self.follow_money(why);
        }
        let captured = result.captured.map_or_else(|| ever_captured.less(refunded), Ok)?;
        let ours = self.payment.as_ref().map_or(captured, |payment| payment.amounts.captured);
        // The gateway says less than we counted: nothing is taken away silently, a person must look.
        Ok((ours != captured).then_some(Discrepancy { asked: ours, answered: captured }).or(discrepancy))
    }

    /// Moves the status to where the money is.
    fn follow_money(&mut self, why: &Why) {
        let Some(amounts) = self.payment.as_ref().map(|payment| payment.amounts) else {
            return;
        };
        let status = if !amounts.captured.is_zero() {
            Status::Confirmed
        } else if !amounts.refunded.is_zero() {
            Status::Refunded
        } else {
            Status::Preauth
        };
        self.set_status(status, Cause::Proof, &why.message);
    }
}
