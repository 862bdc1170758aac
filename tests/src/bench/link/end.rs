//! One end of a link as a program of its own (`bench link-end …`), so that it can run at a site.
//!
//! ```text
//! link-end listen DIR ADDRESS                      takes links, throws away what comes
//! link-end send DIR ADDRESS ORDER                  fills one disk's channel by the order, prints a Sent as JSON
//! ```

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use migrated::io::keys::{Keys, Peer, PeerStore};
use migrated::io::link::{Link, LinkListener};
use migrated::link::Label;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::interval;

use crate::bench::servers::cpu_ns;
use crate::link_config;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What to send.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Order {
    /// For so long; 0: until all bytes have arrived.
    pub seconds: f64,
    /// So many bytes; 0: as many as go.
    pub bytes: u64,
    /// The congestion control to ask for.
    pub congestion_control: String,
    /// Limits in bytes a second, and from which second on each holds.
    pub limits: Vec<(f64, Option<u64>)>,
}

/// What came of it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sent {
    /// Seconds since the beginning, and bytes that had arrived then.
    pub arrived: Vec<(f64, u64)>,
    /// Bytes of frames that were handed to the connections.
    pub frame_bytes: u64,
    /// CPU seconds of this end.
    pub cpu_s: f64,
    /// What carried it.
    pub congestion_control: String,
}

impl Sent {
    /// Bytes a second that arrived between two moments.
    pub fn rate(&self, from_s: f64, to_s: f64) -> f64 {
        let within = || self.arrived.iter().filter(|(at, _)| (from_s..=to_s).contains(at));
        let (Some(first), Some(last)) = (within().next(), within().next_back()) else { return 0.0 };
        // Who was looked at less than twice had nothing to say.
        if last.0 <= first.0 {
            return 0.0;
        }
        (last.1 - first.1) as f64 / (last.0 - first.0)
    }
}

/// Makes two ends that know each other: their directories.
pub fn introduce(near: &Path, far: &Path) {
    let address = "127.0.0.1:1".parse().expect("an address");
    // The first load makes the directory.
    let keys = [near, far].map(|own| Keys::load(own).expect("a key"));
    for (own, other, name) in [(near, &keys[1], "far"), (far, &keys[0], "near")] {
        let key = *other.spki();
        let peer = Peer { name: name.to_owned(), address, data_addresses: Vec::new(), key };
        PeerStore::load(own).and_then(|peers| peers.put(peer)).expect("it is stored");
    }
}

/// What `bench link-end` does.
pub fn main(words: &[String]) {
    let [what, state_dir, address, rest @ ..] = words else { panic!("link-end needs more words: {words:?}") };
    let address = address.parse().expect("an address and a port");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.expect("threads").block_on(async {
        match what.as_str() {
            "listen" => listen(Path::new(state_dir), address).await,
            "send" => {
                let order = serde_json::from_str(&rest[0]).expect("an order");
                let sent = send(Path::new(state_dir), address, &order).await;
                println!("{}", serde_json::to_string(&sent).expect("plain values"));
            }
            other => panic!("link-end does not {other}"),
        }
    });
}

/// Takes links for ever.
pub async fn listen(state_dir: &Path, address: SocketAddr) {
    let listener = LinkListener::bind(link_config::plain(state_dir, "far", address)).await.expect("bind");
    println!("listening");
    loop {
        let link = listener.accept().await;
        tokio::spawn(async move {
            while let Ok((_, mut channel)) = link.accept().await {
                let mut buffer = vec![0; 256 << 10];
                while let Ok(1..) = channel.read(&mut buffer).await {}
            }
        });
    }
}

/// Sends by an order.
pub async fn send(state_dir: &Path, address: SocketAddr, order: &Order) -> Sent {
    let mut config = link_config::plain(state_dir, "near", "127.0.0.1:0".parse().expect("an address"));
    if !order.congestion_control.is_empty() {
        config.congestion_control.clone_from(&order.congestion_control);
    }
    let far = config.peers.by_name("far").expect("it was introduced");
    let link = Link::dial(&config, &Peer { address, ..far }).await.expect("a link");
    let mut channel = link.open(Label::Disk(0)).await.expect("a channel");
    let (total, start, cpu_before) = (order.bytes, Instant::now(), cpu_ns(std::process::id()));
    let writing = tokio::spawn(async move {
        let block = vec![7; 256 << 10];
        let mut left = if total == 0 { u64::MAX } else { total };
        while left > 0 {
            let count = left.min(block.len() as u64);
            if channel.write_all(&block[..count as usize]).await.is_err() {
                return;
            }
            left -= count;
        }
        // It has to stay while what was written is on its way.
        std::future::pending::<()>().await;
    });
    let mut sent = Sent::default();
    let mut limits = order.limits.clone();
    let mut tick = interval(LOOK_EVERY);
    loop {
        tick.tick().await;
        let now = start.elapsed().as_secs_f64();
        if limits.first().is_some_and(|(at, _)| *at <= now) {
            link.set_bandwidth(limits.remove(0).1);
        }
        let arrived = link.channel_stats(Label::Disk(0)).acked_bytes;
        sent.arrived.push((now, arrived));
        if (order.seconds > 0.0 && now >= order.seconds) || (total > 0 && arrived >= total) {
            break;
        }
    }
    sent.frame_bytes = link.status().sent_bytes;
    sent.congestion_control = link.status().congestion_control;
    sent.cpu_s = (cpu_ns(std::process::id()) - cpu_before) as f64 / 1e9;
    writing.abort();
    sent
}
