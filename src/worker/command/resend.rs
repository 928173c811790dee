//! Events once more, for who missed them: before their command is answered, so that the answer says what went out.
//!
//! Commands of one payment wait for each other. Those that want events sent to all subscribers are answered by one run
//! where that began after they came: so many at once are few runs, and all that was published before a command went out
//! again before its answer. What goes to a `reply_to` alone bothers nobody else, and is sent for each.

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

/// How long the broker may take for them; commands of the payment that come meanwhile wait.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long stored events are waited for until they are out. Another worker marks what it has published a moment later;
/// what takes longer has reached nobody yet, and comes by itself.
const UNTIL_OUT: Duration = Duration::from_secs(2);

impl Engine {
    /// Sends events that were sent before once more, to where their command wants its answer, else to all; and answers it
    /// with what the broker has taken. What was never sent yet is on its way anyhow.
    pub(crate) async fn resend(
        &self,
        entry: &Entry,
        aggregate: &mut Aggregate,
        operation: Uuid,
        from: i64,
        to: i64,
        now: Timestamp,
    ) -> Result<Step, Stopped> {
        let payment = aggregate.payment_id();
        let reply = aggregate.operation(operation).and_then(|operation| operation.attributes.reply.clone());
        if reply.is_some() {
            let resent = self.run(payment, from, to, reply).await?;
            return Ok(aggregate.resent(operation, resent, now));
        }
        if let Some(run) = entry.came().and_then(|came| self.runs.since(came, payment, from, to)) {
            debug!(%payment, %operation, "the events went out since the command came; they are not sent again");
            return Ok(aggregate.resent(operation, run.part(from, to), now));
        }
        let begun = Instant::now();
        let resent = self.run(payment, from, to, None).await?;
        self.runs.ran(payment, Run { begun, from, to, resent });
        Ok(aggregate.resent(operation, resent, now))
    }

    /// Sends them, and tells which of them the broker has taken.
    async fn run(&self, payment: Uuid, from: i64, to: i64, reply: Option<Reply>) -> Result<Option<Resent>, Stopped> {
        // What went out a moment ago is sent as well.
        self.announcer.marked().await;
        let events = self.sent_events(payment, from, to).await?;
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        let events = events.into_iter().map(|sent| sent.event).collect();
        let taken = self.announcer.resend(events, reply, PATIENCE).await;
        Ok(match sequences.get(..taken) {
            Some([first, .., last]) => Some(Resent { from: *first, to: *last }),
            Some([only]) => Some(Resent { from: *only, to: *only }),
            _ => None,
        })
    }

    /// Those of these numbers that are out, with some patience for what another worker is about to mark.
    async fn sent_events(&self, payment: Uuid, from: i64, to: i64) -> Result<Vec<SentEvent>, Stopped> {
        let mut backoff = backoff::contention();
        let deadline = Instant::now() + UNTIL_OUT;
        loop {
            let read = || self.store.sent_events(payment, from, to);
            let sent = until_answered("events cannot be read", read).await?;
            if !sent.is_cut_short || Instant::now() >= deadline {
                return Ok(sent.events);
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }
}
