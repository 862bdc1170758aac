//! The memory's stream through a link: what its gate holds back, and what it never does.

use blockd::replica::encoding::Compression;
use migrated::io::ram::{RamOut, receive};
use migrated::link::Label;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::ends::{Pair, channel, pair, soon};

/// What stands for the two QEMUs, with a stream between them.
struct Stream {
    source: UnixStream,
    out: RamOut,
    destination: UnixStream,
    _pair: Pair,
}

async fn stream() -> Stream {
    let pair = pair().await;
    let (near, far) = channel(&pair, Label::Ram(0)).await;
    let (source, from) = UnixStream::pair().unwrap();
    let (destination, to) = UnixStream::pair().unwrap();
    let out = RamOut::start(from, near, pair.near.clone(), Compression::Auto);
    tokio::spawn(receive(far, to));
    Stream { source, out, destination, _pair: pair }
}

async fn arrives(stream: &mut Stream, bytes: &[u8]) {
    let mut read = vec![0; bytes.len()];
    soon(stream.destination.read_exact(&mut read)).await.unwrap();
    assert_eq!(read, bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shut_gate_holds_memory_back_until_it_is_open() {
    let mut stream = stream().await;
    stream.source.write_all(b"first pass").await.unwrap();
    arrives(&mut stream, b"first pass").await;
    stream.out.set_open(false);
    stream.source.write_all(b"second pass").await.unwrap();
    let before = stream.out.bytes();
    // What is not read is not counted; a round trip over the link later it still is not.
    assert!(soon(stream._pair.near.ping()).await.is_ok());
    assert_eq!(stream.out.bytes(), before);
    stream.out.set_open(true);
    arrives(&mut stream, b"second pass").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_pause_on_nothing_shuts_the_gate() {
    let mut stream = stream().await;
    stream.out.set_open(false);
    stream.source.write_all(b"what was left at the pause").await.unwrap();
    stream.out.open_for_good();
    arrives(&mut stream, b"what was left at the pause").await;
    // A sample that began before the pause and judges after it.
    stream.out.set_open(false);
    stream.source.write_all(b"the last pass").await.unwrap();
    arrives(&mut stream, b"the last pass").await;
    stream.out.set_open(true);
    stream.out.set_open(false);
    stream.source.write_all(b"the devices").await.unwrap();
    stream.source.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let mut destination = stream.destination;
    soon(destination.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"the devices");
}
