//! The runtime that is passed to lapin: tokio, with guarded connections. lapin accepts no stream but its reactor's.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures_io::{AsyncRead, AsyncWrite};
use futures_util::Stream;
use lapin::tcp::AsyncTcpStream;

use super::{Frames, Guard};

/// Returns the runtime of one connection. Must be called within a tokio runtime.
pub(in crate::bus) fn runtime() -> Runtime<RuntimeParts<Tokio, GuardedReactor<Tokio>>> {
    let tokio = Tokio::current();
    Runtime::new(RuntimeParts::new(tokio.clone(), GuardedReactor(tokio)))
}

/// A reactor whose TCP connections are guarded.
#[derive(Debug, Clone)]
pub(in crate::bus) struct GuardedReactor<R>(R);

impl<R: Reactor> Reactor for GuardedReactor<R> {
    type TcpStream = Guard<AsyncTcpStream<R::TcpStream>>;
    type Sleep = R::Sleep;

    fn register<H: Read + Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> io::Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, after: Duration) -> Self::Sleep {
        self.0.sleep(after)
    }

    fn interval(&self, every: Duration) -> impl Stream<Item = Instant> + Send + 'static {
        self.0.interval(every)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Guard::new(AsyncTcpStream::Plain(connecting.await?), Frames::new(None))) }
    }
}
