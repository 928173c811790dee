//! Undoing: a gateway without look-ups may be able to reverse, by the key that was sent, whatever became of a lost
//! process. What it says it undid is proof that nothing is held or taken. Until it has said so, no older report on the
//! operation counts: the gateway may have undone what that reports since.

use uuid::Uuid;

use super::book::{Booked, ReportContext};
use super::{Aggregate, Context, Step};
use crate::payment::code::Code;
use crate::payment::event::Reason;
use crate::payment::money::MoneyError;
use crate::payment::operation::{Operation, State};
use crate::payment::outcome::{GatewayError, GatewayResult, NotCharged, Verdict};
use crate::payment::transaction::{Transaction, TransactionState};

/// Data key of an operation that the gateway may have been told to undo.
const UNDOING: &str = "undoing";

impl Operation {
    /// Whether its unknown outcome is to be undone: only that of a process, because a process can be tried again.
    pub(super) fn can_be_undone(&self, context: Context<'_>) -> bool {
        context.rules.contract.undoes() && self.is_process() && self.state == State::Unknown && !self.sent.acted_on
    }

    /// Stops sending under its key, which the gateway is told to undo.
    pub(super) fn begin_undo(&mut self) {
        self.data.insert(UNDOING.to_owned(), true.into());
        self.sent.lookup_only = true;
    }

    /// Clears the mark, because the operation starts over under another key.
    pub(super) fn end_undo(&mut self) {
        self.data.remove(UNDOING);
    }

    /// Whether the gateway may have been told to undo it.
    fn is_being_undone(&self) -> bool {
        self.data.contains_key(UNDOING)
    }
}

impl Aggregate {
    /// Whether what a result reports may have been undone since: then it counts nothing before the gateway says what it
    /// undid. A decline leaves nothing to undo.
    pub(super) fn may_be_undone_since(&self, id: Uuid, result: &GatewayResult) -> bool {
        !matches!(result.verdict, Verdict::Declined(_)) && self.is_being_undone(id)
    }

    /// Whether the gateway may have been told to undo an operation.
    pub(super) fn is_being_undone(&self, id: Uuid) -> bool {
        self.operation(id).is_some_and(Operation::is_being_undone)
    }

    /// The gateway undid what was sent under an operation's key: nothing of it is left. `in_charge` is whether this
    /// worker knows that this is still its key: otherwise it may have started over since.
    pub(super) fn undone(
        &mut self,
        id: Uuid,
        transactions: &[Transaction],
        in_charge: bool,
        context: Context<'_>,
    ) -> Step {
        let ends = in_charge && self.is_being_undone(id);
        let booked = match self.book_all_undone(id, transactions) {
            Ok(booked) => booked,
            Err(error) if ends => return self.mismatch(id, format!("the gateway's amount {error}"), context),
            Err(_) => Booked::default(),
        };
        let Some(operation) = self.operation(id) else { return Step::Settled };
        let is_open = operation.is_open();
        if ends {
            let message = format!("{}; the gateway undid the operation", operation.last_message);
            let error = GatewayError::new(operation.last_code.unwrap_or(Code::Unreachable), message);
            return self.fail(id, error, NotCharged::by_undo(), context);
        }
        if booked.is_new {
            self.follow_money(&Reason::default(), context);
            self.emit_change(id, &Reason::default(), context.now);
        }
        if is_open { Step::Stored } else { Step::Settled }
    }

    /// Books transactions as reversed, also those never reported as done: an older answer may still report them.
    fn book_all_undone(&mut self, id: Uuid, transactions: &[Transaction]) -> Result<Booked, MoneyError> {
        // What was undone stays undone, whatever else changed meanwhile.
        let report = ReportContext { reporter: id, is_current: true, adopts: false };
        let undone = transactions.iter().map(|it| Transaction { state: TransactionState::Reversed, ..it.clone() });
        let undone: Vec<Transaction> = undone.collect();
        for transaction in &undone {
            self.book_undone(transaction, id)?;
        }
        self.book_all(&undone, report)
    }
}
