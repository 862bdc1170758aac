//! The replica's stream: what one core makes of a disk, and what two daemons move together.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use blockd::delta::{Content, DataSlice};
use blockd::extent::Extent;
use blockd::io::file_store::{Cache, FileStore, Options};
use blockd::io::read_back;
use blockd::replica::batch::{Encoder, Item};
use blockd::replica::encoding::Effort as Compression;
use blockd::replica::source::Found;

use crate::lab::Lab;

use super::comparison::Effort;
use super::report::{Table, figure};
use super::statistics::{median, ratios};

/// Bytes that one batch takes from the disk, as by default.
const BATCH_BYTES: u64 = 256 << 10;

/// Adds the stream's figures to a table of costs.
pub fn run(lab: &Lab, effort: Effort, table: &mut Table) {
    let image = lab.scratch.join("stream");
    let bytes = effort.image_bytes / 8;
    let found = program_files(&image, bytes);
    let data = fs::read(&image).expect("read an image");
    let store =
        FileStore::open(&image, Options { read_only: true, cache: Cache::Buffered }).expect("open an image");
    let (mut ours, mut alone, mut ratio) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..effort.pairs {
        let (took, packed) = pack(&store, found);
        ours.push(found as f64 / took.as_secs_f64());
        ratio = found as f64 / packed as f64;
        alone.push(found as f64 / compress_alone(&data).as_secs_f64());
    }
    let share = median(&ratios(&ours, &alone));
    let rate = median(&ours).middle / 1e6;
    table.row(vec![
        "replica stream of one core (read, zero-detect, zstd -1, crc, frame), share of `zstd -1` alone"
            .into(),
        "as high as it gets".into(),
        format!("{} ({rate:.0} MB/s, {ratio:.2} bytes of disk a byte sent)", figure(share)),
        "–".into(),
    ]);
    let rates: Vec<f64> = (0..effort.pairs.min(5)).map(|round| copy(lab, &image, found, round)).collect();
    table.row(vec![
        "first copy between two daemons on this machine, MB/s".into(),
        "–".into(),
        figure(median(&rates)),
        "–".into(),
    ]);
}

/// Fills `image` with the files of /usr/lib, as far as they go; returns how many bytes it has.
fn program_files(image: &Path, most_bytes: u64) -> u64 {
    let mut out = File::create(image).expect("make an image");
    let mut left = most_bytes;
    let mut folders = vec!["/usr/lib".into()];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir::<std::path::PathBuf>(folder) else { continue };
        let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            if path.is_symlink() {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
            } else if let Ok(file) = File::open(&path) {
                let mut bytes = Vec::new();
                let _ = file.take(left).read_to_end(&mut bytes);
                out.write_all(&bytes).expect("fill an image");
                left -= bytes.len() as u64;
            }
        }
        if left == 0 {
            break;
        }
    }
    let size = (most_bytes - left) / BATCH_BYTES * BATCH_BYTES;
    out.set_len(size).expect("cut an image to whole batches");
    size
}

/// Makes frames of the whole disk; returns how long that took and how many bytes they have.
fn pack(store: &FileStore, size: u64) -> (Duration, u64) {
    let (mut encoder, mut frame, mut packed) = (Encoder::default(), Vec::new(), 0);
    let started = Instant::now();
    let mut at = 0;
    while at < size {
        let (content, len) = match read_back::look(store, Extent::new(at, size - at), BATCH_BYTES) {
            Found::Data(buf) => {
                let len = buf.len() as u64;
                (Content::Data(DataSlice::whole(buf)), len)
            }
            Found::Hole(len) => (Content::Hole, len),
            Found::Failed(reason) => panic!("{reason}"),
        };
        let items = [Item::Change(Extent::new(at, len), content)];
        encoder.encode_frame((1, 1), &items, Compression::Zstd(-1), &mut frame);
        packed += frame.len() as u64;
        at += len;
    }
    (started.elapsed(), packed)
}

fn compress_alone(data: &[u8]) -> Duration {
    let mut compressor = zstd::bulk::Compressor::new(-1).expect("make a compressor");
    let mut out = Vec::with_capacity(zstd::zstd_safe::compress_bound(BATCH_BYTES as usize));
    let started = Instant::now();
    for piece in data.chunks(BATCH_BYTES as usize) {
        out.clear();
        compressor.compress_to_buffer(piece, &mut out).expect("compress");
    }
    started.elapsed()
}

/// Megabytes a second from `replicate` until all of the disk is durable at the other daemon.
fn copy(lab: &Lab, image: &Path, size: u64, round: usize) -> f64 {
    let (copy, socket) =
        (lab.scratch.join(&format!("copy{round}")), lab.scratch.join(&format!("copy{round}.replica")));
    let flags = ["--disk-id", "bench"];
    let there = lab.serve(&format!("there{round}"), &copy).flags(flags).replica(&socket, size).start();
    let here = lab.serve(&format!("here{round}"), image).flags(flags).start();
    let started = Instant::now();
    here.ctl(&["replicate", &socket.to_string_lossy()]);
    here.ctl(&["barrier", "--timeout-ms", "60000"]);
    let took = started.elapsed();
    here.ctl(&["record", "off"]);
    drop((here, there));
    let _ = fs::remove_file(copy);
    size as f64 / 1e6 / took.as_secs_f64()
}
