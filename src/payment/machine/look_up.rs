//! Resolves unknown outcomes, by look-ups and `payment.resolve`. "Not found" proves something only if the gateway
//! declares its look-up authoritative, and was asked after its settle window.

use uuid::Uuid;

use super::book::ReportContext;
use super::{Aggregate, Context, Step, TAKEOVERS_MAX, count_up, later};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{AmountText, Resolution, Resolve};
use crate::payment::contract::Lookup;
use crate::payment::event::Reason;
use crate::payment::money::Money;
use crate::payment::observation::{Asked, Observation};
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{Decline, Found, GatewayError, GatewayResult, NotCharged, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionState};

impl Aggregate {
    /// Asks the gateway what became of an operation whose outcome is unknown or pending, or has it undone.
    pub(super) fn look_up(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let contract = &context.rules.contract;
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        // An expired lease was left by a worker that was lost while it asked.
        if operation.lease.take().is_some() {
            count_up(&mut operation.counts.takeovers);
        }
        let (is_parked, undoes) = (operation.counts.takeovers >= TAKEOVERS_MAX, operation.can_be_undone(context));
        if contract.lookup == Lookup::None && !undoes || is_parked {
            match operation.awaits_proof_until(context).filter(|_| !is_parked) {
                Some(until) => operation.due_at = Some(until),
                None => self.escalate(id, "the outcome cannot be looked up: an operator must resolve it", context),
            }
            return Step::Stored;
        }
        let settled_at = operation.sent.last_at.map(|sent| later(sent, contract.settle_window));
        if let Some(settled_at) = settled_at.filter(|time| *time > context.now && operation.state == State::Unknown) {
            operation.due_at = Some(settled_at);
            return Step::Stored;
        }
        // A look-up only asks; an undo acts.
        if let Some(paused_for) = context.paused_for.filter(|_| undoes) {
            operation.due_at = Some(later(context.now, paused_for));
            return Step::Stored;
        }
        operation.lease_for_call(context);
        operation.due_at = operation.lease.map(|lease| lease.until);
        if undoes {
            operation.begin_undo();
            return Step::Undo(id);
        }
        let target = (!operation.contradicts()).then_some(id);
        Step::LookUp { operation: id, target }
    }

    /// Applies what a look-up found, or what was undone. This may lead to another question ([`Step::LookUp`]).
    pub fn found(
        &mut self,
        id: Uuid,
        target: Option<Uuid>,
        observation: Observation<Found>,
        tries: u32,
        context: Context<'_>,
    ) -> Step {
        self.apply_from_lease_owner(id, context, |it| it.take_in_found(id, target, observation, tries, context))
    }

    fn take_in_found(
        &mut self,
        id: Uuid,
        target: Option<Uuid>,
        observation: Observation<Found>,
        tries: u32,
        context: Context<'_>,
    ) -> Step {
        if target == Some(id) {
            return self.found_of_itself(id, observation, context);
        }
        let Some(asking) = self.operation(id) else {
            return Step::Settled;
        };
        if asking.action().is_some() {
            return self.found_of_contradiction(id, observation, context);
        }
        let Observation { asked, says: found } = observation;
        let asks = asking.is_open();
        // If this worker lost its lease, another one may have a newer answer. Of an old answer only what the gateway
        // says about an operation counts, never what it does not say.
        let in_charge = asking.is_called_by(context.worker);
        let found = match target {
            Some(target) => self.unconfirmed(target, found),
            None => found,
        };
        match (target, found) {
            // The operation is settled with its own command as the cause; the sync only asked.
            (Some(target), Found::Result(result)) if self.operation(target).is_some_and(Operation::is_open) => {
                self.apply(target, *result, asked, context);
            }
            (Some(target), Found::Result(result)) => {
                self.late_result(target, *result, asked, context);
            }
            (_, Found::OfOthers(transactions) | Found::Undone(transactions)) => {
                self.book_of_others(id, &transactions, asked, context);
            }
            _ if !in_charge => {}
            (_, Found::Failed(error)) => return self.ask_later(id, error, tries, context),
            (None, found) => return self.found_of_payment(id, asked.answered(found), context),
            (Some(target), Found::Nothing) => {
                self.not_found(target, asked, context);
            }
        }
        match (in_charge, asks) {
            (true, _) if self.has_more_to_ask(id, target) => self.ask_for_the_rest(id, context),
            (true, _) => self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now),
            (false, true) => Step::Stored,
            (false, false) => Step::Settled,
        }
    }

    /// Applies a look-up of an operation whose outcome is unknown or pending.
    fn found_of_itself(&mut self, id: Uuid, observation: Observation<Found>, context: Context<'_>) -> Step {
        let Observation { asked, says: found } = observation;
        let found = self.unconfirmed(id, found);
        let Some(operation) = self.operation(id) else {
            return Step::Settled;
        };
        let is_open = operation.is_open();
        // What the gateway says always counts; what it does not say counts only for the worker in charge: while it has
        // the lease, nobody else sends or asks.
        let asks = matches!(operation.state, State::Unknown | State::Pending);
        let in_charge = asks && operation.is_leased_by(context.worker);
        if in_charge && let Some(operation) = self.operation_mut(id) {
            operation.end_look_up();
        }
        match found {
            // The result is about one key, and the worker in charge asks about the one that counts.
            Found::Result(_) if is_open && !in_charge && self.is_being_undone(id) => Step::Stored,
            Found::Result(result) if is_open => self.apply(id, *result, asked, context),
            Found::Result(result) => self.late_result(id, *result, asked, context),
            Found::OfOthers(transactions) => {
                self.book_of_others(id, &transactions, asked, context);
                let nothing = GatewayError::new(Code::Unreachable, "the gateway reported only other operations");
                match (is_open, in_charge) {
                    (true, true) => self.look_up_again(id, &nothing, false, context),
                    (true, false) => Step::Stored,
                    (false, _) => Step::Settled,
                }
            }
            Found::Undone(transactions) => self.undone(id, &transactions, in_charge, context),
            Found::Nothing | Found::Failed(_) if !is_open => Step::Settled,
            Found::Nothing | Found::Failed(_) if !in_charge => Step::Stored,
            Found::Failed(error) if error.code == Code::Refused && self.is_being_undone(id) => {
                self.escalate(id, &format!("the gateway cannot undo the operation: {}", error.message), context);
                Step::Stored
            }
            Found::Nothing => {
                if let Some(step) = self.not_found(id, asked, context) {
                    return step;
                }
                let nothing = GatewayError::new(Code::Unreachable, "the gateway does not know the operation");
                self.look_up_again(id, &nothing, true, context)
            }
            Found::Failed(error) => self.look_up_again(id, &error, false, context),
        }
    }

    /// Books the money of other operations that a look-up found.
    fn book_of_others(&mut self, id: Uuid, transactions: &[Transaction], asked: Asked, context: Context<'_>) {
        let report = ReportContext { reporter: id, is_current: self.is_current(asked), adopts: true };
        let Ok(booked) = self.book_all(transactions, report) else { return };
        if booked.is_new {
            let why = booked.added_to(Reason::default());
            self.follow_money(&why, context);
            self.emit_change(id, &why, context.now);
        }
    }

    /// The gateway knows nothing of the operation. If that proves something, the operation ends or starts over;
    /// otherwise nothing is done, and this returns `None`.
    fn not_found(&mut self, id: Uuid, asked: Asked, context: Context<'_>) -> Option<Step> {
        // Absence proves nothing for a pending operation, because the gateway itself said so, nor for one being called,
        // because the call may yet arrive. Nor does it where the gateway knew the operation before, and gave an answer
        // that does not fit.
        let operation = self.operation(id).filter(|open| open.state == State::Unknown && !open.sent.acted_on)?;
        let clocks_agree = context.clocks_agree_since(asked);
        let proof = NotCharged::by_absence(&context.rules.contract, operation.sent.last_at, asked.at(), clocks_agree)?;
        let rounds_left = (operation.counts.rounds as usize) < context.rules.delayed.len();
        let is_parked = operation.counts.takeovers >= TAKEOVERS_MAX;
        if operation.is_expired(context) {
            let rejection =
                Rejection::new(Code::Expired, "the command expired, and the gateway does not know the operation");
            return Some(self.reject(id, rejection, context));
        }
        if rounds_left && !is_parked {
            return Some(self.begin_anew(id, proof, context));
        }
        let message = format!("{}; the gateway does not know the operation", operation.last_message);
        let error = GatewayError::new(operation.last_code.unwrap_or(Code::Unreachable), message);
        Some(self.fail(id, error, proof, context))
    }

    /// Schedules the next look-up, and after several reports that a person may have to act. A pending operation may
    /// stay so for long, but not if the gateway no longer knows it.
    pub(super) fn look_up_again(
        &mut self,
        id: Uuid,
        why: &GatewayError,
        is_missing: bool,
        context: Context<'_>,
    ) -> Step {
        let Some(operation) = self.operation_mut(id) else {
            return Step::Settled;
        };
        operation.due_at = Some(operation.next_look_up(why.retry_after, context));
        let many = operation.counts.lookups as usize > context.rules.delayed.len();
        let worrying = operation.state == State::Unknown || is_missing;
        if many && worrying && !std::mem::replace(&mut operation.escalated, true) {
            let message = format!("still open after {} look-ups: {}", operation.counts.lookups, why.message);
            self.emit_delayed(id, Code::Escalated, &message, context.now);
        }
        Step::Stored
    }

    /// Applies what a person says happened to an operation with an unknown outcome.
    pub(super) fn resolve(&mut self, id: Uuid, resolve: Resolve, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_names_user(id)?;
        let target = resolve.operation;
        // A pending operation gets its outcome from the gateway, unless that can no longer be asked.
        let may_be_resolved = |operation: &&Operation| match operation.state {
            State::Unknown => true,
            State::Pending => operation.escalated,
            State::Waiting | State::Calling | State::Scheduled | State::Settled => false,
        };
        let Some(operation) = self.operation(target).filter(may_be_resolved) else {
            let message = format!("operation {target} has no unknown outcome");
            return Err(Rejection::new(Code::NotUnknown, message));
        };
        let amount = match (resolve.amount, &self.payment) {
            (Some(AmountText(text)), Some(payment)) => Some(resolved_amount(&text, payment.currency())?),
            _ => operation.amount(),
        };
        let verdict = match resolve.outcome {
            Resolution::Approved => Verdict::Approved,
            Resolution::Declined => Verdict::Declined(Decline::Hard),
            Resolution::NotCharged => {
                let error = GatewayError::new(Code::Refused, "an operator resolved it: nothing was charged");
                self.fail(target, error, NotCharged::by_a_persons_word(resolve.evidence), context);
                return Ok(self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now));
            }
        };
        let result = GatewayResult {
            transactions: self.resolved_transactions(target, amount, &verdict),
            transaction_id: resolve.transaction_id,
            message: "an operator resolved it".to_owned(),
            ..GatewayResult::new(verdict)
        };
        let asked = self.asked(context.now);
        self.apply(target, result, asked, context);
        Ok(self.answer(id, AnswerKind::Succeeded, Reason::default(), context.now))
    }
}

impl Operation {
    /// Counts a look-up that came back, and lets go of the lease.
    pub(super) fn end_look_up(&mut self) {
        self.lease = None;
        count_up(&mut self.counts.lookups);
    }
}

impl Aggregate {
    /// The money that a person says an operation moved. It has no reference, whatever id the person names: only the
    /// gateway assigns references, and what it later reports of the operation under its own is this money.
    fn resolved_transactions(&self, id: Uuid, amount: Option<Money>, verdict: &Verdict) -> Vec<Transaction> {
        let Some(operation) = self.operation(id).filter(|_| *verdict == Verdict::Approved) else { return Vec::new() };
        let captures = operation.request.as_ref().is_some_and(|request| request.capture);
        let Some(kind) = operation.action().and_then(|action| action.moves(captures)) else { return Vec::new() };
        let attribution = Attribution::Recorded(id);
        let state = TransactionState::Done;
        let done = |amount| Transaction { kind, reference: None, parent: None, attribution, state, amount };
        amount.map(done).into_iter().collect()
    }
}

fn resolved_amount(text: &str, currency: crate::payment::money::Currency) -> Result<Money, Rejection> {
    let invalid = |message: String| Rejection::new(Code::InvalidAmount, format!("amount: {message}"));
    let amount = Money::parse(text, currency).map_err(|error| invalid(error.to_string()))?;
    if amount.is_zero() {
        return Err(invalid("must be more than zero; if nothing was charged, use the outcome not_charged".to_owned()));
    }
    Ok(amount)
}
