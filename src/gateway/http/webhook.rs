//! What a gateway tells by itself.

use std::time::Duration;

use futures_util::future::BoxFuture;
use serde::Deserialize;
use uuid::Uuid;

use crate::gateway::client::BuildError;
use crate::gateway::notification::{Fact, NotGenuine, Notifications, Webhook};
use crate::gateway::signature::{WebhookSecrets, check};
use crate::payment::outcome::Trouble;

/// The header with the signature.
const SIGNATURE: &str = "paybus-signature";

/// The webhooks of a gateway behind `http`.
#[derive(Debug)]
pub(super) struct HttpWebhooks {
    secrets: WebhookSecrets,
}

impl HttpWebhooks {
    /// The webhooks, where there are secrets.
    ///
    /// # Errors
    /// One of them is empty.
    pub(super) fn configured(secrets: &WebhookSecrets) -> Result<Option<HttpWebhooks>, BuildError> {
        secrets.check()?;
        Ok((!secrets.is_empty()).then(|| HttpWebhooks { secrets: secrets.clone() }))
    }
}

/// One piece of news, or several.
#[derive(Deserialize)]
#[serde(untagged)]
enum Told {
    One(News),
    Many(Vec<News>),
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
    fn verify(&self, webhook: &Webhook) -> Result<Vec<Fact>, NotGenuine> {
        check(webhook, SIGNATURE, &self.secrets)?;
        let told = match serde_json::from_slice(&webhook.body) {
            Ok(Told::One(news)) => vec![news],
            Ok(Told::Many(news)) => news,
            Err(_) => return Err(NotGenuine::InvalidBody),
        };
        Ok(told.into_iter().map(Fact::from).collect())
    }

    /// Each names its payment.
    fn locate<'a>(&'a self, _fact: &'a Fact, _timeout: Duration) -> BoxFuture<'a, Result<Option<Uuid>, Trouble>> {
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
        let secrets: WebhookSecrets = serde_json::from_value(json!("secret")).unwrap();
        let webhooks = HttpWebhooks::configured(&secrets).unwrap().unwrap();
        webhooks.verify(&Webhook {
            received_at: jiff::Timestamp::from_second(1_700_000_000).unwrap(),
            method: "POST".to_owned(),
            url: "/webhooks/cards".to_owned(),
            headers: vec![(SIGNATURE.to_owned(), signature)],
            body,
        })
    }

    /// A piece of news with anything in its members.
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
        /// Whatever is signed is read; of it each fact says what stood there, and what is changed afterwards tells nothing.
        #[test]
        fn what_is_signed_is_read_and_nothing_else_tells_anything(
            news in proptest::collection::vec(any_news(), 0..3),
            alone in any::<bool>(),
            at in any::<Index>(),
            byte in any::<u8>(),
        ) {
            let told = match news.as_slice() {
                [one] if alone => one.clone(),
                _ => Value::from(news.clone()),
            };
            let body = told.to_string();
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
            let told = received(body.clone(), sign("secret", 1_700_000_000, &body));
            prop_assert!(told.is_err() || serde_json::from_slice::<Value>(&body).is_ok());
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
    fn without_a_secret_there_are_no_webhooks_and_an_empty_one_is_refused() {
        let configured = |given: Value| HttpWebhooks::configured(&serde_json::from_value(given).unwrap());
        assert!(configured(json!([])).unwrap().is_none());
        assert!(configured(json!(["a", ""])).is_err() && configured(json!("")).is_err());
    }
}
