//! One client: from bytes to requests, and from replies to bytes.
//!
//! ```text
//! handshake ─► transmission ─► draining ─► closed
//!      └────────────┴─ protocol error ──────┘
//! ```
//!
//! Bounds: so many requests and so many bytes are with the volume or on their way back; beyond
//! them nothing more is received (D5). A request longer than a buffer goes in pieces, one such request at a time: until
//! it is answered, nothing else of this client is taken. Does not know what a request does.

mod pieces;

use std::collections::VecDeque;
use std::sync::Arc;

use tracing::{debug, warn};

use crate::buffer::{BufferPool, PageBuf};
use crate::extent::Extent;
use crate::nbd::export::Export;
use crate::nbd::handshake::{Handshake, Outcome, ProtocolError};
use crate::nbd::reply::Replies;
use crate::nbd::request::{Command, CommandKind, Parsed, Refusal, Request, Session};
use crate::nbd::wire::NbdError;
use crate::server::ConnectionId;
use crate::server::inbox::Inbox;
use crate::server::large::Large;
use crate::server::outbox::{Body, Cost, Message, Outbox};

/// The most requests of one connection that are unanswered.
pub const REQUESTS_MAX: usize = 256;
/// The most bytes of buffers that the unanswered requests of one connection hold, unless two
/// requests of the greatest length need more.
pub const BYTES_MAX: usize = 16 << 20;
/// Refusals of one connection that are logged one by one.
const REFUSALS_LOGGED_MAX: u32 = 10;

/// A request, or a piece of one, that is ready for the volume.
#[derive(Debug)]
pub struct Incoming {
    /// What is asked.
    pub request: Request,
    /// The data of a write.
    pub buf: Option<PageBuf>,
    /// It is a piece: [`Connection::finish_piece`] wants to know how it ends.
    pub is_piece: bool,
}

/// A request that is refused once its data is out of the way.
#[derive(Debug)]
struct Refused {
    cookie: u64,
    kind: CommandKind,
    error: NbdError,
    reason: String,
}

#[derive(Debug)]
enum Phase {
    Handshake(Box<Handshake>),
    Transmission(Box<Session>),
}

/// How far a connection is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// Both sides talk.
    Open,
    /// Nothing more is read; what was asked for is answered.
    Draining,
    /// Nothing more is said.
    Broken,
    /// The socket is closed as well: only requests under way keep this alive.
    Gone,
}

/// One client.
#[derive(Debug)]
pub struct Connection {
    id: ConnectionId,
    export: Arc<Export>,
    phase: Phase,
    replies: Replies,
    inbox: Inbox,
    outbox: Outbox,
    /// Replies that wait for the end of a chunk.
    parked: VecDeque<Message>,
    large: Option<Large>,
    refused: Option<Refused>,
    unanswered: Cost,
    bytes_max: usize,
    block_bytes_max: usize,
    end: End,
    refusals: u32,
}

impl Connection {
    /// A connection that greets its client.
    pub fn new(id: ConnectionId, export: &Arc<Export>) -> Self {
        let block_bytes_max = export.block_size_max as usize;
        let mut connection = Self {
            id,
            export: Arc::clone(export),
            phase: Phase::Handshake(Box::new(Handshake::new(Export::clone(export)))),
            replies: Replies::new(Default::default()),
            inbox: Inbox::new(),
            outbox: Outbox::new(),
            parked: VecDeque::new(),
            large: None,
            refused: None,
            unanswered: Cost::default(),
            bytes_max: BYTES_MAX.max(2 * block_bytes_max),
            block_bytes_max,
            end: End::Open,
            refusals: 0,
        };
        connection.shake();
        connection
    }

    /// Its name.
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// Where the next bytes go, if any are wanted.
    pub fn recv_space(&mut self) -> Option<&mut [u8]> {
        let wanted = match &self.phase {
            Phase::Handshake(_) => self.outbox.is_empty(),
            Phase::Transmission(_) => self.inbox.is_in_payload() || (self.large.is_none() && self.has_room()),
        };
        (wanted && self.end == End::Open).then(|| self.inbox.space())
    }

    /// True if it is better to wait until the space is full.
    pub fn wants_all(&self) -> bool {
        self.inbox.wants_all()
    }

    /// Takes in that `n` bytes were received; none: the client is gone, and takes no answers.
    pub fn handle_received(&mut self, n: usize) {
        if n > 0 {
            self.inbox.handle_received(n);
        } else {
            if self.inbox.is_between_requests() && self.large.is_none() {
                debug!(connection = %self.id, "client closed the connection");
            } else {
                warn!(connection = %self.id, "client closed the connection in the middle of a request");
            }
            self.end = self.end.max(End::Broken);
        }
    }

    /// The next request that is complete, with a write's data; none if more bytes, or room, are
    /// needed first.
    pub fn next_request(&mut self, pool: &mut BufferPool) -> Option<Incoming> {
        match self.try_next_request(pool) {
            Ok(next) => next,
            Err(error) => {
                warn!(connection = %self.id, "disconnecting a client: {error}");
                self.end = self.end.max(End::Broken);
                None
            }
        }
    }

    fn try_next_request(&mut self, pool: &mut BufferPool) -> Result<Option<Incoming>, ProtocolError> {
        while self.end == End::Open {
            if let Phase::Handshake(_) = self.phase {
                if !self.negotiate()? {
                    break;
                }
                continue;
            }
            if let Some((request, buf)) = self.inbox.take_payload() {
                return Ok(Some(Incoming { request, buf: Some(buf), is_piece: self.large.is_some() }));
            }
            if self.inbox.is_in_payload() {
                break;
            }
            if let Some(Refused { cookie, kind, error, reason }) = self.refused.take() {
                self.reply_error(cookie, kind, error, &reason, 0);
            }
            if !self.has_room() {
                break;
            }
            if self.large.is_some() {
                match self.begin_piece(pool) {
                    Some(request) => return Ok(Some(Incoming { request, buf: None, is_piece: true })),
                    None if self.inbox.is_in_payload() => continue,
                    None => break,
                }
            }
            let Some(header) = self.inbox.take_header() else { break };
            let Phase::Transmission(session) = &self.phase else { break };
            let parsed = session.parse(&header)?;
            if let Some(request) = self.handle_parsed(parsed, pool) {
                return Ok(Some(Incoming { request, buf: None, is_piece: false }));
            }
        }
        Ok(None)
    }

    /// Goes on with the handshake; true once it is over.
    fn negotiate(&mut self) -> Result<bool, ProtocolError> {
        let Phase::Handshake(handshake) = &mut self.phase else { return Ok(true) };
        let consumed = handshake.handle_bytes(self.inbox.staged())?;
        self.inbox.consume(consumed);
        let outcome = handshake.outcome();
        self.shake();
        let Some(outcome) = outcome else { return Ok(false) };
        match outcome {
            Outcome::Closed => self.end = self.end.max(End::Draining),
            Outcome::Transmission(negotiated) => {
                debug!(connection = %self.id, ?negotiated, "client is ready");
                self.replies = Replies::new(negotiated);
                let export = Export::clone(&self.export);
                self.phase = Phase::Transmission(Box::new(Session { export, negotiated }));
            }
        }
        Ok(true)
    }

    /// Queues what the handshake says.
    fn shake(&mut self) {
        let Phase::Handshake(handshake) = &mut self.phase else { return };
        while let Some(bytes) = handshake.poll_transmit() {
            self.outbox.push(Message::new(&[], Body::Bytes(bytes), Cost::default()));
        }
    }

    /// Acts on a header; returns the request if it is complete already.
    fn handle_parsed(&mut self, parsed: Parsed, pool: &mut BufferPool) -> Option<Request> {
        self.unanswered.requests += 1;
        match parsed {
            Parsed::Valid(request) => {
                self.large = Large::of(request, self.block_bytes_max as u64, &self.replies);
                if self.large.is_some() {
                    return None;
                }
                self.unanswered.bytes += buffer_bytes(&request.command);
                if request.payload_bytes() == 0 {
                    return Some(request);
                }
                self.inbox.begin_payload(request, pool.take(request.payload_bytes() as usize));
            }
            Parsed::Empty { cookie, kind } => self.reply_done(cookie, kind, 0),
            Parsed::Refused { cookie, kind, error, reason, payload_to_discard } => {
                self.log_refusal(&reason);
                // A reply before its data is read would be one to a request that the client has not sent yet.
                self.inbox.begin_discard(payload_to_discard as usize);
                self.refused = Some(Refused { cookie, kind, error, reason: reason.to_string() });
            }
        }
        None
    }

    fn log_refusal(&mut self, reason: &Refusal) {
        self.refusals = self.refusals.saturating_add(1);
        if self.refusals <= REFUSALS_LOGGED_MAX {
            warn!(connection = %self.id, "refusing a request: {reason}");
        }
        if self.refusals == REFUSALS_LOGGED_MAX {
            warn!(connection = %self.id, "further refusals to this client are not logged");
        }
    }

    /// Answers a read with its data.
    pub fn reply_data(&mut self, cookie: u64, extent: Extent, buf: PageBuf) {
        let cost = Cost { requests: 1, bytes: buf.len() };
        let head = self.replies.read_header(cookie, extent);
        self.push(Message::new(&head, Body::Page(buf), cost));
    }

    /// Answers that a request is done whose buffer had `bytes` bytes.
    pub fn reply_done(&mut self, cookie: u64, kind: CommandKind, bytes: usize) {
        let head = self.replies.done(cookie, kind);
        self.push(Message::new(&head, Body::None, Cost { requests: 1, bytes }));
    }

    /// Answers that a request failed whose buffer had `bytes` bytes.
    pub fn reply_error(&mut self, cookie: u64, kind: CommandKind, error: NbdError, why: &str, bytes: usize) {
        let mut out = Vec::new();
        self.replies.error_message(&mut out, cookie, kind, error, why);
        self.reply_bytes(out, bytes);
    }

    /// Sends an answer that is encoded already, to a request whose buffer had `bytes` bytes.
    pub fn reply_bytes(&mut self, encoded: Vec<u8>, bytes: usize) {
        self.push(Message::new(&[], Body::Bytes(encoded), Cost { requests: 1, bytes }));
    }

    /// Takes in that a request got its answer, or needs none any more.
    pub fn settle(&mut self, cost: Cost) {
        self.unanswered.requests -= cost.requests;
        self.unanswered.bytes -= cost.bytes;
    }

    /// Fills the batch to be sent. Only while nothing of it is being sent.
    pub fn load(&mut self) {
        if self.end < End::Broken {
            self.outbox.load();
        }
    }

    /// What is to be sent now.
    pub fn send_slices(&self) -> impl Iterator<Item = &[u8]> {
        self.outbox.slices()
    }

    /// Takes in that the first `n` bytes of the slices are sent.
    pub fn handle_sent(&mut self, n: usize, pool: &mut BufferPool) {
        let mut settled = Cost::default();
        self.outbox.handle_sent(n, |message| recycle(message, &mut settled, pool));
        self.settle(settled);
    }

    /// Nothing more is read; what was asked for is answered.
    pub fn drain(&mut self) {
        self.settle(Cost { requests: 1, bytes: 0 });
        self.end = self.end.max(End::Draining);
    }

    /// Nothing more is said: the socket is of no use.
    pub fn give_up(&mut self) {
        self.end = self.end.max(End::Broken);
    }

    /// The socket is closed.
    pub fn close(&mut self, pool: &mut BufferPool) {
        self.end = End::Gone;
        let mut settled = Cost::default();
        self.outbox.clear(|message| recycle(message, &mut settled, pool));
        self.parked.drain(..).for_each(|message| recycle(message, &mut settled, pool));
        settled.requests += usize::from(self.large.take().is_some());
        settled.requests += usize::from(self.refused.take().is_some());
        self.settle(settled);
        if let Some(cost) = self.inbox.abandon(pool) {
            self.settle(cost);
        }
    }

    /// True once the socket is closed.
    pub fn is_gone(&self) -> bool {
        self.end == End::Gone
    }

    /// True if the socket should be closed.
    pub fn is_closed(&self) -> bool {
        match self.end {
            End::Open => false,
            End::Draining => self.outbox.is_empty() && self.unanswered.requests == 0,
            End::Broken | End::Gone => true,
        }
    }

    /// Bytes of buffers that its requests hold.
    #[cfg(test)]
    pub fn unanswered_bytes(&self) -> usize {
        self.unanswered.bytes
    }

    /// True if no request is under way.
    pub fn is_idle(&self) -> bool {
        self.unanswered.requests == 0
    }

    /// True if one more request of any length fits the bounds.
    fn has_room(&self) -> bool {
        self.unanswered.requests < REQUESTS_MAX
            && self.unanswered.bytes + self.block_bytes_max <= self.bytes_max
    }
}

/// Bytes of the buffer that a command needs.
fn buffer_bytes(command: &Command) -> usize {
    match command {
        Command::Read { extent, .. } | Command::Write { extent, .. } => extent.len as usize,
        _ => 0,
    }
}

fn recycle(message: Message, settled: &mut Cost, pool: &mut BufferPool) {
    settled.requests += message.cost.requests;
    settled.bytes += message.cost.bytes;
    if let Body::Page(buf) = message.into_body() {
        pool.give(buf);
    }
}
