//! Encrypted connections to the broker and the database: who is trusted, who is refused, and how a worker identifies
//! itself.
//!
//! The servers are the private ones of scripts/with-services, with certificates from these tests. Other servers are
//! left alone.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use tokio::task::spawn_blocking;

use crate::support::skip::needed;
use crate::support::wait::within;
use crate::support::{Command, WorkerSetup, World};

/// A certificate authority for one test.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
struct Identity {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

impl Authority {
    fn new(name: &str) -> Authority {
        let mut parameters = CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority(CertifiedIssuer::self_signed(parameters, KeyPair::generate().unwrap()).unwrap())
    }

    /// For a server of this name, or for a client.
    fn issue(&self, name: &str, purpose: ExtendedKeyUsagePurpose) -> Identity {
        let mut parameters = CertificateParams::new(vec![name.to_owned()]).unwrap();
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.extended_key_usages = vec![purpose];
        let key = KeyPair::generate().unwrap();
        Identity { certificate: parameters.signed_by(&key, &self.0).unwrap(), key }
    }
}

/// The files of a worker.
struct Files {
    directory: PathBuf,
}

impl Files {
    fn new(world: &World) -> Files {
        let directory = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-tls", world.bus.prefix));
        std::fs::create_dir_all(&directory).unwrap();
        Files { directory }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.directory.join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.directory));
    }
}

/// A worker's files for TLS connections. The server's name is `localhost`, and it requests a certificate.
struct Client {
    ours: String,
    other: String,
    cert: String,
    key: String,
    _files: Files,
}

/// The authorities and identities of a test.
struct Parties {
    authority: Authority,
    server: Identity,
    client: Client,
}

fn parties(world: &World) -> Parties {
    let files = Files::new(world);
    let (authority, other) = (Authority::new("ours"), Authority::new("other"));
    let server = authority.issue("localhost", ExtendedKeyUsagePurpose::ServerAuth);
    let client = authority.issue("paybus", ExtendedKeyUsagePurpose::ClientAuth);
    let client = Client {
        ours: files.write("ours.pem", &authority.0.pem()),
        other: files.write("other.pem", &other.0.pem()),
        cert: files.write("client.pem", &client.certificate.pem()),
        key: files.write("client.key", &client.key.serialize_pem()),
        _files: files,
    };
    Parties { authority, server, client }
}

impl Client {
    /// A worker that connects to `url`, trusts `ca`, and presents its certificate or not.
    fn worker(&self, section: &str, url: &str, ca: Option<&str>, shows: bool) -> WorkerSetup {
        let mut setup = WorkerSetup::default().set(&format!("{section}.url"), url);
        if let Some(ca) = ca {
            setup = setup.set(&format!("{section}.tls.ca"), ca);
        }
        if shows {
            setup = setup.set(&format!("{section}.tls.cert"), &self.cert).set(&format!("{section}.tls.key"), &self.key);
        }
        setup
    }
}

/// Checks that a worker works from end to end with this setup.
async fn works(world: &World, setup: WorkerSetup) {
    let worker = world.worker_with(setup).await;
    let answer = world.run(&Command::charge("http", "10.00", "EUR")).await;
    assert_eq!(answer.status(), "confirmed");
    worker.drain().await;
}

/// Checks that a worker does not begin with this setup and gives the reason. It waits, because certificates may be
/// renewed.
async fn is_refused(world: &World, setup: WorkerSetup, why: &str) {
    let worker = world.spawn_worker(setup);
    within(Duration::from_secs(20), "the worker to say why it waits", async || {
        let (status, body) = worker.get("/readyz").await?;
        if status == 503 && body.to_lowercase().contains(why) { Ok(()) } else { Err(format!("{status}: {body}")) }
    })
    .await;
    worker.drain().await;
}

#[tokio::test]
async fn the_broker_by_tls() {
    let Some(rabbitmqctl) = needed("PAYBUS_TEST_RABBITMQCTL") else { return };
    let world = World::new().await;
    let Parties { authority, server, client } = parties(&world);
    let port = listen(rabbitmqctl, &authority, &server).await;
    let url = |host: &str| {
        let plain = &world.settings()["amqp.url"];
        let (user, place) = plain.strip_prefix("amqp://").expect("a plain address").split_once('@').expect("a user");
        format!("amqps://{user}@{host}:{port}/{}", place.split_once('/').expect("a virtual host").1)
    };
    let (localhost, number) = (url("localhost"), url("127.0.0.1"));
    works(&world, client.worker("amqp", &localhost, Some(&client.ours), true)).await;
    let check = async |url: &str, ca: Option<&str>, shows: bool, why: &str| {
        is_refused(&world, client.worker("amqp", url, ca, shows), why).await;
    };
    check(&number, Some(&client.ours), true, "not valid for name").await;
    check(&localhost, Some(&client.other), true, "unknownissuer").await;
    check(&localhost, None, true, "unknownissuer").await;
    // A port without TLS.
    let plaintext = world.settings()["amqp.url"].replace("amqp://", "amqps://");
    check(&plaintext, Some(&client.ours), true, "the server does not speak tls: correct the port").await;
    // With TLS 1.3 the server refuses a client after the handshake: it may close the connection before its reason is
    // read.
    check(&localhost, Some(&client.ours), false, "connecting to the broker failed").await;
    world.check_books().await;
}

/// Makes the broker listen with TLS and require a certificate; returns the port.
async fn listen(rabbitmqctl: String, authority: &Authority, server: &Identity) -> u16 {
    // Reserved and released: the broker uses it next.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let binary = |bytes: &[u8]| format!("base64:decode(\"{}\")", STANDARD.encode(bytes));
    let eval = format!(
        "rabbit_networking:ensure_ssl(),
         rabbit_networking:start_ssl_listener({{\"127.0.0.1\", {port}}},
             [{{cacerts, [{}]}}, {{cert, {}}}, {{key, {{'PrivateKeyInfo', {}}}}},
              {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}], 2).",
        binary(authority.0.der()),
        binary(server.certificate.der()),
        binary(&server.key.serialize_der()),
    );
    let asked = spawn_blocking(move || std::process::Command::new(rabbitmqctl).args(["eval", &eval]).output());
    let output = asked.await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    port
}

#[tokio::test]
async fn the_database_by_tls() {
    let Some(_) = needed("PAYBUS_TEST_PG_CTL") else { return };
    let world = World::new().await;
    let Parties { authority, server, client } = parties(&world);
    let url = |host: &str| world.settings()["database.url"].replace("127.0.0.1", host);
    let (localhost, number) = (url("localhost"), url("127.0.0.1"));
    let worker = |url: &str, mode: &str, ca: Option<&str>, shows: bool| {
        client.worker("database", url, ca, shows).set("database.tls_mode", mode)
    };
    let (ours, other) = (Some(client.ours.as_str()), Some(client.other.as_str()));
    is_refused(&world, worker(&number, "require", None, false), "the server has no tls: set ssl = on").await;
    demand_certificates(&world, &authority, &server).await;
    works(&world, worker(&localhost, "verify-full", ours, true)).await;
    works(&world, worker(&number, "verify-ca", ours, true)).await;
    works(&world, worker(&number, "require", None, true)).await;
    is_refused(&world, worker(&number, "verify-full", ours, true), "not valid for name").await;
    is_refused(&world, worker(&localhost, "verify-full", other, true), "unknownissuer").await;
    is_refused(&world, worker(&localhost, "verify-ca", other, true), "unknownissuer").await;
    is_refused(&world, worker(&localhost, "verify-full", None, true), "unknownissuer").await;
    is_refused(&world, worker(&localhost, "verify-full", ours, false), "certificate").await;
    for sql in ["ALTER SYSTEM RESET ssl", "SELECT pg_reload_conf()"] {
        world.query(sql, &[]).await;
    }
    world.check_books().await;
}

/// Makes PostgreSQL speak TLS, and require a certificate from TLS clients of this test's database.
async fn demand_certificates(world: &World, authority: &Authority, server: &Identity) {
    let database = world.settings()["database.url"].rsplit_once('/').expect("a database").1;
    // The server writes its own files, because only it may read the key.
    let write = async |lines: &str, program: &str| {
        let sql = format!("COPY (SELECT regexp_split_to_table('{}', '\n')) TO PROGRAM '{program}'", lines.trim());
        world.query(&sql, &[]).await;
    };
    let file = |name: &str| format!("{database}-{name}");
    let (ca, cert, key) = (file("ca"), file("cert"), file("key"));
    write(&authority.0.pem(), &format!("cat >{ca}")).await;
    write(&server.certificate.pem(), &format!("cat >{cert}")).await;
    write(&server.key.serialize_pem(), &format!("umask 077; cat >{key}")).await;
    let rule = format!("hostssl {database} all all trust clientcert=verify-ca");
    write(&rule, "cat - pg_hba.conf >pg_hba.new; mv pg_hba.new pg_hba.conf").await;
    let settings = [("ssl_ca_file", ca.as_str()), ("ssl_cert_file", &cert), ("ssl_key_file", &key), ("ssl", "on")];
    for (name, value) in settings {
        world.query(&format!("ALTER SYSTEM SET {name} = '{value}'"), &[]).await;
    }
    world.query("SELECT pg_reload_conf()", &[]).await;
    within(Duration::from_secs(10), "PostgreSQL to speak TLS", async || {
        let on: String = world.value("SHOW ssl", &[]).await;
        if on == "on" { Ok(()) } else { Err(on) }
    })
    .await;
}
