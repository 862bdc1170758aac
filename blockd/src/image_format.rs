//! What an image says that it is, by its first and last bytes.
//!
//! A raw image says nothing: its bytes are the guest's. One that was made for another format holds a disk in wrapping, and
//! served as it is would be a disk of rubbish, which a guest then writes over. So this is asked of an image once, when it
//! becomes a disk, and never of one whose bytes a guest has had in its hands: it may write there what it likes.
//!
//! Knows names and no insides: nothing here reads such an image.

use std::fmt;

/// How many bytes of either end are looked at.
pub const END_BYTES: usize = 512;

/// A format that is not raw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageFormat {
    /// QEMU's, both versions of it.
    Qcow2,
    /// QEMU's first one.
    Qcow,
    /// QEMU's, given up.
    Qed,
    /// VMware's.
    Vmdk,
    /// Hyper-V's.
    Vhdx,
    /// Virtual PC's and Azure's.
    Vhd,
    /// VirtualBox's.
    Vdi,
    /// Encrypted.
    Luks,
}

/// What stands at the beginning of an image, and where.
const MAGICS: [(ImageFormat, usize, &[u8]); 11] = [
    (ImageFormat::Qcow2, 0, b"QFI\xfb\0\0\0\x02"),
    (ImageFormat::Qcow2, 0, b"QFI\xfb\0\0\0\x03"),
    (ImageFormat::Qcow, 0, b"QFI\xfb"),
    (ImageFormat::Qed, 0, b"QED\0"),
    (ImageFormat::Vmdk, 0, b"KDMV"),
    (ImageFormat::Vmdk, 0, b"COWD"),
    (ImageFormat::Vmdk, 0, b"# Disk DescriptorFile"),
    (ImageFormat::Vhdx, 0, b"vhdxfile"),
    (ImageFormat::Vhd, 0, VHD_COOKIE),
    (ImageFormat::Vdi, 64, b"\x7f\x10\xda\xbe"),
    (ImageFormat::Luks, 0, b"LUKS\xba\xbe"),
];

/// A VHD of fixed size has it at its end alone, 512 bytes before it.
const VHD_COOKIE: &[u8] = b"conectix";

impl ImageFormat {
    /// The format of an image by its first and its last [`END_BYTES`]; less where it is smaller. None: as good as raw.
    pub fn recognise(first: &[u8], last: &[u8]) -> Option<Self> {
        let has = |magic: &[u8], at: usize| first.get(at..).is_some_and(|rest| rest.starts_with(magic));
        let found = MAGICS.iter().find(|(_, at, magic)| has(magic, *at)).map(|(format, _, _)| *format);
        let is_fixed_vhd = || last.len() == END_BYTES && last.starts_with(VHD_COOKIE);
        found.or_else(|| is_fixed_vhd().then_some(ImageFormat::Vhd))
    }
}

impl fmt::Display for ImageFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ImageFormat::Qcow2 => "qcow2",
            ImageFormat::Qcow => "qcow",
            ImageFormat::Qed => "qed",
            ImageFormat::Vmdk => "vmdk",
            ImageFormat::Vhdx => "vhdx",
            ImageFormat::Vhd => "vhd",
            ImageFormat::Vdi => "vdi",
            ImageFormat::Luks => "luks",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(first: &[u8], last: &[u8]) -> Option<String> {
        ImageFormat::recognise(first, last).map(|format| format.to_string())
    }

    #[test]
    fn what_stands_at_the_beginning_says_the_format() {
        let vdi = [vec![b'<'; 64], b"\x7f\x10\xda\xbe\x01".to_vec()].concat();
        let cases: [(&[u8], &str); 11] = [
            (b"QFI\xfb\0\0\0\x03\0\0", "qcow2"),
            (b"QFI\xfb\0\0\0\x02", "qcow2"),
            (b"QFI\xfb\0\0\0\x01", "qcow"),
            (b"QFI\xfb", "qcow"),
            (b"QED\0rest", "qed"),
            (b"KDMV\x01", "vmdk"),
            (b"# Disk DescriptorFile\nversion=1", "vmdk"),
            (b"vhdxfile", "vhdx"),
            (b"conectix\0\0", "vhd"),
            (&vdi, "vdi"),
            (b"LUKS\xba\xbe\0\x01", "luks"),
        ];
        for (first, format) in cases {
            assert_eq!(of(first, b"").as_deref(), Some(format), "{first:x?}");
            let mut shifted = vec![0];
            shifted.extend(first);
            assert_eq!(of(&shifted, b""), None, "only at its own place: {format}");
            let mut other = first.to_vec();
            other[if format == "vdi" { 64 } else { 0 }] ^= 1;
            assert_eq!(of(&other, b""), None, "only every byte of it: {format}");
        }
    }

    #[test]
    fn a_fixed_vhd_says_it_at_its_end_alone() {
        let mut footer = vec![0; END_BYTES];
        footer[..8].copy_from_slice(b"conectix");
        assert_eq!(of(&[0; END_BYTES], &footer).as_deref(), Some("vhd"));
        assert_eq!(of(&[0; END_BYTES], &footer[..8]), None, "not where a footer would stand");
    }

    #[test]
    fn what_a_raw_disk_begins_with_says_nothing() {
        let mut boot_sector = [0; END_BYTES];
        boot_sector[510..].copy_from_slice(&[0x55, 0xaa]);
        let efi: &[u8] = b"EFI PART";
        for first in [&boot_sector[..], &[0; END_BYTES], efi, b"QFI", b"LUKS\xba", b"", b"Q"] {
            assert_eq!(of(first, &[0; END_BYTES]), None, "{first:x?}");
        }
    }
}
