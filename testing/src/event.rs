//! Events as a subscriber sees them, in the order of their arrival.

use std::sync::{Mutex, MutexGuard};
use std::time::Instant;

use lapin::BasicProperties;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::command::Command;
use crate::contract;

/// One event.
#[derive(Debug, Clone)]
pub struct Event {
    /// The routing key.
    pub routing_key: String,
    /// What came beside the body.
    pub properties: BasicProperties,
    /// The envelope.
    pub body: Value,
    /// When it came.
    pub at: Instant,
}

impl Event {
    /// The CloudEvents `id`.
    pub fn id(&self) -> &str {
        self.body["id"].as_str().unwrap_or_default()
    }

    /// The CloudEvents `type`.
    /// What is wrong with it, by the contract.
    pub fn wrong(&self) -> Vec<String> {
        contract::wrong(self.kind(), &self.routing_key, &self.body)
    }

    pub fn kind(&self) -> &str {
        self.body["type"].as_str().unwrap_or_default()
    }

    /// The CloudEvents `subject`.
    pub fn subject(&self) -> &str {
        self.body["subject"].as_str().unwrap_or_default()
    }

    /// The number within the payment, of `payment.*`.
    pub fn sequence(&self) -> Option<i64> {
        self.body["sequence"].as_str().map(|number| number.parse().expect("a sequence is a number"))
    }

    /// `data`.
    pub fn data(&self) -> &Value {
        &self.body["data"]
    }

    /// The payment in it.
    pub fn payment(&self) -> &Value {
        &self.body["data"]["payment"]
    }

    /// A text of the payment in it, such as an amount.
    pub fn field(&self, name: &str) -> &str {
        self.payment()[name].as_str().unwrap_or_default()
    }

    /// The status of the payment in it.
    pub fn status(&self) -> &str {
        self.field("status")
    }

    /// `data.code`.
    pub fn code(&self) -> &str {
        self.data()["code"].as_str().unwrap_or_default()
    }

    /// `data.reason`, of `command.delayed`.
    pub fn reason(&self) -> &str {
        self.data()["reason"].as_str().unwrap_or_default()
    }

    /// `data.message`.
    pub fn message(&self) -> &str {
        self.data()["message"].as_str().unwrap_or_default()
    }

    /// Whether it is its command's answer.
    pub fn is_final(&self) -> bool {
        self.data()["command"]["final"] == true
    }

    /// Whether this command caused it.
    pub fn is_of(&self, command: &Command) -> bool {
        let cause = &self.data()["command"];
        self.subject() == command.subject() && cause["source"] == *command.source && cause["id"] == *command.id
    }

    /// The name of the command that caused it: subject, source and id.
    pub fn cause(&self) -> (String, String, String) {
        let text = |name: &str| self.data()["command"][name].as_str().unwrap_or_default().to_owned();
        (self.subject().to_owned(), text("source"), text("id"))
    }

    /// In one line.
    pub fn line(&self) -> String {
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let data = self.data();
        format!(
            "{} #{} {} status={} code={} reason={} message={:?} command={}",
            self.routing_key,
            text(&self.body["sequence"]),
            self.id(),
            text(&data["payment"]["status"]),
            text(&data["code"]),
            text(&data["reason"]),
            self.message(),
            data["command"],
        )
    }
}

/// Every event so far.
#[derive(Debug, Default)]
pub struct Log {
    events: Mutex<Vec<Event>>,
    wrong: Mutex<Vec<String>>,
    /// Notified at each arrival.
    pub arrived: Notify,
}

impl Log {
    /// One more; it is held against the contract.
    pub fn push(&self, event: Event) {
        let wrong = event.wrong();
        if !wrong.is_empty() {
            self.wrong.lock().unwrap().push(format!("{wrong:#?} in {:#}", event.body));
        }
        self.lock().push(event);
        self.arrived.notify_waiters();
    }

    /// What of them is not as the contract says.
    pub fn wrong(&self) -> Vec<String> {
        self.wrong.lock().unwrap().clone()
    }

    /// All of them, in the order of their arrival.
    pub fn all(&self) -> Vec<Event> {
        self.lock().clone()
    }

    /// Those that came after the first so many.
    pub fn since(&self, count: usize) -> Vec<Event> {
        self.lock().get(count..).unwrap_or_default().to_vec()
    }

    /// Those that a test picks.
    pub fn filter(&self, picks: impl Fn(&Event) -> bool) -> Vec<Event> {
        self.lock().iter().filter(|event| picks(event)).cloned().collect()
    }

    /// The first that a test picks.
    pub fn find(&self, picks: impl Fn(&Event) -> bool) -> Option<Event> {
        self.lock().iter().find(|event| picks(event)).cloned()
    }

    /// Those of a payment.
    pub fn of(&self, payment: Uuid) -> Vec<Event> {
        let payment = payment.to_string();
        self.filter(|event| event.body["partitionkey"] == *payment)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Event>> {
        self.events.lock().unwrap()
    }
}
