//! Incoming webhooks.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::answer;
use super::settings::WebhookRole;
use crate::gateway::client::BuildError;
use crate::gateway::notification::{Fact, NotGenuine, Notifications, Webhook};
use crate::gateway::signature::{WebhookSecrets, check};
use crate::payment::outcome::GatewayError;

/// The signature header.
const SIGNATURE: &str = "paybus-signature";

/// The webhooks of an `http` gateway.
#[derive(Debug)]
pub(super) struct HttpWebhooks {
    secrets: WebhookSecrets,
    role: WebhookRole,
}

impl HttpWebhooks {
    /// Builds it from the settings; `None` if there are no secrets.
    ///
    /// # Errors
    /// A secret is empty, or webhooks are configured as proof without a secret.
    pub(super) fn configured(secrets: &WebhookSecrets, role: WebhookRole) -> Result<Option<HttpWebhooks>, BuildError> {
        secrets.check()?;
        if secrets.is_empty() && role == WebhookRole::Proof {
            let wrong = "must not be \"proof\" without a webhook_secret: an unsigned webhook proves nothing";
            return Err(BuildError::Setting { key: "notifications", wrong });
        }
        Ok((!secrets.is_empty()).then(|| HttpWebhooks { secrets: secrets.clone(), role }))
    }

    /// Reads one event and, if the settings accept it, what it proves.
    fn fact(&self, news: &RawValue) -> Result<Fact, NotGenuine> {
        let parsed: News = serde_json::from_str(news.get()).map_err(|_| NotGenuine::InvalidBody)?;
        let proof = match self.role {
            WebhookRole::Hint => None,
            WebhookRole::Proof => answer::proof::read(news.get()).map_err(|_| NotGenuine::InvalidBody)?,
        };
        Ok(Fact { proof, ..Fact::from(parsed) })
    }
}

/// Splits a body into its events: one, or a list.
fn pieces(body: &[u8]) -> Result<Vec<&RawValue>, NotGenuine> {
    let many = serde_json::from_slice(body);
    many.or_else(|_| serde_json::from_slice(body).map(|one| vec![one])).map_err(|_| NotGenuine::InvalidBody)
}

#[derive(Deserialize)]
struct News {
    id: String,
    payment_id: Uuid,
    operation_id: Option<Uuid>,
    #[serde(default, rename = "type")]
    kind: String,
}

impl Notifications for HttpWebhooks {
    fn signature_header(&self) -> Option<&'static str> {
        Some(SIGNATURE)
    }

    fn verify(&self, webhook: &Webhook) -> Result<Vec<Fact>, NotGenuine> {
        check(webhook, SIGNATURE, &self.secrets)?;
        pieces(&webhook.body)?.into_iter().map(|news| self.fact(news)).collect()
    }

    /// Every event names its payment.
    fn locate<'a>(&'a self, _fact: &'a Fact, _timeout: Duration) -> BoxFuture<'a, Result<Option<Uuid>, GatewayError>> {
        Box::pin(async { Ok(None) })
    }
}

impl From<News> for Fact {
    fn from(news: News) -> Fact {
        Fact {
            key: Some(news.id),
            payment_id: Some(news.payment_id),
            operation_id: news.operation_id,
            reference: None,
            kind: news.kind,
            proof: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proptest::sample::{Index, select};
    use serde_json::{Value, json};

    use super::*;
    use crate::gateway::signature::sign;

    fn verified(body: &str) -> Result<Vec<Fact>, NotGenuine> {
        received(body.as_bytes().to_vec(), sign("secret", 1_700_000_000, body.as_bytes()))
    }

    fn received(body: Vec<u8>, signature: String) -> Result<Vec<Fact>, NotGenuine> {
        received_as(WebhookRole::Hint, body, signature)
    }

    fn received_as(role: WebhookRole, body: Vec<u8>, signature: String) -> Result<Vec<Fact>, NotGenuine> {
        let secrets: WebhookSecrets = serde_json::from_value(json!("secret")).unwrap();
        let webhooks = HttpWebhooks::configured(&secrets, role).unwrap().unwrap();
        webhooks.verify(&Webhook {
            received_at: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/cards".to_owned(),
            headers: vec![(SIGNATURE.to_owned(), signature)],
            body,
        })
    }

    /// An event with arbitrary members.
    fn any_news() -> impl Strategy<Value = Value> {
        let id = Uuid::from_u128(1).to_string();
        let value = prop_oneof![
            any::<String>().prop_map(Value::from),
            Just(Value::from(id.as_str())),
            any::<i64>().prop_map(Value::from),
            Just(json!(null)),
            Just(json!([{}])),
        ];
        let change = (select(vec!["id", "payment_id", "operation_id", "type", "more"]), value);
        proptest::collection::vec(change, 0..3).prop_map(move |changes| {
            let mut news = json!({"id": "n-1", "payment_id": id, "operation_id": id, "type": "paid"});
            changes.into_iter().for_each(|(name, value)| news[name] = value);
            news
        })
    }

    proptest! {
        /// Whatever is signed is read, and each fact contains what was there; a webhook that was changed after signing
        /// is rejected.
        #[test]
        fn only_signed_webhooks_are_read(
            news in proptest::collection::vec(any_news(), 0..3),
            alone in any::<bool>(),
            at in any::<Index>(),
            byte in any::<u8>(),
        ) {
            let payload = match news.as_slice() {
                [one] if alone => one.clone(),
                _ => Value::from(news.clone()),
            };
            let body = payload.to_string();
            if let Ok(facts) = verified(&body) {
                prop_assert_eq!(facts.len(), news.len());
                for (fact, news) in facts.iter().zip(&news) {
                    prop_assert_eq!(fact.key.as_deref(), news["id"].as_str());
                    prop_assert_eq!(fact.payment_id, news["payment_id"].as_str().and_then(|id| id.parse().ok()));
                    prop_assert_eq!(&fact.reference, &None);
                }
            }
            let signature = sign("secret", 1_700_000_000, body.as_bytes());
            let mut forged = body.clone().into_bytes();
            let at = at.index(forged.len());
            forged[at] = byte;
            prop_assert!(forged == body.as_bytes() || received(forged, signature).is_err());
        }

        #[test]
        fn any_signed_bytes_are_read(body in any::<Vec<u8>>()) {
            let facts = received(body.clone(), sign("secret", 1_700_000_000, &body));
            prop_assert!(facts.is_err() || serde_json::from_slice::<Value>(&body).is_ok());
        }
    }

    #[test]
    fn news_are_one_or_many_and_each_is_a_fact() {
        let (payment, operation) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let one = json!({"id": "n-1", "payment_id": payment, "operation_id": operation, "type": "paid", "more": 1});
        let fact = Fact {
            key: Some("n-1".to_owned()),
            payment_id: Some(payment),
            operation_id: Some(operation),
            reference: None,
            kind: "paid".to_owned(),
            proof: None,
        };
        assert_eq!(verified(&one.to_string()), Ok(vec![fact.clone()]));
        let bare = json!({"id": "n-2", "payment_id": payment});
        let second = Fact { key: Some("n-2".to_owned()), operation_id: None, kind: String::new(), ..fact.clone() };
        assert_eq!(verified(&Value::from(vec![one, bare]).to_string()), Ok(vec![fact, second]));
        assert_eq!(verified("[]"), Ok(Vec::new()));
    }

    #[test]
    fn what_names_no_payment_is_no_news() {
        for body in ["", "{}", "1", r#"{"id": "n-1"}"#, r#"{"id": 1, "payment_id": "x"}"#] {
            assert_eq!(verified(body), Err(NotGenuine::InvalidBody), "{body}");
        }
    }

    #[test]
    fn news_prove_something_only_where_the_settings_say_so() {
        let (payment, operation) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let proof = json!({"id": "n-1", "payment_id": payment, "operation_id": operation, "kind": "capture",
            "state": "done", "reference": "ch_1", "amount": "120.00", "currency": "USD"});
        let half = json!({"id": "n-2", "payment_id": payment, "kind": "capture", "state": "done"});
        let bare = json!({"id": "n-3", "payment_id": payment});
        let received = |role, news: &Value| {
            let body = news.to_string();
            let signature = sign("secret", 1_700_000_000, body.as_bytes());
            received_as(role, body.into_bytes(), signature)
        };
        let proves = |role, news: &Value| received(role, news).map(|facts| facts[0].proof.is_some());
        assert_eq!(proves(WebhookRole::Proof, &proof), Ok(true));
        assert_eq!(proves(WebhookRole::Proof, &bare), Ok(false));
        assert_eq!(received(WebhookRole::Proof, &half), Err(NotGenuine::InvalidBody), "half a proof is none");
        for news in [&proof, &half, &bare] {
            assert_eq!(proves(WebhookRole::Hint, news), Ok(false), "{news}");
        }
        let both = received(WebhookRole::Proof, &json!([bare, proof])).unwrap();
        assert_eq!(both.iter().map(|fact| fact.proof.is_some()).collect::<Vec<_>>(), [false, true]);
        // As stored with a waiting notification.
        let stored = serde_json::to_value(&both).unwrap();
        assert_eq!(serde_json::from_value::<Vec<Fact>>(stored).unwrap(), both);
    }

    #[test]
    fn without_a_secret_there_are_no_webhooks_and_an_empty_one_is_refused() {
        let configured = |given: Value, role| HttpWebhooks::configured(&serde_json::from_value(given).unwrap(), role);
        assert!(configured(json!([]), WebhookRole::Hint).unwrap().is_none());
        assert!(configured(json!([]), WebhookRole::Proof).is_err(), "what is not signed proves nothing");
        for given in [json!(["a", ""]), json!("")] {
            assert!(configured(given, WebhookRole::Hint).is_err());
        }
    }
}
