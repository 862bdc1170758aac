//! A router in a tiny virtual machine, for hosts whose own kernel has no netem.
//!
//! ```text
//! network namespace of the router                     QEMU (TCG), Debian's cloud kernel
//!   ta ── tap ──────────────────────────────────────── wa ┐
//!   tb ── tap ──────────────────────────────────────── wb ├ ip_forward, netem on each
//!   tc ── tap ──────────────────────────────────────── wc ┘
//! test ── UNIX socket ──────────────────────────────── ttyS1: a line of shell in, its output out
//! ```
//!
//! It is booted once; its state is kept in the target directory, named by everything that it was made from, and
//! every later start restores that in a fraction of a second. It knows nothing of addresses or of profiles: whoever
//! owns it sends the same `ip` and `tc` that a namespace would be given.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use nix::fcntl::{Flock, FlockArg};
use serde_json::json;

use crate::binaries::{GuestKernel, guest_kernel, target_dir};
use crate::initramfs::{Archive, NETWORK_MODULES, VIRTIO_MODULES, busybox};
use crate::netns::Namespaces;
use crate::program::{Program, Tool};
use crate::qmp::Qmp;
use crate::requires::{Missing, program};
use crate::wait::{PATIENCE, wait_until};

const INIT: &str = include_str!("router_vm/init.sh");

const QEMU: &str = "qemu-system-x86_64";

/// Shaping; after the bus.
const SHAPING_MODULES: [&str; 2] = ["net/sched/sch_netem.ko", "net/sched/sch_tbf.ko"];

/// The router's programs, which come with their libraries.
const PROGRAMS: [&str; 2] = ["ip", "tc"];

/// The taps in the router's namespace, in the order of `wa`, `wb`, `wc`.
pub const TAPS: [&str; 3] = ["ta", "tb", "tc"];

/// Memory of the machine. Queues are bounded by their limits, in packets; what is idle is not kept with the state.
const MEMORY_MIB: &str = "160";

/// The files that a router is started from.
#[derive(Debug, Clone)]
pub struct Kit {
    kernel: PathBuf,
    initramfs: PathBuf,
    /// The machine's state right after its boot; made by the first who needs it.
    state: PathBuf,
}

impl Kit {
    /// Find everything, and build the machine's files unless they are there.
    pub fn find() -> Result<Self, Missing> {
        static FOUND: OnceLock<Result<Kit, Missing>> = OnceLock::new();
        FOUND.get_or_init(Self::look).clone()
    }

    fn look() -> Result<Self, Missing> {
        let qemu = program(QEMU)?;
        let programs = PROGRAMS.map(program).into_iter().collect::<Result<Vec<_>, _>>()?;
        program("ldd")?;
        if !busybox().exists() {
            return Err(Missing::Installable("busybox-static is not installed; run `make setup`".to_owned()));
        }
        let kernel = guest_kernel()?;
        let archive = archive(&kernel, &programs);
        let folder = target_dir().join("router-vm");
        fs::create_dir_all(&folder).expect("make a folder for the router's files");
        let name = fingerprint(&archive, &[&qemu, &kernel.image]);
        let initramfs = folder.join(format!("{name}.initramfs"));
        let _turn = turn();
        if !initramfs.exists() {
            remove_others(&folder);
            put(&initramfs, |part| fs::write(part, &archive).expect("write the router's initramfs"));
        }
        Ok(Self { kernel: kernel.image, initramfs, state: folder.join(format!("{name}.state")) })
    }

    /// Start a router whose taps appear in `space`; its files go below `scratch`.
    pub fn start(&self, space: &Namespaces, scratch: &Path) -> RouterVm {
        self.save_once(scratch);
        let from = format!("exec:cat '{}'", self.state.display());
        let mut router = self.launch(space, scratch, &["-incoming", &from]);
        let qmp = &mut router.qmp;
        wait_until(PATIENCE, "the router to be restored", || qmp.status() == "running");
        router.ask("true");
        router
    }

    /// Boot the machine and keep its state, unless it is there already.
    fn save_once(&self, scratch: &Path) {
        let _turn = turn();
        if self.state.exists() {
            return;
        }
        let space = Namespaces::network();
        let mut router = self.launch(&space, scratch, &[]);
        router.answer("its own boot");
        put(&self.state, |part| {
            let to = format!("exec:cat >'{}'", part.display());
            router.qmp.ask("migrate", json!({ "uri": to }));
            let qmp = &mut router.qmp;
            wait_until(PATIENCE, "the router's state to be saved", || {
                let status = qmp.ask("query-migrate", json!({}))["status"].to_string();
                assert_ne!(status, "\"failed\"", "QEMU saves the router's state");
                status == "\"completed\""
            });
        });
    }

    fn launch(&self, space: &Namespaces, scratch: &Path, more: &[&str]) -> RouterVm {
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let (port, monitor) = (scratch.join("router.port"), scratch.join("router.qmp"));
        // Of a machine that was started here before.
        let _ = (fs::remove_file(&port), fs::remove_file(&monitor));
        let mut words: Vec<String> = Vec::new();
        let mut add = |flag: &str, value: String| words.extend([flag.to_owned(), value]);
        for (flag, value) in [("-accel", "tcg"), ("-machine", "pc"), ("-cpu", "max"), ("-m", MEMORY_MIB)] {
            add(flag, value.to_owned());
        }
        add("-display", "none".to_owned());
        add("-kernel", text(&self.kernel));
        add("-initrd", text(&self.initramfs));
        add("-append", "console=ttyS0 quiet panic=-1".to_owned());
        add("-serial", format!("file:{}", text(&scratch.join("router.console"))));
        add("-serial", format!("unix:{},server=on,wait=off", text(&port)));
        add("-qmp", format!("unix:{},server=on,wait=off", text(&monitor)));
        for (number, tap) in TAPS.iter().enumerate() {
            // Without vnet_hdr there are no offloads: what netem sees are packets as on a wire.
            add("-netdev", format!("tap,id={tap},ifname={tap},script=no,downscript=no,vnet_hdr=off"));
            let mac = format!("mac={}", MACS[number]);
            add("-device", format!("virtio-net-pci,netdev={tap},{mac},romfile=,guest_announce=off"));
        }
        words.extend(["-nodefaults", "-no-reboot"].iter().chain(more).map(|word| (*word).to_owned()));
        let qemu = space.net_start(QEMU, words, &scratch.join("router.qemu.log"));
        let qmp = Qmp::connect(&monitor);
        let stream = UnixStream::connect(&port).expect("connect to the port of the router");
        stream.set_read_timeout(Some(PATIENCE)).expect("set a time limit on a socket");
        RouterVm { qmp, port: BufReader::new(stream), _qemu: qemu }
    }
}

/// MAC addresses of the machine's cards, in the order of [`TAPS`].
pub const MACS: [&str; 3] = ["02:00:00:00:0a:fe", "02:00:00:00:0b:fe", "02:00:00:00:0c:fe"];

/// A router that runs.
#[derive(Debug)]
pub struct RouterVm {
    qmp: Qmp,
    port: BufReader<UnixStream>,
    _qemu: Program,
}

impl RouterVm {
    /// Have one line of shell executed; it has to succeed. What it printed comes back.
    #[track_caller]
    pub fn ask(&mut self, line: &str) -> String {
        assert!(!line.contains('\n'), "the router takes one line at a time: {line}");
        writeln!(self.port.get_mut(), "{line}").expect("write to the port of the router");
        self.answer(line)
    }

    #[track_caller]
    fn answer(&mut self, line: &str) -> String {
        let mut said = String::new();
        loop {
            let start = said.len();
            let read = self.port.read_line(&mut said).expect("read from the port of the router");
            assert!(read > 0, "the router has ended; it was to do: {line}");
            if let Some(code) = said[start..].trim_end().strip_prefix("done ") {
                assert_eq!(code, "0", "the router failed to do: {line}\n{said}");
                said.truncate(start);
                return said;
            }
        }
    }
}

/// The machine's first and only file system.
fn archive(kernel: &GuestKernel, programs: &[PathBuf]) -> Vec<u8> {
    let mut archive = Archive::with_busybox();
    let modules = [&VIRTIO_MODULES[..], &NETWORK_MODULES, &SHAPING_MODULES].concat();
    let names = archive.modules(&kernel.modules, &modules);
    archive.file("init", INIT.replace("@MODULES@", &names).as_bytes());
    for folder in ["lib", "lib64", "tmp"] {
        archive.folder(folder);
    }
    let mut libraries: Vec<PathBuf> = programs.iter().flat_map(|program| libraries_of(program)).collect();
    libraries.sort();
    libraries.dedup();
    for library in &libraries {
        let name = library.file_name().expect("a library has a name").to_string_lossy();
        // The loader has a fixed place; it looks for the rest in /lib, among others.
        let folder = if name.starts_with("ld-linux") { "lib64" } else { "lib" };
        archive.file(&format!("{folder}/{name}"), &fs::read(library).expect("read a library"));
    }
    for program in programs {
        let name = program.file_name().expect("a program has a name").to_string_lossy();
        archive.file(&format!("bin/{name}"), &fs::read(program).expect("read a program of the router"));
    }
    archive.finish()
}

/// The libraries of `program`, its loader among them, as `ldd` finds them.
fn libraries_of(program: &Path) -> Vec<PathBuf> {
    let listed = Tool::new("ldd").arg(program).run();
    // `NAME => PATH (ADDRESS)`, or `PATH (ADDRESS)` for the loader.
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// A name that changes with the content of `archive` and with any of `files`.
fn fingerprint(archive: &[u8], files: &[&Path]) -> String {
    let mut hash = blake3::Hasher::new();
    // This file has the machine's command line.
    hash.update(include_bytes!("router_vm.rs")).update(archive);
    for file in files {
        let seen = fs::metadata(file).expect("look at a file of the router");
        let changed = seen.modified().expect("a file has a time");
        hash.update(format!("{} {} {changed:?}", file.display(), seen.len()).as_bytes());
    }
    hash.finalize().to_hex()[..16].to_owned()
}

/// The right to make one of the router's files: for one thread of one process at a time. Beside the folder, in which what
/// is old is removed.
fn turn() -> Flock<File> {
    let lock = File::create(target_dir().join("router-vm.lock")).expect("make a lock file");
    Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("lock a file")
}

/// Remove what was made from something older; a machine that runs from it has read all it needs.
fn remove_others(folder: &Path) {
    for file in fs::read_dir(folder).expect("list the router's files").flatten() {
        let _ = fs::remove_file(file.path());
    }
}

/// Make a file under another name first: others who look for it find it whole or not at all.
fn put(target: &Path, make: impl FnOnce(&Path)) {
    let part = target.with_extension(format!("part-{}", std::process::id()));
    make(&part);
    fs::rename(&part, target).expect("put a file of the router into its place");
}
