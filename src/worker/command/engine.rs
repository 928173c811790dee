//! State and operations that all steps of an execution share.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::attempt::{Attempt, Purpose};
use super::authorize::Authorization;
use super::in_progress::{InProgress, PaymentQueue};
use super::resend_runs::Runs;
use super::stopped::Stopped;
use crate::backoff::retry;
use crate::bus::envelope;
use crate::error_chain::chain;
use crate::gateway::Ask;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Kind;
use crate::payment::event::EventKind;
use crate::payment::machine::{Aggregate, Context, Rules, Step};
use crate::payment::model::Payment;
use crate::store::Store;
use crate::store::commit::Unit;
use crate::store::commit::batch::{Committed, Committer};
use crate::store::error::StoreError;
use crate::store::load::{Loaded, Unsent};
use crate::telemetry::metrics::{self, CommandOutcome};
use crate::worker::alerts;
use crate::worker::outbox::announce::{Announced, Announcer, outgoing};
use crate::worker::variant::Variant;
use crate::worker::variant::breaker::State;
use crate::{backoff, failpoint};

/// Timeout of calls that may wait indefinitely: beyond any rate limit's delay, yet small enough to add to an `Instant`.
pub const WAIT_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// The attempt at which a failing load of a payment is first logged as a warning, and the interval at which it is
/// logged again. The database health check does not cover this case: it runs other queries, which may well succeed.
const LOGGED_FROM: u32 = 5;
const LOGGED_EVERY: u32 = 60;

/// What all steps of an execution share.
pub struct Engine {
    /// Identifies this process as the owner of leases.
    pub worker: Uuid,
    /// Access to PostgreSQL.
    pub store: Arc<Store>,
    /// Commits decisions of the begin step.
    pub begin_commits: Committer,
    /// Commits answers, separately from `begin_commits`, so that an answer never waits behind new commands.
    pub settle_commits: Committer,
    /// Publishes events.
    pub announcer: Arc<Announcer>,
    /// Decides who may send what.
    pub authorization: Authorization,
    /// The configured variants by name.
    pub variants: Arc<HashMap<String, Arc<Variant>>>,
    /// Rules for commands whose variant is not configured: all of them are rejected.
    pub no_variant: Rules,
    /// Operations in progress in this process.
    pub in_progress: InProgress,
    /// The payment queues: commands of one payment are decided in order of arrival.
    pub order: PaymentQueue,
    /// Recent resends to all subscribers.
    pub runs: Runs,
    /// Maximum clock skew between a gateway and PostgreSQL. Beyond it, a gateway's "not found" proves nothing.
    pub clock_tolerance: Duration,
    /// Retention period of events.
    pub kept: Duration,
    /// Cancelled when the worker drains: no new calls from then on.
    pub draining: CancellationToken,
    /// Notified when work becomes due on this replica.
    pub wake: Arc<Notify>,
    /// Held while the variants' pauses are read.
    pub pauses: tokio::sync::Mutex<()>,
}

/// A decision that was committed.
pub struct Done {
    /// The aggregate as stored.
    pub aggregate: Box<Aggregate>,
    /// The events of the commit, handed to the publisher.
    pub announced: Announced,
}

impl Engine {
    /// Returns the rules of a variant, or the rules for unknown variants.
    pub fn rules<'a>(&'a self, variant: Option<&'a Variant>) -> &'a Rules {
        variant.map_or(&self.no_variant, |variant| &variant.rules)
    }

    /// Returns the context for a decision made now.
    pub fn context<'a>(&'a self, variant: Option<&'a Variant>) -> Context<'a> {
        Context {
            now: self.store.clock().now(),
            worker: self.worker,
            rules: self.rules(variant),
            paused_for: variant.and_then(|variant| self.paused_for(variant)),
            questions_paused_for: variant.and_then(|variant| self.questions_paused_for(variant)),
            clocks_agree: variant.is_none_or(|variant| self.clocks_agree(variant)),
        }
    }

    /// Returns the context for a decision on the next call of an attempt. The breaker does not pause a probe.
    pub fn context_of<'a>(&'a self, attempt: Option<&Attempt<'a>>) -> Context<'a> {
        let context = self.context(attempt.map(|attempt| attempt.variant));
        match attempt.map(|attempt| attempt.purpose) {
            Some(Purpose::Probe) => {
                let paused_for = attempt.and_then(|attempt| self.paused_by_people(attempt.variant));
                Context { paused_for, questions_paused_for: self.paused_for_draining(), ..context }
            }
            Some(Purpose::Work) | None => context,
        }
    }

    /// Returns how far a gateway's clock is ahead of PostgreSQL's, or `None` if its responses carry no time.
    pub fn clock_ahead(&self, variant: &Variant) -> Option<SignedDuration> {
        variant.gateway.clock().map(|reading| reading.ahead_of(self.store.clock().now()))
    }

    /// Whether a gateway's clock and PostgreSQL's agree within the tolerance. An unknown clock counts as agreeing.
    pub fn clocks_agree(&self, variant: &Variant) -> bool {
        self.clock_ahead(variant).is_none_or(|ahead| ahead.unsigned_abs() <= self.clock_tolerance)
    }

    /// Returns how long calls are paused, or `None` if they may go out.
    pub fn paused_for(&self, variant: &Variant) -> Option<Duration> {
        self.paused_by_people(variant).or_else(|| variant.breaker.paused_for())
    }

    /// The same for what only asks: an operator's pause does not stop it.
    pub fn questions_paused_for(&self, variant: &Variant) -> Option<Duration> {
        self.paused_for_draining().or_else(|| variant.breaker.paused_for())
    }

    /// The same, whatever the breaker says: the worker drains, or an operator has paused the variant.
    fn paused_by_people(&self, variant: &Variant) -> Option<Duration> {
        self.paused_for_draining().or_else(|| variant.pause.paused_for(self.store.clock().now()))
    }

    fn paused_for_draining(&self) -> Option<Duration> {
        self.draining.is_cancelled().then_some(Duration::ZERO)
    }

    /// Waits until a call may go out within the variant's concurrency and rate limits. Returns `None` if calls are
    /// paused meanwhile or if the wait would exceed `wait_max`.
    pub async fn permit(&self, variant: &Variant, wait_max: Duration) -> Option<OwnedSemaphorePermit> {
        let mut pause = variant.pause.watch();
        let now = || self.store.clock().now();
        tokio::select! {
            permit = self.permit_to_ask(variant, wait_max) => permit,
            _ = pause.wait_for(|pause| pause.as_ref().is_some_and(|pause| pause.lasts(now()))) => None,
        }
    }

    /// The same for a call that may only ask: an operator's pause does not stop it.
    pub async fn permit_to_ask(&self, variant: &Variant, wait_max: Duration) -> Option<OwnedSemaphorePermit> {
        let mut breaker = variant.breaker.watch();
        let deadline = Instant::now() + wait_max.min(WAIT_MAX);
        let wait = async {
            let permit = Arc::clone(&variant.calls).acquire_owned().await.ok()?;
            let Some(rate) = &variant.rate else { return Some(permit) };
            // Boxed: otherwise every command's future would be as large as that of a database query.
            let reserve = || Box::pin(rate.wait(&self.store, deadline));
            let Ok(in_time) = retry(backoff::reconnect(), reserve, |error, _| -> Result<(), Infallible> {
                warn!(
                    error = chain(&error),
                    variant = variant.name,
                    "cannot reserve a call under the variant's rate; retrying"
                );
                Ok(())
            })
            .await;
            in_time.then_some(permit)
        };
        tokio::select! {
            permit = timeout_at(deadline, wait) => permit.ok().flatten(),
            () = self.draining.cancelled() => None,
            _ = breaker.wait_for(|state| *state != State::Closed) => None,
        }
    }

    /// Loads a payment with its open operations and with the given `operations`, even if these are settled. Retries
    /// until the database answers. Returns `None` if the stored data cannot be decoded.
    pub async fn load(&self, payment: Uuid, operations: &[Uuid]) -> Option<Loaded> {
        // A short backoff: if this replica has yet to store a payment after an outage, commands that wait for that
        // payment on another replica could run out of their grace period.
        let backoff = backoff::contention();
        let load = || Box::pin(self.store.load_one(payment, operations));
        let loaded = retry(backoff, load, |error, tries| {
            match error {
                // No retry: until a version arrives that can decode it, the command would only occupy slots.
                error @ StoreError::Unreadable(_) => {
                    error!(
                        error = chain(&error),
                        %payment,
                        ?operations,
                        "cannot read a stored payment; dead-lettering the message for it"
                    );
                    return Err(());
                }
                error if tries % LOGGED_EVERY == LOGGED_FROM => {
                    warn!(error = chain(&error), %payment, ?operations, tries, "cannot load a payment; retrying");
                }
                // Debug only: `report::database` logs an outage once for all commands.
                error => debug!(error = chain(&error), %payment, "cannot load a payment; retrying"),
            }
            Ok(())
        });
        loaded.await.ok()
    }

    /// Writes the request body of the call that was decided on.
    ///
    /// # Errors
    /// The gateway supports no such request. Then nothing of the decision may be stored.
    pub fn prepare(&self, aggregate: &mut Aggregate, step: Step, variant: Option<&Variant>) -> Result<(), Rejection> {
        let (Step::Call(id), Some(variant)) = (step, variant) else { return Ok(()) };
        if let Some(body) = request_body(aggregate, id, variant) {
            aggregate.set_request_body(id, body?);
        }
        Ok(())
    }

    /// Commits a decision and hands its events to the publisher, behind the payment's unsent ones.
    ///
    /// # Errors
    /// The commit did not go through, or its outcome is unknown; see [`Failure`].
    pub async fn commit(
        &self,
        committer: &Committer,
        aggregate: Box<Aggregate>,
        now: Timestamp,
        unsent: Unsent,
    ) -> Result<Done, Failure> {
        let bodies = aggregate.events().iter().map(envelope::event_body).collect();
        let promise = self.announcer.promise(aggregate.events());
        let Some((unit, committed)) = committer.commit(Unit { aggregate, bodies, now }).await else {
            return Err(Failure::Ending);
        };
        match committed {
            Committed::Stored(stored) => {
                let due = next_due(&unit.aggregate, now);
                let new = outgoing(unit.aggregate.events(), unit.bodies, &stored.events);
                report_metrics(&unit.aggregate);
                failpoint::reach("committed", unit.aggregate.payment_id());
                // Keep the promise only for events that this commit stored. An event that was stored before and emitted
                // again is among the `unsent` ones, and nobody can claim it there while it is promised.
                let promise = promise.only(|id| stored.events.iter().any(|(new, _)| *new == id));
                let payment = unit.aggregate.payment_id();
                let announced = Box::pin(self.announcer.announce_new(payment, unsent, new, promise)).await;
                let mut aggregate = unit.aggregate;
                aggregate.committed(stored.waiting);
                if let Some(pause) = due {
                    self.wake_after(pause);
                }
                Ok(Done { aggregate, announced })
            }
            Committed::Conflict | Committed::Unknown => Err(Failure::Again),
            Committed::Refused(reason) => Err(Failure::Refused(reason)),
        }
    }

    fn wake_after(&self, pause: Duration) {
        if pause.is_zero() {
            self.wake.notify_waiters();
            return;
        }
        let wake = Arc::clone(&self.wake);
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            wake.notify_waiters();
        });
    }
}

/// Repeats a query until the database answers it. `problem` is the log message for each failed attempt.
///
/// # Errors
/// The stored data cannot be decoded, or the database refuses the statement for good.
pub async fn until_answered<T, Asked>(problem: &str, ask: impl Fn() -> Asked) -> Result<T, Stopped>
where
    Asked: Future<Output = Result<T, StoreError>>,
{
    retry(backoff::contention(), ask, |error, _| match error {
        StoreError::Unreadable(_) | StoreError::Refused(_) => Err(Stopped::Refused),
        error => {
            debug!(error = chain(&error), "{problem}; retrying");
            Ok(())
        }
    })
    .await
}

/// Returns how soon this replica should look for due work itself rather than at its next poll. Set for operations that
/// are due right now, and for a command whose payment is missing: the payment is probably about to be stored.
fn next_due(aggregate: &Aggregate, now: Timestamp) -> Option<Duration> {
    let operations = || aggregate.changed_operations().chain(aggregate.new_operations());
    let dues = operations().filter_map(|operation| operation.due_at);
    let first = dues.filter(|due| *due == now || aggregate.payment().is_none()).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or_default())
}

/// Why a decision was not stored.
#[derive(Debug)]
pub enum Failure {
    /// Another writer was first, or the outcome is unknown: load and decide again.
    Again,
    /// The database refuses it for good, for this reason.
    Refused(String),
    /// The worker is shutting down.
    Ending,
}

fn request_body(aggregate: &Aggregate, id: Uuid, variant: &Variant) -> Option<Result<String, Rejection>> {
    let operation = aggregate.operation(id)?;
    let payment: &Payment = aggregate.payment()?;
    let request = operation.request.as_ref().filter(|request| request.body.is_empty())?;
    let empty = serde_json::Map::new();
    let data = operation.data.get("process").and_then(|value| value.as_object()).unwrap_or(&empty);
    let ask = Ask {
        operation_id: id,
        action: operation.action()?,
        payment,
        amount: request.amount,
        capture: request.capture,
        confirms: operation.confirms(),
        is_final: !operation.is_partial_capture(),
        reference: operation.refunds_from(),
        data,
    };
    Some(variant.gateway.prepare(&ask))
}

fn report_metrics(aggregate: &Aggregate) {
    for event in aggregate.events() {
        alerts::raise(event);
        let Some(cause) = &event.cause else { continue };
        let outcome = match &event.kind {
            EventKind::Rejected { .. } => CommandOutcome::Rejected,
            EventKind::Failed { .. } => CommandOutcome::Failed,
            EventKind::Delayed { .. } => CommandOutcome::Delayed,
            EventKind::StatusChanged { why, .. } | EventKind::Updated { why, .. } => {
                if why.code.is_some_and(|code| code != Code::DoubleCharge) {
                    CommandOutcome::Failed
                } else {
                    CommandOutcome::Succeeded
                }
            }
            EventKind::Created { .. }
            | EventKind::Succeeded { .. }
            | EventKind::Snapshot { .. }
            | EventKind::EventsResent(_)
            | EventKind::PauseChanged(_) => CommandOutcome::Succeeded,
        };
        if cause.is_final || outcome == CommandOutcome::Delayed {
            metrics::command_settled(&Kind::from_word(&cause.kind), &event.variant, outcome);
        }
    }
}
