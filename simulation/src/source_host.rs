//! The source's host: its disk and sidecar, which last, and its blockd, which may die.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use blockd::buffer::PageBuf;
use blockd::extent::{BLOCK_BYTES, Extent, block_count};
use blockd::io::memory_store::MemoryStore;
use blockd::nbd::handshake::Export;
use blockd::recorder::Recorder;
use blockd::replica::batch::{Digest, Encoder};
use blockd::replica::encoding::Effort;
use blockd::replica::source::{Found, Hashed, Outgoing, Source, SourceConfig, Step};
use blockd::replica::wire::{self, FrameType, HEADER_BYTES, Header};
use blockd::server::{ConnectionId, Server};
use blockd::sidecar::{IntentMap, VecIntentMap};
use blockd::store::Trimmed;
use blockd::tracker::Tracker;
use blockd::volume::{StoreAction, StoreCall, Volume};

use super::disk::Disk;
use super::guest::{GREETING_BYTES, Guest};
use super::kept::Kept;
use super::link::Link;
use super::rng::Rng;

/// The sidecar's bits: they outlive the process.
#[derive(Clone, Debug)]
pub struct Bits(Arc<Mutex<VecIntentMap>>);

impl IntentMap for Bits {
    fn set(&mut self, blocks: Range<u64>) {
        self.0.lock().expect("one thread").set(blocks);
    }
    fn clear(&mut self, blocks: Range<u64>) {
        self.0.lock().expect("one thread").clear(blocks);
    }
    fn next_run(&self, from: u64) -> Option<Range<u64>> {
        self.0.lock().expect("one thread").next_run(from)
    }
    fn fill(&mut self) {
        self.0.lock().expect("one thread").fill();
    }
}

/// The longest request that goes to the volume as it is, in bytes.
const PIECE_BYTES: u32 = 16 << 10;

/// What a seed varies.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Size of the disk in bytes.
    pub size: u64,
    /// Memory for the delta queue.
    pub budget_bytes: u64,
    /// Bytes sent and not acknowledged.
    pub window_bytes: u64,
    /// The invariants that are kept.
    pub kept: Kept,
}

enum Sender {
    Idle,
    Reading { extent: Extent, bytes: Vec<u8>, len: u64 },
    Hashing { leaves: Range<u64>, bytes: Vec<u8>, digests: Vec<Digest> },
}

struct Process {
    server: Server,
    connection: ConnectionId,
    inbound: Vec<u8>,
    greeting: usize,
    recorder: Recorder,
    in_flight: Vec<(StoreCall, u64)>,
    sender: Sender,
    encoder: Encoder,
    received: Vec<u8>,
}

/// The source.
pub struct SourceHost {
    settings: Settings,
    /// Its disk.
    pub disk: Disk,
    bits: Bits,
    epoch: u64,
    known_epoch: u64,
    process: Process,
}

impl SourceHost {
    /// A host whose disk is recorded, so that everything is still to be copied.
    pub fn new(settings: Settings, guest: &mut Guest) -> Self {
        let mut bits = Bits(Arc::new(Mutex::new(VecIntentMap::empty(block_count(settings.size)))));
        bits.fill();
        let process = Process::start(settings, bits.clone(), guest);
        Self { settings, disk: Disk::new(settings.size), bits, epoch: 0, known_epoch: 0, process }
    }

    /// The process dies. What its disk has in hand ends or does not, before a new process starts (D12).
    pub fn kill(&mut self, rng: &mut Rng, guest: &mut Guest) {
        for (call, at) in std::mem::take(&mut self.process.in_flight) {
            let blocks = call.extent.touched_blocks();
            let stop = at + rng.below(blocks.end.saturating_sub(at) + 1);
            let data = self.process.server.buffer_mut(call.op).to_vec();
            for block in at..stop {
                apply(&mut self.disk, &call, block, &data);
            }
        }
        self.process = Process::start(self.settings, self.bits.clone(), guest);
    }

    /// The host crashes: with the process goes what was not flushed, and the bits are worth nothing.
    pub fn crash(&mut self, rng: &mut Rng, guest: &mut Guest) {
        self.process.in_flight.clear();
        self.disk.crash(rng);
        self.bits.fill();
        guest.accept_disk(self.disk.bytes());
        self.process = Process::start(self.settings, self.bits.clone(), guest);
    }

    /// The recording.
    pub fn recorder(&self) -> &Recorder {
        &self.process.recorder
    }

    /// The disk as the guest sees it.
    pub fn volume_mut(&mut self) -> &mut Volume {
        self.process.server.volume_mut()
    }

    /// Bytes from the guest.
    pub fn receive_from_guest(&mut self, bytes: &[u8]) {
        self.process.inbound.extend_from_slice(bytes);
    }

    /// True if a call of the disk is in flight.
    pub fn disk_is_busy(&self) -> bool {
        !self.process.in_flight.is_empty()
    }

    /// Extents that calls in flight change.
    pub fn extents_in_flight(&self) -> Vec<Extent> {
        self.process.in_flight.iter().map(|(call, _)| call.extent).collect()
    }

    /// Moves bytes between guest and server.
    pub fn serve(&mut self, guest: &mut Guest, now: Duration) {
        let process = &mut self.process;
        process.server.handle_timeout(now);
        while !process.inbound.is_empty() {
            let Some(space) = process.server.recv_space(process.connection) else { break };
            let count = space.len().min(process.inbound.len());
            space[..count].copy_from_slice(&process.inbound[..count]);
            process.inbound.drain(..count);
            process.server.handle_received(process.connection, count, now);
        }
        while let Some(call) = process.server.poll_store() {
            process.in_flight.push((call, call.extent.touched_blocks().start));
        }
        loop {
            let bytes: Vec<u8> = process.server.send_slices(process.connection).flatten().copied().collect();
            if bytes.is_empty() {
                break;
            }
            process.server.handle_sent(process.connection, bytes.len(), now);
            guest.handle_bytes(&bytes, &mut process.greeting);
        }
        assert!(
            !process.server.is_closed(process.connection),
            "the server dropped a guest that did nothing wrong"
        );
    }

    /// One of the disk's calls goes on by one block, or ends.
    pub fn step_disk(&mut self, rng: &mut Rng, now: Duration) {
        let process = &mut self.process;
        let index = rng.index(process.in_flight.len());
        let (call, at) = process.in_flight[index];
        let failed = rng.below(500) == 0;
        if at < call.extent.touched_blocks().end && call.action != StoreAction::Flush && !failed {
            let data = process.server.buffer_mut(call.op).to_vec();
            apply(&mut self.disk, &call, at, &data);
            process.in_flight[index].1 += 1;
            return;
        }
        process.in_flight.swap_remove(index);
        if matches!(call.action, StoreAction::Flush | StoreAction::Write { durable: true }) {
            self.disk.flush();
        }
        let outcome = if failed { Err(5) } else { Ok(Trimmed::ReadsZero) };
        process.server.handle_store(call.op, outcome, now);
    }

    /// Dials: a new session, its epoch recorded before it is used.
    pub fn connect(&mut self) {
        self.epoch += 1;
        self.process.recorder.lock().source.handle_connected(self.epoch, self.known_epoch, 1);
    }

    /// The stream is gone, and the source notices.
    pub fn disconnect(&mut self) {
        let mut guard = self.process.recorder.lock();
        let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
        source.handle_disconnected(tracker);
        drop(guard);
        self.process.sender = Sender::Idle;
        self.process.received.clear();
    }

    /// The sender goes one step further; false if it has nothing to do.
    pub fn step_sender(&mut self, link: &mut Link, now: Duration) -> bool {
        match std::mem::replace(&mut self.process.sender, Sender::Idle) {
            Sender::Idle => self.step_idle(link, now),
            Sender::Reading { extent, bytes, len } => {
                self.step_reading(extent, bytes, len, now);
                true
            }
            Sender::Hashing { leaves, bytes, digests } => {
                self.step_hashing(leaves, bytes, digests, now);
                true
            }
        }
    }

    /// Bytes from the replica arrive.
    pub fn receive_from_replica(&mut self, bytes: &[u8]) {
        self.process.received.extend_from_slice(bytes);
        while let Some((header, body)) = take_frame(&mut self.process.received) {
            let mut guard = self.process.recorder.lock();
            let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
            let result = source.handle_frame(tracker, &header, &body);
            assert_eq!(result, Ok(()), "the replica speaks the protocol");
            self.known_epoch = source.known_epoch();
        }
    }

    fn step_idle(&mut self, link: &mut Link, now: Duration) -> bool {
        let mut guard = self.process.recorder.lock();
        let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
        let step = source.poll(tracker, now);
        drop(guard);
        match step {
            Step::Send(outgoing) => {
                let bytes = self.encode(outgoing);
                if !link.cut {
                    link.down.send(&bytes);
                }
            }
            Step::ReadBack(extent, most) => {
                let blocks = extent.touched_blocks();
                let hole = blocks.clone().take_while(|block| self.disk.is_hole(*block)).count() as u64;
                if hole > 0 {
                    self.found(
                        Found::Hole(
                            Extent::of_blocks(blocks.start..blocks.start + hole, self.settings.size).len,
                        ),
                        now,
                    );
                } else {
                    let len = extent.len.min(most);
                    self.process.sender = Sender::Reading { extent, bytes: Vec::new(), len };
                }
            }
            Step::Hash(leaves) => {
                self.process.sender = Sender::Hashing { leaves, bytes: Vec::new(), digests: Vec::new() };
            }
            Step::Wait(_) => return false,
        }
        true
    }

    /// Reads one more block: the guest may write between two of them.
    fn step_reading(&mut self, extent: Extent, mut bytes: Vec<u8>, len: u64, now: Duration) {
        let at = extent.offset + bytes.len() as u64;
        let piece = (extent.offset + len - at).min(BLOCK_BYTES);
        bytes.extend_from_slice(self.disk.read(&Extent::new(at, piece)));
        if (bytes.len() as u64) < len {
            self.process.sender = Sender::Reading { extent, bytes, len };
        } else {
            self.found(Found::Data(PageBuf::copy_of(&bytes)), now);
        }
    }

    fn step_hashing(
        &mut self,
        leaves: Range<u64>,
        mut bytes: Vec<u8>,
        mut digests: Vec<Digest>,
        now: Duration,
    ) {
        let leaf = leaves.start + digests.len() as u64;
        let extent = Extent::of_leaves(leaf..leaf + 1, self.settings.size);
        let at = extent.offset + bytes.len() as u64;
        bytes.extend_from_slice(self.disk.read(&Extent::new(at, (extent.end() - at).min(BLOCK_BYTES))));
        if bytes.len() as u64 == extent.len {
            digests.push(*blake3::hash(&bytes).as_bytes());
            bytes.clear();
        }
        let done = digests.len() as u64 == (leaves.end - leaves.start).min(2);
        if !done {
            self.process.sender = Sender::Hashing { leaves, bytes, digests };
            return;
        }
        let all_zeros = leaves.clone().all(|leaf| {
            let extent = Extent::of_leaves(leaf..leaf + 1, self.settings.size);
            extent.touched_blocks().all(|block| self.disk.is_hole(block))
        });
        let hashed =
            if all_zeros { Hashed::Zeros(leaves.end - leaves.start) } else { Hashed::Digests(digests) };
        let mut guard = self.process.recorder.lock();
        let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
        source.handle_hashed(tracker, hashed, now);
    }

    fn found(&mut self, found: Found, now: Duration) {
        let mut guard = self.process.recorder.lock();
        let blockd::recorder::Recording { tracker, source, .. } = &mut *guard;
        source.handle_read_back(tracker, found, now);
    }

    fn encode(&mut self, outgoing: Outgoing) -> Vec<u8> {
        match outgoing {
            Outgoing::Frame(bytes) => bytes,
            Outgoing::Batch { epoch, seq, items } => {
                let mut body = Vec::new();
                self.process.encoder.encode(&items, Effort::Zstd(1), &mut body);
                wire::frame(FrameType::Batch, epoch, seq, &body)
            }
        }
    }
}

impl Process {
    fn start(settings: Settings, bits: Bits, guest: &mut Guest) -> Self {
        let Settings { size, budget_bytes, kept, .. } = settings;
        let tracker = Tracker::with_rules(size, budget_bytes, Box::new(bits), kept.rules);
        let source = Source::new(SourceConfig {
            size: settings.size,
            disk_id: "disk".into(),
            batch_bytes: 0,
            batch_age: Duration::from_millis(1),
            window_bytes: settings.window_bytes,
        });
        let recorder = Recorder::new(tracker, source);
        let mut volume = Volume::new();
        volume.attach(recorder.clone());
        let store = Arc::new(MemoryStore::new(settings.size));
        // Small, so that some requests are longer, and go in pieces.
        let export = Export { block_size_max: PIECE_BYTES, ..Export::new("", settings.size) };
        let mut server = Server::new(export, volume, store);
        let connection = server.open().expect("the first connection");
        Self {
            server,
            connection,
            inbound: guest.reconnect(),
            greeting: GREETING_BYTES,
            recorder,
            in_flight: Vec::new(),
            sender: Sender::Idle,
            encoder: Encoder::default(),
            received: Vec::new(),
        }
    }
}

fn apply(disk: &mut Disk, call: &StoreCall, block: u64, data: &[u8]) {
    match call.action {
        StoreAction::Write { .. } => disk.write_block(block, &call.extent, data),
        StoreAction::Trim => disk.zero_block(block, &call.extent, false),
        StoreAction::Zero { allocate } => disk.zero_block(block, &call.extent, allocate),
        StoreAction::Read | StoreAction::Flush => {}
    }
}

/// Takes one whole frame off the front of what arrived.
pub fn take_frame(received: &mut Vec<u8>) -> Option<(Header, Vec<u8>)> {
    let head: [u8; HEADER_BYTES] = received.get(..HEADER_BYTES)?.try_into().expect("the header's length");
    let header = Header::decode(&head).expect("only whole frames are sent, and nothing flips bits");
    let end = HEADER_BYTES + header.body_bytes as usize;
    let body = received.get(HEADER_BYTES..end)?.to_vec();
    header.check_body(&body).expect("only whole frames are sent, and nothing flips bits");
    received.drain(..end);
    Some((header, body))
}
