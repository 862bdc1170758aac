//! Images as evidence: what a guest's writer has left, read as the guest would find it after a power cut.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::numbered::{BLOCK_BYTES, stamp};
use crate::program::Tool;

/// The file that a guest's writer writes on its file system.
const WRITTEN_FILE: &str = "/data/w";

/// An image that a writer has written.
#[derive(Clone, Debug)]
pub struct WrittenDisk {
    /// The image.
    pub image: PathBuf,
    /// Where the blocks are in it.
    pub holds: Holds,
    /// Places of blocks.
    pub slots: u64,
    /// The highest number that was ever begun, where that is known: when the writer was stopped.
    pub most: Option<u64>,
}

/// Where numbered blocks are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// From the first byte of the disk.
    Numbers,
    /// In a file of its ext4.
    FileSystem,
}

/// Replay the journal on a copy and take the writer's file out of it. What a journal cannot mend is an error.
pub fn replay(image: &Path, folder: &Path) -> Result<PathBuf, String> {
    let (copy, file) = (folder.join("replayed.raw"), folder.join("replayed.file"));
    for old in [&copy, &file] {
        match fs::remove_file(old) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.to_string()),
            _ => {}
        }
    }
    Tool::new("cp").args(["--sparse=always", "--reflink=auto"]).arg(image).arg(&copy).run();
    // "Preen" replays the journal and refuses to mend anything that a journalled file system cannot have.
    let checked = Tool::new("e2fsck").arg("-fp").arg(&copy).output();
    if checked.status.code().is_none_or(|code| code > 1) {
        return Err(String::from_utf8_lossy(&checked.stdout).trim().to_owned());
    }
    let dump = format!("dump {WRITTEN_FILE} {}", file.display());
    Tool::new("debugfs").arg("-R").arg(dump).arg(&copy).run();
    if !file.exists() {
        return Err(format!("there is no {WRITTEN_FILE}"));
    }
    fs::remove_file(&copy).map_err(|error| error.to_string())?;
    Ok(file)
}

/// A file of blocks.
#[derive(Debug)]
pub struct Blocks(File);

/// Open a file or an image that begins with the blocks.
pub fn blocks(path: &Path) -> Result<Blocks, String> {
    File::open(path).map(Blocks).map_err(|error| error.to_string())
}

impl Blocks {
    /// Read one; what lies behind the end of the file was never written.
    pub fn read(&self, slot: u64, block: &mut [u8]) {
        block.fill(0);
        let mut done = 0;
        while done < block.len() {
            let at = slot * BLOCK_BYTES as u64 + done as u64;
            match self.0.read_at(&mut block[done..], at).expect("read an image") {
                0 => break,
                len => done += len,
            }
        }
    }
}

/// Where the whole block with `number` lies in an image, wherever its file is: to break it on purpose.
pub fn find(image: &Path, number: u64) -> Option<u64> {
    let mut wanted = vec![0; BLOCK_BYTES];
    stamp(&mut wanted, number);
    let blocks = blocks(image).expect("open an image");
    let count = fs::metadata(image).expect("look at an image").len() / BLOCK_BYTES as u64;
    let mut block = vec![0; BLOCK_BYTES];
    let at = (0..count).find(|index| {
        blocks.read(*index, &mut block);
        block == wanted
    });
    at.map(|index| index * BLOCK_BYTES as u64)
}
