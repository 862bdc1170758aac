//! The memory stream's compression: one zstd stream, with matches over long distances.
//!
//! QEMU's stream repeats itself over distances that are longer than a usual window (a page cache in memory holds what a
//! process also holds), so the window is 128 MiB. The level follows the link: on a thin one the compressor has time.
//! The stream is flushed when its input idles, so that nothing of what QEMU takes for sent waits in here.
//!
//! Memory: about 130 MiB at each end for as long as the stream lives.

use zstd::stream::raw::{CParameter, DParameter, Decoder, Encoder, InBuffer, Operation, OutBuffer};

/// The compressor's window, as a power of two.
pub const WINDOW_LOG: u32 = 27;
/// Most bytes of output of one step.
const OUTPUT_BYTES: usize = 128 << 10;

/// The level for a link that carries so many bytes a second; none: not known yet.
pub fn level_for(bytes_per_s: Option<u64>) -> i32 {
    match bytes_per_s {
        Some(100_000_000..) => -3,
        Some(40_000_000..) => -1,
        Some(8_000_000..) => 1,
        Some(_) => 3,
        // The usual link of a long move is thin, and a level costs little.
        None => 1,
    }
}

/// The sending end.
pub struct Compressor {
    encoder: Encoder<'static>,
}

impl Compressor {
    /// A stream of this level. The level holds for the stream's life.
    pub fn new(level: i32) -> std::io::Result<Self> {
        let mut encoder = Encoder::new(level)?;
        encoder.set_parameter(CParameter::WindowLog(WINDOW_LOG))?;
        encoder.set_parameter(CParameter::EnableLongDistanceMatching(true))?;
        Ok(Self { encoder })
    }

    /// Takes `bytes` in, and appends what comes out. What comes later may depend on it: see `flush`.
    pub fn compress(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut input = InBuffer::around(bytes);
        while input.pos() < bytes.len() {
            step(out, |output| self.encoder.run(&mut input, output).map(|_| ()))?;
        }
        Ok(())
    }

    /// Everything that was taken in comes out, so that the other end has it all.
    pub fn flush(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut left = 1;
        while left > 0 {
            step(out, |output| self.encoder.flush(output).map(|rest| left = rest))?;
        }
        Ok(())
    }

    /// The stream ends.
    pub fn finish(&mut self, out: &mut Vec<u8>) -> std::io::Result<()> {
        let mut left = 1;
        while left > 0 {
            step(out, |output| self.encoder.finish(output, true).map(|rest| left = rest))?;
        }
        Ok(())
    }
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
    use super::{Compressor, Decompressor, level_for};

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

    #[test]
    fn a_flush_brings_out_all_that_was_taken_in() {
        let mut compressor = Compressor::new(1).unwrap();
        let mut out = Vec::new();
        let mut expected = Vec::new();
        for piece in [&b"abc"[..], &noise(100_000), &[0; 300_000]] {
            compressor.compress(piece, &mut out).unwrap();
            compressor.flush(&mut out).unwrap();
            expected.extend_from_slice(piece);
            assert!(decompress_all(&out) == expected);
        }
        compressor.finish(&mut out).unwrap();
        assert!(decompress_all(&out) == expected);
    }

    #[test]
    fn what_repeats_far_away_is_found() {
        let block = noise(1 << 20);
        let mut compressor = Compressor::new(1).unwrap();
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
        let mut compressor = Compressor::new(1).unwrap();
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
    fn a_thinner_link_gets_a_harder_level() {
        let levels = [1u64 << 20, 10 << 20, 50 << 20, 1 << 30].map(|rate| level_for(Some(rate)));
        assert!(levels.is_sorted_by(|a, b| a > b), "{levels:?}");
    }
}
