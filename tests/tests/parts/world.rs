//! The world of the end-to-end tests keeps its promises (S0-14, S0-15, S4-03, S4-58, S4-60, S4-61).
//!
//! Times are asserted as lower bounds only: netem holds every packet back for at least its delay.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tests::program::{Tool, signal};
use tests::require;
use tests::requires::program;
use tests::scratch::{fill, first_difference};
use tests::site::Site;
use tests::wait::{PATIENCE, wait_until};
use tests::wan::{End, WanProfile, Way};
use tests::world::{CONTROL, Plan, World};

const MIB: u64 = 1 << 20;

/// Where the neighbour of site A's guests is.
const NEIGHBOUR: &str = "10.1.0.50";

/// A few pings that have to be answered; the least round trip in milliseconds.
#[track_caller]
fn round_trip_ms(from: &Site, address: &str) -> f64 {
    let said = from.shell(&format!("ping -n -q -c 5 -i 0.05 {address}"));
    // rtt min/avg/max/mdev = 41.410/43.269/44.358/1.321 ms
    let least = said.rsplit_once("= ").and_then(|(_, numbers)| numbers.split('/').next()?.parse().ok());
    least.unwrap_or_else(|| panic!("ping said: {said}"))
}

/// A few pings that nobody answers, not even a router with an error.
#[track_caller]
fn is_silent(from: &Site, address: &str) {
    let said = from.tool("ping").args(["-n", "-c", "3", "-i", "0.05", "-W", "1", address]).refused();
    assert!(said.contains("3 packets transmitted, 0 received, 100% packet loss"), "{said}");
    assert!(!said.contains("nreachable") && !said.contains("error"), "{said}");
}

/// Let site A send the file `sent` over one TCP connection into the file `received` of site B, beside the test.
fn send_file(world: &World) -> (tests::site::Inmate, tests::site::Inmate) {
    let receive = "exec busybox nc -l -p 7000 >/site/received";
    let receiver = world.site_b.start("sh", ["-c", receive], "receiver.log");
    let listens = || world.site_b.shell("cat /proc/net/tcp*").contains(":1B58 ");
    wait_until(PATIENCE, "the receiver to listen", listens);
    let sender = format!("exec cat /site/sent >/dev/tcp/{}/7000", End::SiteB.address());
    (world.site_a.start("bash", ["-c", &sender], "sender.log"), receiver)
}

fn received_bytes(world: &World) -> u64 {
    fs::metadata(world.site_b.join("received")).map_or(0, |file| file.len())
}

#[test]
fn all_places_reach_each_other_through_routers_and_the_way_is_as_long_as_the_profile_says() {
    let world = require!(World::new(WanProfile::new(100, Duration::from_millis(40))));
    for address in ["10.1.0.1", NEIGHBOUR, "10.2.0.1", End::SiteB.address()] {
        let least = round_trip_ms(&world.client, address);
        assert!(least >= 40.0, "{address}: {least} ms");
    }
    // There is a router between the sites, and so no layer 2 that both are on.
    let said = world.site_a.tool("ping").args(["-n", "-c", "1", "-t", "1", "10.2.0.1"]).refused();
    assert!(said.contains(&format!("From {}", End::SiteA.gateway())), "{said}");
    world.wan.set(WanProfile::new(100, Duration::from_millis(80)));
    assert!(round_trip_ms(&world.site_b, NEIGHBOUR) >= 80.0);
}

#[test]
fn a_slow_link_is_cut_under_a_connection_and_restored_and_every_byte_arrives() {
    let world = require!(World::new(WanProfile::wan5()));
    let sent = world.site_a.join("sent");
    fs::File::create(&sent).and_then(|file| file.set_len(2 * MIB)).expect("make a file to send");
    fill(&sent, 0, 2 * MIB, 1);
    let before = (world.wan.passed(End::SiteA), world.wan.passed(End::SiteB));
    let (_sender, mut receiver) = send_file(&world);
    wait_until(PATIENCE, "the first bytes to arrive", || received_bytes(&world) > 0);

    world.wan.cut(End::SiteB);
    // What was already under way arrives; nothing follows it.
    wait_until(PATIENCE, "the router to deliver", || world.wan.passed(End::SiteB).held_packets == 0);
    is_silent(&world.client, "10.2.0.1");
    is_silent(&world.site_b, "10.1.0.1");
    round_trip_ms(&world.client, "10.1.0.1");
    let at_cut = received_bytes(&world);
    is_silent(&world.client, "10.2.0.1");
    assert_eq!(received_bytes(&world), at_cut);
    assert!(at_cut < 2 * MIB && receiver.ended().is_none());

    world.wan.restore(End::SiteB);
    world.wan.set(WanProfile::lan100());
    wait_until(PATIENCE, "the file to be received", || receiver.ended().is_some());
    assert_eq!(first_difference(&sent, &world.site_b.join("received")), None);
    let after = (world.wan.passed(End::SiteA), world.wan.passed(End::SiteB));
    assert!(after.0.from_end_bytes - before.0.from_end_bytes > 2 * MIB, "{before:?} {after:?}");
    assert!(after.1.to_end_bytes - before.1.to_end_bytes > 2 * MIB, "{before:?} {after:?}");
    // What acknowledges them goes the other way.
    assert!(after.1.from_end_bytes > before.1.from_end_bytes, "{before:?} {after:?}");
}

#[test]
fn a_lossy_link_loses_packets_and_counts_them() {
    let world = require!(World::new(WanProfile::lan100()));
    assert_eq!(world.wan.passed(End::SiteB).dropped_packets, 0);
    world.wan.set(WanProfile::lan100().lossy(30.0));
    let said = world.site_a.run("ping", ["-n", "-q", "-c", "100", "-i", "0.01", "-W", "1", "10.2.0.1"]);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(!said.contains("100 received"), "{said}");
    let (there, back) = (world.wan.passed(End::SiteB), world.wan.passed(End::SiteA));
    assert!(there.dropped_packets > 0 && back.dropped_packets > 0, "{there:?} {back:?}");
}

#[test]
fn a_half_open_link_carries_one_direction() {
    let world = require!(World::new(WanProfile::lan100()));
    require!(program("tcpdump"));
    let (site, client) = (&world.site_a, &world.client);
    for (way, heard_by_site) in [(Way::Out, true), (Way::In, false)] {
        world.wan.cut_half(End::SiteA, way);
        let capture = site.capture("wan0", "icmp");
        is_silent(client, "10.1.0.1");
        // Three requests and three answers, or nothing at all.
        assert_eq!(capture.finish().packets().len(), if heard_by_site { 6 } else { 0 });
        world.wan.restore(End::SiteA);
        round_trip_ms(client, "10.1.0.1");
    }
}

#[test]
fn a_site_sees_its_own_files_and_processes_and_nothing_of_the_other_site() {
    let world = require!(World::with(Plan::default()));
    let (a, b) = (&world.site_a, &world.site_b);
    let secret = a.join("secret");
    fs::write(&secret, "of site A").expect("write a file of site A");
    // Both start empty, apart from what was just written (S0-14).
    assert_eq!((a.shell("ls /site"), b.shell("ls /site")), ("secret\n".to_owned(), String::new()));
    let inside = a.inside("secret").display().to_string();
    assert_eq!(a.shell(&format!("cat {inside}")), "of site A");
    let told = b.tool("cat").arg(&secret).refused();
    assert!(told.contains("No such file"), "{told}");
    b.tool("cat").arg(&inside).refused();
    // Nor any other way: no file system that can be written is the same as one at the other site.
    a.shell("for place in / /run /tmp /dev/shm /var/tmp; do : >$place/mark; done");
    b.tool("sh")
        .args(["-c", "find / -xdev -name mark | grep . || find /dev/shm -name mark | grep ."])
        .refused();
    b.tool("sh").args(["-c", ": >/etc/mark"]).refused();

    let sleeper = a.start("sleep", ["1000"], "sleeper.log");
    assert_eq!(a.pids(), [sleeper.pid()]);
    assert!(b.pids().is_empty());
    assert!(a.shell("ps -e -o args").contains("sleep 1000"));
    assert!(!b.shell("ps -e -o args").contains("sleep 1000"));
    let told = b.tool("kill").arg(sleeper.pid().to_string()).refused();
    assert!(told.contains("No such process"), "{told}");
}

#[test]
fn each_site_has_a_clock_and_a_name_and_interfaces_of_its_own() {
    let world = require!(World::with(Plan { control_network: true, ..Plan::default() }));
    let uptime_s = |site: &Site| -> f64 {
        let said = site.shell("cut -d. -f1 /proc/uptime");
        said.trim().parse().expect("an uptime is a number")
    };
    // More than a day apart, whoever is asked first.
    assert!((uptime_s(&world.site_b) - uptime_s(&world.site_a)).abs() > 86_400.0);
    assert_eq!(world.site_b.shell("hostname"), "site-b\n");
    assert_eq!(world.site_b.shell("ls /sys/class/net"), "br0\nctl0\nlo\nwan0\n");
    assert_eq!(world.site_b.ip_json(&["addr", "show", "dev", "br0"])[0]["addr_info"][0]["local"], "10.2.0.1");
    world.site_b.shell("test -c /dev/net/tun && ip tuntap add dev tap0 mode tap && ip link del tap0");
    // The control network is not the WAN.
    world.wan.cut(End::SiteB);
    round_trip_ms(&world.site_a, CONTROL[1]);
    is_silent(&world.site_a, "10.2.0.1");
}

#[test]
fn a_crash_ends_every_process_and_keeps_the_files_and_power_comes_back_to_an_empty_machine() {
    let mut world = require!(World::new(WanProfile::lan100()));
    // One in the usual way, one that has left its group, its session and its parent, and one that has ended.
    let mut sleeper = world.site_a.start("sleep", ["1000"], "sleeper.log");
    world.site_a.shell("echo kept >/site/file; : >/run/lost; ip link add name left type bridge");
    world
        .site_a
        .shell("setsid sh -c 'sleep 2000 & sleep 3000 & true & exec true' >/dev/null 2>&1 </dev/null");
    wait_until(PATIENCE, "the orphans to be alone", || world.site_a.pids().len() == 3);
    let all = world.site_a.pids();
    world.crash(End::SiteA);
    assert!(
        all.iter().all(|pid| !fs::exists(format!("/proc/{pid}")).expect("look for a process")),
        "{all:?}"
    );
    wait_until(PATIENCE, "the end of a program to be seen", || sleeper.ended().is_some());
    is_silent(&world.client, "10.1.0.1");

    world.restart(End::SiteA);
    assert!(world.site_a.pids().is_empty());
    assert_eq!(
        world.site_a.shell("cat /site/file; test ! -e /run/lost; ls /sys/class/net"),
        "kept\nbr0\nlan-a\nlo\nwan0\n"
    );
    round_trip_ms(&world.client, NEIGHBOUR);
}

#[test]
fn a_program_inside_is_started_signalled_and_killed_and_its_code_is_seen() {
    let world = require!(World::with(Plan::default()));
    let site = &world.site_b;
    let script = "trap 'echo asked; exit 7' TERM; echo up; while :; do sleep 0.01; done";
    let mut polite = site.start("sh", ["-c", script], "polite.log");
    wait_until(PATIENCE, "the script to be up", || polite.log().contains("up"));
    polite.terminate();
    wait_until(PATIENCE, "the script to end", || polite.ended().is_some());
    assert_eq!((polite.ended(), polite.log().as_str()), (Some(7), "up\nasked\n"));
    let mut deaf = site.start("sh", ["-c", "trap '' TERM; echo up; exec sleep 1000"], "deaf.log");
    wait_until(PATIENCE, "the script to be up", || deaf.log().contains("up"));
    deaf.terminate();
    assert_eq!(deaf.ended(), None);
    deaf.kill();
    let dropped = site.start("sleep", ["1000"], "dropped.log");
    drop(dropped);
    wait_until(PATIENCE, "all programs to be gone", || site.pids().is_empty());
    assert_eq!(site.run("sh", ["-c", "exit 3"]).status.code(), Some(3));
}

#[test]
fn a_recording_shows_what_went_over_the_wire() {
    let world = require!(World::with(Plan::default()));
    require!(program("tcpdump"));
    fs::write(world.site_a.join("sent"), "plain words ".repeat(1000)).expect("write a file to send");
    let capture = world.site_b.capture("wan0", "tcp port 7000");
    let (_sender, mut receiver) = send_file(&world);
    wait_until(PATIENCE, "the file to be received", || receiver.ended().is_some());
    let recording = capture.finish();
    assert!(recording.count(b"plain words") > 0 && recording.count(b"secret words") == 0);
    assert!(recording.packets().len() > recording.count(b"plain words"));
}

/// Network and PID namespaces that any process is in.
fn namespaces() -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").expect("list the processes").flatten();
    let spaces =
        processes.flat_map(|process| ["net", "pid"].map(|kind| process.path().join("ns").join(kind)));
    spaces.filter_map(|link| Some(fs::read_link(link).ok()?.to_str()?.to_owned())).collect()
}

/// The namespaces of a world, also of programs that run in it.
fn namespaces_of(world: &World) -> BTreeSet<String> {
    let show = "readlink /proc/self/ns/net /proc/self/ns/pid";
    let sites = [&world.site_a, &world.site_b, &world.client, &world.lan_a];
    sites.iter().flat_map(|site| site.shell(show).lines().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn host_interfaces() -> String {
    Tool::new("ls").arg("/sys/class/net").run()
}

#[test]
fn two_worlds_stand_side_by_side_and_nothing_is_left_of_them() {
    let interfaces = host_interfaces();
    let profile = WanProfile::lan100();
    let (one, other) = (require!(World::new(profile)), require!(World::new(profile)));
    let made = &namespaces_of(&one) | &namespaces_of(&other);
    assert_eq!(made.len(), 16);
    assert!(made.is_subset(&namespaces()));
    one.wan.cut(End::SiteA);
    is_silent(&one.client, "10.1.0.1");
    round_trip_ms(&other.client, "10.1.0.1");
    let _left_running = one.site_b.start("sleep", ["1000"], "sleeper.log");
    let directory = one.scratch.path().to_owned();
    drop(one);
    drop(other);
    assert!(made.is_disjoint(&namespaces()), "{made:?}");
    assert!(!directory.exists());
    assert_eq!(host_interfaces(), interfaces);
}

/// Runs itself once more, and kills that.
#[test]
fn a_test_that_is_killed_leaves_no_process_no_namespace_and_no_file() {
    const ROLE: &str = "WORLD_TO_BE_KILLED";
    let here = "world::a_test_that_is_killed_leaves_no_process_no_namespace_and_no_file";
    if env::var_os(ROLE).is_some() {
        let world = require!(World::new(WanProfile::lan100()));
        let _inside = world.site_a.start("setsid", ["sleep", "1000"], "sleeper.log");
        let spaces: Vec<String> = namespaces_of(&world).into_iter().collect();
        println!("\nworld {} {}", world.scratch.path().display(), spaces.join(" "));
        // Until it is killed.
        wait_until(PATIENCE, "the end of this test", || false);
    }
    require!(World::with(Plan::default()));
    let mut command = Command::new(env::current_exe().expect("a test knows its program"));
    command.args(["--exact", here, "--nocapture"]).env(ROLE, "yes");
    let mut victim = command.stdout(Stdio::piped()).spawn().expect("start this test again");
    let mut lines = BufReader::new(victim.stdout.take().expect("the standard output was piped")).lines();
    let told = lines.find_map(|line| line.ok()?.strip_prefix("world ").map(str::to_owned));
    let told = told.expect("it tells what it has made");
    let (directory, made) = told.split_once(' ').expect("a directory and namespaces");
    let made: BTreeSet<String> = made.split(' ').map(str::to_owned).collect();
    let in_use = || fs::exists(directory).expect("look for a directory");
    assert!(in_use());
    assert!(made.len() == 8 && made.is_subset(&namespaces()), "{made:?}");
    signal(victim.id(), Signal::SIGKILL);
    victim.wait().expect("wait for a killed test");
    wait_until(PATIENCE, "its world to be gone", || made.is_disjoint(&namespaces()) && !in_use());
}
