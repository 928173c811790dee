//! Receives a webhook: verifies it and publishes it as a command. The gateway gets its response only when the broker
//! has confirmed the command, which is then as safe as any other. The facts of the webhook only decide where the
//! command is addressed.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::time::timeout;
use tracing::{debug, warn};
use uuid::Uuid;

use crate::bus::connection::ConnectionState;
use crate::bus::publish::publisher::Publisher;
use crate::bus::publish::verdict::Refused;
use crate::config::WEBHOOK_SOURCES;
use crate::gateway::notification::Verify;
use crate::http::webhooks::{Receipt, Receive, Reservation};
use crate::payment::command::CommandType;
use crate::payment::fact::{Fact, admitted};
use crate::payment::trace::TraceContext;
use crate::payment::webhook::Webhook;
use crate::telemetry::metrics::WebhookOutcome;
use crate::worker::command::spans;

/// How long the broker may take to confirm before the gateway is asked to retry.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Receives webhooks for all variants whose gateway sends them.
pub struct Receiver {
    variants: HashMap<String, Verify>,
    publisher: Publisher,
}

impl Receiver {
    /// A receiver for the variants that have webhooks.
    pub fn new(variants: impl Iterator<Item = (String, Verify)>, publisher: Publisher) -> Receiver {
        Receiver { variants: variants.collect(), publisher }
    }

    async fn take(&self, variant: String, webhook: Webhook, reservation: Reservation) -> Receipt {
        let since = SystemTime::now();
        let Some(verify) = self.variants.get(&variant) else {
            return Receipt::Ignored;
        };
        let facts = match (verify.check)(&webhook) {
            Ok(facts) => facts,
            Err(why) => {
                // Debug only, as it is counted: otherwise anybody could fill the log.
                debug!(variant, why = why.outcome().as_str(), "a webhook failed verification; rejecting it");
                return Receipt::NotGenuine(why.outcome());
            }
        };
        if facts.is_empty() {
            return Receipt::Ignored;
        }
        let facts = match admitted(facts, None) {
            Ok(facts) => facts,
            Err(rejection) => {
                warn!(variant, error = rejection.message, "a verified webhook cannot be accepted; rejecting it");
                return Receipt::NotGenuine(WebhookOutcome::InvalidBody);
            }
        };
        // Only genuine webhooks get a span: strangers could flood the collector.
        let mut span = spans::webhook(&variant, since);
        let body = command(&variant, &webhook, &facts, span.context()).to_string();
        drop(webhook);
        let receipt = self.publish(&variant, body, reservation).await;
        if receipt != Receipt::Taken {
            span.fail("unavailable");
        }
        receipt
    }

    async fn publish(&self, variant: &str, body: String, reservation: Reservation) -> Receipt {
        // Without a broker the command would only wait here, and the gateway would send it again as well.
        if *self.publisher.state().borrow() != ConnectionState::Connected {
            return Receipt::Unavailable;
        }
        let routing_key = format!("{variant}.{}", CommandType::Notification);
        let publisher = self.publisher.clone();
        // A separate task: the request may be dropped while the publisher still has the command, which counts as memory
        // in use.
        let publishing = tokio::spawn(async move {
            let sent = publisher.publish_command(routing_key, body.into()).await;
            drop(reservation);
            sent
        });
        match timeout(TIMEOUT, publishing).await {
            Ok(Ok(Some(Ok(())))) => Receipt::Taken,
            Ok(Ok(Some(Err(Refused(reason))))) => {
                warn!(
                    variant,
                    reason, "the broker refused the command of a webhook; the gateway will send the webhook again"
                );
                Receipt::Unavailable
            }
            Ok(Ok(None) | Err(_)) | Err(_) => Receipt::Unavailable,
        }
    }
}

impl Receive for Receiver {
    fn variants(&self) -> Vec<String> {
        self.variants.keys().cloned().collect()
    }

    fn signature_header(&self, variant: &str) -> Option<&'static str> {
        self.variants.get(variant).and_then(|verify| verify.header)
    }

    fn receive(&self, variant: String, webhook: Webhook, reservation: Reservation) -> BoxFuture<'_, Receipt> {
        Box::pin(self.take(variant, webhook, reservation))
    }
}

/// One request becomes one command, whatever it reports. It is addressed to a payment if it reports one fact that names
/// its payment; otherwise the worker finds the payment of each fact.
fn command(variant: &str, webhook: &Webhook, facts: &[Fact], trace: Option<TraceContext>) -> Value {
    let mut command = json!({
        "specversion": "1.0",
        "id": id(facts),
        "source": format!("{WEBHOOK_SOURCES}{variant}"),
        "type": CommandType::Notification.as_str(),
        "time": webhook.received_at.to_string(),
        "datacontenttype": "application/json",
        "data": webhook.data(),
    });
    let Some(members) = command.as_object_mut() else { return command };
    if let [Fact { payment_id: Some(payment), .. }] = facts {
        members.insert("subject".to_owned(), payment.to_string().into());
    }
    if let Some(trace) = trace {
        members.insert("traceparent".to_owned(), trace.parent().into());
        members.extend(trace.state().map(|state| ("tracestate".to_owned(), state.into())));
    }
    command
}

/// The command's id. Facts that are reported again make the same command, identified by the gateway's own keys. Without
/// keys each command is a new one, and no more than a reason to ask the gateway.
fn id(facts: &[Fact]) -> String {
    let keys: Option<Vec<String>> = facts.iter().map(Fact::command_id).collect();
    match keys.as_deref() {
        Some([key]) => key.clone(),
        Some(keys) => Uuid::new_v5(&Uuid::NAMESPACE_OID, Value::from(keys).to_string().as_bytes()).to_string(),
        None => Uuid::now_v7().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn webhook() -> Webhook {
        Webhook {
            received_at: "2026-11-22T12:00:00Z".parse().unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/cards".to_owned(),
            headers: Vec::new(),
            body: vec![b'x'; 512 * 1024],
        }
    }

    fn fact(key: Option<&str>, payment: Option<u128>) -> Fact {
        Fact { key: key.map(str::to_owned), payment_id: payment.map(Uuid::from_u128), ..Fact::default() }
    }

    #[test]
    fn a_single_fact_is_addressed_to_its_payment_and_named_by_the_gateways_key() {
        let command = command("cards", &webhook(), &[fact(Some("evt_1"), Some(7))], None);
        assert_eq!(command["subject"], Uuid::from_u128(7).to_string());
        assert_eq!((&command["id"], &command["source"]), (&json!("evt_1"), &json!("webhooks/cards")));
        assert_eq!(Webhook::read(command["data"].as_object().unwrap()), Ok(webhook()));
        assert!(command.to_string().len() < 1024 * 1024, "the largest body is no larger than a command may be");
        assert_eq!((command.get("traceparent"), command.get("tracestate")), (None, None));
        let trace = TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None);
        let unknown = super::command("cards", &webhook(), &[fact(Some("evt_1"), None)], trace.clone());
        assert_eq!((&unknown["id"], unknown.get("subject")), (&json!("evt_1"), None));
        assert_eq!(unknown["traceparent"].as_str(), trace.as_ref().map(TraceContext::parent));
    }

    #[test]
    fn several_facts_are_one_command_with_the_same_name_when_repeated() {
        let facts = [fact(Some("a"), Some(7)), fact(Some("b"), Some(8))];
        let command = |facts: &[Fact]| command("cards", &webhook(), facts, None);
        let (first, again) = (command(&facts), command(&facts));
        assert_eq!((&first["id"], first.get("subject")), (&again["id"], None));
        assert_ne!(first["id"], command(&facts[..1])["id"]);
        // Without keys, each is a new one.
        let unsigned = [fact(None, None)];
        assert_ne!(id(&unsigned), id(&unsigned));
    }
}
