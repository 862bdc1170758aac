//! What the status says of recorded writes and of slowed ones, counted by somebody else.

use tests::daemon::Daemon;
use tests::lab::Lab;
use tests::program::Tool;
use tests::require;
use tests::wait::{PATIENCE, wait_until};

const MIB: u64 = 1 << 20;

/// `count` writes of 4 KiB through the daemon, `depth` at a time.
fn write(disk: &Daemon, count: u64, depth: u64) {
    let (count, depth) = (count.to_string(), depth.to_string());
    let flags = ["bench", "-w", "-f", "raw", "-t", "none", "-s", "4096", "-d", &depth, "-c", &count];
    Tool::new("qemu-img").args(flags).arg(disk.uri()).run();
}

fn number(disk: &Daemon, path: &str) -> u64 {
    disk.status().pointer(path).and_then(serde_json::Value::as_u64).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn s4_15_every_write_while_recording_is_a_delta_and_s4_73_many_travel_together() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let replica = lab.scratch.join("replica");
    let copy = lab.serve("copy", &lab.scratch.join("copy")).replica(&replica, 16 * MIB);
    let _copy = copy.flags(["--disk-id", "web"]).start();
    let image = lab.scratch.patterned("image", 16 * MIB, 61);
    let disk = lab.serve("disk", &image).flags(["--disk-id", "web"]).start();
    write(&disk, 100, 4);
    assert_eq!(number(&disk, "/replication/deltas_total"), 0, "nothing is recorded before it is asked for");
    let before = number(&disk, "/requests/writes_total");
    disk.ctl(&["replicate", &replica.to_string_lossy()]);
    write(&disk, 3000, 16);
    disk.ctl(&["barrier"]);
    let written = number(&disk, "/requests/writes_total") - before;
    assert_eq!(written, 3000);
    assert_eq!(number(&disk, "/replication/deltas_total"), written, "S4-15");
    assert_eq!(number(&disk, "/replication/delta_bytes_total"), written * 4096, "S4-54");
    assert!(number(&disk, "/replication/batches_total") < written, "S4-73");
    disk.ctl(&["record", "off"]);
    write(&disk, 100, 4);
    assert!(!disk.status()["replication"]["recording"].as_bool().expect("recording"), "S4-23");
}

#[test]
fn s4_36_writes_above_the_threshold_are_delayed_and_those_below_are_not() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let image = lab.scratch.patterned("image", 16 * MIB, 62);
    let flags = ["--throttle", "paper", "--throttle-threshold", "200", "--throttle-delay-us", "300"];
    let disk = lab.serve("disk", &image).flags(flags).start();
    wait_until(PATIENCE, "the policy to speak", || number(&disk, "/throttle/delay_us") == 300);
    write(&disk, 150, 16);
    assert_eq!(number(&disk, "/throttle/delayed_writes_total"), 0, "S4-36: below the threshold");
    write(&disk, 2000, 16);
    let delayed = number(&disk, "/throttle/delayed_writes_total");
    assert!(delayed > 0, "S4-36: above the threshold");
    assert!(number(&disk, "/throttle/level") >= 1, "S4-18: the level rises");
    disk.ctl(&["policy", "none"]);
    wait_until(PATIENCE, "the other policy to speak", || number(&disk, "/throttle/delay_us") == 0);
    let settled = number(&disk, "/throttle/delayed_writes_total");
    write(&disk, 500, 16);
    assert_eq!(number(&disk, "/throttle/delayed_writes_total"), settled, "S4-39: another policy decides now");
}

#[test]
fn limits_set_by_hand_hold_until_they_expire() {
    let lab = require!(Lab::with(&["qemu-img"]));
    let disk = lab.serve("disk", &lab.scratch.patterned("image", 4 * MIB, 63)).start();
    disk.ctl(&["limits", "--free-writes", "10", "--delay-us", "200", "--valid-ms", "600000"]);
    write(&disk, 110, 4);
    assert_eq!(number(&disk, "/throttle/delayed_writes_total"), 100, "exactly those past the free ones");
    disk.ctl(&["limits", "--free-writes", "0", "--delay-us", "200", "--valid-ms", "0"]);
    write(&disk, 50, 4);
    assert_eq!(
        number(&disk, "/throttle/delayed_writes_total"),
        100,
        "limits that have expired delay nothing"
    );
}
