//! The server without its sockets: connections in front, one volume behind.
//!
//! ```text
//!          ┌─ connection: inbox ─► request ─┐                 ┌─► store call ─┐
//! sockets ─┤                                ├─► volume ───────┤               ├─ data plane
//!          └─ connection: outbox ◄─ reply ──┘                 └◄─ outcome ────┘
//! ```
//!
//! Pure: both data planes, the simulation and the fuzz targets drive it. They move bytes between
//! [`Server::recv_space`], [`Server::send_slices`] and a socket, and run what
//! [`Server::poll_store`] asks for. Memory given out (space, slices, an op's buffer) stays in place
//! until the matching `handle_*`, whatever else happens in between, so that the kernel may use it.
//!
//! Everything is bounded: connections, requests and bytes of each (D5). A connection whose bounds
//! are reached is not read from; the others go on. Knows nothing of roles, replicas or sidecars.

mod connection;
mod inbox;
mod large;
mod outbox;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tracing::{error, warn};

use crate::buffer::{BufferPool, PageBuf};
use crate::extent::Extent;
use crate::nbd::block_status::{State, StatusMap};
use crate::nbd::export::Export;
use crate::nbd::request::{Command, CommandKind};
use crate::nbd::wire::errno_to_nbd;
use crate::server::connection::{Connection, Incoming};
use crate::server::outbox::Cost;
use crate::store::{Allocation, BlockStore};
use crate::volume::{self, OpId, Reply, StoreCall, StoreOutcome, Tag, Volume};

pub use crate::server::outbox::BATCH_SLICES_MAX;

/// The most clients at a time, counting those that are gone but left requests under way.
pub const CONNECTIONS_MAX: usize = 16;

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    fn slot(self) -> usize {
        (self.0 % CONNECTIONS_MAX as u64) as usize
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One disk and all its clients.
pub struct Server {
    export: Arc<Export>,
    volume: Volume,
    store: Arc<dyn BlockStore>,
    pool: BufferPool,
    connections: [Option<Connection>; CONNECTIONS_MAX],
    opened: u64,
}

impl Server {
    /// A server without clients. The store is only asked what is allocated, and to prefetch.
    pub fn new(export: Export, volume: Volume, store: Arc<dyn BlockStore>) -> Self {
        Self {
            export: Arc::new(export),
            volume,
            store,
            pool: BufferPool::new(),
            connections: [const { None }; CONNECTIONS_MAX],
            opened: 0,
        }
    }

    /// Takes a client in; none if there are too many.
    pub fn open(&mut self) -> Option<ConnectionId> {
        let slot = self.connections.iter().position(Option::is_none)?;
        self.opened += 1;
        let id = ConnectionId(self.opened * CONNECTIONS_MAX as u64 + slot as u64);
        self.connections[slot] = Some(Connection::new(id, &self.export));
        Some(id)
    }

    /// Clients connected.
    pub fn connections(&self) -> u64 {
        self.connections.iter().flatten().count() as u64
    }

    /// The socket is closed: requests under way complete, their replies are dropped; writes that
    /// are held are forgotten, for their client never had an answer.
    pub fn close(&mut self, id: ConnectionId) {
        if let Some(connection) = find(&mut self.connections, id) {
            connection.close(&mut self.pool);
            for request in self.volume.drop_held(id.0) {
                connection
                    .settle(Cost { requests: 1, bytes: request.buf.as_ref().map_or(0, |buf| buf.len()) });
                request.buf.into_iter().for_each(|buf| self.pool.give(buf));
            }
            self.forget_if_gone(id);
        }
    }

    /// True if the socket should be closed: after a protocol error at once, after a polite end
    /// when everything is answered.
    pub fn is_closed(&self, id: ConnectionId) -> bool {
        self.find(id).is_none_or(Connection::is_closed)
    }

    /// Where the next bytes of this socket go; none if none are wanted now.
    pub fn recv_space(&mut self, id: ConnectionId) -> Option<&mut [u8]> {
        find(&mut self.connections, id)?.recv_space()
    }

    /// True if it is better to receive until the space is full.
    pub fn recv_wants_all(&self, id: ConnectionId) -> bool {
        self.find(id).is_some_and(Connection::wants_all)
    }

    /// Takes in that the first `n` bytes of the space are there; 0: the client closed its end.
    pub fn handle_received(&mut self, id: ConnectionId, n: usize, now: Duration) {
        if let Some(connection) = find(&mut self.connections, id) {
            connection.handle_received(n);
            self.advance(id, now);
        }
    }

    /// Takes in that the socket failed.
    pub fn handle_broken(&mut self, id: ConnectionId) {
        if let Some(connection) = find(&mut self.connections, id) {
            connection.give_up();
        }
    }

    /// What is to be sent on this socket now, in order; at most [`BATCH_SLICES_MAX`] slices, none
    /// of them empty. Not to be called again before [`Self::handle_sent`].
    pub fn send_slices(&mut self, id: ConnectionId) -> impl Iterator<Item = &[u8]> {
        let connection = find(&mut self.connections, id);
        connection.into_iter().flat_map(|connection| {
            connection.load();
            connection.send_slices()
        })
    }

    /// Takes in that the first `n` bytes of the slices are sent.
    pub fn handle_sent(&mut self, id: ConnectionId, n: usize, now: Duration) {
        if let Some(connection) = find(&mut self.connections, id) {
            connection.handle_sent(n, &mut self.pool);
            self.advance(id, now);
        }
    }

    /// The next call that the store should run, if any.
    pub fn poll_store(&mut self) -> Option<StoreCall> {
        self.volume.poll_store()
    }

    /// Requests of all clients that are not answered yet.
    pub fn requests_in_flight(&self) -> u64 {
        self.volume.in_flight()
    }

    /// The buffer of a store call.
    pub fn buffer_mut(&mut self, op: OpId) -> &mut [u8] {
        self.volume.buffer_mut(op)
    }

    /// Takes in how a store call ended.
    pub fn handle_store(&mut self, op: OpId, outcome: StoreOutcome, now: Duration) {
        let had_lost_writes = self.volume.has_lost_writes();
        self.volume.handle_store(op, outcome, now);
        if self.volume.has_lost_writes() && !had_lost_writes {
            error!(
                "disk: a flush failed: what was written since the last one may not be on the disk, and nothing is \
                 called durable any more; see to the disk, then end the guest, and with it this daemon, and start it"
            );
        }
        self.collect(now);
    }

    /// When [`Self::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.volume.poll_timeout()
    }

    /// Sends what became due. Call it also after [`Self::volume_mut`] was used.
    pub fn handle_timeout(&mut self, now: Duration) {
        self.collect(now);
    }

    /// The volume, for the control side.
    pub fn volume_mut(&mut self) -> &mut Volume {
        &mut self.volume
    }

    /// Hands every complete request of a connection to the volume, as far as its bounds allow.
    fn advance(&mut self, id: ConnectionId, now: Duration) {
        self.take_requests(id, now);
        self.collect(now);
    }

    fn take_requests(&mut self, id: ConnectionId, now: Duration) {
        while let Some(connection) = find(&mut self.connections, id) {
            let Some(incoming) = connection.next_request(&mut self.pool) else { break };
            self.dispatch(id, incoming, now);
        }
    }

    fn dispatch(&mut self, id: ConnectionId, incoming: Incoming, now: Duration) {
        let Incoming { request, buf, is_piece } = incoming;
        let cookie = request.cookie;
        let (command, extent, buf) = match request.command {
            Command::Read { extent, .. } => {
                (volume::Command::Read, extent, Some(self.pool.take(extent.len as usize)))
            }
            Command::Write { extent, fua } => (volume::Command::Write { fua }, extent, buf),
            Command::Flush => (volume::Command::Flush, Extent::new(0, 0), None),
            Command::Trim { extent, fua } => (volume::Command::Trim { fua }, extent, None),
            Command::WriteZeroes { extent, fua, no_hole } => {
                (volume::Command::Zero { fua, allocate: no_hole }, extent, None)
            }
            Command::Cache { extent } => return self.cache(id, cookie, extent),
            Command::BlockStatus { extent, request_one } => {
                return self.block_status(id, cookie, StatusMap::new(extent, request_one));
            }
            Command::Disconnect => {
                find(&mut self.connections, id).into_iter().for_each(Connection::drain);
                return;
            }
        };
        let tag = Tag { connection: id.0, cookie, is_piece };
        self.volume.handle_request(volume::Request { tag, command, extent, buf }, now);
    }

    fn cache(&mut self, id: ConnectionId, cookie: u64, extent: Extent) {
        self.store.prefetch(extent);
        if let Some(connection) = find(&mut self.connections, id) {
            connection.reply_done(cookie, CommandKind::Cache, 0);
        }
    }

    fn block_status(&mut self, id: ConnectionId, cookie: u64, mut map: StatusMap) {
        while let Some(extent) = map.wants() {
            match self.store.allocation(extent) {
                Ok((Allocation::Data, bytes)) => map.push(bytes.max(1), State::Data),
                Ok((Allocation::Hole, bytes)) => map.push(bytes.max(1), State::Hole),
                Err(error) => {
                    warn!(offset = extent.offset, bytes = extent.len, "asking what is allocated: {error}");
                    map.push(extent.len, State::Data);
                }
            }
        }
        let mut encoded = Vec::new();
        map.encode(&mut encoded, cookie);
        if let Some(connection) = find(&mut self.connections, id) {
            connection.reply_bytes(encoded, 0);
        }
    }

    /// Brings the volume's replies to their connections.
    fn collect(&mut self, now: Duration) {
        while let Some(reply) = self.volume.poll_reply(now) {
            let Tag { connection, is_piece, .. } = reply.tag;
            self.answer(reply);
            if is_piece {
                // The next piece, or what waits behind the last one.
                self.take_requests(ConnectionId(connection), now);
            }
        }
    }

    fn answer(&mut self, reply: Reply) {
        let Reply { tag, command, extent, result, buf } = reply;
        let id = ConnectionId(tag.connection);
        let kind = kind_of(command);
        let bytes =
            if matches!(kind, CommandKind::Read | CommandKind::Write) { extent.len as usize } else { 0 };
        if let Err(errno) = result {
            let reason = std::io::Error::from_raw_os_error(errno);
            error!(connection = %id, ?kind, offset = extent.offset, bytes = extent.len, "disk: {reason}");
        }
        let Some(connection) = find(&mut self.connections, id) else {
            return self.recycle(buf);
        };
        if connection.is_gone() {
            connection.settle(Cost { requests: 1, bytes });
            self.recycle(buf);
            return self.forget_if_gone(id);
        }
        if tag.is_piece {
            return connection.finish_piece(extent, result, buf, &mut self.pool);
        }
        match (result, buf) {
            (Ok(()), Some(data)) if kind == CommandKind::Read => {
                connection.reply_data(tag.cookie, extent, data);
            }
            (Ok(()), buf) => {
                connection.reply_done(tag.cookie, kind, bytes);
                self.recycle(buf);
            }
            (Err(errno), buf) => {
                let reason = std::io::Error::from_raw_os_error(errno).to_string();
                connection.reply_error(tag.cookie, kind, errno_to_nbd(errno), &reason, bytes);
                self.recycle(buf);
            }
        }
    }

    fn recycle(&mut self, buf: Option<PageBuf>) {
        buf.into_iter().for_each(|buf| self.pool.give(buf));
    }

    fn forget_if_gone(&mut self, id: ConnectionId) {
        if self.find(id).is_some_and(|connection| connection.is_gone() && connection.is_idle()) {
            self.connections[id.slot()] = None;
        }
    }

    fn find(&self, id: ConnectionId) -> Option<&Connection> {
        self.connections[id.slot()].as_ref().filter(|connection| connection.id() == id)
    }
}

/// The connection, unless it is forgotten.
fn find(connections: &mut [Option<Connection>], id: ConnectionId) -> Option<&mut Connection> {
    connections[id.slot()].as_mut().filter(|connection| connection.id() == id)
}

fn kind_of(command: volume::Command) -> CommandKind {
    match command {
        volume::Command::Read => CommandKind::Read,
        volume::Command::Write { .. } => CommandKind::Write,
        volume::Command::Flush => CommandKind::Flush,
        volume::Command::Trim { .. } => CommandKind::Trim,
        volume::Command::Zero { .. } => CommandKind::WriteZeroes,
    }
}
