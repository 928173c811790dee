//! Answers how a command stands, for a sender that received no answer: with the event that answered it, or with one
//! that says it is still open.
//!
//! The question is not stored, and does not change where the command's own answer goes.

use super::answer_again::outgoing;
use super::authorize::Refusal;
use super::engine::Engine;
use super::refusal::answer_to;
use super::stopped::Stopped;
use crate::bus::publish::publisher::Outgoing;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, CommandName};
use crate::payment::machine::Aggregate;
use crate::telemetry::metrics::{self, CommandOutcome};

/// Returns the command that is asked about, or `None` for every other command. Without a `reply_to` there is nowhere to
/// answer, and the question is rejected like other invalid commands.
pub(crate) fn wanted(command: &mut Command) -> Option<CommandName> {
    let Ok(Body::Status(wanted)) = &command.content else { return None };
    if command.attributes.reply.is_none() {
        let message = "reply_to: is missing; the state of a command is reported only there";
        command.content = Err(Rejection::new(Code::InvalidEnvelope, message));
        return None;
    }
    let source = wanted.source.clone().unwrap_or_else(|| command.name.source.clone());
    Some(CommandName { source, id: wanted.id.clone() })
}

impl Engine {
    /// Publishes how a command stands to the `reply_to` of the question.
    ///
    /// # Errors
    /// The sender is not authorized to ask, stored data cannot be decoded, or the worker is shutting down.
    pub(crate) async fn publish_status(&self, question: &Command, asked: &CommandName) -> Result<(), Stopped> {
        let user = question.attributes.user_id.as_deref();
        if let Some(refusal) = self.authorization.refusal(question) {
            return Err(Stopped::NotAuthorized(refusal));
        }
        if !self.authorization.may_ask_after(user, asked) {
            return Err(Stopped::NotAuthorized(Refusal::Source));
        }
        let Some(reply) = &question.attributes.reply else { return Ok(()) };
        let id = asked.operation_id(&question.payment_id.to_string());
        let aggregate = self.load(question.payment_id, &[id]).await.ok_or(Stopped::Refused)?.aggregate;
        if aggregate.payment().is_some_and(|payment| !self.authorization.may_act_on(user, payment)) {
            return Err(Stopped::NotAuthorized(Refusal::Payment));
        }
        // Under another variant's routing key it is not the same command: its publisher may have other rights.
        let operation = aggregate.operation(id).filter(|operation| operation.variant == question.variant);
        let (answer, outcome) = match operation {
            Some(operation) => (self.answer_as_it_stands(&aggregate, operation).await, CommandOutcome::Succeeded),
            None => (Some(self.unknown(question, &aggregate)), CommandOutcome::Rejected),
        };
        self.reply(answer, reply).await;
        metrics::command_settled(&question.kind, &question.variant, outcome);
        Ok(())
    }

    fn unknown(&self, question: &Command, aggregate: &Aggregate) -> Outgoing {
        let archived = aggregate.payment().and_then(|payment| payment.check_not_archived().err());
        let rejection = archived.unwrap_or_else(|| {
            Rejection::new(Code::UnknownCommand, "the command is not stored; it may still be in its queue")
        });
        outgoing(&answer_to(question, rejection.into(), true, self.store.clock().now()))
    }
}
