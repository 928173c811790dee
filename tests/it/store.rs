//! The database's statements when two writers meet, when a commit takes long, and when the tables change.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

use paybus::payment::code::Code;
use paybus::payment::command::{Attributes, Body, Command, CommandName, CommandType, Kind};
use paybus::payment::contract::{Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use paybus::payment::machine::{Aggregate, Context, Rules, Step};
use paybus::payment::outcome::{Found, GatewayError, Outcome};
use paybus::store::commit::Unit;
use paybus::store::commit::batch::{Committed, Committer};
use paybus::store::lease::Swept;
use paybus::store::outbox::Sent;
use paybus::store::retention::Purged;
use paybus::store::{Store, StoreError};

use crate::support::{World, eventually};

const GRACE: Duration = Duration::from_secs(5);

/// A store, and a machine to write into it.
struct Bench {
    world: World,
    store: Arc<Store>,
    committer: Committer,
    rules: Rules,
    payment: Uuid,
}

impl Bench {
    async fn new() -> Bench {
        let world = World::new().await;
        let store = world.store().await;
        let committer = Committer::spawn(Arc::clone(&store), 2);
        let contract = Contract {
            keys: PerAction::all(Keys::NONE),
            lookup: Lookup::None,
            settle_window: Duration::ZERO,
            captures: Captures::One,
            notifications: NotificationRole::Hint,
            undo: false,
        };
        let rules = Rules {
            gateway: "http".to_owned(),
            account: String::new(),
            account_aliases: Vec::new(),
            contract,
            capture: true,
            retired: false,
            immediate_attempts: 1,
            delayed: Vec::new(),
            lease: Duration::from_secs(15),
            unknown_payment_grace: GRACE,
        };
        Bench { world, store, committer, rules, payment: Uuid::now_v7() }
    }

    fn context(&self, now: Timestamp) -> Context<'_> {
        Context {
            now,
            worker: Uuid::from_u128(1),
            rules: &self.rules,
            paused_for: None,
            questions_paused_for: None,
            clocks_agree: true,
        }
    }

    fn command(&self, kind: CommandType, data: Value) -> Command {
        let data: Map<String, Value> = serde_json::from_value(data).unwrap();
        Command {
            payment_id: self.payment,
            subject: None,
            name: CommandName { source: "shop".to_owned(), id: kind.to_string() },
            kind: Kind::Known(kind),
            variant: "http".to_owned(),
            content: Body::parse(kind, &data),
            data,
            hash: [0; 32],
            attributes: Attributes::default(),
        }
    }

    async fn load(&self, operation: Uuid) -> Box<Aggregate> {
        self.store.load_one(self.payment, &[operation]).await.expect("it is loaded").aggregate
    }

    fn commit(&self, aggregate: Box<Aggregate>) -> JoinHandle<Committed> {
        let committer = self.committer.clone();
        let bodies = aggregate.events().iter().map(|_| "{}".to_owned()).collect();
        let unit = Unit { aggregate, bodies, now: self.store.clock().now() };
        tokio::spawn(async move { committer.commit(unit).await.expect("an answer").1 })
    }

    async fn stores(&self, aggregate: Box<Aggregate>) {
        let committed = self.commit(aggregate).await.unwrap();
        assert!(matches!(committed, Committed::Stored(_)), "{committed:?}");
    }

    /// Stores the aggregate and continues with it, like a worker that calls the gateway meanwhile.
    async fn goes_on_with(&self, aggregate: Box<Aggregate>) -> Box<Aggregate> {
        let bodies = aggregate.events().iter().map(|_| "{}".to_owned()).collect();
        let unit = Unit { aggregate, bodies, now: self.store.clock().now() };
        let (unit, committed) = self.committer.commit(unit).await.expect("an answer");
        let Committed::Stored(stored) = committed else { panic!("{committed:?}") };
        let mut aggregate = unit.aggregate;
        aggregate.committed(stored.waiting);
        aggregate
    }

    /// When an operation is due, and when its lease ends.
    async fn due(&self, id: Uuid) -> (Option<Timestamp>, Option<Timestamp>) {
        let row = self.world.query("SELECT due_at, lease_until FROM operations WHERE id = $1", &[&id]).await.remove(0);
        (row.get(0), row.get(1))
    }

    /// A first call that began this many seconds ago and whose lease ends this many seconds from now; returns its
    /// operation.
    async fn calls(&self, client: &impl tokio_postgres::GenericClient, age: f64, lease: f64) -> Uuid {
        let calling = "INSERT INTO operations (payment_id, id, source, command_id, command_type, variant, hash, data,
                 state, created, attempts, rounds, lookups, takeovers, generation, exposed, acted_on, lookup_only,
                 escalated, last_message, lease_until, stored)
             VALUES ($1, gen_random_uuid(), 'shop', '', 'payment.process', 'http', '', '{}',
                 'calling', now(), 1, 0, 0, 0, 0, false, false, false,
                 false, '', now() + make_interval(secs => $3), now() - make_interval(secs => $2)) RETURNING id";
        client.query_one(calling, &[&self.payment, &age, &lease]).await.unwrap().get(0)
    }

    /// A process that waits for its payment; returns its operation.
    async fn waits(&self) -> Uuid {
        let command = self.command(CommandType::Process, json!({}));
        let id = command.operation_id();
        let mut aggregate = Box::new(Aggregate::absent(self.payment));
        assert_eq!(aggregate.accept(command, self.context(self.store.clock().now())), Step::Stored);
        self.stores(aggregate).await;
        id
    }

    async fn creates(&self) {
        let data = json!({"variant": "http", "total": "10.00", "currency": "EUR"});
        let mut aggregate = Box::new(Aggregate::absent(self.payment));
        let create = self.command(CommandType::Create, data);
        assert_eq!(aggregate.accept(create, self.context(self.store.clock().now())), Step::Settled);
        self.stores(aggregate).await;
    }

    /// What the end of its grace period makes of a waiting command, from its stored state.
    async fn resumed(&self, id: Uuid, step: Step) -> Box<Aggregate> {
        let later = self.store.clock().now() + SignedDuration::try_from(GRACE * 2).unwrap();
        let mut aggregate = self.load(id).await;
        assert_eq!(aggregate.resume(id, self.context(later)), step);
        aggregate
    }

    async fn state(&self, id: Uuid) -> (String, i64) {
        let rows = self
            .world
            .query(
                "SELECT state, (SELECT count(*) FROM events WHERE event_type = 'command.rejected') FROM operations
                 WHERE id = $1",
                &[&id],
            )
            .await;
        (rows[0].get(0), rows[0].get(1))
    }

    /// Waits until a statement of the store waits for a lock.
    async fn is_blocked(&self) {
        eventually("a statement to wait for a lock", async || {
            let waiting: i64 = self
                .world
                .value(
                    "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND application_name = 'paybus' AND wait_event_type = 'Lock'",
                    &[],
                )
                .await;
            if waiting > 0 { Ok(()) } else { Err("none waits") }
        })
        .await;
    }

    async fn sql(&self) -> Client {
        self.world.sql_client().await.unwrap()
    }
}

#[tokio::test]
async fn a_command_that_got_its_turn_is_not_rejected_for_want_of_a_payment() {
    let bench = Bench::new().await;
    let id = bench.waits().await;
    let rejected = bench.resumed(id, Step::Settled).await;
    bench.creates().await;
    let turn = bench.resumed(id, Step::Call(id)).await;
    bench.stores(turn).await;
    let committed = bench.commit(rejected).await.unwrap();
    assert!(matches!(committed, Committed::Conflict), "{committed:?}");
    assert_eq!(bench.state(id).await, ("calling".to_owned(), 0));
}

/// The rejection's snapshot does not see the payment, whose turn commits while the rejection waits for the operation's
/// row.
#[tokio::test]
async fn a_rejection_that_waits_for_the_turn_at_the_row_is_undone() {
    let bench = Bench::new().await;
    let id = bench.waits().await;
    let rejected = bench.resumed(id, Step::Settled).await;
    let mut sql = bench.sql().await;
    let turn = sql.transaction().await.unwrap();
    turn.execute("UPDATE operations SET state = 'calling' WHERE id = $1", &[&id]).await.unwrap();
    let committing = bench.commit(rejected);
    bench.is_blocked().await;
    turn.commit().await.unwrap();
    let committed = committing.await.unwrap();
    assert!(matches!(committed, Committed::Conflict), "{committed:?}");
    assert_eq!(bench.state(id).await, ("calling".to_owned(), 0));
}

/// The turn's snapshot does not see the rejection, which commits while the turn waits for the operation's row.
#[tokio::test]
async fn a_turn_that_waits_for_the_rejection_at_the_row_is_undone() {
    let bench = Bench::new().await;
    let id = bench.waits().await;
    bench.creates().await;
    let created: i64 = bench.world.payment_row(bench.payment).await.get("version");
    let turn = bench.resumed(id, Step::Call(id)).await;
    let mut sql = bench.sql().await;
    let rejection = sql.transaction().await.unwrap();
    rejection.execute("UPDATE operations SET state = 'settled' WHERE id = $1", &[&id]).await.unwrap();
    let committing = bench.commit(turn);
    bench.is_blocked().await;
    rejection.commit().await.unwrap();
    let committed = committing.await.unwrap();
    assert!(matches!(committed, Committed::Conflict), "{committed:?}");
    assert_eq!(bench.state(id).await.0, "settled");
    let row = bench.world.payment_row(bench.payment).await;
    let busy: Option<Uuid> = row.get("busy_operation");
    assert_eq!((row.get("version"), busy), (created, None), "nothing of the turn is stored");
}

/// Only the owner of the lease may send the next attempt, counting from the stored one, and only while it is calling.
#[tokio::test]
async fn an_attempt_is_stored_for_nobody_but_who_has_the_lease() {
    let bench = Bench::new().await;
    let id = bench.waits().await;
    bench.creates().await;
    let turn = bench.resumed(id, Step::Call(id)).await;
    bench.stores(turn).await;
    let (owner, other, lease) = (Uuid::from_u128(1), Uuid::from_u128(2), Duration::from_secs(60));
    let aggregate = bench.load(id).await;
    let operation = aggregate.operation(id).expect("an operation");
    assert_eq!((operation.counts.attempts, operation.lease.map(|lease| lease.owner)), (1, Some(owner)));
    let store = async |worker, attempts| bench.store.store_attempt(operation, worker, attempts, lease).await.unwrap();
    let stored = async || {
        let sql = "SELECT attempts, lease_owner, lease_until FROM operations WHERE id = $1";
        let row = bench.world.query(sql, &[&id]).await.remove(0);
        (row.get::<_, i32>(0), row.get::<_, Option<Uuid>>(1), row.get::<_, Option<Timestamp>>(2))
    };
    let before = stored().await;
    for attempts in [1, 2] {
        assert!(!store(other, attempts).await, "attempt {attempts} of a worker without a lease");
    }
    assert_eq!(stored().await, before);

    assert!(store(owner, 2).await, "the owner of the lease");
    let renewed = stored().await;
    assert_eq!((renewed.0, renewed.1), (2, Some(owner)));
    assert!(renewed.2 > before.2, "the lease is renewed");
    // The same owner, in a task that does not know about the attempt: both would send.
    assert!(!store(owner, 2).await);
    assert_eq!(stored().await, renewed);
    bench.world.query("UPDATE operations SET attempts = 1, state = 'unknown' WHERE id = $1", &[&id]).await;
    assert!(!store(owner, 2).await, "it is no longer being called");
}

/// Another attempt does not increment the version, so a decision made before it is still stored. A look-up soon after
/// the attempt must not count as proof that nothing was charged.
#[tokio::test]
async fn a_slow_commit_does_not_take_back_when_an_operation_was_last_sent() {
    let bench = Bench::new().await;
    let id = bench.waits().await;
    bench.creates().await;
    let turn = bench.resumed(id, Step::Call(id)).await;
    bench.stores(turn).await;
    let mut decided = bench.load(id).await;
    let outcome = Outcome::Unknown(GatewayError::new(Code::Timeout, "no answer"));
    let asked = decided.asked(bench.store.clock().now());
    decided.settle(id, asked.answered(outcome), u32::MAX, bench.context(bench.store.clock().now()));
    let attempt = "UPDATE operations SET last_sent_at = last_sent_at + interval '1 minute' WHERE id = $1
         RETURNING last_sent_at";
    let sent: Timestamp = bench.world.value(attempt, &[&id]).await;
    bench.stores(decided).await;
    assert_eq!(bench.state(id).await.0, "unknown");
    let stored: Timestamp = bench.world.value("SELECT last_sent_at FROM operations WHERE id = $1", &[&id]).await;
    assert_eq!(stored, sent);
}

const EVENT: &str = "INSERT INTO events (payment_id, id, event_type, routing_key, body, created, stored)
     VALUES ($1, gen_random_uuid(), 'payment.created', 'http.payment.created', '{}', now(),
             now() - make_interval(secs => $2)) RETURNING position";

async fn store_event(client: &impl tokio_postgres::GenericClient, payment: Uuid, age: f64) -> i64 {
    client.query_one(EVENT, &[&payment, &age]).await.unwrap().get(0)
}

/// A position is assigned before its row is visible: an event whose commit took long has a lower position than later
/// ones.
#[tokio::test]
async fn an_event_whose_commit_took_long_is_relayed() {
    let bench = Bench::new().await;
    let (mut late, other) = (bench.sql().await, bench.sql().await);
    let (first, second) = (Uuid::now_v7(), Uuid::now_v7());
    let slow = late.transaction().await.unwrap();
    let below = store_event(&slow, first, 60.0).await;
    let above = store_event(&other, second, 60.0).await;
    assert!(below < above);
    assert!(!bench.store.note_overdue().await.unwrap());
    assert!(!bench.store.note_late().await.unwrap());
    assert_eq!(relayed(&bench.store).await, [above]);
    slow.commit().await.unwrap();
    // A later event of the payment is recorded and the earlier one is not yet; they are sent in order nevertheless.
    let later = store_event(&other, first, 60.0).await;
    bench.store.note_overdue().await.unwrap();
    bench.store.note_late().await.unwrap();
    assert_eq!(relayed(&bench.store).await, [below, above, later]);
    bench.world.query("UPDATE events SET stored = stored - interval '1 hour'", &[]).await;
    bench.store.note_late().await.unwrap();
    assert_eq!(overdue(&bench.world).await, [below, above, later]);
    let watermarks = "SELECT min(position) FROM watermarks WHERE name IN ('events', 'late events')";
    assert_eq!(bench.world.value::<i64>(watermarks, &[]).await, later, "an unsent event pins nothing");
    let sent: Vec<Sent> = [below, above, later].map(|position| Sent { position, reply: None }).to_vec();
    bench.store.mark_sent(&sent).await.unwrap();
    assert!(relayed(&bench.store).await.is_empty());
    assert!(overdue(&bench.world).await.is_empty(), "sent events are removed");
}

#[tokio::test]
async fn an_event_is_noted_only_when_it_is_nobodys_and_unsent() {
    let bench = Bench::new().await;
    let sql = bench.sql().await;
    let sent = store_event(&sql, bench.payment, 60.0).await;
    bench.store.mark_sent(&[Sent { position: sent, reply: None }]).await.unwrap();
    let unsent = store_event(&sql, bench.payment, 60.0).await;
    let young = store_event(&sql, bench.payment, 0.0).await;
    bench.store.note_overdue().await.unwrap();
    assert_eq!(overdue(&bench.world).await, [unsent]);
    assert_eq!(bench.world.value::<i64>("SELECT position FROM watermarks WHERE name = 'events'", &[]).await, unsent);
    assert_eq!(relayed(&bench.store).await, [unsent]);
    let figures = bench.store.figures().await.unwrap();
    assert_eq!(figures.outbox.count, 1, "position {young} is still its worker's");
    bench.store.set_aside(bench.payment, unsent, "refused").await.unwrap();
    assert!(relayed(&bench.store).await.is_empty());
    assert_eq!(overdue(&bench.world).await, [unsent], "if an operator releases it, the relay must know it");
}

async fn relayed(store: &Store) -> Vec<i64> {
    let buckets: Vec<i16> = (0..16).collect();
    let overdue = store.relay_batch(&buckets, 0, 100).await.unwrap();
    assert_eq!(overdue.next, None);
    overdue.events.iter().map(|event| event.position).collect()
}

async fn overdue(world: &World) -> Vec<i64> {
    let rows = world.query("SELECT position FROM overdue ORDER BY position", &[]).await;
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn the_relay_walks_in_steps() {
    let bench = Bench::new().await;
    let sql = bench.sql().await;
    for _ in 0..5 {
        store_event(&sql, Uuid::now_v7(), 60.0).await;
    }
    bench.store.note_overdue().await.unwrap();
    let buckets: Vec<i16> = (0..16).collect();
    let (mut after, mut steps) = (0, Vec::new());
    loop {
        let batch = bench.store.relay_batch(&buckets, after, 2).await.unwrap();
        steps.push(batch.events.len());
        let Some(next) = batch.next else { break };
        after = next;
    }
    assert_eq!(steps, [2, 2, 1]);
}

/// More events than one statement reads, followed by positions that were never used.
#[tokio::test]
async fn many_events_are_looked_at_a_part_at_a_time() {
    let bench = Bench::new().await;
    let sql = bench.sql().await;
    let many = "INSERT INTO events (payment_id, id, event_type, routing_key, body, created, stored)
         SELECT $1, gen_random_uuid(), 'payment.created', 'http.payment.created', '{}', now(),
             now() - interval '1 minute' FROM generate_series(1, 10001)";
    sql.execute(many, &[&bench.payment]).await.unwrap();
    let noted = async || bench.world.value::<i64>("SELECT count(*) FROM overdue", &[]).await;
    assert!(bench.store.note_overdue().await.unwrap(), "there is more");
    assert_eq!(noted().await, 10_000);
    sql.execute("SELECT setval(pg_get_serial_sequence('paybus.events', 'position'), 1000000000)", &[]).await.unwrap();
    store_event(&sql, bench.payment, 60.0).await;
    while bench.store.note_overdue().await.unwrap() {}
    assert_eq!(noted().await, 10_002);
    assert!(!bench.store.note_late().await.unwrap(), "they are too young for the late scan");
}

const LONG: Duration = Duration::from_secs(10);
const NONE_LOST: Swept = Swept { lost: 0, more: false };

/// A number is assigned before its row is visible: the worker of an operation whose commit took long may be lost as
/// well.
#[tokio::test]
async fn an_operation_whose_commit_took_long_is_swept() {
    let bench = Bench::new().await;
    let (mut late, other) = (bench.sql().await, bench.sql().await);
    let slow = late.transaction().await.unwrap();
    let hidden = bench.calls(&slow, 30.0, -1.0).await;
    let seen = bench.calls(&other, 30.0, 60.0).await;
    assert_eq!(bench.store.sweep(LONG).await.unwrap(), NONE_LOST);
    slow.commit().await.unwrap();
    assert_eq!(bench.store.sweep(LONG).await.unwrap(), NONE_LOST, "the sweep has passed it");
    assert_eq!(bench.store.sweep_late().await.unwrap(), NONE_LOST, "another one may still be to come");
    assert_eq!(bench.due(hidden).await.0, None);
    bench.world.query("UPDATE operations SET stored = now() - interval '1 hour'", &[]).await;
    assert_eq!(bench.store.sweep_late().await.unwrap(), Swept { lost: 1, more: false });
    let now = bench.store.clock().now() + LONG;
    assert!(bench.due(hidden).await.0.is_some_and(|due| due < now), "its lease has ended");
    let (due, lease_end) = bench.due(seen).await;
    assert_eq!(due, lease_end, "a worker that settles it in time is not disturbed");
}

/// A call that has just begun is most likely over soon, so it is left alone.
#[tokio::test]
async fn only_calls_that_take_long_get_a_due_time() {
    let bench = Bench::new().await;
    let sql = bench.sql().await;
    let long = bench.calls(&sql, 11.0, 60.0).await;
    let short = bench.calls(&sql, 0.0, 60.0).await;
    assert_eq!(bench.store.sweep(LONG).await.unwrap(), NONE_LOST);
    assert!(bench.due(long).await.0.is_some());
    assert_eq!(bench.due(short).await.0, None);
}

/// A locked row delays only its own operation.
#[tokio::test]
async fn a_locked_call_keeps_no_other_from_being_swept() {
    let bench = Bench::new().await;
    let (mut somebody, sql) = (bench.sql().await, bench.sql().await);
    let locked = bench.calls(&sql, 30.0, -1.0).await;
    let other = bench.calls(&sql, 30.0, -1.0).await;
    let lock = somebody.transaction().await.unwrap();
    lock.execute("SELECT 1 FROM operations WHERE id = $1 FOR UPDATE", &[&locked]).await.unwrap();
    assert_eq!(bench.store.sweep(LONG).await.unwrap(), Swept { lost: 1, more: false });
    assert!(bench.due(other).await.0.is_some());
    lock.rollback().await.unwrap();
    bench.world.query("UPDATE operations SET stored = now() - interval '1 hour'", &[]).await;
    assert_eq!(bench.store.sweep_late().await.unwrap(), Swept { lost: 1, more: false });
    assert!(bench.due(locked).await.0.is_some());
}

/// A worker that asks again does not know the due time that its operation got meanwhile, and the sweep does not return
/// to what it has passed.
#[tokio::test]
async fn a_call_that_goes_on_keeps_a_due_time() {
    let mut bench = Bench::new().await;
    bench.rules.contract.lookup = Lookup::Indicative;
    bench.creates().await;
    let now = || bench.store.clock().now();
    let sync = bench.command(CommandType::Sync, json!({}));
    let id = sync.operation_id();
    let ask = Step::LookUp { operation: id, target: None };
    let mut aggregate = bench.load(id).await;
    assert_eq!(aggregate.accept(sync, bench.context(now())), ask);
    let mut aggregate = bench.goes_on_with(aggregate).await;
    assert_eq!(bench.due(id).await.0, None, "the common path has no due time");
    bench.world.query("UPDATE operations SET stored = now() - interval '1 minute'", &[]).await;
    assert_eq!(bench.store.sweep(LONG).await.unwrap(), NONE_LOST);
    assert!(bench.due(id).await.0.is_some());
    // Asked before the payment was created, so the answer says nothing about its current state.
    let outdated = Aggregate::absent(bench.payment).asked(now()).answered(Found::Nothing);
    assert_eq!(aggregate.found(id, None, outdated, 1, bench.context(now())), ask);
    bench.goes_on_with(aggregate).await;
    let (due, lease_end) = bench.due(id).await;
    assert!(due.is_some());
    assert_eq!(due, lease_end);
}

#[tokio::test]
async fn what_is_old_goes_step_by_step() {
    let bench = Bench::new().await;
    let sql = bench.sql().await;
    let id = bench.waits().await;
    let rejected = bench.resumed(id, Step::Settled).await;
    bench.stores(rejected).await;
    let copy = "INSERT INTO operations (payment_id, id, source, command_id, command_type, variant, hash, data, state,
             created, attempts, rounds, lookups, takeovers, generation, exposed, acted_on, lookup_only, escalated, last_message)
         SELECT payment_id, gen_random_uuid(), source, command_id, command_type, variant, hash, data, state,
             created, 0, 0, 0, 0, 0, false, false, false, false, '' FROM operations WHERE id = $1";
    for _ in 0..2 {
        sql.execute(copy, &[&id]).await.unwrap();
    }
    sql.execute("UPDATE operations SET stored = now() - interval '31 days'", &[]).await.unwrap();
    sql.execute(copy, &[&id]).await.unwrap();
    let month = bench.store.clock().now() - SignedDuration::from_hours(30 * 24);
    assert_eq!(bench.store.purge_commands(month, 2).await.unwrap(), Purged { gone: 2, more: true });
    assert_eq!(bench.store.purge_commands(month, 2).await.unwrap(), Purged { gone: 1, more: false });
    assert_eq!(bench.store.purge_commands(month, 2).await.unwrap(), Purged { gone: 0, more: false });
    assert_eq!(bench.world.value::<i64>("SELECT count(*) FROM operations", &[]).await, 1);

    sql.execute("DELETE FROM events", &[]).await.unwrap();
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(Sent { position: store_event(&sql, bench.payment, 600.0).await, reply: None });
    }
    bench.store.mark_sent(&sent[..2]).await.unwrap();
    bench.store.note_overdue().await.unwrap();
    bench.store.note_late().await.unwrap();
    let now = bench.store.clock().now() + SignedDuration::from_secs(5);
    assert_eq!(bench.store.purge_events(now, 2).await.unwrap(), Purged { gone: 2, more: true });
    assert_eq!(bench.store.purge_events(now, 2).await.unwrap(), Purged { gone: 0, more: false });
    assert_eq!(overdue(&bench.world).await, [sent[2].position], "unsent events stay");
    assert_eq!(bench.world.value::<i64>("SELECT count(*) FROM sent", &[]).await, 0);
    let later = Sent { position: store_event(&sql, bench.payment, 600.0).await, reply: None };
    bench.store.mark_sent(&[later]).await.unwrap();
    bench.store.note_late().await.unwrap();
    assert_eq!(bench.store.purge_events(now, 2).await.unwrap(), Purged { gone: 1, more: false });
    bench.store.mark_sent(&sent[2..]).await.unwrap();
    let purged = bench.store.purge_events(now, 2).await.unwrap();
    assert_eq!(purged, Purged { gone: 1, more: false }, "it is deleted once it is sent");
    assert_eq!(bench.world.value::<i64>("SELECT count(*) FROM events", &[]).await, 0);
}

#[tokio::test]
async fn a_connection_whose_statements_do_not_fit_the_tables_any_more_is_not_kept() {
    let bench = Bench::new().await;
    bench.creates().await;
    let id = Uuid::nil();
    bench.load(id).await;
    // What the next version's migration does while this version is running.
    bench.world.query("ALTER TABLE payments ADD COLUMN of_the_next_version text", &[]).await;
    bench.world.query("ALTER TABLE events ADD COLUMN of_the_next_version text", &[]).await;
    bench.load(id).await;
    bench.world.query("ALTER TABLE payments ALTER COLUMN message TYPE varchar", &[]).await;
    let failed = bench.store.load_one(bench.payment, &[]).await.expect_err("an outdated plan");
    assert!(failed.is_unavailable(), "{failed:?}");
    bench.load(id).await;
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_a_database_that_is_away() {
    let bench = Bench::new().await;
    bench.creates().await;
    bench.world.query("UPDATE payments SET total = 1e40", &[]).await;
    let failed = bench.store.load_one(bench.payment, &[]).await.expect_err("an unreadable decimal");
    assert!(matches!(failed, StoreError::Unreadable(_)), "{failed:?}");
}
