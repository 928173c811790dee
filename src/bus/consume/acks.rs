//! Acknowledgements of one channel, sent in batches: each costs the broker an entry in the log of a quorum queue, and
//! this process a frame.
//!
//! Everything that is done up to some delivery is acknowledged at once, with `multiple`. A slow delivery delays later
//! ones only briefly: then they are acknowledged one by one. On an idle channel nothing is delayed.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use lapin::Channel;
use lapin::options::BasicAckOptions;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

/// How many acknowledgements are taken from the channel at a time.
const AT_ONCE: usize = 1024;

/// How long an acknowledgement waits for earlier ones: too short for anybody to notice, and long enough for the batches
/// of a busy worker to complete.
const IN_LINE_MAX: Duration = Duration::from_millis(10);

/// The acknowledgements of one channel. Cheap to clone.
#[derive(Debug, Clone)]
pub(in crate::bus) struct Acks {
    done: mpsc::UnboundedSender<Done>,
}

/// A delivery that is done.
#[derive(Debug)]
struct Done {
    tag: u64,
    /// Receives whether the acknowledgement was sent; `None` if the delivery is settled already.
    sent: Option<oneshot::Sender<bool>>,
}

impl Acks {
    /// Starts for a channel on which nothing was delivered yet, and ends when the last handle is dropped. At most
    /// `waiting_max` acknowledgements wait for earlier ones.
    pub(in crate::bus) fn spawn(channel: Channel, waiting_max: usize, ack_timeout: Duration) -> Acks {
        let (done, incoming) = mpsc::unbounded_channel();
        tokio::spawn(Sender { channel, ack_timeout, waiting_max, line: Line::new() }.run(incoming));
        Acks { done }
    }

    /// Acknowledges a delivery soon, together with others. Returns whether the acknowledgement was sent.
    pub(in crate::bus) async fn acknowledge(&self, tag: u64) -> bool {
        let (sent, answer) = oneshot::channel();
        self.done.send(Done { tag, sent: Some(sent) }).is_ok() && answer.await.unwrap_or(false)
    }

    /// Records that a delivery was settled on its own.
    pub(in crate::bus) fn settled(&self, tag: u64) {
        if self.done.send(Done { tag, sent: None }).is_err() {
            debug!(tag, "delivery settled after its channel was abandoned");
        }
    }
}

/// Which deliveries are done, and which of them are still to be acknowledged.
#[derive(Debug)]
struct Line {
    /// The first delivery that is not known to be done, and so may be in progress.
    next: u64,
    /// The done deliveries behind `next`, as runs from first to last. One delivery may be in progress for hours while
    /// millions of later ones are done.
    settled: BTreeMap<u64, u64>,
    /// The acknowledgements to be sent.
    waiting: BTreeMap<u64, oneshot::Sender<bool>>,
    /// Since when the oldest of them has been waiting for an earlier one.
    since: Option<Instant>,
}

impl Line {
    fn new() -> Line {
        Line { next: 1, settled: BTreeMap::new(), waiting: BTreeMap::new(), since: None }
    }

    /// Ignores a delivery that is already done: the broker would close the channel over a second acknowledgement.
    fn take(&mut self, done: Done) {
        if self.settle(done.tag) {
            self.waiting.extend(done.sent.map(|sent| (done.tag, sent)));
        }
    }

    /// Marks a delivery as done; returns whether it was not done before.
    fn settle(&mut self, tag: u64) -> bool {
        let before = self.settled.range(..=tag).next_back().map(|(first, last)| (*first, *last));
        if tag < self.next || before.is_some_and(|(_, last)| tag <= last) {
            return false;
        }
        let first = before.filter(|(_, last)| last + 1 == tag).map_or(tag, |(first, _)| first);
        let last = self.settled.remove(&(tag + 1)).unwrap_or(tag);
        self.settled.insert(first, last);
        true
    }

    /// Takes out those before which nothing is in progress: one acknowledgement with `multiple` covers them all.
    fn in_line(&mut self) -> BTreeMap<u64, oneshot::Sender<bool>> {
        if let Some(last) = self.settled.remove(&self.next) {
            self.next = last + 1;
        }
        let later = self.waiting.split_off(&self.next);
        std::mem::replace(&mut self.waiting, later)
    }

    /// Takes out those that have waited long enough, or are too many.
    fn impatient(&mut self, now: Instant, waiting_max: usize) -> BTreeMap<u64, oneshot::Sender<bool>> {
        if self.waiting.is_empty() {
            self.since = None;
            return BTreeMap::new();
        }
        let since = *self.since.get_or_insert(now);
        if now < since + IN_LINE_MAX && self.waiting.len() <= waiting_max {
            return BTreeMap::new();
        }
        self.since = None;
        std::mem::take(&mut self.waiting)
    }
}

struct Sender {
    channel: Channel,
    ack_timeout: Duration,
    waiting_max: usize,
    line: Line,
}

impl Sender {
    async fn run(mut self, mut incoming: mpsc::UnboundedReceiver<Done>) {
        let mut batch = Vec::new();
        loop {
            let due = self.line.since.map(|since| since + IN_LINE_MAX);
            tokio::select! {
                taken = incoming.recv_many(&mut batch, AT_ONCE) => if taken == 0 { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
            }
            for done in batch.drain(..) {
                self.line.take(done);
            }
            let in_line = self.line.in_line();
            if let Some((last, _)) = in_line.last_key_value() {
                let sent = self.ack(*last, in_line.len() > 1).await;
                report(in_line, sent);
            }
            let impatient = self.line.impatient(Instant::now(), self.waiting_max);
            let acks = impatient.into_iter().map(async |(tag, one)| report([(tag, one)], self.ack(tag, false).await));
            join_all(acks).await;
        }
    }

    async fn ack(&self, tag: u64, multiple: bool) -> bool {
        match timeout(self.ack_timeout, self.channel.basic_ack(tag, BasicAckOptions { multiple })).await {
            Ok(Ok(())) => return true,
            Ok(Err(error)) => debug!(tag, %error, "cannot acknowledge deliveries; the broker will redeliver them"),
            // It may still be sent later.
            Err(_) => debug!(tag, "acknowledging deliveries timed out; the broker may redeliver them"),
        }
        false
    }
}

fn report(all: impl IntoIterator<Item = (u64, oneshot::Sender<bool>)>, sent: bool) {
    for (tag, one) in all {
        if one.send(sent).is_err() {
            debug!(tag, "result of an acknowledgement dropped: its task has ended");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acknowledge(line: &mut Line, tags: &[u64]) {
        for tag in tags {
            line.take(Done { tag: *tag, sent: Some(oneshot::channel().0) });
        }
    }

    fn tags(acks: BTreeMap<u64, oneshot::Sender<bool>>) -> Vec<u64> {
        acks.into_keys().collect()
    }

    #[test]
    fn what_is_done_up_to_the_first_that_is_not_goes_together() {
        let mut line = Line::new();
        acknowledge(&mut line, &[2, 1, 3, 5]);
        assert_eq!(tags(line.in_line()), [1, 2, 3]);
        assert_eq!(tags(line.in_line()), [0_u64; 0]);
        acknowledge(&mut line, &[4]);
        assert_eq!(tags(line.in_line()), [4, 5]);
    }

    #[test]
    fn what_was_settled_by_itself_is_in_nobodys_way_and_not_acknowledged_again() {
        let mut line = Line::new();
        acknowledge(&mut line, &[1, 3]);
        line.take(Done { tag: 2, sent: None });
        assert_eq!(tags(line.in_line()), [1, 3]);
        line.take(Done { tag: 4, sent: None });
        assert_eq!(tags(line.in_line()), [0_u64; 0]);
        acknowledge(&mut line, &[5]);
        assert_eq!(tags(line.in_line()), [5]);
    }

    #[test]
    fn a_slow_delivery_delays_later_acknowledgements_only_briefly() {
        let (mut line, now) = (Line::new(), Instant::now());
        acknowledge(&mut line, &[2, 3]);
        assert_eq!(tags(line.impatient(now, 8)), [0_u64; 0]);
        assert_eq!(tags(line.impatient(now + IN_LINE_MAX / 2, 8)), [0_u64; 0]);
        assert_eq!(tags(line.impatient(now + IN_LINE_MAX, 8)), [2, 3]);
        // Later ones get a waiting time of their own.
        acknowledge(&mut line, &[5]);
        assert_eq!(tags(line.impatient(now + IN_LINE_MAX, 8)), [0_u64; 0]);
        acknowledge(&mut line, &[1]);
        assert_eq!(tags(line.in_line()), [1]);
        acknowledge(&mut line, &[4]);
        assert_eq!(tags(line.in_line()), [4, 5]);
    }

    #[test]
    fn what_is_done_is_kept_as_runs_and_counts_once() {
        let mut line = Line::new();
        acknowledge(&mut line, &[4, 2, 7, 3, 3, 4]);
        assert_eq!(line.settled, BTreeMap::from([(2, 4), (7, 7)]));
        assert_eq!(line.waiting.len(), 4);
        acknowledge(&mut line, &[1]);
        assert_eq!(tags(line.in_line()), [1, 2, 3, 4]);
        acknowledge(&mut line, &[2]);
        assert_eq!(tags(line.in_line()), [0_u64; 0]);
        acknowledge(&mut line, &[6, 5]);
        assert_eq!(tags(line.in_line()), [5, 6, 7]);
    }

    #[test]
    fn only_so_many_wait() {
        let mut line = Line::new();
        acknowledge(&mut line, &[2, 3, 4]);
        assert_eq!(tags(line.impatient(Instant::now(), 2)), [2, 3, 4]);
    }
}
