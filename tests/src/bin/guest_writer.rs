//! Runs inside the test guest, or on the host to check what a guest has left.
//!
//! ```text
//! guest_writer write FILE SLOTS            numbered 4 KiB blocks, O_DIRECT and fdatasync each, for ever;
//!                                          prints `acked N` when the disk has said that N is durable
//! guest_writer verify FILE SLOTS ACKED     checks that nothing of 1..=ACKED is lost, stale or torn
//! ```
//!
//! Plain `std` and one file beside it, so that `rustc` alone makes a static program of it.

// The guest's fixture compiles this file alone, without the crate around it.
#[path = "../numbered.rs"]
#[allow(dead_code)]
mod numbered;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::process::ExitCode;

use numbered::{BLOCK_BYTES, slot_of, stamp, verify};

/// `O_DIRECT` on x86-64 and most others.
const O_DIRECT: i32 = 0o40000;

/// O_DIRECT wants memory that is aligned as the disk's blocks are.
#[repr(align(4096))]
struct Aligned([u8; BLOCK_BYTES]);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        ["write", file, slots] => write(file, number(slots)),
        ["verify", file, slots, acked] => check(file, number(slots), number(acked)),
        _ => Err(io::Error::other("usage: guest_writer write FILE SLOTS | verify FILE SLOTS ACKED")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("guest_writer failed: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(word: &str) -> u64 {
    word.parse().unwrap_or_else(|_| panic!("{word} is not a number"))
}

fn write(path: &str, slots: u64) -> io::Result<()> {
    let file =
        OpenOptions::new().write(true).create(true).truncate(false).custom_flags(O_DIRECT).open(path)?;
    let mut block = Box::new(Aligned([0; BLOCK_BYTES]));
    let mut console = io::stdout();
    for number in 1.. {
        stamp(&mut block.0, number);
        file.write_all_at(&block.0, slot_of(number, slots) * BLOCK_BYTES as u64)?;
        file.sync_data()?;
        writeln!(console, "acked {number}")?;
    }
    Ok(())
}

fn check(path: &str, slots: u64, acked: u64) -> io::Result<()> {
    let file = File::open(path)?;
    let mut failed = None;
    let result = verify(slots, acked, 1, |slot, block| {
        if let Err(error) = file.read_exact_at(block, slot * BLOCK_BYTES as u64) {
            failed.get_or_insert(error);
        }
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let present = result.map_err(io::Error::other)?;
    println!("{present} blocks, nothing lost of {acked} acknowledged");
    Ok(())
}
