//! Holds the truth against what was stored and told: the gateway's ledger against PostgreSQL's books (`money`), the
//! commands against their answers and the books against the events (`told`), and what is left at the broker (`left`).

mod left;
mod money;
mod told;

use std::collections::HashMap;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::desk::Desk;
use crate::ledger::Ledger;
use crate::support::World;

/// What must not be, in the order of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One command or payment was charged more than once.
    DoubleCharge,
    /// A command without an answer that nobody is at.
    Lost,
    /// An operation that did not come to its end.
    Stuck,
    /// A payment's amounts or status are not what the gateway did.
    Books,
    /// An answer says other than what the gateway did.
    Contradiction,
    /// One command, two answers.
    AnsweredTwice,
    /// Stored and not told.
    EventMissing,
    /// Told twice under different ids.
    EventRepeated,
    /// A gap in a payment's sequence, or the wrong order.
    EventOrder,
    /// An event that does not say what is stored.
    EventDiffers,
    /// A message left in a queue.
    LeftInQueue,
    /// A dead letter that nobody wrote for that.
    DeadLetter,
    /// A replica that ended unasked, or did not end in good order.
    Worker,
}

impl Kind {
    /// Every kind with its line in the verdict.
    pub const ALL: [(Kind, &'static str); 13] = [
        (Kind::DoubleCharge, "double charges"),
        (Kind::Lost, "commands lost (no final answer)"),
        (Kind::Stuck, "commands stuck"),
        (Kind::Books, "books that differ from the gateway's ledger"),
        (Kind::Contradiction, "answers that contradict the ledger"),
        (Kind::AnsweredTwice, "commands answered twice"),
        (Kind::EventMissing, "events missing"),
        (Kind::EventRepeated, "events repeated under another id"),
        (Kind::EventOrder, "gaps or disorder in a payment's events"),
        (Kind::EventDiffers, "events that differ from the books"),
        (Kind::LeftInQueue, "messages left in queues"),
        (Kind::DeadLetter, "unexpected dead letters"),
        (Kind::Worker, "replicas that ended unasked or did not drain"),
    ];
}

/// Something that must not be.
#[derive(Debug, Clone)]
pub struct Finding {
    /// What kind of thing.
    pub kind: Kind,
    /// Whose.
    pub payment: Option<Uuid>,
    /// For a person.
    pub what: String,
}

impl Finding {
    /// One.
    pub fn new(kind: Kind, payment: Option<Uuid>, what: impl Into<String>) -> Finding {
        Finding { kind, payment, what: what.into() }
    }
}

/// A payment as it is stored.
pub struct StoredPayment {
    pub status: String,
    pub currency: String,
    pub captured: Decimal,
    pub refunded: Decimal,
}

/// An operation as it is stored.
pub struct StoredOperation {
    pub payment: Uuid,
    pub kind: String,
    /// What names the command: subject, source and id.
    pub name: (String, String, String),
    pub state: String,
    pub answer: Option<String>,
    pub last_code: Option<String>,
}

/// PostgreSQL's books.
pub struct Stored {
    pub payments: HashMap<Uuid, StoredPayment>,
    pub operations: HashMap<Uuid, StoredOperation>,
}

impl Stored {
    async fn read(world: &World) -> Stored {
        let sql = "SELECT id, status, currency, captured_amount, refunded_amount FROM payments";
        let payments = world.query(sql, &[]).await.into_iter().map(|row| {
            let (status, currency) = (row.get(1), row.get(2));
            (row.get(0), StoredPayment { status, currency, captured: row.get(3), refunded: row.get(4) })
        });
        let payments = payments.collect();
        let sql = "SELECT id, payment_id, command_type, coalesce(subject, payment_id::text), source, command_id, state, answer,
                          last_code FROM operations";
        let operations = world.query(sql, &[]).await.into_iter().map(|row| {
            let name = (row.get(3), row.get(4), row.get(5));
            let (payment, kind, state) = (row.get(1), row.get(2), row.get(6));
            let (answer, last_code) = (row.get(7), row.get(8));
            (row.get(0), StoredOperation { payment, kind, name, state, answer, last_code })
        });
        let operations = operations.collect();
        Stored { payments, operations }
    }
}

/// Everything that must not be and is.
pub async fn all(world: &World, ledger: &dyn Ledger, desk: &Desk<'_>) -> Vec<Finding> {
    let stored = Stored::read(world).await;
    let mut found = money::check(ledger, &stored, desk);
    found.extend(told::check(world, &stored).await);
    found.extend(left::check(world).await);
    found.sort_by_key(|finding| finding.kind);
    found
}
