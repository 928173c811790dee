//! A topology of its own at the broker: the bus without a worker.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use bytes::Bytes;
use paybus::bus::client::{Client, NewCommand};
use paybus::bus::connection::connect;
use paybus::bus::consume::consumer::Consumer;
use paybus::bus::publish::publisher::{Outgoing, Published, Publisher};
use paybus::bus::publish::verdict::Verdict;
use paybus::bus::topology::{self, Names};
use paybus::bus::{BusSettings, BusTls};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::service_lock::ServiceLock;

/// How long anything is waited for.
pub const TIMEOUT: Duration = Duration::from_secs(60);

/// The settings of one prefix.
pub fn settings() -> BusSettings {
    let file = |variable| std::env::var_os(variable).map(PathBuf::from);
    let url = std::env::var("PAYBUS__AMQP__URL").expect("PAYBUS__AMQP__URL: run this with scripts/with-services");
    BusSettings {
        url: url.into(),
        prefix: format!("test-{}", Uuid::new_v4().simple()),
        declare: true,
        tls: BusTls {
            ca: file("PAYBUS__AMQP__TLS__CA"),
            cert: file("PAYBUS__AMQP__TLS__CERT"),
            key: file("PAYBUS__AMQP__TLS__KEY"),
        },
        confirm_timeout: Duration::from_secs(5),
        heartbeat: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(10),
        delivery_limit: 100,
    }
}

/// A topology of its own, with one variant.
pub struct Bus {
    pub settings: BusSettings,
    pub names: Names,
    pub client: Client,
    pub stop: CancellationToken,
    _service_lock: ServiceLock,
}

impl Bus {
    pub async fn new() -> Bus {
        Bus::build(ServiceLock::shared().await, settings()).await
    }

    /// With another fuse against crash loops.
    pub async fn with_delivery_limit(delivery_limit: u32) -> Bus {
        Bus::build(ServiceLock::shared().await, BusSettings { delivery_limit, ..settings() }).await
    }

    /// Nobody else uses the broker meanwhile.
    pub async fn alone() -> Bus {
        Bus::build(ServiceLock::alone().await, settings()).await
    }

    async fn build(service_lock: ServiceLock, settings: BusSettings) -> Bus {
        let client = Client::connect(&settings, "test").await.expect("a broker");
        let declared = topology::declare(client.connection(), &settings, &["cards"]).await;
        declared.expect("a topology");
        Bus {
            names: Names::new(&settings.prefix),
            client,
            stop: CancellationToken::new(),
            settings,
            _service_lock: service_lock,
        }
    }

    pub fn publisher(&self) -> Publisher {
        Publisher::spawn(self.settings.clone(), self.stop.clone())
    }

    pub fn consumer(&self) -> Consumer {
        Consumer::spawn(self.settings.clone(), self.stop.clone())
    }

    /// The first client's connection may have been closed by the test.
    pub async fn end(self) {
        self.stop.cancel();
        let connection = connect(&self.settings, "cleanup").await.expect("a broker");
        topology::delete(&connection, &self.settings, &["cards"]).await.expect("deleted");
        connection.close().await;
    }

    pub async fn send(&self, count: usize) {
        let commands = (0..count).map(|number| NewCommand {
            routing_key: "cards.payment.create".to_owned(),
            message_id: format!("m{number}"),
            body: Bytes::from(format!("{number}")),
            ..NewCommand::default()
        });
        let sent = self.client.publish(commands.collect()).await.expect("published");
        assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    }
}

/// One of a payment's events.
pub fn event(payment: u128, number: u32) -> Outgoing {
    let position = i64::try_from(payment * 1_000_000).expect("small") + i64::from(number);
    Outgoing {
        position,
        payment_id: Uuid::from_u128(payment),
        event_id: Uuid::new_v4(),
        routing_key: "cards.payment.updated".to_owned(),
        body: Bytes::from(format!("{payment} {number}")),
        correlation_id: None,
        trace: None,
        reply: None,
    }
}

/// Waits for a state.
pub async fn reaches<T: PartialEq + std::fmt::Debug>(state: &mut watch::Receiver<T>, wanted: impl Fn(&T) -> bool) {
    let reached = timeout(TIMEOUT, state.wait_for(&wanted)).await.map(|reached| reached.is_ok());
    assert!(matches!(reached, Ok(true)), "still {:?}", *state.borrow());
}

/// Runs rabbitmqctl.
pub fn rabbitmqctl(arguments: &[&str]) -> String {
    let program = std::env::var("PAYBUS_TEST_RABBITMQCTL").expect("PAYBUS_TEST_RABBITMQCTL: scripts/with-services");
    let output = Command::new(program).args(arguments).output().expect("rabbitmqctl runs");
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Whether the broker has it.
pub fn is_confirmed(published: &Published) -> bool {
    published.verdict == Verdict::Confirmed
}
