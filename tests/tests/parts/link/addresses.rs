//! A link with several addresses: the best one is found, a dead one is left, and either side brings a lost lane back.

use migrated::io::keys::Peer;
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use tests::wait::wait_for;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

use super::ends::{Host, PATIENCE, soon};
use super::wire::{Wire, drain, pour};

const TOTAL: u64 = 24 << 20;

/// A host that listens for control at one address of this machine and for data at another.
async fn apart() -> (Host, Host, LinkListener) {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    far.config.data = vec!["127.0.0.2:0".parse().unwrap()];
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    (near, far, listener)
}

/// What is written is read at the other side.
async fn exchange(near: &Link, far: &Link, label: Label) {
    let mut out = near.open(label).await.unwrap();
    let (told, mut back) = soon(far.accept()).await.unwrap();
    assert_eq!(told, label);
    out.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon(back.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
}

/// S0-04.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lane_whose_way_is_dead_takes_the_other_lanes_way_and_says_so() {
    let (near, far, listener) = apart().await;
    let control = Wire::at("127.0.0.3", listener.address()).await;
    let data = Wire::at("127.0.0.4", listener.data_addresses()[0]).await;
    let (control_at, data_at) = (control.address, data.address);
    let peer = Peer { address: control_at, data_addresses: vec![data_at], ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    assert_eq!(near_link.status().data_address, data_at.to_string());
    let poured = tokio::spawn(pour(near_link.open(Label::Disk(0)).await.unwrap(), TOTAL));
    let (_, incoming) = soon(far_link.accept()).await.unwrap();
    let (progress, mut seen) = watch::channel(0);
    let drained = tokio::spawn(drain(incoming, progress));
    soon(seen.wait_for(|bytes| *bytes > TOTAL / 4)).await.unwrap();
    drop(data);
    assert_eq!(soon(drained).await.unwrap(), TOTAL);
    soon(poured).await.unwrap();
    assert_eq!(near_link.status().data_address, control_at.to_string());
    let said = near_link.news();
    let expected = format!("link: {data_at} is out of reach, data goes over {control_at}");
    assert!(said.iter().any(|news| news.is_warning && news.text == expected), "{said:?}");
}

/// S0-04, S1-10: nothing begins at a data address, but what has begun may go on there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_goes_on_over_the_data_address_when_its_own_is_dead() {
    let (near, far, listener) = apart().await;
    let control = Wire::at("127.0.0.3", listener.address()).await;
    let control_at = control.address;
    let peer = Peer { address: control_at, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    drop(control);
    exchange(&near_link, &far_link, Label::Control).await;
    assert_eq!(near_link.status().control_address, listener.data_addresses()[0].to_string());
    assert!(soon(near_link.ping()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_data_address_that_is_dead_at_the_beginning_is_done_without_and_named() {
    let (near, far, listener) = apart().await;
    let dead = Wire::at("127.0.0.4", listener.data_addresses()[0]).await.address;
    let peer = Peer { data_addresses: vec![dead], ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let [warning] = &near_link.warnings()[..] else { panic!("{:?}", near_link.warnings()) };
    assert!(warning.contains("disks and memory go to") && warning.contains(&dead.to_string()), "{warning}");
    exchange(&near_link, &far_link, Label::Disk(0)).await;
}

/// S1-12.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_addresses_are_probed_and_one_that_does_not_answer_is_not_taken() {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    far.config.data = vec!["127.0.0.2:0".parse().unwrap(), "127.0.0.5:0".parse().unwrap()];
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let [first, second] = listener.data_addresses() else { panic!("{:?}", listener.data_addresses()) };
    let silent = Wire::at("127.0.0.4", *first).await;
    silent.stall(true);
    let peer = Peer { data_addresses: vec![silent.address, *second], ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    soon(listener.accept()).await;
    assert_eq!(near_link.status().data_address, second.to_string());
    let found = near_link.found();
    assert_eq!(found.iter().map(|found| found.address).collect::<Vec<_>>(), [*second, silent.address]);
    assert!(found[0].rate.is_ok() && found[1].rate.is_err(), "{found:?}");
    let said = near_link.news();
    let is_choice = |text: &str| text.contains(&format!("of its data addresses {second} is taken"));
    assert!(said.iter().any(|news| !news.is_warning && is_choice(&news.text)), "{said:?}");
}

/// A dialler that is in reach itself, and a link over a wire that then is gone: only the listener can bring it back.
async fn brought_back_by_the_listener(change: impl FnOnce(&mut Host)) {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    change(&mut far);
    let own = LinkListener::bind(near.config.clone()).await.unwrap();
    far.config.peers.put(near.seen_at(&own)).unwrap();
    near.knows(&far);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::at("127.0.0.3", listener.address()).await;
    let peer = Peer { address: wire.address, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let mut streams = Vec::new();
    let (progress, mut seen) = watch::channel(0);
    for (from, to) in [(&near_link, &far_link), (&far_link, &near_link)] {
        let poured = tokio::spawn(pour(from.open(Label::Disk(0)).await.unwrap(), TOTAL));
        let (_, incoming) = soon(to.accept()).await.unwrap();
        streams.push((tokio::spawn(drain(incoming, progress.clone())), poured));
    }
    soon(seen.wait_for(|bytes| *bytes > TOTAL / 4)).await.unwrap();
    drop(wire);
    for (drained, poured) in streams {
        assert_eq!(soon(drained).await.unwrap(), TOTAL);
        soon(poured).await.unwrap();
    }
    exchange(&near_link, &far_link, Label::Control).await;
    assert!(near_link.status().data_address.ends_with("(dialled from there)"), "{:?}", near_link.status());
    near_link.close().await;
    assert!(soon(far_link.closed()).await.to_string().contains("it is done"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_be_reached_any_more_dials_its_dialler() {
    brought_back_by_the_listener(|_| ()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_dials_with_several_connections_where_it_has_no_bbr() {
    let stripes = |far: &mut Host| {
        far.config.congestion_control = "reno".to_owned();
        far.config.stripes = 4;
    };
    brought_back_by_the_listener(stripes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_is_refused_a_link_that_a_program_carries() {
    let program = tests::require!(tests::binaries::migrated()).display().to_string();
    let [mut near, far] = [Host::new("near"), Host::new("far")];
    let own = LinkListener::bind(near.config.clone()).await.unwrap();
    let way_back = Wire::new(own.address()).await;
    far.config.peers.put(Peer { address: way_back.address, ..near.seen_at(&own) }).unwrap();
    near.knows(&far);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let wire = Wire::at("127.0.0.3", listener.address()).await;
    let to = wire.address.to_string();
    let words = [&program, "link-stdio", "--to", &to].map(str::to_owned).to_vec();
    near.config.transport = Some(migrated::transport::Transport::Exec(words));
    let near_link = soon(Link::dial(&near.config, &far.seen_at(&listener))).await.unwrap();
    let _far_link = soon(listener.accept()).await;
    drop(wire);
    wait_for(PATIENCE, "the listener to dial", || (way_back.connections() > 2).then_some(()));
    let status = near_link.status();
    assert!(!status.up && near_link.over().is_none(), "{status:?}");
}

/// A link is the peer's whose key it has: not even another peer that is paired gets at it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_host_at_the_old_address_is_told_from_the_peer_and_the_link_waits() {
    let [near, far, other] = [Host::new("near"), Host::new("far"), Host::new("other")];
    far.knows(&near);
    other.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let others = LinkListener::bind(other.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    let peer = Peer { address: wire.address, ..far.seen_at(&listener) };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let before = wire.connections();
    wire.lead_to(others.address());
    wire.cut();
    wait_for(PATIENCE, "dials there", || (wire.connections() > before + 3).then_some(()));
    assert_eq!(near_link.over(), None);
    wire.lead_to(listener.address());
    exchange(&near_link, &far_link, Label::Disk(0)).await;
}
