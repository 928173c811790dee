//! Executes a command from end to end: begin, call, settle, and await the confirms of all events.

use std::time::SystemTime;

use tracing::Instrument;
use uuid::Uuid;

use super::attempt::{Attempt, CallSlot, Retry};
use super::begin::Begun;
use super::engine::Engine;
use super::entry::{Entry, Execution};
use super::in_progress::Turn;
use super::settle::{Answer, Settled, report_gone};
use super::stopped::Stopped;
use super::{catch_up, spans, status};
use crate::backoff::Backoff;
use crate::failpoint;
use crate::payment::code::Code;
use crate::payment::machine::{Aggregate, Step};
use crate::telemetry::metrics;
use crate::telemetry::spans::{Span, lines};
use crate::worker::outbox::announce::Announced;
use crate::worker::variant::Variant;

/// What an execution leaves behind.
struct Trail {
    /// Its events, handed to the publisher.
    announced: Vec<Announced>,
    /// Its span, which ends when they are confirmed.
    span: Span,
}

impl Trail {
    /// Records the result of a settled answer, and returns the stored payment and the next step.
    fn take_in(&mut self, id: Uuid, settled: Settled) -> (Box<Aggregate>, Step) {
        let Settled { aggregate, step, announced } = settled;
        failpoint::reach("settled", aggregate.payment_id());
        self.announced.push(announced);
        if let Some(operation) = aggregate.operation(id) {
            spans::record_answer(&mut self.span, operation);
        }
        (aggregate, step)
    }
}

/// Once stored, an operation no longer needs its message: the worker that takes it over continues. Only what the
/// database lost must be delivered again.
fn unless_gone(stopped: Stopped) -> Result<(), Stopped> {
    if stopped == Stopped::Gone { Err(stopped) } else { Ok(()) }
}

impl Engine {
    /// Executes a command or a due operation. On `Ok` its message may be acknowledged: everything is stored in
    /// PostgreSQL, and the broker has confirmed the events or, after a timeout, they are left to the outbox. Returns
    /// false if nothing was done: the operation is already in progress in this process, or there was nothing to do.
    ///
    /// Each step is boxed: thousands of commands wait at the same time, each in one step, and should use no more memory
    /// than that step needs.
    ///
    /// # Errors
    /// The worker is shutting down, the command is not authorized, or the database refuses or has lost it.
    pub async fn execute(&self, execution: Execution) -> Result<bool, Stopped> {
        self.execute_within(execution).instrument(lines()).await
    }

    async fn execute_within(&self, execution: Execution) -> Result<bool, Stopped> {
        let Execution { mut entry, variant, mut turn, purpose, mut span } = execution;
        let since = SystemTime::now();
        span.add_ids_to_lines();
        if Box::pin(self.answer_unstored(&mut entry, &mut turn)).await? {
            return Ok(true);
        }
        if let Some(turn) = &mut turn {
            turn.wait().await;
        }
        let variant = variant.as_deref();
        // Already in progress in this process: a duplicate need not wait for it.
        let Some(guard) = self.in_progress.take(entry.id()) else {
            Box::pin(self.compare(&entry, variant)).await?;
            return Ok(false);
        };
        let mut attempt = match variant {
            Some(variant) => Some(Attempt::first(variant, purpose, self.slot(&entry, variant, purpose).await)),
            None => None,
        };
        let begun = Box::pin(self.begin(&entry, attempt.as_mut())).await?;
        let Begun { aggregate, step, announced, is_changed } = begun;
        failpoint::reach("begun", entry.payment_id());
        if let Some(operation) = aggregate.operation(entry.id()) {
            if !span.is_some() {
                span = spans::due(operation, since);
                span.add_ids_to_lines();
            }
            spans::record_answer(&mut span, operation);
        }
        span.event("stored");
        // The aggregate has everything from here on. Free the entry, as thousands may be waiting for their gateway.
        drop(entry);
        drop(turn);
        let mut trail = Trail { announced: vec![announced], span };
        let calls = matches!(step, Step::Call(_) | Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_));
        if let Some(attempt) = attempt.filter(|_| calls) {
            Box::pin(self.carry_out(attempt, aggregate, step, &mut trail)).await?;
        }
        // Released before the confirms: the next step may be due before the broker has confirmed this one's events.
        drop(guard);
        for announced in trail.announced {
            announced.confirmed().await;
        }
        trail.span.event("events out");
        Ok(is_changed)
    }

    /// Answers commands that are never stored, out of turn: they change no payment and delay none. Returns false for
    /// every other command.
    async fn answer_unstored(&self, entry: &mut Entry, turn: &mut Option<Turn>) -> Result<bool, Stopped> {
        let Entry::Command { command, .. } = entry else { return Ok(false) };
        if let Some(wanted) = catch_up::wanted(command) {
            drop(turn.take());
            self.catch_up(command, wanted).await?;
        } else if let Some(asked) = status::wanted(command) {
            drop(turn.take());
            self.publish_status(command, &asked).await?;
        } else if let Some(order) = self.pause_wanted(command) {
            drop(turn.take());
            self.order_pause(command, order).await?;
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    /// Calls, settles and retries until nothing is left to do at once.
    ///
    /// # Errors
    /// The database lost the operation.
    async fn carry_out(
        &self,
        mut attempt: Attempt<'_>,
        mut aggregate: Box<Aggregate>,
        mut step: Step,
        trail: &mut Trail,
    ) -> Result<(), Stopped> {
        let variant = attempt.variant;
        let immediate = &variant.immediate;
        let mut delays = Backoff::new(immediate.first, immediate.factor, immediate.cap);
        while let Some((id, answer)) = Box::pin(self.ask(&attempt, &aggregate, step, &trail.span)).await {
            failpoint::reach("called", aggregate.payment_id());
            // Free the slot for others, unless it is exclusive: processing the answer may be what takes workers down.
            attempt.slot = attempt.slot.filter(CallSlot::is_alone);
            if let Answer::Located(Ok(located)) = &answer {
                // The execution of each notification needs a slot of its own.
                attempt.slot = None;
                let Some(notification) = aggregate.operation(id) else { return Ok(()) };
                if let Err(stopped) = Box::pin(self.hand_on(variant, notification, located)).await {
                    return unless_gone(stopped);
                }
            }
            let settled = match Box::pin(self.settle(&attempt, aggregate, id, &answer, Retry::AtOnce)).await {
                Ok(settled) => settled,
                Err(stopped) => return unless_gone(stopped),
            };
            attempt.slot = None;
            let (next, follows) = trail.take_in(id, settled);
            aggregate = next;
            match follows {
                Step::RetryNow(_) => {
                    let last_code = aggregate.operation(id).and_then(|operation| operation.last_code);
                    tokio::time::sleep(delays.next_delay()).await;
                    attempt.slot = Box::pin(self.slot_for(&aggregate, follows, variant)).await;
                    if attempt.slot.is_none() {
                        // That nothing can be sent now does not change what the answer says: decide on it again,
                        // without an immediate retry.
                        let later = self.settle(&attempt, aggregate, id, &answer, Retry::Later);
                        match Box::pin(later).await {
                            Ok(settled) => drop(trail.take_in(id, settled)),
                            Err(stopped) => return unless_gone(stopped),
                        }
                        return Ok(());
                    }
                    attempt.tries += 1;
                    if !Box::pin(self.next_attempt(variant, &mut aggregate, id)).await {
                        return Box::pin(self.leave(variant, &aggregate, follows)).await;
                    }
                    metrics::retry(&variant.name, last_code.unwrap_or(Code::Unreachable));
                }
                Step::Call(_) | Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_) => {
                    attempt.slot = Box::pin(self.slot_for(&aggregate, follows, variant)).await;
                    step = follows;
                }
                Step::Settled | Step::Stored | Step::Resend { .. } | Step::Known(_) => return Ok(()),
            }
        }
        Box::pin(self.leave(variant, &aggregate, step)).await
    }

    /// Stores the next immediate attempt before it is sent.
    async fn next_attempt(&self, variant: &Variant, aggregate: &mut Aggregate, id: Uuid) -> bool {
        let Some(operation) = aggregate.operation(id) else { return false };
        let attempts = operation.counts.attempts.saturating_add(1);
        // Read before the renewal: the lease starts no earlier, even if the process is suspended during it.
        let renewed = self.context(Some(variant));
        let stored = self.store_attempt(operation, attempts, variant).await;
        if stored {
            aggregate.attempt_stored(id, attempts, renewed);
        }
        stored
    }

    /// Leaves an operation whose lease was lost to the worker that takes it over. If the database has lost the
    /// operation, nobody will, and its message must be delivered again.
    async fn leave(&self, variant: &Variant, aggregate: &Aggregate, step: Step) -> Result<(), Stopped> {
        let id = match step {
            Step::Call(id) | Step::RetryNow(id) | Step::Undo(id) | Step::LookUp { operation: id, .. } => id,
            Step::Locate(_) | Step::Settled | Step::Stored | Step::Resend { .. } | Step::Known(_) => return Ok(()),
        };
        match self.load(aggregate.payment_id(), &[id]).await {
            Some(stored) if stored.aggregate.operation(id).is_none() => {
                report_gone(variant, aggregate.operation(id), None);
                Err(Stopped::Gone)
            }
            Some(_) | None => Ok(()),
        }
    }
}
