//! A netlink socket that sends many requests at once and says what became of each.
//!
//! ```text
//! requests ─► one send: [header|payload][header|payload]…   the kernel works them off in order
//! answers  ◄─ one acknowledgement for each, in order         or the parts of a dump, up to its end
//! ```
//!
//! It refuses to wait for ever: the kernel answers while it takes the requests, so a missing answer is a fault.

use std::io;
use std::time::Duration;

use rtnetlink::sys::{Socket, SocketAddr};

/// Wants an acknowledgement.
pub const ACK: u16 = 0x0005;
/// All of a kind.
pub const DUMP: u16 = 0x0301;
/// Make it; refuse if it is there.
pub const CREATE: u16 = 0x0600 | ACK;
/// Make it or put it in the place of what is there.
pub const REPLACE: u16 = 0x0500 | ACK;

const HEADER_BYTES: usize = 16;
const MESSAGE_ERROR: u16 = 2;
const MESSAGE_DONE: u16 = 3;
const FLAG_ACK: u16 = 0x0004;
/// The acknowledgement holds no copy of the request, and holds words.
const FLAG_CAPPED: u16 = 0x0100;
const FLAG_WORDS: u16 = 0x0200;
const WORDS: u16 = 1;
const PATIENCE: Duration = Duration::from_secs(10);

/// One request, without the header's length and number.
#[derive(Clone, Debug)]
pub struct Request {
    /// The message's type.
    pub kind: u16,
    /// The message's flags.
    pub flags: u16,
    /// What comes behind the header.
    pub payload: Vec<u8>,
}

/// The kernel's no: an error number and its own words, if it had any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The error's number.
    pub errno: i32,
    /// The kernel's words, or nothing.
    pub said: String,
}

/// A netlink socket.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
    sequence: u32,
}

impl Netlink {
    /// Open one for `protocol`, in the network namespace of this thread.
    pub fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_ext_ack(true)?;
        socket.set_cap_ack(true)?;
        socket2::SockRef::from(&socket).set_read_timeout(Some(PATIENCE))?;
        Ok(Self { socket, sequence: 0 })
    }

    /// Send all `requests` back to back; what became of each that wants an acknowledgement. A refusal of one that
    /// wants none ends the waiting: it was the frame around the others.
    pub fn send(&mut self, requests: &[Request]) -> io::Result<Vec<Result<(), Refused>>> {
        let first = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        for request in requests {
            self.sequence = self.sequence.wrapping_add(1);
            put(&mut bytes, request, self.sequence);
        }
        self.socket.send(&bytes, 0)?;
        let wanted = |request: &Request| request.flags & FLAG_ACK != 0;
        let mut answers: Vec<Option<Result<(), Refused>>> =
            requests.iter().map(|request| (!wanted(request)).then_some(Ok(()))).collect();
        while answers.iter().any(Option::is_none) {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram) {
                let index = message.sequence.wrapping_sub(first) as usize;
                let (Some(request), Some(answer)) = (requests.get(index), message.acknowledged()) else {
                    continue;
                };
                if !wanted(request) && answer.is_err() {
                    return Ok(requests
                        .iter()
                        .filter(|request| wanted(request))
                        .map(|_| answer.clone())
                        .collect());
                }
                answers[index] = Some(answer);
            }
        }
        let pairs = requests.iter().zip(answers).filter(|(request, _)| wanted(request));
        Ok(pairs.map(|(_, answer)| answer.unwrap_or(Ok(()))).collect())
    }

    /// The payloads of everything that a dump, or a question for one thing, gives.
    pub fn ask(&mut self, request: &Request) -> io::Result<Result<Vec<Vec<u8>>, Refused>> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut bytes = Vec::new();
        put(&mut bytes, request, self.sequence);
        self.socket.send(&bytes, 0)?;
        let mut found = Vec::new();
        loop {
            let (datagram, _) = self.socket.recv_from_full()?;
            for message in messages(&datagram).filter(|message| message.sequence == self.sequence) {
                match (message.kind, message.acknowledged()) {
                    (MESSAGE_DONE, _) | (_, Some(Ok(()))) => return Ok(Ok(found)),
                    (_, Some(Err(refused))) => return Ok(Err(refused)),
                    (_, None) => found.push(message.payload.to_vec()),
                }
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, request: &Request, sequence: u32) {
    let len_bytes = (HEADER_BYTES + request.payload.len()) as u32;
    bytes.extend(len_bytes.to_ne_bytes());
    bytes.extend(request.kind.to_ne_bytes());
    bytes.extend(request.flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0u32.to_ne_bytes());
    bytes.extend(&request.payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
}

/// One message that came in.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl Message<'_> {
    /// What an acknowledgement says; none where it is none.
    fn acknowledged(&self) -> Option<Result<(), Refused>> {
        if self.kind != MESSAGE_ERROR {
            return None;
        }
        let code = i32::from_ne_bytes(self.payload.get(..4)?.try_into().ok()?);
        if code == 0 {
            return Some(Ok(()));
        }
        Some(Err(Refused { errno: -code, said: self.words().unwrap_or_default() }))
    }

    fn words(&self) -> Option<String> {
        if self.flags & FLAG_WORDS == 0 {
            return None;
        }
        let copied = u32::from_ne_bytes(self.payload.get(4..8)?.try_into().ok()?) as usize;
        let copy_bytes =
            if self.flags & FLAG_CAPPED != 0 { HEADER_BYTES } else { copied.next_multiple_of(4) };
        let (_, value) = attributes(self.payload.get(4 + copy_bytes..)?).find(|(kind, _)| *kind == WORDS)?;
        Some(String::from_utf8_lossy(value).trim_end_matches('\0').to_owned())
    }
}

fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        let payload = bytes.get(HEADER_BYTES..len)?;
        let sequence = u32::from_ne_bytes(bytes[8..12].try_into().ok()?);
        let message = Message { kind: number(4), flags: number(6), sequence, payload };
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some(message)
    })
}

/// Kind and value of each attribute in a row of them.
pub fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let len = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?);
        let value = bytes.get(4..len)?;
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

#[cfg(test)]
mod tests {
    use super::{ACK, Refused, Request, messages, put};

    #[test]
    fn requests_are_padded_and_numbered() {
        let mut bytes = Vec::new();
        put(&mut bytes, &Request { kind: 18, flags: ACK, payload: vec![7; 5] }, 3);
        put(&mut bytes, &Request { kind: 19, flags: ACK, payload: Vec::new() }, 4);
        assert_eq!(bytes.len(), 24 + 16);
        let read: Vec<_> = messages(&bytes).map(|m| (m.kind, m.sequence, m.payload.len())).collect();
        assert_eq!(read, [(18, 3, 5), (19, 4, 0)]);
    }

    #[test]
    fn a_refusal_comes_with_the_kernels_words() {
        let mut payload = (-22i32).to_ne_bytes().to_vec();
        payload.extend([0; 16]);
        payload.extend([12u16.to_ne_bytes(), 1u16.to_ne_bytes()].concat());
        payload.extend(b"no way\0\0");
        let mut bytes = Vec::new();
        put(&mut bytes, &Request { kind: 2, flags: 0x0300, payload: payload.clone() }, 1);
        let answer = messages(&bytes).next().unwrap().acknowledged();
        assert_eq!(answer, Some(Err(Refused { errno: 22, said: "no way".to_owned() })));
        // Cut anywhere, it is still an error or nothing.
        for len in 0..bytes.len() {
            messages(&bytes[..len]).for_each(|message| drop(message.acknowledged()));
        }
    }
}
