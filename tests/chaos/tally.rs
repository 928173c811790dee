//! How often each trouble of the surroundings really happened, and when a service was last in trouble.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counts by name.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<String, usize>>,
    service_trouble: Mutex<Option<Instant>>,
}

impl Tally {
    /// It happened once more.
    pub fn add(&self, what: &str) {
        self.add_many(what, 1);
    }

    /// It happened so many times.
    pub fn add_many(&self, what: &str, count: usize) {
        *self.counts.lock().unwrap().entry(what.to_owned()).or_default() += count;
    }

    /// The broker or the database is in trouble now, or was until now.
    pub fn service_is_in_trouble(&self) {
        *self.service_trouble.lock().unwrap() = Some(Instant::now());
    }

    /// Whether the broker or the database was in trouble so recently.
    pub fn service_was_in_trouble(&self, within: Duration) -> bool {
        self.service_trouble.lock().unwrap().is_some_and(|last| last.elapsed() < within)
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
