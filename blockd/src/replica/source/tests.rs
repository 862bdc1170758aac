//! A source without a shell: what it asks for, step by step.

use std::time::Duration;

use super::*;
use crate::buffer::PageBuf;
use crate::op::OpId;
use crate::sidecar::{IntentMap, VecIntentMap};
use crate::tracker::Change;

const SIZE: u64 = 4 << 20;
const BATCH: u64 = 256 << 10;

/// A source that was welcomed, and a tracker for which everything is still to be copied.
fn streaming() -> (Source, Tracker) {
    let mut bits = VecIntentMap::empty(SIZE / 4096);
    bits.fill();
    let mut tracker = Tracker::new(SIZE, 1 << 20, Box::new(bits));
    let mut source = Source::new(SourceConfig {
        size: SIZE,
        disk_id: "web".into(),
        batch_bytes: BATCH,
        batch_age: Duration::from_millis(20),
        window_bytes: 64 << 20,
    });
    source.handle_connected(1, 0, 0);
    assert!(matches!(source.poll(&mut tracker, Duration::ZERO), Step::Send(Outgoing::Frame(_))));
    let body = wire::Welcome { version: wire::VERSION, existing: false, previous_epoch: 0 }.encode();
    let header = wire::Header::for_body(FrameType::Welcome, 1, 0, &body);
    source.handle_frame(&mut tracker, &header, &body).unwrap();
    (source, tracker)
}

/// Where the next read-back begins; batches that come before it are sent.
fn next_read(source: &mut Source, tracker: &mut Tracker, now: Duration) -> u64 {
    loop {
        match source.poll(tracker, now) {
            Step::ReadBack(extent, _) => return extent.offset,
            Step::Send(_) => {}
            other => panic!("no read-back but {other:?}"),
        }
    }
}

#[test]
fn a_place_that_cannot_be_read_does_not_hold_up_the_rest() {
    let (mut source, mut tracker) = streaming();
    let mut now = Duration::from_secs(1);
    assert_eq!(next_read(&mut source, &mut tracker, now), 0);
    source.handle_read_back(&mut tracker, Found::Failed("bad sector".into()), now);
    assert!(matches!(source.poll(&mut tracker, now), Step::Wait(Some(_))), "it rests for a moment");
    assert_eq!(source.last_error(), Some("bad sector"));
    let failures = source.failures();
    assert_eq!((failures.reads_total, failures.replica_total, &*failures.last), (1, 0, "bad sector"));
    now += READ_RETRY;
    let mut seen = Vec::new();
    while seen.last() != Some(&0) {
        seen.push(next_read(&mut source, &mut tracker, now));
        let data = PageBuf::zeroed(BATCH as usize);
        source.handle_read_back(&mut tracker, Found::Data(data), now);
    }
    let rest: Vec<u64> = (1..SIZE / BATCH).map(|batch| batch * BATCH).chain([0]).collect();
    assert_eq!(seen, rest, "the bad place comes again when its turn does");
    assert!(tracker.pending().is_empty());
}

#[test]
fn a_replica_that_cannot_go_on_is_counted_and_its_reason_is_kept() {
    let (mut source, mut tracker) = streaming();
    let body = wire::encode_text("cannot write: no space");
    let header = wire::Header::for_body(FrameType::Failed, 1, 0, &body);
    let error = source.handle_frame(&mut tracker, &header, &body).unwrap_err();
    assert_eq!(error, StreamError::Failed("cannot write: no space".into()));
    source.handle_disconnected(&mut tracker);
    let failures = source.failures();
    assert_eq!((failures.reads_total, failures.replica_total), (0, 1));
    assert_eq!(failures.last, "cannot write: no space", "also when the stream is gone");
}

#[test]
fn a_copy_that_took_part_in_another_session_is_sent_everything() {
    let (mut source, mut tracker) = streaming();
    source.handle_disconnected(&mut tracker);
    while tracker.take_dirty(9, SIZE).is_some() {}
    tracker.settle(9);
    assert!(tracker.is_settled());
    source.handle_connected(2, 1, 0);
    source.poll(&mut tracker, Duration::ZERO);
    let body = wire::Welcome { version: wire::VERSION, existing: true, previous_epoch: 7 }.encode();
    let header = wire::Header::for_body(FrameType::Welcome, 2, 0, &body);
    source.handle_frame(&mut tracker, &header, &body).unwrap();
    assert_eq!(tracker.pending().dirty_blocks(), SIZE / 4096);
    assert_eq!(source.known_epoch(), 2);
}

/// A block that is written again and again during the bulk copy is sent once.
#[test]
fn deltas_wait_for_the_bulk() {
    let (mut source, mut tracker) = streaming();
    let mut now = Duration::from_secs(1);
    next_read(&mut source, &mut tracker, now);
    source.handle_read_back(&mut tracker, Found::Data(PageBuf::zeroed(BATCH as usize)), now);
    let hot = Extent::new(0, 8192);
    for op in 0..9 {
        assert!(tracker.begin(OpId(op), &hot));
        tracker.finish(OpId(op), &hot, Change::Written(PageBuf::zeroed(8192)));
    }
    let mut deltas = 0;
    while deltas == 0 {
        now += Duration::from_millis(20);
        match source.poll(&mut tracker, now) {
            Step::ReadBack(..) => {
                let data = PageBuf::zeroed(BATCH as usize);
                source.handle_read_back(&mut tracker, Found::Data(data), now);
            }
            Step::Send(Outgoing::Batch { items, .. }) => {
                let of_hot = |item: &&Item| matches!(item, Item::Change(extent, _) if *extent == hot);
                deltas += items.iter().filter(of_hot).count();
            }
            // Small changes wait for company.
            Step::Wait(Some(_)) => assert_eq!(tracker.pending().dirty_blocks(), 0),
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!((deltas, tracker.pending().dirty_blocks()), (1, 0));
    assert_eq!(tracker.pending().counts().coalesced_blocks_total, 8 * 2);
}

/// Plays the shell and a replica that holds the same, until there is nothing to do.
fn run_until_idle(source: &mut Source, tracker: &mut Tracker, now: &mut Duration) {
    let answer = |source: &mut Source, tracker: &mut Tracker, kind, seq, body: &[u8]| {
        source.handle_frame(tracker, &wire::Header::for_body(kind, 1, seq, body), body).unwrap();
    };
    loop {
        match source.poll(tracker, *now) {
            Step::ReadBack(_, room) => {
                let data = PageBuf::zeroed(room.min(BATCH) as usize);
                source.handle_read_back(tracker, Found::Data(data), *now);
            }
            Step::Hash(leaves) => {
                let digests = leaves.map(|_| [0; 32]).collect();
                source.handle_hashed(tracker, Hashed::Digests(digests), *now);
            }
            Step::Send(Outgoing::Batch { seq, .. }) => {
                answer(source, tracker, FrameType::Ack, seq, &wire::encode_differing(&[]));
            }
            Step::Send(Outgoing::Frame(_)) => match source.seal_state() {
                SealState::Told(generation) => {
                    answer(source, tracker, FrameType::Sealed, 0, &wire::encode_generation(generation));
                }
                // The end of the seal before.
                SealState::Sealing(_) => {}
                other => panic!("a frame while {other:?}"),
            },
            Step::Wait(Some(until)) => *now = until,
            Step::Wait(None) => return,
        }
    }
}

/// D8: what a seal says that it compared, it compared.
#[test]
fn a_seal_counts_the_leaves_that_it_compared_and_no_others() {
    const LEAVES: u64 = SIZE / LEAF_BYTES;
    let (mut source, mut tracker) = streaming();
    let mut now = Duration::from_secs(1);
    run_until_idle(&mut source, &mut tracker, &mut now);
    assert_eq!(tracker.agreement().counted_leaves(), None, "no seal has begun");

    // Three writes, two of them to one leaf.
    for (op, offset) in [(1, 0), (2, 4096), (3, 9 * LEAF_BYTES)] {
        let extent = Extent::new(offset, 4096);
        assert!(tracker.begin(OpId(op), &extent));
        tracker.finish(OpId(op), &extent, Change::Written(PageBuf::zeroed(4096)));
    }
    source.seal(&mut tracker, 1, false);
    run_until_idle(&mut source, &mut tracker, &mut now);
    assert_eq!(source.seal_state(), SealState::Sealed(1));
    assert_eq!(tracker.agreement().counted_leaves(), Some(2));

    // Nothing was written since.
    source.unseal();
    source.seal(&mut tracker, 2, false);
    run_until_idle(&mut source, &mut tracker, &mut now);
    assert_eq!(source.seal_state(), SealState::Sealed(2));
    assert_eq!(tracker.agreement().counted_leaves(), Some(0));

    source.unseal();
    source.seal(&mut tracker, 3, true);
    run_until_idle(&mut source, &mut tracker, &mut now);
    assert_eq!(source.seal_state(), SealState::Sealed(3));
    assert_eq!(tracker.agreement().counted_leaves(), Some(LEAVES));
}
