//! Batches: their ops, their order, and their acknowledgements.

use super::{Bench, EPOCH, SIZE, ack, data, hello, hole, identity, leaf};
use crate::delta::Content;
use crate::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};
use crate::replica::batch::Item;
use crate::replica::destination::{FLUSH_BYTES, Op, SessionError};
use crate::replica::wire::{self, DIFFERING_MAX, FrameType, Malformed};

#[test]
fn the_items_of_a_batch_become_ops_in_their_order() {
    let mut bench = Bench::streaming(identity());
    let extent = |block: u64| Extent::new(block * BLOCK_BYTES, BLOCK_BYTES);
    let items = [
        data(0, 1),
        Item::Change(extent(1), Content::Hole),
        Item::Change(extent(2), Content::ZeroesAllocated),
        data(3 * BLOCK_BYTES, 4),
        Item::Digest(leaf(0), [9; 32]),
        Item::AllZeros(leaf(1)),
        data(0, 7),
    ];
    bench.batch(1, &items).unwrap();
    let block = BLOCK_BYTES as usize;
    assert_eq!(bench.destination.payload(&extent(3), block), [4; BLOCK_BYTES as usize]);
    assert_eq!(bench.destination.payload(&extent(0), 2 * block), [7; BLOCK_BYTES as usize]);
    let expected = [
        Op::Write(extent(0), 0),
        Op::Zero { extent: extent(1), allocate: false },
        Op::Zero { extent: extent(2), allocate: true },
        Op::Write(extent(3), block),
        Op::Compare(leaf(0), [9; 32]),
        Op::CompareZeros(leaf(1)),
        Op::Write(extent(0), 2 * block),
    ];
    assert_eq!(bench.destination.applied_seq(), 0);
    assert_eq!(bench.run(false), expected);
    assert_eq!((bench.destination.applied_seq(), bench.destination.durable_seq()), (1, 0));
    assert_eq!(bench.destination.unflushed_bytes(), 5 * BLOCK_BYTES);
}

#[test]
fn batches_are_acknowledged_together_and_only_after_a_flush() {
    let mut bench = Bench::streaming(identity());
    for seq in 1..=3 {
        bench.batch(seq, &[data(0, 1)]).unwrap();
        assert_eq!(bench.run(false).len(), 1);
    }
    assert_eq!(bench.answers(), []);
    assert_eq!(bench.destination.poll_op(true), Some(Op::Flush));
    assert_eq!((bench.answers(), bench.destination.durable_seq()), (vec![], 0));
    assert_eq!(bench.destination.applied_seq(), 3);
    bench.destination.handle_done(Ok(vec![])).unwrap();
    assert_eq!((bench.answers(), bench.destination.durable_seq()), (vec![ack(3, &[])], 3));
    assert_eq!(bench.destination.unflushed_bytes(), 0);
    assert_eq!(bench.run(true), [], "a flush is not repeated without need");
}

#[test]
fn a_batch_that_is_repeated_or_missing_ends_the_session() {
    for seq in [0, 1, 3, u64::MAX] {
        let mut bench = Bench::streaming(identity());
        bench.batch(1, &[data(0, 1)]).unwrap();
        bench.run(false);
        let error = bench.batch(seq, &[data(0, 2)]).unwrap_err();
        assert_eq!(error, SessionError::Protocol("a batch is missing or repeated"));
        assert!(bench.failure().contains("missing or repeated"));
        let next = bench.batch(2, &[data(0, 2)]);
        assert_eq!(next, Err(SessionError::Protocol("a frame came out of turn")), "it is over");
        assert_eq!(bench.answers(), []);
    }
}

#[test]
fn a_malformed_batch_ends_the_session_and_changes_nothing() {
    let mut bench = Bench::streaming(identity());
    let error = bench.feed(FrameType::Batch, EPOCH, 1, &[1, 2, 3]).unwrap_err();
    assert_eq!(error, SessionError::Malformed(Malformed::Truncated("batch")));
    assert!(bench.failure().contains("malformed"));
    assert_eq!((bench.run(true), bench.destination.applied_seq()), (vec![], 0));
}

#[test]
fn frames_out_of_turn_end_the_session() {
    let generation = wire::encode_generation(1);
    for frame_type in FrameType::ALL {
        if frame_type != FrameType::Hello {
            let mut bench = Bench::new(identity());
            let early = bench.feed(frame_type, EPOCH, 1, &generation);
            assert_eq!(early, Err(SessionError::Protocol("a frame came out of turn")), "{frame_type:?}");
            let told = bench.destination.poll_transmit().unwrap();
            assert_eq!(told[8..16], EPOCH.to_le_bytes(), "the source knows whom it is for");
        }
        if !matches!(frame_type, FrameType::Batch | FrameType::Seal | FrameType::Unseal) {
            let mut bench = Bench::streaming(identity());
            let late = bench.feed(frame_type, EPOCH, 1, &hello().encode());
            assert_eq!(late, Err(SessionError::Protocol("a frame came out of turn")), "{frame_type:?}");
            assert!(bench.failure().contains("out of turn"));
        }
    }
}

#[test]
fn leaves_that_differ_are_in_the_next_acknowledgement_once_and_in_order() {
    let mut bench = Bench::streaming(identity());
    bench
        .batch(1, &[Item::AllZeros(Extent::new(0, 8 * LEAF_BYTES)), Item::Digest(leaf(3), [0; 32])])
        .unwrap();
    bench.compare(&[6, 3]);
    bench.compare(&[3]);
    bench.batch(2, &[Item::Digest(leaf(1), [0; 32]), Item::Digest(leaf(2), [0; 32])]).unwrap();
    bench.compare(&[1]);
    bench.compare(&[]);
    assert_eq!(bench.run(true), [Op::Flush]);
    assert_eq!(bench.answers(), [ack(2, &[1, 3, 6])]);
    bench.batch(3, &[]).unwrap();
    bench.run(true);
    assert_eq!(bench.answers(), [ack(3, &[])], "an answer is given once");
}

#[test]
fn a_flush_is_due_by_bytes_while_more_input_waits() {
    let mut bench = Bench::streaming(identity());
    bench.batch(1, &[hole(FLUSH_BYTES - BLOCK_BYTES)]).unwrap();
    assert_eq!(bench.run(false).len(), 1);
    assert_eq!(bench.answers(), []);
    bench.batch(2, &[hole(BLOCK_BYTES)]).unwrap();
    assert_eq!(bench.run(false).last(), Some(&Op::Flush));
    assert_eq!(bench.answers(), [ack(2, &[])]);
}

#[test]
fn a_flush_is_due_before_an_acknowledgement_would_name_too_many_leaves() {
    let mut bench = Bench::streaming(identity());
    let half = DIFFERING_MAX as u64 / 2;
    let ask = |from: u64| Item::AllZeros(Extent::of_leaves(from..from + half, SIZE));
    bench.batch(1, &[ask(0)]).unwrap();
    bench.compare(&(0..half).collect::<Vec<_>>());
    assert_eq!(bench.run(false), []);
    bench.batch(2, &[ask(half)]).unwrap();
    bench.compare(&(half..2 * half).collect::<Vec<_>>());
    assert_eq!(bench.run(false), [Op::Flush]);
    assert_eq!(bench.answers(), [ack(2, &(0..2 * half).collect::<Vec<_>>())]);
}
