//! The guest, the prober and the oracle together, on plain QEMU: what the tests of a move stand on.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use tests::guest_kit::machine::{Machine, Start};
use tests::guest_kit::service::Answer;
use tests::guest_kit::{ADDRESS, GuestKit, Recipe};
use tests::lab::Lab;
use tests::oracle::image::{self, Holds, WrittenDisk};
use tests::oracle::{self, Evidence, Kind};
use tests::prober::figures::{Figures, Threshold};
use tests::prober::record::Record;
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
        fs::create_dir(folder).expect("make a folder");
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
    judge(&lab, &images, &record, &checked);
}

/// The oracle passes what the guest has left, and misses one write that is taken away.
fn judge(lab: &Lab, images: &Path, client: &Record, memory: &Answer) {
    let disk = |image: &str, holds, index: usize| {
        let most = Some(client.disks[index].highest());
        WrittenDisk { image: images.join(image), holds, slots: SLOTS, most }
    };
    let evidence = Evidence {
        disks: vec![disk("two.raw", Holds::FileSystem, 0), disk("two-b.raw", Holds::Numbers, 1)],
        identical: vec![],
        memory: Some(memory),
        running: vec!["here"],
        expected: "here",
        client,
    };
    oracle::insist(&evidence, lab.scratch.path());
    let image = &evidence.disks[0].image;
    let at = image::find(image, client.disks[0].highest()).expect("the last block is there");
    let file = File::options().write(true).open(image).expect("open an image");
    file.write_all_at(&[0; 4096], at).expect("lose a write");
    let found = oracle::violations(&evidence, lab.scratch.path());
    assert_eq!(found.iter().map(|violation| violation.kind).collect::<Vec<_>>(), [Kind::Block], "{found:?}");
}
