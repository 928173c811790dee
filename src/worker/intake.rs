//! Messages come in: read, lined up by payment, carried out, acknowledged last. A crash anywhere before means a
//! redelivery, and what is stored tells how far it got.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use serde_json::Map;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, warn};

use self::accept::{Acceptance, Accepted, Message};
use self::own_event::{drop_own_event, is_own_event};
use super::command::engine::Engine;
use super::command::entry::Entry;
use super::command::in_progress::Turn;
use super::command::spans;
use super::command::stopped::Stopped;
use super::variant::Variant;
use super::variant::breaker::State;
use crate::bus::attributes::attributes;
use crate::bus::consumer::{Consumption, QueueState};
use crate::bus::dead_letter::{DeadLetterError, bury};
use crate::bus::delivery::{Delivery, Properties};
use crate::bus::publisher::Publisher;
use crate::bus::scrub::without_cards;
use crate::bus::topology::QueueKind;
use crate::failpoint;
use crate::http::metrics::{self, BreakerState, Deliveries, QueueLabel};
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Command;

pub mod accept;
pub mod dead_letter;
pub mod hand_back;
pub mod own_event;
pub mod prefetch;
pub mod refuse;

/// How long a message waits that must begin again because the database lost it: it may be failing over just now.
const GONE_PAUSE: Duration = Duration::from_secs(1);

/// How many probes that end without a call are tried before the breaker closes for want of one.
const PROBES_MAX: u32 = 5;

/// What the intake of every queue shares.
#[derive(Clone)]
pub struct Intake {
    /// The steps of a command's way.
    pub engine: Arc<Engine>,
    /// What messages are held against.
    pub acceptance: Arc<Acceptance>,
    /// Where messages go that cannot be answered.
    pub publisher: Publisher,
    /// Every command under way.
    pub tasks: TaskTracker,
}

impl Intake {
    /// Takes a queue's messages until its consumption ends; after `drained`, only those that are there already.
    pub async fn run(
        self,
        kind: QueueKind,
        queue: QueueLabel,
        mut deliveries: mpsc::Receiver<Delivery>,
        drained: CancellationToken,
    ) {
        let now = || Timestamp::now().as_millisecond() as f64 / 1000.0;
        let counted = Deliveries::begin(&queue, now());
        loop {
            let delivery = tokio::select! {
                biased;
                delivery = deliveries.recv() => delivery,
                () = drained.cancelled() => None,
            };
            let Some(delivery) = delivery else { return };
            counted.one(now());
            match kind {
                QueueKind::Unanswered => self.answer_dead_letter(delivery),
                _ => self.take(delivery, false),
            };
        }
    }

    /// Reads a message and sets it on its way. Called in the order of arrival: commands of one payment line up here.
    fn take(&self, delivery: Delivery, probe: bool) -> JoinHandle<()> {
        if is_own_event(&delivery.body) {
            return drop_own_event(&self.tasks, delivery);
        }
        let intake = self.clone();
        let delivery = self.as_sent(delivery);
        match self.read(&delivery) {
            Accepted::Dead(rejection) => self.tasks.spawn(async move { intake.bury(delivery, rejection).await }),
            Accepted::Command(command) if self.is_one_too_many(&delivery, &command) => {
                self.tasks.spawn(async move { intake.turn_away(delivery, &command).await })
            }
            Accepted::Command(command) => {
                let turn = self.engine.order.enter(command.payment_id);
                // Boxed where it is made: it is large, and would be copied from hand to hand.
                self.tasks.spawn(Box::pin(async move { intake.carry_out(delivery, command, turn, probe).await }))
            }
        }
    }

    /// Reads a message.
    pub(super) fn read(&self, delivery: &Delivery) -> Accepted {
        match delivery.properties.flaw() {
            None => self.accept(delivery),
            Some(flaw) if is_unread(delivery) => without_body(self.accept(delivery), flaw.into()),
            // What was left out may have changed what the rest means.
            Some(flaw) => Accepted::Dead(flaw.into()),
        }
    }

    fn accept(&self, delivery: &Delivery) -> Accepted {
        let Properties { reply_to, correlation_id, user_id, content_type, headers, .. } = &delivery.properties;
        // Nothing in there panics; and if it did, it must not take the intake with it.
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            self.acceptance.accept(&Message {
                body: &delivery.body,
                routing_key: &delivery.routing_key,
                reply_to: reply_to.as_deref(),
                correlation_id: correlation_id.as_deref(),
                user_id: user_id.as_deref(),
                content_type: content_type.as_deref(),
                headers: &attributes(headers),
            })
        }))
        .unwrap_or_else(|_| Accepted::Dead(Rejection::new(Code::InvalidEnvelope, "it cannot be read")))
    }

    /// Carries out a command, and acknowledges its message last.
    pub(super) async fn carry_out(&self, delivery: Delivery, command: Box<Command>, turn: Turn, probe: bool) {
        let variant = self.engine.variants.get(&command.variant).map(Arc::clone);
        let payment = command.payment_id;
        let mut entry = Entry::of(command, delivery.redelivered);
        let span = spans::command(&mut entry, &delivery);
        failpoint::reach("accepted", payment);
        // Nothing here panics; and if it did, the message must not be lost with its task.
        let executing = Box::pin(self.engine.execute(entry, variant, Some(turn), probe, span));
        match AssertUnwindSafe(executing).catch_unwind().await {
            Ok(Ok(_)) => {
                failpoint::reach("announced", payment);
                // That it was sent is no proof; PostgreSQL knows the command should it come again.
                Box::pin(delivery.acker.ack()).await;
                failpoint::reach("acknowledged", payment);
            }
            Ok(Err(Stopped::Refused)) => {
                let message =
                    "the database cannot store it, or holds of it what cannot be read; the log has the reason";
                Box::pin(self.bury(delivery, Rejection::new(Code::InvalidData, message))).await;
            }
            Ok(Err(Stopped::NotAuthorized(refusal))) => Box::pin(self.refuse(delivery, refusal)).await,
            // It comes again, here or elsewhere.
            Ok(Err(Stopped::Ending)) => {}
            Ok(Err(Stopped::Gone)) => {
                tokio::time::sleep(GONE_PAUSE).await;
                Box::pin(delivery.acker.requeue()).await;
            }
            Err(_) => {
                error!(queue = %delivery.queue, "a command's task panicked; it is delivered again until the queue's limit");
                Box::pin(delivery.acker.requeue()).await;
            }
        }
    }

    /// Puts aside what names nobody to answer to; acknowledged only when the broker has confirmed it there.
    pub(super) async fn bury(&self, delivery: Delivery, rejection: Rejection) {
        metrics::dead_letter(rejection.code.as_str());
        if is_unread(&delivery) {
            // Only the broker has the body: the queue's own dead-lettering keeps the message whole.
            debug!(queue = %delivery.queue, error = rejection.message, "a message is too large to be read; the broker moves it");
            delivery.acker.reject().await;
            return;
        }
        let delivery = without_cards(delivery);
        match bury(&self.publisher, &delivery, rejection.code.as_str(), &rejection.message).await {
            Ok(()) => {
                delivery.acker.ack().await;
            }
            // The worker ends; it comes again.
            Err(DeadLetterError::Closed) => {}
            Err(error @ DeadLetterError::Refused(_)) => {
                // The queue's own dead-lettering takes it there as well, without the reason.
                warn!(%error, "a dead letter cannot be published; the broker moves it");
                delivery.acker.reject().await;
            }
        }
    }

    /// Pauses a variant's commands while its breaker is open, and probes, until the worker drains.
    pub async fn guard(self, variant: Arc<Variant>, consumption: Arc<Consumption>) {
        let draining = self.engine.draining.clone();
        let mut states = variant.breaker.watch();
        while !draining.is_cancelled() {
            let state = *states.borrow_and_update();
            let shown = match state {
                State::Closed => BreakerState::Closed,
                State::Open { .. } => BreakerState::Open,
                State::Probing => BreakerState::HalfOpen,
            };
            metrics::breaker(&variant.name, shown);
            match state {
                State::Closed => {
                    consumption.resume();
                    draining.run_until_cancelled(states.changed()).await;
                }
                State::Open { until } => {
                    consumption.pause();
                    warn!(variant = variant.name, "the gateway is ill: its commands are paused, one call probes it");
                    draining.run_until_cancelled(tokio::time::sleep_until(until)).await;
                    variant.breaker.probe();
                }
                State::Probing => self.probe(&variant, &consumption).await,
            }
        }
        // The drain may have begun while it was being resumed.
        consumption.pause();
    }

    /// Finds out with one due operation, or one message, whether the gateway is well again. Payments take turns: one whose
    /// probe failed is asked again when nothing else waits.
    async fn probe(&self, variant: &Arc<Variant>, consumption: &Consumption) {
        for _ in 0..PROBES_MAX {
            if variant.breaker.state() != State::Probing || self.engine.draining.is_cancelled() {
                return;
            }
            let due = self.engine.claim_for_probe(variant).await;
            // Where every due payment's probe failed, they may be ill and the gateway well: a message tells.
            let asks_a_message = due.is_none_or(|due| variant.breaker.failed_a_probe(due.payment_id));
            let message = if asks_a_message { fetch(variant, consumption).await } else { None };
            match (message, due) {
                (Some(delivery), due) => {
                    if let Some(due) = due {
                        self.engine.give_back(&due, Duration::ZERO).await;
                    }
                    answer(variant, self.take(delivery, true)).await;
                }
                (None, Some(due)) => {
                    let (engine, probed) = (Arc::clone(&self.engine), Arc::clone(variant));
                    // A task of its own, so that a drain waits for it too.
                    let probing = self.tasks.spawn(async move { engine.carry_out_due(due, probed, true).await });
                    // It is due again later.
                    if let Some(Err(_)) = answer(variant, probing).await {
                        break;
                    }
                }
                (None, None) => break,
            }
        }
        if variant.breaker.state() == State::Probing {
            variant.breaker.nothing_to_probe();
        }
    }
}

/// Whether the message has a body that is too large to be read, and came without it.
fn is_unread(delivery: &Delivery) -> bool {
    delivery.properties.unread_size(&delivery.body).is_some()
}

/// What is known of a message whose body was not read: headers may name a command, which is then answered.
fn without_body(accepted: Accepted, rejection: Rejection) -> Accepted {
    match accepted {
        Accepted::Command(mut command) => {
            command.content = Err(rejection);
            command.data = Map::new();
            Accepted::Command(command)
        }
        Accepted::Dead(_) => Accepted::Dead(rejection),
    }
}

/// A message to probe with; nothing where none waits or can be had.
async fn fetch(variant: &Variant, consumption: &Consumption) -> Option<Delivery> {
    consumption.fetch_one().await.unwrap_or_else(|error| {
        warn!(%error, variant = variant.name, "no message can be fetched to probe with; what is due must do, or commands are let through and the next failure pauses them again");
        None
    })
}

/// Waits for a probe, but no longer than the breaker waits for it, nor than a call may take: the probe's task goes on to
/// wait until the broker has confirmed its events, and where the broker is away, that may be hours.
async fn answer<T>(variant: &Variant, probing: JoinHandle<T>) -> Option<T> {
    let mut states = variant.breaker.watch();
    let ended = tokio::select! {
        ended = probing => ended,
        _ = states.wait_for(|state| *state != State::Probing) => return None,
        () = tokio::time::sleep(variant.rules.lease) => return None,
    };
    match ended {
        Ok(done) => Some(done),
        Err(error) => {
            error!(%error, "a probe's task ended early");
            None
        }
    }
}

/// Waits until a queue that was paused for a drain has given out what was prefetched.
pub async fn drain(consumption: &Consumption) {
    let mut state = consumption.state();
    let paused = state.wait_for(|state| *state != QueueState::Consuming);
    if tokio::time::timeout(Duration::from_secs(10), paused).await.is_err() {
        warn!("a queue's consumer does not end; its messages go back to the queue");
    }
}
