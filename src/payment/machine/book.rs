//! Booking: what the gateway says it did with money becomes movements, each once, by the gateway's own reference.

use uuid::Uuid;

use super::{Aggregate, Context, Stored};
use crate::payment::code::Code;
use crate::payment::contract::Captures;
use crate::payment::event::{Discrepancy, Reason};
use crate::payment::money::MoneyError;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::observation::Asked;
use crate::payment::status::{Cause, Status};
use crate::payment::transaction::{Attribution, Transaction, TransactionKind, TransactionState};

/// What booking changed.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Booked {
    /// Whether the sums changed.
    pub is_new: bool,
    /// Whether it is a second charge of the same payment, or of the same operation under another reference.
    pub is_double_charge: bool,
    /// Money beyond its limit.
    pub discrepancy: Option<Discrepancy>,
}

impl Booked {
    fn and(self, other: Booked) -> Booked {
        Booked {
            is_new: self.is_new || other.is_new,
            is_double_charge: self.is_double_charge || other.is_double_charge,
            discrepancy: self.discrepancy.or(other.discrepancy),
        }
    }

    /// The reason to report, with what was found added.
    pub fn added_to(self, why: Reason) -> Reason {
        let double = self.is_double_charge.then_some(Code::DoubleCharge);
        Reason { code: why.code.or(double), discrepancy: why.discrepancy.or(self.discrepancy), ..why }
    }
}

/// How what is reported relates to what is booked already.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReportContext {
    /// The operation whose answer or question reported it.
    pub reporter: Uuid,
    /// Whether the gateway was asked after the payment last changed: only then may what it says take something away.
    pub is_current: bool,
    /// Whether this money may be an unattributed sum that was learnt from the whole payment.
    pub adopts: bool,
}

impl Aggregate {
    /// Whether the payment is unchanged since the gateway was asked.
    pub(super) fn is_current(&self, asked: Asked) -> bool {
        asked.after_sequence() == self.last_sequence()
    }

    /// Books transactions, one after the other.
    ///
    /// # Errors
    /// An impossible sum: another currency, or too large.
    pub(super) fn book_all(
        &mut self,
        transactions: &[Transaction],
        report: ReportContext,
    ) -> Result<Booked, MoneyError> {
        transactions.iter().try_fold(Booked::default(), |booked, it| Ok(booked.and(self.book(it, report)?)))
    }

    /// Books one transaction. Pending and failed ones move nothing. A reference only moves forward, so an older report
    /// never undoes what was done.
    ///
    /// # Errors
    /// As [`Aggregate::book_all`].
    pub(super) fn book(&mut self, transaction: &Transaction, report: ReportContext) -> Result<Booked, MoneyError> {
        match (transaction.state, transaction.kind.reversal()) {
            (TransactionState::Pending | TransactionState::Ready | TransactionState::Failed, _) => {
                Ok(Booked::default())
            }
            (TransactionState::Done, _) => self.book_done(transaction, report),
            (TransactionState::Reversed, Some(by)) => {
                self.reverse(transaction.kind.movement(), by, transaction, report)
            }
            // What a void or a dispute took and gave back shows in the sums, which are compared.
            (TransactionState::Reversed, None) => Ok(Booked::default()),
        }
    }

    /// Books a transaction that came to nothing before it was ever reported as done: both it and its reversal, so that
    /// an older report that it was done counts nothing when it arrives.
    ///
    /// # Errors
    /// As [`Aggregate::book_all`].
    pub(super) fn book_undone(&mut self, transaction: &Transaction, reporter: Uuid) -> Result<(), MoneyError> {
        let Some(by) = transaction.kind.reversal() else { return Ok(()) };
        let done = movement(transaction, reporter);
        if self.movements.iter().any(|known| known.row.is_same(&done)) {
            return Ok(());
        }
        // The reversal goes first: the sums never include money that is not there.
        self.record(Movement { kind: by, ..done.clone() })?;
        self.record(done).map(|_| ())
    }

    fn book_done(&mut self, transaction: &Transaction, report: ReportContext) -> Result<Booked, MoneyError> {
        let movement = movement(transaction, report.reporter);
        let movement = match transaction.attribution {
            Attribution::Recorded(id) | Attribution::Answered(id) => self.carried_on(id, movement),
            Attribution::Unattributed => movement,
        };
        if self.recognize(&movement) || report.adopts && self.adopt(&movement) {
            return Ok(Booked::default());
        }
        let is_double_charge = self.is_double_charge(&movement)?;
        let discrepancy = self.beyond(movement.kind, movement.amount)?;
        let is_new = self.record(movement)?;
        Ok(Booked { is_new, is_double_charge: is_new && is_double_charge, discrepancy: discrepancy.filter(|_| is_new) })
    }

    /// Reverses what was booked under a reference, by a movement of its own. What was never booked came to nothing.
    fn reverse(
        &mut self,
        of: MovementKind,
        by: MovementKind,
        transaction: &Transaction,
        report: ReportContext,
    ) -> Result<Booked, MoneyError> {
        if !report.is_current {
            return Ok(Booked::default());
        }
        let operation = transaction.attribution.operation();
        let is_it = |movement: &&Movement| match (&movement.gateway_reference, &transaction.reference) {
            (Some(ours), Some(theirs)) => ours == theirs,
            _ => operation.is_some() && movement.operation == operation,
        };
        let Some(done) = self.movements_of(of).find(is_it).cloned() else { return Ok(Booked::default()) };
        let is_new = self.record(Movement { kind: by, ..done })?;
        Ok(Booked { is_new, ..Booked::default() })
    }

    pub(super) fn movements_of(&self, kind: MovementKind) -> impl Iterator<Item = &Movement> {
        self.movements.iter().map(|tracked| &tracked.row).filter(move |movement| movement.kind == kind)
    }

    /// Whether a movement is known. Keeps what is learnt about it for the first time: its operation, reference or
    /// parent.
    fn recognize(&mut self, movement: &Movement) -> bool {
        let known = self.movements.iter_mut().find(|tracked| tracked.row.is_same(movement));
        let Some(tracked) = known else { return false };
        let row = &mut tracked.row;
        let operation = row.operation.or(movement.operation);
        let reference = row.gateway_reference.clone().or_else(|| movement.gateway_reference.clone());
        let parent = row.parent.clone().or_else(|| movement.parent.clone());
        if (operation, &reference, &parent) != (row.operation, &row.gateway_reference, &row.parent) {
            (row.operation, row.gateway_reference, row.parent) = (operation, reference, parent);
            if tracked.stored == Stored::Same {
                tracked.stored = Stored::Changed;
            }
        }
        true
    }

    /// Matches a movement to an unattributed sum that was learnt from the whole payment: it is the same money, now
    /// reported by its own object. Returns whether there was one.
    fn adopt(&mut self, movement: &Movement) -> bool {
        let is_nobodys = |row: &Movement| row.operation.is_none() && row.gateway_reference.is_none();
        let tracked = self.movements.iter_mut().find(|tracked| {
            is_nobodys(&tracked.row) && tracked.row.kind == movement.kind && tracked.row.amount == movement.amount
        });
        let Some(tracked) = tracked else { return false };
        tracked.row.operation = movement.operation;
        tracked.row.gateway_reference.clone_from(&movement.gateway_reference);
        tracked.row.parent.clone_from(&movement.parent);
        if tracked.stored == Stored::Same {
            tracked.stored = Stored::Changed;
        }
        true
    }

    /// Whether a movement about to be booked is a second charge: its operation has one under another reference, or the
    /// sum exceeds the payment's total.
    fn is_double_charge(&self, movement: &Movement) -> Result<bool, MoneyError> {
        if !matches!(movement.kind, MovementKind::Authorized | MovementKind::Captured) {
            return Ok(false);
        }
        let reversed = |other: &Movement| {
            let by = if movement.kind == MovementKind::Captured {
                MovementKind::CaptureReversed
            } else {
                MovementKind::Voided
            };
            self.movements_of(by).any(|reversal| reversal.reference == other.reference)
        };
        let others: Vec<&Movement> = self.movements_of(movement.kind).filter(|other| !reversed(other)).collect();
        let same_operation = |other: &&&Movement| movement.operation.is_some() && other.operation == movement.operation;
        if others.iter().any(|other| same_operation(&other)) {
            return Ok(true);
        }
        let Some(payment) = &self.payment else { return Ok(false) };
        let mut sum = movement.amount;
        for other in &others {
            sum = sum.plus(other.amount)?;
        }
        Ok(!others.is_empty() && sum.exceeds(payment.order.total)?)
    }

    /// Attributes money that a settled operation is reported to have moved. A process that ended with the customer's
    /// turn has none of its own: another one continued its transaction, and has reported the money already, or will.
    /// The gateway's id shows that the transaction is the same; without an id it is assumed to be.
    fn carried_on(&self, id: Uuid, movement: Movement) -> Movement {
        if !self.was_customers_turn(id) {
            return movement;
        }
        let Some(payment) = &self.payment else { return movement };
        let is_named = |other: &Movement| other.gateway_reference.is_some();
        let is_other = movement.gateway_reference.as_ref().is_some_and(|other| *other != payment.transaction_id)
            && self.movements_of(movement.kind).all(is_named);
        let owners: Vec<Uuid> = self.movements_of(movement.kind).filter_map(|other| other.operation).collect();
        if is_other || owners.contains(&id) {
            return movement;
        }
        let process = [crate::payment::action::Action::Process];
        match owners.first().copied().or_else(|| self.other_at_gateway(id, &process).map(|other| other.id)) {
            Some(heir) => {
                let reference = movement.gateway_reference.clone().unwrap_or_else(|| heir.to_string());
                Movement { reference, operation: Some(heir), ..movement }
            }
            None => movement,
        }
    }

    /// Sets the status that the booked money implies.
    pub(super) fn follow_money(&mut self, why: &Reason, context: Context<'_>) {
        let Some(status) = self.status_of_money(context) else { return };
        self.set_status(status, Cause::Proof, &why.message);
    }

    fn status_of_money(&self, context: Context<'_>) -> Option<Status> {
        let payment = self.payment.as_ref()?;
        let (amounts, sum) = (payment.amounts, |kind| self.sum_of(kind).ok());
        let taken = self.ever_captured().ok()?;
        let holds_more = payment.status == Status::Preauth
            && context.rules.contract.captures == Captures::Several
            && !amounts.capturable.is_zero();
        Some(if holds_more {
            Status::Preauth
        } else if !amounts.captured.is_zero() {
            Status::Confirmed
        } else if !taken.is_zero() {
            Status::Refunded
        } else if !sum(MovementKind::Captured)?.is_zero() {
            // Nothing that was captured ever arrived. What is still held can be captured again.
            if payment.status == Status::Preauth { Status::Preauth } else { Status::Rejected }
        } else if !amounts.authorized.is_zero() && amounts.capturable.is_zero() {
            Status::Refunded
        } else if !amounts.authorized.is_zero() {
            Status::Preauth
        } else {
            return None;
        })
    }

    /// Voids what is still held beyond what is being captured for good: a last capture releases it.
    pub(super) fn let_the_rest_go(&mut self, id: Uuid, reference: Option<&str>) -> Result<(), MoneyError> {
        let Some(rest) = self.payment.as_ref().map(|payment| payment.amounts.capturable) else { return Ok(()) };
        if rest.is_zero() {
            return Ok(());
        }
        let parent = reference.map(str::to_owned);
        let learnt = Movement::learnt(MovementKind::Voided, id, rest);
        self.record(Movement { parent, operation: Some(id), ..learnt }).map(|_| ())
    }
}

/// The movement that a done transaction is booked as.
fn movement(transaction: &Transaction, reporter: Uuid) -> Movement {
    let operation = transaction.attribution.operation();
    let fallback = || operation.unwrap_or(reporter).to_string();
    Movement {
        kind: transaction.kind.movement(),
        reference: transaction.reference.clone().unwrap_or_else(fallback),
        gateway_reference: transaction.reference.clone(),
        parent: transaction.parent.clone(),
        amount: transaction.amount,
        operation,
    }
}

impl TransactionKind {
    /// The movement that reverses it, if there is a kind for that.
    fn reversal(self) -> Option<MovementKind> {
        match self {
            TransactionKind::Authorization => Some(MovementKind::Voided),
            TransactionKind::Capture => Some(MovementKind::CaptureReversed),
            TransactionKind::Refund => Some(MovementKind::RefundReversed),
            TransactionKind::Void | TransactionKind::Dispute => None,
        }
    }

    /// The movement that a done transaction is booked as.
    pub(super) fn movement(self) -> MovementKind {
        match self {
            TransactionKind::Authorization => MovementKind::Authorized,
            TransactionKind::Capture => MovementKind::Captured,
            TransactionKind::Refund => MovementKind::Refunded,
            TransactionKind::Void => MovementKind::Voided,
            TransactionKind::Dispute => MovementKind::Disputed,
        }
    }
}
