//! What the decider of a visit is told, and what it says: events in, actions out.

use crate::journal::{Account, Step};
use crate::peer::{Answer, Notice, Request, Reserve, Reserved};

/// The guest of a visit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arriving {
    /// The migration's number.
    pub migration: String,
    /// Its name.
    pub guest: String,
    /// The generation that its disks get here.
    pub generation: u64,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// The peer asks for something.
    Asked {
        /// The answer repeats it.
        id: u64,
        /// What.
        request: Box<Request>,
        /// What the journal has of the migration that the request names.
        account: Account,
        /// Its guest came over another link and is being started: it may run, and does perhaps not yet.
        is_starting: bool,
    },
    /// To [`Action::Reserve`]: room is kept, and for whom; for nobody if it was only looked. Or every reason why not.
    Reserved {
        /// The request's.
        id: u64,
        /// What came of it.
        reserved: Result<(Reserved, Option<Arriving>), Vec<String>>,
    },
    /// To [`Action::Do`], [`Action::CloseAccount`] and [`Action::GiveGuestBack`].
    Done {
        /// The request's.
        id: u64,
        /// What to answer, or why it was not done.
        done: Result<Answer, String>,
    },
    /// To [`Action::Look`]: everything is here, or what is not.
    Looked(Result<(), String>),
    /// To [`Action::Promise`]: it is durable, and whether the guest was taken. Or it could not be written.
    Promised(Result<bool, String>),
    /// QEMU holds the whole guest; or it never will.
    Loaded(Result<(), String>),
    /// QEMU has ended.
    QemuEnded,
    /// To [`Action::Promote`]: the disks are this host's, and QEMU answers.
    Promoted(Result<(), Trouble>),
    /// To [`Action::Run`]: the guest is up, or paused as it was.
    Runs(Result<(), Trouble>),
    /// To [`Action::RemoveCopies`]: the disks' copies are gone, so nobody can write them here. With the reason.
    CopiesRemoved(String),
    /// To [`Action::Wait`].
    TryAgain,
    /// The link has ended, was replaced by another, or nothing has been heard over it for long. The words say which.
    LinkEnded(String),
}

/// Why a guest that was taken cannot be started yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// In words.
    pub why: String,
    /// QEMU is gone, and the guest's memory with it.
    pub qemu_has_ended: bool,
}

/// Something to be journalled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The migration.
    pub migration: String,
    /// The guest; empty where only its source knows which one that is.
    pub guest: String,
    /// The generation.
    pub generation: u64,
    /// What is promised. *Taken* and *refused* are written only where neither was promised before.
    pub step: Step,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Look at this host, keep room, journal *reserved* and start what receives.
    Reserve {
        /// The request's.
        id: u64,
        /// What is asked for.
        wanted: Box<Reserve>,
    },
    /// Do what a request asks for: it changes no stage and promises nothing.
    Do {
        /// The request's.
        id: u64,
        /// What is asked for.
        request: Request,
    },
    /// Look whether everything has arrived (M7): QEMU loaded and paused, disks sealed for this generation.
    Look {
        /// What the source has sealed its disks for.
        generation: u64,
    },
    /// Journal this.
    Promise(Promise),
    /// Answer a request.
    Answer {
        /// The request's.
        id: u64,
        /// What is said.
        answer: Answer,
    },
    /// Say something to the source.
    Notify(Notice),
    /// Make the disks this host's, and ask QEMU whether it is there.
    Promote,
    /// Have the guest go on, if it is to.
    Run(bool),
    /// Say that the guest cannot be started yet, and wait a moment.
    Wait {
        /// Why.
        why: String,
    },
    /// End QEMU, and remove the disks' copies.
    RemoveCopies {
        /// Why the guest cannot be started here.
        why: String,
    },
    /// Write down that the guest is here, and take its tunnels over.
    Settle,
    /// Close the account of a guest that runs here: write the guest down, journal *done*.
    CloseAccount {
        /// The request's.
        id: u64,
        /// Its migration.
        migration: String,
        /// The guest came over another link, whose visit has nothing left to wait for.
        ends_other_visit: bool,
    },
    /// End the visit over another link of the same peer, by which a guest came that will not be taken.
    EndOtherVisit {
        /// The migration.
        migration: String,
    },
    /// Stop a guest that is at its source again by an operator's word, and give its disks up.
    GiveGuestBack {
        /// The request's.
        id: u64,
        /// Which guest.
        guest: String,
        /// The generation that it has at its source now.
        generation: u64,
    },
    /// End everything that was started for the guest, if anything was.
    GiveUp {
        /// Why.
        reason: String,
        /// The disks' copies stay for another attempt.
        keep_copies: bool,
    },
    /// The guest is here, and its source asks for nothing more: others may do something with it.
    LetGo {
        /// Nobody has asked for its names yet: they are seen to unasked.
        sees_to_names: bool,
    },
}
