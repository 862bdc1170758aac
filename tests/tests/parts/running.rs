//! A supervised `blockd` in a directory of its own. Waits for systemd's kind of readiness, so that
//! no test has to guess how long a start takes.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use blockd::io::control_client::ControlClient;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tests::binaries;

/// Longer than anything here takes; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The program.
pub fn program() -> PathBuf {
    binaries::blockd().expect("cargo builds it")
}

/// A directory with an image, and the supervisor that serves it.
pub struct Running {
    folder: PathBuf,
    notify: UnixDatagram,
    pub supervisor: Child,
}

impl Running {
    /// Serves a fresh image of 1 MiB, and waits until it is being served.
    pub fn start() -> Self {
        let running = Self::launch(&[]);
        running.wait_ready();
        running
    }

    /// Starts without waiting, with further flags.
    pub fn launch(flags: &[&str]) -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = format!("blockd-it-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir(&folder).unwrap();
        File::create(folder.join("disk.raw")).unwrap().set_len(1 << 20).unwrap();
        let notify = UnixDatagram::bind(folder.join("notify")).unwrap();
        notify.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = serve(&folder, "nbd", "control");
        command.args(flags).stderr(File::create(folder.join("log")).unwrap());
        let supervisor = command.spawn().unwrap();
        Self { folder, notify, supervisor }
    }

    /// Waits for the next READY=1 of a daemon.
    pub fn wait_ready(&self) {
        let mut space = [0; 64];
        let len = self.notify.recv(&mut space).expect("the daemon gets ready");
        assert_eq!(&space[..len], b"READY=1\n");
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Another `blockd serve` of the same image on these sockets, as it ended.
    pub fn serve_again(&self, nbd: &str, control: &str) -> Output {
        serve(&self.folder, nbd, control).output().unwrap()
    }

    /// The daemon's process.
    pub fn daemon(&self) -> Pid {
        let supervisor = self.supervisor.id();
        let children = fs::read_to_string(format!("/proc/{supervisor}/task/{supervisor}/children")).unwrap();
        Pid::from_raw(children.trim().parse().expect("one child"))
    }

    pub fn control(&self) -> ControlClient {
        let client = ControlClient::connect(&self.path("control")).unwrap();
        client.set_timeout(Some(PATIENCE)).unwrap();
        client
    }

    /// The first bytes that the NBD server says to a new client. A daemon that is being killed may
    /// still take a connection with it into death: such a client connects again, as QEMU does. To
    /// connect must always work.
    pub fn greeting(&self) -> [u8; 8] {
        let greet = || {
            let mut stream = UnixStream::connect(self.path("nbd")).expect("the socket is always there");
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut greeting = [0; 8];
            stream.read_exact(&mut greeting).map(|()| greeting).ok()
        };
        (0..100).find_map(|_| greet()).expect("a client is greeted in the end")
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.supervisor.id() as i32), signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        self.supervisor.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Ok(None) = self.supervisor.try_wait() {
            let _ = kill(self.daemon(), Signal::SIGKILL);
            let _ = self.supervisor.kill();
            let _ = self.supervisor.wait();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn serve(folder: &Path, nbd: &str, control: &str) -> Command {
    let mut command = Command::new(program());
    command.args(["serve", "--image", "disk.raw", "--nbd", nbd, "--control", control]);
    command.current_dir(folder).env("NOTIFY_SOCKET", folder.join("notify")).stdin(Stdio::null());
    command
}
