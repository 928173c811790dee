//! Webhooks as the gateway behind `http` sends them.

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::command::Command;
use super::worker::Worker;

/// One webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The variant in the path.
    pub variant: String,
    /// The body.
    pub body: String,
    /// The header with the signature; nothing where it is not signed.
    pub signature: Option<String>,
}

impl Webhook {
    /// News, or a list of them, signed now.
    pub fn signed(variant: &str, secret: &str, news: &Value) -> Webhook {
        Webhook::signed_at(variant, secret, news, jiff::Timestamp::now().as_second())
    }

    /// The same, signed at this time.
    pub fn signed_at(variant: &str, secret: &str, news: &Value, seconds: i64) -> Webhook {
        let body = news.to_string();
        let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
        let mac = keyed.chain_update(format!("{seconds}.{body}")).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        Webhook { variant: variant.to_owned(), body, signature: Some(format!("t={seconds},v1={hex}")) }
    }

    /// Posts it: the status, and `Retry-After` where there is one.
    pub async fn post(&self, to: &Worker) -> (u16, Option<String>) {
        let mut request = reqwest::Client::new().post(format!("{}/webhooks/{}", to.http(), self.variant));
        if let Some(signature) = &self.signature {
            request = request.header("Paybus-Signature", signature);
        }
        let answer = request.body(self.body.clone()).send().await.expect("an answer");
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        (answer.status().as_u16(), retry_after)
    }

    /// Its command, as somebody could publish it who has it.
    pub fn command(&self, payment: Uuid, id: &str, received_at: &str) -> Command {
        use base64::Engine;
        let headers: Vec<[&str; 2]> =
            self.signature.iter().map(|signature| ["paybus-signature", signature.as_str()]).collect();
        let body = base64::engine::general_purpose::STANDARD.encode(&self.body);
        let data = json!({"received_at": received_at, "method": "POST", "url": format!("/webhooks/{}", self.variant),
                          "headers": headers, "body_base64": body});
        named(&self.variant, payment, id).data(data)
    }
}

/// The command that a webhook with news of a payment becomes, by its name.
pub fn named(variant: &str, payment: Uuid, id: &str) -> Command {
    Command::new(variant, "payment.notification", payment, json!({})).source(&format!("webhooks/{variant}")).id(id)
}
