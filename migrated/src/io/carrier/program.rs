//! A program as a connection: what is written goes into its standard input, what it prints is what was said.
//!
//! Its end is never just an end: reading and writing then fail with its exit status and its last words. When the
//! connection is dropped it gets a moment to pass on what it was given, the link's last word among it; then it is killed.
//! What it says on stderr goes to the log, line by line.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::process::{ExitStatus, Stdio};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, BufReader, ReadBuf, copy, sink};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio::time::{Sleep, sleep, timeout};

/// How many of its last lines are told, and how many bytes of each.
const LAST_LINES: usize = 3;
const LINE_BYTES_MAX: u64 = 400;
/// How long one that has closed its output may take to end.
const END_WITHIN: Duration = Duration::from_secs(2);
/// How long its stderr is read after its end: its children may keep it open.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(200);

/// A program that carries a connection.
#[derive(Debug)]
pub struct Program {
    name: String,
    /// None: no more will be written.
    stdin: Option<ChildStdin>,
    /// None: it was dropped.
    stdout: Option<ChildStdout>,
    /// Says how it ended; none: it has.
    tended: Option<JoinHandle<String>>,
    /// Running since it was seen that the program says no more.
    patience: Option<Pin<Box<Sleep>>>,
    obituary: Option<String>,
}

impl Program {
    /// Starts a program: its name, and its arguments.
    pub fn start(words: &[String]) -> std::io::Result<Self> {
        let [name, arguments @ ..] = words else {
            return Err(Error::new(ErrorKind::InvalidInput, "no program is named"));
        };
        let mut command = Command::new(name);
        command.args(arguments).kill_on_drop(true).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|error| Error::new(error.kind(), format!("cannot start {name}: {error}")))?;
        let taken = (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let (Some(stdin), Some(stdout), Some(stderr)) = taken else { unreachable!("all three are piped") };
        let tended = tokio::spawn(tend(name.clone(), child, stderr));
        let (stdin, stdout, tended) = (Some(stdin), Some(stdout), Some(tended));
        Ok(Self { name: name.clone(), stdin, stdout, tended, patience: None, obituary: None })
    }

    /// Waits until it is known how it ended, and fails by that.
    fn poll_ended<T>(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, Error>> {
        // One that reads no more is to know that nothing comes.
        self.stdin = None;
        let patience = self.patience.get_or_insert_with(|| Box::pin(sleep(END_WITHIN)));
        if self.obituary.is_none() {
            let told = self.tended.as_mut().map(|tended| Pin::new(tended).poll(cx));
            self.obituary = match told {
                Some(Poll::Ready(told)) => {
                    self.tended = None;
                    Some(told.unwrap_or_else(|_| format!("{} ended", self.name)))
                }
                Some(Poll::Pending) => {
                    ready!(patience.as_mut().poll(cx));
                    Some(format!("{} closed its output and runs on", self.name))
                }
                None => unreachable!("it is heard of once"),
            };
        }
        let obituary = self.obituary.clone().unwrap_or_default();
        Poll::Ready(Err(Error::new(ErrorKind::ConnectionAborted, obituary)))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.stdin = None;
        let (Some(mut tended), Some(mut stdout)) = (self.tended.take(), self.stdout.take()) else { return };
        let Ok(runtime) = Handle::try_current() else { return tended.abort() };
        runtime.spawn(async move {
            // Nobody listens any more, but one whose output is closed may die of it before it is done.
            let mut nobody = sink();
            let drained = async { tokio::join!(&mut tended, copy(&mut stdout, &mut nobody)) };
            let is_done = timeout(END_WITHIN, drained).await.is_ok();
            if !is_done {
                // With the task goes the child, which is killed then.
                tended.abort();
            }
        });
    }
}

/// Stays with a program until its end, and says how that was.
async fn tend(name: String, mut child: Child, stderr: ChildStderr) -> String {
    let mut words = LastWords {
        name: name.clone(),
        reader: BufReader::new(stderr),
        lines: VecDeque::new(),
        line: Vec::new(),
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = words.hear() => child.wait().await,
    };
    let _ = timeout(LAST_WORDS_WITHIN, words.hear()).await;
    let how = status.map_or_else(|error| error.to_string(), describe);
    match words.lines.is_empty() {
        true => format!("{name} {how}, and said nothing"),
        false => format!("{name} {how}; its last words: {}", words.lines.make_contiguous().join(" / ")),
    }
}

fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit status {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What it says on stderr.
struct LastWords {
    name: String,
    reader: BufReader<ChildStderr>,
    lines: VecDeque<String>,
    /// The one that is being said.
    line: Vec<u8>,
}

impl LastWords {
    /// To the end. Dropped in between, it goes on where it was.
    async fn hear(&mut self) {
        loop {
            let read = (&mut self.reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut self.line).await;
            let line = String::from_utf8_lossy(&std::mem::take(&mut self.line)).trim().to_owned();
            if !read.is_ok_and(|count| count > 0) {
                return;
            }
            if line.is_empty() {
                continue;
            }
            tracing::info!(program = self.name, "{line}");
            if self.lines.len() >= LAST_LINES {
                self.lines.pop_front();
            }
            self.lines.push_back(line);
        }
    }
}

impl AsyncRead for Program {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<Result<(), Error>> {
        let before = buf.filled().len();
        let stdout = self.stdout.as_mut().expect("it was not dropped");
        match ready!(Pin::new(stdout).poll_read(cx, buf)) {
            Ok(()) if buf.filled().len() > before => Poll::Ready(Ok(())),
            _ => self.poll_ended(cx),
        }
    }
}

impl AsyncWrite for Program {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        let Some(stdin) = &mut self.stdin else { return self.poll_ended(cx) };
        match ready!(Pin::new(stdin).poll_write(cx, buf)) {
            Ok(count) => Poll::Ready(Ok(count)),
            Err(_) => self.poll_ended(cx),
        }
    }

    /// A pipe holds nothing back.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Poll::Ready(Ok(()))
    }

    /// Only a closed pipe tells a program the end.
    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.stdin = None;
        Poll::Ready(Ok(()))
    }
}
