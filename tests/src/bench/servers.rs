//! Those that are compared, each with an image of its own and warm, and the floor below all of them.

use std::fs::{self, File};
use std::hint::black_box;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::time::ClockId;

use crate::daemon::{Daemon, greets};
use crate::lab::Lab;
use crate::program::Program;
use crate::scratch::Noise;
use crate::wait::{PATIENCE, wait_until};

use super::client::{Client, Run};
use super::load::{Kind, Load};
use super::record::OURS;

/// One contestant.
#[derive(Debug)]
pub struct Server {
    /// How the records call it.
    pub name: &'static str,
    image: PathBuf,
    socket: Option<PathBuf>,
    running: Running,
}

#[derive(Debug)]
enum Running {
    Ours(Daemon),
    Peer(Program),
    Nothing,
}

/// A measured run.
#[derive(Debug, Clone, Copy)]
pub struct Measure {
    /// Seconds from the first request to the last reply.
    pub wall_s: f64,
    /// Microseconds of CPU time of the server for one request; of the client itself where there is no server.
    pub cpu_us: f64,
}

impl Server {
    /// The daemon, the two peers, and the floor.
    pub fn all(lab: &Lab, size_bytes: u64) -> Vec<Self> {
        let image = |name: &str| lab.scratch.patterned(&format!("{name}.image"), size_bytes, 1);
        let (ours, qemu, nbdkit) = (image("blockd"), image("qemu-nbd"), image("nbdkit"));
        let daemon = lab.serve("blockd", &ours).flags(["--cache", "buffered"]).start();
        let socket = daemon.nbd().to_owned();
        vec![
            Self { name: OURS, image: ours, socket: Some(socket), running: Running::Ours(daemon) },
            Self::peer(lab, "qemu-nbd", qemu, |socket, image| {
                let flags = ["-t", "-e", "8", "-f", "raw", "--aio=io_uring", "--cache=writeback", "-k"];
                flags.map(String::from).into_iter().chain([text(socket), text(image)]).collect()
            }),
            Self::peer(lab, "nbdkit", nbdkit, |socket, image| {
                vec!["-f".into(), "-U".into(), text(socket), "file".into(), text(image)]
            }),
            Self { name: "no NBD", image: image("floor"), socket: None, running: Running::Nothing },
        ]
    }

    fn peer(
        lab: &Lab,
        name: &'static str,
        image: PathBuf,
        words: impl Fn(&Path, &Path) -> Vec<String>,
    ) -> Self {
        let socket = lab.scratch.join(&format!("{name}.sock"));
        let log = lab.scratch.join(&format!("{name}.log"));
        let program = Program::start(name, words(&socket, &image), &log);
        wait_until(PATIENCE, name, || greets(&socket));
        Self { name, image, socket: Some(socket), running: Running::Peer(program) }
    }

    /// The address for `qemu-img`, where there is one.
    pub fn uri(&self) -> Option<String> {
        self.socket.as_ref().map(|socket| format!("nbd+unix:///?socket={}", socket.display()))
    }

    /// Run the load once.
    pub fn measure(&self, load: &Load, seed: u64) -> Measure {
        let Some(socket) = &self.socket else { return self.measure_floor(load, seed) };
        let mut client = Client::connect(socket).expect("connect to a server");
        let offsets = load.offsets(client.size_bytes(), seed);
        let pid = self.pid();
        let before = cpu_ns(pid);
        let Run { wall, .. } = client.run(load, &offsets).expect("run a load");
        let cpu_us = (cpu_ns(pid) - before) as f64 / 1e3 / load.requests as f64;
        Measure { wall_s: wall.as_secs_f64(), cpu_us }
    }

    /// The same requests straight on the file, one after the other.
    fn measure_floor(&self, load: &Load, seed: u64) -> Measure {
        let file = File::options().read(true).write(true).open(&self.image).expect("open an image");
        let offsets = load.offsets(file.metadata().expect("look at an image").len(), seed);
        let mut bytes = vec![0; load.request_bytes as usize];
        Noise::new(17).fill(&mut bytes);
        let (before, started) = (own_cpu_ns(), Instant::now());
        for offset in offsets {
            match load.kind {
                Kind::Read => file.read_exact_at(black_box(&mut bytes), offset).expect("read an image"),
                Kind::Write => file.write_all_at(&bytes, offset).expect("write an image"),
            }
        }
        let wall_s = started.elapsed().as_secs_f64();
        Measure { wall_s, cpu_us: (own_cpu_ns() - before) as f64 / 1e3 / load.requests as f64 }
    }

    fn pid(&self) -> u32 {
        match &self.running {
            Running::Ours(daemon) => daemon.serving_pid().expect("the daemon has a child that serves"),
            Running::Peer(program) => program.pid(),
            Running::Nothing => std::process::id(),
        }
    }
}

/// CPU time of a process with all of its threads, those of the kernel that work for it included.
pub fn cpu_ns(pid: u32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("look at the threads of a server").flatten();
    tasks.filter_map(|task| schedstat(&task.path().join("schedstat"))).sum()
}

/// CPU time of the calling thread, exact also while it runs.
fn own_cpu_ns() -> u64 {
    let time = ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("the kernel counts CPU time");
    Duration::from(time).as_nanos() as u64
}

fn schedstat(path: &Path) -> Option<u64> {
    fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
