//! A host to start guests on: its folders, its configuration, and guests that write and count.

use std::fs;
use std::path::PathBuf;

use migrated::config::Config;
use migrated::guest::Guest;
use migrated::io::machine::{DiskRoles, Machine, Start};
use serde_json::json;
use tests::binaries::{GuestKernel, blockd, guest_kernel};
use tests::guest::Kit;
use tests::initramfs;
use tests::requires::Missing;
use tests::scratch::Scratch;
use tests::wait::{PATIENCE, wait_until};
use tests::watchdog;

/// Blocks that the guest's writer goes round.
pub const SLOTS: u64 = 256;

const MIB: u64 = 1 << 20;

/// A host.
pub struct Ground {
    pub scratch: Scratch,
    pub config: Config,
    pub kit: Kit,
    kernel: GuestKernel,
}

impl Ground {
    /// A host with boot files and no images, or what is missing for it.
    pub fn new() -> Result<Self, Missing> {
        let (kit, kernel, blockd) = (Kit::find()?, guest_kernel()?, blockd()?);
        let scratch = Scratch::new();
        let folder = |name: &str| {
            let path = scratch.join(name);
            fs::create_dir_all(&path).expect("make a folder of a host");
            path
        };
        let config = json!({
            "name": "here",
            "listen": "127.0.0.1:1",
            "state_dir": folder("state"),
            "runtime_dir": folder("run"),
            "images_dir": folder("images"),
            "boot_dir": folder("boot"),
            "programs": { "blockd": blockd, "qemu": "qemu-system-x86_64" },
            "bridges": { "lan": "br0" },
        });
        let config: Config = serde_json::from_value(config).expect("a configuration");
        initramfs::build(&config.boot_dir.join("initrd"), &kernel.modules, &kit.writer);
        fs::copy(&kernel.image, config.boot_dir.join("vmlinuz")).expect("copy a kernel");
        Ok(Self { scratch, config, kit, kernel })
    }

    /// Another host beside this one, with the same boot files and its own everything else.
    pub fn neighbour(&self) -> Self {
        let other = Self::new().expect("what was there a moment ago");
        assert_eq!(other.kernel.image, self.kernel.image);
        other
    }

    /// A guest that writes and counts, with an image for its disk.
    pub fn guest(&self, name: &str) -> Guest {
        self.image(name);
        self.description(name)
    }

    /// Makes the image of a guest's disk.
    pub fn image(&self, name: &str) -> PathBuf {
        self.scratch.sparse(&format!("images/{name}.raw"), 16 * MIB)
    }

    /// The description of a guest that writes and counts.
    pub fn description(&self, name: &str) -> Guest {
        Guest::parse(&format!(
            "name = {name:?}\nmemory_mib = 128\naccel = \"tcg\"\ncpu = \"max\"\n[boot]\nkernel = \"vmlinuz\"\n\
             initrd = \"initrd\"\nappend = \"console=ttyS0 quiet panic=-1 disk=raw slots={SLOTS}\"\n\
             [[disk]]\nid = \"root\"\nimage = \"{name}.raw\"\n"
        ))
        .expect("a description")
    }

    /// Starts a guest with its own disks.
    pub async fn start(&self, guest: &Guest, how: Start) -> Held {
        let machine = Machine::start(&self.config, guest, how, DiskRoles::Primary).await;
        Held::new(machine.expect("a guest starts"))
    }

    /// Checks what a guest has written.
    pub fn verify(&self, name: &str, acknowledged: u64) {
        let image = self.config.images_dir.join(format!("{name}.raw"));
        self.kit.verify(&image, SLOTS, acknowledged);
    }

    /// Nothing is left of a guest but what is kept for ever.
    pub fn assert_clean(&self, name: &str) {
        assert!(!self.config.runtime_dir.join(name).exists());
        let place = self.scratch.path().to_string_lossy().into_owned();
        let left: Vec<String> = command_lines().filter(|line| line.contains(&place)).collect();
        assert_eq!(left, Vec::<String>::new());
    }
}

/// The command lines of all processes.
fn command_lines() -> impl Iterator<Item = String> {
    let processes = fs::read_dir("/proc").expect("look at /proc").flatten();
    processes.filter_map(|entry| {
        let line = fs::read(entry.path().join("cmdline")).ok()?;
        Some(String::from_utf8_lossy(&line).replace('\0', " "))
    })
}

/// A machine whose processes do not outlive the test, which they would: they are made for that.
pub struct Held {
    pub machine: Machine,
    groups: Vec<u32>,
}

impl Held {
    /// Takes hold of a machine.
    pub fn new(machine: Machine) -> Self {
        let groups: Vec<u32> =
            machine.disks().iter().filter_map(|disk| disk.pid()).chain([machine.pid()]).collect();
        groups.iter().copied().for_each(watchdog::guard);
        Self { machine, groups }
    }

    /// The last number that the guest has seen acknowledged.
    pub fn acknowledged(&self) -> u64 {
        let console = self.console();
        let whole = console.rfind('\n').map_or("", |end| &console[..end]);
        whole.lines().rev().find_map(|line| line.trim().strip_prefix("acked ")?.parse().ok()).unwrap_or(0)
    }

    /// What the guest has said.
    pub fn console(&self) -> String {
        let console = fs::read(self.machine.layout().console()).unwrap_or_default();
        String::from_utf8_lossy(&console).into_owned()
    }

    /// Waits until the guest has seen more writes acknowledged.
    pub fn wait_for_writes(&self, more: u64) {
        let goal = self.acknowledged() + more;
        wait_until(PATIENCE * 3, &format!("the guest to count to {goal}"), || self.acknowledged() >= goal);
    }

    /// Ends the guest in order.
    pub async fn quit(self) {
        self.machine.quit().await;
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = fs::read_to_string(self.machine.layout().qemu_log()).unwrap_or_default();
            let console = self.console();
            let lines: Vec<&str> = console.lines().rev().take(10).collect();
            eprintln!("--- QEMU said:\n{log}\n--- the console, last line first:\n{}", lines.join("\n"));
            return;
        }
        self.groups.drain(..).for_each(watchdog::release);
    }
}
