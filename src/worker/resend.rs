//! Events once more, for who missed them: before their command is answered, so that the answer says what went out.
//!
//! Commands of one payment wait for each other. Those that want events sent to all subscribers are answered by one run
//! where that began after they came: so many at once are few runs, and all that was published before a command went out
//! again before its answer. What goes to a `reply_to` alone bothers nobody else, and is sent for each.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use tracing::debug;
use uuid::Uuid;

use super::begin::{Entry, Stopped};
use super::engine::{Engine, until_answered};
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

/// How long a run is remembered. A command that waits for longer than this is given a run of its own.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The last run of each payment to all subscribers.
#[derive(Debug, Default)]
pub struct Runs(Mutex<HashMap<Uuid, Run>>);

/// Events of a payment that were sent to all subscribers once more.
#[derive(Debug, Clone, Copy)]
struct Run {
    begun: Instant,
    /// Those that were asked for.
    from: i64,
    to: i64,
    /// Those that went out.
    resent: Option<Resent>,
}

impl Runs {
    /// The last run, where it began after `came` and these events were among those that it was asked for.
    fn since(&self, came: Instant, payment: Uuid, from: i64, to: i64) -> Option<Run> {
        let run = self.lock().get(&payment).copied()?;
        (run.begun > came && run.from <= from && to <= run.to).then_some(run)
    }

    fn ran(&self, payment: Uuid, run: Run) {
        let mut runs = self.lock();
        runs.retain(|_, run| run.begun.elapsed() < REMEMBERED);
        runs.insert(payment, run);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid, Run>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Run {
    /// What went out of these.
    fn part(&self, from: i64, to: i64) -> Option<Resent> {
        let resent = self.resent?;
        let (from, to) = (resent.from.max(from), resent.to.min(to));
        (from <= to).then_some(Resent { from, to })
    }
}

impl Engine {
    /// Sends events that were sent before once more, to where their command wants its answer, else to all; and answers it
    /// with what the broker has taken. What was never sent yet is on its way anyhow.
    pub(super) async fn resend(
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

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn run(from: i64, to: i64) -> Run {
        Run { begun: Instant::now(), from, to, resent: Some(Resent { from, to }) }
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_is_for_those_that_came_before_it_began() {
        let (runs, payment) = (Runs::default(), Uuid::nil());
        let before = Instant::now();
        advance(SECOND).await;
        runs.ran(payment, run(3, 9));
        let at_once = Instant::now();
        advance(SECOND).await;
        let found = |came: Instant, from: i64, to: i64| runs.since(came, payment, from, to);
        assert!(found(before, 3, 9).is_some() && found(before, 4, 8).is_some());
        assert!(found(before, 2, 9).is_none() && found(before, 3, 10).is_none(), "these it was not asked for");
        assert!(found(at_once, 3, 9).is_none() && found(Instant::now(), 3, 9).is_none(), "it may have missed it");
        assert!(runs.since(before, Uuid::max(), 3, 9).is_none(), "another payment's");
        advance(REMEMBERED).await;
        runs.ran(Uuid::max(), run(1, 1));
        assert!(found(before, 3, 9).is_none());
    }

    #[tokio::test]
    async fn of_a_run_each_is_told_the_part_that_it_asked_for() {
        let whole = run(3, 9);
        assert_eq!(whole.part(4, 6), Some(Resent { from: 4, to: 6 }));
        let cut = Run { resent: Some(Resent { from: 3, to: 5 }), ..whole };
        assert_eq!((cut.part(3, 9), cut.part(6, 9)), (Some(Resent { from: 3, to: 5 }), None));
        assert_eq!(Run { resent: None, ..whole }.part(3, 9), None);
    }
}
