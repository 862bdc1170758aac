//! Runs one connection of a link: what comes goes into the session, what it wants to send goes out.
//!
//! Where several connections are one, each has its sender and its receiver. A sender takes the next record when its own
//! connection can take it; receivers put the records in order (`link::stripes`). All live and die together.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::shared::{Place, Shared};
use crate::io::tls::greeting::Secured;
use crate::io::tls::socket::{Knobs, Segments, UNDER_WAY_BYTES_MAX};
use crate::link::Lane;
use crate::link::session::Next;
use crate::link::stripes::{Merge, RECORD_HEADER_BYTES, read_header};
use crate::link::wire::{BODY_BYTES_MAX, Frame, HEADER_BYTES, Header};

/// Bytes that are read at once; room for a few of the longest frames.
const READ_BYTES: usize = 4 * (BODY_BYTES_MAX + HEADER_BYTES);
/// The least that the kernel may hold unsent on one of several connections.
const SHARE_UNSENT_BYTES_MIN: u64 = 16 << 10;
/// The least that may be under way on one of several: about what the kernel allows by itself.
const SHARE_UNDER_WAY_BYTES_MIN: u64 = 4 << 20;
/// How often the kernel is asked what a connection has sent.
const COUNT_EVERY: Duration = Duration::from_millis(200);

/// Gives a lane its connection, or several that are one, and runs it in a task of its own.
pub(super) fn start(shared: &Arc<Shared>, lane: Lane, connections: Vec<Secured>) {
    let count = connections.len();
    let control = connections.first().map_or("", |first| first.knobs.congestion_control());
    let named = if count == 1 { control.to_owned() } else { format!("{count} × {control}") };
    let place = connections
        .first()
        .and_then(|first| first.remote().map(|address| Place { address, accepted: first.was_accepted() }));
    let (epoch, bell) = shared.attach(lane, &named, place);
    let stripes =
        (count > 1).then(|| Stripes { merge: Mutex::new(Merge::new(count)), moved: Notify::new(), count });
    let connection = Arc::new(Connection { shared: shared.clone(), lane, epoch, bell, stripes });
    let task = tokio::spawn(async move {
        let mut parts = JoinSet::new();
        for (index, secured) in connections.into_iter().enumerate() {
            parts.spawn(connection.clone().run(index, secured));
        }
        // One that fails takes the others with it; those that end in order wait for each other.
        let mut why = "the other side closed it".to_owned();
        while let Some(ended) = parts.join_next().await {
            if let Err(lost) = ended.unwrap_or_else(|panicked| Err(panicked.to_string())) {
                why = lost;
                break;
            }
        }
        drop(parts);
        connection.shared.lose(connection.lane, connection.epoch, &why);
    });
    shared.set_task(lane, epoch, task.abort_handle());
}

struct Connection {
    shared: Arc<Shared>,
    lane: Lane,
    epoch: u64,
    bell: Arc<Notify>,
    stripes: Option<Stripes>,
}

/// What the connections of a lane have in common, where it has several.
struct Stripes {
    merge: Mutex<Merge>,
    /// Records were handed on: there is room again.
    moved: Notify,
    count: usize,
}

impl Connection {
    /// Runs one connection to its end. An error: it was not meant to end.
    async fn run(self: Arc<Self>, index: usize, secured: Secured) -> Result<(), String> {
        let Secured { stream, knobs, .. } = secured;
        knobs.widen(self.share_of(UNDER_WAY_BYTES_MAX, SHARE_UNDER_WAY_BYTES_MIN));
        let (reader, writer) = tokio::io::split(stream);
        match &self.stripes {
            None => tokio::select! {
                ended = self.receive(reader) => ended,
                ended = self.send(writer, knobs) => ended,
            },
            Some(stripes) => tokio::select! {
                ended = self.receive_records(index, stripes, reader) => ended,
                ended = self.send(writer, knobs) => ended,
            },
        }
    }

    /// Reads until the end.
    async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> Result<(), String> {
        let mut buffer = vec![0; READ_BYTES];
        let mut held = 0;
        loop {
            match reader.read(&mut buffer[held..]).await {
                Ok(0) => return Ok(()),
                Ok(count) => held += count,
                Err(error) => return Err(error.to_string()),
            }
            match self.handle(&buffer[..held]) {
                Ok(used) => {
                    buffer.copy_within(used..held, 0);
                    held -= used;
                }
                Err(why) => return self.breach(&why).await,
            }
        }
    }

    /// Reads the records of one of several connections until its end, and hands on what is next of all of them.
    async fn receive_records(
        &self,
        index: usize,
        stripes: &Stripes,
        mut reader: impl AsyncRead + Unpin,
    ) -> Result<(), String> {
        loop {
            let mut header = [0; RECORD_HEADER_BYTES];
            match reader.read(&mut header[..1]).await {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) => return Err(error.to_string()),
            }
            reader.read_exact(&mut header[1..]).await.map_err(|error| error.to_string())?;
            let (number, bytes) = match read_header(&header) {
                Ok(read) => read,
                Err(malformed) => return self.breach(&malformed.to_string()).await,
            };
            let mut body = vec![0; bytes];
            reader.read_exact(&mut body).await.map_err(|error| error.to_string())?;
            if let Err(why) = self.handle_record(index, stripes, number, body) {
                return self.breach(&why).await;
            }
            self.wait_for_room(index, stripes).await;
        }
    }

    fn handle_record(
        &self,
        index: usize,
        stripes: &Stripes,
        number: u64,
        body: Vec<u8>,
    ) -> Result<(), String> {
        // Held while frames are handled, or another connection would overtake them.
        let mut merge = stripes.locked();
        merge.handle_record(index, number, body).map_err(|error| error.to_string())?;
        while let Some(frames) = merge.take() {
            if self.handle(&frames)? != frames.len() {
                return Err("a record ends within a frame".to_owned());
            }
        }
        stripes.moved.notify_waiters();
        Ok(())
    }

    /// Waits while too much is held that came too early here.
    async fn wait_for_room(&self, index: usize, stripes: &Stripes) {
        loop {
            let moved = stripes.moved.notified();
            tokio::pin!(moved);
            moved.as_mut().enable();
            if stripes.locked().may_read(index) {
                return;
            }
            moved.await;
        }
    }

    /// The other side did what it must not: the link is over.
    async fn breach(&self, why: &str) -> Result<(), String> {
        tracing::error!(peer = self.shared.peer, lane = %self.lane, "{why}");
        self.shared.with(|state, _| state.session.close(why));
        // The sender tells the other side; this direction is of no more use.
        std::future::pending().await
    }

    /// Handles the whole frames in `bytes`, and says how many bytes they were.
    fn handle(&self, bytes: &[u8]) -> Result<usize, String> {
        let mut used = 0;
        while let Some(head) = bytes[used..].first_chunk::<HEADER_BYTES>() {
            let header = Header::decode(head).map_err(|error| error.to_string())?;
            let start = used + HEADER_BYTES;
            let end = start + header.body_bytes as usize;
            let Some(body) = bytes.get(start..end) else { break };
            let frame = Frame::decode(&header, body).map_err(|error| error.to_string())?;
            let handled = self.shared.with_lane(self.lane, self.epoch, |session, now| {
                session.handle_frame(self.lane, &frame, now)
            });
            handled.unwrap_or(Ok(())).map_err(|breach| breach.to_string())?;
            used = end;
        }
        Ok(used)
    }

    /// Sends until the link or the connection is over.
    async fn send(&self, mut writer: impl AsyncWrite + Unpin, knobs: Knobs) -> Result<(), String> {
        let mut counted = Counted::new(&self.shared, knobs);
        let mut out = Vec::with_capacity(BODY_BYTES_MAX + 4096);
        loop {
            out.clear();
            let (next, unsent_bytes) = match &self.stripes {
                None => self.shared.poll_frame(self.lane, self.epoch, &mut out),
                Some(_) => self.shared.poll_record(self.lane, self.epoch, &mut out),
            };
            if self.stripes.is_some() && matches!(next, Next::Frames | Next::Over) {
                // One bell for all: whoever has got something lets the next one look.
                self.bell.notify_one();
            }
            counted.count_now_and_then();
            match next {
                Next::Frames => {
                    counted.knobs.set_unsent(self.share_of(unsent_bytes, SHARE_UNSENT_BYTES_MIN));
                    // The next frame is picked when the kernel has taken this one: so the choice is never stale.
                    write(&mut writer, &out).await.map_err(|error| error.to_string())?;
                }
                Next::Idle => self.bell.notified().await,
                Next::Wait(until) => {
                    let pause = until.saturating_sub(self.shared.now());
                    let _ = timeout(pause, self.bell.notified()).await;
                }
                Next::Over => {
                    let _ = writer.shutdown().await;
                    return Ok(());
                }
            }
        }
    }

    /// What one of the connections may have of what the lane may have, but not less than `least`.
    fn share_of(&self, bytes: u64, least: u64) -> u64 {
        let count = self.stripes.as_ref().map_or(1, |stripes| stripes.count as u64);
        (bytes / count).max(least)
    }
}

/// A connection whose segments count for the link, to its last moment.
struct Counted<'a> {
    shared: &'a Shared,
    knobs: Knobs,
    seen: Segments,
    at: Duration,
}

impl<'a> Counted<'a> {
    fn new(shared: &'a Shared, knobs: Knobs) -> Self {
        Self { shared, knobs, seen: Segments::default(), at: Duration::ZERO }
    }

    fn count_now_and_then(&mut self) {
        let now = self.shared.now();
        if now >= self.at + COUNT_EVERY {
            self.at = now;
            self.count();
        }
    }

    fn count(&mut self) {
        let segments = self.knobs.segments();
        let seen = std::mem::replace(&mut self.seen, segments);
        self.shared.count_segments(Segments {
            sent: segments.sent.saturating_sub(seen.sent),
            resent: segments.resent.saturating_sub(seen.resent),
        });
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.count();
    }
}

impl Stripes {
    fn locked(&self) -> MutexGuard<'_, Merge> {
        self.merge.lock().expect("nobody panics with the records in hand")
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
