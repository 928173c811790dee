//! Compares everything that is visible from outside with what paybus stored and reported: the gateway's requests with
//! the commands (`requests`), the gateway's ledger with PostgreSQL's books (`money`), the answers with the commands,
//! the books and the ledger (`events`), the replies and webhooks with their answers (`delivered`), what people had to
//! resolve with what the gateway hid from paybus (`resolved`), the replicas' logs with the expected errors (`logs`),
//! and what is left at the broker (`left`).

mod delivered;
mod events;
mod left;
mod logs;
mod money;
mod requests;
mod resolved;

use std::collections::HashMap;

use rust_decimal::Decimal;
use uuid::Uuid;

use crate::ledger::Ledger;
use crate::operators::Operators;
use crate::replies::Reply;
use crate::support::World;
use crate::upstream::Upstream;
use crate::webhooks::Webhooks;

/// The kinds of violations, in the order of the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// One command or payment was charged more than once.
    DoubleCharge,
    /// The gateway got a request that no command explains, or with another amount.
    NotOrdered,
    /// The gateway got a request that its ledger does not allow.
    NotAllowed,
    /// A wrong command was not rejected.
    WrongAccepted,
    /// A command without an answer that is not in progress either.
    Lost,
    /// An operation that did not end.
    Stuck,
    /// A payment's amounts or status differ from what the gateway did.
    Books,
    /// An answer differs from what the gateway did.
    Contradiction,
    /// One command with two answers.
    AnsweredTwice,
    /// A command with a `reply_to` that did not get its answer.
    ReplyMissing,
    /// A webhook that was answered with 200 and has no answer.
    WebhookLost,
    /// An operator was needed without reason.
    NeedlessResolve,
    /// An event that was stored and not published.
    EventMissing,
    /// An event that was published twice under different ids.
    EventRepeated,
    /// A gap or the wrong order in a payment's sequence.
    EventOrder,
    /// An event that differs from what is stored.
    EventDiffers,
    /// A message left in a queue.
    LeftInQueue,
    /// A dead letter that was not meant to become one.
    DeadLetter,
    /// An unreadable message that is missing from the dead letters.
    DeadLetterMissing,
    /// A panic, or an unexpected error in a replica's log.
    Log,
    /// A variant whose gateway is healthy answered nothing for too long, though it could.
    Silence,
    /// Something was still in progress long after the faults were over.
    Unrest,
    /// A kind of fault that was planned and never happened, so the run proves nothing about it.
    FaultMissing,
    /// A replica that ended by itself or did not drain.
    Worker,
}

impl Kind {
    /// Every kind with its line in the verdict.
    pub const ALL: [(Kind, &'static str); 24] = [
        (Kind::DoubleCharge, "double charges"),
        (Kind::NotOrdered, "requests to the gateway that no command explains"),
        (Kind::NotAllowed, "requests that the gateway's ledger does not allow"),
        (Kind::WrongAccepted, "wrong commands that were not rejected"),
        (Kind::Lost, "commands lost (no final answer)"),
        (Kind::Stuck, "commands stuck"),
        (Kind::Books, "books that differ from the gateway's ledger"),
        (Kind::Contradiction, "answers that contradict the ledger"),
        (Kind::AnsweredTwice, "commands answered twice"),
        (Kind::ReplyMissing, "replies missing"),
        (Kind::WebhookLost, "webhooks answered with 200 and lost"),
        (Kind::NeedlessResolve, "outcomes left to a person without reason"),
        (Kind::EventMissing, "events missing"),
        (Kind::EventRepeated, "events repeated under another id"),
        (Kind::EventOrder, "gaps or disorder in a payment's events"),
        (Kind::EventDiffers, "events that differ from the books"),
        (Kind::LeftInQueue, "messages left in queues"),
        (Kind::DeadLetter, "unexpected dead letters"),
        (Kind::DeadLetterMissing, "unreadable messages that are no dead letters"),
        (Kind::Log, "panics and unexpected errors in logs"),
        (Kind::Silence, "silences of the variant that is never ill"),
        (Kind::Unrest, "not at rest after the faults"),
        (Kind::FaultMissing, "kinds of faults that did not happen"),
        (Kind::Worker, "replicas that ended unasked or did not drain"),
    ];
}

/// A violation.
#[derive(Debug, Clone)]
pub struct Finding {
    /// Its kind.
    pub kind: Kind,
    /// The payment concerned, if it is known.
    pub payment: Option<Uuid>,
    /// A description for people.
    pub what: String,
}

impl Finding {
    /// Creates a finding.
    pub fn new(kind: Kind, payment: Option<Uuid>, what: impl Into<String>) -> Finding {
        Finding { kind, payment, what: what.into() }
    }
}

/// A payment as stored.
pub struct StoredPayment {
    pub variant: String,
    pub total: Decimal,
    pub status: String,
    pub currency: String,
    pub captured: Decimal,
    pub refunded: Decimal,
}

/// An operation as stored.
pub struct StoredOperation {
    pub payment: Uuid,
    pub kind: String,
    /// The command's name: subject, source and id.
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
        let sql = "SELECT id, status, currency, captured_amount, refunded_amount, variant, total FROM payments";
        let payments = world.query(sql, &[]).await.into_iter().map(|row| {
            let (status, currency) = (row.get(1), row.get(2));
            let (captured, refunded, variant, total) = (row.get(3), row.get(4), row.get(5), row.get(6));
            (row.get(0), StoredPayment { variant, total, status, currency, captured, refunded })
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

/// Finds all violations.
pub async fn all(
    world: &World,
    ledger: &dyn Ledger,
    upstream: &Upstream,
    operators: &Operators<'_>,
    webhooks: &Webhooks<'_>,
    replies: &[Reply],
) -> Vec<Finding> {
    let stored = Stored::read(world).await;
    let published = world.published();
    let mut found = requests::check(ledger, &published);
    found.extend(money::check(ledger, &stored, operators));
    found.extend(events::check(world, ledger, &stored).await);
    found.extend(delivered::check(world, &published, webhooks, replies));
    found.extend(resolved::check(ledger, operators, &stored));
    found.extend(logs::check(&world.workers()));
    found.extend(left::check(world, &upstream.unreadable()).await);
    found.sort_by_key(|finding| finding.kind);
    found
}
