//! What goes through a link, how it ends, and what it tells of itself.

use migrated::link::Label;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::ends::{Pair, acquainted, channel, pair, soon, wired};
use super::wire::{Wire, drain, pour};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_go_both_ways_and_ends_are_told() {
    let pair = pair().await;
    assert_eq!((pair.near.peer(), pair.far.peer()), ("far", "near"));
    let (mut near, mut far) = channel(&pair, Label::Control).await;
    near.write_all(b"question").await.unwrap();
    near.shutdown().await.unwrap();
    let mut heard = String::new();
    soon(far.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "question");
    far.write_all(b"answer").await.unwrap();
    far.shutdown().await.unwrap();
    heard.clear();
    soon(near.read_to_string(&mut heard)).await.unwrap();
    assert_eq!(heard, "answer");
    assert!(soon(pair.near.ping()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_orderly_end_delivers_everything_first_and_tells_the_other_side() {
    let Pair { near, far, _listener, _hosts } = pair().await;
    let out = near.open(Label::Ram(0)).await.unwrap();
    let (_, incoming) = soon(far.accept()).await.unwrap();
    let poured = tokio::spawn(pour(out, 3 << 20));
    let drained = tokio::spawn(drain(incoming, watch::channel(0).0));
    soon(poured).await.unwrap();
    near.close().await;
    assert_eq!(soon(drained).await.unwrap(), 3 << 20);
    assert!(soon(far.closed()).await.to_string().contains("it is done"));
    assert!(soon(far.accept()).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_channel_is_broken_off_at_the_other_side() {
    let pair = pair().await;
    let (near, mut far) = channel(&pair, Label::Disk(3)).await;
    drop(near);
    let error = soon(far.read(&mut [0; 8])).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(soon(pair.near.ping()).await.is_ok(), "the link goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_congestion_control_is_read_back_and_its_lack_is_told() {
    let pair = pair().await;
    let status = pair.near.status();
    assert!(status.up && !status.congestion_control.is_empty());
    assert_eq!(status.congestion_control != "bbr", !pair.near.warnings().is_empty());
}

/// S3-24: there is no link that is not encrypted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_carries_a_link_cannot_read_what_goes_through_it() {
    const TOTAL: u64 = 2 << 20;
    let wired = wired(acquainted()).await;
    let poured = tokio::spawn(pour(wired.near.open(Label::Disk(0)).await.unwrap(), TOTAL));
    let (_, incoming) = soon(wired.far.accept()).await.unwrap();
    assert_eq!(soon(drain(incoming, watch::channel(0).0)).await, TOTAL);
    soon(poured).await.unwrap();
    assert!(wired.wire.connections() >= 2 && !wired.wire.has_overheard());

    // It would have noticed.
    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let wire = Wire::new(plain.local_addr().unwrap()).await;
    let mut speaker = TcpStream::connect(wire.address).await.unwrap();
    let (mut hearer, _) = soon(plain.accept()).await.unwrap();
    let said: Vec<u8> = (0..=250).collect();
    speaker.write_all(&said).await.unwrap();
    soon(hearer.read_exact(&mut [0; 251])).await.unwrap();
    assert!(wire.has_overheard());
}
