//! What the demonstration is asked for: the command line, and what it means.

use std::time::Duration;

use clap::Parser;
use serde::Serialize;

use crate::guest_kit::{Fill, Recipe};
use crate::hosts::resident::Work;
use crate::wan::WanProfile;

/// Largest memory that is dirtied, as a part of the guest's memory: the rest is for the guest itself.
const DIRTY_SHARE: u32 = 2;

/// Pages a second that are dirtied where the link is fast.
const PAGES_PER_S_MAX: u32 = 200;

/// A running guest moves between two sites over a link like yours.
///
/// Needs root (network namespaces). Sets up two sites, a router with tc netem between them, a client, a name server
/// and a QEMU guest; moves the guest; and says what became of it. Nothing of it is left afterwards.
#[derive(Debug, Clone, PartialEq, Parser, Serialize)]
#[command(name = "demo", override_usage = "make demo ARGS=\"[OPTIONS]\"", max_term_width = 100)]
pub struct Wish {
    /// Rate of each link, in Mbit/s
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub rate_mbit: u32,
    /// Round trip between the sites, in ms
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u64).range(0..=2000))]
    pub delay_ms: u64,
    /// Packets lost each way, in per cent
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = loss)]
    pub loss_percent: f64,
    /// Size of the guest's disk: a third files of /usr/lib, a third noise, a third empty
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u64).range(64..=8192))]
    pub disk_mib: u64,
    /// The guest's memory
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u64).range(96..=4096))]
    pub memory_mib: u64,
    /// Blocks of 4 KiB that the guest writes and fsyncs in a second
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub writes_per_s: u32,
    /// Memory that the guest overwrites again and again, a sixth of the link's rate at most
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=2048))]
    pub dirty_mib: u32,
    /// Print one JSON object at the end; what happens meanwhile goes to the standard error
    #[arg(long)]
    pub json: bool,
    /// After the move, leave everything running until Enter
    #[arg(long)]
    pub keep: bool,
}

fn loss(text: &str) -> Result<f64, String> {
    let percent: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    match (0.0..=20.0).contains(&percent) {
        true => Ok(percent),
        false => Err("only 0 to 20 per cent: beyond that no TCP works".to_owned()),
    }
}

impl Wish {
    /// What does not fit together.
    pub fn check(&self) -> Result<(), String> {
        if u64::from(self.dirty_mib) * u64::from(DIRTY_SHARE) > self.memory_mib {
            let (dirty, memory) = (self.dirty_mib, self.memory_mib);
            return Err(format!("--dirty-mib {dirty} is more than half of --memory-mib {memory}"));
        }
        Ok(())
    }

    /// The links.
    pub fn profile(&self) -> WanProfile {
        WanProfile::new(self.rate_mbit, Duration::from_millis(self.delay_ms)).lossy(self.loss_percent)
    }

    /// The guest.
    pub fn recipe(&self) -> Recipe {
        Recipe {
            memory_mib: self.memory_mib,
            disk_mib: self.disk_mib,
            fill: Fill::Thirds,
            ..Recipe::default()
        }
    }

    /// What it does meanwhile.
    pub fn work(&self) -> Work {
        let link_pages_per_s = self.rate_mbit * 125_000 / 4096;
        Work {
            writes_per_s: self.writes_per_s,
            dirty_mib: self.dirty_mib,
            pages_per_s: (link_pages_per_s / 6).clamp(5, PAGES_PER_S_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Wish;
    use clap::Parser;

    fn wish(words: &[&str]) -> Result<Wish, String> {
        Wish::try_parse_from([&["demo"], words].concat()).map_err(|error| error.to_string())
    }

    #[test]
    fn without_flags_it_is_a_thin_long_link() {
        let wish = wish(&[]).unwrap();
        assert_eq!(wish.check(), Ok(()));
        assert!(wish.profile().to_string().starts_with("20 Mbit/s, 50 ms each way, 0.1 % lost each way"));
        assert_eq!(wish.work().pages_per_s, 101);
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_reason() {
        for (words, reason) in [
            (["--loss-percent", "30"], "beyond that no TCP works"),
            (["--rate-mbit", "0"], "1..=1000"),
            (["--disk-mib", "8"], "64..=8192"),
        ] {
            let refusal = wish(&words).unwrap_err();
            assert!(refusal.contains(reason), "{refusal}");
        }
        let too_much = wish(&["--dirty-mib", "100"]).unwrap();
        assert!(too_much.check().unwrap_err().contains("more than half"));
    }
}
