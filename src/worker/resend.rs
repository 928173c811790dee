//! Events once more, for who missed them: before their command is answered, so that the answer says what went out.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::begin::Stopped;
use super::engine::{Engine, until_answered};
use crate::backoff;
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
    pub(super) async fn resend(
        &self,
        aggregate: &mut Aggregate,
        operation: Uuid,
        from: i64,
        to: i64,
        now: Timestamp,
    ) -> Result<Step, Stopped> {
        let payment = aggregate.payment_id();
        // What went out a moment ago is sent as well.
        self.announcer.marked().await;
        let events = self.sent_events(payment, from, to).await?;
        let sequences: Vec<i64> = events.iter().map(|event| event.sequence).collect();
        let reply = aggregate.operation(operation).and_then(|operation| operation.attributes.reply.clone());
        let events = events.into_iter().map(|sent| sent.event).collect();
        let taken = self.announcer.resend(events, reply, PATIENCE).await;
        let resent = match sequences.get(..taken) {
            Some([first, .., last]) => Some(Resent { from: *first, to: *last }),
            Some([only]) => Some(Resent { from: *only, to: *only }),
            _ => None,
        };
        Ok(aggregate.resent(operation, resent, now))
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
