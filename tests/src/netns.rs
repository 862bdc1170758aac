//! Namespaces without names: made by `unshare`, kept by a process that reads a pipe, gone with it.
//!
//! ```text
//! test ── pipe ──► holder: `cat` (a network alone), or PID 1 of a site (site/init.sh, which becomes `cat`)
//!   └── nsenter --target HOLDER ──► programs inside
//! ```
//!
//! Nothing has a name on the host, so any number of tests run beside each other. When the test ends, however it
//! ends, the pipe closes, the holder ends, and the kernel takes down every process of a PID namespace and every
//! interface of a network namespace. [`crate::watchdog`] stands behind it.
//!
//! Only `unshare` and `nsenter` change namespaces here, never a thread of the test itself.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use nix::sys::signal::Signal;

use crate::program::{Program, Tool, children, signal};
use crate::wait::{PATIENCE, wait_for};
use crate::watchdog;

/// What a namespace is entered with, by `nsenter`, and made with, by `unshare`.
const EVERYTHING: [&str; 6] = ["--net", "--mount", "--pid", "--time", "--uts", "--ipc"];

/// What the holder says when everything is as it should be.
const READY: &str = "ready";

/// A set of namespaces, alive as long as this value.
#[derive(Debug)]
pub struct Namespaces {
    holder: Child,
    /// Its end is the end of the holder.
    pipe: Option<ChildStdin>,
    /// Process id, as the host sees it, of a process inside.
    inside: u32,
    flags: Vec<&'static str>,
}

impl Namespaces {
    /// A network of its own, and nothing else.
    pub fn network() -> Self {
        let script = format!("echo {READY}; exec cat");
        let mut command = Command::new("unshare");
        command.args(["--net", "sh", "-c", &script]);
        let (holder, pipe) = start(command);
        Self { inside: holder.id(), holder, pipe: Some(pipe), flags: vec!["--net"] }
    }

    /// Everything of its own, the clock `clock_offset_s` ahead of the host's; `script` with `words` is PID 1.
    pub fn isolated(script: &str, words: impl IntoIterator<Item = OsString>, clock_offset_s: u64) -> Self {
        let offset = clock_offset_s.to_string();
        let mut command = Command::new("unshare");
        // With --kill-child the inside dies with `unshare` also when that is killed.
        command.args(EVERYTHING).args([
            "--fork",
            "--kill-child",
            "--monotonic",
            &offset,
            "--boottime",
            &offset,
        ]);
        command.args(["sh", "-euc", script, "init"]).args(words);
        let (holder, pipe) = start(command);
        let inside = *children(holder.id()).first().expect("unshare has started the init of a site");
        Self { inside, holder, pipe: Some(pipe), flags: EVERYTHING.to_vec() }
    }

    /// Process id, as the host sees it, of a process inside: PID 1 where there is a PID namespace.
    pub fn pid(&self) -> u32 {
        self.inside
    }

    /// A program to be run to its end in all of the namespaces.
    pub fn tool(&self, program: impl AsRef<OsStr>) -> Tool {
        Tool::new("nsenter").args(self.entry(&self.flags)).arg(program)
    }

    /// The same in the network namespace alone: it sees the host's files and processes.
    pub fn net_tool(&self, program: impl AsRef<OsStr>) -> Tool {
        Tool::new("nsenter").args(self.entry(&["--net"])).arg(program)
    }

    /// Run lines of `ip`, in the network namespace alone, so that process ids in them are the host's.
    #[track_caller]
    pub fn ip(&self, lines: &str) {
        self.net_tool("ip").args(["-batch", "-"]).input(lines).run();
    }

    /// The same, where it does not matter whether what is to be changed is still there.
    pub fn ip_if_there(&self, lines: &str) {
        self.net_tool("ip").args(["-force", "-batch", "-"]).input(lines).output();
    }

    /// Start a program beside the test in all of the namespaces, its output appended to `log` (of the host).
    ///
    /// The [`Program`] is `nsenter`, which ends as the program inside ends.
    pub fn start<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Program {
        self.start_with(&self.flags, program, arguments, log)
    }

    /// The same in the network namespace alone.
    pub fn net_start<A: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Program {
        self.start_with(&["--net"], program, arguments, log)
    }

    fn start_with<A: AsRef<OsStr>>(
        &self,
        flags: &[&'static str],
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Program {
        let mut words: Vec<OsString> = self.entry(flags).map(OsString::from).collect();
        words.push(program.as_ref().to_owned());
        words.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        Program::start("nsenter", words, log)
    }

    fn entry<'a>(&self, flags: &'a [&'static str]) -> impl Iterator<Item = String> + use<'a> {
        let target = ["--target".to_owned(), self.inside.to_string()];
        let flags = flags.iter().map(|flag| (*flag).to_owned());
        target.into_iter().chain(flags).chain(["--".to_owned()])
    }

    /// Whether it has not been ended.
    pub fn is_up(&self) -> bool {
        self.pipe.is_some()
    }

    /// End everything inside at once; on return nothing of it runs. May be called again.
    pub fn end(&mut self) {
        if self.pipe.take().is_none() {
            return;
        }
        // PID 1 first: `unshare` reaps it only when all of its namespace is gone, and then ends itself.
        signal(self.inside, Signal::SIGKILL);
        let _ = self.holder.wait();
        watchdog::release(self.holder.id());
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.end();
    }
}

/// Start a holder and wait until it is ready.
fn start(mut command: Command) -> (Child, ChildStdin) {
    command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
    // Kept to itself, as `unshare` complains of its own when the inside is killed.
    command.stderr(Stdio::piped());
    let mut holder = command.spawn().expect("start unshare");
    watchdog::guard(holder.id());
    let pipe = holder.stdin.take().expect("the standard input was piped");
    let mut line = String::new();
    let said = holder.stdout.take().expect("the standard output was piped");
    BufReader::new(said).read_line(&mut line).expect("read from the holder of a namespace");
    if line.trim() != READY {
        let mut complaint = String::new();
        let stderr = holder.stderr.as_mut().expect("the standard error was piped");
        let _ = stderr.read_to_string(&mut complaint);
        panic!("a namespace could not be made: {complaint}");
    }
    (holder, pipe)
}

/// The process that `program`, started in a PID namespace by `nsenter`, became; none if it has ended already.
pub fn entered(program: &mut Program) -> Option<u32> {
    wait_for(PATIENCE, "nsenter to start a program", || {
        let ended = program.ended().is_some();
        let child = children(program.pid()).first().copied();
        (ended || child.is_some()).then_some(child)
    })
}
