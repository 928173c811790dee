//! What every step of a command's way shares.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, warn};
use uuid::Uuid;

use super::authorize::Authorization;
use super::in_progress::{InProgress, PaymentQueue};
use super::resend_runs::Runs;
use super::stopped::Stopped;
use crate::bus::envelope;
use crate::error_chain::chain;
use crate::gateway::Ask;
use crate::http::metrics::{self, CommandOutcome};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Kind;
use crate::payment::event::EventKind;
use crate::payment::machine::{Aggregate, Context, Rules, Step};
use crate::payment::model::Payment;
use crate::store::Store;
use crate::store::batch::{Committed, Committer};
use crate::store::commit::Unit;
use crate::store::error::StoreError;
use crate::store::load::{Loaded, Unsent};
use crate::worker::outbox::announce::Announcer;
use crate::worker::variant::Variant;
use crate::{backoff, failpoint};

/// The longest that anything waits to be called, where it may wait as long as it takes: far beyond any limit's delay, and
/// within what a clock can add.
pub const PATIENCE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// From which try on, and every how many tries, it is told that a payment cannot be loaded: the watch over the database
/// asks other things, which may well succeed.
const TOLD_FROM: u32 = 5;
const TOLD_EVERY: u32 = 60;

/// What every step of a command's way shares.
pub struct Engine {
    /// This process, as the owner of leases.
    pub worker: Uuid,
    /// PostgreSQL.
    pub store: Arc<Store>,
    /// Commits of the first step.
    pub begin: Committer,
    /// Commits of answers: on a lane of their own, so that an answer never waits behind new commands.
    pub settle: Committer,
    /// Events on their way out.
    pub announcer: Arc<Announcer>,
    /// Who may send what.
    pub authorization: Authorization,
    /// The configured variants.
    pub variants: Arc<HashMap<String, Arc<Variant>>>,
    /// Rules for commands of no known variant: all of them are rejected.
    pub no_variant: Rules,
    /// Operations that this process is at.
    pub held: InProgress,
    /// Commands of one payment are decided in the order in which they came.
    pub order: PaymentQueue,
    /// What was sent once more a moment ago.
    pub runs: Runs,
    /// How far a gateway's clock and PostgreSQL's may be apart before absence proves nothing.
    pub clock_tolerance: Duration,
    /// How long events are kept.
    pub kept: Duration,
    /// No new calls.
    pub draining: CancellationToken,
    /// Something became due on this replica.
    pub wake: Arc<Notify>,
}

/// A commit that went through.
pub struct Done {
    /// As stored.
    pub aggregate: Box<Aggregate>,
    /// Its events, on their way out.
    pub announced: crate::worker::outbox::announce::Announced,
}

impl Engine {
    /// The rules of a variant, or those for none.
    pub fn rules<'a>(&'a self, variant: Option<&'a Variant>) -> &'a Rules {
        variant.map_or(&self.no_variant, |variant| &variant.rules)
    }

    /// The circumstances of a decision now. A probe is let through where others are held back.
    pub fn context<'a>(&'a self, variant: Option<&'a Variant>, probe: bool) -> Context<'a> {
        Context {
            now: self.store.clock().now(),
            worker: self.worker,
            rules: self.rules(variant),
            hold: variant.and_then(|variant| self.hold(variant, probe)),
            clocks_agree: variant.is_none_or(|variant| self.clocks_agree(variant)),
        }
    }

    /// How far a gateway's clock is ahead of PostgreSQL's; `None` where its answers say nothing of its clock.
    pub fn clock_ahead(&self, variant: &Variant) -> Option<SignedDuration> {
        variant.gateway.clock().map(|reading| reading.ahead_of(self.store.clock().now()))
    }

    /// Whether a gateway's clock and PostgreSQL's agree, as far as its answers tell.
    pub fn clocks_agree(&self, variant: &Variant) -> bool {
        self.clock_ahead(variant).is_none_or(|ahead| ahead.unsigned_abs() <= self.clock_tolerance)
    }

    /// How long calls are held back.
    pub fn hold(&self, variant: &Variant, probe: bool) -> Option<Duration> {
        if self.draining.is_cancelled() {
            return Some(Duration::ZERO);
        }
        if probe { None } else { variant.breaker.hold() }
    }

    /// Waits until a call may go out: within the concurrency and the rate. Nothing where calls are held back instead, or
    /// where it would take longer than `patience`.
    pub async fn permit(&self, variant: &Variant, patience: Duration) -> Option<OwnedSemaphorePermit> {
        let mut breaker = variant.breaker.watch();
        let deadline = Instant::now() + patience.min(PATIENCE_MAX);
        let wait = async {
            let permit = Arc::clone(&variant.calls).acquire_owned().await.ok()?;
            let Some(rate) = &variant.rate else { return Some(permit) };
            let mut backoff = backoff::reconnect();
            loop {
                // Boxed: it asks the database, and every command would keep the room for it.
                match Box::pin(rate.wait(&self.store, deadline)).await {
                    Ok(in_time) => return in_time.then_some(permit),
                    Err(error) => {
                        warn!(error = chain(&error), variant = variant.name, "a call cannot be reserved; trying again")
                    }
                }
                tokio::time::sleep(backoff.next_delay()).await;
            }
        };
        tokio::select! {
            permit = timeout_at(deadline, wait) => permit.ok().flatten(),
            () = self.draining.cancelled() => None,
            _ = breaker.wait_for(|state| *state != crate::worker::variant::breaker::State::Closed) => None,
        }
    }

    /// Loads a payment, and these of its operations although they may be settled; waits for the database as long as it
    /// takes. Nothing where it holds what cannot be read.
    pub async fn load(&self, payment: Uuid, operations: &[Uuid]) -> Option<Loaded> {
        // Soon after an outage, or a command could wait in vain for a payment that another replica is slow to store.
        let mut backoff = backoff::contention();
        let mut tries: u32 = 0;
        loop {
            tries = tries.saturating_add(1);
            match Box::pin(self.store.load_one(payment, operations)).await {
                Ok(loaded) => return Some(loaded),
                // Waiting for another version would take places from others.
                Err(error @ StoreError::Unreadable(_)) => {
                    error!(error = chain(&error), %payment, ?operations, "what is stored of a payment cannot be read; a message for it becomes a dead letter");
                    return None;
                }
                Err(error) if tries % TOLD_EVERY == TOLD_FROM => {
                    warn!(error = chain(&error), %payment, ?operations, tries, "a payment cannot be loaded; trying again");
                }
                // Told once for all by the watch over the database.
                Err(error) => debug!(error = chain(&error), %payment, "a payment cannot be loaded; trying again"),
            }
            tokio::time::sleep(backoff.next_delay()).await;
        }
    }

    /// Writes the request body that the decision needs.
    ///
    /// # Errors
    /// The gateway can take no such request; then nothing of the decision may be stored.
    pub fn prepare(&self, aggregate: &mut Aggregate, step: Step, variant: Option<&Variant>) -> Result<(), Rejection> {
        let (Step::Call(id), Some(variant)) = (step, variant) else { return Ok(()) };
        if let Some(body) = request_body(aggregate, id, variant) {
            aggregate.set_request_body(id, body?);
        }
        Ok(())
    }

    /// Commits a decision and sends its events on their way, behind what is still unsent of the payment. Nothing where it
    /// did not go through: another writer was first, or nobody knows; then it is to be loaded and decided again.
    pub async fn commit(
        &self,
        lane: &Committer,
        aggregate: Box<Aggregate>,
        now: Timestamp,
        unsent: Unsent,
    ) -> Result<Done, Failure> {
        let bodies = aggregate.events().iter().map(envelope::event_body).collect();
        let promise = self.announcer.promise(aggregate.events());
        let Some((unit, committed)) = lane.commit(Unit { aggregate, bodies, now }).await else {
            return Err(Failure::Ending);
        };
        match committed {
            Committed::Stored(stored) => {
                let due = next_due(&unit.aggregate, now);
                let new =
                    crate::worker::outbox::announce::outgoing(unit.aggregate.events(), unit.bodies, &stored.events);
                tell_metrics(&unit.aggregate);
                failpoint::reach("committed", unit.aggregate.payment_id());
                // What was stored before, and told again, is among the unsent ones: nobody else will post it.
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

/// Asks the database as often and as long as it takes. `trouble` is what the log says of each try that fails.
///
/// # Errors
/// It holds what cannot be read, or will never take what it is given.
pub async fn until_answered<T, Asked>(trouble: &str, ask: impl Fn() -> Asked) -> Result<T, Stopped>
where
    Asked: Future<Output = Result<T, StoreError>>,
{
    let mut backoff = backoff::contention();
    loop {
        match ask().await {
            Ok(answer) => return Ok(answer),
            Err(StoreError::Unreadable(_) | StoreError::Refused(_)) => return Err(Stopped::Refused),
            Err(error) => debug!(error = chain(&error), "{trouble}; trying again"),
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// In how long something of it is to be looked at here and not only at the next poll: what is due now, and a command whose
/// payment is most likely on its way.
fn next_due(aggregate: &Aggregate, now: Timestamp) -> Option<Duration> {
    let operations = || aggregate.changed_operations().chain(aggregate.new_operations());
    let dues = operations().filter_map(|operation| operation.due_at);
    let first = dues.filter(|due| *due == now || aggregate.payment().is_none()).min()?;
    Some(Duration::try_from(first.duration_since(now)).unwrap_or_default())
}

/// Why a decision was not stored.
#[derive(Debug)]
pub enum Failure {
    /// Load and decide again.
    Again,
    /// The database will never take it.
    Refused(String),
    /// The worker ends.
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

fn tell_metrics(aggregate: &Aggregate) {
    for event in aggregate.events() {
        crate::worker::alerts::raise(event);
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
            | EventKind::EventsResent(_) => CommandOutcome::Succeeded,
        };
        if cause.is_final || outcome == CommandOutcome::Delayed {
            metrics::command_settled(&Kind::from_word(&cause.kind), &event.variant, outcome);
        }
    }
}
