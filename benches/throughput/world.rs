//! One run's own database and prefix on the broker, and the programs that run there.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use lapin::{Connection, ConnectionProperties};
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

use crate::commands::VARIANT;

/// A place of its own for one run.
pub struct World {
    pub prefix: String,
    amqp: String,
    database: String,
    config: PathBuf,
    concurrency: usize,
}

/// A program under measurement; killed when dropped.
pub struct Program {
    child: Child,
    /// Where it tells how it is, if it does.
    pub http: Option<String>,
}

impl World {
    /// Makes the database and, with paybus itself, schema and topology.
    pub async fn new(gateway: &str, concurrency: usize) -> World {
        let name = format!("bench_{}", Uuid::now_v7().simple());
        let base = variable("PAYBUS__DATABASE__URL");
        client(&base).await.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database");
        let config = std::env::temp_dir().join(format!("{name}.toml"));
        let (amqp, database) = (variable("PAYBUS__AMQP__URL"), sibling(&base, &name));
        let world = World { prefix: name.clone(), amqp, database, config, concurrency };
        let text = format!(
            "[amqp]\nprefix = \"{name}\"\n[variants.{VARIANT}]\ngateway = \"http\"\nurl = \"{gateway}\"\n\
             concurrency = {concurrency}\n"
        );
        std::fs::write(&world.config, text).expect("a configuration");
        let migrated = world.paybus("migrate").stdout(Stdio::null()).status().expect("paybus migrate");
        assert!(migrated.success(), "paybus migrate: {migrated}");
        world
    }

    /// A connection to the broker.
    pub async fn broker(&self) -> Connection {
        Connection::connect(&self.amqp, ConnectionProperties::default()).await.expect("RabbitMQ")
    }

    /// A connection to the run's database.
    pub async fn database(&self) -> Client {
        client(&self.database).await
    }

    /// Starts the floor.
    pub fn floor(&self, gateway: &str) -> Program {
        // What paybus makes of it.
        let prefetch = (self.concurrency * 3 / 2).min(2000).to_string();
        let child = Command::new(std::env::current_exe().expect("this program"))
            .args(["floor", &self.amqp, &self.database, gateway, &self.prefix, &prefetch])
            .spawn()
            .expect("the floor");
        Program { child, http: None }
    }

    /// Starts a worker.
    pub fn worker(&self) -> Program {
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let http = port.expect("a port").to_string();
        let child = self.paybus("worker").env("PAYBUS__HTTP__LISTEN", &http).spawn().expect("paybus worker");
        Program { child, http: Some(http) }
    }

    fn paybus(&self, command: &str) -> Command {
        let mut paybus = Command::new(env!("CARGO_BIN_EXE_paybus"));
        paybus.arg(command).env("PAYBUS_CONFIG", &self.config).env("PAYBUS__DATABASE__URL", &self.database);
        // For PAYBUS__DATABASE__POOLER=transaction, what a pooler costs the database.
        paybus.env("PAYBUS__DATABASE__MIGRATE_URL", &self.database);
        paybus.env("PAYBUS__LOG__FILTER", "warn");
        paybus
    }

    /// Waits until every event is marked as sent, and tells how many payments are confirmed there.
    pub async fn settled(&self, payments: usize) -> i64 {
        let client = self.database().await;
        let deadline = Instant::now() + Duration::from_secs(10);
        let count = async |sql: &str| client.query_one(sql, &[]).await.expect("a count").get::<_, i64>(0);
        let events = i64::try_from(payments * 2).expect("few enough");
        while count("SELECT count(*) FROM paybus.sent").await < events && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        count("SELECT count(*) FROM paybus.payments WHERE status = 'confirmed' AND variant = 'bench'").await
    }

    /// Takes everything away again.
    pub async fn clear(self) {
        let connection = self.broker().await;
        let channel = connection.create_channel().await.expect("a channel");
        let of_variant = ["commands", "inbound"].map(|kind| format!("{}.{kind}.{VARIANT}", self.prefix));
        let others =
            ["unroutable", "unrouted", "dead", "unanswered", "bench"].map(|kind| format!("{}.{kind}", self.prefix));
        for queue in of_variant.into_iter().chain(others) {
            channel.queue_delete(queue.into(), lapin::options::QueueDeleteOptions::default()).await.expect("deleted");
        }
        let sql = format!("DROP DATABASE {} WITH (FORCE)", self.prefix);
        client(&variable("PAYBUS__DATABASE__URL")).await.batch_execute(&sql).await.expect("dropped");
        std::fs::remove_file(&self.config).expect("removed");
    }
}

impl Program {
    /// Its process id.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until a worker says that it is ready.
    pub async fn ready(&self) {
        let Some(http) = &self.http else { return };
        loop {
            let answer = reqwest::get(format!("http://{http}/readyz")).await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).expect("killed");
    }
}

/// The value of a variable that scripts/with-services sets.
pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run this by `make bench`"))
}

/// A connection by URL.
pub async fn client(url: &str) -> Client {
    let config: Config = url.parse().expect("a PostgreSQL URL");
    let (client, connection) = config.connect(NoTls).await.expect("PostgreSQL");
    tokio::spawn(connection);
    client
}

/// The URL of another database on the same server.
fn sibling(url: &str, name: &str) -> String {
    let (start, query) = url.split_once('?').map_or((url, String::new()), |(start, rest)| (start, format!("?{rest}")));
    let server = start.rsplit_once('/').map_or(start, |(server, _)| server);
    format!("{server}/{name}{query}")
}
