//! The pieces of a long request: where they come from, and what becomes of them.

use tracing::warn;

use super::Connection;
use crate::buffer::{BufferPool, PageBuf};
use crate::extent::Extent;
use crate::nbd::request::{CommandKind, Request};
use crate::nbd::wire::errno_to_nbd;
use crate::server::outbox::{Body, Cost, Message};

impl Connection {
    /// Begins the next piece of the long request, if one may begin: gives that of a read, and has that of a write
    /// received.
    pub(super) fn begin_piece(&mut self, pool: &mut BufferPool) -> Option<Request> {
        let request = self.large.as_mut()?.next_piece()?;
        self.unanswered.requests += 1;
        self.unanswered.bytes += super::buffer_bytes(&request.command);
        if request.payload_bytes() == 0 {
            return Some(request);
        }
        self.inbox.begin_payload(request, pool.take(request.payload_bytes() as usize));
        None
    }

    /// Takes in how a piece ended. The buffer goes to the client, or back to the pool.
    pub fn finish_piece(
        &mut self,
        piece: Extent,
        result: Result<(), i32>,
        buf: Option<PageBuf>,
        pool: &mut BufferPool,
    ) {
        let cost = Cost { requests: 1, bytes: piece.len as usize };
        let large = self.large.as_mut().expect("a long request is there until its last piece is done");
        large.finish(result);
        match buf {
            Some(data) if result.is_ok() && large.kind() == CommandKind::Read => {
                let head = large.head(piece, &self.replies);
                // Past what is parked: this is what it waits for.
                self.outbox.push(Message::new(head.as_deref().unwrap_or_default(), Body::Page(data), cost));
            }
            buf => {
                buf.into_iter().for_each(|buf| pool.give(buf));
                self.settle(cost);
            }
        }
        if self.large.as_ref().is_some_and(|large| large.is_over()) {
            self.finish_large();
        }
    }

    fn finish_large(&mut self) {
        let Some(large) = self.large.take() else { return };
        match large.errno() {
            Some(errno) if large.is_mid_chunk() => {
                let reason = std::io::Error::from_raw_os_error(errno);
                warn!(connection = %self.id, "disconnecting a client: a read failed when a part of it was answered: {reason}");
                self.settle(Cost { requests: 1, bytes: 0 });
                self.give_up();
            }
            Some(errno) => {
                let reason = std::io::Error::from_raw_os_error(errno).to_string();
                self.reply_error(large.cookie(), large.kind(), errno_to_nbd(errno), &reason, 0);
            }
            // Its last chunk has said so.
            None if large.kind() == CommandKind::Read => self.settle(Cost { requests: 1, bytes: 0 }),
            None => self.reply_done(large.cookie(), large.kind(), 0),
        }
        self.parked.drain(..).for_each(|message| self.outbox.push(message));
    }

    /// Queues a reply; one that would come into the middle of a chunk waits for its end.
    pub(super) fn push(&mut self, message: Message) {
        if self.large.as_ref().is_some_and(|large| large.is_mid_chunk()) {
            self.parked.push_back(message);
        } else {
            self.outbox.push(message);
        }
    }
}
