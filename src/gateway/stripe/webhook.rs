//! Incoming webhooks: events about payment intents, charges, refunds, disputes, reviews and early fraud warnings,
//! whatever caused them. Only the subject of an event is read; everything else is looked up.
//!
//! Subscribe the endpoint to the event types of [`PREFIXES`]; others are accepted but ignored.

use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::api::Session;
use super::reply::Denial;
use super::request::{OPERATION, PAYMENT, is_payment_intent};
use crate::gateway::notification::{Fact, NotGenuine, Webhook};
use crate::gateway::signature::{WebhookSecrets, check};

/// The signature header.
pub(super) const SIGNATURE: &str = "stripe-signature";

/// Prefixes of the event types that are about a payment.
const PREFIXES: [&str; 5] = ["payment_intent.", "charge.", "refund.", "review.", "radar.early_fraud_warning."];

/// The charge events that concern the operation that made the charge. In all others the charge's metadata only identify
/// the payment: a charge is refunded by another operation, or in Stripe's dashboard.
const OF_THE_CHARGE_ITSELF: [&str; 3] = ["charge.succeeded", "charge.failed", "charge.pending"];

/// The `object` of a thin event. Thin events, including pings, do not contain the object itself.
const THIN: &str = "v2.core.event";

/// The members of every event, including thin ones.
#[derive(Deserialize)]
struct Head {
    #[serde(default)]
    object: Option<String>,
    #[serde(rename = "type")]
    kind: String,
}

impl Head {
    fn is_about_a_payment(&self) -> bool {
        self.object.as_deref() != Some(THIN) && PREFIXES.iter().any(|prefix| self.kind.starts_with(prefix))
    }
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: Map<String, Value>,
}

/// Verifies that Stripe sent a webhook, and reads its subject.
///
/// # Errors
/// Stripe did not send it, or its body cannot be read.
pub(super) fn verify(webhook: &Webhook, secrets: &WebhookSecrets) -> Result<Vec<Fact>, NotGenuine> {
    check(webhook, SIGNATURE, secrets)?;
    let head: Head = serde_json::from_slice(&webhook.body).map_err(|_| NotGenuine::InvalidBody)?;
    if !head.is_about_a_payment() {
        return Ok(Vec::new());
    }
    let event: Event = serde_json::from_slice(&webhook.body).map_err(|_| NotGenuine::InvalidBody)?;
    let object = Object(&event.data.object);
    let Some(reference) = object.reference() else { return Ok(Vec::new()) };
    let names_operation = object.kind() != Some("charge") || OF_THE_CHARGE_ITSELF.contains(&event.kind.as_str());
    Ok(vec![Fact {
        payment_id: object.payment(),
        operation_id: object.metadata(OPERATION).filter(|_| names_operation).and_then(|id| id.parse().ok()),
        reference: Some(reference.to_owned()),
        key: Some(event.id),
        kind: event.kind,
        proof: None,
    }])
}

/// Asks Stripe which payment a fact belongs to: the payment intent contains our payment's id. Objects of others have
/// none, or Stripe does not show them to us.
pub(super) async fn locate(session: &Session<'_>, fact: &Fact) -> Result<Option<Uuid>, Denial> {
    let Some(reference) = fact.reference.as_deref().filter(|reference| is_id(reference)) else { return Ok(None) };
    let collection = if is_payment_intent(reference) { "payment_intents" } else { "charges" };
    let Some(found) = get(session, collection, reference).await? else { return Ok(None) };
    let found = Object(&found);
    if found.payment().is_some() || found.kind() != Some("charge") {
        return Ok(found.payment());
    }
    // A charge's metadata are a copy of its payment intent's at that time.
    let Some(intent) = found.reference().filter(|id| is_payment_intent(id)) else { return Ok(None) };
    let intent = get(session, "payment_intents", intent).await?;
    Ok(intent.as_ref().and_then(|intent| Object(intent).payment()))
}

async fn get(session: &Session<'_>, collection: &str, id: &str) -> Result<Option<Map<String, Value>>, Denial> {
    match session.get(&format!("{collection}/{id}"), "").await {
        Ok(object) => Ok(Some(object)),
        Err(denial) if denial.is_missing() => Ok(None),
        Err(denial) => Err(denial),
    }
}

/// Whether a text is safe in a path.
fn is_id(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The subject of an event.
struct Object<'a>(&'a Map<String, Value>);

impl<'a> Object<'a> {
    fn kind(&self) -> Option<&'a str> {
        self.0.get("object")?.as_str()
    }

    /// The payment intent, or else the charge: either leads to the payment.
    fn reference(&self) -> Option<&'a str> {
        match self.kind()? {
            "payment_intent" => self.id_of(self.0.get("id")),
            "charge" => self.id_of(self.0.get("payment_intent")).or_else(|| self.id_of(self.0.get("id"))),
            _ => self.id_of(self.0.get("payment_intent")).or_else(|| self.id_of(self.0.get("charge"))),
        }
    }

    /// An id, or the id of an expanded object.
    fn id_of(&self, value: Option<&'a Value>) -> Option<&'a str> {
        match value? {
            Value::String(id) => Some(id),
            Value::Object(object) => object.get("id")?.as_str(),
            _ => None,
        }
    }

    /// Our payment, if it is one of ours.
    fn payment(&self) -> Option<Uuid> {
        self.metadata(PAYMENT)?.parse().ok()
    }

    fn metadata(&self, name: &str) -> Option<&'a str> {
        self.0.get("metadata")?.get(name)?.as_str()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::gateway::signature::sign;

    const OURS: Uuid = Uuid::from_u128(1);
    const DONE_BY: Uuid = Uuid::from_u128(2);

    fn verified(body: &str) -> Result<Vec<Fact>, NotGenuine> {
        let secrets: WebhookSecrets = serde_json::from_value(json!("whsec_test")).unwrap();
        let webhook = Webhook {
            received_at: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/stripe".to_owned(),
            headers: vec![(SIGNATURE.to_owned(), sign("whsec_test", 1_700_000_000, body.as_bytes()))],
            body: body.as_bytes().to_vec(),
        };
        verify(&webhook, &secrets)
    }

    fn fact(kind: &str, object: Value) -> Option<Fact> {
        let event =
            json!({"id": "evt_1", "object": "event", "type": kind, "livemode": false, "data": {"object": object}});
        verified(&event.to_string()).unwrap().pop()
    }

    #[test]
    fn an_event_names_its_object() {
        let ours = || json!({PAYMENT: OURS, OPERATION: DONE_BY});
        let (some, none) = (Some(OURS), None);
        for (kind, object, reference, payment, operation) in [
            (
                "payment_intent.succeeded",
                json!({"object": "payment_intent", "id": "pi_1", "metadata": ours()}),
                "pi_1",
                some,
                Some(DONE_BY),
            ),
            (
                "charge.succeeded",
                json!({"object": "charge", "id": "ch_1", "payment_intent": "pi_1", "metadata": ours()}),
                "pi_1",
                some,
                Some(DONE_BY),
            ),
            // The dashboard's refund of a charge that one of our operations made.
            (
                "charge.refunded",
                json!({"object": "charge", "id": "ch_1", "payment_intent": {"id": "pi_1"}, "metadata": ours()}),
                "pi_1",
                some,
                none,
            ),
            (
                "refund.failed",
                json!({"object": "refund", "id": "re_1", "charge": "ch_1", "payment_intent": "pi_1", "metadata": ours()}),
                "pi_1",
                some,
                Some(DONE_BY),
            ),
            (
                "charge.dispute.created",
                json!({"object": "dispute", "id": "dp_1", "charge": "ch_1", "payment_intent": "pi_1", "metadata": {}}),
                "pi_1",
                none,
                none,
            ),
            (
                "radar.early_fraud_warning.created",
                json!({"object": "radar.early_fraud_warning", "id": "issfr_1", "charge": "ch_1"}),
                "ch_1",
                none,
                none,
            ),
            (
                "review.opened",
                json!({"object": "review", "id": "prv_1", "charge": null, "payment_intent": "pi_1"}),
                "pi_1",
                none,
                none,
            ),
        ] {
            let expected = Fact {
                key: Some("evt_1".to_owned()),
                payment_id: payment,
                operation_id: operation,
                reference: Some(reference.to_owned()),
                kind: kind.to_owned(),
                proof: None,
            };
            assert_eq!(fact(kind, object), Some(expected), "{kind}");
        }
    }

    #[test]
    fn other_events_are_ignored() {
        assert_eq!(fact("customer.created", json!({"object": "customer", "id": "cus_1"})), None);
        assert_eq!(fact("charge.weird", json!({"object": "thing", "id": "x_1"})), None);
        assert_eq!(fact("payment_intent.succeeded", json!({})), None);
    }

    #[test]
    fn a_thin_event_and_a_ping_are_ignored() {
        let related = json!({"id": "pi_1", "type": "payment_intent", "url": "/v1/payment_intents/pi_1"});
        for event in [
            json!({"id": "evt_1", "object": THIN, "type": "v2.core.event_destination.ping", "related_object": null}),
            json!({"id": "evt_1", "object": THIN, "type": "v1.billing.meter.no_meter_found", "data": {"reason": {}}}),
            json!({"id": "evt_1", "object": THIN, "type": "payment_intent.succeeded", "related_object": related}),
            json!({"id": "evt_1", "object": "event", "type": "ping"}),
        ] {
            assert_eq!(verified(&event.to_string()), Ok(Vec::new()), "{event}");
        }
    }

    #[test]
    fn what_others_wrote_into_the_metadata_is_no_id_of_ours() {
        let object = json!({"object": "payment_intent", "id": "pi_1", "metadata": {PAYMENT: "order 7", OPERATION: 7}});
        let fact = fact("payment_intent.succeeded", object).unwrap();
        assert_eq!((fact.payment_id, fact.operation_id), (None, None));
    }

    #[test]
    fn what_is_signed_and_no_event_is_refused() {
        for body in ["", "[]", r#"{"id": "evt_1"}"#, r#"{"id": "evt_1", "type": "charge.refunded", "data": {}}"#] {
            assert_eq!(verified(body), Err(NotGenuine::InvalidBody), "{body}");
        }
    }
}
