//! Finds out which data address of a peer is the fastest, by sending to all of them for a moment, at once.
//!
//! At once, so that it takes no longer with several, and two addresses at one bottleneck look alike. What is sent means
//! nothing. With a limit the probes together send no more than it allows in a second.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::dialler::{Dialler, fill_random};
use super::shared::Shared;
use crate::io::tls::greeting::{Secured, Unheard, hear};
use crate::link::addresses::Found;
use crate::link::error::LinkError;
use crate::link::hello::{Message, Purpose};
use crate::link::probe::{PROBE_BYTES_MAX, Probe, Probed};
use crate::quantity::rate;
use crate::transport::Transport;

/// How long a probe may take, its connection included.
const WITHIN: Duration = Duration::from_secs(3);
/// The least that is sent, whatever the limit.
const BYTES_MIN: u64 = 64 << 10;
/// Bytes that are written or read at once.
const BLOCK_BYTES: usize = 16 << 10;
/// What the kernel may hold unsent: what is not sent when the probe ends was for nothing.
const UNSENT_BYTES: u64 = 32 << 10;

/// Probes the peer's data addresses, where there is a choice, and puts the fastest first.
pub(super) async fn choose(dialler: &Arc<Dialler>, shared: &Arc<Shared>) {
    let addresses = shared.with(|state, _| state.addresses.bulk().to_vec());
    if addresses.len() < 2 || !dialler.config.probes || dialler.transport != Transport::Tcp {
        return;
    }
    let limit = dialler.config.bandwidth_bytes_per_s.unwrap_or(u64::MAX);
    let bytes = (limit / addresses.len() as u64).clamp(BYTES_MIN, PROBE_BYTES_MAX);
    let mut probes = JoinSet::new();
    for address in addresses {
        let dialler = dialler.clone();
        probes.spawn(async move {
            let probed = timeout(WITHIN, probe(&dialler, address, bytes)).await;
            let rate = match probed {
                Ok(Ok(probed)) => Ok(probed.bytes_per_s()),
                Ok(Err(error)) => Err(error.to_string()),
                Err(_) => Err(format!("no answer within {} s", WITHIN.as_secs())),
            };
            Found { address, rate }
        });
    }
    let found = probes.join_all().await;
    let chosen = shared.with(|state, _| {
        state.addresses.rank(&found);
        state.found.clone_from(&found);
        state.found.sort_by_key(|found| std::cmp::Reverse(found.rate.clone().ok()));
        state.addresses.bulk()[0]
    });
    let told: Vec<String> = found.iter().map(told).collect();
    shared.tell(format!("link: of its data addresses {chosen} is taken ({})", told.join(", ")));
}

fn told(found: &Found) -> String {
    match &found.rate {
        Ok(bytes_per_s) => format!("{}: {}", found.address, rate(*bytes_per_s)),
        Err(why) => format!("{}: {why}", found.address),
    }
}

/// Sends until the other side says what arrived.
async fn probe(dialler: &Dialler, to: SocketAddr, bytes: u64) -> Result<Probed, LinkError> {
    let mut secured = dialler.connect(Purpose::Probe, to, WITHIN).await?;
    secured.knobs.set_unsent(UNSENT_BYTES);
    let (mut reader, mut writer) = tokio::io::split(secured.stream);
    let send = async {
        let mut block = vec![0; BLOCK_BYTES];
        fill_random(&mut block);
        let mut left = bytes;
        while left > 0 {
            let count = left.min(BLOCK_BYTES as u64);
            // What fails here is told by what is heard, or not.
            if writer.write_all(&block[..count as usize]).await.is_err() {
                break;
            }
            left -= count;
        }
        let _ = writer.flush().await;
        let _ = writer.shutdown().await;
        std::future::pending().await
    };
    let heard: Result<Message, Unheard> = tokio::select! {
        heard = hear(&mut reader) => heard,
        never = send => never,
    };
    match heard {
        Ok(Message::Probed(probed)) => Ok(probed),
        Ok(Message::Refused(refused)) => Err(refused.into()),
        Ok(other) => Err(LinkError::Garbage(format!("{to} answers a probe with {other:?}"))),
        Err(error) => Err(LinkError::Unreachable(format!("{to}: {error}"))),
    }
}

/// The listener's part, after its welcome: counts what comes, and says it.
pub(super) async fn count(mut secured: Secured) -> std::io::Result<()> {
    let start = Instant::now();
    let mut buffer = vec![0; BLOCK_BYTES];
    let first = secured.stream.read(&mut buffer).await?;
    let mut probe = Probe::new(start.elapsed());
    let mut more = first > 0 && probe.handle_bytes(first as u64, start.elapsed());
    while more {
        let now = start.elapsed();
        let left = probe.ends_at(now).saturating_sub(now);
        let Ok(read) = timeout(left, secured.stream.read(&mut buffer)).await else { break };
        let bytes = read? as u64;
        more = bytes > 0 && probe.handle_bytes(bytes, start.elapsed());
    }
    secured.say(&Message::Probed(probe.result())).await?;
    secured.stream.shutdown().await?;
    // Closing with bytes unread would reset the connection, and the answer with it.
    while secured.stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
    Ok(())
}
