//! Watches a guest from the client, as its users do.
//!
//! ```text
//! test ── Prober::start ──► `prober run` in the client's place ─┬─ echo session: lines at a steady rate, open loop
//!      ── mark, finish (its standard input) ──►                 ├─ one session for each disk: acknowledged numbers
//!      ◄── how far it is, then the whole record (its output) ── └─ datagrams
//!                                 record ── Figures::of (pure) ──► gaps, disruption, losses
//! ```
//!
//! The record is raw: what was sent and heard, when, and what became of each connection. All times are microseconds
//! since the prober's start, by one clock. Sessions are kept open as long as the network lets them: the prober never
//! gives one up by itself, and opens another one only when the old is gone.

pub mod record;
pub mod figures;
pub mod lines;
pub mod sessions;
pub mod program;

use std::io::{BufRead, BufReader, Write};
use std::net::Ipv4Addr;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::guest_kit::place::Place;
use crate::guest_kit::service;
use crate::wait::{PATIENCE, wait_for};
use record::Record;

/// What to watch, and how closely.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Watch {
    /// The guest.
    pub address: Ipv4Addr,
    /// Lines of the echo session a second.
    pub lines_per_s: u32,
    /// How long each of them is, and its answer at least.
    #[serde(default)]
    pub line_bytes: u16,
    /// Datagrams a second; 0: none.
    pub datagrams_per_s: u32,
    /// Disks whose acknowledged numbers are recorded.
    pub disks: u16,
    /// How long an answer may take after the last line was sent, before it counts as lost.
    pub last_answer_ms: u64,
}

impl Watch {
    /// The usual: 20 lines and 50 datagrams a second, one disk.
    pub fn over(address: Ipv4Addr) -> Self {
        Self {
            address,
            lines_per_s: 20,
            line_bytes: 0,
            datagrams_per_s: 50,
            disks: 1,
            last_answer_ms: 10_000,
        }
    }
}

/// How far the prober is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Lines of the echo session that were answered.
    pub answered: u64,
    /// Of each disk the highest number heard.
    pub acknowledged: Vec<u64>,
}

/// What the program prints, a line each.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Said {
    Progress(Progress),
    Record(Box<Record>),
}

/// A prober at work.
#[derive(Debug)]
pub struct Prober {
    child: Child,
    input: Option<ChildStdin>,
    progress: Arc<Mutex<Progress>>,
    reader: Option<JoinHandle<Option<Record>>>,
}

impl Prober {
    /// Begin to watch from `place`.
    pub fn start(place: &Place, watch: &Watch) -> Self {
        let watch = serde_json::to_string(watch).expect("plain values");
        let (name, words) = place.words(&service::prober(), ["run", &watch]);
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(name).args(words);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("start the prober by setpriv");
        let (input, output) = (child.stdin.take(), child.stdout.take().expect("its output was piped"));
        let progress = Arc::new(Mutex::new(Progress::default()));
        let known = Arc::clone(&progress);
        let reader = thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                match serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line:?}")) {
                    Said::Progress(progress) => *lock(&known) = progress,
                    Said::Record(record) => return Some(*record),
                }
            }
            None
        });
        Self { child, input, progress, reader: Some(reader) }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        lock(&self.progress).clone()
    }

    /// Wait until `more` further lines were answered.
    #[track_caller]
    pub fn wait_for_answers(&self, more: u64) {
        let goal = self.progress().answered + more;
        wait_for(PATIENCE, &format!("{goal} answered lines"), || {
            (self.progress().answered >= goal).then_some(())
        });
    }

    /// Wait until the client has heard that `number` is on the disk `disk` (0: the first).
    #[track_caller]
    pub fn wait_for_number(&self, disk: usize, number: u64) {
        wait_for(PATIENCE, &format!("the client to hear of {number}"), || {
            self.progress().acknowledged.get(disk).filter(|heard| **heard >= number).map(drop)
        });
    }

    /// Wait until the client has heard of so many more writes to the disk `disk` (0: the first).
    #[track_caller]
    pub fn wait_for_writes(&self, disk: usize, more: u64) {
        let before = self.progress().acknowledged.get(disk).copied().unwrap_or(0);
        self.wait_for_number(disk, before + more);
    }

    /// Note the moment by a name.
    pub fn mark(&mut self, name: &str) {
        self.say(&format!("mark {name}"));
    }

    /// Stop watching; open one more connection, to see that this still works; hand the record over.
    #[track_caller]
    pub fn finish(mut self) -> Record {
        self.say("finish");
        let reader = self.reader.take().expect("it is taken here only");
        let limit = PATIENCE + Duration::from_secs(30);
        wait_for(limit, "the prober's record", || reader.is_finished().then_some(()));
        let record = reader.join().expect("read what the prober says");
        record.expect("the prober ends with its record")
    }

    fn say(&mut self, line: &str) {
        let input = self.input.as_mut().expect("its input is open as long as it lives");
        writeln!(input, "{line}").expect("tell the prober something");
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
