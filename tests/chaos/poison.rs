//! Poison: messages that lapin cannot parse, or that are not text, published throughout the faults. None of them may be
//! carried out or end a replica, and each must become a dead letter.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::disruptions::Timed;
use crate::ledger::GatewayName;
use crate::rng::Rng;
use crate::script::CARDS;
use crate::support::raw_publisher::{CORRELATION_ID, HEADERS, RawPublisher, entry, long, nested, properties, short};
use crate::support::{Command, World};
use crate::tally::Tally;
use crate::upstream::Upstream;

/// How long until an unreachable broker is tried again.
const AGAIN: Duration = Duration::from_millis(250);
/// Headers nested this deep end a process that passes them to lapin.
const LEVELS: usize = 1_147;

/// What is wrong with a message.
#[derive(Debug, Clone, Copy)]
pub enum Poison {
    Depth,
    Property,
    HeaderName,
    RoutingKey,
    Body,
}

/// An unreadable message.
#[derive(Debug, Clone)]
pub struct Poisoned {
    poison: Poison,
    /// If its body is read nevertheless, somebody is charged.
    command: Command,
}

impl Poison {
    /// Every kind.
    pub const ALL: [Poison; 5] =
        [Poison::Depth, Poison::Property, Poison::HeaderName, Poison::RoutingKey, Poison::Body];

    /// The name under which it is counted.
    pub fn name(self) -> &'static str {
        match self {
            Poison::Depth => "poison: headers are nested too deep",
            Poison::Property => "poison: a property is not UTF-8",
            Poison::HeaderName => "poison: a header's name is not UTF-8",
            Poison::RoutingKey => "poison: a routing key is not UTF-8",
            Poison::Body => "poison: a body is not UTF-8",
        }
    }
}

impl Poisoned {
    /// Draws one of this kind, with a unique body.
    pub fn draw(poison: Poison, gateway: GatewayName, rng: &mut Rng) -> Poisoned {
        let data = json!({"variant": CARDS, "total": "1.00", "currency": "EUR", "process": gateway.process()});
        let command = Command::new(CARDS, "payment.create", rng.uuid(), data).source("chaos/poison").id("p1");
        Poisoned { poison, command }
    }

    fn routing_key(&self) -> Vec<u8> {
        let key = self.command.key().into_bytes();
        if matches!(self.poison, Poison::RoutingKey) { [&key[..], b"\xe9"].concat() } else { key }
    }

    fn properties(&self) -> Vec<u8> {
        match self.poison {
            Poison::Depth => properties(&[(HEADERS, nested(LEVELS))]),
            Poison::Property => properties(&[(CORRELATION_ID, short(b"caf\xe9"))]),
            Poison::HeaderName => properties(&[(HEADERS, long(&entry(b"caf\xe9", b'V', b"")))]),
            Poison::RoutingKey | Poison::Body => properties(&[]),
        }
    }

    fn body(&self) -> Vec<u8> {
        match self.poison {
            Poison::Body => [&b"\xff{"[..], self.command.payment.as_bytes()].concat(),
            _ => self.command.bytes(),
        }
    }
}

/// Publishes each at its time, however long the broker takes, until the faults are over.
pub async fn publish(
    world: &World,
    upstream: &Upstream,
    tally: &Tally,
    plan: &[Timed<Poisoned>],
    begun: Instant,
    over: &CancellationToken,
) {
    let mut publisher = None;
    for Timed { at, what } in plan {
        over.run_until_cancelled(sleep_until(begun + *at)).await;
        if over.is_cancelled() {
            return;
        }
        // The broker may have accepted it without a confirm.
        upstream.note_unreadable(what.body());
        while send(world, &mut publisher, what).await.is_err() {
            sleep(AGAIN).await;
        }
        tally.add(what.poison.name());
    }
}

/// Publishes on the open connection, or on a new one; a failed connection is dropped.
async fn send(world: &World, publisher: &mut Option<RawPublisher>, message: &Poisoned) -> Result<(), String> {
    let mut open = match publisher.take() {
        Some(open) => open,
        None => RawPublisher::try_connect(&world.bus.url).await?,
    };
    let exchange = world.bus.queue("commands");
    open.try_publish(&exchange, &message.routing_key(), &message.properties(), &message.body()).await?;
    *publisher = Some(open);
    Ok(())
}
