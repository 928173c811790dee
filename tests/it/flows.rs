//! What a payment can go through when all goes well, and what its subscribers are told.

use serde_json::json;

use crate::support::{Command, World};

/// Both gateways.
const VARIANTS: [&str; 2] = ["default", "http"];

#[tokio::test]
async fn charges_at_once() {
    let world = World::new().await;
    let _worker = world.worker().await;
    for variant in VARIANTS {
        let charge = Command::charge(variant, "120.00", "USD").with("tax", json!("20.00"));
        let answer = world.run(&charge).await;
        assert_eq!(answer.kind(), "payment.status_changed", "{}", answer.line());
        assert_eq!(answer.routing_key, format!("{variant}.payment.status_changed.confirmed"));
        assert_eq!(answer.field("captured_amount"), "120.00");
    }
    world.check_books().await;
}
