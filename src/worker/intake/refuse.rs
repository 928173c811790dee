//! Refuses commands that are not authorized. Nothing is stored under their name and no event is published to
//! subscribers. They are answered where their sender may receive answers, and dead-lettered, so that they can be resent
//! once the sender has the permission. Authorized commands beyond their user's rate are answered too, but not
//! dead-lettered.

use std::time::Duration;

use jiff::Timestamp;
use tracing::warn;

use super::accept::Accepted;
use crate::bus::consume::delivery::Delivery;
use crate::bus::dead_letters::letter::sender;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Command;
use crate::payment::event::Event;
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics;
use crate::worker::command::answer_again::outgoing;
use crate::worker::command::authorize::Refusal;
use crate::worker::command::refusal::answer_to;
use crate::worker::intake::Intake;

/// How long the broker may take for the answer to a command beyond the rate. Short, as the command occupies a slot.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Every refused command is a dead letter and is counted; the log only has to show that there are some, and of whom.
static LOGGED: LogLimit = LogLimit::every(Duration::from_secs(1));

impl Intake {
    /// Restores the original sender of a dead letter that an operator resends.
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
            log_refused(&command, &refusal);
            self.answer_refused(&command, refusal).await;
        }
        if *delivery.queue == *self.publisher.names().unanswered() {
            // This is a copy: the dead letter itself is still there.
            delivery.acker.ack().await;
            return;
        }
        self.dead_letter(delivery, refusal.into()).await;
    }

    /// Whether an authorized command exceeds its user's rate. A redelivered message passes, as it was admitted before.
    pub(crate) fn is_one_too_many(&self, delivery: &Delivery, command: &Command) -> bool {
        let authorization = &self.engine.authorization;
        !delivery.redelivered && authorization.refusal(command).is_none() && authorization.is_one_too_many(command)
    }

    /// Answers a command beyond the rate and acknowledges it. No dead letter is needed: its sender can send it again.
    pub(crate) async fn turn_away(&self, delivery: Delivery, command: &Command) {
        metrics::read_limited(&command.variant);
        if let Some(reply) = &command.attributes.reply {
            let message = "its user exceeds its read_rate; send the command again later";
            let rejection = Rejection::new(Code::TooManyRequests, message);
            let answer = outgoing(&rejected(command, rejection, self.engine.store.clock().now()));
            self.engine.reply_within(answer, reply, TIMEOUT).await;
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

fn log_refused(command: &Command, refusal: &Refusal) {
    if let Some(suppressed) = LOGGED.pass() {
        let user = command.attributes.user_id.as_deref().map(|user| excerpt(user, NAME_MAX));
        let kind = command.kind.known().map_or("unknown", |kind| kind.as_str());
        let (variant, reason) = (&command.variant, refusal.message());
        warn!(variant, kind, ?user, reason, suppressed, "command not authorized; dead-lettering it");
    }
}

/// The answer to a command that was not admitted. It is not final, as the command's name still belongs to its owner.
fn rejected(command: &Command, why: impl Into<Rejection>, now: Timestamp) -> Event {
    let why: Rejection = why.into();
    answer_to(command, why.into(), false, now)
}
