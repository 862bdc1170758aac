//! Guests of one sector, in the processor's 16-bit mode: all that some hosts can run under KVM.
//!
//! ```text
//! sector 0    the program, then 55 aa
//! sector 8    magic, count, faults      ─┐ of [`COUNTING`]: one record each 16 rounds, in turn into
//! sector 16   magic, count, faults       │ 64 blocks of 4 KiB
//! …                                     ─┘
//! ```
//!
//! The bytes were assembled by hand (`as --32` with `.code16` gives the same ones), so that nobody needs an assembler.
//! A guest without a network proves itself by its disk: [`Records::read`] is what an image says of it.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::requires::Missing;

const SECTOR_BYTES: usize = 512;
const BLOCK_BYTES: u64 = 4096;
const BLOCKS: u64 = 64;
/// Rounds until every block has been written.
const ROUNDS_OF_ALL: u32 = 16 * BLOCKS as u32;
const MAGIC: &[u8; 4] = b"MOVE";

/// Halts, again and again.
pub const HALTING: &[u8] = &[0xf4, 0xeb, 0xfd];

/// Goes round for ever: each round checks that 64 pages of memory hold what the round before left there, and writes
/// the next pattern; every 16 rounds the number of rounds and of faults goes to the disk, through the BIOS.
#[rustfmt::skip]
pub const COUNTING: &[u8] = &[
    0xfa,                                                 //       cli
    0x31, 0xc0,                                           //       xor  ax, ax
    0x8e, 0xd8,                                           //       mov  ds, ax
    0x8e, 0xd0,                                           //       mov  ss, ax
    0xbc, 0x00, 0x7c,                                     //       mov  sp, 7c00
    0xfb,                                                 //       sti
    0xfc,                                                 //       cld
    0x88, 0x16, 0xfd, 0x7d,                               //       mov  [7dfd], dl         the drive
    0x66, 0xc7, 0x06, 0x00, 0x7e, b'M', b'O', b'V', b'E', //       mov  dword [7e00], MOVE the record: its magic,
    0x66, 0x31, 0xc0,                                     //       xor  eax, eax
    0x66, 0xa3, 0x04, 0x7e,                               //       mov  [7e04], eax        rounds,
    0x66, 0xa3, 0x08, 0x7e,                               //       mov  [7e08], eax        faults
    0xbb, 0x00, 0x10,                                     //       mov  bx, 1000           the first page, at 64 KiB
    0x8e, 0xc3,                                           // fill: mov  es, bx
    0x26, 0x66, 0xa3, 0x00, 0x00,                         //       mov  es:[0], eax        page p holds rounds + p
    0x66, 0x40,                                           //       inc  eax
    0x81, 0xc3, 0x00, 0x01,                               //       add  bx, 100            the next page
    0x81, 0xfb, 0x00, 0x50,                               //       cmp  bx, 5000
    0x75, 0xed,                                           //       jne  fill
    0x66, 0xa1, 0x04, 0x7e,                               // next: mov  eax, [7e04]
    0xbb, 0x00, 0x10,                                     //       mov  bx, 1000
    0x8e, 0xc3,                                           // page: mov  es, bx
    0x26, 0x66, 0x39, 0x06, 0x00, 0x00,                   //       cmp  es:[0], eax
    0x74, 0x05,                                           //       je   good
    0x66, 0xff, 0x06, 0x08, 0x7e,                         //       inc  dword [7e08]       a fault
    0x66, 0x40,                                           // good: inc  eax
    0x26, 0x66, 0xa3, 0x00, 0x00,                         //       mov  es:[0], eax
    0x81, 0xc3, 0x00, 0x01,                               //       add  bx, 100
    0x81, 0xfb, 0x00, 0x50,                               //       cmp  bx, 5000
    0x75, 0xe0,                                           //       jne  page
    0x66, 0xff, 0x06, 0x04, 0x7e,                         //       inc  dword [7e04]
    0xf6, 0x06, 0x04, 0x7e, 0x0f,                         //       test byte [7e04], 0f
    0x75, 0xcd,                                           //       jnz  next
    0x66, 0xa1, 0x04, 0x7e,                               //       mov  eax, [7e04]
    0x66, 0xd1, 0xe8,                                     //       shr  eax, 1             a sixteenth, in sectors
    0x25, 0xf8, 0x01,                                     //       and  ax, 1f8            of one block in 64
    0x83, 0xc0, 0x08,                                     //       add  ax, 8              behind the first
    0xa3, 0x9c, 0x7c,                                     //       mov  [7c9c], ax
    0xb8, 0x00, 0x43,                                     //       mov  ax, 4300           write sectors,
    0x8a, 0x16, 0xfd, 0x7d,                               //       mov  dl, [7dfd]         of this drive,
    0xbe, 0x94, 0x7c,                                     //       mov  si, 7c94           as told there
    0xcd, 0x13,                                           //       int  13
    0x73, 0xaf,                                           //       jnc  next
    0x66, 0xff, 0x06, 0x08, 0x7e,                         //       inc  dword [7e08]       a fault
    0xeb, 0xa8,                                           //       jmp  next
    0x66, 0x90,                                           //       nop
    0x10, 0x00, 0x01, 0x00,                               // 7c94: one sector
    0x00, 0x7e, 0x00, 0x00,                               //       from 0:7e00
    0, 0, 0, 0, 0, 0, 0, 0,                               // 7c9c: to this one
];

/// Make `image` a disk that boots `program`; what is behind its first sector stays.
///
/// # Panics
/// If the program does not fit, or the image cannot be written.
pub fn install(image: &Path, program: &[u8]) {
    let mut sector = [0; SECTOR_BYTES];
    sector[..program.len()].copy_from_slice(program);
    sector[SECTOR_BYTES - 2..].copy_from_slice(&[0x55, 0xaa]);
    let file = OpenOptions::new().write(true).open(image).expect("open an image to boot from");
    file.write_all_at(&sector, 0).expect("write a boot sector");
}

/// Whether this process may use KVM at all.
pub fn kvm() -> Result<(), Missing> {
    let opened = File::options().read(true).write(true).open("/dev/kvm");
    opened.map(drop).map_err(|error| Missing::Denied(format!("cannot open /dev/kvm: {error}")))
}

/// What [`COUNTING`] has left on its disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Records {
    /// Rounds until the latest record.
    pub rounds: u32,
    /// Faults of memory or disk until then.
    pub faults: u32,
    /// Rounds until the oldest record that is left: a guest that was started anew leaves a gap.
    pub oldest: u32,
}

impl Records {
    /// The latest record of an image.
    pub fn read(image: &Path) -> io::Result<Self> {
        let file = File::open(image)?;
        let (mut latest, mut oldest) = (Self::default(), u32::MAX);
        for block in 1..=BLOCKS {
            let mut record = [0; 12];
            file.read_exact_at(&mut record, block * BLOCK_BYTES)?;
            let word = |at: usize| u32::from_le_bytes(record[at..at + 4].try_into().expect("four bytes"));
            let (rounds, faults) = (word(4), word(8));
            if record.starts_with(MAGIC) {
                oldest = oldest.min(rounds);
                if rounds > latest.rounds {
                    latest = Self { rounds, faults, oldest };
                }
            }
        }
        Ok(Self { oldest: oldest.min(latest.rounds), ..latest })
    }

    /// Whether one and the same guest wrote all of them, one after the other. They are read while it writes more.
    pub fn are_of_one_life(&self) -> bool {
        self.rounds - self.oldest < 2 * ROUNDS_OF_ALL
    }
}

#[cfg(test)]
mod tests {
    use super::{COUNTING, HALTING, Records, install};
    use crate::scratch::Scratch;
    use std::fs::OpenOptions;
    use std::os::unix::fs::FileExt;

    #[test]
    fn the_latest_record_of_an_image_is_found() {
        let scratch = Scratch::new();
        let image = scratch.sparse("counting.raw", 1 << 20);
        install(&image, COUNTING);
        assert_eq!(Records::read(&image).unwrap(), Records::default(), "the program is no record");
        let file = OpenOptions::new().write(true).open(&image).unwrap();
        file.write_all_at(b"MOVE\x10\0\0\0\0\0\0\0", 8 * 512).unwrap();
        file.write_all_at(b"MOVE\x20\0\0\0\x01\0\0\0", 16 * 512).unwrap();
        assert_eq!(Records::read(&image).unwrap(), Records { rounds: 32, faults: 1, oldest: 16 });
        assert!(Records::read(&image).unwrap().are_of_one_life());
        file.write_all_at(b"MOVE\0\0\x01\0\0\0\0\0", 24 * 512).unwrap();
        assert!(!Records::read(&image).unwrap().are_of_one_life());
    }

    #[test]
    fn a_program_leaves_room_for_what_makes_a_disk_bootable() {
        // The last byte before the signature but one is where a drive's number is kept.
        for program in [HALTING, COUNTING] {
            assert!(program.len() <= 509, "{} bytes", program.len());
        }
    }
}
