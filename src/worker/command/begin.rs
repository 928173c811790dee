//! The first step: what is known of a command is loaded, the machine decides, and the decision is committed before
//! anything is sent. From then on PostgreSQL owns the command.

use tracing::error;
use uuid::Uuid;

use super::call_slot::{CallSlot, Move};
use super::engine::{Done, Engine, Failure};
use super::entry::Entry;
use super::stopped::Stopped;
use crate::http::metrics;
use crate::payment::code::Rejection;
use crate::payment::command::Command;
use crate::payment::contract::Contract;
use crate::payment::machine::{Aggregate, Context, Step};
use crate::payment::operation::{Lease, Operation, State};
use crate::store::load::{Loaded, Unsent};
use crate::worker::outbox::announce::Announced;
use crate::worker::variant::Variant;
use crate::{backoff, failpoint};

/// A decision that is committed, or one that changed nothing.
pub struct Begun {
    /// As stored.
    pub aggregate: Box<Aggregate>,
    /// What is to be done.
    pub step: Step,
    /// Its events, on their way out.
    pub announced: Announced,
    /// Whether anything was committed.
    pub is_changed: bool,
}

impl Engine {
    /// Loads, decides and commits, in this call slot or in the exclusive one. Where the exclusive one is taken nothing is begun:
    /// what waits for it is stored, and whoever looks for due work or lost workers tries it again.
    ///
    /// # Errors
    /// The worker ends, or the database will never take it.
    pub async fn begin(
        &self,
        entry: &Entry,
        variant: Option<&Variant>,
        probe: bool,
        slot: &mut CallSlot,
    ) -> Result<Begun, Stopped> {
        let mut backoff = backoff::contention();
        // Of every commit whose answer was lost, for any of them may have gone through, and later than the next was tried.
        let mut in_doubt: Vec<(Step, Lease)> = Vec::new();
        // A new payment is most likely new: it is stored at once, and only where something is there already is it loaded.
        let mut optimistic = entry.is_surely_new() && !self.is_refused(entry);
        // Why the gateway can take no such request: then what was decided is thrown away, and the command is rejected.
        let mut cannot_be_made: Option<Rejection> = None;
        loop {
            let is_optimistic = std::mem::take(&mut optimistic) && cannot_be_made.is_none();
            let Loaded { mut aggregate, unsent } = if is_optimistic {
                Loaded { aggregate: Box::new(Aggregate::absent(entry.payment_id())), unsent: Unsent::default() }
            } else {
                self.load_for(entry).await?
            };
            let stored = aggregate.operation(entry.id()).and_then(|operation| operation.lease);
            let takeovers = takeovers(&aggregate, entry.id());
            if let Some((step, _)) = in_doubt.iter().find(|(_, lease)| stored == Some(*lease)) {
                let announced = Box::pin(self.announcer.announce(entry.payment_id(), unsent)).await;
                return Ok(Begun { aggregate, step: *step, announced, is_changed: true });
            }
            if !self.goes_on(entry, &aggregate)? {
                return Ok(Begun {
                    aggregate,
                    step: Step::Settled,
                    announced: Announced::default(),
                    is_changed: false,
                });
            }
            let is_known = entry.is_known(aggregate.operation(entry.id()));
            let context = self.context(variant, probe);
            let mut step = match &cannot_be_made {
                None => self.decide(entry, &mut aggregate, context),
                Some(rejection) => reject(entry, &mut aggregate, rejection.clone(), context),
            };
            if let Step::Resend { operation, from, to } = step {
                step = Box::pin(self.resend(entry, &mut aggregate, operation, from, to, context.now)).await?;
            }
            let moved = self.move_if_alone(entry, &aggregate, step, variant, slot).await;
            if moved == Move::Moved {
                continue;
            }
            if moved == Move::Full || !aggregate.is_changed() {
                let step = if moved == Move::Full { Step::Stored } else { step };
                let announced = Box::pin(self.announcer.announce(entry.payment_id(), unsent)).await;
                if is_known {
                    // Nothing is called for it: its place is for others while the broker takes an answer.
                    drop(std::mem::take(slot));
                    Box::pin(self.answer_again(entry)).await?;
                }
                return Ok(Begun { aggregate, step, announced, is_changed: false });
            }
            if let Err(rejection) = self.prepare(&mut aggregate, step, variant) {
                cannot_be_made = Some(rejection);
                continue;
            }
            let lease = aggregate.operation(entry.id()).and_then(|operation| operation.lease);
            failpoint::reach("decided", entry.payment_id());
            match self.commit(&self.begin, aggregate, context.now, unsent).await {
                Ok(Done { aggregate, announced }) => {
                    if let Some(operation) = aggregate.operation(entry.id()).filter(|it| it.takeovers > takeovers) {
                        metrics::takeover(&operation.variant);
                    }
                    return Ok(Begun { aggregate, step, announced, is_changed: true });
                }
                Err(Failure::Again) => {
                    let sends = matches!(step, Step::Call(_) | Step::LookUp { .. } | Step::Undo(_) | Step::Locate(_));
                    in_doubt.extend(lease.filter(|_| sends).map(|lease| (step, lease)));
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                Err(Failure::Refused(reason)) => {
                    error!(payment = %entry.payment_id(), operation = %entry.id(), reason, "a decision cannot be stored; its message becomes a dead letter");
                    return Err(Stopped::Refused);
                }
                Err(Failure::Ending) => return Err(Stopped::Ending),
            }
        }
    }

    /// Loads what a decision needs: the entry's operation, and those that a notification proves something of.
    async fn load_for(&self, entry: &Entry) -> Result<Loaded, Stopped> {
        let mut operations = vec![entry.id()];
        operations.extend(entry.proves());
        loop {
            let loaded = self.load(entry.payment_id(), &operations).await.ok_or(Stopped::Refused)?;
            // Of a notification that waited, what is stored says of which.
            let proved = loaded.aggregate.proved_operations(entry.id());
            let missing: Vec<Uuid> = proved.into_iter().filter(|id| !operations.contains(id)).collect();
            if missing.is_empty() {
                return Ok(loaded);
            }
            operations.extend(missing);
        }
    }

    /// A command under the name of one that this process is at. The same one once more needs nothing; another one, which
    /// must not pass for it, is told so.
    ///
    /// # Errors
    /// The worker ends, or the database will never take it.
    pub async fn compare(&self, entry: &Entry, variant: Option<&Variant>) -> Result<(), Stopped> {
        let Entry::Command { command, .. } = entry else { return Ok(()) };
        let known = self.load(entry.payment_id(), &[entry.id()]).await.ok_or(Stopped::Refused)?.aggregate;
        if !self.goes_on(entry, &known)? {
            return Ok(());
        }
        // Its turn came, so the other one is stored.
        let differs = known.operation(entry.id()).is_some_and(|known| !known.is_of(command));
        if differs {
            self.begin(entry, variant, false, &mut CallSlot::default()).await?.announced.confirmed().await;
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

    /// A command that is known: where it stands, PostgreSQL knows; only a call whose worker the broker has given up on, or
    /// that this process left behind, is taken over at once. What an earlier attempt did is unknown either way.
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
        // Its lease is live, or the scheduler takes it over when it has ended.
        Step::Stored
    }
}

/// Rejects what the gateway can take no request for.
fn reject(entry: &Entry, aggregate: &mut Aggregate, rejection: Rejection, context: Context<'_>) -> Step {
    match entry {
        Entry::Due { id, .. } => aggregate.reject_due(*id, rejection, context),
        Entry::Command { command, .. } => {
            let command = Command { content: Err(rejection), ..(**command).clone() };
            aggregate.accept(command, context)
        }
    }
}

/// How often an operation was taken over.
fn takeovers(aggregate: &Aggregate, id: Uuid) -> u32 {
    aggregate.operation(id).map_or(0, |operation| operation.takeovers)
}

/// Whether the delivery of a message that came before may take a call over: a question, or where the gateway honours keys.
/// Under another variant's routing key the same command is the same command, but the rules at hand are that other one's:
/// they must not decide on what this one is calling.
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
