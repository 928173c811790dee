//! The worker's HTTP server: `/livez`, `/readyz`, `/metrics` and the webhooks.
//!
//! Clients are not trusted, and each connection takes an open file from the process that charges. So the number of
//! connections, the time to send a request and the lifetime of a connection are bounded.

use std::io::{Error, ErrorKind};
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{Request, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{interval, sleep};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::arriving::Arriving;
use self::connections::{Connection, Connections};
use super::health::{HEARTBEAT, Health};
use crate::telemetry::recorder::Metrics;

mod arriving;
mod connections;

/// The largest body; no request that is answered here has one.
const BODY_MAX_BYTES: usize = 4 * 1024;

/// How long responses in flight may take to finish after the shutdown.
const FAREWELL: Duration = Duration::from_secs(5);

/// How long the head of a request may take to arrive, and how long a connection may be idle between requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// How much is read ahead of one connection, and so the longest head.
const READ_MAX_BYTES: usize = 64 * 1024;

/// The time after which a connection is closed as soon as it has been answered: a client that reads byte by byte is
/// never idle.
const LIFE: Duration = Duration::from_secs(120);

/// How long a last response may take.
const PARTING: Duration = Duration::from_secs(60);

/// The delay after a connection could not be accepted, usually for lack of open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(250);

/// The content type of Prometheus' text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

#[derive(Debug, Clone)]
struct Shared {
    health: Arc<Health>,
    metrics: Metrics,
}

/// Serves requests until the token is cancelled. Meanwhile runs the heartbeat of the health and the metrics' upkeep.
///
/// # Errors
/// Currently none: a listener that fails is retried.
pub async fn serve(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Metrics,
    webhooks: Router,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let app = router(Arc::clone(&health), metrics.clone()).merge(webhooks);
    let keeping = tokio::spawn(async move { tokio::join!(beat(health), metrics.upkeep()) });
    tokio::select! {
        () = accept(listener, app, &shutdown) => {}
        () = farewell(&shutdown) => debug!("an HTTP client did not read its response in time; closing the connection"),
    }
    keeping.abort();
    Ok(())
}

/// Accepts connections until the shutdown, then waits for the open ones. Dropping this closes them.
async fn accept(listener: TcpListener, app: Router, shutdown: &CancellationToken) {
    let end = CancellationToken::new();
    let connections = Connections::new(end.clone());
    let _close_all = end.drop_guard();
    while let Some((stream, peer)) = next(&listener, &connections, shutdown).await {
        match connections.admit(peer).await {
            Some(connection) => drop(tokio::spawn(converse(stream, connection, app.clone(), shutdown.clone()))),
            None => debug!(%peer, "the HTTP port has no free connection; closing a new one"),
        }
    }
    drop(listener);
    connections.all_closed().await;
}

/// Returns the next connection, or `None` after the shutdown. Errors are retried: open files may be short for a while.
async fn next(
    listener: &TcpListener,
    connections: &Connections,
    shutdown: &CancellationToken,
) -> Option<(TcpStream, IpAddr)> {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => return None,
        };
        match accepted {
            Ok((stream, peer)) => return Some((stream, peer.ip().to_canonical())),
            Err(error) if is_the_clients(&error) => {
                debug!(%error, "an HTTP client disconnected before it was accepted")
            }
            Err(error) => {
                warn!(%error, "the HTTP port cannot accept a connection; closing the longest idle one");
                connections.close_longest_idle();
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_the_clients(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset)
}

/// Serves one connection until either side closes it.
async fn converse(stream: TcpStream, connection: Arc<Connection>, app: Router, shutdown: CancellationToken) {
    let router = TowerToHyperService::new(app);
    let asked = Arc::clone(&connection);
    let service = service_fn(move |request: Request<Incoming>| {
        let asking = asked.asking();
        let answer = router.call(request.map(|body| Arriving::new(body, Arc::clone(&asked))));
        async move {
            let answer = answer.await;
            drop(asking);
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(READ_MAX_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = pin!(serving);
    tokio::select! {
        served = serving.as_mut() => return ended(served),
        () = connection.cut() => return,
        () = shutdown.cancelled() => {}
        () = sleep(LIFE) => {}
    }
    serving.as_mut().graceful_shutdown();
    tokio::select! {
        served = serving.as_mut() => ended(served),
        () = connection.cut() => {}
        () = sleep(PARTING) => {}
    }
}

fn ended(served: hyper::Result<()>) {
    if let Err(error) = served {
        debug!(%error, "an HTTP connection broke");
    }
}

/// Completes some time after the shutdown, so that a client that does not read its response cannot delay the exit.
async fn farewell(shutdown: &CancellationToken) {
    shutdown.cancelled().await;
    sleep(FAREWELL).await;
}

/// Returns the routes for health and metrics, for [`serve`].
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
    let (status, mut lines) = match shared.health.ready() {
        Ok(()) => (StatusCode::OK, vec!["ready".to_owned()]),
        Err(reasons) => (StatusCode::SERVICE_UNAVAILABLE, reasons),
    };
    lines.extend(shared.health.notes().iter().map(|note| format!("note: {note}")));
    (status, format!("{}\n", lines.join("\n"))).into_response()
}

async fn render(State(shared): State<Shared>) -> Response {
    ([(header::CONTENT_TYPE, METRICS_TYPE)], shared.metrics.render()).into_response()
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::timeout;

    use super::connections::OPEN_OF_ONE_MAX;
    use super::*;

    /// Starts a server for one test; returns its address and the token that stops it.
    async fn accepting() -> (String, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let shutdown = CancellationToken::new();
        let app = Router::new().route("/livez", get(|| async { "live\n" }));
        let until = shutdown.clone();
        tokio::spawn(async move { accept(listener, app, &until).await });
        (address, shutdown)
    }

    /// Connects a client that sends half a head.
    async fn half_open(address: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost:").await.expect("half a head");
        stream
    }

    /// Returns whether the server closes the connection in time.
    async fn is_closed(stream: &mut TcpStream) -> bool {
        let read = timeout(Duration::from_secs(30), stream.read(&mut [0; 1])).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }

    #[tokio::test]
    async fn clients_that_ask_nothing_make_room_for_one_that_asks() {
        let (address, shutdown) = accepting().await;
        let mut idle = Vec::new();
        for _ in 0..=OPEN_OF_ONE_MAX {
            idle.push(half_open(&address).await);
        }
        assert!(is_closed(&mut idle[0]).await);
        assert_eq!(ask(&reqwest::Client::new(), &address, "/livez").await, (200, "live\n".to_owned()));
        shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_arrive_is_not_waited_for() {
        let (address, shutdown) = accepting().await;
        assert!(is_closed(&mut half_open(&address).await).await);
        let mut silent = TcpStream::connect(&address).await.expect("a connection");
        assert!(is_closed(&mut silent).await);
        shutdown.cancel();
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_asks_no_more_is_closed() {
        let (address, shutdown) = accepting().await;
        let mut stream = TcpStream::connect(&address).await.expect("a connection");
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("a request");
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok_and(|read| read.is_ok()));
        assert!(answer.starts_with(b"HTTP/1.1 200 OK"), "{}", String::from_utf8_lossy(&answer));
        shutdown.cancel();
    }

    async fn ask(client: &reqwest::Client, address: &str, path: &str) -> (u16, String) {
        let answer = client.get(format!("http://{address}{path}")).send().await.expect("an answer");
        (answer.status().as_u16(), answer.text().await.expect("a text"))
    }

    #[tokio::test]
    async fn serves_only_health_and_metrics_until_it_is_stopped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address").to_string();
        let health = Arc::new(Health::new(&["broker"]));
        let metrics = crate::telemetry::recorder::install(&["default"]).expect("a recorder");
        let shutdown = CancellationToken::new();
        let server = tokio::spawn(serve(listener, Arc::clone(&health), metrics, Router::new(), shutdown.clone()));

        let client = reqwest::Client::new();
        assert_eq!(ask(&client, &address, "/livez").await, (200, "live\n".to_owned()));
        assert_eq!(ask(&client, &address, "/readyz").await, (503, "broker: starting\n".to_owned()));
        health.set("broker", Ok(()));
        assert_eq!(ask(&client, &address, "/readyz").await, (200, "ready\n".to_owned()));
        health.set_notes("payments", vec!["payments of old are not served".to_owned()]);
        let noted = "ready\nnote: payments of old are not served\n";
        assert_eq!(ask(&client, &address, "/readyz").await, (200, noted.to_owned()));
        crate::telemetry::metrics::lease_lost("default");
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
