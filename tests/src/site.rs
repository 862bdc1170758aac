//! A host of a test: a machine of its own as far as programs inside can tell.
//!
//! ```text
//! host                                   inside
//!  <scratch>/<name>/        ◄─ bind ──►   /site        the site's own files: join(path), inside(path)
//!  /usr, /etc, …, target    ◄─ bind ──►   the same     read-only
//!  (anything else)                        is not there, above all the other site's files
//! ```
//!
//! Each has its own network, processes, mounts, host name, IPC, and its own monotonic clock and boot time, far
//! apart from the host's and from each other's. **The wall clock is shared**: the kernel has no namespace for it.
//!
//! Its PID 1 is ours; killing it kills everything inside, as when a host loses power. Files below the site's
//! directory stay, as a disk's content does; `/run` and `/tmp` go.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::binaries;
use crate::netns::{Namespaces, entered};
use crate::program::{Program, Tool, signal};
use crate::site::capture::Capture;
use crate::wait::{PATIENCE, wait_until};

pub mod capture;
pub mod volume;

const INIT: &str = include_str!("site/init.sh");

/// Where a site sees its own directory.
const OWN: &str = "/site";

/// What a site sees of the host, read-only: programs and their settings.
const SHARED: [&str; 8] = ["/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc", "/opt", "/boot"];

/// What a site is made from.
#[derive(Debug, Clone)]
pub struct Ground {
    /// Name of the site, its directory, and the host name inside.
    pub name: &'static str,
    /// The directory that holds the directories of all sites, never seen inside.
    pub covered: PathBuf,
    /// More of the host's files for the site to see, read-only.
    pub shared: Vec<PathBuf>,
    /// Seconds by which its monotonic clock and boot time are ahead of the host's.
    pub clock_offset_s: u64,
}

/// A host of a test.
#[derive(Debug)]
pub struct Site {
    ground: Ground,
    directory: PathBuf,
    spaces: Namespaces,
}

impl Site {
    /// Make it, with an empty directory.
    pub fn boot(ground: Ground) -> Self {
        let directory = ground.covered.join(ground.name);
        fs::create_dir_all(&directory).expect("make the directory of a site");
        let spaces = spaces(&ground, &directory);
        Self { ground, directory, spaces }
    }

    /// Its name: `site-a`, `site-b`, `client`, `lan-a`.
    pub fn name(&self) -> &str {
        self.ground.name
    }

    /// The path of one of its files as the test sees it.
    pub fn join(&self, path: impl AsRef<Path>) -> PathBuf {
        self.directory.join(path)
    }

    /// The path of the same file as programs inside see it.
    pub fn inside(&self, path: impl AsRef<Path>) -> PathBuf {
        Path::new(OWN).join(path)
    }

    /// Write a program into the site's folder.
    pub fn place_program(&self, name: &str, text: &str) {
        let program = self.join(name);
        fs::write(&program, text).expect("write a program");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("make it one");
    }

    /// The path of the same file as the test sees it with what is mounted inside. Only while the site has power.
    pub fn seen(&self, path: impl AsRef<Path>) -> PathBuf {
        self.seen_as(&self.inside(path))
    }

    /// A file that the site sees at `path`, likewise.
    fn seen_as(&self, path: &Path) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.pid(), path.display()))
    }

    /// Its first process, as the host sees it.
    pub fn pid(&self) -> u32 {
        self.spaces.pid()
    }

    /// A program inside, to be run to its end: add arguments, then `run`, `output` or `refused`.
    pub fn tool(&self, program: impl AsRef<OsStr>) -> Tool {
        self.spaces.tool(program)
    }

    /// Run a program inside to its end, whatever comes of it.
    pub fn run<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Output {
        self.tool(program).args(arguments).output()
    }

    /// Run lines of shell inside; they have to succeed.
    #[track_caller]
    pub fn shell(&self, lines: &str) -> String {
        self.tool("sh").args(["-euc", lines]).run()
    }

    /// Start a program inside, beside the test, its output appended to the site's file `log`.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        log: impl AsRef<Path>,
    ) -> Inmate {
        let mut program = self.spaces.start(program, arguments, &self.join(log));
        Inmate { pid: entered(&mut program), program }
    }

    /// What `ip -json` answers to `words`, such as `["route", "show"]`.
    #[track_caller]
    pub fn ip_json(&self, words: &[&str]) -> Value {
        let text = self.tool("ip").args(["-json", "-details", "-statistics"]).args(words).run();
        // Some versions say nothing at all where there is nothing to say.
        if text.trim().is_empty() {
            return Value::Array(Vec::new());
        }
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("ip {words:?} said {text:?}: {error}"))
    }

    /// Record what passes the interface `device` and `filter` (as `tcpdump` understands it) until told to stop.
    pub fn capture(&self, device: &str, filter: &str) -> Capture {
        Capture::start(self, device, filter)
    }

    /// Every process inside, by its id on the host, PID 1 left out: what a test has to find ended or running.
    pub fn pids(&self) -> Vec<u32> {
        let space = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let own = space(self.spaces.pid());
        let listed = fs::read_dir("/proc").expect("list the processes").flatten();
        let all = listed.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        all.filter(|pid| *pid != self.spaces.pid() && own.is_some() && space(*pid) == own).collect()
    }

    /// Lose power: on return no process inside runs. The cables are not the site's: see `World::crash`.
    pub(crate) fn crash(&mut self) {
        self.spaces.end();
    }

    /// Power comes back: the same files, an empty `/run`, and no network yet.
    pub(crate) fn restart(&mut self) {
        self.spaces = spaces(&self.ground, &self.directory);
    }

    /// Whether it has power.
    pub fn is_up(&self) -> bool {
        self.spaces.is_up()
    }

    /// Its namespaces, for those who lay cables.
    pub(crate) fn spaces(&self) -> &Namespaces {
        &self.spaces
    }
}

fn spaces(ground: &Ground, directory: &Path) -> Namespaces {
    let root = ground.covered.join(format!("{}.root", ground.name));
    fs::create_dir_all(&root).expect("make a mount point");
    let fixed = [&root, directory, Path::new(ground.name), &ground.covered].map(OsString::from);
    let mut shared: Vec<PathBuf> = SHARED.iter().map(PathBuf::from).collect();
    shared.push(binaries::target_dir());
    // Programs from elsewhere are seen with the directory that they lie in.
    let named = ["BLOCKD", "MIGRATED"].into_iter().filter_map(env::var_os).map(PathBuf::from);
    shared.extend(named.filter_map(|program| Some(program.parent()?.to_owned())));
    shared.extend(ground.shared.clone());
    let words = fixed.into_iter().chain(shared.into_iter().map(OsString::from));
    Namespaces::isolated(INIT, words, ground.clock_offset_s)
}

/// A program that runs inside a site, killed when this value is dropped.
#[derive(Debug)]
pub struct Inmate {
    program: Program,
    pid: Option<u32>,
}

impl Inmate {
    /// Its process id as the host sees it.
    pub fn pid(&self) -> u32 {
        self.pid.unwrap_or_else(|| panic!("the program ended at once: {}", self.log()))
    }

    /// Everything that it has printed so far.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Its exit code if it has ended; a death by signal is -1 or 128 and the signal.
    pub fn ended(&mut self) -> Option<i32> {
        self.program.ended()
    }

    /// Send it, and only it, a signal.
    pub fn signal(&mut self, what: Signal) {
        // Its number is its own until `nsenter`, its parent, has ended.
        if self.ended().is_none() {
            signal(self.pid(), what);
            if what == Signal::SIGCONT {
                // `nsenter` stops when its child does, and would not see its end.
                signal(self.program.pid(), what);
            }
        }
    }

    /// Ask it to end.
    pub fn terminate(&mut self) {
        self.signal(Signal::SIGTERM);
    }

    /// Kill it, not its children, and wait for its end.
    pub fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        wait_until(PATIENCE, "a killed program to end", || self.ended().is_some());
    }
}
