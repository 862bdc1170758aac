//! What one connection still has to send, in order.
//!
//! ```text
//! push ─► waiting ─► batch (at most 64 messages) ─► socket
//!                      └ does not move from slices() until handle_sent()
//! ```

use std::collections::VecDeque;

use crate::buffer::PageBuf;

/// The most messages that go out by one call.
pub const BATCH_MESSAGES_MAX: usize = 64;
/// The most slices that one batch has: a header and a body each.
pub const BATCH_SLICES_MAX: usize = 2 * BATCH_MESSAGES_MAX;
/// Room for the longest fixed part of a reply in bytes.
const HEAD_BYTES_MAX: usize = 32;

/// What follows a reply's fixed part.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    None,
    /// The data of a read.
    Page(PageBuf),
    /// Anything else.
    Bytes(Vec<u8>),
}

impl Body {
    fn as_slice(&self) -> &[u8] {
        match self {
            Body::None => &[],
            Body::Page(buf) => buf,
            Body::Bytes(bytes) => bytes,
        }
    }
}

/// One reply.
#[derive(Debug)]
pub struct Message {
    head: [u8; HEAD_BYTES_MAX],
    head_len: usize,
    body: Body,
    /// What the request still costs its connection until this is sent.
    pub cost: Cost,
}

/// A share of a connection's bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests.
    pub requests: usize,
    /// Bytes of buffers.
    pub bytes: usize,
}

impl Message {
    /// A message of a fixed part and a body.
    pub fn new(head: &[u8], body: Body, cost: Cost) -> Self {
        let mut message = Self { head: [0; HEAD_BYTES_MAX], head_len: head.len(), body, cost };
        message.head[..head.len()].copy_from_slice(head);
        message
    }

    fn len(&self) -> usize {
        self.head_len + self.body.as_slice().len()
    }

    /// The body, when the message has gone.
    pub fn into_body(self) -> Body {
        self.body
    }
}

/// The messages of one connection.
#[derive(Debug)]
pub struct Outbox {
    waiting: VecDeque<Message>,
    batch: Vec<Message>,
    /// Bytes of the batch's first message that are gone.
    gone: usize,
}

impl Outbox {
    /// Nothing to send.
    pub fn new() -> Self {
        Self { waiting: VecDeque::new(), batch: Vec::with_capacity(BATCH_MESSAGES_MAX), gone: 0 }
    }

    /// Queues a message.
    pub fn push(&mut self, message: Message) {
        self.waiting.push_back(message);
    }

    /// True if everything is gone.
    pub fn is_empty(&self) -> bool {
        self.batch.is_empty() && self.waiting.is_empty()
    }

    /// Fills the batch up. Only while nothing of it is being sent.
    pub fn load(&mut self) {
        let room = BATCH_MESSAGES_MAX - self.batch.len();
        self.batch.extend(self.waiting.drain(..room.min(self.waiting.len())));
    }

    /// What is to be sent now, without empty slices.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        let parts = self
            .batch
            .iter()
            .flat_map(|message| [&message.head[..message.head_len], message.body.as_slice()]);
        let mut skip = self.gone;
        parts.filter_map(move |part| {
            let rest = &part[skip.min(part.len())..];
            skip -= part.len() - rest.len();
            (!rest.is_empty()).then_some(rest)
        })
    }

    /// Takes in that the first `n` bytes of the slices are gone; hands every finished message on.
    ///
    /// # Panics
    /// If `n` is more than the batch has.
    pub fn handle_sent(&mut self, n: usize, mut finished: impl FnMut(Message)) {
        self.gone += n;
        let mut count = 0;
        for message in &self.batch {
            if self.gone < message.len() {
                break;
            }
            self.gone -= message.len();
            count += 1;
        }
        assert!(count < self.batch.len() || self.gone == 0, "more sent than there was");
        self.batch.drain(..count).for_each(&mut finished);
    }

    /// Empties the box; hands every message on.
    pub fn clear(&mut self, mut dropped: impl FnMut(Message)) {
        self.gone = 0;
        self.batch.drain(..).chain(self.waiting.drain(..)).for_each(&mut dropped);
    }
}

#[cfg(test)]
mod tests {
    use super::{BATCH_MESSAGES_MAX, Body, Cost, Message, Outbox};

    fn bytes(outbox: &Outbox) -> Vec<u8> {
        outbox.slices().flatten().copied().collect()
    }

    #[test]
    fn any_short_send_leaves_exactly_the_rest() {
        for cut in 0..=9 {
            let mut outbox = Outbox::new();
            outbox.push(Message::new(&[1, 2], Body::Bytes(vec![3, 4, 5]), Cost::default()));
            outbox.push(Message::new(&[6], Body::None, Cost::default()));
            outbox.push(Message::new(&[7, 8], Body::Bytes(vec![9]), Cost::default()));
            outbox.load();
            let mut finished = 0;
            outbox.handle_sent(cut, |_| finished += 1);
            let left: Vec<u8> = (1..=9).skip(cut).collect();
            assert_eq!(bytes(&outbox), left);
            assert_eq!(finished, [5, 6, 9].iter().filter(|end| **end <= cut).count());
            assert_eq!(outbox.is_empty(), cut == 9);
        }
    }

    #[test]
    fn a_batch_is_bounded_and_the_rest_follows() {
        let mut outbox = Outbox::new();
        for i in 0..BATCH_MESSAGES_MAX + 1 {
            outbox.push(Message::new(&[i as u8], Body::None, Cost::default()));
        }
        outbox.load();
        assert_eq!(bytes(&outbox).len(), BATCH_MESSAGES_MAX);
        outbox.handle_sent(BATCH_MESSAGES_MAX, |_| ());
        outbox.load();
        assert_eq!(bytes(&outbox), [BATCH_MESSAGES_MAX as u8]);
    }
}
