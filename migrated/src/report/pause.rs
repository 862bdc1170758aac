//! A time in which the guest stood still because of its move, and what ended it.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;
use crate::quantity::time;

/// One pause.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// In which attempt, counted from 1: after a lost link, or a pause that lasted too long, a move begins again.
    pub attempt: u32,
    /// How far the attempt had come when it ended.
    pub phase: Phase,
    /// When it began: milliseconds since the request.
    pub begun_ms: u64,
    /// How long it lasted, in milliseconds.
    pub lasted_ms: u64,
    /// What ended it.
    pub end: PauseEnd,
}

/// What ended a pause.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PauseEnd {
    /// The guest runs at the destination.
    Moved,
    /// It went on at the source.
    Resumed,
    /// Its QEMU has ended.
    Ended,
    /// Nothing has yet.
    Lasts,
}

impl Pause {
    /// The pause for people.
    pub fn words(&self) -> String {
        let end = match self.end {
            PauseEnd::Moved => "until it ran at the destination",
            PauseEnd::Resumed => "until it went on at the source",
            PauseEnd::Ended => "until its QEMU ended",
            PauseEnd::Lasts => "and it stands still",
        };
        let (lasted, phase, attempt) = (time(self.lasted_ms), self.phase.name(), self.attempt);
        format!("{lasted} from {}, attempt {attempt} in {phase}, {end}", time(self.begun_ms))
    }
}
