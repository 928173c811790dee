//! Events: made of what happened, signed as Stripe signs, and delivered at least once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Shared;
use super::books::now;

/// How often a delivery is tried.
const TRIES: u32 = 20;

/// Where events are told.
#[derive(Debug, Clone)]
pub struct Endpoint {
    pub url: String,
    pub secret: String,
}

/// Makes events of what happened since the last time.
pub fn collect(shared: &Shared) {
    let mut state = shared.state();
    let events = std::mem::take(&mut state.objects.pending_events);
    for (kind, object) in events {
        let id = format!("evt_{}", &Uuid::new_v4().simple().to_string()[..24]);
        let event = json!({
            "id": id, "object": "event", "api_version": "2023-08-16", "created": now(), "data": {"object": object},
            "livemode": false, "pending_webhooks": 1, "request": {"id": null, "idempotency_key": null}, "type": kind,
        });
        state.events.push(event);
    }
    shared.new_events.notify_one();
}

/// Delivers every event, in order of their making, from when there is an endpoint.
pub async fn deliver(shared: Arc<Shared>) {
    let client = reqwest::Client::new();
    let mut next = 0;
    loop {
        let pending = {
            let state = shared.state();
            let endpoint = state.webhook.clone();
            if endpoint.is_none() {
                next = state.events.len();
            }
            endpoint.zip(state.events.get(next).cloned())
        };
        match pending {
            Some((endpoint, event)) => {
                post(&client, &endpoint, &event).await;
                next += 1;
            }
            None => shared.new_events.notified().await,
        }
    }
}

async fn post(client: &reqwest::Client, endpoint: &Endpoint, event: &Value) {
    let body = event.to_string();
    for _ in 0..TRIES {
        let signature = signature(&endpoint.secret, now(), &body);
        let request = client.post(&endpoint.url).header("stripe-signature", signature).body(body.clone());
        let request = request.header("content-type", "application/json; charset=utf-8");
        if request.send().await.is_ok_and(|response| response.status().is_success()) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The header `Stripe-Signature`.
pub fn signature(secret: &str, time: i64, body: &str) -> String {
    let code = hmac_sha256(secret.as_bytes(), format!("{time}.{body}").as_bytes());
    let hex: String = code.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("t={time},v1={hex}")
}

/// HMAC of RFC 2104.
fn hmac_sha256(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().to_vec()
}
