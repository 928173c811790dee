//! Probes a gateway whose breaker is half-open, with one due operation or one message.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinHandle;
use tracing::{error, warn};

use crate::bus::consume::consumer::Consumption;
use crate::bus::consume::delivery::Delivery;
use crate::worker::command::attempt::Purpose;
use crate::worker::intake::Intake;
use crate::worker::variant::breaker::State;
use crate::worker::variant::{Variant, guard};

impl Intake {
    /// Pauses a variant's commands while an operator has paused it or its breaker is open, and probes, until the worker
    /// drains.
    pub(crate) async fn guard(self, variant: Arc<Variant>, consumption: Arc<Consumption>) {
        let now = || self.engine.store.clock().now();
        let probe = || self.probe(&variant, &consumption);
        guard::run(&variant, &consumption, &self.engine.draining, now, probe).await;
    }

    /// Makes one probe; breaks if there is nothing to probe with. Payments take turns: one that failed a probe is used
    /// again only when nothing else is waiting.
    async fn probe(&self, variant: &Arc<Variant>, consumption: &Consumption) -> ControlFlow<()> {
        let due = self.engine.claim_for_probe(variant).await;
        // If all due payments have failed a probe, the payments may be the cause and not the gateway: try a message.
        let asks_a_message = due.is_none_or(|due| variant.breaker.failed_a_probe(due.payment_id));
        let message = if asks_a_message { fetch(variant, consumption).await } else { None };
        match (message, due) {
            (Some(delivery), due) => {
                if let Some(due) = due {
                    self.engine.give_back(&due, Duration::ZERO).await;
                }
                answer(variant, self.take(delivery, Purpose::Probe)).await;
            }
            (None, Some(due)) => {
                let (engine, probed) = (Arc::clone(&self.engine), Arc::clone(variant));
                // A separate task, so that a drain waits for it too.
                let probing = self.tasks.spawn(async move { engine.carry_out_due(due, probed, Purpose::Probe).await });
                // It is due again later.
                if let Some(Err(_)) = answer(variant, probing).await {
                    return ControlFlow::Break(());
                }
            }
            (None, None) => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

/// Fetches a message to probe with. Returns `None` if none is waiting or the queue cannot be reached.
async fn fetch(variant: &Variant, consumption: &Consumption) -> Option<Delivery> {
    consumption.fetch_one().await.unwrap_or_else(|error| {
        warn!(
            %error,
            variant = variant.name,
            "cannot fetch a message to probe with; probing with due operations, or else resuming commands until the \
             next failure"
        );
        None
    })
}

/// Waits for a probe, but no longer than the breaker stays half-open, nor than a call may take. The probe's task itself
/// waits until the broker has confirmed its events, which may take hours while the broker is away.
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
            error!(%error, "the task of a probe failed");
            None
        }
    }
}
