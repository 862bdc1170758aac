//! Why a migration that is over has not moved its guest, and what was undone: one record for programs (S0-48), beside the
//! reasons for people. Says nothing of what may still be tried.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

use crate::phase::{Op, Phase};

/// The end of a migration that has not moved its guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// The phase in which it was decided.
    pub phase: Phase,
    /// The operation that failed; none: something happened, or somebody wanted it.
    pub operation: Option<Op>,
    /// What failed, and why, and why that: the last is the root.
    pub causes: Vec<Cause>,
    /// What was undone, in order. What had not been done is not in it.
    pub undone: Vec<Undone>,
}

/// A link of the chain of causes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// In words.
    pub text: String,
    /// The system's number of the error, where it was the system that said no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errno: Option<i32>,
    /// QEMU's refusal, where it was QEMU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub qmp: Option<QmpRefusal>,
}

/// What QEMU refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QmpRefusal {
    /// The command.
    pub command: String,
    /// QEMU's kind of error ("GenericError").
    pub class: String,
    /// QEMU's words.
    pub desc: String,
}

/// Something that was undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undone {
    /// Source: writes that were held for a seal went on.
    DisksUnsealed,
    /// Source: the guest's packets are at home again, its taps up.
    PathBack,
    /// Source: QEMU has given its migration up.
    MemoryGivenUp,
    /// Source: the guest stood still, and is as it was.
    GuestResumed,
    /// Source: disks record no more.
    RecordingEnded,
    /// The tunnels at this host are gone.
    TunnelsRemoved,
    /// Source: the destination was told, and gives up what it had.
    DestinationTold,
    /// Source: the destination was not reached; it gives up what it had when its lease ends.
    DestinationUnreached,
    /// Destination: QEMU and blockd were ended.
    ProcessesEnded,
    /// Destination: the copies of the disks were removed.
    CopiesRemoved,
    /// Destination: the copies of the disks stay for another attempt.
    CopiesKept,
    /// Destination: the room is free again.
    ReservationReleased,
}

impl Undone {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Undone::DisksUnsealed => "disks unsealed",
            Undone::PathBack => "packets rerouted back",
            Undone::MemoryGivenUp => "memory given up",
            Undone::GuestResumed => "guest resumed",
            Undone::RecordingEnded => "disks stopped recording",
            Undone::TunnelsRemoved => "tunnels removed",
            Undone::DestinationTold => "destination told",
            Undone::DestinationUnreached => "destination not reached, it gives up by itself",
            Undone::ProcessesEnded => "QEMU and blockd ended",
            Undone::CopiesRemoved => "copies of disks removed",
            Undone::CopiesKept => "copies of disks kept",
            Undone::ReservationReleased => "reservation released",
        }
    }
}

impl Abort {
    /// Something that happened in a phase, in words.
    pub fn of(phase: Phase, text: &str) -> Self {
        let cause = Cause { text: text.to_owned(), ..Cause::default() };
        Self { phase, operation: None, causes: vec![cause], undone: Vec::new() }
    }

    /// The chain of causes as one text.
    pub fn cause(&self) -> String {
        let texts: Vec<&str> = self.causes.iter().map(|cause| cause.text.as_str()).collect();
        texts.join(": ")
    }

    /// The first number of an error of the system in the chain.
    pub fn errno(&self) -> Option<i32> {
        self.causes.iter().find_map(|cause| cause.errno)
    }

    /// The first refusal of QEMU in the chain.
    pub fn qmp(&self) -> Option<&QmpRefusal> {
        self.causes.iter().find_map(|cause| cause.qmp.as_ref())
    }

    /// The operation's name; empty: there is none.
    pub fn operation(&self) -> &'static str {
        self.operation.map_or("", Op::name)
    }

    /// What was undone, as one text.
    pub fn undone(&self) -> String {
        let words: Vec<&str> = self.undone.iter().map(|one| one.words()).collect();
        if words.is_empty() { "nothing had to be".to_owned() } else { words.join(", ") }
    }

    /// Where it failed, for people.
    pub fn place(&self) -> String {
        let mut place = self.phase.name().to_owned();
        if self.operation.is_some() {
            let _ = write!(place, ", {}", self.operation());
        }
        if let Some(errno) = self.errno() {
            let _ = write!(place, "; errno {errno}");
        }
        if let Some(refusal) = self.qmp() {
            let _ = write!(place, "; QEMU refused {} ({})", refusal.command, refusal.class);
        }
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_an_abort_is_kept_as_it_is_and_nothing_that_is_not_there() {
        let refused =
            QmpRefusal { command: "migrate".into(), class: "GenericError".into(), desc: "no".into() };
        let causes = vec![
            Cause { text: "the memory does not go".into(), ..Cause::default() },
            Cause { text: "QEMU refused migrate: no".into(), qmp: Some(refused), errno: None },
        ];
        let undone = vec![Undone::MemoryGivenUp, Undone::DestinationTold];
        let abort = Abort { phase: Phase::PreCopy, operation: Some(Op::StartRam), causes, undone };
        let json = serde_json::to_string(&abort).unwrap();
        assert_eq!(
            json,
            r#"{"phase":"pre-copy","operation":"start-ram","causes":[{"text":"the memory does not go"},{"text":"QEMU refused migrate: no","qmp":{"command":"migrate","class":"GenericError","desc":"no"}}],"undone":["memory-given-up","destination-told"]}"#
        );
        assert_eq!(serde_json::from_str::<Abort>(&json).unwrap(), abort);
        assert_eq!(abort.place(), "pre-copy, start-ram; QEMU refused migrate (GenericError)");
        assert_eq!(abort.undone(), "memory given up, destination told");
        assert_eq!(abort.errno(), None);
        assert_eq!(abort.cause(), "the memory does not go: QEMU refused migrate: no");
    }
}
