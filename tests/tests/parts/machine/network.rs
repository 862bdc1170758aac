//! Taps of a guest, in a network namespace of the test's own (S3-29, S3-36).

use std::path::Path;

use migrated::guest::{Guest, Nic};
use migrated::io::machine::{DiskRoles, Machine, Start};
use nix::sys::signal::Signal;
use tests::program::{Tool, children, signal};
use tests::requires::{programs, root};
use tests::{require, wait};

use super::ground::Ground;

/// Set in the second life of this test program, which is in its own namespace.
const INSIDE: &str = "MACHINE_TEST_NAMESPACE";

/// A command in this namespace.
fn ip(words: &str) -> String {
    Tool::new("ip").args(words.split(' ')).run()
}

fn received_packets(interface: &str) -> u64 {
    let text = ip(&format!("-j -s link show {interface}"));
    let shown: serde_json::Value = serde_json::from_str(&text).expect("ip speaks JSON");
    shown[0]["stats64"]["rx"]["packets"].as_u64().expect("a count of packets")
}

#[test]
fn a_guest_has_a_tap_on_the_mapped_bridge_and_silence_when_it_is_down() {
    require!(root());
    require!(programs(&["ip", "unshare"]));
    let name = "machine::network::a_guest_has_a_tap_on_the_mapped_bridge_and_silence_when_it_is_down";
    in_a_namespace(name, inside());
}

/// QEMU as a user who may do nothing else: its disk, its tap, its console and its monitor are lent to it, also after
/// the disk's daemon was started again, and also for a saved state.
#[test]
fn qemu_runs_as_the_user_that_is_named() {
    require!(root());
    require!(programs(&["ip", "unshare"]));
    in_a_namespace("machine::network::qemu_runs_as_the_user_that_is_named", as_nobody());
}

/// Whoever may, opens the device of taps there, as on Debian; a machine without udev may keep it to root.
const OPEN_TUN: &str = "mount -t tmpfs tun /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec \"$@\"";

/// Runs a test in a network namespace of its own: in a second life of this test program.
fn in_a_namespace(name: &str, test: impl Future<Output = ()>) {
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Runtime::new().expect("a runtime").block_on(test);
    }
    let exe = std::env::current_exe().expect("a test program has a path");
    let words = ["--exact", name, "--nocapture"];
    let shell = ["--net", "--mount", "sh", "-c", OPEN_TUN, "sh", "env", &format!("{INSIDE}=1")];
    let said = Tool::new("unshare").args(shell).arg(exe).args(words).run();
    assert!(said.contains("1 passed"), "{name} is not the name of a test:\n{said}");
}

/// A guest with a card, and the bridge that it is put on.
fn networked(ground: &Ground, name: &str) -> Guest {
    ip("link add br0 type bridge");
    ip("link set br0 up");
    let mut guest = ground.guest(name);
    let mac = "52:54:00:12:34:56".to_owned();
    guest.nics.push(Nic { id: "net0".into(), mac, bridge: "lan".into(), address: None, dns_name: None });
    guest
}

async fn as_nobody() {
    let mut ground = require!(Ground::new());
    let guest = networked(&ground, "own");
    ground.config.qemu.user = Some("no-such-user".into());
    let refused = Machine::start(&ground.config, &guest, Start::Boot, DiskRoles::Primary).await.unwrap_err();
    assert!(refused.to_string().contains("there is no user \"no-such-user\""), "{refused}");
    ground.config.qemu.user = Some("nobody".into());
    let held = ground.start(&guest, Start::Boot).await;
    let status = std::fs::read_to_string(format!("/proc/{}/status", held.machine.pid())).unwrap();
    let uid = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid;
    for (field, value) in
        [("Uid:", format!("{uid}\t{uid}\t{uid}\t{uid}")), ("CapEff:", "0000000000000000".into())]
    {
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        assert_eq!(line.trim(), value, "{field}");
    }
    held.wait_for_writes(20);
    let supervisor = held.machine.disks()[0].pid().unwrap();
    signal(children(supervisor)[0], Signal::SIGKILL);
    held.wait_for_writes(20);
    let state = ground.scratch.join("state.saved");
    held.machine.save(&state).await.unwrap();
    drop(held);
    let again = ground.start(&guest, Start::Restore(state)).await;
    again.wait_for_writes(20);
    again.quit().await;
    ground.assert_clean("own");
}

async fn inside() {
    let ground = require!(Ground::new());
    let guest = networked(&ground, "net");
    let held = ground.start(&guest, Start::Boot).await;
    let tap = held.machine.taps()[0].clone();
    assert!(ip(&format!("link show {}", tap.name)).contains("master br0"));
    // QEMU announces the guest when it is told to: real frames of its card.
    let announce = serde_json::json!({ "initial": 10, "max": 10, "rounds": 1, "step": 0 });
    held.machine.qmp().call("announce-self", announce.clone()).await.unwrap();
    wait::wait_until(wait::PATIENCE, "a frame of the guest", || received_packets(&tap.name) > 0);
    held.machine.tap_down().unwrap();
    assert!(!tap.is_up().unwrap());
    let before = received_packets(&tap.name);
    held.machine.qmp().call("announce-self", announce.clone()).await.unwrap();
    held.machine.tap_up().unwrap();
    assert!(tap.is_up().unwrap());
    held.machine.qmp().call("announce-self", announce).await.unwrap();
    wait::wait_until(wait::PATIENCE, "the tap to speak again", || received_packets(&tap.name) > before);
    let disks = held.machine.disks()[0].places().control.clone();
    held.quit().await;
    assert!(!Path::new(&disks).exists());
    assert!(!ip("link show").contains(&tap.name), "the tap stays");
    ground.assert_clean("net");
}
