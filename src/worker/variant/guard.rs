//! Decides whether a variant's commands are consumed: not while an operator has paused it, nor while its circuit breaker
//! is open. Probes while the breaker is half-open.

use std::ops::ControlFlow;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::Variant;
use super::breaker::State;
use crate::bus::consume::consumer::Consumption;
use crate::payment::command::Pause;
use crate::telemetry::metrics::{self, BreakerState};

/// How many probes may end without a call before the breaker closes without one.
const PROBES_MAX: u32 = 5;

/// Follows the pause and the breaker until the worker drains. `probe` makes one probe, and breaks if there is nothing to
/// probe with. `now` is PostgreSQL's time.
pub async fn run<Probing>(
    variant: &Variant,
    consumption: &Consumption,
    draining: &CancellationToken,
    now: impl Fn() -> Timestamp,
    probe: impl Fn() -> Probing,
) where
    Probing: Future<Output = ControlFlow<()>>,
{
    let (mut states, mut pauses) = (variant.breaker.watch(), variant.pause.watch());
    while !draining.is_cancelled() {
        let state = *states.borrow_and_update();
        metrics::breaker(&variant.name, shown(state));
        pauses.mark_unchanged();
        match state {
            // It ends when the database says so: there is no hurry.
            _ if variant.pause.is_paused(now()) => {
                paused(variant, consumption, &mut states, &mut pauses, draining).await;
                if !variant.pause.is_paused(now()) {
                    variant.breaker.probe_first();
                }
            }
            State::Closed => closed(consumption, &mut states, &mut pauses, draining).await,
            State::Open { until } => open(variant, consumption, until, &mut pauses, draining).await,
            State::Probing => half_open(variant, draining, &now, &probe).await,
        }
    }
    // The drain may have begun while the queue was being resumed.
    consumption.pause();
}

type Pauses = watch::Receiver<Option<Pause>>;

/// During a pause nothing may be sent to probe with, and look-ups go on: an open breaker closes by itself, until the next
/// failure. What it closed without is made up for when the pause ends.
async fn paused(
    variant: &Variant,
    consumption: &Consumption,
    states: &mut watch::Receiver<State>,
    pauses: &mut Pauses,
    draining: &CancellationToken,
) {
    consumption.pause();
    let closes_at = match variant.breaker.state() {
        State::Closed => None,
        State::Open { until } => Some(until),
        State::Probing => Some(Instant::now()),
    };
    tokio::select! {
        _ = pauses.changed() => {}
        _ = states.changed() => {}
        () = sleep_until(closes_at.unwrap_or_else(Instant::now)), if closes_at.is_some() => {
            variant.breaker.nothing_to_probe();
        }
        () = draining.cancelled() => {}
    }
}

async fn closed(
    consumption: &Consumption,
    states: &mut watch::Receiver<State>,
    pauses: &mut Pauses,
    draining: &CancellationToken,
) {
    consumption.resume();
    tokio::select! {
        _ = states.changed() => {}
        _ = pauses.changed() => {}
        () = draining.cancelled() => {}
    }
}

async fn open(
    variant: &Variant,
    consumption: &Consumption,
    until: Instant,
    pauses: &mut Pauses,
    draining: &CancellationToken,
) {
    consumption.pause();
    warn!(variant = variant.name, "circuit breaker open: commands paused, probing with one call");
    tokio::select! {
        () = sleep_until(until) => {}
        _ = pauses.changed() => {}
        () = draining.cancelled() => {}
    }
    variant.breaker.probe();
}

async fn half_open<Probing>(
    variant: &Variant,
    draining: &CancellationToken,
    now: impl Fn() -> Timestamp,
    probe: impl Fn() -> Probing,
) where
    Probing: Future<Output = ControlFlow<()>>,
{
    for _ in 0..PROBES_MAX {
        let is_paused = variant.pause.is_paused(now());
        if variant.breaker.state() != State::Probing || is_paused || draining.is_cancelled() {
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

/// The breaker's state, as metrics and people see it.
pub fn shown(state: State) -> BreakerState {
    match state {
        State::Closed => BreakerState::Closed,
        State::Open { .. } => BreakerState::Open,
        State::Probing => BreakerState::HalfOpen,
    }
}
