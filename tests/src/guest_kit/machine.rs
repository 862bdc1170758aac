//! A guest on plain QEMU, without `migrated`: its disks come from daemons of ours, its network card is a tap in a
//! network namespace that exists only as long as QEMU does.
//!
//! ```text
//! unshare --net: tap0 10.1.0.1/24 ◄─► QEMU ◄─ NBD ─► blockd ◄─► image      (a client enters by `place`)
//! ```

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use migrated::guest::{Boot, Guest};
use serde_json::json;

use super::place::Place;
use super::service::Service;
use super::{ADDRESS, GATEWAY};
use crate::daemon::Daemon;
use crate::lab::Lab;
use crate::program::Program;
use crate::qmp::Qmp;
use crate::wait::{found_within, wait_until};

/// An emulated guest on a busy machine is slow to boot.
const GUEST_PATIENCE: Duration = Duration::from_secs(180);

/// Makes the tap and becomes QEMU.
const IN_NAMESPACE: &str = r#"
ip tuntap add dev tap0 mode tap vnet_hdr && ip addr add "$1" dev tap0 && ip link set tap0 up || exit 1
shift
exec "$@"
"#;

/// How a guest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// With its kernel.
    Boot,
    /// Where a saved state left it.
    Restore(PathBuf),
}

/// A guest that runs.
#[derive(Debug)]
pub struct Machine {
    /// QEMU's monitor.
    pub qmp: Qmp,
    qemu: Program,
    _disks: Vec<Daemon>,
    console: PathBuf,
}

impl Machine {
    /// Start `guest` with its disks in `images` and its kernel in `boot`.
    pub fn start(lab: &Lab, guest: &Guest, images: &Path, boot: &Path, how: Start) -> Self {
        let name = &guest.name;
        let serve = |(number, disk): (usize, &migrated::guest::Disk)| {
            lab.serve(&format!("{name}{number}"), &images.join(&disk.image)).start()
        };
        let disks: Vec<Daemon> = guest.disks.iter().enumerate().map(serve).collect();
        let (console, monitor) =
            (lab.scratch.join(&format!("{name}.console")), lab.scratch.join(&format!("{name}.qmp")));
        let mut words: Vec<String> = ["--net", "--", "sh", "-c", IN_NAMESPACE, "sh"].map(String::from).into();
        words.push(format!("{GATEWAY}/24"));
        words.push("qemu-system-x86_64".to_owned());
        words.extend(machine_words(guest, boot));
        words.extend(["-serial".into(), format!("file:{}", console.display())]);
        words.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", monitor.display())]);
        for (disk, daemon) in guest.disks.iter().zip(&disks) {
            words.extend(disk_words(&disk.id, daemon.nbd()));
        }
        for nic in &guest.nics {
            words
                .extend(["-netdev".into(), format!("tap,id={},ifname=tap0,script=no,downscript=no", nic.id)]);
            let device = format!("virtio-net-pci,netdev={0},id={0}-device,mac={1}", nic.id, nic.mac);
            words.extend(["-device".into(), device]);
        }
        if let Start::Restore(state) = &how {
            words.extend(["-incoming".into(), format!("exec:cat {}", state.display())]);
        }
        let qemu = Program::start("unshare", words, &lab.scratch.join(&format!("{name}.qemu.log")));
        let mut machine = Self { qmp: Qmp::connect(&monitor), qemu, _disks: disks, console };
        if how != Start::Boot {
            machine.go_on();
        }
        machine
    }

    /// A saved state is that of a guest that was stopped, and so it comes back.
    fn go_on(&mut self) {
        wait_until(GUEST_PATIENCE, "the guest's state to be loaded", || self.qmp.status() == "paused");
        self.qmp.ask("cont", json!({}));
    }

    /// Where a client of this guest runs.
    pub fn place(&self) -> Place {
        Place::beside(self.qemu.pid())
    }

    /// The guest's command port.
    pub fn service(&self) -> Service {
        Service::at(self.place(), ADDRESS)
    }

    /// Wait until the programs of a booting guest listen.
    #[track_caller]
    pub fn wait_for_ready(&self) {
        let ready = found_within(GUEST_PATIENCE, || self.console().contains("guest: ready").then_some(()));
        assert!(ready.is_some(), "the guest is not ready; its console:\n{}", self.console());
    }

    /// Everything on the serial console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Stop it and keep its state; its disks are those of the same instant when this comes back.
    pub fn save(mut self, state: &Path) {
        self.qmp.ask("stop", json!({}));
        self.qmp.ask("migrate", json!({ "uri": format!("exec:cat > {}", state.display()) }));
        wait_until(GUEST_PATIENCE, "the guest's state to be saved", || {
            let progress = self.qmp.ask("query-migrate", json!({}));
            assert_ne!(progress["status"], "failed", "{progress}");
            progress["status"] == "completed"
        });
    }

    /// Wait until QEMU has ended because the guest switched itself off.
    #[track_caller]
    pub fn wait_for_end(&mut self) {
        wait_until(GUEST_PATIENCE, "the guest to switch itself off", || self.qemu.ended().is_some());
        assert_eq!(self.qemu.ended(), Some(0), "QEMU ended well");
    }
}

fn machine_words(guest: &Guest, folder: &Path) -> Vec<String> {
    let memory = guest.memory_mib.to_string();
    let words =
        ["-accel", "tcg", "-machine", &guest.machine, "-cpu", &guest.cpu, "-m", &memory, "-nodefaults"];
    let mut words = words.map(String::from).to_vec();
    words.extend(["-display", "none", "-no-reboot"].map(String::from));
    if let Some(Boot { kernel, initrd, append }) = &guest.boot {
        words.extend(["-kernel".into(), folder.join(kernel).display().to_string()]);
        words.extend(["-append".into(), append.clone()]);
        if let Some(initrd) = initrd {
            words.extend(["-initrd".into(), folder.join(initrd).display().to_string()]);
        }
    }
    words
}

fn disk_words(id: &str, socket: &Path) -> [String; 4] {
    let server = format!("server.type=unix,server.path={}", socket.display());
    [
        "-blockdev".into(),
        format!("driver=nbd,node-name={id},{server},reconnect-delay=300"),
        "-device".into(),
        format!("virtio-blk-pci,drive={id},id={id}-device,werror=stop,rerror=stop"),
    ]
}
