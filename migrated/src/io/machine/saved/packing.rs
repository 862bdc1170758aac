//! How a guest's state lies in its file: as it is, or packed by zstd or gzip.
//!
//! A file that is written is packed as its name says, one that is read as its first bytes say: it may have been renamed, or
//! come through a pipe.

use std::io::{self, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;

/// zstd's level: as fast as a disk, at half of the size and less.
const ZSTD_LEVEL: i32 = 3;

/// One way of packing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// None.
    Plain,
    /// RFC 8878.
    Zstd,
    /// RFC 1952.
    Gzip,
}

impl Packing {
    /// What the name of a file asks for.
    pub fn of_name(path: &Path) -> Self {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("zst") => Packing::Zstd,
            Some("gz") => Packing::Gzip,
            _ => Packing::Plain,
        }
    }

    /// What a file is by its first bytes. No state of QEMU begins so ("QEVM").
    fn of_magic(first: &[u8]) -> Self {
        match first {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Packing::Zstd,
            [0x1f, 0x8b, ..] => Packing::Gzip,
            _ => Packing::Plain,
        }
    }

    /// Copies a state, packing it. Blocks.
    pub fn pack(self, from: &mut impl Read, to: &mut impl Write) -> io::Result<()> {
        match self {
            Packing::Plain => io::copy(from, to).map(drop),
            Packing::Zstd => {
                let mut packed = zstd::Encoder::new(to, ZSTD_LEVEL)?;
                io::copy(from, &mut packed)?;
                packed.finish().map(drop)
            }
            Packing::Gzip => {
                let mut packed = GzEncoder::new(to, Compression::fast());
                io::copy(from, &mut packed)?;
                packed.finish().map(drop)
            }
        }
    }
}

/// Copies a state, unpacking it if it is packed. Blocks.
pub fn unpack(mut from: impl Read, to: &mut impl Write) -> io::Result<()> {
    let mut first = Vec::new();
    from.by_ref().take(4).read_to_end(&mut first)?;
    let packing = Packing::of_magic(&first);
    let mut whole = io::Cursor::new(first).chain(from);
    match packing {
        Packing::Plain => io::copy(&mut whole, to).map(drop),
        Packing::Zstd => io::copy(&mut zstd::Decoder::new(whole)?, to).map(drop),
        Packing::Gzip => io::copy(&mut MultiGzDecoder::new(whole), to).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_smaller_and_comes_out_as_it_went_in_whatever_its_name_is() {
        let state = [b"QEVM".as_slice(), &[7; 100_000]].concat();
        for (name, packing) in
            [("web.state", Packing::Plain), ("web.zst", Packing::Zstd), ("web.state.gz", Packing::Gzip)]
        {
            assert_eq!(Packing::of_name(Path::new(name)), packing);
            let mut packed = Vec::new();
            packing.pack(&mut state.as_slice(), &mut packed).unwrap();
            assert_eq!(packed.len() < state.len() / 10, packing != Packing::Plain, "{name}");
            let mut out = Vec::new();
            unpack(packed.as_slice(), &mut out).unwrap();
            assert_eq!(out, state, "{name}");
            // Cut off: an error, or what QEMU finds too short.
            let mut cut = Vec::new();
            let ended = unpack(&packed[..packed.len() - 3], &mut cut);
            assert!(ended.is_err() || packing == Packing::Plain, "{name}");
        }
        let mut out = Vec::new();
        unpack([].as_slice(), &mut out).unwrap();
        assert!(out.is_empty());
    }
}
