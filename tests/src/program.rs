//! Foreign programs, and ours, under a test: started, timed out, and never left behind.
//!
//! [`Tool`] runs a program to its end and hands back what it printed. [`Program`] keeps one running beside
//! the test, with its output in a log that is printed if the test fails.
//!
//! Nothing outlives a test run, not even one that is killed: a tool dies with the thread that started it
//! (`setpriv --pdeathsig`), and of a program the whole process group is left to a [`crate::watchdog`].

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use crate::watchdog;

/// Seconds after which a tool that runs to its end is killed and counts as failed.
const TOOL_LIMIT: &str = "240";

/// A program that is run to its end.
#[derive(Debug)]
pub struct Tool {
    command: Command,
    name: String,
    input: Vec<u8>,
}

impl Tool {
    /// Prepare `name`, to be found in the search path or as a path.
    pub fn new(name: impl AsRef<OsStr>) -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "timeout", "--kill-after=5", TOOL_LIMIT]).arg(&name);
        let name = name.as_ref().to_string_lossy().into_owned();
        Self { command, name, input: Vec::new() }
    }

    /// Add one argument.
    #[must_use]
    pub fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.command.arg(argument);
        self
    }

    /// Add arguments.
    #[must_use]
    pub fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.command.args(arguments);
        self
    }

    /// Run in `directory`, for tools that leave files where they are.
    #[must_use]
    pub fn current_dir(mut self, directory: &Path) -> Self {
        self.command.current_dir(directory);
        self
    }

    /// Give `text` on the standard input.
    #[must_use]
    pub fn input(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.input = text.into();
        self
    }

    /// Run it, whatever comes of it.
    pub fn output(mut self) -> Output {
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child =
            self.command.spawn().unwrap_or_else(|error| panic!("start {} by setpriv: {error}", self.name));
        let mut stdin = child.stdin.take().expect("the standard input was piped");
        let input = self.input;
        // A tool that does not read its input closes the pipe: its exit status says what became of it.
        let feeder = thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().expect("wait for a tool");
        feeder.join().expect("feed a tool");
        output
    }

    /// Run it, insist on success, and hand back what it printed on the standard output.
    #[track_caller]
    pub fn run(self) -> String {
        let name = self.name.clone();
        let output = self.output();
        let (out, err) = texts(&output);
        assert!(output.status.success(), "{name} failed ({}):\n{out}{err}", output.status);
        out
    }

    /// Run it, insist on failure of its own making (not the time limit), and hand back all it printed.
    #[track_caller]
    pub fn refused(self) -> String {
        let name = self.name.clone();
        let output = self.output();
        let (out, err) = texts(&output);
        let code = output.status.code();
        assert!(code.is_some_and(|code| code != 0 && code != 124), "{name} ended with {code:?}:\n{out}{err}");
        out + &err
    }
}

fn texts(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// A program that runs beside the test and is killed with it.
#[derive(Debug)]
pub struct Program {
    child: Child,
    name: String,
    log: PathBuf,
}

impl Program {
    /// Start `name` with `arguments`, its output appended to `log`.
    pub fn start<A: AsRef<OsStr>>(
        name: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = A>,
        log: &Path,
    ) -> Self {
        let sink = File::options().create(true).append(true).open(log).expect("open a log");
        let child = Command::new(&name)
            .args(arguments)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(sink.try_clone().expect("clone a log"))
            .stderr(sink)
            .spawn()
            .unwrap_or_else(|error| panic!("start {}: {error}", name.as_ref().display()));
        watchdog::guard(child.id());
        let name = name.as_ref().to_string_lossy().into_owned();
        Self { child, name, log: log.to_owned() }
    }

    /// Its process id, also that of its group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything that it has printed so far.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Its exit code if it has ended; a death by signal is -1.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("look after a child").map(|status| status.code().unwrap_or(-1))
    }

    /// Ask it to end.
    pub fn terminate(&self) {
        signal(self.pid(), Signal::SIGTERM);
    }

    /// End it at once and wait for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// End it and all of its children at once.
    pub fn kill_group(&mut self) {
        // There is nobody left in the group when all have ended by themselves.
        let _ = killpg(Pid::from_raw(self.pid().cast_signed()), Signal::SIGKILL);
        self.kill();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill_group();
        watchdog::release(self.pid());
        if thread::panicking() {
            eprintln!("--- what {} said:\n{}---", self.name, self.log());
        }
    }
}

/// Send `signal` to the process `pid`, which may have ended already.
pub fn signal(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}

/// The direct children of a process.
pub fn children(pid: u32) -> Vec<u32> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}
