//! A world for one test: its database, its prefix at the broker, its gateway, its workers.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, NoTls, Row};
use uuid::Uuid;

use paybus::bus::connection::connect;
use paybus::bus::topology;
use paybus::config::{self, Settings};
use paybus::store::Store;
use paybus::store::schema::migrate::migrate;
use paybus::wiring::{bus_settings, open_store};

use super::bus::Bus;
use super::command::Command;
use super::event::{Event, Log};
use super::fake_gateway::FakeGateway;
use super::nets::Nets;
use super::service_lock::ServiceLock;
use super::setup::{SETTINGS, Setup};
use super::wait::{ARRIVAL, START, eventually, within};
use super::worker::{Worker, WorkerSetup, output_of, paybus};

/// A world for one test. At the end of the test, [`World::check_books`].
pub struct World {
    /// The gateway behind variant `http`.
    pub gateway: FakeGateway,
    /// The broker.
    pub bus: Bus,
    /// Every event so far.
    pub log: Arc<Log>,
    pub(super) published: Mutex<Vec<(Instant, Command)>>,
    /// When the first worker was ready.
    pub(super) ready: Mutex<Option<Instant>>,
    pub(super) nets: Nets,
    pub(super) nets_checked: AtomicBool,
    pub(super) workers: Mutex<Vec<Worker>>,
    pub(super) settings: BTreeMap<String, String>,
    pub(super) admin_url: String,
    pub(super) database: String,
    sql: tokio::sync::Mutex<Option<Client>>,
    pub(super) directory: PathBuf,
    pub(super) keeps_logs: AtomicBool,
    _service_lock: ServiceLock,
}

impl World {
    /// The usual world.
    pub async fn new() -> World {
        Setup::new().build().await
    }

    pub(super) async fn build(setup: Setup) -> World {
        let service_lock = if setup.alone { ServiceLock::alone().await } else { ServiceLock::shared().await };
        let name = format!("t{}", &Uuid::new_v4().simple().to_string()[..12]);
        let gateway = FakeGateway::start().await;
        let mut settings: BTreeMap<String, String> =
            SETTINGS.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        settings.insert("variants.http.url".to_owned(), gateway.url());
        settings.insert("amqp.url".to_owned(), service("PAYBUS__AMQP__URL"));
        settings.insert("database.url".to_owned(), service("PAYBUS__DATABASE__URL"));
        // Where the services that were given are on another machine.
        for (key, variable) in
            [("amqp.insecure", "PAYBUS__AMQP__INSECURE"), ("database.insecure", "PAYBUS__DATABASE__INSECURE")]
        {
            settings.extend(std::env::var(variable).ok().map(|value| (key.to_owned(), value)));
        }
        settings.insert("amqp.prefix".to_owned(), name.clone());
        for (key, value) in setup.settings {
            let value = match value.as_str() {
                "GATEWAY" => gateway.url(),
                "KEYLESS" => gateway.keyless_url(),
                _ => value,
            };
            settings.insert(key, value);
        }
        let admin_url = settings["database.url"].clone();
        query(&admin_url, &format!("CREATE DATABASE {name}")).await;
        settings.insert("database.url".to_owned(), with_database(&admin_url, &name));

        let typed = read(&settings);
        let store = open_store(&typed).expect("a store");
        migrate(&store).await.expect("the schema");
        store.close();
        let bus_settings = bus_settings(&typed);
        let variants: Vec<&str> = typed.variants.keys().map(String::as_str).collect();
        let connection = connect(&bus_settings, "test").await.expect("the broker");
        topology::declare(&connection, &bus_settings, &variants).await.expect("the topology");
        connection.close().await;

        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(&name);
        std::fs::create_dir_all(&directory).expect("a directory");
        let log = Arc::new(Log::default());
        let bus = Bus::listen(&settings["amqp.url"], &name, Arc::clone(&log)).await;
        World {
            gateway,
            bus,
            log,
            published: Mutex::default(),
            ready: Mutex::default(),
            nets: setup.nets,
            nets_checked: AtomicBool::new(false),
            workers: Mutex::default(),
            settings,
            admin_url,
            database: name,
            sql: tokio::sync::Mutex::default(),
            directory,
            keeps_logs: AtomicBool::new(false),
            _service_lock: service_lock,
        }
    }

    /// Starts a worker and waits until it is ready.
    pub async fn worker(&self) -> Worker {
        self.worker_with(WorkerSetup::default()).await
    }

    /// Starts a worker that differs, and waits until it is ready.
    pub async fn worker_with(&self, setup: WorkerSetup) -> Worker {
        let worker = self.spawn_worker(setup);
        worker.ready().await;
        self.ready.lock().unwrap().get_or_insert_with(Instant::now);
        worker
    }

    /// Starts a worker and does not wait: for one that may not become ready, or dies.
    pub fn spawn_worker(&self, setup: WorkerSetup) -> Worker {
        let mut settings = self.settings.clone();
        settings.extend(setup.settings.iter().cloned());
        let mut workers = self.workers.lock().unwrap();
        let log = self.directory.join(format!("worker-{}.log", workers.len() + 1));
        let worker = Worker::spawn(&settings, &setup, log);
        workers.push(worker.clone());
        worker
    }

    /// Every worker that was started, those that have ended too.
    pub fn workers(&self) -> Vec<Worker> {
        self.workers.lock().unwrap().clone()
    }

    /// Every setting of the world's workers, by its key.
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// Publishes a command; the broker has confirmed it.
    pub async fn publish(&self, command: &Command) {
        self.publish_all(std::slice::from_ref(command)).await;
    }

    /// Publishes commands in order, without waiting in between.
    pub async fn publish_all(&self, commands: &[Command]) {
        self.note_published(commands);
        self.bus.publish(commands).await;
    }

    /// Commands that are published in another way.
    pub fn note_published(&self, commands: &[Command]) {
        let now = Instant::now();
        let named = commands.iter().filter(|command| command.body.is_none());
        self.published.lock().unwrap().extend(named.map(|command| (now, command.clone())));
    }

    /// The commands that were published so far and name themselves.
    pub fn published(&self) -> Vec<Command> {
        self.published.lock().unwrap().iter().map(|(_, command)| command.clone()).collect()
    }

    /// Publishes a command and waits for its answer.
    pub async fn run(&self, command: &Command) -> Event {
        self.publish(command).await;
        self.final_event(command).await
    }

    /// Waits for a command's answer.
    pub async fn final_event(&self, command: &Command) -> Event {
        self.event(&format!("the answer to {}", command.kind), |event| event.is_of(command) && event.is_final()).await
    }

    /// Waits for the answers of many commands; in their order.
    pub async fn final_events(&self, commands: &[Command]) -> Vec<Event> {
        self.arrives("all answers", || {
            let answers = self.log.filter(Event::is_final).into_iter().map(|event| (event.cause(), event));
            let mut answers: HashMap<_, _> = answers.collect();
            let found: Vec<Event> = commands.iter().filter_map(|command| answers.remove(&command.name())).collect();
            if found.len() == commands.len() { Ok(found) } else { Err(format!("{} came", found.len())) }
        })
        .await
    }

    /// Waits for an event that a command caused, of this type: `command.delayed`.
    pub async fn event_of(&self, command: &Command, kind: &str) -> Event {
        let what = format!("{kind} of {}", command.kind);
        self.event(&what, |event| event.is_of(command) && event.kind() == kind).await
    }

    /// Waits for the first event that a test picks.
    pub async fn event(&self, what: &str, picks: impl Fn(&Event) -> bool) -> Event {
        self.arrives(what, || self.log.find(&picks).ok_or("it did not come")).await
    }

    /// Waits for what events bring. The timeout begins anew with every event: many take their time, and a net that has
    /// to catch some is told by the silence before.
    async fn arrives<T, E: Display>(&self, what: &str, found: impl Fn() -> Result<T, E>) -> T {
        let begun = Instant::now();
        loop {
            let arrived = self.log.arrived.notified();
            tokio::pin!(arrived);
            arrived.as_mut().enable();
            let missing = match found() {
                Ok(found) => return found,
                Err(missing) => missing,
            };
            let timeout = self.timeout().min(ARRIVAL.saturating_sub(begun.elapsed()));
            if tokio::time::timeout(timeout, arrived).await.is_err() {
                panic!("waited {:?} for {what}: {missing}; these events came:\n{}", begun.elapsed(), self.lines());
            }
        }
    }

    /// The events of a payment, in order of arrival.
    pub fn events_of(&self, payment: Uuid) -> Vec<Event> {
        self.log.of(payment)
    }

    /// Every event in a line.
    pub fn lines(&self) -> String {
        self.log.all().iter().map(|event| format!("  {}\n", event.line())).collect()
    }

    /// Rows of the world's database; `search_path` is paybus's schema.
    pub async fn query(&self, sql: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        within(START, "the database", async || {
            let mut client = self.sql.lock().await;
            if client.as_ref().is_none_or(Client::is_closed) {
                *client = Some(self.sql_client().await?);
            }
            let client = client.as_ref().expect("a client");
            client.query(sql, parameters).await.map_err(|error| {
                let wrong = error.as_db_error().filter(|error| !error.code().code().starts_with("57"));
                assert!(wrong.is_none(), "{sql}: {error:?}");
                error.to_string()
            })
        })
        .await
    }

    /// One value of the world's database.
    pub async fn value<T: for<'a> tokio_postgres::types::FromSql<'a>>(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> T {
        let rows = self.query(sql, parameters).await;
        rows.first().unwrap_or_else(|| panic!("no row: {sql}")).get(0)
    }

    /// Runs the command line with this world's settings.
    pub async fn paybus(&self, arguments: &[&str]) -> Output {
        let mut program = paybus(&self.settings);
        program.args(arguments);
        output_of(program).await
    }

    /// A payment's row.
    pub async fn payment_row(&self, payment: Uuid) -> Row {
        let rows = self.query("SELECT * FROM payments WHERE id = $1", &[&payment]).await;
        rows.into_iter().next().unwrap_or_else(|| panic!("payment {payment} is not stored"))
    }

    /// Waits until so many messages are dead letters.
    pub async fn are_dead(&self, letters: u32) {
        eventually("the dead letters", async || {
            let dead = self.bus.length("dead").await;
            if dead == letters { Ok(()) } else { Err(format!("{dead} are dead")) }
        })
        .await;
    }

    /// Waits until all events are marked as sent.
    pub async fn events_are_marked(&self) {
        eventually("all events to be marked", async || {
            let unsent: i64 = self.value("SELECT count(*) FROM outbox", &[]).await;
            if unsent == 0 { Ok(()) } else { Err(unsent) }
        })
        .await;
    }

    /// Waits until a command's operation is in a state.
    pub async fn operation_state(&self, command: &Command, state: &str) {
        let id = command.operation_id();
        self.eventually(&format!("{} to be {state}", command.kind), async || {
            let rows = self.query("SELECT state FROM operations WHERE id = $1", &[&id]).await;
            let now = rows.first().map_or("not stored".to_owned(), |row| row.get::<_, String>(0));
            if now == state { Ok(()) } else { Err(now) }
        })
        .await;
    }

    /// A connection of its own to the world's database.
    pub async fn sql_client(&self) -> Result<Client, String> {
        world_client(&self.settings["database.url"]).await.map_err(|error| error.to_string())
    }

    /// The world's database, as a worker sees it. Its clock is read.
    pub async fn store(&self) -> Arc<Store> {
        let store = open_store(&read(&self.settings)).expect("a store");
        let client = store.client().await.expect("a connection");
        store.clock().calibrate(&client).await.expect("the time");
        Arc::new(store)
    }

    /// The schema as after a backup was restored: tables and types have other numbers than before.
    pub async fn make_schema_anew(&self) {
        self.query("DROP SCHEMA paybus CASCADE", &[]).await;
        let store = self.store().await;
        migrate(&store).await.expect("the schema");
    }

    /// Keeps the workers' logs when the world ends; where they are.
    pub fn keep_logs(&self) -> &Path {
        self.keeps_logs.store(true, Ordering::Relaxed);
        &self.directory
    }

    /// The variants that are configured.
    pub fn variants(&self) -> Vec<String> {
        let gateways = self.settings.keys().filter_map(|key| key.strip_prefix("variants.")?.strip_suffix(".gateway"));
        gateways.map(str::to_owned).collect()
    }
}

/// The settings as paybus reads them.
pub fn read(settings: &BTreeMap<String, String>) -> Settings {
    let variables = settings
        .iter()
        .map(|(key, value)| (format!("PAYBUS__{}", key.to_uppercase().replace('.', "__")), value.clone()));
    config::load(None, variables).unwrap_or_else(|error| panic!("the test's settings: {error}"))
}

fn service(variable: &str) -> String {
    std::env::var(variable).unwrap_or_else(|_| panic!("{variable} is not set; run `scripts/with-services cargo test`"))
}

/// The address of another database of the same server.
fn with_database(url: &str, database: &str) -> String {
    let (address, options) = url.split_once('?').map_or((url, None), |(address, options)| (address, Some(options)));
    let server = address.rsplit_once('/').expect("a database").0;
    options.map_or_else(|| format!("{server}/{database}"), |options| format!("{server}/{database}?{options}"))
}

pub(super) async fn client(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// A client of a world's database.
pub(super) async fn world_client(url: &str) -> Result<Client, tokio_postgres::Error> {
    let client = client(url).await?;
    client.batch_execute("SET search_path = paybus").await?;
    Ok(client)
}

async fn query(url: &str, sql: &str) {
    within(START, "the database", async || {
        let client = client(url).await.map_err(|error| error.to_string())?;
        client.batch_execute(sql).await.map_err(|error| format!("{error:?}"))
    })
    .await;
}

/// An amount of a payment's row as text with the given decimals.
pub fn amount(row: &Row, column: &str, decimals: u32) -> String {
    let mut amount: rust_decimal::Decimal = row.get(column);
    amount.rescale(decimals);
    amount.to_string()
}

/// A JSON value's text, for comparisons.
pub fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
