//! The data plane: one thread, one io_uring for the listener, the sockets and the disk.
//!
//! ```text
//!        ┌────────────────────────── one turn ─────────────────────────┐
//!        │ store calls ─► entries   sends, receives ─► entries         │
//! ring ◄─┤                     submit and wait: one system call        ├─► ring
//!        │ completions ─► server (handle_received, handle_sent, …)     │
//!        └─────────────────────────────────────────────────────────────┘
//! ```
//!
//! Memory that the kernel may use is never freed or moved: a connection is closed at the server
//! only after its socket's entries came back, and a turn that fails ends the process rather than
//! the memory ([`Plane`]'s drop).
//!
//! Ends without answering errors: a client that is dropped reconnects and asks again, one that is
//! told of an error reports it to its guest.

mod disk;
mod queue;
mod socket;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{opcode, types};
use tracing::{info, warn};

use crate::io::clock;
use crate::io::mailbox::{Receiver, Wish};
use crate::io::ring::disk::Disk;
use crate::io::ring::queue::{Completion, Queue, Token};
use crate::io::ring::socket::Socket;
use crate::repeated::Repeated;
use crate::server::{CONNECTIONS_MAX, Server};
use crate::store::BlockStore;

/// Registered descriptors: one a socket, by slot, then these.
const FILE_DISK: u32 = CONNECTIONS_MAX as u32;
const FILE_LISTENER: u32 = FILE_DISK + 1;
const FILE_BELL: u32 = FILE_DISK + 2;
const FILES: usize = CONNECTIONS_MAX + 3;
/// How long to wait after the system had no descriptor or memory for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A ring that [`run`] can begin with.
pub struct Ring(Queue);

impl Ring {
    /// Makes one, or says why there can be none here. To be made by the thread that runs it.
    pub fn new() -> io::Result<Self> {
        Queue::new(FILES).map(Self)
    }
}

/// Serves until the mailbox says stop.
pub fn run(
    ring: Ring,
    server: Server,
    store: Arc<dyn BlockStore>,
    listener: &UnixListener,
    mailbox: &Receiver,
) -> io::Result<Server> {
    // The ring waits by itself; from a non-blocking socket it would return at once.
    listener.set_nonblocking(false)?;
    let Ring(queue) = ring;
    let disk = Disk::new(store, FILE_DISK);
    if let Some(fd) = disk.fd() {
        queue.register(FILE_DISK, fd)?;
    }
    queue.register(FILE_LISTENER, listener.as_raw_fd())?;
    queue.register(FILE_BELL, mailbox.as_raw_fd())?;
    let plane = Plane {
        queue,
        server: Some(server),
        disk,
        sockets: [const { None }; CONNECTIONS_MAX],
        mailbox,
        bell: Box::new(0),
        accept_at: Some(Duration::ZERO),
        accept_trouble: Repeated::default(),
        wake_armed: false,
        completions: Vec::new(),
    };
    plane.serve()
}

struct Plane<'a> {
    queue: Queue,
    /// None only when it has been handed back.
    server: Option<Server>,
    disk: Disk,
    sockets: [Option<Socket>; CONNECTIONS_MAX],
    mailbox: &'a Receiver,
    /// Where the bell is read into.
    bell: Box<u64>,
    /// When to accept next; none while an accept is in flight.
    accept_at: Option<Duration>,
    accept_trouble: Repeated,
    wake_armed: bool,
    completions: Vec<Completion>,
}

impl Plane<'_> {
    fn serve(mut self) -> io::Result<Server> {
        let mut wish = Wish::GoOn;
        while wish == Wish::GoOn {
            self.start_everything()?;
            let due = [self.server().poll_timeout(), self.accept_at].into_iter().flatten().min();
            self.queue.wait(due.map(|due| due.saturating_sub(clock::now())))?;
            wish = self.handle_completions()?;
        }
        self.wind_down()?;
        Ok(self.server.take().expect("the server is handed back once"))
    }

    fn server(&mut self) -> &mut Server {
        self.server.as_mut().expect("the server is handed back last")
    }

    /// Does what can be done at once, and hands the rest to the kernel.
    fn start_everything(&mut self) -> io::Result<()> {
        let now = clock::now();
        self.start_store_calls(now)?;
        // Room in an outbox lets more requests in, and some of them are over at once.
        while self.start_sockets(now)? {
            self.start_store_calls(now)?;
        }
        self.close_sockets()?;
        self.arm_accept(now)?;
        self.arm_wake()
    }

    fn start_store_calls(&mut self, now: Duration) -> io::Result<()> {
        let server = self.server.as_mut().expect("the server is handed back last");
        while let Some(call) = server.poll_store() {
            if let Some(outcome) = self.disk.start(call, server, &mut self.queue)? {
                server.handle_store(call.op, outcome, now);
            }
        }
        Ok(())
    }

    /// True if anything was sent.
    fn start_sockets(&mut self, now: Duration) -> io::Result<bool> {
        let server = self.server.as_mut().expect("the server is handed back last");
        let mut sent = false;
        for socket in self.sockets.iter_mut().flatten() {
            if !server.is_closed(socket.id) {
                sent |= socket.start(server, &mut self.queue, now)?;
            }
        }
        Ok(sent)
    }

    fn close_sockets(&mut self) -> io::Result<()> {
        let server = self.server.as_mut().expect("the server is handed back last");
        for (slot, entry) in self.sockets.iter_mut().enumerate() {
            let Some(socket) = entry.as_mut().filter(|socket| server.is_closed(socket.id)) else { continue };
            socket.shut();
            if socket.is_quiet() {
                server.close(socket.id);
                self.queue.register(slot as u32, -1)?;
                *entry = None;
            }
        }
        Ok(())
    }

    fn arm_accept(&mut self, now: Duration) -> io::Result<()> {
        if self.accept_at.is_none_or(|at| at > now) {
            return Ok(());
        }
        let entry = opcode::Accept::new(types::Fixed(FILE_LISTENER), ptr::null_mut(), ptr::null_mut())
            .flags(libc::SOCK_CLOEXEC)
            .build();
        // SAFETY: the entry names no memory.
        unsafe { self.queue.push(entry, Token::Accept)? };
        self.accept_at = None;
        Ok(())
    }

    fn arm_wake(&mut self) -> io::Result<()> {
        if self.wake_armed {
            return Ok(());
        }
        let space: *mut u64 = &raw mut *self.bell;
        let entry = opcode::Read::new(types::Fixed(FILE_BELL), space.cast(), size_of::<u64>() as u32).build();
        // SAFETY: the space is boxed, nobody else uses it, and it lives as long as the plane.
        unsafe { self.queue.push(entry, Token::Wake)? };
        self.wake_armed = true;
        Ok(())
    }

    fn handle_completions(&mut self) -> io::Result<Wish> {
        let now = clock::now();
        let mut completions = std::mem::take(&mut self.completions);
        self.queue.take_completions(&mut completions);
        let mut wish = Wish::GoOn;
        for completion in completions.drain(..) {
            if self.handle_completion(completion, now)? == Wish::Stop {
                wish = Wish::Stop;
            }
        }
        self.completions = completions;
        self.server().handle_timeout(now);
        Ok(wish)
    }

    fn handle_completion(&mut self, completion: Completion, now: Duration) -> io::Result<Wish> {
        let Completion { token, result } = completion;
        let server = self.server.as_mut().expect("the server is handed back last");
        match token {
            Token::Store(op) => {
                if let Some((call, outcome)) = self.disk.finish(op, result, server, &mut self.queue)? {
                    server.handle_store(call.op, outcome, now);
                }
            }
            Token::Recv(slot) => {
                let socket = self.sockets[slot].as_mut().expect("a socket lives until it is quiet");
                socket.finish_recv();
                match result {
                    0.. => server.handle_received(socket.id, result as usize, now),
                    _ if -result == libc::EINTR || -result == libc::EAGAIN => {}
                    _ => server.handle_broken(socket.id),
                }
            }
            Token::Send(slot) => {
                let socket = self.sockets[slot].as_mut().expect("a socket lives until it is quiet");
                socket.finish_send();
                match result {
                    0.. => server.handle_sent(socket.id, result as usize, now),
                    _ if -result == libc::EINTR || -result == libc::EAGAIN => {}
                    _ => server.handle_broken(socket.id),
                }
            }
            Token::Accept => self.handle_accept(result, now)?,
            Token::Wake => {
                self.wake_armed = false;
                return Ok(self.mailbox.open(server, now));
            }
            Token::Cancel => {}
        }
        Ok(Wish::GoOn)
    }

    fn handle_accept(&mut self, result: i32, now: Duration) -> io::Result<()> {
        self.accept_at = Some(now);
        if result < 0 {
            let error = io::Error::from_raw_os_error(-result);
            if !matches!(-result, libc::EINTR | libc::ECONNABORTED | libc::EAGAIN | libc::ECANCELED) {
                if let Some(times) = self.accept_trouble.handle(-result, now) {
                    warn!(times, "accepting a client: {error}; trying again every {ACCEPT_PAUSE:?}");
                }
                self.accept_at = Some(now + ACCEPT_PAUSE);
            }
            return Ok(());
        }
        // SAFETY: the kernel has just made this descriptor for us, nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(result) };
        let Some(slot) = self.sockets.iter().position(Option::is_none) else {
            warn!("turning a client away: there are {CONNECTIONS_MAX} already");
            return Ok(());
        };
        let Some(id) = self.server().open() else {
            warn!("turning a client away: requests of earlier ones are still under way");
            return Ok(());
        };
        self.queue.register(slot as u32, fd.as_raw_fd())?;
        self.sockets[slot] = Some(Socket::new(id, fd, slot, slot as u32));
        Ok(())
    }

    /// Drops the clients, and waits until the kernel has given everything back.
    fn wind_down(&mut self) -> io::Result<()> {
        info!("the data plane stops: dropping its clients, finishing what the disk is doing");
        self.sockets.iter_mut().flatten().for_each(Socket::shut);
        self.mailbox.ring();
        self.queue.cancel(Token::Accept)?;
        while self.queue.in_flight() > 0 {
            self.queue.wait(None)?;
            self.handle_completions()?;
        }
        if self.disk.fd().is_some() {
            // The kernel takes a ring apart some time after its process has ended, and the image's locks would stay so long.
            self.queue.register(FILE_DISK, -1)?;
        }
        Ok(())
    }
}

impl Drop for Plane<'_> {
    fn drop(&mut self) {
        if self.queue.in_flight() > 0 {
            // The kernel may still write to the memory that is about to be freed. Whoever
            // supervises the process starts it again.
            tracing::error!("the data plane failed with operations in flight: ending the process");
            std::process::abort();
        }
    }
}
