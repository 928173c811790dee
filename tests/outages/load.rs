//! Commands that keep coming while the services go away and return, and what must hold for all of them at the end.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use crate::support::wait::within;
use crate::support::{Command, Setup, Worker, World};

/// How long a worker may take to recover: the longest pause between two attempts to connect is five seconds.
const RECOVERY: Duration = Duration::from_secs(40);

/// A world under load.
pub struct Load {
    pub world: World,
    workers: Vec<Worker>,
}

/// Lets two workers run while commands keep coming and `outage` happens.
pub async fn under_load(outage: impl AsyncFnOnce(&Load)) {
    let world = setup().build().await;
    let workers = vec![world.worker().await, world.worker().await];
    Load::new(world, workers).during(outage).await;
}

/// The setup of a world for a load test.
pub fn setup() -> Setup {
    // If a charge is stored late because its worker was the last to find the database again, its refund waits.
    Setup::new().alone().set("variants.http.concurrency", "8").set("worker.unknown_payment_grace", "40s")
}

impl Load {
    /// A world of [`setup`] whose workers are ready.
    pub fn new(world: World, workers: Vec<Worker>) -> Load {
        world.gateway.set_latency(Duration::from_millis(20));
        Load { world, workers }
    }

    /// Keeps commands coming while `outage` happens. After that everything is ready again, every command is answered,
    /// nothing was charged twice, and no event was lost.
    pub async fn during(self, outage: impl AsyncFnOnce(&Load)) {
        let over = AtomicBool::new(false);
        let troubling = async {
            self.goes_on().await;
            outage(&self).await;
            self.is_ready().await;
            self.goes_on().await;
            over.store(true, Ordering::Relaxed);
        };
        let (commands, ()) = tokio::join!(publish(&self.world, &over), troubling);
        self.settles(&commands).await;
        self.world.check_books().await;
    }

    /// Waits until more calls were made.
    pub async fn goes_on(&self) {
        let before = self.world.gateway.calls().len();
        within(RECOVERY, "more calls", async || {
            let calls = self.world.gateway.calls().len();
            if calls >= before + 30 { Ok(()) } else { Err(format!("{calls} calls, before were {before}")) }
        })
        .await;
    }

    /// Waits until every worker reports that it is not ready, with this text in its reason.
    pub async fn is_not_ready(&self, why: &str) {
        for worker in &self.workers {
            within(RECOVERY, "the worker to say that it is not ready", async || match worker.get("/readyz").await? {
                (503, text) if text.contains(why) => Ok(()),
                (status, text) => Err(format!("{status} {text}, expected {why:?}")),
            })
            .await;
        }
    }

    /// Waits until every worker is ready again.
    pub async fn is_ready(&self) {
        for worker in &self.workers {
            within(RECOVERY, "the worker to be ready again", async || match worker.get("/readyz").await? {
                (200, _) => Ok(()),
                (_, text) => Err(text),
            })
            .await;
        }
    }

    async fn settles(&self, commands: &[Command]) {
        within(Duration::from_secs(240), "all commands to be settled", async || {
            let sql = "SELECT count(*), count(*) FILTER (WHERE state = 'settled') FROM operations";
            let row = &self.world.query(sql, &[]).await[0];
            let (stored, settled): (i64, i64) = (row.get(0), row.get(1));
            if settled == commands.len() as i64 {
                Ok(())
            } else {
                Err(format!("{settled} of {} are settled, {stored} are stored", commands.len()))
            }
        })
        .await;
        println!("{} commands, {} calls", commands.len(), self.world.gateway.calls().len());
        for pair in commands.chunks(2) {
            let effects = self.world.gateway.effects(pair[0].payment);
            let kinds: Vec<&str> = effects.iter().map(|effect| effect.kind).collect();
            assert_eq!(kinds, ["charge", "refund"], "{}", pair[0].payment);
        }
    }
}

/// Publishes until the end; whatever the broker did not confirm is published again.
async fn publish(world: &World, over: &AtomicBool) -> Vec<Command> {
    let mut all = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let charges: Vec<Command> = (0..4).map(|_| Command::charge("http", "10.00", "EUR")).collect();
        let pairs = charges.into_iter().flat_map(|charge| {
            let refund = charge.then("payment.refund", json!({"amount": "3.00"}));
            [charge, refund]
        });
        let pairs: Vec<Command> = pairs.collect();
        world.publish_all(&pairs).await;
        all.extend(pairs);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    all
}
