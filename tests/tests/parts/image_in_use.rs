//! An image has one who writes to it: daemons, QEMU, its tools and the kernel keep each other off (D12).

use std::fs::File;
use std::path::Path;

use tests::lab::Lab;
use tests::program::{Program, Tool};
use tests::qmp::Qmp;
use tests::require;
use tests::requires;
use tests::scratch::Scratch;

const MIB: u64 = 1 << 20;
/// What QEMU and its tools say of an image that is another's.
const QEMU_REFUSES: &str = "Failed to get \"write\" lock";

/// A QEMU with the image as a guest's disk; the guest does not run.
fn words(image: &Path, monitor: &Path) -> Vec<String> {
    let line = "-accel tcg -m 16 -display none -nodefaults -S";
    let mut words: Vec<String> = line.split(' ').map(String::from).collect();
    words.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
    words.extend(["-drive".into(), format!("file={},format=raw,if=virtio", image.display())]);
    words
}

fn qemu_io(flags: &[&str], command: &str, image: &Path) -> Tool {
    Tool::new("qemu-io").args(flags).args(["-f", "raw", "-c", command]).arg(image)
}

#[test]
fn a_daemon_is_not_started_beside_a_qemu_and_gets_the_image_when_that_is_killed() {
    let lab = require!(Lab::with(&["qemu-system-x86_64"]));
    let (image, monitor) = (lab.scratch.sparse("image", MIB), lab.scratch.join("monitor"));
    let mut qemu =
        Program::start("qemu-system-x86_64", words(&image, &monitor), &lab.scratch.join("qemu.log"));
    drop(Qmp::connect(&monitor));
    let said = lab.serve("disk", &image).refused();
    let named = format!("in use by process {} (qemu-system-x86)", qemu.pid());
    assert!(said.contains(&named) && said.contains("\"write\" lock"), "{said}");
    qemu.kill();
    lab.serve("disk", &image).start().assert_alive();
}

#[test]
fn no_qemu_and_none_of_its_tools_writes_to_an_image_that_is_served() {
    let lab = require!(Lab::with(&["qemu-system-x86_64", "qemu-io", "qemu-img"]));
    let (image, monitor) = (lab.scratch.sparse("image", MIB), lab.scratch.join("monitor"));
    let mut disk = lab.serve("disk", &image).start();
    // Who takes no lock and comes later does not keep the place of a killed daemon free.
    let _writer = File::options().write(true).open(&image).unwrap();
    for _ in 0..2 {
        let said = Tool::new("qemu-system-x86_64").args(words(&image, &monitor)).refused();
        assert!(said.contains(QEMU_REFUSES), "{said}");
        let said = qemu_io(&[], "write 0 512", &image).refused();
        assert!(said.contains(QEMU_REFUSES), "{said}");
        let said = Tool::new("qemu-img").args(["resize", "-f", "raw"]).arg(&image).arg("2M").refused();
        assert!(said.contains("lock"), "{said}");
        // Who reads and says that others may write is no danger.
        Tool::new("qemu-img").args(["info", "-U"]).arg(&image).run();
        qemu_io(&["-r", "-U"], "read 0 512", &image).run();
        disk.kill_child();
    }
    // The locks go with who holds them, and not before: the supervisor has none.
    assert_eq!(disk.shut_down(), 0, "{}", disk.log());
    qemu_io(&[], "write 0 512", &image).run();
}

#[test]
fn a_copy_and_an_image_that_is_only_read_are_kept_from_writers_too() {
    let lab = require!(Lab::with(&["qemu-io"]));
    let copy = lab.scratch.join("copy");
    let socket = lab.scratch.join("copy.rep");
    let replica = lab.serve("copy", &copy).replica(&socket, MIB).start();
    let said = qemu_io(&[], "write 0 512", &copy).refused();
    assert!(said.contains(QEMU_REFUSES), "{said}");
    drop(replica);
    let image = lab.scratch.sparse("image", MIB);
    let readers = ["one", "two"].map(|name| lab.serve(name, &image).flags(["--read-only"]).start());
    let said = qemu_io(&[], "write 0 512", &image).refused();
    assert!(said.contains(QEMU_REFUSES), "{said}");
    qemu_io(&["-r"], "read 0 512", &image).run();
    drop(readers);
}

/// A loop device, detached when it is dropped.
struct Loop(String);

impl Loop {
    fn attach(file: &Path) -> Self {
        Self(Tool::new("losetup").args(["--find", "--show"]).arg(file).run().trim().to_owned())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        Tool::new("losetup").args(["--detach", &self.0]).output();
    }
}

/// A mount, undone when it is dropped.
struct Mounted<'a>(&'a Path);

impl<'a> Mounted<'a> {
    fn at(device: &str, place: &'a Path) -> Self {
        std::fs::create_dir_all(place).unwrap();
        Tool::new("mount").arg(device).arg(place).run();
        Self(place)
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        Tool::new("umount").arg(self.0).output();
    }
}

fn file_system(scratch: &Scratch) -> std::path::PathBuf {
    let image = scratch.sparse("image", 4 * MIB);
    Tool::new("mkfs.ext4").args(["-q", "-F"]).arg(&image).run();
    image
}

#[test]
fn an_image_of_which_a_loop_device_is_made_is_not_served() {
    let lab = require!(Lab::with(&["mkfs.ext4"]));
    require!(requires::loop_devices());
    let image = file_system(&lab.scratch);
    let device = Loop::attach(&image);
    let said = lab.serve("disk", &image).refused();
    assert!(said.contains(&format!("losetup --detach {}", device.0)), "{said}");
    drop(device);
    lab.serve("disk", &image).start().assert_alive();
}

#[test]
fn a_block_device_is_served_to_nobody_else() {
    let lab = require!(Lab::with(&["mkfs.ext4", "qemu-io"]));
    require!(requires::loop_devices());
    let (device, place) = (Loop::attach(&file_system(&lab.scratch)), lab.scratch.join("mounted"));
    let path = Path::new(&device.0);
    let sidecar = lab.scratch.join("sidecar");
    let serve = |name: &str| lab.serve(name, path).flags([Path::new("--sidecar"), &sidecar]);

    let mounted = Mounted::at(&device.0, &place);
    let said = serve("disk").refused();
    assert!(said.contains(&format!("in use by the file system mounted at {}", place.display())), "{said}");
    drop(mounted);

    let mut disk = serve("disk").start();
    let said = Tool::new("mount").arg(path).arg(&place).refused();
    assert!(said.contains("busy") || said.contains("already"), "{said}");
    let said = qemu_io(&[], "write 0 512", path).refused();
    assert!(said.contains(QEMU_REFUSES), "{said}");
    // A daemon that takes the place of a killed one gets it again, and so does the next one.
    disk.kill_child();
    qemu_io(&[], "read 0 512", Path::new(&disk.uri())).run();
    assert_eq!(disk.shut_down(), 0, "{}", disk.log());
    drop(Mounted::at(&device.0, &place));
}
