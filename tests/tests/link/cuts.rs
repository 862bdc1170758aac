//! Connections that are cut: a stall while the link may resume, an end that both sides know where it may not.

use std::time::Duration;

use migrated::io::keys::Peer;
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use tokio::io::AsyncReadExt;
use tokio::sync::watch;

use crate::ends::{Host, soon};
use crate::wire::{Wire, drain, pour};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_of_both_connections_are_a_stall_and_no_error() {
    const TOTAL: u64 = 40 << 20;
    let [near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    let peer = Peer { address: wire.address, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let poured = tokio::spawn(pour(near_link.open(Label::Disk(0)).await.unwrap(), TOTAL));
    let (_, incoming) = soon(far_link.accept()).await.unwrap();
    let (progress, mut seen) = watch::channel(0);
    let drained = tokio::spawn(drain(incoming, progress));
    for cut in 1..=4 {
        soon(seen.wait_for(|bytes| *bytes > cut * TOTAL / 5)).await.unwrap();
        wire.cut();
    }
    assert_eq!(soon(drained).await.unwrap(), TOTAL);
    soon(poured).await.unwrap();
    assert!(near_link.status().sent_bytes > TOTAL);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_may_not_resume_ends_with_its_connection_and_both_sides_know() {
    let [mut near, mut far] = [Host::new("near"), Host::new("far")];
    near.config.resume_for = Duration::ZERO;
    far.config.resume_for = Duration::ZERO;
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    let peer = Peer { address: wire.address, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let mut channel = near_link.open(Label::Control).await.unwrap();
    wire.cut();
    assert!(soon(near_link.closed()).await.to_string().contains("connection to far is gone"));
    assert!(soon(far_link.closed()).await.to_string().contains("connection to near is gone"));
    assert!(soon(channel.read(&mut [0; 1])).await.is_err());
    assert!(near_link.open(Label::Control).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_restarted_does_not_know_the_link_any_more() {
    let [near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    let peer = Peer { address: wire.address, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    // The far side's link is over without a word, as after a kill.
    wire.stall(true);
    drop(far_link);
    wire.cut();
    wire.stall(false);
    let why = soon(near_link.closed()).await.to_string();
    assert!(why.contains("no such link") || why.contains("users let go"), "{why}");
}
