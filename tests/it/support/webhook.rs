//! Webhooks as the gateway behind `http` sends them.

use std::sync::LazyLock;
use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use uuid::Uuid;

use super::command::Command;
use super::worker::Worker;

/// How long a gateway waits for the answer.
const TIMEOUT: Duration = Duration::from_secs(20);

/// One webhook.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// The variant in the path.
    pub variant: String,
    /// The body.
    pub body: String,
    /// The header with the signature; nothing where it is not signed.
    pub signature: Option<String>,
    /// The name of that header.
    pub header: &'static str,
}

impl Webhook {
    /// News, or a list of them, signed now.
    pub fn signed(variant: &str, secret: &str, news: &Value) -> Webhook {
        Webhook::signed_at(variant, secret, news, jiff::Timestamp::now().as_second())
    }

    /// The same, signed at this time.
    pub fn signed_at(variant: &str, secret: &str, news: &Value, seconds: i64) -> Webhook {
        Webhook::of_text(variant, secret, news.to_string(), seconds)
    }

    /// A body as it is, signed at this time.
    pub fn of_text(variant: &str, secret: &str, body: String, seconds: i64) -> Webhook {
        let keyed = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
        let mac = keyed.chain_update(format!("{seconds}.{body}")).finalize().into_bytes();
        let hex: String = mac.iter().map(|byte| format!("{byte:02x}")).collect();
        let signature = Some(format!("t={seconds},v1={hex}"));
        Webhook { variant: variant.to_owned(), body, signature, header: "Paybus-Signature" }
    }

    /// Posts it: the status, and `Retry-After` where there is one.
    pub async fn post(&self, to: &Worker) -> (u16, Option<String>) {
        self.try_post(to).await.expect("an answer")
    }

    /// The same to a worker that may not be there.
    pub async fn try_post(&self, to: &Worker) -> Result<(u16, Option<String>), reqwest::Error> {
        // Making one reads all certificates that the machine trusts.
        static CLIENT: LazyLock<reqwest::Client> =
            LazyLock::new(|| reqwest::Client::builder().pool_max_idle_per_host(0).build().expect("a client"));
        let mut request = CLIENT.post(format!("{}/webhooks/{}", to.http(), self.variant));
        if let Some(signature) = &self.signature {
            request = request.header(self.header, signature);
        }
        let answer = request.timeout(TIMEOUT).body(self.body.clone()).send().await?;
        let retry_after = answer.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        Ok((answer.status().as_u16(), retry_after))
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
