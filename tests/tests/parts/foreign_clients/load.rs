//! Load: `fio` with verification, and the legacy path by the `nbd` crate's client.

use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::net::UnixStream;

use nbd::client::{NbdClient, handshake};
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::scratch::Noise;

use super::{MIB, PLANES};

#[test]
fn fio_reads_back_every_block_of_a_random_load() {
    let lab = require!(Lab::with(&["fio"]));
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 64 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).start();
        Tool::new("fio")
            .current_dir(lab.scratch.path())
            .args(["--name=verify", "--ioengine=nbd", "--rw=randrw", "--rwmixread=30", "--iodepth=16"])
            .args(["--bssplit=512/5:4k/50:20k/20:64k/20:512k/5", "--size=64m", "--randseed=42"])
            .args(["--verify=crc32c", "--verify_fatal=1", "--verify_backlog=256", "--fsync=64"])
            .arg(format!("--uri={}", disk.uri()))
            .run();
    }
}

#[test]
fn the_nbd_crates_client_reads_and_writes_by_the_legacy_path() {
    let lab = require!(Lab::with(&[]));
    for plane in PLANES {
        let image = lab.scratch.sparse(&format!("{plane}.image"), 2 * MIB);
        let disk = lab.serve(plane, &image).plane(plane).export("root").start();
        // EXPORT_NAME, without NO_ZEROES, simple replies.
        let mut stream = UnixStream::connect(disk.nbd()).expect("connect");
        let export = handshake(&mut stream, b"root").expect("legacy handshake");
        assert_eq!((export.size, export.readonly, export.send_flush), (2 * MIB, false, true));
        let mut client = NbdClient::new(stream, &export);
        let mut block = vec![0; 64 << 10];
        Noise::new(12).fill(&mut block);
        client.seek(SeekFrom::Start(MIB)).expect("seek");
        client.write_all(&block).expect("write");
        client.flush().expect("flush");
        client.seek(SeekFrom::Start(MIB - 4096)).expect("seek");
        let mut back = vec![1; 4096 + block.len()];
        client.read_exact(&mut back).expect("read");
        assert_eq!((&back[..4096], &back[4096..]), (&[0; 4096][..], &block[..]));
    }
}

#[test]
fn the_legacy_path_closes_the_connection_on_a_name_that_it_does_not_have() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.sparse("image", MIB);
    let mut disk = lab.serve("disk", &image).export("root").start();
    let stream = UnixStream::connect(disk.nbd()).expect("connect");
    handshake(stream, b"boot").expect_err("there is no such export");
    disk.assert_alive();
}
