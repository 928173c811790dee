//! Resends events to consumers that missed them. This happens before the command is answered, so that the answer says
//! what went out.
//!
//! Commands of one payment are executed in turn. A command to resend to all subscribers is answered by an earlier run
//! if that began after the command arrived: many such commands lead to few runs, and everything published before a
//! command goes out again before its answer. A resend to a `reply_to` concerns nobody else and is made for each
//! command.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use super::engine::{Engine, until_answered};
use super::entry::Entry;
use super::resend_runs::Run;
use super::stopped::Stopped;
use crate::backoff;
use crate::payment::command::Reply;
use crate::payment::event::Resent;
use crate::payment::machine::{Aggregate, Step};
use crate::store::outbox::SentEvent;

/// How long the broker may take to confirm the events. Other commands of the payment wait meanwhile.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait until stored events are sent. Another worker marks what it has published a moment later. What takes
/// longer has reached nobody yet and goes out by itself.
const UNTIL_OUT: Duration = Duration::from_secs(2);

impl Engine {
    /// Resends events that were sent before, to the command's `reply_to` or else to all subscribers, and answers the
    /// command with what the broker has confirmed. Events that were never sent are not included: the outbox publishes
    /// them anyway. Any other step is returned as it is.
    pub(crate) async fn resend(
        &self,
        entry: &Entry,
        aggregate: &mut Aggregate,
        step: Step,
        now: Timestamp,
    ) -> Result<Step, Stopped> {
        let Step::Resend { operation, from, to } = step else { return Ok(step) };
        let payment = aggregate.payment_id();
        let reply = aggregate.operation(operation).and_then(|operation| operation.attributes.reply.clone());
        if reply.is_some() {
            let resent = self.run(payment, from, to, reply).await?;
            return Ok(aggregate.resent(operation, resent, now));
        }
        if let Some(run) = entry.came().and_then(|came| self.runs.since(came, payment, from, to)) {
            debug!(
                %payment,
                %operation,
                "the events were already resent after the command arrived; not resending them"
            );
            return Ok(aggregate.resent(operation, run.part(from, to), now));
        }
        let begun = Instant::now();
        let resent = self.run(payment, from, to, None).await?;
        self.runs.ran(payment, Run { begun, from, to, resent });
        Ok(aggregate.resent(operation, resent, now))
    }

    /// Resends the events and returns the range that the broker has confirmed.
    async fn run(&self, payment: Uuid, from: i64, to: i64, reply: Option<Reply>) -> Result<Option<Resent>, Stopped> {
        // Include events whose confirms came in a moment ago.
        self.announcer.marked().await;
        let events = self.sent_events(payment, from, to).await?;
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        let events = events.into_iter().map(|sent| sent.event).collect();
        let taken = self.announcer.resend(events, reply, TIMEOUT).await;
        Ok(match sequences.get(..taken) {
            Some([first, .., last]) => Some(Resent { from: *first, to: *last }),
            Some([only]) => Some(Resent { from: *only, to: *only }),
            _ => None,
        })
    }

    /// Returns the events in this sequence range that were sent, waiting a little for those that another worker is
    /// about to mark.
    async fn sent_events(&self, payment: Uuid, from: i64, to: i64) -> Result<Vec<SentEvent>, Stopped> {
        let mut backoff = backoff::contention();
        let deadline = Instant::now() + UNTIL_OUT;
        loop {
            let read = || self.store.sent_events(payment, from, to);
            let sent = until_answered("cannot read events", read).await?;
            if !sent.is_cut_short || Instant::now() >= deadline {
                return Ok(sent.events);
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}
