//! The link over real sockets on loopback: what goes through, and everything that is refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use migrated::io::keys::{Keys, Peer, PeerStore};
use migrated::io::link::{Channel, Link, LinkConfig, LinkListener, copy_both};
use migrated::io::ram::{RamOut, receive};
use migrated::link::Label;
use migrated::link::error::LinkError;
use migrated::link::token::Token;
use tests::scratch::Scratch;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

/// Long enough for a loaded machine; what is right takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A host of a test: its directory and its configuration.
struct Host {
    config: LinkConfig,
    _scratch: Scratch,
}

impl Host {
    fn new(name: &str) -> Self {
        let scratch = Scratch::new();
        let state_dir = scratch.path();
        let config = LinkConfig {
            name: name.to_owned(),
            keys: Keys::load(state_dir).expect("a key is made"),
            peers: PeerStore::load(state_dir).expect("no peers yet"),
            control: "127.0.0.1:0".parse().unwrap(),
            data: None,
            bandwidth_bytes_per_s: None,
            versions: (1, 1),
            hello_within: Duration::from_secs(20),
            resume_for: Duration::from_secs(60),
        };
        Self { config, _scratch: scratch }
    }

    /// As another host knows it.
    fn seen_at(&self, listener: &LinkListener) -> Peer {
        Peer {
            name: self.config.name.clone(),
            address: listener.address(),
            data_address: listener.data_address(),
            key: *self.config.keys.spki(),
        }
    }

    /// Lets a dialler in.
    fn knows(&self, other: &Host) {
        let address = "127.0.0.1:1".parse().unwrap();
        let (name, key) = (other.config.name.clone(), *other.config.keys.spki());
        self.config.peers.put(Peer { name, address, data_address: None, key }).expect("it is stored");
    }
}

/// Two hosts and a link between them.
struct Pair {
    near: Link,
    far: Link,
    _listener: LinkListener,
    _hosts: [Host; 2],
}

async fn pair() -> Pair {
    let [dialler, listening] = [Host::new("near"), Host::new("far")];
    listening.knows(&dialler);
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let peer = listening.seen_at(&listener);
    let near = soon(Link::dial(&dialler.config, &peer)).await.unwrap();
    let far = soon(listener.accept()).await;
    Pair { near, far, _listener: listener, _hosts: [dialler, listening] }
}

async fn channel(pair: &Pair, label: Label) -> (Channel, Channel) {
    let near = pair.near.open(label).await.unwrap();
    let (told, far) = soon(pair.far.accept()).await.unwrap();
    assert_eq!(told, label);
    (near, far)
}

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
async fn a_host_that_is_not_paired_is_refused_in_words() {
    let [stranger, listening] = [Host::new("stranger"), Host::new("far")];
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let refused = soon(Link::dial(&stranger.config, &listening.seen_at(&listener))).await.err().unwrap();
    assert!(matches!(refused, LinkError::NotPaired(_)), "{refused}");
    assert!(refused.to_string().contains("does not know stranger"), "{refused}");
}

/// Dials a listener that must refuse; what the dialler is told.
async fn refused(dialler: &Host, listener: &LinkListener, peer: &Peer) -> LinkError {
    let error = soon(Link::dial(&dialler.config, peer)).await.err().expect("it must be refused");
    nothing_started(listener).await;
    error
}

/// No link was handed out.
async fn nothing_started(listener: &LinkListener) {
    let mut accept = std::pin::pin!(listener.accept());
    let none = std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx).is_pending())).await;
    assert!(none, "a link was handed out");
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
    far.config.data = Some("127.0.0.2:0".parse().unwrap());
    let listener = LinkListener::bind(far.config.clone()).await.unwrap();
    let peer = far.seen_at(&listener);
    let swapped = Peer { address: peer.data_address.unwrap(), ..peer.clone() };
    let error = refused(&near, &listener, &swapped).await;
    assert!(error.to_string().contains("takes data connections only"), "{error}");
    // All bulk goes over the data connection: cut it, and nothing but the control channel moves.
    let wire = Wire::new(peer.data_address.unwrap()).await;
    let peer = Peer { data_address: Some(wire.address), ..peer };
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

/// A TCP relay that a test can stall and cut.
struct Wire {
    address: SocketAddr,
    stalled: watch::Sender<bool>,
    cut: Arc<Notify>,
    _task: JoinSet<()>,
}

impl Wire {
    async fn new(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stalled, cut) = (watch::Sender::new(false), Arc::new(Notify::new()));
        let mut task = JoinSet::new();
        let (hold, knife) = (stalled.clone(), cut.clone());
        task.spawn(async move {
            let mut relays = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (hold, knife) = (hold.clone(), knife.clone());
                relays.spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let (near_reader, near_writer) = near.into_split();
                    let (far_reader, far_writer) = far.into_split();
                    tokio::select! {
                        () = knife.notified() => {}
                        () = carry(near_reader, far_writer, hold.subscribe()) => {}
                        () = carry(far_reader, near_writer, hold.subscribe()) => {}
                    }
                });
            }
        });
        Self { address, stalled, cut, _task: task }
    }

    fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    fn cut(&self) {
        self.cut.notify_waiters();
    }
}

async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut hold: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        let held = hold.wait_for(|stalled| !*stalled).await.is_err();
        if count == 0 || held || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Writes `total` bytes of a pattern, and ends.
async fn pour(mut to: Channel, total: u64) {
    let block: Vec<u8> = (0..=250u8).cycle().take(251 * 200).collect();
    let mut left = total;
    while left > 0 {
        let count = left.min(block.len() as u64);
        to.write_all(&block[..count as usize]).await.unwrap();
        left -= count;
    }
    to.shutdown().await.unwrap();
}

/// Reads the pattern to its end, and says how much it was.
async fn drain(mut from: Channel, progress: watch::Sender<u64>) -> u64 {
    let mut buffer = vec![0; 100_000];
    let mut total = 0u64;
    loop {
        let count = from.read(&mut buffer).await.unwrap();
        if count == 0 {
            return total;
        }
        for (at, byte) in buffer[..count].iter().enumerate() {
            assert_eq!(u64::from(*byte), (total + at as u64) % 251, "offset {}", total + at as u64);
        }
        total += count as u64;
        progress.send_replace(total);
    }
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hosts_pair_by_a_token_and_know_each_other() {
    let [printing, given] = [Host::new("printing"), Host::new("given")];
    let printer = LinkListener::bind(printing.config.clone()).await.unwrap();
    let other = LinkListener::bind(given.config.clone()).await.unwrap();
    let token = printer.desk().token_new(None).unwrap();
    let peer = soon(other.desk().pair_with(&token)).await.unwrap();
    assert_eq!((peer.name.as_str(), peer.address), ("printing", printer.address()));
    let known = printing.config.peers.by_name("given").expect("it is stored");
    assert_eq!((known.address, known.key), (other.address(), *given.config.keys.spki()));
    // Both ways, and also after a restart.
    soon(Link::dial(&given.config, &peer)).await.unwrap();
    soon(printer.accept()).await;
    soon(Link::dial(&printing.config, &known)).await.unwrap();
    let again = PeerStore::load(given._scratch.path()).unwrap();
    assert_eq!(again.by_name("printing"), Some(peer));
    // A used one does not work again.
    let third = Host::new("third");
    let third_door = LinkListener::bind(third.config.clone()).await.unwrap();
    let error = soon(third_door.desk().pair_with(&token)).await.unwrap_err();
    assert!(matches!(&error, LinkError::Token(text) if text.contains("used already")), "{error}");
    assert!(printing.config.peers.by_name("third").is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokens_with_another_secret_or_hash_pair_nobody() {
    let [printing, given] = [Host::new("printing"), Host::new("given")];
    let printer = LinkListener::bind(printing.config.clone()).await.unwrap();
    let other = LinkListener::bind(given.config.clone()).await.unwrap();
    let good = Token::parse(&printer.desk().token_new(None).unwrap()).unwrap();
    let guessed = Token { secret: [1; 16], ..good.clone() };
    let error = soon(other.desk().pair_with(&guessed.format())).await.unwrap_err();
    assert!(matches!(&error, LinkError::Token(text) if text.contains("not known here")), "{error}");
    let tampered = Token { key_hash: [1; 32], ..good.clone() };
    let error = soon(other.desk().pair_with(&tampered.format())).await.unwrap_err();
    assert!(matches!(error, LinkError::WrongKey(_)), "{error}");
    let error = soon(other.desk().pair_with(&good.format()[1..])).await.unwrap_err();
    assert!(matches!(error, LinkError::Token(_)), "{error}");
    assert!(printing.config.peers.all().is_empty() && given.config.peers.all().is_empty());
    assert!(soon(other.desk().pair_with(&good.format())).await.is_ok(), "the good one still works");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_goes_through_compressed_flushed_and_with_its_way_back() {
    let pair = pair().await;
    let (near, far) = channel(&pair, Label::Ram(0)).await;
    let (mut source, source_end) = UnixStream::pair().unwrap();
    let (mut destination, destination_end) = UnixStream::pair().unwrap();
    let out = RamOut::start(source_end, near, pair.near.clone());
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
    let out = RamOut::start(source_end, near, pair.near.clone());
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

/// By hand, in a release build: `cargo test --release -p tests --test link throughput -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement, for a release build on a quiet machine"]
async fn throughput_of_one_data_channel() {
    const TOTAL: u64 = 4 << 30;
    let pair = pair().await;
    let (mut near, mut far) = channel(&pair, Label::Disk(0)).await;
    let start = Instant::now();
    let writing = tokio::spawn(async move {
        let block = vec![7; 256 << 10];
        for _ in 0..TOTAL / block.len() as u64 {
            near.write_all(&block).await.unwrap();
        }
        near.shutdown().await.unwrap();
    });
    let mut buffer = vec![0; 256 << 10];
    let mut total = 0;
    while let Ok(count @ 1..) = far.read(&mut buffer).await {
        total += count as u64;
    }
    writing.await.unwrap();
    let rate = total as f64 / start.elapsed().as_secs_f64() / 1e6;
    println!("{rate:.0} MB/s; {:?}", pair.near.status());
    assert_eq!(total, TOTAL);
}
