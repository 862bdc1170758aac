//! Whether an image can be the disk that a description makes of it.
//!
//! A guest must not see more of a disk than there is, nor the wrapping of another format in place of a disk: it would write to
//! both. Knows sizes and formats; whether an image is in use, and by whom, is blockd's to see.

use blockd::image_format::ImageFormat;

use crate::guest::Disk;

/// What QEMU makes a guest's disks of, in bytes.
pub const SECTOR_BYTES: u64 = 512;

/// What is wrong with a size, and what to do; none: nothing. QEMU rounds up to whole sectors, and a write to the rest of the
/// last one fails.
pub fn size_fault(size_bytes: u64) -> Option<String> {
    let whole = size_bytes.checked_next_multiple_of(SECTOR_BYTES)?;
    (whole != size_bytes).then(|| {
        format!(
            "it has {size_bytes} bytes, which is no multiple of {SECTOR_BYTES}: QEMU would show the guest {whole}, and \
             writes to the last sector would fail; while nothing uses it, make it longer (truncate -s {whole} IMAGE)"
        )
    })
}

/// What is wrong with an image that says that it has another format than raw; none: nothing, or the description says that it
/// is raw all the same.
pub fn format_fault(format: Option<ImageFormat>, disk: &Disk) -> Option<String> {
    let format = format.filter(|_| disk.format.is_none())?;
    Some(format!(
        "it is a {format} image by its own word, and the guest would get its bytes as they are, which is no disk; convert it \
         (qemu-img convert -O raw IMAGE NEW), or write format = \"raw\" under this disk if these are the disk's own bytes"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_right_in_whole_sectors_alone_and_the_next_one_is_named() {
        for size_bytes in [0, 512, 4096, 1 << 40] {
            assert_eq!(size_fault(size_bytes), None, "{size_bytes}");
        }
        let odd = [(1, 512), (511, 512), (513, 1024), (4095, 4096), (4097, 4608), (1_000_001, 1_000_448)];
        for (size_bytes, whole) in odd {
            let fault = size_fault(size_bytes).unwrap();
            assert!(fault.contains(&format!("it has {size_bytes} bytes")), "{fault}");
            assert!(fault.contains(&format!("truncate -s {whole} ")), "{fault}");
            assert_eq!(size_fault(whole), None);
        }
        assert_eq!(size_fault(u64::MAX), None, "such a size is refused by what it needs");
    }

    #[test]
    fn another_format_is_refused_by_its_name_unless_the_description_says_raw() {
        let disk = |format: Option<&str>| Disk {
            id: "root".into(),
            image: "web.raw".into(),
            shared: false,
            format: format.map(str::to_owned),
        };
        let fault = format_fault(Some(ImageFormat::Qcow2), &disk(None)).unwrap();
        assert!(fault.contains("qcow2") && fault.contains("format = \"raw\""), "{fault}");
        assert_eq!(format_fault(Some(ImageFormat::Qcow2), &disk(Some("raw"))), None);
        assert_eq!(format_fault(None, &disk(None)), None);
        assert_eq!(format_fault(None, &disk(Some("raw"))), None);
    }
}
