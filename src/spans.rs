//! Spans: what was done when, exported by OTLP where a collector is configured. Where none is, no span is ever made, and
//! the trace context of a command goes on as it came.

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

/// How long one export may take.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last export may hold up the end of the process.
const LAST_EXPORT: Duration = Duration::from_secs(3);

static TRACER: OnceLock<SdkTracer> = OnceLock::new();

thread_local! {
    /// The trace that the next root span of this thread begins.
    static NEXT_TRACE: Cell<Option<TraceId>> = const { Cell::new(None) };
}

/// Why no spans can be exported.
#[derive(Debug, thiserror::Error)]
#[error("tracing.endpoint: spans cannot be exported")]
pub struct SpansError(#[from] opentelemetry_otlp::ExporterBuildError);

/// The export of spans, for as long as the process runs.
#[must_use = "the last spans are exported when it ends"]
pub struct Export(SdkTracerProvider);

impl Export {
    /// Exports what is left, for at most three seconds.
    pub fn end(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            warn!(error = chain(&error), "the last spans are lost");
        }
    }
}

/// Begins to export spans; nothing where no collector is configured. To be called once, outside of the runtime: the exporter
/// has a thread of its own.
///
/// # Errors
/// The endpoint is no URL, or there is no way to use it.
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
        // Whoever began the trace decides; of those that begin here, a part.
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
        warn!("the export of spans was started before");
    }
    info!(endpoint, "spans are exported");
    Ok(Some(Export(provider)))
}

/// Whether spans are made.
pub fn are_exported() -> bool {
    TRACER.get().is_some()
}

/// Within this, log lines name the trace and the span that they are about, where spans are made.
pub fn lines() -> tracing::Span {
    if !are_exported() {
        return tracing::Span::none();
    }
    tracing::info_span!("command", trace_id = tracing::field::Empty, span_id = tracing::field::Empty)
}

/// What a span is when it begins.
pub struct Begin {
    /// Its name, of which there are few.
    pub name: String,
    /// On whose side of an exchange it is.
    pub kind: SpanKind,
    /// What is known of it.
    pub attributes: Vec<KeyValue>,
}

/// A span, from when it is made until it is dropped. Without export it is nothing, and costs nothing.
#[derive(Default)]
pub struct Span(Option<Box<sdk::Span>>);

impl Span {
    /// A span within a trace; nothing without one.
    pub fn within(parent: Option<&TraceContext>, begin: impl FnOnce() -> Begin) -> Span {
        let (Some(tracer), Some(parent)) = (TRACER.get(), parent) else { return Span(None) };
        Span(Some(Box::new(build(tracer, &context_of(parent), begin(), SystemTime::now()))))
    }

    /// A span of something that began earlier, as the root of a trace of its own.
    pub fn root(since: SystemTime, begin: impl FnOnce() -> Begin) -> Span {
        let Some(tracer) = TRACER.get() else { return Span(None) };
        Span(Some(Box::new(build(tracer, &Context::new(), begin(), since))))
    }

    /// A span of something that began earlier, within a trace, or as the root of the one that belongs to this operation: the
    /// same whoever begins it, so that a worker that takes over goes on with the trace of the one that was lost.
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

    /// Whether there is one.
    pub fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Has the lines that are logged within [`lines`] name it.
    pub fn tell_lines(&self) {
        let Some(span) = &self.0 else { return };
        let (current, context) = (tracing::Span::current(), span.span_context());
        current.record("trace_id", tracing::field::display(context.trace_id()));
        current.record("span_id", tracing::field::display(context.span_id()));
    }

    /// Where what this span causes belongs.
    pub fn context(&self) -> Option<TraceContext> {
        let context = self.0.as_ref()?.span_context();
        let parent =
            format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), context.trace_flags().to_u8() & 1);
        TraceContext::read(&parent, Some(&context.trace_state().header()))
    }

    /// Notes what has become known.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, value));
        }
    }

    /// Notes that something happened now.
    pub fn event(&mut self, name: &'static str) {
        if let Some(span) = &mut self.0 {
            span.add_event(name, Vec::new());
        }
    }

    /// Notes that it failed, by a word of which there are few: `error.type`.
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

/// The trace of an operation that came without one. A hash of its id and not the id: some bits of a UUID are always the
/// same, and a part of the traces is chosen by those bits.
fn trace_of(operation: Uuid) -> TraceId {
    let hash = Sha256::digest(operation.as_bytes());
    let mut id = [0; 16];
    id.copy_from_slice(&hash[..16]);
    TraceId::from_bytes(id)
}

/// Random ids, but for a trace that has its own.
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
