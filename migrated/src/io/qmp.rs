//! A connection to QEMU's monitor.
//!
//! ```text
//! call ──► line out, number noted ──┐                     ┌── reply ──► the caller that has its number
//! call ──► line out, number noted ──┴─ UNIX socket ─ reader ── event ──► all subscribers (the slow miss some)
//!                                                         └── end ────► every caller, and `closed`
//! ```
//!
//! Nothing assumes QEMU's version: what it can do is asked of it. Every command and every reply is logged at debug.
//! A call that is dropped while it waits harms nobody; its reply is passed over.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{broadcast, oneshot, watch};
use tokio::time::{interval, timeout};
use tracing::{debug, trace, warn};

use crate::qmp::{Event, Message, MigrateInfo, Refused, Version, command_line, commands_of, parse_line};

/// The longest line; the schema has some 200 KiB.
const LINE_BYTES_MAX: u64 = 16 << 20;
/// Events that a slow subscriber may be behind.
const EVENTS_KEPT: usize = 256;
/// How long a call waits for its reply unless it says otherwise.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two attempts to connect to a QEMU that is busy with others.
const DIAL_EVERY: Duration = Duration::from_millis(5);
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
    commands: BTreeSet<String>,
    pid: Option<i32>,
}

/// Where a reply goes.
type Caller = oneshot::Sender<Result<Value, Refused>>;

/// What the reader and the callers share.
#[derive(Debug)]
struct Replies {
    /// None: the connection has ended.
    waiting: Mutex<Option<HashMap<u64, Caller>>>,
    events: broadcast::Sender<Event>,
    closed: watch::Sender<bool>,
}

/// Connects as soon as QEMU has taken those who came before: its queue holds one or two.
async fn dial(path: &Path) -> io::Result<UnixStream> {
    let mut tick = interval(DIAL_EVERY);
    loop {
        tick.tick().await;
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            done => return done,
        }
    }
}

impl Qmp {
    /// Connects, and asks what this QEMU can do. QEMU talks to one at a time: a second one waits.
    pub async fn connect(path: &Path) -> Result<Self, QmpError> {
        let failed = |reason: String| QmpError::Connect { path: path.into(), reason };
        let stream = timeout(CALL_TIMEOUT, dial(path)).await.unwrap_or_else(|late| Err(late.into()));
        let stream = stream.map_err(|error| failed(error.to_string()))?;
        // The socket was made by QEMU itself, so this is QEMU's process.
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid());
        let (reader, writer) = stream.into_split();
        let mut reader = BufReader::new(reader);
        let greeting = timeout(CALL_TIMEOUT, read_line(&mut reader)).await;
        let greeting =
            greeting.map_err(|_| failed("it does not greet; does another program talk to it?".into()))?;
        let version = match greeting.map(|line| parse_line(&line)) {
            Some(Ok(Message::Greeting(version))) => version,
            Some(other) => return Err(failed(format!("this is no greeting of QEMU: {other:?}"))),
            None => return Err(failed("it closed the connection".into())),
        };
        let replies = Arc::new(Replies {
            waiting: Mutex::new(Some(HashMap::new())),
            events: broadcast::Sender::new(EVENTS_KEPT),
            closed: watch::Sender::new(false),
        });
        tokio::spawn(read_all(reader, Arc::clone(&replies)));
        let commands = BTreeSet::new();
        let writer = tokio::sync::Mutex::new(writer);
        let mut inner = Inner { writer, replies, next_id: AtomicU64::new(1), version, commands, pid };
        inner.call("qmp_capabilities", &json!({}), CALL_TIMEOUT).await?;
        let schema = inner.call("query-qmp-schema", &json!({}), CALL_TIMEOUT).await?;
        inner.commands = commands_of(&schema).into_iter().collect();
        debug!(path = %path.display(), %version, ?pid, "talking to QEMU");
        Ok(Self { inner: Arc::new(inner) })
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
        self.inner.commands.contains(command)
    }

    /// QEMU's version; for people, not for decisions.
    pub fn version(&self) -> Version {
        self.inner.version
    }

    /// QEMU's process, where the system says.
    pub fn pid(&self) -> Option<i32> {
        self.inner.pid
    }

    /// Comes back when QEMU has ended or closed the monitor. Does not keep the connection.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + use<> {
        let mut closed = self.inner.replies.closed.subscribe();
        async move {
            // An error says that the reader has gone, which is the same.
            let _ = closed.wait_for(|closed| *closed).await;
        }
    }

    /// QEMU's word for the guest's state ("running", "paused", "inmigrate", "postmigrate", …).
    pub async fn state(&self) -> Result<String, QmpError> {
        let answer = self.call("query-status", json!({})).await?;
        Ok(answer["status"].as_str().unwrap_or_default().to_owned())
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

/// Migration.
impl Qmp {
    /// Switches capabilities. One that this QEMU does not have is refused by it, by name.
    pub async fn set_capabilities(&self, capabilities: &[(&str, bool)]) -> Result<(), QmpError> {
        let list: Vec<Value> =
            capabilities.iter().map(|(name, state)| json!({ "capability": name, "state": state })).collect();
        self.call("migrate-set-capabilities", json!({ "capabilities": list })).await.map(drop)
    }

    /// The capabilities that this QEMU has, with their states; also ones that nobody here knows.
    pub async fn capabilities(&self) -> Result<Vec<(String, bool)>, QmpError> {
        let answer = self.call("query-migrate-capabilities", json!({})).await?;
        let list = answer.as_array().map(Vec::as_slice).unwrap_or_default();
        let one = |entry: &Value| Some((entry["capability"].as_str()?.to_owned(), entry["state"].as_bool()?));
        Ok(list.iter().filter_map(one).collect())
    }

    /// Sets parameters: an object of them ("max-bandwidth", "downtime-limit", …).
    pub async fn set_parameters(&self, parameters: Value) -> Result<(), QmpError> {
        self.call("migrate-set-parameters", parameters).await.map(drop)
    }

    /// Begins to send the guest to the UNIX socket at `path`, where somebody has to listen.
    pub async fn migrate(&self, path: &Path) -> Result<(), QmpError> {
        self.call("migrate", json!({ "uri": unix_uri(path) })).await.map(drop)
    }

    /// Listens on the UNIX socket at `path` for a guest. Only a QEMU that was started for it can.
    pub async fn migrate_incoming(&self, path: &Path) -> Result<(), QmpError> {
        self.call("migrate-incoming", json!({ "uri": unix_uri(path) })).await.map(drop)
    }

    /// Goes on from a state in which QEMU waits ("pre-switchover").
    pub async fn migrate_continue(&self, state: &str) -> Result<(), QmpError> {
        self.call("migrate-continue", json!({ "state": state })).await.map(drop)
    }

    /// Gives the migration up. The answer comes before it has ended.
    pub async fn migrate_cancel(&self) -> Result<(), QmpError> {
        self.call("migrate_cancel", json!({})).await.map(drop)
    }

    /// How far it is.
    pub async fn query_migrate(&self) -> Result<MigrateInfo, QmpError> {
        Ok(MigrateInfo::read(&self.call("query-migrate", json!({})).await?))
    }

    /// Waits until the migration is as `until` says. Events only wake, and may be lost: what counts is the answer to
    /// a query (M4), which comes at least once in `every`.
    pub async fn migration_until(
        &self,
        every: Duration,
        until: impl Fn(&MigrateInfo) -> bool,
    ) -> Result<MigrateInfo, QmpError> {
        let mut events = self.events();
        loop {
            let found = self.query_migrate().await?;
            if until(&found) {
                return Ok(found);
            }
            // Either way it is asked again.
            let _ = timeout(every, events.recv()).await;
        }
    }
}

fn unix_uri(path: &Path) -> String {
    format!("unix:{}", path.display())
}

impl Inner {
    async fn call(&self, command: &str, arguments: &Value, limit: Duration) -> Result<Value, QmpError> {
        let closed = || QmpError::Closed { command: command.into() };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.replies.note(id, sender).ok_or_else(closed)?;
        debug!(id, command, %arguments, "to QEMU");
        let exchange = async {
            let line = command_line(id, command, arguments);
            self.writer.lock().await.write_all(line.as_bytes()).await.map_err(|_| closed())?;
            receiver.await.map_err(|_| closed())
        };
        let reply = match timeout(limit, exchange).await {
            Ok(reply) => reply?,
            Err(_) => return Err(QmpError::Timeout { command: command.into(), timeout: limit }),
        };
        match &reply {
            Ok(value) => debug!(id, command, reply = %shortened(value), "from QEMU"),
            Err(refused) => debug!(id, command, class = refused.class, error = refused.text, "from QEMU"),
        }
        reply.map_err(|refused| QmpError::Refused { command: command.into(), refused })
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

    fn close(&self) {
        // Dropping the senders tells the callers.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).take();
        self.closed.send_replace(true);
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

async fn read_all(mut reader: BufReader<OwnedReadHalf>, replies: Arc<Replies>) {
    while let Some(line) = read_line(&mut reader).await {
        match parse_line(&line) {
            Ok(message) => replies.handle(message),
            Err(error) => {
                warn!(error, "QEMU's monitor speaks something else");
                break;
            }
        }
    }
    replies.close();
}

/// A line without its end; none where the connection ends, breaks, or the line does not end.
async fn read_line(reader: &mut BufReader<OwnedReadHalf>) -> Option<Vec<u8>> {
    let mut line = Vec::new();
    reader.take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await.ok()?;
    (line.pop() == Some(b'\n')).then_some(line)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::path::PathBuf;
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{UnixListener, UnixStream};

    use super::{Qmp, QmpError, dial};

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

    async fn connected(name: &str) -> (Qmp, Monitor) {
        let path: PathBuf = std::env::temp_dir().join(format!("qmp-{name}-{}", std::process::id()));
        let listener = UnixListener::bind(&path).unwrap();
        let monitor = async {
            let mut monitor = Monitor { stream: BufReader::new(listener.accept().await.unwrap().0) };
            monitor.say(r#"{"QMP": {"version": {"qemu": {"major": 99, "minor": 1, "micro": 0}}}}"#).await;
            assert_eq!(monitor.answer(json!({})).await, "qmp_capabilities");
            let schema = json!([{"meta-type": "command", "name": "teleport"}]);
            assert_eq!(monitor.answer(schema).await, "query-qmp-schema");
            monitor
        };
        let (qmp, monitor) = tokio::join!(Qmp::connect(&path), monitor);
        tokio::fs::remove_file(&path).await.unwrap();
        (qmp.unwrap(), monitor)
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
