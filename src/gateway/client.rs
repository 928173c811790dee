//! HTTP to a gateway: how connections are made and answers are read.

use std::time::Duration;

use opentelemetry::KeyValue;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::{Client, Request, RequestBuilder, Response};

use super::failure::Failure;
use super::url::GatewayUrl;
use crate::payment::code::Code;
use crate::payment::outcome::GatewayError;
use crate::payment::trace::TraceContext;
use crate::telemetry::spans::{Begin, Span, SpanKind};

/// Maximum time to connect; less if the call's timeout is short.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_secs(5);

/// Common servers close idle connections after 5 seconds. A request sent at that moment has an unknown outcome, so we
/// close ours a little earlier; under load they are never idle.
const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Maximum size of an answer, in bytes.
pub(super) const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Why a gateway cannot be built from its settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A setting that is well typed but invalid.
    #[error("{key}: {wrong}")]
    Setting {
        /// The setting's name.
        key: &'static str,
        /// What is wrong with it; never its value.
        wrong: &'static str,
    },
    /// The HTTP client cannot be set up, for example because there are no root certificates.
    #[error("cannot set up the HTTP client")]
    Client(#[source] reqwest::Error),
}

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// HTTP/1.1 only: with one call per connection at a time, a broken connection makes one outcome unknown, not those of
/// all calls that share it. No redirects and no retries behind the engine's back.
pub(super) fn client(url: &GatewayUrl, timeout: Duration) -> Result<Client, BuildError> {
    let builder = Client::builder()
        .user_agent(concat!("paybus/", env!("CARGO_PKG_VERSION")))
        .http1_only()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT_MAX.min(timeout / 2))
        .pool_idle_timeout(POOL_IDLE_TIMEOUT);
    let builder = if url.may_use_proxy() { builder } else { builder.no_proxy() };
    builder.build().map_err(BuildError::Client)
}

/// `Authorization: Bearer` with a credential from the settings.
pub(super) fn bearer(key: &'static str, credential: &str) -> Result<HeaderValue, BuildError> {
    let unfit = || BuildError::Setting { key, wrong: "must be printable ASCII and not empty" };
    if credential.is_empty() || !credential.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(unfit());
    }
    let mut value = HeaderValue::from_str(&format!("Bearer {credential}")).map_err(|_| unfit())?;
    value.set_sensitive(true);
    Ok(value)
}

/// Sends a request in its own span, and propagates the trace context to the gateway.
///
/// # Errors
/// The exchange failed.
pub(super) async fn send(request: RequestBuilder, trace: Option<&TraceContext>) -> reqwest::Result<Response> {
    let (client, request) = request.build_split();
    let mut request = request?;
    let mut span = Span::within(trace, || begin(&request));
    let own = span.context();
    if let Some(trace) = own.as_ref().or(trace) {
        for (name, text) in [(TRACEPARENT, Some(trace.parent())), (TRACESTATE, trace.state())] {
            // Values that no header can hold are dropped: a trace is not worth a payment.
            if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
                request.headers_mut().insert(name, value);
            }
        }
    }
    let sent = client.execute(request).await;
    match &sent {
        Ok(response) => {
            let status = response.status();
            span.set("http.response.status_code", i64::from(status.as_u16()));
            if status.is_client_error() || status.is_server_error() {
                span.fail(status.as_str().to_owned());
            }
        }
        Err(error) if error.is_timeout() => span.fail("timeout"),
        Err(error) if error.is_connect() => span.fail("connect"),
        Err(_) => span.fail("_OTHER"),
    }
    sent
}

/// OpenTelemetry's attributes of an HTTP client span: <https://opentelemetry.io/docs/specs/semconv/http/http-spans/>.
/// The query is omitted because it may contain customer data.
fn begin(request: &Request) -> Begin {
    let url = request.url();
    let mut address = url.clone();
    address.set_query(None);
    let mut attributes = vec![
        KeyValue::new("http.request.method", request.method().to_string()),
        KeyValue::new("server.address", url.host_str().unwrap_or_default().to_owned()),
        KeyValue::new("url.full", address.to_string()),
    ];
    attributes.extend(url.port_or_known_default().map(|port| KeyValue::new("server.port", i64::from(port))));
    Begin { name: request.method().to_string(), kind: SpanKind::Client, attributes }
}

/// Reads an answer's body of at most 1 MiB.
pub(super) async fn read_bounded(mut response: Response) -> Result<Vec<u8>, Failure> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(Failure::of_transport)? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            let message = "the gateway's answer is larger than 1 MiB";
            return Err(Failure::unusable(GatewayError::new(Code::InvalidAnswer, message)));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}
