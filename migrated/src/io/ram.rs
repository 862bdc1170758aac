//! Carries QEMU's migration stream through a channel of the link: compressed, paced, and held at a gate.
//!
//! ```text
//!  source QEMU ── read ─► gate ─► compressor ─► channel ══ link ══► channel ─► decompressor ─► destination QEMU
//!       ▲                                                                                           │
//!       └───────────────────────────── return path, as it is, at once ◄─────────────────────────────┘
//! ```
//!
//! QEMU takes for sent what it has written; so as little as possible is taken from it: nothing is read while the
//! channel has more than 20 ms of link unsent, and what is in the compressor is flushed when QEMU has nothing more at
//! the moment. Compression runs beside the runtime. The codec is `crate::ram`.
//!
//! A shut gate keeps QEMU from pausing the guest, but not for certain: what QEMU lacks may fit the socket. From the pause on
//! the gate is open for good, or the guest would stand still behind it.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use blockd::replica::encoding::Compression;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::link::{Channel, Link};
use crate::ram::{Coding, Compressor, Decompressor, coding_for};

/// What is taken from QEMU at once: at most this much is neither QEMU's nor the channel's.
const CHUNK_BYTES: usize = 64 << 10;
/// What is decompressed at once.
const OUTPUT_BYTES: usize = 1 << 20;

/// Whether bytes of QEMU's are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    Open,
    Shut,
    /// The guest is paused and waits for what is left: nothing shuts it any more.
    OpenForGood,
}

/// Numbers of one stream.
#[derive(Debug, Default)]
struct RamCounters {
    raw_bytes: AtomicU64,
    sent_bytes: AtomicU64,
}

impl RamCounters {
    /// Bytes as QEMU wrote them.
    fn raw_bytes(&self) -> u64 {
        self.raw_bytes.load(Ordering::Relaxed)
    }

    /// Bytes as the channel got them.
    fn sent_bytes(&self) -> u64 {
        self.sent_bytes.load(Ordering::Relaxed)
    }
}

/// The memory's stream at the source, while it runs; dropping it breaks it off.
#[derive(Debug)]
pub struct RamOut {
    gate: watch::Sender<Gate>,
    counters: Arc<RamCounters>,
    task: JoinHandle<()>,
}

impl RamOut {
    /// From QEMU into the link, until QEMU ends its stream and the return path has ended too.
    pub fn start(from: UnixStream, to: Channel, link: Link, compression: Compression) -> Self {
        let (gate, watched) = watch::channel(Gate::Open);
        let counters = Arc::<RamCounters>::default();
        let coding = coding_for(compression, link.goodput_bytes_per_s());
        tracing::debug!(?coding, "memory goes over");
        let counted = counters.clone();
        let task = tokio::spawn(async move {
            let (qemu_reader, qemu_writer) = from.into_split();
            let (channel_reader, channel_writer) = tokio::io::split(to);
            let pump = Out { from: qemu_reader, to: channel_writer, gate: watched, counters: counted };
            if let Err(error) = tokio::try_join!(pump.run(coding), pass(channel_reader, qemu_writer)) {
                tracing::warn!("the memory's stream broke: {error}");
            }
        });
        Self { gate, counters, task }
    }

    /// The gate: shut, no byte of QEMU's is read from now on; what was read before goes on.
    pub fn set_open(&self, open: bool) {
        let wanted = if open { Gate::Open } else { Gate::Shut };
        self.gate
            .send_if_modified(|now| *now != Gate::OpenForGood && std::mem::replace(now, wanted) != wanted);
    }

    /// The guest is paused: all that QEMU still has is read, whatever [`RamOut::set_open`] is told from now on.
    pub fn open_for_good(&self) {
        self.gate.send_replace(Gate::OpenForGood);
    }

    /// Bytes as QEMU wrote them, and as the channel got them.
    pub fn bytes(&self) -> (u64, u64) {
        (self.counters.raw_bytes(), self.counters.sent_bytes())
    }

    /// Breaks the stream off, at both ends.
    pub fn stop(self) {}
}

impl Drop for RamOut {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// At the destination: from the link into QEMU, until the stream and the return path have ended.
pub async fn receive(from: Channel, to: UnixStream) -> std::io::Result<()> {
    let (qemu_reader, qemu_writer) = to.into_split();
    let (channel_reader, channel_writer) = tokio::io::split(from);
    tokio::try_join!(decompress(channel_reader, qemu_writer), pass(qemu_reader, channel_writer)).map(|_| ())
}

struct Out<W> {
    from: OwnedReadHalf,
    to: W,
    gate: watch::Receiver<Gate>,
    counters: Arc<RamCounters>,
}

impl<W: AsyncWrite + Unpin> Out<W> {
    async fn run(mut self, coding: Coding) -> std::io::Result<()> {
        let mut compressor = spawn_blocking(move || Compressor::new(coding)).await??;
        // Something is in the compressor that the other side lacks.
        let mut held = false;
        loop {
            let Some(chunk) = self.try_read()? else {
                if std::mem::take(&mut held) {
                    compressor = self.push(compressor, Vec::new(), Step::Flush).await?;
                }
                self.wait().await?;
                continue;
            };
            self.counters.raw_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            if chunk.is_empty() {
                self.push(compressor, chunk, Step::Finish).await?;
                return self.to.shutdown().await;
            }
            compressor = self.push(compressor, chunk, Step::Compress).await?;
            held = true;
        }
    }

    /// What QEMU has for us; none: nothing now, or the gate is closed; empty: its end.
    fn try_read(&self) -> std::io::Result<Option<Vec<u8>>> {
        if *self.gate.borrow() == Gate::Shut {
            return Ok(None);
        }
        let mut chunk = vec![0; CHUNK_BYTES];
        match self.from.try_read(&mut chunk) {
            Ok(count) => {
                chunk.truncate(count);
                Ok(Some(chunk))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn wait(&self) -> std::io::Result<()> {
        let mut gate = self.gate.clone();
        if gate.wait_for(|gate| *gate != Gate::Shut).await.is_err() {
            return Err(ErrorKind::BrokenPipe.into());
        }
        tokio::select! {
            ready = self.from.readable() => ready,
            _ = gate.wait_for(|gate| *gate == Gate::Shut) => Ok(()),
        }
    }

    /// Compresses beside the runtime, and writes what comes out; returns when the channel has taken it.
    async fn push(
        &mut self,
        mut compressor: Compressor,
        chunk: Vec<u8>,
        then: Step,
    ) -> std::io::Result<Compressor> {
        let work = move || -> std::io::Result<(Compressor, Vec<u8>)> {
            let mut out = Vec::new();
            compressor.compress(&chunk, &mut out)?;
            match then {
                Step::Compress => {}
                Step::Flush => compressor.flush(&mut out)?,
                Step::Finish => compressor.finish(&mut out)?,
            }
            Ok((compressor, out))
        };
        let (compressor, out) = spawn_blocking(work).await??;
        self.to.write_all(&out).await?;
        self.counters.sent_bytes.fetch_add(out.len() as u64, Ordering::Relaxed);
        Ok(compressor)
    }
}

/// What is done after a chunk went into the compressor.
#[derive(Clone, Copy)]
enum Step {
    Compress,
    Flush,
    Finish,
}

async fn decompress(mut from: impl AsyncRead + Unpin, mut to: OwnedWriteHalf) -> std::io::Result<()> {
    let mut decompressor = spawn_blocking(Decompressor::new).await??;
    loop {
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = from.read(&mut chunk).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        chunk.truncate(count);
        let mut used = 0;
        let mut more = true;
        while more {
            let work = move || -> std::io::Result<_> {
                let mut out = Vec::new();
                let more = decompressor.fill(&chunk, &mut used, &mut out, OUTPUT_BYTES)?;
                Ok((decompressor, chunk, used, more, out))
            };
            let out;
            (decompressor, chunk, used, more, out) = spawn_blocking(work).await??;
            to.write_all(&out).await?;
        }
    }
}

/// The return path: as it is, and at once.
async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..count]).await?;
    }
}
