//! One connection to the broker: opens it within a timeout, notices its end, and closes it.

pub mod guard;
pub(crate) mod hosts;
pub mod reconnecting;
pub mod refusal;

use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::StreamExt;
use lapin::tcp::{AMQPUriTcpExt, AsyncTcpStream, RustlsConnector};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, ConnectionProperties, Event};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

use super::{BusError, BusSettings, bounded, describe};
use crate::hosts::shuffled;
use crate::tls::{TlsFiles, Verify, client_config};
use guard::{BODY_READ_MAX, Frames, Guard};
use refusal::login;

/// How often a connection is checked, whether or not lapin sends events.
const LOOK: Duration = Duration::from_millis(250);

/// The largest frame of a connection that only publishes, in bytes: far larger than our headers, and not below what
/// RabbitMQ 4.1 requires (8192).
const PUBLISHING_FRAME: u32 = 32 * 1024;

/// How long closing a connection may take.
const FAREWELL: Duration = Duration::from_secs(5);

/// One open connection.
#[derive(Debug)]
pub struct Connection {
    lapin: lapin::Connection,
    socket: Option<TcpStream>,
    timeout: Duration,
    abandoned: OnceLock<String>,
    abandon: Notify,
}

/// The state of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectionState {
    /// Connected and open.
    Connected,
    /// Connected, but the broker accepts no messages because it is short of memory or disk.
    Blocked,
    /// Not connected, and why; it is being retried.
    Disconnected(String),
}

/// Connects, and appears as `paybus@host/pid <role>` in the broker's list of connections.
///
/// # Errors
/// An address or TLS file cannot be used, the broker refuses the connection, or none answers in time.
pub async fn connect(settings: &BusSettings, role: &str) -> Result<Connection, BusError> {
    dial_any(settings, role, addresses(settings)?, u64::MAX).await
}

/// Connects to read messages of others. Of a body that is too large only the size is read, so that it takes no memory,
/// and the message is marked.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_read(settings: &BusSettings, role: &str) -> Result<Connection, BusError> {
    dial_any(settings, role, addresses(settings)?, BODY_READ_MAX).await
}

/// Connects to publish only, with small frames: lapin keeps 32 of the largest in memory, in each direction. A consumer
/// cannot do so: it must accept what others send, and the headers of a message must fit into one frame.
///
/// # Errors
/// As [`connect`].
pub async fn connect_to_publish(settings: &BusSettings, role: &str) -> Result<Connection, BusError> {
    let mut uris = addresses(settings)?;
    uris.iter_mut().for_each(|uri| uri.query.frame_max = Some(PUBLISHING_FRAME));
    dial_any(settings, role, uris, u64::MAX).await
}

/// Tries the hosts in random order, each with its own timeout.
async fn dial_any(
    settings: &BusSettings,
    role: &str,
    uris: Vec<AMQPUri>,
    body_max: u64,
) -> Result<Connection, BusError> {
    let mut left = uris.len();
    let mut last = BusError::Url("it has no host");
    for uri in shuffled(uris) {
        left -= 1;
        let (host, port) = (uri.authority.host.clone(), uri.authority.port);
        match dial(settings, role, uri, body_max).await {
            Ok(connection) => return Ok(connection),
            Err(error @ BusError::Tls(_)) => return Err(error),
            Err(error) => {
                if left > 0 {
                    info!(host, port, error = describe(&error), "cannot connect to this broker; trying the next one");
                }
                last = error;
            }
        }
    }
    Err(last)
}

async fn dial(settings: &BusSettings, role: &str, uri: AMQPUri, body_max: u64) -> Result<Connection, BusError> {
    let tls = match uri.scheme {
        AMQPScheme::AMQPS => Some(connector(settings).await?),
        AMQPScheme::AMQP => None,
    };
    let doing = "connecting to the broker";
    let runtime = lapin::runtime::default_runtime().map_err(|source| BusError::Broker { doing, source })?;
    let properties = ConnectionProperties::default().with_connection_name(name(role).into());
    // A second handle on the socket: lapin's thread cannot be told to give up on a peer that accepts the connection and
    // then stays silent, and would live as long as that peer.
    let socket: Arc<OnceLock<TcpStream>> = Arc::default();
    let handle = Arc::clone(&socket);
    let frame_max = uri.query.frame_max;
    let opening = lapin::Connection::connector(
        uri,
        guard::runtime(),
        async move |uri: AMQPUri, _| {
            let plain = AMQPUri { scheme: AMQPScheme::AMQP, ..uri.clone() };
            let stream = plain.connect_async(&runtime).await?;
            if let AsyncTcpStream::Plain(tcp) = &stream {
                let copy = tcp.get_ref().as_fd().try_clone_to_owned()?;
                drop(handle.set(TcpStream::from(copy)));
            }
            let stream = match &tls {
                Some(connector) => stream.into_rustls(connector, &uri.authority.host).await?,
                None => stream,
            };
            Ok(AsyncTcpStream::Plain(Guard::new(stream, Frames::new(frame_max).bodies_up_to(body_max))))
        },
        properties,
    );
    match bounded(doing, settings.connect_timeout, opening).await {
        Ok(lapin) => Ok(Connection {
            lapin,
            socket: socket.get().and_then(|socket| socket.try_clone().ok()),
            timeout: settings.connect_timeout,
            abandoned: OnceLock::new(),
            abandon: Notify::new(),
        }),
        Err(error) => {
            hang_up(socket.get());
            Err(login(error))
        }
    }
}

/// Returns the address of each host, with our heartbeat.
fn addresses(settings: &BusSettings) -> Result<Vec<AMQPUri>, BusError> {
    let mut uris = hosts::addresses(settings.url.expose_secret()).ok_or(BusError::Url("it cannot be parsed"))?;
    let seconds = u16::try_from(settings.heartbeat.as_secs()).unwrap_or(u16::MAX);
    uris.iter_mut().for_each(|uri| uri.query.heartbeat = Some(seconds.max(1)));
    Ok(uris)
}

/// Reads the files on a blocking thread: the platform's certificate store takes milliseconds.
async fn connector(settings: &BusSettings) -> Result<RustlsConnector, BusError> {
    let tls = settings.tls.clone();
    let config = tokio::task::spawn_blocking(move || {
        let files = TlsFiles { ca: tls.ca.as_deref(), cert: tls.cert.as_deref(), key: tls.key.as_deref() };
        client_config(files, Verify::Full)
    });
    let config = config.await.map_err(|_| BusError::Closed)??;
    Ok(RustlsConnector::from(config))
}

fn name(role: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = match host.trim() {
        "" => "unknown",
        host => host,
    };
    format!("paybus@{host}/{} {role}", std::process::id())
}

fn hang_up(socket: Option<&TcpStream>) {
    if let Some(Err(error)) = socket.map(|socket| socket.shutdown(Shutdown::Both)) {
        debug!(%error, "the socket was already closed");
    }
}

impl Connection {
    /// Opens a new channel.
    ///
    /// # Errors
    /// The connection is lost, or the broker does not answer.
    pub async fn channel(&self) -> Result<Channel, BusError> {
        bounded("opening a channel", self.timeout, self.lapin.create_channel()).await
    }

    /// Returns whether the connection can be used, as far as is known.
    pub fn is_alive(&self) -> bool {
        self.abandoned.get().is_none() && self.lapin.status().connected()
    }

    /// Returns whether the broker accepts no messages because it is short of memory or disk.
    pub fn is_blocked(&self) -> bool {
        self.lapin.status().blocked()
    }

    /// Returns how long to wait for an answer of the broker.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Gives the connection up for a reason that lapin does not see. A new one replaces it.
    pub(crate) fn abandon(&self, reason: String) {
        if self.abandoned.set(reason).is_ok() {
            self.abandon.notify_waiters();
        }
    }

    /// Closes the connection, and shuts down its socket in case the broker does not answer: a blocked connection would
    /// never send its close.
    pub async fn close(&self) {
        let goodbye = self.lapin.close(200, "goodbye".into());
        match timeout(FAREWELL.min(self.timeout), goodbye).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the connection was already closed"),
            Err(_) => debug!("the broker did not confirm connection.close in time"),
        }
        hang_up(self.socket.as_ref());
    }

    /// Waits for the end and returns its reason. Meanwhile reports whether the broker blocks.
    pub(super) async fn ended(&self, blocks: impl Fn(bool)) -> String {
        let mut events = std::pin::pin!(self.lapin.events_listener());
        let mut last = "the connection was lost".to_owned();
        loop {
            if let Some(reason) = self.abandoned.get() {
                return reason.clone();
            }
            if !self.lapin.status().connected() {
                return last;
            }
            blocks(self.is_blocked());
            tokio::select! {
                // An event gives the reason, but the status decides: not every end has an event.
                Some(event) = events.next() => if let Event::Error(error) = event {
                    last = describe(&error);
                },
                () = self.abandon.notified() => {}
                () = sleep(LOOK) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str) -> BusSettings {
        BusSettings {
            url: url.into(),
            prefix: "paybus".to_owned(),
            declare: true,
            tls: super::super::BusTls::default(),
            confirm_timeout: Duration::from_secs(1),
            heartbeat: Duration::from_millis(10_500),
            connect_timeout: Duration::from_millis(300),
            delivery_limit: 100,
        }
    }

    #[test]
    fn the_address_keeps_host_and_gets_our_heartbeat() {
        let check = |url: &str, host: &str, port: u16| {
            let uri = addresses(&settings(url)).expect("an address").remove(0);
            assert_eq!(uri.authority.host, host, "{url}");
            assert_eq!(uri.authority.port, port, "{url}");
            assert_eq!(uri.query.heartbeat, Some(10), "{url}");
        };
        check("amqp://guest:guest@127.0.0.1:5672/%2f", "127.0.0.1", 5672);
        check("amqps://broker.example/payments?heartbeat=3", "broker.example", 5671);
        check("amqp://guest:guest@[::1]:5673/%2f", "::1", 5673);
        check("amqp://[fe80::1]", "fe80::1", 5672);
    }

    proptest::proptest! {
        /// Any text is parsed or rejected, and a rejected one is not repeated: it may contain a password.
        #[test]
        fn any_text_is_an_address_or_refused(
            text in proptest::prop_oneof![
                1 => proptest::prelude::any::<String>(),
                4 => "amqps?(://|:|)(u:hunter2@)?[a-z0-9:,%.@\\[\\]/\u{e9}-]{0,24}(\\?[a-z_=&0-9%]{0,20})?",
            ],
        ) {
            match addresses(&settings(&text)) {
                Ok(uris) => proptest::prop_assert!(uris.iter().all(|uri| uri.query.heartbeat == Some(10))),
                Err(error) => {
                    let described = describe(&error);
                    proptest::prop_assert!(!described.contains("hunter2") && described.len() < 200, "{}", described);
                }
            }
        }
    }

    #[test]
    fn an_error_never_repeats_the_address() {
        let error = addresses(&settings("mailto:secret@example.org")).expect_err("no address");
        assert!(!describe(&error).contains("secret"));
    }

    #[tokio::test]
    async fn a_silent_peer_is_given_up_and_hung_up() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let connecting = settings(&format!("amqp://127.0.0.1:{port}"));
        let peer = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut heard = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut heard).await.map(|_| heard)
        });
        let error = connect(&connecting, "test").await.expect_err("no broker");
        assert!(matches!(error, BusError::TimedOut { .. }), "{error:?}");
        let heard = timeout(Duration::from_secs(5), peer).await.expect("hung up").expect("no panic");
        assert_eq!(heard.expect("a clean end"), b"AMQP\x00\x00\x09\x01");
    }

    /// A TLS server for "localhost" that accepts any client with a certificate of `authority`, reads one AMQP header
    /// and closes.
    fn tls_server(
        authority: &rcgen::CertifiedIssuer<'static, rcgen::KeyPair>,
    ) -> (u16, std::thread::JoinHandle<Vec<u8>>) {
        use std::io::Read;
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, authority).expect("a certificate");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(authority.der().clone()).expect("an authority");
        let clients =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(clients.build().expect("a verifier"))
            .with_single_cert(vec![certificate.der().clone()], key.into())
            .expect("a server");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a listener");
        let port = listener.local_addr().expect("an address").port();
        let serving = std::thread::spawn(move || {
            let (stream, _) = listener.accept().expect("a client");
            let session = rustls::ServerConnection::new(Arc::new(config)).expect("a session");
            let mut heard = vec![0; 8];
            rustls::StreamOwned::new(session, stream).read_exact(&mut heard).expect("a header");
            heard
        });
        (port, serving)
    }

    #[tokio::test]
    async fn amqps_trusts_the_ca_file_and_shows_the_client_certificate() {
        let mut params = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let authority = rcgen::CertifiedIssuer::self_signed(params, key).expect("an authority");
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(vec!["worker".to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &authority).expect("a certificate");
        let directory = std::env::temp_dir().join(format!("paybus-amqps-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&directory).expect("a directory");
        let write = |name: &str, text: String| {
            let path = directory.join(name);
            std::fs::write(&path, text).expect("a file");
            Some(path)
        };
        let (port, serving) = tls_server(&authority);
        let settings = BusSettings {
            tls: super::super::BusTls {
                ca: write("ca", authority.pem()),
                cert: write("cert", certificate.pem()),
                key: write("key", key.serialize_pem()),
            },
            connect_timeout: Duration::from_secs(5),
            ..settings(&format!("amqps://localhost:{port}"))
        };
        connect(&settings, "test").await.expect_err("no broker");
        assert_eq!(serving.join().expect("a handshake with a client certificate"), b"AMQP\x00\x00\x09\x01");
        std::fs::remove_dir_all(directory).expect("removed");
    }
}
