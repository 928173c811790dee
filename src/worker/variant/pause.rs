//! A variant's pause, as an operator ordered it, on this replica. PostgreSQL has the order; every replica reads it.

use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tracing::warn;

use crate::payment::command::Pause;
use crate::telemetry::metrics;

/// How long an operation is put off that would have called meanwhile: a pause may end at any time.
const PUT_OFF: Duration = Duration::from_secs(10);

/// Whether a variant is paused. The default is that it is not.
#[derive(Debug)]
pub struct PauseSwitch(watch::Sender<Option<Pause>>);

impl Default for PauseSwitch {
    fn default() -> PauseSwitch {
        PauseSwitch(watch::Sender::new(None))
    }
}

impl PauseSwitch {
    /// Subscribes to changes.
    pub fn watch(&self) -> watch::Receiver<Option<Pause>> {
        self.0.subscribe()
    }

    /// Whether calls are paused now. A pause ends on time even while the database cannot be read.
    pub fn is_paused(&self, now: Timestamp) -> bool {
        self.0.borrow().as_ref().is_some_and(|pause| pause.lasts(now))
    }

    /// Returns how long an operation is put off, or `None` if calls are not paused.
    pub fn paused_for(&self, now: Timestamp) -> Option<Duration> {
        let pause = self.0.borrow();
        let pause = pause.as_ref().filter(|pause| pause.lasts(now))?;
        let left = pause.until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        Some(left.map_or(PUT_OFF, |left| left.min(PUT_OFF)))
    }

    /// Takes over what is stored.
    pub fn set(&self, variant: &str, pause: Option<Pause>) {
        metrics::variant_paused(variant, pause.is_some());
        self.0.send_if_modified(|current| {
            if *current == pause {
                return false;
            }
            match &pause {
                Some(pause) => warn!(variant, "{}; its calls wait", pause.words(variant)),
                None => warn!(variant, "the variant's pause has ended: its calls continue"),
            }
            *current = pause;
            true
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_pause_ends_at_its_time_without_being_told() {
        let switch = PauseSwitch::default();
        assert_eq!(switch.paused_for(at(0)), None);
        let pause = |until| Some(Pause { until, reason: "it charges twice".to_owned() });
        switch.set("cards", pause(Some(at(13))));
        assert_eq!(switch.paused_for(at(0)), Some(PUT_OFF));
        assert_eq!(switch.paused_for(at(10)), Some(Duration::from_secs(3)));
        assert!(!switch.is_paused(at(13)) && switch.paused_for(at(13)).is_none());
        switch.set("cards", pause(None));
        assert!(switch.is_paused(at(1_000_000)));
        switch.set("cards", None);
        assert!(!switch.is_paused(at(0)));
    }
}
