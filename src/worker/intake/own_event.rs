//! Drops events of paybus that arrive as commands because somebody has bound the events exchange to the commands
//! exchange. A rejection would again be such an event, in an endless loop.
//!
//! These messages are acknowledged and counted but not dead-lettered: the event is stored, its subscribers have it, and
//! dead letters of them would only fill the broker.

use std::borrow::Cow;
use std::time::Duration;

use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;
use tracing::warn;

use crate::bus::consume::delivery::Delivery;
use crate::bus::envelope::SOURCE;
use crate::payment::command::CommandType;
use crate::telemetry::log_limit::LogLimit;
use crate::telemetry::metrics;

/// A loop brings hundreds of events per second.
static LOGGED: LogLimit = LogLimit::every(Duration::from_secs(60));

/// The members that distinguish an event of paybus from a command.
#[derive(Deserialize)]
struct Sender<'a> {
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    partitionkey: Option<IgnoredAny>,
}

/// Whether paybus published this message itself, in this version or another: it has paybus's source and a type that no
/// command has. The snapshot, whose type is also a command's, is recognized by a member that every event has and no
/// command needs.
pub(crate) fn is_own_event(body: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(body) else { return false };
    // Avoids parsing every command twice.
    if !text.contains(SOURCE) {
        return false;
    }
    serde_json::from_str::<Sender<'_>>(text).is_ok_and(|sender| {
        let is_event = match CommandType::from_word(&sender.kind) {
            Some(kind) => kind == CommandType::Snapshot && sender.partitionkey.is_some(),
            None => true,
        };
        sender.source == SOURCE && is_event
    })
}

/// Acknowledges an event of paybus and does nothing else.
pub(crate) fn drop_own_event(tasks: &TaskTracker, delivery: Delivery) -> JoinHandle<()> {
    metrics::own_event_dropped();
    if let Some(suppressed) = LOGGED.pass() {
        warn!(
            queue = %delivery.queue,
            suppressed,
            "paybus's own events arrive as commands; dropping them; deploy/rabbitmq/audit shows the binding that leads \
             them back"
        );
    }
    tasks.spawn(async move {
        delivery.acker.ack().await;
    })
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;
    use crate::payment::event::EventType;

    fn message(source: &str, kind: &str) -> String {
        format!(r#"{{"specversion":"1.0","id":"1","source":"{source}","type":"{kind}","subject":"1","data":{{}}}}"#)
    }

    #[test]
    fn every_event_is_known_for_our_own_and_so_is_one_of_a_later_version() {
        for kind in EventType::iter().map(EventType::as_str).chain(["payment.from_the_future"]) {
            let event = message("paybus", kind).replace("\"data\"", "\"partitionkey\":\"1\",\"data\"");
            assert!(is_own_event(event.as_bytes()), "{kind}");
        }
    }

    #[test]
    fn what_others_send_is_not_dropped() {
        for kind in CommandType::iter().map(CommandType::as_str) {
            assert!(!is_own_event(message("paybus", kind).as_bytes()), "{kind}");
        }
        // It is rejected under its sender's name, and paybus's events never have that.
        assert!(!is_own_event(message("shop", "payment.created").as_bytes()));
        assert!(!is_own_event(br#"{"source":"shop","type":"payment.created","data":{"source":"paybus"}}"#));
        for unreadable in [&b"paybus"[..], b"\xff", br#"{"source":"paybus"}"#, b"{}", b""] {
            assert!(!is_own_event(unreadable), "{unreadable:?}");
        }
    }
}
