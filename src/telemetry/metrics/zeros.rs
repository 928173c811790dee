//! The counters that start at zero. A counter that appears with its first count hides that count from queries for the
//! increase. Only the durations of calls are missing until the first call: a histogram takes twenty lines per label
//! set.

use metrics::{counter, gauge};
use strum::IntoEnumIterator;

use super::{Alert, CommandOutcome, OTHER, SpanLoss, WebhookOutcome, event_types};
use crate::payment::code::Code;
use crate::payment::command::CommandType;

/// The codes of calls that bring no result.
const FAILURE_CODES: [Code; 9] = [
    Code::Unreachable,
    Code::Timeout,
    Code::GatewayError,
    Code::RateLimited,
    Code::Conflict,
    Code::Misconfigured,
    Code::InvalidAnswer,
    Code::Mismatch,
    Code::Refused,
];

/// The codes of dead letters.
const DEAD: [Code; 6] = [
    Code::InvalidEnvelope,
    Code::InvalidEncoding,
    Code::TooLarge,
    Code::CardNumber,
    Code::InvalidData,
    Code::NotAuthorized,
];

/// Starts the counters of these variants, and those of no variant.
pub(super) fn begin<'a>(variants: impl Iterator<Item = &'a str>) {
    for variant in variants {
        of_variant(variant);
    }
    of_strangers();
    for event_type in event_types() {
        counter!("paybus_events_published_total", "type" => event_type.as_str()).increment(0);
    }
    for code in DEAD {
        counter!("paybus_dead_letters_total", "reason" => code.as_str()).increment(0);
    }
    counter!("paybus_events_relayed_total").increment(0);
    counter!("paybus_events_refused_total").increment(0);
    counter!("paybus_publish_nacks_total").increment(0);
    counter!("paybus_replies_unroutable_total").increment(0);
    for loss in SpanLoss::iter() {
        counter!("paybus_spans_dropped_total", "reason" => loss.as_str()).increment(0);
    }
    counter!("paybus_own_events_dropped_total").increment(0);
}

fn of_variant(variant: &str) {
    let of = || ("variant", variant.to_owned());
    for kind in CommandType::iter() {
        for outcome in CommandOutcome::iter() {
            let labels = [("type", kind.as_str().to_owned()), of(), ("outcome", outcome.as_str().to_owned())];
            counter!("paybus_commands_total", &labels).increment(0);
        }
    }
    for name in [
        "paybus_commands_duplicate_total",
        "paybus_takeovers_total",
        "paybus_leases_lost_total",
        "paybus_operations_gone_total",
        "paybus_not_authorized_total",
        "paybus_reads_limited_total",
    ] {
        counter!(name, &[of()]).increment(0);
    }
    for code in FAILURE_CODES {
        let labels = [of(), ("code", code.as_str().to_owned())];
        counter!("paybus_gateway_failures_total", &labels).increment(0);
        counter!("paybus_retries_total", &labels).increment(0);
    }
    for outcome in WebhookOutcome::iter() {
        counter!("paybus_webhooks_total", &[of(), ("outcome", outcome.as_str().to_owned())]).increment(0);
    }
    for alert in Alert::iter() {
        counter!("paybus_alerts_total", &[of(), ("kind", alert.as_str().to_owned())]).increment(0);
    }
    gauge!("paybus_gateway_calls_in_flight", &[of()]).set(0.0);
}

/// A command that names no configured variant is rejected, whatever its type.
fn of_strangers() {
    for kind in CommandType::iter().map(CommandType::as_str).chain([OTHER]) {
        let labels = [("type", kind), ("variant", OTHER), ("outcome", CommandOutcome::Rejected.as_str())];
        counter!("paybus_commands_total", &labels).increment(0);
    }
    counter!("paybus_webhooks_total", "variant" => OTHER, "outcome" => WebhookOutcome::UnknownVariant.as_str())
        .increment(0);
    counter!("paybus_not_authorized_total", "variant" => OTHER).increment(0);
    counter!("paybus_reads_limited_total", "variant" => OTHER).increment(0);
}
