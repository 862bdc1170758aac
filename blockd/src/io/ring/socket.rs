//! One client's socket: at most one receive and one send in flight.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;
use std::time::Duration;

use io_uring::{opcode, types};
use nix::errno::Errno;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};

use crate::io::ring::queue::{Queue, Token};
use crate::server::{BATCH_SLICES_MAX, ConnectionId, Server};

/// Room for replies in the kernel, so that one large reply goes out in one go. In bytes.
pub const SEND_BUFFER_BYTES: usize = 2 << 20;

/// What a `sendmsg` in flight refers to. Boxed: it must not move.
struct Batch {
    message: libc::msghdr,
    slices: [libc::iovec; BATCH_SLICES_MAX],
}

/// One socket.
pub struct Socket {
    /// Its connection at the server.
    pub id: ConnectionId,
    fd: OwnedFd,
    slot: usize,
    file: types::Fixed,
    batch: Box<Batch>,
    receiving: bool,
    sending: bool,
    is_shut: bool,
}

impl Socket {
    /// A socket in a slot, whose descriptor is registered as `file`.
    pub fn new(id: ConnectionId, fd: OwnedFd, slot: usize, file: u32) -> Self {
        // More than the limit for users is only for root; either way it is only about speed.
        if setsockopt(&fd, sockopt::SndBufForce, &SEND_BUFFER_BYTES).is_err() {
            let _ = setsockopt(&fd, sockopt::SndBuf, &SEND_BUFFER_BYTES);
        }
        let slice = libc::iovec { iov_base: ptr::null_mut(), iov_len: 0 };
        // SAFETY: all zeros is a valid msghdr: null pointers with zero lengths.
        let message = unsafe { std::mem::zeroed() };
        let batch = Box::new(Batch { message, slices: [slice; BATCH_SLICES_MAX] });
        Self {
            id,
            fd,
            slot,
            file: types::Fixed(file),
            batch,
            receiving: false,
            sending: false,
            is_shut: false,
        }
    }

    /// Sends and starts what can be; true if anything was sent.
    pub fn start(&mut self, server: &mut Server, queue: &mut Queue, now: Duration) -> io::Result<bool> {
        let mut sent = false;
        while !self.sending && self.gather(server) {
            match self.send_now() {
                Ok(n) => {
                    server.handle_sent(self.id, n, now);
                    sent = true;
                }
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => self.start_send(queue)?,
                Err(_) => {
                    server.handle_broken(self.id);
                    return Ok(sent);
                }
            }
        }
        if !self.receiving {
            self.start_recv(server, queue)?;
        }
        Ok(sent)
    }

    /// Lists what is to be sent; false if there is nothing.
    fn gather(&mut self, server: &mut Server) -> bool {
        let mut count = 0;
        for (slice, entry) in server.send_slices(self.id).zip(&mut self.batch.slices) {
            *entry = libc::iovec { iov_base: slice.as_ptr().cast_mut().cast(), iov_len: slice.len() };
            count += 1;
        }
        self.batch.message.msg_iov = self.batch.slices.as_mut_ptr();
        self.batch.message.msg_iovlen = count;
        count > 0
    }

    /// Sends what the socket has room for. Usually that is everything, and then this is cheaper
    /// than an entry, whose completion would end the next wait before there is anything to do.
    fn send_now(&self) -> nix::Result<usize> {
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        // SAFETY: what was gathered is in place until handle_sent.
        let n = unsafe { libc::sendmsg(self.fd.as_raw_fd(), &raw const self.batch.message, flags) };
        Errno::result(n).map(|n| n as usize)
    }

    /// Has the kernel send what was gathered as soon as there is room.
    fn start_send(&mut self, queue: &mut Queue) -> io::Result<()> {
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        let entry = opcode::SendMsg::new(self.file, &raw const self.batch.message).flags(flags).build();
        // SAFETY: the header and the slices are boxed and left alone while `sending`; what the
        // slices refer to stays in place until handle_sent, and the server is asked to close this
        // connection only after the completion.
        unsafe { queue.push(entry, Token::Send(self.slot))? };
        self.sending = true;
        Ok(())
    }

    fn start_recv(&mut self, server: &mut Server, queue: &mut Queue) -> io::Result<()> {
        let flags = if server.recv_wants_all(self.id) { libc::MSG_WAITALL } else { 0 };
        let Some(space) = server.recv_space(self.id) else { return Ok(()) };
        let entry = opcode::Recv::new(self.file, space.as_mut_ptr(), space.len() as u32).flags(flags).build();
        // SAFETY: the space stays in place until handle_received, and the server is asked to close
        // this connection only after the completion.
        unsafe { queue.push(entry, Token::Recv(self.slot))? };
        self.receiving = true;
        Ok(())
    }

    /// The receive in flight is done.
    pub fn finish_recv(&mut self) {
        self.receiving = false;
    }

    /// The send in flight is done.
    pub fn finish_send(&mut self) {
        self.sending = false;
    }

    /// Makes what is in flight end.
    pub fn shut(&mut self) {
        if !self.is_shut {
            // An error means that the client was faster.
            let _ = shutdown(self.fd.as_raw_fd(), Shutdown::Both);
            self.is_shut = true;
        }
    }

    /// True if the kernel uses none of this connection's memory.
    pub fn is_quiet(&self) -> bool {
        !self.receiving && !self.sending
    }
}
