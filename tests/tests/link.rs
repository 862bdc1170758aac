//! The link over real sockets on loopback: what goes through, and everything that is refused.

use std::time::Duration;

use migrated::io::keys::{Keys, Peer, PeerStore};
use migrated::io::link::{Channel, Link, LinkConfig, LinkListener};
use migrated::link::Label;
use migrated::link::error::LinkError;
use tests::scratch::Scratch;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
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
