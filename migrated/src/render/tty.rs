//! For a terminal: a headline, and a bar for each disk, for its deltas, and for the memory.

use crate::quantity::{percent, rate, size, time};
use crate::status::{DiskProgress, RamProgress, Status};

/// A bar: how full, and what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bar {
    /// What it shows; the same as long as it shows the same thing.
    pub label: String,
    /// How much of `total` is done.
    pub done: u64,
    /// All of it.
    pub total: u64,
    /// In words.
    pub message: String,
}

/// Which migration, where it is, and what to expect.
pub fn headline(status: &Status) -> String {
    let mut words = vec![
        format!("{} {} -> {} [{}]", status.guest, status.source, status.destination, status.id),
        format!("{} {}", status.phase.name(), time(status.phase_elapsed_ms)),
    ];
    words.push(link(status));
    if let Some(ms) = status.predicted_downtime_ms {
        words.push(format!("pause would be {}", time(ms)));
    }
    words.push(
        status.eta_s.map_or_else(|| "eta -".to_owned(), |seconds| format!("eta {}", time(seconds * 1000))),
    );
    words.join(" · ")
}

/// What the link gives, in words.
pub fn link(status: &Status) -> String {
    let link = &status.link;
    match link.up {
        true => format!("link {}, {}", rate(link.goodput_bytes_per_s), time(link.rtt_us / 1000)),
        false if link.sent_bytes == 0 => "no link yet".to_owned(),
        false => format!("link down for {}", time(link.quiet_ms)),
    }
}

/// The bars, in the same order each time.
pub fn bars(status: &Status) -> Vec<Bar> {
    let mut bars: Vec<Bar> = status.disks.iter().flat_map(of_disk).collect();
    if status.ram.total_bytes > 0 {
        bars.push(of_ram(&status.ram));
    }
    bars
}

fn of_disk(disk: &DiskProgress) -> [Bar; 2] {
    let bulk_left = disk.left_bytes.saturating_sub(disk.delta_bytes).min(disk.total_bytes);
    let slowed = if disk.throttle_level > 0 {
        format!(", guest slowed ({})", disk.throttle_level)
    } else {
        String::new()
    };
    let bulk = Bar {
        label: format!("disk {}", disk.id),
        done: disk.total_bytes - bulk_left,
        total: disk.total_bytes,
        message: format!(
            "{:>3} %  {} left of {}, {}{slowed}",
            percent(bulk_left, disk.total_bytes),
            size(bulk_left),
            size(disk.total_bytes),
            rate(disk.rate_bytes_per_s)
        ),
    };
    // A backlog has no end to count towards: the bar is full when nothing waits, and empty when a 64th of the disk
    // does.
    let whole = disk.delta_bytes.max(disk.size_bytes / 64).max(1);
    let deltas = Bar {
        label: format!("deltas {}", disk.id),
        done: whole - disk.delta_bytes,
        total: whole,
        message: format!("{} waiting, {} so far", size(disk.delta_bytes), disk.deltas_total),
    };
    [bulk, deltas]
}

fn of_ram(ram: &RamProgress) -> Bar {
    let (left, message) = match ram.passes {
        0 => (ram.total_bytes, format!("  0 %  {} to come", size(ram.total_bytes))),
        passes => {
            let left = ram.left_bytes.min(ram.total_bytes);
            let message = format!(
                "{:>3} %  pass {passes}, {} left, {} dirtied, {} sent",
                percent(left, ram.total_bytes),
                size(left),
                rate(ram.dirty_bytes_per_s),
                rate(ram.rate_bytes_per_s)
            );
            (left, message)
        }
    };
    Bar { label: "memory".to_owned(), done: ram.total_bytes - left, total: ram.total_bytes, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;

    fn status() -> Status {
        let mut status = Status::new("0e2f9a61", "web", "site-a", "site-b");
        status.phase = Phase::PreCopy;
        status.phase_elapsed_ms = 4200;
        status.disks = vec![DiskProgress {
            id: "root".into(),
            size_bytes: 1 << 30,
            total_bytes: 512 << 20,
            left_bytes: 129 << 20,
            delta_bytes: 1 << 20,
            deltas_total: 77,
            rate_bytes_per_s: 2_500_000,
            ..Default::default()
        }];
        status.ram = RamProgress {
            total_bytes: 256 << 20,
            left_bytes: 64 << 20,
            passes: 2,
            dirty_bytes_per_s: 1_000_000,
            rate_bytes_per_s: 500_000,
            ..Default::default()
        };
        status.link.up = true;
        status.link.goodput_bytes_per_s = 2_450_000;
        status.link.rtt_us = 101_000;
        status
    }

    #[test]
    fn bars_show_what_is_left_and_how_fast_it_goes() {
        let bar = |label: &str, done: u64, total: u64, message: &str| Bar {
            label: label.into(),
            done: done << 20,
            total: total << 20,
            message: message.into(),
        };
        assert_eq!(
            bars(&status()),
            [
                bar("disk root", 384, 512, " 75 %  128.0 MiB left of 512.0 MiB, 20.0 Mbit/s"),
                bar("deltas root", 15, 16, "1.0 MiB waiting, 77 so far"),
                bar("memory", 192, 256, " 75 %  pass 2, 64.0 MiB left, 8.0 Mbit/s dirtied, 4.0 Mbit/s sent"),
            ]
        );
    }

    #[test]
    fn a_bar_is_never_more_than_full_or_less_than_empty() {
        let mut odd = status();
        odd.disks[0].left_bytes = u64::MAX;
        odd.disks[0].delta_bytes = 1 << 40;
        odd.ram.left_bytes = u64::MAX;
        for bar in bars(&odd) {
            assert!(bar.done <= bar.total, "{bar:?}");
        }
        odd.disks[0] = DiskProgress { throttle_level: 3, ..Default::default() };
        assert!(bars(&odd)[0].message.ends_with("guest slowed (3)"));
    }

    #[test]
    fn the_headline_says_where_it_is_and_what_to_expect() {
        let mut status = status();
        assert_eq!(
            headline(&status),
            "web site-a -> site-b [0e2f9a61] · pre-copy 4.2 s · link 19.6 Mbit/s, 101 ms · eta -"
        );
        status.predicted_downtime_ms = Some(310);
        status.eta_s = Some(65);
        status.link.up = false;
        status.link.sent_bytes = 1;
        status.link.quiet_ms = 3000;
        assert_eq!(
            headline(&status),
            "web site-a -> site-b [0e2f9a61] · pre-copy 4.2 s · link down for 3.0 s · pause would be 310 ms \
             · eta 1 min 05 s"
        );
    }
}
