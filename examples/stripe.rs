//! A Stripe of one's own, to try the adapter without an account: `cargo run --example stripe -- 127.0.0.1:9100`, and a
//! variant with `gateway = "stripe"`, `secret_key = "sk_test_x"` and `api_base = "http://127.0.0.1:9100"`.
//!
//! It takes Stripe's own test tokens (`pm_card_visa`, `pm_card_visa_chargeDeclined`, `pm_card_threeDSecure2Required`, ...),
//! keeps idempotency keys as Stripe does, and forgets everything at its end. A customer who must authenticate does so by
//! opening the address that is told; everything else that happens at Stripe by itself is done by `POST /_control/...`, as
//! `testing/src/fake_stripe/control.rs` says. Tests use the same module.

use std::error::Error;

use testing::fake_stripe;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9100".to_owned());
    let listener = tokio::net::TcpListener::bind(&address).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, fake_stripe::router(listener_address(&address))).await?;
    Ok(())
}

fn listener_address(address: &str) -> String {
    format!("http://{address}")
}
