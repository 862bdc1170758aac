//! A channel as a byte stream of tokio: reads and writes wait, `shutdown` is the end, dropping breaks it off.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Alive;
use crate::link::Label;
use crate::link::session::{ChannelError, ChannelStats};

/// One of the streams of a link, full duplex; `tokio::io::split` parts it.
///
/// `shutdown` ends the own direction (the other side reads its end after all bytes); dropping a channel that was not
/// shut down breaks it off at both sides. What was written before a shutdown goes over also after the drop.
pub struct Channel {
    link: Arc<Alive>,
    id: u32,
    label: Label,
    finished: bool,
}

impl Channel {
    pub(super) fn new(link: Arc<Alive>, id: u32, label: Label) -> Self {
        Self { link, id, label, finished: false }
    }

    /// What it is for.
    pub fn label(&self) -> Label {
        self.label
    }

    /// Its numbers.
    pub fn stats(&self) -> ChannelStats {
        self.link.shared.with(|state, _| state.session.stats(|id, _| id == self.id))
    }
}

fn to_io(error: &ChannelError) -> Error {
    let kind = match error {
        ChannelError::Reset => ErrorKind::ConnectionReset,
        _ => ErrorKind::ConnectionAborted,
    };
    Error::new(kind, error.to_string())
}

impl AsyncRead for Channel {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        self.link.shared.with(|state, _| match state.session.read(self.id, buf.initialize_unfilled()) {
            Ok(Some(count)) => {
                buf.advance(count);
                Poll::Ready(Ok(()))
            }
            Ok(None) => {
                state.readers.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            Err(error) => Poll::Ready(Err(to_io(&error))),
        })
    }
}

impl AsyncWrite for Channel {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.link.shared.with(|state, _| match state.session.write(self.id, buf) {
            Ok(0) => {
                state.writers.insert(self.id, cx.waker().clone());
                Poll::Pending
            }
            Ok(count) => Poll::Ready(Ok(count)),
            Err(error) => Poll::Ready(Err(to_io(&error))),
        })
    }

    /// Nothing is held back, so there is nothing to do.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        if !self.finished {
            self.finished = true;
            let finished = self.link.shared.with(|state, _| state.session.finish(self.id));
            return Poll::Ready(finished.map_err(|error| to_io(&error)));
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.link.shared.with(|state, _| {
            state.session.release(self.id);
            state.readers.remove(&self.id);
            state.writers.remove(&self.id);
        });
    }
}
