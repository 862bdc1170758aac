//! Makes changes, and takes them back, in order.
//!
//! Neighbouring changes that are rtnetlink's go to the kernel in one send. Making stops at the first refusal and
//! names the change; taking back goes on past refusals, and what is gone already is no refusal: so it can be done
//! at any time, over anything.

use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;

use super::messages::{self, Link};
use super::netlink::{Netlink, Refused, Request};
use super::{gate, nft, sysctl};
use crate::change::{Change, Thing};
use crate::filter;
use crate::reason::{About, Refusal};

const ROUTE: isize = 0;
const NETFILTER: isize = 12;

/// A change that was not made.
#[derive(Debug, thiserror::Error)]
#[error("{change}: {reason}")]
pub struct ApplyError {
    /// Which.
    pub change: String,
    /// Why not.
    pub reason: Reason,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub enum Reason {
    /// The kernel refused it.
    #[error("{0}")]
    Refused(Refusal),
    /// It could not be asked, or nft refused.
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Reason {
    fn was_absent(&self) -> bool {
        match self {
            Reason::Refused(refusal) => refusal.was_absent(),
            Reason::Io(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// The kernel of the network namespace that this was opened in.
#[derive(Debug)]
pub struct Kernel {
    routes: Netlink,
    filters: Netlink,
}

/// Whether things are made or taken back.
#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Make,
    TakeBack,
}

impl Kernel {
    /// Open its sockets.
    pub fn open() -> io::Result<Self> {
        Ok(Self { routes: Netlink::open(ROUTE)?, filters: Netlink::open(NETFILTER)? })
    }

    /// Make all `changes`, up to the first that is refused.
    pub fn make(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        self.apply(changes, Mode::Make)
    }

    /// Make what takes other changes back, as far as there is something to take back; the first refusal, if any.
    pub fn take_back(&mut self, inverses: &[Change]) -> Result<(), ApplyError> {
        self.apply(inverses, Mode::TakeBack)
    }

    /// The device called `name`, where there is one.
    pub fn link(&mut self, name: &str) -> io::Result<Option<Link>> {
        match self.routes.ask(&messages::ask_link(name))? {
            Ok(found) => Ok(found.first().and_then(|payload| messages::read_link(payload))),
            Err(refused) if refused.errno == libc::ENODEV => Ok(None),
            Err(refused) => Err(io::Error::from_raw_os_error(refused.errno)),
        }
    }

    /// All devices.
    pub fn links(&mut self) -> io::Result<Vec<Link>> {
        let found = self.routes.ask(&messages::ask_links())?.map_err(error_of)?;
        Ok(found.iter().filter_map(|payload| messages::read_link(payload)).collect())
    }

    /// Addresses of the device with number `index`, and the bits of their networks.
    pub fn addresses(&mut self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let found = self.routes.ask(&messages::ask_addresses())?.map_err(error_of)?;
        let read = found.iter().filter_map(|payload| messages::read_address(payload));
        Ok(read.filter(|(device, ..)| *device == index).map(|(_, address, bits)| (address, bits)).collect())
    }

    fn apply(&mut self, changes: &[Change], mode: Mode) -> Result<(), ApplyError> {
        let mut first_error = None;
        let mut batch = Batch::default();
        for change in changes {
            let result = self.apply_one(change, &mut batch, mode);
            note(&mut first_error, result, mode)?;
        }
        note(&mut first_error, self.flush(&mut batch, mode), mode)?;
        first_error.map_or(Ok(()), Err)
    }

    /// Put `change` into the batch, or send the batch and make `change` itself.
    fn apply_one<'a>(
        &mut self,
        change: &'a Change,
        batch: &mut Batch<'a>,
        mode: Mode,
    ) -> Result<(), ApplyError> {
        let (thing, add) = match change {
            Change::Add(thing) => (thing, true),
            Change::Remove(thing) => (thing, false),
            Change::Set { device, setting, value, .. } => {
                self.flush(batch, mode)?;
                return judged(change, sysctl::write(device, *setting, *value).map_err(Reason::Io), mode);
            }
        };
        let made = match thing {
            Thing::Filter { family, table, body } => {
                self.flush(batch, mode)?;
                let word = family.word();
                let script = if add { filter::load(word, table, body) } else { filter::remove(word, table) };
                nft::run(&script).map_err(Reason::Io)
            }
            Thing::Gate { family, table, key } => {
                self.flush(batch, mode)?;
                self.send_gate(&gate::requests(*family, table, key, add))
            }
            _ => return self.queue(change, thing, add, batch, mode),
        };
        judged(change, made, mode)
    }

    fn send_gate(&mut self, requests: &[Request]) -> Result<(), Reason> {
        let answers = self.filters.send(requests)?;
        answers.into_iter().try_for_each(|answer| answer.map_err(|refused| reason_of(refused, About::Other)))
    }

    fn queue<'a>(
        &mut self,
        change: &'a Change,
        thing: &'a Thing,
        add: bool,
        batch: &mut Batch<'a>,
        mode: Mode,
    ) -> Result<(), ApplyError> {
        let mut index = 0;
        if let Some(device) = messages::device_needed(thing) {
            let known = batch.indices.get(device).copied();
            index = match known {
                Some(known) => known,
                None => {
                    // The device may be one that the batch makes.
                    self.flush(batch, mode)?;
                    let link = self.link(device).map_err(Reason::Io);
                    let absent =
                        || reason_of(Refused { errno: libc::ENODEV, said: String::new() }, About::Other);
                    match link.and_then(|link| link.ok_or_else(absent)) {
                        Ok(link) => link.index,
                        Err(reason) => return judged(change, Err(reason), mode),
                    }
                }
            };
            batch.indices.insert(device.to_owned(), index);
        }
        if let Some(request) = messages::request(thing, add, index) {
            batch.requests.push(request);
            batch.changes.push(change);
        }
        Ok(())
    }

    /// Send what has gathered. All of it is sent, whatever is refused; the first refusal is told.
    fn flush(&mut self, batch: &mut Batch<'_>, mode: Mode) -> Result<(), ApplyError> {
        let (requests, changes) = (std::mem::take(&mut batch.requests), std::mem::take(&mut batch.changes));
        let Some(first) = changes.first() else { return Ok(()) };
        let answers = self
            .routes
            .send(&requests)
            .map_err(|error| ApplyError { change: first.to_string(), reason: Reason::Io(error) })?;
        let results = changes.into_iter().zip(answers).map(|(change, answer)| {
            let about = match change {
                Change::Add(Thing::Device(_)) => About::NewDevice,
                _ => About::Other,
            };
            judged(change, answer.map_err(|refused| reason_of(refused, about)), mode)
        });
        results.fold(Ok(()), Result::and)
    }
}

/// What waits to be sent at once.
#[derive(Default)]
struct Batch<'a> {
    requests: Vec<Request>,
    changes: Vec<&'a Change>,
    indices: HashMap<String, u32>,
}

/// Whether what came of a change is a fault.
fn judged(change: &Change, made: Result<(), Reason>, mode: Mode) -> Result<(), ApplyError> {
    let Err(reason) = made else { return Ok(()) };
    let same_rule = matches!(change, Change::Add(Thing::Rule(_)))
        && matches!(&reason, Reason::Refused(refusal) if refusal.was_present());
    if same_rule || (mode == Mode::TakeBack && reason.was_absent()) {
        return Ok(());
    }
    Err(ApplyError { change: change.to_string(), reason })
}

/// Making ends with an error; taking back keeps the first and goes on.
fn note(
    first: &mut Option<ApplyError>,
    result: Result<(), ApplyError>,
    mode: Mode,
) -> Result<(), ApplyError> {
    match (result, mode) {
        (Err(error), Mode::TakeBack) => {
            first.get_or_insert(error);
            Ok(())
        }
        (result, _) => result,
    }
}

fn reason_of(refused: Refused, about: About) -> Reason {
    Reason::Refused(Refusal { errno: refused.errno, said: refused.said, about })
}

fn error_of(refused: Refused) -> io::Error {
    io::Error::from_raw_os_error(refused.errno)
}
