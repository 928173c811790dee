//! A configured variant at runtime: its gateway, its rules and its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::breaker::Breaker;
use self::exclusive::Exclusive;
use self::limits::RateLimit;
use self::pause::PauseSwitch;
use self::questions::Questions;
use crate::config;
use crate::gateway::Gateway;
use crate::payment::machine::Rules;
use crate::payment::observation::Observation;
use crate::payment::outcome::Found;
use crate::telemetry::metrics;

pub mod breaker;
pub mod exclusive;
pub mod guard;
pub mod limits;
pub mod pause;
pub mod questions;

/// A configured variant at runtime.
#[derive(Debug)]
pub struct Variant {
    /// The name of the variant.
    pub name: String,
    /// The gateway adapter.
    pub gateway: Arc<dyn Gateway>,
    /// What the machine needs to know about the variant.
    pub rules: Rules,
    /// The timeout of a call.
    pub timeout: Duration,
    /// The settings for immediate retries.
    pub immediate: config::Immediate,
    /// Limits concurrent calls on this replica.
    pub calls: Arc<Semaphore>,
    in_flight: AtomicUsize,
    /// The number of concurrent calls allowed.
    pub concurrency: usize,
    /// The prefetch of the command queue.
    pub prefetch: u16,
    /// The rate limit for calls, over all replicas.
    pub rate: Option<RateLimit>,
    /// Pauses calls while the gateway fails.
    pub breaker: Breaker,
    /// Pauses calls because an operator wants it.
    pub pause: PauseSwitch,
    /// The exclusive slot for operations that lost workers; see `command::call_slot`.
    pub exclusive: Exclusive,
    /// Look-ups of whole payments that are in flight.
    pub questions: Questions<Observation<Found>>,
}

impl Variant {
    /// A variant as configured, with its gateway.
    pub fn new(name: &str, settings: &config::Variant, worker: &config::Worker, gateway: Arc<dyn Gateway>) -> Variant {
        let rules = Rules {
            gateway: settings.gateway.clone(),
            account: gateway.account().to_owned(),
            account_aliases: gateway.account_aliases().to_vec(),
            contract: gateway.contract().clone(),
            capture: settings.capture,
            retired: settings.retired,
            immediate_attempts: settings.retry.immediate.attempts,
            delayed: settings.retry.delayed.clone(),
            lease: settings.timeout.saturating_add(worker.lease_margin),
            unknown_payment_grace: worker.unknown_payment_grace,
        };
        Variant {
            name: name.to_owned(),
            gateway,
            rules,
            timeout: settings.timeout,
            immediate: settings.retry.immediate.clone(),
            calls: Arc::new(Semaphore::new(settings.concurrency)),
            in_flight: AtomicUsize::new(0),
            concurrency: settings.concurrency,
            prefetch: settings.prefetch(),
            rate: settings.rate.map(|rate| RateLimit::new(name, rate)),
            breaker: Breaker::new(settings.breaker.failures, settings.breaker.open),
            pause: PauseSwitch::default(),
            exclusive: Exclusive::default(),
            questions: Questions::within(worker.lease_margin),
        }
    }

    /// Counts a call as in flight, for the metric.
    pub fn enter(&self) {
        metrics::in_flight(&self.name, self.in_flight.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// The number of calls in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call as ended, for the metric.
    pub fn leave(&self) {
        metrics::in_flight(&self.name, self.in_flight.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
    }
}
