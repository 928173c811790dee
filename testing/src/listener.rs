//! A server on a thread of its own, which can be stopped with everything that it holds, and started again on its port.

use std::net::SocketAddr;

use axum::Router;
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;

/// Listens at an address; where the port is free to choose, the address says which it became.
pub fn serve(name: &str, address: SocketAddr, router: Router) -> (Runtime, SocketAddr) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name(name).enable_all().build().unwrap();
    let (listener, address) = {
        let _inside = runtime.enter();
        let socket = TcpSocket::new_v4().unwrap();
        // The port's earlier connections may still linger.
        socket.set_reuseaddr(true).unwrap();
        socket.bind(address).unwrap();
        let address = socket.local_addr().unwrap();
        (socket.listen(4_096).unwrap(), address)
    };
    runtime.spawn(async move { axum::serve(listener, router).await.unwrap() });
    (runtime, address)
}
