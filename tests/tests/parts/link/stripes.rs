//! The data lane over several connections, where bbr is not to be had: one stream all the same, and one fate.

use migrated::io::keys::Peer;
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::ends::{Host, acquainted, cut_while_it_flows, soon, wired};
use super::wire::{Wire, drain, pour};

/// A dialler that wants another congestion control than bbr, which every kernel has; and who listens to it.
fn hosts(stripes: u16) -> [Host; 2] {
    let [mut near, far] = acquainted();
    near.config.congestion_control = "reno".to_owned();
    near.config.stripes = stripes;
    [near, far]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_arrive_in_order_over_several_connections_and_status_says_how_many() {
    let wired = wired(hosts(5)).await;
    let (near_link, far_link) = (&wired.near, &wired.far);
    assert_eq!(near_link.status().congestion_control, "5 × reno");
    assert!(near_link.warnings().is_empty(), "it is as it was asked for: {:?}", near_link.warnings());
    assert_eq!(wired.wire.connections(), 6, "and one for control");
    let mut streams = Vec::new();
    for (index, total) in [(0, 30 << 20), (1, 3 << 20), (2, 12_345)] {
        let poured = tokio::spawn(pour(near_link.open(Label::Disk(index)).await.unwrap(), total));
        let (_, incoming) = soon(far_link.accept()).await.unwrap();
        // And back.
        let returned = tokio::spawn(pour(far_link.open(Label::Ram(index)).await.unwrap(), total));
        let (_, back) = soon(near_link.accept()).await.unwrap();
        streams.push((total, tokio::spawn(drain(incoming, watch::channel(0).0)), poured));
        streams.push((total, tokio::spawn(drain(back, watch::channel(0).0)), returned));
    }
    for (total, drained, poured) in streams {
        assert_eq!(soon(drained).await.unwrap(), total);
        soon(poured).await.unwrap();
    }
    wired.near.close().await;
    assert!(soon(wired.far.closed()).await.to_string().contains("it is done"));
}

/// Several connections are cut in one way or the other, four times.
async fn cut_several(cut: impl Fn(&Wire)) {
    let connections = cut_while_it_flows(hosts(4), cut).await.wire.connections();
    assert!(connections > 5, "it was cut: {connections}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_one_of_several_connections_is_a_stall() {
    cut_several(Wire::cut_one).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_of_all_of_several_connections_is_a_stall() {
    cut_several(Wire::cut).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_alone_is_what_it_was() {
    let [near, far] = hosts(1);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let near_link = soon(Link::dial(&near.config, &far.seen_at(&listener))).await.unwrap();
    assert_eq!(near_link.status().congestion_control, "reno");
    soon(listener.accept()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_to_be_had_is_told_once_and_made_up_for_by_several_connections() {
    let [mut near, far] = hosts(3);
    near.config.congestion_control = "nonesuch".to_owned();
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let near_link = soon(Link::dial(&near.config, &far.seen_at(&listener))).await.unwrap();
    let of_the_kernel = near_link.status().congestion_control;
    let stripes = if of_the_kernel == "bbr" { 1 } else { 3 };
    let [warning] = &near_link.warnings()[..] else { panic!("{:?}", near_link.warnings()) };
    assert!(
        warning.contains("nonesuch is not to be had") && warning.contains(&stripes.to_string()),
        "{warning}"
    );
    soon(listener.accept()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_connections_go_to_the_data_address_only() {
    let [near, mut far] = hosts(3);
    far.config.data = vec!["127.0.0.2:0".parse().unwrap()];
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::new(listener.data_addresses()[0]).await;
    let peer = Peer { data_addresses: vec![wire.address], ..far.seen_at(&listener) };
    let _near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    soon(listener.accept()).await;
    assert_eq!(wire.connections(), 3);
    // The port is still good for others.
    assert!(TcpStream::connect(wire.address).await.is_ok());
}
