//! The replica's stream: what one core makes of a disk, and what two daemons move together.

use std::cell::LazyCell;
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
use crate::requires::Missing;

use super::comparison::Effort;
use super::record::{Figure, OURS, Part, Records};
use super::report::{NOTHING, Table, figures};
use super::session::{Asked, Session};
use super::statistics::{median, ratios};

/// Bytes that one batch takes from the disk, as by default.
const BATCH_BYTES: u64 = 256 << 10;

/// The courses, as the records name them.
const ONE_CORE: &str = "stream of one core";
const FIRST_COPY: &str = "first copy";

const ALONE: &str = "zstd -1 alone";
const RATE: &str = "disk bytes taken";
const RATIO: &str = "disk bytes for a byte sent";

/// Measure what is lacking.
pub fn measure(session: &mut Session, effort: Effort) -> Result<(), Missing> {
    let lab = Lab::with(&[])?;
    let image = lab.scratch.join("stream");
    let bytes = effort.image_bytes / 8;
    let found = LazyCell::new(|| program_files(&image, bytes));
    let asked = |course: &str, pairs| {
        let conditions = format!("{} MiB of /usr/lib", bytes >> 20);
        Asked { part: Part::Stream, course: course.to_owned(), conditions, pairs }
    };
    let set_up = || {
        let found = *found;
        let data = fs::read(&image).expect("read an image");
        let options = Options { read_only: true, cache: Cache::Buffered };
        Ok((found, data, FileStore::open(&image, options).expect("open an image")))
    };
    session.course(asked(ONE_CORE, effort.pairs), set_up, |(found, data, store), _| {
        let (took, packed) = pack(store, *found);
        let mb_per_s = |took: Duration| *found as f64 / 1e6 / took.as_secs_f64();
        let ours = [
            Figure::more(OURS, RATE, "MB/s", mb_per_s(took)),
            Figure::more(OURS, RATIO, "bytes", *found as f64 / packed as f64),
        ];
        let alone = Figure::more(ALONE, RATE, "MB/s", mb_per_s(compress_alone(data)));
        Ok(ours.into_iter().chain([alone]).collect::<Vec<_>>().into())
    })?;
    session.course(
        asked(FIRST_COPY, effort.pairs.min(5)),
        || Ok(*found),
        |found, pair| {
            let rate = copy(&lab, &image, *found, pair);
            Ok(vec![Figure::more(OURS, RATE, "MB/s", rate)].into())
        },
    )
}

/// What these records say.
pub fn rows(records: &Records, table: &mut Table) {
    let series = |course, who, metric| records.series(Part::Stream, course, who, metric);
    let ours = series(ONE_CORE, OURS, RATE);
    let mut told = figures(&ratios(&ours, &series(ONE_CORE, ALONE, RATE)));
    if let Some(ratio) = series(ONE_CORE, OURS, RATIO).last() {
        told += &format!(" ({:.0} MB/s, {ratio:.2} bytes of disk a byte sent)", median(&ours).middle);
    }
    let name =
        "replica stream of one core (read, zero-detect, zstd -1, crc, frame), share of `zstd -1` alone";
    let nothing = || NOTHING.to_owned();
    table.row(vec![name.to_owned(), "as high as it gets".to_owned(), told, nothing()]);
    let name = "first copy between two daemons on this machine, MB/s";
    table.row(vec![name.to_owned(), nothing(), figures(&series(FIRST_COPY, OURS, RATE)), nothing()]);
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
