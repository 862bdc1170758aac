//! Who stands in the doorway: connections that have not yet said who they are.
//!
//! ```text
//!                 ┌─ room for the addresses of paired hosts ─┐
//!  comes ─► full? │                                          │ ─► has shown a paired key: out of the doorway
//!                 └─ room for all others ────────────────────┘
//! ```
//!
//! Where it is full the oldest goes, and not the one that comes: who stands there long says nothing, and whoever speaks is
//! through in moments. One address fills no room alone. Knows no socket and no clock.

use std::net::IpAddr;

/// Most of the addresses of paired hosts, and most of all others.
pub const KNOWN_MAX: usize = 32;
/// See [`KNOWN_MAX`].
pub const STRANGERS_MAX: usize = 32;
/// Most of one address. A set of connections of one data lane comes at once, so there is room for more than one.
pub const OF_ADDRESS_MAX: usize = 24;

/// One that stands there.
#[derive(Debug)]
struct Standing {
    number: u64,
    address: IpAddr,
    is_known: bool,
}

/// See the module. The oldest comes first.
#[derive(Debug, Default)]
pub struct Doorway {
    standing: Vec<Standing>,
    last: u64,
}

impl Doorway {
    /// A connection comes: its number, and that of the one that has to go for it.
    pub fn enter(&mut self, address: IpAddr, is_known: bool) -> (u64, Option<u64>) {
        let of_address = |one: &Standing| one.address == address;
        let of_room = |one: &Standing| one.is_known == is_known;
        let max = if is_known { KNOWN_MAX } else { STRANGERS_MAX };
        let goes = if self.standing.iter().filter(|one| of_address(one)).count() >= OF_ADDRESS_MAX {
            self.standing.iter().position(of_address)
        } else if self.standing.iter().filter(|one| of_room(one)).count() >= max {
            self.standing.iter().position(of_room)
        } else {
            None
        };
        let gone = goes.map(|at| self.standing.remove(at).number);
        self.last += 1;
        self.standing.push(Standing { number: self.last, address, is_known });
        (self.last, gone)
    }

    /// It is through, or gone.
    pub fn leave(&mut self, number: u64) {
        self.standing.retain(|one| one.number != number);
    }
}

#[cfg(test)]
mod tests {
    use super::{Doorway, KNOWN_MAX, OF_ADDRESS_MAX, STRANGERS_MAX};
    use std::net::IpAddr;

    fn address(number: usize) -> IpAddr {
        IpAddr::from([10, 0, (number >> 8) as u8, number as u8])
    }

    #[test]
    fn strangers_push_out_the_oldest_stranger_and_never_a_known_host() {
        let mut doorway = Doorway::default();
        let known = doorway.enter(address(1), true).0;
        let first = doorway.enter(address(2), false).0;
        for number in 3..STRANGERS_MAX + 2 {
            assert_eq!(doorway.enter(address(number), false).1, None);
        }
        assert_eq!(doorway.enter(address(900), false).1, Some(first));
        let gone: Vec<u64> = (0..500).filter_map(|number| doorway.enter(address(number), false).1).collect();
        assert_eq!(gone.len(), 500);
        assert!(!gone.contains(&known));
        assert!(doorway.standing.len() <= KNOWN_MAX + STRANGERS_MAX);
    }

    #[test]
    fn one_address_pushes_out_itself_only() {
        let mut doorway = Doorway::default();
        let other = doorway.enter(address(1), false).0;
        let own: Vec<u64> = (0..OF_ADDRESS_MAX).map(|_| doorway.enter(address(2), false).0).collect();
        for expected in own {
            assert_eq!(doorway.enter(address(2), false).1, Some(expected));
        }
        assert!(doorway.standing.iter().any(|one| one.number == other));
    }

    #[test]
    fn who_is_through_makes_room() {
        let mut doorway = Doorway::default();
        let numbers: Vec<u64> = (0..STRANGERS_MAX).map(|n| doorway.enter(address(n), false).0).collect();
        doorway.leave(numbers[3]);
        assert_eq!(doorway.enter(address(700), false).1, None);
        assert_eq!(doorway.enter(address(701), false).1, Some(numbers[0]));
    }
}
