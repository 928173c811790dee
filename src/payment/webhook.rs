//! A gateway's webhook, as carried over the bus.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::code::Rejection;
use super::command::CommandType;
use super::field;
use super::parse::Data;

/// A webhook as it was received.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// When it was received. Its age is measured against this, whenever it is verified.
    pub received_at: Timestamp,
    /// The HTTP method.
    pub method: String,
    /// Path and query as sent by the client.
    pub url: String,
    /// The headers in order, names in lower case. Cookies, credentials and values that are not text are omitted.
    pub headers: Vec<(String, String)>,
    /// The body, byte for byte.
    pub body: Vec<u8>,
}

impl Webhook {
    /// The values of a header, given its name in lower case.
    pub fn header<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.headers.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Parses the data of a `payment.notification`.
    ///
    /// # Errors
    /// Names the first field that is missing, unknown or invalid.
    pub fn read(data: &Map<String, Value>) -> Result<Webhook, Rejection> {
        field::check(CommandType::Notification, data)?;
        let data = Data(data);
        Ok(Webhook {
            received_at: field::time(data.text("received_at")).ok_or_else(|| Rejection::missing("received_at"))?,
            method: data.owned("method"),
            url: data.owned("url"),
            headers: data.pairs("headers").map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned())).collect(),
            body: STANDARD.decode(data.text("body_base64")).map_err(|_| Rejection::missing("body_base64"))?,
        })
    }

    /// The data of a `payment.notification`.
    pub fn data(&self) -> Value {
        json!({
            "received_at": self.received_at.to_string(),
            "method": self.method,
            "url": self.url,
            "headers": self.headers,
            "body_base64": STANDARD.encode(&self.body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payment::code::Code;

    fn read(data: Value) -> Result<Webhook, Rejection> {
        Webhook::read(data.as_object().unwrap())
    }

    fn whole() -> Value {
        json!({
            "received_at": "2026-11-22T12:00:00Z", "method": "POST", "url": "/webhooks/cards?a=b",
            "headers": [["Stripe-Signature", "t=1"], ["x", "1"], ["x", "2"]], "body_base64": "AP8="
        })
    }

    #[test]
    fn a_webhook_is_read_as_it_was_written() {
        let webhook = read(whole()).unwrap();
        assert_eq!(webhook.body, [0, 255]);
        assert_eq!(webhook.header("stripe-signature").collect::<Vec<_>>(), ["t=1"]);
        assert_eq!(webhook.header("x").collect::<Vec<_>>(), ["1", "2"], "in their order");
        assert_eq!(read(webhook.data()), Ok(webhook));
    }

    #[test]
    fn a_webhook_is_checked_for_its_form() {
        for (name, wrong) in [
            ("received_at", json!("yesterday")),
            ("received_at", json!(null)),
            ("headers", json!({})),
            ("headers", json!([["a"]])),
            ("body_base64", json!([])),
            ("body_base64", json!("e30")),
            ("method", json!(1)),
            ("url", json!({})),
        ] {
            let mut data = whole();
            data[name] = wrong;
            let rejection = read(data).unwrap_err();
            assert!(rejection.message.starts_with(&format!("{name}: ")), "{rejection:?}");
        }
        let mut data = whole();
        data["facts"] = json!([]);
        assert_eq!(read(data).unwrap_err().code, Code::UnknownField, "nobody says by himself what was verified");
    }
}
