//! All metrics. `/metrics` describes each with the text that is here, and `docs/reference/metrics.md` is made from this
//! table.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
use strum::IntoStaticStr;

/// A metric as operators see it.
#[derive(Debug, Clone, Copy)]
pub struct Metric {
    /// The name.
    pub name: &'static str,
    /// What kind of metric it is.
    pub kind: MetricKind,
    /// The labels. `currency` is missing if there is none.
    pub labels: &'static [&'static str],
    /// What it says.
    pub about: &'static str,
}

/// The kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum MetricKind {
    /// It only rises.
    Counter,
    /// It rises and falls.
    Gauge,
    /// It counts durations by their length.
    Histogram,
}

impl MetricKind {
    /// The kind as Prometheus calls it.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

impl Metric {
    /// Describes it to the recorder.
    pub(super) fn describe(&self) {
        match (self.kind, self.name.ends_with("_seconds")) {
            (MetricKind::Counter, _) => describe_counter!(self.name, self.about),
            (MetricKind::Gauge, true) => describe_gauge!(self.name, Unit::Seconds, self.about),
            (MetricKind::Gauge, false) => describe_gauge!(self.name, self.about),
            (MetricKind::Histogram, _) => describe_histogram!(self.name, Unit::Seconds, self.about),
        }
    }
}

const fn counter(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Counter, labels, about }
}

const fn gauge(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Gauge, labels, about }
}

const fn histogram(name: &'static str, labels: &'static [&'static str], about: &'static str) -> Metric {
    Metric { name, kind: MetricKind::Histogram, labels, about }
}

/// Every metric, in the order of the reference.
pub const METRICS: &[Metric] = &[
    gauge("paybus_build_info", &["version"], "Always 1; the label holds the version."),
    gauge(
        "paybus_component_ready",
        &["component"],
        "1 if this component is ready, otherwise 0; /readyz gives the reason. Only workers have `intake`.",
    ),
    gauge(
        "paybus_commits_stalled_seconds",
        &[],
        "Seconds since the last successful commit while commits are failing; 0 while they succeed.",
    ),
    counter(
        "paybus_commands_total",
        &["type", "variant", "outcome"],
        "Commands by outcome: succeeded, failed or rejected; delayed is not final.",
    ),
    counter("paybus_commands_duplicate_total", &["variant"], "Deliveries of commands that were already stored."),
    counter("paybus_deliveries_total", &["queue", "kind"], "Messages received from a queue."),
    gauge(
        "paybus_last_delivery_timestamp_seconds",
        &["queue", "kind"],
        "Unix time of the last delivery from a queue, or of the worker's start.",
    ),
    gauge(
        "paybus_queue_state",
        &["queue", "kind", "state"],
        "1 for the state of a queue's consumer on this replica (consuming, paused or down), otherwise 0.",
    ),
    gauge(
        "paybus_queue_messages",
        &["queue", "kind"],
        "Ready messages in a queue, queried from the broker every 10 s; NaN if the query fails.",
    ),
    gauge("paybus_queue_consumers", &["queue", "kind"], "Consumers of a queue, queried in the same way."),
    histogram(
        "paybus_gateway_call_duration_seconds",
        &["variant", "action", "outcome"],
        "Duration of gateway calls and look-ups (status, locate), by outcome.",
    ),
    gauge("paybus_gateway_calls_in_flight", &["variant"], "Gateway calls in flight on this replica."),
    counter(
        "paybus_gateway_failures_total",
        &["variant", "code"],
        "Gateway calls and look-ups without a result, by reason.",
    ),
    counter("paybus_retries_total", &["variant", "code"], "Retries, by reason."),
    gauge(
        "paybus_breaker_state",
        &["variant", "state"],
        "1 for the state of the circuit breaker on this replica (closed, open or half_open), otherwise 0.",
    ),
    gauge("paybus_variant_paused", &["variant"], "1 if an operator has paused the variant's calls, otherwise 0."),
    counter("paybus_takeovers_total", &["variant"], "Operations taken over from a lost worker."),
    counter("paybus_leases_lost_total", &["variant"], "Attempts stopped because their lease was lost."),
    counter(
        "paybus_operations_gone_total",
        &["variant"],
        "Gateway answers whose operation is missing from the database; their commands start over.",
    ),
    gauge(
        "paybus_gateway_clock_ahead_seconds",
        &["variant"],
        "Seconds by which the gateway's clock is ahead of PostgreSQL's, from the Date header of its last answer.",
    ),
    counter("paybus_events_published_total", &["type"], "Events confirmed by the broker."),
    counter(
        "paybus_events_relayed_total",
        &[],
        "Events sent by the relay because their worker had not published them within 10 s.",
    ),
    counter("paybus_events_refused_total", &[], "Events set aside because the broker refused them."),
    counter(
        "paybus_publish_nacks_total",
        &[],
        "Messages that the broker rejected (basic.nack), without heartbeats; a retried message may count again.",
    ),
    counter("paybus_replies_unroutable_total", &[], "Replies dropped because no queue took them."),
    counter("paybus_dead_letters_total", &["reason"], "Messages that workers dead-lettered, by reason."),
    counter(
        "paybus_not_authorized_total",
        &["variant"],
        "Commands refused because their user lacks the permission; each is dead-lettered.",
    ),
    counter(
        "paybus_reads_limited_total",
        &["variant"],
        "Read-only commands rejected because their user exceeded its read_rate; they are not dead-lettered.",
    ),
    counter("paybus_own_events_dropped_total", &[], "Dropped events of paybus that were delivered to it as commands."),
    counter("paybus_webhooks_total", &["variant", "outcome"], "Webhooks by outcome."),
    counter(
        "paybus_spans_dropped_total",
        &["reason"],
        "Spans that did not reach the collector: not_taken, or queue_full if there were too many.",
    ),
    counter(
        "paybus_alerts_total",
        &["variant", "kind"],
        "Conditions that need an operator (escalated, discrepancy, money_after_cancel, double_charge); each is logged.",
    ),
    gauge("paybus_outbox_events", &[], "Events that the broker has not confirmed within 10 s, counted up to 50,000."),
    gauge("paybus_outbox_oldest_age_seconds", &[], "Age of the oldest unconfirmed event that is not set aside."),
    gauge(
        "paybus_outbox_overdue_events",
        &[],
        "Unconfirmed events that their worker did not publish in time, without those set aside.",
    ),
    gauge(
        "paybus_outbox_set_aside_events",
        &[],
        "Events set aside because the broker refuses them; an operator must act.",
    ),
    gauge("paybus_operations_scheduled", &["variant"], "Operations scheduled for a later time, counted up to 2,000."),
    gauge("paybus_operations_overdue", &["variant"], "Scheduled operations that are due."),
    gauge("paybus_operations_oldest_due_age_seconds", &["variant"], "Time since the oldest due operation became due."),
    gauge(
        "paybus_operations_unknown",
        &["variant", "currency"],
        "Operations with an unknown outcome, counted up to 2,000.",
    ),
    gauge(
        "paybus_operations_unknown_oldest_age_seconds",
        &["variant", "currency"],
        "Age of the oldest operation with an unknown outcome.",
    ),
    gauge(
        "paybus_operations_unknown_amount",
        &["variant", "currency"],
        "Sum of the amounts that operations with an unknown outcome requested, in units of the currency.",
    ),
    gauge(
        "paybus_operations_escalated",
        &["variant", "currency"],
        "Unknown or pending operations that an operator must resolve.",
    ),
    gauge(
        "paybus_operations_unserved",
        &["variant"],
        "Open operations that no variant of this replica serves; use the minimum over the replicas.",
    ),
    gauge("paybus_figures_timestamp_seconds", &[], "Unix time at which these figures were read from the database."),
];
