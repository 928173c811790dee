//! The database's primary or its standby goes away. Every commit waits for the standby, so nothing may be lost.

use std::time::Duration;

use crate::answers::go_on;
use crate::load::{Load, setup};
use crate::services::{Server, Services, hosts};
use crate::support::wait::within;
use crate::support::worker::paybus;
use crate::support::{Setup, WorkerSetup, World};
use crate::switch::Switch;

/// Connections that were opened meanwhile stay with the standby. One worker refuses them; the other may use any server.
#[tokio::test]
async fn the_address_leads_to_the_standby_for_a_while_under_load() {
    let Some(services) = Services::alone().await else { return };
    let world = setup().build().await;
    let primary = services.server(Server::Primary, "url").await;
    let standby = services.server(Server::Standby, "url").await;
    let switch = Switch::to(&world.settings()["database.url"]).await;
    let database = |url: &str| WorkerSetup::default().set("database.url", url);
    let any = format!("{}?target_session_attrs=any", switch.url());
    let workers = vec![world.worker_with(database(switch.url())).await, world.worker_with(database(&any)).await];
    Load::new(world, workers)
        .during(async |load| {
            switch.lead_to(&standby);
            switch.end_connections();
            load.is_not_ready("database: ").await;
            switch.lead_to(&primary);
            go_on(load, "the address leads to the primary").await;
        })
        .await;
}

/// Everything that was acknowledged is there: the standby's books agree with the gateway's ledger.
#[tokio::test]
async fn the_primary_is_killed_and_the_standby_promoted_under_load() {
    let Some(services) = Services::alone().await else { return };
    let primary = services.server(Server::Primary, "url").await;
    let standby = services.server(Server::Standby, "url").await;
    let url = format!("{}?target_session_attrs=read-write", hosts(&[primary.as_str(), standby.as_str()]));
    let world = setup().set("database.url", &url).build().await;
    let workers = vec![world.worker().await, world.worker().await];
    Load::new(world, workers)
        .during(async |load| {
            services.server(Server::Primary, "kill").await;
            load.is_not_ready("database: ").await;
            services.server(Server::Standby, "promote").await;
            go_on(load, "the promotion").await;
        })
        .await;
}

/// Everything can be read and nothing is stored while the standby is away.
#[tokio::test]
async fn commits_that_wait_for_a_standby_are_reported_under_load() {
    let Some(services) = Services::alone().await else { return };
    let world = setup().build().await;
    let workers = vec![world.worker().await, world.worker().await];
    let load = Load::new(world, workers.clone());
    load.during(async |load| {
        services.server(Server::Standby, "kill").await;
        load.is_not_ready("commits: no commit for ").await;
        for worker in &workers {
            // The subject of PaybusCommitsStalled.
            let stalled = worker.metric("paybus_commits_stalled_seconds").await;
            assert!(stalled >= 10.0, "{stalled} s");
        }
        services.server(Server::Standby, "start").await;
        go_on(load, "the standby is back").await;
    })
    .await;
}

#[tokio::test]
async fn check_warns_of_what_a_failover_would_lose() {
    let Some(services) = Services::alone().await else { return };
    let world = Setup::new().alone().build().await;
    assert!(!check(&world).await.contains("standby"), "commits wait for the connected standby");
    set(&world, "SET synchronous_standby_names = ''").await;
    warns(&world, "no commit waits for it").await;
    set(&world, "RESET synchronous_standby_names").await;
    services.server(Server::Standby, "kill").await;
    warns(&world, "none is attached").await;
    services.server(Server::Standby, "start").await;
}

async fn set(world: &World, what: &str) {
    world.query(&format!("ALTER SYSTEM {what}"), &[]).await;
    world.query("SELECT pg_reload_conf()", &[]).await;
}

async fn warns(world: &World, of: &str) {
    within(Duration::from_secs(10), of, async || {
        let said = check(world).await;
        if said.contains(of) { Ok(()) } else { Err(said) }
    })
    .await;
}

/// Returns the output of `paybus check`.
async fn check(world: &World) -> String {
    let mut program = paybus(world.settings());
    program.arg("check");
    let ran = tokio::task::spawn_blocking(move || program.output()).await.unwrap().expect("it runs");
    String::from_utf8_lossy(&ran.stdout).into_owned()
}
