//! One end of one guest's tunnel, from its making to its end.
//!
//! ```text
//!             prepare ──► prepared ──switch──► switched
//!                            │  ◄─switch_back──   │
//!                            └──────► gone ◄──────┘  remove, or remove_leftovers by the id alone
//! ```
//!
//! Every step may be repeated, and `switch_back` and `remove` may come at any time: they undo what is there. A step
//! that fails has undone what it did.

use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::apply::{ApplyError, Kernel};
use super::probe::{self, ProbeError};
use super::{announce, nft};
use crate::change::{Change, Device, Family, Thing, undo};
use crate::filter;
use crate::plan::{self, Host};
use crate::record::Record;
use crate::transfer::{BadMove, Move, Side, check_id, device_of, is_transit_mac};

mod host;

use host::{bridge, look, others, records, see_whose};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The move itself cannot be.
    #[error(transparent)]
    BadMove(#[from] BadMove),
    /// This host has no such bridge.
    #[error("there is no bridge {bridge} here; make it, or map the guest's bridge to one of this host")]
    NoBridge {
        /// Its name.
        bridge: String,
    },
    /// The kernel, or nft, refused a change.
    #[error("{0}")]
    Change(#[from] ApplyError),
    /// The number is another path's, which stays as it is.
    #[error(
        "the tunnel number {id} is taken at this host; begin the migration anew, and it gets another one"
    )]
    Taken {
        /// Which.
        id: u32,
    },
    /// The guest's card has as many ends here as a card ever needs.
    #[error(
        "{address} has tunnels enough at this host already; those of attempts that have failed go when these end"
    )]
    Enough {
        /// The card's.
        address: Ipv4Addr,
    },
    /// Nobody answered at the other end.
    #[error("the tunnel's other end: {0}")]
    Probe(#[from] ProbeError),
    /// Something of the system failed.
    #[error("{what}: {source}")]
    System {
        /// What was to be done.
        what: &'static str,
        /// Why it was not.
        source: io::Error,
    },
}

/// What a switch did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SwitchReport {
    /// From the first change to the last, without announcements.
    pub took: Duration,
    /// How many changes.
    pub changes: usize,
    /// Whether the neighbours were told. They find the way without it, later.
    pub announced: bool,
}

/// One end of one guest's tunnel. Clones are the same end.
#[derive(Clone, Debug)]
pub struct Tunnel {
    end: Arc<End>,
}

#[derive(Debug)]
struct End {
    side: Side,
    moved: Move,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    kernel: Kernel,
    host: Host,
    switched: bool,
}

/// Held while settings are looked at and written down, or restored: between the two, another move could take a
/// changed setting for the original.
static SETTINGS: Mutex<()> = Mutex::new(());

impl Tunnel {
    /// Make this end, replacing what an earlier attempt of the same move has left. Changes nobody's path.
    pub async fn prepare(side: Side, moved: Move) -> Result<Self, TunnelError> {
        blocking(move || {
            moved.check()?;
            let _settings = lock(&SETTINGS);
            let mut kernel = Kernel::open().map_err(system("open netlink"))?;
            see_whose(&mut kernel, side, &moved)?;
            clear(&mut kernel, moved.id)?;
            let host = look(&mut kernel, side, &moved)?;
            let changes = plan::prepare(side, &moved, &host);
            make_or_undo(&mut kernel, &changes)?;
            let state = Mutex::new(State { kernel, host, switched: false });
            Ok(Self { end: Arc::new(End { side, moved, state }) })
        })
        .await
    }

    /// The end of move `id` that an earlier process has made here, from what its device remembers. None: there is none.
    pub async fn found(id: u32) -> Result<Option<Self>, TunnelError> {
        blocking(move || {
            check_id(id)?;
            let mut kernel = Kernel::open().map_err(system("open netlink"))?;
            let Some(record) = records(&mut kernel)?.into_iter().find(|record| record.moved.id == id) else {
                return Ok(None);
            };
            let Record { side, moved, earlier } = record;
            // Without its bridge it can be removed all the same; a switch looks again.
            let bridge_mac = bridge(&mut kernel, &moved.bridge).map_or([0; 6], |(_, mac)| mac);
            // Sizes do not matter to what is there, nor to its removal.
            let host = Host { bridge_mac, bridge_address: None, earlier, path_bytes: 0 };
            // Maybe not; but then switching back has nothing to undo.
            let state = Mutex::new(State { kernel, host, switched: true });
            Ok(Some(Self { end: Arc::new(End { side, moved, state }) }))
        })
        .await
    }

    /// What outlives this host's power, for [`Self::again`].
    pub fn written(&self) -> String {
        let End { side, moved, .. } = &*self.end;
        // The bridge's settings are looked at anew by whoever makes it again, and so is its port.
        let moved = Move { tap: None, ..moved.clone() };
        Record { side: *side, moved, earlier: Vec::new() }.to_text()
    }

    /// The end of move `id` that is written down: as it was found, or made and switched again where the host has lost
    /// power since.
    pub async fn again(id: u32, written: &str) -> Result<Self, TunnelError> {
        if let Some(tunnel) = Self::found(id).await? {
            return Ok(tunnel);
        }
        let Record { side, moved, .. } = Record::parse(id, written).ok_or_else(|| TunnelError::System {
            what: "read what was written down of a tunnel",
            source: io::ErrorKind::InvalidData.into(),
        })?;
        let tunnel = Self::prepare(side, moved).await?;
        if let Err(error) = tunnel.switch().await {
            if let Err(second) = tunnel.remove().await {
                tracing::warn!(id, %second, "a tunnel that could not be made again is not removed");
            }
            return Err(error);
        }
        Ok(tunnel)
    }

    /// The time that the other end takes to answer through the tunnel.
    pub async fn probe(&self, timeout: Duration) -> Result<Duration, TunnelError> {
        let End { side, moved, .. } = &*self.end;
        Ok(probe::through(Some(&moved.device()), moved.transit(side.other()), timeout).await?)
    }

    /// From now on the guest is at the destination, as far as packets are concerned. Refused changes are undone.
    pub async fn switch(&self) -> Result<SwitchReport, TunnelError> {
        let end = self.end.clone();
        blocking(move || end.switch()).await
    }

    /// From now on the guest is at the source again. Does nothing where nothing was switched.
    pub async fn switch_back(&self) -> Result<(), TunnelError> {
        let end = self.end.clone();
        blocking(move || end.switch_back()).await
    }

    /// Undo everything. Where it fails, all else is undone, and it may be called again.
    pub async fn remove(&self) -> Result<(), TunnelError> {
        let end = self.end.clone();
        blocking(move || {
            let _settings = lock(&SETTINGS);
            let mut state = lock(&end.state);
            let State { kernel, host, switched } = &mut *state;
            *switched = false;
            let record = Record { side: end.side, moved: end.moved.clone(), earlier: host.earlier.clone() };
            take_back_all(kernel, &record)
        })
        .await
    }

    /// Tell the neighbours again: at the source that the guest's address is at this host's router, at the
    /// destination the same of its new address. Some of what is said once is lost.
    pub async fn announce(&self) -> Result<(), TunnelError> {
        let end = self.end.clone();
        blocking(move || end.announce(&mut lock(&end.state))).await
    }

    /// What was prepared, and for which side.
    pub fn record(&self) -> (Side, &Move) {
        (self.end.side, &self.end.moved)
    }
}

impl End {
    fn switch(&self) -> Result<SwitchReport, TunnelError> {
        let mut state = lock(&self.state);
        self.follow_bridge(&mut state)?;
        let changes = plan::switch(self.side, &self.moved, &state.host);
        let begun = Instant::now();
        make_or_undo(&mut state.kernel, &changes)?;
        let took = begun.elapsed();
        state.switched = true;
        let announced = self.announce(&mut state);
        if let Err(error) = &announced {
            tracing::warn!(device = self.moved.device(), %error, "switched, but neighbours were not told");
        }
        Ok(SwitchReport { took, changes: changes.len(), announced: announced.is_ok() })
    }

    /// A bridge without a MAC of its own takes its lowest port's: then it may have changed with the guest's port.
    fn follow_bridge(&self, state: &mut State) -> Result<(), TunnelError> {
        let mac = bridge(&mut state.kernel, &self.moved.bridge)?.1;
        if mac == state.host.bridge_mac {
            return Ok(());
        }
        state.host.bridge_mac = mac;
        let prepared = plan::prepare(self.side, &self.moved, &state.host);
        let filters: Vec<Change> = prepared
            .into_iter()
            .filter(|change| matches!(change, Change::Add(Thing::Filter { .. })))
            .collect();
        Ok(state.kernel.make(&filters)?)
    }

    fn switch_back(&self) -> Result<(), TunnelError> {
        let _settings = lock(&SETTINGS);
        let mut state = lock(&self.state);
        if !state.switched {
            return Ok(());
        }
        let mut inverses = undo(&plan::switch(self.side, &self.moved, &state.host));
        keep_shared_settings(&mut state.kernel, &self.moved, &mut inverses)?;
        state.kernel.take_back(&inverses)?;
        state.switched = false;
        if self.side == Side::Source {
            // Sent by this host, for the guest: whoever learned its router's MAC forgets it.
            let told = self.say(&mut state, self.moved.guest_address, self.moved.guest_mac);
            if let Err(error) = told {
                tracing::warn!(device = self.moved.device(), %error, "switched back, but neighbours were not told");
            }
        }
        Ok(())
    }

    fn announce(&self, state: &mut State) -> Result<(), TunnelError> {
        let address = match self.side {
            Side::Source => Some(self.moved.guest_address),
            Side::Destination => self.moved.new_address,
        };
        let mac = state.host.bridge_mac;
        address.map_or(Ok(()), |address| self.say(state, address, mac))
    }

    fn say(&self, state: &mut State, address: Ipv4Addr, mac: [u8; 6]) -> Result<(), TunnelError> {
        let (index, sender) = bridge(&mut state.kernel, &self.moved.bridge)?;
        announce::announce(index, sender, address, mac).map_err(system("announce the address"))
    }
}

/// Undo whatever is left of move `id` at this host, at whichever side it was.
pub async fn remove_leftovers(id: u32) -> Result<(), TunnelError> {
    blocking(move || {
        check_id(id)?;
        let _settings = lock(&SETTINGS);
        let mut kernel = Kernel::open().map_err(system("open netlink"))?;
        clear(&mut kernel, id)
    })
    .await
}

/// Every move that this host has an end of.
pub async fn existing() -> Result<Vec<(Side, Move)>, TunnelError> {
    blocking(|| {
        let mut kernel = Kernel::open().map_err(system("open netlink"))?;
        Ok(records(&mut kernel)?.into_iter().map(|record| (record.side, record.moved)).collect())
    })
    .await
}

/// Undo whatever is left of moves that were only to be tried.
pub async fn remove_trials() -> Result<(), TunnelError> {
    for (_, moved) in existing().await? {
        if moved.is_trial() {
            remove_leftovers(moved.id).await?;
        }
    }
    Ok(())
}

fn clear(kernel: &mut Kernel, id: u32) -> Result<(), TunnelError> {
    let left = records(kernel)?.into_iter().find(|record| record.moved.id == id);
    if let Some(record) = left {
        return take_back_all(kernel, &record);
    }
    // Without a record there can be a device that died young, and tables whose device somebody else removed.
    let table = device_of(id);
    for family in Family::ALL {
        nft::run(&filter::remove(family.word(), &table)).map_err(system("remove left-over packet rules"))?;
    }
    let Some(link) = kernel.link(&table).map_err(system("look for a left-over device"))? else {
        return Ok(());
    };
    if !link.mac.is_some_and(|mac| is_transit_mac(mac, id)) {
        let source = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(TunnelError::System {
            what: "somebody else's device has the name of this move's",
            source,
        });
    }
    let unspecified = Ipv4Addr::UNSPECIFIED;
    let young =
        Device { name: table, vni: id, local: unspecified, remote: unspecified, mac: [0; 6], mtu_bytes: 0 };
    Ok(kernel.take_back(&[Change::Remove(Thing::Device(young))])?)
}

fn take_back_all(kernel: &mut Kernel, record: &Record) -> Result<(), TunnelError> {
    let Record { side, moved, earlier } = record;
    // MAC and address of the bridge, and sizes, do not matter to what is removed.
    let host = Host { bridge_mac: [0; 6], bridge_address: None, earlier: earlier.clone(), path_bytes: 0 };
    let changes = [plan::prepare(*side, moved, &host), plan::switch(*side, moved, &host)].concat();
    let mut inverses = undo(&changes);
    keep_shared_settings(kernel, moved, &mut inverses)?;
    Ok(kernel.take_back(&inverses)?)
}

/// Settings of the bridge that another move needs too stay as they are; that one restores them.
fn keep_shared_settings(
    kernel: &mut Kernel,
    moved: &Move,
    inverses: &mut Vec<Change>,
) -> Result<(), TunnelError> {
    let others = others(kernel, moved)?;
    inverses.retain(|change| match change {
        Change::Set { device, setting, .. } if *device == moved.bridge => {
            others.iter().all(|record| record.earlier(*setting).is_none())
        }
        _ => true,
    });
    Ok(())
}

fn make_or_undo(kernel: &mut Kernel, changes: &[Change]) -> Result<(), TunnelError> {
    let Err(error) = kernel.make(changes) else { return Ok(()) };
    if let Err(second) = kernel.take_back(&undo(changes)) {
        tracing::warn!(%second, "after a refused change, another one could not be undone");
    }
    Err(error.into())
}

fn system(what: &'static str) -> impl Fn(io::Error) -> TunnelError {
    move |source| TunnelError::System { what, source }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The kernel takes tens of milliseconds for some changes: not on a thread that others wait for.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, TunnelError> + Send + 'static,
) -> Result<T, TunnelError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => {
            Err(TunnelError::System { what: "the program is ending", source: io::Error::other(error) })
        }
    }
}
