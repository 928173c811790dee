//! `paybus webhooks`: receives webhooks and does nothing else. It needs no database and calls no gateway, so that it can
//! stand where strangers reach it. Workers behind the broker do the rest.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::receipt::Receiver;
use super::report;
use super::start::{RunError, gateways, prepare_bus, serve_http};
use crate::bus::publisher::Publisher;
use crate::config::Settings;
use crate::http::health::Health;
use crate::http::metrics;
use crate::http::webhooks::Receive;
use crate::wiring::bus_settings;

/// What readiness calls the way to the broker.
const PUBLISHER: &str = "publisher";
/// What readiness calls its confirms.
const CONFIRMS: &str = "publisher confirms";

/// Receives webhooks until `shutdown` is cancelled.
///
/// # Errors
/// It cannot start. Once it runs, it waits for the broker.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let gateways = gateways(&settings)?;
    let address = settings.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let bus = bus_settings(&settings);
    let names: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
    prepare_bus(&bus, &names).await?;
    let metrics = metrics::install(&names).map_err(|error| RunError::Setting(format!("metrics: {error}")))?;

    // The connection outlives the server: what is being received needs its confirm.
    let ended = CancellationToken::new();
    let publisher = Publisher::spawn(bus, ended.clone());
    let health = Arc::new(Health::new(&[PUBLISHER, CONFIRMS]));
    tokio::spawn(report::connection(publisher.state(), Arc::clone(&health), PUBLISHER.to_owned()));
    tokio::spawn(report::confirms(publisher.silent(), Arc::clone(&health), CONFIRMS.to_owned()));
    let receiver = Receiver::new(gateways.into_iter(), publisher);
    let variants = receiver.variants();
    if variants.is_empty() {
        warn!("no variant has webhooks: each needs its secret");
    }
    info!(variants = variants.join(", "), http = %address, "paybus receives webhooks");
    serve_http(listener, health, metrics, receiver, shutdown).await;
    ended.cancel();
    info!("paybus receives no webhooks any more");
    Ok(())
}
