//! The two ends of an image: how long it is, and what it says of its format.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use crate::image_format::{END_BYTES, ImageFormat};

/// What the ends tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageEnds {
    /// The size in bytes, also of a device.
    pub size_bytes: u64,
    /// The format; none: as good as raw.
    pub format: Option<ImageFormat>,
}

impl ImageEnds {
    /// Looks at the image at `path`, through a descriptor of its own, and only reads.
    pub fn of(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let size_bytes = file.seek(SeekFrom::End(0))?;
        let mut end = |at: u64| -> io::Result<Vec<u8>> {
            let mut bytes = Vec::with_capacity(END_BYTES);
            file.seek(SeekFrom::Start(at))?;
            file.by_ref().take(END_BYTES as u64).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let (first, last) = (end(0)?, end(size_bytes.saturating_sub(END_BYTES as u64))?);
        Ok(Self { size_bytes, format: ImageFormat::recognise(&first, &last) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::scratch::Scratch;

    #[test]
    fn both_ends_are_looked_at_whatever_the_size() {
        let scratch = Scratch::new();
        let path = scratch.path("image");
        let format = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let found = ImageEnds::of(&path).unwrap();
            assert_eq!(found.size_bytes, bytes.len() as u64);
            found.format
        };
        assert_eq!(format(b""), None);
        assert_eq!(format(b"QFI\xfb\0\0\0\x03"), Some(ImageFormat::Qcow2));
        for len in [511, 512, 513, 1 << 20] {
            let mut bytes = vec![0; len];
            assert_eq!(format(&bytes), None, "{len}");
            bytes[..4].copy_from_slice(b"KDMV");
            assert_eq!(format(&bytes), Some(ImageFormat::Vmdk), "{len}");
        }
        let fixed = [vec![0; 4096], b"conectix".to_vec(), vec![0; 504]].concat();
        assert_eq!(format(&fixed), Some(ImageFormat::Vhd));
        assert!(ImageEnds::of(&scratch.path("nothing")).is_err());
    }
}
