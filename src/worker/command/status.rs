//! How a command stands, for who sent it and heard nothing: by the event that answered it, or that it goes on.
//!
//! Nothing is stored of the question, and it does not change where the command's answer goes.

use super::answer_again::outgoing;
use super::authorize::Refusal;
use super::engine::Engine;
use super::refusal::answer_to;
use super::stopped::Stopped;
use crate::bus::publisher::Outgoing;
use crate::http::metrics::{self, CommandOutcome};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, CommandName};
use crate::payment::event::EventKind;
use crate::payment::machine::Aggregate;

/// The command that is asked after; `None` for every other command. Without a `reply_to` there is nowhere to tell it, and the
/// question is rejected as others are.
pub(crate) fn wanted(command: &mut Command) -> Option<CommandName> {
    let Ok(Body::Status(wanted)) = &command.content else { return None };
    if command.attributes.reply.is_none() {
        let message = "reply_to: is missing; how a command stands is told nowhere else";
        command.content = Err(Rejection::new(Code::InvalidEnvelope, message));
        return None;
    }
    let source = wanted.source.clone().unwrap_or_else(|| command.name.source.clone());
    Some(CommandName { source, id: wanted.id.clone() })
}

impl Engine {
    /// Tells how a command stands, where the question asks for it.
    ///
    /// # Errors
    /// Its sender may not ask for it, what is stored cannot be read, or the worker ends.
    pub(crate) async fn tell_status(&self, question: &Command, asked: &CommandName) -> Result<(), Stopped> {
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
        // By another variant's routing key it is another command, whose publisher may have other rights.
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
        let archived = aggregate.payment().and_then(|payment| payment.archived);
        let (code, message) = match archived {
            Some(archived) => (Code::PaymentArchived, format!("the payment was archived at {archived:.0}")),
            None => (Code::UnknownCommand, "nothing is stored of this command; it may be on its way".to_owned()),
        };
        outgoing(&answer_to(question, EventKind::Rejected { code, message }, true, self.store.clock().now()))
    }
}
