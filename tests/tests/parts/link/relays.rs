//! Memory and disks over a link, from socket to socket.

use blockd::replica::encoding::Compression;
use migrated::io::link::copy_both;
use migrated::io::ram::{RamOut, receive};
use migrated::link::Label;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::ends::{channel, pair, soon};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_goes_through_compressed_flushed_and_with_its_way_back() {
    let pair = pair().await;
    let (near, far) = channel(&pair, Label::Ram(0)).await;
    let (mut source, source_end) = UnixStream::pair().unwrap();
    let (mut destination, destination_end) = UnixStream::pair().unwrap();
    let out = RamOut::start(source_end, near, pair.near.clone(), Compression::Auto);
    let arriving = tokio::spawn(receive(far, destination_end));
    // Less than any buffer, and it is there although more may come: nothing sticks in the compressor.
    source.write_all(b"QEVM").await.unwrap();
    let mut heard = vec![0; 4];
    soon(destination.read_exact(&mut heard)).await.unwrap();
    assert_eq!(heard, b"QEVM");
    destination.write_all(b"ack").await.unwrap();
    soon(source.read_exact(&mut heard[..3])).await.unwrap();
    assert_eq!(&heard[..3], b"ack");
    let memory = vec![42; 20 << 20];
    let expected = memory.len();
    let (mut source_reader, mut source_writer) = source.into_split();
    let writing = tokio::spawn(async move {
        source_writer.write_all(&memory).await.unwrap();
        source_writer.shutdown().await.unwrap();
    });
    let mut arrived = Vec::new();
    soon(destination.read_to_end(&mut arrived)).await.unwrap();
    assert!(arrived.len() == expected && arrived.iter().all(|byte| *byte == 42));
    soon(writing).await.unwrap();
    destination.shutdown().await.unwrap();
    assert_eq!(soon(source_reader.read(&mut [0; 1])).await.unwrap(), 0, "the way back ends too");
    soon(arriving).await.unwrap().unwrap();
    let (raw_bytes, sent_bytes) = out.bytes();
    assert_eq!(raw_bytes, expected as u64 + 4);
    assert!(sent_bytes * 100 < raw_bytes, "{sent_bytes} of {raw_bytes}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_closed_gate_lets_nothing_of_the_memory_through() {
    let pair = pair().await;
    let (near, far) = channel(&pair, Label::Ram(0)).await;
    let (mut source, source_end) = UnixStream::pair().unwrap();
    let (mut destination, destination_end) = UnixStream::pair().unwrap();
    let out = RamOut::start(source_end, near, pair.near.clone(), Compression::Auto);
    let _arriving = tokio::spawn(receive(far, destination_end));
    source.write_all(b"before").await.unwrap();
    let mut heard = [0; 6];
    soon(destination.read_exact(&mut heard)).await.unwrap();
    out.set_open(false);
    source.write_all(b"behind").await.unwrap();
    // A round trip of the link: what had gone through would be here.
    soon(pair.near.ping()).await.unwrap();
    assert_eq!(out.bytes().0, 6);
    out.set_open(true);
    soon(destination.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"behind");
    out.stop();
    assert!(soon(source.read(&mut heard)).await.is_ok_and(|count| count == 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disks_stream_is_carried_both_ways_and_its_end_with_it() {
    let pair = pair().await;
    let (near, far) = channel(&pair, Label::Disk(0)).await;
    let (mut source, source_end) = UnixStream::pair().unwrap();
    let (mut destination, destination_end) = UnixStream::pair().unwrap();
    let near_relay = tokio::spawn(copy_both(source_end, near));
    let far_relay = tokio::spawn(copy_both(destination_end, far));
    source.write_all(b"batch").await.unwrap();
    source.shutdown().await.unwrap();
    let mut heard = String::new();
    soon(destination.read_to_string(&mut heard)).await.unwrap();
    destination.write_all(b"ack").await.unwrap();
    drop(destination);
    heard.clear();
    soon(source.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "ack");
    assert_eq!(soon(near_relay).await.unwrap().unwrap(), (5, 3));
    assert_eq!(soon(far_relay).await.unwrap().unwrap(), (3, 5));
}
