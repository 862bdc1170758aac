//! A guest without `migrated`, but on the very command line that `migrated` gives to QEMU, so that a state saved here
//! fits there. Its disks come from daemons of ours, its network card is a tap in a network namespace that exists
//! only as long as QEMU does.
//!
//! ```text
//! unshare --net: tap0 10.1.0.1/24 ◄─► QEMU ◄─ NBD ─► blockd ◄─► image      (a client enters by `place`)
//! ```

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use migrated::guest::Guest;
use migrated::qemu::{self, Accelerator, Backing, Paths};
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
    stream: PathBuf,
}

impl Machine {
    /// Start `guest` with its disks in `images` and its kernel in `boot`.
    pub fn start(lab: &Lab, guest: &Guest, images: &Path, boot: &Path, how: Start) -> Self {
        let name = &guest.name;
        let serve = |(number, disk): (usize, &migrated::guest::Disk)| {
            lab.serve(&format!("{name}{number}"), &images.join(&disk.image)).start()
        };
        let disks: Vec<Daemon> = guest.disks.iter().enumerate().map(serve).collect();
        let paths = paths(lab, guest, boot, &disks);
        let mut words: Vec<OsString> =
            ["--net", "--", "sh", "-c", IN_NAMESPACE, "sh"].map(OsString::from).into();
        words.extend([format!("{GATEWAY}/24").into(), "qemu-system-x86_64".into()]);
        words.extend(qemu::words(guest, &paths, Accelerator::Tcg, how != Start::Boot));
        let qemu = Program::start("unshare", words, &lab.scratch.join(&format!("{name}.qemu.log")));
        let stream = lab.scratch.join(&format!("{name}.stream"));
        let qmp = Qmp::connect(&paths.monitor);
        let mut machine = Self { qmp, qemu, _disks: disks, console: paths.console, stream };
        if let Start::Restore(state) = &how {
            machine.load(state);
        }
        machine.qmp.ask("cont", json!({}));
        machine
    }

    fn load(&mut self, state: &Path) {
        self.qmp.ask("migrate-incoming", json!({ "uri": self.uri() }));
        let mut stream = UnixStream::connect(&self.stream).expect("connect to a QEMU that waits");
        let copied = io::copy(&mut File::open(state).expect("open a saved state"), &mut stream);
        drop(stream);
        self.wait_for_migration();
        copied.expect("hand a saved state to QEMU");
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
        let listener = UnixListener::bind(&self.stream).expect("listen for a guest's state");
        self.qmp.ask("migrate", json!({ "uri": self.uri() }));
        let (mut stream, _) = listener.accept().expect("QEMU connects");
        io::copy(&mut stream, &mut File::create(state).expect("make a file for a state"))
            .expect("keep a state");
        self.wait_for_migration();
    }

    fn uri(&self) -> String {
        format!("unix:{}", self.stream.display())
    }

    fn wait_for_migration(&mut self) {
        wait_until(GUEST_PATIENCE, "QEMU to come to an end with a guest's state", || {
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

/// The command line of a guest, without the places of one machine: what a saved state depends on.
pub fn shape(guest: &Guest) -> String {
    let nowhere = PathBuf::new();
    let paths = Paths {
        monitor: nowhere.clone(),
        console: nowhere.clone(),
        kernel: None,
        initrd: None,
        disks: guest.disks.iter().map(|_| Backing::Nbd(nowhere.clone())).collect(),
        taps: guest.nics.iter().map(|_| "tap0".to_owned()).collect(),
    };
    format!("{:?}", qemu::words(guest, &paths, Accelerator::Tcg, false))
}

fn paths(lab: &Lab, guest: &Guest, boot: &Path, disks: &[Daemon]) -> Paths {
    let below_boot = |path: &PathBuf| boot.join(path);
    let (name, kernel) = (&guest.name, guest.boot.as_ref());
    Paths {
        monitor: lab.scratch.join(&format!("{name}.qmp")),
        console: lab.scratch.join(&format!("{name}.console")),
        kernel: kernel.map(|boot| below_boot(&boot.kernel)),
        initrd: kernel.and_then(|boot| boot.initrd.as_ref()).map(below_boot),
        disks: disks.iter().map(|disk| Backing::Nbd(disk.nbd().to_owned())).collect(),
        taps: guest.nics.iter().map(|_| "tap0".to_owned()).collect(),
    }
}
