//! Every metric with its name, unit and labels. No other module names one.
//!
//! Labels come from small, known sets: a variant that is not configured and a type that is not in the contract are
//! counted as `other`, and no label holds the id, message or amount of a single payment. Figures that are read from the
//! database or the broker are the same on every replica: take their maximum, not their sum.
//!
//! Counters whose labels are known start at zero, so that a missing series is never mistaken for zero and the first
//! count shows as an increase. `table` lists all metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, counter, gauge, histogram};
use metrics_exporter_prometheus::Matcher;
use parking_lot::Mutex;
use rust_decimal::prelude::ToPrimitive;
use strum::{EnumIter, IntoEnumIterator, IntoStaticStr};
use uuid::Uuid;

use crate::payment::action::Action;
use crate::payment::code::Code;
use crate::payment::command::Kind;
use crate::payment::event::EventType;
use crate::payment::operation::AnswerKind;
use crate::payment::outcome::{Found, GatewayError, Outcome};
use crate::store::query::report::Figures;

mod table;
mod zeros;

pub use self::table::{METRICS, Metric, MetricKind};

/// The histograms' bounds for durations, in seconds: from a nearby gateway to one that has timed out.
const DURATIONS: [f64; 14] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];

/// The label value for everything outside the known words.
const OTHER: &str = "other";

static VARIANTS: OnceLock<BTreeSet<String>> = OnceLock::new();

/// The series that figures have been reported under. A series that disappears from the database must fall to zero.
static REPORTED: Mutex<BTreeSet<Series>> = Mutex::new(BTreeSet::new());

/// Returns the histograms' upper bounds, for the recorder.
pub(super) fn buckets() -> [(Matcher, &'static [f64]); 1] {
    [(Matcher::Suffix("_seconds".to_owned()), &DURATIONS)]
}

/// Sets which variants may become labels.
pub(super) fn know_variants(variants: &[&str]) {
    VARIANTS.get_or_init(|| variants.iter().map(|variant| (*variant).to_owned()).collect());
}

/// Describes all metrics and reports the version.
pub(super) fn describe() {
    METRICS.iter().for_each(Metric::describe);
    gauge!("paybus_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    zeros::begin(VARIANTS.get().into_iter().flatten().map(String::as_str));
}

/// Returns the variant if it is configured, otherwise `other`: anybody can put any word into a routing key.
fn variant_label(variant: &str) -> &'static str {
    VARIANTS.get().and_then(|variants| variants.get(variant)).map_or(OTHER, String::as_str)
}

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum CommandOutcome {
    /// It succeeded.
    Succeeded,
    /// It was rejected and never reached a gateway.
    Rejected,
    /// The gateway refused it, or its retries were given up.
    Failed,
    /// Not answered yet: a retry is scheduled, a result is awaited, or the outcome is unknown.
    Delayed,
}

impl CommandOutcome {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

impl From<AnswerKind> for CommandOutcome {
    fn from(answer: AnswerKind) -> CommandOutcome {
        match answer {
            AnswerKind::Succeeded => CommandOutcome::Succeeded,
            AnswerKind::Rejected => CommandOutcome::Rejected,
            AnswerKind::Failed => CommandOutcome::Failed,
        }
    }
}

/// The state of a circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum BreakerState {
    /// Calls go out.
    Closed,
    /// Calls are paused.
    Open,
    /// One call goes out as a probe.
    HalfOpen,
}

impl BreakerState {
    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Why a span did not reach the collector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum SpanLoss {
    /// The queue was full.
    QueueFull,
    /// The collector did not accept the export.
    NotTaken,
}

impl SpanLoss {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counts spans that did not reach the collector.
pub fn spans_dropped(loss: SpanLoss, spans: usize) {
    counter!("paybus_spans_dropped_total", "reason" => loss.as_str()).increment(spans as u64);
}

/// Counts a command that was answered or delayed.
pub fn command_settled(kind: &Kind, variant: &str, outcome: CommandOutcome) {
    let kind = kind.known().map_or(OTHER, |kind| kind.as_str());
    let labels = [("type", kind), ("variant", variant_label(variant)), ("outcome", outcome.as_str())];
    counter!("paybus_commands_total", &labels).increment(1);
}

/// Counts a delivery of a command that was already known.
pub fn duplicate(variant: &str) {
    counter!("paybus_commands_duplicate_total", "variant" => variant_label(variant)).increment(1);
}

/// The labels of one of our queues: its name at the broker, and its purpose.
#[derive(Debug, Clone)]
pub struct QueueLabel {
    /// The name, made from the prefix and, if the queue has one, a configured variant.
    pub name: String,
    /// `commands`, `inbound`, `unroutable`, `unrouted`, `dead` or `unanswered`.
    pub kind: &'static str,
}

impl QueueLabel {
    fn labels(&self) -> [(&'static str, String); 2] {
        [("queue", self.name.clone()), ("kind", self.kind.to_owned())]
    }
}

/// The metrics of a queue's deliveries.
pub struct Deliveries {
    count: Counter,
    last: Gauge,
}

impl Deliveries {
    /// Starts with no deliveries; `now`, Unix time in seconds, stands in for the time of the last one.
    pub fn begin(queue: &QueueLabel, now: f64) -> Deliveries {
        let labels = queue.labels();
        let count = counter!("paybus_deliveries_total", &labels);
        let last = gauge!("paybus_last_delivery_timestamp_seconds", &labels);
        last.set(now);
        Deliveries { count, last }
    }

    /// Counts a message taken from the queue.
    pub fn one(&self, now: f64) {
        self.count.increment(1);
        self.last.set(now);
    }
}

/// The state of a queue's consumption.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum QueueCondition {
    /// Deliveries arrive.
    Consuming,
    /// Paused on purpose.
    Paused,
    /// Nothing can arrive.
    Down,
}

/// Reports the state of a queue's consumption.
pub fn queue_condition(queue: &QueueLabel, condition: QueueCondition) {
    for each in QueueCondition::iter() {
        let [name, kind] = queue.labels();
        let word: &str = each.into();
        let is = if each == condition { 1.0 } else { 0.0 };
        gauge!("paybus_queue_state", &[name, kind, ("state", word.to_owned())]).set(is);
    }
}

/// Reports how many messages are ready in a queue and how many consumers it has, according to the broker. If the broker
/// cannot be asked, the figures become NaN: neither zero nor their last value would be true.
pub fn queue_depth(queue: &QueueLabel, depth: Option<(u32, u32)>) {
    let (messages, consumers) =
        depth.map_or((f64::NAN, f64::NAN), |(messages, consumers)| (f64::from(messages), f64::from(consumers)));
    gauge!("paybus_queue_messages", &queue.labels()).set(messages);
    gauge!("paybus_queue_consumers", &queue.labels()).set(consumers);
}

/// Reports for how long no commit has succeeded although some were tried.
pub fn commits_stalled(time: Duration) {
    gauge!("paybus_commits_stalled_seconds").set(time.as_secs_f64());
}

/// Reports whether a part of the process is ready.
pub(crate) fn component_ready(component: &str, ready: bool) {
    gauge!("paybus_component_ready", "component" => component.to_owned()).set(if ready { 1.0 } else { 0.0 });
}

/// Records a call to a gateway, with or without a result.
pub fn gateway_call(variant: &str, action: Action, outcome: &Outcome, took: Duration) {
    failure(variant, outcome.error());
    call(variant, action.as_str(), outcome.as_str(), took);
}

/// Records a look-up at a gateway.
pub fn gateway_look_up(variant: &str, operation: &'static str, found: &Found, took: Duration) {
    failure(variant, found.error());
    call(variant, operation, found.as_str(), took);
}

/// Records a request to a gateway for the payment that a webhook is about.
pub fn gateway_locate(variant: &str, located: &Result<Option<Uuid>, GatewayError>, took: Duration) {
    let outcome = match located {
        Ok(Some(_)) => "approved",
        Ok(None) => "not_found",
        Err(_) => "failed",
    };
    failure(variant, located.as_ref().err());
    call(variant, "locate", outcome, took);
}

/// Counts a request to a gateway that brought no result.
fn failure(variant: &str, error: Option<&GatewayError>) {
    if let Some(error) = error {
        let labels = [("variant", variant_label(variant)), ("code", error.code.as_str())];
        counter!("paybus_gateway_failures_total", &labels).increment(1);
    }
}

/// What became of a webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum WebhookOutcome {
    /// The broker confirmed its command.
    Taken,
    /// It is not about a payment.
    Ignored,
    /// It is about no payment of ours. Counted in addition to its receipt.
    NotOurs,
    /// No variant of this name receives webhooks.
    UnknownVariant,
    /// Too many webhooks arrived at once.
    Busy,
    /// The broker did not take its command.
    Unavailable,
    /// Its URL, headers or body are too large.
    TooLarge,
    /// Its body did not arrive completely.
    Broken,
    /// It has no signature.
    NotSigned,
    /// Its signature is malformed.
    UnreadableSignature,
    /// Its signature was not made with any configured secret.
    WrongSignature,
    /// It was signed too long before or after its receipt.
    OutOfTime,
    /// It is signed, but not what the gateway sends.
    InvalidBody,
}

impl WebhookOutcome {
    /// Returns the label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counts a webhook by its outcome.
pub fn webhook(variant: &str, outcome: WebhookOutcome) {
    counter!("paybus_webhooks_total", "variant" => variant_label(variant), "outcome" => outcome.as_str()).increment(1);
}

/// Counts a webhook that is about no payment of ours.
pub fn notification_not_ours(variant: &str) {
    webhook(variant, WebhookOutcome::NotOurs);
}

fn call(variant: &str, action: &'static str, outcome: &'static str, took: Duration) {
    let labels = [("variant", variant_label(variant)), ("action", action), ("outcome", outcome)];
    histogram!("paybus_gateway_call_duration_seconds", &labels).record(took);
}

/// Reports the number of calls in flight on this replica.
pub fn in_flight(variant: &str, calls: usize) {
    gauge!("paybus_gateway_calls_in_flight", "variant" => variant_label(variant)).set(calls as f64);
}

/// Counts a retry of a call, immediate or scheduled.
pub fn retry(variant: &str, code: Code) {
    counter!("paybus_retries_total", "variant" => variant_label(variant), "code" => code.as_str()).increment(1);
}

/// Reports the state of a variant's circuit breaker.
pub fn breaker(variant: &str, state: BreakerState) {
    for each in BreakerState::iter() {
        let is = if each == state { 1.0 } else { 0.0 };
        gauge!("paybus_breaker_state", "variant" => variant_label(variant), "state" => each.as_str()).set(is);
    }
}

/// Reports whether an operator has paused a variant.
pub fn variant_paused(variant: &str, is_paused: bool) {
    gauge!("paybus_variant_paused", "variant" => variant_label(variant)).set(if is_paused { 1.0 } else { 0.0 });
}

/// Counts an operation that was taken over from a lost worker.
pub fn takeover(variant: &str) {
    counter!("paybus_takeovers_total", "variant" => variant_label(variant)).increment(1);
}

/// Counts an attempt that was stopped because another worker has the lease.
pub fn lease_lost(variant: &str) {
    counter!("paybus_leases_lost_total", "variant" => variant_label(variant)).increment(1);
}

/// Counts an answer of a gateway whose operation is no longer in the database.
pub fn operation_gone(variant: &str) {
    counter!("paybus_operations_gone_total", "variant" => variant_label(variant)).increment(1);
}

/// Reports how far a gateway's clock is ahead of PostgreSQL's, in seconds.
pub fn gateway_clock_ahead(variant: &str, seconds: f64) {
    gauge!("paybus_gateway_clock_ahead_seconds", "variant" => variant_label(variant)).set(seconds);
}

/// A reason to alert somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq, EnumIter, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Alert {
    /// A gateway processed a different amount than requested, or reports a different one than was recorded.
    Discrepancy,
    /// An outcome is unknown, and nothing more happens without a person.
    Escalated,
    /// A cancelled payment turns out to have been paid.
    MoneyAfterCancel,
    /// The gateway took or holds money twice.
    DoubleCharge,
}

impl Alert {
    fn as_str(self) -> &'static str {
        self.into()
    }
}

/// Counts an alert.
pub fn alert(variant: &str, alert: Alert) {
    let labels = [("variant", variant_label(variant)), ("kind", alert.as_str())];
    counter!("paybus_alerts_total", &labels).increment(1);
}

/// The types of events that are counted: all but heartbeats, which are not stored.
fn event_types() -> impl Iterator<Item = EventType> {
    EventType::iter().filter(|event_type| *event_type != EventType::Heartbeat)
}

/// Counts an event that the broker confirmed.
pub fn event_published(event_type: &str) {
    let event_type = event_types().map(EventType::as_str).find(|known| *known == event_type).unwrap_or(OTHER);
    counter!("paybus_events_published_total", "type" => event_type).increment(1);
}

/// Counts events that are published in place of the worker that failed to publish them.
pub fn events_relayed(count: usize) {
    counter!("paybus_events_relayed_total").increment(u64::try_from(count).unwrap_or(u64::MAX));
}

/// Counts an event that the broker refused and that was set aside.
pub fn event_refused() {
    counter!("paybus_events_refused_total").increment(1);
}

/// Reports the total number of messages that the broker nacked.
pub fn publish_nacks(total: u64) {
    counter!("paybus_publish_nacks_total").absolute(total);
}

/// Counts a reply that nobody was there to receive.
pub fn reply_unroutable() {
    counter!("paybus_replies_unroutable_total").increment(1);
}

/// Counts a message that was dead-lettered because it could not be understood or was refused. The reason is one of a
/// few words.
pub fn dead_letter(reason: &'static str) {
    counter!("paybus_dead_letters_total", "reason" => reason).increment(1);
}

/// Counts an event of paybus's own that came back as a command.
pub fn own_event_dropped() {
    counter!("paybus_own_events_dropped_total").increment(1);
}

/// Counts a command that was rejected because its user may not send it.
pub fn not_authorized(variant: &str) {
    counter!("paybus_not_authorized_total", "variant" => variant_label(variant)).increment(1);
}

/// Counts a read-only command that exceeded its user's rate.
pub fn read_limited(variant: &str) {
    counter!("paybus_reads_limited_total", "variant" => variant_label(variant)).increment(1);
}

/// The figures that exist per variant.
const BY_VARIANT: [&str; 8] = [
    "paybus_operations_scheduled",
    "paybus_operations_overdue",
    "paybus_operations_oldest_due_age_seconds",
    "paybus_operations_unknown",
    "paybus_operations_unknown_oldest_age_seconds",
    "paybus_operations_unknown_amount",
    "paybus_operations_escalated",
    "paybus_operations_unserved",
];

/// A gauge's name and its labels.
type Series = (&'static str, Vec<(&'static str, String)>);

/// Reports the figures from the database, which are the same on every replica. A configured variant without any figures
/// gets zeros: its series without a currency exist from the first report on.
pub fn figures(figures: &Figures) {
    let levels: BTreeMap<Series, f64> = nothing().chain(levels(figures)).collect();
    for (series, value) in &levels {
        gauge!(series.0, &series.1).set(*value);
    }
    let mut reported: BTreeSet<Series> = levels.into_keys().collect();
    let mut before = REPORTED.lock();
    for gone in before.difference(&reported) {
        gauge!(gone.0, &gone.1).set(0.0);
    }
    reported.append(&mut before);
    *before = reported;
}

fn nothing() -> impl Iterator<Item = (Series, f64)> {
    let variants = VARIANTS.get().into_iter().flatten();
    variants.flat_map(|variant| BY_VARIANT.map(|name| ((name, vec![("variant", variant.clone())]), 0.0)))
}

fn levels(figures: &Figures) -> Vec<(Series, f64)> {
    let outbox = &figures.outbox;
    let mut levels: Vec<(Series, f64)> = vec![
        (("paybus_outbox_events", vec![]), outbox.count as f64),
        (("paybus_outbox_oldest_age_seconds", vec![]), outbox.oldest_seconds),
        (("paybus_outbox_overdue_events", vec![]), outbox.overdue as f64),
        (("paybus_outbox_set_aside_events", vec![]), outbox.set_aside as f64),
        (("paybus_figures_timestamp_seconds", vec![]), figures.read_at_seconds),
    ];
    for due in &figures.due {
        let labels = || vec![("variant", due.variant.clone())];
        levels.push((("paybus_operations_scheduled", labels()), due.scheduled as f64));
        levels.push((("paybus_operations_overdue", labels()), due.overdue as f64));
        levels.push((("paybus_operations_oldest_due_age_seconds", labels()), due.oldest_seconds));
    }
    for unknown in &figures.unknown {
        // Without a payment there is no currency. Prometheus treats an empty label as a missing one.
        let currency = Some(unknown.currency.clone()).filter(|currency| !currency.is_empty());
        let labels = || {
            let variant = ("variant", unknown.variant.clone());
            std::iter::once(variant).chain(currency.clone().map(|currency| ("currency", currency))).collect()
        };
        let amount = unknown.amount.to_f64().unwrap_or(f64::INFINITY);
        levels.push((("paybus_operations_unknown", labels()), unknown.count as f64));
        levels.push((("paybus_operations_unknown_oldest_age_seconds", labels()), unknown.oldest_seconds));
        levels.push((("paybus_operations_unknown_amount", labels()), amount));
        levels.push((("paybus_operations_escalated", labels()), unknown.escalated as f64));
    }
    for (variant, count) in &figures.unserved {
        levels.push((("paybus_operations_unserved", vec![("variant", variant.clone())]), *count as f64));
    }
    levels
}

#[cfg(test)]
mod tests;
