//! Listens on the control socket: a thread a connection, so that no client waits for another.
//!
//! Serves only its own user and root, at most [`CONNECTIONS_MAX`] at a time. A line that is too
//! long ends the connection; a line that makes no sense is answered and does not.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use serde_json::Value;
use tracing::{debug, warn};

use crate::control::{Command, Failure, FailureCode, LINE_BYTES_MAX, id_of, parse_line, reply_line};
use crate::io::clock;
use crate::io::lock::lock;
use crate::io::store_call::errno_of;
use crate::repeated::Repeated;

/// Connections at a time.
pub const CONNECTIONS_MAX: usize = 16;
/// A client that does not take its reply for this long is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failed accept: out of descriptors, most likely.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Does what commands say. Called from several threads at once; may block.
pub trait Service: Send + Sync {
    /// Does it, and answers what the reply's `ok` holds.
    fn handle(&self, command: Command, asker: &Asker<'_>) -> Result<Value, Failure>;
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Asker<'a>(&'a UnixStream);

impl Asker<'_> {
    /// It has closed its connection: nobody will read the answer. One that only says no more still waits.
    pub fn is_gone(&self) -> bool {
        let mut sockets = [PollFd::new(self.0.as_fd(), PollFlags::empty())];
        let told = PollFlags::POLLHUP | PollFlags::POLLERR;
        matches!(poll(&mut sockets, PollTimeout::ZERO), Ok(1..))
            && sockets[0].revents().is_some_and(|found| found.intersects(told))
    }
}

/// Counts connections, and the requests among them that are being answered.
#[derive(Debug, Default)]
struct Activity {
    counts: Mutex<Counts>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Counts {
    connections: usize,
    requests: usize,
}

impl Activity {
    fn change(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
        self.changed.notify_all();
    }

    /// Counts a connection in, if there is room.
    fn admit(&self) -> bool {
        let mut counts = lock(&self.counts);
        let room = counts.connections < CONNECTIONS_MAX;
        counts.connections += usize::from(room);
        room
    }
}

/// A control socket that is being served.
#[derive(Debug)]
pub struct ControlServer {
    activity: Arc<Activity>,
}

impl ControlServer {
    /// Waits until every request that has been read is answered, or `timeout` is over. To be
    /// called before the process ends, so that the client that asked for the end hears of it.
    pub fn drain(&self, timeout: Duration) {
        let counts = lock(&self.activity.counts);
        let answering = |counts: &mut Counts| counts.requests > 0;
        drop(self.activity.changed.wait_timeout_while(counts, timeout, answering));
    }
}

/// Serves `listener` in threads of its own, until the process ends.
pub fn serve(listener: UnixListener, service: Arc<dyn Service>) -> io::Result<ControlServer> {
    let activity = Arc::new(Activity::default());
    let server = ControlServer { activity: Arc::clone(&activity) };
    let accept = move || {
        let mut trouble = Repeated::default();
        loop {
            match listener.accept() {
                Ok((stream, _)) => admit(stream, &service, &activity),
                Err(error) => {
                    if let Some(times) = trouble.handle(errno_of(&error), clock::now()) {
                        warn!(%error, times, "cannot accept a control connection");
                    }
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    };
    thread::Builder::new().name("control".into()).spawn(accept)?;
    Ok(server)
}

fn admit(stream: UnixStream, service: &Arc<dyn Service>, activity: &Arc<Activity>) {
    if let Err(failure) = check_peer(&stream) {
        return turn_away(stream, failure);
    }
    if !activity.admit() {
        let message = format!("{CONNECTIONS_MAX} control connections are open");
        return turn_away(stream, Failure::new(FailureCode::Busy, message, "close one"));
    }
    let (service, in_thread) = (Arc::clone(service), Arc::clone(activity));
    let run = move || {
        if let Err(error) = converse(stream, &*service, &in_thread) {
            debug!(%error, "a control connection ended");
        }
        in_thread.change(|counts| counts.connections -= 1);
    };
    if let Err(error) = thread::Builder::new().name("control-client".into()).spawn(run) {
        warn!(%error, "cannot start a thread for a control connection");
        activity.change(|counts| counts.connections -= 1);
    }
}

fn check_peer(stream: &UnixStream) -> Result<(), Failure> {
    let peer = getsockopt(stream, PeerCredentials)
        .map_err(|errno| Failure::new(FailureCode::Io, format!("who are you? {errno}"), ""))?;
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    warn!(uid = peer.uid(), pid = peer.pid(), "turned a stranger away from the control socket");
    let message = format!("user {} may not control this daemon", peer.uid());
    Err(Failure::new(FailureCode::Refused, message, "ask as its own user or as root"))
}

fn turn_away(mut stream: UnixStream, failure: Failure) {
    // A client that does not even take this is none of our worry.
    let _ = stream.set_write_timeout(Some(Duration::from_millis(10)));
    let _ = stream.write_all(&reply_line(None, &Err(failure)));
}

fn converse(stream: UnixStream, service: &dyn Service, activity: &Activity) -> io::Result<()> {
    stream.set_write_timeout(Some(WRITE_TIMEOUT))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    let mut line = Vec::new();
    loop {
        line.clear();
        (&mut reader).take(LINE_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        let whole = line.pop_if(|last| *last == b'\n').is_some();
        if !whole && line.len() <= LINE_BYTES_MAX {
            return Ok(()); // the end of the stream; half a line is no request
        }
        activity.change(|counts| counts.requests += 1);
        let sent = answer(&line, service, &mut writer);
        activity.change(|counts| counts.requests -= 1);
        sent?;
        if !whole {
            return Ok(()); // too long, and said so: where the next line begins is not known
        }
    }
}

fn answer(line: &[u8], service: &dyn Service, writer: &mut UnixStream) -> io::Result<()> {
    let reply = match parse_line(line) {
        Ok(request) => reply_line(Some(request.id), &service.handle(request.command, &Asker(writer))),
        Err(failure) => reply_line(id_of(line), &Err(failure)),
    };
    writer.write_all(&reply)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use serde_json::json;

    use super::*;
    use crate::io::control_client::{ControlClient, ControlError};
    use crate::io::scratch::Scratch;

    /// Answers `policy` with its name; `barrier` waits until the test lets it go.
    struct Echo(Mutex<mpsc::Receiver<()>>);

    impl Service for Echo {
        fn handle(&self, command: Command, _: &Asker<'_>) -> Result<Value, Failure> {
            match command {
                Command::Policy { name } => Ok(json!({ "name": name })),
                Command::Barrier { .. } => {
                    self.0.lock().unwrap().recv().unwrap();
                    Ok(json!({}))
                }
                _ => Err(Failure::new(FailureCode::Unsupported, "no", "")),
            }
        }
    }

    fn started(scratch: &Scratch) -> (std::path::PathBuf, ControlServer, mpsc::Sender<()>) {
        let path = scratch.path("control");
        let (go, wait) = mpsc::channel();
        let server = serve(UnixListener::bind(&path).unwrap(), Arc::new(Echo(Mutex::new(wait)))).unwrap();
        (path, server, go)
    }

    fn policy(name: &str) -> Command {
        Command::Policy { name: name.into() }
    }

    #[test]
    fn commands_are_answered_one_after_the_other() {
        let scratch = Scratch::new();
        let (path, _server, _go) = started(&scratch);
        let mut client = ControlClient::connect(&path).unwrap();
        for name in ["a", "b"] {
            assert_eq!(client.call(policy(name)).unwrap(), json!({ "name": name }));
        }
        let refused = client.call(Command::Repair {}).unwrap_err();
        assert!(matches!(refused, ControlError::Refused(Failure { code: FailureCode::Unsupported, .. })));
    }

    #[test]
    fn a_client_that_waits_does_not_hold_up_another_and_the_end_waits_for_its_answer() {
        let scratch = Scratch::new();
        let (path, server, go) = started(&scratch);
        let slow_path = path.clone();
        let slow = thread::spawn(move || {
            ControlClient::connect(&slow_path).unwrap().call(Command::Barrier { timeout_ms: 1 })
        });
        assert!(ControlClient::connect(&path).unwrap().call(policy("quick")).is_ok());
        go.send(()).unwrap();
        assert_eq!(slow.join().unwrap().unwrap(), json!({}));
        server.drain(Duration::from_secs(60));
        assert_eq!(server.activity.counts.lock().unwrap().requests, 0);
    }

    #[test]
    fn nonsense_is_answered_and_a_line_without_end_ends_the_connection() {
        let scratch = Scratch::new();
        let (path, _server, _go) = started(&scratch);
        let mut stream = UnixStream::connect(&path).unwrap();
        stream.write_all(b"{\"id\":3,\"command\":\"explode\"}\n").unwrap();
        stream.write_all(&vec![b'x'; LINE_BYTES_MAX + 1]).unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2, "{text}");
        assert!(lines[0].contains("\"id\":3") && lines[0].contains("explode"), "{text}");
        assert!(lines[1].contains("longer than"), "{text}");
    }

    #[test]
    fn one_connection_too_many_is_told_so() {
        let scratch = Scratch::new();
        let (path, _server, _go) = started(&scratch);
        let open: Vec<_> = (0..CONNECTIONS_MAX)
            .map(|_| {
                let mut client = ControlClient::connect(&path).unwrap();
                client.call(policy("here")).unwrap();
                client
            })
            .collect();
        let refused = ControlClient::connect(&path).unwrap().call(policy("late")).unwrap_err();
        assert!(refused.to_string().contains("16 control connections"), "{refused}");
        drop(open);
    }
}
