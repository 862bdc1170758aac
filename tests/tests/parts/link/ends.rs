//! Two hosts on loopback, and a link between them.

use std::time::Duration;

use migrated::io::keys::Peer;
use migrated::io::link::{Channel, Link, LinkConfig, LinkListener};
use migrated::link::Label;
use migrated::link::error::LinkError;
use tests::link_config;
use tests::scratch::Scratch;
use tokio::sync::watch;
use tokio::time::timeout;

use super::wire::{Wire, drain, pour};

/// Long enough for a loaded machine; what is right takes milliseconds.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

/// A host of a test: its directory and its configuration.
pub struct Host {
    pub config: LinkConfig,
    /// Where its state lies.
    pub scratch: Scratch,
}

impl Host {
    pub fn new(name: &str) -> Self {
        let scratch = Scratch::new();
        let config = link_config::plain(scratch.path(), name, "127.0.0.1:0".parse().unwrap());
        Self { config, scratch }
    }

    /// As another host knows it.
    pub fn seen_at(&self, listener: &LinkListener) -> Peer {
        Peer {
            name: self.config.name.clone(),
            address: listener.address(),
            data_addresses: listener.data_addresses().to_vec(),
            key: *self.config.keys.spki(),
        }
    }

    /// Lets a dialler in.
    pub fn knows(&self, other: &Host) {
        let address = "127.0.0.1:1".parse().unwrap();
        let (name, key) = (other.config.name.clone(), *other.config.keys.spki());
        self.config.peers.put(Peer { name, address, data_addresses: Vec::new(), key }).expect("it is stored");
    }
}

/// Two hosts and a link between them.
pub struct Pair {
    pub near: Link,
    pub far: Link,
    pub _listener: LinkListener,
    pub _hosts: [Host; 2],
}

pub async fn pair() -> Pair {
    let [dialler, listening] = acquainted();
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let peer = listening.seen_at(&listener);
    let near = soon(Link::dial(&dialler.config, &peer)).await.unwrap();
    let far = soon(listener.accept()).await;
    Pair { near, far, _listener: listener, _hosts: [dialler, listening] }
}

/// A link whose connections all go through a wire.
pub struct Wired {
    pub wire: Wire,
    pub near: Link,
    pub far: Link,
    _listener: LinkListener,
    _hosts: [Host; 2],
}

/// From the first to the second, who knows it.
pub async fn wired(hosts: [Host; 2]) -> Wired {
    let [dialler, listening] = &hosts;
    let listener = LinkListener::bind(listening.config.clone()).await.unwrap();
    let wire = Wire::new(listener.address()).await;
    let peer = Peer { address: wire.address, ..listening.seen_at(&listener) };
    let near = soon(Link::dial(&dialler.config, &peer)).await.unwrap();
    let far = soon(listener.accept()).await;
    Wired { wire, near, far, _listener: listener, _hosts: hosts }
}

/// Two hosts of which the second lets the first in.
pub fn acquainted() -> [Host; 2] {
    let [near, far] = [Host::new("near"), Host::new("far")];
    far.knows(&near);
    [near, far]
}

/// Bytes of a transfer that is cut.
pub const CUT_BYTES: u64 = 40 << 20;

/// A transfer during which `cut` is done four times: everything arrives, in order, once.
pub async fn cut_while_it_flows(hosts: [Host; 2], cut: impl Fn(&Wire)) -> Wired {
    let wired = wired(hosts).await;
    let poured = tokio::spawn(pour(wired.near.open(Label::Disk(0)).await.unwrap(), CUT_BYTES));
    let (_, incoming) = soon(wired.far.accept()).await.unwrap();
    let (progress, mut seen) = watch::channel(0);
    let drained = tokio::spawn(drain(incoming, progress));
    for part in 1..=4 {
        soon(seen.wait_for(|bytes| *bytes > part * CUT_BYTES / 5)).await.unwrap();
        cut(&wired.wire);
    }
    assert_eq!(soon(drained).await.unwrap(), CUT_BYTES);
    soon(poured).await.unwrap();
    wired
}

pub async fn channel(pair: &Pair, label: Label) -> (Channel, Channel) {
    let near = pair.near.open(label).await.unwrap();
    let (told, far) = soon(pair.far.accept()).await.unwrap();
    assert_eq!(told, label);
    (near, far)
}

/// Dials a listener that must refuse; what the dialler is told.
pub async fn refused(dialler: &Host, listener: &LinkListener, peer: &Peer) -> LinkError {
    let error = soon(Link::dial(&dialler.config, peer)).await.err().expect("it must be refused");
    nothing_started(listener).await;
    error
}

/// No link was handed out.
pub async fn nothing_started(listener: &LinkListener) {
    let mut accept = std::pin::pin!(listener.accept());
    let none = std::future::poll_fn(|cx| std::task::Poll::Ready(accept.as_mut().poll(cx).is_pending())).await;
    assert!(none, "a link was handed out");
}
