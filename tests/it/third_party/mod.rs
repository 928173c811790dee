//! Checks by third-party code: what `scripts/third-party` installs from npm and PyPI. If a part of it is missing, its
//! tests are skipped; nothing else depends on them.
//!
//! - `steady`: our requests, checked strictly against Stripe's published description.
//! - `sdk`: Stripe's own SDK, as the client of our in-memory Stripe and as the reference for signatures.
//! - `localstripe`: payments from command to event at an independent, stateful imitation of Stripe.

mod localstripe;
mod sdk;
pub mod steady;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::support::ports::free_port;
use crate::support::skip::skip;
use crate::support::wait::{START, within};

/// A file that `scripts/third-party` installs; if it is missing, the test is skipped.
fn installed(part: &str, file: &str) -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("third-party");
    let path = installed.join(part).join(file);
    // The stamp is written last.
    if installed.join(format!("{part}.stamp")).exists() && path.exists() {
        return Some(path);
    }
    skip(&format!("{part} is not installed; see `scripts/third-party`"));
    None
}

/// A third-party server, until it is dropped.
struct Server {
    child: Child,
    url: String,
}

impl Server {
    /// Starts it on a free port, which `arguments` puts on its command line, and waits until it listens.
    async fn start(program: &Path, arguments: impl FnOnce(u16) -> Vec<String>) -> Server {
        let port = free_port();
        let mut command = Command::new(program);
        command.args(arguments(port)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the server starts");
        let server = Server { child, url: format!("http://127.0.0.1:{port}") };
        within(START, "the server to listen", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await).await;
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
