//! Runs that resent a payment's events to all subscribers. One run answers all commands that were waiting for it.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use crate::payment::event::Resent;

/// How long a run is remembered. A command that waited longer gets a run of its own.
const REMEMBERED: Duration = Duration::from_secs(60);

/// The last run of each payment to all subscribers.
#[derive(Debug, Default)]
pub struct Runs(Mutex<HashMap<Uuid, Run>>);

/// One resend of a payment's events to all subscribers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Run {
    /// When it began.
    pub(crate) begun: Instant,
    /// The sequence range that was requested.
    pub(crate) from: i64,
    pub(crate) to: i64,
    /// The part of it that went out.
    pub(crate) resent: Option<Resent>,
}

impl Runs {
    /// Returns the last run if it began after `came` and covers this sequence range.
    pub(crate) fn since(&self, came: Instant, payment: Uuid, from: i64, to: i64) -> Option<Run> {
        let run = self.0.lock().get(&payment).copied()?;
        (run.begun > came && run.from <= from && to <= run.to).then_some(run)
    }

    pub(crate) fn ran(&self, payment: Uuid, run: Run) {
        let mut runs = self.0.lock();
        runs.retain(|_, run| run.begun.elapsed() < REMEMBERED);
        runs.insert(payment, run);
    }
}

impl Run {
    /// Returns the part of this sequence range that went out.
    pub(crate) fn part(&self, from: i64, to: i64) -> Option<Resent> {
        let resent = self.resent?;
        let (from, to) = (resent.from.max(from), resent.to.min(to));
        (from <= to).then_some(Resent { from, to })
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
    async fn each_command_of_a_run_gets_the_part_that_it_asked_for() {
        let whole = run(3, 9);
        assert_eq!(whole.part(4, 6), Some(Resent { from: 4, to: 6 }));
        let cut = Run { resent: Some(Resent { from: 3, to: 5 }), ..whole };
        assert_eq!((cut.part(3, 9), cut.part(6, 9)), (Some(Resent { from: 3, to: 5 }), None));
        assert_eq!(Run { resent: None, ..whole }.part(3, 9), None);
    }
}
