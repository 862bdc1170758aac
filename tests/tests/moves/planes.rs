//! What goes over which wire, and that nobody there can read it.

use std::fs;

use migrated::phase::{Outcome, Phase};
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::requires::program;
use tests::site::Site;
use tests::wan::End;
use tests::world::Plan;

use crate::{MAIN_JOB, SLOWLY};

/// What every block begins with that the guest writes to its disk and into its memory.
const MARKER: &[u8] = b"NUMBERED";

/// What control may need for a short move: far less than the data.
const CONTROL_BYTES_MAX: u64 = 512 << 10;

fn sent_bytes(site: &Site, device: &str) -> u64 {
    let found = site.ip_json(&["link", "show", "dev", device]);
    found[0]["stats64"]["tx"]["bytes"].as_u64().expect("ip counts bytes")
}

/// S1-10, S1-11, S1-15, S1-17, S3-22.
pub fn data_and_control_have_their_own_networks_and_nothing_of_the_guest_is_readable_on_either() {
    require!(program("tcpdump"));
    let hosts = require!(Hosts::new(Plan { control_network: true, ..Plan::default() }));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let source = hosts.site(End::SiteA);
    let before = hosts.traces(End::SiteB);

    // With the data network dead, control goes on: the cancel is heard at both sides at once.
    let sending = hosts.send(End::SiteA, &[&MAIN_JOB[..], &SLOWLY].concat());
    sending.wait_for(Phase::Bulk);
    hosts.world.wan.cut(End::SiteB);
    hosts.migrated(End::SiteA, &["cancel", "web"]).run();
    sending.end().stayed(Outcome::Cancelled);
    hosts.wait_until_clean(End::SiteB, &before, false);
    hosts.world.wan.restore(End::SiteB);

    let sent = || ["wan0", "ctl0"].map(|device| sent_bytes(source, device));
    let [data_before, control_before] = sent();
    let captures = [source.capture("wan0", ""), source.capture("ctl0", "")];
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    let [data_after, control_after] = sent();
    let recordings = captures.map(|capture| capture.finish());
    let (data, control) = (data_after - data_before, control_after - control_before);
    let copied = report.ram.sent_bytes + report.disks.iter().map(|disk| disk.sent_bytes).sum::<u64>();
    println!("{data} bytes of data, {control} of control; {copied} of disk and memory");
    assert!(data > copied, "disk and memory went over the data network");
    assert!(control > 0 && control < CONTROL_BYTES_MAX.min(copied / 4), "{control} bytes of control");

    // The marker is on the disk; on the wires it is not.
    let image = fs::read(resident.image(&hosts, End::SiteB, 0)).expect("read an image");
    assert!(image.chunks_exact(4096).any(|block| block.starts_with(MARKER)));
    for recording in &recordings {
        assert!(!recording.packets().is_empty());
        assert_eq!(recording.count(MARKER), 0);
    }
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
