//! The payment itself: one sum to collect, its status, amounts and history.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::money::{Currency, Money};
use super::movement::Amounts;
use super::status::{FraudStatus, Status};

/// A payment as stored; field names are django-payments'.
#[derive(Debug, Clone, PartialEq)]
pub struct Payment {
    /// Chosen by the upstream.
    pub id: Uuid,
    /// What the upstream asked for; never changes.
    pub order: Order,
    /// The source of the command that created it: whose it is. `None` where an earlier release stored it and that command is
    /// kept no more.
    pub source: Option<String>,
    /// The adapter it began with.
    pub gateway: String,
    /// The account at the gateway it began with, as the adapter names it.
    pub account: String,
    /// Where it stands.
    pub status: Status,
    /// What the gateway thinks of fraud.
    pub fraud_status: FraudStatus,
    /// The gateway's words on fraud.
    pub fraud_message: String,
    /// When it was stored.
    pub created: Timestamp,
    /// When it last changed.
    pub modified: Timestamp,
    /// Its id at the gateway.
    pub transaction_id: String,
    /// The gateway's last message.
    pub message: String,
    /// What the gateway told beside, bounded.
    pub extra_data: Map<String, Value>,
    /// Where the customer must act, while the status is `input`.
    pub redirect_url: Option<String>,
    /// Whether its process captures at once; known where its create says so, else from its first process on.
    pub capture: Option<bool>,
    /// The sums of its movements.
    pub amounts: Amounts,
    /// Raised by every change; a write that read an older one changes nothing.
    pub version: i64,
    /// The operation that holds the payment's turn.
    pub busy: Option<Uuid>,
    /// How many commands wait for their turn.
    pub waiting: u32,
    /// The last event's number.
    pub last_sequence: i64,
    /// When it was archived: only its row is left, so that its id is never charged again.
    pub archived: Option<Timestamp>,
}

/// What the upstream asked to be paid, and by whom.
#[derive(Debug, Clone, PartialEq)]
pub struct Order {
    /// The configured gateway to use.
    pub variant: String,
    /// The gross sum.
    pub total: Money,
    /// Of it, tax.
    pub tax: Money,
    /// Of it, delivery.
    pub delivery: Money,
    /// What it is for.
    pub description: String,
    /// Whom to bill.
    pub billing: Billing,
    /// Where the customer came from.
    pub customer_ip_address: Option<IpAddr>,
    /// The publisher's own words, an order's number say: told with every event, and read by nobody here.
    pub metadata: Metadata,
}

/// The publisher's own words, by their names.
pub type Metadata = BTreeMap<String, String>;

/// Whom to bill.
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
    /// A payment that was just asked for.
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

    /// What can still be captured: what is held, while the payment is `preauth`.
    pub fn capturable(&self) -> Money {
        match self.status {
            Status::Preauth => self.amounts.capturable,
            _ => Money::zero(self.currency()),
        }
    }

    /// Whether the goods may go out: the whole total was captured and is still there (nothing refunded, disputed or reversed
    /// that would leave less), and no review of fraud is open or ended badly.
    pub fn is_paid_in_full(&self) -> bool {
        let is_cleared = matches!(self.fraud_status, FraudStatus::Unknown | FraudStatus::Accept);
        self.status == Status::Confirmed && is_cleared && self.amounts.captured.amount() >= self.order.total.amount()
    }

    /// The currency of all its sums.
    pub fn currency(&self) -> Currency {
        self.order.total.currency()
    }
}
