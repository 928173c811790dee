//! Publishes events, the replies that go with some of them, dead letters, and commands that were webhooks.
//!
//! A payment's events always use the same channel, where they keep their order without waiting for each other's
//! confirms. Replies are outside that order and have a channel of their own: someone else's reply queue can close that
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
use super::nacks::{Nacked, Nacks};
use super::unordered::SetAside;
use super::verdict::{Refused, Verdict};
use crate::bus::connection::ConnectionState;
use crate::bus::connection::reconnecting::{Reconnecting, Role};
use crate::bus::topology::Names;
use crate::bus::{BusError, BusSettings, short};
use crate::payment::command::Reply;
use crate::payment::event::Event;
use crate::payment::trace::TraceContext;

/// The number of channels for events. A payment always uses the same one.
pub const CHANNELS: usize = 4;

/// The prefix of RabbitMQ's names for direct replies. There are no queues behind them.
pub const DIRECT_REPLY: &str = "amq.rabbitmq.reply-to";

/// The longest header that is passed on, in bytes.
const HEADER: usize = 1024;

/// The header with an event's position among all events of the installation, in digits.
pub const POSITION: &str = "paybus-position";

/// The content type of every message, in both directions.
pub const CONTENT_TYPE: &str = "application/cloudevents+json; charset=utf-8";

/// One event of the outbox.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The position of its outbox row, which identifies the result; 0 if it has none.
    pub position: i64,
    /// The payment. Its events keep their order.
    pub payment_id: Uuid,
    /// The event's id, and the AMQP `message_id` of every resend.
    pub event_id: Uuid,
    /// `<variant>.<type>`, followed by the status if it changed.
    pub routing_key: String,
    /// The event as CloudEvents JSON.
    pub body: Bytes,
    /// The command's `correlationid`.
    pub correlation_id: Option<String>,
    /// The trace context that it belongs to.
    pub trace: Option<TraceContext>,
    /// Where a final answer is also sent.
    pub reply: Option<Reply>,
}

impl Outgoing {
    /// Creates the message of an event from its position in the outbox and its body.
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
pub struct Published {
    /// The position of its outbox row.
    pub position: i64,
    /// Whether the broker has it. A person must look at an event that the broker refuses.
    pub verdict: Verdict,
    /// What became of the reply, if the broker has the event.
    pub reply: ReplyState,
}

/// What became of a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyState {
    /// None was asked for, or its event was not confirmed.
    None,
    /// The broker has it. A direct reply may still find nobody waiting.
    Sent,
    /// Nobody is there to receive it; it is never retried.
    Unroutable,
}

impl ReplyState {
    /// The word that is stored with the event; `None` without a reply.
    pub fn as_str(self) -> Option<&'static str> {
        match self {
            ReplyState::None => None,
            ReplyState::Sent => Some("sent"),
            ReplyState::Unroutable => Some("unroutable"),
        }
    }
}

/// The publishing connection. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Publisher {
    channels: Arc<[mpsc::Sender<Posted>]>,
    side: mpsc::Sender<Posted>,
    /// For heartbeats only, so that one subscriber's queue delays no reply and no webhook.
    beats: mpsc::Sender<Posted>,
    names: Names,
    /// Our user at the broker, for commands of our own.
    user: Option<Arc<str>>,
    aside: SetAside,
    state: watch::Receiver<ConnectionState>,
    silent: watch::Receiver<usize>,
    nacked: watch::Receiver<Nacked>,
}

impl Publisher {
    /// Starts connecting, and reconnects whenever the connection is lost, until the token is cancelled.
    pub fn spawn(settings: BusSettings, shutdown: CancellationToken) -> Publisher {
        Publisher::spawn_after(std::future::ready(()), settings, shutdown)
    }

    /// Like [`Publisher::spawn`], but connects only when `begin` has completed; what is posted before waits.
    pub fn spawn_after(
        begin: impl Future<Output = ()> + Send + 'static,
        settings: BusSettings,
        shutdown: CancellationToken,
    ) -> Publisher {
        let names = Names::new(&settings.prefix);
        let user = settings.user().map(Arc::from);
        let confirm_timeout = settings.confirm_timeout;
        let role = Role::Publisher { exchange: names.events() };
        let reconnecting = Reconnecting::spawn_after(begin, settings, role, shutdown.clone());
        let (silent, is_silent) = watch::channel(0);
        let (nacks, nacked) = Nacks::new();
        let state = reconnecting.state();
        let aside = SetAside::default();
        let shared = Shared { reconnecting, confirm_timeout, aside: aside.clone(), silent, nacks, shutdown };
        let channels = (0..CHANNELS).map(|_| PublishChannel::events(shared.clone())).collect();
        // An idle replica publishes nothing but heartbeats, so their outcome does not count for readiness.
        let (own_silent, own_nacks) = (watch::channel(0).0, Nacks::new().0);
        let beats = PublishChannel::side(Shared { silent: own_silent, nacks: own_nacks, ..shared.clone() });
        Publisher {
            channels,
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

    /// Returns the state of the connection, for readiness.
    pub fn state(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Returns how many channels get no confirms although the connection is healthy, for readiness.
    pub fn silent(&self) -> watch::Receiver<usize> {
        self.silent.clone()
    }

    /// Returns the nacks, for readiness and metrics.
    pub fn nacked(&self) -> watch::Receiver<Nacked> {
        self.nacked.clone()
    }

    /// Returns the payments whose events are set aside: none of these is published.
    pub fn aside(&self) -> &SetAside {
        &self.aside
    }

    /// Returns the names of exchanges and queues.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Posts events, each payment's in the given order, and returns as soon as their channels have accepted them:
    /// events of the same payment that are posted later go out later. `on_published` is called for each event once it
    /// is confirmed or refused, across any number of reconnects; it is dropped when there is nothing more to report. If
    /// the publisher is shut down meanwhile, undecided events are not reported: they may or may not have been
    /// published.
    pub async fn post(&self, batch: Vec<Outgoing>, on_published: OnPublished) {
        for outgoing in batch {
            let position = outgoing.position;
            let event = match event_message(&self.names, &outgoing) {
                Ok(message) => message,
                Err(error) => {
                    self.aside.refused(outgoing.payment_id);
                    let verdict = Verdict::Refused(error.to_string());
                    on_published(Published { position, verdict, reply: ReplyState::None });
                    continue;
                }
            };
            match &outgoing.reply {
                None => {
                    let on_published = Arc::clone(&on_published);
                    let answer = move |verdict| on_published(Published { position, verdict, reply: ReplyState::None });
                    self.post_event(outgoing.payment_id, event, Box::new(answer)).await;
                }
                Some(reply) => Box::pin(self.post_with_reply(&outgoing, event, reply, Arc::clone(&on_published))).await,
            }
        }
    }

    /// Publishes events and waits until each is confirmed or set aside. The results are in the order of the batch; see
    /// [`Publisher::post`].
    pub async fn publish(&self, batch: Vec<Outgoing>) -> Vec<Published> {
        let indexes: HashMap<i64, usize> =
            batch.iter().enumerate().map(|(index, outgoing)| (outgoing.position, index)).collect();
        let (sender, mut results) = mpsc::unbounded_channel();
        let on_published = move |published| sender.send(published).unwrap_or_default();
        self.post(batch, Arc::new(on_published)).await;
        let mut published: Vec<Published> = Vec::with_capacity(indexes.len());
        while let Some(result) = results.recv().await {
            published.push(result);
        }
        published.sort_by_key(|result| indexes.get(&result.position).copied());
        published
    }

    /// Publishes one payment's events again, in order: to the reply queue only, or to the exchange of events. Returns
    /// how many of them, from the first on, the broker confirmed within `timeout`; the others may still follow.
    pub async fn resend(&self, batch: Vec<Outgoing>, reply: Option<Reply>, timeout: Duration) -> usize {
        let deadline = Instant::now() + timeout;
        // Messages to one reply queue keep their order, too.
        let order = Uuid::new_v4();
        let mut posted = Vec::with_capacity(batch.len());
        for outgoing in &batch {
            let message = match &reply {
                Some(reply) => reply_message(outgoing, reply),
                None => event_message(&self.names, outgoing),
            };
            let Ok(message) = message else { break };
            let (answer, decided) = promise(|verdict| verdict);
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

    /// Publishes one message that needs no order, and waits until it is confirmed or refused for good, across any
    /// number of reconnects.
    pub(in crate::bus) async fn publish_unordered(&self, message: Message) -> Option<Result<(), Refused>> {
        self.post_unordered(message).await.await.ok()
    }

    /// Publishes a command of our own, made from a webhook, and waits until the broker has answered, across any number
    /// of reconnects. A full queue refuses it. `None` if the publisher is shut down meanwhile.
    pub async fn publish_command(&self, routing_key: String, body: Bytes) -> Option<Result<(), Refused>> {
        match self.command_message(routing_key, body) {
            Ok(message) => self.publish_unordered(message).await,
            Err(error) => Some(Err(Refused(error.to_string()))),
        }
    }

    /// Publishes a heartbeat. If nobody has subscribed to it, or the broker does not confirm it within `timeout`, it
    /// is lost: the next one says where its count starts.
    pub async fn publish_heartbeat(&self, id: Uuid, routing_key: String, body: Bytes, timeout: Duration) {
        let message = match self.heartbeat_message(id, &routing_key, body) {
            Ok(message) => message,
            Err(error) => return warn!(%error, routing_key, "cannot build a heartbeat; skipping it"),
        };
        let (answer, decided) = promise(Verdict::unordered);
        let publishing = async {
            post(&self.beats, id, message, answer).await;
            decided.await
        };
        match timeout_at(Instant::now() + timeout, publishing).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(Refused(reason)))) => {
                warn!(reason, routing_key, "the broker refused a heartbeat; skipping it")
            }
            Ok(Err(_)) | Err(_) => {
                debug!(routing_key, "the broker did not confirm a heartbeat in time")
            }
        }
    }

    fn heartbeat_message(&self, id: Uuid, routing_key: &str, body: Bytes) -> Result<Message, BusError> {
        let properties = base_properties()
            .with_message_id(short("message id", id.to_string())?)
            .with_type(short("type", event_type(routing_key))?);
        Ok(Message {
            mandatory: false,
            exchange: short("exchange name", self.names.heartbeats())?,
            routing_key: short("routing key", routing_key)?,
            properties,
            body,
        })
    }

    fn command_message(&self, routing_key: String, body: Bytes) -> Result<Message, BusError> {
        // Identifies a return. The command's own id may be in flight twice.
        let mut properties = base_properties().with_message_id(short("message id", Uuid::new_v4().to_string())?);
        if let Some(user) = &self.user {
            properties = properties.with_user_id(short("user", &**user)?);
        }
        Ok(Message {
            mandatory: true,
            exchange: short("exchange name", self.names.commands())?,
            routing_key: short("routing key", routing_key)?,
            properties,
            body,
        })
    }

    async fn post_event(&self, payment: Uuid, message: Message, answer: Answer) {
        if let Some(channel) = self.channels.get(channel_of(payment, self.channels.len())) {
            post(channel, payment, message, answer).await;
        }
    }

    /// Posts an event that is also a reply, and reports it once both are decided.
    async fn post_with_reply(&self, outgoing: &Outgoing, event: Message, reply: &Reply, on_published: OnPublished) {
        let (position, payment) = (outgoing.position, outgoing.payment_id);
        let (answer, decided) = promise(|verdict| verdict);
        self.post_event(payment, event, answer).await;
        let replied = match reply_message(outgoing, reply) {
            Ok(message) => Ok(self.post_unordered(message).await),
            Err(error) => Err(error),
        };
        tokio::spawn(async move {
            let Ok(verdict) = decided.await else { return };
            if verdict != Verdict::Confirmed {
                // It need not wait for a reply that may never be confirmed.
                return on_published(Published { position, verdict, reply: ReplyState::None });
            }
            let replied = match replied {
                Ok(replied) => replied.await,
                Err(error) => Ok(Err(Refused(error.to_string()))),
            };
            let reply = match replied {
                Ok(Ok(())) => ReplyState::Sent,
                Ok(Err(Refused(reason))) => {
                    debug!(payment_id = %payment, reason, "no queue accepts the reply; dropping it");
                    ReplyState::Unroutable
                }
                Err(_) => return,
            };
            on_published(Published { position, verdict, reply });
        });
    }

    async fn post_unordered(&self, message: Message) -> oneshot::Receiver<Result<(), Refused>> {
        let (answer, decided) = promise(Verdict::unordered);
        post(&self.side, Uuid::new_v4(), message, answer).await;
        decided
    }
}

/// The callback for the outcome of events; see [`Publisher::post`]. It is called by a channel's task, so it must be
/// quick.
pub type OnPublished = Arc<dyn Fn(Published) + Send + Sync>;

/// Returns an answer, and what receives what `read` makes of the verdict.
fn promise<T: Send + 'static>(read: fn(Verdict) -> T) -> (Answer, oneshot::Receiver<T>) {
    let (sender, decided) = oneshot::channel();
    let answer = move |verdict| {
        if sender.send(read(verdict)).is_err() {
            debug!("result of a publish dropped: its task has ended");
        }
    };
    (Box::new(answer), decided)
}

/// Posts a message to a channel. If the channel is shut down, the answer is dropped.
async fn post(channel: &mpsc::Sender<Posted>, order: Uuid, message: Message, answer: Answer) {
    if channel.send(Posted { order, message, answer }).await.is_err() {
        debug!("message dropped: the publisher has shut down");
    }
}

fn channel_of(payment: Uuid, channels: usize) -> usize {
    // UUIDs of versions 4, 5 and 7 are all random at their end.
    let random = payment.as_u128() & u128::from(u32::MAX);
    usize::try_from(random).unwrap_or_default() % channels.max(1)
}

fn event_message(names: &Names, outgoing: &Outgoing) -> Result<Message, BusError> {
    let mut properties = properties(outgoing)?;
    // An id that is too long for AMQP is left out; the body has it too.
    if let Some(id) = &outgoing.correlation_id
        && let Ok(id) = short("correlation id", id.as_str())
    {
        properties = properties.with_correlation_id(id);
    }
    Ok(Message {
        mandatory: true,
        exchange: short("exchange name", names.events())?,
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
        // RabbitMQ 3.10 delivers a direct reply to the consumer that is waiting for it, but does not count that as a
        // route: a mandatory one would also be returned.
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
        // All headers must fit into one frame: a longer one would cost the connection, again and again.
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

/// Returns the properties of every message that we publish.
pub(in crate::bus) fn base_properties() -> BasicProperties {
    let seconds = u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default();
    BasicProperties::default()
        .with_content_type(CONTENT_TYPE.into())
        .with_delivery_mode(2)
        .with_app_id("paybus".into())
        .with_timestamp(seconds)
}

/// Returns the event's type from its routing key: the two words after the variant.
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
    fn payments_spread_over_all_channels() {
        let mut used = [0; CHANNELS];
        for _ in 0..1000 {
            used[channel_of(Uuid::now_v7(), CHANNELS)] += 1;
        }
        assert!(used.iter().all(|count| *count > 100), "{used:?}");
    }
}
