//! Takes messages in: parses them, queues them by payment, executes them, and acknowledges them last. A crash at any
//! point before that means a redelivery, and the stored state says how far the command got.

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
use super::command::attempt::Purpose;
use super::command::engine::Engine;
use super::command::entry::{Entry, Execution};
use super::command::in_progress::Turn;
use super::command::spans;
use super::command::stopped::Stopped;
use crate::bus::consume::attributes::attributes;
use crate::bus::consume::consumer::{Consumption, QueueState};
use crate::bus::consume::delivery::{Delivery, Properties};
use crate::bus::dead_letters::letter::{DeadLetterError, publish_dead_letter};
use crate::bus::dead_letters::scrub::without_cards;
use crate::bus::publish::publisher::Publisher;
use crate::bus::topology::QueueKind;
use crate::failpoint;
use crate::payment::code::{Code, Rejection};
use crate::payment::command::Command;
use crate::telemetry::metrics::{self, Deliveries, QueueLabel};

pub mod accept;
pub mod dead_letter;
pub mod hand_back;
pub mod own_event;
pub mod prefetch;
pub mod probe;
pub mod refuse;

/// How long to wait before requeueing a message that must begin again because the database lost its operation: the
/// database may be failing over right now.
const GONE_PAUSE: Duration = Duration::from_secs(1);

/// What the intakes of all queues share.
#[derive(Clone)]
pub struct Intake {
    /// Executes commands.
    pub engine: Arc<Engine>,
    /// Parses and checks messages.
    pub acceptance: Arc<Acceptance>,
    /// Publishes dead letters.
    pub publisher: Publisher,
    /// Tracks the tasks of all commands in flight.
    pub tasks: TaskTracker,
}

impl Intake {
    /// Takes a queue's messages until its consumption ends; after `drained`, only those that are already there.
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
                _ => self.take(delivery, Purpose::Work),
            };
        }
    }

    /// Parses a message and spawns its task. Called in order of arrival: this is where commands enter their payment
    /// queue.
    fn take(&self, delivery: Delivery, purpose: Purpose) -> JoinHandle<()> {
        if is_own_event(&delivery.body) {
            return drop_own_event(&self.tasks, delivery);
        }
        let intake = self.clone();
        let delivery = self.as_sent(delivery);
        match self.read(&delivery) {
            Accepted::Dead(rejection) => self.tasks.spawn(async move { intake.dead_letter(delivery, rejection).await }),
            Accepted::Command(command) if self.is_one_too_many(&delivery, &command) => {
                self.tasks.spawn(async move { intake.turn_away(delivery, &command).await })
            }
            Accepted::Command(command) => {
                let turn = self.engine.order.enter(command.payment_id);
                // Boxed right here: the future is large, and would be copied each time it is moved.
                self.tasks.spawn(Box::pin(async move { intake.carry_out(delivery, command, turn, purpose).await }))
            }
        }
    }

    /// Parses a message.
    pub(super) fn read(&self, delivery: &Delivery) -> Accepted {
        match delivery.properties.flaw() {
            None => self.accept(delivery),
            Some(flaw) if is_unread(delivery) => without_body(self.accept(delivery), flaw.into()),
            // What was left out may have changed the meaning of the rest.
            Some(flaw) => Accepted::Dead(flaw.into()),
        }
    }

    fn accept(&self, delivery: &Delivery) -> Accepted {
        let Properties { reply_to, correlation_id, user_id, content_type, headers, .. } = &delivery.properties;
        // Nothing in there should panic; if it did, it must not take the intake down.
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
        .unwrap_or_else(|_| Accepted::Dead(Rejection::new(Code::InvalidEnvelope, "the message cannot be parsed")))
    }

    /// Executes a command, and acknowledges its message last.
    pub(super) async fn carry_out(&self, delivery: Delivery, command: Box<Command>, turn: Turn, purpose: Purpose) {
        let variant = self.engine.variants.get(&command.variant).map(Arc::clone);
        let payment = command.payment_id;
        let mut entry = Entry::of(command, delivery.redelivered);
        let span = spans::command(&mut entry, &delivery);
        failpoint::reach("accepted", payment);
        // Nothing here should panic; if it did, the message must not be lost with its task.
        let executing = Box::pin(self.engine.execute(Execution { entry, variant, turn: Some(turn), purpose, span }));
        match AssertUnwindSafe(executing).catch_unwind().await {
            Ok(Ok(_)) => {
                failpoint::reach("announced", payment);
                // The ack may still get lost. PostgreSQL then recognizes the command when it is redelivered.
                Box::pin(delivery.acker.ack()).await;
                failpoint::reach("acknowledged", payment);
            }
            Ok(Err(Stopped::Refused)) => {
                let message =
                    "the database rejects the command, or its stored payment cannot be read; the log has the reason";
                Box::pin(self.dead_letter(delivery, Rejection::new(Code::InvalidData, message))).await;
            }
            Ok(Err(Stopped::NotAuthorized(refusal))) => Box::pin(self.refuse(delivery, refusal)).await,
            // Redelivered, to this worker or another.
            Ok(Err(Stopped::Ending)) => {}
            Ok(Err(Stopped::Gone)) => {
                tokio::time::sleep(GONE_PAUSE).await;
                Box::pin(delivery.acker.requeue()).await;
            }
            Err(_) => {
                error!(
                    queue = %delivery.queue,
                    "the task of a command panicked; requeueing it, up to the queue's delivery limit"
                );
                Box::pin(delivery.acker.requeue()).await;
            }
        }
    }

    /// Dead-letters a message that names nobody to answer. Acknowledged once the broker has confirmed the dead letter.
    pub(super) async fn dead_letter(&self, delivery: Delivery, rejection: Rejection) {
        metrics::dead_letter(rejection.code.as_str());
        if is_unread(&delivery) {
            // Only the broker has the body: the queue's own dead-lettering keeps the message whole.
            debug!(
                queue = %delivery.queue,
                error = rejection.message,
                "a message is too large to read; the broker dead-letters it"
            );
            delivery.acker.reject().await;
            return;
        }
        let delivery = without_cards(delivery);
        match publish_dead_letter(&self.publisher, &delivery, rejection.code.as_str(), &rejection.message).await {
            Ok(()) => {
                delivery.acker.ack().await;
            }
            // The worker is shutting down; the message is redelivered.
            Err(DeadLetterError::Closed) => {}
            Err(error @ DeadLetterError::Refused(_)) => {
                // The queue's own dead-lettering moves it to the same place, without the reason.
                warn!(%error, "cannot publish a dead letter; the broker dead-letters the message without the reason");
                delivery.acker.reject().await;
            }
        }
    }
}

/// Whether the message came without its body because that is too large to be read.
fn is_unread(delivery: &Delivery) -> bool {
    delivery.properties.unread_size(&delivery.body).is_some()
}

/// What is known of a message whose body was not read. If its headers name a command, that is answered.
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

/// Waits until a queue that was paused for a drain has delivered everything that was prefetched.
pub async fn drain(consumption: &Consumption) {
    let mut state = consumption.state();
    let paused = state.wait_for(|state| *state != QueueState::Consuming);
    if tokio::time::timeout(Duration::from_secs(10), paused).await.is_err() {
        warn!("the consumer of a queue does not stop; its messages return to the queue");
    }
}
