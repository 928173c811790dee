//! Spans, exported over OTLP if a collector is configured. Otherwise no span is ever created, and a command's trace
//! context is passed on unchanged.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;
use std::time::{Duration, SystemTime};

use opentelemetry::propagation::{Extractor, TextMapPropagator};
use opentelemetry::trace::{Span as _, SpanId, Status, TraceContextExt, TraceId, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue, StringValue, Value};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{self as sdk, IdGenerator, RandomIdGenerator, Sampler, SdkTracer, SdkTracerProvider};
use sha2::{Digest, Sha256};
use tracing::{info, warn};
use uuid::Uuid;

pub use opentelemetry::trace::SpanKind;

use crate::config::Tracing;
use crate::error_chain::chain;
use crate::payment::trace::TraceContext;

mod export;

/// The timeout of one export.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last export may delay the exit of the process.
const LAST_EXPORT: Duration = Duration::from_secs(3);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

thread_local! {
    /// The trace id of the next root span that this thread creates.
    static NEXT_TRACE: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Why the export of spans could not start.
#[derive(Debug, thiserror::Error)]
#[error("tracing.endpoint: cannot set up the export of spans")]
pub struct SpansError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The running export of spans. It lasts as long as the process.
#[must_use = "the last spans are exported when it ends"]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Exports the remaining spans, for at most three seconds.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            warn!(error = chain(&error), "cannot export the last spans; they are lost");
        }
    }
}

/// Starts exporting spans; returns `None` if no collector is configured. Must be called once, and outside the async
/// runtime: the exporter has a thread of its own.
///
/// # Errors
/// The endpoint is not a URL, or no exporter can be built for it.
pub fn start(settings: &Tracing) -> Result<Option<Export>, SpansError> {
    let Some(endpoint) = &settings.endpoint else { return Ok(None) };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let provider = SdkTracerProvider::builder()
        .with_span_processor(export::Batches::new(exporter))
        // The parent of a trace decides whether it is sampled; of the traces that start here, a share is.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
        .with_id_generator(Ids(RandomIdGenerator::default()))
        .with_resource(
            Resource::builder()
                .with_service_name(settings.service.clone())
                .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
                .build(),
        )
        .build();
    if TRACER.set(provider.tracer("paybus")).is_err() {
        warn!("the export of spans was already started; ignoring the second start");
    }
    info!(endpoint, "exporting spans");
    Ok(Some(Export(provider)))
}

/// Returns whether spans are exported; if not, none are created.
pub fn are_exported() -> bool {
    TRACER.get().is_some()
}

/// Returns a `tracing` span whose log lines carry a trace id and a span id, if spans are exported.
pub fn lines() -> tracing::Span {
    if !are_exported() {
        return tracing::Span::none();
    }
    tracing::info_span!("command", trace_id = tracing::field::Empty, span_id = tracing::field::Empty)
}

/// What is known of a span when it starts.
pub struct Begin {
    /// The span's name, one of a few.
    pub name: String,
    /// Which side of an exchange the span describes.
    pub kind: SpanKind,
    /// The attributes that are known at the start.
    pub attributes: Vec<KeyValue>,
}

/// A span that ends when it is dropped. Without export it is empty and costs nothing.
#[derive(Default)]
pub struct Span(Option<Box<sdk::Span>>);

impl Span {
    /// Starts a span within a trace; it is empty if there is no parent.
    pub fn within(parent: Option<&TraceContext>, begin: impl FnOnce() -> Begin) -> Span {
        let (Some(tracer), Some(parent)) = (TRACER.get(), parent) else { return Span(None) };
        Span(Some(Box::new(build(tracer, &context_of(parent), begin(), SystemTime::now()))))
    }

    /// Starts the root span of a new trace, for work that began at `since`.
    pub fn root(since: SystemTime, begin: impl FnOnce() -> Begin) -> Span {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        Span(Some(Box::new(build(tracer, &Context::new(), begin(), since))))
    }

    /// Starts a span for work that began at `since`, within the parent's trace or as the root of the operation's own
    /// trace. Every worker derives the same trace id from the operation, so after a takeover the trace of the lost
    /// worker continues.
    pub fn of_operation(
        operation: Uuid,
        parent: Option<&TraceContext>,
        since: SystemTime,
        begin: impl FnOnce() -> Begin,
    ) -> Span {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        let context = match parent {
            Some(parent) => context_of(parent),
            None => {
                NEXT_TRACE.set(Some(trace_of(operation)));
                Context::new()
            }
        };
        Span(Some(Box::new(build(tracer, &context, begin(), since))))
    }

    /// Returns whether this is a recorded span and not an empty one.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Adds this span's ids to the log lines that are written within [`lines`].
    pub fn add_ids_to_lines(&self) {
        let Some(span) = &self.0 else { return };
        let (current, context) = (tracing::Span::current(), span.span_context());
        current.record("trace_id", tracing::field::display(context.trace_id()));
        current.record("span_id", tracing::field::display(context.span_id()));
    }

    /// Returns the trace context for everything that this span causes.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        let parent =
            format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 1);
        TraceContext::read(&parent, Some(&context.trace_state().header()))
    }

    /// Sets an attribute.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Records an event that happens now.
    pub fn event(&mut self, name: &'static str) {
        if let Some(span) = &mut self.0 {
            span.add_event(name, Vec::new());
        }
    }

    /// Marks the span as failed and sets `error.type` to one of a few words.
    pub fn fail(&mut self, kind: impl Into<StringValue>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new("error.type", kind.into()));
            span.set_status(Status::error(""));
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Span").field(&self.context()).finish()
    }
}

fn build(tracer: &SdkTracer, parent: &Context, begin: Begin, since: SystemTime) -> sdk::Span {
    let builder =
        tracer.span_builder(begin.name).with_kind(begin.kind).with_attributes(begin.attributes).with_start_time(since);
    tracer.build_with_context(builder, parent)
}

fn context_of(parent: &TraceContext) -> Context {
    struct Headers<'a>(&'a TraceContext);
    impl Extractor for Headers<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            match key {
                "traceparent" => Some(self.0.parent()),
                "tracestate" => self.0.state(),
                _ => None,
            }
        }
        fn keys(&self) -> Vec<&str> {
            vec!["traceparent", "tracestate"]
        }
    }
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &Headers(parent));
    debug_assert!(context.has_active_span(), "{parent:?}");
    context
}

/// Returns the trace id of an operation that came without a trace. It is a hash of the operation's id, because some
/// bits of a UUID are constant and sampling decides by those bits.
fn trace_of(operation: Uuid) -> TraceId {
    let hash = Sha256::digest(operation.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    TraceId::from_bytes(id)
}

/// Generates random ids, except for a trace whose id is set in `NEXT_TRACE`.
#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        NEXT_TRACE.take().unwrap_or_else(|| self.0.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        self.0.new_span_id()
    }
}
