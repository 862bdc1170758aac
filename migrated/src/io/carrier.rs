//! What a connection of the link lies on, below TLS: a TCP connection, or a program's standard input and output.

use std::io::{Error, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

pub mod program;

pub use self::program::Program;

/// Bytes that are asked of the kernel at once. TLS would ask for 4 KiB, four times a record.
const READ_BYTES: usize = 64 << 10;

/// A two-way stream of bytes to another host.
#[derive(Debug)]
pub enum Carrier {
    /// TCP.
    Tcp(BufReader<TcpStream>),
    /// A program.
    Program(Program),
}

impl From<TcpStream> for Carrier {
    fn from(stream: TcpStream) -> Self {
        Carrier::Tcp(BufReader::with_capacity(READ_BYTES, stream))
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Carrier::Program(program) => Pin::new(program).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        match self.get_mut() {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Carrier::Program(program) => Pin::new(program).poll_write(cx, buf),
        }
    }

    /// The records of a frame go in one system call.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        match self.get_mut() {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
            Carrier::Program(program) => Pin::new(program).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            Carrier::Program(program) => program.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            Carrier::Program(program) => Pin::new(program).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        match self.get_mut() {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Carrier::Program(program) => Pin::new(program).poll_shutdown(cx),
        }
    }
}
