//! How often each trouble of the surroundings really happened, and whether a service is or was in trouble.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Counts by name.
#[derive(Debug, Default)]
pub struct Tally {
    counts: Mutex<BTreeMap<String, usize>>,
    services: Mutex<Services>,
}

/// The troubles of broker and database.
#[derive(Debug, Default)]
struct Services {
    /// How many are going on.
    open: usize,
    /// When one ended last.
    ended: Option<Instant>,
}

/// The broker or the database is in trouble until this is dropped.
#[must_use = "the trouble ends when this is dropped"]
pub struct ServiceInTrouble<'a>(&'a Tally);

impl Drop for ServiceInTrouble<'_> {
    fn drop(&mut self) {
        let mut services = self.0.services.lock().unwrap();
        services.open -= 1;
        services.ended = Some(Instant::now());
    }
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

    /// The broker or the database is in trouble from now on.
    pub fn service_is_in_trouble(&self) -> ServiceInTrouble<'_> {
        self.services.lock().unwrap().open += 1;
        ServiceInTrouble(self)
    }

    /// Whether the broker or the database is in trouble, or was so recently.
    pub fn service_was_in_trouble(&self, within: Duration) -> bool {
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
