//! The client's sockets: each session is one thread that writes what it sees into the shared record.
//!
//! Nobody waits for a guessed time here: a read ends with an answer, or when the next line is due.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::lines::Lines;
use super::record::{Connection, Exchange, Loss, Numbers, Record};
use crate::guest_kit::ports;
use crate::wait::rest;

/// Longest wait for a connection before it is tried anew.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// Longest time between two looks at whether this shall end.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What all sessions share.
#[derive(Clone, Debug)]
pub struct Shared {
    begin: Instant,
    record: Arc<Mutex<Record>>,
    finished: Arc<AtomicBool>,
}

impl Shared {
    /// An empty record that begins now.
    pub fn begin(disks: u16) -> Self {
        let disks = vec![Numbers::default(); usize::from(disks)];
        let record = Arc::new(Mutex::new(Record { disks, ..Record::default() }));
        Self { begin: Instant::now(), record, finished: Arc::default() }
    }

    /// Microseconds since the beginning.
    pub fn now_us(&self) -> u64 {
        self.begin.elapsed().as_micros() as u64
    }

    /// The record.
    pub fn record(&self) -> MutexGuard<'_, Record> {
        self.record.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// No more lines.
    pub fn finish(&self) {
        self.record().end_us = self.now_us();
        self.finished.store(true, Ordering::SeqCst);
    }

    fn is_finished(&self) -> bool {
        self.finished.load(Ordering::SeqCst)
    }
}

/// The echo session: `lines_per_s` lines, whether or not those before were answered. After the finish it waits for
/// what is unanswered, at most `last_answer`.
pub fn echo(
    shared: &Shared,
    address: Ipv4Addr,
    (lines_per_s, line_bytes): (u32, u16),
    last_answer: Duration,
) {
    let mut next = Instant::now();
    while let Some(stream) = connect(shared, address, ports::ECHO) {
        shared.record().connections.push(opened(shared, &stream));
        let pace = (&mut next, Duration::from_secs(1) / lines_per_s);
        let end = converse(shared, &stream, pace, line_bytes, last_answer);
        let Err(error) = end else { return };
        let loss = loss(shared, &error);
        shared.record().connections.last_mut().expect("one was pushed").lost = Some(loss);
        // A new session has nothing to hear of the lines before.
    }
}

fn converse(
    shared: &Shared,
    mut stream: &TcpStream,
    (next, pause): (&mut Instant, Duration),
    line_bytes: u16,
    last_answer: Duration,
) -> io::Result<()> {
    let (mut lines, mut bytes) = (Lines::default(), [0; 4096]);
    let first = shared.record().lines.len();
    let mut deadline = None;
    loop {
        let now = Instant::now();
        if shared.is_finished() {
            let until = *deadline.get_or_insert(now + last_answer);
            let is_answered = shared.record().lines[first..].iter().all(|line| line.answered_us.is_some());
            if is_answered || now >= until {
                return Ok(());
            }
        } else if now >= *next {
            *next += pause;
            let sent_us = shared.now_us();
            let number = {
                let mut record = shared.record();
                record.lines.push(Exchange { sent_us, answered_us: None, guest_us: None });
                record.lines.len() - 1
            };
            // Zeros before the number, as many as it takes.
            stream.write_all(format!("{number:0width$}\n", width = usize::from(line_bytes)).as_bytes())?;
            continue;
        }
        let wait = next.saturating_duration_since(now).clamp(Duration::from_millis(1), LOOK_EVERY);
        stream.set_read_timeout(Some(wait))?;
        let Some(len) = read(stream.read(&mut bytes))? else { continue };
        let at_us = shared.now_us();
        for line in lines.push(&bytes[..len]) {
            answered(&mut shared.record().lines, &line, at_us);
        }
    }
}

/// Datagrams to the echo, and their answers.
pub fn datagrams(shared: &Shared, address: Ipv4Addr, per_s: u32, last_answer: Duration) -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.connect((address, ports::ECHO))?;
    let pause = Duration::from_secs(1) / per_s;
    let (mut next, mut bytes, mut deadline) = (Instant::now(), [0; 2048], None);
    loop {
        let now = Instant::now();
        if shared.is_finished() {
            let until = *deadline.get_or_insert(now + last_answer.min(Duration::from_secs(1)));
            let is_answered = shared.record().datagrams.iter().all(|one| one.answered_us.is_some());
            if is_answered || now >= until {
                return Ok(());
            }
        } else if now >= next {
            next += pause;
            let sent_us = shared.now_us();
            let number = {
                let mut record = shared.record();
                record.datagrams.push(Exchange { sent_us, answered_us: None, guest_us: None });
                record.datagrams.len() - 1
            };
            // What cannot be sent is lost: no route, or nobody there.
            let _ = socket.send(number.to_string().as_bytes());
            continue;
        }
        let wait = next.saturating_duration_since(now).clamp(Duration::from_millis(1), LOOK_EVERY);
        socket.set_read_timeout(Some(wait))?;
        let Ok(len) = socket.recv(&mut bytes) else { continue };
        let answer = String::from_utf8_lossy(&bytes[..len]).into_owned();
        answered(&mut shared.record().datagrams, &answer, shared.now_us());
    }
}

/// The numbers that the disk `disk` (0: the first) has acknowledged.
pub fn numbers(shared: &Shared, address: Ipv4Addr, disk: u16) {
    let index = usize::from(disk);
    while let Some(stream) = connect(shared, address, ports::ACKNOWLEDGED + disk) {
        let connection = opened(shared, &stream);
        shared.record().disks[index].connections.push(connection);
        let Err(error) = listen(shared, &stream, index) else { return };
        let loss = loss(shared, &error);
        let mut record = shared.record();
        record.disks[index].connections.last_mut().expect("one was pushed").lost = Some(loss);
    }
}

fn listen(shared: &Shared, mut stream: &TcpStream, index: usize) -> io::Result<()> {
    stream.set_read_timeout(Some(LOOK_EVERY))?;
    let (mut lines, mut bytes) = (Lines::default(), vec![0; 64 << 10]);
    while !shared.is_finished() {
        let Some(len) = read(stream.read(&mut bytes))? else { continue };
        let at_us = shared.now_us();
        for line in lines.push(&bytes[..len]) {
            let number = line.parse().map_err(|_| io::Error::other(format!("{line:?} is not a number")))?;
            shared.record().disks[index].hear(at_us, number);
        }
    }
    Ok(())
}

/// One more connection with one line; how long that took.
pub fn once_more(shared: &Shared, address: Ipv4Addr) -> io::Result<u64> {
    let begin_us = shared.now_us();
    let mut stream = TcpStream::connect_timeout(&(address, ports::ECHO).into(), CONNECT_LIMIT)?;
    stream.set_read_timeout(Some(CONNECT_LIMIT))?;
    stream.write_all(b"once more\n")?;
    match stream.read(&mut [0; 64])? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(shared.now_us() - begin_us),
    }
}

/// Connect, as often as it takes; none after the finish.
fn connect(shared: &Shared, address: Ipv4Addr, port: u16) -> Option<TcpStream> {
    while !shared.is_finished() {
        if let Ok(stream) = TcpStream::connect_timeout(&(address, port).into(), CONNECT_LIMIT) {
            stream.set_nodelay(true).expect("an option of every TCP socket");
            return Some(stream);
        }
        rest(LOOK_EVERY);
    }
    None
}

fn opened(shared: &Shared, stream: &TcpStream) -> Connection {
    let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let ends = (stream.local_addr().unwrap_or(nowhere), stream.peer_addr().unwrap_or(nowhere));
    Connection { ends, opened_us: shared.now_us(), lost: None }
}

fn loss(shared: &Shared, error: &io::Error) -> Loss {
    let was_reset = matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe);
    Loss { at_us: shared.now_us(), was_reset, why: error.to_string() }
}

/// None: nothing came in time. The end of a stream is an error here: nobody wanted it.
fn read(result: io::Result<usize>) -> io::Result<Option<usize>> {
    match result {
        Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
        Ok(len) => Ok(Some(len)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
            // A connection that the system gave up also says so, but with a number of its own.
            if error.raw_os_error() == Some(nix::libc::ETIMEDOUT) { Err(error) } else { Ok(None) }
        }
        Err(error) if error.kind() == ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

/// An answer is the number that was sent, and the guest's clock.
fn answered(exchanges: &mut [Exchange], answer: &str, at_us: u64) {
    let Some((number, guest_us)) = answer.split_once(' ') else { return };
    let Ok(number) = number.parse::<usize>() else { return };
    if let Some(exchange) = exchanges.get_mut(number).filter(|exchange| exchange.answered_us.is_none()) {
        exchange.answered_us = Some(at_us);
        exchange.guest_us = guest_us.trim().parse().ok();
    }
}
