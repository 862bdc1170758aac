//! A real guest: QEMU, Debian's cloud kernel, an initramfs of ours, and a disk that comes over NBD (S4-10).
//!
//! The guest counts while it writes: every number that it prints was acknowledged as durable by its disk. What
//! is on the image afterwards is checked against the last one.
//!
//! Always emulated (TCG): /dev/kvm may be there and still hang with a Linux guest.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::binaries::{GuestKernel, guest_kernel};
use crate::guest_kit::programs;
use crate::initramfs;
use crate::program::{Program, Tool};
use crate::qmp::Qmp;
use crate::requires::{self, Missing};
use crate::scratch::Scratch;
use crate::wait::wait_for;

/// An emulated guest on a busy machine is slow to boot and slow to write.
const GUEST_PATIENCE: Duration = Duration::from_secs(180);

/// Where the guest writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// Straight onto the disk, from its first byte.
    Raw,
    /// Into a file of the ext4 that is its root.
    Root,
}

/// What guests are made of.
#[derive(Debug)]
pub struct Kit {
    kernel: GuestKernel,
    /// The writer as a static program; it also verifies, on the host.
    pub writer: PathBuf,
}

impl Kit {
    /// Find the kernel and the tools; build the writer.
    pub fn find() -> Result<Self, Missing> {
        requires::programs(&["qemu-system-x86_64", "mke2fs", "e2fsck", "debugfs", "rustc", "setpriv"])?;
        if !initramfs::busybox().exists() {
            return Err(Missing::Installable("busybox-static is not installed; run `make setup`".to_owned()));
        }
        Ok(Self { kernel: guest_kernel()?, writer: programs::writer() })
    }

    /// Boot a guest from the NBD export at `socket`; its writer uses `slots` blocks.
    pub fn boot(&self, scratch: &Scratch, name: &str, socket: &Path, target: Target, slots: u64) -> Guest {
        let initramfs = scratch.join(&format!("{name}.initramfs"));
        initramfs::build(&initramfs, &self.kernel.modules, &self.writer);
        let (console, monitor) =
            (scratch.join(&format!("{name}.console")), scratch.join(&format!("{name}.qmp")));
        let disk = match target {
            Target::Raw => "raw",
            Target::Root => "root",
        };
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let mut words: Vec<String> =
            ["-accel", "tcg", "-machine", "pc", "-cpu", "max", "-m", "256", "-nodefaults"]
                .map(String::from)
                .to_vec();
        words.extend(["-display", "none", "-no-reboot"].map(String::from));
        words.extend(["-kernel".into(), text(&self.kernel.image), "-initrd".into(), text(&initramfs)]);
        words.extend([
            "-append".into(),
            format!("console=ttyS0 quiet panic=-1 no_timer_check disk={disk} slots={slots}"),
        ]);
        words.extend(["-serial".into(), format!("file:{}", text(&console))]);
        words.extend(["-qmp".into(), format!("unix:{},server=on,wait=off", text(&monitor))]);
        let server = format!("server.type=unix,server.path={}", text(socket));
        words
            .extend(["-blockdev".into(), format!("driver=nbd,node-name=disk0,{server},reconnect-delay=300")]);
        words.extend(["-device".into(), "virtio-blk-pci,drive=disk0,id=vd0,werror=stop,rerror=stop".into()]);
        let qemu = Program::start("qemu-system-x86_64", words, &scratch.join(&format!("{name}.qemu.log")));
        Guest { qmp: Qmp::connect(&monitor), _qemu: qemu, console }
    }

    /// Check an image on which a guest has written raw: everything acknowledged is there.
    #[track_caller]
    pub fn verify(&self, image: &Path, slots: u64, acknowledged: u64) {
        let numbers = [slots, acknowledged].map(|number| number.to_string());
        Tool::new(&self.writer).arg("verify").arg(image).args(numbers).run();
    }

    /// Check an image that has the guest's root, on a copy: replay the journal, then look at the file.
    #[track_caller]
    pub fn verify_root(&self, scratch: &Scratch, image: &Path, slots: u64, acknowledged: u64) {
        let (copy, file) = (scratch.join("replayed"), scratch.join("written"));
        Tool::new("cp").args(["--sparse=always"]).arg(image).arg(&copy).run();
        // 1 says that something was repaired: the journal of a guest that was switched off.
        let checked = Tool::new("e2fsck").arg("-fy").arg(&copy).output();
        assert!(checked.status.code().is_some_and(|code| code <= 1), "{checked:?}");
        Tool::new("debugfs").arg("-R").arg(format!("dump /data/w {}", file.display())).arg(&copy).run();
        // The file may end before its last slot.
        let whole = fs::File::options().write(true).open(&file).expect("open what debugfs has dumped");
        whole.set_len(slots * 4096).expect("set the length of what debugfs has dumped");
        self.verify(&file, slots, acknowledged);
    }
}

/// A guest that runs.
#[derive(Debug)]
pub struct Guest {
    /// Its monitor.
    pub qmp: Qmp,
    _qemu: Program,
    console: PathBuf,
}

impl Guest {
    /// The last number that the guest has seen acknowledged.
    pub fn acknowledged(&self) -> u64 {
        // The last line may be half written.
        let console = self.console();
        let whole = console.rfind('\n').map_or("", |end| &console[..end]);
        whole.lines().rev().find_map(|line| line.trim().strip_prefix("acked ")?.parse().ok()).unwrap_or(0)
    }

    /// Wait until the guest has seen `more` further writes acknowledged; gives the number reached.
    #[track_caller]
    pub fn wait_for_writes(&self, more: u64) -> u64 {
        let goal = self.acknowledged() + more;
        let what = format!("the guest to count to {goal}");
        wait_for(GUEST_PATIENCE, &what, || {
            let console = self.console();
            assert!(!console.contains("guest: the writer has ended"), "{console}");
            Some(self.acknowledged()).filter(|number| *number >= goal)
        })
    }

    /// Everything on the serial console.
    pub fn console(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.console).unwrap_or_default()).into_owned()
    }

    /// Switch it off as if the power failed, and give the last number that it has seen acknowledged.
    pub fn switch_off(mut self) -> u64 {
        // Paused first, so that the console ends with a whole line.
        self.qmp.ask("stop", serde_json::json!({}));
        self.acknowledged()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let console = self.console();
            let lines: Vec<&str> = console.lines().rev().take(20).collect();
            eprintln!("--- the guest's console ended with (last line first):\n{}\n---", lines.join("\n"));
        }
    }
}
