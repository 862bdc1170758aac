//! Runs one connection of a link: what comes goes into the session, what it wants to send goes out.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::shared::Shared;
use crate::io::tls::greeting::Secured;
use crate::io::tls::socket::Knobs;
use crate::link::Lane;
use crate::link::session::Next;
use crate::link::wire::{BODY_BYTES_MAX, Frame, HEADER_BYTES, Header};

/// Bytes that are read at once; room for a few of the longest frames.
const READ_BYTES: usize = 4 * (BODY_BYTES_MAX + HEADER_BYTES);

/// Gives a lane its connection, and runs it in a task of its own.
pub(super) fn start(shared: &Arc<Shared>, lane: Lane, secured: Secured) {
    let Secured { stream, knobs, .. } = secured;
    let (epoch, bell) = shared.attach(lane, knobs.congestion_control());
    if let Some(warning) = knobs.warning() {
        tracing::warn!(peer = shared.peer, %lane, "{warning}");
        shared.with(|state, _| {
            if !state.warnings.contains(&warning) {
                state.warnings.push(warning);
            }
        });
    }
    let connection = Connection { shared: shared.clone(), lane, epoch };
    let task = tokio::spawn(async move {
        let (reader, writer) = tokio::io::split(stream);
        let why = tokio::select! {
            why = connection.receive(reader) => why,
            why = connection.send(writer, bell, knobs) => why,
        };
        connection.shared.lose(connection.lane, connection.epoch, &why);
    });
    shared.set_task(lane, epoch, task.abort_handle());
}

struct Connection {
    shared: Arc<Shared>,
    lane: Lane,
    epoch: u64,
}

impl Connection {
    /// Reads until the end, and says why that was.
    async fn receive(&self, mut reader: impl AsyncRead + Unpin) -> String {
        let mut buffer = vec![0; READ_BYTES];
        let mut held = 0;
        loop {
            match reader.read(&mut buffer[held..]).await {
                Ok(0) => return "the other side closed it".to_owned(),
                Ok(count) => held += count,
                Err(error) => return error.to_string(),
            }
            match self.handle(&buffer[..held]) {
                Ok(used) => {
                    buffer.copy_within(used..held, 0);
                    held -= used;
                }
                Err(why) => {
                    tracing::error!(peer = self.shared.peer, lane = %self.lane, "{why}");
                    self.shared.with(|state, _| state.session.close(&why));
                    // The sender tells the other side; this direction is of no more use.
                    std::future::pending::<()>().await;
                }
            }
        }
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

    /// Sends until the link or the connection is over, and says why that was.
    async fn send(&self, mut writer: impl AsyncWrite + Unpin, bell: Arc<Notify>, mut knobs: Knobs) -> String {
        let mut out = Vec::with_capacity(BODY_BYTES_MAX + 4096);
        loop {
            out.clear();
            let (next, unsent_bytes) = self.shared.poll_frame(self.lane, self.epoch, &mut out);
            match next {
                Next::Frames => {
                    knobs.set_unsent(unsent_bytes);
                    // The next frame is picked when the kernel has taken this one: so the choice is never stale.
                    if let Err(error) = write(&mut writer, &out).await {
                        return error.to_string();
                    }
                }
                Next::Idle => bell.notified().await,
                Next::Wait(until) => {
                    let pause = until.saturating_sub(self.shared.now());
                    let _ = timeout(pause, bell.notified()).await;
                }
                Next::Over => {
                    let _ = writer.shutdown().await;
                    return "the link is over".to_owned();
                }
            }
        }
    }
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) -> std::io::Result<()> {
    writer.write_all(bytes).await?;
    writer.flush().await
}
