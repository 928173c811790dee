//! A command arrives, or one that waited takes its turn.

use uuid::Uuid;

use super::{Aggregate, Context, Step, WAITING_MAX, WAITING_RECHECK, later};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{AmountText, Body, Command, CommandType, Kind, NewPayment, Process};
use crate::payment::event::{Event, EventCause, EventKind, Why};
use crate::payment::model::Payment;
use crate::payment::money::Money;
use crate::payment::operation::{Action, AnswerKind, Operation, Request, State};
use crate::payment::outcome::Exposure;
use crate::payment::status::Status;

impl Aggregate {
    /// Decides on a command that names itself. Every such command is stored, rejected ones as finally as others.
    pub fn accept(&mut self, command: Command, context: Context<'_>) -> Step {
        let id = command.operation_id();
        if let Some(known) = self.operation(id) {
            if known.hash == command.hash && known.kind == command.kind {
                return Step::Known(id);
            }
            self.tell_id_reused(command, context);
            return Step::Settled;
        }
        let (operation, content) = Operation::accept(command, context.now);
        let id = self.insert(operation);
        match content.and_then(|body| self.admit(id, body, context)) {
            Ok(step) => step,
            Err(rejection) => self.reject(id, rejection, context),
        }
    }

    /// A waiting command whose time has come: its turn, or the end of its grace.
    pub(super) fn take_turn(&mut self, id: Uuid, context: Context<'_>) -> Step {
        let now = context.now;
        let Some(payment) = &self.payment else {
            let grace =
                self.operation(id).map(|operation| later(operation.created, context.rules.unknown_payment_grace));
            return match grace {
                Some(end) if end > now => {
                    self.postpone(id, end);
                    Step::Stored
                }
                _ => self.reject(id, Rejection::new(Code::UnknownPayment, "there is no payment of this id"), context),
            };
        };
        if payment.busy.is_some() {
            self.postpone(id, now + WAITING_RECHECK);
            return Step::Stored;
        }
        // The first that waits goes first, whichever of them was found due.
        let first = self.next_waiting().unwrap_or(id);
        if first != id {
            self.postpone(id, now + WAITING_RECHECK);
        }
        if let Some(payment) = &mut self.payment {
            payment.waiting = payment.waiting.saturating_sub(1);
        }
        let body = self.operation(first).map(|operation| match &operation.kind {
            Kind::Known(kind) => Body::parse(*kind, &operation.data),
            Kind::Unknown(_) => Err(Rejection::new(Code::UnknownType, "there is no command of this type")),
        });
        let decided = body.map(|body| body.and_then(|body| self.decide(first, body, context)));
        match decided {
            Some(Ok(step)) => step,
            Some(Err(rejection)) => self.reject(first, rejection, context),
            None => Step::Settled,
        }
    }

    fn postpone(&mut self, id: Uuid, until: jiff::Timestamp) {
        if let Some(operation) = self.operation_mut(id) {
            operation.due_at = Some(until);
        }
    }

    /// Answers a command before it reached a gateway.
    pub(super) fn reject(&mut self, id: Uuid, rejection: Rejection, context: Context<'_>) -> Step {
        let why = Why { code: Some(rejection.code), message: rejection.message, ..Why::default() };
        self.answer(id, AnswerKind::Rejected, why, context.now)
    }

    /// A message under a name that came before with other content: refused, and the first is not disturbed.
    fn tell_id_reused(&mut self, command: Command, context: Context<'_>) {
        let message = "this subject, source and id came before with another type or other data";
        let subject = command.subject.clone().unwrap_or_else(|| self.payment_id.to_string());
        // The id is made from what came, so that a redelivery tells the same event again and not a second one.
        let id = Uuid::new_v5(&command.operation_id(), &command.hash);
        let cause = EventCause {
            subject,
            kind: command.kind.as_str().to_owned(),
            name: command.name,
            // The name's one final answer belongs to the command that came first.
            is_final: false,
            correlation_id: command.attributes.correlation_id,
            traceparent: command.attributes.traceparent,
            tracestate: command.attributes.tracestate,
            reply: command.attributes.reply,
        };
        self.events.push(Event {
            id,
            payment_id: self.payment_id,
            variant: command.variant,
            kind: EventKind::Rejected { code: Code::IdReused, message: message.to_owned() },
            sequence: None,
            cause: Some(cause),
            time: context.now,
        });
    }

    /// Lets a new command in: at once, or to wait for its turn or its payment.
    fn admit(&mut self, id: Uuid, body: Body, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_expiry(id, context)?;
        if let Body::Create(new) = body {
            return self.create(id, *new, context);
        }
        let Some(payment) = &self.payment else {
            return self.wait_for_payment(id, context);
        };
        let variant = self.operation(id).map(|operation| operation.variant.as_str());
        if variant != Some(payment.order.variant.as_str()) {
            let message = format!("the payment's variant is {}", payment.order.variant);
            return Err(Rejection::new(Code::VariantMismatch, message));
        }
        if body.kind().is_inbound() || (payment.busy.is_none() && payment.waiting == 0) {
            return self.decide(id, body, context);
        }
        match body {
            Body::Process(_) if self.process_goes_on() => Err(process_in_progress()),
            Body::Cancel if self.end_unsent(context) => self.decide(id, body, context),
            _ => self.wait_for_turn(id, context),
        }
    }

    fn check_expiry(&self, id: Uuid, context: Context<'_>) -> Result<(), Rejection> {
        let expires_at = self.operation(id).and_then(|operation| operation.attributes.expires_at);
        match expires_at {
            Some(time) if time <= context.now => Err(Rejection::new(Code::Expired, format!("expired at {time}"))),
            _ => Ok(()),
        }
    }

    fn create(&mut self, id: Uuid, new: NewPayment, context: Context<'_>) -> Result<Step, Rejection> {
        let rules = context.rules;
        if self.payment.is_some() {
            return Err(Rejection::new(Code::AlreadyExists, "a payment of this id exists"));
        }
        if rules.retired {
            return Err(Rejection::new(Code::VariantRetired, "the variant takes no new payments"));
        }
        let mut payment = Payment::new(self.payment_id, new.order, &rules.gateway, &rules.account, context.now);
        payment.last_sequence = 1;
        payment.waiting =
            self.operations().filter(|other| other.state == State::Waiting && other.accepted > 0).count() as u32;
        self.payment = Some(payment.clone());
        let step = match new.process {
            Some(process) => {
                self.tell(id, EventKind::Created { payment: Box::new(payment) }, false, context.now);
                self.process(id, process, context)?
            }
            None => {
                self.tell(id, EventKind::Created { payment: Box::new(payment) }, true, context.now);
                self.settle_silently(id, context)
            }
        };
        Ok(step)
    }

    /// Settles an operation whose answer was told already.
    fn settle_silently(&mut self, id: Uuid, context: Context<'_>) -> Step {
        if let Some(operation) = self.operation_mut(id) {
            operation.state = State::Settled;
            operation.data.clear();
            operation.answer = Some(crate::payment::operation::Answer {
                kind: AnswerKind::Succeeded,
                code: None,
                message: String::new(),
            });
        }
        self.end_turn(id, context.now);
        Step::Settled
    }

    fn wait_for_payment(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_waiting_count()?;
        let until = later(context.now, context.rules.unknown_payment_grace);
        self.postpone(id, until);
        Ok(Step::Stored)
    }

    fn wait_for_turn(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_waiting_count()?;
        self.postpone(id, context.now + WAITING_RECHECK);
        if let Some(payment) = &mut self.payment {
            payment.waiting = payment.waiting.saturating_add(1);
        }
        Ok(Step::Stored)
    }

    fn check_waiting_count(&self) -> Result<(), Rejection> {
        // The command itself is among the operations by now.
        let waiting = self.operations().filter(|operation| operation.state == State::Waiting).count();
        if waiting > WAITING_MAX {
            return Err(Rejection::new(Code::TooManyWaiting, format!("{WAITING_MAX} commands wait for this payment")));
        }
        Ok(())
    }

    /// Decides on a command whose turn it is.
    fn decide(&mut self, id: Uuid, body: Body, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_expiry(id, context)?;
        if let Some(payment) = &self.payment
            && (payment.gateway != context.rules.gateway || payment.account != context.rules.account)
        {
            let message = format!("the payment began with {} at {}", payment.gateway, payment.account);
            return Err(Rejection::new(Code::GatewayChanged, message));
        }
        match body {
            Body::Create(_) => Err(Rejection::new(Code::AlreadyExists, "a payment of this id exists")),
            Body::Process(process) => {
                if context.rules.retired {
                    return Err(Rejection::new(Code::VariantRetired, "the variant takes no new payments"));
                }
                self.process(id, process, context)
            }
            Body::Capture(amount) => self.capture(id, amount, context),
            Body::Release => self.release(id, context),
            Body::Refund(amount) => self.refund(id, amount, context),
            Body::Cancel => {
                self.check_status(CommandType::Cancel, &[Status::Waiting, Status::Input])?;
                Ok(self.begin(id, Request { amount: None, capture: false, body: String::new() }, context))
            }
            Body::Sync => Ok(self.begin_sync(id, context)),
            Body::Notification => self.notification(context),
            Body::Resolve(resolve) => self.resolve(id, *resolve, context),
        }
    }

    fn process(&mut self, id: Uuid, process: Process, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_status(CommandType::Process, &[Status::Waiting, Status::Input, Status::Rejected, Status::Error])?;
        if self.process_goes_on() {
            return Err(process_in_progress());
        }
        let capture = process.capture.unwrap_or(context.rules.capture);
        let Some(payment) = &mut self.payment else {
            return self.wait_for_payment(id, context);
        };
        if payment.order.total.is_zero() {
            return Err(Rejection::new(Code::InvalidAmount, "total: a payment of nothing cannot be processed"));
        }
        payment.capture = Some(capture);
        let amount = Some(payment.order.total);
        Ok(self.begin(id, Request { amount, capture, body: String::new() }, context))
    }

    /// Whether another process of this payment is called, pending or unknown: there is at most one live transaction at
    /// the gateway.
    fn process_goes_on(&self) -> bool {
        self.operations().any(|operation| {
            operation.action() == Some(Action::Process)
                && matches!(operation.state, State::Calling | State::Unknown | State::Pending)
        })
    }

    fn capture(&mut self, id: Uuid, amount: Option<AmountText>, context: Context<'_>) -> Result<Step, Rejection> {
        let payment = self.check_status(CommandType::Capture, &[Status::Preauth])?;
        let total = payment.order.total;
        self.check_none_pending(&[Action::Capture, Action::Release])?;
        let amount = asked(amount, total, "total")?;
        Ok(self.begin(id, Request { amount: Some(amount), capture: true, body: String::new() }, context))
    }

    fn release(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        let payment = self.check_status(CommandType::Release, &[Status::Preauth])?;
        let authorized = payment.amounts.authorized;
        self.check_none_pending(&[Action::Capture, Action::Release])?;
        Ok(self.begin(id, Request { amount: Some(authorized), capture: false, body: String::new() }, context))
    }

    fn refund(&mut self, id: Uuid, amount: Option<AmountText>, context: Context<'_>) -> Result<Step, Rejection> {
        let mut limit = self.check_status(CommandType::Refund, &[Status::Confirmed])?.amounts.captured;
        // What an accepted refund will take is no longer there for another.
        for operation in self.operations().filter(|operation| operation.state == State::Pending) {
            if let (Some(Action::Refund), Some(reserved)) = (operation.action(), operation.amount()) {
                limit = limit.less(reserved).map_err(|error| Rejection::new(Code::InvalidAmount, error.to_string()))?;
            }
        }
        let amount = asked(amount, limit, "captured_amount less what open refunds reserve")?;
        Ok(self.begin(id, Request { amount: Some(amount), capture: false, body: String::new() }, context))
    }

    fn check_status(&self, command: CommandType, allowed: &[Status]) -> Result<&Payment, Rejection> {
        match &self.payment {
            Some(payment) if allowed.contains(&payment.status) => Ok(payment),
            Some(payment) => {
                let words: Vec<&str> = allowed.iter().map(|status| status.as_str()).collect();
                let message =
                    format!("{command} is allowed from {}; the payment is {}", words.join(", "), payment.status);
                Err(Rejection::new(Code::NotAllowed, message))
            }
            None => Err(Rejection::new(Code::UnknownPayment, "there is no payment of this id")),
        }
    }

    fn check_none_pending(&self, actions: &[Action]) -> Result<(), Rejection> {
        let pending = self.operations().find(|operation| {
            operation.state == State::Pending && operation.action().is_some_and(|action| actions.contains(&action))
        });
        match pending {
            Some(pending) => Err(Rejection::new(Code::InProgress, format!("a {} is pending", pending.kind.as_str()))),
            None => Ok(()),
        }
    }

    /// Ends the scheduled operation that holds the turn, where all its attempts are proved not sent; a cancel may do so.
    fn end_unsent(&mut self, context: Context<'_>) -> bool {
        let Some(busy) = self.payment.as_ref().and_then(|payment| payment.busy) else {
            return false;
        };
        let unsent = self
            .operation(busy)
            .is_some_and(|operation| operation.state == State::Scheduled && operation.exposure == Exposure::Clean);
        if unsent {
            let why = Why {
                code: Some(Code::Cancelled),
                message: "a cancel ended it before anything was sent".to_owned(),
                ..Why::default()
            };
            self.answer(busy, AnswerKind::Failed, why, context.now);
        }
        unsent
    }
}

fn process_in_progress() -> Rejection {
    Rejection::new(Code::InProgress, "a process of this payment is still going on")
}

/// The sum that is asked for: the limit where the command names none; more than nothing and at most the limit.
fn asked(amount: Option<AmountText>, limit: Money, limit_name: &str) -> Result<Money, Rejection> {
    let invalid = |message: String| Rejection::new(Code::InvalidAmount, message);
    let amount = match amount {
        Some(AmountText(text)) => {
            Money::parse(&text, limit.currency()).map_err(|error| invalid(format!("amount: {error}")))?
        }
        None => limit,
    };
    if amount.is_zero() {
        return Err(invalid("amount: must be more than nothing".to_owned()));
    }
    match amount.exceeds(limit) {
        Ok(false) => Ok(amount),
        Ok(true) => Err(invalid(format!("amount: {amount} is more than {limit} ({limit_name})"))),
        Err(error) => Err(invalid(format!("amount: {error}"))),
    }
}
