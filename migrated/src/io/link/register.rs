//! The links that live at this host, whoever made them: where a connection that comes finds the one that it belongs to.
//!
//! A link belongs to the pair of the other host's key and the link's number. Links that this host dialled are in here too,
//! for the other host dials as well when it has lost one. One that a program carries is not taken back over TCP.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use super::Link;
use super::shared::Shared;
use crate::io::keys::Spki;
use crate::io::tls::greeting::Secured;
use crate::link::hello::{LinkId, RefusalCode, Refused, Stripe};

/// Most links at a time that others have made.
pub const LINKS_MAX: usize = 256;
/// Most of them that one host has made, by its key: no host fills the room of others.
pub const LINKS_OF_PEER_MAX: usize = 16;

/// Whose link, and which.
pub(super) type Key = (Spki, LinkId);

/// See the module. A clone is the same register.
#[derive(Clone, Default)]
pub struct Register {
    links: Arc<Mutex<HashMap<Key, Known>>>,
}

struct Known {
    shared: Weak<Shared>,
    /// Connections may come from the other side.
    takes: bool,
    /// This host dialled it.
    is_own: bool,
    /// Not handed out yet: its data connection is missing.
    begun: Option<Link>,
    /// The newest set of connections that are to be the data connection together, as far as they are here.
    gathered: Gathered,
}

#[derive(Default)]
struct Gathered {
    set: u64,
    connections: BTreeMap<u16, Secured>,
}

impl Gathered {
    /// Takes a connection in; the whole set, if it was the last one missing.
    fn add(&mut self, stripe: Stripe, secured: Secured) -> Option<Vec<Secured>> {
        if self.set != stripe.set {
            // The dialler has given the old ones up.
            *self = Self { set: stripe.set, ..Self::default() };
        }
        self.connections.insert(stripe.index, secured);
        let is_whole = self.connections.len() == usize::from(stripe.count);
        is_whole.then(|| std::mem::take(&mut self.connections).into_values().collect())
    }
}

impl Register {
    /// A link that this host has made. `takes`: its connections may also be made by the other side.
    pub(super) fn put_own(&self, key: Key, shared: &Arc<Shared>, takes: bool) {
        let mut links = self.locked();
        tidy(&mut links);
        let gathered = Gathered::default();
        links.insert(
            key,
            Known { shared: Arc::downgrade(shared), takes, is_own: true, begun: None, gathered },
        );
    }

    /// A link that another host begins; `make` makes it if it may.
    pub(super) fn begin(
        &self,
        key: Key,
        us: &str,
        make: impl FnOnce() -> Arc<Shared>,
    ) -> Result<Arc<Shared>, Refused> {
        let mut links = self.locked();
        tidy(&mut links);
        let busy = |text: &str| Refused { code: RefusalCode::Busy, text: format!("{us}: {text}") };
        if links.contains_key(&key) {
            return Err(busy("a link of this number has begun already"));
        }
        let of_peer = |(other, known): &(&Key, &Known)| other.0 == key.0 && !known.is_own;
        if links.iter().filter(of_peer).count() >= LINKS_OF_PEER_MAX {
            return Err(busy("too many links of this host; end some, or try again later"));
        }
        if links.values().filter(|known| !known.is_own).count() >= LINKS_MAX {
            return Err(busy("too many links; try again later"));
        }
        let shared = make();
        let begun = Some(Link::new(shared.clone()));
        let gathered = Gathered::default();
        links.insert(
            key,
            Known { shared: Arc::downgrade(&shared), takes: true, is_own: false, begun, gathered },
        );
        Ok(shared)
    }

    /// The link that a connection says it belongs to.
    pub(super) fn find(&self, key: &Key, us: &str, peer: &str) -> Result<Arc<Shared>, Refused> {
        let (shared, takes) = match self.locked().get(key) {
            Some(known) => (known.shared.upgrade(), known.takes),
            None => (None, true),
        };
        if !takes {
            let text = format!("a program carries this link, and only {us} starts it");
            return Err(Refused { code: RefusalCode::Other, text });
        }
        shared.filter(|shared| shared.over.borrow().is_none()).ok_or_else(|| Refused {
            code: RefusalCode::UnknownLink,
            text: format!("{us} has no such link with {peer} (any more)"),
        })
    }

    /// Puts a connection to those of its set; all of them, when the last is here.
    pub(super) fn gather(&self, key: &Key, stripe: Stripe, secured: Secured) -> Option<Vec<Secured>> {
        self.locked().get_mut(key).and_then(|known| known.gathered.add(stripe, secured))
    }

    /// Lets the connections of a set go, if the others have not come.
    pub(super) fn give_up(&self, key: &Key, set: u64) {
        let mut links = self.locked();
        if let Some(known) = links.get_mut(key).filter(|known| known.gathered.set == set) {
            known.gathered.connections.clear();
        }
    }

    /// Ends all links with a host, whoever has made them; how many there were.
    pub fn end_all_of(&self, key: &Spki, why: &str) -> usize {
        let mut ended = Vec::new();
        self.locked().retain(|(other, _), known| {
            let is_of_host = other == key;
            if is_of_host {
                ended.push((known.shared.upgrade(), known.begun.take()));
            }
            !is_of_host
        });
        // Outside of the lock: who is woken may ask for it.
        let lived = ended.iter().filter_map(|(shared, _)| shared.as_ref());
        lived.filter(|shared| shared.over.borrow().is_none()).map(|shared| shared.end(why)).count()
    }

    /// The link, if it was not handed out yet.
    pub(super) fn take_begun(&self, key: &Key) -> Option<Link> {
        self.locked().get_mut(key)?.begun.take()
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<Key, Known>> {
        self.links.lock().expect("nobody panics with the links in hand")
    }
}

/// Forgets links that are over.
fn tidy(links: &mut HashMap<Key, Known>) {
    links.retain(|_, known| known.shared.upgrade().is_some_and(|shared| shared.over.borrow().is_none()));
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::link::addresses::Addresses;
    use crate::link::session::Side;

    const KEY: Key = ([1; 44], [7; 16]);

    fn shared() -> Arc<Shared> {
        let addresses = Addresses::new("192.0.2.1:7070".parse().unwrap(), Vec::new());
        Shared::new(Side::Dialler, "far".to_owned(), addresses, None, Duration::from_secs(60))
    }

    fn code(found: Result<Arc<Shared>, Refused>) -> Option<RefusalCode> {
        found.err().map(|refused| refused.code)
    }

    #[test]
    fn a_link_is_found_by_the_key_and_the_number_that_it_was_made_with_and_by_no_others() {
        let (register, link) = (Register::default(), shared());
        register.put_own(KEY, &link, true);
        assert_eq!(code(register.find(&KEY, "near", "far")), None);
        for other in [([2; 44], KEY.1), (KEY.0, [8; 16])] {
            assert_eq!(code(register.find(&other, "near", "other")), Some(RefusalCode::UnknownLink));
        }
        link.end("it is done");
        assert_eq!(code(register.find(&KEY, "near", "far")), Some(RefusalCode::UnknownLink));
    }

    #[test]
    fn a_link_that_a_program_carries_is_not_taken_back_by_other_means() {
        let (register, link) = (Register::default(), shared());
        register.put_own(KEY, &link, false);
        assert_eq!(code(register.find(&KEY, "near", "far")), Some(RefusalCode::Other));
    }

    #[test]
    fn one_host_fills_its_own_room_only() {
        let register = Register::default();
        let mut links = Vec::new();
        let mut begin = |key| {
            register.begin(key, "near", || {
                links.push(shared());
                links.last().cloned().expect("it was put there")
            })
        };
        for number in 0..LINKS_OF_PEER_MAX as u8 {
            assert_eq!(code(begin(([1; 44], [number; 16]))), None);
        }
        assert_eq!(code(begin(([1; 44], [200; 16]))), Some(RefusalCode::Busy));
        assert_eq!(code(begin(([2; 44], [200; 16]))), None);
        assert_eq!(register.end_all_of(&[1; 44], "it is unpaired"), LINKS_OF_PEER_MAX);
        assert!(links[..LINKS_OF_PEER_MAX].iter().all(|link| link.over.borrow().is_some()));
        assert_eq!(code(register.find(&([2; 44], [200; 16]), "near", "other")), None);
    }

    #[test]
    fn nobody_begins_a_link_that_lives() {
        let (register, link) = (Register::default(), shared());
        register.put_own(KEY, &link, true);
        let begun = register.begin(KEY, "near", || unreachable!("it is refused before"));
        assert_eq!(code(begun), Some(RefusalCode::Busy));
    }
}
