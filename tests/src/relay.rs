//! Between source and destination of a replica: a relay that cuts the stream, and a peer that never reads.
//!
//! ```text
//! source ─► [relay: passes bytes both ways, drops the connection after a random number of them] ─► destination
//! source ─► [black hole: accepts, reads nothing]
//! ```

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::scratch::Noise;

/// A listener that lets a source connect and never reads what it sends: a WAN that is dead and not gone.
#[derive(Debug)]
pub struct BlackHole {
    path: PathBuf,
}

impl BlackHole {
    /// Listen at `path`.
    pub fn listen(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("listen as a black hole");
        // The thread ends with the program; what it accepted stays open until then.
        thread::spawn(move || {
            let _held: Vec<UnixStream> = listener.incoming().filter_map(Result::ok).collect();
        });
        Self { path: path.to_owned() }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A relay between two UNIX sockets that can cut what goes through it.
#[derive(Debug)]
pub struct Relay {
    path: PathBuf,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: PathBuf,
    /// Bytes that a connection lives for, both ways together; drawn anew for each. `None`: for ever.
    lives_bytes: Mutex<Option<(Noise, u64)>>,
    /// Refuses new connections while it is set.
    down: AtomicBool,
    open: Mutex<Vec<UnixStream>>,
    connections: AtomicU64,
}

impl Relay {
    /// Listen at `path` and connect everybody on to `target`.
    pub fn start(path: &Path, target: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("listen as a relay");
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            lives_bytes: Mutex::new(None),
            down: AtomicBool::new(false),
            open: Mutex::new(Vec::new()),
            connections: AtomicU64::new(0),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for near in listener.incoming().flatten() {
                accepting.connect(near);
            }
        });
        Self { path: path.to_owned(), shared }
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// From now on every connection dies after a random number of bytes below `most_bytes`.
    pub fn cut_at_random(&self, seed: u64, most_bytes: u64) {
        println!("the relay cuts by seed {seed}");
        *self.shared.lives_bytes.lock().expect("the relay's lock") = Some((Noise::new(seed), most_bytes));
        self.cut();
    }

    /// Let new connections live for ever again.
    pub fn stop_cutting(&self) {
        *self.shared.lives_bytes.lock().expect("the relay's lock") = None;
    }

    /// Cut what is connected now.
    pub fn cut(&self) {
        for stream in self.shared.open.lock().expect("the relay's lock").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// Refuse, or accept again, new connections; cuts the present ones when it goes down.
    pub fn set_down(&self, down: bool) {
        self.shared.down.store(down, Ordering::SeqCst);
        if down {
            self.cut();
        }
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Shared {
    fn connect(&self, near: UnixStream) {
        if self.down.load(Ordering::SeqCst) {
            return;
        }
        let Ok(far) = UnixStream::connect(&self.target) else { return };
        self.connections.fetch_add(1, Ordering::SeqCst);
        let drawn = self
            .lives_bytes
            .lock()
            .expect("the relay's lock")
            .as_mut()
            .map(|(noise, most)| noise.below(*most));
        let left = Arc::new(AtomicU64::new(drawn.unwrap_or(u64::MAX)));
        let both = [near, far];
        let copy = |stream: &UnixStream| stream.try_clone().expect("clone a socket");
        self.open.lock().expect("the relay's lock").extend(both.each_ref().map(copy));
        for (from, to) in [(0, 1), (1, 0)] {
            let (from, to, left) = (copy(&both[from]), copy(&both[to]), Arc::clone(&left));
            thread::spawn(move || {
                let _ = pass(&from, &to, &left);
                let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
            });
        }
    }
}

/// Pass bytes on until one side ends or the connection has used up its life, in the middle of whatever it is.
fn pass(mut from: &UnixStream, mut to: &UnixStream, left: &AtomicU64) -> io::Result<()> {
    let mut bytes = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut bytes)? as u64;
        if count == 0 {
            return Ok(());
        }
        let before =
            left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(count)));
        let allowed = before.unwrap_or_default().min(count);
        to.write_all(&bytes[..allowed as usize])?;
        if allowed < count {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::Relay;
    use crate::scratch::Scratch;

    #[test]
    fn a_relay_passes_bytes_on_and_cuts_a_connection_within_its_life() {
        let scratch = Scratch::new();
        let target = UnixListener::bind(scratch.join("target")).unwrap();
        let relay = Relay::start(&scratch.join("relay"), &scratch.join("target"));
        let mut near = UnixStream::connect(relay.path()).unwrap();
        let (mut far, _) = target.accept().unwrap();
        near.write_all(b"there").unwrap();
        let mut bytes = [0; 5];
        far.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"there");

        relay.cut_at_random(1, 1000);
        assert_eq!(near.read(&mut bytes).unwrap(), 0, "the present connection is cut");
        let mut near = UnixStream::connect(relay.path()).unwrap();
        let (mut far, _) = target.accept().unwrap();
        // The relay may have cut before all of this was sent.
        let _ = near.write_all(&[7; 2000]);
        let mut got = Vec::new();
        far.read_to_end(&mut got).unwrap();
        assert!(got.len() < 1000, "{} bytes got through", got.len());
        assert_eq!(relay.connections(), 2);
    }
}
