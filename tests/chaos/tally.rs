//! How often each disruption really happened, and whether a service is or was disrupted.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counts by name.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<String, usize>>,
    services: Mutex<Services>,
}

/// The disruptions of broker and database.
#[derive(Debug, Default)]
struct Services {
    /// How many are in progress.
    open: usize,
    /// When the last one ended.
    ended: Option<Instant>,
}

/// The broker or the database is disrupted until this is dropped.
#[must_use = "the disruption ends when this is dropped"]
pub struct ServiceDisrupted<'a>(&'a Tally);

impl Drop for ServiceDisrupted<'_> {
    fn drop(&mut self) {
        let mut services = self.0.services.lock().unwrap();
        services.open -= 1;
        services.ended = Some(Instant::now());
    }
}

impl Tally {
    /// Counts one occurrence.
    pub fn add(&self, what: &str) {
        self.add_many(what, 1);
    }

    /// Counts this many occurrences.
    pub fn add_many(&self, what: &str, count: usize) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += count;
    }

    /// The broker or the database is disrupted from now on.
    pub fn service_is_disrupted(&self) -> ServiceDisrupted<'_> {
        self.services.lock().unwrap().open += 1;
        ServiceDisrupted(self)
    }

    /// Whether the broker or the database is disrupted, or was so recently.
    pub fn service_was_disrupted(&self, within: Duration) -> bool {
        let services = self.services.lock().unwrap();
        services.open > 0 || services.ended.is_some_and(|ended| ended.elapsed() < within)
    }

    /// Which of these never happened.
    pub fn missing(&self, wanted: &[&'static str]) -> Vec<&'static str> {
        let counts = self.counts.lock().unwrap();
        wanted.iter().copied().filter(|name| !counts.contains_key(*name)).collect()
    }

    /// All counts.
    pub fn counts(&self) -> BTreeMap<String, usize> {
        self.counts.lock().unwrap().clone()
    }
}
