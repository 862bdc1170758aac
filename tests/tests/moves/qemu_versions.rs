//! Guests between two versions of QEMU: the machine's own, which is 7.2 on Debian 12, and the one of the backports.

use tests::binaries::newer_qemu;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::settings::Settings;
use tests::program::Tool;
use tests::require;
use tests::requires::Missing;
use tests::wan::End;
use tests::world::Plan;

use crate::MAIN_JOB;

/// The way home.
const HOME: [&str; 3] = ["--wan", "web", "site-a"];

/// The newer QEMU as a host's configuration names it.
pub fn newer() -> Result<String, Missing> {
    Ok(newer_qemu()?.display().to_string())
}

/// The version that the QEMU of a running guest was built as.
fn version(hosts: &Hosts, end: End) -> String {
    let [pid] = hosts.processes(end, "qemu-system-x86_64")[..] else { panic!("one QEMU runs there") };
    Tool::new(format!("/proc/{pid}/exe")).arg("--version").run()
}

/// S0-32: another version is no reason to refuse, where it has the guest's machine type.
pub fn a_guest_moves_to_a_newer_qemu_and_back() {
    let settings = Settings { qemu_b: Some(require!(newer())), ..Settings::default() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let before = version(&hosts, End::SiteA);
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert!(report.ram.sent_bytes > 0);
    let there = version(&hosts, End::SiteB);
    assert_ne!(before, there, "two versions of QEMU");
    prober.wait_for_answers(20);
    hosts.send(End::SiteB, &HOME).end().moved();
    assert_eq!(version(&hosts, End::SiteA), before);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteA, prober);
}

pub fn a_guest_moves_between_two_newer_qemus() {
    let qemu = Some(require!(newer()));
    let settings = Settings { qemu_a: qemu.clone(), qemu_b: qemu, ..Settings::default() };
    let hosts = require!(Hosts::with(Plan::default(), &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
