//! A publisher that writes its own AMQP: properties, headers and routing keys as no client library sends them.

use lapin::uri::AMQPUri;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::wait::START;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// The flags of properties, in their order.
pub const HEADERS: u16 = 1 << 13;
pub const CORRELATION_ID: u16 = 1 << 10;
pub const EXPIRATION: u16 = 1 << 8;
pub const MESSAGE_ID: u16 = 1 << 7;

/// A connection with one channel in confirm mode.
pub struct RawPublisher {
    stream: TcpStream,
    frame_max: u32,
}

impl RawPublisher {
    /// Connects to the broker of an `amqp://` address.
    pub async fn connect(url: &str) -> RawPublisher {
        RawPublisher::try_connect(url).await.expect("the broker")
    }

    /// The same, of a broker that may be away.
    pub async fn try_connect(url: &str) -> Result<RawPublisher, String> {
        let uri: AMQPUri = url.parse()?;
        let address = (uri.authority.host.as_str(), uri.authority.port);
        let stream = TcpStream::connect(address).await.map_err(text)?;
        let mut publisher = RawPublisher { stream, frame_max: 0 };
        publisher.log_in(&uri).await?;
        publisher.call(1, [20, 10], &[0], [20, 11]).await?;
        publisher.call(1, [85, 10], &[0], [85, 11]).await?;
        Ok(publisher)
    }

    async fn log_in(&mut self, uri: &AMQPUri) -> Result<(), String> {
        self.stream.write_all(b"AMQP\x00\x00\x09\x01").await.map_err(text)?;
        self.answer([10, 10]).await?;
        let user = &uri.authority.userinfo;
        let response = format!("\0{}\0{}", user.username, user.password);
        let login = [long(b""), short(b"PLAIN"), long(response.as_bytes()), short(b"en_US")].concat();
        let tune = self.call(0, [10, 11], &login, [10, 30]).await?;
        self.frame_max = u32::from_be_bytes(tune[2..6].try_into().expect("a size"));
        // The same limits, and no heartbeat.
        self.send_method(0, [10, 31], &[&tune[..6], &[0, 0]].concat()).await?;
        self.call(0, [10, 40], &[&short(uri.vhost.as_bytes())[..], &[0, 0]].concat(), [10, 41]).await.map(drop)
    }

    /// The largest frame that the broker takes, in bytes.
    pub fn frame_max(&self) -> usize {
        self.frame_max as usize
    }

    /// Publishes a message, and waits until the broker has it.
    pub async fn publish(&mut self, exchange: &str, routing_key: &[u8], properties: &[u8], body: &[u8]) {
        self.try_publish(exchange, routing_key, properties, body).await.expect("the broker");
    }

    /// The same, of a broker that may go away. Where it fails, the broker may have the message nevertheless, and the
    /// connection is of no more use.
    pub async fn try_publish(
        &mut self,
        exchange: &str,
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
    ) -> Result<(), String> {
        let arguments = [&[0, 0][..], &short(exchange.as_bytes()), &short(routing_key), &[0]].concat();
        self.send_method(1, [60, 40], &arguments).await?;
        let size = (body.len() as u64).to_be_bytes();
        self.send(HEADER, 1, &[&[0, 60, 0, 0][..], &size, properties].concat()).await?;
        for part in body.chunks(self.frame_max() - 8) {
            self.send(BODY, 1, part).await?;
        }
        self.answer([60, 80]).await.map(drop)
    }

    async fn call(
        &mut self,
        channel: u16,
        method: [u16; 2],
        arguments: &[u8],
        answer: [u16; 2],
    ) -> Result<Vec<u8>, String> {
        self.send_method(channel, method, arguments).await?;
        self.answer(answer).await
    }

    async fn send_method(&mut self, channel: u16, [class, method]: [u16; 2], arguments: &[u8]) -> Result<(), String> {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.send(METHOD, channel, &payload).await
    }

    async fn send(&mut self, kind: u8, channel: u16, payload: &[u8]) -> Result<(), String> {
        let head = [&[kind][..], &channel.to_be_bytes(), &(payload.len() as u32).to_be_bytes()].concat();
        self.stream.write_all(&[&head[..], payload, &[0xce]].concat()).await.map_err(text)
    }

    /// The arguments of the broker's next method, which must be this one.
    async fn answer(&mut self, [class, method]: [u16; 2]) -> Result<Vec<u8>, String> {
        let received = timeout(START, self.receive()).await.map_err(text)?.map_err(text)?;
        let ids = [class.to_be_bytes(), method.to_be_bytes()].concat();
        let arguments = received.strip_prefix(&ids[..]);
        arguments.map(<[u8]>::to_vec).ok_or_else(|| format!("no {class}.{method}: {}", received.escape_ascii()))
    }

    async fn receive(&mut self) -> std::io::Result<Vec<u8>> {
        loop {
            let mut head = [0; 7];
            self.stream.read_exact(&mut head).await?;
            let size = u32::from_be_bytes(head[3..].try_into().expect("a size"));
            let mut payload = vec![0; size as usize + 1];
            self.stream.read_exact(&mut payload).await?;
            payload.pop();
            if head[0] != HEARTBEAT {
                return Ok(payload);
            }
        }
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

/// The properties of a message: the values of these flags, which must be in their order.
pub fn properties(values: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let flags = values.iter().fold(0, |flags, (flag, _)| flags | flag);
    let values: Vec<u8> = values.iter().flat_map(|(_, value)| value.clone()).collect();
    [&flags.to_be_bytes()[..], &values].concat()
}

/// A text of up to 255 bytes.
pub fn short(text: &[u8]) -> Vec<u8> {
    [&[u8::try_from(text.len()).expect("a short text")], text].concat()
}

/// A longer text, or the entries of a table.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat()
}

/// An entry of a table, with the letter of its type.
pub fn entry(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [&short(name)[..], &[kind], value].concat()
}

/// Headers in which so many tables are nested.
pub fn nested(tables: usize) -> Vec<u8> {
    (0..tables).fold(long(b""), |table, _| long(&entry(b"a", b'F', &table)))
}
