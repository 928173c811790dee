//! A way to the broker or the database that a test opens and closes: while it is closed there is nothing behind it.

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// A way to a service.
pub struct Gate {
    url: String,
    is_open: watch::Sender<bool>,
}

impl Gate {
    /// A closed one to the service of an address with a path.
    pub async fn closed(url: &str) -> Gate {
        let (scheme, rest) = url.split_once("://").expect("a scheme");
        let (authority, path) = rest.split_once('/').expect("a path");
        let (user, address) = authority.rsplit_once('@').expect("a user");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("{scheme}://{user}@{}/{path}", listener.local_addr().expect("an address"));
        let (is_open, opened) = watch::channel(false);
        tokio::spawn(carry_all(listener, address.to_owned(), opened));
        Gate { url, is_open }
    }

    /// The address of the service by this way.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Lets connections through.
    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    /// Ends all connections, and lets none through.
    pub fn close(&self) {
        self.is_open.send_replace(false);
    }
}

async fn carry_all(listener: TcpListener, address: String, mut opened: watch::Receiver<bool>) {
    while let Ok((mut near, _)) = listener.accept().await {
        if !*opened.borrow_and_update() {
            continue;
        }
        let (address, mut opened) = (address.clone(), opened.clone());
        tokio::spawn(async move {
            let Ok(mut far) = TcpStream::connect(&address).await else { return };
            tokio::select! {
                carried = copy_bidirectional(&mut near, &mut far) => drop(carried),
                closed = opened.wait_for(|is_open| !*is_open) => drop(closed),
            }
        });
    }
}
