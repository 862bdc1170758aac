//! For logs and pipes: a line for each second and each phase, and a page for whoever asks.

use std::time::Duration;

use super::tty::link;
use crate::api::Recovery;
use crate::phase::Phase;
use crate::quantity::{percent, rate, size, time};
use crate::status::Status;

/// The shortest time between two lines of the same phase.
const PACE: Duration = Duration::from_secs(1);

/// When a migration's line is due: with every phase, and once a second.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    last: Option<(Duration, Phase)>,
}

impl Pace {
    /// The line, if it is due.
    pub fn poll(&mut self, now: Duration, status: &Status) -> Option<String> {
        let is_due =
            self.last.is_none_or(|(at, phase)| phase != status.phase || now.saturating_sub(at) >= PACE);
        if !is_due {
            return None;
        }
        self.last = Some((now, status.phase));
        Some(line(status))
    }
}

/// A migration in a line.
pub fn line(status: &Status) -> String {
    let mut words: Vec<String> = Vec::new();
    if matches!(status.phase, Phase::Bulk | Phase::PreCopy | Phase::StopAndCopy) {
        words.extend(status.disks.iter().map(|disk| {
            let done = percent(disk.left_bytes, disk.total_bytes);
            let waiting = size(disk.delta_bytes);
            format!("disk {} {done} %, {} left, {waiting} of deltas", disk.id, size(disk.left_bytes))
        }));
        if status.ram.passes > 0 {
            let (left, dirty) = (size(status.ram.left_bytes), rate(status.ram.dirty_bytes_per_s));
            words.push(format!("memory pass {}, {left} left, {dirty} dirtied", status.ram.passes));
        }
        words.push(link(status));
        words.extend(status.predicted_downtime_ms.map(|ms| format!("pause would be {}", time(ms))));
        words.extend(status.eta_s.map(|seconds| format!("eta {}", time(seconds * 1000))));
    }
    let facts = words.join("; ");
    format!("{:>12}  {:<13}  {facts}", time(status.elapsed_ms), status.phase.name()).trim_end().to_owned()
}

/// All that is known of a migration; of one that has ended, its report.
pub fn page(status: &Status) -> Vec<String> {
    if let Some(report) = &status.report {
        return report.lines();
    }
    let side = if status.incoming { "arriving here" } else { "leaving here" };
    let way = format!("{} -> {} ({side})", status.source, status.destination);
    let phase = format!(
        "{}, for {} of {}",
        status.phase.name(),
        time(status.phase_elapsed_ms),
        time(status.elapsed_ms)
    );
    let mut lines = vec![
        entry("migration", &format!("{} of guest {}", status.id, status.guest)),
        entry("way", &way),
        entry("phase", &phase),
    ];
    let unknown = || "not known yet".to_owned();
    let eta = status.eta_s.map_or_else(unknown, |seconds| time(seconds * 1000));
    let pause = status.predicted_downtime_ms.map_or_else(unknown, time);
    let limit = status.time_limit_s.map_or_else(String::new, |seconds| {
        format!("; given up after {} with the link up", time(seconds * 1000))
    });
    lines.push(entry("expected", &format!("end in {eta}; pause of {pause}{limit}")));
    for disk in &status.disks {
        let done = percent(disk.left_bytes, disk.total_bytes);
        let (left, total) = (size(disk.left_bytes), size(disk.total_bytes));
        let (sent, pace) = (size(disk.sent_bytes), rate(disk.rate_bytes_per_s));
        let words = format!("{done} %, {left} left of {total}; {sent} sent, {pace}");
        lines.push(entry(&format!("disk {}", disk.id), &words));
        let slowed = if disk.throttle_level > 0 {
            format!("; guest slowed ({})", disk.throttle_level)
        } else {
            String::new()
        };
        let words = format!("{} so far, {} waiting{slowed}", disk.deltas_total, size(disk.delta_bytes));
        lines.push(entry("  deltas", &words));
    }
    lines.push(entry("memory", &memory(status)));
    lines.push(entry("link", &connection(status)));
    lines.extend(status.warnings.iter().map(|warning| entry("warning", warning)));
    lines.extend(status.reasons.iter().map(|reason| entry("reason", reason)));
    lines
}

fn memory(status: &Status) -> String {
    let ram = &status.ram;
    if ram.passes == 0 {
        return format!("{}, not begun", size(ram.total_bytes));
    }
    format!(
        "{}, pass {}, {} left; {} read, {} sent, {}; {} dirtied",
        size(ram.total_bytes),
        ram.passes,
        size(ram.left_bytes),
        size(ram.raw_bytes),
        size(ram.sent_bytes),
        rate(ram.rate_bytes_per_s),
        rate(ram.dirty_bytes_per_s)
    )
}

fn connection(status: &Status) -> String {
    let limit =
        status.link.limit_bytes_per_s.map_or_else(String::new, |limit| format!(", limit {}", rate(limit)));
    let control = match status.link.congestion_control.as_str() {
        "" => String::new(),
        name => format!(", {name}"),
    };
    let link = link(status);
    let link = link.strip_prefix("link ").unwrap_or(&link);
    format!("{link}{limit}{control}; {} sent", size(status.link.sent_bytes))
}

/// A word, and what is said of it.
fn entry(head: &str, words: &str) -> String {
    format!("{head:<12}  {words}")
}

/// What is known of a guest that may be at another host.
pub fn recovery(found: &Recovery) -> Vec<String> {
    let mut lines = vec![match &found.migration {
        Some(migration) => format!("guest {}, migration {migration}", found.guest),
        None => format!("guest {}", found.guest),
    }];
    lines.extend([&found.here, &found.there, &found.safe].map(|line| format!("  {line}")));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::DiskProgress;

    fn status(phase: Phase) -> Status {
        let mut status = Status::new("0e2f9a61", "web", "site-a", "site-b");
        status.phase = phase;
        status.elapsed_ms = 12_345;
        status.phase_elapsed_ms = 1000;
        status.disks = vec![DiskProgress {
            id: "root".into(),
            size_bytes: 1 << 30,
            total_bytes: 1 << 30,
            left_bytes: 256 << 20,
            delta_bytes: 65_536,
            sent_bytes: 300 << 20,
            deltas_total: 20,
            rate_bytes_per_s: 2_500_000,
            throttle_level: 0,
        }];
        status.ram.total_bytes = 512 << 20;
        status.link.up = true;
        status.link.goodput_bytes_per_s = 2_450_000;
        status.link.rtt_us = 101_000;
        status
    }

    #[test]
    fn a_line_says_what_is_left_in_the_phases_that_copy() {
        assert_eq!(line(&status(Phase::Connect)), "      12.3 s  connect");
        assert_eq!(
            line(&status(Phase::Bulk)),
            "      12.3 s  bulk           disk root 75 %, 256.0 MiB left, 64.0 KiB of deltas; link 19.6 Mbit/s, 101 ms"
        );
        let mut memory = status(Phase::PreCopy);
        memory.ram.passes = 3;
        memory.ram.left_bytes = 1 << 20;
        memory.ram.dirty_bytes_per_s = 125_000;
        memory.predicted_downtime_ms = Some(310);
        memory.eta_s = Some(4);
        assert_eq!(
            line(&memory),
            "      12.3 s  pre-copy       disk root 75 %, 256.0 MiB left, 64.0 KiB of deltas; memory pass 3, 1.0 MiB left, \
             1.0 Mbit/s dirtied; link 19.6 Mbit/s, 101 ms; pause would be 310 ms; eta 4.0 s"
        );
    }

    #[test]
    fn lines_come_once_a_second_and_with_every_phase() {
        let mut pace = Pace::default();
        let mut lines = 0;
        for ms in 0..3000 {
            let phase = if ms < 1500 { Phase::Connect } else { Phase::Reservation };
            lines += u32::from(pace.poll(Duration::from_millis(ms), &status(phase)).is_some());
        }
        assert_eq!(lines, 4, "at 0, 1000, 1500 and 2500 ms");
    }

    #[test]
    fn the_page_of_a_running_migration() {
        let mut status = status(Phase::Bulk);
        status.link.limit_bytes_per_s = Some(2_500_000);
        status.link.congestion_control = "bbr".into();
        status.warnings = vec!["one disk is slow".into()];
        assert_eq!(
            page(&status),
            [
                "migration     0e2f9a61 of guest web",
                "way           site-a -> site-b (leaving here)",
                "phase         bulk, for 1.0 s of 12.3 s",
                "expected      end in not known yet; pause of not known yet",
                "disk root     75 %, 256.0 MiB left of 1.0 GiB; 300.0 MiB sent, 20.0 Mbit/s",
                "  deltas      20 so far, 64.0 KiB waiting",
                "memory        512.0 MiB, not begun",
                "link          19.6 Mbit/s, 101 ms, limit 20.0 Mbit/s, bbr; 0 B sent",
                "warning       one disk is slow",
            ]
        );
    }
}
