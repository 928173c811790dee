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

/// How often pauses are read.
const EVERY: Duration = Duration::from_secs(1);

/// Reads the pauses once, before anything is called.
pub async fn begin(engine: &Engine, health: &Health) {
    let Ok(()) = retry(
        backoff::reconnect(),
        || read(engine, health),
        |error, _| -> Result<(), Infallible> {
            // What was read last still holds; and without the database nothing begins.
            warn!(error = chain(&error), "cannot read which variants are paused; retrying");
            Ok(())
        },
    )
    .await;
}

/// Reads the pauses again and again.
pub async fn run(engine: Arc<Engine>, health: Arc<Health>) {
    loop {
        tokio::time::sleep(EVERY).await;
        begin(&engine, &health).await;
    }
}

async fn read(engine: &Engine, health: &Health) -> Result<(), StoreError> {
    let mut pauses = engine.store.pauses().await?;
    let ours = pauses.iter().filter(|(name, _)| engine.variants.contains_key(*name));
    health.set_notes("paused variants", ours.map(|(name, pause)| pause.words(name)).collect());
    for (name, variant) in engine.variants.iter() {
        variant.pause.set(name, pauses.remove(name));
    }
    Ok(())
}
