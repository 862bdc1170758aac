//! The source's shell: dials the replica, sends what [`Source`] says, takes in what comes back.
//!
//! ```text
//! dialler ─► session ┬─ sender (this thread): poll ─ read back, hash, encode ─► stream
//!                    └─ receiver (a thread):   stream ─► handle_frame
//! ```
//!
//! A stream that ends for whatever reason is dialled again, with a growing pause; a refusal that
//! only a person can resolve ends the dialling and is reported. Nothing here touches a guest's
//! request: with the stream stalled, only this thread waits.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tracing::{info, warn};

use crate::io::lock::lock;
use crate::io::sidecar_file::SidecarFile;
use crate::io::{clock, read_back};
use crate::recorder::{Recorder, Recording};
use crate::replica::batch::{Encoder, Item};
use crate::replica::delivery::Delivery;
use crate::replica::encoding::{Compression, Effort, EffortChooser, Seen};
use crate::replica::source::{Outgoing, Step, StreamError};
use crate::replica::trouble::Trouble;
use crate::replica::wire::{EPOCH_MAX, FrameType, HEADER_BYTES, Header};
use crate::store::BlockStore;

/// Pauses between attempts to dial.
const DIAL_PAUSE_MIN: Duration = Duration::from_millis(50);
const DIAL_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long the sender waits for a change before it looks at the stream's state again.
const IDLE_WAIT: Duration = Duration::from_millis(500);

/// How long a replica's last words may take.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(1);

/// What a stream did, for status.
#[derive(Debug, Default)]
pub struct StreamTotals {
    /// Bytes sent, as on the wire.
    pub sent_bytes: AtomicU64,
    /// Payload bytes before compression.
    pub raw_bytes: AtomicU64,
    /// The link's rate as last believed, in bytes per second.
    pub link_bytes_per_s: AtomicU64,
}

/// What a replicator needs of the daemon.
#[derive(Clone)]
pub struct Parts {
    /// Where read-backs and digests read.
    pub store: Arc<dyn BlockStore>,
    /// What to send.
    pub recorder: Recorder,
    /// Where epochs are recorded.
    pub sidecar: Arc<Mutex<SidecarFile>>,
    /// What was sent.
    pub totals: Arc<StreamTotals>,
    /// Why the stream is down, or was last.
    pub trouble: Arc<Mutex<Trouble>>,
    /// Whether to compress.
    pub compression: Compression,
}

struct Shared {
    parts: Parts,
    target: PathBuf,
    stop: AtomicBool,
    stream: Mutex<Option<UnixStream>>,
}

/// Keeps one replica in step until it is dropped.
pub struct Replicator {
    shared: Arc<Shared>,
    dialler: Option<JoinHandle<()>>,
}

impl Replicator {
    /// Starts to dial `target`.
    pub fn start(parts: Parts, target: PathBuf) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { parts, target, stop: AtomicBool::new(false), stream: Mutex::new(None) });
        let dialler = Arc::clone(&shared);
        let thread = thread::Builder::new().name("replica-send".into()).spawn(move || dialler.run())?;
        Ok(Self { shared, dialler: Some(thread) })
    }
}

impl Drop for Replicator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Release);
        if let Some(stream) = &*lock(&self.shared.stream) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        self.shared.parts.recorder.wake();
        if let Some(thread) = self.dialler.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

/// How a session ended.
enum Ended {
    /// Dial again: something is wrong.
    Broken(String),
    /// Dial again: the stream is gone, and nobody has said why.
    Gone(String),
    /// Dial again, with an epoch past this one.
    Stale(u64),
    /// Only a person can help.
    Refused(String),
}

impl Shared {
    fn run(&self) {
        let mut pause = DIAL_PAUSE_MIN;
        while !self.stopped() {
            let started = clock::now();
            match self.session() {
                Ended::Stale(epoch) => {
                    if let Err(error) = self.record_epoch(epoch) {
                        self.fail(format!("cannot record an epoch: {error}"));
                    }
                }
                Ended::Refused(reason) => {
                    self.fail(reason);
                    return;
                }
                Ended::Broken(_) | Ended::Gone(_) if self.stopped() => return,
                Ended::Broken(reason) => self.fail(reason),
                Ended::Gone(reason) => self.note(Trouble::handle_symptom, reason),
            }
            if clock::now() - started > DIAL_PAUSE_MAX {
                pause = DIAL_PAUSE_MIN;
            }
            self.rest(pause);
            pause = (pause * 2).min(DIAL_PAUSE_MAX);
        }
    }

    fn session(&self) -> Ended {
        let stream = match UnixStream::connect(&self.target) {
            Ok(stream) => stream,
            Err(error) => {
                return Ended::Broken(format!("cannot connect to {}: {error}", self.target.display()));
            }
        };
        match self.session_over(stream) {
            Ok(ended) => ended,
            Err(error) => Ended::Gone(format!("the stream to the replica broke: {error}")),
        }
    }

    fn session_over(&self, stream: UnixStream) -> io::Result<Ended> {
        let receiving = stream.try_clone()?;
        *lock(&self.stream) = Some(stream.try_clone()?);
        // Stopping shuts the stream down; a stop before the line above is seen here.
        if self.stopped() {
            return Ok(Ended::Gone("stopped".into()));
        }
        let (epoch, known_epoch, generation) = self.record_epoch(0)?;
        self.parts.recorder.lock().source.handle_connected(epoch, known_epoch, generation);
        info!(replica = %self.target.display(), epoch, "connected to the replica");
        let over = AtomicBool::new(false);
        let ended = thread::scope(|scope| {
            let receiver = scope.spawn(|| {
                let ended = self.receive(receiving);
                over.store(true, Ordering::Release);
                self.parts.recorder.wake();
                ended
            });
            let sent = self.send(&stream, &over);
            if sent.is_err() {
                self.wait_for_last_words(&over);
            }
            let _ = stream.shutdown(Shutdown::Both);
            let received = receiver.join().expect("the receiver does not panic");
            match (received, sent) {
                // What the replica has said is why sending failed.
                (Ended::Gone(_), Err(error)) => {
                    Ended::Gone(format!("sending to the replica failed: {error}"))
                }
                (ended, _) => ended,
            }
        });
        *lock(&self.stream) = None;
        let mut guard = self.parts.recorder.lock();
        let Recording { tracker, source, .. } = &mut *guard;
        source.handle_disconnected(tracker);
        Ok(ended)
    }

    /// Sends until the stream or the recording ends.
    fn send(&self, mut stream: &UnixStream, over: &AtomicBool) -> io::Result<()> {
        let chooser = EffortChooser::new(self.parts.compression);
        let mut sender = Sender { chooser, ..Sender::default() };
        let recorder = &self.parts.recorder;
        loop {
            let mut guard = recorder.lock();
            if over.load(Ordering::Acquire) || self.stopped() {
                return Ok(());
            }
            let Recording { tracker, source, .. } = &mut *guard;
            sender.delivery.handle_acknowledged(source.acknowledged_seq(), clock::now());
            match source.poll(tracker, clock::now()) {
                Step::Wait(until) => {
                    let now = clock::now();
                    let wait = until.map_or(IDLE_WAIT, |until| until.saturating_sub(now).min(IDLE_WAIT));
                    let window_is_full = source.window_is_full();
                    recorder.announce_progress();
                    drop(recorder.wait(guard, wait));
                    if window_is_full {
                        sender.delivery.handle_waited(clock::now() - now);
                    }
                }
                Step::Send(outgoing) => {
                    drop(guard);
                    sender.send(&mut stream, outgoing, &self.parts.totals)?;
                }
                Step::ReadBack(extent, most) => {
                    drop(guard);
                    let found = read_back::look(&*self.parts.store, extent, most);
                    let mut guard = recorder.lock();
                    let Recording { tracker, source, .. } = &mut *guard;
                    source.handle_read_back(tracker, found, clock::now());
                }
                Step::Hash(leaves) => {
                    drop(guard);
                    let hashed = read_back::hash(&*self.parts.store, leaves);
                    let mut guard = recorder.lock();
                    let Recording { tracker, source, .. } = &mut *guard;
                    source.handle_hashed(tracker, hashed, clock::now());
                }
            }
        }
    }

    /// A replica that goes says why, if it can: that is on its way when nothing can be sent to it any more.
    fn wait_for_last_words(&self, over: &AtomicBool) {
        let until = clock::now() + LAST_WORDS_WAIT;
        while !over.load(Ordering::Acquire) && !self.stopped() && clock::now() < until {
            let guard = self.parts.recorder.lock();
            drop(self.parts.recorder.wait(guard, LAST_WORDS_WAIT / 50));
        }
    }

    fn receive(&self, mut stream: UnixStream) -> Ended {
        let began = clock::now();
        loop {
            let (header, body) = match read_frame(&mut stream) {
                Ok(Ok(frame)) => frame,
                Ok(Err(error)) => return Ended::Broken(error.to_string()),
                Err(error) => return Ended::Gone(format!("the replica went away: {error}")),
            };
            let mut guard = self.parts.recorder.lock();
            let Recording { tracker, source, .. } = &mut *guard;
            let result = source.handle_frame(tracker, &header, &body);
            let welcomed = source.is_streaming().then(|| source.known_epoch());
            let is_settled = tracker.is_settled();
            drop(guard);
            if result.is_ok() && (header.frame_type == FrameType::Ack || is_settled) {
                lock(&self.parts.trouble).handle_progress(clock::now() - began, is_settled);
            }
            if let Some(epoch) = welcomed.filter(|_| header.frame_type == FrameType::Welcome)
                && let Err(error) = self.welcomed(epoch)
            {
                return Ended::Broken(format!("cannot record the session: {error}"));
            }
            self.parts.recorder.wake();
            self.parts.recorder.announce_progress();
            match result {
                Ok(()) => {}
                Err(error) => return ended_by(&error),
            }
        }
    }

    /// Records the next session's epoch, past `at_least`; returns it, the known epoch, and the generation.
    fn record_epoch(&self, at_least: u64) -> io::Result<(u64, u64, u64)> {
        let mut sidecar = lock(&self.parts.sidecar);
        sidecar
            .update(|header| header.replica_epoch = header.replica_epoch.max(at_least).saturating_add(1))?;
        let header = sidecar.header();
        Ok((header.replica_epoch, header.known_epoch, header.generation))
    }

    /// The replica takes part in this session: from here on the bits count from it. They were
    /// filled before, where they had to be, so dying in between costs time and no data.
    fn welcomed(&self, epoch: u64) -> io::Result<()> {
        lock(&self.parts.sidecar).update(|header| header.known_epoch = epoch)
    }

    fn fail(&self, reason: String) {
        self.note(Trouble::handle_cause, reason);
    }

    fn note(&self, handle: fn(&mut Trouble, String) -> bool, reason: String) {
        let mut trouble = lock(&self.parts.trouble);
        if handle(&mut trouble, reason) {
            warn!(replica = %self.target.display(), "{}", trouble.text());
        }
    }

    /// Waits, however often it is woken: the end of a session's threads does that too.
    fn rest(&self, pause: Duration) {
        let until = clock::now() + pause;
        while !self.stopped() && clock::now() < until {
            thread::park_timeout(until.saturating_sub(clock::now()));
        }
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::Acquire)
    }
}

fn ended_by(error: &StreamError) -> Ended {
    match (error.stale_epoch(), error) {
        (Some(EPOCH_MAX..), _) => Ended::Refused(format!("{error}: no replica has ever had such a session")),
        (Some(epoch), _) => Ended::Stale(epoch),
        (None, StreamError::Refused(_)) => Ended::Refused(error.to_string()),
        (None, _) => Ended::Broken(error.to_string()),
    }
}

/// Encodes and writes, and learns from how long that took.
#[derive(Default)]
struct Sender {
    encoder: Encoder,
    chooser: EffortChooser,
    frame: Vec<u8>,
    delivery: Delivery,
}

impl Sender {
    fn send(
        &mut self,
        stream: &mut &UnixStream,
        outgoing: Outgoing,
        totals: &StreamTotals,
    ) -> io::Result<()> {
        match outgoing {
            Outgoing::Frame(bytes) => {
                totals.sent_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                stream.write_all(&bytes)
            }
            Outgoing::Batch { epoch, seq, items } => self.send_batch(stream, (epoch, seq), &items, totals),
        }
    }

    fn send_batch(
        &mut self,
        stream: &mut &UnixStream,
        place: (u64, u64),
        items: &[Item],
        totals: &StreamTotals,
    ) -> io::Result<()> {
        let effort = self.chooser.choose(self.delivery.bytes_per_s());
        let started = clock::now();
        let encoded = self.encoder.encode_frame(place, items, effort, &mut self.frame);
        let encoded_at = clock::now();
        stream.write_all(&self.frame)?;
        let sent_at = clock::now();
        self.delivery.handle_waited(sent_at - encoded_at);
        self.delivery.handle_sent(place.1, self.frame.len() as u64, sent_at);
        self.chooser.observe(&Seen {
            effort: if encoded.tried { effort } else { Effort::Store },
            raw_bytes: encoded.raw_bytes,
            payload_bytes: encoded.payload_bytes,
            encoding: encoded_at - started,
        });
        totals.sent_bytes.fetch_add(self.frame.len() as u64, Ordering::Relaxed);
        totals.raw_bytes.fetch_add(encoded.raw_bytes as u64, Ordering::Relaxed);
        totals.link_bytes_per_s.store(self.delivery.bytes_per_s() as u64, Ordering::Relaxed);
        Ok(())
    }
}

/// Reads one frame; the inner error says why the bytes are none.
pub fn read_frame(
    stream: &mut impl Read,
) -> io::Result<Result<(Header, Vec<u8>), crate::replica::wire::Malformed>> {
    let mut head = [0; HEADER_BYTES];
    stream.read_exact(&mut head)?;
    let header = match Header::decode(&head) {
        Ok(header) => header,
        Err(error) => return Ok(Err(error)),
    };
    let mut body = vec![0; header.body_bytes as usize];
    stream.read_exact(&mut body)?;
    Ok(header.check_body(&body).map(|()| (header, body)))
}
