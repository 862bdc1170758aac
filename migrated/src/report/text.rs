//! The report as text: what happened, how long it took, what went over.

use crate::phase::Outcome;

use super::{DiskReport, LinkReport, PauseEnd, ProbeReport, RamReport, ReachReport, Report};
use crate::quantity::{rate, size, time};

impl Report {
    /// The report for people, line by line.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![self.headline()];
        lines.extend(self.reasons.iter().map(|reason| entry("reason", reason)));
        if let Some(abort) = &self.abort {
            lines.push(entry("failed in", &abort.place()));
            lines.push(entry("undone", &abort.undone()));
        }
        lines.push(entry("total", &time(self.total_ms)));
        lines.push(entry("downtime", &self.downtime()));
        lines.extend(self.pauses());
        for (phase, ms) in &self.phases {
            lines.push(entry(&format!("  {}", phase.name()), &time(*ms)));
        }
        lines.extend(self.disks.iter().flat_map(of_disk));
        lines.push(entry("memory", &of_ram(&self.ram)));
        lines.push(entry("link", &of_link(&self.link)));
        lines.extend(ways(&self.link));
        lines.extend(self.reached.iter().map(|reach| entry("reached", &of_reach(reach))));
        if !self.events.is_empty() {
            lines.push("events".to_owned());
            lines.extend(self.events.iter().map(|(ms, what)| format!("  {:>12}  {what}", time(*ms))));
        }
        lines
    }

    fn headline(&self) -> String {
        let Self { id, guest, source, destination, .. } = self;
        match self.outcome {
            Outcome::Moved => format!("{guest} moved from {source} to {destination} ({id})"),
            Outcome::Refused => {
                format!("{guest} was not moved to {destination}: refused; it is at {source} ({id})")
            }
            Outcome::Cancelled => {
                format!("{guest} was not moved to {destination}: cancelled; it is at {source} ({id})")
            }
            Outcome::RolledBack => {
                format!("{guest} was not moved to {destination}: rolled back; it is at {source} ({id})")
            }
            Outcome::InDoubt => {
                format!(
                    "{guest} stands still: in doubt whether {destination} has taken it from {source} ({id})"
                )
            }
        }
    }

    fn downtime(&self) -> String {
        let Some(ms) = self.downtime_ms else { return "none: it was never paused".to_owned() };
        let of = if self.pauses.len() > 1 { " for the last pause" } else { "" };
        let predicted = match self.predicted_downtime_ms {
            Some(predicted) => format!(", predicted {}{of}", time(predicted)),
            None => String::new(),
        };
        let trips = self.blackout_round_trips;
        format!("{} ± {}{predicted}; {trips} round trips", time(ms), time(self.downtime_error_ms))
    }

    /// Each pause, where there is more to say than that the guest has moved in one.
    fn pauses(&self) -> Vec<String> {
        if let [only] = &self.pauses[..]
            && only.end == PauseEnd::Moved
        {
            return Vec::new();
        }
        self.pauses.iter().map(|pause| entry("  pause", &pause.words())).collect()
    }
}

fn of_disk(disk: &DiskReport) -> Vec<String> {
    let (raw, sent) = (size(disk.raw_bytes), size(disk.sent_bytes));
    let copied =
        format!("{}; {raw} sent as {sent}{}", size(disk.size_bytes), ratio(disk.raw_bytes, disk.sent_bytes));
    let mut deltas = format!(
        "{}, {}, {:.1} a second, {} coalesced",
        disk.deltas_total,
        size(disk.delta_bytes),
        disk.deltas_per_s,
        disk.coalesced_total
    );
    if let Some(most) = disk.deltas_series.iter().max().filter(|_| disk.deltas_series_step_s > 0) {
        deltas += &format!(", at most {:.1} a second", *most as f64 / disk.deltas_series_step_s as f64);
    }
    let verified = verified(disk);
    vec![
        entry(&format!("disk {}", disk.id), &copied),
        entry("  deltas", &deltas),
        entry("  verified", &verified),
    ]
}

/// What both hosts compared of a disk, and when.
fn verified(disk: &DiskReport) -> String {
    let took = time(disk.seal_ms);
    match (disk.verified_leaves, disk.verified_before_leaves) {
        (Some(leaves), Some(before)) => format!(
            "{} leaves of 64 KiB equal at both hosts: {leaves} compared in the pause, {before} before it; {took}",
            leaves + before
        ),
        // A report that an earlier version wrote.
        (Some(leaves), None) => format!("{leaves} leaves of 64 KiB equal at both hosts; {took}"),
        (None, _) if disk.is_sealed => format!("equal at both hosts; {took}"),
        (None, _) => "not sealed".to_owned(),
    }
}

fn of_ram(ram: &RamReport) -> String {
    format!(
        "{}; {} sent as {}{}, {} passes; dirtied at {}/s; last pass {} in {}",
        size(ram.total_bytes),
        size(ram.raw_bytes),
        size(ram.sent_bytes),
        ratio(ram.raw_bytes, ram.sent_bytes),
        ram.passes,
        size(ram.dirty_bytes_per_s),
        size(ram.final_pass_bytes),
        time(ram.final_pass_ms)
    )
}

fn of_link(link: &LinkReport) -> String {
    let control = if link.congestion_control.is_empty() { "none" } else { &link.congestion_control };
    // A connection that a program carries shows nothing of it.
    let lost = match link.segments {
        0 => String::new(),
        segments => format!(", {:.2} % sent again", link.resent_segments as f64 * 100.0 / segments as f64),
    };
    format!(
        "{} sent{lost}; best {}, round trip {} at least, {control}",
        size(link.sent_bytes),
        rate(link.goodput_bytes_per_s),
        time(link.rtt_min_us / 1000)
    )
}

fn of_reach(reach: &ReachReport) -> String {
    match reach.answered_ms {
        Some(ms) => format!("{} answers through the tunnel, in {}", reach.address, time(ms)),
        None => format!(
            "{} does not answer through the tunnel, and did before: a firewall at either host may drop what is forwarded",
            reach.address
        ),
    }
}

/// Where it went, and why there.
fn ways(link: &LinkReport) -> Vec<String> {
    let ways = [("  data to", &link.data_address), ("  control to", &link.control_address)];
    let taken = ways.into_iter().filter(|(_, address)| !address.is_empty());
    let mut lines: Vec<String> = taken.map(|(head, address)| entry(head, address)).collect();
    let found = |probe: &ProbeReport| match probe.goodput_bytes_per_s {
        Some(goodput) => format!("{} {}", probe.address, rate(goodput)),
        None => format!("{} {}", probe.address, probe.trouble),
    };
    if !link.probes.is_empty() {
        let found: Vec<String> = link.probes.iter().map(found).collect();
        lines.push(entry("  probed", &found.join(", ")));
    }
    lines
}

/// How much smaller it went over the wire.
fn ratio(raw: u64, sent: u64) -> String {
    if raw == 0 || sent == 0 {
        return String::new();
    }
    format!(" ({:.2} : 1)", raw as f64 / sent as f64)
}

fn entry(head: &str, words: &str) -> String {
    format!("{head:<17}  {words}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Op;
    use crate::phase::{Outcome, Phase};
    use crate::report::{Abort, Pause, Undone};

    fn report() -> Report {
        Report {
            id: "0e2f9a61".into(),
            guest: "web".into(),
            source: "site-a".into(),
            destination: "site-b".into(),
            outcome: Outcome::Moved,
            reasons: Vec::new(),
            abort: None,
            started_unix_s: 1_700_000_000,
            total_ms: 65_000,
            phases: vec![(Phase::Bulk, 60_000), (Phase::StopAndCopy, 280)],
            events: vec![(0, "asked for".into()), (64_700, "paused".into())],
            downtime_ms: Some(412),
            pauses: vec![Pause {
                attempt: 1,
                phase: Phase::Resume,
                begun_ms: 64_588,
                lasted_ms: 412,
                end: PauseEnd::Moved,
            }],
            downtime_error_ms: 50,
            predicted_downtime_ms: Some(390),
            blackout_round_trips: 3,
            link: LinkReport {
                sent_bytes: 150 << 20,
                segments: 107_412,
                resent_segments: 1_106,
                rtt_min_us: 100_100,
                goodput_bytes_per_s: 2_450_000,
                congestion_control: "bbr".into(),
                data_address: "198.51.100.5:7071".into(),
                control_address: "192.0.2.5:7070".into(),
                probes: vec![
                    ProbeReport {
                        address: "198.51.100.5:7071".into(),
                        goodput_bytes_per_s: Some(2_450_000),
                        trouble: String::new(),
                    },
                    ProbeReport {
                        address: "203.0.113.5:7072".into(),
                        goodput_bytes_per_s: None,
                        trouble: "no answer within 3 s".into(),
                    },
                ],
            },
            ram: RamReport {
                total_bytes: 512 << 20,
                raw_bytes: 128 << 20,
                sent_bytes: 32 << 20,
                passes: 4,
                dirty_bytes_per_s: 3 << 20,
                final_pass_bytes: 1 << 20,
                final_pass_ms: 120,
            },
            disks: vec![DiskReport {
                id: "root".into(),
                size_bytes: 1 << 30,
                raw_bytes: 300 << 20,
                sent_bytes: 100 << 20,
                deltas_total: 1200,
                delta_bytes: 5 << 20,
                deltas_per_s: 20.0,
                deltas_series: vec![10, 50],
                deltas_series_step_s: 2,
                coalesced_total: 7,
                is_sealed: true,
                verified_leaves: Some(12),
                verified_before_leaves: Some(16_372),
                seal_ms: 80,
            }],
            reached: vec![
                ReachReport { address: [10, 1, 0, 10].into(), answered_ms: Some(21) },
                ReachReport { address: [10, 1, 0, 11].into(), answered_ms: None },
            ],
        }
    }

    /// S0-24: what figures can be compared by stands beside them: rate, loss, round trip, disk size, deltas, dirtied memory.
    #[test]
    fn the_report_of_a_guest_that_moved() {
        assert_eq!(
            report().lines(),
            [
                "web moved from site-a to site-b (0e2f9a61)",
                "total              1 min 05 s",
                "downtime           412 ms ± 50 ms, predicted 390 ms; 3 round trips",
                "  bulk             1 min 00 s",
                "  stop-and-copy    280 ms",
                "disk root          1.0 GiB; 300.0 MiB sent as 100.0 MiB (3.00 : 1)",
                "  deltas           1200, 5.0 MiB, 20.0 a second, 7 coalesced, at most 25.0 a second",
                "  verified         16384 leaves of 64 KiB equal at both hosts: 12 compared in the pause, 16372 before it; 80 ms",
                "memory             512.0 MiB; 128.0 MiB sent as 32.0 MiB (4.00 : 1), 4 passes; dirtied at 3.0 MiB/s; last pass 1.0 MiB in 120 ms",
                "link               150.0 MiB sent, 1.03 % sent again; best 19.6 Mbit/s, round trip 100 ms at least, bbr",
                "  data to          198.51.100.5:7071",
                "  control to       192.0.2.5:7070",
                "  probed           198.51.100.5:7071 19.6 Mbit/s, 203.0.113.5:7072 no answer within 3 s",
                "reached            10.1.0.10 answers through the tunnel, in 21 ms",
                "reached            10.1.0.11 does not answer through the tunnel, and did before: a firewall at either host may \
                 drop what is forwarded",
                "events",
                "          0 ms  asked for",
                "    1 min 04 s  paused",
            ]
        );
    }

    #[test]
    fn a_report_of_a_guest_that_stayed_says_why_and_where_it_is() {
        let mut report = report();
        report.outcome = Outcome::RolledBack;
        report.reasons = vec!["site-b has 100 MiB of room, and the disk needs 1 GiB; free some".into()];
        report.abort = Some(Abort {
            operation: Some(Op::Reserve),
            undone: vec![Undone::DestinationTold],
            ..Abort::of(Phase::Reservation, "site-b has no room")
        });
        (report.downtime_ms, report.pauses) = (None, Vec::new());
        let disk = &mut report.disks[0];
        (disk.is_sealed, disk.verified_leaves, disk.verified_before_leaves) = (false, None, None);
        let lines = report.lines();
        assert_eq!(lines[0], "web was not moved to site-b: rolled back; it is at site-a (0e2f9a61)");
        assert_eq!(
            lines[1],
            "reason             site-b has 100 MiB of room, and the disk needs 1 GiB; free some"
        );
        assert_eq!(lines[2], "failed in          reservation, reserve");
        assert_eq!(lines[3], "undone             destination told");
        assert_eq!(lines[5], "downtime           none: it was never paused");
        assert!(lines.contains(&"  verified         not sealed".to_owned()), "{lines:?}");
    }

    #[test]
    fn every_pause_is_told_where_there_was_more_than_the_one_in_which_the_guest_moved() {
        let mut report = report();
        let moved = report.pauses[0].clone();
        let resumed = Pause {
            phase: Phase::StopAndCopy,
            begun_ms: 1_500,
            lasted_ms: 20_000,
            end: PauseEnd::Resumed,
            ..moved.clone()
        };
        report.pauses = vec![resumed.clone(), Pause { attempt: 2, ..moved }];
        report.downtime_ms = Some(20_412);
        let lines = report.lines();
        assert_eq!(
            lines[2..5],
            [
                "downtime           20.4 s ± 50 ms, predicted 390 ms for the last pause; 3 round trips",
                "  pause            20.0 s from 1.5 s, attempt 1 in stop-and-copy, until it went on at the source",
                "  pause            412 ms from 1 min 04 s, attempt 2 in resume, until it ran at the destination",
            ]
        );
        // One is told, too, if the guest did not move in it.
        (report.downtime_ms, report.pauses) = (Some(20_000), vec![resumed]);
        assert!(report.lines()[3].starts_with("  pause            20.0 s"), "{:?}", report.lines());
    }

    #[test]
    fn the_report_is_kept_as_json_and_read_again() {
        let text = serde_json::to_string(&report()).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), report());
    }

    #[test]
    fn what_was_compared_of_a_disk_is_said_as_far_as_it_is_known() {
        let said = |is_sealed, verified_leaves, verified_before_leaves| {
            let disk = &report().disks[0];
            verified(&DiskReport { is_sealed, verified_leaves, verified_before_leaves, ..disk.clone() })
        };
        assert_eq!(said(true, None, None), "equal at both hosts; 80 ms", "its blockd did not say how many");
        assert_eq!(said(false, None, None), "not sealed");
        // A report that was kept by a version that did not know the newer fields.
        let mut old = serde_json::to_value(&report().disks[0]).unwrap();
        let fields = old.as_object_mut().unwrap();
        fields.retain(|name, _| name != "is_sealed" && name != "verified_before_leaves");
        let old: DiskReport = serde_json::from_value(old).unwrap();
        assert_eq!(verified(&old), "12 leaves of 64 KiB equal at both hosts; 80 ms");
    }
}
