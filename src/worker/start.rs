//! Wiring: starts, watches and stops all parts of the worker, in order.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{join_all, try_join};
use regex::Regex;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};
use uuid::Uuid;

use super::command::authorize::Authorization;
use super::command::engine::Engine;
use super::command::in_progress::{InProgress, PaymentQueue};
use super::command::resend_runs::Runs;
use super::intake::accept::Acceptance;
use super::intake::hand_back;
use super::intake::prefetch::Shares;
use super::intake::{Intake, drain};
use super::outbox::announce::Announcer;
use super::outbox::heartbeat::Heartbeats;
use super::outbox::{Outbox, relay};
use super::prerequisites::{DATABASE, TOPOLOGY};
use super::register::Replica;
use super::report::{COMMITS, VARIANTS};
use super::schedule::Schedule;
use super::variant::Variant;
use super::webhooks::receiver::Receiver;
use super::{pauses, prerequisites, report};
use crate::bus::consume::consumer::{Consumer, Consumption};
use crate::bus::publish::publisher::Publisher;
use crate::bus::topology::{self, QueueKind};
use crate::bus::{BusError, BusSettings};
use crate::config::{self, ConfigError, Settings};
use crate::error_chain::chain;
use crate::gateway::Gateway;
use crate::gateway::registry::{self, RegistryError};
use crate::http::health::Health;
use crate::http::{server, webhooks};
use crate::payment::contract::{Captures, Contract, Keys, Lookup, NotificationRole, PerAction};
use crate::payment::machine::Rules;
use crate::store::Store;
use crate::store::commit::batch::Committer;
use crate::telemetry::metrics::QueueLabel;
use crate::telemetry::recorder::{self, Metrics};
use crate::wiring::{WiringError, bus_settings, open_store};

/// Concurrent commits of each of the two committers, `begin` and `settle`.
const CONCURRENT_COMMITS: usize = 2;
/// The readiness component for taking new work.
const INTAKE: &str = "intake";
/// How long the last statements of a drained worker may take.
const LAST: Duration = Duration::from_secs(2);
/// The prefetch of queues with little traffic.
const SMALL_PREFETCH: u16 = 32;

/// Why the worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The database connection cannot be set up.
    #[error(transparent)]
    Wiring(#[from] WiringError),
    /// A setting that was rejected by the part that uses it.
    #[error("{0}")]
    Setting(String),
    /// The broker connection cannot be set up.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The HTTP address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The configured address.
        address: std::net::SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
}

/// Runs the worker until `shutdown` is cancelled and it has drained, or until `abort` is cancelled.
///
/// # Errors
/// The settings cannot be used. Everything else the worker needs, it waits for, even at startup.
pub async fn run(settings: Settings, shutdown: CancellationToken, abort: CancellationToken) -> Result<(), RunError> {
    let variants = variants(&settings)?;
    let address = settings.http.listen;
    let listener = TcpListener::bind(address).await.map_err(|source| RunError::Listen { address, source })?;
    let bus = bus_settings(&settings);
    let store = Arc::new(open_store(&settings)?);

    // The connections outlive the drain: commands in flight need them to the end.
    let ended = CancellationToken::new();
    // Cancelled once the broker has the exchanges and queues.
    let prepared = CancellationToken::new();
    let publisher = Publisher::spawn_after(prepared.clone().cancelled_owned(), bus.clone(), ended.clone());
    let (announcer, marking) = Announcer::spawn(publisher.clone(), Arc::clone(&store));
    let engine = Arc::new(engine(&settings, &store, announcer, variants));
    engine.authorization.warn_if_open();
    let names: Vec<&str> = engine.variants.keys().map(String::as_str).collect();
    let metrics = recorder::install(&names).map_err(|error| RunError::Setting(format!("metrics: {error}")))?;
    let tasks = TaskTracker::new();
    let acceptance = Arc::new(acceptance(&settings, Arc::clone(&engine.variants))?);
    let intake = Intake { engine: Arc::clone(&engine), acceptance, publisher: publisher.clone(), tasks: tasks.clone() };
    let health = Arc::new(Health::new(&components(&engine).iter().map(String::as_str).collect::<Vec<_>>()));
    let mut services = serve(&engine, &health, &publisher, metrics, listener, &ended);
    // Webhooks are received as soon as the broker is prepared, even while the database is unavailable.
    let broker = prerequisites::broker(&bus, &names, &health, &prepared);
    let database = async {
        prerequisites::database(&store, settings.database.may_lose_commits, &health).await;
        Ok(())
    };
    let both = async {
        try_join(broker, database).await?;
        // As late as possible: a pause may have been ordered while one of them was waited for.
        pauses::begin(&engine, &health).await;
        Ok::<(), RunError>(())
    };
    tokio::select! {
        both = both => both?,
        // Nothing was begun, so there is nothing to drain.
        () = shutdown.cancelled() => return Ok(()),
        () = abort.cancelled() => return Ok(()),
    }

    health.set(INTAKE, Ok(()));
    let consumer = Consumer::spawn(bus.clone(), ended.clone());
    services.push(tokio::spawn(report::database(Arc::clone(&engine), Arc::clone(&health), Replica::at(address))));
    services.push(tokio::spawn(report::commits(Arc::clone(&store), Arc::clone(&health))));
    let shares = shares(&engine, settings.amqp.memory);
    let queues = consume(&intake, &consumer, &bus, shares, &health, &mut services);
    services.push(tokio::spawn(hand_back::run(Arc::clone(&health), queues.consumptions.clone())));
    services.push(tokio::spawn(pauses::run(Arc::clone(&engine), Arc::clone(&health))));
    services.extend(start_due_work(&engine, &tasks, settings.worker.poll));
    let (heartbeats, relaying) = start_outbox(&engine, &publisher, &settings);
    services.push(heartbeats);
    info!(worker = %engine.worker, variants = engine.variants.len(), http = %address, "worker started");

    tokio::select! {
        () = shutdown.cancelled() => {}
        () = abort.cancelled() => return Ok(()),
    }
    tokio::select! {
        () = wind_down(&engine, &health, queues, &tasks, settings.worker.drain) => {}
        () = abort.cancelled() => return Ok(()),
    }
    stop(services).await;
    let worker = engine.worker;
    drop((intake, engine));
    finish_outbox(relaying, marking).await;
    leave(&store, worker).await;
    ended.cancel();
    store.close();
    info!("worker drained");
    Ok(())
}

/// Starts what executes due operations, and the sweep for those of lost workers.
fn start_due_work(engine: &Arc<Engine>, tasks: &TaskTracker, poll: Duration) -> Vec<JoinHandle<()>> {
    let schedule = |variant: &Arc<Variant>| {
        let schedule = Schedule::new(Arc::clone(engine), Arc::clone(variant), tasks.clone(), poll);
        tokio::spawn(schedule.run())
    };
    let mut started: Vec<JoinHandle<()>> = engine.variants.values().map(schedule).collect();
    started.push(tokio::spawn(Arc::clone(engine).sweep(poll.saturating_mul(5))));
    started
}

/// Starts the heartbeats and the relay.
fn start_outbox(engine: &Engine, publisher: &Publisher, settings: &Settings) -> (JoinHandle<()>, JoinHandle<()>) {
    let outbox = Outbox {
        worker: engine.worker,
        store: Arc::clone(&engine.store),
        announcer: Arc::clone(&engine.announcer),
        draining: engine.draining.clone(),
    };
    let heartbeats = Heartbeats {
        outbox: outbox.clone(),
        publisher: publisher.clone(),
        variants: engine.variants.keys().cloned().collect(),
        every: settings.worker.heartbeat,
    };
    (tokio::spawn(heartbeats.run()), tokio::spawn(relay::run(outbox, settings.retention.clone())))
}

/// Stops tasks that would run for ever.
async fn stop(services: Vec<JoinHandle<()>>) {
    for service in services {
        service.abort();
        // Awaited because only then are its values dropped.
        if let Err(error) = service.await
            && error.is_panic()
        {
            warn!(%error, "a task of the worker failed");
        }
    }
}

/// Waits for the last marks and the release of the relay's share: both need the database, which may be unavailable. The
/// relay holds the last reference to the announcer, so the marking task ends once all marks are stored.
async fn finish_outbox(relaying: JoinHandle<()>, marking: JoinHandle<()>) {
    let last = async { tokio::join!(relaying, marking) };
    match tokio::time::timeout(LAST, last).await {
        Ok((Err(error), _)) => warn!(%error, "the relay task failed"),
        Ok(_) => {}
        Err(_) => info!("some published events are not marked as sent; they will be sent again with the same ids"),
    }
}

/// Deletes the replica's row. One that stays is deleted by others.
async fn leave(store: &Store, worker: Uuid) {
    match tokio::time::timeout(LAST, store.remove_worker(worker)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = chain(&error), "cannot delete this replica's row"),
        Err(_) => debug!("cannot delete this replica's row in time"),
    }
}

fn variants(settings: &Settings) -> Result<HashMap<String, Arc<Variant>>, RunError> {
    let mut variants = HashMap::new();
    let gateways = gateways(settings)?;
    for ((name, configured), (_, gateway)) in settings.variants.iter().zip(gateways) {
        if configured.gateway == "dummy" {
            warn!(variant = name, "this variant uses the dummy gateway: it confirms payments that nobody paid");
        }
        variants.insert(name.clone(), Arc::new(Variant::new(name, configured, &settings.worker, gateway)));
    }
    Ok(variants)
}

/// A variant's name and its gateway.
type Named = (String, Arc<dyn Gateway>);

/// Builds the gateway of each variant, in order.
fn gateways(settings: &Settings) -> Result<Vec<Named>, RunError> {
    let build = |(name, configured): (&String, &config::Variant)| {
        let gateway = registry::build(configured).map_err(|error| unusable(name, &error))?;
        Ok((name.clone(), gateway))
    };
    settings.variants.iter().map(build).collect()
}

/// The error for settings of a variant that cannot be used.
pub(super) fn unusable(variant: &str, error: &RegistryError) -> RunError {
    RunError::Setting(format!("variants.{variant}: {}", chain(error)))
}

fn engine(
    settings: &Settings,
    store: &Arc<Store>,
    announcer: Arc<Announcer>,
    variants: HashMap<String, Arc<Variant>>,
) -> Engine {
    Engine {
        worker: Uuid::new_v4(),
        store: Arc::clone(store),
        begin_commits: Committer::spawn(Arc::clone(store), CONCURRENT_COMMITS),
        settle_commits: Committer::spawn(Arc::clone(store), CONCURRENT_COMMITS),
        announcer,
        authorization: Authorization::configured(settings),
        no_variant: no_variant(settings),
        variants: Arc::new(variants),
        in_progress: InProgress::default(),
        order: PaymentQueue::default(),
        runs: Runs::default(),
        clock_tolerance: settings.worker.clock_tolerance,
        kept: settings.retention.events,
        draining: CancellationToken::new(),
        wake: Arc::default(),
        pauses: tokio::sync::Mutex::default(),
    }
}

fn acceptance(settings: &Settings, variants: Arc<HashMap<String, Arc<Variant>>>) -> Result<Acceptance, RunError> {
    let reply_to = Regex::new(&settings.amqp.reply_to);
    let reply_to = reply_to.map_err(|error| RunError::Setting(format!("amqp.reply_to: {error}")))?;
    Ok(Acceptance { variants, reply_to })
}

impl Acceptance {
    /// The checks that a worker with these settings applies to messages.
    ///
    /// # Errors
    /// A gateway cannot be set up, or `amqp.reply_to` is not a valid pattern.
    pub fn configured(settings: &Settings) -> Result<Acceptance, RunError> {
        acceptance(settings, Arc::new(variants(settings)?))
    }
}

/// Rules for commands of unknown variants. All of these are rejected, so nothing here is ever used for a call.
fn no_variant(settings: &Settings) -> Rules {
    Rules {
        gateway: String::new(),
        account: String::new(),
        account_aliases: Vec::new(),
        contract: Contract {
            keys: PerAction::all(Keys::NONE),
            lookup: Lookup::None,
            settle_window: Duration::ZERO,
            captures: Captures::One,
            notifications: NotificationRole::Hint,
            undo: false,
        },
        capture: false,
        retired: true,
        immediate_attempts: 1,
        delayed: Vec::new(),
        lease: settings.worker.lease_margin,
        unknown_payment_grace: settings.worker.unknown_payment_grace,
    }
}

fn components(engine: &Engine) -> Vec<String> {
    let fixed = [INTAKE, TOPOLOGY, DATABASE, COMMITS, VARIANTS, "publisher", "publisher confirms"];
    let shared = ["consumer unroutable", "consumer unanswered"];
    let of_variant = |name: &String| [format!("consumer commands.{name}"), format!("consumer inbound.{name}")];
    fixed.into_iter().chain(shared).map(str::to_owned).chain(engine.variants.keys().flat_map(of_variant)).collect()
}

/// The queues that are consumed.
struct Queues {
    consumptions: Vec<Arc<Consumption>>,
    /// The tasks that process their messages.
    intakes: Vec<JoinHandle<()>>,
    /// Cancelled once no deliveries will come beyond those already received.
    drained: CancellationToken,
}

/// Distributes the memory for prefetched messages over all queues that are consumed.
fn shares(engine: &Engine, memory: Option<u32>) -> Shares {
    let of_variants = engine.variants.values().flat_map(|variant| [variant.prefetch, SMALL_PREFETCH]);
    let shares = Shares::new(memory, of_variants.chain([SMALL_PREFETCH; 2]));
    info!(mebibytes = shares.mebibytes(), "unacknowledged messages take at most this much memory");
    shares
}

/// Starts consuming every queue.
fn consume(
    intake: &Intake,
    consumer: &Consumer,
    bus: &BusSettings,
    shares: Shares,
    health: &Arc<Health>,
    services: &mut Vec<JoinHandle<()>>,
) -> Queues {
    let names = topology::Names::new(&bus.prefix);
    services.push(tokio::spawn(report::depths(consumer.clone(), labels(intake, bus))));
    let mut queues = Queues { consumptions: Vec::new(), intakes: Vec::new(), drained: CancellationToken::new() };
    let mut subscribe = |kind: QueueKind, name: String, prefetch: u16, component: String| {
        let (consumption, deliveries) = consumer.subscribe(&name, shares.of(prefetch));
        let label = QueueLabel { name, kind: kind.as_str() };
        queues.intakes.push(tokio::spawn(intake.clone().run(kind, label.clone(), deliveries, queues.drained.clone())));
        services.push(tokio::spawn(report::queue(consumption.state(), Arc::clone(health), component, label)));
        let consumption = Arc::new(consumption);
        queues.consumptions.push(Arc::clone(&consumption));
        consumption
    };
    let mut guarded = Vec::new();
    for variant in intake.engine.variants.values() {
        let name = &variant.name;
        let (commands, inbound) = (names.commands_of(name), names.inbound_of(name));
        let commands = subscribe(QueueKind::Commands, commands, variant.prefetch, format!("consumer commands.{name}"));
        subscribe(QueueKind::Inbound, inbound, SMALL_PREFETCH, format!("consumer inbound.{name}"));
        guarded.push((Arc::clone(variant), commands));
    }
    subscribe(QueueKind::Unroutable, names.unroutable(), SMALL_PREFETCH, "consumer unroutable".to_owned());
    subscribe(QueueKind::Unanswered, names.unanswered(), SMALL_PREFETCH, "consumer unanswered".to_owned());
    let guard = |(variant, commands)| tokio::spawn(intake.clone().guard(variant, commands));
    services.extend(guarded.into_iter().map(guard));
    queues
}

/// All queues of ours, including those that are not consumed.
fn labels(intake: &Intake, bus: &BusSettings) -> Vec<QueueLabel> {
    let variants: Vec<&str> = intake.engine.variants.keys().map(String::as_str).collect();
    let queues = topology::queues(&topology::Names::new(&bus.prefix), bus.delivery_limit, &variants);
    queues.into_iter().map(|queue| QueueLabel { name: queue.name, kind: queue.kind.as_str() }).collect()
}

fn serve(
    engine: &Arc<Engine>,
    health: &Arc<Health>,
    publisher: &Publisher,
    metrics: Metrics,
    listener: TcpListener,
    ended: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let publishing = report::connection(publisher.state(), Arc::clone(health), "publisher".to_owned());
    let verify = |(name, variant): (&String, &Arc<Variant>)| {
        registry::verify_by(Arc::clone(&variant.gateway)).map(|verify| (name.clone(), verify))
    };
    let receiver = Receiver::new(engine.variants.iter().filter_map(verify), publisher.clone());
    let confirming = report::confirms(publisher.clone(), Arc::clone(health), "publisher confirms".to_owned());
    vec![
        tokio::spawn(confirming),
        tokio::spawn(publishing),
        tokio::spawn(serve_http(listener, Arc::clone(health), metrics, receiver, ended.clone())),
    ]
}

/// Serves health checks and metrics, and receives webhooks.
pub(super) async fn serve_http(
    listener: TcpListener,
    health: Arc<Health>,
    metrics: Metrics,
    receiver: Receiver,
    ended: CancellationToken,
) {
    if let Err(error) = server::serve(listener, health, metrics, webhooks::router(Arc::new(receiver)), ended).await {
        warn!(%error, "the HTTP server failed");
    }
}

/// Drains: takes no new messages, stores prefetched commands as due instead of calling, and finishes what is in flight,
/// within the grace period.
async fn wind_down(engine: &Engine, health: &Health, queues: Queues, tasks: &TaskTracker, grace: Duration) {
    info!(in_flight = engine.in_progress.count(), "draining");
    health.set(INTAKE, Err("draining: accepting no new work".to_owned()));
    engine.draining.cancel();
    let finish = async {
        queues.consumptions.iter().for_each(|queue| queue.pause());
        join_all(queues.consumptions.iter().map(|queue| drain(queue))).await;
        queues.drained.cancel();
        // Once the intakes have ended, the last messages of the queues are in `tasks`.
        for ended in join_all(queues.intakes).await {
            if let Err(error) = ended {
                warn!(%error, "the intake task of a queue failed");
            }
        }
        tasks.close();
        tasks.wait().await;
    };
    if tokio::time::timeout(grace, finish).await.is_err() {
        warn!(left = engine.in_progress.count(), "the drain timed out; other replicas take over what is left");
    }
}
