//! Handles notifications that name no payment: the gateway is asked which payments the notification is about. Before
//! this notification is answered, each payment gets one of its own, which is stored and executed like one from the bus.

use std::sync::Arc;
use std::time::Instant;

use futures_util::future::BoxFuture;
use futures_util::{StreamExt, TryStreamExt, stream};
use tracing::{debug, error};
use uuid::Uuid;

use super::attempt::Purpose;
use super::engine::Engine;
use super::entry::{Entry, Execution};
use super::settle::Answer;
use super::stopped::Stopped;
use crate::gateway::notification::{Fact, Notifications};
use crate::payment::code::Code;
use crate::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use crate::payment::fact::facts_data;
use crate::payment::machine::Aggregate;
use crate::payment::operation::Operation;
use crate::payment::outcome::GatewayError;
use crate::telemetry::metrics;
use crate::telemetry::spans::Span;
use crate::worker::variant::Variant;

/// How many locate requests one notification may have in flight.
const QUESTIONS: usize = 8;

impl Engine {
    /// Asks the gateway which payment each fact of a notification belongs to.
    pub async fn locate(&self, variant: &Variant, aggregate: &Aggregate, id: Uuid) -> Answer {
        let Some(notifications) = variant.gateway.notifications() else {
            let error = GatewayError::new(Code::Misconfigured, "webhooks of this variant are no longer configured");
            return Answer::Located(Err(error));
        };
        let located = stream::iter(aggregate.facts(id)).map(|fact| located(variant, notifications, fact));
        let located: Result<Vec<Option<(Uuid, Fact)>>, GatewayError> = located.buffered(QUESTIONS).try_collect().await;
        Answer::Located(located.map(|facts| facts.into_iter().flatten().collect()))
    }

    /// Begins a notification for each payment and waits until PostgreSQL has stored it. Safe to repeat: a notification
    /// that was begun before is a duplicate.
    ///
    /// # Errors
    /// The worker is shutting down, or the database lost the operation. The next worker repeats this.
    pub async fn hand_on(
        &self,
        variant: &Variant,
        notification: &Operation,
        located: &[(Uuid, Fact)],
    ) -> Result<(), Stopped> {
        for (index, (payment, fact)) in located.iter().enumerate() {
            let command = addressed(notification, *payment, fact, index);
            match self.hand_over(command, &variant.name).await {
                Ok(_) => {}
                Err(stopped @ (Stopped::Ending | Stopped::Gone)) => return Err(stopped),
                // The cause is already in the log. The other notifications go on.
                Err(Stopped::Refused | Stopped::NotAuthorized(_)) => {
                    error!(%payment, kind = fact.kind, "cannot store a notification; continuing with the next one")
                }
            }
        }
        Ok(())
    }

    /// Executes a command within another one. Boxed, as the future would otherwise contain itself.
    fn hand_over<'a>(&'a self, command: Command, variant: &str) -> BoxFuture<'a, Result<bool, Stopped>> {
        let variant = self.variants.get(variant).map(Arc::clone);
        let entry = Entry::own(Box::new(command));
        let execution = Execution { entry, variant, turn: None, purpose: Purpose::Work, span: Span::default() };
        Box::pin(self.execute(execution))
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
        // Debug only, as it is counted: on a gateway account shared with other systems, most webhooks are not about us.
        debug!(
            variant = variant.name,
            kind = fact.kind,
            reference = fact.reference,
            "a webhook concerns no stored payment; ignoring it"
        );
    }
    Ok(payment.map(|payment| (payment, fact)))
}

/// The notification for one payment. It gets the id that the fact would have if it arrived with its payment, so that
/// both are the same command.
fn addressed(notification: &Operation, payment: Uuid, fact: &Fact, index: usize) -> Command {
    let own_name = || Uuid::new_v5(&notification.id, &index.to_be_bytes()).to_string();
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
