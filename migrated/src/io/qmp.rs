//! A connection to QEMU's monitor.
//!
//! ```text
//! call ──► line out, number noted ──┐                     ┌── reply ──► the caller that has its number
//! call ──► line out, number noted ──┴─ UNIX socket ─ reader ── event ──► all subscribers (the slow miss some)
//!                                                         └── end ────► connected again while QEMU lives;
//!                                                                       else every caller, and `closed`
//! ```
//!
//! A connection that breaks while QEMU lives is made again, and calls wait for it. What only asks, or may be said twice,
//! is said again; of anything else nobody knows whether it was done, and its caller is told so. Events in between are lost.
//!
//! Nothing assumes QEMU's version: what it can do is asked of it. Every command and every reply is logged at debug.
//! A call that is dropped while it waits harms nobody; its reply is passed over.

mod line;
mod migration;

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, trace, warn};

use self::line::{Line, read_line};
use crate::qmp::{Event, Message, Refused, RunState, Version, command_line, commands_of, parse_line};

/// Events that a slow subscriber may be behind.
const EVENTS_KEPT: usize = 256;
/// How long a call waits for its reply unless it says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Commands that may be said again after nobody knows whether they were done, beside all that only ask.
const REPEATABLE: [&str; 5] = ["qom-list", "stop", "cont", "migrate_cancel", "migrate-set-parameters"];
/// Bytes of a reply that the log shows.
const LOGGED_BYTES: usize = 400;

/// Why a command has no answer.
#[derive(Clone, Debug, Error)]
pub enum QmpError {
    /// Nobody listens, or nobody greets.
    #[error("cannot talk to QEMU at {}: {reason}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// QEMU has ended, or closed the monitor.
    #[error("QEMU has ended ({command} was not answered)")]
    Closed {
        /// What was asked.
        command: String,
    },
    /// The connection broke, and has been made again: QEMU may have done it or not.
    #[error("the connection to QEMU's monitor broke, so that nobody knows what became of {command}")]
    Lost {
        /// What was asked.
        command: String,
    },
    /// It took too long.
    #[error("QEMU did not answer {command} within {} ms", timeout.as_millis())]
    Timeout {
        /// What was asked.
        command: String,
        /// How long it was waited for.
        timeout: Duration,
    },
    /// It said no.
    #[error("QEMU refused {command}: {refused}")]
    Refused {
        /// What was asked.
        command: String,
        /// Its words.
        refused: Refused,
    },
}

/// A connection to a monitor; clones share it.
#[derive(Clone, Debug)]
pub struct Qmp {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    writer: tokio::sync::Mutex<OwnedWriteHalf>,
    replies: Arc<Replies>,
    next_id: AtomicU64,
    version: Version,
    commands: OnceLock<BTreeSet<String>>,
    pid: Option<i32>,
}

/// How a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Up,
    /// It broke, and is being made again.
    Broken,
    /// QEMU has ended.
    Over,
}

/// Where a reply goes.
type Caller = oneshot::Sender<Result<Value, Refused>>;

/// What the reader and the callers share.
#[derive(Debug)]
struct Replies {
    /// None: there is no connection.
    waiting: Mutex<Option<HashMap<u64, Caller>>>,
    events: broadcast::Sender<Event>,
    standing: watch::Sender<Standing>,
}

impl Qmp {
    /// Connects, and asks what this QEMU can do. QEMU talks to one at a time: a second one waits.
    pub async fn connect(path: &Path) -> Result<Self, QmpError> {
        let Line { reader, writer, version, pid } = line::open(path).await?;
        let replies = Arc::new(Replies {
            waiting: Mutex::new(Some(HashMap::new())),
            events: broadcast::Sender::new(EVENTS_KEPT),
            standing: watch::Sender::new(Standing::Up),
        });
        let inner = Arc::new(Inner {
            writer: tokio::sync::Mutex::new(writer),
            replies: Arc::clone(&replies),
            next_id: AtomicU64::new(1),
            version,
            commands: OnceLock::new(),
            pid,
        });
        tokio::spawn(keep(Arc::downgrade(&inner), replies, reader, path.to_owned(), pid));
        let schema = inner.call("query-qmp-schema", &json!({}), CALL_TIMEOUT).await?;
        let commands = inner.commands.set(commands_of(&schema).into_iter().collect());
        commands.expect("it is set once");
        debug!(path = %path.display(), %version, ?pid, "talking to QEMU");
        Ok(Self { inner })
    }

    /// Has a command done, and waits for its answer, at most 30 s.
    pub async fn call(&self, command: &str, arguments: Value) -> Result<Value, QmpError> {
        self.inner.call(command, &arguments, CALL_TIMEOUT).await
    }

    /// Has a command done, and waits for its answer, at most `limit`.
    pub async fn call_within(
        &self,
        command: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.inner.call(command, &arguments, limit).await
    }

    /// Events from now on. Who falls behind by 256 is told how many are lost; so ask for the state, do not count.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.inner.replies.events.subscribe()
    }

    /// Whether this QEMU has a command.
    pub fn has(&self, command: &str) -> bool {
        self.inner.commands.get().is_some_and(|commands| commands.contains(command))
    }

    /// QEMU's version; for people, not for decisions.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// QEMU's process, where the system says.
    pub fn pid(&self) -> Option<i32> {
        self.inner.pid
    }

    /// Comes back when QEMU has ended or closed the monitor for good. Does not keep the connection.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut standing = self.inner.replies.standing.subscribe();
        async move {
            // An error says that the reader has gone, which is the same.
            let _ = standing.wait_for(|standing| *standing == Standing::Over).await;
        }
    }

    /// The guest's state.
    pub async fn state(&self) -> Result<RunState, QmpError> {
        let answer = self.call("query-status", json!({})).await?;
        Ok(RunState::read(answer["status"].as_str().unwrap_or_default()))
    }

    /// The devices that were plugged in, by their names; those of the board are not among them.
    pub async fn devices(&self) -> Result<BTreeSet<String>, QmpError> {
        let mut names = BTreeSet::new();
        for place in ["/machine/peripheral", "/machine/peripheral-anon"] {
            let answer = self.call("qom-list", json!({ "path": place })).await?;
            let list = answer.as_array().map(Vec::as_slice).unwrap_or_default();
            let is_device =
                |entry: &&Value| entry["type"].as_str().is_some_and(|kind| kind.starts_with("child<"));
            names.extend(
                list.iter().filter(is_device).filter_map(|entry| Some(entry["name"].as_str()?.to_owned())),
            );
        }
        Ok(names)
    }

    /// Holds the guest's CPUs and flushes its disks. With a disk's daemon dead this waits for it; see `Disk::wake`.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.call("stop", json!({})).await.map(drop)
    }

    /// Lets the guest's CPUs run.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.call("cont", json!({})).await.map(drop)
    }

    /// Runs a command of the monitor for people; answers its text.
    pub async fn human(&self, line: &str, limit: Duration) -> Result<String, QmpError> {
        let answer =
            self.call_within("human-monitor-command", json!({ "command-line": line }), limit).await?;
        Ok(answer.as_str().unwrap_or_default().to_owned())
    }
}

impl Inner {
    async fn call(&self, command: &str, arguments: &Value, limit: Duration) -> Result<Value, QmpError> {
        let may_repeat = command.starts_with("query-") || REPEATABLE.contains(&command);
        let exchange = async {
            loop {
                if self.replies.settled().await == Standing::Over {
                    return Err(QmpError::Closed { command: command.into() });
                }
                match self.exchange(command, arguments).await {
                    Some(reply) => return Ok(reply),
                    None if may_repeat => {}
                    None if self.replies.settled().await == Standing::Over => {}
                    None => return Err(QmpError::Lost { command: command.into() }),
                }
            }
        };
        match timeout(limit, exchange).await {
            Ok(reply) => reply?.map_err(|refused| QmpError::Refused { command: command.into(), refused }),
            Err(_) => Err(QmpError::Timeout { command: command.into(), timeout: limit }),
        }
    }

    /// Says a command once. None: the connection broke before it was answered.
    async fn exchange(&self, command: &str, arguments: &Value) -> Option<Result<Value, Refused>> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.replies.note(id, sender)?;
        debug!(id, command, %arguments, "to QEMU");
        let line = command_line(id, command, arguments);
        self.writer.lock().await.write_all(line.as_bytes()).await.ok()?;
        let reply = receiver.await.ok()?;
        match &reply {
            Ok(value) => debug!(id, command, reply = %shortened(value), "from QEMU"),
            Err(refused) => debug!(id, command, class = refused.class, error = refused.text, "from QEMU"),
        }
        Some(reply)
    }
}

fn shortened(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > LOGGED_BYTES {
        let end = (0..=LOGGED_BYTES).rev().find(|at| text.is_char_boundary(*at)).unwrap_or_default();
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Replies {
    fn note(&self, id: u64, sender: Caller) -> Option<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.as_mut()?.insert(id, sender);
        Some(())
    }

    fn take(&self, id: u64) -> Option<Caller> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).as_mut()?.remove(&id)
    }

    /// There is no connection any more, for now or for good.
    fn end(&self, standing: Standing) {
        // First how it stands: dropping the senders tells the callers, who look.
        self.standing.send_replace(standing);
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    /// There is one again.
    fn begin(&self) {
        *self.waiting.lock().unwrap_or_else(PoisonError::into_inner) = Some(HashMap::new());
        self.standing.send_replace(Standing::Up);
    }

    /// Waits while the connection is being made again.
    async fn settled(&self) -> Standing {
        let mut standing = self.standing.subscribe();
        let settled = standing.wait_for(|standing| *standing != Standing::Broken).await;
        settled.map_or(Standing::Over, |standing| *standing)
    }

    fn handle(&self, message: Message) {
        match message {
            Message::Reply(Some(id), reply) => {
                if let Some(caller) = self.take(id) {
                    // Nobody waits any more if its call was dropped.
                    let _ = caller.send(reply);
                }
            }
            Message::Event(event) => {
                debug!(event = event.name, fields = %event.fields, "event of QEMU");
                // Nobody may listen.
                let _ = self.events.send(event);
            }
            Message::Reply(None, reply) => warn!(?reply, "QEMU answered nobody's command"),
            Message::Greeting(_) | Message::Unknown => trace!(?message, "passed over"),
        }
    }
}

/// Reads until QEMU has ended, over as many connections as it takes; or until nobody holds this end any more.
async fn keep(
    inner: Weak<Inner>,
    replies: Arc<Replies>,
    mut reader: BufReader<OwnedReadHalf>,
    path: PathBuf,
    pid: Option<i32>,
) {
    loop {
        read_all(&mut reader, &replies).await;
        replies.end(Standing::Broken);
        if inner.strong_count() == 0 {
            break;
        }
        let Some(again) = line::reopen(&path, pid).await else { break };
        let Some(inner) = inner.upgrade() else { break };
        *inner.writer.lock().await = again.writer;
        reader = again.reader;
        replies.begin();
        warn!(path = %path.display(), "the connection to QEMU's monitor broke, and was made again");
    }
    replies.end(Standing::Over);
}

async fn read_all(reader: &mut BufReader<OwnedReadHalf>, replies: &Replies) {
    while let Some(line) = read_line(reader).await {
        match parse_line(&line) {
            Ok(message) => replies.handle(message),
            Err(error) => {
                warn!(error, "QEMU's monitor speaks something else");
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::{Path, PathBuf};
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::line::dial;
    use super::{Qmp, QmpError};

    /// A monitor that a test plays.
    struct Monitor {
        stream: BufReader<UnixStream>,
    }

    impl Monitor {
        async fn say(&mut self, line: &str) {
            self.stream.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }

        async fn hear(&mut self) -> Value {
            let mut line = String::new();
            self.stream.read_line(&mut line).await.unwrap();
            serde_json::from_str(&line).unwrap()
        }

        async fn answer(&mut self, value: Value) -> String {
            let command = self.hear().await;
            self.say(&json!({ "return": value, "id": command["id"] }).to_string()).await;
            command["execute"].as_str().unwrap().to_owned()
        }
    }

    /// Takes a connection, as QEMU does.
    async fn accept(listener: &UnixListener) -> Monitor {
        let mut monitor = Monitor { stream: BufReader::new(listener.accept().await.unwrap().0) };
        monitor.say(r#"{"QMP": {"version": {"qemu": {"major": 99, "minor": 1, "micro": 0}}}}"#).await;
        assert_eq!(monitor.answer(json!({})).await, "qmp_capabilities");
        monitor
    }

    fn listen(name: &str) -> (PathBuf, UnixListener) {
        let path: PathBuf = std::env::temp_dir().join(format!("qmp-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    async fn connected(name: &str) -> (Qmp, Monitor) {
        let (path, listener) = listen(name);
        let connected = connect(&path, &listener).await;
        tokio::fs::remove_file(&path).await.unwrap();
        connected
    }

    async fn connect(path: &Path, listener: &UnixListener) -> (Qmp, Monitor) {
        let monitor = async {
            let mut monitor = accept(listener).await;
            let schema = json!([{"meta-type": "command", "name": "teleport"}]);
            assert_eq!(monitor.answer(schema).await, "query-qmp-schema");
            monitor
        };
        let (qmp, monitor) = tokio::join!(Qmp::connect(path), monitor);
        (qmp.unwrap(), monitor)
    }

    #[tokio::test]
    async fn a_connection_that_breaks_while_qemu_lives_is_made_again_and_only_what_may_be_is_said_twice() {
        let (path, listener) = listen("again");
        let (qmp, mut first) = connect(&path, &listener).await;
        let mut events = qmp.events();
        let playing = async {
            first.hear().await;
            first.hear().await;
            drop(first);
            let mut second = accept(&listener).await;
            second.say(r#"{"event": "STILL_HERE", "data": {}, "timestamp": {}}"#).await;
            assert_eq!(second.answer(json!({ "status": "active" })).await, "query-migrate");
            second
        };
        let arguments = json!({ "uri": "unix:/x" });
        let (asked, ordered, second) =
            tokio::join!(qmp.query_migrate(), qmp.call("migrate", arguments), playing);
        assert_eq!(asked.unwrap().status, "active");
        assert!(matches!(ordered, Err(QmpError::Lost { .. })), "{ordered:?}");
        assert_eq!(events.recv().await.unwrap().name, "STILL_HERE");
        // And then QEMU ends.
        drop((second, listener));
        qmp.closed().await;
        assert!(matches!(qmp.stop().await, Err(QmpError::Closed { .. })));
        tokio::fs::remove_file(&path).await.unwrap();
    }

    #[tokio::test]
    async fn what_a_qemu_can_do_is_asked_of_it() {
        let (qmp, _monitor) = connected("can").await;
        assert!(qmp.has("teleport") && !qmp.has("stop"));
        assert_eq!(qmp.version().major, 99);
        assert_eq!(qmp.pid(), Some(std::process::id() as i32));
    }

    #[tokio::test]
    async fn replies_find_their_callers_in_any_order_with_events_in_between() {
        let (qmp, mut monitor) = connected("order").await;
        let mut events = qmp.events();
        let playing = async {
            let first = monitor.hear().await;
            let second = monitor.hear().await;
            monitor.say(r#"{"event": "UNHEARD_OF", "data": {"x": 1}, "timestamp": {}}"#).await;
            monitor.say(&json!({ "return": second["execute"], "id": second["id"] }).to_string()).await;
            let error = json!({ "class": "GenericError", "desc": "not now" });
            monitor.say(&json!({ "error": error, "id": first["id"] }).to_string()).await;
        };
        let (a, b, ()) = tokio::join!(qmp.call("a", json!({})), qmp.call("b", json!({ "x": 1 })), playing);
        assert_eq!(b.unwrap(), "b");
        assert_eq!(a.unwrap_err().to_string(), "QEMU refused a: not now");
        assert_eq!(events.recv().await.unwrap().name, "UNHEARD_OF");
    }

    #[tokio::test]
    async fn the_end_of_qemu_is_told_to_everybody_at_once() {
        let (qmp, monitor) = connected("end").await;
        let (waiting, ()) = tokio::join!(qmp.call("stop", json!({})), async { drop(monitor) });
        assert!(matches!(waiting, Err(QmpError::Closed { .. })), "{waiting:?}");
        qmp.closed().await;
        assert!(matches!(qmp.call("cont", json!({})).await, Err(QmpError::Closed { .. })));
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_and_the_next_one_is_answered() {
        let (qmp, mut monitor) = connected("late").await;
        let late = qmp.call_within("slow", json!({}), Duration::from_millis(1)).await;
        assert!(matches!(late, Err(QmpError::Timeout { .. })), "{late:?}");
        let playing = async {
            let slow = monitor.hear().await;
            monitor.say(&json!({ "return": "late", "id": slow["id"] }).to_string()).await;
            monitor.answer(json!("in time")).await;
        };
        let (answer, ()) = tokio::join!(qmp.call("quick", json!({})), playing);
        assert_eq!(answer.unwrap(), "in time");
    }

    #[tokio::test]
    async fn a_line_that_is_no_json_ends_the_connection() {
        let (qmp, mut monitor) = connected("garbage").await;
        monitor.say("SSH-2.0-OpenSSH_9.2").await;
        qmp.closed().await;
    }

    /// A queue of one is full until QEMU has taken what is in it.
    #[tokio::test]
    async fn a_monitor_that_is_busy_with_others_is_waited_for() {
        let path = std::env::temp_dir().join(format!("qmp-busy-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        listener.bind(&socket2::SockAddr::unix(&path).unwrap()).unwrap();
        listener.listen(0).unwrap();
        let _first = UnixStream::connect(&path).await.unwrap();
        let refused = UnixStream::connect(&path).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
        let (dialled, _) = tokio::join!(dial(&path), async { listener.accept().unwrap() });
        dialled.unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
