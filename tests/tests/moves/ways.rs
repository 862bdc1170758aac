//! Two ways between the sites, of which one dies, or is slow, or is too narrow for a large packet; and a destination that
//! gets another address. One attempt is enough, and users see a stall and no error.
//!
//! ```text
//!  site-a ──── wan0 ──── router ──── wan0 ──── site-b     data: thin and lossy, or slow
//!     └─────────────── ctl0 ────────────────────┘         control: a cable; the tunnels end there too
//! ```

use migrated::phase::Phase;
use migrated::report::Report;
use tests::guest_kit::{ADDRESS, Recipe};
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::hosts::sending::Sending;
use tests::hosts::settings::Settings;
use tests::prober::{Prober, Watch};
use tests::require;
use tests::requires::program;
use tests::wan::{End, WanProfile};
use tests::world::{CONTROL, Plan};

use crate::cuts::{BRIDGES, OTHER, STAYER, insist_on_one_attempt, recipe};
use crate::{AT_FIRST, MAIN_JOB, SLOWLY, long_lossy_link, memory_at_once, over};

/// Where the daemons' data goes of itself, at site B.
const DATA_B: &str = "192.0.2.5";

/// Two networks between the sites.
fn two_ways(settings: Settings) -> Result<Hosts, tests::requires::Missing> {
    let plan = Plan { control_network: true, ..long_lossy_link() };
    Hosts::with(plan, &Settings { tunnel_addresses: Some(CONTROL), ..settings })
}

/// Wait until a lane goes somewhere else, and carries something there.
fn wait_for_way(sending: &Sending, prober: &Prober, what: &str, data: &str, control: &str) {
    let there = |address: &str, wanted: &str| address.starts_with(wanted);
    let moved = sending.wait_until(what, |status| {
        let link = &status.link;
        link.up && there(&link.data_address, data) && there(&link.control_address, control)
    });
    sending.wait_until("the link to carry something there", |status| {
        status.link.sent_bytes > moved.link.sent_bytes
    });
    prober.wait_for_answers(20);
    println!("{what}: in {} after {} ms", moved.phase.name(), moved.elapsed_ms);
}

fn insist_on_event(report: &Report, words: &[&str]) {
    let is_it = |what: &str| words.iter().all(|word| what.contains(word));
    assert!(report.events.iter().any(|(_, what)| is_it(what)), "no {words:?}: {:#?}", report.events);
}

/// S0-04.
pub fn a_move_goes_on_over_the_control_network_when_the_data_network_dies_for_good_while_the_disk_goes() {
    let hosts = require!(two_ways(Settings::default()));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &AT_FIRST].concat());
    hosts.wait_for_event(End::SiteA, "tunnel: up");
    let before = sending.wait_for(Phase::Bulk);
    assert!(before.link.data_address.starts_with(DATA_B), "{:?}", before.link);
    hosts.world.wan.part(End::SiteA, End::SiteB);
    wait_for_way(&sending, &prober, "data over the control network", CONTROL[1], CONTROL[1]);
    hosts.migrated(End::SiteA, &["set", "stayer", "bandwidth=none"]).run();
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    insist_on_event(&report, &["warning: link: 192.0.2.5:7701 is out of reach, data goes over 198.51.100.2"]);
    assert!(report.link.data_address.starts_with(CONTROL[1]), "{:?}", report.link);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S0-04, S1-10: while the memory goes, each network dies in turn; what comes back is gone back to.
pub fn a_move_survives_the_death_of_either_network_while_memory_goes_and_data_leaves_the_control_network_again()
 {
    let hosts = require!(two_ways(memory_at_once()));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &SLOWLY].concat());
    sending.wait_for(Phase::PreCopy);
    hosts.world.wan.part(End::SiteA, End::SiteB);
    wait_for_way(&sending, &prober, "data over the control network", CONTROL[1], CONTROL[1]);
    hosts.world.wan.join();
    wait_for_way(&sending, &prober, "data over its own network again", DATA_B, CONTROL[1]);
    hosts.world.cut_control();
    let phase = sending.wait_until("control over the data network", |status| {
        status.link.up && status.link.control_address.starts_with(DATA_B)
    });
    assert_eq!(phase.phase, Phase::PreCopy, "it goes on where it was");
    // The tunnel has no other way than the control network: it is back before users need it.
    hosts.world.restore_control();
    hosts.migrated(End::SiteA, &["set", "stayer", "bandwidth=none"]).run();
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    insist_on_event(&report, &["link: data goes over 192.0.2.5:7701 again"]);
    insist_on_event(
        &report,
        &["warning: link: 198.51.100.2:7700 is out of reach, control goes over 192.0.2.5"],
    );
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

pub fn a_move_survives_another_address_of_its_destination() {
    let settings = Settings { tunnel_addresses: Some(BRIDGES), ..memory_at_once() };
    let hosts = require!(Hosts::with(long_lossy_link(), &settings));
    let resident = require!(Resident::start(&hosts, &recipe(), Work::default()));
    let prober = resident.watch(&hosts);
    let sending = hosts.send(End::SiteA, &[&STAYER[..], &SLOWLY].concat());
    sending.wait_for(Phase::PreCopy);
    hosts.world.wan.readdress(End::SiteB, hosts.site(End::SiteB), OTHER);
    wait_for_way(&sending, &prober, "both lanes from the other address", OTHER[0], OTHER[0]);
    hosts.migrated(End::SiteA, &["set", "stayer", "bandwidth=none"]).run();
    let report = sending.end().moved();
    insist_on_one_attempt(&report);
    insist_on_event(&report, &["data goes over 192.0.2.33 (dialled from there)"]);
    assert_eq!(hosts.states("stayer"), ["moved", "running"]);
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// S1-12.
pub fn of_two_data_addresses_the_faster_one_is_picked_and_named_in_the_report() {
    let both = [
        r#"["192.0.2.1:7701", "198.51.100.1:7701"]"#,
        // The slow one first.
        r#"["192.0.2.5:7701", "198.51.100.2:7701"]"#,
    ];
    let settings = Settings { listen_data: Some(both), ..Settings::default() };
    let slow = WanProfile::new(3, std::time::Duration::from_millis(40));
    let hosts = require!(Hosts::with(Plan { control_network: true, ..over(slow) }, &settings));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    let report = hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    let [fast, slow] = &report.link.probes[..] else { panic!("{:?}", report.link) };
    assert_eq!([&fast.address[..], &slow.address], ["198.51.100.2:7701", "192.0.2.5:7701"]);
    assert!(fast.goodput_bytes_per_s > slow.goodput_bytes_per_s, "{:?}", report.link);
    assert_eq!(report.link.data_address, fast.address);
    insist_on_event(&report, &["of its data addresses 198.51.100.2:7701 is taken", "192.0.2.5:7701: "]);
    let text = hosts.migrated(End::SiteA, &["status", &report.id]).run();
    assert!(text.contains("data to          198.51.100.2:7701") && text.contains("probed"), "{text}");
    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}

/// The largest packet of WireGuard over PPPoE.
const NARROW_BYTES: u32 = 1412;

/// S0-51: the sites' links carry no packet of the usual size any more, and the client's session has used such ones.
pub fn link_and_tunnel_work_over_a_way_for_smaller_packets_and_a_session_with_large_ones_goes_on() {
    require!(program("tcpdump"));
    let hosts = require!(Hosts::new(long_lossy_link()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let watch = Watch { lines_per_s: 10, line_bytes: 4000, ..Watch::over(ADDRESS) };
    let prober = Prober::start(&hosts.client(), &watch);
    prober.wait_for_answers(20);
    for end in [End::SiteA, End::SiteB] {
        hosts.world.wan.set_mtu(end, hosts.site(end), NARROW_BYTES);
    }
    prober.wait_for_answers(20);
    let capture = hosts.site(End::SiteB).capture("wan0", "ip[6:2] & 0x3fff != 0");
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    prober.wait_for_answers(40);
    for end in [End::SiteA, End::SiteB] {
        let tunnel = &hosts.tunnels(end)[0];
        let found = hosts.site(end).ip_json(&["link", "show", "dev", tunnel]);
        assert_eq!(found[0]["mtu"], NARROW_BYTES - 50, "{found}");
    }
    // What goes through the tunnel fits: nothing is cut into fragments on the way.
    let recording = capture.finish();
    assert_eq!(recording.packets().len(), 0, "fragments");
    resident.judge(&hosts, End::SiteB, prober);
}
