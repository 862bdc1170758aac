//! Addresses as people write them, and what to say of one that cannot be read.
//!
//! It refuses names: what a host is called may change under a running daemon, and nothing here asks a resolver.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer};

/// An address and a port.
///
/// # Errors
/// Says what is wrong with `text`, and how to write it.
pub fn socket_address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        let what = match text.rsplit_once(':') {
            _ if text.parse::<Ipv6Addr>().is_ok() => "is IPv6 without brackets, or has no port",
            _ if text.parse::<Ipv4Addr>().is_ok() || is_bracketed(text) => "has no port",
            Some((host, port)) if is_ip(host) && port.parse::<u16>().is_err() => "has a port that is none",
            Some((host, _)) if is_name(host) => "has a host's name, which is not looked up",
            None if is_name(text) => "has a host's name, which is not looked up, and no port",
            _ => "is no address and port",
        };
        format!("{text:?} {what}; write it like 192.0.2.1:7070 or [2001:db8::1]:7070")
    })
}

/// One address of IPv4.
///
/// # Errors
/// Likewise.
pub fn ipv4_address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| {
        let what = match text.split_once(['/', ':']) {
            _ if text.parse::<Ipv6Addr>().is_ok() => {
                "is an address of IPv6, and guests move with those of IPv4"
            }
            Some((host, _)) if host.parse::<Ipv4Addr>().is_ok() && text.contains('/') => {
                "is a network, and not one address"
            }
            Some((host, _)) if host.parse::<Ipv4Addr>().is_ok() => "has a port, and none is needed",
            None if is_name(text) => "is a host's name, which is not looked up",
            _ => "is no address",
        };
        format!("{text:?} {what}; write it like 192.0.2.1")
    })
}

fn is_bracketed(text: &str) -> bool {
    let inside = text.strip_prefix('[').and_then(|text| text.strip_suffix(']'));
    inside.is_some_and(|inside| inside.parse::<Ipv6Addr>().is_ok())
}

fn is_ip(host: &str) -> bool {
    is_bracketed(host) || host.parse::<Ipv4Addr>().is_ok()
}

/// Numbers with dots were meant as an address.
fn is_name(host: &str) -> bool {
    let is_one = |letter: char| letter.is_ascii_alphanumeric() || "-.".contains(letter);
    host.parse::<IpAddr>().is_err()
        && host.chars().all(is_one)
        && host.chars().any(|letter| letter.is_ascii_alphabetic())
}

/// An address and a port of a configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written(pub SocketAddr);

impl<'de> Deserialize<'de> for Written {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        socket_address(&text).map(Self).map_err(de::Error::custom)
    }
}

/// For `deserialize_with`: an address and a port.
pub fn one<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    Ok(Written::deserialize(deserializer)?.0)
}

/// For `deserialize_with`: an address of IPv4.
pub fn one_ipv4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Ipv4Addr, D::Error> {
    ipv4_address(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// For `deserialize_with`: a list of addresses of IPv4.
pub fn many_ipv4<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Ipv4Addr>, D::Error> {
    let texts = Vec::<String>::deserialize(deserializer)?;
    texts.iter().map(|text| ipv4_address(text).map_err(de::Error::custom)).collect()
}

/// For `deserialize_with`: one address and port, or a list of them.
pub fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SocketAddr>, D::Error> {
    struct OneOrMany;
    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<SocketAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address and a port (\"192.0.2.1:7070\"), or a list of them")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            socket_address(text).map(|address| vec![address]).map_err(E::custom)
        }

        fn visit_seq<A: de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut addresses = Vec::new();
            while let Some(Written(address)) = list.next_element()? {
                addresses.push(address);
            }
            Ok(addresses)
        }
    }
    deserializer.deserialize_any(OneOrMany)
}

#[cfg(test)]
mod tests {
    use super::{ipv4_address, socket_address};

    #[test]
    fn an_address_that_cannot_be_read_is_told_with_how_to_write_it() {
        for good in ["192.0.2.1:7070", "[2001:db8::1]:7070"] {
            assert_eq!(socket_address(good).unwrap().to_string(), good);
        }
        for (bad, what) in [
            ("192.0.2.1", "has no port"),
            ("[2001:db8::1]", "has no port"),
            ("2001:db8::1", "IPv6 without brackets"),
            ("2001:db8::1:7070", "IPv6 without brackets"),
            ("site-a:7070", "a host's name"),
            ("site-a.example.org", "a host's name, which is not looked up, and no port"),
            ("192.0.2.1:70700", "a port that is none"),
            ("192.0.2.1:", "a port that is none"),
            ("192.0.2.256:7070", "is no address and port"),
            ("", "is no address and port"),
            (":7070", "is no address and port"),
        ] {
            let told = socket_address(bad).unwrap_err();
            assert!(told.contains(what) && told.contains("write it like"), "{bad}: {told}");
        }
    }

    #[test]
    fn an_address_of_one_machine_is_no_network_and_has_no_port() {
        assert_eq!(ipv4_address("192.0.2.1").unwrap().to_string(), "192.0.2.1");
        for (bad, what) in [
            ("192.0.2.0/24", "is a network"),
            ("192.0.2.1:4789", "has a port"),
            ("2001:db8::1", "of IPv6"),
            ("router", "a host's name"),
            ("192.0.2", "is no address"),
        ] {
            let told = ipv4_address(bad).unwrap_err();
            assert!(told.contains(what) && told.contains("write it like 192.0.2.1"), "{bad}: {told}");
        }
    }
}
