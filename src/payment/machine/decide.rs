//! What each type of command requires of the payment, and what it starts.

use uuid::Uuid;

use super::{Aggregate, Context, Rules, Step};
use crate::payment::action::Action;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{AmountText, Body, Capture, CommandType, Process, Refund};
use crate::payment::contract::{Captures, Lookup};
use crate::payment::model::Payment;
use crate::payment::money::Money;
use crate::payment::movement::{Movement, MovementKind};
use crate::payment::operation::{Operation, Request};
use crate::payment::status::Status;

/// Data keys of what an operation's request is written from.
const FINAL: &str = "final";
const REFERENCE: &str = "reference";

impl Operation {
    /// Whether a capture leaves the rest of its authorization held.
    pub fn is_partial_capture(&self) -> bool {
        self.data.get(FINAL) == Some(&false.into())
    }

    /// The gateway's reference of the charge that a refund is taken from, if its command names one.
    pub fn refunds_from(&self) -> Option<&str> {
        self.data.get(REFERENCE)?.as_str()
    }
}

impl Aggregate {
    /// Decides on a command that may proceed: it has its turn, or needs none.
    pub(super) fn decide(&mut self, id: Uuid, body: Body, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_expiry(id, context)?;
        self.check_payment_fits(id, body.kind(), context)?;
        match body {
            Body::Create(_) => Err(Rejection::new(Code::AlreadyExists, "a payment with this id already exists")),
            Body::Process(_) if context.rules.retired => {
                Err(Rejection::new(Code::VariantRetired, "the variant accepts no new payments"))
            }
            Body::Process(process) => self.process(id, process, context),
            Body::Capture(capture) => self.capture(id, capture, context),
            Body::Release => self.release(id, context),
            Body::Refund(refund) => self.refund(id, refund, context),
            Body::Cancel => self.cancel(id, context),
            Body::Sync if context.rules.contract.lookup == Lookup::None => {
                Err(Rejection::new(Code::Unsupported, "the gateway does not support look-ups"))
            }
            Body::Sync => Ok(self.ask(id, context)),
            Body::Notification(facts) => self.notification(id, &facts, context),
            Body::Resolve(resolve) => self.resolve(id, *resolve, context),
            Body::Retry(retry) => self.retry_at(id, retry, context),
            Body::Withdraw(target) => self.withdraw(id, target, context),
            Body::Resend(from) => self.resend(id, from, context),
            Body::Snapshot => self.snapshot(id, context),
            // These are answered before a payment is looked up.
            Body::ResendEvents(_) | Body::Status(_) | Body::Pause(_) | Body::Resume(_) => {
                Err(Rejection::new(Code::NotAllowed, "the command does not apply to a payment"))
            }
        }
    }

    pub(super) fn check_expiry(&self, id: Uuid, context: Context<'_>) -> Result<(), Rejection> {
        match self.operation(id).filter(|operation| operation.is_expired(context)) {
            Some(_) => Err(Rejection::expired()),
            None => Ok(()),
        }
    }

    /// The command must be routed by the payment's variant, which must still point to where the payment began.
    pub(super) fn check_payment_fits(
        &self,
        id: Uuid,
        command: CommandType,
        context: Context<'_>,
    ) -> Result<(), Rejection> {
        let (Some(payment), Some(operation)) = (&self.payment, self.operation(id)) else {
            return Ok(());
        };
        payment.check_not_archived()?;
        if operation.variant != payment.order.variant {
            let message = format!("the payment's variant is {}", payment.order.variant);
            return Err(Rejection::new(Code::VariantMismatch, message));
        }
        // An operator may say what happened at a gateway that can no longer be asked, and stored data can always be
        // reported.
        let needs_gateway = !command.is_of_operators() && !command.is_read_only();
        if needs_gateway && !payment.began_with(context) {
            let message = format!("the payment began with {} at {}", payment.gateway, payment.account);
            return Err(Rejection::new(Code::GatewayChanged, message));
        }
        Ok(())
    }

    pub(super) fn process(&mut self, id: Uuid, process: Process, context: Context<'_>) -> Result<Step, Rejection> {
        let payment = self.check_status(Action::Process)?;
        if payment.order.total.is_zero() {
            return Err(Rejection::new(Code::InvalidAmount, "total: a payment of zero cannot be processed"));
        }
        // From `input` it continues a transaction that the gateway already has, captured or not as that began.
        let began = payment.capture.filter(|_| payment.status == Status::Input);
        if let (Some(began), Some(asked)) = (began, process.capture)
            && began != asked
        {
            let message = format!("capture: the transaction began with {began} and cannot change");
            return Err(Rejection::new(Code::InvalidData, message));
        }
        let capture = process.capture.or(payment.capture).unwrap_or(context.rules.capture);
        let amount = Some(payment.order.total);
        self.check_none_goes_on(id, &[Action::Process, Action::Cancel])?;
        if let Some(payment) = &mut self.payment {
            payment.capture = Some(capture);
        }
        Ok(self.begin(id, Request { amount, capture, body: String::new() }, context))
    }

    fn capture(&mut self, id: Uuid, capture: Capture, context: Context<'_>) -> Result<Step, Rejection> {
        if !capture.is_final && context.rules.contract.captures == Captures::One {
            let message = "final: this gateway supports only one capture per authorization";
            return Err(Rejection::new(Code::Unsupported, message));
        }
        let limit = self.capturable()?;
        self.check_none_goes_on(id, &[Action::Capture, Action::Release])?;
        let amount = Some(asked(capture.amount, limit, "capturable_amount, limited to the rest of total")?);
        if let Some(operation) = self.operation_mut(id).filter(|_| !capture.is_final) {
            operation.data.insert(FINAL.to_owned(), false.into());
        }
        Ok(self.begin(id, Request { amount, capture: true, body: String::new() }, context))
    }

    /// How much can be captured: what the gateway still holds, but never more than what is left of the total.
    fn capturable(&self) -> Result<Money, Rejection> {
        let payment = self.check_status(Action::Capture)?;
        let held = payment.amounts.capturable;
        let left = self.ever_captured().and_then(|captured| payment.order.total.less(captured));
        match left.and_then(|left| Ok((left, held.exceeds(left)?))) {
            Ok((left, exceeds)) => Ok(if exceeds { left } else { held }),
            Err(error) => Err(Rejection::new(Code::InvalidAmount, format!("amount: {error}"))),
        }
    }

    fn release(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        let amount = Some(self.check_status(Action::Release)?.amounts.capturable);
        self.check_none_goes_on(id, &[Action::Capture, Action::Release])?;
        Ok(self.begin(id, Request { amount, capture: false, body: String::new() }, context))
    }

    fn refund(&mut self, id: Uuid, refund: Refund, context: Context<'_>) -> Result<Step, Rejection> {
        let limit = self.refundable(id)?;
        let amount = Some(asked(refund.amount, limit, "captured_amount minus open refunds")?);
        if let Some(reference) = refund.reference {
            self.check_is_captured(&reference)?;
            if let Some(operation) = self.operation_mut(id) {
                operation.data.insert(REFERENCE.to_owned(), reference.into());
            }
        }
        Ok(self.begin(id, Request { amount, capture: false, body: String::new() }, context))
    }

    /// A refund may name the charge to take it from, by the gateway's reference.
    fn check_is_captured(&self, reference: &str) -> Result<(), Rejection> {
        let is_it = |movement: &Movement| movement.gateway_reference.as_deref() == Some(reference);
        if self.movements_of(MovementKind::Captured).any(is_it) {
            return Ok(());
        }
        Err(Rejection::new(Code::InvalidData, "reference: no capture of this payment has this reference"))
    }

    /// How much can still be refunded: what other open refunds may take is not available to this one.
    fn refundable(&self, id: Uuid) -> Result<Money, Rejection> {
        let mut limit = self.check_status(Action::Refund)?.amounts.captured;
        let others = self.operations().filter(|other| other.id != id && other.is_open());
        for reserved in others.filter(|other| other.action() == Some(Action::Refund)).filter_map(Operation::amount) {
            limit = limit
                .less(reserved)
                .map_err(|error| Rejection::new(Code::InvalidAmount, format!("amount: {error}")))?;
        }
        Ok(limit)
    }

    fn cancel(&mut self, id: Uuid, context: Context<'_>) -> Result<Step, Rejection> {
        self.check_status(Action::Cancel)?;
        self.check_none_goes_on(id, &[Action::Cancel])?;
        Ok(self.begin(id, Request { amount: None, capture: false, body: String::new() }, context))
    }

    /// Whether an operation that was decided on earlier would still be allowed: a proof from the gateway may have moved
    /// the payment since.
    pub(super) fn check_still_allowed(&self, id: Uuid) -> Result<(), Rejection> {
        let Some(operation) = self.operation(id) else { return Ok(()) };
        match (operation.action(), operation.amount()) {
            (Some(Action::Refund), Some(amount)) => within(amount, self.refundable(id)?),
            (Some(Action::Capture), Some(amount)) => within(amount, self.capturable()?),
            (Some(action), _) => self.check_status(action).map(|_| ()),
            (None, _) => Ok(()),
        }
    }

    fn check_status(&self, action: Action) -> Result<&Payment, Rejection> {
        let allowed: &[Status] = match action {
            Action::Process => &[Status::Waiting, Status::Input, Status::Rejected, Status::Error],
            Action::Capture | Action::Release => &[Status::Preauth],
            Action::Refund => &[Status::Confirmed],
            Action::Cancel => &[Status::Waiting, Status::Input],
        };
        match &self.payment {
            Some(payment) if allowed.contains(&payment.status) => Ok(payment),
            // What was captured of an authorization can be refunded while more of it is held.
            Some(payment)
                if action == Action::Refund
                    && payment.status == Status::Preauth
                    && !payment.amounts.captured.is_zero() =>
            {
                Ok(payment)
            }
            Some(payment) => {
                let words: Vec<&str> = allowed.iter().map(|status| status.as_str()).collect();
                let status = payment.status;
                let message = format!("a {action} is allowed from {}; the payment is {status}", words.join(", "));
                Err(Rejection::new(Code::NotAllowed, message))
            }
            None => Err(Rejection::new(Code::UnknownPayment, "there is no payment with this id")),
        }
    }

    fn check_none_goes_on(&self, id: Uuid, actions: &[Action]) -> Result<(), Rejection> {
        let blocking = actions.iter().find(|action| self.other_at_gateway(id, &[**action]).is_some());
        blocking.map_or(Ok(()), |action| Err(in_progress(*action)))
    }

    /// Another operation of one of these actions that is being called, pending or unknown: it may still move money.
    pub(super) fn other_at_gateway(&self, id: Uuid, actions: &[Action]) -> Option<&Operation> {
        self.operations().find(|other| {
            other.id != id && other.is_at_gateway() && other.action().is_some_and(|action| actions.contains(&action))
        })
    }
}

impl Payment {
    /// Nothing is left of an archived payment to check a command against, not even whether it came before.
    ///
    /// # Errors
    /// [`Code::PaymentArchived`]: it was archived.
    pub fn check_not_archived(&self) -> Result<(), Rejection> {
        self.archived.map_or(Ok(()), |archived| {
            Err(Rejection::new(Code::PaymentArchived, format!("the payment was archived at {archived:.0}")))
        })
    }

    /// Whether the variant still has the gateway and the account that the payment began with.
    pub(super) fn began_with(&self, context: Context<'_>) -> bool {
        self.gateway == context.rules.gateway && context.rules.has_account(&self.account)
    }
}

impl Rules {
    fn has_account(&self, name: &str) -> bool {
        self.account == name || self.account_aliases.iter().any(|alias| alias == name)
    }
}

pub(super) fn in_progress(action: Action) -> Rejection {
    Rejection::new(Code::InProgress, format!("a {action} of this payment is still in progress"))
}

/// Checks that an amount that was decided on is still available.
fn within(amount: Money, limit: Money) -> Result<(), Rejection> {
    match amount.exceeds(limit) {
        Ok(false) => Ok(()),
        _ => Err(Rejection::new(Code::InvalidAmount, format!("amount: only {limit} is left"))),
    }
}

/// The requested amount: the limit if the command names none; more than zero, and at most the limit.
fn asked(amount: Option<AmountText>, limit: Money, limit_name: &str) -> Result<Money, Rejection> {
    let invalid = |message: String| Rejection::new(Code::InvalidAmount, message);
    let amount = match amount {
        Some(AmountText(text)) => {
            Money::parse(&text, limit.currency()).map_err(|error| invalid(format!("amount: {error}")))?
        }
        None => limit,
    };
    if amount.is_zero() {
        return Err(invalid("amount: must be more than zero".to_owned()));
    }
    match amount.exceeds(limit) {
        Ok(false) => Ok(amount),
        Ok(true) => Err(invalid(format!("amount: {amount} is more than {limit} ({limit_name})"))),
        Err(error) => Err(invalid(format!("amount: {error}"))),
    }
}
