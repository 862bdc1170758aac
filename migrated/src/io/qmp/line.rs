//! One connection to a monitor, from the dial to the first command: who answers, and that it is the QEMU that was meant.
//!
//! Knows nothing of commands but the one with which every connection begins.

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::{interval, sleep, timeout};

use super::QmpError;
use crate::qmp::{Message, Version, command_line, parse_line};

/// The longest line; the schema has some 200 KiB.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// How long a QEMU may take to greet: it talks to one at a time.
const GREETING_LIMIT: Duration = Duration::from_secs(30);
/// Between two attempts to connect to a QEMU that is busy with others.
const DIAL_EVERY: Duration = Duration::from_millis(5);
/// Between two attempts to connect again to a QEMU that lives.
const AGAIN: Duration = Duration::from_millis(20);

/// A connection that is ready for commands.
pub struct Line {
    pub reader: BufReader<OwnedReadHalf>,
    pub writer: OwnedWriteHalf,
    pub version: Version,
    /// QEMU's process, where the system says.
    pub pid: Option<i32>,
}

/// Connects as soon as QEMU has taken those who came before: its queue holds one or two.
pub async fn dial(path: &Path) -> io::Result<UnixStream> {
    let mut tick = interval(DIAL_EVERY);
    loop {
        tick.tick().await;
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

/// Connects, and has QEMU take commands.
pub async fn open(path: &Path) -> Result<Line, QmpError> {
    let failed = |reason: String| QmpError::Connect { path: path.into(), reason };
    let stream = timeout(GREETING_LIMIT, dial(path)).await.unwrap_or_else(|late| Err(late.into()));
    greet(path, stream.map_err(|error| failed(error.to_string()))?).await
}

async fn greet(path: &Path, stream: UnixStream) -> Result<Line, QmpError> {
    let failed = |reason: String| QmpError::Connect { path: path.into(), reason };
    // The socket was made by QEMU itself, so this is QEMU's process.
    let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let greeting = timeout(GREETING_LIMIT, read_line(&mut reader)).await;
    let greeting =
        greeting.map_err(|_| failed("it does not greet; does another program talk to it?".into()))?;
    let version = match greeting.map(|line| parse_line(&line)) {
        Some(Ok(Message::Greeting(version))) => version,
        Some(other) => return Err(failed(format!("this is no greeting of QEMU: {other:?}"))),
        None => return Err(failed("it closed the connection".into())),
    };
    let line = command_line(0, "qmp_capabilities", &json!({}));
    let written = writer.write_all(line.as_bytes()).await;
    written.map_err(|error| failed(format!("it does not listen: {error}")))?;
    let answer = timeout(GREETING_LIMIT, read_line(&mut reader)).await;
    match answer.ok().flatten().map(|line| parse_line(&line)) {
        Some(Ok(Message::Reply(Some(0), Ok(_)))) => Ok(Line { reader, writer, version, pid }),
        other => Err(failed(format!("it does not begin to take commands: {other:?}"))),
    }
}

/// Connects again to a QEMU whose connection broke. None: it has ended, or another one is in its place.
pub async fn reopen(path: &Path, pid: Option<i32>) -> Option<Line> {
    loop {
        let is_gone = |error: &io::Error| {
            matches!(error.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound)
        };
        match dial(path).await {
            Ok(stream) => match greet(path, stream).await {
                Ok(line) if line.pid == pid => return Some(line),
                Ok(_) => return None,
                // One that is just ending is gone at the next look.
                Err(error) => tracing::debug!(%error, "QEMU does not answer again yet"),
            },
            Err(error) if is_gone(&error) => return None,
            Err(error) => tracing::debug!(%error, "QEMU does not answer again yet"),
        }
        sleep(AGAIN).await;
    }
}

/// A line without its end; none where the connection ends, breaks, or the line does not end.
pub async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.ok()?;
    (line.pop() == Some(b'\n')).then_some(line)
}
