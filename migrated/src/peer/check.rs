//! The bounds of everything that another host says, checked before anything is done with it.
//!
//! ```text
//! bytes ── JSON, known kinds ───► message ── bound ──► numbers and names in their ranges, or the link ends
//!                                              └─────► texts for people: cut, without control characters
//! reserve ── faults ──► refused with all reasons at once
//! ```
//!
//! A migration's number becomes a file's name, a generation is counted on from, sizes are added up, texts are shown on
//! terminals: none of them may be what it likes.

use crate::guest::DEVICES_MAX;
use crate::heard;
use crate::image::size_fault;
use crate::report::Report;
use crate::status::Status;

use super::{Answer, Call, Message, Notice, PathPrepare, Request, Reserve, Reserved};

/// Longest number of a migration in bytes.
const ID_BYTES_MAX: usize = 64;
/// Generations count the moves of a guest.
const GENERATION_MAX: u64 = 1 << 40;
/// The largest disk in bytes: 64 TiB.
const DISK_BYTES_MAX: u64 = 64 << 40;
/// Tunnels have numbers of 24 bits, and a guest has one for each card from the first on.
const TUNNEL_MAX: u32 = (1 << 24) - 1 - DEVICES_MAX as u32;
/// Most addresses that other sites have given to a card.
pub const GIVEN_MAX: usize = 8;
/// Longest word for a program, like a version, in bytes.
const WORD_BYTES_MAX: usize = 64;
/// Longest text for people in characters, and most of them.
const TEXT_CHARS_MAX: usize = 2000;
const TEXTS_MAX: usize = 64;
/// Most bytes of a list of them: all lists of a message, each byte written as two, are shorter than a message may be.
const TEXTS_BYTES_MAX: usize = 32 * 1024;

/// What one host says to another.
pub trait Bounded {
    /// Puts texts into bounds; the error says which number or name is out of its own.
    fn bound(&mut self) -> Result<(), String>;
}

impl Bounded for Call {
    fn bound(&mut self) -> Result<(), String> {
        match &mut self.request {
            // Refused with reasons by whoever decides about it.
            Request::Reserve(_) => Ok(()),
            Request::PathPrepare(order) | Request::PathTry(order) => path(order),
            Request::Take { migration, generation, .. } | Request::Verdict { migration, generation } => {
                id(migration)?;
                counted(*generation)
            }
            Request::Consult { migration } | Request::Concluded { migration } => id(migration),
            Request::TakenBack { migration, guest, generation } => {
                id(migration)?;
                id(guest)?;
                counted(*generation)
            }
            Request::Abort { reason, .. } => {
                text(reason);
                Ok(())
            }
            Request::Mirror(status) => {
                mirrored(status);
                Ok(())
            }
            Request::PathSwitch {} | Request::PathBack {} | Request::Readdress {} | Request::Introduce {} => {
                Ok(())
            }
        }
    }
}

impl Bounded for Message {
    fn bound(&mut self) -> Result<(), String> {
        match self {
            Message::Answer { answer, .. } => match answer {
                Answer::Reserved(reserved) => return kept(reserved),
                Answer::Introduced { version } => return word("version", version),
                Answer::Refused { reasons } => texts(reasons),
                Answer::Readdressed { names, troubles } => {
                    texts(names);
                    texts(troubles);
                }
                Answer::Done {} | Answer::Verdict { .. } | Answer::Consulted { .. } => {}
            },
            Message::Notice { notice: Notice::Failed { reason } } => text(reason),
            Message::Notice { notice: Notice::Loaded {} | Notice::Running {} } => {}
        }
        Ok(())
    }
}

impl Reserve {
    /// All that is out of bounds, each with what it is.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.guest.check().err().unwrap_or_default();
        faults.extend(id(&self.migration).err());
        faults.extend(counted(self.generation).err());
        let copied = self.guest.disks.iter().filter(|disk| !disk.shared).map(|disk| &disk.id);
        if !copied.eq(self.disks.iter().map(|disk| &disk.id)) {
            faults.push(
                "disks: there must be one size for each disk that is not shared, in their order".into(),
            );
        }
        for disk in &self.disks {
            let fits =
                (1..=DISK_BYTES_MAX).contains(&disk.size_bytes) && disk.allocated_bytes <= 2 * DISK_BYTES_MAX;
            if !fits {
                faults.push(format!(
                    "disk {:?}: {} bytes ({} in use) are not between 1 and {DISK_BYTES_MAX}",
                    disk.id, disk.size_bytes, disk.allocated_bytes
                ));
            }
            faults.extend(size_fault(disk.size_bytes).map(|fault| format!("disk {}: {fault}", disk.id)));
        }
        let files = self.guest.boot.as_ref().map_or(0, |boot| 1 + usize::from(boot.initrd.is_some()));
        let is_digest = |text: &String| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if self.boot_digests.len() != files || !self.boot_digests.iter().all(is_digest) {
            faults.push(format!("boot_digests: there must be {files}, each of 64 hexadecimal digits"));
        }
        faults.extend(word("qemu_version", &self.qemu_version).err());
        faults.extend(word("architecture", &self.architecture).err());
        faults.extend(word("accel", &self.accel).err());
        let given = &self.given_addresses;
        let is_card = |name: &String| self.guest.nics.iter().any(|nic| nic.id == *name);
        if !given.iter().all(|(card, addresses)| is_card(card) && addresses.len() <= GIVEN_MAX) {
            faults.push(format!(
                "given_addresses: there are at most {GIVEN_MAX} for each card of the description"
            ));
        }
        faults
    }
}

fn path(order: &PathPrepare) -> Result<(), String> {
    let (tunnel, remote) = (order.tunnel, order.remote);
    if !(1..=TUNNEL_MAX).contains(&tunnel) {
        return Err(format!("tunnel: {tunnel} is not between 1 and {TUNNEL_MAX}"));
    }
    let is_one =
        !(remote.is_unspecified() || remote.is_multicast() || remote.is_broadcast() || remote.is_loopback());
    if is_one { Ok(()) } else { Err(format!("remote: {remote} is no address of one host")) }
}

fn kept(reserved: &mut Reserved) -> Result<(), String> {
    texts(&mut reserved.warnings);
    text(&mut reserved.reservation);
    word("qemu_version", &reserved.qemu_version)?;
    let count = reserved.new_addresses.len();
    if count <= DEVICES_MAX { Ok(()) } else { Err(format!("new_addresses: {count} are too many")) }
}

/// A number of a migration: it becomes a file's name.
fn id(text: &str) -> Result<(), String> {
    let fits = (1..=ID_BYTES_MAX).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if fits { Ok(()) } else { Err(format!("migration: {:?} is no number of one", short(text))) }
}

fn counted(generation: u64) -> Result<(), String> {
    if (1..=GENERATION_MAX).contains(&generation) {
        return Ok(());
    }
    Err(format!("generation: {generation} is not between 1 and {GENERATION_MAX}"))
}

fn word(field: &str, text: &str) -> Result<(), String> {
    let fits =
        text.len() <= WORD_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fits { Ok(()) } else { Err(format!("{field}: {:?} is no such word", short(text))) }
}

fn short(text: &str) -> String {
    text.chars().take(WORD_BYTES_MAX).collect()
}

/// Makes a text fit to be shown: not endless, and nothing in it that a terminal would obey.
pub(super) fn text(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(TEXT_CHARS_MAX) {
        text.truncate(end);
    }
    heard::clean(text);
}

fn texts(list: &mut Vec<String>) {
    list.truncate(TEXTS_MAX);
    list.iter_mut().for_each(text);
    let mut left_bytes = TEXTS_BYTES_MAX;
    let fits = list.iter().take_while(|text| {
        let fits = text.len() <= left_bytes;
        left_bytes = left_bytes.saturating_sub(text.len());
        fits
    });
    list.truncate(fits.count());
}

/// What the source shows of itself.
fn mirrored(status: &mut Status) {
    let Status { id, guest, source, destination, disks, link, warnings, reasons, report, .. } = status;
    let ways = [&mut link.congestion_control, &mut link.data_address, &mut link.control_address];
    for shown in [id, guest, source, destination].into_iter().chain(ways) {
        text(shown);
    }
    disks.truncate(DEVICES_MAX);
    disks.iter_mut().for_each(|disk| text(&mut disk.id));
    texts(warnings);
    texts(reasons);
    // The destination writes its own.
    *report = None::<Report>;
}

#[cfg(test)]
mod tests;
