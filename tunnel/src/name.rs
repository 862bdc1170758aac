//! Which of a name's addresses was the guest's, and how only that one is changed.
//!
//! ```text
//! name ► OLD, X, Y   ──►  expected OLD, X, Y: delete OLD, add NEW       the others stay, and their time to live
//! name ► NEW, …      ──►  nothing: it is done already                   an update whose answer was lost
//! name ► nothing     ──►  expected nothing: add NEW
//! name ► X           ──►  refused: none of it was the guest's
//! name ► (alias)     ──►  refused: an update of an alias is passed over in silence (RFC 2136, 3.4.2.2)
//! ```
//!
//! What is expected is a prerequisite of the update: the server compares and changes in one step, so of two that change
//! a name at once one has to look again.
//!
//! It refuses to guess: an address that is not known to have been the guest's is somebody else's.

use std::net::Ipv4Addr;

/// What a name leads to, as its server says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its addresses, each with its time to live in seconds.
    pub addresses: Vec<(Ipv4Addr, u32)>,
    /// It is an alias (CNAME) of this name.
    pub alias: Option<String>,
}

impl Found {
    /// Its addresses alone.
    pub fn hosts(&self) -> Vec<Ipv4Addr> {
        self.addresses.iter().map(|(address, _)| *address).collect()
    }

    fn holds(&self, address: Ipv4Addr) -> bool {
        self.addresses.iter().any(|(held, _)| *held == address)
    }
}

/// How a guest's name is to follow it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameChange {
    /// The name, in full.
    pub name: String,
    /// The addresses that the guest has had: its own, and those that other sites gave it.
    pub had: Vec<Ipv4Addr>,
    /// What the name is to lead to.
    pub new: Ipv4Addr,
    /// How long resolvers may remember it in seconds, where the name leads to nothing else.
    pub ttl_s: u32,
}

/// What an update does to a name's addresses, if they are as expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// All that the name leads to now; empty: it leads to no address.
    pub expected: Vec<Ipv4Addr>,
    /// Those that go.
    pub delete: Vec<Ipv4Addr>,
    /// The one that comes, with its time to live in seconds.
    pub add: Option<(Ipv4Addr, u32)>,
}

/// Why a name cannot follow its guest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// It has no addresses of its own.
    #[error(
        "{name} is an alias (CNAME) of {target}: write {target} as the guest's dns_name, or make {name} a name with an address"
    )]
    Alias {
        /// The name.
        name: String,
        /// What it stands for.
        target: String,
    },
    /// It leads elsewhere.
    #[error(
        "{name} leads to {} and to no address of the guest ({}), so it stays as it is: change it by hand if it is the guest's",
        listed(.found), listed(.had)
    )]
    Elsewhere {
        /// The name.
        name: String,
        /// What it leads to.
        found: Vec<Ipv4Addr>,
        /// What the guest has had.
        had: Vec<Ipv4Addr>,
    },
}

impl NameChange {
    /// What has to be done where the name leads to `found`; none: nothing.
    ///
    /// All addresses of a name have one time to live (RFC 2181, 5.2), and servers give all of them that of the one that
    /// was added last: where others stay, theirs is kept.
    pub fn swap(&self, found: &Found) -> Result<Option<Swap>, Unfit> {
        if let Some(target) = found.alias.clone() {
            return Err(Unfit::Alias { name: self.name.clone(), target });
        }
        let is_old = |address: &Ipv4Addr| self.had.contains(address) && *address != self.new;
        let expected = found.hosts();
        let delete: Vec<Ipv4Addr> = expected.iter().copied().filter(is_old).collect();
        if delete.is_empty() && found.holds(self.new) {
            return Ok(None);
        }
        if delete.is_empty() && !expected.is_empty() {
            let (name, had) = (self.name.clone(), self.had.clone());
            return Err(Unfit::Elsewhere { name, found: expected, had });
        }
        let kept = found.addresses.iter().find(|(address, _)| !is_old(address));
        let ttl_s = kept.map_or(self.ttl_s, |(_, ttl_s)| *ttl_s);
        Ok(Some(Swap { expected, delete, add: Some((self.new, ttl_s)) }))
    }

    /// Whether `found` is what was wanted.
    pub fn is_done(&self, found: &Found) -> bool {
        found.holds(self.new) && !self.had.iter().any(|had| *had != self.new && found.holds(*had))
    }
}

/// A change that changes nothing, and that only who may change the name's addresses may ask for: an address that is not
/// there is deleted.
pub fn nothing_to(found: &Found) -> Swap {
    // Reserved for documentation (RFC 5737): a name has at most a few dozen addresses.
    let absent = (0..=255).map(|last| Ipv4Addr::new(192, 0, 2, last)).find(|address| !found.holds(*address));
    Swap { expected: found.hosts(), delete: absent.into_iter().collect(), add: None }
}

/// Addresses in a row, for people.
pub fn listed(addresses: &[Ipv4Addr]) -> String {
    let told: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    if told.is_empty() { "no address".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::{Found, NameChange, Swap, Unfit, nothing_to};
    use std::net::Ipv4Addr;

    const HOME: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 10);
    const AT_B: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 100);
    const AT_C: Ipv4Addr = Ipv4Addr::new(10, 3, 0, 100);
    const OTHER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);

    fn found(addresses: &[Ipv4Addr]) -> Found {
        Found { addresses: addresses.iter().map(|address| (*address, 300)).collect(), alias: None }
    }

    fn change(had: &[Ipv4Addr], new: Ipv4Addr) -> NameChange {
        NameChange { name: "web.lab.test".to_owned(), had: had.to_vec(), new, ttl_s: 60 }
    }

    /// What the name leads to after a swap, as a server does it.
    fn after(found: &Found, swap: &Swap) -> Found {
        assert_eq!(found.hosts(), swap.expected);
        let mut addresses = found.addresses.clone();
        addresses.retain(|(address, _)| !swap.delete.contains(address));
        if let Some((new, ttl_s)) = swap.add {
            addresses.retain(|(address, _)| *address != new);
            addresses.push((new, ttl_s));
            addresses.iter_mut().for_each(|(_, ttl)| *ttl = ttl_s);
        }
        Found { addresses, alias: None }
    }

    #[track_caller]
    fn moved(change: &NameChange, before: &[Ipv4Addr], wanted: &[(Ipv4Addr, u32)]) {
        let before = found(before);
        let swap = change.swap(&before).unwrap().expect("there is something to do");
        let after = after(&before, &swap);
        assert_eq!(after.addresses, wanted);
        assert!(change.is_done(&after) && !change.is_done(&before));
        // Once more, as after an answer that was lost.
        assert_eq!(change.swap(&after), Ok(None));
    }

    #[test]
    fn only_the_address_that_was_the_guests_is_changed() {
        moved(&change(&[HOME], AT_B), &[HOME], &[(AT_B, 60)]);
        moved(&change(&[HOME], AT_B), &[HOME, OTHER], &[(OTHER, 300), (AT_B, 300)]);
        moved(&change(&[HOME], AT_B), &[OTHER, HOME], &[(OTHER, 300), (AT_B, 300)]);
        // A name that leads to nothing.
        moved(&change(&[HOME], AT_B), &[], &[(AT_B, 60)]);
        // Both are there: somebody has added the new one by hand.
        moved(&change(&[HOME], AT_B), &[HOME, AT_B], &[(AT_B, 300)]);
    }

    #[test]
    fn a_guest_comes_home_or_moves_on() {
        moved(&change(&[HOME, AT_B], HOME), &[AT_B, OTHER], &[(OTHER, 300), (HOME, 300)]);
        moved(&change(&[HOME, AT_B], AT_C), &[AT_B], &[(AT_C, 60)]);
        // The update at B had failed.
        moved(&change(&[HOME, AT_B], AT_C), &[HOME], &[(AT_C, 60)]);
        // It had failed, and the guest comes home: nothing is to be done.
        assert_eq!(change(&[HOME, AT_B], HOME).swap(&found(&[HOME, OTHER])), Ok(None));
    }

    #[test]
    fn what_was_never_the_guests_is_left_alone() {
        let elsewhere = change(&[HOME], AT_B).swap(&found(&[OTHER])).unwrap_err();
        assert_eq!(
            elsewhere.to_string(),
            "web.lab.test leads to 10.1.0.11 and to no address of the guest (10.1.0.10), so it stays as it is: \
             change it by hand if it is the guest's"
        );
        let alias = Found { alias: Some("www.lab.test".to_owned()), ..found(&[]) };
        let refused = change(&[HOME], AT_B).swap(&alias).unwrap_err();
        assert!(matches!(&refused, Unfit::Alias { .. }));
        assert!(refused.to_string().contains("an alias (CNAME) of www.lab.test"), "{refused}");
    }

    #[test]
    fn asking_for_nothing_deletes_only_what_is_not_there() {
        for held in [&[][..], &[HOME], &[Ipv4Addr::new(192, 0, 2, 0), HOME]] {
            let held = found(held);
            let swap = nothing_to(&held);
            assert_eq!((swap.delete.len(), swap.add), (1, None));
            assert_eq!(after(&held, &swap), held);
        }
    }
}
