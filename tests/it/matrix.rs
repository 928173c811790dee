//! Every point at which a crash or a fault may come between a command's delivery and its acknowledgement, what shows that
//! it does no harm, and the tests of those that no other file has.
//!
//! Delays are rows of PostgreSQL and not messages: where a broker's delay queue would be the place of a fault, the schedule
//! is. The steps: deliver, read, begin (commit), call, settle (commit), publish (confirm), mark, acknowledge.
//!
//! | row | fault | shown by |
//! | --- | --- | --- |
//! | 1 | killed with messages delivered and not read | `crashes::a_charge_survives_a_death_at_every_step`, `crashes::nothing_is_lost_while_workers_are_killed_again_and_again` |
//! | 2 | a message that nobody can read | `input::what_names_nobody_is_dead_lettered_with_its_reason`, `input::depth_size_and_encoding_are_bounded`, `bus_consume::dead_letters_are_listed_replayed_and_dropped` |
//! | 3 | killed while it begins | `crashes::a_charge_survives_a_death_at_every_step`, `outages::database::database_connections_are_cut_under_load` |
//! | 4 | begun, and the commit's answer is lost | `matrix::rows_4_and_9_a_commit_whose_answer_is_lost` |
//! | 5 | killed between begin and call | `crashes::a_charge_survives_a_death_at_every_step`, `crashes::a_call_whose_delivery_is_gone_is_taken_over`, `replicas::who_wakes_without_its_lease_sends_nothing` |
//! | 6 | called, and no answer comes | `retries::a_lost_answer_charges_nobody_twice`, `retries::an_unknown_outcome_never_fails_by_itself`, `retries::a_charge_stays_unknown_until_its_gateway_can_be_asked` |
//! | 7 | killed with the answer in hand | `crashes::a_charge_survives_a_death_at_every_step`, `crashes::a_refund_survives_a_death_at_every_step` |
//! | 8 | the gateway has forgotten the key | `limits::a_retry_whose_turn_comes_after_the_keys_window_is_not_sent_but_asked_about`, `retries::what_was_charged_unseen_is_found_by_asking` |
//! | 9 | settled, and the commit's answer is lost | `matrix::rows_4_and_9_a_commit_whose_answer_is_lost` |
//! | 10 | killed between settle and acknowledgement | `crashes::a_charge_survives_a_death_at_every_step`, `drain::a_message_is_kept_until_the_broker_has_confirmed_its_events` |
//! | 11 | acknowledged, and the connection dies | `crashes::a_charge_survives_a_death_at_every_step`, `outages::broker::connections_are_closed_under_load` |
//! | 12 | acknowledged too late for the broker | `outages::broker::the_brokers_consumer_timeout_hits_a_command` |
//! | 13 | two replicas at one payment, one of them asleep past its lease | `replicas::a_late_answer_counts_once`, `replicas::the_same_message_at_two_replicas_is_one_command` |
//! | 14 | another writer was first | `turns::of_two_captures_at_once_one_wins`, `look_ups::what_the_gateway_says_of_an_operation_counts_although_a_person_settled_it_meanwhile` |
//! | 15 | killed when the next try is scheduled, before that is told | `matrix::row_15_killed_when_a_retry_is_scheduled` |
//! | 16 | delivered again while its next try is due | `matrix::row_16_delivered_again_while_it_is_due` |
//! | 17 | the schedule cannot be stored, or not be told of | `outages::database::the_database_crashes_under_load`, `outages::broker::the_broker_crashes_under_load` |
//! | 18 | due while its queue has given the message up | `matrix::row_18_a_message_that_the_broker_gave_up_is_done_from_the_schedule`, `crashes::a_call_whose_delivery_is_gone_is_taken_over` |
//! | 19 | killed between publish and confirm | `crashes::events_that_a_dead_worker_left_behind_are_relayed`, `outages::bus::nothing_is_lost_while_connections_are_closed` |
//! | 20 | killed between confirm and mark | `matrix::row_20_killed_between_confirm_and_mark` |
//! | 21 | an event comes back on another one's confirm | `bus::an_event_that_no_queue_takes_is_set_aside_with_those_behind_it`, `set_aside::later_events_wait_behind_a_refused_one_until_it_is_released` |
//! | 22 | an event that closes the channel | `outages::bus::a_message_too_large_is_found_among_others` |
//! | 23 | the broker blocks publishers | `outages::broker::the_broker_blocks_publishers_under_load`, `outages::bus::a_blocked_publisher_waits` |
//! | 24 | the broker refuses: other arguments, not there, no rights | `bus::the_topology_is_declared_checked_and_found_wanting`, `bus::a_missing_exchange_is_waited_for`, `outages::broker::a_worker_that_lost_its_rights_says_so_and_goes_on_with_them` |
//! | 25 | a queue is deleted, or has no leader | `bus_consume::a_deleted_queue_is_consumed_again_once_it_is_back`, `outages::broker::a_deleted_queue_is_made_again`, `bus_subscribers::a_queue_without_a_leader_is_reported`, `cluster::broker::the_leader_of_a_subscribers_queue_is_killed_under_load` |
//! | 26 | the broker dies before it has written | `outages::broker::the_broker_crashes_under_load`, `outages::bus::nothing_is_lost_while_the_broker_crashes` |
//! | 27 | the database is away | `outages::database::the_database_restarts_under_load`, `outages::database::the_database_crashes_under_load`, `database_hang::a_database_that_vanished_is_given_up_soon`, `cluster::database::the_primary_is_killed_and_the_standby_promoted_under_load` |
//! | 28 | the database forgets a commit that it acknowledged | not here: the promise presumes that it does not, and no test can show what it excludes; `payment.sync` brings the gateway's truth back: `look_ups::a_sync_takes_in_what_was_done_at_the_gateway` |
//! | 29 | the gateway is away | `limits::a_gateway_that_is_ill_keeps_its_commands_in_the_broker_and_nobody_elses`, `limits::while_the_breaker_is_open_only_a_probe_goes_out` |
//! | 30 | told to stop under load | `drain::a_drain_under_load_costs_nobody_an_attempt`, `drain::a_rolling_restart_under_load_calls_once_for_each_command` |
//! | 31 | a message that kills its worker each time | `matrix::row_31_a_message_that_kills_every_worker_that_reads_it`, `dead_letters::a_dead_letter_of_what_was_carried_out_changes_nothing`, `crashes::a_command_that_kills_its_worker_every_time_is_parked_alone` |
//! | 32 | one name, two contents | `business_rules::the_same_name_with_other_data_is_refused_and_the_first_goes_on`, `replicas::a_name_in_use_is_refused_to_another_command_at_once` |
//! | 33 | two names, one content | does not apply: subject, source and id name a command and nothing else does, so two names are two commands; the second process of a payment is rejected: `turns::a_process_of_a_payment_that_is_being_charged_is_rejected_at_once` |
//! | 34 | an old command is sent once more | `matrix::row_34_an_old_command_once_more`, `turns::the_same_command_many_times_is_one_command` |
//! | 35 | the replicas' clocks differ | `matrix::row_35_a_replica_whose_clock_is_two_hours_ahead` |

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::files::{read, root};
use crate::support::skip::skip;
use crate::support::wait::within;
use crate::support::{Behaviour, Command, Event, Setup, Worker, WorkerSetup, World, eventually};

/// Every row once, and every test that the table names exists.
#[test]
fn the_table_is_whole_and_names_tests_that_exist() {
    let lines = include_str!("matrix.rs").lines().map_while(|line| line.strip_prefix("//!"));
    let mut rows = BTreeSet::new();
    for line in lines.filter(|line| line.starts_with(" | ")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let Ok(row) = cells[1].parse::<u32>() else { continue };
        assert!(rows.insert(row), "row {row} stands twice");
        let shown: Vec<&str> = cells[3].split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!shown.is_empty(), "row {row} names no test");
        shown.into_iter().for_each(is_a_test);
    }
    assert_eq!(rows, (1..=35).collect::<BTreeSet<u32>>());
}

/// Where versions of the broker and the database differ, a test holds that it makes no difference.
#[test]
fn every_difference_of_versions_names_a_test_that_exists() {
    let page = read("docs/versions.md");
    let (_, table) = page.rsplit_once("| --- | --- | --- |\n").expect("the table of differences");
    let shown: Vec<&str> = table.lines().filter_map(|line| line.trim_end_matches(" |").rsplit("| ").next()).collect();
    assert!(shown.len() >= 9, "{shown:?}");
    for name in shown.into_iter().filter(|name| *name != "the same") {
        is_a_test(name.trim_matches('`'));
    }
}

/// A test of this path is there.
#[track_caller]
fn is_a_test(name: &str) {
    let (place, function) = name.rsplit_once("::").expect("a path");
    let file = match place.split_once("::") {
        Some((program @ ("outages" | "cluster"), file)) => format!("{program}/{file}.rs"),
        _ => format!("it/{place}.rs"),
    };
    let source = read(format!("tests/{file}"));
    let (before, _) =
        source.split_once(&format!("fn {function}()")).unwrap_or_else(|| panic!("there is no test {name}"));
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    assert!(attributes.contains("test"), "{name} is no test");
}

/// Waits until a worker has died by itself.
async fn died(worker: &Worker) {
    let status = within(Duration::from_secs(20), "the worker to die", async || {
        worker.exited().ok_or_else(|| format!("it lives:\n{}", worker.log()))
    })
    .await;
    assert!(!status.success(), "it ended in peace: {status}");
}

/// A worker that dies when a step of a command's payment is reached for the Nth time.
fn dies(step: &str, command: &Command, time: u32) -> WorkerSetup {
    WorkerSetup::default().dies_at(&format!("{step}:{}@{time}", command.payment))
}

/// A way to the database on which the answer to one statement gets lost, and the connection with it.
struct Lossy {
    url: String,
    /// What stands in the statement's parameters.
    wanted: Arc<Mutex<Option<&'static str>>>,
}

impl Lossy {
    async fn to(url: &str) -> Lossy {
        let (server, database) = url.rsplit_once('/').expect("a database");
        let (user, address) = server.rsplit_once('@').expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{user}@{}/{database}", listener.local_addr().expect("an address"));
        let wanted = Arc::<Mutex<Option<&'static str>>>::default();
        let (address, armed) = (address.to_owned(), Arc::clone(&wanted));
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let far = TcpStream::connect(&address).await.expect("the database");
                tokio::spawn(carry(near, far, Arc::clone(&armed)));
            }
        });
        Lossy { url, wanted }
    }
}

/// Carries both ways, until a statement with the wanted text has come by: that is carried, and its answer is not.
async fn carry(mut near: TcpStream, mut far: TcpStream, wanted: Arc<Mutex<Option<&'static str>>>) {
    let (mut asked, mut answered) = (vec![0; 256 * 1024], vec![0; 256 * 1024]);
    loop {
        tokio::select! {
            read = near.read(&mut asked) => {
                let Ok(read @ 1..) = read else { return };
                if far.write_all(&asked[..read]).await.is_err() {
                    return;
                }
                let text = String::from_utf8_lossy(&asked[..read]);
                let is_wanted = wanted.lock().unwrap().take_if(|wanted| text.contains(*wanted)).is_some();
                if is_wanted {
                    // The answer is there: the commit is done.
                    assert!(far.read(&mut answered).await.expect("an answer") > 0);
                    return;
                }
            }
            read = far.read(&mut answered) => {
                let Ok(read @ 1..) = read else { return };
                if near.write_all(&answered[..read]).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[tokio::test]
async fn rows_4_and_9_a_commit_whose_answer_is_lost() {
    let world = World::new().await;
    let way = Lossy::to(&world.settings()["database.url"]).await;
    let _worker = world.worker_with(WorkerSetup::default().set("database.url", &way.url)).await;
    // The event that the commit stores, of begin and of settle.
    for event in ["payment.created", "payment.status_changed"] {
        for _ in 0..3 {
            *way.wanted.lock().unwrap() = Some(event);
            let charge = Command::charge("http", "10.00", "EUR");
            assert_eq!(world.run(&charge).await.status(), "confirmed", "{event}");
            assert_eq!(*way.wanted.lock().unwrap(), None, "no answer was lost");
            assert_eq!(world.gateway.calls_of(charge.payment).len(), 1, "{event}");
            let kinds: Vec<String> =
                unlike(&world.events_of(charge.payment)).iter().map(|event| event.kind().to_owned()).collect();
            assert_eq!(kinds, ["payment.created", "payment.status_changed"]);
        }
    }
    world.check_books().await;
}

/// Events without their copies.
fn unlike(events: &[Event]) -> Vec<&Event> {
    let mut seen = BTreeSet::new();
    events.iter().filter(|event| seen.insert(event.id().to_owned())).collect()
}

/// Dies at a step once the gateway has failed a round of three; then, when the next round is due, two replicas get the
/// message once more, some copies of it, and the due operation.
async fn dies_with_a_retry_scheduled(step: &str, time: u32) {
    let world = Setup::new().set("variants.http.retry.delayed", "700ms").build().await;
    let charge = Command::charge("http", "10.00", "EUR");
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None); 3]);
    let worker = world.spawn_worker(dies(step, &charge, time));
    world.publish(&charge).await;
    died(&worker).await;
    eventually("the next round to be due", async || {
        let sql = "SELECT state = 'unknown' AND due_at <= now() FROM operations WHERE id = $1";
        if world.value(sql, &[&charge.operation_id()]).await { Ok(()) } else { Err("not yet") }
    })
    .await;
    world.publish_all(&vec![charge.clone(); 5]).await;
    let workers = [world.spawn_worker(WorkerSetup::default()), world.spawn_worker(WorkerSetup::default())];
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    // The schedule may be done with it before the queue is even consumed.
    for worker in &workers {
        worker.ready().await;
    }
    eventually("all copies to be taken", async || {
        let left = world.bus.length("commands.http").await;
        if left == 0 { Ok(()) } else { Err(left) }
    })
    .await;
    world.check_books().await;
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 4, "three that failed and one more");
    let sql = "SELECT attempts, takeovers, rounds FROM operations WHERE id = $1";
    let row = &world.query(sql, &[&charge.operation_id()]).await[0];
    let counted: [i32; 3] = [row.get(0), row.get(1), row.get(2)];
    assert_eq!(counted, [4, 0, 1], "attempts, takeovers, rounds");
    let kinds: Vec<String> = unlike(&world.log.all()).iter().map(|event| event.kind().to_owned()).collect();
    assert_eq!(kinds, ["payment.created", "command.delayed", "payment.status_changed"]);
}

#[tokio::test]
async fn row_15_killed_when_a_retry_is_scheduled() {
    dies_with_a_retry_scheduled("settled", 3).await;
}

#[tokio::test]
async fn row_16_delivered_again_while_it_is_due() {
    dies_with_a_retry_scheduled("announced", 1).await;
}

/// Lets workers die with a command until the broker has had enough and puts it into the dead letters.
async fn is_given_up(world: &World, command: &Command, step: &str, dead: u32) {
    world.publish(command).await;
    for _ in 0..10 {
        let worker = world.spawn_worker(dies(step, command, 1));
        let given_up = within(Duration::from_secs(30), "a death, or a dead letter", async || {
            let given_up = world.bus.length("dead").await >= dead;
            if given_up || worker.exited().is_some() { Ok(given_up) } else { Err("neither") }
        })
        .await;
        if given_up {
            worker.kill().await;
            return;
        }
    }
    panic!("{step} kills for ever");
}

/// Sends every dead letter again.
async fn replay_all(world: &World) {
    let output = world.paybus(&["dead", "replay", "--yes", "--who", "a test"]).await;
    assert!(output.status.success(), "{output:?}");
}

/// The fuse of its queue blows after it was begun: the schedule does it, and the dead letter, sent again, does nothing.
#[tokio::test]
async fn row_18_a_message_that_the_broker_gave_up_is_done_from_the_schedule() {
    let world = Setup::new().set("amqp.delivery_limit", "1").build().await;
    let charge = Command::charge("http", "10.00", "EUR");
    is_given_up(&world, &charge, "begun", 1).await;
    let _worker = world.worker().await;
    assert_eq!(world.final_event(&charge).await.status(), "confirmed");
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    let events = world.log.all().len();
    replay_all(&world).await;
    world.run(&Command::charge("http", "1.00", "EUR")).await;
    world.check_books().await;
    assert_eq!(world.gateway.calls_of(charge.payment).len(), 1, "it was known");
    assert_eq!(unlike(&world.log.since(events)).len(), 2, "{}", world.lines());
}

/// It kills whoever reads it, so that nothing of it is stored: it lies in the dead letters, whole, and is rejected once a
/// worker can read it. What comes later gets through meanwhile.
#[tokio::test]
async fn row_31_a_message_that_kills_every_worker_that_reads_it() {
    let world = Setup::new().set("amqp.delivery_limit", "2").build().await;
    let (culprit, other) = (Command::charge("http", "66.00", "EUR"), Command::charge("default", "10.00", "EUR"));
    is_given_up(&world, &culprit, "accepted", 1).await;
    let _worker = world.worker().await;
    assert_eq!(world.run(&other).await.status(), "confirmed");
    let answer = world.final_event(&culprit).await;
    assert_eq!((answer.kind(), answer.code()), ("command.rejected", "dead_lettered"), "{}", answer.line());
    assert!(answer.message().contains("delivery_limit"), "{}", answer.line());
    // Sent again, it is known; what is still wanted is another command.
    replay_all(&world).await;
    assert_eq!(world.run(&culprit.clone().id("again")).await.status(), "confirmed");
    world.check_books().await;
    assert_eq!(world.gateway.charges(culprit.payment).len(), 1);
}

/// The broker has the event and the database does not know it: it comes again, the same, and under the same id.
#[tokio::test]
async fn row_20_killed_between_confirm_and_mark() {
    let world = World::new().await;
    for (time, kind) in [(1, "payment.created"), (2, "payment.status_changed")] {
        let charge = Command::charge("http", "10.00", "EUR");
        let worker = world.spawn_worker(dies("confirmed", &charge, time));
        world.publish(&charge).await;
        died(&worker).await;
        let _worker = world.worker().await;
        let copies = || -> Vec<Event> {
            world.events_of(charge.payment).into_iter().filter(|event| event.kind() == kind).collect()
        };
        eventually("the event to come again", async || {
            let copies = copies().len();
            if copies >= 2 { Ok(()) } else { Err(format!("{copies} came:\n{}", world.lines())) }
        })
        .await;
        assert_eq!(world.final_event(&charge).await.status(), "confirmed");
        let copies = copies();
        assert!(copies.iter().all(|copy| copy.id() == copies[0].id() && copy.body == copies[0].body));
        assert_eq!(unlike(&world.events_of(charge.payment)).len(), 2, "{}", world.lines());
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
        for worker in world.workers() {
            worker.drain().await;
        }
    }
    world.check_books().await;
}

/// Sent again after its payment went on: it is known, and nothing happens, not even under an open refund.
#[tokio::test]
async fn row_34_an_old_command_once_more() {
    let world = World::new().await;
    let worker = world.worker().await;
    let charge = Command::charge("http", "100.00", "EUR");
    let refund = charge.then("payment.refund", json!({"amount": "30.00"}));
    let rest = charge.then("payment.refund", json!({}));
    for command in [&charge, &refund, &rest] {
        world.run(command).await;
    }
    let (events, calls) = (world.log.all().len(), world.gateway.calls().len());
    let row = || async { format!("{:?}", world.payment_row(charge.payment).await.get::<_, Timestamp>("modified")) };
    let before = row().await;
    let old = [charge.clone(), refund.clone(), charge.clone(), rest.clone()];
    world.publish_all(&old).await;
    eventually("all of them to be known", async || {
        let known = worker.count(r#"paybus_commands_duplicate_total{variant="http"}"#).await;
        if known == 4 { Ok(()) } else { Err(known) }
    })
    .await;
    world.check_books().await;
    assert_eq!(world.gateway.calls().len(), calls);
    assert_eq!(unlike(&world.log.since(events)).len(), 0, "{}", world.lines());
    assert_eq!(row().await, before);
    let last = world.events_of(charge.payment).pop().expect("an event");
    assert_eq!((last.status(), last.field("refunded_amount")), ("refunded", "100.00"));
}

/// Where Debian's `libfaketime` is.
fn faketime() -> Option<String> {
    let found = std::process::Command::new(root().join("scripts/faketime")).output().expect("scripts/faketime");
    let library = String::from_utf8_lossy(&found.stdout).trim().to_owned();
    (!library.is_empty()).then_some(library)
}

/// Leases, due times, the end of a command's time and the time of its events are PostgreSQL's.
#[tokio::test]
async fn row_35_a_replica_whose_clock_is_two_hours_ahead() {
    let Some(library) = faketime() else {
        return skip("there is no libfaketime here, and Debian's package cannot be had");
    };
    let ahead = WorkerSetup::default()
        .variable("LD_PRELOAD", &library)
        .variable("FAKETIME", "+2h")
        .variable("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    let world = Setup::new().set("variants.http.concurrency", "4").build().await;
    let early = world.worker_with(ahead).await;
    let first: serde_json::Value =
        serde_json::from_str(early.log().lines().next().expect("a line")).expect("a line of JSON");
    let said: Timestamp = first["timestamp"].as_str().expect("a time").parse().expect("a time");
    let hours = said.duration_since(Timestamp::now());
    assert!(hours > SignedDuration::from_mins(110), "its clock is ahead by {hours}");

    // Alone: it sends what has an hour left, and its retry comes after 200 ms and not after two hours, nor at once.
    let charge = Command::charge("http", "10.00", "EUR");
    let expires = Timestamp::now() + SignedDuration::from_hours(1);
    let charge = charge.attribute("expirytime", json!(expires.to_string()));
    world.gateway.plan(charge.payment, vec![Behaviour::Status(503, None); 3]);
    let answer = world.run(&charge).await;
    assert_eq!(answer.status(), "confirmed", "{}", answer.line());
    let calls = world.gateway.calls_of(charge.payment);
    assert_eq!(calls.len(), 4);
    assert!(calls[3].at - calls[2].at >= Duration::from_millis(150));
    let time: Timestamp = answer.body["time"].as_str().expect("a time").parse().expect("a time");
    let off = time.duration_since(Timestamp::now()).abs();
    assert!(off < SignedDuration::from_mins(1), "an event's time is off by {off}");

    // Beside another: neither takes the other's live leases for ended ones.
    let _other = world.worker().await;
    world.gateway.set_latency(Duration::from_millis(900));
    let charges: Vec<Command> = (0..16).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    world.final_events(&charges).await;
    for charge in &charges {
        assert_eq!(world.gateway.calls_of(charge.payment).len(), 1);
    }
    let taken: i64 = world.value("SELECT count(*) FROM operations WHERE takeovers > 0", &[]).await;
    assert_eq!(taken, 0);
    world.check_books().await;
}
