//! Two real daemons keep two images in step, whatever is killed or cut in between.
//!
//! ```text
//! guest, fio, Writes ─ NBD ─► source ─ replica stream ─► [relay] ─► destination
//!                               │ image                                 │ image
//!                               └───── at the end: byte for byte the same ┘
//! ```

mod deaths;
mod faults;
mod handover;
mod hostile;
mod identity;
mod writes;

use std::path::{Path, PathBuf};

use tests::daemon::{Daemon, Serve};
use tests::lab::Lab;
use tests::relay::Relay;
use tests::scratch::{allocated_bytes, first_difference};
use tests::wait::{PATIENCE, wait_until};

/// One mebibyte.
const MIB: u64 = 1 << 20;

/// The name of the guest's disk at both ends.
const DISK_ID: [&str; 2] = ["--disk-id", "web"];

/// A source, its destination, and what is between them.
struct Pair {
    source: Daemon,
    destination: Daemon,
    relay: Relay,
    source_image: PathBuf,
    destination_image: PathBuf,
}

impl Pair {
    /// Start both ends, the source with `image`; it does not replicate yet.
    fn start(lab: &Lab, image: PathBuf) -> Self {
        Self::start_with(lab, image, &[])
    }

    /// The same, with further flags for the source.
    fn start_with(lab: &Lab, image: PathBuf, flags: &[&str]) -> Self {
        Self::start_at(lab, image, &lab.scratch.join("copy"), flags)
    }

    /// The same, with the copy somewhere else.
    fn start_at(lab: &Lab, image: PathBuf, copy: &Path, flags: &[&str]) -> Self {
        let size_bytes = image.metadata().expect("look at an image").len();
        let (copy, listens) = (copy.to_owned(), lab.scratch.join("destination.replica"));
        let destination = destination(lab, "destination", &copy, size_bytes).start();
        let source = lab.serve("source", &image).flags(DISK_ID).flags(flags).start();
        let relay = Relay::start(&lab.scratch.join("relay"), &listens);
        Self { source, destination, relay, source_image: image, destination_image: copy }
    }

    /// Record, and keep the destination in step.
    fn follow(&self) {
        self.source.ctl(&["record", "on"]);
        self.source.ctl(&["replicate", &self.relay.path().to_string_lossy()]);
    }

    /// Wait until all that is written so far is at the destination, over as many sessions as that takes.
    #[track_caller]
    fn reach_barrier(&self) {
        let mut last = String::new();
        wait_until(PATIENCE, "the replica to reach a barrier", || {
            let said = self.source.try_ctl(&["barrier", "--timeout-ms", "2000"]);
            said.map_err(|why| last = why).is_ok() || {
                eprintln!("not yet: {}", last.trim());
                false
            }
        });
    }

    /// Seal, and look for oneself: both images are the same, and as sparse (S4-06, S4-75).
    #[track_caller]
    fn seal_and_compare(&self, generation: u64) {
        self.reach_barrier();
        self.source.ctl(&["seal", "--generation", &generation.to_string(), "--verify", "all"]);
        assert_eq!(first_difference(&self.source_image, &self.destination_image), None);
        let (here, there) = (allocated_bytes(&self.source_image), allocated_bytes(&self.destination_image));
        assert!(
            there <= here + here / 20,
            "{there} bytes allocated at the destination, {here} at the source"
        );
    }
}

/// A destination for a disk of `size_bytes`.
fn destination(lab: &Lab, name: &str, image: &Path, size_bytes: u64) -> Serve {
    let listens = lab.scratch.join(&format!("{name}.replica"));
    lab.serve(name, image).flags(DISK_ID).replica(&listens, size_bytes)
}
