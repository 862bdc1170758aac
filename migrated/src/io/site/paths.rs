//! Tunnels of moves that have ended: old connections still go through them, until the guest moves again.
//!
//! ```text
//! paths/GUEST.json ─► found by the daemon after this one; made again by the first one after the host has lost power
//!
//! A ──1──► B          both keep tunnel 1; A is the guest's home
//! A ◄──2── B          tunnel 1 goes at the pause; A needs no other to reach its own guest: tunnel 2 goes when B is done
//! A ──1──► B ──3──► C tunnel 1 goes at B, which is not its home
//! ```
//!
//! A guest is at home where it was when it moved first: there its address is everybody's without any tunnel. Decides
//! nothing about moves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tracing::{error, info, warn};
use tunnel::transfer::Mac;
use tunnel::{Side, Tunnel};

use crate::host::network::Led;
use crate::io::registry::Folder;

/// What outlives the daemon and the host's power of a guest's tunnels.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptPaths {
    /// Which guest.
    pub guest: String,
    /// The newest first.
    pub tunnels: Vec<KeptTunnel>,
    /// It was here when it moved first.
    pub is_home: bool,
}

/// One of them: its number, and what it is in words of the tunnel's own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptTunnel {
    /// The tunnel's number.
    pub number: u32,
    /// A record of `tunnel::record`.
    pub tunnel: String,
}

impl KeptTunnel {
    fn of(tunnel: &Tunnel) -> Self {
        Self { number: number(tunnel), tunnel: tunnel.written() }
    }
}

#[derive(Default)]
struct Kept {
    tunnels: Vec<Tunnel>,
    is_home: bool,
}

/// The tunnels of all guests that have moved from here or to here.
pub struct Paths {
    folder: Folder,
    /// Is there while the kernel is the one that had the tunnels: what it has not then, somebody has removed.
    boot_mark: PathBuf,
    kept: Mutex<BTreeMap<String, Kept>>,
}

impl Paths {
    /// Those that are kept below `state_dir`; to be found again by [`Self::find`]. `runtime_dir` is empty when a host has
    /// started.
    pub fn open(state_dir: &Path, runtime_dir: &Path) -> io::Result<Self> {
        let folder = Folder::open(state_dir.join("paths"))?;
        Ok(Self { folder, boot_mark: runtime_dir.join(".tunnels-made"), kept: Mutex::default() })
    }

    /// Finds the tunnels again that the daemon before this one has kept. Gives the addresses of this site's pool that
    /// lead into them, each with its guest.
    pub async fn find(&self) -> Vec<(Ipv4Addr, String)> {
        let records: Vec<KeptPaths> = match self.folder.load() {
            Ok(records) => records,
            Err(error) => {
                error!(%error, "cannot read which tunnels are kept in state_dir");
                return Vec::new();
            }
        };
        let has_booted = !self.boot_mark.exists();
        let mut is_complete = true;
        let mut addresses = Vec::new();
        for KeptPaths { guest, tunnels, is_home } in records {
            let written = tunnels.len();
            let tunnels = match has_booted {
                true => again(&guest, tunnels).await,
                false => found(tunnels.iter().map(|written| written.number)).await,
            };
            is_complete &= tunnels.len() == written;
            let here = |tunnel: &Tunnel| tunnel.record().0 == Side::Destination;
            addresses.extend(
                tunnels
                    .iter()
                    .filter_map(|tunnel| tunnel.record().1.new_address)
                    .map(|address| (address, guest.clone())),
            );
            let has_come_home = is_home && tunnels.iter().any(here);
            info!(guest, tunnels = tunnels.len(), "tunnels of an earlier move are found again");
            self.kept.lock().await.insert(guest.clone(), Kept { tunnels, is_home });
            if has_come_home {
                self.come_home(&guest).await;
            }
        }
        // Without the mark the next daemon tries again, for example when the bridge is there.
        if has_booted
            && is_complete
            && let Err(error) = File::create(&self.boot_mark)
        {
            warn!(%error, "the next daemon makes tunnels again that somebody has removed meanwhile");
        }
        addresses
    }

    /// Whether a guest that is elsewhere is at home here.
    pub async fn is_home(&self, guest: &str) -> bool {
        self.kept.lock().await.get(guest).is_some_and(|kept| kept.is_home)
    }

    /// The address that a guest which is here has of this site's pool, in addition to its own address.
    pub async fn new_address(&self, guest: &str, own: Option<Ipv4Addr>) -> Option<Ipv4Addr> {
        let kept = self.kept.lock().await;
        let tunnels = kept.get(guest).into_iter().flat_map(|kept| &kept.tunnels);
        let mut moves = tunnels.map(|tunnel| tunnel.record().1);
        moves.find(|moved| Some(moved.guest_address) == own)?.new_address
    }

    /// The guests that tunnels lead from here or to here.
    pub async fn led(&self) -> Vec<Led> {
        let all = self.kept.lock().await;
        let tunnels =
            all.iter().flat_map(|(guest, kept)| kept.tunnels.iter().map(move |tunnel| (guest, tunnel)));
        tunnels
            .map(|(guest, tunnel)| {
                let (_, moved) = tunnel.record();
                Led { guest: guest.clone(), mac: Mac(moved.guest_mac), address: moved.guest_address }
            })
            .collect()
    }

    /// Turns the tunnels of a guest's earlier moves off: it moves again, or comes back.
    pub async fn leave(&self, guest: &str) -> Result<()> {
        for tunnel in self.kept.lock().await.get(guest).iter().flat_map(|kept| &kept.tunnels) {
            tunnel.switch_back().await?;
        }
        Ok(())
    }

    /// Turns them on again: it does not move after all.
    pub async fn resume(&self, guest: &str) -> Result<()> {
        for tunnel in self.kept.lock().await.get(guest).iter().flat_map(|kept| &kept.tunnels) {
            tunnel.switch().await?;
        }
        Ok(())
    }

    /// A guest has left by these tunnels: those of earlier moves go. Where it is at home now, none is needed.
    pub async fn left(&self, guest: &str, tunnels: Vec<Tunnel>, to_home: bool) {
        let mut all = self.kept.lock().await;
        let is_home = all.get(guest).is_none_or(|kept| kept.is_home);
        self.replace(&mut all, guest, Kept { tunnels, is_home }).await;
        if to_home {
            self.end(&mut all, guest).await;
        }
    }

    /// A guest has come by these tunnels: those of earlier moves go.
    pub async fn came(&self, guest: &str, tunnels: Vec<Tunnel>) {
        let mut all = self.kept.lock().await;
        let is_home = all.get(guest).is_some_and(|kept| kept.is_home);
        self.replace(&mut all, guest, Kept { tunnels, is_home }).await;
    }

    /// The host that it came from sends nothing into the tunnels any more: a guest that is at home needs none.
    pub async fn come_home(&self, guest: &str) {
        let mut all = self.kept.lock().await;
        if all.get(guest).is_some_and(|kept| kept.is_home) {
            self.end(&mut all, guest).await;
        }
    }

    async fn replace(&self, all: &mut BTreeMap<String, Kept>, guest: &str, kept: Kept) {
        let is_home = kept.is_home;
        let fresh: Vec<KeptTunnel> = kept.tunnels.iter().map(KeptTunnel::of).collect();
        let earlier = all.insert(guest.to_owned(), kept).unwrap_or_default().tunnels;
        // Found again by a daemon after one that ends in the middle of this, which may be asked to do it again.
        let is_fresh = |tunnel: &Tunnel| fresh.iter().any(|written| written.number == number(tunnel));
        let earlier: Vec<Tunnel> = earlier.into_iter().filter(|tunnel| !is_fresh(tunnel)).collect();
        let both = fresh.iter().cloned().chain(earlier.iter().map(KeptTunnel::of)).collect();
        self.save(guest, both, is_home);
        if !earlier.is_empty() {
            remove(guest, earlier).await;
            self.save(guest, fresh, is_home);
        }
    }

    async fn end(&self, all: &mut BTreeMap<String, Kept>, guest: &str) {
        let kept = all.remove(guest).unwrap_or_default();
        remove(guest, kept.tunnels).await;
        if let Err(error) = self.folder.remove(guest) {
            warn!(guest, %error, "cannot forget the tunnels of an earlier move");
        }
    }

    fn save(&self, guest: &str, tunnels: Vec<KeptTunnel>, is_home: bool) {
        let record = KeptPaths { guest: guest.to_owned(), tunnels, is_home };
        if let Err(error) = tokio::task::block_in_place(|| self.folder.save(guest, &record)) {
            error!(guest, %error, "cannot write down which tunnels are kept: the next daemon does not know of them");
        }
    }
}

fn number(tunnel: &Tunnel) -> u32 {
    tunnel.record().1.id
}

/// The tunnels that are written down, also those that the kernel has lost.
async fn again(guest: &str, written: Vec<KeptTunnel>) -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for KeptTunnel { number, tunnel } in written {
        match Tunnel::again(number, &tunnel).await {
            Ok(tunnel) => tunnels.push(tunnel),
            // It stays written down, for the daemon after this one.
            Err(error) => error!(guest, number, %error, "cannot make the tunnel of an earlier move again"),
        }
    }
    tunnels
}

/// The tunnels with these numbers that are here.
pub async fn found(numbers: impl IntoIterator<Item = u32>) -> Vec<Tunnel> {
    let mut tunnels = Vec::new();
    for number in numbers {
        match Tunnel::found(number).await {
            Ok(tunnel) => tunnels.extend(tunnel),
            Err(error) => warn!(number, %error, "cannot look for a tunnel"),
        }
    }
    tunnels
}

async fn remove(guest: &str, tunnels: Vec<Tunnel>) {
    for tunnel in tunnels {
        if let Err(error) = tunnel.remove().await {
            warn!(guest, "cannot remove the tunnel of an earlier move: {error:#}");
        }
    }
}
