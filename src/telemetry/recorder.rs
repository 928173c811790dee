//! The recorder behind the metrics, in Prometheus' text format. There is one per process.

use std::convert::Infallible;
use std::time::Duration;

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use parking_lot::Mutex;
use tokio::time::interval;

use super::metrics;

/// How often the recorder does its upkeep. Without it, histograms grow without bound.
const UPKEEP: Duration = Duration::from_secs(5);

static RECORDER: Mutex<Option<PrometheusHandle>> = Mutex::new(None);

/// A handle to the recorder of this process. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Returns all metrics in Prometheus' text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Runs the recorder's upkeep periodically, forever.
    pub async fn upkeep(&self) -> Infallible {
        let mut ticks = interval(UPKEEP);
        loop {
            ticks.tick().await;
            self.handle.run_upkeep();
        }
    }
}

/// Installs the recorder, once per process; a second call returns the same one. Only these variants become labels.
///
/// # Errors
/// Another recorder is installed already.
pub fn install(variants: &[&str]) -> Result<Metrics, BuildError> {
    let mut recorder = RECORDER.lock();
    if let Some(handle) = recorder.as_ref() {
        return Ok(Metrics { handle: handle.clone() });
    }
    metrics::know_variants(variants);
    let mut builder = PrometheusBuilder::new();
    for (matcher, bounds) in metrics::buckets() {
        builder = builder.set_buckets_for_metric(matcher, bounds)?;
    }
    let handle = builder.install_recorder()?;
    metrics::describe();
    *recorder = Some(handle.clone());
    Ok(Metrics { handle })
}
