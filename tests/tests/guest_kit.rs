//! The guest, the prober and the oracle together, on plain QEMU: what the tests of a move stand on.

use tests::guest_kit::machine::{Machine, Start};
use tests::guest_kit::{ADDRESS, GuestKit, Recipe};
use tests::lab::Lab;
use tests::prober::figures::{Figures, Threshold};
use tests::prober::{Prober, Watch};
use tests::require;

/// Blocks that the guest's writers go round.
const SLOTS: u64 = 1024;

#[test]
fn a_restored_guest_writes_dirties_and_answers_and_the_client_sees_it() {
    let lab = require!(Lab::with(&["nsenter"]));
    let recipe = Recipe { name: "two".into(), second_disk_mib: Some(8), ..Recipe::default() };
    let kit = require!(GuestKit::prepare(&recipe));
    let (images, boot) = (lab.scratch.join("images"), lab.scratch.join("boot"));
    for folder in [&images, &boot] {
        std::fs::create_dir(folder).expect("make a folder");
    }
    let state = kit.install(&images, &boot);
    let mut machine = Machine::start(&lab, kit.guest(), &images, &boot, Start::Restore(state));
    let service = machine.service();
    service.wait_until_it_answers();
    let mut prober = Prober::start(&machine.place(), &Watch { disks: 2, ..Watch::over(ADDRESS) });
    for disk in ["a", "b"] {
        service.ask(&format!("writer disk={disk} rate=100 slots={SLOTS}"));
    }
    service.ask("dirty mib=8 rate=500 working=4");
    prober.wait_for_answers(10);
    prober.mark("middle");
    prober.wait_for_number(0, 50);
    prober.wait_for_number(1, 50);
    assert!(service.ask("check").number("pages") == 8 << 8);
    for (disk, name) in ["a", "b"].iter().enumerate() {
        let last = service.ask(&format!("writer disk={name} stop")).number("acknowledged");
        prober.wait_for_number(disk, last);
    }
    let checked = service.ask("check");
    assert!(checked.number("versions") > 0);
    let record = prober.finish();
    let figures = Figures::of(&record, Threshold::default());
    assert_eq!((figures.lost_lines, figures.resets, figures.closed, figures.reconnects), (0, 0, 0, 0));
    assert!(figures.new_connection_us.is_some());
    service.ask("poweroff");
    machine.wait_for_end();
}
