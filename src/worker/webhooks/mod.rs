//! `paybus webhooks`: receives webhooks and does nothing else. It needs no database and calls no gateway, so that it
//! can be exposed to the internet. Workers behind the broker do the rest.

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use self::receiver::Receiver;
use super::prerequisites::{self, TOPOLOGY};
use super::report;
use super::start::{RunError, serve_http, unusable};
use crate::bus::publish::publisher::Publisher;
use crate::config::Settings;
use crate::gateway::notification::Verify;
use crate::gateway::registry;
use crate::http::health::Health;
use crate::http::webhooks::Receive;
use crate::telemetry::recorder;
use crate::wiring::bus_settings;

pub mod receiver;

/// The readiness component for the broker connection.
const PUBLISHER: &str = "publisher";
/// The readiness component for the broker's confirms.
const CONFIRMS: &str = "publisher confirms";

/// Receives webhooks until `shutdown` is cancelled.
///
/// # Errors
/// The settings cannot be used. The broker is waited for, even at startup.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), RunError> {
    let verified = verified(&settings)?;
    let address = settings.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let bus = bus_settings(&settings);
    let names: Vec<&str> = settings.variants.keys().map(String::as_str).collect();
    let metrics = recorder::install(&names).map_err(|error| RunError::Setting(format!("metrics: {error}")))?;

    // The connection outlives the server: webhooks that are being received need their confirms.
    let ended = CancellationToken::new();
    // Cancelled once the broker has the exchanges and queues.
    let prepared = CancellationToken::new();
    let publisher = Publisher::spawn_after(prepared.clone().cancelled_owned(), bus.clone(), ended.clone());
    let health = Arc::new(Health::new(&[TOPOLOGY, PUBLISHER, CONFIRMS]));
    tokio::spawn(report::connection(publisher.state(), Arc::clone(&health), PUBLISHER.to_owned()));
    tokio::spawn(report::confirms(publisher.clone(), Arc::clone(&health), CONFIRMS.to_owned()));
    let receiver = Receiver::new(verified.into_iter(), publisher);
    let variants = receiver.variants();
    if variants.is_empty() {
        warn!("no variant receives webhooks: configure a variant's webhook secret");
    }
    info!(variants = variants.join(", "), http = %address, "receiving webhooks");
    tokio::select! {
        () = serve_http(listener, Arc::clone(&health), metrics, receiver, shutdown) => {}
        Err(error) = prerequisites::broker(&bus, &names, &health, &prepared) => return Err(error.into()),
    }
    ended.cancel();
    info!("stopped receiving webhooks");
    Ok(())
}

/// Returns the variants that have webhooks, each with its verification.
fn verified(settings: &Settings) -> Result<Vec<(String, Verify)>, RunError> {
    let mut verified = Vec::new();
    for (name, configured) in &settings.variants {
        let verify = registry::webhooks(configured).map_err(|error| unusable(name, &error))?;
        verified.extend(verify.map(|verify| (name.clone(), verify)));
    }
    Ok(verified)
}
