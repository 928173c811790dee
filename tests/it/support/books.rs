//! The invariants that hold at the end of every test, whatever happened in it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use rust_decimal::Decimal;
use uuid::Uuid;

use super::command::Command;
use super::event::Event;
use super::fake_gateway::Effect;
use super::world::World;

/// What a test leaves behind on purpose.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Messages in the dead letters.
    pub dead: u32,
    /// Operations that are still open.
    pub open: usize,
    /// Payments whose amounts differ from the gateway's ledger: a person resolved them, or it is out of reach.
    pub off_ledger: Vec<Uuid>,
}

impl World {
    /// Waits for whatever is under way, ends all workers, and checks the books: nothing was charged twice, no event was
    /// lost, and nothing is left over.
    pub async fn check_books(&self) {
        self.check_books_but(Expected::default()).await;
    }

    /// The same, but for what a test leaves behind on purpose.
    pub async fn check_books_but(&self, expected: Expected) {
        self.check_nothing_is_open(expected.open).await;
        self.check_events_are_out().await;
        self.check_nets().await;
        for worker in &self.workers() {
            worker.cont();
            worker.drain().await;
        }
        self.check_queues(expected.dead).await;
        self.check_nothing_is_open(expected.open).await;
        self.check_events_are_out().await;
        self.check_event_log(expected.open);
        self.check_latency();
        self.check_amounts(&expected.off_ledger).await;
    }

    async fn check_nothing_is_open(&self, open: usize) {
        self.eventually("all operations to be settled", async || {
            let sql =
                "SELECT payment_id, command_type, state, due_at IS NOT NULL FROM operations WHERE state <> 'settled'";
            let rows = self.query(sql, &[]).await;
            let left: Vec<String> = rows
                .iter()
                .map(|row| format!("{} {} {}", row.get::<_, Uuid>(0), row.get::<_, &str>(1), row.get::<_, &str>(2)))
                .collect();
            if left.len() == open { Ok(()) } else { Err(format!("open are {left:?}, expected {open}")) }
        })
        .await;
    }

    /// What PostgreSQL promised, the bus has told.
    async fn check_events_are_out(&self) {
        self.eventually("all events to be out", async || {
            let sql = "SELECT id, routing_key || ' ' || position || CASE
                    WHEN EXISTS (SELECT FROM sent s WHERE s.position = e.position) THEN ' (marked as sent)'
                    WHEN EXISTS (SELECT FROM overdue o WHERE o.position = e.position) THEN ' (overdue)'
                    ELSE ' (not marked)' END FROM events e";
            let rows = self.query(sql, &[]).await;
            let seen: BTreeSet<String> = self.log.all().iter().map(|event| event.id().to_owned()).collect();
            let missing: Vec<&str> = rows
                .iter()
                .filter(|row| !seen.contains(&row.get::<_, Uuid>(0).to_string()))
                .map(|row| row.get(1))
                .collect();
            if !missing.is_empty() {
                return Err(format!("missing are {missing:?}"));
            }
            // The events of a forgotten payment are gone, and those of an archived one.
            let gone = "SELECT details ->> 'payment' FROM audit WHERE action = 'forgotten'
                 UNION SELECT id::text FROM payments WHERE archived_at IS NOT NULL";
            let forgotten = self.query(gone, &[]).await;
            let forgotten: BTreeSet<String> = forgotten.iter().map(|row| row.get(0)).collect();
            let stored: BTreeSet<String> = rows.iter().map(|row| row.get::<_, Uuid>(0).to_string()).collect();
            let is_gone = |event: &Event| event.body["partitionkey"].as_str().is_some_and(|it| forgotten.contains(it));
            let unknown = self.log.find(|event| !stored.contains(event.id()) && !is_gone(event));
            unknown.map_or(Ok(()), |event| Err(format!("an event came that is not stored: {}", event.line())))
        })
        .await;
    }

    async fn check_queues(&self, dead: u32) {
        let variants = self.variants();
        let mut expected: Vec<(String, u32)> = vec![("dead".to_owned(), dead)];
        expected.extend(["unroutable", "unrouted", "test"].map(|queue| (queue.to_owned(), 0)));
        let of_variant = |name: &String| [format!("commands.{name}"), format!("inbound.{name}")];
        expected.extend(variants.iter().flat_map(of_variant).map(|queue| (queue, 0)));
        for (queue, expected) in expected {
            // What an ended worker had not acknowledged comes back a little later.
            self.eventually("the queues to be empty", async || {
                let length = self.bus.length(&queue).await;
                if length == expected { Ok(()) } else { Err(format!("{length} are in {queue}, expected {expected}")) }
            })
            .await;
        }
    }

    /// Sequences without gaps, stable ids, one answer for each command.
    fn check_event_log(&self, open: usize) {
        let events = self.log.all();
        let mut known: HashMap<&str, &Event> = HashMap::new();
        let mut last: HashMap<&str, i64> = HashMap::new();
        let mut answers: BTreeMap<(String, String, String), BTreeSet<String>> = BTreeMap::new();
        for event in &events {
            assert_eq!(event.properties.message_id().as_ref().map(|id| id.as_str()), Some(event.id()));
            if let Some(first) = known.get(event.id()) {
                assert_eq!(first.body, event.body, "two events share an id");
                continue;
            }
            known.insert(event.id(), event);
            let payment = event.body["partitionkey"].as_str().expect("a partition key");
            assert_eq!(
                event.sequence().is_some(),
                event.kind().starts_with("payment.") && event.kind() != "payment.snapshot",
                "{}",
                event.line()
            );
            if let Some(sequence) = event.sequence() {
                let before = last.insert(payment, sequence).unwrap_or_default();
                assert_eq!(sequence, before + 1, "a gap, or the wrong order: {}\n{}", event.line(), self.lines());
            }
            if event.is_final() {
                answers.entry(event.cause()).or_default().insert(event.id().to_owned());
            }
        }
        for (name, ids) in &answers {
            assert_eq!(ids.len(), 1, "{name:?} was answered more than once:\n{}", self.lines());
        }
        let published = self.published();
        let names: BTreeSet<_> = published.iter().map(Command::name).collect();
        let unanswered: Vec<_> = names.iter().filter(|name| !answers.contains_key(*name)).collect();
        assert_eq!(unanswered.len(), open, "not answered: {unanswered:?}\n{}", self.lines());
    }

    /// The payments' amounts are the sums of their movements, and those are what the gateway did.
    async fn check_amounts(&self, off_ledger: &[Uuid]) {
        let sql = "SELECT p.id, p.gateway, p.currency, p.captured_amount, p.refunded_amount, p.authorized_amount,
                coalesce(sum(m.amount) FILTER (WHERE m.kind = 'captured'), 0)
                    - coalesce(sum(m.amount) FILTER (WHERE m.kind = 'capture_reversed'), 0) AS captured,
                coalesce(sum(m.amount) FILTER (WHERE m.kind = 'refunded'), 0)
                    - coalesce(sum(m.amount) FILTER (WHERE m.kind = 'refund_reversed'), 0) AS refunded,
                coalesce(sum(m.amount) FILTER (WHERE m.kind = 'disputed'), 0) AS disputed,
                coalesce(sum(m.amount) FILTER (WHERE m.kind = 'authorized'), 0) AS authorized
            FROM payments p LEFT JOIN movements m ON m.payment_id = p.id WHERE p.archived_at IS NULL GROUP BY p.id";
        for row in self.query(sql, &[]).await {
            let payment: Uuid = row.get("id");
            let sum = |column: &str| -> Decimal { row.get(column) };
            let net = (sum("captured") - sum("refunded") - sum("disputed")).max(Decimal::ZERO);
            assert_eq!(sum("captured_amount"), net, "captured_amount of {payment}");
            assert_eq!(sum("refunded_amount"), sum("refunded"), "refunded_amount of {payment}");
            assert_eq!(sum("authorized_amount"), sum("authorized"), "authorized_amount of {payment}");
            let effects = self.gateway.effects(payment);
            check_once(payment, &effects);
            if row.get::<_, &str>("gateway") != "http" || off_ledger.contains(&payment) {
                continue;
            }
            let currency: &str = row.get("currency");
            let ledger = |kinds: &[&str]| -> Decimal {
                let ours = effects.iter().filter(|effect| effect.currency == currency);
                ours.filter(|effect| kinds.contains(&effect.kind)).map(|effect| effect.amount).sum()
            };
            let taken = ledger(&["charge", "capture"]) - ledger(&["void"]);
            assert_eq!(sum("captured"), taken, "captured of {payment}, {effects:?}");
            assert_eq!(sum("refunded"), ledger(&["refund"]), "refunded of {payment}, {effects:?}");
        }
    }
}

/// One command, at most one effect.
fn check_once(payment: Uuid, effects: &[Effect]) {
    let mut seen = BTreeSet::new();
    for effect in effects {
        assert!(seen.insert(effect.operation_id), "{payment}: an operation was carried out twice: {effects:?}");
    }
}
