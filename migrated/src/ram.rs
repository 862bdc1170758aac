//! The memory stream's compression: one zstd stream, with matches over long distances.
//!
//! Where nothing shall be compressed the stream is zstd's all the same (RFC 8878), of raw blocks: the other end need not
//! know.
//!
//! QEMU's stream repeats itself over distances that are longer than a usual window (a page cache in memory holds what a
//! process also holds), so the window is 128 MiB. The level follows the link: on a thin one the compressor has time.
//! The stream is flushed when its input idles, so that nothing of what QEMU takes for sent waits in here.
//!
//! Memory: about 130 MiB at each end for as long as the stream lives.

use blockd::replica::encoding::Compression;
use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The compressor's window, as a power of two.
pub const WINDOW_LOG: u32 = 27;
/// Most bytes of output of one step.
const OUTPUT_BYTES: usize = 128 << 10;

/// How a stream is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// As it is.
    Store,
    /// By zstd at this level.
    Zstd(i32),
}

/// The coding for a link that carries so many bytes a second; none: not known yet.
pub fn coding_for(compression: Compression, bytes_per_s: Option<u64>) -> Coding {
    let level = match bytes_per_s {
        Some(100_000_000..) => -3,
        Some(40_000_000..) => -1,
        Some(8_000_000..) => 1,
        Some(_) => 3,
        // The usual link of a long move is thin, and a level costs little.
        None => 1,
    };
    match compression {
        Compression::Off => Coding::Store,
        Compression::On => Coding::Zstd(level.max(1)),
        Compression::Auto => Coding::Zstd(level),
    }
}

/// The sending end.
pub struct Compressor(Inner);

enum Inner {
    /// As it is; true: the frame's header is written.
    Store(bool),
    Zstd(Encoder<'static>),
}

/// What begins a frame of raw blocks: magic, a descriptor that promises nothing (no size, no checksum), and a window of
/// 128 KiB, which no block exceeds (RFC 8878, 3.1.1.1).
const STORED_FRAME: [u8; 6] = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 7 << 3];
/// The longest raw block in that window, in bytes.
const RAW_BLOCK_BYTES_MAX: usize = 128 << 10;

impl Compressor {
    /// A stream that is coded like this for its whole life.
    pub fn new(coding: Coding) -> std::io::Result<Self> {
        let Coding::Zstd(level) = coding else { return Ok(Self(Inner::Store(false))) };
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        Ok(Self(Inner::Zstd(encoder)))
    }

    /// Takes `bytes` in, and appends what comes out. What comes later may depend on it: see `flush`.
    pub fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        match &mut self.0 {
            Inner::Store(begun) => {
                begin_stored(begun, out);
                bytes.chunks(RAW_BLOCK_BYTES_MAX).for_each(|block| put_raw_block(block, false, out));
            }
            Inner::Zstd(encoder) => {
                let mut input = InBuffer::around(bytes);
                while input.pos() < bytes.len() {
                    step(out, |output| encoder.run(&mut input, output).map(|_| ()))?;
                }
            }
        }
        Ok(())
    }

    /// Everything that was taken in comes out, so that the other end has it all.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        // Raw blocks hold nothing back.
        let Inner::Zstd(encoder) = &mut self.0 else { return Ok(()) };
        let mut left = 1;
        while left > 0 {
            step(out, |output| encoder.flush(output).map(|rest| left = rest))?;
        }
        Ok(())
    }

    /// The stream ends.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        match &mut self.0 {
            Inner::Store(begun) => {
                begin_stored(begun, out);
                put_raw_block(&[], true, out);
            }
            Inner::Zstd(encoder) => {
                let mut left = 1;
                while left > 0 {
                    step(out, |output| encoder.finish(output, true).map(|rest| left = rest))?;
                }
            }
        }
        Ok(())
    }
}

fn begin_stored(begun: &mut bool, out: &mut Vec<u8>) {
    if !std::mem::replace(begun, true) {
        out.extend_from_slice(&STORED_FRAME);
    }
}

/// A block of type 0: whether it is the last, then its size, in three bytes (RFC 8878, 3.1.1.2).
fn put_raw_block(block: &[u8], is_last: bool, out: &mut Vec<u8>) {
    let header = u32::try_from(block.len()).expect("a block is short") << 3 | u32::from(is_last);
    out.extend_from_slice(&header.to_le_bytes()[..3]);
    out.extend_from_slice(block);
}

/// The receiving end.
pub struct Decompressor {
    decoder: Decoder<'static>,
}

impl Decompressor {
    /// A stream from its beginning.
    pub fn new() -> std::io::Result<Self> {
        let mut decoder = Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(WINDOW_LOG))?;
        Ok(Self { decoder })
    }

    /// Takes bytes in from `used` on and appends what comes out until `out` has `max` bytes or more. True: there may
    /// be more to come of the same `bytes`.
    pub fn fill(
        &mut self,
        bytes: &[u8],
        used: &mut usize,
        out: &mut Vec<u8>,
        max: usize,
    ) -> std::io::Result<bool> {
        while out.len() < max {
            let (before, started_at) = (*used, out.len());
            let mut input = InBuffer::around(&bytes[before..]);
            step(out, |output| self.decoder.run(&mut input, output).map(|_| ()))?;
            *used += input.pos();
            // A full step may have left output behind; one that did nothing has none.
            let full = out.len() - started_at == OUTPUT_BYTES;
            if !full && *used == bytes.len() {
                return Ok(false);
            }
            if *used == before && out.len() == started_at {
                return Err(std::io::Error::other("the memory's stream does not go on"));
            }
        }
        Ok(true)
    }
}

/// Lets a step of the codec append to `out`.
fn step(
    out: &mut Vec<u8>,
    run: impl FnOnce(&mut OutBuffer<'_, [u8]>) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let start = out.len();
    out.resize(start + OUTPUT_BYTES, 0);
    let mut output = OutBuffer::around(&mut out[start..]);
    let result = run(&mut output);
    let written = output.pos();
    out.truncate(start + written);
    result
}

#[cfg(test)]
mod tests {
    use blockd::replica::encoding::Compression;

    use super::{Coding, Compressor, Decompressor, coding_for};

    fn decompress_all(compressed: &[u8]) -> Vec<u8> {
        let mut decompressor = Decompressor::new().unwrap();
        let (mut out, mut used) = (Vec::new(), 0);
        while decompressor.fill(compressed, &mut used, &mut out, usize::MAX).unwrap() {}
        assert_eq!(used, compressed.len());
        out
    }

    /// Bytes that do not compress.
    fn noise(count: usize) -> Vec<u8> {
        let mut state = 1u64;
        let mut byte = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 56) as u8
        };
        (0..count).map(|_| byte()).collect()
    }

    /// What a stream of this coding was given, and what it became; whole after every flush, and in the end.
    fn flushed(coding: Coding, pieces: &[&[u8]]) -> (Vec<u8>, Vec<u8>) {
        let mut compressor = Compressor::new(coding).unwrap();
        let (mut given, mut out) = (Vec::new(), Vec::new());
        for piece in pieces {
            compressor.compress(piece, &mut out).unwrap();
            compressor.flush(&mut out).unwrap();
            given.extend_from_slice(piece);
            assert!(decompress_all(&out) == given);
        }
        compressor.finish(&mut out).unwrap();
        assert!(decompress_all(&out) == given);
        (given, out)
    }

    #[test]
    fn a_flush_brings_out_all_that_was_taken_in() {
        flushed(Coding::Zstd(1), &[b"abc", &noise(100_000), &[0; 300_000]]);
    }

    #[test]
    fn what_repeats_far_away_is_found() {
        let block = noise(1 << 20);
        let mut compressor = Compressor::new(Coding::Zstd(1)).unwrap();
        let mut out = Vec::new();
        compressor.compress(&block, &mut out).unwrap();
        compressor.compress(&noise(16 << 20)[1 << 20..], &mut out).unwrap();
        compressor.flush(&mut out).unwrap();
        let before = out.len();
        compressor.compress(&block, &mut out).unwrap();
        compressor.finish(&mut out).unwrap();
        assert!(out.len() - before < block.len() / 20, "{} bytes more", out.len() - before);
        assert!(decompress_all(&out).ends_with(&block));
    }

    #[test]
    fn output_comes_in_bounded_pieces() {
        let mut compressor = Compressor::new(Coding::Zstd(1)).unwrap();
        let mut compressed = Vec::new();
        compressor.compress(&vec![7; 8 << 20], &mut compressed).unwrap();
        compressor.finish(&mut compressed).unwrap();
        let mut decompressor = Decompressor::new().unwrap();
        let (mut used, mut total, mut more) = (0, 0, true);
        while more {
            let mut out = Vec::new();
            more = decompressor.fill(&compressed, &mut used, &mut out, 1 << 20).unwrap();
            assert!(out.len() < (1 << 20) + (128 << 10));
            total += out.len();
        }
        assert_eq!(total, 8 << 20);
    }

    #[test]
    fn what_was_never_compressed_is_refused() {
        let mut decompressor = Decompressor::new().unwrap();
        let refused = decompressor.fill(b"this is not zstd", &mut 0, &mut Vec::new(), 100);
        assert!(refused.is_err());
    }

    #[test]
    fn what_is_stored_is_a_stream_that_the_other_end_reads_like_any() {
        let (given, out) = flushed(Coding::Store, &[b"abc", &[], &noise(300_000), &[0; 300_000]]);
        assert!(out.len() > given.len() && out.len() < given.len() + 64, "{} bytes", out.len());
        flushed(Coding::Store, &[]);
    }

    #[test]
    fn a_thinner_link_gets_a_harder_level_unless_somebody_knows_better() {
        let rates = [1u64 << 20, 10 << 20, 50 << 20, 1 << 30];
        let levels = rates.map(|rate| match coding_for(Compression::Auto, Some(rate)) {
            Coding::Zstd(level) => level,
            Coding::Store => panic!("it was not asked for"),
        });
        assert!(levels.is_sorted_by(|a, b| a > b), "{levels:?}");
        for rate in rates {
            assert_eq!(coding_for(Compression::Off, Some(rate)), Coding::Store);
            assert!(matches!(coding_for(Compression::On, Some(rate)), Coding::Zstd(1..)));
        }
    }
}
