//! The end of a world, whatever became of its test: nothing of it is left at the services, and what every test that ends
//! well must fulfil is looked at.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::bus;
use super::nets::Nets;
use super::worker::Worker;
use super::world::{World, client, world_client};

impl Drop for World {
    fn drop(&mut self) {
        // Where a test is over without a look at its books.
        let is_checked = self.nets_checked.load(Ordering::Relaxed) || std::thread::panicking();
        let nets = if is_checked { Nets::ALL } else { self.expected_nets() };
        let workers = std::mem::take(&mut *self.workers.lock().unwrap());
        if std::thread::panicking() {
            eprintln!("events:\n{}", self.lines());
            for worker in &workers {
                eprintln!("log of worker {}:\n{}", worker.pid(), worker.log());
            }
        }
        let (url, prefix, variants) = (self.bus.url.clone(), self.bus.prefix.clone(), self.variants());
        let (admin_url, database) = (self.admin_url.clone(), self.database.clone());
        let (own_url, nets) = (self.settings["database.url"].clone(), nets);
        // On a thread of its own: the test's runtime must not be blocked by itself.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let caught = tokio::time::timeout(Duration::from_secs(5), caught(nets, &workers, &own_url)).await;
                for worker in &workers {
                    worker.signal("KILL");
                }
                drop(workers);
                tokio::time::timeout(Duration::from_secs(20), clean(&admin_url, &database, &url, &prefix, &variants))
                    .await
                    .unwrap_or_else(|_| eprintln!("{database} is left at the database or the broker"));
                caught.unwrap_or_default()
            })
        });
        let caught = cleaning.join().unwrap_or_default();
        assert!(std::thread::panicking() || caught.is_empty(), "a safety net was needed: {caught:#?}");
        // In every test that ends well, whatever else it looks at.
        let wrong = self.log.wrong();
        assert!(std::thread::panicking() || wrong.is_empty(), "events that the contract does not know: {wrong:#?}");
        if !std::thread::panicking() && !self.keeps_logs.load(Ordering::Relaxed) {
            drop(std::fs::remove_dir_all(&self.directory));
        }
    }
}

async fn caught(nets: Nets, workers: &[Worker], url: &str) -> Vec<String> {
    match world_client(url).await {
        Ok(client) if nets != Nets::ALL => nets.caught(workers, &client).await,
        _ => Vec::new(),
    }
}

async fn clean(admin_url: &str, database: &str, url: &str, prefix: &str, variants: &[String]) {
    if let Ok(client) = client(admin_url).await {
        let dropping = format!("DROP DATABASE IF EXISTS {database} WITH (FORCE)");
        let dropped = client.batch_execute(&dropping).await;
        dropped.unwrap_or_else(|error| eprintln!("database {database} is left: {error}"));
    }
    let deleted = bus::delete(url, prefix, variants).await;
    deleted.unwrap_or_else(|error| eprintln!("queues {prefix}.* are left: {error}"));
}
