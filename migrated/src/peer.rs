//! What two daemons say to each other on a link's control channel.
//!
//! ```text
//! source                                  destination
//!   reserve ───────────────────────────►   checks, reserves, starts blockd and QEMU     ◄── reserved | refused
//!   path-prepare ──────────────────────►   makes its end of the tunnel                  ◄── done
//!   (disks and memory in their own channels)                                            ◄── loaded     (notice)
//!   path-switch ───────────────────────►   takes the guest's packets                    ◄── done
//!   take n ────────────────────────────►   journals *taken*, promotes, journals *started*, cont
//!                                                                                       ◄── taken, then running (notice)
//!   readdress ─────────────────────────►   probes the guest, updates DNS                ◄── readdressed
//! ```
//!
//! A message is a length (four bytes, big endian, at most [`MESSAGE_BYTES_MAX`]) and a JSON object. Requests carry a
//! number, which their answer repeats; notices carry none. Normative: `docs/wire.md`. What cannot be read, or is out of
//! its bounds, ends the link: there is no guessing between two daemons.
//!
//! Fields that are not known are passed over, at every level: a newer host adds optional ones. Not in the description of
//! a guest: who passes a device over starts another guest. What becomes of kinds that are not known is in `reading`.
//! 0.1.0 passes nothing over, so a field that is added here has `#[serde(default, skip_serializing_if = …)]`.

mod check;
mod reading;
mod version;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use check::{Bounded, GIVEN_MAX};
pub use reading::{Asked, Told, read_call, read_message};
pub use version::takes_new_fields;

use crate::guest::Guest;
use crate::journal::Step;
use crate::phase::Phase;
use crate::status::{LinkProgress, Status};

/// Largest message, without its length.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// From the source to the destination.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// The answer repeats it.
    pub id: u64,
    /// What to do.
    pub request: Request,
}

/// What the source asks for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub enum Request {
    /// May this guest come? If so: room is kept for it, and what receives it is started.
    Reserve(Box<Reserve>),
    /// Makes this host's end of the tunnel; no packet changes its way yet.
    PathPrepare(PathPrepare),
    /// Makes this host's end of a tunnel for a guest that was only looked at (`dry_run`), to be removed at `abort`, and at
    /// the end of the link. 0.1.0 ends the link: so nothing may depend on that.
    PathTry(PathPrepare),
    /// Takes the guest's packets; they wait at the tap until the guest runs.
    PathSwitch {},
    /// Undoes `path-switch`.
    PathBack {},
    /// Takes the guest, for good (M2).
    Take {
        /// The migration that has been reserved.
        migration: String,
        /// The generation that all its disks are sealed for.
        generation: u64,
        /// It runs there; otherwise it stays paused, as it was.
        run: bool,
    },
    /// Has this migration been taken? What the journal says, and if it says nothing, *refused* from now on (M2).
    Verdict {
        /// The migration.
        migration: String,
        /// Its generation.
        generation: u64,
    },
    /// What has been promised of this migration? Looks only, and promises nothing.
    Consult {
        /// The migration.
        migration: String,
    },
    /// The source has journalled that the guest runs here: nothing of the migration is open any more.
    Concluded {
        /// The migration.
        migration: String,
    },
    /// An operator at the source has said that the guest is there again: whatever was promised here is void.
    TakenBack {
        /// The migration.
        migration: String,
        /// The guest.
        guest: String,
        /// The generation that the guest has there now.
        generation: u64,
    },
    /// The guest's names are to lead here.
    Readdress {},
    /// Which version of the program is this? Looks only.
    Introduce {},
    /// Nothing will come: everything that was started is ended, and what was reserved is released.
    Abort {
        /// Why, for the log.
        reason: String,
        /// The disks' copies stay for another attempt.
        keep_disks: bool,
    },
    /// How far the source is, to be shown here. Answered like any other.
    Mirror(Box<Status>),
}

impl Request {
    /// Every name of one.
    pub const NAMES: [&str; 14] = [
        "reserve",
        "path-prepare",
        "path-try",
        "path-switch",
        "path-back",
        "take",
        "verdict",
        "consult",
        "concluded",
        "taken-back",
        "readdress",
        "introduce",
        "abort",
        "mirror",
    ];

    /// How far the source is, without what 0.1.0 has no word for: it would end the link. None: the whole phase is such a word,
    /// and is over in a moment.
    pub fn mirror(status: Status) -> Option<Self> {
        let link = LinkProgress { segments: 0, resent_segments: 0, ..status.link };
        let mirrored = Status { report: None, link, ..status };
        (mirrored.phase != Phase::Releasing).then(|| Request::Mirror(Box::new(mirrored)))
    }

    /// The number of the migration that it names, if it names one.
    pub fn migration(&self) -> Option<&str> {
        match self {
            Request::Reserve(wanted) => Some(&wanted.migration),
            Request::Take { migration, .. }
            | Request::Verdict { migration, .. }
            | Request::Consult { migration }
            | Request::Concluded { migration }
            | Request::TakenBack { migration, .. } => Some(migration),
            Request::PathPrepare(_)
            | Request::PathTry(_)
            | Request::PathSwitch {}
            | Request::PathBack {}
            | Request::Readdress {}
            | Request::Introduce {}
            | Request::Abort { .. }
            | Request::Mirror(_) => None,
        }
    }

    /// Its name on the wire.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Reserve(_) => "reserve",
            Request::PathPrepare(_) => "path-prepare",
            Request::PathTry(_) => "path-try",
            Request::PathSwitch {} => "path-switch",
            Request::PathBack {} => "path-back",
            Request::Take { .. } => "take",
            Request::Verdict { .. } => "verdict",
            Request::Consult { .. } => "consult",
            Request::Concluded { .. } => "concluded",
            Request::TakenBack { .. } => "taken-back",
            Request::Readdress {} => "readdress",
            Request::Introduce {} => "introduce",
            Request::Abort { .. } => "abort",
            Request::Mirror(_) => "mirror",
        }
    }
}

/// What the destination has to know of a guest before it lets it come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reserve {
    /// The migration's number.
    pub migration: String,
    /// The generation that the disks will have there.
    pub generation: u64,
    /// The guest.
    pub guest: Guest,
    /// Its disks, in the description's order; shared ones have no entry.
    pub disks: Vec<DiskSize>,
    /// Digests of the files of a direct boot (BLAKE3, hex), kernel first.
    pub boot_digests: Vec<String>,
    /// The source's QEMU.
    pub qemu_version: String,
    /// The source's processors, in the words of compilers. 0.1.0 knows only one, and does not say it.
    #[serde(default = "x86_64", skip_serializing_if = "is_x86_64")]
    pub architecture: String,
    /// What runs the guest's code at the source ("kvm" or "tcg"): state of one does not run on the other.
    pub accel: String,
    /// The guest's address changes its site.
    pub wan: bool,
    /// It runs; otherwise it stays paused. What a destination goes by that was started anew after it took the guest.
    pub runs: bool,
    /// Only look, start nothing.
    pub dry_run: bool,
    /// The addresses that other sites have given it. Not said to 0.1.0.
    #[serde(default, skip_serializing_if = "GivenAddresses::is_empty")]
    pub given_addresses: GivenAddresses,
}

fn x86_64() -> String {
    "x86_64".to_owned()
}

fn is_x86_64(architecture: &str) -> bool {
    architecture == "x86_64"
}

/// By a card's name in the description: the addresses that sites gave the guest in addition to its own, and that its name
/// may still lead to.
pub type GivenAddresses = BTreeMap<String, Vec<Ipv4Addr>>;

/// How big a disk is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskSize {
    /// Its name in the guest's description.
    pub id: String,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// What of it is not a hole, in bytes.
    pub allocated_bytes: u64,
}

/// The tunnel, seen from the source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathPrepare {
    /// The tunnel's number, the same at both ends (24 bits).
    pub tunnel: u32,
    /// The source's end.
    pub remote: Ipv4Addr,
}

/// From the destination to the source.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "message", rename_all = "kebab-case")]
pub enum Message {
    /// To a request.
    Answer {
        /// Its number.
        id: u64,
        /// What came of it.
        answer: Answer,
    },
    /// Without being asked.
    Notice {
        /// What happened.
        notice: Notice,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "kebab-case")]
pub enum Answer {
    /// Done.
    Done {},
    /// Room is kept, and what receives runs.
    Reserved(Reserved),
    /// Not done. Every reason says what, where, and what to do.
    Refused {
        /// All of them at once.
        reasons: Vec<String>,
    },
    /// What the journal says of a migration. Also the answer to `take`, given when *taken* is journalled.
    Verdict {
        /// It was taken: the guest is here.
        taken: bool,
        /// It has been started: the source's memory of it is not needed any more.
        running: bool,
    },
    /// What the journal says last of a migration.
    Consulted {
        /// None: nothing.
        promised: Option<Step>,
    },
    /// Which program answers.
    Introduced {
        /// Its version ("0.1.0"): for people, and for a newer source that knows what that one does not.
        version: String,
    },
    /// What became of the names.
    Readdressed {
        /// The guest answers at its new place, and each of its names leads there.
        names: Vec<String>,
        /// What went wrong; the guest runs all the same.
        troubles: Vec<String>,
    },
}

impl Answer {
    /// Every name of one on the wire.
    pub const NAMES: [&str; 7] =
        ["done", "reserved", "refused", "verdict", "consulted", "introduced", "readdressed"];
}

/// What the destination keeps for a guest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reserved {
    /// The reservation's number.
    pub reservation: String,
    /// The destination's QEMU.
    pub qemu_version: String,
    /// Its end of a tunnel; none: it has no `[network]`.
    pub tunnel_address: Option<Ipv4Addr>,
    /// The address of its site that the guest gets in addition to its own, for each card in the description's order.
    pub new_addresses: Vec<Option<Ipv4Addr>>,
    /// The guest is at home at the destination: once it is there, no tunnel is needed.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_home: bool,
    /// Things worth knowing that stop nothing.
    pub warnings: Vec<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this shape")]
fn is_false(value: &bool) -> bool {
    !value
}

/// What the destination says without being asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "notice", rename_all = "kebab-case")]
pub enum Notice {
    /// The whole guest is in the destination's QEMU, which is paused.
    Loaded {},
    /// The guest runs here, or stands still as it did at the source.
    Running {},
    /// Something failed that ends the migration, if the guest is not taken yet.
    Failed {
        /// What, where, and what to do.
        reason: String,
    },
}

impl Notice {
    /// Every name of one on the wire.
    pub const NAMES: [&str; 3] = ["loaded", "running", "failed"];
}

/// Why bytes are no message.
#[derive(Debug, Error)]
pub enum Garbled {
    /// Longer than any message.
    #[error("a message of {0} bytes was announced, the longest has {MESSAGE_BYTES_MAX}")]
    TooLong(usize),
    /// Not what this version speaks.
    #[error("a message could not be read: {0}")]
    Json(#[from] serde_json::Error),
    /// A number or a name that cannot be one.
    #[error("a message says what cannot be: {0}")]
    Bounds(String),
}

/// Writes a message with its length, its texts put into the bounds in which the other host reads them. What it quotes may be
/// the other host's, of any length.
pub fn say(message: &mut (impl Serialize + Bounded)) -> Result<Vec<u8>, Garbled> {
    message.bound().map_err(Garbled::Bounds)?;
    let body = serde_json::to_vec(message)?;
    if body.len() > MESSAGE_BYTES_MAX { Err(Garbled::TooLong(body.len())) } else { Ok(with_length(&body)) }
}

/// Writes a message with its length.
///
/// # Panics
/// Where the message is longer than any may be; what is put into messages is bounded before.
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let body = serde_json::to_vec(message).expect("messages have no maps with odd keys");
    assert!(body.len() <= MESSAGE_BYTES_MAX, "a message of {} bytes", body.len());
    with_length(&body)
}

fn with_length(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes(), body].concat()
}

/// How long the body is, from the four bytes before it.
pub fn body_len(head: [u8; 4]) -> Result<usize, Garbled> {
    let len = u32::from_be_bytes(head) as usize;
    if len > MESSAGE_BYTES_MAX { Err(Garbled::TooLong(len)) } else { Ok(len) }
}

/// Reads a message's body, and puts what it says into bounds.
pub fn decode<T: for<'a> Deserialize<'a> + Bounded>(body: &[u8]) -> Result<T, Garbled> {
    let mut message: T = serde_json::from_slice(body)?;
    message.bound().map_err(Garbled::Bounds)?;
    Ok(message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_messages_never_change() {
        let call =
            Call { id: 7, request: Request::Take { migration: "ab".into(), generation: 3, run: true } };
        let json = br#"{"id":7,"request":{"request":"take","migration":"ab","generation":3,"run":true}}"#;
        let bytes = encode(&call);
        assert_eq!(bytes[..4], (json.len() as u32).to_be_bytes());
        assert_eq!(&bytes[4..], json);
        let notice = Message::Notice { notice: Notice::Loaded {} };
        assert_eq!(&encode(&notice)[4..], br#"{"message":"notice","notice":{"notice":"loaded"}}"#);
        let refused = Message::Answer { id: 1, answer: Answer::Refused { reasons: vec!["no room".into()] } };
        let json = br#"{"message":"answer","id":1,"answer":{"answer":"refused","reasons":["no room"]}}"#;
        assert_eq!(&encode(&refused)[4..], json);
    }

    #[test]
    fn messages_are_read_as_they_were_written() {
        let requests = [
            Request::PathPrepare(PathPrepare { tunnel: 5, remote: Ipv4Addr::new(192, 0, 2, 1) }),
            Request::PathTry(PathPrepare { tunnel: 6, remote: Ipv4Addr::new(192, 0, 2, 1) }),
            Request::PathSwitch {},
            Request::PathBack {},
            Request::Verdict { migration: "m".into(), generation: 1 },
            Request::Consult { migration: "m".into() },
            Request::Concluded { migration: "m".into() },
            Request::TakenBack { migration: "m".into(), guest: "web".into(), generation: 2 },
            Request::Readdress {},
            Request::Introduce {},
            Request::Abort { reason: "cancelled".into(), keep_disks: false },
        ];
        for (id, request) in (0..).zip(requests) {
            let call = Call { id, request };
            assert_eq!(decode::<Call>(&encode(&call)[4..]).unwrap(), call);
        }
    }

    #[test]
    fn what_is_too_long_or_unknown_is_refused() {
        assert!(matches!(body_len((MESSAGE_BYTES_MAX as u32 + 1).to_be_bytes()), Err(Garbled::TooLong(_))));
        assert_eq!(body_len(5u32.to_be_bytes()).unwrap(), 5);
        for bad in [
            r#"{"id":1,"request":{"request":"explode"}}"#,
            r#"{"id":1}"#,
            "",
            r#"{"id":1,"request":{"request":"consult"}}"#,
        ] {
            assert!(decode::<Call>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
