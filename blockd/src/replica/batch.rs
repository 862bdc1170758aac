//! A batch: an ordered list of changes and checks, and its bytes on the wire.
//!
//! ```text
//! body = count, encoding, raw length | item … | payload (the bytes of all data items in a row)
//! item = kind, offset, length [, digest]
//! ```
//!
//! Blocks of data that are all zeros travel as holes. The payload is compressed as one piece, or
//! stored if that does not pay. Decoding checks every bound before anything is allocated for it.

use super::encoding::Effort;
use super::wire::{DIFFERING_MAX, FrameType, HEADER_BYTES, Header, Malformed, Reader};
use crate::delta::{Content, DataSlice};
use crate::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};

/// The most payload in one batch before compression, in bytes.
pub const RAW_BYTES_MAX: usize = 1 << 20;
/// The most items in one batch.
pub const ITEMS_MAX: usize = 4096;
/// The most leaves that one batch may ask about.
pub const ASKED_MAX: u64 = DIFFERING_MAX as u64 / 2;
/// A digest of one leaf.
pub type Digest = [u8; 32];

/// One thing that the source has to say.
#[derive(Clone, Debug)]
pub enum Item {
    /// The extent holds this.
    Change(Extent, Content),
    /// The leaf that is this extent has this digest.
    Digest(Extent, Digest),
    /// All leaves of this extent are zeros.
    AllZeros(Extent),
}

/// One thing that the destination was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The extent holds the payload's bytes from this place on.
    Data(Extent, usize),
    /// The extent reads as zeros and needs no space.
    Hole(Extent),
    /// The extent reads as zeros and is allocated.
    ZeroesAllocated(Extent),
    /// The leaf should have this digest.
    Digest(Extent, Digest),
    /// All leaves of this extent should be zeros.
    AllZeros(Extent),
}

/// A decoded batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    /// In the order in which they apply.
    pub items: Vec<Told>,
    /// The bytes that the data items refer to.
    pub payload: Vec<u8>,
}

const KIND_DATA: u8 = 0;
const KIND_HOLE: u8 = 1;
const KIND_ZEROES_ALLOCATED: u8 = 2;
const KIND_DIGEST: u8 = 3;
const KIND_ALL_ZEROS: u8 = 4;
const ENCODING_STORED: u8 = 0;
const ENCODING_ZSTD: u8 = 1;
/// Compression that saves less than this part is not worth undoing.
const WORTH_WHILE: f64 = 0.97;
/// A payload is not compressed if so many of its bytes, from so many places, do not shrink: noise costs nothing then,
/// and what the chooser learns of the ratio is that of data for which it matters.
const SAMPLE_BYTES: usize = 4 << 10;
const SAMPLES: usize = 4;

/// Turns batches into bodies; keeps its buffers and its compressor between batches.
#[derive(Default)]
pub struct Encoder {
    table: Vec<u8>,
    payload: Vec<u8>,
    compressed: Vec<u8>,
    compressor: Option<(i32, zstd::bulk::Compressor<'static>)>,
    sampler: Option<zstd::bulk::Compressor<'static>>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Encoded {
    /// Bytes that were not zeros, before compression.
    pub raw_bytes: usize,
    /// The same after compression.
    pub payload_bytes: usize,
    /// Whether compression was tried.
    pub tried: bool,
}

impl Encoder {
    /// Lays the whole frame of a batch out into `frame`, which is overwritten.
    pub fn encode_frame(
        &mut self,
        (epoch, seq): (u64, u64),
        items: &[Item],
        effort: Effort,
        frame: &mut Vec<u8>,
    ) -> Encoded {
        frame.clear();
        frame.resize(HEADER_BYTES, 0);
        let encoded = self.append(items, effort, frame);
        let header = Header::for_body(FrameType::Batch, epoch, seq, &frame[HEADER_BYTES..]);
        frame[..HEADER_BYTES].copy_from_slice(&header.encode());
        encoded
    }

    /// Lays `items` out into `body`, which is overwritten.
    pub fn encode(&mut self, items: &[Item], effort: Effort, body: &mut Vec<u8>) -> Encoded {
        body.clear();
        self.append(items, effort, body)
    }

    fn append(&mut self, items: &[Item], effort: Effort, body: &mut Vec<u8>) -> Encoded {
        self.table.clear();
        self.payload.clear();
        let mut count = 0;
        for item in items {
            match item {
                Item::Change(extent, Content::Data(slice)) => count += self.put_data(*extent, slice),
                Item::Change(extent, Content::Hole) => count += self.put(KIND_HOLE, *extent),
                Item::Change(extent, Content::ZeroesAllocated) => {
                    count += self.put(KIND_ZEROES_ALLOCATED, *extent)
                }
                Item::AllZeros(extent) => count += self.put(KIND_ALL_ZEROS, *extent),
                Item::Digest(extent, digest) => {
                    count += self.put(KIND_DIGEST, *extent);
                    self.table.extend_from_slice(digest);
                }
            }
        }
        let raw_bytes = self.payload.len();
        let tried = self.compress(effort);
        let worth = tried && (self.compressed.len() as f64) < raw_bytes as f64 * WORTH_WHILE;
        let (encoding, payload) =
            if worth { (ENCODING_ZSTD, &self.compressed) } else { (ENCODING_STORED, &self.payload) };
        body.extend_from_slice(&(count as u32).to_le_bytes());
        body.extend_from_slice(&[encoding, 0, 0, 0]);
        body.extend_from_slice(&(raw_bytes as u32).to_le_bytes());
        body.extend_from_slice(&self.table);
        body.extend_from_slice(payload);
        Encoded { raw_bytes, payload_bytes: payload.len(), tried }
    }

    /// Puts data as runs of blocks that are zero and blocks that are not.
    fn put_data(&mut self, extent: Extent, slice: &DataSlice) -> usize {
        let bytes = slice.bytes();
        let is_zero = |block: &[u8]| is_zero(block);
        let blocks: Vec<&[u8]> = bytes.chunks(BLOCK_BYTES as usize).collect();
        let mut offset = extent.offset;
        let mut from = 0;
        let mut count = 0;
        for run in blocks.chunk_by(|a, b| is_zero(a) == is_zero(b)) {
            let len: usize = run.iter().map(|block| block.len()).sum();
            let part = Extent::new(offset, len as u64);
            if is_zero(run[0]) {
                count += self.put(KIND_HOLE, part);
            } else {
                count += self.put(KIND_DATA, part);
                self.payload.extend_from_slice(&bytes[from..from + len]);
            }
            offset += len as u64;
            from += len;
        }
        count
    }

    fn put(&mut self, kind: u8, extent: Extent) -> usize {
        self.table.push(kind);
        self.table.extend_from_slice(&extent.offset.to_le_bytes());
        self.table.extend_from_slice(&extent.len.to_le_bytes());
        1
    }

    /// Whether a few places of the payload compress, by the fastest level. A small payload is its own sample.
    fn promises_to_shrink(&mut self) -> bool {
        if self.payload.len() < 4 * SAMPLES * SAMPLE_BYTES {
            return true;
        }
        if self.sampler.is_none() {
            self.sampler = zstd::bulk::Compressor::new(-1).ok();
        }
        let Some(sampler) = &mut self.sampler else { return true };
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(SAMPLE_BYTES));
        let stride = self.payload.len() / SAMPLES;
        (0..SAMPLES).any(|at| {
            let sample = &self.payload[at * stride..][..SAMPLE_BYTES];
            sampler
                .compress_to_buffer(sample, &mut self.compressed)
                .is_ok_and(|bytes| (bytes as f64) < SAMPLE_BYTES as f64 * WORTH_WHILE)
        })
    }

    /// Compresses the payload; false if it was not tried or failed.
    fn compress(&mut self, effort: Effort) -> bool {
        let Effort::Zstd(level) = effort else { return false };
        if self.payload.is_empty() || !self.promises_to_shrink() {
            return false;
        }
        if self.compressor.as_ref().is_none_or(|(current, _)| *current != level) {
            self.compressor = zstd::bulk::Compressor::new(level).ok().map(|compressor| (level, compressor));
        }
        let Some((_, compressor)) = &mut self.compressor else { return false };
        self.compressed.clear();
        self.compressed.reserve(zstd::zstd_safe::compress_bound(self.payload.len()));
        compressor.compress_to_buffer(&self.payload, &mut self.compressed).is_ok()
    }
}

/// Reads a batch's body for a disk of `size` bytes.
pub fn decode(body: &[u8], size: u64) -> Result<Received, Malformed> {
    let mut reader = Reader::new(body, "batch");
    let count = reader.u32()? as usize;
    let [encoding, a, b, c] = reader.array()?;
    let raw_bytes = reader.u32()? as usize;
    if [a, b, c] != [0; 3] {
        return Err(Malformed::Reserved("batch"));
    }
    // Zero detection cuts data into at most one item a block.
    if count > ITEMS_MAX + RAW_BYTES_MAX / BLOCK_BYTES as usize || raw_bytes > RAW_BYTES_MAX {
        return Err(Malformed::Field("a batch has too many items or too much data"));
    }
    let mut items = Vec::with_capacity(count);
    let (mut data_bytes, mut asked) = (0usize, 0u64);
    for _ in 0..count {
        let item = decode_item(&mut reader, size, data_bytes)?;
        match &item {
            Told::Data(extent, _) => data_bytes = data_bytes.saturating_add(extent.len as usize),
            Told::Digest(..) => asked += 1,
            Told::AllZeros(extent) => asked = asked.saturating_add(extent.len.div_ceil(LEAF_BYTES)),
            Told::Hole(_) | Told::ZeroesAllocated(_) => {}
        }
        items.push(item);
    }
    if asked > ASKED_MAX {
        return Err(Malformed::Field("a batch asks about too many leaves"));
    }
    if data_bytes != raw_bytes {
        return Err(Malformed::Field("a batch's items and its payload differ in length"));
    }
    let payload = decode_payload(encoding, reader.rest(), raw_bytes)?;
    Ok(Received { items, payload })
}

fn decode_item(reader: &mut Reader<'_>, size: u64, payload_at: usize) -> Result<Told, Malformed> {
    let kind = reader.u8()?;
    let extent = Extent::new(reader.u64()?, reader.u64()?);
    let end = extent.offset.checked_add(extent.len).ok_or(Malformed::Field("an item's range overflows"))?;
    if extent.is_empty() || end > size {
        return Err(Malformed::Field("an item's range is empty or past the end of the disk"));
    }
    let grid = if kind >= KIND_DIGEST { LEAF_BYTES } else { BLOCK_BYTES };
    if !extent.offset.is_multiple_of(grid) || !(end.is_multiple_of(grid) || end == size) {
        return Err(Malformed::Field("an item's range is not aligned"));
    }
    match kind {
        KIND_DATA => Ok(Told::Data(extent, payload_at)),
        KIND_HOLE => Ok(Told::Hole(extent)),
        KIND_ZEROES_ALLOCATED => Ok(Told::ZeroesAllocated(extent)),
        KIND_ALL_ZEROS => Ok(Told::AllZeros(extent)),
        KIND_DIGEST if extent.len <= LEAF_BYTES => Ok(Told::Digest(extent, reader.array()?)),
        KIND_DIGEST => Err(Malformed::Field("a digest covers more than one leaf")),
        _ => Err(Malformed::Field("unknown kind of item")),
    }
}

fn decode_payload(encoding: u8, bytes: &[u8], raw_bytes: usize) -> Result<Vec<u8>, Malformed> {
    let payload = match encoding {
        ENCODING_STORED if bytes.len() != raw_bytes => return Err(Malformed::Truncated("batch")),
        ENCODING_STORED => bytes.to_vec(),
        ENCODING_ZSTD => zstd::bulk::decompress(bytes, raw_bytes)
            .map_err(|_| Malformed::Field("a batch's payload does not decompress"))?,
        _ => return Err(Malformed::Field("unknown encoding of a batch")),
    };
    if payload.len() == raw_bytes { Ok(payload) } else { Err(Malformed::Truncated("batch")) }
}

/// True if every byte is zero; eight words at a time.
pub fn is_zero(bytes: &[u8]) -> bool {
    let (chunks, rest) = bytes.as_chunks::<64>();
    let chunk_is_zero = |chunk: &[u8; 64]| {
        let (words, _) = chunk.as_chunks::<8>();
        words.iter().fold(0, |sum, word| sum | u64::from_ne_bytes(*word)) == 0
    };
    chunks.iter().all(chunk_is_zero) && rest.iter().all(|byte| *byte == 0)
}

#[cfg(test)]
mod tests;
