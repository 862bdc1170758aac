//! Why a command was not done, for a program (code) and for a person (message, hint).

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The kinds of failure that a caller may tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The line was not understood.
    BadRequest,
    /// This daemon does not do that.
    Unsupported,
    /// Not with this disk in this state.
    Refused,
    /// The disk has another role.
    WrongRole,
    /// The generation is not the current one.
    WrongGeneration,
    /// Recording is off.
    NotRecording,
    /// No replica is connected.
    NotConnected,
    /// Not done in the time allowed.
    Timeout,
    /// The two disks differ.
    DigestMismatch,
    /// Something else of the kind is under way.
    Busy,
    /// The system said no.
    Io,
    /// The daemon is ending.
    Stopping,
}

/// Why a command was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[error("{message}{}{hint}", if .hint.is_empty() { "" } else { "; " })]
pub struct Failure {
    /// For programs.
    pub code: FailureCode,
    /// What was wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
}

impl Failure {
    /// A failure with its words.
    pub fn new(code: FailureCode, message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: hint.into() }
    }
}
