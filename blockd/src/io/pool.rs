//! The fallback data plane, for where there is no io_uring: one thread polls the sockets, some
//! others run the store's methods.
//!
//! ```text
//! poll(2) ─► accept · receive · done calls ─► server ─► send · store calls to the workers ─┐
//!    ▲                                                                                     │
//!    └─────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Serves exactly what the ring serves, with more system calls and one more copy. Ends like the
//! ring: without answering errors.

mod workers;

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, recv, sendmsg};
use tracing::{info, warn};

use crate::buffer::BufferPool;
use crate::io::clock;
use crate::io::mailbox::{Receiver, Wish};
use crate::io::pool::workers::{Done, Workers};
use crate::io::store_call::errno_of;
use crate::repeated::Repeated;
use crate::server::{CONNECTIONS_MAX, ConnectionId, Server};
use crate::store::BlockStore;
use crate::volume::StoreAction;

/// Threads that run store calls.
const WORKERS: usize = 8;
/// How long to wait after the system had no descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until the mailbox says stop.
pub fn run(
    server: Server,
    store: Arc<dyn BlockStore>,
    listener: &UnixListener,
    mailbox: &Receiver,
) -> io::Result<Server> {
    listener.set_nonblocking(true)?;
    let workers = Workers::start(&store, WORKERS)?;
    let plane = Plane {
        server,
        workers,
        listener,
        mailbox,
        sockets: Vec::new(),
        buffers: BufferPool::new(),
        accept_at: Duration::ZERO,
        accept_trouble: Repeated::default(),
    };
    plane.serve()
}

/// One client.
struct Socket {
    id: ConnectionId,
    stream: UnixStream,
    /// The last send was cut short.
    is_full: bool,
}

struct Plane<'a> {
    server: Server,
    workers: Workers,
    listener: &'a UnixListener,
    mailbox: &'a Receiver,
    sockets: Vec<Socket>,
    /// For the workers.
    buffers: BufferPool,
    /// No client is accepted before.
    accept_at: Duration,
    accept_trouble: Repeated,
}

/// What there is to do.
struct Ready {
    accept: bool,
    letters: bool,
    sockets: Vec<PollFlags>,
}

impl Plane<'_> {
    fn serve(mut self) -> io::Result<Server> {
        let mut wish = Wish::GoOn;
        while wish == Wish::GoOn {
            self.send_everything();
            self.submit_store_calls();
            self.close_sockets();
            let ready = self.wait()?;
            wish = self.handle_ready(&ready)?;
        }
        info!("the data plane stops: dropping its clients, finishing what the disk is doing");
        self.sockets.clear();
        while let Some(done) = self.workers.wait_done() {
            self.finish(done, clock::now());
        }
        Ok(self.server)
    }

    fn wait(&mut self) -> io::Result<Ready> {
        let now = clock::now();
        let paused = (self.accept_at > now).then_some(self.accept_at);
        let due = [self.server.poll_timeout(), paused].into_iter().flatten().min();
        let wants = |wanted, flags| if wanted { flags } else { PollFlags::empty() };
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), wants(paused.is_none(), PollFlags::POLLIN)),
            PollFd::new(self.mailbox.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.workers.as_fd(), PollFlags::POLLIN),
        ];
        let fixed = fds.len();
        for socket in &self.sockets {
            let readable = wants(self.server.recv_space(socket.id).is_some(), PollFlags::POLLIN);
            fds.push(PollFd::new(
                socket.stream.as_fd(),
                readable | wants(socket.is_full, PollFlags::POLLOUT),
            ));
        }
        match poll(&mut fds, due.map_or(PollTimeout::NONE, |due| timeout(due.saturating_sub(now)))) {
            Ok(_) => {}
            Err(Errno::EINTR) => return Ok(Ready { accept: false, letters: false, sockets: Vec::new() }),
            Err(errno) => return Err(errno.into()),
        }
        let flags = |fd: &PollFd| fd.revents().unwrap_or(PollFlags::empty());
        Ok(Ready {
            accept: !flags(&fds[0]).is_empty(),
            letters: !flags(&fds[1]).is_empty(),
            sockets: fds[fixed..].iter().map(flags).collect(),
        })
    }

    fn handle_ready(&mut self, ready: &Ready) -> io::Result<Wish> {
        let now = clock::now();
        let mut wish = Wish::GoOn;
        if ready.letters {
            self.mailbox.silence()?;
            wish = self.mailbox.open(&mut self.server, now);
        }
        while let Some(done) = self.workers.poll_done() {
            self.finish(done, now);
        }
        self.server.handle_timeout(now);
        for (socket, flags) in self.sockets.iter_mut().zip(&ready.sockets) {
            receive(socket, *flags, &mut self.server, now);
        }
        if ready.accept {
            self.accept(now)?;
        }
        Ok(wish)
    }

    fn accept(&mut self, now: Duration) -> io::Result<()> {
        let stream = match self.listener.accept() {
            Ok((stream, _)) => stream,
            Err(error) => {
                let harmless = [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted];
                if !harmless.contains(&error.kind()) {
                    if let Some(times) = self.accept_trouble.handle(errno_of(&error), now) {
                        warn!(times, "accepting a client: {error}; trying again every {ACCEPT_PAUSE:?}");
                    }
                    self.accept_at = now + ACCEPT_PAUSE;
                }
                return Ok(());
            }
        };
        stream.set_nonblocking(true)?;
        match self.server.open() {
            Some(id) => self.sockets.push(Socket { id, stream, is_full: false }),
            None => warn!("turning a client away: there are {CONNECTIONS_MAX} already"),
        }
        Ok(())
    }

    fn send_everything(&mut self) {
        let now = clock::now();
        for socket in &mut self.sockets {
            send(socket, &mut self.server, now);
        }
    }

    fn submit_store_calls(&mut self) {
        while let Some(call) = self.server.poll_store() {
            let data = self.server.buffer_mut(call.op);
            let mut buf = self.buffers.take(data.len());
            if matches!(call.action, StoreAction::Write { .. }) {
                buf.copy_from_slice(data);
            }
            self.workers.submit(call, buf);
        }
    }

    fn finish(&mut self, done: Done, now: Duration) {
        let Done { call, buf, outcome } = done;
        if call.action == StoreAction::Read && outcome.is_ok() {
            self.server.buffer_mut(call.op).copy_from_slice(&buf);
        }
        self.buffers.give(buf);
        self.server.handle_store(call.op, outcome, now);
    }

    fn close_sockets(&mut self) {
        let server = &mut self.server;
        self.sockets.retain(|socket| {
            let is_closed = server.is_closed(socket.id);
            if is_closed {
                server.close(socket.id);
            }
            !is_closed
        });
    }
}

/// Rounded up, or the loop would spin through the last millisecond.
fn timeout(duration: Duration) -> PollTimeout {
    let ms = duration.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX)
}

fn receive(socket: &Socket, flags: PollFlags, server: &mut Server, now: Duration) {
    if flags.is_empty() {
        return;
    }
    let Some(space) = server.recv_space(socket.id) else {
        // Nothing is wanted, and still the client is noticed: it has gone.
        if flags.intersects(PollFlags::POLLHUP | PollFlags::POLLERR) {
            server.handle_broken(socket.id);
        }
        return;
    };
    match recv(socket.stream.as_raw_fd(), space, MsgFlags::MSG_DONTWAIT) {
        Ok(n) => server.handle_received(socket.id, n, now),
        Err(Errno::EAGAIN | Errno::EINTR) => {}
        Err(_) => server.handle_broken(socket.id),
    }
}

/// Sends until there is nothing more, or no more room.
fn send(socket: &mut Socket, server: &mut Server, now: Duration) {
    socket.is_full = false;
    loop {
        let slices: Vec<_> = server.send_slices(socket.id).map(io::IoSlice::new).collect();
        if slices.is_empty() {
            return;
        }
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match sendmsg::<()>(socket.stream.as_raw_fd(), &slices, &[], flags, None) {
            Ok(n) => server.handle_sent(socket.id, n, now),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                socket.is_full = true;
                return;
            }
            Err(_) => return server.handle_broken(socket.id),
        }
    }
}
