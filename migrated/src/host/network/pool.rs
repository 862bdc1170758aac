//! The addresses of `[network] pool`: which of them can be a guest's, as far as this host's network tells.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use tunnel::surroundings::Surroundings;
use tunnel::transfer::Mac;

/// Why an address of the pool can be no guest's, and what to do; none: it can.
pub fn fault(here: &Surroundings, address: Ipv4Addr) -> Option<(String, String)> {
    if let Some(device) = here.owner(address) {
        return Some((format!("{address} is this host's own address on {device}"), "remove it".to_owned()));
    }
    if here.device_towards(address).is_none() && !here.is_routed(address) {
        let remedy = format!(
            "use one of a network that it is in, or, if the site's router sends it here, say so by `ip route add blackhole \
             {address}/32`"
        );
        return Some((format!("{address} lies in no network of this host"), remedy));
    }
    None
}

/// Those of `pool` that a guest may have, and why others may not.
pub fn usable(
    here: &Surroundings,
    answers: &BTreeMap<(String, Ipv4Addr), BTreeSet<Mac>>,
    pool: &[Ipv4Addr],
) -> (BTreeSet<Ipv4Addr>, Vec<String>) {
    let (mut usable, mut warnings) = (BTreeSet::new(), Vec::new());
    for address in pool {
        let device = here.device_towards(*address).unwrap_or_default();
        let owner = answers.get(&(device.to_owned(), *address)).and_then(|macs| macs.first());
        let owned = owner.map(|mac| {
            let what = format!("{address} is answered for by {mac} on {device}: another machine has it");
            (what, "remove one of the two".to_owned())
        });
        match fault(here, *address).or(owned) {
            None => drop(usable.insert(*address)),
            Some((what, remedy)) => {
                warnings.push(format!("[network] pool: {what}; {remedy}; it is passed over"));
            }
        }
    }
    (usable, warnings)
}

#[cfg(test)]
mod tests {
    use super::{fault, usable};
    use std::collections::{BTreeMap, BTreeSet};
    use std::net::Ipv4Addr;
    use tunnel::surroundings::{Address, Surroundings};
    use tunnel::transfer::Mac;

    #[test]
    fn the_hosts_own_addresses_those_of_no_network_and_those_that_are_answered_for_are_passed_over() {
        let at = |text: &str| text.parse::<Ipv4Addr>().unwrap();
        let own = |device: &str, address, prefix_bits| Address {
            device: device.into(),
            address: at(address),
            prefix_bits,
        };
        let here = Surroundings {
            addresses: vec![own("br0", "10.2.0.1", 24), own("wan0", "192.0.2.6", 30)],
            routes: vec![(at("203.0.113.0"), 24)],
            ..Surroundings::default()
        };
        let gateway = fault(&here, at("10.2.0.1")).unwrap();
        assert!(gateway.0.contains("own address on br0"), "{gateway:?}");
        let nowhere = fault(&here, at("198.51.100.7")).unwrap();
        assert!(
            nowhere.0.contains("no network of this host") && nowhere.1.contains("ip route add blackhole"),
            "{nowhere:?}"
        );
        assert_eq!(fault(&here, at("203.0.113.9")), None);

        let mac = Mac([2, 0, 0, 0, 0, 9]);
        let answers = BTreeMap::from([(("br0".to_owned(), at("10.2.0.100")), BTreeSet::from([mac]))]);
        let pool = ["10.2.0.1", "10.2.0.100", "10.2.0.101", "198.51.100.7"].map(at);
        let (usable, warnings) = usable(&here, &answers, &pool);
        assert_eq!(usable, BTreeSet::from([at("10.2.0.101")]));
        assert_eq!(warnings.len(), 3);
        assert!(warnings[1].contains("02:00:00:00:00:09 on br0"), "{warnings:?}");
    }
}
