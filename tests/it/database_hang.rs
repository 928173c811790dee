//! A database that no longer answers but does not close the connection: its host is gone, or a firewall dropped the
//! connection.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::wait::within;
use crate::support::{Command, Setup, WorkerSetup};

/// A route to the database that can stop carrying anything, as a network does: no connection is closed.
struct Way {
    url: String,
    /// Connections up to this number carry nothing.
    dead: watch::Sender<u32>,
    last: watch::Receiver<u32>,
    commits: Arc<Commits>,
}

/// Commits without an answer while everything else works, as when they wait for a missing standby.
#[derive(Default)]
struct Commits {
    hang: AtomicBool,
    /// When each commit that hung began.
    begun: Mutex<Vec<Instant>>,
}

impl Commits {
    /// Whether these bytes are a connection's first commit, which includes the statement's text and must hang.
    fn takes(&self, sent: &[u8]) -> bool {
        let text: &[u8] = b"payment_insert";
        let hangs = self.hang.load(Ordering::Relaxed) && sent.windows(text.len()).any(|part| part == text);
        if hangs {
            self.begun.lock().unwrap().push(Instant::now());
        }
        hangs
    }
}

impl Way {
    async fn to(url: &str) -> Way {
        let (server, database) = url.rsplit_once('/').expect("a database");
        let (user, address) = server.rsplit_once('@').expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{user}@{}/{database}", listener.local_addr().expect("an address"));
        let (dead, is_dead) = watch::channel(0);
        let (number, last) = watch::channel(0);
        let commits = Arc::default();
        tokio::spawn(carry_all(listener, address.to_owned(), number, is_dead, Arc::clone(&commits)));
        Way { url, dead, last, commits }
    }

    /// Existing connections carry nothing more; new ones work, as to another host at the same address.
    fn forget_connections(&self) {
        self.dead.send_replace(*self.last.borrow());
    }
}

async fn carry_all(
    listener: TcpListener,
    address: String,
    number: watch::Sender<u32>,
    dead: watch::Receiver<u32>,
    commits: Arc<Commits>,
) {
    let address: Arc<str> = address.into();
    while let Ok((near, _)) = listener.accept().await {
        number.send_modify(|number| *number += 1);
        let (this, address, dead) = (*number.borrow(), Arc::clone(&address), dead.clone());
        let commits = Arc::clone(&commits);
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(&*address).await else { return };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            let there = carry(this, near_read, far_write, dead.clone(), Some(commits));
            tokio::join!(there, carry(this, far_read, near_write, dead, None));
        });
    }
}

/// Carries one direction until its end; once the connection is dead, it discards everything, including the end.
async fn carry(
    this: u32,
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    dead: watch::Receiver<u32>,
    commits: Option<Arc<Commits>>,
) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if commits.as_ref().is_some_and(|commits| commits.takes(&buffer[..read])) {
            // Until the client gives up waiting for the answer.
            while from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
            return;
        }
        if *dead.borrow() >= this {
            if read == 0 {
                // Kept open until the end of the test.
                std::future::pending::<()>().await;
            }
            continue;
        }
        if read == 0 || to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_database_that_vanished_is_given_up_soon() {
    // Work that was waiting on the dead connections may be taken over by others meanwhile.
    let world = Setup::new().expects_relay().expects_takeovers().build().await;
    let way = Way::to(&world.settings()["database.url"]).await;
    let setup = WorkerSetup::default().set("database.url", &way.url).set("database.statement_timeout", "1s");
    let worker = world.worker_with(setup).await;
    world.run(&Command::charge("http", "10.00", "EUR")).await;
    way.forget_connections();
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    // A statement is abandoned after twice its timeout; some run one after the other.
    within(Duration::from_secs(20), "all charges over other connections", async || {
        let settled: i64 = world.value("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
        if settled == 21 { Ok(()) } else { Err(format!("{settled} are settled")) }
    })
    .await;
    world.final_events(&charges).await;
    for charge in &charges {
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    }
    within(Duration::from_secs(20), "the worker to be ready", async || match worker.get("/readyz").await? {
        (200, _) => Ok(()),
        (_, text) => Err(text),
    })
    .await;
    world.check_books().await;
}

/// Each abandoned commit may leave a connection open at the server, so not every commit task may continue to try.
#[tokio::test]
async fn commits_that_are_not_answered_are_tried_one_at_a_time() {
    let world = Setup::new().expects_relay().expects_takeovers().build().await;
    let way = Way::to(&world.settings()["database.url"]).await;
    way.commits.hang.store(true, Ordering::Relaxed);
    // A statement is abandoned after twice this time.
    let setup = WorkerSetup::default().set("database.url", &way.url).set("database.statement_timeout", "500ms");
    let _worker = world.worker_with(setup).await;
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    // The first ones were in progress concurrently when the first of them was abandoned.
    let begun = within(Duration::from_secs(30), "some tries", async || {
        let begun = way.commits.begun.lock().unwrap().clone();
        if begun.len() >= 7 { Ok(begun) } else { Err(format!("{} tries", begun.len())) }
    })
    .await;
    for pair in begun[2..].windows(2) {
        let between = pair[1] - pair[0];
        assert!(between > Duration::from_millis(800), "two were under way at once, {between:?} apart");
    }
    way.commits.hang.store(false, Ordering::Relaxed);
    within(Duration::from_secs(20), "all charges", async || {
        let settled: i64 = world.value("SELECT count(*) FROM operations WHERE state = 'settled'", &[]).await;
        if settled == 20 { Ok(()) } else { Err(format!("{settled} are settled")) }
    })
    .await;
    world.final_events(&charges).await;
    world.check_books().await;
}
