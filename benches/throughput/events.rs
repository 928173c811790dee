//! The subscriber: a durable quorum queue that gets every event, and what its events prove.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, Connection, Consumer};
use serde::Deserialize;
use uuid::Uuid;

/// How often the number of waiting events is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How many deliveries are under way.
const PREFETCH: u16 = 1000;

/// A queue bound to all events.
pub struct Subscriber {
    channel: Channel,
    queue: ShortString,
}

/// One event as far as it matters here.
#[derive(Deserialize)]
struct Event {
    id: Uuid,
    subject: Uuid,
    #[serde(rename = "type")]
    kind: String,
    sequence: String,
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    payment: Payment,
}

#[derive(Deserialize)]
struct Payment {
    status: String,
}

/// What the events say, taken together.
#[derive(Debug, Default, Clone, Copy)]
pub struct Received {
    /// Payments that were told to be confirmed.
    pub confirmed: usize,
    /// Payments that were not.
    pub lost: usize,
    /// Events whose sequence is not the next one of their payment.
    pub out_of_order: usize,
    /// Events that came a second time, under the same id: allowed, and counted.
    pub repeated: usize,
}

impl Subscriber {
    /// Declares and binds the queue; the exchange is there already.
    pub async fn bind(connection: &Connection, prefix: &str) -> Subscriber {
        let channel = connection.create_channel().await.expect("a channel");
        let queue: ShortString = format!("{prefix}.bench").into();
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString(LongString::from("quorum")));
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.clone(), options, arguments).await.expect("a queue");
        let exchange = format!("{prefix}.events");
        channel
            .queue_bind(queue.clone(), exchange.into(), "#".into(), QueueBindOptions::default(), FieldTable::default())
            .await
            .expect("a binding");
        channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
        Subscriber { channel, queue }
    }

    /// Waits until so many events are in the queue, and tells when they were. Consuming them meanwhile would cost what is
    /// measured.
    pub async fn wait_for(&self, count: usize) -> Instant {
        loop {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let queue = self.channel.queue_declare(self.queue.clone(), options, FieldTable::default()).await;
            let waiting = queue.expect("the queue is there").message_count() as usize;
            if waiting >= count {
                return Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Starts consuming.
    pub async fn consume(&self) -> Consumer {
        let options = BasicConsumeOptions::default();
        self.channel
            .basic_consume(self.queue.clone(), "bench".into(), options, FieldTable::default())
            .await
            .expect("a consumer")
    }

    /// Reads events until every one of these payments was told to be confirmed, or nothing came for 10 seconds. `each`
    /// sees a payment at the moment when it is.
    pub async fn read(&self, consumer: &mut Consumer, payments: usize, mut each: impl FnMut(Uuid)) -> Received {
        let mut seen: HashMap<Uuid, (u64, Vec<Uuid>)> = HashMap::with_capacity(payments);
        let mut received = Received::default();
        let mut unacknowledged = 0;
        while received.confirmed < payments {
            let Ok(Some(delivery)) = tokio::time::timeout(Duration::from_secs(10), consumer.next()).await else {
                break;
            };
            let delivery = delivery.expect("a delivery");
            let event: Event = serde_json::from_slice(&delivery.data).expect("an event");
            let (last, ids) = seen.entry(event.subject).or_default();
            let sequence: u64 = event.sequence.parse().expect("a sequence");
            if ids.contains(&event.id) {
                received.repeated += 1;
            } else {
                received.out_of_order += usize::from(sequence != *last + 1);
                *last = sequence;
                ids.push(event.id);
                if event.kind == "payment.status_changed" && event.data.payment.status == "confirmed" {
                    received.confirmed += 1;
                    each(event.subject);
                }
            }
            unacknowledged += 1;
            if unacknowledged == 100 || received.confirmed == payments {
                unacknowledged = 0;
                delivery.acker.ack(BasicAckOptions { multiple: true }).await.expect("acknowledged");
            }
        }
        received.lost = payments - received.confirmed;
        received
    }
}
