//! Whether the worker is live, and whether it is ready and why not.
//!
//! Live only means that the runtime makes progress: a lost broker makes the worker not ready, but is no reason to
//! restart it. Readiness is made of components, each of which reports its own state.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::telemetry::metrics;

/// How long the runtime may make no progress before the worker counts as hung.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// How often progress is recorded.
pub const HEARTBEAT: Duration = Duration::from_secs(1);

/// The health of a worker, shared by its parts.
#[derive(Debug)]
pub struct Health {
    components: Mutex<Vec<Component>>,
    notes: Mutex<BTreeMap<&'static str, Vec<String>>>,
    started: Instant,
    /// When progress was last recorded, in milliseconds since `started`.
    progress: AtomicU64,
}

#[derive(Debug)]
struct Component {
    name: String,
    state: Result<(), String>,
}

impl Health {
    /// Creates the health of a worker with these components, none of which is ready yet.
    pub fn new(components: &[&str]) -> Health {
        let starting = |name: &&str| {
            metrics::component_ready(name, false);
            Component { name: (*name).to_owned(), state: Err("starting".to_owned()) }
        };
        Health {
            components: Mutex::new(components.iter().map(starting).collect()),
            notes: Mutex::default(),
            started: Instant::now(),
            progress: AtomicU64::new(0),
        }
    }

    /// Sets the state of a component; `Err` gives the reason why it is not ready. An unknown component is added.
    pub fn set(&self, component: &str, state: Result<(), String>) {
        metrics::component_ready(component, state.is_ok());
        let mut components = self.components.lock();
        match components.iter_mut().find(|known| known.name == component) {
            Some(known) => known.state = state,
            None => components.push(Component { name: component.to_owned(), state }),
        }
    }

    /// Returns whether this component is ready.
    pub fn is_ready(&self, component: &str) -> bool {
        self.components.lock().iter().any(|known| known.name == component && known.state.is_ok())
    }

    /// Checks whether every component is ready.
    ///
    /// # Errors
    /// One line for each component that is not ready, with its name and the reason.
    pub fn ready(&self) -> Result<(), Vec<String>> {
        let components = self.components.lock();
        let reason = |component: &Component| {
            let reason = component.state.as_ref().err()?;
            Some(format!("{}: {}", component.name, reason.replace(['\r', '\n'], " ")))
        };
        let reasons: Vec<String> = components.iter().filter_map(reason).collect();
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Replaces the notes on a topic: what somebody should look at although it does not affect readiness.
    pub fn set_notes(&self, topic: &'static str, notes: Vec<String>) {
        self.notes.lock().insert(topic, notes);
    }

    /// Returns the notes, each as one line.
    pub fn notes(&self) -> Vec<String> {
        let notes = self.notes.lock();
        notes.values().flatten().map(|note| note.replace(['\r', '\n'], " ")).collect()
    }

    /// Records that the runtime makes progress. Called by the server's heartbeat.
    pub fn progress(&self, now: Instant) {
        self.progress.store(self.milliseconds(now), Ordering::Relaxed);
    }

    /// Returns whether the runtime makes progress.
    pub fn is_live(&self, now: Instant) -> bool {
        self.stalled_for(now) <= STALLED_AFTER
    }

    /// Returns for how long no progress was recorded.
    pub fn stalled_for(&self, now: Instant) -> Duration {
        let last = self.progress.load(Ordering::Relaxed);
        Duration::from_millis(self.milliseconds(now).saturating_sub(last))
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        let since = now.saturating_duration_since(self.started);
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_component_said_so() {
        let health = Health::new(&["database", "broker"]);
        assert_eq!(health.ready(), Err(vec!["database: starting".to_owned(), "broker: starting".to_owned()]));
        health.set("database", Ok(()));
        health.set("broker", Err("connection refused\nport 5672".to_owned()));
        assert_eq!(health.ready(), Err(vec!["broker: connection refused port 5672".to_owned()]));
        assert!(health.is_ready("database") && !health.is_ready("broker") && !health.is_ready("intake"));
        health.set("broker", Ok(()));
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_component_that_was_not_registered_counts_too() {
        let health = Health::new(&[]);
        assert_eq!(health.ready(), Ok(()));
        health.set("relay", Err("its task has ended".to_owned()));
        assert!(health.ready().is_err());
    }

    #[test]
    fn a_note_is_shown_and_does_not_change_readiness() {
        let health = Health::new(&[]);
        health.set_notes("payments", vec!["payments of old\nare not served".to_owned()]);
        assert_eq!((health.ready(), health.notes()), (Ok(()), vec!["payments of old are not served".to_owned()]));
        health.set_notes("payments", Vec::new());
        assert!(health.notes().is_empty());
    }

    #[test]
    fn a_runtime_without_progress_is_not_live() {
        let health = Health::new(&[]);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(health.is_live(at(29)));
        assert!(!health.is_live(at(32)));
        health.progress(at(32));
        assert!(health.is_live(at(60)));
        assert!(!health.is_live(at(64)));
    }
}
