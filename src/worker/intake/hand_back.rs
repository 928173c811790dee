//! A worker that cannot store anything returns its messages to the queues: prefetched ones would wait for its database,
//! while another replica may well reach one.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::bus::consume::consumer::Consumption;
use crate::http::health::Health;
use crate::worker::prerequisites::DATABASE;
use crate::worker::report::COMMITS;

/// How often the database's readiness is checked.
const EVERY: Duration = Duration::from_millis(500);

/// How long the database may be unavailable first: a returned message counts towards the broker's delivery limit, and a
/// database that restarts is soon back.
const GRACE: Duration = Duration::from_secs(5);

/// Leaves these queues while nothing can be stored: their messages go back, and no new ones are fetched. Commands in
/// progress here continue, as they do when the broker redelivers a message: the second execution finds the first one's
/// work in the database.
pub(crate) async fn run(health: Arc<Health>, queues: Vec<Arc<Consumption>>) {
    let mut since: Option<Instant> = None;
    let mut are_left = false;
    loop {
        sleep(EVERY).await;
        let is_well = health.is_ready(DATABASE) && health.is_ready(COMMITS);
        since = if is_well { None } else { since.or_else(|| Some(Instant::now())) };
        let leave = since.is_some_and(|since| since.elapsed() >= GRACE);
        if leave && !are_left {
            warn!("the database stores nothing; returning messages to their queues for other replicas");
            queues.iter().for_each(|queue| queue.leave());
        } else if are_left && is_well {
            info!("the database is available again; resuming consumption");
            queues.iter().for_each(|queue| queue.come_back());
        }
        are_left = leave;
    }
}
