//! What a sender may not send is refused: nothing is stored under its name, and nothing is told to others. It is answered where
//! the sender may have answers, and becomes a dead letter, to be sent again once its sender has the right. What a sender may
//! send, and sends too much of, is answered as well, and is no dead letter.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::accept::Accepted;
use crate::bus::dead_letter::sender;
use crate::bus::delivery::Delivery;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::http::metrics;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Command;
use crate::payment::event::{Event, EventKind};
use crate::worker::command::answer_again::outgoing;
use crate::worker::command::authorize::Refusal;
use crate::worker::command::refusal::answer_to;
use crate::worker::intake::Intake;

/// How long the broker may take for the answer to a command that is one too many: no longer keeps it others' places.
const PATIENCE: Duration = Duration::from_secs(1);

impl Intake {
    /// The delivery as its first sender sent it, where an operator sends a dead letter again.
    pub(crate) fn as_sent(&self, mut delivery: Delivery) -> Delivery {
        if self.engine.authorization.is_operator(delivery.properties.user_id.as_deref())
            && let Some(sender) = sender(&delivery.properties.headers)
        {
            delivery.properties.user_id = Some(sender).filter(|sender| !sender.is_empty());
        }
        delivery
    }

    /// Refuses a message, and acknowledges it last.
    pub(crate) async fn refuse(&self, delivery: Delivery, refusal: Refusal) {
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
    pub(crate) fn is_one_too_many(&self, delivery: &Delivery, command: &Command) -> bool {
        let authorization = &self.engine.authorization;
        !delivery.redelivered && authorization.refusal(command).is_none() && authorization.is_one_too_many(command)
    }

    /// Answers a command that is one too many, and acknowledges it: its sender may send it again, and nobody else needs to.
    pub(crate) async fn turn_away(&self, delivery: Delivery, command: &Command) {
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
