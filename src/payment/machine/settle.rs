//! What the gateway's result does to the payment.

use serde_json::{Map, Value};
use uuid::Uuid;

use super::{Aggregate, Context, Step};
use crate::payment::code::Code;
use crate::payment::contract::Lookup;
use crate::payment::event::{Discrepancy, Why};
use crate::payment::model::Payment;
use crate::payment::money::{Currency, Money, MoneyError};
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::operation::{Action, AnswerKind, Operation, State};
use crate::payment::outcome::{Exposure, GatewayResult, NotCharged, Trouble, Verdict};
use crate::payment::status::{Cause, Status};

/// `extra_data` is kept up to this size, in bytes of JSON, so that every event fits.
pub const EXTRA_DATA_MAX: usize = 32 * 1024;

/// What an approved operation means for its payment.
struct Effect {
    movement: Option<Movement>,
    discrepancy: Option<Discrepancy>,
    status: Status,
    cause: Cause,
}

impl Aggregate {
    /// Applies the gateway's own result of an open operation.
    pub(super) fn apply(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let (Some(action), Some(payment)) = (self.operation(id).and_then(Operation::action), &self.payment) else {
            return Step::Settled;
        };
        if let Some(currency) = foreign_currency(payment, &result) {
            return self.mismatch(id, format!("the gateway answered in {currency}"), context);
        }
        match &result.verdict {
            Verdict::Approved | Verdict::Authorized => self.approve(id, result, context),
            Verdict::CustomerMustAct { redirect_url } if action == Action::Process => {
                let redirect_url = redirect_url.clone();
                self.customer_must_act(id, redirect_url, result, context)
            }
            Verdict::Pending | Verdict::CustomerMustAct { .. } => self.pend(id, action, result, context),
            Verdict::Declined(_) => self.decline(id, action, result, context),
        }
    }

    /// An answer that cannot be what was asked is applied to nothing: the outcome is unknown, and a person must look.
    pub(super) fn mismatch(&mut self, id: Uuid, message: String, context: Context<'_>) -> Step {
        let trouble = Trouble::new(Code::Mismatch, message);
        if let Some(operation) = self.become_unknown(id, &trouble) {
            operation.exposure = Exposure::Exposed;
            operation.acted_on = true;
            operation.lookup_only = true;
            operation.escalated = true;
        }
        self.tell_delayed(id, Code::Mismatch, &trouble.message, context.now);
        Step::Stored
    }

    fn approve(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let effect = match self.effect(id, &result) {
            Ok(effect) => effect,
            Err(message) => return self.mismatch(id, message, context),
        };
        if let Some(Err(error)) = effect.movement.map(|movement| self.record(movement)) {
            return self.mismatch(id, format!("the gateway's amount {error}"), context);
        }
        let why = Why { discrepancy: effect.discrepancy, ..self.merge(&result, effect.cause == Cause::Process) };
        // Money that moved is a proof as well: a process that was answered late still takes its payment out of its end.
        if self.allows(effect.status) && !self.set_status(effect.status, effect.cause, &why.message) {
            self.set_status(effect.status, Cause::Proof, &why.message);
        }
        if effect.cause == Cause::Cancel {
            self.close_pending_process(context);
        }
        self.answer(id, AnswerKind::Succeeded, why, context.now)
    }

    /// A result that comes after its operation was settled: what it says of money still counts, once.
    pub(super) fn late_result(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let foreign = self.payment.as_ref().is_none_or(|payment| foreign_currency(payment, &result).is_some());
        if foreign || !result.approves() {
            return Step::Settled;
        }
        let Ok(effect) = self.effect(id, &result) else {
            return Step::Settled;
        };
        // A truth that was learnt before changes nothing, whether of the operation or of the whole payment.
        let is_new = |machine: &mut Aggregate, movement: Movement| {
            !machine.match_movement(&movement) && matches!(machine.record(movement), Ok(true))
        };
        let movement = effect.movement.map(|movement| self.carried_on(id, movement, &result));
        if movement.is_some_and(|movement| !is_new(self, movement)) {
            return Step::Settled;
        }
        let why = Why { discrepancy: effect.discrepancy, ..self.merge(&result, effect.cause == Cause::Process) };
        if self.allows(effect.status) {
            self.set_status(effect.status, Cause::Proof, &why.message);
        }
        self.tell_change(id, &why, context.now);
        Step::Settled
    }

    /// Whose money it is that a settled operation is told to have moved. A process that ended with the customer's turn has
    /// none of its own: another went on with its transaction, and told of the money already, or will. By the gateway's id
    /// it is known to be the same transaction; by none it is taken for it.
    fn carried_on(&self, id: Uuid, movement: Movement, result: &GatewayResult) -> Movement {
        let process = self.operation(id).filter(|operation| operation.is_process());
        let was_input = process.and_then(|operation| operation.answer.as_ref()).map(|answer| answer.kind)
            == Some(AnswerKind::Succeeded);
        let (Some(payment), true) = (&self.payment, was_input) else { return movement };
        let is_other = result.transaction_id.as_ref().is_some_and(|other| *other != payment.transaction_id);
        let told = self.movements.iter().map(|tracked| &tracked.row).filter(|other| other.kind == movement.kind);
        let mut told = told.filter_map(|other| other.operation);
        if is_other || told.clone().any(|teller| teller == id) {
            return movement;
        }
        match told.next().or_else(|| self.other_at_gateway(id, &[Action::Process]).map(|other| other.id)) {
            Some(heir) => Movement { reference: heir.to_string(), operation: Some(heir), ..movement },
            None => movement,
        }
    }

    /// What the gateway's approval means; an error where it cannot be the answer to what was asked.
    fn effect(&self, id: Uuid, result: &GatewayResult) -> Result<Effect, String> {
        let unfit = || "the gateway's answer does not fit what was asked".to_owned();
        let operation = self.operation(id).ok_or_else(unfit)?;
        let action = operation.action().ok_or_else(unfit)?;
        let asked = operation.amount();
        let captures = operation.request.as_ref().is_some_and(|request| request.capture);
        let authorized = result.verdict == Verdict::Authorized;
        if authorized && action != Action::Process {
            return Err(format!("the gateway says that money is held, and was asked for a {action}"));
        }
        let (kind, status, cause) = match action {
            Action::Process if captures && !authorized => (MovementKind::Captured, Status::Confirmed, Cause::Process),
            Action::Process => (MovementKind::Authorized, Status::Preauth, Cause::Process),
            Action::Capture => (MovementKind::Captured, Status::Confirmed, Cause::Capture),
            Action::Release => (MovementKind::Voided, Status::Refunded, Cause::Release),
            Action::Refund => (MovementKind::Refunded, Status::Refunded, Cause::Refund),
            Action::Cancel => {
                return Ok(Effect {
                    movement: None,
                    discrepancy: None,
                    status: Status::Cancelled,
                    cause: Cause::Cancel,
                });
            }
        };
        let amount = result.amount.or(asked).ok_or_else(unfit)?;
        if amount.is_zero() {
            return Err("the gateway approved a sum of nothing".to_owned());
        }
        let discrepancy = match asked {
            Some(asked) if asked != amount => Some(Discrepancy { asked, answered: amount }),
            _ => self.beyond(kind, amount).map_err(|error| format!("the gateway's amount {error}"))?,
        };
        let movement = Movement { kind, reference: id.to_string(), amount, operation: Some(id) };
        Ok(Effect { movement: Some(movement), discrepancy, status, cause })
    }

    /// Whether a movement goes beyond its limit, which binds commands and not the truth: it is counted and told.
    pub(super) fn beyond(&self, kind: MovementKind, amount: Money) -> Result<Option<Discrepancy>, MoneyError> {
        let Some(payment) = &self.payment else { return Ok(None) };
        let amounts = payment.amounts;
        let (limit, answered) = match kind {
            MovementKind::Authorized => (payment.order.total, amounts.authorized.plus(amount)?),
            MovementKind::Captured => (payment.order.total, self.sum_of(MovementKind::Captured)?.plus(amount)?),
            MovementKind::Refunded => (amounts.captured, amount),
            MovementKind::RefundReversed | MovementKind::Voided | MovementKind::Disputed => return Ok(None),
        };
        Ok(answered.exceeds(limit)?.then_some(Discrepancy { asked: limit, answered }))
    }

    /// Whether the money allows the status: a payment is refunded only when nothing is left.
    fn allows(&self, status: Status) -> bool {
        let left = self.payment.as_ref().is_some_and(|payment| !payment.amounts.captured.is_zero());
        status != Status::Refunded || !left
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

    /// The gateway accepted, and its result will come: the turn ends, the operation stays open and is looked up.
    fn pend(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let why = self.merge(&result, action == Action::Process);
        if action == Action::Process {
            self.set_status(Status::Waiting, Cause::Process, &why.message);
        }
        let can_be_asked = context.rules.contract.lookup != Lookup::None;
        let mut told_before = false;
        if let Some(operation) = self.operation_mut(id) {
            told_before = operation.state == State::Pending;
            operation.state = State::Pending;
            operation.exposure = Exposure::Exposed;
            operation.acted_on = true;
            operation.lease = None;
            operation.due_at = can_be_asked.then(|| operation.next_look_up(None, context));
        }
        self.tell_change(id, &why, context.now);
        if !told_before {
            self.tell_delayed(id, Code::Pending, "the gateway accepted it; its result is awaited", context.now);
        }
        if !can_be_asked {
            self.escalate(id, "the gateway cannot be asked for the result: a person must resolve it", context);
        }
        self.end_turn(id, context.now);
        Step::Stored
    }

    fn decline(&mut self, id: Uuid, action: Action, result: GatewayResult, context: Context<'_>) -> Step {
        let why = Why { code: Some(Code::Declined), ..self.merge(&result, action == Action::Process) };
        if action == Action::Process {
            self.set_status(Status::Rejected, Cause::Process, &why.message);
        }
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// A process that was accepted and is cancelled before its result came has its answer too.
    fn close_pending_process(&mut self, context: Context<'_>) {
        let pending: Vec<Uuid> = self
            .operations()
            .filter(|operation| operation.state == State::Pending && operation.is_process())
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

    /// Ends an operation of which it is proved that nothing was charged.
    pub(super) fn fail(&mut self, id: Uuid, trouble: Trouble, _proof: NotCharged, context: Context<'_>) -> Step {
        // A process from `input` went on with a transaction that began earlier. That this request did nothing does not
        // prove the transaction closed: the customer may still act, so the payment stays where it is.
        let goes_on = self.payment.as_ref().is_some_and(|payment| payment.status == Status::Input);
        if self.operation(id).is_some_and(Operation::is_process) && !goes_on {
            self.set_message(&trouble.message);
            self.set_status(Status::Error, Cause::Process, &trouble.message);
        }
        self.give_up_question(id, trouble, context)
    }

    /// Ends a question that was not answered; nothing follows from that for the payment.
    pub(super) fn give_up_question(&mut self, id: Uuid, trouble: Trouble, context: Context<'_>) -> Step {
        let why = Why {
            code: Some(trouble.code),
            message: trouble.message,
            gateway_code: trouble.gateway_code,
            discrepancy: None,
        };
        self.answer(id, AnswerKind::Failed, why, context.now)
    }

    /// Takes over what the gateway tells beside its verdict. The payment's transaction is the one that its process began: a
    /// refund's or a capture's own id is not the payment's.
    pub(super) fn merge(&mut self, result: &GatewayResult, is_the_payments: bool) -> Why {
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
        Why { code: None, message: result.message.clone(), gateway_code: result.code.clone(), discrepancy: None }
    }
}

/// Another currency than the payment's, in which the gateway answered, with a sum or without.
pub(super) fn foreign_currency(payment: &Payment, result: &GatewayResult) -> Option<Currency> {
    let sums = [result.amount, result.captured, result.refunded, result.disputed].into_iter().flatten();
    let mut currencies = sums.map(Money::currency).chain(result.currency);
    currencies.find(|currency| *currency != payment.currency())
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
