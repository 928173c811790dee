//! A PgBouncer between the workers and the database, which lends its few connections for one transaction at a time.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::files::root;
use super::ports::free_port;
use super::skip::skip;
use super::wait::{START, within};
use super::world::World;

/// A running PgBouncer; it ends with its test.
pub struct Pooler {
    child: Child,
    directory: PathBuf,
    url: String,
}

impl Pooler {
    /// Starts one with so many connections to the world's database; nothing where none can be had.
    pub async fn start(world: &World, connections: u32) -> Option<Pooler> {
        let found = Command::new(root().join("scripts/pooler")).output().expect("scripts/pooler");
        let program = String::from_utf8_lossy(&found.stdout).trim().to_owned();
        if program.is_empty() {
            skip("there is no PgBouncer here, and Debian's package cannot be had");
            return None;
        }
        let url = world.settings()["database.url"].clone();
        let (user, place) = url.split_once("://").and_then(|(_, rest)| rest.split_once('@')).expect("a user");
        let (address, database) = place.split_once('/').expect("a database");
        let (host, port) = address.split_once(':').expect("a port");
        let listen = free_port();
        // It refuses to run as root, and another account gets to no directory of ours.
        let directory = std::env::temp_dir().join(format!("paybus-pgbouncer-{database}"));
        std::fs::create_dir_all(&directory).expect("a directory");
        let file = directory.join("pgbouncer.ini");
        let settings = format!(
            "[databases]\n{database} = host={host} port={port} dbname={database}\n\
             [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {listen}\nunix_socket_dir =\nauth_type = any\n\
             pool_mode = transaction\ndefault_pool_size = {connections}\nmax_client_conn = 200\n"
        );
        // `any` takes every client for the user that the entry names.
        let settings = settings.replace(&format!("dbname={database}"), &format!("dbname={database} user={user}"));
        std::fs::write(&file, settings).expect("its settings");
        let child = start(&program, &file);
        let pooler = Pooler { child, directory, url: format!("postgres://{user}@127.0.0.1:{listen}/{database}") };
        within(START, "the pooler", async || match tokio_postgres::connect(&pooler.url, tokio_postgres::NoTls).await {
            Ok(_) => Ok(()),
            Err(error) => Err(error.to_string()),
        })
        .await;
        Some(pooler)
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        &self.url
    }
}

fn start(program: &str, file: &Path) -> Child {
    let mut command = Command::new(program);
    if is_root() {
        command.args(["-u", "nobody"]);
    }
    command.arg(file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().expect("PgBouncer starts")
}

fn is_root() -> bool {
    let id = Command::new("id").arg("-u").output().expect("id");
    id.stdout.trim_ascii() == b"0"
}

impl Drop for Pooler {
    fn drop(&mut self) {
        // It may be gone already.
        drop(self.child.kill());
        drop(self.child.wait());
        drop(std::fs::remove_dir_all(&self.directory));
    }
}
