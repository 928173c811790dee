//! A notification that names no payment: the gateway is asked which payments it is about, and each of them gets a
//! notification of its own, stored and on its way like one that came over the bus, before this one is answered.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{debug, error};
use uuid::Uuid;

use super::engine::Engine;
use super::entry::Entry;
use super::settle::Answer;
use super::stopped::Stopped;
use crate::gateway::notification::{Fact, Notifications};
use crate::http::metrics;
use crate::payment::code::Code;
use crate::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use crate::payment::fact::facts_data;
use crate::payment::machine::Aggregate;
use crate::payment::operation::Operation;
use crate::payment::outcome::GatewayError;
use crate::spans::Span;
use crate::worker::variant::Variant;

/// Questions to the gateway at once, of one notification.
const QUESTIONS: usize = 8;

impl Engine {
    /// Finds out whose each fact of a notification is.
    pub async fn locate(&self, variant: &Variant, aggregate: &Aggregate, id: Uuid) -> Answer {
        let Some(notifications) = variant.gateway.notifications() else {
            let trouble = GatewayError::new(Code::Misconfigured, "webhooks of this variant are no longer configured");
            return Answer::Located(Err(trouble));
        };
        let located = stream::iter(aggregate.facts(id)).map(|fact| located(variant, notifications, fact));
        let located: Result<Vec<Option<(Uuid, Fact)>>, GatewayError> = located.buffered(QUESTIONS).try_collect().await;
        Answer::Located(located.map(|facts| facts.into_iter().flatten().collect()))
    }

    /// Begins a notification of each payment, and waits until PostgreSQL has it. Begun once more, each is known already.
    ///
    /// # Errors
    /// The worker ends: whoever takes the notification over does it again.
    pub async fn hand_on(
        &self,
        variant: &Variant,
        notification: &Operation,
        located: &[(Uuid, Fact)],
    ) -> Result<(), Stopped> {
        for (place, (payment, fact)) in located.iter().enumerate() {
            let command = addressed(notification, *payment, fact, place);
            match self.hand_over(command, &variant.name).await {
                Ok(_) => {}
                Err(stopped @ (Stopped::Ending | Stopped::Gone)) => return Err(stopped),
                // The log has the reason; the others go on.
                Err(Stopped::Refused | Stopped::NotAuthorized(_)) => {
                    error!(%payment, kind = fact.kind, "a notification cannot be stored")
                }
            }
        }
        Ok(())
    }

    /// One command within another: boxed, for its future holds one of its own kind.
    fn hand_over<'a>(&'a self, command: Command, variant: &str) -> BoxFuture<'a, Result<bool, Stopped>> {
        let variant = self.variants.get(variant).map(Arc::clone);
        let entry = Entry::own(Box::new(command));
        Box::pin(self.execute(entry, variant, None, false, Span::default()))
    }
}

async fn located(
    variant: &Variant,
    notifications: &dyn Notifications,
    fact: Fact,
) -> Result<Option<(Uuid, Fact)>, GatewayError> {
    if let Some(payment) = fact.payment_id {
        return Ok(Some((payment, fact)));
    }
    let begun = Instant::now();
    let located = notifications.locate(&fact, variant.timeout).await;
    metrics::gateway_locate(&variant.name, &located, begun.elapsed());
    let payment = located?;
    if payment.is_none() {
        metrics::notification_not_ours(&variant.name);
        // Counted: where an account is shared with others, most webhooks are.
        debug!(
            variant = variant.name,
            kind = fact.kind,
            reference = fact.reference,
            "a webhook is about no payment of ours"
        );
    }
    Ok(payment.map(|payment| (payment, fact)))
}

/// The notification of one payment. It has the name that the same fact has where it comes addressed, so that both are one.
fn addressed(notification: &Operation, payment: Uuid, fact: &Fact, place: usize) -> Command {
    let own_name = || Uuid::new_v5(&notification.id, &place.to_be_bytes()).to_string();
    let name = CommandName { source: notification.name.source.clone(), id: fact.command_id().unwrap_or_else(own_name) };
    let facts = vec![Fact { payment_id: Some(payment), ..fact.clone() }];
    let kind = Kind::Known(CommandType::Notification);
    Command {
        payment_id: payment,
        subject: None,
        name,
        hash: kind.hash(),
        kind,
        variant: notification.variant.clone(),
        data: facts_data(&facts),
        content: Ok(Body::Notification(facts)),
        attributes: Attributes { reply: None, ..notification.attributes.clone() },
    }
}
