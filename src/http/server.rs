//! The worker's own HTTP server: `/livez`, `/readyz` and `/metrics`, and webhooks beside them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::health::{HEARTBEAT, Health};
use super::metrics::Metrics;

/// No question that is answered here has a body.
const BODY_MAX_BYTES: usize = 4 * 1024;

/// How long answers under way may take to end after the shutdown.
const FAREWELL: Duration = Duration::from_secs(5);

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Metrics,
}

/// Answers until the token is cancelled. Keeps the heartbeat of the health and the metrics' upkeep going meanwhile.
///
/// # Errors
/// The listener fails.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Metrics,
    webhooks: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = router(Arc::clone(&health), metrics.clone()).merge(webhooks);
    let serving = axum::serve(listener, app).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    let keeping = tokio::spawn(async move { tokio::join!(beat(health), metrics.upkeep()) });
    let served = tokio::select! {
        served = serving.into_future() => served,
        () = farewell(&shutdown) => {
            debug!("A client of the HTTP server did not take its answer in time.");
            Ok(())
        }
    };
    keeping.abort();
    served
}

/// Ends some time after the shutdown: a client that takes no answer holds up no stop.
async fn farewell(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(FAREWELL).await;
}

/// The routes, for [`serve`].
pub fn router(health: Arc<Health>, metrics: Metrics) -> Router {
    Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(render))
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(Shared { health, metrics })
}

async fn beat(health: Arc<Health>) -> std::convert::Infallible {
    let mut ticks = interval(HEARTBEAT);
    loop {
        ticks.tick().await;
        health.progress(Instant::now());
    }
}

async fn live(State(shared): State<Shared>) -> Response {
    let now = Instant::now();
    if shared.health.is_live(now) {
        return (StatusCode::OK, "live\n").into_response();
    }
    let seconds = shared.health.stalled_for(now).as_secs();
    (StatusCode::SERVICE_UNAVAILABLE, format!("no progress for {seconds} s\n")).into_response()
}

async fn ready(State(shared): State<Shared>) -> Response {
    match shared.health.ready() {
        Ok(()) => (StatusCode::OK, "ready\n").into_response(),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", reasons.join("\n"))).into_response(),
    }
}

async fn render(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], shared.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    async fn ask(client: &reqwest::Client, address: &str, path: &str) -> (u16, String) {
        let answer = client.get(format!("http://{address}{path}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    #[tokio::test]
    async fn tells_of_health_and_metrics_and_nothing_else_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let health = Arc::new(Health::new(&["broker"]));
        let metrics = super::super::metrics::install(&["default"]).expect("a recorder");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::clone(&health), metrics, Router::new(), shutdown.clone()));

        let client = reqwest::Client::new();
        assert_eq!(ask(&client, &address, "/livez").await, (200, "live\n".to_owned()));
        assert_eq!(ask(&client, &address, "/readyz").await, (503, "broker: is starting\n".to_owned()));
        health.set("broker", Ok(()));
        assert_eq!(ask(&client, &address, "/readyz").await, (200, "ready\n".to_owned()));
        super::super::metrics::lease_lost("default");
        let (status, text) = ask(&client, &address, "/metrics").await;
        assert_eq!(status, 200);
        assert!(text.contains("paybus_leases_lost_total{variant=\"default\"}"), "{text}");
        assert_eq!(ask(&client, &address, "/").await.0, 404);
        let post = client.post(format!("http://{address}/readyz")).body("x").send().await.expect("an answer");
        assert_eq!(post.status().as_u16(), 405);

        shutdown.cancel();
        let ended = timeout(Duration::from_secs(3), server).await.expect("in time").expect("no panic");
        assert!(ended.is_ok());
    }
}
