//! The database goes away, alone or together with the broker.

use std::time::{Duration, Instant};

use crate::load::under_load;
use crate::services::Service;
use crate::support::{Command, Setup};

#[tokio::test]
async fn the_database_restarts_under_load() {
    if !Service::Database.may_be_stopped() {
        return;
    }
    under_load(async |load| {
        Service::Database.run("stop").await;
        load.is_not_ready("database: ").await;
        Service::Database.run("start").await;
    })
    .await;
}

#[tokio::test]
async fn the_database_crashes_under_load() {
    if !Service::Database.may_be_stopped() {
        return;
    }
    under_load(async |load| {
        for _ in 0..3 {
            Service::Database.run("kill").await;
            Service::Database.run("start").await;
            load.goes_on().await;
        }
    })
    .await;
}

/// All connections are cut again and again: now and then an answer is lost, whether its commit succeeded or not.
#[tokio::test]
async fn database_connections_are_cut_under_load() {
    under_load(async |load| {
        for _ in 0..40 {
            let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
                 WHERE datname = current_database() AND pid <> pg_backend_pid()";
            load.world.query(sql, &[]).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

#[tokio::test]
async fn broker_and_database_crash_together_under_load() {
    if !(Service::Broker.may_be_stopped() && Service::Database.may_be_stopped()) {
        return;
    }
    under_load(async |load| {
        tokio::join!(Service::Broker.run("kill"), Service::Database.run("kill"));
        load.is_not_ready("database: ").await;
        load.is_not_ready("publisher: ").await;
        tokio::join!(Service::Database.run("start"), Service::Broker.run("start"));
    })
    .await;
}

/// A drain without a database ends after its grace period; answers that could not be stored are requested again, under
/// their key.
#[tokio::test]
async fn a_drain_without_a_database_ends_with_its_grace() {
    if !Service::Database.may_be_stopped() {
        return;
    }
    let world = Setup::new().alone().set("worker.drain", "2s").build().await;
    let worker = world.worker().await;
    let charges: Vec<Command> = (0..20).map(|_| Command::charge("http", "10.00", "EUR")).collect();
    world.gateway.set_latency(Duration::from_secs(1));
    world.publish_all(&charges).await;
    for charge in &charges {
        world.gateway.wait_for_calls(charge.payment, 1).await;
    }
    Service::Database.run("kill").await;
    let begun = Instant::now();
    worker.term();
    let status = worker.wait().await;
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_millis(5_500), "{:?}", begun.elapsed());
    Service::Database.run("start").await;
    world.gateway.set_latency(Duration::ZERO);
    let _worker = world.worker().await;
    for charge in &charges {
        assert_eq!(world.final_event(charge).await.status(), "confirmed");
        assert_eq!(world.gateway.charges(charge.payment).len(), 1);
    }
    world.check_books().await;
}
