//! Serves the API's socket: a task a connection, so that no client waits for another.
//!
//! ```text
//! accept ─► who is it? (root or our own user) ─► room for one more? ─► line ─► Host::answer ─► line ─► …
//! ```
//!
//! A line that makes no sense is answered and does not end the connection; a line without an end does. A client that
//! does not take its answer is dropped. What commands mean is the [`Host`]'s business.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use nix::unistd::geteuid;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use crate::api::line::{BadLine, REQUEST_BYTES_MAX, Request, parse_request, reply_line};
use crate::api::{Command, Failure, FailureCode};

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 32;
/// A client that does not take its answer for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What answers the commands. Called for several clients at once.
pub trait Host: Send + Sync + 'static {
    /// Does what is asked, and answers what the reply's `ok` holds.
    fn answer(&self, command: Command) -> impl Future<Output = Result<Value, Failure>> + Send;
}

/// Serves until the task is dropped; the connections' tasks go on to the end of their clients.
pub async fn serve<H: Host>(listener: UnixListener, host: Arc<H>) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => admit(stream, &host, &room),
            Err(error) => {
                warn!(%error, "cannot accept a connection of the API");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit<H: Host>(stream: UnixStream, host: &Arc<H>, room: &Arc<Semaphore>) {
    if let Err(failure) = check_peer(&stream) {
        return turn_away(&stream, failure);
    }
    let Ok(permit) = Arc::clone(room).try_acquire_owned() else {
        let message = format!("{CONNECTIONS_MAX} connections are open");
        return turn_away(&stream, Failure::new(FailureCode::Conflict, message, "close one"));
    };
    tokio::spawn(run(stream, Arc::clone(host), permit));
}

async fn run<H: Host>(stream: UnixStream, host: Arc<H>, _permit: OwnedSemaphorePermit) {
    if let Err(error) = converse(stream, &*host).await {
        debug!(%error, "a connection of the API ended");
    }
}

fn check_peer(stream: &UnixStream) -> Result<(), Failure> {
    let peer = stream
        .peer_cred()
        .map_err(|error| Failure::new(FailureCode::Failed, format!("who are you? {error}"), ""))?;
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    warn!(uid = peer.uid(), pid = peer.pid(), "turned a stranger away from the API");
    let message = format!("user {} may not control this daemon", peer.uid());
    Err(Failure::new(FailureCode::Denied, message, "ask as root or as the daemon's own user"))
}

fn turn_away(stream: &UnixStream, failure: Failure) {
    // A fresh socket takes a short line at once; a client that does not even take this is none of our worry.
    let _ = stream.try_write(&reply_line(None, &Err(failure)));
}

async fn converse<H: Host>(stream: UnixStream, host: &H) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(REQUEST_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line).await?;
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        if !whole && line.len() <= REQUEST_BYTES_MAX {
            return Ok(()); // the end of the stream; half a line is no request
        }
        let reply = answer(&line, host).await;
        let sent = timeout(WRITE_TIMEOUT, writer.write_all(&reply)).await;
        sent.map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the client does not take its answer"))??;
        if !whole {
            return Ok(()); // too long, and said so: where the next line begins is not known
        }
    }
}

async fn answer<H: Host>(line: &[u8], host: &H) -> Vec<u8> {
    match parse_request(line) {
        Ok(Request { id, command }) => reply_line(Some(id), &host.answer(command).await),
        Err(BadLine { id, failure }) => reply_line(id, &Err(failure)),
    }
}
