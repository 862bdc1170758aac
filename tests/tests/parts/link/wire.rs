//! A relay that a test can stall and cut, and streams that are checked byte by byte.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use migrated::io::link::Channel;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

/// A TCP relay that a test can stall and cut.
pub struct Wire {
    pub address: SocketAddr,
    stalled: watch::Sender<bool>,
    cut: Arc<Notify>,
    taken: watch::Sender<usize>,
    leads_to: watch::Sender<SocketAddr>,
    overheard: Arc<AtomicBool>,
    _task: JoinSet<()>,
}

impl Wire {
    pub async fn new(to: SocketAddr) -> Self {
        Self::at("127.0.0.1", to).await
    }

    /// One that listens at another address of this host.
    pub async fn at(ip: &str, to: SocketAddr) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (leads_to, destination) = watch::channel(to);
        let address = listener.local_addr().unwrap();
        let (stalled, cut) = (watch::Sender::new(false), Arc::new(Notify::new()));
        let mut task = JoinSet::new();
        let (hold, knife) = (stalled.clone(), cut.clone());
        let taken = watch::Sender::new(0);
        let count = taken.clone();
        let overheard = Arc::new(AtomicBool::new(false));
        let ear = overheard.clone();
        task.spawn(async move {
            let mut relays = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                count.send_modify(|count| *count += 1);
                let (hold, knife, to) = (hold.clone(), knife.clone(), *destination.borrow());
                let ear = ear.clone();
                relays.spawn(async move {
                    let Ok(far) = TcpStream::connect(to).await else { return };
                    let (near_reader, near_writer) = near.into_split();
                    let (far_reader, far_writer) = far.into_split();
                    tokio::select! {
                        () = knife.notified() => {}
                        () = carry(near_reader, far_writer, hold.subscribe(), &ear) => {}
                        () = carry(far_reader, near_writer, hold.subscribe(), &ear) => {}
                    }
                });
            }
        });
        Self { address, stalled, cut, taken, leads_to, overheard, _task: task }
    }

    pub fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
    }

    /// All connections.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }

    /// Connections from now on go somewhere else.
    pub fn lead_to(&self, to: SocketAddr) {
        self.leads_to.send_replace(to);
    }

    /// One of them.
    pub fn cut_one(&self) {
        self.cut.notify_one();
    }

    /// Whether something of what [`pour`] writes could be read on the way.
    pub fn has_overheard(&self) -> bool {
        self.overheard.load(Ordering::Relaxed)
    }

    /// Comes back when it has taken so many connections.
    pub async fn has_taken(&self, count: usize) {
        let mut taken = self.taken.subscribe();
        taken.wait_for(|taken| *taken >= count).await.expect("the wire is there");
    }

    /// How many it has taken so far.
    pub fn connections(&self) -> usize {
        *self.taken.borrow()
    }
}

pub async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut hold: watch::Receiver<bool>,
    ear: &AtomicBool,
) {
    let piece: Vec<u8> = (100..132).collect();
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count) = from.read(&mut buffer).await {
        if buffer[..count].windows(piece.len()).any(|bytes| bytes == piece) {
            ear.store(true, Ordering::Relaxed);
        }
        let held = hold.wait_for(|stalled| !*stalled).await.is_err();
        if count == 0 || held || to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}

/// Writes `total` bytes of a pattern, and ends.
pub async fn pour(mut to: Channel, total: u64) {
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
pub async fn drain(mut from: Channel, progress: watch::Sender<u64>) -> u64 {
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
