//! A wire to a service that a test can cut and mend, or let fall silent.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Whole,
    Cut,
    Silent,
}

/// A wire. It ends with the test.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    state: Arc<watch::Sender<State>>,
}

impl Wire {
    /// A wire to this host and port.
    pub async fn to(service: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a listener");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(watch::Sender::new(State::Whole));
        tokio::spawn(accept(listener, service.to_owned(), Arc::clone(&state)));
        Wire { address, state }
    }

    /// The near end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Every connection is lost, and none can be made.
    pub fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    /// What the service says no longer arrives; what is said to it does.
    pub fn silence(&self) {
        self.state.send_replace(State::Silent);
    }

    /// All is well again, but for connections that fell silent.
    pub fn restore(&self) {
        self.state.send_replace(State::Whole);
    }
}

async fn accept(listener: TcpListener, service: String, state: Arc<watch::Sender<State>>) {
    while let Ok((near, _)) = listener.accept().await {
        let mut now = state.subscribe();
        let is_whole = *now.borrow() == State::Whole;
        let Some(far) = (if is_whole { TcpStream::connect(&service).await.ok() } else { None }) else { continue };
        let ((near_read, near_write), (far_read, far_write)) = (near.into_split(), far.into_split());
        let said = pass(near_read, far_write, state.subscribe(), false);
        let heard = pass(far_read, near_write, state.subscribe(), true);
        tokio::spawn(async move {
            tokio::select! {
                () = said => {}
                () = heard => {}
                _ = now.wait_for(|state| *state == State::Cut) => {}
            }
        });
    }
}

/// Passes on what comes. Where a silent wire is one, what comes is lost from then on.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: watch::Receiver<State>, may_be_silent: bool) {
    let mut buffer = vec![0; 64 * 1024];
    let mut is_lost = false;
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        is_lost = is_lost || may_be_silent && *state.borrow() == State::Silent;
        if !is_lost && to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
