//! What the gateway's result does to the payment.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Aggregate, Context, Step};
use crate::payment::code::Code;
use crate::payment::event::{Discrepancy, Why};
use crate::payment::money::Money;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::operation::{Action, AnswerKind, State};
use crate::payment::outcome::{GatewayResult, Trouble, Verdict};
use crate::payment::status::{Cause, Status};

/// `extra_data` is kept up to this size, in bytes of JSON, so that every event fits.
pub const EXTRA_DATA_MAX: usize = 32 * 1024;

impl Aggregate {
    /// Applies the gateway's own result of an open operation.
    pub(super) fn apply(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let (Some(action), Some(payment)) = (self.operation(id).and_then(|row| row.action()), &self.payment) else {
            return Step::Settled;
        };
        let foreign = [result.amount, result.captured, result.refunded].into_iter().flatten();
        let mut foreign = foreign.filter(|amount| amount.currency() != payment.currency());
        if let Some(amount) = foreign.next() {
            return self.mismatch(id, format!("the gateway answered in {}", amount.currency()), context);
        }
        match &result.verdict {
            Verdict::Approved | Verdict::Authorized => self.approve(id, action, result, context),
            Verdict::CustomerMustAct { redirect_url } if action == Action::Process => {
                let redirect_url = redirect_url.clone();
                self.customer_must_act(id, redirect_url, result, context)
            }
            Verdict::Pending | Verdict::CustomerMustAct { .. } => self.pend(id, action, result, context),
            Verdict::Declined(_) => self.decline(id, action, result, context),
        }
    }

    /// An answer that cannot be what was asked is applied to nothing: the outcome is unknown, and a person must look.
    fn mismatch(&mut self, id: Uuid, message: String, context: Context<'_>) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.exposure = crate::payment::outcome::Exposure::Exposed;
            operation.lookup_only = true;
            operation.state = State::Unknown;
            operation.lease = None;
            operation.due_at = None;
            operation.last_code = Some(Code::Mismatch);
            operation.last_message.clone_from(&message);
            operation.escalated = true;
        }
        self.tell_delayed(id, Code::Mismatch, &message, context.now);
        Step::Stored
    }

    fn approve(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let asked = operation.amount();
        let capture = operation.request.as_ref().is_some_and(|request| request.capture);
        let capture = capture && result.verdict != Verdict::Authorized;
        let amount = result.amount.or(asked);
        if let (Some(amount), true) = (amount, action != Action::Cancel)
            && amount.is_zero()
        {
            return self.mismatch(id, "the gateway approved a sum of nothing".to_owned(), context);
        }
        let (movement, status, cause) = match action {
            Action::Process if capture => (Some(MovementKind::Captured), Status::Confirmed, Cause::Process),
            Action::Process => (Some(MovementKind::Authorized), Status::Preauth, Cause::Process),
            Action::Capture => (Some(MovementKind::Captured), Status::Confirmed, Cause::Capture),
            Action::Release => (Some(MovementKind::Voided), Status::Refunded, Cause::Release),
            Action::Refund => (Some(MovementKind::Refunded), Status::Refunded, Cause::Refund),
            Action::Cancel => (None, Status::Cancelled, Cause::Cancel),
        };
        if let (Some(kind), Some(amount)) = (movement, amount) {
            let movement = Movement { kind, reference: id.to_string(), amount, operation: Some(id) };
            if let Err(error) = self.record(movement) {
                return self.mismatch(id, format!("the gateway's amount {error}"), context);
            }
        }
        let why = Why { discrepancy: discrepancy(asked, amount), ..self.merge(&result) };
        self.reach(status, cause);
        if action == Action::Cancel {
            self.close_pending_process(context);
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    /// Moves the status as far as the money allows: a refund ends the payment only when nothing is left.
    fn reach(&mut self, status: Status, cause: Cause) {
        let left = self.payment.as_ref().is_some_and(|payment| !payment.amounts.captured.is_zero());
        if cause == Cause::Refund && left {
            return;
        }
        // Money that moved is a proof as well: a process that was answered late still takes its payment out of its end.
        if !self.set_status(status, cause) {
            self.set_status(status, Cause::Proof);
        }
    }

    fn customer_must_act(
        &mut self,
        id: Uuid,
        redirect_url: String,
        result: GatewayResult,
        context: Context<'_>,
    ) -> Step {
        let why = self.merge(&result);
        let moved = self.set_status(Status::Input, Cause::Process);
        if let Some(payment) = &mut self.payment
            && payment.redirect_url.as_deref() != Some(redirect_url.as_str())
        {
            payment.redirect_url = Some(redirect_url);
            if !moved {
                self.changed.push("redirect_url");
            }
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    /// The gateway accepted, and its result will come: the turn ends, the operation stays open and is looked up.
    fn pend(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let why = self.merge(&result);
        if action == Action::Process {
            self.set_status(Status::Waiting, Cause::Process);
        }
        let looked_up = context.rules.contract.lookup != crate::payment::contract::Lookup::None;
        let told_before = self.operation(id).is_some_and(|operation| operation.state == State::Pending);
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Pending;
            operation.exposure = crate::payment::outcome::Exposure::Exposed;
            operation.lease = None;
            operation.due_at = looked_up.then(|| operation.next_look_up(context));
        }
        if let Some(change) = self.payment_event(&why, context.now) {
            self.tell(id, change, false, context.now);
        }
        if !told_before {
            self.tell_delayed(id, Code::Pending, "the gateway accepted it; its result is awaited", context.now);
        }
        self.end_turn(id, context.now);
        Step::Stored
    }

    fn decline(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let why = Why { code: Some(Code::Declined), ..self.merge(&result) };
        if action == Action::Process {
            self.set_status(Status::Rejected, Cause::Process);
        }
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// A process that was accepted and is cancelled before its result came has its answer too.
    fn close_pending_process(&mut self, context: Context<'_>) {
        let pending: Vec<Uuid> = self
            .operations()
            .filter(|operation| operation.state == State::Pending && operation.action() == Some(Action::Process))
            .map(|operation| operation.id)
            .collect();
        for id in pending {
            let (status_before, changed) = (self.status_before.take(), std::mem::take(&mut self.changed));
            let message = "the payment was cancelled before its result came".to_owned();
            let why = Why { code: Some(Code::Cancelled), message, ..Why::default() };
            self.answer(id, AnswerKind::Failed, why, context.now);
            (self.status_before, self.changed) = (status_before, changed);
        }
    }

    /// A result that comes after its operation was settled: what it says of money still counts, once.
    pub(super) fn late_result(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let (Some(action), Some(payment), Verdict::Approved | Verdict::Authorized) =
            (operation.action(), &self.payment, &result.verdict)
        else {
            return Step::Settled;
        };
        let asked = operation.amount();
        let capture = operation.request.as_ref().is_some_and(|request| request.capture);
        let capture = capture && result.verdict != Verdict::Authorized;
        let amount = result.amount.or(asked);
        let (kind, status) = match action {
            Action::Process if !capture => (MovementKind::Authorized, Status::Preauth),
            Action::Process | Action::Capture => (MovementKind::Captured, Status::Confirmed),
            Action::Refund => (MovementKind::Refunded, Status::Refunded),
            Action::Release | Action::Cancel => return Step::Settled,
        };
        let Some(amount) = amount.filter(|amount| !amount.is_zero() && amount.currency() == payment.currency()) else {
            return Step::Settled;
        };
        let movement = Movement { kind, reference: id.to_string(), amount, operation: Some(id) };
        if !matches!(self.record(movement), Ok(true)) {
            return Step::Settled;
        }
        let why = Why { discrepancy: discrepancy(asked, Some(amount)), ..self.merge(&result) };
        let left = self.payment.as_ref().is_some_and(|payment| !payment.amounts.captured.is_zero());
        if action != Action::Refund || !left {
            self.set_status(status, Cause::Proof);
        }
        if let Some(change) = self.payment_event(&why, context.now) {
            self.tell(id, change, false, context.now);
        }
        Step::Settled
    }

    /// Takes over what the gateway tells beside its verdict.
    pub(super) fn merge(&mut self, result: &GatewayResult) -> Why {
        if let Some(payment) = &mut self.payment {
            payment.message.clone_from(&result.message);
            if let Some(transaction_id) = &result.transaction_id
                && *transaction_id != payment.transaction_id
            {
                payment.transaction_id.clone_from(transaction_id);
                self.changed.push("transaction_id");
            }
            if let Some((status, message)) = &result.fraud
                && (*status, message.as_str()) != (payment.fraud_status, payment.fraud_message.as_str())
            {
                payment.fraud_status = *status;
                payment.fraud_message.clone_from(message);
                self.changed.push("fraud_status");
            }
            if merge_bounded(&mut payment.extra_data, &result.extra_data) {
                self.changed.push("extra_data");
            }
        }
        Why { code: None, message: result.message.clone(), gateway_code: result.code.clone(), discrepancy: None }
    }

    /// Fails an operation that a person or the gateway says was never acted on.
    pub(super) fn fail_as(&mut self, id: Uuid, trouble: Trouble, context: Context<'_>) -> Step {
        if self.operation(id).is_some_and(|operation| operation.is_process()) {
            if let Some(payment) = &mut self.payment {
                payment.message.clone_from(&trouble.message);
            }
            self.set_status(Status::Error, Cause::Process);
        }
        let why = Why { code: Some(trouble.code), message: trouble.message, ..Why::default() };
        self.answer(id, AnswerKind::Failed, why, context.now)
    }
}

fn discrepancy(asked: Option<Money>, answered: Option<Money>) -> Option<Discrepancy> {
    match (asked, answered) {
        (Some(asked), Some(answered)) if asked != answered => Some(Discrepancy { asked, answered }),
        _ => None,
    }
}

/// Merges what is new into what is kept, where the sum stays within its bound; tells whether anything differs.
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
