//! `payment.sync`: asks the gateway about the operation whose outcome is open, or otherwise about the whole payment.
//! Only what is missing is added: nothing is counted twice, and nothing is taken away silently. A movement is never
//! undone: what was given back and is there again is a movement of its own.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::attempt::Next;
use super::book::{Booked, ReportContext};
use super::settle::foreign_currency;
use super::{Aggregate, Context, Step, count_up, later};
use crate::payment::code::Code;
use crate::payment::event::{Discrepancy, Reason};
use crate::payment::money::{Money, MoneyError};
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::observation::{Asked, Observation};
use crate::payment::operation::{AnswerKind, State};
use crate::payment::outcome::{Found, GatewayError, GatewayResult, Verdict};
use crate::payment::status::{Cause, Status};
use crate::payment::transaction::{Attribution, TransactionKind};

/// Data key of a sync that asked again because the gateway might not have known of the last change yet.
const ASKED_AGAIN: &str = "asked_again";

impl Aggregate {
    /// Asks the gateway, for a `payment.sync` or a `payment.notification`.
    pub(super) fn ask(&mut self, id: Uuid, context: Context<'_>) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.move_to(State::Calling);
            count_up(&mut operation.counts.attempts);
            operation.sent.last_at = Some(context.now);
            operation.lease_for_call(context);
        }
        // Only a notification can name no payment, and its payments must be located first.
        if self.payment.is_none() {
            return Step::Locate(id);
        }
        Step::LookUp { operation: id, target: self.named_operation(id).or_else(|| self.open_at_gateway()) }
    }

    pub(super) fn last_sequence(&self) -> i64 {
        self.payment.as_ref().map_or(0, |payment| payment.last_sequence)
    }

    /// A question about the payment as it is now. The answer must come back with it.
    pub fn asked(&self, at: Timestamp) -> Asked {
        Asked::new(at, self.last_sequence())
    }

    /// The operation whose money may be on its way: one that is unknown, pending or being called. Only if there is none
    /// may the whole payment be asked about; otherwise its money could be counted twice, once with the whole and once
    /// by itself.
    pub(super) fn open_at_gateway(&self) -> Option<Uuid> {
        let of_state = |state| self.operations().find(|other| other.state == state && other.action().is_some());
        let open = of_state(State::Unknown).or_else(|| of_state(State::Pending)).or_else(|| of_state(State::Calling));
        open.map(|operation| operation.id)
    }

    /// Schedules a question that failed, such as a `payment.sync`: asking again is always safe.
    pub(super) fn ask_later(&mut self, id: Uuid, error: GatewayError, tries: u32, context: Context<'_>) -> Step {
        let rounds = self.operation(id).map_or(0, |operation| operation.counts.rounds);
        match context.rules.next(&error, tries, rounds, context.questions_paused_for) {
            Next::AtOnce => Step::RetryNow(id),
            Next::Paused(paused_for) => self.defer(id, paused_for, &error, context),
            Next::Later(delay) => self.schedule(id, delay, &error, context),
            Next::Never => self.give_up_question(id, error, context),
        }
    }

    /// Applies what the gateway says about the whole payment.
    pub(super) fn found_of_payment(&mut self, id: Uuid, observation: Observation<Found>, context: Context<'_>) -> Step {
        let Observation { asked, says: found } = observation;
        // What changed while the gateway was asked may or may not be in its answer, so it is asked again.
        if self.open_at_gateway().is_some() || !self.is_current(asked) {
            return self.ask(id, context);
        }
        let Found::Result(result) = found else {
            return match self.held() {
                Some(held) => {
                    let what = "the gateway does not know the payment";
                    self.deny(id, Reason::default(), held, what, asked, context)
                }
                None => self.answer_or_ask_again(id, Reason::default(), asked, context),
            };
        };
        if let Some(foreign) = self.payment.as_ref().and_then(|payment| foreign_currency(payment, &result)) {
            let message = format!("the gateway answered in {foreign}; nothing was applied");
            return self.give_up_question(id, GatewayError::new(Code::Mismatch, message), context);
        }
        let why = self.merge(&result, !self.has_another_transaction(&result));
        let why = match self.book_each(id, &result, &why, context) {
            Ok(booked) => booked.added_to(why),
            Err(error) => return self.unreadable_amount(id, error, context),
        };
        // Sums are what the gateway says about money, whatever else it says.
        if result.approves() || result.captured.or(result.refunded).or(result.disputed).is_some() {
            match self.reconcile(id, &result, asked, &why, context) {
                Ok(None) => {}
                Ok(Some(discrepancy)) => return self.disagree(id, why, discrepancy, asked, context),
                Err(error) => return self.unreadable_amount(id, error, context),
            }
        }
        match &result.verdict {
            Verdict::Declined(_) => return self.declined_as_a_whole(id, &result, why, asked, context),
            Verdict::CustomerMustAct { redirect_url } => self.customer_still_must_act(redirect_url.clone(), &why),
            Verdict::Ready => {
                if self.go_on_alone(context) {
                    return self.answer(id, AnswerKind::Succeeded, why, context.now);
                }
            }
            Verdict::Approved | Verdict::Authorized | Verdict::Pending => {}
        }
        self.answer_or_ask_again(id, why, asked, context)
    }

    fn unreadable_amount(&mut self, id: Uuid, error: MoneyError, context: Context<'_>) -> Step {
        let message = format!("the gateway's amount {error}");
        self.give_up_question(id, GatewayError::new(Code::Mismatch, message), context)
    }

    /// Whether the gateway names a transaction other than the payment's, which has money.
    fn has_another_transaction(&self, result: &GatewayResult) -> bool {
        let Some(payment) = self.payment.as_ref().filter(|payment| !payment.transaction_id.is_empty()) else {
            return false;
        };
        self.held().is_some() && result.transaction_id.as_ref().is_some_and(|id| *id != payment.transaction_id)
    }

    /// Books what the gateway lists for the whole payment, each with an event of its own, so that the status only makes
    /// transitions that the table has. An unattributed transaction may be part of a sum that was learnt before: it is
    /// if our sum already equals the gateway's.
    fn book_each(
        &mut self,
        id: Uuid,
        result: &GatewayResult,
        why: &Reason,
        context: Context<'_>,
    ) -> Result<Booked, MoneyError> {
        let report = ReportContext { reporter: id, is_current: true, adopts: true };
        let mut all = Booked::default();
        for transaction in &result.transactions {
            if transaction.attribution == Attribution::Unattributed && self.is_in_our_sum(transaction.kind, result)? {
                continue;
            }
            if all.is_new {
                self.emit_change(id, &all.added_to(why.clone()), context.now);
            }
            let booked = self.book(transaction, report)?;
            if booked.is_new {
                self.follow_money(why, context);
                all = booked;
            }
        }
        Ok(all)
    }

    /// Whether our sum of a kind equals what the gateway says there is in all.
    fn is_in_our_sum(&self, kind: TransactionKind, result: &GatewayResult) -> Result<bool, MoneyError> {
        let (ours, theirs) = match kind {
            TransactionKind::Capture => (self.ever_captured()?, ever_captured(result)?),
            TransactionKind::Refund => (self.sum_of(MovementKind::Refunded)?, result.refunded),
            TransactionKind::Dispute => (self.sum_of(MovementKind::Disputed)?, result.disputed),
            TransactionKind::Authorization | TransactionKind::Void => return Ok(false),
        };
        Ok(theirs == Some(ours))
    }

    /// The gateway says that the whole payment is declined. For one that was authorized, and of which nothing is
    /// captured, this means that the authorization is gone: it was voided there, or it expired.
    fn declined_as_a_whole(
        &mut self,
        id: Uuid,
        result: &GatewayResult,
        why: Reason,
        asked: Asked,
        context: Context<'_>,
    ) -> Step {
        match self.held() {
            Some(held) if self.is_preauth() && self.is_settled_view(asked, context) => {
                // This increases no amount, so that no sum can be out of range.
                if self.record(Movement::learnt(MovementKind::Voided, id, held)).is_ok() {
                    self.follow_money(&why, context);
                }
                self.answer(id, AnswerKind::Succeeded, why, context.now)
            }
            // Captured money was reconciled with the gateway's figure, if it gave one.
            Some(held) if self.is_preauth() || result.captured.is_none() => {
                self.deny(id, why, held, "the gateway reports that it declined the payment", asked, context)
            }
            Some(_) => self.answer(id, AnswerKind::Succeeded, why, context.now),
            None => {
                self.set_status(Status::Rejected, Cause::Proof, &why.message);
                let why = Reason { code: Some(Code::Declined), ..why };
                self.answer(id, AnswerKind::Succeeded, why, context.now)
            }
        }
    }

    /// The gateway denies the money that we count. It gives no figure, so no amount changes: a person must look.
    fn deny(&mut self, id: Uuid, why: Reason, held: Money, what: &str, asked: Asked, context: Context<'_>) -> Step {
        let discrepancy = Discrepancy { asked: held, answered: Money::zero(held.currency()) };
        let why = Reason { message: format!("{what}, but {held} is booked for it"), ..why };
        self.disagree(id, why, discrepancy, asked, context)
    }

    /// What the gateway says and our count differ. Soon after a change it may only not know of it yet, and is asked
    /// again.
    fn disagree(
        &mut self,
        id: Uuid,
        why: Reason,
        discrepancy: Discrepancy,
        asked: Asked,
        context: Context<'_>,
    ) -> Step {
        let is_news = self.changed_movements().next().is_some();
        let asked_again = self.operation(id).is_none_or(|operation| operation.data.contains_key(ASKED_AGAIN));
        if is_news || asked_again || self.is_settled_view(asked, context) {
            let why = Reason { code: Some(Code::Mismatch), discrepancy: Some(discrepancy), ..why };
            return self.answer(id, AnswerKind::Failed, why, context.now);
        }
        self.emit_change(id, &why, context.now);
        let settled = self.settled_at(context).unwrap_or(context.now);
        self.put_off(id, Duration::ZERO, context);
        self.postpone(id, settled);
        if let Some(operation) = self.operation_mut(id) {
            operation.data.insert(ASKED_AGAIN.to_owned(), true.into());
        }
        let message = "the gateway may not know of the last change yet; asking it again later";
        self.emit_delayed(id, Code::Pending, message, context.now);
        Step::Stored
    }

    /// The money that the gateway has by our count, captured or held.
    pub(super) fn held(&self) -> Option<Money> {
        let amounts = self.payment.as_ref()?.amounts;
        let held = if self.is_preauth() { amounts.capturable } else { amounts.captured };
        Some(held).filter(|held| !held.is_zero())
    }

    fn is_preauth(&self) -> bool {
        self.payment.as_ref().is_some_and(|payment| payment.status == Status::Preauth)
    }

    /// Whether the gateway, when it was asked, must have known everything that we know: only then may what it says undo
    /// something. While its clock and ours differ, that cannot be determined.
    pub(super) fn is_settled_view(&self, asked: Asked, context: Context<'_>) -> bool {
        context.clocks_agree_since(asked) && self.settled_at(context).is_some_and(|settled| settled <= asked.at())
    }

    fn settled_at(&self, context: Context<'_>) -> Option<Timestamp> {
        self.payment.as_ref().map(|payment| later(payment.modified, context.rules.contract.settle_window))
    }

    fn customer_still_must_act(&mut self, redirect_url: Option<String>, why: &Reason) {
        let waits = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Waiting);
        if waits
            && self.set_status(Status::Input, Cause::Proof, &why.message)
            && let Some(payment) = &mut self.payment
        {
            payment.redirect_url = redirect_url;
        }
    }

    /// Adds the movements that the gateway knows of and we do not, one after the other and each with its own event, so
    /// that the status only makes transitions that the table has. Returns where the gateway's figures and ours still
    /// differ.
    pub(super) fn reconcile(
        &mut self,
        id: Uuid,
        result: &GatewayResult,
        asked: Asked,
        why: &Reason,
        context: Context<'_>,
    ) -> Result<Option<Discrepancy>, MoneyError> {
        let Some(payment) = &self.payment else {
            return Ok(None);
        };
        let ours = payment.amounts;
        // Money that was taken and lost again was taken: a bare approval does not count it once more.
        let moved = !self.movements.is_empty();
        let authorizes = payment.capture == Some(false) || result.verdict == Verdict::Authorized;
        let sum = result.total.unwrap_or(payment.order.total);
        // `captured` is what is left; what was refunded or lost had been captured before.
        let ours_ever = self.ever_captured()?;
        let ours_lost = self.sum_of(MovementKind::Disputed)?;
        let refunded = result.refunded.unwrap_or(ours.refunded);
        let lost = result.disputed.unwrap_or(ours_lost);
        let ever_captured = match result.captured {
            Some(captured) => captured.plus(refunded)?.plus(lost)?,
            None if moved || authorizes || !result.approves() => ours_ever,
            None => sum,
        };
        let mut missing = Vec::new();
        if authorizes && !moved && ever_captured.is_zero() && result.approves() {
            missing.push((MovementKind::Authorized, sum));
        }
        missing.push((MovementKind::Captured, ever_captured.less(ours_ever)?));
        missing.push((MovementKind::Refunded, refunded.less(ours.refunded)?));
        missing.push((MovementKind::Disputed, lost.less(ours_lost)?));
        // Less was refunded than we counted, and the gateway's own figure has the rest again: a refund failed later.
        if result.captured.is_some() && !ours_ever.exceeds(ever_captured)? && self.is_settled_view(asked, context) {
            missing.push((MovementKind::RefundReversed, ours.refunded.less(refunded)?));
        }
        missing.retain(|(_, amount)| !amount.is_zero());
        let mut discrepancy = None;
        for (index, (kind, amount)) in missing.into_iter().enumerate() {
            if index > 0 {
                self.emit_change(id, why, context.now);
            }
            discrepancy = self.beyond(kind, amount)?.or(discrepancy);
            self.record(Movement::learnt(kind, id, amount))?;
            self.follow_money(why, context);
        }
        let captured = result.captured.map_or_else(|| ever_captured.less(refunded.plus(lost)?), Ok)?;
        let ours = self.payment.as_ref().map_or(ours, |payment| payment.amounts);
        // The gateway says less than we counted: nothing is taken away silently, a person must look.
        let differs = |asked, answered| (asked != answered).then_some(Discrepancy { asked, answered });
        let ours_lost = self.sum_of(MovementKind::Disputed)?;
        let differing = [differs(ours.captured, captured), differs(ours.refunded, refunded), differs(ours_lost, lost)];
        Ok(differing.into_iter().flatten().next().or(discrepancy))
    }

    /// The total ever captured, without what never arrived.
    pub(super) fn ever_captured(&self) -> Result<Money, MoneyError> {
        self.sum_of(MovementKind::Captured)?.less(self.sum_of(MovementKind::CaptureReversed)?)
    }
}

/// The total ever captured by the gateway's figures, if it gives any.
fn ever_captured(result: &GatewayResult) -> Result<Option<Money>, MoneyError> {
    let Some(captured) = result.captured else { return Ok(None) };
    let gone = [result.refunded, result.disputed].into_iter().flatten();
    gone.into_iter().try_fold(captured, Money::plus).map(Some)
}
