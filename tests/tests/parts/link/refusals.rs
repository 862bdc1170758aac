//! Whoever is not welcome is told so in words, and starts nothing.

use std::time::Duration;

use migrated::io::keys::{Keys, Peer};
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use migrated::link::error::LinkError;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::ends::{Host, acquainted, nothing_started, refused, soon, wired};
use super::wire::Wire;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_is_not_paired_is_refused_in_words() {
    let [stranger, listening] = [Host::new("stranger"), Host::new("far")];
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let refused = soon(Link::dial(&stranger.config, &listening.seen_at(&listener))).await.err().unwrap();
    assert!(matches!(refused, LinkError::NotPaired(_)), "{refused}");
    assert!(refused.to_string().contains("does not know stranger"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_keys_are_refused_in_words_in_both_directions() {
    let [near, far, other] = [Host::new("near"), Host::new("far"), Host::new("other")];
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    // The dialler expects another key of the listener.
    let imposter = Peer { key: *other.config.keys.spki(), ..far.seen_at(&listener) };
    let error = refused(&near, &listener, &imposter).await;
    assert!(matches!(error, LinkError::WrongKey(_)), "{error}");
    // The listener knows the dialler's name with another key.
    let mut changed = Host::new("near");
    changed.config.keys = Keys::generate();
    let error = refused(&changed, &listener, &far.seen_at(&listener)).await;
    assert!(matches!(error, LinkError::WrongKey(_)), "{error}");
    assert!(error.to_string().contains("far knows near by the key"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_version_is_refused_with_both_ranges() {
    let [mut near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    near.config.versions = (7, 9);
    let error = refused(&near, &listener, &far.seen_at(&listener)).await;
    assert!(matches!(error, LinkError::Version(_)), "{error}");
    assert!(error.to_string().contains("far speaks versions 1 to 1") && error.to_string().contains("7 to 9"));
    // A newer build that still speaks ours is welcome.
    near.config.versions = (1, 9);
    let peer = far.seen_at(&listener);
    let link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    assert_eq!(soon(listener.accept()).await.peer(), "near");
    drop(link);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_and_garbage_out_is_refused_and_starts_nothing() {
    let [near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let mut junk = TcpStream::connect(listener.address()).await.unwrap();
    junk.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    // The end, or a reset: either way it was thrown out.
    let _ = soon(junk.read_to_end(&mut answer)).await;
    assert!(answer.len() < 100);
    nothing_started(&listener).await;
    // Somebody else's server.
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    let serve = tokio::spawn(async move {
        let (mut stream, _) = server.accept().await.unwrap();
        stream.write_all(b"220 mail.example.org ESMTP\r\n").await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let peer = Peer { address, ..far.seen_at(&listener) };
    let error = soon(Link::dial(&near.config, &peer)).await.err().unwrap();
    assert!(matches!(error, LinkError::Garbage(_)), "{error}");
    serve.abort();
    // Nobody at all.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let peer = Peer { address: free, ..peer };
    let error = soon(Link::dial(&near.config, &peer)).await.err().unwrap();
    assert!(matches!(error, LinkError::Unreachable(_)), "{error}");
}

/// S0-27: by the silence of its control connection, whatever the data connection may still wait for.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_falls_silent_while_a_link_is_made_is_not_waited_for() {
    let [mut near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    far.config.data = vec!["127.0.0.2:0".parse().unwrap()];
    near.config.hello_within = Duration::from_secs(3600);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let peer = far.seen_at(&listener);
    let [control, data] = [Wire::new(peer.address).await, Wire::new(peer.data_addresses[0]).await];
    data.stall(true);
    let peer = Peer { address: control.address, data_addresses: vec![data.address], ..peer };
    let dialled = tokio::spawn(async move { Link::dial(&near.config, &peer).await });
    // Its control connection stands by now.
    soon(data.has_taken(1)).await;
    control.stall(true);
    let error = soon(dialled).await.unwrap().err().unwrap();
    assert!(matches!(error, LinkError::Unreachable(_)), "{error}");
    assert!(error.to_string().contains("far has fallen silent"), "{error}");
    nothing_started(&listener).await;
}

/// S0-27: one that takes the connection and says nothing, as one does whose packets are dropped later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_says_nothing_is_given_up_after_its_time() {
    let [mut near, far] = [Host::new("near"), Host::new("far")];
    near.config.hello_within = Duration::from_millis(200);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = Peer {
        name: "far".to_owned(),
        address: silent.local_addr().unwrap(),
        data_addresses: Vec::new(),
        key: *far.config.keys.spki(),
    };
    let error = soon(Link::dial(&near.config, &peer)).await.err().unwrap();
    assert!(matches!(error, LinkError::TimedOut(_)), "{error}");
    assert!(error.to_string().contains("does not answer within 0.2 s"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_say_who_he_is_is_dropped_and_not_many_wait_at_a_time() {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    far.config.hello_within = Duration::from_millis(300);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let mut silent = Vec::new();
    for _ in 0..80 {
        silent.push(TcpStream::connect(listener.address()).await.unwrap());
    }
    for mut stream in silent {
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    let link = soon(Link::dial(&near.config, &far.seen_at(&listener))).await;
    assert!(link.is_ok(), "{:?}", link.err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_data_address_takes_data_connections_only_and_all_of_them() {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    far.config.data = vec!["127.0.0.2:0".parse().unwrap()];
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let peer = far.seen_at(&listener);
    let swapped = Peer { address: peer.data_addresses[0], ..peer.clone() };
    let error = refused(&near, &listener, &swapped).await;
    assert!(error.to_string().contains("takes data connections only"), "{error}");
    // All bulk goes over the data connection: cut it, and nothing but the control channel moves.
    let wire = Wire::new(peer.data_addresses[0]).await;
    let peer = Peer { data_addresses: vec![wire.address], ..peer };
    let near_link = soon(Link::dial(&near.config, &peer)).await.unwrap();
    let far_link = soon(listener.accept()).await;
    let mut bulk = near_link.open(Label::Disk(0)).await.unwrap();
    let (_, mut bulk_far) = soon(far_link.accept()).await.unwrap();
    wire.stall(true);
    let mut control = near_link.open(Label::Control).await.unwrap();
    let (label, mut control_far) = soon(far_link.accept()).await.unwrap();
    assert_eq!(label, Label::Control);
    bulk.write_all(b"bulk").await.unwrap();
    control.write_all(b"still here").await.unwrap();
    let mut heard = [0; 10];
    soon(control_far.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"still here");
    assert!(soon(near_link.ping()).await.is_ok());
    assert_eq!(bulk_far.stats().received_bytes, 0);
    wire.stall(false);
    soon(bulk_far.read_exact(&mut heard[..4])).await.unwrap();
    assert_eq!(&heard[..4], b"bulk");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_of_strangers_keep_no_paired_host_out_nor_do_those_of_its_own_address() {
    let [near, mut far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    // Nobody is dropped because of the time.
    far.config.hello_within = Duration::from_secs(3600);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    for from in ["127.0.0.9:0", "127.0.0.1:0"] {
        let mut silent = Vec::new();
        for _ in 0..80 {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind(from.parse().unwrap()).unwrap();
            silent.push(socket.connect(listener.address()).await.unwrap());
        }
        let link = soon(Link::dial(&near.config, &far.seen_at(&listener))).await;
        assert!(link.is_ok(), "{from}: {:?}", link.err());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_makes_links_without_end_keeps_no_other_host_out() {
    let [evil, good, far] = [Host::new("evil"), Host::new("good"), Host::new("far")];
    far.knows(&evil);
    far.knows(&good);
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let peer = far.seen_at(&listener);
    let (mut links, mut refusals) = (Vec::new(), 0);
    for _ in 0..70 {
        match soon(Link::dial(&evil.config, &peer)).await {
            Ok(link) => links.push(link),
            Err(error) => {
                assert!(error.to_string().contains("too many links of this host"), "{error}");
                refusals += 1;
            }
        }
    }
    assert!(refusals > 0 && !links.is_empty());
    assert!(soon(Link::dial(&good.config, &peer)).await.is_ok());
    // Unpaired, it is out at once, with all of its links.
    assert_eq!(far.config.register.end_all_of(evil.config.keys.spki(), "unpaired"), links.len());
    for link in links {
        soon(link.closed()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_of_which_nobody_has_promised_anything_dies_soon_without_connections() {
    let wired = wired(acquainted()).await;
    wired.far.set_patience(Duration::from_millis(50));
    wired.wire.stall(true);
    wired.wire.cut();
    let error = soon(wired.far.closed()).await;
    assert!(error.to_string().contains("no connection to near"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_host_says_of_a_refusal_forges_no_line_and_moves_no_cursor() {
    let [mut stranger, listening] = [Host::new("stranger"), Host::new("far")];
    stranger.config.name = "x\n2026-12-01 INFO paired\u{1b}[2J".to_owned();
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let error = refused(&stranger, &listener, &listening.seen_at(&listener)).await.to_string();
    assert!(error.contains("does not know x\u{fffd}2026"), "{error}");
    assert!(!error.contains(char::is_control), "{error}");
}
