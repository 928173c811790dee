//! A payment that is known to an adapter alone: calls and questions without worker, broker and database.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use paybus::gateway::{Action, Ask, Call, Gateway, Question, Request, Target};
use paybus::payment::model::{Billing, Order, Payment};
use paybus::payment::money::{Currency, Money};
use paybus::payment::outcome::{Found, GatewayKey, Outcome};

/// How long one call may take.
pub const TIMEOUT: Duration = Duration::from_millis(2_500);

/// The payment, and the operation that is under way.
pub struct Direct {
    pub adapter: Arc<dyn Gateway>,
    pub payment: Payment,
    /// The `process` object.
    pub data: Map<String, Value>,
    /// Whether a process captures.
    pub capture: bool,
    pub operation: Uuid,
}

impl Direct {
    /// A payment of so much, with a process to come.
    pub fn new(adapter: Arc<dyn Gateway>, gateway: &str, total: Money, process: Value) -> Direct {
        let zero = Money::zero(total.currency());
        let order = Order {
            variant: "direct".to_owned(),
            total,
            tax: zero,
            delivery: zero,
            description: "a book".to_owned(),
            billing: Billing::default(),
            customer_ip_address: None,
            metadata: paybus::payment::model::Metadata::new(),
        };
        let payment = Payment::new(Uuid::new_v4(), order, gateway, adapter.account(), Timestamp::now());
        Direct { adapter, payment, data: object(process), capture: true, operation: Uuid::new_v4() }
    }

    /// From here on it is about another operation.
    pub fn next_operation(&mut self) {
        self.operation = Uuid::new_v4();
    }

    /// What is sent.
    pub fn body(&self, action: Action, amount: Money) -> String {
        let body = self.adapter.prepare(&Ask {
            operation_id: self.operation,
            action,
            payment: &self.payment,
            amount: Some(amount),
            capture: self.capture,
            confirms: false,
            is_final: true,
            reference: None,
            data: &self.data,
        });
        body.expect("a request that can be made")
    }

    /// Sends the process.
    pub async fn process(&self) -> Outcome {
        self.send(Action::Process, self.payment.order.total).await
    }

    /// Sends something, always under the operation's first key.
    pub async fn send(&self, action: Action, amount: Money) -> Outcome {
        let body = self.body(action, amount);
        let call = Call {
            operation_id: self.operation,
            payment_id: self.payment.id,
            action,
            key: GatewayKey::first(self.operation),
            attempt: 1,
            body: &body,
            amount: Some(amount),
            currency: self.payment.currency(),
            capture: self.capture,
            confirms: false,
            stored_at: self.payment.created,
            trace: None,
            timeout: TIMEOUT,
        };
        self.adapter.call(call).await
    }

    /// Takes over the gateway's reference from a result, as the engine does.
    pub fn learn(&mut self, outcome: &Outcome) {
        if let Outcome::Result(result) = outcome {
            self.payment.transaction_id = result.transaction_id.clone().unwrap_or_default();
        }
    }

    /// Asks what became of the operation, or of the whole payment.
    pub async fn ask(&self, target: Option<Action>) -> Found {
        let amount = self.payment.order.total;
        let body = target.map(|action| self.body(action, amount)).unwrap_or_default();
        let request = Request { amount: Some(amount), capture: self.capture, body };
        let target = target.map(|action| Target {
            operation_id: self.operation,
            action,
            key: GatewayKey::first(self.operation),
            request: Some(&request),
            stored_at: self.payment.created,
            last_sent_at: Some(Timestamp::now()),
        });
        let question = Question {
            operation_id: Uuid::new_v4(),
            target,
            payment: &self.payment,
            references: Vec::new(),
            trace: None,
            timeout: TIMEOUT,
        };
        self.adapter.look_up(question).await
    }
}

/// A sum in US dollars.
pub fn usd(text: &str) -> Money {
    Money::parse(text, Currency::from_code("USD").expect("a currency")).expect("an amount")
}

/// A JSON object's members.
pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(fields) => fields,
        other => panic!("{other} is no object"),
    }
}
