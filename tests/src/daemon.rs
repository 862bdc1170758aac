//! The real `blockd` under a test, its sockets and log in the test's scratch directory.
//!
//! ```text
//! lab.serve(..)     .export(..) ─ start() ─► Daemon ─ uri()      ─► foreign clients
//!                                            │     ─ ctl(&[..]) ─► control socket, answer as JSON
//!                                            └ kill_child(), kill_supervisor()
//! ```
//!
//! `start` comes back when the NBD socket greets a client (or, for a destination, the control socket
//! answers), `refused` when the daemon has ended by itself and said why. Dropping a `Daemon` kills both of its
//! processes, and prints the log if the test has failed.

use std::ffi::OsString;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::program::{Program, Tool, children, signal};
use crate::scratch::Scratch;
use crate::wait::{PATIENCE, found_within, wait_for, wait_until};

/// What a server of NBD says first.
const GREETING: &[u8; 8] = b"NBDMAGIC";

/// A daemon that is described and not yet started.
#[derive(Debug, Clone)]
pub struct Serve {
    blockd: PathBuf,
    image: PathBuf,
    nbd: PathBuf,
    control: PathBuf,
    log: PathBuf,
    export: String,
    flags: Vec<OsString>,
}

impl Serve {
    /// Serve `image`, with sockets and log named after `name` in the scratch directory.
    pub fn image(blockd: &Path, scratch: &Scratch, name: &str, image: &Path) -> Self {
        Self {
            blockd: blockd.to_owned(),
            image: image.to_owned(),
            nbd: scratch.join(&format!("{name}.nbd")),
            control: scratch.join(&format!("{name}.ctl")),
            log: scratch.join(&format!("{name}.log")),
            export: String::new(),
            flags: Vec::new(),
        }
    }

    /// Give the export a name.
    #[must_use]
    pub fn export(mut self, name: &str) -> Self {
        name.clone_into(&mut self.export);
        self.flags(["--export", name])
    }

    /// Add flags of the command line as they are.
    #[must_use]
    pub fn flags<A: Into<OsString>>(mut self, flags: impl IntoIterator<Item = A>) -> Self {
        self.flags.extend(flags.into_iter().map(Into::into));
        self
    }

    /// Choose the data plane: `ring` or `pool`.
    #[must_use]
    pub fn plane(self, plane: &str) -> Self {
        self.flags(["--data-plane", plane])
    }

    /// The role of a destination: listen for a source at the socket, hold a disk of `size_bytes`.
    #[must_use]
    pub fn replica(self, socket: &Path, size_bytes: u64) -> Self {
        let size = size_bytes.to_string();
        self.flags([OsString::from("--replica"), socket.into(), "--size".into(), size.into()])
    }

    /// Start it and wait until it greets NBD clients.
    pub fn start(self) -> Daemon {
        let mut daemon = self.launch();
        wait_until(PATIENCE, "blockd to greet NBD clients", || {
            daemon.assert_alive();
            greets(&daemon.nbd)
        });
        daemon
    }

    /// Start it in the expectation that it ends by itself; hands back what it said.
    pub fn refused(self) -> String {
        let mut daemon = self.launch();
        let code = wait_for(PATIENCE, "blockd to refuse", || daemon.program.ended());
        let said = daemon.program.log();
        assert_ne!(code, 0, "blockd ended as if all were well:\n{said}");
        assert!(!said.contains("panicked"), "blockd panicked:\n{said}");
        said
    }

    fn launch(self) -> Daemon {
        let mut arguments: Vec<OsString> = vec!["serve".into()];
        for (flag, path) in [("--image", &self.image), ("--nbd", &self.nbd), ("--control", &self.control)] {
            arguments.extend([flag.into(), path.into()]);
        }
        arguments.extend(self.flags);
        let program = Program::start(&self.blockd, arguments, &self.log);
        Daemon { program, blockd: self.blockd, nbd: self.nbd, control: self.control, export: self.export }
    }
}

/// A running daemon: a supervisor and its child, which serves.
#[derive(Debug)]
pub struct Daemon {
    program: Program,
    blockd: PathBuf,
    nbd: PathBuf,
    control: PathBuf,
    export: String,
}

impl Daemon {
    /// Where NBD clients connect.
    pub fn nbd(&self) -> &Path {
        &self.nbd
    }

    /// Where it is commanded.
    pub fn control(&self) -> &Path {
        &self.control
    }

    /// The address of the export for libnbd and QEMU's tools.
    pub fn uri(&self) -> String {
        self.uri_of(&self.export)
    }

    /// The address of another export at the same socket.
    pub fn uri_of(&self, export: &str) -> String {
        format!("nbd+unix:///{export}?socket={}", self.nbd.display())
    }

    /// Ask over the control socket and insist on success.
    #[track_caller]
    pub fn ctl(&self, words: &[&str]) -> Value {
        let text = self.ctl_tool(words).run();
        serde_json::from_str(text.trim()).unwrap_or(Value::String(text))
    }

    /// Ask over the control socket and insist on a refusal; hands back the reason.
    #[track_caller]
    pub fn ctl_refused(&self, words: &[&str]) -> String {
        self.ctl_tool(words).refused()
    }

    /// Ask over the control socket; `Err` carries what was said instead.
    pub fn try_ctl(&self, words: &[&str]) -> Result<Value, String> {
        let output = self.ctl_tool(words).output();
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            return Err(out + &String::from_utf8_lossy(&output.stderr));
        }
        Ok(serde_json::from_str(out.trim()).unwrap_or(Value::String(out)))
    }

    /// The state of the daemon.
    #[track_caller]
    pub fn status(&self) -> Value {
        self.ctl(&["status"])
    }

    fn ctl_tool(&self, words: &[&str]) -> Tool {
        Tool::new(&self.blockd).arg("ctl").arg(&self.control).args(words).arg("--json")
    }

    /// The process that serves: the supervisor's child, or the only process when there is no supervisor.
    pub fn serving_pid(&self) -> Option<u32> {
        children(self.program.pid()).first().copied()
    }

    /// Kill the process that serves with SIGKILL, wait until another one serves, and give its id.
    pub fn kill_child(&mut self) -> u32 {
        let killed = self.serving_pid().expect("a child under the supervisor");
        signal(killed, Signal::SIGKILL);
        let next = wait_for(PATIENCE, "the supervisor to start another child", || {
            self.assert_alive();
            self.serving_pid().filter(|pid| *pid != killed)
        });
        wait_until(PATIENCE, "the new child to greet NBD clients", || greets(&self.nbd));
        next
    }

    /// Kill the supervisor with SIGKILL and give the id of the child that it leaves.
    pub fn kill_supervisor(&mut self) -> Option<u32> {
        let child = self.serving_pid();
        self.program.kill();
        child
    }

    /// Ask it to shut down and wait for its end; gives the exit code.
    pub fn shut_down(&mut self) -> i32 {
        self.program.terminate();
        wait_for(PATIENCE, "blockd to shut down", || self.program.ended())
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.program.log()
    }

    /// Panics if the daemon has ended.
    pub fn assert_alive(&mut self) {
        if let Some(code) = self.program.ended() {
            panic!("blockd ended by itself with code {code}:\n{}", self.program.log());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.program.ended().is_some() {
            return; // another daemon may have its sockets by now
        }
        self.program.kill_group();
        // The next one may want its sockets and its image. A dead process is not enough: the kernel lets go of
        // what a ring held a little later.
        found_within(PATIENCE, || UnixStream::connect(&self.nbd).is_err().then_some(()));
    }
}

/// Whether an NBD server answers at the socket.
pub fn greets(socket: &Path) -> bool {
    let Ok(mut stream) = UnixStream::connect(socket) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("set a time limit on a socket");
    let mut greeting = [0; 8];
    stream.read_exact(&mut greeting).is_ok() && &greeting == GREETING
}
