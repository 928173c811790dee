//! The first step: load what is known of a command, let the machine decide, and commit the decision before anything is
//! sent. From then on PostgreSQL owns the command.

use tracing::error;
use uuid::Uuid;

use super::attempt::{Attempt, CallSlot, Purpose};
use super::call_slot::Move;
use super::engine::{Done, Engine, Failure};
use super::entry::Entry;
use super::stopped::Stopped;
use crate::payment::code::Rejection;
use crate::payment::command::Command;
use crate::payment::contract::Contract;
use crate::payment::machine::{Aggregate, Context, Step};
use crate::payment::operation::{Lease, Operation, State};
use crate::store::load::{Loaded, Unsent};
use crate::telemetry::metrics;
use crate::worker::outbox::announce::Announced;
use crate::worker::variant::Variant;
use crate::{backoff, failpoint};

/// A decision that was committed, or one that changed nothing.
pub struct Begun {
    /// The aggregate as stored.
    pub aggregate: Box<Aggregate>,
    /// What to do next.
    pub step: Step,
    /// The events, handed to the publisher.
    pub announced: Announced,
    /// Whether anything was committed.
    pub is_changed: bool,
}

impl Begun {
    /// Nothing was committed.
    fn unchanged(aggregate: Box<Aggregate>, step: Step, announced: Announced) -> Begun {
        Begun { aggregate, step, announced, is_changed: false }
    }
}

impl Engine {
    /// Loads, decides and commits, switching to the exclusive slot if required. If that is taken, nothing begins: the
    /// operation is already stored, and the schedule or the sweep for lost workers retries it.
    ///
    /// # Errors
    /// The worker is shutting down, the command is not authorized, or the database refuses it for good.
    pub async fn begin(&self, entry: &Entry, mut attempt: Option<&mut Attempt<'_>>) -> Result<Begun, Stopped> {
        let variant = attempt.as_ref().map(|attempt| attempt.variant);
        let mut backoff = backoff::contention();
        // All commits whose outcome is unknown. Any of them may have gone through, even after the next one was tried.
        let mut in_doubt: Vec<(Step, Lease)> = Vec::new();
        // A `payment.create` is most likely for a new payment: insert it at once, and load only if that conflicts.
        let mut optimistic = entry.is_surely_new() && !self.is_refused(entry);
        // Why the gateway supports no such request. The decision is then discarded and the command rejected.
        let mut cannot_be_made: Option<Rejection> = None;
        loop {
            let is_optimistic = std::mem::take(&mut optimistic) && cannot_be_made.is_none();
            let Loaded { mut aggregate, unsent } =
                if is_optimistic { absent(entry) } else { self.load_for(entry).await? };
            let known = aggregate.operation(entry.id());
            let stored = known.and_then(|operation| operation.lease);
            let takeovers = known.map_or(0, |operation| operation.counts.takeovers);
            let is_known = entry.is_known(known);
            if let Some((step, _)) = in_doubt.iter().find(|(_, lease)| stored == Some(*lease)) {
                let announced = Box::pin(self.announcer.announce(entry.payment_id(), unsent)).await;
                return Ok(Begun { aggregate, step: *step, announced, is_changed: true });
            }
            if !self.goes_on(entry, &aggregate)? {
                return Ok(Begun::unchanged(aggregate, Step::Settled, Announced::default()));
            }
            let context = self.context_of(attempt.as_deref());
            let mut step = match &cannot_be_made {
                None => self.decide(entry, &mut aggregate, context),
                Some(rejection) => reject(entry, &mut aggregate, rejection.clone(), context),
            };
            if matches!(step, Step::Resend { .. }) {
                step = Box::pin(self.resend(entry, &mut aggregate, step, context.now)).await?;
            }
            let moved = self.move_if_alone(entry, &aggregate, step, attempt.as_deref_mut()).await;
            if moved == Move::Moved {
                continue;
            }
            if moved == Move::Full || !aggregate.is_changed() {
                let step = if moved == Move::Full { Step::Stored } else { step };
                let announced = Box::pin(self.announcer.announce(entry.payment_id(), unsent)).await;
                if is_known {
                    // No call follows: free the slot while the broker takes the answer.
                    drop(attempt.map(|attempt| attempt.slot.replace(CallSlot::default())));
                    Box::pin(self.answer_again(entry)).await?;
                }
                return Ok(Begun::unchanged(aggregate, step, announced));
            }
            if let Err(rejection) = self.prepare(&mut aggregate, step, variant) {
                cannot_be_made = Some(rejection);
                continue;
            }
            let lease = aggregate.operation(entry.id()).and_then(|operation| operation.lease);
            failpoint::reach("decided", entry.payment_id());
            match self.commit(&self.begin_commits, aggregate, context.now, unsent).await {
                Ok(Done { aggregate, announced }) => {
                    report_takeover(aggregate.operation(entry.id()), takeovers);
                    return Ok(Begun { aggregate, step, announced, is_changed: true });
                }
                Err(Failure::Again) => {
                    let sends = matches!(step, Step::Call(_) | Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_));
                    in_doubt.extend(lease.filter(|_| sends).map(|lease| (step, lease)));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(Failure::Refused(reason)) => return Err(cannot_store(entry, &reason)),
                Err(Failure::Ending) => return Err(Stopped::Ending),
            }
        }
    }

    /// Loads what a decision needs: the entry's operation, and the operations that a notification carries proof of.
    async fn load_for(&self, entry: &Entry) -> Result<Loaded, Stopped> {
        let mut operations = vec![entry.id()];
        operations.extend(entry.proves());
        loop {
            let loaded = self.load(entry.payment_id(), &operations).await.ok_or(Stopped::Refused)?;
            // A due notification names the operations it proves only in its stored data.
            let proved = loaded.aggregate.proved_operations(entry.id());
            let missing: Vec<Uuid> = proved.into_iter().filter(|id| !operations.contains(id)).collect();
            if missing.is_empty() {
                return Ok(loaded);
            }
            operations.extend(missing);
        }
    }

    /// Handles a command whose operation id is in progress in this process. A duplicate is answered again; a different
    /// command under the same id is rejected.
    ///
    /// # Errors
    /// The worker is shutting down, the command is not authorized, or the database refuses it for good.
    pub async fn compare(&self, entry: &Entry, variant: Option<&Variant>) -> Result<(), Stopped> {
        let Entry::Command { command, .. } = entry else { return Ok(()) };
        let known = self.load(entry.payment_id(), &[entry.id()]).await.ok_or(Stopped::Refused)?.aggregate;
        if !self.goes_on(entry, &known)? {
            return Ok(());
        }
        // Its turn has come, so the other command is stored by now.
        let differs = known.operation(entry.id()).is_some_and(|known| !known.is_of(command));
        if differs {
            let first = |variant| Attempt::first(variant, Purpose::Work, CallSlot::default());
            self.begin(entry, variant.map(first).as_mut()).await?.announced.confirmed().await;
        } else {
            Box::pin(self.answer_again(entry)).await?;
        }
        Ok(())
    }

    fn decide(&self, entry: &Entry, aggregate: &mut Aggregate, context: Context<'_>) -> Step {
        match entry {
            Entry::Due { id, .. } => match self.refusal_of_waiting(aggregate, *id) {
                Some(rejection) => aggregate.reject_due(*id, rejection, context),
                None => aggregate.resume(*id, context),
            },
            Entry::Command { command, redelivered, .. } => match aggregate.accept((**command).clone(), context) {
                Step::Known(id) => self.go_on(aggregate, id, &command.variant, *redelivered, context),
                step => step,
            },
        }
    }

    /// Handles a duplicate command. PostgreSQL knows how far it got. Only a call in progress is taken over, and only if
    /// its message was redelivered: the broker gave up on its worker, or this process abandoned it. What an earlier
    /// attempt did is unknown either way.
    fn go_on(
        &self,
        aggregate: &mut Aggregate,
        id: Uuid,
        routed: &str,
        redelivered: bool,
        context: Context<'_>,
    ) -> Step {
        let Some(operation) = aggregate.operation(id).filter(|operation| operation.state == State::Calling) else {
            return Step::Settled;
        };
        if redelivered && may_be_taken_over(operation, routed, &context.rules.contract) {
            return aggregate.take_over(id, context);
        }
        // Its lease is live, or the scheduler takes it over once the lease has ended.
        Step::Stored
    }
}

/// What is known of a payment that is most likely new.
fn absent(entry: &Entry) -> Loaded {
    Loaded { aggregate: Box::new(Aggregate::absent(entry.payment_id())), unsent: Unsent::default() }
}

/// Counts a takeover: the operation was taken over more often than `before`.
fn report_takeover(operation: Option<&Operation>, before: u32) {
    if let Some(operation) = operation.filter(|operation| operation.counts.takeovers > before) {
        metrics::takeover(&operation.variant);
    }
}

fn cannot_store(entry: &Entry, reason: &str) -> Stopped {
    error!(
        payment = %entry.payment_id(),
        operation = %entry.id(),
        reason,
        "cannot store a decision; dead-lettering its message"
    );
    Stopped::Refused
}

/// Rejects a command for which the gateway supports no request.
fn reject(entry: &Entry, aggregate: &mut Aggregate, rejection: Rejection, context: Context<'_>) -> Step {
    match entry {
        Entry::Due { id, .. } => aggregate.reject_due(*id, rejection, context),
        Entry::Command { command, .. } => {
            let command = Command { content: Err(rejection), ..(**command).clone() };
            aggregate.accept(command, context)
        }
    }
}

/// Whether a redelivered message may take a call over: only a query, or a call to a gateway that honours idempotency
/// keys. The command may also arrive under another variant's routing key. It is the same command then, but the rules at
/// hand are those of the other variant and must not decide on this one's call.
fn may_be_taken_over(operation: &Operation, routed: &str, contract: &Contract) -> bool {
    let has_keys = |action| contract.keys.of(action).window.is_some();
    operation.variant == routed && operation.action().is_none_or(has_keys)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::payment::command::{Attributes, Body, CommandName, CommandType, Kind};
    use crate::payment::contract::{Captures, Keys, Lookup, NotificationRole, PerAction};

    #[test]
    fn only_the_rules_of_its_own_variant_decide_on_a_call() {
        let operation = |kind: CommandType| {
            let command = Command {
                payment_id: Uuid::nil(),
                subject: None,
                name: CommandName { source: "shop".to_owned(), id: "1".to_owned() },
                kind: Kind::Known(kind),
                variant: "cards".to_owned(),
                content: Ok(Body::Sync),
                data: serde_json::Map::new(),
                hash: [0; 32],
                attributes: Attributes::default(),
            };
            let id = command.operation_id();
            Operation::accept(command, id, jiff::Timestamp::UNIX_EPOCH).0
        };
        let contract = |key_window: Option<u64>| Contract {
            keys: PerAction::all(key_window.map_or(Keys::NONE, |seconds| Keys::kept_for(Duration::from_secs(seconds)))),
            captures: Captures::One,
            notifications: NotificationRole::Hint,
            undo: false,
            lookup: Lookup::Authoritative,
            settle_window: Duration::ZERO,
        };
        for (kind, routed, key_window, may) in [
            (CommandType::Process, "cards", Some(60), true),
            (CommandType::Process, "cards", None, false),
            (CommandType::Sync, "cards", None, true),
            (CommandType::Process, "default", Some(60), false),
            (CommandType::Sync, "default", Some(60), false),
        ] {
            let may_be = may_be_taken_over(&operation(kind), routed, &contract(key_window));
            assert_eq!(may_be, may, "{kind} {routed} {key_window:?}");
        }
    }
}
