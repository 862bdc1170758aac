//! Asks a daemon on its control socket, one command at a time.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use thiserror::Error;

use crate::control::{Command, Failure, REPLY_BYTES_MAX, Request, parse_reply, request_line};

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum ControlError {
    /// Nobody is there.
    #[error("cannot reach blockd at {path}; is it running?")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The connection broke, or took too long.
    #[error("the control connection failed")]
    Io(#[from] io::Error),
    /// It spoke something else.
    #[error("this does not answer like blockd: {0}")]
    Garbled(String),
    /// It said no. Its message is for people, its code for programs.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// A connection to a daemon's control socket.
#[derive(Debug)]
pub struct ControlClient {
    reader: BufReader<UnixStream>,
    next_id: u64,
}

impl ControlClient {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, ControlError> {
        let stream = UnixStream::connect(path)
            .map_err(|source| ControlError::Connect { path: path.into(), source })?;
        Ok(Self { reader: BufReader::new(stream), next_id: 1 })
    }

    /// How long to wait for an answer; at first, for ever. After a timeout connect anew.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.reader.get_ref().set_read_timeout(timeout)
    }

    /// Has a command done, and waits for its answer.
    pub fn call(&mut self, command: Command) -> Result<Value, ControlError> {
        let id = self.next_id;
        self.next_id += 1;
        // A daemon that turns us away has written why, and closed: read that before giving up.
        let sent = self.reader.get_mut().write_all(&request_line(&Request { id, command }));
        let line = match (self.read_line(), sent) {
            (Ok(line), _) => line,
            (Err(_), Err(error)) | (Err(error), Ok(())) => return Err(error.into()),
        };
        read_reply(id, &line)
    }

    fn read_line(&mut self) -> io::Result<Vec<u8>> {
        let mut line = Vec::new();
        (&mut self.reader).take(REPLY_BYTES_MAX as u64 + 1).read_until(b'\n', &mut line)?;
        whole_line(line)
    }
}

/// A reply's line without its end, as far as it was read: at most a byte more than [`REPLY_BYTES_MAX`].
pub fn whole_line(mut line: Vec<u8>) -> io::Result<Vec<u8>> {
    match line.pop() {
        Some(b'\n') => Ok(line),
        Some(_) if line.len() >= REPLY_BYTES_MAX => {
            Err(io::Error::new(io::ErrorKind::InvalidData, "the reply is too long"))
        }
        _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "blockd closed the connection")),
    }
}

/// What a line says to request `id`.
pub fn read_reply(id: u64, line: &[u8]) -> Result<Value, ControlError> {
    match parse_reply(line).map_err(ControlError::Garbled)? {
        (Some(number), result) if number == id => Ok(result?),
        (None, Err(failure)) => Err(failure.into()),
        (number, _) => Err(ControlError::Garbled(format!("it answered {number:?} to request {id}"))),
    }
}
