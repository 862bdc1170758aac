//! What a destination does with each frame, in which order, and what it refuses.

use super::{Destination, FLUSH_BYTES, Identity, Op, SessionError};
use crate::buffer::PageBuf;
use crate::delta::{Content, DataSlice};
use crate::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};
use crate::replica::batch::{Encoder, Item};
use crate::replica::encoding::Effort;
use crate::replica::wire::{
    self, DIFFERING_MAX, FrameType, HEADER_BYTES, Header, Hello, Malformed, RefusalCode, Refused, Welcome,
};

const SIZE: u64 = 1 << 40;
const EPOCH: u64 = 5;

fn identity() -> Identity {
    let disk_id = "vm1-vda".to_owned();
    Identity {
        size: SIZE,
        disk_id,
        generation: 1,
        epoch: EPOCH - 1,
        existing: false,
        sealed: 0,
        promoted: None,
    }
}

fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, size: SIZE, generation: 3, disk_id: "vm1-vda".into() }
}

/// A destination whose disk does all that it is asked, at once.
struct Bench {
    destination: Destination,
}

impl Bench {
    fn new(identity: Identity) -> Self {
        Self { destination: Destination::new(identity) }
    }

    /// One that has welcomed its source.
    fn streaming(identity: Identity) -> Self {
        let mut bench = Self::new(identity);
        bench.hello(EPOCH, &hello()).unwrap();
        assert_eq!(bench.run(false), [Op::RecordEpoch(EPOCH)]);
        assert!(matches!(bench.answers()[..], [(FrameType::Welcome, 0, _)]));
        bench
    }

    fn feed(&mut self, frame_type: FrameType, epoch: u64, seq: u64, body: &[u8]) -> Result<(), SessionError> {
        let header = Header::for_body(frame_type, epoch, seq, body);
        self.destination.handle_frame(&header, body)
    }

    fn hello(&mut self, epoch: u64, hello: &Hello) -> Result<(), SessionError> {
        self.feed(FrameType::Hello, epoch, 0, &hello.encode())
    }

    fn batch(&mut self, seq: u64, items: &[Item]) -> Result<(), SessionError> {
        let mut body = Vec::new();
        Encoder::default().encode(items, Effort::Store, &mut body);
        self.feed(FrameType::Batch, EPOCH, seq, &body)
    }

    fn seal(&mut self, generation: u64) -> Result<(), SessionError> {
        self.feed(FrameType::Seal, EPOCH, 0, &wire::encode_generation(generation))
    }

    /// Does every op that is due.
    fn run(&mut self, idle: bool) -> Vec<Op> {
        let mut done = Vec::new();
        while let Some(op) = self.destination.poll_op(idle) {
            self.destination.handle_done(Ok(vec![])).unwrap();
            done.push(op);
        }
        done
    }

    /// Does the next op, a comparison, which finds these leaves to differ.
    fn compare(&mut self, differing: &[u64]) {
        assert!(matches!(self.destination.poll_op(false), Some(Op::Compare(..) | Op::CompareZeros(_))));
        self.destination.handle_done(Ok(differing.to_vec())).unwrap();
    }

    /// What the source is told: type, sequence number and body of each frame.
    fn answers(&mut self) -> Vec<(FrameType, u64, Vec<u8>)> {
        let frames = std::iter::from_fn(|| self.destination.poll_transmit());
        let read = |bytes: Vec<u8>| {
            let header = Header::decode(bytes[..HEADER_BYTES].try_into().unwrap()).unwrap();
            let body = bytes[HEADER_BYTES..].to_vec();
            assert_eq!(header.body_bytes as usize, body.len());
            header.check_body(&body).unwrap();
            (header.frame_type, header.seq, body)
        };
        frames.map(read).collect()
    }

    /// The one frame that says why the session is over.
    fn failure(&mut self) -> String {
        let answers = self.answers();
        assert!(matches!(answers[..], [(FrameType::Failed, 0, _)]), "{answers:?}");
        wire::decode_text(&answers[0].2).unwrap()
    }
}

fn ack(seq: u64, differing: &[u64]) -> (FrameType, u64, Vec<u8>) {
    (FrameType::Ack, seq, wire::encode_differing(differing))
}

fn leaf(number: u64) -> Extent {
    Extent::of_leaves(number..number + 1, SIZE)
}

fn data(offset: u64, byte: u8) -> Item {
    let slice = DataSlice::whole(PageBuf::copy_of(&[byte; BLOCK_BYTES as usize]));
    Item::Change(Extent::new(offset, BLOCK_BYTES), Content::Data(slice))
}

fn hole(len: u64) -> Item {
    Item::Change(Extent::new(0, len), Content::Hole)
}

#[test]
fn a_source_is_welcomed_after_its_epoch_is_recorded() {
    for existing in [false, true] {
        let mut bench = Bench::new(Identity { existing, ..identity() });
        bench.hello(EPOCH, &hello()).unwrap();
        assert_eq!(bench.destination.poll_op(false), Some(Op::RecordEpoch(EPOCH)));
        assert_eq!(bench.answers(), []);
        assert!(!bench.destination.is_streaming());
        bench.destination.handle_done(Ok(vec![])).unwrap();
        let welcome = Welcome { version: wire::VERSION, existing, previous_epoch: EPOCH - 1 };
        assert_eq!(bench.answers(), [(FrameType::Welcome, 0, welcome.encode())]);
        assert!(bench.destination.is_streaming());
    }
}

fn refused(identity: Identity, epoch: u64, hello: &Hello) -> Refused {
    let mut bench = Bench::new(identity);
    let error = bench.hello(epoch, hello).unwrap_err();
    assert_eq!(bench.run(true), [], "nothing is touched");
    let answers = bench.answers();
    assert!(matches!(answers[..], [(FrameType::Refused, 0, _)]));
    let refused = Refused::decode(&answers[0].2).unwrap();
    assert_eq!(error, SessionError::Refused(refused.text.clone()));
    let again = bench.hello(epoch + 100, &self::hello());
    assert_eq!(again, Err(SessionError::Protocol("a frame came out of turn")));
    refused
}

#[test]
fn a_hello_is_refused_with_a_code_a_number_and_a_sentence() {
    let promoted = Identity { promoted: Some(4), ..identity() };
    let versions = |version_min, version_max| Hello { version_min, version_max, ..hello() };
    let cases = [
        (identity(), EPOCH, versions(2, 3), RefusalCode::Version, 1, "version 1 and the source 2 to 3"),
        (identity(), EPOCH, versions(0, 0), RefusalCode::Version, 1, "version 1 and the source 0 to 0"),
        (identity(), EPOCH, versions(2, 1), RefusalCode::Version, 1, "version 1 and the source 2 to 1"),
        (
            identity(),
            EPOCH,
            Hello { disk_id: "vm2-vda".into(), ..hello() },
            RefusalCode::WrongDisk,
            0,
            "disk \"vm1-vda\", not of \"vm2-vda\"",
        ),
        (
            identity(),
            EPOCH,
            Hello { size: 512, ..hello() },
            RefusalCode::WrongSize,
            SIZE,
            "source's disk 512",
        ),
        (promoted, EPOCH, hello(), RefusalCode::Promoted, 4, "promoted in generation 4"),
        (
            Identity { generation: 9, ..identity() },
            EPOCH,
            hello(),
            RefusalCode::StaleGeneration,
            9,
            "it moved since",
        ),
        (identity(), EPOCH - 1, hello(), RefusalCode::StaleEpoch, 4, "session 4 is not newer than session 4"),
        (identity(), 0, hello(), RefusalCode::StaleEpoch, 4, "session 0 is not newer than session 4"),
    ];
    for (identity, epoch, hello, code, detail, text) in cases {
        let refused = refused(identity, epoch, &hello);
        assert_eq!((refused.code, refused.detail), (code, detail));
        assert!(refused.text.contains(text), "{}", refused.text);
    }
}

#[test]
fn a_source_of_a_later_version_that_still_speaks_this_one_is_welcomed() {
    let mut bench = Bench::new(identity());
    bench.hello(EPOCH, &Hello { version_min: 1, version_max: 9, ..hello() }).unwrap();
    assert_eq!(bench.run(false), [Op::RecordEpoch(EPOCH)]);
}

#[test]
fn a_frame_of_another_epoch_is_refused() {
    for epoch in [EPOCH - 1, EPOCH + 1] {
        let mut bench = Bench::streaming(identity());
        let error = bench.feed(FrameType::Unseal, epoch, 0, &wire::encode_generation(1)).unwrap_err();
        assert_eq!(error, SessionError::Protocol("a frame carries another epoch"));
        assert!(bench.failure().contains("another epoch"));
        assert_eq!(bench.run(true), []);
    }
}

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

#[test]
fn a_seal_is_durable_and_recorded_before_it_is_answered() {
    let mut bench = Bench::streaming(identity());
    bench.batch(1, &[data(0, 1)]).unwrap();
    bench.run(false);
    bench.seal(8).unwrap();
    assert_eq!(bench.destination.poll_op(false), Some(Op::Flush));
    bench.destination.handle_done(Ok(vec![])).unwrap();
    assert_eq!(bench.answers(), [ack(1, &[])]);
    assert_eq!(bench.destination.poll_op(false), Some(Op::RecordSeal(8)));
    assert_eq!(bench.answers(), []);
    bench.destination.handle_done(Ok(vec![])).unwrap();
    assert_eq!(bench.answers(), [(FrameType::Sealed, 0, wire::encode_generation(8))]);
}

#[test]
fn a_seal_without_a_generation_is_refused() {
    let mut bench = Bench::streaming(identity());
    assert_eq!(bench.seal(0), Err(SessionError::Protocol("a seal needs a generation")));
    assert_eq!(bench.run(true), []);
}

#[test]
fn a_seal_is_void_before_the_next_change_and_stands_for_questions() {
    let mut bench = Bench::streaming(Identity { sealed: 8, ..identity() });
    bench.batch(1, &[Item::Digest(leaf(0), [0; 32]), Item::AllZeros(leaf(1))]).unwrap();
    assert!(!bench.run(false).iter().any(|op| matches!(op, Op::RecordSeal(_))));
    bench.batch(2, &[Item::Digest(leaf(0), [0; 32]), data(0, 1)]).unwrap();
    assert_eq!(bench.run(false).first(), Some(&Op::RecordSeal(0)));
    bench.batch(3, &[data(0, 1)]).unwrap();
    assert!(!bench.run(false).iter().any(|op| matches!(op, Op::RecordSeal(_))), "it is void already");
}

#[test]
fn an_unseal_is_recorded_and_not_answered() {
    let mut bench = Bench::streaming(identity());
    bench.seal(8).unwrap();
    bench.run(false);
    bench.answers();
    bench.feed(FrameType::Unseal, EPOCH, 0, &wire::encode_generation(8)).unwrap();
    assert_eq!(bench.run(false), [Op::RecordSeal(0)]);
    assert_eq!(bench.answers(), []);
    bench.seal(9).unwrap();
    assert_eq!(bench.run(false), [Op::Flush, Op::RecordSeal(9)], "and sealed again");
}

#[test]
fn an_op_that_fails_ends_the_session_and_the_source_is_told_why() {
    let mut bench = Bench::streaming(identity());
    bench.batch(1, &[data(0, 1), data(0, 2)]).unwrap();
    assert!(bench.destination.poll_op(false).is_some());
    let error = bench.destination.handle_done(Err("no space left".into())).unwrap_err();
    assert_eq!(error, SessionError::Disk("no space left".into()));
    assert_eq!(bench.failure(), "no space left");
    assert_eq!(bench.batch(2, &[data(0, 1)]), Err(SessionError::Protocol("a frame came out of turn")));
    assert!(!bench.destination.is_streaming());
}

#[test]
fn nothing_is_done_or_acknowledged_after_an_op_failed() {
    for ops_that_succeed in 0..3 {
        let mut bench = Bench::streaming(identity());
        bench.batch(1, &[data(0, 1), data(0, 2)]).unwrap();
        for _ in 0..ops_that_succeed {
            assert!(bench.destination.poll_op(true).is_some());
            bench.destination.handle_done(Ok(vec![])).unwrap();
        }
        assert!(bench.destination.poll_op(true).is_some());
        bench.destination.handle_done(Err("broken".into())).unwrap_err();
        assert_eq!(bench.run(true), [], "after {ops_that_succeed}");
        assert_eq!((bench.failure(), bench.destination.durable_seq()), ("broken".to_owned(), 0));
    }
}

#[test]
fn a_record_that_cannot_be_written_is_a_failure_and_no_welcome() {
    let mut bench = Bench::new(identity());
    bench.hello(EPOCH, &hello()).unwrap();
    assert!(bench.destination.poll_op(false).is_some());
    assert!(bench.destination.handle_done(Err("read-only".into())).is_err());
    assert_eq!(bench.failure(), "read-only");
}
