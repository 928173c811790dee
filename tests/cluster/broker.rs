//! A node of the broker's cluster goes away under load and returns.

use std::net::TcpListener;

use crate::answers::go_on;
use crate::load::{Load, setup};
use crate::services::{Services, hosts};
use crate::support::gate::Gate;
use crate::support::{Worker, WorkerSetup};

/// Kills a node that workers are connected to and that leads a queue. The workers' address also has a gate to another
/// node, and the given extra host.
async fn a_node_is_killed_under_load(services: &Services, queue: &str, also: Option<&str>) {
    let world = setup().build().await;
    services.lead(2, &world.bus.queue(queue)).await;
    let doomed = services.node(2, "url").await;
    // Closed at first, so that the workers connect to the node that will be killed.
    let other = Gate::closed(&services.node(3, "url").await).await;
    let mut urls = vec![doomed.as_str(), other.url()];
    urls.extend(also);
    let any = WorkerSetup::default().set("amqp.url", &hosts(&urls)).set("amqp.connect_timeout", "2s");
    let workers = vec![world.worker_with(any.clone()).await, world.worker_with(any).await];
    let load = Load::new(world, workers.clone());
    load.during(async |load| {
        other.open();
        services.node(2, "kill").await;
        go_on(load, "the node is gone").await;
        load.is_ready().await;
        // The number depends on what is published before another leader is elected.
        println!("{} messages were nacked", nacks(&workers).await);
        services.node(2, "start").await;
        go_on(load, "the node is back").await;
    })
    .await;
}

/// Workers reconnect before another leader is elected: RabbitMQ then nacks everything on their new channels as long as
/// the node is away.
#[tokio::test]
async fn the_leader_of_a_subscribers_queue_is_killed_under_load() {
    let Some(services) = Services::alone().await else { return };
    a_node_is_killed_under_load(&services, "test", None).await;
}

/// One of the hosts accepts connections and says nothing: it costs its own timeout, and no more.
#[tokio::test]
async fn the_leader_of_a_command_queue_is_killed_and_a_host_is_silent_under_load() {
    let Some(services) = Services::alone().await else { return };
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("amqp://nobody@{}/", silent.local_addr().expect("an address"));
    a_node_is_killed_under_load(&services, "commands.http", Some(&url)).await;
}

async fn nacks(workers: &[Worker]) -> i64 {
    let mut all = 0;
    for worker in workers {
        all += worker.count("paybus_publish_nacks_total").await;
    }
    all
}
