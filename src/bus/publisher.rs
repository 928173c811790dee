//! The publisher of events, of the replies that go with some of them, of dead letters, and of commands that were webhooks.
//!
//! A payment's events always use the same channel, where they keep their order without waiting for each other's
//! confirms. Replies stand outside that order and have a channel of their own: a stranger's reply queue can close that
//! channel, but never one with events on it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};
use uuid::Uuid;

use super::batch::Message;
use super::channel::{Answer, Posted, PublishChannel, Shared};
use super::connection::ConnectionState;
use super::nacks::{Nacked, Nacks};
use super::pending::Verdict;
use super::reconnecting::{Reconnecting, Role};
use super::topology::Names;
use super::unordered::SetAside;
use super::{BusError, BusSettings, short};
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::payment::trace::TraceContext;

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandSent {
    /// A queue has it.
    Routed,
    /// No queue takes it, or the queue is full.
    Refused(String),
}

/// How many channels events are spread over, by payment.
pub const LANES: usize = 4;

/// What the names of RabbitMQ's direct replies begin with; there are no queues behind them.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// The longest header that is sent along, in bytes.
const HEADER: usize = 1024;

/// The header with an event's place among all of the installation's, in digits.
pub const POSITION: &str = "paybus-position";

/// The content type of every message, in both directions.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// One event as it lies in the outbox.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The outbox row; tells the results apart. 0 for what has none.
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
    /// Where in a trace it belongs.
    pub trace: Option<TraceContext>,
    /// Where a final answer also goes.
    pub reply: Option<Reply>,
}

impl Outgoing {
    /// An event with its place in the outbox, as it was written.
    pub fn of(event: &Event, position: i64, body: String) -> Outgoing {
        let cause = event.cause.as_ref();
        Outgoing {
            position,
            payment_id: event.payment_id,
            event_id: event.id,
            routing_key: event.routing_key(),
            body: Bytes::from(body),
            correlation_id: cause.and_then(|cause| cause.correlation_id.clone()),
            trace: cause.and_then(|cause| cause.trace.clone()),
            reply: cause.and_then(|cause| cause.reply.clone()),
        }
    }
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

impl Published {
    /// Of which row.
    pub fn position(&self) -> i64 {
        match self {
            Published::Confirmed { position, .. }
            | Published::SetAside { position, .. }
            | Published::Behind { position } => *position,
        }
    }
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
    /// For heartbeats alone, so that one subscriber's queue holds up no reply and no webhook.
    beats: mpsc::Sender<Posted>,
    names: Names,
    /// Who we are to the broker, for commands of our own.
    user: Option<Arc<str>>,
    aside: SetAside,
    state: watch::Receiver<ConnectionState>,
    silent: watch::Receiver<usize>,
    nacked: watch::Receiver<Nacked>,
}

impl Publisher {
    /// Starts connecting, and connects again whenever the connection is lost, until the token is cancelled.
    pub fn spawn(settings: BusSettings, shutdown: CancellationToken) -> Publisher {
        Publisher::spawn_after(std::future::ready(()), settings, shutdown)
    }

    /// The same, from when `begin` has ended; what is handed over before waits.
    pub fn spawn_after(
        begin: impl Future<Output = ()> + Send + 'static,
        settings: BusSettings,
        shutdown: CancellationToken,
    ) -> Publisher {
        let names = Names::new(&settings.prefix);
        let user = settings.user().map(Arc::from);
        let patience = settings.confirm_timeout;
        let role = Role::Publisher { exchange: names.events() };
        let link = Reconnecting::spawn_after(begin, settings, role, shutdown.clone());
        let (silent, is_silent) = watch::channel(0);
        let (nacks, nacked) = Nacks::new();
        let state = link.state();
        let aside = SetAside::default();
        let shared = Shared { link, patience, aside: aside.clone(), silent, nacks, shutdown };
        let lanes = (0..LANES).map(|_| PublishChannel::events(shared.clone())).collect();
        // An idle replica publishes nothing else: what becomes of heartbeats does not count for readiness.
        let (own_silent, own_nacks) = (watch::channel(0).0, Nacks::new().0);
        let beats = PublishChannel::side(Shared { silent: own_silent, nacks: own_nacks, ..shared.clone() });
        Publisher {
            lanes,
            side: PublishChannel::side(shared),
            beats,
            names,
            user,
            aside,
            state,
            silent: is_silent,
            nacked,
        }
    }

    /// How the connection is doing, for readiness.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// How many of its channels are confirmed nothing although the connection is well, for readiness.
    pub fn silent(&self) -> watch::Receiver<usize> {
        self.silent.clone()
    }

    /// What the broker did not take, for readiness and metrics.
    pub fn nacked(&self) -> watch::Receiver<Nacked> {
        self.nacked.clone()
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
    /// what is handed over later of the same payment goes out later. `told` is called for each event as soon as it is
    /// confirmed or set aside, through any number of reconnects; it is dropped when there is nothing more to tell. Where
    /// the publisher is shut down meanwhile, undecided ones are not told of: they may or may not be out.
    pub async fn post(&self, batch: Vec<Outgoing>, told: Told) {
        for outgoing in batch {
            let position = outgoing.position;
            let event = match event_message(&self.names, &outgoing) {
                Ok(message) => message,
                Err(error) => {
                    self.aside.refused(outgoing.payment_id);
                    told(Published::SetAside { position, reason: error.to_string() });
                    continue;
                }
            };
            match &outgoing.reply {
                None => {
                    let told = Arc::clone(&told);
                    let answer = move |verdict| told(published(position, verdict, ReplyState::None));
                    self.post_event(outgoing.payment_id, event, Box::new(answer)).await;
                }
                Some(reply) => Box::pin(self.post_with_reply(&outgoing, event, reply, Arc::clone(&told))).await,
            }
        }
    }

    /// Publishes events and waits until every one is confirmed or set aside, in the order of the batch; see `post`.
    pub async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Published> {
        let places: HashMap<i64, usize> =
            batch.iter().enumerate().map(|(place, outgoing)| (outgoing.position, place)).collect();
        let (sender, mut results) = mpsc::unbounded_channel();
        let told = move |published| sender.send(published).unwrap_or_default();
        self.post(batch, Arc::new(told)).await;
        let mut published = Vec::with_capacity(places.len());
        while let Some(result) = results.recv().await {
            published.push(result);
        }
        published.sort_by_key(|result| places.get(&result.position()).copied());
        published
    }

    /// Publishes one payment's events once more, in their order: to this queue alone, or to the events' exchange. Tells how
    /// many of them, from the first on, the broker has confirmed in this time; the others may still follow.
    pub async fn resend(&self, batch: Vec<Outgoing>, reply: Option<Reply>, patience: Duration) -> usize {
        let deadline = Instant::now() + patience;
        // What is posted to one queue keeps its order, too.
        let order = Uuid::new_v4();
        let mut posted = Vec::with_capacity(batch.len());
        for outgoing in &batch {
            let message = match &reply {
                Some(reply) => reply_message(outgoing, reply),
                None => event_message(&self.names, outgoing),
            };
            let Ok(message) = message else { break };
            let (answer, decided) = promise();
            let posting = async {
                match reply {
                    Some(_) => post(&self.side, order, message, answer).await,
                    None => self.post_event(outgoing.payment_id, message, answer).await,
                }
            };
            let Ok(()) = timeout_at(deadline, posting).await else { break };
            posted.push(decided);
        }
        let mut taken = 0;
        for decided in posted {
            match timeout_at(deadline, decided).await {
                Ok(Ok(Verdict::Confirmed)) => taken += 1,
                _ => break,
            }
        }
        taken
    }

    /// Publishes one message that needs no order: confirmed, or refused for good, through any number of reconnects.
    pub(super) async fn publish_aside(&self, message: Message) -> Option<Verdict> {
        self.post_aside(message).await.await.ok()
    }

    /// Publishes a command of our own, one that a webhook became, and waits until the broker has answered: through any
    /// number of reconnects, and for as long as its queue is full. Nothing where the publisher is shut down meanwhile.
    pub async fn publish_command(&self, routing_key: String, body: Bytes) -> Option<CommandSent> {
        let message = match self.command_message(routing_key, body) {
            Ok(message) => message,
            Err(error) => return Some(CommandSent::Refused(error.to_string())),
        };
        Some(match self.publish_aside(message).await? {
            Verdict::Confirmed => CommandSent::Routed,
            Verdict::Refused(reason) => CommandSent::Refused(reason),
            // Nothing has to keep its order among these.
            Verdict::Behind => CommandSent::Refused("it waits behind another".to_owned()),
        })
    }

    /// Publishes a heartbeat. Where nobody has subscribed to it, or the broker does not take it within this time, it is
    /// gone: the next one says from where on.
    pub async fn publish_heartbeat(&self, id: Uuid, routing_key: String, body: Bytes, patience: Duration) {
        let message = match self.heartbeat_message(id, &routing_key, body) {
            Ok(message) => message,
            Err(error) => return warn!(%error, routing_key, "a heartbeat cannot be published"),
        };
        let (answer, decided) = promise();
        let publishing = async {
            post(&self.beats, id, message, answer).await;
            decided.await
        };
        match timeout_at(Instant::now() + patience, publishing).await {
            Ok(Ok(Verdict::Confirmed)) => {}
            Ok(Ok(Verdict::Refused(reason))) => warn!(reason, routing_key, "the broker refuses a heartbeat"),
            Ok(Ok(Verdict::Behind) | Err(_)) | Err(_) => debug!(routing_key, "a heartbeat is not confirmed"),
        }
    }

    fn heartbeat_message(&self, id: Uuid, routing_key: &str, body: Bytes) -> Result<Message, BusError> {
        let properties = base_properties()
            .with_message_id(short("message id", id.to_string())?)
            .with_type(short("type", event_type(routing_key))?);
        Ok(Message {
            mandatory: false,
            exchange: short("name of an exchange", self.names.heartbeats())?,
            routing_key: short("routing key", routing_key)?,
            properties,
            body,
        })
    }

    fn command_message(&self, routing_key: String, body: Bytes) -> Result<Message, BusError> {
        // A return is known by it; the command's own name may be under way twice.
        let mut properties = base_properties().with_message_id(short("message id", Uuid::new_v4().to_string())?);
        if let Some(user) = &self.user {
            properties = properties.with_user_id(short("user", &**user)?);
        }
        Ok(Message {
            mandatory: true,
            exchange: short("name of an exchange", self.names.commands())?,
            routing_key: short("routing key", routing_key)?,
            properties,
            body,
        })
    }

    async fn post_event(&self, payment: Uuid, message: Message, answer: Answer) {
        if let Some(lane) = self.lanes.get(lane_of(payment, self.lanes.len())) {
            post(lane, payment, message, answer).await;
        }
    }

    /// An event that is also somebody's answer: told when both are decided.
    async fn post_with_reply(&self, outgoing: &Outgoing, event: Message, reply: &Reply, told: Told) {
        let (position, payment) = (outgoing.position, outgoing.payment_id);
        let (answer, decided) = promise();
        self.post_event(payment, event, answer).await;
        let replied = match reply_message(outgoing, reply) {
            Ok(message) => Ok(self.post_aside(message).await),
            Err(error) => Err(error),
        };
        tokio::spawn(async move {
            let Ok(verdict) = decided.await else { return };
            if verdict != Verdict::Confirmed {
                // It need not wait for a reply that nobody may ever confirm.
                return told(published(position, verdict, ReplyState::None));
            }
            let replied = match replied {
                Ok(replied) => replied.await,
                Err(error) => Ok(Verdict::Refused(error.to_string())),
            };
            let reply = match replied {
                Ok(Verdict::Confirmed) => ReplyState::Sent,
                Ok(refused) => {
                    debug!(payment_id = %payment, ?refused, "nobody takes a reply; it is dropped");
                    ReplyState::Unroutable
                }
                Err(_) => return,
            };
            told(published(position, verdict, reply));
        });
    }

    async fn post_aside(&self, message: Message) -> oneshot::Receiver<Verdict> {
        let (answer, decided) = promise();
        post(&self.side, Uuid::new_v4(), message, answer).await;
        decided
    }
}

/// Who is told what became of events; see [`Publisher::post`]. Called by a channel's own task: it must be quick.
pub type Told = Arc<dyn Fn(Published) + Send + Sync>;

fn promise() -> (Answer, oneshot::Receiver<Verdict>) {
    let (sender, decided) = oneshot::channel();
    let answer = move |verdict| {
        if sender.send(verdict).is_err() {
            debug!("nobody waits for the verdict on a message any more");
        }
    };
    (Box::new(answer), decided)
}

/// Hands a message to a lane. Where that is shut down, its answer is dropped.
async fn post(lane: &mpsc::Sender<Posted>, order: Uuid, message: Message, answer: Answer) {
    if lane.send(Posted { order, message, answer }).await.is_err() {
        debug!("a message came after the publisher was shut down");
    }
}

fn published(position: i64, verdict: Verdict, reply: ReplyState) -> Published {
    match verdict {
        Verdict::Confirmed => Published::Confirmed { position, reply },
        Verdict::Refused(reason) => Published::SetAside { position, reason },
        Verdict::Behind => Published::Behind { position },
    }
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
    let trace = outgoing.trace.as_ref();
    let texts = [("traceparent", trace.map(TraceContext::parent)), ("tracestate", trace.and_then(TraceContext::state))];
    for (name, value) in texts {
        // All headers have to fit into one frame: a longer one would cost the connection, again and again.
        if let Some(value) = value.filter(|value| value.len() <= HEADER) {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
    }
    if outgoing.position > 0 {
        let position = outgoing.position.to_string();
        headers.insert(POSITION.into(), AMQPValue::LongString(LongString::from(position)));
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
pub fn event_type(routing_key: &str) -> &str {
    let words = routing_key.split_once('.').map_or("", |(_, words)| words);
    let end = words.match_indices('.').nth(1).map_or(words.len(), |(end, _)| end);
    words.get(..end).unwrap_or_default()
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
            trace: TraceContext::read("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", None),
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
        let headers = properties.headers().clone().unwrap_or_default();
        assert!(headers.contains_key("traceparent"));
        assert_eq!(headers.inner().get(POSITION), Some(&AMQPValue::LongString(LongString::from("7"))));
    }

    #[test]
    fn what_is_not_stored_has_no_position() {
        let message = event_message(&Names::new("p"), &Outgoing { position: 0, trace: None, ..outgoing() });
        assert_eq!(message.expect("a message").properties.headers(), &None);
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
