//! Where the other host is tried for each lane: its addresses, in an order, without opening anything.
//!
//! ```text
//! control lane   its control address, then its data addresses
//! data lane      its data addresses (the fastest first, once they were probed), then its control address
//! both           last: where it was seen to come from, with the port of the first
//! ```
//!
//! So what control and data have apart stays apart as long as both ways live, and each takes the other's when its own is
//! dead. A way is an IP address: of several ports at one, only the first is tried.

use std::net::{IpAddr, SocketAddr};

use super::Lane;

/// Most data addresses of a host.
pub const DATA_ADDRESSES_MAX: usize = 4;
/// Most addresses remembered that a host was seen to come from; the oldest is forgotten.
const SEEN_MAX: usize = 4;
/// Who is nearly as fast as the fastest, in per cent of it, is as fast: the order that was given decides.
const AS_FAST_PERCENT: u64 = 90;

/// What a probe found of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub address: SocketAddr,
    /// Bytes a second that arrived there, or why it is not known.
    pub rate: Result<u64, String>,
}

/// The addresses of one host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    control: SocketAddr,
    /// The best first.
    bulk: Vec<SocketAddr>,
    /// The newest first.
    seen: Vec<IpAddr>,
}

impl Addresses {
    /// Of a host with this control address and these data addresses; none of them: data goes to the control address.
    pub fn new(control: SocketAddr, mut bulk: Vec<SocketAddr>) -> Self {
        bulk.truncate(DATA_ADDRESSES_MAX);
        if bulk.is_empty() {
            bulk.push(control);
        }
        Self { control, bulk, seen: Vec::new() }
    }

    /// Its data addresses, the best first.
    pub fn bulk(&self) -> &[SocketAddr] {
        &self.bulk
    }

    /// Puts the data addresses in the order of what was found of them. Those of which nothing is known come last.
    pub fn rank(&mut self, found: &[Found]) {
        let rate_of = |address: &SocketAddr| {
            let of = found.iter().find(|found| found.address == *address);
            of.and_then(|found| found.rate.clone().ok()).unwrap_or(0)
        };
        let best = self.bulk.iter().map(rate_of).max().unwrap_or(0);
        let enough = best - best / 100 * (100 - AS_FAST_PERCENT);
        // Sorting keeps the order of those that are alike.
        self.bulk.sort_by_key(|address| {
            let rate = rate_of(address);
            std::cmp::Reverse(if rate >= enough { best } else { rate })
        });
    }

    /// It came from there.
    pub fn see(&mut self, ip: IpAddr) {
        self.seen.retain(|seen| *seen != ip);
        self.seen.insert(0, ip);
        self.seen.truncate(SEEN_MAX);
    }

    /// Where to try, in order: never empty, no IP address twice.
    pub fn candidates(&self, lane: Lane) -> Vec<SocketAddr> {
        let (control, bulk) = (std::iter::once(&self.control), self.bulk.iter());
        let known: Vec<SocketAddr> = match lane {
            Lane::Control => control.chain(bulk).copied().collect(),
            Lane::Data => bulk.chain(control).copied().collect(),
        };
        let port = known[0].port();
        let seen = self.seen.iter().map(|ip| SocketAddr::new(*ip, port));
        let mut candidates: Vec<SocketAddr> = Vec::new();
        for candidate in known.iter().copied().chain(seen) {
            if candidates.iter().all(|other| other.ip() != candidate.ip()) {
                candidates.push(candidate);
            }
        }
        candidates
    }

    /// Where to try for a lane that goes over `current`, to have it on a better way.
    pub fn better(&self, lane: Lane, current: IpAddr) -> Vec<SocketAddr> {
        let candidates = self.candidates(lane);
        candidates.into_iter().take_while(|candidate| candidate.ip() != current).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn found(address: &str, rate: Result<u64, &str>) -> Found {
        Found { address: at(address), rate: rate.map_err(str::to_owned) }
    }

    fn two() -> Addresses {
        Addresses::new(at("192.0.2.5:7070"), vec![at("198.51.100.5:7071"), at("203.0.113.5:7072")])
    }

    #[test]
    fn each_lane_has_its_own_way_first_and_the_others_way_for_want_of_it() {
        let addresses = two();
        assert_eq!(
            addresses.candidates(Lane::Control),
            [at("192.0.2.5:7070"), at("198.51.100.5:7071"), at("203.0.113.5:7072")]
        );
        assert_eq!(
            addresses.candidates(Lane::Data),
            [at("198.51.100.5:7071"), at("203.0.113.5:7072"), at("192.0.2.5:7070")]
        );
        let one = Addresses::new(at("192.0.2.5:7070"), Vec::new());
        assert_eq!(Lane::ALL.map(|lane| one.candidates(lane).len()), [1, 1]);
        assert_eq!(one.bulk(), [at("192.0.2.5:7070")]);
    }

    #[test]
    fn of_two_ports_at_one_address_the_first_is_tried() {
        let addresses = Addresses::new(at("192.0.2.5:7070"), vec![at("192.0.2.5:7071")]);
        assert_eq!(addresses.candidates(Lane::Data), [at("192.0.2.5:7071")]);
        assert_eq!(addresses.candidates(Lane::Control), [at("192.0.2.5:7070")]);
    }

    #[test]
    fn where_it_came_from_is_tried_last_with_the_port_of_the_first() {
        let mut addresses = two();
        addresses.see("192.0.2.5".parse().unwrap());
        addresses.see("192.0.2.77".parse().unwrap());
        assert_eq!(addresses.candidates(Lane::Control).last(), Some(&at("192.0.2.77:7070")));
        assert_eq!(addresses.candidates(Lane::Data).last(), Some(&at("192.0.2.77:7071")));
        assert_eq!(addresses.candidates(Lane::Data).len(), 4, "one that is known is not there twice");
        (1..100u8).for_each(|last| addresses.see([192, 0, 2, last].into()));
        assert!(addresses.candidates(Lane::Data).len() <= 3 + SEEN_MAX);
    }

    #[test]
    fn the_fastest_comes_first_and_of_those_alike_the_one_that_was_named_first() {
        let (first, second) = ("198.51.100.5:7071", "203.0.113.5:7072");
        let order = |rates: [Result<u64, &str>; 2]| {
            let mut addresses = two();
            addresses.rank(&[found(first, rates[0]), found(second, rates[1])]);
            addresses.bulk()[0]
        };
        assert_eq!(order([Ok(250_000), Ok(2_500_000)]), at(second));
        assert_eq!(order([Ok(2_400_000), Ok(2_500_000)]), at(first));
        assert_eq!(order([Err("no answer"), Ok(1)]), at(second));
        assert_eq!(order([Err("no answer"), Err("no answer")]), at(first));
    }

    #[test]
    fn a_better_way_is_one_before_the_one_in_use() {
        let addresses = two();
        let better = |ip: &str| addresses.better(Lane::Data, ip.parse().unwrap());
        assert_eq!(better("198.51.100.5"), []);
        assert_eq!(better("192.0.2.5"), [at("198.51.100.5:7071"), at("203.0.113.5:7072")]);
        assert_eq!(better("10.9.9.9").len(), 3, "a way that nobody gave is the worst");
    }
}
