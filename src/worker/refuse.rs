//! What a sender may not send is refused: nothing is stored under its name, and nothing is told to others. It is answered where
//! the sender may have answers, and becomes a dead letter, to be sent again once its sender has the right. What a sender may
//! send, and sends too much of, is answered as well, and is no dead letter.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;
use uuid::Uuid;

use super::accept::Accepted;
use super::answer_again::outgoing;
use super::authorize::Refusal;
use super::engine::Engine;
use super::entry::Entry;
use super::intake::Intake;
use super::stopped::Stopped;
use crate::bus::dead::sender;
use crate::bus::delivery::Delivery;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::http::metrics;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Command;
use crate::payment::event::{Event, EventCause, EventKind};
use crate::payment::machine::Aggregate;
use crate::payment::model::Metadata;
use crate::payment::operation::State;

/// How long the broker may take for the answer to a command that is one too many: no longer keeps it others' places.
const PATIENCE: Duration = Duration::from_secs(1);

impl Engine {
    /// Whether a command is refused whatever payment it is for.
    pub(super) fn is_refused(&self, entry: &Entry) -> bool {
        self.refusal(entry).is_some()
    }

    fn refusal(&self, entry: &Entry) -> Option<Refusal> {
        match entry {
            Entry::Command { command, is_own: false, .. } => self.authorization.refusal(command),
            Entry::Command { .. } | Entry::Due { .. } => None,
        }
    }

    /// Whether a command goes on, with the payment as it is stored. Not where it is refused and yet stored: then it was let
    /// in by other rules, or copied from whoever was. Whoever is at it goes on, and this message has no part in it.
    ///
    /// # Errors
    /// It is refused.
    pub(super) fn goes_on(&self, entry: &Entry, aggregate: &Aggregate) -> Result<bool, Stopped> {
        let Entry::Command { command, is_own: false, .. } = entry else { return Ok(true) };
        let user = command.attributes.user_id.as_deref();
        let is_theirs = aggregate.payment().is_none_or(|payment| self.authorization.may_act_on(user, payment));
        match self.refusal(entry).or((!is_theirs).then_some(Refusal::Payment)) {
            None => Ok(true),
            Some(_) if entry.is_known(aggregate.operation(entry.id())) => {
                metrics::duplicate(&command.variant);
                Ok(false)
            }
            Some(refusal) => Err(Stopped::NotAuthorized(refusal)),
        }
    }

    /// Why a command that waited may not have its turn: it came before its payment, which turns out to be somebody else's.
    pub(super) fn refusal_of_waiting(&self, aggregate: &Aggregate, id: Uuid) -> Option<Rejection> {
        let operation = aggregate.operation(id).filter(|operation| operation.state == State::Waiting)?;
        let user = operation.attributes.user_id.as_deref();
        let is_theirs = self.authorization.may_act_on(user, aggregate.payment()?);
        (!is_theirs).then(|| Refusal::Payment.into())
    }
}

impl Intake {
    /// The delivery as its first sender sent it, where an operator sends a dead letter again.
    pub(super) fn as_sent(&self, mut delivery: Delivery) -> Delivery {
        if self.engine.authorization.is_operator(delivery.properties.user_id.as_deref())
            && let Some(sender) = sender(&delivery.properties.headers)
        {
            delivery.properties.user_id = Some(sender).filter(|sender| !sender.is_empty());
        }
        delivery
    }

    /// Refuses a message, and acknowledges it last.
    pub(super) async fn refuse(&self, delivery: Delivery, refusal: Refusal) {
        if let Accepted::Command(command) = self.read(&delivery) {
            metrics::not_authorized(&command.variant);
            let user = command.attributes.user_id.as_deref().map(|user| excerpt(user, NAME_MAX));
            let kind = command.kind.known().map_or("unknown", |kind| kind.as_str());
            let reason = refusal.message();
            warn!(variant = command.variant, kind, ?user, reason, "a command is refused; it becomes a dead letter");
            self.answer_refused(&command, refusal).await;
        }
        if *delivery.queue == *self.publisher.names().unanswered() {
            // A copy: the dead letter itself is where it was.
            delivery.acker.ack().await;
            return;
        }
        self.bury(delivery, refusal.into()).await;
    }

    /// Whether a command that its user may send is one too many. What the broker delivers again was let in before.
    pub(super) fn is_one_too_many(&self, delivery: &Delivery, command: &Command) -> bool {
        let authorization = &self.engine.authorization;
        !delivery.redelivered && authorization.refusal(command).is_none() && authorization.is_one_too_many(command)
    }

    /// Answers a command that is one too many, and acknowledges it: its sender may send it again, and nobody else needs to.
    pub(super) async fn turn_away(&self, delivery: Delivery, command: &Command) {
        metrics::read_limited(&command.variant);
        if let Some(reply) = &command.attributes.reply {
            let message = "its user asks for more than its read_rate; send it again later";
            let rejection = Rejection::new(Code::TooManyRequests, message);
            let answer = outgoing(&rejected(command, rejection, self.engine.store.clock().now()));
            if !self.engine.announcer.reply(answer, reply.clone(), PATIENCE).await {
                metrics::reply_unroutable();
            }
        }
        delivery.acker.ack().await;
    }

    async fn answer_refused(&self, command: &Command, refusal: Refusal) {
        if let Some(reply) = self.engine.authorization.reply_to_refused(command) {
            let event = rejected(command, refusal, self.engine.store.clock().now());
            self.engine.reply(Some(outgoing(&event)), reply).await;
        }
    }
}

/// The answer to a command that is not let in. It settles nothing: the name is still its owner's.
fn rejected(command: &Command, why: impl Into<Rejection>, now: Timestamp) -> Event {
    let Rejection { code, message } = why.into();
    answer_to(command, EventKind::Rejected { code, message }, false, now)
}

/// The answer to a command of which nothing is stored.
pub(super) fn answer_to(command: &Command, kind: EventKind, is_final: bool, now: Timestamp) -> Event {
    let subject = command.subject.clone().filter(|subject| !subject.is_empty());
    let attributes = &command.attributes;
    let cause = EventCause {
        subject: subject.unwrap_or_else(|| command.payment_id.to_string()),
        name: command.name.clone(),
        kind: command.kind.as_str().to_owned(),
        is_final,
        is_answer: true,
        correlation_id: attributes.correlation_id.clone(),
        trace: attributes.trace.clone(),
        reply: None,
        operation: None,
    };
    Event {
        id: Uuid::now_v7(),
        payment_id: command.payment_id,
        variant: command.variant.clone(),
        kind,
        sequence: None,
        cause: Some(cause),
        metadata: Metadata::default(),
        time: now,
    }
}
