//! The floor: a program with the traffic of paybus and none of its decisions, as fast as its author could make it. It says
//! how much of a measurement is RabbitMQ, PostgreSQL and HTTP on this machine, and how much is paybus.
//!
//! For each `payment.create` with `process` it makes: one batched statement that stores the payment, its operation and its
//! first event, in the tables that paybus uses; one call of the gateway; one batched statement that stores the outcome, the
//! movement and the second event; both events published with confirms, on four channels; a batched mark for each confirmed
//! event; and acknowledgements, as many at once as are in line. It reads nothing back but positions, recovers from nothing
//! and promises nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::StreamExt;
use jiff::Timestamp;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use serde::Deserialize;
use tokio::sync::{Mutex, mpsc};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use crate::commands::VARIANT;

/// How many payments one statement stores, and how many events are confirmed at a time.
const BATCH: usize = 256;
/// How many statements of a kind are under way at a time.
const STATEMENTS: usize = 2;
/// How many channels the events are spread over.
const CHANNELS: usize = 4;
/// How many events one statement marks.
const MARKS: usize = 2000;

/// What the floor is told.
#[derive(clap::Args)]
pub struct FloorArguments {
    amqp: String,
    database: String,
    gateway: String,
    prefix: String,
    prefetch: u16,
}

#[derive(Deserialize)]
struct Command<'a> {
    id: &'a str,
    subject: Uuid,
    data: Order<'a>,
}

#[derive(Deserialize)]
struct Order<'a> {
    description: &'a str,
    total: &'a str,
    tax: &'a str,
    delivery: &'a str,
    currency: &'a str,
    billing_first_name: &'a str,
    billing_last_name: &'a str,
    billing_address_1: &'a str,
    billing_address_2: &'a str,
    billing_city: &'a str,
    billing_postcode: &'a str,
    billing_country_code: &'a str,
    billing_country_area: &'a str,
    customer_ip_address: &'a str,
}

#[derive(Deserialize)]
struct Answer {
    transaction_id: String,
}

/// One command on its way.
struct Job {
    tag: u64,
    body: Vec<u8>,
    payment: Uuid,
    transaction_id: String,
}

/// One event on its way out; the second of a payment acknowledges its command.
struct Event {
    position: i64,
    id: Uuid,
    key: &'static str,
    body: String,
    acknowledges: Option<u64>,
}

#[derive(Clone)]
struct Ways {
    settle: mpsc::UnboundedSender<Job>,
    publish: Arc<[mpsc::UnboundedSender<Event>]>,
    call: reqwest::Client,
    gateway: String,
}

/// Runs until it is killed.
pub async fn run(arguments: FloorArguments) {
    let connect = async || Connection::connect(&arguments.amqp, ConnectionProperties::default()).await.expect("AMQP");
    let (incoming, outgoing) = (connect().await, connect().await);
    let consuming = incoming.create_channel().await.expect("a channel");
    let (begin, beginning) = mpsc::unbounded_channel();
    let (settle, settling) = mpsc::unbounded_channel();
    let (mark, marking) = mpsc::unbounded_channel();
    let (done, acknowledging) = mpsc::unbounded_channel();
    let mut publish = Vec::new();
    for _ in 0..CHANNELS {
        let channel = outgoing.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let (sender, events) = mpsc::unbounded_channel();
        tokio::spawn(publish_events(channel, arguments.prefix.clone(), events, mark.clone(), done.clone()));
        publish.push(sender);
    }
    let call = reqwest::Client::builder().pool_max_idle_per_host(usize::MAX).build().expect("an HTTP client");
    let ways = Ways { settle, publish: publish.into(), call, gateway: arguments.gateway };
    let (beginning, settling) = (Arc::new(Mutex::new(beginning)), Arc::new(Mutex::new(settling)));
    for _ in 0..STATEMENTS {
        let (client, other) = (database(&arguments.database).await, database(&arguments.database).await);
        tokio::spawn(begin_jobs(client, Arc::clone(&beginning), ways.clone()));
        tokio::spawn(settle_jobs(other, Arc::clone(&settling), ways.clone()));
    }
    tokio::spawn(mark_events(database(&arguments.database).await, marking));
    tokio::spawn(acknowledge(consuming.clone(), acknowledging));
    consume(&consuming, &arguments.prefix, arguments.prefetch, begin).await;
}

async fn database(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("PostgreSQL");
    tokio::spawn(async move { connection.await.expect("a connection") });
    client
}

async fn consume(channel: &Channel, prefix: &str, prefetch: u16, begin: mpsc::UnboundedSender<Job>) {
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("a prefetch");
    let queue = format!("{prefix}.commands.{VARIANT}");
    let options = BasicConsumeOptions::default();
    let mut consumer =
        channel.basic_consume(queue.into(), "floor".into(), options, FieldTable::default()).await.expect("a consumer");
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery.expect("a delivery");
        let payment = serde_json::from_slice::<Command>(&delivery.data).expect("a command").subject;
        let job = Job { tag: delivery.delivery_tag, body: delivery.data, payment, transaction_id: String::new() };
        begin.send(job).expect("runs");
    }
}

async fn begin_jobs(client: Client, jobs: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>, ways: Ways) {
    let statement = client.prepare(BEGIN).await.expect("a statement");
    loop {
        let mut batch = Vec::new();
        jobs.lock().await.recv_many(&mut batch, BATCH).await;
        let now = Timestamp::now();
        let commands: Vec<Command> =
            batch.iter().map(|job| serde_json::from_slice(&job.body).expect("a command")).collect();
        let ids: Vec<Uuid> = batch.iter().map(|job| job.payment).collect();
        let events: Vec<Uuid> = batch.iter().map(|_| Uuid::new_v4()).collect();
        let bodies: Vec<String> =
            commands.iter().zip(&events).map(|(command, id)| created(command, *id, now)).collect();
        let requests: Vec<String> = commands.iter().map(|command| request(command, now)).collect();
        let column = |pick: for<'a> fn(&Order<'a>) -> &'a str| -> Vec<&str> {
            commands.iter().map(|command| pick(&command.data)).collect()
        };
        let names: Vec<&str> = commands.iter().map(|command| command.id).collect();
        let hashes: Vec<&[u8]> = batch.iter().map(|job| &job.body[..32]).collect();
        let rows = client
            .query(
                &statement,
                &[
                    &ids,
                    &events,
                    &bodies,
                    &requests,
                    &names,
                    &hashes,
                    &now,
                    &column(|order| order.total),
                    &column(|order| order.tax),
                    &column(|order| order.delivery),
                    &column(|order| order.currency),
                    &column(|order| order.description),
                    &column(|order| order.billing_first_name),
                    &column(|order| order.billing_last_name),
                    &column(|order| order.billing_address_1),
                    &column(|order| order.billing_address_2),
                    &column(|order| order.billing_city),
                    &column(|order| order.billing_postcode),
                    &column(|order| order.billing_country_code),
                    &column(|order| order.billing_country_area),
                    &column(|order| order.customer_ip_address),
                ],
            )
            .await
            .expect("stored");
        let positions = positions(&rows);
        drop(commands);
        for ((((job, id), body), request), position) in
            batch.into_iter().zip(events).zip(bodies).zip(requests).zip(positions)
        {
            let key = "bench.payment.created";
            ways.publish(job.payment, Event { position, id, key, body, acknowledges: None });
            tokio::spawn(ways.clone().call(job, request));
        }
    }
}

impl Ways {
    fn publish(&self, payment: Uuid, event: Event) {
        let channel = usize::from(payment.as_bytes()[15]) % CHANNELS;
        self.publish[channel].send(event).expect("runs");
    }

    async fn call(self, mut job: Job, request: String) {
        let answer = self
            .call
            .post(format!("{}/process", self.gateway))
            .header("content-type", "application/json")
            .header("idempotency-key", job.payment.to_string())
            .body(request)
            .send()
            .await
            .expect("an answer");
        let answer: Answer = answer.json().await.expect("an answer");
        job.transaction_id = answer.transaction_id;
        self.settle.send(job).expect("runs");
    }
}

async fn settle_jobs(client: Client, jobs: Arc<Mutex<mpsc::UnboundedReceiver<Job>>>, ways: Ways) {
    let statement = client.prepare(SETTLE).await.expect("a statement");
    loop {
        let mut batch = Vec::new();
        jobs.lock().await.recv_many(&mut batch, BATCH).await;
        let now = Timestamp::now();
        let ids: Vec<Uuid> = batch.iter().map(|job| job.payment).collect();
        let events: Vec<Uuid> = batch.iter().map(|_| Uuid::new_v4()).collect();
        let transactions: Vec<&str> = batch.iter().map(|job| job.transaction_id.as_str()).collect();
        let bodies: Vec<String> = batch.iter().zip(&events).map(|(job, id)| confirmed(job, *id, now)).collect();
        let rows = client.query(&statement, &[&ids, &events, &bodies, &transactions, &now]).await.expect("stored");
        let positions = positions(&rows);
        for (((job, id), body), position) in batch.into_iter().zip(events).zip(bodies).zip(positions) {
            let key = "bench.payment.status_changed.confirmed";
            ways.publish(job.payment, Event { position, id, key, body, acknowledges: Some(job.tag) });
        }
    }
}

fn positions(rows: &[tokio_postgres::Row]) -> Vec<i64> {
    rows.iter().map(|row| row.get(0)).collect()
}

async fn publish_events(
    channel: Channel,
    prefix: String,
    mut events: mpsc::UnboundedReceiver<Event>,
    mark: mpsc::UnboundedSender<i64>,
    done: mpsc::UnboundedSender<u64>,
) {
    let mut batch = Vec::new();
    while events.recv_many(&mut batch, BATCH).await > 0 {
        let mut confirms = Vec::with_capacity(batch.len());
        for event in batch.drain(..) {
            let properties = BasicProperties::default()
                .with_delivery_mode(2)
                .with_content_type("application/cloudevents+json; charset=utf-8".into())
                .with_message_id(event.id.to_string().into());
            let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
            let exchange = format!("{prefix}.events");
            let confirm = channel
                .basic_publish(exchange.into(), event.key.into(), options, event.body.as_bytes(), properties)
                .await
                .expect("published");
            confirms.push((confirm, event.position, event.acknowledges));
        }
        for (confirm, position, acknowledges) in confirms {
            assert!(confirm.await.expect("a confirm").is_ack());
            mark.send(position).expect("runs");
            if let Some(tag) = acknowledges {
                done.send(tag).expect("runs");
            }
        }
    }
}

async fn mark_events(client: Client, mut marks: mpsc::UnboundedReceiver<i64>) {
    let sql = "INSERT INTO paybus.sent (position, sent_at) SELECT p, now() FROM unnest($1::int8[]) AS r(p)";
    let statement = client.prepare(sql).await.expect("a statement");
    let mut batch = Vec::new();
    while marks.recv_many(&mut batch, MARKS).await > 0 {
        client.execute(&statement, &[&batch]).await.expect("marked");
        batch.clear();
    }
}

/// Acknowledges with `multiple` up to the last command before which all are done.
async fn acknowledge(channel: Channel, mut done: mpsc::UnboundedReceiver<u64>) {
    let (mut batch, mut waiting, mut next) = (Vec::new(), BTreeSet::new(), 1);
    while done.recv_many(&mut batch, MARKS).await > 0 {
        waiting.extend(batch.drain(..));
        let before = next;
        while waiting.remove(&next) {
            next += 1;
        }
        if next > before {
            channel.basic_ack(next - 1, BasicAckOptions { multiple: true }).await.expect("acknowledged");
        }
    }
}

fn created(command: &Command<'_>, event: Uuid, now: Timestamp) -> String {
    let payment = payment(command, "waiting", "", "0.00", now);
    let (id, name) = (command.subject, command.id);
    format!(
        r#"{{"specversion":"1.0","id":"{event}","source":"paybus","type":"payment.created","subject":"{id}","time":"{now}","datacontenttype":"application/json","partitionkey":"{id}","sequence":"1","sequencetype":"Integer","causationid":"{name}","data":{{"payment":{payment},"command":{{"source":"shop/checkout","id":"{name}","type":"payment.create","final":false}}}}}}"#
    )
}

fn confirmed(job: &Job, event: Uuid, now: Timestamp) -> String {
    let command: Command = serde_json::from_slice(&job.body).expect("a command");
    let payment = payment(&command, "confirmed", &job.transaction_id, command.data.total, now);
    let (id, name) = (command.subject, command.id);
    format!(
        r#"{{"specversion":"1.0","id":"{event}","source":"paybus","type":"payment.status_changed","subject":"{id}","time":"{now}","datacontenttype":"application/json","partitionkey":"{id}","sequence":"2","sequencetype":"Integer","causationid":"{name}","data":{{"payment":{payment},"previous_status":"waiting","command":{{"source":"shop/checkout","id":"{name}","type":"payment.create","final":true}}}}}}"#
    )
}

fn request(command: &Command<'_>, now: Timestamp) -> String {
    let payment = payment(command, "waiting", "", "0.00", now);
    let (id, total) = (command.subject, command.data.total);
    format!(
        r#"{{"operation_id":"{id}","operation":"process","payment":{payment},"amount":"{total}","currency":"USD","capture":true,"data":{{"payment_method":"pm_card_visa"}}}}"#
    )
}

fn payment(command: &Command<'_>, status: &str, transaction: &str, captured: &str, now: Timestamp) -> String {
    let (id, order) = (command.subject, &command.data);
    let Order { description, total, tax, delivery, currency, billing_first_name, billing_last_name, .. } = order;
    let Order { billing_address_1, billing_address_2, billing_city, billing_postcode, .. } = order;
    let Order { billing_country_code, billing_country_area, customer_ip_address, .. } = order;
    format!(
        r#"{{"id":"{id}","variant":"bench","status":"{status}","fraud_status":"unknown","fraud_message":"","created":"{now}","modified":"{now}","transaction_id":"{transaction}","currency":"{currency}","total":"{total}","delivery":"{delivery}","tax":"{tax}","captured_amount":"{captured}","authorized_amount":"0.00","refunded_amount":"0.00","description":"{description}","billing_first_name":"{billing_first_name}","billing_last_name":"{billing_last_name}","billing_address_1":"{billing_address_1}","billing_address_2":"{billing_address_2}","billing_city":"{billing_city}","billing_postcode":"{billing_postcode}","billing_country_code":"{billing_country_code}","billing_country_area":"{billing_country_area}","billing_email":"","billing_phone":"","customer_ip_address":"{customer_ip_address}","message":"","extra_data":{{}}}}"#
    )
}

/// What is the same for every payment is in the text; what a shop may fill in comes as arrays.
const BEGIN: &str = "
WITH r AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::bytea[], $8::text[],
    $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[], $15::text[], $16::text[], $17::text[],
    $18::text[], $19::text[], $20::text[], $21::text[]) WITH ORDINALITY AS r(id, event, body, request, command, hash,
    total, tax, delivery, currency, description, first_name, last_name, address_1, address_2, city, postcode,
    country_code, country_area, ip, ordinality)),
p AS (INSERT INTO paybus.payments (id, variant, gateway, account, status, fraud_status, fraud_message, created, modified,
    transaction_id, currency, total, delivery, tax, description, billing_first_name, billing_last_name,
    billing_address_1, billing_address_2, billing_city, billing_postcode, billing_country_code, billing_country_area,
    billing_email, billing_phone, customer_ip_address, extra_data, message, captured_amount, authorized_amount,
    refunded_amount, version, busy_operation, waiting, last_sequence)
  SELECT id, 'bench', 'http', 'http://127.0.0.1:9000', 'waiting', 'unknown', '', $7::timestamptz, $7, '', currency,
    total::numeric, delivery::numeric, tax::numeric, description, first_name, last_name, address_1, address_2, city,
    postcode, country_code, country_area, '', '', ip::inet, '{}', '', 0, 0, 0, 1, id, 0, 1 FROM r),
o AS (INSERT INTO paybus.operations (payment_id, id, source, command_id, command_type, variant, hash, data, created,
    state, attempts, rounds, lookups, takeovers, generation, exposed, acted_on, lookup_only, first_sent_at, last_sent_at,
    lease_owner, lease_until, escalated, amount, capture, request, last_message)
  SELECT id, id, 'shop/checkout', command, 'payment.create', 'bench', hash, '{}', $7, 'calling', 1, 0, 0, 0, 0, true,
    false, false, $7, $7, id, $7, false, total::numeric, true, request, '' FROM r ORDER BY ordinality)
INSERT INTO paybus.events (payment_id, id, sequence, event_type, routing_key, body, created)
  SELECT id, event, 1, 'payment.created', 'bench.payment.created', body, $7 FROM r ORDER BY ordinality
  RETURNING position";

const SETTLE: &str = "
WITH r AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[])
    WITH ORDINALITY AS r(id, event, body, transaction_id, ordinality)),
p AS (UPDATE paybus.payments p SET status = 'confirmed', modified = $5::timestamptz, transaction_id = r.transaction_id,
    captured_amount = total, version = 2, busy_operation = NULL, last_sequence = 2 FROM r WHERE p.id = r.id),
o AS (UPDATE paybus.operations o SET state = 'settled', exposed = false, lease_owner = NULL, lease_until = NULL,
    request = NULL, answer = 'succeeded', settled_at = $5 FROM r WHERE o.payment_id = r.id AND o.id = r.id),
m AS (INSERT INTO paybus.movements (payment_id, kind, reference, amount, currency, operation_id, created)
  SELECT id, 'captured', id::text, 120, 'USD', id, $5 FROM r)
INSERT INTO paybus.events (payment_id, id, sequence, event_type, routing_key, body, created)
  SELECT id, event, 2, 'payment.status_changed', 'bench.payment.status_changed.confirmed', body, $5
  FROM r ORDER BY ordinality RETURNING position";
