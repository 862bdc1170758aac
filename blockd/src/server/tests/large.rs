//! Requests longer than what clients are told of, and those that are refused with their data on the way.

use super::*;
use crate::nbd::export::REQUEST_BYTES_MAX;
use crate::nbd::wire::{NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FUA, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_REP_ACK};
use crate::volume::StoreAction;

const MIB: u64 = 1 << 20;
const LARGE_DISK: u64 = 40 * MIB;

fn large_rig() -> Rig {
    Rig::of(Export::new("", LARGE_DISK))
}

/// A client that knows of no structured replies.
fn plain_handshake() -> Vec<u8> {
    let flags = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
    [flags.to_be_bytes().to_vec(), option(NBD_OPT_GO, &[0; 6])].concat()
}

fn pattern(offset: u64, len: u64) -> Vec<u8> {
    let tile: Vec<u8> = (0..251 * 512).map(|at| (at / 512) as u8 + 1).collect();
    let begin = offset as usize % tile.len();
    tile.repeat((begin + len as usize).div_ceil(tile.len()))[begin..begin + len as usize].to_vec()
}

fn on_disk(rig: &Rig, offset: u64, len: u64) -> Vec<u8> {
    let mut found = vec![0; len as usize];
    rig.store.read_at(&mut found, offset).unwrap();
    found
}

#[test]
fn a_refused_write_is_answered_only_when_its_data_has_been_read_and_the_next_request_is_understood() {
    let cases = [
        // Past the end, longer than any, on a read-only export.
        (Export::new("", LARGE_DISK), LARGE_DISK - 4096, 100_000, NbdError::NoSpc),
        (Export::new("", LARGE_DISK), LARGE_DISK - 1, 2, NbdError::NoSpc),
        (Export::new("", LARGE_DISK), 0, u64::from(REQUEST_BYTES_MAX) + 1, NbdError::Inval),
        (Export { read_only: true, ..Export::new("", LARGE_DISK) }, 0, 3 * MIB, NbdError::Perm),
        (Export { read_only: true, ..Export::new("", LARGE_DISK) }, 0, 1, NbdError::Perm),
    ];
    for (export, offset, len, error) in cases {
        for piece in [usize::MAX, 50_000] {
            let mut rig = Rig::of(export.clone());
            let id = rig.client();
            let refused = write(1, offset, &vec![7; len as usize]);
            let (most, last) = refused.split_at(refused.len() - 1);
            assert!(rig.feed(id, most, piece).is_empty());
            rig.run_store();
            assert!(rig.sent(id, usize::MAX).is_empty(), "the client has not sent all of its request");
            let next = [last, &header(NBD_CMD_READ, 0, 2, 0, 512)].concat();
            let output = rig.converse(id, &next, &[piece]);
            assert_eq!(only_errors(&output), [(1, error.code()), (2, 0)], "{offset} {len}");
            assert!(on_disk(&rig, 0, LARGE_DISK).iter().all(|byte| *byte == 0));
        }
    }
}

#[test]
fn a_write_that_is_refused_leaves_others_in_flight_alone() {
    let mut rig = large_rig();
    let id = rig.client();
    let input = [
        write(1, 4096, &pattern(4096, 4096)),
        write(2, LARGE_DISK, &[9; 70_000]),
        write(3, 8192, &pattern(8192, 2 * MIB)),
    ];
    assert!(rig.feed(id, &input.concat(), 30_000).is_empty());
    assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(2, NbdError::NoSpc.code())]);
    rig.run_store();
    let done = by_cookie(&rig.sent(id, usize::MAX));
    assert_eq!(
        done.iter().map(|(cookie, (error, _))| (*cookie, *error)).collect::<Vec<_>>(),
        [(1, 0), (3, 0)]
    );
    assert!(on_disk(&rig, 4096, 4096 + 2 * MIB) == pattern(4096, 4096 + 2 * MIB));
}

#[test]
fn long_writes_and_reads_are_served_with_both_kinds_of_reply() {
    let end = LARGE_DISK;
    let ranges = [(0, MIB), (0, MIB + 1), (5, 2 * MIB), (end - MIB - 1, MIB + 1), (end - 1, 1)];
    let longest = (end - u64::from(REQUEST_BYTES_MAX), u64::from(REQUEST_BYTES_MAX));
    let kinds = [(true, 0), (true, NBD_CMD_FLAG_DF), (false, 0)];
    for (offset, len) in ranges.into_iter().chain([longest]) {
        for (structured, flags) in kinds.into_iter().take(if len == longest.1 { 1 } else { 3 }) {
            let mut rig = large_rig();
            let id = rig.client_after(&if structured { handshake() } else { plain_handshake() });
            let data = pattern(offset, len);
            let written = rig.converse(id, &write(1, offset, &data), &[usize::MAX]);
            assert_eq!(only_errors(&written), [(1, 0)], "one answer");
            assert!(on_disk(&rig, offset, len) == data);
            let read = header(NBD_CMD_READ, flags, 2, offset, len as u32);
            let output = rig.converse(id, &read, &[usize::MAX, 70_000]);
            if structured {
                let chunks = output.chunk_headers().len() as u64;
                assert_eq!(chunks, if flags == NBD_CMD_FLAG_DF { 1 } else { len.div_ceil(MIB) });
                let (error, found) = &by_cookie(&output)[&2];
                assert!(*error == 0 && found[8..] == data, "{offset} {len}");
            } else {
                assert!(output[16..] == data, "{offset} {len}");
            }
            assert!(rig.server.recv_space(id).is_some() && rig.server.requests_in_flight() == 0);
        }
    }
}

trait Chunks {
    fn chunk_headers(&self) -> Vec<ChunkHeader>;
}

impl Chunks for Vec<u8> {
    fn chunk_headers(&self) -> Vec<ChunkHeader> {
        let (mut at, mut found) = (0, Vec::new());
        while let Some(header) = self[at..].first_chunk().and_then(ChunkHeader::decode) {
            at += 20 + header.length as usize;
            found.push(header);
        }
        found
    }
}

#[test]
fn a_write_is_durable_in_all_its_pieces_where_that_was_asked_for() {
    let mut rig = large_rig();
    let id = rig.client();
    let mut input = write(1, 0, &vec![1; 3 * MIB as usize + 5]);
    input[4..6].copy_from_slice(&NBD_CMD_FLAG_FUA.to_be_bytes());
    rig.feed(id, &input, usize::MAX);
    let mut bytes = 0;
    while let Some(call) = rig.server.poll_store() {
        assert_eq!(call.action, StoreAction::Write { durable: true });
        bytes += call.extent.len;
        rig.server.handle_store(call.op, Ok(crate::store::Trimmed::Unspecified), NOW);
    }
    assert_eq!(bytes, 3 * MIB + 5);
    assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(1, 0)]);
}

#[test]
fn zeroing_and_trimming_have_no_data_and_so_no_such_bound() {
    let size = 1 << 33;
    let mut rig = Rig::of(Export::new("", size));
    let id = rig.client();
    for command in [NBD_CMD_WRITE_ZEROES, NBD_CMD_TRIM] {
        let output = rig.converse(id, &header(command, 0, 1, 512, u32::MAX), &[usize::MAX]);
        assert_eq!(only_errors(&output), [(1, 0)]);
    }
}

/// The most bytes of buffers that a connection may hold.
fn held_bytes(rig: &Rig, id: ConnectionId) -> usize {
    rig.server.find(id).map_or(0, |connection| connection.unanswered_bytes())
}

#[test]
fn many_long_requests_hold_no_more_memory_than_short_ones() {
    let mut rig = large_rig();
    let id = rig.client();
    // Nothing is run, and the client takes nothing.
    let writes: Vec<u8> = (0..4).flat_map(|cookie| write(cookie, 0, &vec![1; 32 * MIB as usize])).collect();
    let rest = rig.feed(id, &writes, 1 << 20).len();
    assert_eq!(held_bytes(&rig, id), BYTES_MAX);
    assert!(rest > 100 << 20 && rig.server.recv_space(id).is_none());
    let mut rig = large_rig();
    let id = rig.client();
    let reads: Vec<u8> = (0..40).flat_map(|cookie| header(NBD_CMD_READ, 0, cookie, 0, 32 << 20)).collect();
    rig.feed(id, &reads, usize::MAX);
    rig.run_store();
    assert!(held_bytes(&rig, id) <= BYTES_MAX);
    let (mut answered, mut pieces) = (Vec::new(), 0);
    while pieces < 2 * 32 {
        answered.extend(rig.sent(id, usize::MAX));
        rig.run_store();
        assert!(held_bytes(&rig, id) <= BYTES_MAX);
        pieces = answered.chunk_headers().len();
    }
    assert!(answered.chunk_headers()[..32].iter().all(|chunk| chunk.cookie == 0), "one after the other");
}

#[test]
fn a_reply_does_not_come_into_the_middle_of_a_chunk() {
    let mut rig = large_rig();
    rig.store.write_at(&pattern(0, 3 * MIB), 0, false).unwrap();
    let id = rig.client_after(&plain_handshake());
    let input = [write(1, LARGE_DISK - 512, &[1; 512]), header(NBD_CMD_READ, 0, 2, 0, 3 << 20)].concat();
    rig.feed(id, &input, usize::MAX);
    let slow = rig.server.poll_store().unwrap();
    // The read gets under way, and the write ends while it is.
    let first = rig.server.poll_store().unwrap();
    let buf = rig.server.buffer_mut(first.op);
    let outcome = store_call::execute(&*rig.store, first.action, first.extent, buf);
    rig.server.handle_store(first.op, outcome, NOW);
    rig.server.handle_store(slow.op, Ok(crate::store::Trimmed::Unspecified), NOW);
    rig.run_store();
    let output = rig.sent(id, usize::MAX);
    assert_eq!(SimpleReply::decode(output.first_chunk().unwrap()).unwrap().cookie, 2);
    assert!(output[16..16 + 3 * MIB as usize] == pattern(0, 3 * MIB));
    assert_eq!(only_errors(&output[16 + 3 * MIB as usize..]), [(1, 0)]);
}

/// Has the `nth` store call fail, and runs the others.
fn run_store_with_a_failure(rig: &mut Rig, nth: usize) -> usize {
    let mut calls = 0;
    while let Some(call) = rig.server.poll_store() {
        let buf = rig.server.buffer_mut(call.op);
        let outcome = store_call::execute(&*rig.store, call.action, call.extent, buf);
        let outcome = if calls == nth { Err(libc::EIO) } else { outcome };
        rig.server.handle_store(call.op, outcome, NOW);
        calls += 1;
    }
    calls
}

#[test]
fn one_piece_that_fails_fails_the_request_and_nothing_else() {
    for nth in 0..3 {
        let mut rig = large_rig();
        let id = rig.client();
        rig.feed(id, &write(1, 0, &vec![5; 3 << 20]), usize::MAX);
        run_store_with_a_failure(&mut rig, nth);
        assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(1, NbdError::Io.code())]);
        rig.feed(id, &header(NBD_CMD_READ, 0, 2, 0, 3 << 20), usize::MAX);
        run_store_with_a_failure(&mut rig, nth);
        assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(2, NbdError::Io.code())]);
        let output = rig.converse(id, &header(NBD_CMD_READ, 0, 3, 0, 512), &[usize::MAX]);
        assert_eq!(only_errors(&output), [(3, 0)]);
    }
}

#[test]
fn a_failure_that_a_simple_reply_cannot_say_any_more_ends_the_connection() {
    let fails_at = |nth| {
        let mut rig = large_rig();
        let id = rig.client_after(&plain_handshake());
        rig.feed(id, &header(NBD_CMD_READ, 0, 2, 0, 3 << 20), usize::MAX);
        run_store_with_a_failure(&mut rig, nth);
        (rig.sent(id, usize::MAX), rig.server.is_closed(id))
    };
    let (said, is_closed) = fails_at(0);
    assert_eq!((only_errors(&said), is_closed), (vec![(2, NbdError::Io.code())], false));
    for nth in [1, 2] {
        assert!(fails_at(nth).1, "the client takes what comes for its data");
    }
}

#[test]
fn a_client_that_goes_in_the_middle_of_a_long_request_leaves_nothing_behind() {
    for keep in [28, 28 + 700_000, 28 + (1 << 20), 28 + (2 << 20) + 3] {
        for held in [false, true] {
            let mut rig = large_rig();
            let id = rig.client();
            if held {
                rig.server.volume_mut().hold();
            }
            rig.feed(id, &write(1, 0, &vec![5; 4 << 20])[..keep], usize::MAX);
            rig.server.handle_received(id, 0, NOW);
            rig.server.close(id);
            rig.run_store();
            assert!(rig.server.connections.iter().all(Option::is_none), "{keep} {held}");
        }
    }
    let mut rig = large_rig();
    let id = rig.client();
    rig.feed(id, &write(1, LARGE_DISK, &[5; 70_000])[..60_000], usize::MAX);
    rig.server.close(id);
    assert!(rig.server.connections.iter().all(Option::is_none), "with a refusal to be said");
}

#[test]
fn a_polite_end_behind_a_long_read_waits_for_it() {
    let mut rig = large_rig();
    let id = rig.client();
    let input = [header(NBD_CMD_READ, 0, 1, 0, 3 << 20), header(NBD_CMD_DISC, 0, 2, 0, 0)].concat();
    rig.feed(id, &input, usize::MAX);
    rig.run_store();
    assert!(!rig.server.is_closed(id));
    assert_eq!(only_errors(&rig.sent(id, usize::MAX)), [(1, 0)]);
    assert!(rig.server.is_closed(id));
}

#[test]
fn the_greeting_tells_of_less_than_is_served() {
    let mut rig = large_rig();
    let id = rig.server.open().unwrap();
    // One information request: the block sizes.
    let go = option(NBD_OPT_GO, &[0, 0, 0, 0, 0, 1, 0, 3]);
    let flags = NBD_FLAG_C_FIXED_NEWSTYLE | NBD_FLAG_C_NO_ZEROES;
    let said = rig.converse(id, &[flags.to_be_bytes().to_vec(), go].concat(), &[usize::MAX]);
    let told = (1_u32 << 20).to_be_bytes();
    let ack = NBD_REP_ACK.to_be_bytes();
    assert!(said.windows(4).any(|window| window == told) && said.windows(4).any(|window| window == ack));
}
