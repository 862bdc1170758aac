//! A move under real KVM: dirty pages and device state of the host's own virtualization, not of an emulation (S4-01).
//!
//! The guest is one sector of 16-bit code, because that runs on every KVM. It has no network: its disk says what it
//! does, how far it is, and whether its memory is what it should be.

use std::fs;
use std::path::PathBuf;

use tests::boot_sector::{self, COUNTING, Records};
use tests::hosts::Hosts;
use tests::require;
use tests::scratch::Scratch;
use tests::wait::{PATIENCE, wait_for};
use tests::wan::End;
use tests::world::Plan;

const GUEST: &str = "counting";
const IMAGE_BYTES: u64 = 4 << 20;

/// The software that stands in for a processor on some hosts lacks one flag of `qemu64`.
const DESCRIPTION: &str = "name = \"counting\"\nmemory_mib = 64\naccel = \"kvm\"\ncpu = \"qemu64,-pni\"\n\
     [[disk]]\nid = \"root\"\nimage = \"counting.raw\"\n";

fn image(hosts: &Hosts, end: End) -> PathBuf {
    hosts.site(end).join("images/counting.raw")
}

fn records(hosts: &Hosts, end: End) -> Records {
    Records::read(&image(hosts, end)).expect("read an image")
}

/// Wait until the guest has written of a round after `rounds`, at this end.
#[track_caller]
fn later(hosts: &Hosts, end: End, rounds: u32) -> Records {
    wait_for(PATIENCE, "the guest to count on", || {
        let found = records(hosts, end);
        (found.rounds > rounds).then_some(found)
    })
}

fn start(hosts: &Hosts) {
    let site = hosts.site(End::SiteA);
    let blank = Scratch::new();
    let made = blank.sparse("counting.raw", IMAGE_BYTES);
    boot_sector::install(&made, COUNTING);
    fs::copy(&made, image(hosts, End::SiteA)).expect("place an image");
    fs::write(site.join("counting.toml"), DESCRIPTION).expect("write a description");
    let description = site.inside("counting.toml").display().to_string();
    hosts.migrated(End::SiteA, &["run", &description]).run();
}

pub fn a_guest_under_kvm_moves_and_its_memory_and_its_disk_go_on() {
    require!(boot_sector::kvm());
    let hosts = require!(Hosts::new(Plan::default()));
    start(&hosts);
    let before = later(&hosts, End::SiteA, 2000);
    println!("at the source: {before:?}");

    println!("{}", hosts.migrated(End::SiteA, &["send", "--wan", GUEST, "site-b"]).run());
    assert_eq!(hosts.states(GUEST), ["moved", "running"]);
    let left = records(&hosts, End::SiteA);
    assert!(left.rounds > before.rounds, "it counted while it moved: {left:?}");
    let there = later(&hosts, End::SiteB, left.rounds);
    let later = later(&hosts, End::SiteB, there.rounds + 2000);
    println!("it left with {left:?}; at the destination: {there:?}, then {later:?}");
    assert_eq!(later.faults, 0, "its memory is what it wrote, and its disk took every write");
    assert!(later.are_of_one_life(), "it went on, and was not started anew: {later:?}");
    assert_eq!(records(&hosts, End::SiteA), left, "nobody writes at the source any more");
}
