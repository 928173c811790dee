//! Notifications as proof: if the contract accepts a gateway's signed notifications, they count as its answers do. It
//! does not matter in which order proofs come, how often, and how late: money is booked by its reference, which only
//! moves forward. What contradicts the books is not booked: it is a reason to ask the gateway, or for a person to look.

use std::slice;

use uuid::Uuid;

use super::book::ReportContext;
use super::settle::{foreign_currency, is_asked_for};
use super::{Aggregate, Context};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::contract::NotificationRole;
use crate::payment::event::{Discrepancy, Reason};
use crate::payment::fact::{Fact, Proof, Proved, proved_operations};
use crate::payment::money::MoneyError;
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::{Decline, GatewayResult, Verdict};
use crate::payment::transaction::{Attribution, Transaction, TransactionState};

/// What a fact proves, if the contract accepts notifications as proof.
pub(super) fn proof_in<'a>(fact: &'a Fact, context: Context<'_>) -> Option<&'a Proof> {
    let is_taken = context.rules.contract.notifications != NotificationRole::Hint;
    fact.proof.as_ref().filter(|_| is_taken)
}

impl Aggregate {
    /// The operations that a notification proves something about. They may be settled, and must be loaded all the same.
    pub fn proved_operations(&self, id: Uuid) -> Vec<Uuid> {
        proved_operations(&self.facts(id))
    }

    /// Applies what a fact proves: to the operation it names, otherwise to the payment, whose change the caller emits.
    ///
    /// # Errors
    /// It contradicts the books; nothing was changed.
    pub(super) fn take_proof(
        &mut self,
        id: Uuid,
        fact: &Fact,
        proof: &Proof,
        context: Context<'_>,
    ) -> Result<Reason, Reason> {
        let asked = self.asked(context.now);
        let target = fact.operation_id.filter(|named| self.does_such(*named, proof));
        let is_open = target.and_then(|target| self.operation(target)).is_some_and(Operation::is_open);
        let money = match &proof.what {
            Proved::Money(transaction) => Some(self.attributed(transaction, target)),
            Proved::Cancel(_) => None,
        };
        let result = result_of(proof, money.clone());
        if is_open && target.is_some_and(|target| self.is_overtaken(target, &result)) {
            return Ok(Reason::default());
        }
        let is_foreign = self.payment.as_ref().is_none_or(|payment| foreign_currency(payment, &result).is_some());
        if is_foreign && !is_open {
            return Err(mismatch("the notification reports money in another currency", None));
        }
        if let Some(money) = money.as_ref().filter(|_| !is_foreign) {
            self.check_amount(money)?;
            if money.state == TransactionState::Reversed {
                self.book_undone(money, id).map_err(unreadable)?;
            }
        }
        match (target, money) {
            (Some(target), _) if is_open => {
                self.apply(target, result, asked, context);
                Ok(Reason::default())
            }
            (Some(target), _) => {
                self.late_result(target, result, asked, context);
                Ok(Reason::default())
            }
            (None, Some(money)) if money.state == TransactionState::Ready => {
                self.go_on_alone(context);
                Ok(Reason::default())
            }
            (None, Some(money)) => self.book_proof(id, &money, context).map_err(unreadable),
            // It is about an operation that nobody knows, and moved no money.
            (None, None) => Ok(Reason::default()),
        }
    }

    /// Whether what is reported about an open operation is older than what was sent for it since.
    fn is_overtaken(&self, id: Uuid, result: &GatewayResult) -> bool {
        self.may_be_undone_since(id, result) || result.verdict == Verdict::Ready && self.is_confirming(id)
    }

    /// Whether a proof that the customer has approved came while something is in progress that must end first.
    pub(super) fn must_wait(&self, fact: &Fact, proof: &Proof, context: Context<'_>) -> bool {
        let named = fact.operation_id.filter(|named| self.does_such(*named, proof));
        proof.state() == TransactionState::Ready && self.is_blocked(named, context)
    }

    /// Whether an operation was sent and is of the kind that a proof says was done.
    fn does_such(&self, id: Uuid, proof: &Proof) -> bool {
        let sent = self.operation(id).filter(|operation| operation.state != State::Waiting);
        let Some(action) = sent.and_then(Operation::action) else { return false };
        match &proof.what {
            Proved::Money(transaction) => is_asked_for(transaction.kind, action),
            Proved::Cancel(_) => action == Action::Cancel,
        }
    }

    /// Corrects whose money it is. A dispute about what a process took, say, may come with the process's id, but the
    /// process did not do it.
    fn attributed(&self, transaction: &Transaction, target: Option<Uuid>) -> Transaction {
        let named = transaction.attribution.operation().filter(|_| target.is_none());
        let is_not_its = named.is_some_and(|named| self.operation(named).is_some());
        let attribution = if is_not_its { Attribution::Unattributed } else { transaction.attribution };
        Transaction { attribution, ..transaction.clone() }
    }

    /// Checks that the money is not booked already with another amount.
    fn check_amount(&self, money: &Transaction) -> Result<(), Reason> {
        if !matches!(money.state, TransactionState::Done | TransactionState::Reversed) {
            return Ok(());
        }
        let operation = money.attribution.operation();
        let mut known = self.movements_of(money.kind.movement()).filter(|known| match &known.gateway_reference {
            Some(reference) => Some(reference) == money.reference.as_ref(),
            None => operation.is_some() && known.operation == operation,
        });
        match known.find(|known| known.amount != money.amount) {
            Some(known) => {
                let discrepancy = Discrepancy { asked: known.amount, answered: money.amount };
                Err(mismatch("the notification reports an amount other than the booked one", Some(discrepancy)))
            }
            None => Ok(()),
        }
    }

    /// Books money that belongs to no known operation, and sets the status that the payment's money implies.
    fn book_proof(&mut self, id: Uuid, money: &Transaction, context: Context<'_>) -> Result<Reason, MoneyError> {
        let report = ReportContext { reporter: id, is_current: true, adopts: true };
        let booked = self.book_all(slice::from_ref(money), report)?;
        let why = booked.added_to(Reason::default());
        if booked.is_new {
            self.follow_money(&why, context);
        }
        Ok(why)
    }
}

/// What a proof says about its operation, in the form of an answer.
fn result_of(proof: &Proof, money: Option<Transaction>) -> GatewayResult {
    let verdict = match proof.state() {
        TransactionState::Done => Verdict::Approved,
        TransactionState::Pending => Verdict::Pending,
        TransactionState::Ready => Verdict::Ready,
        TransactionState::Failed | TransactionState::Reversed => Verdict::Declined(Decline::Hard),
    };
    GatewayResult {
        transactions: money.into_iter().collect(),
        transaction_id: proof.transaction_id.clone(),
        code: proof.code.clone(),
        message: proof.message.clone(),
        ..GatewayResult::new(verdict)
    }
}

fn mismatch(message: &str, discrepancy: Option<Discrepancy>) -> Reason {
    Reason { code: Some(Code::Mismatch), message: message.to_owned(), discrepancy, ..Reason::default() }
}

fn unreadable(error: MoneyError) -> Reason {
    mismatch(&format!("the notification's amount {error}"), None)
}
