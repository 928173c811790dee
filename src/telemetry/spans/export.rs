//! The export of spans. Payments do not wait for the collector: spans that it does not accept are dropped, and so are
//! spans that come faster than it accepts them. Both are counted, and logged at intervals.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use opentelemetry::Context;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor};
use parking_lot::Mutex;
use tracing::{info, warn};

use crate::error_chain::chain;
use crate::telemetry::metrics::{self, SpanLoss};

/// The most spans that wait to be exported or are being exported.
const QUEUE: usize = 16_384;
/// The most spans in one export.
const BATCH: usize = 2_048;
/// The minimum interval between log lines about a full queue.
const LINE_EVERY: Duration = Duration::from_secs(60);

/// Exports spans in batches. The SDK bounds its queue too, but reports the number of dropped spans only when the
/// process ends.
#[derive(Debug)]
pub(super) struct Batches {
    next: BatchSpanProcessor,
    queue: Arc<Queue>,
    dropped: Mutex<Dropped>,
}

impl Batches {
    pub(super) fn new(exporter: SpanExporter) -> Batches {
        let queue = Arc::new(Queue { limit: QUEUE, spans: AtomicUsize::new(0) });
        let config = BatchConfigBuilder::default().with_max_queue_size(QUEUE).with_max_export_batch_size(BATCH).build();
        let exporter = Exporter { exporter, queue: Arc::clone(&queue), lost: AtomicUsize::new(0) };
        let next = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
        Batches { next, queue, dropped: Mutex::default() }
    }
}

impl SpanProcessor for Batches {
    fn on_start(&self, span: &mut sdk::Span, context: &Context) {
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if self.queue.enter() {
            return self.next.on_end(span);
        }
        metrics::spans_dropped(SpanLoss::QueueFull, 1);
        let unlogged = self.dropped.lock().one(Instant::now());
        if let Some(spans) = unlogged {
            warn!(
                spans,
                "dropping spans: they are created faster than the collector accepts them; lower tracing.sample"
            );
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// Counts the spans that wait.
#[derive(Debug)]
struct Queue {
    limit: usize,
    spans: AtomicUsize,
}

impl Queue {
    /// Takes a place in the queue; returns false if it is full.
    fn enter(&self) -> bool {
        let more = |spans: usize| (spans < self.limit).then_some(spans + 1);
        self.spans.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn leave(&self, spans: usize) {
        self.spans.fetch_sub(spans, Ordering::Relaxed);
    }
}

/// The spans that were dropped because the queue was full.
#[derive(Debug, Default)]
struct Dropped {
    unlogged: u64,
    last_line: Option<Instant>,
}

impl Dropped {
    /// Counts one more. Returns how many to log, if a log line is due.
    fn one(&mut self, now: Instant) -> Option<u64> {
        self.unlogged += 1;
        if self.last_line.is_some_and(|last_line| now.duration_since(last_line) < LINE_EVERY) {
            return None;
        }
        self.last_line = Some(now);
        Some(std::mem::take(&mut self.unlogged))
    }
}

/// Logs when exports begin to fail and when they work again, but not every failed batch.
#[derive(Debug)]
struct Exporter {
    exporter: SpanExporter,
    queue: Arc<Queue>,
    /// The spans dropped since exports began to fail.
    lost: AtomicUsize,
}

impl sdk::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        self.queue.leave(spans);
        match &exported {
            Err(error) => {
                metrics::spans_dropped(SpanLoss::NotTaken, spans);
                if self.lost.fetch_add(spans, Ordering::Relaxed) == 0 {
                    warn!(
                        error = chain(error),
                        "cannot export spans to the collector; dropping them until it recovers; payments are not \
                         affected"
                    );
                }
            }
            Ok(()) => {
                let dropped = self.lost.swap(0, Ordering::Relaxed);
                if dropped > 0 {
                    info!(dropped, "the collector accepts spans again");
                }
            }
        }
        exported
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_wait() {
        let queue = Queue { limit: 2, spans: AtomicUsize::new(0) };
        assert_eq!([queue.enter(), queue.enter(), queue.enter()], [true, true, false]);
        queue.leave(1);
        assert_eq!([queue.enter(), queue.enter()], [true, false]);
    }

    #[test]
    fn dropped_spans_are_logged_at_once_and_then_at_intervals() {
        let (mut dropped, begun) = (Dropped::default(), Instant::now());
        assert_eq!(dropped.one(begun), Some(1));
        assert_eq!([dropped.one(begun), dropped.one(begun + LINE_EVERY / 2)], [None, None]);
        assert_eq!(dropped.one(begun + LINE_EVERY), Some(3));
    }
}
