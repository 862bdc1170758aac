//! Echo: a line, or a datagram, comes back as it was with a blank and the guest's clock in microseconds behind it.

use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};

use crate::clock::Clock;

/// Largest datagram that comes back whole.
const DATAGRAM_BYTES: usize = 1400;

/// Answer lines until the client has no more.
pub fn lines(stream: &TcpStream, clock: &Clock) -> io::Result<()> {
    let mut answers = stream;
    for line in BufReader::new(stream).lines() {
        answers.write_all(format!("{} {}\n", line?, clock.now_us()).as_bytes())?;
    }
    Ok(())
}

/// Answer datagrams for ever; one that cannot be answered is lost, as datagrams are.
pub fn datagrams(socket: &UdpSocket, clock: &Clock) {
    let mut bytes = [0; DATAGRAM_BYTES];
    loop {
        let Ok((len, client)) = socket.recv_from(&mut bytes) else { continue };
        let mut answer = bytes[..len].to_vec();
        answer.extend_from_slice(format!(" {}", clock.now_us()).as_bytes());
        let _ = socket.send_to(&answer, client);
    }
}
