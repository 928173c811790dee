//! How a world differs from the usual one.

use super::nets::Nets;
use super::world::World;

/// The settings of every worker; `http` is the fake gateway, `default` the dummy one. Everything is quick.
pub(super) const SETTINGS: &[(&str, &str)] = &[
    ("amqp.confirm_timeout", "5s"),
    ("amqp.heartbeat", "5s"),
    ("retry.immediate.attempts", "3"),
    ("retry.immediate.first", "5ms"),
    ("retry.immediate.cap", "20ms"),
    ("retry.delayed", "200ms,400ms"),
    ("worker.poll", "100ms"),
    ("worker.lease_margin", "1s"),
    ("worker.drain", "10s"),
    ("worker.unknown_payment_grace", "1s"),
    ("log.format", "json"),
    ("log.filter", "info,paybus=debug"),
    ("variants.default.gateway", "dummy"),
    ("variants.default.timeout", "2s"),
    ("variants.http.gateway", "http"),
    ("variants.http.timeout", "2s"),
    ("variants.http.settle_window", "300ms"),
];

/// How a world differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct Setup {
    pub(super) settings: Vec<(String, String)>,
    pub(super) alone: bool,
    pub(super) nets: Nets,
}

impl Setup {
    /// The usual world.
    pub fn new() -> Setup {
        Setup::default()
    }

    /// With this setting for every worker, by its key: `variants.http.rate`. Other addresses of database and broker too.
    pub fn set(mut self, key: &str, value: &str) -> Setup {
        self.settings.push((key.to_owned(), value.to_owned()));
        self
    }

    /// With the services to itself: for a test that stops or restarts them, so that anything may be left behind.
    pub fn alone(mut self) -> Setup {
        self.alone = true;
        self.nets = Nets::ALL;
        self
    }

    /// A test that leaves events behind, for the relay to send. One that kills or stops a worker need not say so.
    pub fn expects_relay(mut self) -> Setup {
        self.nets.relay = true;
        self
    }

    /// A test that leaves operations behind, for other workers to take over. One that kills or stops a worker need not say
    /// so.
    pub fn expects_takeovers(mut self) -> Setup {
        self.nets.takeovers = true;
        self
    }

    /// With one more variant that calls the world's gateway, as `http` does.
    pub fn http_variant(self, name: &str) -> Setup {
        let key = |key: &str| format!("variants.{name}.{key}");
        self.set(&key("gateway"), "http")
            .set(&key("url"), "GATEWAY")
            .set(&key("timeout"), "2s")
            .set(&key("settle_window"), "300ms")
    }

    /// Makes it.
    pub async fn build(self) -> World {
        World::build(self).await
    }
}
