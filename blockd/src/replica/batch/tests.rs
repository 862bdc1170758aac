//! Batches there and back, their golden bytes, and what a decoder refuses.

use proptest::prelude::*;

use super::{
    ASKED_MAX, Digest, Effort, Encoder, ITEMS_MAX, Item, Malformed, RAW_BYTES_MAX, Received, Told, decode,
    is_zero,
};
use crate::buffer::PageBuf;
use crate::delta::{Content, DataSlice};
use crate::extent::{BLOCK_BYTES, Extent, LEAF_BYTES, block_count, leaf_count};
use crate::replica::wire::{BODY_BYTES_MAX, FrameType, frame};

const BLOCK: usize = BLOCK_BYTES as usize;
const DATA: u8 = super::KIND_DATA;
const HOLE: u8 = super::KIND_HOLE;
const DIGEST: u8 = super::KIND_DIGEST;
const ALL_ZEROS: u8 = super::KIND_ALL_ZEROS;

fn field(text: &'static str) -> Result<Received, Malformed> {
    Err(Malformed::Field(text))
}

fn data(offset: u64, bytes: &[u8]) -> Item {
    let slice = DataSlice::whole(PageBuf::copy_of(bytes));
    Item::Change(Extent::new(offset, bytes.len() as u64), Content::Data(slice))
}

fn encode(items: &[Item], effort: Effort) -> Vec<u8> {
    let mut body = Vec::new();
    Encoder::default().encode(items, effort, &mut body);
    body
}

/// Bytes that no compressor can make smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
    out
}

/// A body with its parts as one likes them.
fn body(items: &[(u8, u64, u64)], encoding: u8, raw_bytes: usize, payload: &[u8]) -> Vec<u8> {
    let mut body = (items.len() as u32).to_le_bytes().to_vec();
    body.extend([encoding, 0, 0, 0]);
    body.extend((raw_bytes as u32).to_le_bytes());
    for (kind, offset, len) in items {
        body.push(*kind);
        body.extend(offset.to_le_bytes());
        body.extend(len.to_le_bytes());
        if *kind == DIGEST {
            body.extend([7; 32]);
        }
    }
    body.extend(payload);
    body
}

/// What a disk holds, and which questions were asked of it, in order.
#[derive(Debug, PartialEq)]
struct Disk {
    bytes: Vec<u8>,
    allocated: Vec<bool>,
    asked: Vec<(Extent, Option<Digest>, usize)>,
    changes: usize,
}

impl Disk {
    fn new(size: u64) -> Self {
        let blocks = block_count(size) as usize;
        // Neither zeros nor anything that the items bring.
        Self { bytes: vec![0xee; size as usize], allocated: vec![true; blocks], asked: vec![], changes: 0 }
    }

    /// Fills a range, block by block; blocks without bytes are holes unless they stay allocated.
    fn put(&mut self, extent: Extent, bytes: &[u8], allocate: bool) {
        self.bytes[extent.offset as usize..extent.end() as usize].copy_from_slice(bytes);
        for (block, content) in extent.touched_blocks().zip(bytes.chunks(BLOCK)) {
            self.allocated[block as usize] = allocate || !is_zero(content);
        }
        self.changes += extent.touched_blocks().count();
    }

    fn ask(&mut self, extent: Extent, digest: Option<Digest>) {
        self.asked.push((extent, digest, self.changes));
    }

    fn say(&mut self, item: &Item) {
        match item {
            Item::Change(extent, Content::Data(slice)) => self.put(*extent, slice.bytes(), false),
            Item::Change(extent, Content::Hole) => self.put(*extent, &vec![0; extent.len as usize], false),
            Item::Change(extent, Content::ZeroesAllocated) => {
                self.put(*extent, &vec![0; extent.len as usize], true)
            }
            Item::Digest(extent, digest) => self.ask(*extent, Some(*digest)),
            Item::AllZeros(extent) => self.ask(*extent, None),
        }
    }

    fn hear(&mut self, told: &Told, payload: &[u8]) {
        match told {
            Told::Data(extent, start) => self.put(*extent, &payload[*start..][..extent.len as usize], false),
            Told::Hole(extent) => self.put(*extent, &vec![0; extent.len as usize], false),
            Told::ZeroesAllocated(extent) => self.put(*extent, &vec![0; extent.len as usize], true),
            Told::Digest(extent, digest) => self.ask(*extent, Some(*digest)),
            Told::AllZeros(extent) => self.ask(*extent, None),
        }
    }
}

/// Any item for a disk of `size` bytes; data is cut block by block into zeros, plain and noise.
fn any_item(size: u64) -> impl Strategy<Value = Item> {
    let blocks = (0..block_count(size), 1..12u64, prop::collection::vec(0..4u8, 12));
    (0..5u8, blocks, 0..leaf_count(size), any::<Digest>()).prop_map(
        move |(kind, (block, count, fills), leaf, digest)| {
            let extent = Extent::of_blocks(block..block + count, size);
            let leaves = |count: u64| Extent::of_leaves(leaf..leaf + count, size);
            match kind {
                0 => {
                    let fill = |at: u64| match fills[(at / BLOCK_BYTES) as usize % 12] {
                        0 | 1 => 0,
                        2 => 0x61,
                        _ => (at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8,
                    };
                    data(extent.offset, &(0..extent.len).map(fill).collect::<Vec<_>>())
                }
                1 => Item::Change(extent, Content::Hole),
                2 => Item::Change(extent, Content::ZeroesAllocated),
                3 => Item::Digest(leaves(1), digest),
                _ => Item::AllZeros(leaves(count)),
            }
        },
    )
}

proptest! {
    #[test]
    fn a_batch_does_to_the_replica_what_its_items_say(
        (size, items) in (1..300u64, prop::sample::select(vec![0, 1, 512, 4095])).prop_flat_map(
            |(blocks, short)| {
                let size = blocks * BLOCK_BYTES - short;
                (Just(size), prop::collection::vec(any_item(size), 0..20))
            }),
        effort in prop::sample::select(vec![Effort::Store, Effort::Zstd(-1), Effort::Zstd(3)]),
    ) {
        let mut encoder = Encoder::default();
        let mut body = b"from the batch before".to_vec();
        let encoded = encoder.encode(&items, effort, &mut body);
        let received = decode(&body, size).unwrap();
        prop_assert_eq!(received.payload.len(), encoded.raw_bytes);
        let (mut here, mut there) = (Disk::new(size), Disk::new(size));
        items.iter().for_each(|item| here.say(item));
        received.items.iter().for_each(|told| there.hear(told, &received.payload));
        prop_assert_eq!(here, there);
        let mut again = Vec::new();
        prop_assert_eq!(encoder.encode(&items, effort, &mut again), encoded);
        prop_assert_eq!(again, body);
    }

    #[test]
    fn any_bytes_are_a_good_batch_or_refused(
        bytes in prop::collection::vec(any::<u8>(), 0..100), kinds in prop::collection::vec(0..6u8, 0..6),
        encoding in 0..3u8, near in prop::collection::vec((0..40u64, 0..40u64), 6),
    ) {
        let size = 20 * BLOCK_BYTES + 512;
        let items = kinds.iter().zip(near).map(|(kind, (offset, len))| (*kind, offset * 2048, len * 2048));
        let items: Vec<_> = items.collect();
        for body in [bytes.clone(), body(&items, encoding, bytes.len(), &bytes)] {
            if let Ok(received) = decode(&body, size) {
                for told in received.items {
                    let (Told::Data(extent, _) | Told::Hole(extent) | Told::ZeroesAllocated(extent)
                    | Told::Digest(extent, _) | Told::AllZeros(extent)) = told;
                    prop_assert!(!extent.is_empty() && extent.end() <= size);
                    prop_assert!(extent.offset.is_multiple_of(BLOCK_BYTES));
                }
            }
        }
    }

    #[test]
    fn zeros_are_told_from_anything_else(len in 0..300usize, at: prop::sample::Index, byte in 1..=255u8) {
        let mut bytes = vec![0; len];
        prop_assert!(is_zero(&bytes));
        if len > 0 {
            bytes[at.index(len)] = byte;
            prop_assert!(!is_zero(&bytes));
        }
    }
}

/// These belong to version 1: a change of them needs a new version.
#[test]
fn a_stored_batch_has_its_golden_bytes() {
    let size = 40 * BLOCK_BYTES + 3;
    let mut first = vec![0; 2 * BLOCK];
    first[BLOCK..].fill(0x61);
    let items = [
        data(BLOCK_BYTES, &first),
        data(40 * BLOCK_BYTES, b"end"),
        Item::Change(Extent::new(0x4000, 0x1000), Content::Hole),
        Item::Change(Extent::new(0x5000, 0x1000), Content::ZeroesAllocated),
        Item::Digest(Extent::new(0x1_0000, 0x1_0000), [0xd1; 32]),
        Item::AllZeros(Extent::new(0, 0x2_0000)),
    ];
    let n = |number: u64| number.to_le_bytes();
    let expected = [
        &[7, 0, 0, 0, 0, 0, 0, 0, 0x03, 0x10, 0, 0][..],
        &[&[1][..], &n(0x1000), &n(0x1000)].concat(),
        &[&[0][..], &n(0x2000), &n(0x1000)].concat(),
        &[&[0][..], &n(0x2_8000), &n(3)].concat(),
        &[&[1][..], &n(0x4000), &n(0x1000)].concat(),
        &[&[2][..], &n(0x5000), &n(0x1000)].concat(),
        &[&[3][..], &n(0x1_0000), &n(0x1_0000), &[0xd1; 32]].concat(),
        &[&[4][..], &n(0), &n(0x2_0000)].concat(),
        &[0x61; BLOCK],
        b"end",
    ];
    let body = encode(&items, Effort::Store);
    assert_eq!(body, expected.concat());
    assert!(decode(&body, size).is_ok());
}

/// S4-74.
#[test]
fn data_is_compressed_where_that_pays_and_stored_where_not() {
    let mut encoder = Encoder::default();
    let mut body = Vec::new();
    let plain = data(0, &[0x61; 16 * BLOCK]);
    let packed = encoder.encode(std::slice::from_ref(&plain), Effort::Zstd(3), &mut body);
    assert!(packed.tried && packed.payload_bytes < 200 && body[4] == 1);
    let stored = encoder.encode(std::slice::from_ref(&plain), Effort::Store, &mut body);
    assert!(!stored.tried && stored.payload_bytes == 16 * BLOCK && body[4] == 0);
    let random = encoder.encode(&[data(0, &noise(16 * BLOCK))], Effort::Zstd(3), &mut body);
    assert!(
        !random.tried && random.payload_bytes == 16 * BLOCK && body[4] == 0,
        "noise is known by its samples"
    );
    let few = encoder.encode(&[data(0, &noise(BLOCK))], Effort::Zstd(3), &mut body);
    assert!(few.tried && few.payload_bytes == BLOCK && body[4] == 0);
    let mixed = [noise(12 * BLOCK), vec![0x61; 4 * BLOCK]].concat();
    let mixed = encoder.encode(&[data(0, &mixed)], Effort::Zstd(3), &mut body);
    assert!(mixed.tried && mixed.payload_bytes < 13 * BLOCK && body[4] == 1);
    let zeros = encoder.encode(&[data(0, &[0; 16 * BLOCK])], Effort::Zstd(3), &mut body);
    assert_eq!((zeros.raw_bytes, zeros.payload_bytes, zeros.tried, body.len()), (0, 0, false, 12 + 17));
}

#[test]
fn the_largest_batch_fits_a_frame() {
    // Every second block of data is zeros, so that it falls into as many pieces as it can.
    let mut bytes = noise(RAW_BYTES_MAX);
    bytes.chunks_mut(2 * BLOCK).for_each(|pair| pair[..BLOCK].fill(0));
    let mut items = vec![data(0, &bytes)];
    let digest = |leaf: u64| Item::Digest(Extent::of_leaves(leaf..leaf + 1, 1 << 40), [1; 32]);
    items.extend((0..ITEMS_MAX as u64 - 1).map(digest));
    let body = encode(&items, Effort::Store);
    assert!(body.len() <= BODY_BYTES_MAX);
    assert_eq!(decode(&body, 1 << 40).unwrap().items.len(), ITEMS_MAX - 1 + RAW_BYTES_MAX / BLOCK);
    let whole = encode(&[data(0, &noise(RAW_BYTES_MAX))], Effort::Zstd(1));
    assert!(whole.len() <= BODY_BYTES_MAX && decode(&whole, 1 << 40).is_ok());
}

#[test]
fn ranges_that_make_no_sense_on_the_disk_are_refused() {
    let size = 40 * BLOCK_BYTES + 100;
    let one = |kind, offset, len| decode(&body(&[(kind, offset, len)], 0, 0, &[]), size);
    let beyond = || field("an item's range is empty or past the end of the disk");
    let unaligned = || field("an item's range is not aligned");
    assert!(one(HOLE, 40 * BLOCK_BYTES, 100).is_ok());
    assert_eq!(one(HOLE, 40 * BLOCK_BYTES, 101), beyond());
    assert_eq!(one(HOLE, 0, size + 1), beyond());
    assert_eq!(one(HOLE, 1 << 40, BLOCK_BYTES), beyond());
    assert_eq!(one(HOLE, 0, 0), beyond());
    assert_eq!(one(HOLE, u64::MAX - 4095, 8192), field("an item's range overflows"));
    assert_eq!(one(HOLE, 512, 4096 - 512), unaligned());
    assert_eq!(one(HOLE, 0, 100), unaligned());
    assert_eq!(one(ALL_ZEROS, BLOCK_BYTES, LEAF_BYTES - BLOCK_BYTES), unaligned());
    assert_eq!(one(ALL_ZEROS, 0, BLOCK_BYTES), unaligned());
    assert_eq!(one(DIGEST, 0, BLOCK_BYTES), unaligned());
    assert!(one(DIGEST, 0, LEAF_BYTES).is_ok());
    assert_eq!(one(DIGEST, 0, 2 * LEAF_BYTES), field("a digest covers more than one leaf"));
    assert_eq!(one(5, 0, LEAF_BYTES), field("unknown kind of item"));
}

#[test]
fn too_much_of_anything_is_refused_before_it_is_allocated() {
    let too_much = || field("a batch has too many items or too much data");
    let mut many = body(&[], 0, 0, &[]);
    many[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert_eq!(decode(&many, 1 << 40), too_much());
    assert_eq!(decode(&body(&[], 0, RAW_BYTES_MAX + 1, &[]), 1 << 40), too_much());
    assert_eq!(decode(&body(&[], 0, u32::MAX as usize, &[]), 1 << 40), too_much());
    let ask = |leaves: u64| decode(&body(&[(ALL_ZEROS, 0, leaves * LEAF_BYTES)], 0, 0, &[]), 1 << 60);
    assert!(ask(ASKED_MAX).is_ok());
    assert_eq!(ask(ASKED_MAX + 1), field("a batch asks about too many leaves"));
    let together = [(ALL_ZEROS, 0, ASKED_MAX * LEAF_BYTES), (DIGEST, 0, LEAF_BYTES)];
    assert_eq!(decode(&body(&together, 0, 0, &[]), 1 << 60), field("a batch asks about too many leaves"));
    let huge = [(ALL_ZEROS, 0, 1 << 63), (ALL_ZEROS, 0, 1 << 63)];
    assert_eq!(decode(&body(&huge, 0, 0, &[]), u64::MAX), field("a batch asks about too many leaves"));
}

#[test]
fn a_payload_of_another_length_than_its_items_is_refused() {
    let differ = || field("a batch's items and its payload differ in length");
    let one = [(DATA, 0, BLOCK_BYTES)];
    let stored = |raw: usize, payload: usize| decode(&body(&one, 0, raw, &vec![7; payload]), 1 << 30);
    assert!(stored(BLOCK, BLOCK).is_ok());
    assert_eq!(stored(BLOCK - 1, BLOCK), differ());
    assert_eq!(stored(BLOCK, BLOCK - 1), Err(Malformed::Truncated("batch")));
    assert_eq!(stored(BLOCK, BLOCK + 1), Err(Malformed::Truncated("batch")));
    let twice = [(DATA, 0, 1 << 63), (DATA, 0, 1 << 63)];
    assert_eq!(decode(&body(&twice, 0, 0, &[]), u64::MAX), differ());
}

#[test]
fn what_does_not_decompress_to_what_was_announced_is_refused() {
    let one = [(DATA, 0, BLOCK_BYTES)];
    let packed = |bytes: &[u8]| zstd::bulk::compress(bytes, 3).unwrap();
    let zstd = |payload: &[u8]| decode(&body(&one, 1, BLOCK, payload), 1 << 30);
    assert!(zstd(&packed(&[7; BLOCK])).is_ok());
    assert_eq!(zstd(&packed(&[7; BLOCK - 1])), Err(Malformed::Truncated("batch")));
    let bomb = packed(&vec![7; 64 << 20]);
    assert!(bomb.len() < BODY_BYTES_MAX / 100);
    let broken = field("a batch's payload does not decompress");
    assert_eq!(zstd(&bomb), broken);
    assert_eq!(zstd(&packed(&[7; BLOCK + 1])), broken);
    assert_eq!(zstd(&packed(&[7; BLOCK])[1..]), broken);
    assert_eq!(zstd(b"not a frame"), broken);
}

#[test]
fn unknown_encodings_and_reserved_bytes_are_refused() {
    assert_eq!(decode(&body(&[], 2, 0, &[]), 1 << 30), field("unknown encoding of a batch"));
    for at in 5..8 {
        let mut bytes = body(&[], 0, 0, &[]);
        bytes[at] = 1;
        assert_eq!(decode(&bytes, 1 << 30), Err(Malformed::Reserved("batch")));
    }
    let whole = body(&[(DIGEST, 0, LEAF_BYTES)], 0, 0, &[]);
    for end in 0..whole.len() {
        assert_eq!(decode(&whole[..end], 1 << 30), Err(Malformed::Truncated("batch")));
    }
}

#[test]
fn a_frame_encoded_in_place_is_the_frame_of_its_body() {
    let items = [data(0, &[0x61; BLOCK]), Item::AllZeros(Extent::new(0, LEAF_BYTES))];
    let mut framed = b"from the batch before".to_vec();
    let encoded = Encoder::default().encode_frame((5, 6), &items, Effort::Zstd(3), &mut framed);
    let mut body = Vec::new();
    assert_eq!(Encoder::default().encode(&items, Effort::Zstd(3), &mut body), encoded);
    assert_eq!(framed, frame(FrameType::Batch, 5, 6, &body));
}

#[test]
fn the_kinds_and_encodings_of_the_document_are_those_of_the_code() {
    let documented = crate::replica::wire::tests::documented;
    let kinds = [
        ("KIND_DATA", DATA),
        ("KIND_HOLE", HOLE),
        ("KIND_ZEROES_ALLOCATED", super::KIND_ZEROES_ALLOCATED),
        ("KIND_DIGEST", DIGEST),
        ("KIND_ALL_ZEROS", ALL_ZEROS),
    ];
    assert_eq!(documented("### Item kinds"), kinds.map(|(name, kind)| (name.to_owned(), u64::from(kind))));
    let encodings = [("ENCODING_STORED", super::ENCODING_STORED), ("ENCODING_ZSTD", super::ENCODING_ZSTD)];
    let encodings = encodings.map(|(name, number)| (name.to_owned(), u64::from(number)));
    assert_eq!(documented("### Encodings"), encodings);
}
