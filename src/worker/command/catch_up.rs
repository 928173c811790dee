//! Resends the events of a variant from a position or a time on, for a consumer that missed some and does not know of
//! which payments.
//!
//! The command is not stored: repeating it is answered again, and no answer becomes an event to catch up with. Events
//! that are still unsent are included, so that a page covers its range of positions completely.

use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::answer_again::outgoing;
use super::engine::{Engine, until_answered};
use super::refusal::answer_to;
use super::stopped::Stopped;
use crate::backoff;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::{Body, Command, EventsWanted, Reply};
use crate::payment::event::{EventKind, ResentPage};
use crate::store::error::StoreError;
use crate::store::outbox::positions::EventPage;
use crate::telemetry::metrics::{self, CommandOutcome};

/// How long the broker may take to confirm a page.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for transactions that are writing events. Events of slower ones come with a later page.
const UNTIL_SETTLED: Duration = Duration::from_secs(2);

/// Limits how many pages are read at the same time: each takes a connection and memory.
static AT_ONCE: Semaphore = Semaphore::const_new(4);

/// Returns which events a command asks for, or `None` for every other command. Without a `reply_to` there is nowhere to
/// send them, and the command is rejected like other invalid ones.
pub(crate) fn wanted(command: &mut Command) -> Option<EventsWanted> {
    let Ok(Body::ResendEvents(wanted)) = command.content else { return None };
    if command.attributes.reply.is_none() {
        let message = "reply_to: is missing; the events are sent only there";
        command.content = Err(Rejection::new(Code::InvalidEnvelope, message));
        return None;
    }
    Some(wanted)
}

impl Engine {
    /// Sends a page of events to the command's `reply_to`, then the answer that describes the page.
    ///
    /// # Errors
    /// The sender is not authorized, an event cannot be decoded, or the worker is shutting down.
    pub(crate) async fn catch_up(&self, command: &Command, wanted: EventsWanted) -> Result<(), Stopped> {
        if let Some(refusal) = self.authorization.refusal(command) {
            return Err(Stopped::NotAuthorized(refusal));
        }
        let Some(reply) = &command.attributes.reply else { return Ok(()) };
        let Ok(_permit) = AT_ONCE.acquire().await else { return Err(Stopped::Ending) };
        let read = || self.read_page(&command.variant, wanted);
        let page = until_answered("cannot read events", read).await?;
        let page = self.send_page(page, reply).await;
        let answer = answer_to(command, EventKind::EventsResent(page), true, self.store.clock().now());
        self.reply(Some(outgoing(&answer)), reply).await;
        metrics::command_settled(&command.kind, &command.variant, CommandOutcome::Succeeded);
        Ok(())
    }

    /// Sends a page. If the broker takes only part of it, the page ends there.
    async fn send_page(&self, page: EventPage, reply: &Reply) -> ResentPage {
        let EventPage { events, set_aside, after, to, more, kept_after } = page;
        let positions: Vec<i64> = events.iter().map(|event| event.position).collect();
        let taken = self.announcer.resend(events, Some(reply.clone()), TIMEOUT).await;
        let whole = ResentPage { after, to, more, events: taken, set_aside, kept_after };
        if taken == positions.len() {
            return whole;
        }
        let to = positions.get(..taken).and_then(|taken| taken.last()).copied().unwrap_or(after);
        ResentPage { to, more: true, ..whole }
    }

    async fn read_page(&self, variant: &str, wanted: EventsWanted) -> Result<EventPage, StoreError> {
        let (up_to, is_last) = self.settled_position().await?;
        let now = self.store.clock().now();
        let age = wanted.since.map(|since| now.duration_since(since).as_secs_f64());
        let page = self.store.event_page(variant, wanted, age, up_to, self.kept).await?;
        Ok(EventPage { more: page.more || !is_last, ..page })
    }

    /// Returns a position up to which all events are visible, and whether it is the latest one. If a transaction is
    /// slow to commit, it is the position of the last heartbeat.
    async fn settled_position(&self) -> Result<(i64, bool), StoreError> {
        let frontier = self.store.frontier().await?;
        let deadline = Instant::now() + UNTIL_SETTLED;
        let mut backoff = backoff::contention();
        while !self.store.is_settled(&frontier).await? {
            if Instant::now() >= deadline {
                return Ok((self.store.reported_up_to().await?, false));
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
        Ok((frontier.position, true))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Map;
    use uuid::Uuid;

    use super::*;
    use crate::payment::command::{Attributes, CommandName, CommandType, Kind};

    #[test]
    fn events_are_sent_only_where_they_are_asked_for() {
        let command = |reply: Option<&str>| Command {
            payment_id: Uuid::nil(),
            subject: Some(String::new()),
            name: CommandName { source: "shop".to_owned(), id: "1".to_owned() },
            kind: Kind::Known(CommandType::ResendEvents),
            variant: "cards".to_owned(),
            content: Ok(Body::ResendEvents(EventsWanted { after: Some(7), since: None })),
            data: Map::new(),
            hash: [7; 32],
            attributes: Attributes {
                reply: reply.map(|to| Reply { to: to.to_owned(), correlation_id: None }),
                ..Attributes::default()
            },
        };
        let mut asked = command(Some("reply.shop"));
        assert_eq!(wanted(&mut asked).and_then(|wanted| wanted.after), Some(7));
        let mut nowhere = command(None);
        assert_eq!(wanted(&mut nowhere), None);
        assert_eq!(nowhere.content.map_err(|rejection| rejection.code), Err(Code::InvalidEnvelope));
    }
}
