//! `POST /webhooks/{variant}`: notifications from gateways. Clients are not trusted, so everything is bounded: how much
//! memory all webhooks take, how much of each is read, how long that takes and how slowly it may arrive. A webhook
//! without a signature is not read. What is received goes to a [`Receive`], and is answered with 200 only once that has
//! handed it over safely.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Path, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

pub use self::memory::Reservation;
use self::memory::{Full, Memory};
use crate::payment::webhook::Webhook;
use crate::telemetry::metrics::{self, WebhookOutcome};

mod memory;

/// The largest body. Encoded for the bus it is a third larger, and a command is at most 1 MiB.
const BODY_MAX: usize = 512 * 1024;

/// The largest headers, names and values together.
const HEADERS_MAX: usize = 16 * 1024;

/// The longest path and query.
const URL_MAX: usize = 2048;

/// The timeout for receiving a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// After each such period, a body that is still arriving must have brought another [`PACE_BYTES`]: 8 KiB per second.
const PACE: Duration = Duration::from_secs(3);
const PACE_BYTES: usize = 24 * 1024;

/// After how many seconds the gateway may try again.
const RETRY_AFTER: &str = "5";

/// The headers that are not passed on, because they hold credentials.
const KEPT_OUT: [header::HeaderName; 3] = [header::AUTHORIZATION, header::COOKIE, header::PROXY_AUTHORIZATION];

/// Receives webhooks.
pub trait Receive: Send + Sync {
    /// Returns the variants whose gateways send webhooks.
    fn variants(&self) -> Vec<String>;

    /// Returns the header that carries the signature of a variant's webhooks; `None` if its gateway does not sign them.
    fn signature_header(&self, variant: &str) -> Option<&'static str>;

    /// Receives one webhook; must not hang. `reservation` must be kept for as long as the webhook takes memory,
    /// which may be longer than this call.
    fn receive(&self, variant: String, webhook: Webhook, reservation: Reservation) -> BoxFuture<'_, Receipt>;
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Receipt {
    /// It was handed over safely.
    Taken,
    /// It is not about a payment.
    Ignored,
    /// It does not come from the gateway; the reason is one of a few words.
    NotGenuine(WebhookOutcome),
    /// It cannot be accepted now.
    Unavailable,
}

#[derive(Clone)]
struct Endpoint {
    receiver: Arc<dyn Receive>,
    memories: Arc<HashMap<String, Memory>>,
}

/// Returns the route of the webhooks.
pub fn router(receiver: Arc<dyn Receive>) -> Router {
    let memories = receiver.variants().into_iter().map(|variant| (variant, Memory::new())).collect();
    Router::new()
        .route("/webhooks/{variant}", post(receive))
        .layer(DefaultBodyLimit::disable())
        .with_state(Endpoint { receiver, memories: Arc::new(memories) })
}

async fn receive(State(endpoint): State<Endpoint>, Path(variant): Path<String>, request: Request) -> Response {
    let answer = taken(&endpoint, &variant, request).await;
    metrics::webhook(&variant, answer.outcome);
    let mut response = (answer.status, format!("{}\n", answer.words)).into_response();
    if answer.status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static(RETRY_AFTER));
    }
    response
}

/// The response, and the outcome that is counted.
struct Answer {
    status: StatusCode,
    words: &'static str,
    outcome: WebhookOutcome,
}

impl Answer {
    fn new(status: StatusCode, words: &'static str, outcome: WebhookOutcome) -> Answer {
        Answer { status, words, outcome }
    }
}

async fn taken(endpoint: &Endpoint, variant: &str, request: Request) -> Answer {
    let Some(memory) = endpoint.memories.get(variant) else {
        return Answer::new(
            StatusCode::NOT_FOUND,
            "no variant of this name receives webhooks",
            WebhookOutcome::UnknownVariant,
        );
    };
    let signature = endpoint.receiver.signature_header(variant);
    if signature.is_some_and(|name| !request.headers().contains_key(name)) {
        return Answer::new(StatusCode::BAD_REQUEST, "verification failed", WebhookOutcome::NotSigned);
    }
    let (webhook, reservation) = match read(request, memory).await {
        Ok(read) => read,
        Err(answer) => return answer,
    };
    match endpoint.receiver.receive(variant.to_owned(), webhook, reservation).await {
        Receipt::Taken => Answer::new(StatusCode::OK, "accepted", WebhookOutcome::Taken),
        Receipt::Ignored => Answer::new(StatusCode::OK, "ignored: not about a payment", WebhookOutcome::Ignored),
        Receipt::NotGenuine(why) => Answer::new(StatusCode::BAD_REQUEST, "verification failed", why),
        Receipt::Unavailable => {
            Answer::new(StatusCode::SERVICE_UNAVAILABLE, "try again later", WebhookOutcome::Unavailable)
        }
    }
}

async fn read(request: Request, memory: &Memory) -> Result<(Webhook, Reservation), Answer> {
    let received_at = Timestamp::now();
    let (head, body) = request.into_parts();
    let url = head.uri.path_and_query().map(|url| url.as_str()).unwrap_or_default();
    if url.len() > URL_MAX {
        return Err(Answer::new(StatusCode::URI_TOO_LONG, "the URL is too long", WebhookOutcome::TooLarge));
    }
    let headers = kept(&head.headers);
    let headers_size: usize = headers.iter().map(|(name, value)| name.len() + value.len()).sum();
    if headers_size > HEADERS_MAX {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Answer::new(status, "the headers are too large", WebhookOutcome::TooLarge));
    }
    let (method, url) = (head.method.to_string(), url.to_owned());
    let mut reservation = memory.begin(url.len() + headers_size)?;
    let body =
        timeout(BODY_TIMEOUT, whole(body, memory, &mut reservation)).await.unwrap_or_else(|_| Err(too_slow()))?;
    Ok((Webhook { received_at, method, url, headers, body }, reservation))
}

impl From<Full> for Answer {
    fn from(_: Full) -> Answer {
        Answer::new(StatusCode::SERVICE_UNAVAILABLE, "too many webhooks at once", WebhookOutcome::Busy)
    }
}

fn too_slow() -> Answer {
    Answer::new(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time", WebhookOutcome::Broken)
}

/// Returns the headers to pass on, in order.
fn kept(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        let value = value.to_str().ok().filter(|_| !KEPT_OUT.contains(name))?;
        Some((name.as_str().to_owned(), value.to_owned()))
    };
    headers.iter().filter_map(text).collect()
}

/// Reads the whole body, unchanged.
async fn whole(body: Body, memory: &Memory, reservation: &mut Reservation) -> Result<Vec<u8>, Answer> {
    let mut parts = body.into_data_stream();
    let mut whole = Vec::new();
    let (mut until, mut wanted) = (Instant::now() + PACE, PACE_BYTES);
    loop {
        let part = match timeout_at(until, parts.next()).await {
            Ok(Some(part)) => part.map_err(|error| {
                debug!(%error, "the body of a webhook was cut off");
                Answer::new(StatusCode::BAD_REQUEST, "the body was cut off", WebhookOutcome::Broken)
            })?,
            Ok(None) => return Ok(whole),
            Err(_) if whole.len() < wanted => return Err(too_slow()),
            Err(_) => {
                (until, wanted) = (until + PACE, whole.len() + PACE_BYTES);
                continue;
            }
        };
        if whole.len() + part.len() > BODY_MAX {
            return Err(Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "the body is too large", WebhookOutcome::TooLarge));
        }
        memory.extend(reservation, part.len())?;
        whole.extend_from_slice(&part);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::task::JoinHandle;

    use super::*;

    /// Returns the given receipt and keeps what it received.
    struct Receiver {
        receipt: Receipt,
        received: Mutex<Vec<Webhook>>,
    }

    impl Receive for Receiver {
        fn variants(&self) -> Vec<String> {
            vec!["cards".to_owned()]
        }

        fn signature_header(&self, _: &str) -> Option<&'static str> {
            Some("stripe-signature")
        }

        fn receive(&self, _: String, webhook: Webhook, _: Reservation) -> BoxFuture<'_, Receipt> {
            self.received.lock().unwrap().push(webhook);
            Box::pin(async { self.receipt })
        }
    }

    /// Starts a listener for one test.
    async fn served(receipt: Receipt) -> (Arc<Receiver>, String, JoinHandle<()>) {
        let receiver = Arc::new(Receiver { receipt, received: Mutex::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/webhooks/", listener.local_addr().unwrap());
        let app = router(Arc::clone(&receiver) as Arc<dyn Receive>);
        (receiver, address, tokio::spawn(async move { axum::serve(listener, app).await.unwrap() }))
    }

    async fn posted(request: reqwest::RequestBuilder) -> (u16, Option<String>) {
        let answer = request.header("stripe-signature", "t=1").send().await.unwrap();
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned());
        (answer.status().as_u16(), retry_after)
    }

    #[tokio::test]
    async fn each_receipt_has_its_status() {
        for (receipt, status) in [
            (Receipt::Taken, 200),
            (Receipt::Ignored, 200),
            (Receipt::NotGenuine(WebhookOutcome::WrongSignature), 400),
            (Receipt::Unavailable, 503),
        ] {
            let (_, address, serving) = served(receipt).await;
            let client = reqwest::Client::new();
            let (answered, retry_after) = posted(client.post(format!("{address}cards")).body("{}")).await;
            assert_eq!((answered, retry_after.is_some()), (status, status == 503), "{receipt:?}");
            assert_eq!(posted(client.post(format!("{address}other"))).await.0, 404);
            assert_eq!(posted(client.get(format!("{address}cards"))).await.0, 405);
            serving.abort();
        }
    }

    #[tokio::test]
    async fn a_webhook_is_passed_on_as_it_came_but_for_credentials() {
        let (receiver, address, serving) = served(Receipt::Taken).await;
        let body: Vec<u8> = (0..=255).collect();
        let request = reqwest::Client::new()
            .post(format!("{address}cards?a=%20b"))
            .header("x-two", "1")
            .header("x-two", "2")
            .header("authorization", "Bearer hunter2")
            .header("cookie", "session=hunter2")
            .body(body.clone());
        assert_eq!(posted(request).await.0, 200);
        let received = receiver.received.lock().unwrap().pop().unwrap();
        assert_eq!((received.body.as_slice(), received.method.as_str()), (body.as_slice(), "POST"));
        assert_eq!(received.url, "/webhooks/cards?a=%20b");
        assert_eq!(received.header("x-two").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(received.header("stripe-signature").collect::<Vec<_>>(), ["t=1"]);
        assert!(!format!("{received:?}").contains("hunter2"));
        serving.abort();
    }

    /// Returns the response to a request whose body does not arrive, once the connection is closed.
    async fn answered(address: &str, header: &str, begin: &str) -> String {
        let host = address.trim_start_matches("http://").trim_end_matches("/webhooks/");
        let mut stream = TcpStream::connect(host).await.unwrap();
        let head = format!("POST /webhooks/cards HTTP/1.1\r\nhost: x\r\n{header}content-length: 100000\r\n\r\n");
        stream.write_all(format!("{head}{begin}").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await.expect("in time").unwrap();
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn what_has_no_signature_is_refused_before_its_body_comes() {
        let (receiver, address, serving) = served(Receipt::Taken).await;
        let begun = Instant::now();
        let answer = answered(&address, "", "").await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
        assert!(begun.elapsed() < PACE);
        assert!(receiver.received.lock().unwrap().is_empty());
        serving.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_comes_too_slowly_is_not_waited_for() {
        let (receiver, address, serving) = served(Receipt::Taken).await;
        for begin in ["", "{", &"x".repeat(PACE_BYTES)] {
            let begun = Instant::now();
            let answer = answered(&address, "stripe-signature: t=1\r\n", begin).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
            assert!(begun.elapsed() < BODY_TIMEOUT, "{:?}", begun.elapsed());
        }
        assert!(receiver.received.lock().unwrap().is_empty());
        serving.abort();
    }

    #[tokio::test]
    async fn what_is_too_large_is_not_passed_on() {
        let (receiver, address, serving) = served(Receipt::Taken).await;
        let client = reqwest::Client::new();
        let url = format!("{address}cards");
        assert_eq!(posted(client.post(&url).body(vec![b' '; BODY_MAX])).await.0, 200);
        assert_eq!(posted(client.post(&url).body(vec![b' '; BODY_MAX + 1])).await.0, 413);
        assert_eq!(posted(client.post(&url).header("x", "y".repeat(HEADERS_MAX))).await.0, 431);
        assert_eq!(posted(client.post(format!("{url}?{}", "z".repeat(URL_MAX)))).await.0, 414);
        assert_eq!(receiver.received.lock().unwrap().len(), 1);
        serving.abort();
    }
}
