//! The open connections: how many there may be, and which one is closed for another.
//!
//! When the limit is reached, a new connection closes the one that has been idle longest. A client that opens many and
//! sends no request closes its own in this way, while a client that sends one at once, such as a probe, is answered. A
//! request that has arrived only in part counts as idle since it began.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The most open connections: few of the files that a process may open, because charging needs some too.
pub(super) const OPEN_MAX: u32 = 256;

/// The most open connections of one address, so that one client cannot close those of all others.
pub(super) const OPEN_OF_ONE_MAX: usize = 128;

/// All open connections.
#[derive(Debug)]
pub(super) struct Connections {
    permits: Arc<Semaphore>,
    open: Mutex<Open>,
    end: CancellationToken,
}

#[derive(Debug, Default)]
struct Open {
    next: u64,
    connections: HashMap<u64, OpenConnection>,
}

#[derive(Debug)]
struct OpenConnection {
    peer: IpAddr,
    /// Since when the client has sent no request, or only part of one; `None` while it is being answered.
    idle: Option<Instant>,
    cut: CancellationToken,
}

impl Connections {
    /// Creates an empty set. All connections are closed when the token is cancelled.
    pub(super) fn new(end: CancellationToken) -> Arc<Connections> {
        let permits = Arc::new(Semaphore::new(OPEN_MAX as usize));
        Arc::new(Connections { permits, open: Mutex::default(), end })
    }

    /// Admits one more connection; `None` if all are being answered.
    pub(super) async fn admit(self: &Arc<Connections>, peer: IpAddr) -> Option<Arc<Connection>> {
        if !self.has_room(peer) {
            return None;
        }
        // A connection that was told to close gives its permit back as soon as its socket is closed.
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        let cut = self.end.child_token();
        let mut open = self.open.lock();
        let number = open.next;
        open.next += 1;
        open.connections.insert(number, OpenConnection { peer, idle: Some(Instant::now()), cut: cut.clone() });
        drop(open);
        Some(Arc::new(Connection { number, all: Arc::clone(self), cut, _permit: permit }))
    }

    /// Returns whether there is room for one more connection, closing an idle one if necessary.
    fn has_room(&self, peer: IpAddr) -> bool {
        let mut open = self.open.lock();
        if open.connections.values().filter(|connection| connection.peer == peer).count() >= OPEN_OF_ONE_MAX {
            return open.close_longest_idle(|connection| connection.peer == peer);
        }
        open.connections.len() < OPEN_MAX as usize || open.close_longest_idle(|_| true)
    }

    /// Closes the connection that has been idle longest, if any is idle.
    pub(super) fn close_longest_idle(&self) {
        self.open.lock().close_longest_idle(|_| true);
    }

    /// Waits until no connection is open.
    pub(super) async fn all_closed(&self) {
        drop(self.permits.acquire_many(OPEN_MAX).await);
    }
}

impl Open {
    fn close_longest_idle(&mut self, among: impl Fn(&OpenConnection) -> bool) -> bool {
        let among = self.connections.iter().filter(|(_, connection)| among(connection));
        let longest = among.filter_map(|(number, connection)| Some((connection.idle?, *number))).min();
        match longest.and_then(|(_, number)| self.connections.remove(&number)) {
            Some(connection) => {
                connection.cut.cancel();
                true
            }
            None => false,
        }
    }
}

/// An open connection. Dropping it releases its permit.
#[derive(Debug)]
pub(super) struct Connection {
    number: u64,
    all: Arc<Connections>,
    cut: CancellationToken,
    _permit: OwnedSemaphorePermit,
}

impl Connection {
    /// Waits until the connection must be closed.
    pub(super) async fn cut(&self) {
        self.cut.cancelled().await;
    }

    /// Marks that a request begins to arrive. It counts as answered when the returned guard is dropped.
    pub(super) fn asking(self: &Arc<Connection>) -> Asking {
        self.set_idle(Some(Instant::now()));
        Asking(Arc::clone(self))
    }

    /// Marks that the whole request has arrived: the connection is not closed for another one until it is answered.
    pub(super) fn answering(&self) {
        self.set_idle(None);
    }

    fn set_idle(&self, idle: Option<Instant>) {
        if let Some(connection) = self.all.open.lock().connections.get_mut(&self.number) {
            connection.idle = idle;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.all.open.lock().connections.remove(&self.number);
    }
}

/// A request that has not been answered yet.
#[derive(Debug)]
pub(super) struct Asking(Arc<Connection>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.set_idle(Some(Instant::now()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(number: u32) -> IpAddr {
        IpAddr::from(number.to_be_bytes())
    }

    #[tokio::test]
    async fn one_address_closes_its_own_and_none_that_is_being_answered() {
        let all = Connections::new(CancellationToken::new());
        let other = all.admit(peer(1)).await.unwrap();
        let mut own = Vec::new();
        for _ in 0..OPEN_OF_ONE_MAX {
            own.push(all.admit(peer(2)).await.unwrap());
        }
        let answered = own[0].asking();
        own[0].answering();
        assert!(all.admit(peer(2)).await.is_some());
        let cut: Vec<bool> = own.iter().map(|connection| connection.cut.is_cancelled()).collect();
        assert_eq!((cut[0], cut[1], cut[2], other.cut.is_cancelled()), (false, true, false, false));
        drop(answered);
    }

    #[tokio::test]
    async fn a_request_that_is_still_arriving_gives_way() {
        let all = Connections::new(CancellationToken::new());
        let mut open = Vec::new();
        for number in 0..OPEN_MAX {
            let connection = all.admit(peer(number)).await.unwrap();
            open.push((connection.asking(), connection));
        }
        let admitting = tokio::spawn({
            let all = Arc::clone(&all);
            async move { all.admit(peer(OPEN_MAX)).await }
        });
        open[0].1.cut().await;
        open.remove(0);
        assert!(admitting.await.unwrap().is_some());
    }

    #[tokio::test]
    async fn where_all_are_being_answered_another_one_is_refused_until_one_ends() {
        let all = Connections::new(CancellationToken::new());
        let mut open = Vec::new();
        for number in 0..OPEN_MAX {
            let connection = all.admit(peer(number)).await.unwrap();
            let asking = connection.asking();
            connection.answering();
            open.push((asking, connection));
        }
        assert!(all.admit(peer(OPEN_MAX)).await.is_none());
        open.pop();
        assert!(all.admit(peer(OPEN_MAX)).await.is_some());
        open.clear();
        all.all_closed().await;
    }
}
