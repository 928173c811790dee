//! The commands that are measured: `payment.create` with `process`, as wide as a shop would send them.

use jiff::Timestamp;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Connection};
use uuid::Uuid;

/// The variant that all commands are for.
pub const VARIANT: &str = "bench";

/// How many commands are confirmed at a time while a queue is filled.
const ROUND: usize = 1000;

/// Publishes commands.
pub struct Upstream {
    channel: Channel,
    exchange: ShortString,
}

impl Upstream {
    /// On a channel with confirms.
    pub async fn open(connection: &Connection, prefix: &str) -> Upstream {
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Upstream { channel, exchange: format!("{prefix}.commands").into() }
    }

    /// Publishes one command for each payment and waits until the broker has all of them.
    pub async fn fill(&self, payments: &[Uuid]) {
        for round in payments.chunks(ROUND) {
            let mut confirms = Vec::with_capacity(round.len());
            for payment in round {
                confirms.push(self.send(*payment).await);
            }
            for confirm in confirms {
                assert!(confirm.await.expect("a confirm").is_ack(), "the broker takes every command");
            }
        }
    }

    /// Publishes one command; the confirm is the caller's to await.
    pub async fn send(&self, payment: Uuid) -> lapin::PublisherConfirm {
        let body = command(payment, Timestamp::now());
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/cloudevents+json; charset=utf-8".into());
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let key = format!("{VARIANT}.payment.create");
        let exchange = self.exchange.clone();
        self.channel.basic_publish(exchange, key.into(), options, body.as_bytes(), properties).await.expect("published")
    }
}

fn command(payment: Uuid, time: Timestamp) -> String {
    format!(
        r#"{{"specversion":"1.0","id":"order-{payment}","source":"shop/checkout","type":"payment.create",
"subject":"{payment}","time":"{time}","data":{{"variant":"{VARIANT}","description":"Book purchase","total":"120.00",
"tax":"20.00","currency":"USD","delivery":"10.00","billing_first_name":"Sherlock","billing_last_name":"Holmes",
"billing_address_1":"221B Baker Street","billing_address_2":"","billing_city":"London","billing_postcode":"NW1 6XE",
"billing_country_code":"GB","billing_country_area":"Greater London","customer_ip_address":"127.0.0.1",
"process":{{"payment_method":"pm_card_visa"}}}}}}"#
    )
}
