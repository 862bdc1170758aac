//! Disks that have a name in common, and disks that have several.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use blockd::io::sidecar_file::SidecarFile;
use blockd::sidecar::{Header, Role};
use tests::binaries;
use tests::daemon::Serve;
use tests::disk::LoopDevice;
use tests::lab::Lab;
use tests::require;
use tests::requires;

use super::MIB;

/// Two devices with one last name, and a /var/lib/blockd of their own for the daemons.
struct Groups {
    lab: Lab,
    program: PathBuf,
    state: PathBuf,
    devices: Vec<LoopDevice>,
}

impl Groups {
    fn new(lab: Lab) -> Self {
        let state = lab.scratch.join("state");
        fs::create_dir(&state).expect("make a folder");
        let program = lab.scratch.join("blockd");
        let blockd = binaries::blockd().expect("the daemon is there, for the lab is");
        let text = format!(
            "#!/bin/sh\nexec unshare --mount sh -c 'mount -t tmpfs none /var/lib && mkdir /var/lib/blockd && \
             mount --bind {} /var/lib/blockd && exec \"$0\" \"$@\"' {} \"$@\"\n",
            state.display(),
            blockd.display()
        );
        fs::write(&program, text).expect("write a script");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it a program");
        let mut groups = Self { lab, program, state, devices: Vec::new() };
        for group in ["vg1", "vg2"] {
            groups.lab.scratch.sparse(&format!("{group}.disk"), 8 * MIB);
            fs::create_dir(groups.lab.scratch.join(group)).expect("make a folder");
        }
        groups.attach(["vg1", "vg2"]);
        groups
    }

    /// Attaches the disks anew, in this order.
    fn attach(&mut self, order: [&str; 2]) {
        self.devices.clear();
        for group in order {
            let device = LoopDevice::new(&self.lab.scratch.join(&format!("{group}.disk")), 512);
            let link = self.root_of(group);
            let _ = fs::remove_file(&link);
            symlink(device.path(), &link).expect("give the device a name");
            self.devices.push(device);
        }
    }

    fn root_of(&self, group: &str) -> PathBuf {
        self.lab.scratch.join(group).join("root")
    }

    fn serve(&self, group: &str) -> Serve {
        Serve::image(&self.program, &self.lab.scratch, group, &self.root_of(group))
    }

    fn sidecars(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.state).expect("list the sidecars");
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }
}

#[test]
fn two_devices_of_one_last_name_are_two_disks_and_stay_so_under_other_numbers() {
    let lab = require!(Lab::with(&["unshare"]));
    require!(requires::loop_devices());
    let mut groups = Groups::new(lab);
    let (mut first, mut second) = (groups.serve("vg1").start(), groups.serve("vg2").start());
    second.ctl(&["record", "on"]);
    first.ctl(&["revoke", "--generation", "5"]);
    second.ctl(&["record", "off"]);
    assert_eq!((first.shut_down(), second.shut_down()), (0, 0));
    drop((first, second));
    assert_eq!(groups.sidecars().len(), 2, "{:?}", groups.sidecars());
    groups.attach(["vg2", "vg1"]);
    let said = groups.serve("vg1").refused();
    assert!(said.contains("moved") && said.contains("generation 5"), "{said}");
    let second = groups.serve("vg2").start();
    assert_eq!(second.status()["identity"]["role"], "primary");
}

fn old_sidecar(groups: &Groups, role: Role) -> PathBuf {
    let path = groups.state.join("root.blockd");
    let header = Header::new("root", 8 * MIB, role, [7; 16]).expect("a header");
    drop(SidecarFile::create(&path, Header { generation: 4, ..header }).expect("make a sidecar"));
    path
}

#[test]
fn what_0_1_0_noted_of_a_device_is_neither_forgotten_nor_said_of_another_one() {
    let lab = require!(Lab::with(&["unshare"]));
    require!(requires::loop_devices());
    let groups = Groups::new(lab);
    let old = old_sidecar(&groups, Role::Fenced);
    for group in ["vg1", "vg2"] {
        let said = groups.serve(group).refused();
        assert!(
            said.contains("/var/lib/blockd/root.blockd") && said.contains("moved to another host"),
            "{said}"
        );
    }
    assert!(old.exists());
    let said = groups.serve("vg1").flags(["--disk-id", "root"]).refused();
    assert!(said.contains("generation 4"), "asked for by its name: {said}");
    fs::remove_file(&old).expect("somebody has found out whose it was");

    let old = old_sidecar(&groups, Role::Promoted);
    let first = groups.serve("vg1").start();
    assert_eq!(first.status()["identity"]["generation"], 4, "taken over");
    assert!(!old.exists());
    let second = groups.serve("vg2").start();
    assert_eq!(second.status()["identity"]["generation"], 0);
}

/// The image's own path, and others that lead to it.
#[test]
fn one_file_by_any_name_is_one_disk() {
    let lab = require!(Lab::with(&[]));
    let image = lab.scratch.sparse("image", MIB);
    let link = lab.scratch.join("link");
    symlink(&image, &link).expect("make a link");
    let disk = lab.serve("disk", &link).start();
    disk.ctl(&["revoke", "--generation", "2"]);
    drop(disk);
    assert!(lab.scratch.join("image.blockd").exists() && !lab.scratch.join("link.blockd").exists());
    let refused = |path: &Path| {
        let said = lab.serve("disk", path).refused();
        assert!(said.contains("moved") && said.contains("generation 2"), "{}: {said}", path.display());
    };
    refused(&image);
    refused(&link);
}

#[test]
fn one_sidecar_is_for_one_daemon() {
    let lab = require!(Lab::with(&[]));
    let sidecar = lab.scratch.join("sidecar");
    let serve = |name: &str| {
        let image = lab.scratch.sparse(&format!("{name}.raw"), MIB);
        lab.serve(name, &image).flags([
            "--disk-id".into(),
            "web".into(),
            "--sidecar".into(),
            sidecar.clone().into_os_string(),
        ])
    };
    let _first = serve("first").start();
    let said = serve("second").refused();
    assert!(said.contains("another blockd uses the sidecar"), "{said}");
}
