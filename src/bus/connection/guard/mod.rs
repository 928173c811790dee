//! Repairs what the broker sends before lapin parses it.
//!
//! A broker forwards messages that lapin's parser cannot handle. The parser recurses into nested headers until its
//! thread's stack overflows, which aborts the process; it closes the connection over a text that is not UTF-8, or over
//! a content header that is larger than a frame. When such a message is redelivered, it does so again. The guard sits
//! between the socket and lapin, leaves out what lapin cannot read and marks the message with its [`Flaw`]. A marked
//! message is never executed; it becomes a dead letter. docs/upstream.md describes the causes.
//!
//! A body that is too large is stopped here too: lapin would collect it in memory before anything could reject it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_io::{AsyncRead, AsyncWrite};

pub use self::flaw::{BODY_READ_MAX, Flaw, MARKER};
pub use self::frames::Frames;
pub(in crate::bus) use self::reactor::runtime;

mod flaw;
mod frames;
mod header;
mod marker;
mod method;
mod reactor;
mod table;

#[cfg(test)]
mod tests;

/// How many bytes are read at a time.
const READ_SIZE: usize = 64 * 1024;

/// A stream from which lapin reads only what its parser can handle. What lapin writes passes unchanged.
#[derive(Debug)]
pub(in crate::bus) struct Guard<S> {
    inner: S,
    frames: Frames,
    unchecked: Vec<u8>,
    checked: Vec<u8>,
    /// How many bytes of `checked` lapin has read.
    taken: usize,
}

impl<S> Guard<S> {
    /// Guards a stream from its first byte on; with TLS, the decrypted stream.
    pub(in crate::bus) fn new(inner: S, frames: Frames) -> Guard<S> {
        Guard { inner, frames, unchecked: vec![0; READ_SIZE], checked: Vec::new(), taken: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        // A frame may be held back until it is complete. Returning no bytes would mean that the broker has closed the
        // connection.
        while this.taken == this.checked.len() {
            this.checked.clear();
            this.taken = 0;
            let count = ready!(Pin::new(&mut this.inner).poll_read(cx, &mut this.unchecked))?;
            if count == 0 {
                return Poll::Ready(Ok(0));
            }
            this.frames.pass(&this.unchecked[..count], &mut this.checked);
        }
        let left = &this.checked[this.taken..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        this.taken += count;
        Poll::Ready(Ok(count))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().inner).poll_write_vectored(cx, parts)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_flush(cx)
    }

    fn poll_close(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().inner).poll_close(cx)
    }
}
