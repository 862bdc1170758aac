//! What a paired host may send here: `[allow.NAME]`.
//!
//! ```text
//! no [allow] at all ──────────► every paired host: all that the host's own limits allow
//! [allow.site-a] ─────────────► site-a: what it says; a key that is left out limits nothing
//! [allow.…], but none of its own ──► nothing
//! ```
//!
//! Says what the values mean; whether a guest fits them is for [`crate::host`] to say.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::Deserialize;

/// What one paired host may send here. Numbers are for all its guests together, here and on their way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Allow {
    /// Names of guests.
    pub guests: Option<Vec<Pattern>>,
    /// How many guests.
    pub guests_max: Option<u64>,
    /// Their memory in MiB.
    pub memory_mib: Option<u64>,
    /// Their disks in GiB, each in its full size.
    pub disk_gib: Option<u64>,
    /// Their virtual CPUs.
    pub cpus: Option<u64>,
    /// Bridges, as descriptions name them.
    pub bridges: Option<Vec<Pattern>>,
    /// The folder below `images_dir` in which their images lie.
    pub images: Option<PathBuf>,
    /// Networks in which guests' addresses lie.
    pub addresses: Option<Vec<Network4>>,
    /// Names of DNS that may be made to lead here.
    pub dns_names: Option<Vec<Pattern>>,
}

/// What is said about one host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance<'a> {
    /// Nothing is said about any host: the host's own limits are all that counts.
    Anything,
    /// Others are listed, this one is not.
    Nothing,
    /// This and no more.
    Only(&'a Allow),
}

/// A name in which each `*` stands for any letters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Pattern(pub String);

impl Pattern {
    /// Whether `name` is meant; upper and lower case count as they do for names of guests.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

/// A network, written like `10.1.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Network4 {
    first: Ipv4Addr,
    bits: u32,
}

impl Network4 {
    /// Whether `address` is in it.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
        (address.to_bits() ^ self.first.to_bits()) & mask == 0
    }
}

impl TryFrom<String> for Network4 {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no network; write it like \"10.1.0.0/24\"");
        let (first, bits) = text.split_once('/').ok_or_else(wrong)?;
        let first = first.parse().map_err(|_| wrong())?;
        let bits = bits.parse().ok().filter(|bits| *bits <= 32).ok_or_else(wrong)?;
        Ok(Self { first, bits })
    }
}

#[cfg(test)]
mod tests {
    use super::{Network4, Pattern};

    #[test]
    fn a_pattern_means_what_its_stars_allow() {
        let cases = [
            ("web", "web", true),
            ("web", "web1", false),
            ("web*", "web", true),
            ("web*", "web-1", true),
            ("web*", "aweb", false),
            ("*.example.org", "a.example.org", true),
            ("*.example.org", "example.org", false),
            ("a*b*c", "aXbYc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("", "x", false),
        ];
        for (pattern, name, is_meant) in cases {
            assert_eq!(Pattern(pattern.into()).matches(name), is_meant, "{pattern} {name}");
        }
    }

    #[test]
    fn a_network_has_the_addresses_of_its_prefix() {
        let network = |text: &str| Network4::try_from(text.to_owned());
        let lan = network("10.1.2.3/24").unwrap();
        assert!(lan.contains("10.1.2.255".parse().unwrap()) && !lan.contains("10.1.3.0".parse().unwrap()));
        assert!(network("0.0.0.0/0").unwrap().contains("192.0.2.1".parse().unwrap()));
        assert!(!network("10.0.0.1/32").unwrap().contains("10.0.0.2".parse().unwrap()));
        for wrong in ["10.0.0.0", "10.0.0.0/33", "10.0.0/8", "/8", "10.0.0.0/-1"] {
            assert!(network(wrong).is_err(), "{wrong}");
        }
    }
}
