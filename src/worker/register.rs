//! Reports this replica in the database, for `paybus workers`.

use crate::http::health::Health;
use crate::store::StoreError;
use crate::store::workers::{VariantReport, WorkerReport};
use crate::worker::command::engine::Engine;
use crate::worker::variant::Variant;
use crate::worker::variant::guard;

/// This replica, as far as it never changes.
#[derive(Debug, Clone)]
pub struct Replica {
    host: String,
    address: String,
}

impl Replica {
    /// The replica that serves HTTP at this address.
    pub fn at(address: std::net::SocketAddr) -> Replica {
        // Linux; elsewhere, the shell's.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::env::var("HOSTNAME"));
        let host = host.map_or_else(|_| "unknown".to_owned(), |host| host.trim().to_owned());
        Replica { host, address: address.to_string() }
    }

    /// Stores how it is now.
    ///
    /// # Errors
    /// The database cannot be asked.
    pub async fn report(&self, engine: &Engine, health: &Health) -> Result<(), StoreError> {
        let now = engine.store.clock().now();
        let report = |variant: &Variant| VariantReport {
            name: variant.name.clone(),
            breaker: guard::shown(variant.breaker.state()).as_str().to_owned(),
            paused: variant.pause.is_paused(now),
            in_flight: variant.in_flight(),
        };
        let mut variants: Vec<VariantReport> = engine.variants.values().map(|variant| report(variant)).collect();
        variants.sort_by(|one, other| one.name.cmp(&other.name));
        let report = WorkerReport {
            id: engine.worker,
            host: self.host.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            address: self.address.clone(),
            draining: engine.draining.is_cancelled(),
            not_ready: health.ready().err().map_or_else(String::new, |reasons| reasons.join("; ")),
            variants,
        };
        engine.store.report_worker(&report).await
    }
}
