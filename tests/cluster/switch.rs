//! An address behind which the server changes, as with a virtual IP address or a proxy at a failover.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// An address that leads to one server now and to another one later.
pub struct Switch {
    url: String,
    target: watch::Sender<Target>,
}

#[derive(Debug, Clone)]
struct Target {
    address: String,
    /// How often connections were closed.
    ends: u32,
}

impl Switch {
    /// Starts one that leads to the server of this address.
    pub async fn to(url: &str) -> Switch {
        let address = address(url);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let own = listener.local_addr().expect("an address").to_string();
        let url = url.replacen(&address, &own, 1);
        let (target, now) = watch::channel(Target { address, ends: 0 });
        tokio::spawn(carry_all(listener, now));
        Switch { url, target }
    }

    /// The address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// New connections lead to this server; existing ones stay.
    pub fn lead_to(&self, url: &str) {
        self.target.send_modify(|target| target.address = address(url));
    }

    /// Closes all connections.
    pub fn end_connections(&self) {
        self.target.send_modify(|target| target.ends += 1);
    }
}

/// Host and port.
fn address(url: &str) -> String {
    let (_, place) = url.rsplit_once('@').expect("a user");
    place.split_once('/').expect("a path").0.to_owned()
}

async fn carry_all(listener: TcpListener, target: watch::Receiver<Target>) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut target = target.clone();
        let now = target.borrow_and_update().clone();
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(&now.address).await else { return };
            tokio::select! {
                carried = copy_bidirectional(&mut near, &mut far) => drop(carried),
                ended = target.wait_for(|target| target.ends > now.ends) => drop(ended),
            }
        });
    }
}
