//! The payment: an amount to collect, its status, amounts and history.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::money::{Currency, Money};
use super::movement::Amounts;
use super::status::{FraudStatus, Status};

/// A payment as stored; field names are those of django-payments.
#[derive(Debug, Clone, PartialEq)]
pub struct Payment {
    /// Chosen by the upstream service.
    pub id: Uuid,
    /// What the upstream service requested; never changes.
    pub order: Order,
    /// The source of the command that created it, which owns it. `None` if an earlier release stored the payment and
    /// that command has since been deleted.
    pub source: Option<String>,
    /// The adapter with which it was created.
    pub gateway: String,
    /// The account at the gateway with which it was created, as the adapter names it.
    pub account: String,
    /// The current status.
    pub status: Status,
    /// The gateway's fraud assessment.
    pub fraud_status: FraudStatus,
    /// The gateway's message about fraud.
    pub fraud_message: String,
    /// When it was stored.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
    /// The payment's id at the gateway.
    pub transaction_id: String,
    /// The gateway's last message.
    pub message: String,
    /// Additional data from the gateway, bounded.
    pub extra_data: Map<String, Value>,
    /// Where the customer must act, while the status is `input`.
    pub redirect_url: Option<String>,
    /// Whether its process captures at once. `None` until its create or its first process decides.
    pub capture: Option<bool>,
    /// The sums of its movements.
    pub amounts: Amounts,
    /// Changed by every write; a write based on an older version has no effect.
    pub version: i64,
    /// The operation that holds the payment's turn: across all replicas, only one at a time does.
    pub busy: Option<Uuid>,
    /// Number of commands waiting for their turn.
    pub waiting: u32,
    /// Sequence number of the last event.
    pub last_sequence: i64,
    /// When it was archived. Only the row remains, so that its id can never be charged again.
    pub archived: Option<Timestamp>,
}

/// What the upstream service wants paid, and by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The configured gateway variant.
    pub variant: String,
    /// The gross amount.
    pub total: Money,
    /// Tax included in the total.
    pub tax: Money,
    /// Delivery cost included in the total.
    pub delivery: Money,
    /// What the payment is for.
    pub description: String,
    /// The billing address.
    pub billing: Billing,
    /// The customer's IP address.
    pub customer_ip_address: Option<IpAddr>,
    /// The publisher's own data, such as an order number: copied to every event, never interpreted.
    pub metadata: Metadata,
}

/// The publisher's own data, by name.
pub type Metadata = BTreeMap<String, String>;

/// The billing address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[allow(missing_docs)] // The names are django-payments' and say all there is to say.
pub struct Billing {
    pub first_name: String,
    pub last_name: String,
    pub address_1: String,
    pub address_2: String,
    pub city: String,
    pub postcode: String,
    pub country_code: String,
    pub country_area: String,
    pub email: String,
    pub phone: String,
}

impl Payment {
    /// A new payment.
    pub fn new(id: Uuid, order: Order, gateway: &str, account: &str, now: Timestamp) -> Payment {
        let amounts = Amounts::none(order.total.currency());
        Payment {
            id,
            order,
            source: None,
            gateway: gateway.to_owned(),
            account: account.to_owned(),
            status: Status::Waiting,
            fraud_status: FraudStatus::Unknown,
            fraud_message: String::new(),
            created: now,
            modified: now,
            transaction_id: String::new(),
            message: String::new(),
            extra_data: Map::new(),
            redirect_url: None,
            capture: None,
            amounts,
            version: 0,
            busy: None,
            waiting: 0,
            last_sequence: 0,
            archived: None,
        }
    }

    /// The amount that can still be captured: what is held, while the payment is `preauth`.
    pub fn capturable(&self) -> Money {
        match self.status {
            Status::Preauth => self.amounts.capturable,
            _ => Money::zero(self.currency()),
        }
    }

    /// Whether the goods may be shipped: the whole total is captured and still there (not reduced by refunds, disputes
    /// or reversals), and no fraud review is open or failed.
    pub fn is_paid_in_full(&self) -> bool {
        let is_cleared = matches!(self.fraud_status, FraudStatus::Unknown | FraudStatus::Accept);
        self.status == Status::Confirmed && is_cleared && self.amounts.captured.amount() >= self.order.total.amount()
    }

    /// The currency of all its amounts.
    pub fn currency(&self) -> Currency {
        self.order.total.currency()
    }
}
