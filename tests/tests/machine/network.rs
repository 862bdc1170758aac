//! Taps of a guest, in a network namespace of the test's own (S3-29, S3-36).

use std::path::Path;

use migrated::guest::Nic;
use migrated::io::machine::Start;
use tests::program::Tool;
use tests::requires::{program, root};
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
    for tool in ["ip", "unshare"] {
        require!(program(tool));
    }
    if std::env::var_os(INSIDE).is_some() {
        return tokio::runtime::Runtime::new().expect("a runtime").block_on(inside());
    }
    let exe = std::env::current_exe().expect("a test program has a path");
    let name = "network::a_guest_has_a_tap_on_the_mapped_bridge_and_silence_when_it_is_down";
    let words = ["--exact", name, "--nocapture"];
    Tool::new("unshare").args(["--net", "env", &format!("{INSIDE}=1")]).arg(exe).args(words).run();
}

async fn inside() {
    let ground = require!(Ground::new());
    ip("link add br0 type bridge");
    ip("link set br0 up");
    let mut guest = ground.guest("net");
    let mac = "52:54:00:12:34:56".to_owned();
    guest.nics.push(Nic { id: "net0".into(), mac, bridge: "lan".into(), address: None, dns_name: None });
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
