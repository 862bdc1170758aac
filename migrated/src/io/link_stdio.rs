//! The far end of a link that a program carries: stdin and stdout on one side, the daemon's port on the other.
//!
//! It reads nothing of what passes: TLS and the hello are between the two daemons, and who may come in is decided there.
//! Two threads copy. By hand: the standard library would splice, and a splice that waits for a socket holds the lock of
//! the pipe, so that nobody can read what is in there already.

use std::fs::File;
use std::io::{Error, ErrorKind, Read, Write, stdin, stdout};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::thread;

/// Bytes that are copied at once.
const BUFFER_BYTES: usize = 128 << 10;

/// Carries bytes both ways until the daemon closes, or there is nobody left to tell what it says.
pub fn carry(to: SocketAddr) -> Result<(), Error> {
    let named = |error: Error| Error::new(error.kind(), format!("no daemon at {to}: {error}"));
    let daemon = TcpStream::connect(to).map_err(named)?;
    daemon.set_nodelay(true)?;
    // Standard output as Rust has it waits for the end of a line.
    let input = File::from(stdin().as_fd().try_clone_to_owned()?);
    let output = File::from(stdout().as_fd().try_clone_to_owned()?);
    let to_daemon = daemon.try_clone()?;
    // Left behind at the end: it may wait for an input that never ends.
    thread::spawn(move || {
        let _ = copy(input, &to_daemon);
        let _ = to_daemon.shutdown(Shutdown::Write);
    });
    copy(&daemon, output)
}

fn copy(mut from: impl Read, mut to: impl Write) -> Result<(), Error> {
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => to.write_all(&buffer[..count])?,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}
