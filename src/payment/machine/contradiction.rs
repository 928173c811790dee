//! Contradictions: the gateway approves something that its own money rules out, such as the cancel of a payment that
//! was captured meanwhile. The last answer is not trusted: the whole payment is looked up, and until its money is known
//! the operation stays open as a mismatch.

use uuid::Uuid;

use super::book::ReportContext;
use super::settle::foreign_currency;
use super::{Aggregate, Context, Step};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::event::Reason;
use crate::payment::money::MoneyError;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::observation::{Asked, Observation};
use crate::payment::operation::{AnswerKind, Operation, State};
use crate::payment::outcome::{Found, GatewayError, GatewayResult};
use crate::payment::status::{Cause, Status};

/// Data key of an operation whose approval contradicts the payment's money.
const CONTRADICTS: &str = "contradicts";

impl Operation {
    /// Whether its approval contradicts the payment's money, so that the whole payment must be looked up.
    pub(super) fn contradicts(&self) -> bool {
        self.data.contains_key(CONTRADICTS)
    }
}

impl Aggregate {
    /// Whether an approval of this action is incompatible with the booked money.
    pub(super) fn contradicts_money(&self, action: Action) -> bool {
        let Some(payment) = &self.payment else { return false };
        match action {
            Action::Cancel => self.held().is_some(),
            Action::Release => payment.status != Status::Preauth && !payment.amounts.captured.is_zero(),
            Action::Process | Action::Capture | Action::Refund => false,
        }
    }

    /// Keeps the operation open, and asks the gateway about the whole payment.
    pub(super) fn ask_about_contradiction(&mut self, id: Uuid, action: Action, context: Context<'_>) -> Step {
        let what =
            format!("the gateway approved a {action} of a payment whose money it took or holds; asking it again");
        let error = GatewayError::new(Code::Mismatch, what);
        let Some(operation) = self.become_unknown(id, &error) else { return Step::Settled };
        operation.sent.note_acted_on();
        operation.sent.lookup_only = true;
        let is_first = operation.data.insert(CONTRADICTS.to_owned(), true.into()).is_none();
        if is_first {
            self.emit_delayed(id, Code::Mismatch, &error.message, context.now);
        }
        self.look_up(id, context)
    }

    /// Applies what the gateway says about the whole payment, after a contradiction.
    pub(super) fn found_of_contradiction(
        &mut self,
        id: Uuid,
        observation: Observation<Found>,
        context: Context<'_>,
    ) -> Step {
        let Observation { asked, says: found } = observation;
        let Some(operation) = self.operation_mut(id) else { return Step::Settled };
        let in_charge = operation.state == State::Unknown && operation.is_leased_by(context.worker);
        if !in_charge {
            return if operation.is_open() { Step::Stored } else { Step::Settled };
        }
        operation.end_look_up();
        let result = match found {
            Found::Result(result) => *result,
            Found::Failed(error) => return self.look_up_again(id, &error, false, context),
            Found::OfOthers(_) | Found::Nothing | Found::Undone(_) => {
                let nothing = GatewayError::new(Code::Mismatch, "the gateway does not know the payment");
                return self.look_up_again(id, &nothing, true, context);
            }
        };
        // What changed meanwhile may or may not be in its answer.
        let is_foreign = self.payment.as_ref().is_none_or(|payment| foreign_currency(payment, &result).is_some());
        if is_foreign || !self.is_current(asked) || !self.is_settled_view(asked, context) {
            let again = GatewayError::new(Code::Mismatch, "the gateway may not know of the last change yet");
            return self.look_up_again(id, &again, false, context);
        }
        self.resolve_contradiction(id, &result, asked, context)
    }

    fn resolve_contradiction(&mut self, id: Uuid, result: &GatewayResult, asked: Asked, context: Context<'_>) -> Step {
        let Some(action) = self.operation(id).and_then(Operation::action) else { return Step::Settled };
        let why = self.merge(result, false);
        let report = ReportContext { reporter: id, is_current: true, adopts: true };
        let booked = self.book_all(&result.transactions, report);
        let reconciled = self.reconcile(id, result, asked, &why, context);
        let (Ok(_), Ok(_)) = (booked, reconciled) else {
            return self.mismatch(id, "the gateway's sums are not valid amounts".to_owned(), context);
        };
        // By the gateway's figure nothing is there: what was captured was voided before it arrived.
        let is_gone = result.captured.is_some_and(|captured| captured.is_zero());
        if is_gone && self.reverse_captures(id).is_err() {
            return self.mismatch(id, "the gateway's sums are not valid amounts".to_owned(), context);
        }
        if self.held().is_some() {
            let what = format!("the gateway approved a {action}, but reports that it still has the payment's money");
            return self.look_up_again(id, &GatewayError::new(Code::Mismatch, what), true, context);
        }
        if action == Action::Cancel && self.is_untouched_by_refunds() {
            self.set_status(Status::Cancelled, Cause::Cancel, &why.message);
        } else {
            self.follow_money(&why, context);
        }
        self.answer(id, AnswerKind::Succeeded, Reason { code: None, ..why }, context.now)
    }

    /// Reverses every capture that was not reversed yet, and voids every hold.
    fn reverse_captures(&mut self, id: Uuid) -> Result<(), MoneyError> {
        let captured: Vec<Movement> = self.movements_of(MovementKind::Captured).cloned().collect();
        for movement in captured {
            self.record(Movement { kind: MovementKind::CaptureReversed, ..movement })?;
        }
        self.let_the_rest_go(id, None)
    }

    fn is_untouched_by_refunds(&self) -> bool {
        self.payment.as_ref().is_some_and(|payment| payment.amounts.refunded.is_zero())
    }
}
