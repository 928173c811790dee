//! Applies the gateway's result to the payment.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::book::{Booked, ReportContext};
use super::{Aggregate, Context, Step};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::contract::Lookup;
use crate::payment::event::{Discrepancy, Reason};
use crate::payment::model::Payment;
use crate::payment::money::{Currency, Money, MoneyError};
use crate::payment::movement::MovementKind;
use crate::payment::observation::Asked;
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{GatewayError, GatewayResult, NotCharged, Verdict};
use crate::payment::status::{Cause, Status};
use crate::payment::transaction::{Transaction, TransactionKind, TransactionState};

/// `extra_data` is kept up to this size, in bytes of JSON, so that every event fits.
pub const EXTRA_DATA_MAX: usize = 32 * 1024;

/// What an approved operation means for its payment.
struct Approval {
    discrepancy: Option<Discrepancy>,
    /// The payment's new status; `None` if it stays as it is.
    status: Option<Status>,
    cause: Cause,
}

impl Aggregate {
    /// Applies the gateway's own result to an open operation.
    pub(super) fn apply(&mut self, id: Uuid, result: GatewayResult, asked: Asked, context: Context<'_>) -> Step {
        let (Some(action), Some(payment)) = (self.operation(id).and_then(Operation::action), &self.payment) else {
            return Step::Settled;
        };
        if let Some(currency) = foreign_currency(payment, &result) {
            return self.mismatch(id, format!("the gateway answered in {currency}"), context);
        }
        match &result.verdict {
            Verdict::Approved | Verdict::Authorized => self.approve(id, action, result, asked, context),
            Verdict::CustomerMustAct { redirect_url } if action == Action::Process => {
                let redirect_url = redirect_url.clone();
                self.customer_must_act(id, redirect_url, result, context)
            }
            Verdict::Ready if action == Action::Process => self.ready(id, result, context),
            Verdict::Pending | Verdict::Ready | Verdict::CustomerMustAct { .. } => {
                self.pend(id, action, result, context)
            }
            Verdict::Declined(_) => self.decline(id, action, result, asked, context),
        }
    }

    /// Handles an answer that cannot belong to the request: nothing is applied, the outcome is unknown, and a person
    /// must look.
    pub(super) fn mismatch(&mut self, id: Uuid, message: String, context: Context<'_>) -> Step {
        let error = GatewayError::new(Code::Mismatch, message);
        if let Some(operation) = self.become_unknown(id, &error) {
            operation.sent.note_acted_on();
            operation.sent.lookup_only = true;
            operation.escalated = true;
        }
        self.emit_delayed(id, Code::Mismatch, &error.message, context.now);
        Step::Stored
    }

    fn approve(&mut self, id: Uuid, action: Action, result: GatewayResult, asked: Asked, context: Context<'_>) -> Step {
        if self.contradicts_money(action) {
            return self.ask_about_contradiction(id, action, context);
        }
        if let Err(message) = self.check_fits(id, action, &result) {
            return self.mismatch(id, message, context);
        }
        let booked = match self.book_answer(id, &result, asked) {
            Ok(booked) => booked,
            Err(message) => return self.mismatch(id, message, context),
        };
        let approval = self.approval(id, action, &result);
        if let Approval { status: Some(_), cause: Cause::Capture, .. } = approval
            && let Err(error) = self.let_the_rest_go(id, result.transaction_id.as_deref())
        {
            return self.mismatch(id, format!("what the gateway holds {error}"), context);
        }
        let is_the_payments = action == Action::Process && !booked.is_double_charge;
        let why = self.merge(&result, is_the_payments);
        let why = booked.added_to(Reason { discrepancy: approval.discrepancy, ..why });
        // Money that moved is proof as well: a process that was answered late still takes its payment out of a final
        // status.
        if let Some(status) = approval.status.filter(|status| self.allows(*status))
            && !self.set_status(status, approval.cause, &why.message)
        {
            self.set_status(status, Cause::Proof, &why.message);
        }
        if action == Action::Cancel {
            self.close_pending_process(context);
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    /// Books the money in the answer to an open operation.
    fn book_answer(&mut self, id: Uuid, result: &GatewayResult, asked: Asked) -> Result<Booked, String> {
        let report = ReportContext { reporter: id, is_current: self.is_current(asked), adopts: false };
        self.book_all(&result.transactions, report).map_err(|error| format!("the gateway's amount {error}"))
    }

    /// Applies a result that comes after its operation was settled: what it says about money still counts, once.
    pub(super) fn late_result(&mut self, id: Uuid, result: GatewayResult, asked: Asked, context: Context<'_>) -> Step {
        let foreign = self.payment.as_ref().is_none_or(|payment| foreign_currency(payment, &result).is_some());
        let Some(action) = self.operation(id).and_then(Operation::action).filter(|_| !foreign) else {
            return Step::Settled;
        };
        if result.approves() && action != Action::Cancel && self.check_fits(id, action, &result).is_err() {
            return Step::Settled;
        }
        if result.verdict == Verdict::Ready {
            self.go_on_alone(context);
            return Step::Settled;
        }
        // What is already known changes nothing, whether it was learnt from the operation or from the whole payment.
        let report = ReportContext { reporter: id, is_current: self.is_current(asked), adopts: true };
        let Ok(booked) = self.book_all(&result.transactions, report) else { return Step::Settled };
        let cancelled = result.approves() && action == Action::Cancel;
        if !booked.is_new && !cancelled {
            return Step::Settled;
        }
        let is_the_payments = action == Action::Process && !booked.is_double_charge;
        let why = booked.added_to(self.merge(&result, is_the_payments));
        if cancelled {
            self.set_status(Status::Cancelled, Cause::Proof, &why.message);
        } else {
            self.follow_money(&why, context);
        }
        self.emit_change(id, &why, context.now);
        Step::Settled
    }

    /// Whether a process was answered with the customer's turn.
    pub(super) fn was_customers_turn(&self, id: Uuid) -> bool {
        let process = self.operation(id).filter(|operation| operation.is_process());
        process.and_then(|operation| operation.answer.as_ref()).map(|answer| answer.kind) == Some(AnswerKind::Succeeded)
    }

    /// Checks that an approval can be the answer to the request: it says what was moved, of a kind that the action
    /// moves.
    fn check_fits(&self, id: Uuid, action: Action, result: &GatewayResult) -> Result<(), String> {
        if action == Action::Cancel {
            return Ok(());
        }
        if result.verdict == Verdict::Authorized && action != Action::Process {
            return Err(format!("the gateway authorized money instead of carrying out a {action}"));
        }
        let moved: Vec<&Transaction> = result.transactions.iter().filter(|it| it.is_done_for(id)).collect();
        if moved.iter().any(|transaction| transaction.amount.is_zero()) {
            return Err("the gateway approved an amount of zero".to_owned());
        }
        let fits = |transaction: &&Transaction| is_asked_for(transaction.kind, action);
        // If no money is its own, somebody else has done what it was to do: the payment is paid, or what was held is
        // gone.
        let is_done = |transaction: &Transaction| {
            transaction.state == TransactionState::Done && is_asked_for(transaction.kind, action)
        };
        let may_be_others = matches!(action, Action::Process | Action::Release);
        let is_covered = may_be_others && result.transactions.iter().any(is_done);
        if moved.iter().any(fits) || moved.is_empty() && is_covered {
            return Ok(());
        }
        Err("the gateway's answer does not match the request".to_owned())
    }

    /// What the gateway's approval means, once its money is booked.
    fn approval(&self, id: Uuid, action: Action, result: &GatewayResult) -> Approval {
        let of_kind = |kind| result.transactions.iter().any(|it| it.kind == kind && it.is_done_for(id));
        let captured = of_kind(TransactionKind::Capture);
        let is_preauth = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Preauth);
        let (status, cause) = match action {
            Action::Process
                if captured || !of_kind(TransactionKind::Authorization) && !self.holds_nothing_captured() =>
            {
                (Some(Status::Confirmed), Cause::Process)
            }
            Action::Process => (Some(Status::Preauth), Cause::Process),
            Action::Capture => (self.is_last_capture(id).then_some(Status::Confirmed), Cause::Capture),
            Action::Release if !self.holds_nothing_captured() => (Some(Status::Confirmed), Cause::Release),
            Action::Release => (Some(Status::Refunded), Cause::Release),
            // While money is held, the payment can still be captured.
            Action::Refund => ((!is_preauth).then_some(Status::Refunded), Cause::Refund),
            Action::Cancel => (Some(Status::Cancelled), Cause::Cancel),
        };
        Approval { discrepancy: self.difference(id, result), status, cause }
    }

    fn holds_nothing_captured(&self) -> bool {
        self.payment.as_ref().is_none_or(|payment| payment.amounts.captured.is_zero())
    }

    /// Whether a capture ends the authorization: it is not marked as partial, or nothing is left to capture.
    fn is_last_capture(&self, id: Uuid) -> bool {
        let says_more = self.operation(id).is_some_and(Operation::is_partial_capture);
        let is_left = self.payment.as_ref().is_some_and(|payment| !payment.amounts.capturable.is_zero());
        !(says_more && is_left)
    }

    /// What was requested and what the gateway did, if they differ.
    fn difference(&self, id: Uuid, result: &GatewayResult) -> Option<Discrepancy> {
        let operation = self.operation(id)?;
        let (asked, action) = (operation.amount()?, operation.action()?);
        let own = result.transactions.iter().filter(|it| it.is_done_for(id) && is_asked_for(it.kind, action));
        let mut answered = own.map(|transaction| transaction.amount);
        let first = answered.next()?;
        let answered = answered.try_fold(first, Money::plus).ok()?;
        (asked != answered).then_some(Discrepancy { asked, answered })
    }

    /// Whether a movement exceeds its limit. Limits bind commands, not what happened: it is booked and reported.
    pub(super) fn beyond(&self, kind: MovementKind, amount: Money) -> Result<Option<Discrepancy>, MoneyError> {
        let Some(payment) = &self.payment else { return Ok(None) };
        let amounts = payment.amounts;
        let (limit, answered) = match kind {
            MovementKind::Authorized => {
                let held = amounts.authorized.less(self.sum_of(MovementKind::Voided)?)?;
                (payment.order.total, held.plus(amount)?)
            }
            MovementKind::Captured => (payment.order.total, self.ever_captured()?.plus(amount)?),
            MovementKind::Refunded => (amounts.captured, amount),
            MovementKind::RefundReversed
            | MovementKind::CaptureReversed
            | MovementKind::Voided
            | MovementKind::Disputed => return Ok(None),
        };
        Ok(answered.exceeds(limit)?.then_some(Discrepancy { asked: limit, answered }))
    }

    /// Whether the money allows the status: a payment is refunded only once nothing is left.
    fn allows(&self, status: Status) -> bool {
        status != Status::Refunded || self.holds_nothing_captured()
    }

    fn customer_must_act(
        &mut self,
        id: Uuid,
        redirect_url: Option<String>,
        result: GatewayResult,
        context: Context<'_>,
    ) -> Step {
        let why = self.merge(&result, true);
        let moved = self.set_status(Status::Input, Cause::Process, &why.message);
        if let Some(payment) = &mut self.payment
            && payment.status == Status::Input
            && payment.redirect_url != redirect_url
        {
            payment.redirect_url = redirect_url;
            if !moved {
                self.changed.push("redirect_url");
            }
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    /// The gateway accepted, and its result will come: the turn ends; the operation stays open and is looked up, or
    /// waits for the gateway's proof.
    pub(super) fn pend(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let why = self.merge(&result, action == Action::Process);
        if action == Action::Process {
            self.set_status(Status::Waiting, Cause::Process, &why.message);
        }
        let (mut was_pending, mut is_left_to_a_person) = (false, false);
        if let Some(operation) = self.operation_mut(id) {
            was_pending = operation.state == State::Pending;
            operation.move_to(State::Pending);
            operation.sent.note_acted_on();
            operation.lease = None;
            operation.due_at = match context.rules.contract.lookup {
                Lookup::None => operation.awaits_proof_until(context),
                Lookup::Indicative | Lookup::Authoritative => Some(operation.next_look_up(None, context)),
            };
            is_left_to_a_person = operation.due_at.is_none();
        }
        self.emit_change(id, &why, context.now);
        if !was_pending {
            self.emit_delayed(
                id,
                Code::Pending,
                "the gateway accepted the request; its result is awaited",
                context.now,
            );
        }
        if is_left_to_a_person {
            self.escalate(id, "the gateway does not support look-ups: an operator must resolve it", context);
        }
        self.end_turn(id, context.now);
        Step::Stored
    }

    fn decline(&mut self, id: Uuid, action: Action, result: GatewayResult, asked: Asked, context: Context<'_>) -> Step {
        // Besides the decline, the gateway may report money of other operations.
        let booked = match self.book_answer(id, &result, asked) {
            Ok(booked) => booked,
            Err(message) => return self.mismatch(id, message, context),
        };
        // A declined refund or capture changes nothing but the command, so only its answer reports it.
        let why = if action == Action::Process { self.merge(&result, true) } else { Reason::of(&result) };
        let why = booked.added_to(Reason { code: Some(Code::Declined), ..why });
        if action == Action::Process {
            self.set_status(Status::Rejected, Cause::Process, &why.message);
        }
        if booked.is_new {
            self.follow_money(&why, context);
        }
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// Answers a process that was accepted and is cancelled before its result came.
    pub(super) fn close_pending_process(&mut self, context: Context<'_>) {
        let pending: Vec<Uuid> = self
            .operations()
            .filter(|operation| operation.state == State::Pending && operation.is_process())
            .map(|operation| operation.id)
            .collect();
        for id in pending {
            let (status_before, changed) = (self.status_before.take(), std::mem::take(&mut self.changed));
            let message = "the payment was cancelled before the result arrived".to_owned();
            let why = Reason { code: Some(Code::Cancelled), message, ..Reason::default() };
            self.answer(id, AnswerKind::Failed, why, context.now);
            (self.status_before, self.changed) = (status_before, changed);
        }
    }

    /// Ends an operation that is proven to have charged nothing.
    pub(super) fn fail(&mut self, id: Uuid, error: GatewayError, _proof: NotCharged, context: Context<'_>) -> Step {
        // A process from `input` continued a transaction that started earlier. That this request did nothing does not
        // prove the transaction closed: the customer may still act, so the payment stays where it is.
        let goes_on = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Input);
        if self.operation(id).is_some_and(Operation::is_process) && !goes_on {
            self.set_message(&error.message);
            self.set_status(Status::Error, Cause::Process, &error.message);
        }
        self.give_up_question(id, error, context)
    }

    /// Ends a question that was not answered; the payment stays as it is.
    pub(super) fn give_up_question(&mut self, id: Uuid, error: GatewayError, context: Context<'_>) -> Step {
        let why = Reason {
            code: Some(error.code),
            message: error.message,
            gateway_code: error.gateway_code,
            discrepancy: None,
        };
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// Takes over what the gateway says besides its verdict. The payment's transaction is the one that its process
    /// started: the id of a refund or a capture is not the payment's.
    pub(super) fn merge(&mut self, result: &GatewayResult, is_the_payments: bool) -> Reason {
        self.set_message(&result.message);
        if let Some(payment) = &mut self.payment {
            if let Some(transaction_id) = result.transaction_id.as_ref().filter(|_| is_the_payments)
                && *transaction_id != payment.transaction_id
            {
                payment.transaction_id.clone_from(transaction_id);
                self.changed.push("transaction_id");
            }
            if let Some((status, message)) = &result.fraud {
                if *status != payment.fraud_status {
                    payment.fraud_status = *status;
                    self.changed.push("fraud_status");
                }
                if *message != payment.fraud_message {
                    payment.fraud_message.clone_from(message);
                    self.changed.push("fraud_message");
                }
            }
            if merge_bounded(&mut payment.extra_data, &result.extra_data) {
                self.changed.push("extra_data");
            }
        }
        Reason::of(result)
    }
}

/// Whether a transaction of this kind is what an action asks for; for a process, whether it captures at once or not.
pub(super) fn is_asked_for(kind: TransactionKind, action: Action) -> bool {
    [false, true].into_iter().any(|captures| action.moves(captures) == Some(kind))
}

/// A currency other than the payment's that the gateway answered in, with a sum or without.
pub(super) fn foreign_currency(payment: &Payment, result: &GatewayResult) -> Option<Currency> {
    let moved = result.transactions.iter().map(|transaction| transaction.amount);
    let sums = [result.total, result.captured, result.refunded, result.disputed].into_iter().flatten();
    let mut currencies = moved.chain(sums).map(Money::currency).chain(result.currency);
    currencies.find(|currency| *currency != payment.currency())
}

/// Merges new entries into those kept, if the result stays within its bound. Returns whether anything changed.
fn merge_bounded(kept: &mut Map<String, Value>, new: &Map<String, Value>) -> bool {
    if new.iter().all(|(name, value)| kept.get(name) == Some(value)) {
        return false;
    }
    let mut merged = kept.clone();
    merged.extend(new.iter().map(|(name, value)| (name.clone(), value.clone())));
    let size = serde_json::to_string(&merged).map_or(usize::MAX, |text| text.len());
    if size > EXTRA_DATA_MAX {
        return kept.insert("truncated".to_owned(), Value::Bool(true)) != Some(Value::Bool(true));
    }
    *kept = merged;
    true
}
