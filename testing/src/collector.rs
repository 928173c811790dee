//! A collector of spans: OTLP over HTTP, in protobuf.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::ports::free_port;

/// A span as it came.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: String,
    /// 1 internal, 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: i32,
    pub trace: String,
    pub id: String,
    /// Empty for a root.
    pub parent: String,
    pub attributes: BTreeMap<String, String>,
    pub events: Vec<String>,
    pub is_error: bool,
    pub begun: u64,
    pub ended: u64,
    /// Of what sent it.
    pub resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty where there is none.
    pub fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A collector that keeps what it gets; it ends with its test.
pub struct Collector {
    port: u16,
    taken: Arc<Mutex<Taken>>,
    serving: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Taken {
    spans: Vec<Span>,
    headers: Vec<HeaderMap>,
}

impl Collector {
    /// Starts one.
    pub async fn start() -> Collector {
        let mut collector = Collector { port: free_port(), taken: Arc::default(), serving: None };
        collector.open().await;
        collector
    }

    /// One that is not there yet, at an address of its own.
    pub fn absent() -> Collector {
        Collector { port: free_port(), taken: Arc::default(), serving: None }
    }

    /// Begins to listen.
    pub async fn open(&mut self) {
        let listener = TcpListener::bind(("127.0.0.1", self.port)).await.expect("a port");
        let app = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&self.taken));
        self.serving = Some(tokio::spawn(async move { axum::serve(listener, app).await.expect("it serves") }));
    }

    /// Its address, as it is configured.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.taken.lock().unwrap().spans.clone()
    }

    /// Those of this operation or payment, by the ids that they carry.
    pub fn of_trace(&self, trace: &str) -> Vec<Span> {
        self.spans().into_iter().filter(|span| span.trace == trace).collect()
    }

    /// A header of the first export.
    pub fn header(&self, name: &str) -> Option<String> {
        let taken = self.taken.lock().unwrap();
        Some(taken.headers.first()?.get(name)?.to_str().ok()?.to_owned())
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        if let Some(serving) = &self.serving {
            serving.abort();
        }
    }
}

async fn take(State(taken): State<Arc<Mutex<Taken>>>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let Ok(request) = ExportTraceServiceRequest::decode(body) else { return StatusCode::BAD_REQUEST };
    let mut taken = taken.lock().unwrap();
    taken.headers.push(headers);
    for resource_spans in request.resource_spans {
        let resource = texts(resource_spans.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource_spans.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            taken.spans.push(Span {
                name: span.name,
                kind: span.kind,
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                attributes: texts(span.attributes),
                events: span.events.into_iter().map(|event| event.name).collect(),
                is_error: span.status.is_some_and(|status| status.code == 2),
                begun: span.start_time_unix_nano,
                ended: span.end_time_unix_nano,
                resource: resource.clone(),
            });
        }
    }
    StatusCode::OK
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Value| match value {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
        other => format!("{other:?}"),
    };
    let pairs = attributes.into_iter().map(|pair| (pair.key, pair.value.and_then(|value| value.value)));
    pairs.map(|(key, value)| (key, value.map(text).unwrap_or_default())).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
