//! A client of NBD that costs little and treats every server alike.
//!
//! One thread, one UNIX socket, a fixed number of requests in flight. What becomes free by one read of the
//! socket goes out in one write. Data that was read stays where the socket put it: it is counted, not copied.
//! Structured replies are negotiated, as QEMU does.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use super::load::{Kind, Load};

const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054; // IHAVEOPT
const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_MAGIC: u32 = 0x6744_6698;
const CHUNK_MAGIC: u32 = 0x668E_33EF;
const OPT_GO: u32 = 7;
const OPT_STRUCTURED_REPLY: u32 = 8;
const REP_ACK: u32 = 1;
const REP_INFO: u32 = 3;
const CHUNK_DONE: u16 = 1;
const CHUNK_ERROR: u16 = 1 << 15;
const REQUEST_BYTES: usize = 28;

/// What came of one run.
#[derive(Debug)]
pub struct Run {
    /// From the first request to the last reply.
    pub wall: Duration,
    /// Of every request, in nanoseconds, from its sending to its reply.
    pub latencies_ns: Vec<u64>,
}

/// A connection in transmission.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    size_bytes: u64,
    inbox: Vec<u8>,
    /// Bytes of the inbox that hold something.
    filled: usize,
    /// Bytes of a payload that are still to come and to be dropped.
    skip: usize,
    /// The number of the last payload.
    stamp: u64,
}

impl Client {
    /// Connect to the default export at `socket`.
    pub fn connect(socket: &Path) -> io::Result<Self> {
        let stream = UnixStream::connect(socket)?;
        let inbox = vec![0; 1 << 20];
        let mut client = Self { stream, size_bytes: 0, inbox, filled: 0, skip: 0, stamp: 0 };
        client.negotiate()?;
        Ok(client)
    }

    fn negotiate(&mut self) -> io::Result<()> {
        let mut greeting = [0; 18];
        self.stream.read_exact(&mut greeting)?;
        // Fixed newstyle, no zeroes.
        self.stream.write_all(&3u32.to_be_bytes())?;
        self.option(OPT_STRUCTURED_REPLY, &[])?;
        if self.answer(OPT_STRUCTURED_REPLY)?.0 != REP_ACK {
            return Err(io::Error::other("the server has no structured replies"));
        }
        // Name of no length, no information asked for beyond what comes anyway.
        self.option(OPT_GO, &[0; 6])?;
        loop {
            let (kind, payload) = self.answer(OPT_GO)?;
            match kind {
                REP_ACK => return Ok(()),
                REP_INFO if payload[..2] == [0, 0] => {
                    self.size_bytes = u64::from_be_bytes(payload[2..10].try_into().expect("8 bytes"));
                }
                REP_INFO => {}
                other => return Err(io::Error::other(format!("GO was answered by {other:#x}"))),
            }
        }
    }

    fn option(&mut self, option: u32, payload: &[u8]) -> io::Result<()> {
        let mut bytes = OPTION_MAGIC.to_be_bytes().to_vec();
        bytes.extend_from_slice(&option.to_be_bytes());
        bytes.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        bytes.extend_from_slice(payload);
        self.stream.write_all(&bytes)
    }

    fn answer(&mut self, option: u32) -> io::Result<(u32, Vec<u8>)> {
        let mut head = [0; 20];
        self.stream.read_exact(&mut head)?;
        assert_eq!(head[..8], REPLY_MAGIC.to_be_bytes(), "an answer to an option");
        assert_eq!(head[8..12], option.to_be_bytes(), "an answer to this option");
        let mut payload = vec![0; number(&head[16..20]) as usize];
        self.stream.read_exact(&mut payload)?;
        Ok((number(&head[12..16]), payload))
    }

    /// The size of the disk.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Number the payloads from `first` on.
    #[must_use]
    pub fn stamping_from(mut self, first: u64) -> Self {
        self.stamp = first;
        self
    }

    /// Run the load over `offsets`, of which there is one for each request.
    pub fn run(&mut self, load: &Load, offsets: &[u64]) -> io::Result<Run> {
        let mut requests = Requests::new(load, self.stamp);
        self.stamp += offsets.len() as u64;
        let mut sent_at = vec![Instant::now(); offsets.len()];
        let mut latencies_ns = Vec::with_capacity(offsets.len());
        let (mut next, mut done) = (load.depth.min(offsets.len()), VecDeque::new());
        let started = Instant::now();
        sent_at[..next].fill(started);
        requests.send(&mut self.stream, 0, &offsets[..next])?;
        while latencies_ns.len() < offsets.len() {
            self.receive(&mut done)?;
            let now = Instant::now();
            latencies_ns.extend(done.drain(..).map(|cookie| (now - sent_at[cookie]).as_nanos() as u64));
            let free = (latencies_ns.len() + load.depth).min(offsets.len());
            if free > next {
                sent_at[next..free].fill(now);
                requests.send(&mut self.stream, next, &offsets[next..free])?;
                next = free;
            }
        }
        Ok(Run { wall: started.elapsed(), latencies_ns })
    }

    /// Read the socket once and take every whole reply out of it.
    fn receive(&mut self, done: &mut VecDeque<usize>) -> io::Result<()> {
        let count = self.stream.read(&mut self.inbox[self.filled..])?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.filled += count;
        let mut at = self.skip.min(self.filled);
        self.skip -= at;
        while let Some(head) = Head::parse(&self.inbox[at..self.filled])? {
            if head.last {
                done.push_back(head.cookie);
            }
            // A reply counts when its data have come; of the last one the rest is in the socket already.
            let end = at + head.header_bytes + head.payload_bytes;
            at = end.min(self.filled);
            self.skip = end - at;
        }
        self.inbox.copy_within(at..self.filled, 0);
        self.filled -= at;
        Ok(())
    }
}

/// The header of a reply or of one of its chunks.
struct Head {
    cookie: usize,
    last: bool,
    header_bytes: usize,
    payload_bytes: usize,
}

impl Head {
    fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        if bytes.len() < 16 {
            return Ok(None);
        }
        match number(&bytes[..4]) {
            SIMPLE_MAGIC if number(&bytes[4..8]) == 0 => Ok(Some(Self {
                cookie: cookie(&bytes[8..16]),
                last: true,
                header_bytes: 16,
                payload_bytes: 0,
            })),
            CHUNK_MAGIC if bytes.len() < 20 => Ok(None),
            CHUNK_MAGIC => {
                let flags = u16::from_be_bytes([bytes[4], bytes[5]]);
                let kind = u16::from_be_bytes([bytes[6], bytes[7]]);
                if kind & CHUNK_ERROR != 0 {
                    return Err(io::Error::other(format!("a request failed: chunk of type {kind:#x}")));
                }
                let payload_bytes = number(&bytes[16..20]) as usize;
                let last = flags & CHUNK_DONE != 0;
                Ok(Some(Self { cookie: cookie(&bytes[8..16]), last, header_bytes: 20, payload_bytes }))
            }
            other => Err(io::Error::other(format!("{other:#x} begins no reply, or one with an error"))),
        }
    }
}

/// Requests as bytes, made once: only offset and cookie change.
struct Requests {
    command: u16,
    request_bytes: u32,
    stride: usize,
    /// Put into every payload, so that no two writes of this client are alike.
    stamp: u64,
    outbox: Vec<u8>,
}

impl Requests {
    fn new(load: &Load, stamp: u64) -> Self {
        let (command, payload_bytes) = match load.kind {
            Kind::Read => (0, 0),
            Kind::Write => (1, load.request_bytes as usize),
        };
        let stride = REQUEST_BYTES + payload_bytes;
        // The payload has no zero block and no two words alike, so that nobody can save on it.
        let mut outbox = vec![0; stride * load.depth];
        crate::scratch::Noise::new(17).fill(&mut outbox);
        Self { command, request_bytes: load.request_bytes, stride, stamp, outbox }
    }

    fn send(&mut self, stream: &mut UnixStream, first: usize, offsets: &[u64]) -> io::Result<()> {
        for (index, offset) in offsets.iter().enumerate() {
            let (head, payload) =
                self.outbox[index * self.stride..][..self.stride].split_at_mut(REQUEST_BYTES);
            head[..4].copy_from_slice(&REQUEST_MAGIC.to_be_bytes());
            head[4..8].copy_from_slice(&u32::from(self.command).to_be_bytes());
            head[8..16].copy_from_slice(&((first + index) as u64).to_be_bytes());
            head[16..24].copy_from_slice(&offset.to_be_bytes());
            head[24..28].copy_from_slice(&self.request_bytes.to_be_bytes());
            if let Some(stamp) = payload.first_chunk_mut() {
                self.stamp += 1;
                *stamp = self.stamp.to_be_bytes();
            }
        }
        stream.write_all(&self.outbox[..self.stride * offsets.len()])
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes.try_into().expect("4 bytes"))
}

fn cookie(bytes: &[u8]) -> usize {
    u64::from_be_bytes(bytes.try_into().expect("8 bytes")) as usize
}
