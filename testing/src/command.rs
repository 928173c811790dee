//! Commands as an upstream service publishes them, right and wrong ones.

use lapin::BasicProperties;
use serde_json::{Map, Value, json};
use uuid::Uuid;

/// One command. Made by [`Command::new`] or [`Command::create`] and then varied.
#[derive(Debug, Clone)]
pub struct Command {
    /// The CloudEvents type.
    pub kind: String,
    /// The variant in the routing key.
    pub variant: String,
    /// The payment.
    pub payment: Uuid,
    /// The CloudEvents `source`.
    pub source: String,
    /// The CloudEvents `id`.
    pub id: String,
    /// The payload.
    pub data: Value,
    /// Other attributes of the envelope; one that is null leaves its attribute out.
    pub attributes: Map<String, Value>,
    /// In place of `<variant>.<type>`.
    pub routing_key: Option<String>,
    /// In place of the envelope.
    pub body: Option<Vec<u8>>,
    /// The AMQP `reply_to`.
    pub reply_to: Option<String>,
    /// The AMQP `correlation_id`.
    pub correlation_id: Option<String>,
    /// The AMQP `user_id`.
    pub user_id: Option<String>,
    /// Other AMQP properties: headers, another content type, an expiration.
    pub properties: BasicProperties,
}

impl Command {
    /// A command for a payment, under an id of its own.
    pub fn new(variant: &str, kind: &str, payment: Uuid, data: Value) -> Command {
        Command {
            kind: kind.to_owned(),
            variant: variant.to_owned(),
            payment,
            source: "test/shop".to_owned(),
            id: Uuid::new_v4().to_string(),
            data,
            attributes: Map::new(),
            routing_key: None,
            body: None,
            reply_to: None,
            correlation_id: None,
            user_id: None,
            properties: BasicProperties::default(),
        }
    }

    /// `payment.create` of a new payment, without `process`.
    pub fn create(variant: &str, total: &str, currency: &str) -> Command {
        let data = json!({"variant": variant, "total": total, "currency": currency});
        Command::new(variant, "payment.create", Uuid::new_v4(), data)
    }

    /// `payment.create` with `process`: charges at once.
    pub fn charge(variant: &str, total: &str, currency: &str) -> Command {
        Command::create(variant, total, currency).with("process", json!({}))
    }

    /// Another command for the same payment, by the same variant.
    pub fn then(&self, kind: &str, data: Value) -> Command {
        Command::new(&self.variant, kind, self.payment, data)
    }

    /// With this field of `data`.
    pub fn with(mut self, field: &str, value: Value) -> Command {
        self.data[field] = value;
        self
    }

    /// With this `data`.
    pub fn data(mut self, data: Value) -> Command {
        self.data = data;
        self
    }

    /// Without this field of `data`.
    pub fn without(mut self, field: &str) -> Command {
        self.data.as_object_mut().expect("an object").remove(field);
        self
    }

    /// With this attribute of the envelope; null leaves it out.
    pub fn attribute(mut self, name: &str, value: Value) -> Command {
        self.attributes.insert(name.to_owned(), value);
        self
    }

    /// For this payment.
    pub fn payment(mut self, payment: Uuid) -> Command {
        self.payment = payment;
        self
    }

    /// Under this id.
    pub fn id(mut self, id: &str) -> Command {
        id.clone_into(&mut self.id);
        self
    }

    /// From this source.
    pub fn source(mut self, source: &str) -> Command {
        source.clone_into(&mut self.source);
        self
    }

    /// By this routing key.
    pub fn routed(mut self, routing_key: &str) -> Command {
        self.routing_key = Some(routing_key.to_owned());
        self
    }

    /// With these bytes for a body.
    pub fn raw(mut self, body: impl Into<Vec<u8>>) -> Command {
        self.body = Some(body.into());
        self
    }

    /// Answered to this queue too.
    pub fn reply_to(mut self, queue: &str, correlation_id: &str) -> Command {
        self.reply_to = Some(queue.to_owned());
        self.correlation_id = Some(correlation_id.to_owned());
        self
    }

    /// With these other AMQP properties.
    pub fn properties(mut self, properties: BasicProperties) -> Command {
        self.properties = properties;
        self
    }

    /// Said to be from this user of the broker.
    pub fn user(mut self, user: &str) -> Command {
        self.user_id = Some(user.to_owned());
        self
    }

    /// The id of its operation: UUIDv5 of `[subject, source, id]`.
    pub fn operation_id(&self) -> Uuid {
        let name = json!([self.subject(), self.source, self.id]).to_string();
        Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes())
    }

    /// The subject as it is written.
    pub fn subject(&self) -> String {
        match self.attributes.get("subject") {
            Some(Value::String(subject)) => subject.clone(),
            // Without one, what it is called stands for a payment.
            Some(Value::Null) => {
                let name = json!(["", self.source, self.id]).to_string();
                Uuid::new_v5(&Uuid::NAMESPACE_OID, name.as_bytes()).to_string()
            }
            _ => self.payment.to_string(),
        }
    }

    /// What names it: subject, source and id.
    pub fn name(&self) -> (String, String, String) {
        (self.subject(), self.source.clone(), self.id.clone())
    }

    /// The routing key.
    pub fn key(&self) -> String {
        self.routing_key.clone().unwrap_or_else(|| format!("{}.{}", self.variant, self.kind))
    }

    /// The bytes that are published.
    pub fn bytes(&self) -> Vec<u8> {
        if let Some(body) = &self.body {
            return body.clone();
        }
        let mut envelope = json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.kind,
            "subject": self.payment.to_string(),
            "time": "2026-11-22T12:00:00Z",
            "data": self.data,
        });
        let members = envelope.as_object_mut().expect("an object");
        for (name, value) in &self.attributes {
            match value {
                Value::Null => members.remove(name),
                value => members.insert(name.clone(), value.clone()),
            };
        }
        envelope.to_string().into_bytes()
    }
}
