//! Handles messages that the broker dead-lettered itself: delivered too often, or expired in their queue. A command
//! that names itself is answered, from the copy in `<prefix>.unanswered`. The dead letter stays for people.
//!
//! The rejection is stored under the command's id like any first entry, and PostgreSQL accepts only one. If the command
//! had begun, the stored state stands. If nothing was stored, nothing was sent, and after the rejection nothing can be.

use serde_json::Map;
use tokio::task::JoinHandle;

use super::accept::Accepted;
use super::own_event::{drop_own_event, is_own_event};
use crate::bus::consume::delivery::Delivery;
use crate::bus::dead_letters::letter::broker_reason;
use crate::excerpt::{NAME_MAX, excerpt};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Command, CommandType, Kind};
use crate::worker::command::attempt::Purpose;
use crate::worker::intake::Intake;

impl Intake {
    /// Answers a copy of a dead letter, and acknowledges it last.
    pub(crate) fn answer_dead_letter(&self, delivery: Delivery) -> JoinHandle<()> {
        if is_own_event(&delivery.body) {
            return drop_own_event(&self.tasks, delivery);
        }
        let delivery = self.as_sent(delivery);
        let rejected = broker_reason(&delivery).and_then(|reason| rejected(self.read(&delivery), &reason));
        let Some(command) = rejected else {
            return self.tasks.spawn(async move {
                delivery.acker.ack().await;
            });
        };
        // A redelivery of the copy says nothing about the worker that may be executing the command.
        let delivery = Delivery { redelivered: false, ..delivery };
        let (intake, turn) = (self.clone(), self.engine.order.enter(command.payment_id));
        self.tasks.spawn(Box::pin(async move { intake.carry_out(delivery, command, turn, Purpose::Work).await }))
    }
}

/// Returns the command, rejected with the broker's reason unless it was invalid anyway. `None` if there is nobody to
/// answer: the message names no command, or is a gateway's webhook, which can be replayed only while it has no answer.
fn rejected(accepted: Accepted, reason: &str) -> Option<Box<Command>> {
    let Accepted::Command(mut command) = accepted else { return None };
    if command.kind == Kind::Known(CommandType::Notification) {
        return None;
    }
    if command.content.is_ok() {
        command.content = Err(rejection(reason));
        command.data = Map::new();
    }
    Some(command)
}

fn rejection(reason: &str) -> Rejection {
    if reason == "expired" {
        return Rejection::new(Code::Expired, "the message expired in its queue before processing began");
    }
    let reason = excerpt(reason, NAME_MAX);
    let message = format!(
        "the broker dead-lettered the message before processing began: {reason}; nothing was sent to the gateway"
    );
    Rejection::new(Code::DeadLettered, message)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::payment::command::{Attributes, Body, CommandName};

    fn accepted(kind: CommandType, content: Result<Body, Rejection>) -> Accepted {
        Accepted::Command(Box::new(Command {
            payment_id: Uuid::nil(),
            subject: None,
            name: CommandName { source: "shop".to_owned(), id: "1".to_owned() },
            kind: Kind::Known(kind),
            variant: "cards".to_owned(),
            content,
            data: Map::from_iter([("amount".to_owned(), json!("1.00"))]),
            hash: [7; 32],
            attributes: Attributes::default(),
        }))
    }

    #[test]
    fn a_good_command_is_rejected_for_the_brokers_reason() {
        for (reason, code) in [
            ("expired", Code::Expired),
            ("delivery_limit", Code::DeadLettered),
            ("rejected", Code::DeadLettered),
            ("", Code::DeadLettered),
        ] {
            let command = rejected(accepted(CommandType::Cancel, Ok(Body::Cancel)), reason).expect("an answer");
            assert_eq!(command.content.map_err(|rejection| rejection.code), Err(code), "{reason}");
            // A command that is already stored is recognized by its hash.
            assert_eq!((command.data.is_empty(), command.hash), (true, [7; 32]));
        }
    }

    #[test]
    fn a_wrong_command_is_rejected_for_its_own_reason() {
        let wrong = Rejection::new(Code::UnknownField, "x: this command has no such field");
        let command = rejected(accepted(CommandType::Cancel, Err(wrong.clone())), "expired").expect("an answer");
        assert_eq!(command.content, Err(wrong));
    }

    #[test]
    fn a_webhook_stays_to_be_replayed_and_what_names_nobody_is_not_answered() {
        let webhook = accepted(CommandType::Notification, Ok(Body::Notification(Vec::new())));
        assert_eq!(rejected(webhook, "delivery_limit"), None);
        let nameless = Accepted::Dead(Rejection::new(Code::InvalidEnvelope, "id: is missing"));
        assert_eq!(rejected(nameless, "delivery_limit"), None);
    }
}
