//! Carries a byte stream of this host through a channel, both ways and unchanged: blockd's replica stream.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Channel;

/// Bytes that are on their way between the two at a time, in each direction.
const BUFFER_BYTES: usize = 256 << 10;

/// Copies until both directions have ended, or one has failed; an end is passed on, a failure breaks both off.
/// Returns the bytes from the socket to the channel, and back.
pub async fn copy_both(socket: UnixStream, channel: Channel) -> std::io::Result<(u64, u64)> {
    let (socket_reader, socket_writer) = socket.into_split();
    let (channel_reader, channel_writer) = tokio::io::split(channel);
    tokio::try_join!(copy(socket_reader, channel_writer), copy(channel_reader, socket_writer))
}

async fn copy(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) -> std::io::Result<u64> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut total = 0;
    loop {
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            to.shutdown().await?;
            return Ok(total);
        }
        to.write_all(&buffer[..count]).await?;
        total += count as u64;
    }
}
