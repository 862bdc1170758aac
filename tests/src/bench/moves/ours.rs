//! A move by `migrated send --wan`, judged by the oracle.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use migrated::report::Report;

use crate::guest_kit::Recipe;
use crate::hosts::Hosts;
use crate::hosts::resident::{Resident, Work};
use crate::requires::Missing;
use crate::wan::{End, WanProfile};
use crate::world::Plan;

use super::sample::{Sample, mb, wire_bytes};

/// Move a guest once, in a world of its own.
pub fn sample(profile: WanProfile, recipe: &Recipe, work: Work) -> Result<Sample, Missing> {
    let hosts = Hosts::new(Plan { profile: Some(profile), ..Plan::default() })?;
    let resident = Resident::start(&hosts, recipe, work)?;
    let mut prober = resident.watch(&hosts);
    prober.mark("send");
    let before_bytes = wire_bytes(&hosts.world.wan);
    hosts.migrated(End::SiteA, &["send", "--wan", &resident.guest.name, "site-b"]).run();
    let wire_mb = mb(wire_bytes(&hosts.world.wan) - before_bytes);
    let report = report(&hosts.site(End::SiteA).join("state/reports"));
    prober.wait_for_answers(40);
    let figures = resident.judge(&hosts, End::SiteB, prober);
    let downtime_ms = report.downtime_ms.expect("a guest that runs is paused to be moved") as f64;
    let total_s = report.total_ms as f64 / 1e3;
    let course = course(&report);
    Ok(Sample { total_s, wire_mb, downtime_ms, gap_ms: 0.0, harm: 0, course }.felt(&figures))
}

/// The only report there is.
fn report(folder: &Path) -> Report {
    let mut entries = fs::read_dir(folder).expect("look for a report").flatten();
    let entry = entries.next().expect("a migration that has ended leaves a report");
    let text = fs::read_to_string(entry.path()).expect("read a report");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn course(report: &Report) -> String {
    let mut course = String::new();
    for (phase, ms) in &report.phases {
        let _ = write!(course, "{} {:.1} s, ", phase.name(), *ms as f64 / 1e3);
    }
    let disk: u64 = report.disks.iter().map(|disk| disk.sent_bytes).sum();
    let _ = write!(
        course,
        "disk {:.0} MB, memory {:.0} of {:.0} MB in {} passes, the last {:.1} MB in {} ms",
        mb(disk),
        mb(report.ram.sent_bytes),
        mb(report.ram.raw_bytes),
        report.ram.passes,
        mb(report.ram.final_pass_bytes),
        report.ram.final_pass_ms
    );
    course
}
