//! Follows which variants operators have paused, so that a pause holds on all replicas within seconds.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tracing::warn;

use super::command::engine::Engine;
use crate::backoff::{self, retry};
use crate::error_chain::chain;
use crate::http::health::Health;
use crate::store::StoreError;
use crate::telemetry::log_limit::LogLimit;

/// How often pauses are read.
const EVERY: Duration = Duration::from_secs(1);

/// While the database is unavailable, everything else says so too.
static LOGGED: LogLimit = LogLimit::every(Duration::from_secs(60));

/// Reads the pauses once, before anything is called.
pub async fn begin(engine: &Engine, health: &Health) {
    let Ok(()) = retry(
        backoff::reconnect(),
        || follow(engine, health),
        |error, _| -> Result<(), Infallible> {
            warn!(error = chain(&error), "cannot read which variants are paused; retrying");
            Ok(())
        },
    )
    .await;
}

/// Reads the pauses again and again. What was read last holds until the next reading.
pub async fn run(engine: Arc<Engine>, health: Arc<Health>) {
    loop {
        tokio::time::sleep(EVERY).await;
        if let Err(error) = follow(&engine, &health).await
            && LOGGED.pass().is_some()
        {
            warn!(error = chain(&error), "cannot read which variants are paused; retrying");
        }
    }
}

async fn follow(engine: &Engine, health: &Health) -> Result<(), StoreError> {
    let pauses = engine.read_pauses().await?;
    let ours = pauses.iter().filter(|(name, _)| engine.variants.contains_key(*name));
    health.set_notes("paused variants", ours.map(|(name, pause)| pause.words(name)).collect());
    Ok(())
}
