//! A database that does not answer any more and does not hang up either: its host is gone, or a firewall forgot us.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use crate::support::wait::within;
use crate::support::{Command, Setup, WorkerSetup};

/// A way to the database that can stop carrying anything, as a network does: no connection is closed.
struct Way {
    url: String,
    /// Connections of this number and before carry nothing.
    dead: watch::Sender<u32>,
    last: watch::Receiver<u32>,
}

impl Way {
    async fn to(url: &str) -> Way {
        let (server, database) = url.rsplit_once('/').expect("a database");
        let (user, address) = server.rsplit_once('@').expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{user}@{}/{database}", listener.local_addr().expect("an address"));
        let (dead, is_dead) = watch::channel(0);
        let (number, last) = watch::channel(0);
        tokio::spawn(carry_all(listener, address.to_owned(), number, is_dead));
        Way { url, dead, last }
    }

    /// Carries nothing more over the connections there are; new ones are carried, as to another host at the same address.
    fn forget_connections(&self) {
        self.dead.send_replace(*self.last.borrow());
    }
}

async fn carry_all(listener: TcpListener, address: String, number: watch::Sender<u32>, dead: watch::Receiver<u32>) {
    let address: Arc<str> = address.into();
    while let Ok((near, _)) = listener.accept().await {
        number.send_modify(|number| *number += 1);
        let (this, address, dead) = (*number.borrow(), Arc::clone(&address), dead.clone());
        tokio::spawn(async move {
            let Ok(far) = TcpStream::connect(&*address).await else { return };
            let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
            tokio::join!(carry(this, near_read, far_write, dead.clone()), carry(this, far_read, near_write, dead));
        });
    }
}

/// Carries one direction until its end; once the connection is dead it swallows everything, the end too.
async fn carry(this: u32, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, dead: watch::Receiver<u32>) {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await.unwrap_or(0);
        if *dead.borrow() >= this {
            if read == 0 {
                // Held open for as long as the test lasts.
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
    // What was asked over the connections that are gone may be left to others meanwhile.
    let world = Setup::new().expects_relay().expects_takeovers().build().await;
    let way = Way::to(&world.settings()["database.url"]).await;
    let setup = WorkerSetup::default().set("database.url", &way.url).set("database.statement_timeout", "1s");
    let worker = world.worker_with(setup).await;
    world.run(&Command::charge("http", "10.00", "EUR")).await;
    way.forget_connections();
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.publish_all(&charges).await;
    // A statement is given up after twice its time; some are done one after the other.
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
