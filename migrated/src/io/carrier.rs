//! What a connection of the link lies on, below TLS: a TCP connection, or a program's standard input and output.

use std::io::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

pub mod program;

pub use self::program::Program;

/// A two-way stream of bytes to another host.
#[derive(Debug)]
pub enum Carrier {
    /// TCP.
    Tcp(TcpStream),
    /// A program.
    Program(Program),
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
