//! The body of a request, which may still be arriving.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};

use super::connections::Connection;

/// A body that tells its connection when it is complete: until then the connection may be closed for another one.
#[derive(Debug)]
pub(super) struct Arriving {
    body: Incoming,
    connection: Arc<Connection>,
}

impl Arriving {
    /// Wraps the body of the request that just began on this connection.
    pub(super) fn new(body: Incoming, connection: Arc<Connection>) -> Arriving {
        let arriving = Arriving { body, connection };
        arriving.report_end();
        arriving
    }

    fn report_end(&self) {
        if self.body.is_end_stream() {
            self.connection.answering();
        }
    }
}

impl Body for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        match &frame {
            None => self.connection.answering(),
            Some(_) => self.report_end(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
