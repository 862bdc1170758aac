//! A move by `migrated send --wan`, judged by the oracle.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use migrated::phase::Outcome;
use migrated::report::{DiskReport, Report};

use crate::guest_kit::Recipe;
use crate::hosts::Hosts;
use crate::hosts::resident::{Resident, Work};
use crate::requires::Missing;
use crate::wait::wait_for;
use crate::wan::{End, WanProfile};
use crate::world::Plan;

use super::sample::{LONG, Sample, mb, wire_bytes};

/// Move a guest once, in a world of its own.
pub fn sample(profile: WanProfile, recipe: &Recipe, work: Work) -> Result<Sample, Missing> {
    let hosts = Hosts::new(Plan { profile: Some(profile), ..Plan::default() })?;
    let resident = Resident::start(&hosts, recipe, work)?;
    let mut prober = resident.watch(&hosts);
    prober.mark("send");
    let before_bytes = wire_bytes(&hosts.world.wan);
    hosts.migrated(End::SiteA, &["send", "--wan", "--detach", &resident.guest.name, "site-b"]).run();
    let reports = hosts.site(End::SiteA).join("state/reports");
    let report = wait_for(LONG, "the report of a migration", || report(&reports));
    assert_eq!(report.outcome, Outcome::Moved, "{report:?}");
    let wire_mb = mb(wire_bytes(&hosts.world.wan) - before_bytes);
    prober.wait_for_answers(40);
    let figures = resident.judge(&hosts, End::SiteB, prober);
    let downtime_ms = report.downtime_ms.expect("a guest that runs is paused to be moved") as f64;
    let total_s = report.total_ms as f64 / 1e3;
    let course = course(&report);
    Ok(Sample { total_s, wire_mb, downtime_ms, gap_ms: 0.0, harm: 0, course }.felt(&figures))
}

/// The only report there is, as soon as it is whole.
fn report(folder: &Path) -> Option<Report> {
    let entry = fs::read_dir(folder).ok()?.flatten().next()?;
    serde_json::from_str(&fs::read_to_string(entry.path()).ok()?).ok()
}

fn course(report: &Report) -> String {
    let mut course = String::new();
    for (phase, ms) in &report.phases {
        let _ = write!(course, "{} {:.1} s, ", phase.name(), *ms as f64 / 1e3);
    }
    let sum = |of: fn(&DiskReport) -> u64| mb(report.disks.iter().map(of).sum());
    let _ = write!(
        course,
        "disk {:.0} of {:.0} MB, with {:.0} MB of deltas; memory {:.0} of {:.0} MB in {} passes, \
         the last {:.1} MB in {} ms",
        sum(|disk| disk.sent_bytes),
        sum(|disk| disk.raw_bytes),
        sum(|disk| disk.delta_bytes),
        mb(report.ram.sent_bytes),
        mb(report.ram.raw_bytes),
        report.ram.passes,
        mb(report.ram.final_pass_bytes),
        report.ram.final_pass_ms
    );
    course
}
