//! A configured variant at work: its gateway, its rules and its limits.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use self::breaker::Breaker;
use self::limits::RateLimit;
use self::questions::Questions;
use super::variant::exclusive::Exclusive;
use crate::config;
use crate::gateway::Gateway;
use crate::http::metrics;
use crate::payment::machine::Rules;
use crate::payment::observation::Observation;
use crate::payment::outcome::Found;

pub mod breaker;
pub mod exclusive;
pub mod limits;
pub mod questions;

/// A configured variant at work.
#[derive(Debug)]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Its adapter.
    pub gateway: Arc<dyn Gateway>,
    /// What the machine has to know of it.
    pub rules: Rules,
    /// When a call is given up.
    pub timeout: Duration,
    /// Immediate retries.
    pub immediate: config::Immediate,
    /// Calls in flight on this replica.
    pub calls: Arc<Semaphore>,
    in_flight: AtomicUsize,
    /// How many of them there may be.
    pub concurrency: usize,
    /// Messages fetched ahead.
    pub prefetch: u16,
    /// Calls a second over all replicas.
    pub rate: Option<RateLimit>,
    /// Pauses calls while the gateway is ill.
    pub breaker: Breaker,
    /// Where operations that lost workers are called, one at a time; see `place`.
    pub room: Exclusive,
    /// What is being asked about whole payments.
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
            room: Exclusive::default(),
            questions: Questions::within(worker.lease_margin),
        }
    }

    /// One more call is under way.
    pub fn enter(&self) {
        metrics::in_flight(&self.name, self.in_flight.fetch_add(1, Ordering::Relaxed) + 1);
    }

    /// One call less is under way.
    pub fn leave(&self) {
        metrics::in_flight(&self.name, self.in_flight.fetch_sub(1, Ordering::Relaxed).saturating_sub(1));
    }
}
