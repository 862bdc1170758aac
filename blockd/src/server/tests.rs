//! The server driven by bytes, with a disk in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::{ProptestConfig, Strategy, any, prop};
use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest};

use crate::extent::Extent;
use crate::io::memory_store::MemoryStore;
use crate::io::store_call;
use crate::nbd::export::Export;
use crate::nbd::frame::{ChunkHeader, RequestHeader, SimpleReply};
use crate::nbd::wire::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_DISC, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_WRITE,
    NBD_FLAG_C_FIXED_NEWSTYLE, NBD_FLAG_C_NO_ZEROES, NBD_OPT_GO, NBD_OPT_SET_META_CONTEXT,
    NBD_OPT_STRUCTURED_REPLY, NBD_REPLY_FLAG_DONE, NBD_REPLY_TYPE_ERROR, NbdError,
};
use crate::server::connection::{BYTES_MAX, REQUESTS_MAX};
use crate::server::{CONNECTIONS_MAX, ConnectionId, Server};
use crate::store::BlockStore;
use crate::volume::Volume;

mod large;

const DISK_BYTES: u64 = 4 << 20;
const NOW: Duration = Duration::ZERO;

struct Rig {
    server: Server,
    store: Arc<MemoryStore>,
}

impl Rig {
    fn new() -> Self {
        Self::of(Export::new("", DISK_BYTES))
    }

    fn of(export: Export) -> Self {
        let store = Arc::new(MemoryStore::new(export.size));
        let server = Server::new(export, Volume::new(), store.clone());
        Self { server, store }
    }

    /// A client whose handshake is over.
    fn client(&mut self) -> ConnectionId {
        self.client_after(&handshake())
    }

    fn client_after(&mut self, handshake: &[u8]) -> ConnectionId {
        let id = self.server.open().unwrap();
        self.converse(id, handshake, &[usize::MAX]);
        id
    }

    /// Delivers as much as the server wants, in pieces of at most `piece` bytes; returns the rest.
    fn feed<'a>(&mut self, id: ConnectionId, mut bytes: &'a [u8], piece: usize) -> &'a [u8] {
        while !bytes.is_empty() {
            let Some(space) = self.server.recv_space(id) else { break };
            let n = space.len().min(bytes.len()).min(piece);
            space[..n].copy_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            self.server.handle_received(id, n, NOW);
        }
        bytes
    }

    /// Runs every store call.
    fn run_store(&mut self) {
        while let Some(call) = self.server.poll_store() {
            let buf = self.server.buffer_mut(call.op);
            let outcome = store_call::execute(&*self.store, call.action, call.extent, buf);
            self.server.handle_store(call.op, outcome, NOW);
        }
    }

    /// Takes everything that is to be sent, in pieces of at most `piece` bytes.
    fn sent(&mut self, id: ConnectionId, piece: usize) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let batch: Vec<u8> = self.server.send_slices(id).flatten().copied().take(piece).collect();
            if batch.is_empty() {
                return out;
            }
            self.server.handle_sent(id, batch.len(), NOW);
            out.extend(batch);
        }
    }

    /// The whole conversation of one client.
    fn converse(&mut self, id: ConnectionId, input: &[u8], pieces: &[usize]) -> Vec<u8> {
        let mut pieces = pieces.iter().copied().cycle();
        let (mut rest, mut out) = (input, Vec::new());
        loop {
            let piece = pieces.next().unwrap();
            let before = (rest.len(), out.len());
            let space = self.server.recv_space(id).map_or(0, |space| space.len());
            let n = piece.min(rest.len()).min(space);
            let left = self.feed(id, &rest[..n], usize::MAX);
            assert!(left.is_empty(), "what there is space for is taken");
            rest = &rest[n..];
            self.run_store();
            out.extend(self.sent(id, piece));
            if before == (rest.len(), out.len()) {
                return out;
            }
        }
    }
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.extend(option.to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(data);
    bytes
}

/// Structured replies, `base:allocation`, go.
fn handshake() -> Vec<u8> {
    let context = b"\0\0\0\0\0\0\0\x01\0\0\0\x0fbase:allocation";
    let flags = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
    let mut bytes = flags.to_be_bytes().to_vec();
    bytes.extend(option(NBD_OPT_STRUCTURED_REPLY, &[]));
    bytes.extend(option(NBD_OPT_SET_META_CONTEXT, context));
    bytes.extend(option(NBD_OPT_GO, &[0; 6]));
    bytes
}

fn header(command: u16, flags: u16, cookie: u64, offset: u64, length: u32) -> Vec<u8> {
    RequestHeader { flags, command, cookie, offset, length }.encode().to_vec()
}

fn write(cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    let mut bytes = header(NBD_CMD_WRITE, 0, cookie, offset, data.len() as u32);
    bytes.extend(data);
    bytes
}

/// What each request got: error code and data, that of all its chunks in the order in which they came.
fn replies(mut bytes: &[u8]) -> Vec<(u64, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    let mut parts: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    while !bytes.is_empty() {
        if let Some(simple) = bytes.first_chunk().and_then(SimpleReply::decode) {
            replies.push((simple.cookie, simple.error, Vec::new()));
            bytes = &bytes[16..];
            continue;
        }
        let chunk = bytes.first_chunk().and_then(ChunkHeader::decode).expect("a reply");
        let (payload, rest) = bytes[20..].split_at(chunk.length as usize);
        let error = if chunk.kind == NBD_REPLY_TYPE_ERROR {
            u32::from_be_bytes(payload[..4].try_into().unwrap())
        } else {
            0
        };
        let begun = parts.remove(&chunk.cookie);
        let payload = match begun {
            Some(begun) if error == 0 => [&begun, &payload[8..]].concat(),
            _ => payload.to_vec(),
        };
        if chunk.flags & NBD_REPLY_FLAG_DONE == 0 {
            parts.insert(chunk.cookie, payload);
        } else {
            replies.push((chunk.cookie, error, payload));
        }
        bytes = rest;
    }
    replies
}

fn only_errors(bytes: &[u8]) -> Vec<(u64, u32)> {
    replies(bytes).into_iter().map(|(cookie, error, _)| (cookie, error)).collect()
}

fn any_request() -> impl Strategy<Value = Vec<u8>> {
    let range = (0..DISK_BYTES + 8192, prop_oneof![0..70_000_u32, 0..2_000_000_u32]);
    (0..9_u16, 0..32_u16, range, any::<u8>()).prop_map(|(command, flags, (offset, length), fill)| {
        // 9 is no command. A disconnect would end the conversation.
        let command = if command == NBD_CMD_DISC { 9 } else { command };
        let mut bytes = header(command, flags, 0, offset, length);
        if command == NBD_CMD_WRITE {
            bytes.extend(std::iter::repeat_n(fill, length as usize));
        }
        bytes
    })
}

/// The same requests, numbered.
fn numbered(requests: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (cookie, request) in (1_u64..).zip(requests) {
        bytes.extend(&request[..8]);
        bytes.extend(cookie.to_be_bytes());
        bytes.extend(&request[16..]);
    }
    bytes
}

/// Replies by cookie: their order is free.
fn by_cookie(output: &[u8]) -> BTreeMap<u64, (u32, Vec<u8>)> {
    let replies = replies(output);
    let count = replies.len();
    let map: BTreeMap<_, _> =
        replies.into_iter().map(|(cookie, error, data)| (cookie, (error, data))).collect();
    assert_eq!(map.len(), count, "no request is answered twice");
    map
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_same_bytes_in_any_pieces_get_the_same_replies(
        requests in prop::collection::vec(any_request(), 1..24),
        pieces in prop::collection::vec(1..100_000_usize, 1..20),
        small in 1..40_usize,
    ) {
        let input = numbered(&requests);
        let mut outputs = Vec::new();
        for pieces in [&[usize::MAX][..], &pieces, &[small, 70_001]] {
            let mut rig = Rig::new();
            let id = rig.server.open().unwrap();
            let greeting = rig.converse(id, &handshake(), pieces).len();
            let output = rig.converse(id, &input, pieces);
            prop_assert_eq!(by_cookie(&output).len(), requests.len());
            let mut disk = vec![0; DISK_BYTES as usize];
            rig.store.read_at(&mut disk, 0).unwrap();
            outputs.push((greeting, by_cookie(&output), blake3::hash(&disk)));
        }
        prop_assert!(outputs[0] == outputs[1] && outputs[1] == outputs[2]);
    }

    #[test]
    fn no_bytes_at_all_make_the_server_panic_or_hoard(
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        after_handshake in any::<bool>(),
        piece in 1..200_usize,
    ) {
        let mut rig = Rig::new();
        let id = if after_handshake { rig.client() } else { rig.server.open().unwrap() };
        rig.converse(id, &bytes, &[piece]);
        rig.server.handle_received(id, 0, NOW);
        prop_assert!(rig.server.is_closed(id) || rig.server.recv_space(id).is_none());
        rig.server.close(id);
        rig.run_store();
        prop_assert!(rig.server.connections.iter().all(Option::is_none));
    }
}

#[test]
fn what_is_written_is_read() {
    let mut rig = Rig::new();
    let id = rig.client();
    let mut input = write(1, 5000, &[7; 300_000]);
    input.extend(header(NBD_CMD_FLUSH, 0, 2, 0, 0));
    input.extend(header(NBD_CMD_READ, 0, 3, 4999, 300_002));
    let output = rig.converse(id, &input, &[usize::MAX]);
    let replies = by_cookie(&output);
    let (error, payload) = &replies[&3];
    assert_eq!((*error, payload.len()), (0, 8 + 300_002));
    assert_eq!((payload[8], payload[9], payload[8 + 300_001]), (0, 7, 0));
    assert!(payload[9..8 + 300_001].iter().all(|byte| *byte == 7));
}

#[test]
fn a_client_that_takes_no_replies_is_not_read_from_and_others_go_on() {
    let mut rig = Rig::new();
    let (deaf, other) = (rig.client(), rig.client());
    let greedy: Vec<u8> = (0..1000).flat_map(|cookie| header(NBD_CMD_READ, 0, cookie, 0, 1 << 20)).collect();
    rig.feed(deaf, &greedy, 28);
    rig.run_store();
    assert!(rig.server.recv_space(deaf).is_none());
    let held = BYTES_MAX >> 20;
    let small = rig.converse(other, &header(NBD_CMD_READ, 0, 1, 0, 512), &[28]);
    assert_eq!(only_errors(&small), [(1, 0)]);
    let first = rig.sent(deaf, usize::MAX);
    assert_eq!(replies(&first).len(), held);
}

#[test]
fn unanswered_requests_are_bounded_in_number() {
    let mut rig = Rig::new();
    let id = rig.client();
    let flood: Vec<u8> = (0..12_000).flat_map(|cookie| header(NBD_CMD_FLUSH, 0, cookie, 0, 0)).collect();
    let rest = rig.feed(id, &flood, usize::MAX).len();
    assert_eq!(rig.server.requests_in_flight(), REQUESTS_MAX as u64);
    assert!(rest > 0 && rig.server.recv_space(id).is_none());
}

#[test]
fn held_writes_let_reads_pass_and_are_answered_once_released() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.server.volume_mut().hold();
    let mut input = write(1, 0, &[9; 512]);
    input.extend(header(NBD_CMD_READ, 0, 2, 0, 512));
    assert_eq!(only_errors(&rig.converse(id, &input, &[usize::MAX])), [(2, 0)]);
    rig.server.volume_mut().release();
    rig.server.handle_timeout(NOW);
    rig.run_store();
    assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(1, 0)]);
}

#[test]
fn a_slot_is_free_again_only_when_the_last_request_of_its_client_is_over() {
    let mut rig = Rig::new();
    let ids: Vec<_> = (0..CONNECTIONS_MAX).map(|_| rig.client()).collect();
    assert_eq!(rig.server.open(), None);
    rig.feed(ids[3], &header(NBD_CMD_READ, 0, 1, 0, 4096), usize::MAX);
    rig.server.close(ids[3]);
    assert_eq!(rig.server.open(), None, "the store still has its buffer");
    rig.run_store();
    let next = rig.server.open().expect("its read is over");
    assert_ne!(next, ids[3]);
    assert!(rig.server.is_closed(ids[3]) && !rig.server.is_closed(next));
}

#[test]
fn a_write_longer_than_any_is_worth_ends_the_connection() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.feed(id, &header(NBD_CMD_WRITE, 0, 1, 0, u32::MAX), usize::MAX);
    assert!(rig.server.is_closed(id) && rig.server.recv_space(id).is_none());
}

#[test]
fn an_error_of_the_disk_reaches_the_client_as_one_that_the_protocol_has() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.feed(id, &header(NBD_CMD_READ, 0, 1, 0, 512), usize::MAX);
    rig.feed(id, &write(2, 0, &[0; 512]), usize::MAX);
    for errno in [libc::ENODEV, libc::EDQUOT] {
        let call = rig.server.poll_store().unwrap();
        rig.server.handle_store(call.op, Err(errno), NOW);
    }
    let errors = only_errors(&rig.sent(id, usize::MAX));
    assert_eq!(errors, [(1, NbdError::Io.code()), (2, NbdError::NoSpc.code())]);
}

#[test]
fn a_polite_client_is_answered_before_it_is_closed() {
    let mut rig = Rig::new();
    let id = rig.client();
    let mut input = header(NBD_CMD_READ, 0, 1, 0, 512);
    input.extend(header(NBD_CMD_DISC, 0, 2, 0, 0));
    rig.feed(id, &input, usize::MAX);
    assert!(!rig.server.is_closed(id) && rig.server.recv_space(id).is_none());
    rig.run_store();
    assert!(!rig.server.is_closed(id));
    assert_eq!(only_errors(&rig.sent(id, 100)), [(1, 0)]);
    assert!(rig.server.is_closed(id));
}

#[test]
fn a_client_that_dies_in_the_middle_of_a_write_changes_nothing() {
    let mut rig = Rig::new();
    let id = rig.client();
    rig.feed(id, &write(1, 0, &[5; 500_000])[..400_000], usize::MAX);
    rig.server.handle_received(id, 0, NOW);
    assert!(rig.server.is_closed(id));
    rig.server.close(id);
    assert!(rig.server.poll_store().is_none());
    assert!(rig.server.connections.iter().all(Option::is_none));
}

#[test]
fn block_status_says_what_the_store_says() {
    let mut rig = Rig::new();
    rig.store.write_at(&[1; 4096], 65536, false).unwrap();
    let hole = rig.store.allocation(Extent::new(0, DISK_BYTES)).unwrap();
    let id = rig.client();
    let output = rig.converse(id, &header(NBD_CMD_BLOCK_STATUS, 0, 1, 0, 1 << 20), &[usize::MAX]);
    let (_, error, payload) = replies(&output).remove(0);
    assert_eq!(error, 0);
    let first = u32::from_be_bytes(payload[4..8].try_into().unwrap());
    assert_eq!(u64::from(first), hole.1);
    assert_eq!(payload.len(), 4 + 3 * 8, "hole, data, hole");
}
