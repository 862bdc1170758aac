//! Whether a paired host may send what it sends: its `[allow.NAME]` against a guest, all refusals at once.

use crate::config::{Allow, Allowance, Pattern};
use crate::guest::Guest;

use super::{Refusal, Reservation, Reservations, Wanted};

const GIB: u64 = 1 << 30;

/// The host that sends a guest, and what it may send.
#[derive(Clone, Copy, Debug)]
pub struct Sender<'a> {
    /// The name under which it is paired.
    pub name: &'a str,
    /// What is said about it.
    pub allowance: Allowance<'a>,
}

/// Every reason why `sender` may not send `wanted`.
pub fn refusals(sender: Sender<'_>, promised: &Reservations, wanted: &Wanted<'_>) -> Vec<Refusal> {
    let allow = match sender.allowance {
        Allowance::Anything => return Vec::new(),
        Allowance::Nothing => return vec![Refusal::NotListed { peer: sender.name.into() }],
        Allowance::Only(allow) => allow,
    };
    let mut found = Found { peer: sender.name, refusals: Vec::new() };
    found.names(allow, wanted.guest);
    found.shares(allow, promised, wanted);
    found.refusals
}

struct Found<'a> {
    peer: &'a str,
    refusals: Vec<Refusal>,
}

impl Found<'_> {
    fn refuse(&mut self, key: &'static str, asked: String) {
        self.refusals.push(Refusal::NotAllowed { peer: self.peer.into(), key: key.into(), asked });
    }

    fn names(&mut self, allow: &Allow, guest: &Guest) {
        let is_in = |list: &Option<Vec<Pattern>>, name: &str| {
            list.as_ref().is_none_or(|list| list.iter().any(|pattern| pattern.matches(name)))
        };
        if !is_in(&allow.guests, &guest.name) {
            self.refuse("guests", format!("the guest {:?}", guest.name));
        }
        for nic in &guest.nics {
            if !is_in(&allow.bridges, &nic.bridge) {
                self.refuse("bridges", format!("{:?} for the card {}", nic.bridge, nic.id));
            }
            let networks = allow.addresses.as_ref();
            if let (Some(address), Some(networks)) = (nic.address, networks)
                && !networks.iter().any(|network| network.contains(address))
            {
                self.refuse("addresses", format!("{address} for the card {}", nic.id));
            }
            if let Some(name) = nic.dns_name.as_deref().map(|name| name.trim_end_matches('.'))
                && !is_in(&allow.dns_names, &name.to_ascii_lowercase())
            {
                self.refuse("dns_names", format!("{name:?} for the card {}", nic.id));
            }
        }
        for disk in &guest.disks {
            if allow.images.as_ref().is_some_and(|folder| !disk.image.starts_with(folder)) {
                self.refuse("images", format!("{:?} for the disk {}", disk.image, disk.id));
            }
        }
    }

    fn shares(&mut self, allow: &Allow, promised: &Reservations, wanted: &Wanted<'_>) {
        // What the guest itself holds, if it has come before, is what it will have.
        let held: Vec<&Reservation> = promised.of_peer(self.peer, &wanted.guest.name).collect();
        let sum = |of: fn(&Reservation) -> u64| held.iter().map(|one| of(one)).sum::<u64>();
        let disk_bytes: u64 = wanted.disks.iter().map(|disk| disk.size_bytes).fold(0, u64::saturating_add);
        let disk_gib = |bytes: u64| bytes.div_ceil(GIB);
        let shares = [
            ("guests_max", allow.guests_max, 1, held.len() as u64, "guests"),
            ("memory_mib", allow.memory_mib, wanted.guest.memory_mib, sum(|one| one.memory_mib), "MiB"),
            ("cpus", allow.cpus, wanted.guest.vcpus.into(), sum(|one| one.vcpus.into()), "CPUs"),
            (
                "disk_gib",
                allow.disk_gib,
                disk_gib(disk_bytes),
                disk_gib(sum(|one| one.disk_size_bytes)),
                "GiB",
            ),
        ];
        for (key, most, asked, used, unit) in shares {
            if let Some(most) = most
                && used.saturating_add(asked) > most
            {
                self.refuse(key, format!("{asked} more with {used} of {most} {unit} in use"));
            }
        }
    }
}
