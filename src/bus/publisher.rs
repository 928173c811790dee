//! The publisher of events, of the replies that go with some of them, and of dead letters.
//!
//! A payment's events always use the same channel, where they keep their order without waiting for each other's
//! confirms. Replies stand outside that order and have a channel of their own: a stranger's reply queue can close that
//! channel, but never one with events on it.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::{join_all, ready};
use futures_util::stream::FuturesUnordered;
use futures_util::{Stream, StreamExt};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use uuid::Uuid;

use super::aside::SetAside;
use super::backlog::Verdict;
use super::connection::ConnectionState;
use super::lane::{Lane, Posted, Shared};
use super::link::{Link, Role};
use super::round::Message;
use super::topology::Names;
use super::{BusError, BusSettings, short};
use crate::payment::operation::Reply;

/// How many channels events are spread over, by payment.
pub const LANES: usize = 4;

/// What the names of RabbitMQ's direct replies begin with; there are no queues behind them.
const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// The longest header that is sent along, in bytes.
const HEADER: usize = 1024;

/// The content type of every message, in both directions.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// One event as it lies in the outbox.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The outbox row; tells the results apart.
    pub position: i64,
    /// Events of one payment keep their order.
    pub payment_id: Uuid,
    /// Also the AMQP `message_id`, the same on every resend.
    pub event_id: Uuid,
    /// `<variant>.<type>`, with the status behind it where it changed.
    pub routing_key: String,
    /// The event as CloudEvents JSON.
    pub body: Bytes,
    /// The command's `correlationid`.
    pub correlation_id: Option<String>,
    /// W3C trace context.
    pub traceparent: Option<String>,
    /// W3C trace context.
    pub tracestate: Option<String>,
    /// Where a final answer also goes.
    pub reply: Option<Reply>,
}

/// What became of one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Published {
    /// The broker has it.
    Confirmed {
        /// Of which row.
        position: i64,
        /// What became of the reply.
        reply: ReplyState,
    },
    /// The broker refuses this event: a person must look.
    SetAside {
        /// Of which row.
        position: i64,
        /// In the broker's words.
        reason: String,
    },
    /// The broker refuses an earlier one of the same payment, which this one must not overtake.
    Behind {
        /// Of which row.
        position: i64,
    },
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyState {
    /// None was asked for.
    None,
    /// The broker has it; a direct reply may still find nobody waiting.
    Sent,
    /// Nobody is there to take it; it is never tried again.
    Unroutable,
}

/// The publishing connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    lanes: Arc<[mpsc::Sender<Posted>]>,
    side: mpsc::Sender<Posted>,
    names: Names,
    aside: SetAside,
    state: watch::Receiver<ConnectionState>,
    silent: watch::Receiver<usize>,
}

impl Publisher {
    /// Starts connecting, and connects again whenever the connection is lost, until the token is cancelled.
    pub fn spawn(settings: BusSettings, shutdown: CancellationToken) -> Publisher {
        let names = Names::new(&settings.prefix);
        let patience = settings.confirm_timeout;
        let link = Link::spawn(settings, Role::Publisher { exchange: names.events() }, shutdown.clone());
        let (silent, is_silent) = watch::channel(0);
        let state = link.state();
        let aside = SetAside::default();
        let shared = Shared { link, patience, aside: aside.clone(), silent, shutdown };
        let lanes = (0..LANES).map(|_| Lane::events(shared.clone())).collect();
        Publisher { lanes, side: Lane::side(shared), names, aside, state, silent: is_silent }
    }

    /// How the connection is doing, for readiness.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// How many of its channels are confirmed nothing although the connection is well, for readiness.
    pub fn silent(&self) -> watch::Receiver<usize> {
        self.silent.clone()
    }

    /// The payments whose events are set aside: nothing of theirs is published.
    pub fn aside(&self) -> &SetAside {
        &self.aside
    }

    /// The names of exchanges and queues.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Hands events over, each payment's in the order given, and returns as soon as their channels have taken them:
    /// what is handed over later of the same payment goes out later. Whoever drops the result takes nothing back.
    pub async fn post(&self, batch: Vec<Outgoing>) -> PostedBatch {
        let mut pending = Vec::with_capacity(batch.len());
        for outgoing in batch {
            let event = match event_message(&self.names, &outgoing) {
                Ok(message) => self.post_event(outgoing.payment_id, message).await,
                Err(error) => {
                    self.aside.refused(outgoing.payment_id);
                    Promised::Decided(Verdict::Refused(error.to_string()))
                }
            };
            let reply = match outgoing.reply.as_ref().map(|reply| reply_message(&outgoing, reply)) {
                None => None,
                Some(Ok(message)) => Some(self.post_aside(message).await),
                Some(Err(error)) => Some(Promised::Decided(Verdict::Refused(error.to_string()))),
            };
            pending.push((outgoing, event, reply));
        }
        PostedBatch { pending }
    }

    /// Publishes events and waits until every one is confirmed or set aside; see `post` and `PostedBatch::published`.
    pub async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Published> {
        self.post(batch).await.published().await
    }

    /// Publishes one message that needs no order: confirmed, or refused for good, through any number of reconnects.
    pub(super) async fn publish_aside(&self, message: Message) -> Option<Verdict> {
        self.post_aside(message).await.verdict().await
    }

    async fn post_event(&self, payment: Uuid, message: Message) -> Promised {
        let lane = lane_of(payment, self.lanes.len());
        match self.lanes.get(lane) {
            Some(lane) => post(lane, payment, message).await,
            None => Promised::Never,
        }
    }

    async fn post_aside(&self, message: Message) -> Promised {
        post(&self.side, Uuid::new_v4(), message).await
    }
}

/// Events that were handed over and are not decided yet.
#[derive(Debug)]
pub struct PostedBatch {
    pending: Vec<(Outgoing, Promised, Option<Promised>)>,
}

impl PostedBatch {
    /// Tells of each event as soon as it is confirmed or set aside, through any number of reconnects. Where the publisher
    /// is shut down meanwhile, the undecided ones are missing: they may or may not be out.
    pub fn each(self) -> impl Stream<Item = Published> {
        let outcomes = self.pending.into_iter().map(|(outgoing, event, reply)| outcome(outgoing, event, reply));
        outcomes.collect::<FuturesUnordered<_>>().filter_map(ready)
    }

    /// The same of all at once, in the order of the batch.
    pub async fn published(self) -> Vec<Published> {
        let outcomes = self.pending.into_iter().map(|(outgoing, event, reply)| outcome(outgoing, event, reply));
        join_all(outcomes).await.into_iter().flatten().collect()
    }
}

/// A verdict that is there or will be.
#[derive(Debug)]
enum Promised {
    Decided(Verdict),
    Waiting(oneshot::Receiver<Verdict>),
    Never,
}

impl Promised {
    async fn verdict(self) -> Option<Verdict> {
        match self {
            Promised::Decided(verdict) => Some(verdict),
            Promised::Waiting(answer) => answer.await.ok(),
            Promised::Never => None,
        }
    }
}

async fn post(lane: &mpsc::Sender<Posted>, order: Uuid, message: Message) -> Promised {
    let (answer, waiting) = oneshot::channel();
    let posted = Posted { order, message, answer };
    match lane.send(posted).await {
        Ok(()) => Promised::Waiting(waiting),
        Err(_) => Promised::Never,
    }
}

async fn outcome(outgoing: Outgoing, event: Promised, reply: Option<Promised>) -> Option<Published> {
    let position = outgoing.position;
    match event.verdict().await? {
        Verdict::Confirmed => {}
        Verdict::Refused(reason) => return Some(Published::SetAside { position, reason }),
        Verdict::Behind => return Some(Published::Behind { position }),
    }
    let reply = match reply {
        None => ReplyState::None,
        Some(reply) => match reply.verdict().await? {
            Verdict::Confirmed => ReplyState::Sent,
            refused => {
                debug!(payment_id = %outgoing.payment_id, ?refused, "nobody takes a reply; it is dropped");
                ReplyState::Unroutable
            }
        },
    };
    Some(Published::Confirmed { position, reply })
}

fn lane_of(payment: Uuid, lanes: usize) -> usize {
    // Version 4, 5 and 7 alike are random at their end.
    let random = payment.as_u128() & u128::from(u32::MAX);
    usize::try_from(random).unwrap_or_default() % lanes.max(1)
}

fn event_message(names: &Names, outgoing: &Outgoing) -> Result<Message, BusError> {
    let mut properties = properties(outgoing)?;
    // An identifier that does not fit AMQP is left to the body, which has it too.
    if let Some(id) = &outgoing.correlation_id
        && let Ok(id) = short("correlation id", id.as_str())
    {
        properties = properties.with_correlation_id(id);
    }
    Ok(Message {
        mandatory: true,
        exchange: short("name of an exchange", names.events())?,
        routing_key: short("routing key", outgoing.routing_key.as_str())?,
        properties,
        body: outgoing.body.clone(),
    })
}

fn reply_message(outgoing: &Outgoing, reply: &Reply) -> Result<Message, BusError> {
    let mut properties = properties(outgoing)?;
    if let Some(id) = &reply.correlation_id {
        properties = properties.with_correlation_id(short("correlation id", id.as_str())?);
    }
    Ok(Message {
        // The broker takes a direct reply to whoever waits for it, but counts that as no route: it would come back as
        // well.
        mandatory: !reply.to.starts_with(DIRECT_REPLY),
        exchange: ShortString::default(),
        routing_key: short("reply queue", reply.to.as_str())?,
        properties,
        body: outgoing.body.clone(),
    })
}

fn properties(outgoing: &Outgoing) -> Result<BasicProperties, BusError> {
    let mut headers = FieldTable::default();
    let trace = [("traceparent", &outgoing.traceparent), ("tracestate", &outgoing.tracestate)];
    for (name, value) in trace {
        // All headers have to fit into one frame: a longer one would cost the connection, again and again.
        if let Some(value) = value.as_ref().filter(|value| value.len() <= HEADER) {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value.as_str())));
        }
    }
    let mut properties = base_properties()
        .with_message_id(short("message id", outgoing.event_id.to_string())?)
        .with_type(short("type", event_type(&outgoing.routing_key))?);
    if !headers.inner().is_empty() {
        properties = properties.with_headers(headers);
    }
    Ok(properties)
}

/// What every message of ours carries.
pub(super) fn base_properties() -> BasicProperties {
    let seconds = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(2)
        .with_app_id("paybus".into())
        .with_timestamp(seconds)
}

/// The event's type within its routing key: the two words behind the variant.
fn event_type(routing_key: &str) -> String {
    routing_key.split('.').skip(1).take(2).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outgoing() -> Outgoing {
        Outgoing {
            position: 7,
            payment_id: Uuid::from_u128(1),
            event_id: Uuid::from_u128(2),
            routing_key: "cards.payment.status_changed.confirmed".to_owned(),
            body: Bytes::from_static(b"{}"),
            correlation_id: Some("order 1".to_owned()),
            traceparent: Some("00-1-2-01".to_owned()),
            tracestate: None,
            reply: Some(Reply { to: "reply.shop".to_owned(), correlation_id: Some("mine".to_owned()) }),
        }
    }

    #[test]
    fn an_event_goes_to_the_events_exchange_with_a_stable_id() {
        let message = event_message(&Names::new("p"), &outgoing()).expect("a message");
        assert_eq!(message.exchange.as_str(), "p.events");
        assert_eq!(message.routing_key.as_str(), "cards.payment.status_changed.confirmed");
        let properties = message.properties;
        let text = |value: &Option<ShortString>| value.as_ref().map(ToString::to_string).unwrap_or_default();
        assert_eq!(text(properties.message_id()), Uuid::from_u128(2).to_string());
        assert_eq!(text(properties.kind()), "payment.status_changed");
        assert_eq!(text(properties.correlation_id()), "order 1");
        assert_eq!(text(properties.content_type()), CONTENT_TYPE);
        assert_eq!(text(properties.app_id()), "paybus");
        assert_eq!(properties.delivery_mode(), &Some(2));
        assert!(properties.headers().as_ref().is_some_and(|headers| headers.contains_key("traceparent")));
    }

    #[test]
    fn a_reply_goes_to_its_queue_with_the_askers_correlation_id() {
        let outgoing = outgoing();
        let reply = outgoing.reply.clone().expect("a reply");
        let message = reply_message(&outgoing, &reply).expect("a message");
        assert_eq!(message.exchange.as_str(), "");
        assert_eq!(message.routing_key.as_str(), "reply.shop");
        let id = message.properties.correlation_id().as_ref().map(ToString::to_string);
        assert_eq!(id.as_deref(), Some("mine"));
    }

    #[test]
    fn a_correlation_id_too_long_for_amqp_is_left_to_the_body() {
        let long = Outgoing { correlation_id: Some("x".repeat(300)), ..outgoing() };
        let message = event_message(&Names::new("p"), &long).expect("a message");
        assert_eq!(message.properties.correlation_id(), &None);
    }

    #[test]
    fn payments_spread_over_all_lanes() {
        let mut used = [0; LANES];
        for _ in 0..1000 {
            used[lane_of(Uuid::now_v7(), LANES)] += 1;
        }
        assert!(used.iter().all(|count| *count > 100), "{used:?}");
    }
}
