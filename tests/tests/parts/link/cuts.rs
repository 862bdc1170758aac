//! Connections that are cut: a stall while the link may resume, an end that both sides know where it may not.

use std::time::Duration;

use migrated::link::Label;
use tokio::io::AsyncReadExt;

use super::ends::{CUT_BYTES, acquainted, cut_while_it_flows, soon, wired};
use super::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cuts_of_both_connections_are_a_stall_and_no_error() {
    let wired = cut_while_it_flows(acquainted(), Wire::cut).await;
    assert!(wired.near.status().sent_bytes > CUT_BYTES);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_may_not_resume_ends_with_its_connection_and_both_sides_know() {
    let mut hosts = acquainted();
    hosts.iter_mut().for_each(|host| host.config.resume_for = Duration::ZERO);
    let wired = wired(hosts).await;
    let mut channel = wired.near.open(Label::Control).await.unwrap();
    wired.wire.cut();
    assert!(soon(wired.near.closed()).await.to_string().contains("connection to far is gone"));
    assert!(soon(wired.far.closed()).await.to_string().contains("connection to near is gone"));
    assert!(soon(channel.read(&mut [0; 1])).await.is_err());
    assert!(wired.near.open(Label::Control).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_was_restarted_does_not_know_the_link_any_more() {
    let wired = wired(acquainted()).await;
    // The far side's link is over without a word, as after a kill.
    wired.wire.stall(true);
    drop(wired.far);
    wired.wire.cut();
    wired.wire.stall(false);
    let why = soon(wired.near.closed()).await.to_string();
    assert!(why.contains("no such link") || why.contains("users let go"), "{why}");
}
