//! Connects to a database with several hosts: in random order, unless the address has `load_balance_hosts=disable`, and
//! each with its own timeout. tokio-postgres bounds only how long opening a socket takes: a host that hangs later would
//! use up the time of all.

use std::time::Duration;

use deadpool_postgres::Connect;
use futures_util::future::BoxFuture;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_postgres::config::LoadBalanceHosts;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, Config, Error, Socket};
use tracing::{debug, warn};

use crate::error_chain::chain;
use crate::hosts::shuffled;

/// Connects to any of several hosts.
pub(in crate::store) struct AnyHost<T> {
    /// One configuration per host.
    pub hosts: Vec<Config>,
    pub tls: T,
    /// Timeout for each.
    pub answer_timeout: Duration,
}

impl<T> Connect for AnyHost<T>
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send + Sync,
    T::TlsConnect: Send + Sync,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, whole: &Config) -> BoxFuture<'_, Result<(Client, JoinHandle<()>), Error>> {
        let mut hosts = self.hosts.clone();
        if whole.get_load_balance_hosts() == LoadBalanceHosts::Random {
            hosts = shuffled(hosts);
        }
        // The pool's create timeout bounds this one.
        let last = hosts.pop().unwrap_or_else(|| whole.clone());
        Box::pin(async move {
            for host in hosts {
                let reason = match timeout(self.answer_timeout, host.connect(self.tls.clone())).await {
                    Ok(Ok((client, connection))) => return Ok((client, drive(connection))),
                    Ok(Err(error)) => chain(&error),
                    Err(_) => format!("no answer within {:?}", self.answer_timeout),
                };
                let address = (host.get_hosts(), host.get_ports());
                // A standby ends up here when a server that takes writes is required.
                debug!(?address, error = reason, "cannot connect to this database host; trying the next one");
            }
            let (client, connection) = last.connect(self.tls.clone()).await?;
            Ok((client, drive(connection)))
        })
    }
}

/// Runs a connection until it ends.
fn drive<S>(connection: tokio_postgres::Connection<Socket, S>) -> JoinHandle<()>
where
    tokio_postgres::Connection<Socket, S>: Future<Output = Result<(), Error>> + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            warn!(error = chain(&error), "lost a connection to the database");
        }
    })
}
