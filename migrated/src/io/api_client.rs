//! The command line's end of the API's socket: one request, one answer.

use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::Value;
use thiserror::Error;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

use crate::api::line::{REPLY_BYTES_MAX, Request, parse_reply, request_line};
use crate::api::{Command, Failure};

/// Why there is no answer to work with.
#[derive(Debug, Error)]
pub enum ApiError {
    /// Nobody is there.
    #[error("cannot reach the daemon at {}: {source}; is it running, and may you use its socket?", .socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It went away before it answered, or said something that is no answer.
    #[error("the daemon did not answer: {0}")]
    Broken(String),
    /// It says no.
    #[error(transparent)]
    Refused(#[from] Failure),
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct ApiClient {
    stream: BufReader<UnixStream>,
    next_id: u64,
}

impl ApiClient {
    /// Connects to the daemon.
    pub async fn connect(socket: &Path) -> Result<Self, ApiError> {
        let stream = UnixStream::connect(socket)
            .await
            .map_err(|source| ApiError::Unreachable { socket: socket.to_owned(), source })?;
        Ok(Self { stream: BufReader::new(stream), next_id: 1 })
    }

    /// Asks, and waits for the answer as long as it takes.
    pub async fn call(&mut self, command: Command) -> Result<Value, ApiError> {
        let broken = |error: io::Error| ApiError::Broken(error.to_string());
        let id = self.next_id;
        self.next_id += 1;
        // One that turns us away may have hung up already; what it said is still there to be read.
        let sent = self.stream.write_all(&request_line(&Request { id, command })).await;
        let mut line = Vec::new();
        (&mut self.stream)
            .take(REPLY_BYTES_MAX as u64 + 1)
            .read_until(b'\n', &mut line)
            .await
            .map_err(broken)?;
        if line.pop_if(|last| *last == b'\n').is_none() {
            sent.map_err(broken)?;
            return Err(ApiError::Broken("it closed the connection".to_owned()));
        }
        let (answered, result) = parse_reply(&line).map_err(ApiError::Broken)?;
        if answered.is_some_and(|answered| answered != id) {
            return Err(ApiError::Broken(format!("it answered request {answered:?} instead of {id}")));
        }
        Ok(result?)
    }

    /// Asks for something of a certain kind.
    pub async fn ask<T: DeserializeOwned>(&mut self, command: Command) -> Result<T, ApiError> {
        let value = self.call(command).await?;
        serde_json::from_value(value).map_err(|error| {
            ApiError::Broken(format!("its answer is not understood ({error}); is it as new?"))
        })
    }
}
