//! Follows the states of a variant's circuit breaker: pauses its commands while it is open, and probes while it is
//! half-open.

use std::ops::ControlFlow;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Variant;
use super::breaker::State;
use crate::bus::consume::consumer::Consumption;
use crate::telemetry::metrics::{self, BreakerState};

/// How many probes may end without a call before the breaker closes without one.
const PROBES_MAX: u32 = 5;

/// Follows the breaker until the worker drains. `probe` makes one probe, and breaks if there is nothing to probe with.
pub async fn run<Probing>(
    variant: &Variant,
    consumption: &Consumption,
    draining: &CancellationToken,
    probe: impl Fn() -> Probing,
) where
    Probing: Future<Output = ControlFlow<()>>,
{
    let mut states = variant.breaker.watch();
    while !draining.is_cancelled() {
        let state = *states.borrow_and_update();
        metrics::breaker(&variant.name, shown(state));
        match state {
            State::Closed => closed(consumption, &mut states, draining).await,
            State::Open { until } => open(variant, consumption, until, draining).await,
            State::Probing => half_open(variant, draining, &probe).await,
        }
    }
    // The drain may have begun while the queue was being resumed.
    consumption.pause();
}

async fn closed(consumption: &Consumption, states: &mut watch::Receiver<State>, draining: &CancellationToken) {
    consumption.resume();
    draining.run_until_cancelled(states.changed()).await;
}

async fn open(variant: &Variant, consumption: &Consumption, until: Instant, draining: &CancellationToken) {
    consumption.pause();
    warn!(variant = variant.name, "circuit breaker open: commands paused, probing with one call");
    draining.run_until_cancelled(sleep_until(until)).await;
    variant.breaker.probe();
}

async fn half_open<Probing>(variant: &Variant, draining: &CancellationToken, probe: impl Fn() -> Probing)
where
    Probing: Future<Output = ControlFlow<()>>,
{
    for _ in 0..PROBES_MAX {
        if variant.breaker.state() != State::Probing || draining.is_cancelled() {
            return;
        }
        if probe().await.is_break() {
            break;
        }
    }
    if variant.breaker.state() == State::Probing {
        variant.breaker.nothing_to_probe();
    }
}

fn shown(state: State) -> BreakerState {
    match state {
        State::Closed => BreakerState::Closed,
        State::Open { .. } => BreakerState::Open,
        State::Probing => BreakerState::HalfOpen,
    }
}
