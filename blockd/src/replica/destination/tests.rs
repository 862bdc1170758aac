//! What a destination does with each frame, in which order, and what it refuses: a bench that drives one.

mod session;
mod batches;
mod seals;
mod failures;

use crate::buffer::PageBuf;
use crate::delta::{Content, DataSlice};
use crate::extent::{BLOCK_BYTES, Extent};
use crate::replica::batch::{Encoder, Item};
use crate::replica::destination::{Destination, Identity, Op, SessionError};
use crate::replica::encoding::Effort;
use crate::replica::wire::{self, FrameType, HEADER_BYTES, Header, Hello};

pub(super) const SIZE: u64 = 1 << 40;
pub(super) const EPOCH: u64 = 5;

pub(super) fn identity() -> Identity {
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

pub(super) fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, size: SIZE, generation: 3, disk_id: "vm1-vda".into() }
}

/// A destination whose disk does all that it is asked, at once.
pub(super) struct Bench {
    pub(super) destination: Destination,
}

impl Bench {
    pub(super) fn new(identity: Identity) -> Self {
        Self { destination: Destination::new(identity) }
    }

    /// One that has welcomed its source.
    pub(super) fn streaming(identity: Identity) -> Self {
        let mut bench = Self::new(identity);
        bench.hello(EPOCH, &hello()).unwrap();
        assert_eq!(bench.run(false), [Op::RecordEpoch(EPOCH)]);
        assert!(matches!(bench.answers()[..], [(FrameType::Welcome, 0, _)]));
        bench
    }

    pub(super) fn feed(
        &mut self,
        frame_type: FrameType,
        epoch: u64,
        seq: u64,
        body: &[u8],
    ) -> Result<(), SessionError> {
        let header = Header::for_body(frame_type, epoch, seq, body);
        self.destination.handle_frame(&header, body)
    }

    pub(super) fn hello(&mut self, epoch: u64, hello: &Hello) -> Result<(), SessionError> {
        self.feed(FrameType::Hello, epoch, 0, &hello.encode())
    }

    pub(super) fn batch(&mut self, seq: u64, items: &[Item]) -> Result<(), SessionError> {
        let mut body = Vec::new();
        Encoder::default().encode(items, Effort::Store, &mut body);
        self.feed(FrameType::Batch, EPOCH, seq, &body)
    }

    pub(super) fn seal(&mut self, generation: u64) -> Result<(), SessionError> {
        self.feed(FrameType::Seal, EPOCH, 0, &wire::encode_generation(generation))
    }

    /// Does every op that is due.
    pub(super) fn run(&mut self, idle: bool) -> Vec<Op> {
        let mut done = Vec::new();
        while let Some(op) = self.destination.poll_op(idle) {
            self.destination.handle_done(Ok(vec![])).unwrap();
            done.push(op);
        }
        done
    }

    /// Does the next op, a comparison, which finds these leaves to differ.
    pub(super) fn compare(&mut self, differing: &[u64]) {
        assert!(matches!(self.destination.poll_op(false), Some(Op::Compare(..) | Op::CompareZeros(_))));
        self.destination.handle_done(Ok(differing.to_vec())).unwrap();
    }

    /// What the source is told: type, sequence number and body of each frame.
    pub(super) fn answers(&mut self) -> Vec<(FrameType, u64, Vec<u8>)> {
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
    pub(super) fn failure(&mut self) -> String {
        let answers = self.answers();
        assert!(matches!(answers[..], [(FrameType::Failed, 0, _)]), "{answers:?}");
        wire::decode_text(&answers[0].2).unwrap()
    }
}

pub(super) fn ack(seq: u64, differing: &[u64]) -> (FrameType, u64, Vec<u8>) {
    (FrameType::Ack, seq, wire::encode_differing(differing))
}

pub(super) fn leaf(number: u64) -> Extent {
    Extent::of_leaves(number..number + 1, SIZE)
}

pub(super) fn data(offset: u64, byte: u8) -> Item {
    let slice = DataSlice::whole(PageBuf::copy_of(&[byte; BLOCK_BYTES as usize]));
    Item::Change(Extent::new(offset, BLOCK_BYTES), Content::Data(slice))
}

pub(super) fn hole(len: u64) -> Item {
    Item::Change(Extent::new(0, len), Content::Hole)
}
