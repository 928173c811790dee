//! Ready to continue: the customer has approved at the gateway, and nothing is done before our next request. The
//! machine sends it by itself, so that a customer who closes the tab is charged. A process that is still open continues
//! with it, under a key of its own; if the process was answered with the customer's turn, paybus starts another one. A
//! proof that comes while something else is in progress waits for that to end, because nobody sends it again.

use serde_json::Map;
use uuid::Uuid;

use super::{Aggregate, Context, Step, WAITING_RECHECK};
use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind, Process};
use crate::payment::operation::{Operation, Request, State};
use crate::payment::outcome::{Found, GatewayResult, NotCharged, Verdict};
use crate::payment::status::Status;

/// Data key of an operation that confirms what the customer has approved.
const CONFIRMS: &str = "confirms";

/// Data key of a notification whose proof waits for something else to end.
const WAITS: &str = "waits_to_go_on";

/// The source of a process that nobody sent.
const SOURCE: &str = "paybus";

impl Operation {
    /// Whether it completes what the customer has approved.
    pub fn confirms(&self) -> bool {
        self.data.contains_key(CONFIRMS)
    }

    /// Whether it waits for its turn to confirm: nothing was sent for that yet.
    pub(super) fn waits_to_confirm(&self) -> bool {
        self.state == State::Pending && !self.sent.is_exposed()
    }

    /// Whether it is a notification whose proof waits for something else to end.
    pub(super) fn waits_to_go_on(&self) -> bool {
        self.data.contains_key(WAITS)
    }

    /// Makes it confirm from here on, under a key and with a body of their own.
    fn confirm_under(&mut self, proof: NotCharged) {
        self.sent.start_over(self.key().next(proof));
        self.escalated = false;
        self.data.insert(CONFIRMS.to_owned(), true.into());
        if let Some(request) = &mut self.request {
            request.body.clear();
        }
    }
}

impl Aggregate {
    /// The gateway says of an open process that the next request is ours. If ours was sent already, it may be in
    /// progress, and that it is not done yet proves nothing; the worker that sent it learns later what became of it.
    pub(super) fn ready(&mut self, id: Uuid, result: GatewayResult, context: Context<'_>) -> Step {
        let Some(operation) = self.operation(id) else { return Step::Settled };
        // Only the answer to the confirmation itself gets here: anything else says nothing about it.
        if operation.confirms() {
            return self.pend(id, Action::Process, result, context);
        }
        let Some(proof) = NotCharged::by_readiness(&result) else { return Step::Stored };
        let why = self.merge(&result, true);
        self.emit_change(id, &why, context.now);
        if let Some(operation) = self.operation_mut(id) {
            operation.confirm_under(proof);
        }
        self.go_on(id, context)
    }

    /// Lets an operation confirm as soon as it has the turn.
    pub(super) fn go_on(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let has_turn = match &mut self.payment {
            Some(payment) => *payment.busy.get_or_insert(id) == id,
            None => false,
        };
        if let Some(operation) = self.operation_mut(id) {
            operation.lease = None;
            let (state, due_at) = match has_turn {
                true => (State::Scheduled, context.now),
                false => (State::Pending, context.now + WAITING_RECHECK),
            };
            operation.move_to(state);
            operation.due_at = Some(due_at);
        }
        Step::Stored
    }

    /// Starts a process of paybus's own if the customer has approved and no open operation continues. Returns whether
    /// it did.
    pub(super) fn go_on_alone(&mut self, context: Context<'_>) -> bool {
        let Some(payment) = self.payment.as_ref().filter(|payment| payment.began_with(context)) else { return false };
        let goes_on =
            |other: &Operation| other.is_open() && matches!(other.action(), Some(Action::Process | Action::Cancel));
        let is_idle = payment.busy.is_none() && self.next_waiting().is_none() && !self.operations().any(goes_on);
        if payment.status != Status::Input || !is_idle {
            return false;
        }
        let capture = payment.capture.unwrap_or(context.rules.capture);
        let request = Request { amount: Some(payment.order.total), capture, body: String::new() };
        // One commit starts at most one, and each commit has a version of its own.
        let id = Uuid::new_v5(&payment.id, format!("{CONFIRMS}/{}", payment.version).as_bytes());
        let command = Command {
            payment_id: payment.id,
            subject: None,
            name: CommandName { source: SOURCE.to_owned(), id: id.to_string() },
            kind: Kind::Known(CommandType::Process),
            variant: payment.order.variant.clone(),
            content: Ok(Body::Process(Process::default())),
            data: Map::from_iter([(CONFIRMS.to_owned(), true.into())]),
            hash: [0; 32],
            attributes: Attributes::default(),
        };
        let (operation, _) = Operation::accept(command, id, context.now);
        self.insert(Operation { request: Some(request), ..operation });
        self.go_on(id, context);
        true
    }

    /// Whether what the customer has approved cannot continue before something else has ended that may come to nothing:
    /// a call of the process itself, whose answer may be lost, or, if the process was answered, a cancel or another
    /// process. `process` is the one that was named, if it is known.
    pub(super) fn is_blocked(&self, process: Option<Uuid>, context: Context<'_>) -> bool {
        let named = process.and_then(|id| self.operation(id)).filter(|operation| operation.is_open());
        if let Some(open) = named {
            return open.state == State::Calling && !open.confirms();
        }
        let Some(payment) = self.payment.as_ref().filter(|payment| payment.began_with(context)) else { return false };
        // If nothing was in the way, it has started by now.
        payment.status == Status::Input && !self.operations().any(|other| other.is_open() && other.confirms())
    }

    /// Keeps a notification until what is in the way has ended.
    pub(super) fn wait_to_go_on(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let Some(operation) = self.operation_mut(id) else { return Step::Settled };
        let is_first = operation.data.insert(WAITS.to_owned(), true.into()).is_none();
        operation.schedule_at(context.now + WAITING_RECHECK);
        if is_first {
            let message = "the customer has approved; the payment continues once its current operation has ended";
            self.emit_delayed(id, Code::Pending, message, context.now);
        }
        Step::Stored
    }

    /// Whether a request of ours is in flight that `ready` would be the answer to, or that followed it.
    pub(super) fn is_confirming(&self, id: Uuid) -> bool {
        let operation = self.operation(id).filter(|operation| operation.is_open());
        operation.is_some_and(|operation| operation.confirms() || operation.state == State::Calling)
    }

    /// What a look-up found of an operation, as far as it says something about it. That a process is still ready, or
    /// that the customer must act, only says that what was sent to confirm it was not carried out: it counts as not
    /// found.
    pub(super) fn unconfirmed(&self, id: Uuid, found: Found) -> Found {
        let says_nothing = |verdict: &Verdict| match verdict {
            Verdict::Ready => self.is_confirming(id),
            Verdict::CustomerMustAct { .. } => self.operation(id).is_some_and(|it| it.is_open() && it.confirms()),
            Verdict::Approved | Verdict::Authorized | Verdict::Pending | Verdict::Declined(_) => false,
        };
        match found {
            Found::Result(result) if says_nothing(&result.verdict) => Found::Nothing,
            found => found,
        }
    }

    /// Whether an answer to a call that lost its lease is older than the customer's approval, which superseded it.
    pub(super) fn is_before_approval(&self, id: Uuid, result: &GatewayResult) -> bool {
        matches!(result.verdict, Verdict::CustomerMustAct { .. } | Verdict::Pending | Verdict::Ready)
            && self.operation(id).is_some_and(Operation::confirms)
    }
}
