//! What a tunnel's device remembers of its move: enough to undo all of it by the device's name alone.
//!
//! ```text
//! move1 destination 525400123456 10.1.0.100 192.0.2.6 192.0.2.2 br0 tap0 198.51.100.7 proxy_arp=0,proxy_delay=80
//! │     │           guest's MAC and address  local     remote    │   │    new address  the bridge's settings before
//! form  side                                                  bridge port, "-" where there is none
//! ```
//!
//! The kernel keeps at most 255 bytes. The settings before are kept by every move of a bridge, and a move that
//! finds another one takes over what that one remembers: the last to go restores what the first one found.

use std::fmt::Write;
use std::net::Ipv4Addr;

use crate::change::Setting;
use crate::transfer::{Move, Side};

/// The word that a record of this form begins with.
const FORM: &str = "move1";

/// What a device remembers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Which end this host is.
    pub side: Side,
    /// The move, as this side sees it.
    pub moved: Move,
    /// What the bridge's settings were before any move changed them.
    pub earlier: Vec<(Setting, u32)>,
}

impl Record {
    /// Whether it is `side`'s end of this very move, maybe of an earlier attempt: its bridge and port may have changed.
    pub fn is_end_of(&self, side: Side, moved: &Move) -> bool {
        self.moved.id == moved.id && self.moved.remote == moved.remote && self.is_of_card(side, moved)
    }

    /// Whether it is an end of the same card at the same side.
    pub fn is_of_card(&self, side: Side, moved: &Move) -> bool {
        let card = |moved: &Move| (moved.guest_mac, moved.guest_address);
        self.side == side && card(&self.moved) == card(moved)
    }

    /// As the device keeps it.
    pub fn to_text(&self) -> String {
        let Move { guest_mac, guest_address, local, remote, bridge, tap, new_address, .. } = &self.moved;
        let side = match self.side {
            Side::Source => "source",
            Side::Destination => "destination",
        };
        let mac = guest_mac.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        });
        let tap = tap.as_deref().unwrap_or("-");
        let new = new_address.map_or("-".to_owned(), |address| address.to_string());
        let earlier: Vec<String> =
            self.earlier.iter().map(|(setting, value)| format!("{}={value}", setting.word())).collect();
        let earlier = earlier.join(",");
        format!("{FORM} {side} {mac} {guest_address} {local} {remote} {bridge} {tap} {new} {earlier}")
    }

    /// Read what the device of move `id` keeps; none where it is not ours.
    pub fn parse(id: u32, text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        if words.next()? != FORM {
            return None;
        }
        let side = match words.next()? {
            "source" => Side::Source,
            "destination" => Side::Destination,
            _ => return None,
        };
        let moved = Move {
            id,
            guest_mac: mac_of(words.next()?)?,
            guest_address: words.next()?.parse().ok()?,
            local: words.next()?.parse().ok()?,
            remote: words.next()?.parse().ok()?,
            bridge: words.next()?.to_owned(),
            tap: given(words.next()?).map(str::to_owned),
            new_address: match given(words.next()?) {
                Some(word) => Some(word.parse::<Ipv4Addr>().ok()?),
                None => None,
            },
        };
        let earlier = words
            .next()?
            .split(',')
            .filter(|word| !word.is_empty())
            .map(setting_of)
            .collect::<Option<_>>()?;
        // Anybody with the right can write an alias, and these names become paths.
        moved.check().ok()?;
        words.next().is_none().then_some(Self { side, moved, earlier })
    }

    /// What one of the bridge's settings was.
    pub fn earlier(&self, setting: Setting) -> Option<u32> {
        self.earlier.iter().find(|(known, _)| *known == setting).map(|(_, value)| *value)
    }
}

fn given(word: &str) -> Option<&str> {
    (word != "-").then_some(word)
}

fn mac_of(word: &str) -> Option<[u8; 6]> {
    if word.len() != 12 || !word.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let number = u64::from_str_radix(word, 16).ok()?;
    let [_, _, mac @ ..] = number.to_be_bytes();
    Some(mac)
}

fn setting_of(word: &str) -> Option<(Setting, u32)> {
    let (name, value) = word.split_once('=')?;
    let setting = Setting::ALL.into_iter().find(|setting| setting.word() == name)?;
    Some((setting, value.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::Record;
    use crate::change::Setting;
    use crate::transfer::tests::example;
    use crate::transfer::{Move, Side};

    fn record() -> Record {
        let earlier = vec![(Setting::ProxyArp, 0), (Setting::ProxyDelay, 80)];
        Record { side: Side::Destination, moved: example(), earlier }
    }

    #[test]
    fn a_record_says_what_is_needed_to_undo_the_move() {
        let text = "move1 destination 525400123456 10.1.0.100 192.0.2.6 192.0.2.2 br0 tap0 198.51.100.7 \
                    proxy_arp=0,proxy_delay=80";
        assert_eq!(record().to_text(), text);
        assert_eq!(Record::parse(7, text), Some(record()));
        let moved = Move { tap: None, new_address: None, ..example() };
        let bare = Record { side: Side::Source, moved, earlier: Vec::new() };
        assert_eq!(Record::parse(7, &bare.to_text()), Some(bare));
    }

    #[test]
    fn the_longest_record_fits_into_an_alias() {
        let longest = std::net::Ipv4Addr::new(223, 255, 255, 254);
        let moved = Move {
            guest_address: longest,
            local: longest,
            remote: longest,
            bridge: "fifteen-letters".to_owned(),
            tap: Some("fifteen-letters".to_owned()),
            new_address: Some(longest),
            ..example()
        };
        let earlier = Setting::ALL.map(|setting| (setting, u32::MAX)).to_vec();
        assert!(Record { side: Side::Destination, moved, earlier }.to_text().len() <= 255);
    }

    #[test]
    fn what_is_not_a_record_is_not_taken_for_one() {
        let good = record().to_text();
        for bad in [
            String::new(),
            "uplink to the office".to_owned(),
            good.replace("move1", "move2"),
            good.replace("destination", "elsewhere"),
            good.replace("525400123456", "5254001234"),
            good.replace("525400123456", "+25400123456"),
            good.replace("10.1.0.100", "10.1.0"),
            good.replace("br0", "../../kernel"),
            good.replace("proxy_arp=0", "core_pattern=0"),
            format!("{good} more"),
            good[..good.len() - 40].to_owned(),
        ] {
            assert_eq!(Record::parse(7, &bad), None, "{bad}");
        }
    }
}
