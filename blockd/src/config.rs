//! How a disk is served: as written on the command line, and as meant.
//!
//! ```text
//! arguments ─ clap ─► ServeFlags (as written) ─ TryFrom ─► Serve (as meant: whole and consistent)
//! ```
//!
//! Everything that can be wrong without looking at the world is found here, with what to do about
//! it. Looks at no file.

mod flags;
mod size;

use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use throttle::Policy;
use throttle::policy::{Fixed, Paper, PaperConfig, Unthrottled};

use crate::sidecar::{DISK_ID_BYTES_MAX, InvalidName, check_disk_id};

pub use flags::{CacheFlag, ConfineFlag, DataPlaneFlag, FormatFlag, ServeFlags, ThrottleFlag};
pub use size::{InvalidSize, parse_size};

/// The smallest batch for a replica in bytes: smaller ones do not compress.
pub const BATCH_BYTES_MIN: u64 = 64 << 10;
/// The largest batch for a replica in bytes.
pub const BATCH_BYTES_MAX: u64 = crate::replica::batch::RAW_BYTES_MAX as u64;
/// The longest export name in bytes, of those that QEMU takes.
const EXPORT_BYTES_MAX: usize = 255;

/// How a disk is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serve {
    /// The image.
    pub image: PathBuf,
    /// Where the guest connects.
    pub nbd: PathBuf,
    /// Where commands come from.
    pub control: PathBuf,
    /// The export's name.
    pub export: String,
    /// Refuse writes.
    pub read_only: bool,
    /// Said, and not to be guessed; none: an image that says that it has another format is refused.
    pub format: Option<FormatFlag>,
    /// Page cache or not.
    pub cache: CacheFlag,
    /// Who moves the bytes.
    pub data_plane: DataPlaneFlag,
    /// Whether rights are given up.
    pub confine: ConfineFlag,
    /// Be the destination of a copy.
    pub replica: Option<ReplicaTarget>,
    /// The guest disk's name; none: the sidecar's, or else [`Serve::derived_disk_id`].
    pub disk_id: Option<String>,
    /// The sidecar's path; none: by the image's.
    pub sidecar: Option<PathBuf>,
    /// How deltas are kept and sent.
    pub deltas: Deltas,
    /// Who slows the guest.
    pub throttle: Throttle,
}

/// Where a copy comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaTarget {
    /// The socket to listen on.
    pub socket: PathBuf,
    /// Size of the disk in bytes, needed for a new one.
    pub size: Option<u64>,
    /// Whatever an unmarked image holds may be lost.
    pub claim: bool,
}

/// How deltas are kept and sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deltas {
    /// Memory for queued deltas in bytes; past it, the bitmap.
    pub budget_bytes: u64,
    /// Bytes sent and not acknowledged at most.
    pub window_bytes: u64,
    /// Close a batch at this many bytes.
    pub batch_bytes: u64,
    /// Close a batch at this age.
    pub batch_age: Duration,
}

/// Who slows the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttle {
    /// Nobody.
    None,
    /// The paper's policy.
    Paper {
        /// Writes before the first delay.
        threshold_writes: u64,
        /// The first delay.
        delay: Duration,
    },
    /// Every write by the same delay.
    Fixed {
        /// The delay.
        delay: Duration,
    },
}

/// What is wrong with the command line.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Two sockets at one path.
    #[error("{first} and {second} name the same path {path}; give each socket its own")]
    SameSocket {
        /// A flag.
        first: &'static str,
        /// Another flag.
        second: &'static str,
        /// The path of both.
        path: PathBuf,
    },
    /// Flags that contradict each other, or need each other.
    #[error("{0}")]
    Conflict(&'static str),
    /// A number out of its range.
    #[error("{flag} must be {range}, not {found}")]
    OutOfRange {
        /// The flag.
        flag: &'static str,
        /// What is allowed.
        range: String,
        /// What was given.
        found: u64,
    },
    /// A name that is not usable.
    #[error("--disk-id: {0}")]
    DiskId(#[from] InvalidName),
    /// A name that is not usable.
    #[error("--export must have at most 255 bytes and no NUL")]
    Export,
    /// No name can be made of the image's.
    #[error("no disk id can be made of the image's name {0:?}; add --disk-id")]
    NoDiskId(PathBuf),
}

impl Serve {
    /// A disk id made of the image's name without its extension.
    pub fn derived_disk_id(&self) -> Result<String, ConfigError> {
        let stem = self.image.file_stem().unwrap_or_default().to_string_lossy();
        let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        let id: String = stem.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
        let id: String = id.chars().take(DISK_ID_BYTES_MAX).collect();
        check_disk_id(&id).map_err(|_| ConfigError::NoDiskId(self.image.clone()))?;
        Ok(id)
    }
}

impl Throttle {
    /// The policy that decides so.
    pub fn policy(self) -> Box<dyn Policy> {
        match self {
            Throttle::None => Box::new(Unthrottled),
            Throttle::Fixed { delay } => Box::new(Fixed::new(delay)),
            Throttle::Paper { threshold_writes, delay } => {
                Box::new(Paper::new(PaperConfig { threshold_writes, delay, ..PaperConfig::default() }))
            }
        }
    }
}

impl TryFrom<ServeFlags> for Serve {
    type Error = ConfigError;

    fn try_from(flags: ServeFlags) -> Result<Self, ConfigError> {
        check_sockets(&flags)?;
        if flags.export.len() > EXPORT_BYTES_MAX || flags.export.contains('\0') {
            return Err(ConfigError::Export);
        }
        if let Some(id) = &flags.disk_id {
            check_disk_id(id)?;
        }
        Ok(Serve {
            replica: replica(&flags)?,
            deltas: deltas(&flags)?,
            throttle: throttle(&flags)?,
            image: flags.image,
            nbd: flags.nbd,
            control: flags.control,
            export: flags.export,
            read_only: flags.read_only,
            format: flags.format,
            cache: flags.cache,
            data_plane: flags.data_plane,
            confine: flags.confine,
            disk_id: flags.disk_id,
            sidecar: flags.sidecar,
        })
    }
}

fn check_sockets(flags: &ServeFlags) -> Result<(), ConfigError> {
    let mut sockets = vec![("--nbd", &flags.nbd), ("--control", &flags.control)];
    sockets.extend(flags.replica.as_ref().map(|path| ("--replica", path)));
    for (index, (first, path)) in sockets.iter().enumerate() {
        if let Some((second, _)) = sockets[index + 1..].iter().find(|(_, other)| other == path) {
            return Err(ConfigError::SameSocket { first, second, path: path.to_path_buf() });
        }
    }
    Ok(())
}

fn replica(flags: &ServeFlags) -> Result<Option<ReplicaTarget>, ConfigError> {
    match (&flags.replica, flags.size) {
        (None, _) if flags.claim => {
            Err(ConfigError::Conflict("--claim is for a replica (--replica); a disk is served as it is"))
        }
        (None, None) => Ok(None),
        (None, Some(_)) => Err(ConfigError::Conflict(
            "--size is for a new replica (--replica); the size of a disk is that of its image",
        )),
        (Some(_), _) if flags.read_only => Err(ConfigError::Conflict(
            "--read-only and --replica exclude each other: a replica is written to",
        )),
        (Some(_), Some(0)) => Err(ConfigError::Conflict("--size must not be 0")),
        (Some(socket), size) => Ok(Some(ReplicaTarget { socket: socket.clone(), size, claim: flags.claim })),
    }
}

fn deltas(flags: &ServeFlags) -> Result<Deltas, ConfigError> {
    check_range("--batch-bytes", flags.batch_bytes, BATCH_BYTES_MIN, BATCH_BYTES_MAX)?;
    check_range("--window", flags.window, flags.batch_bytes, 4 << 30)?;
    check_range("--delta-budget", flags.delta_budget, 1 << 20, 64 << 30)?;
    check_range("--batch-age-ms", flags.batch_age_ms, 1, 10_000)?;
    Ok(Deltas {
        budget_bytes: flags.delta_budget,
        window_bytes: flags.window,
        batch_bytes: flags.batch_bytes,
        batch_age: Duration::from_millis(flags.batch_age_ms),
    })
}

fn throttle(flags: &ServeFlags) -> Result<Throttle, ConfigError> {
    let (threshold, delay_us) = (flags.throttle_threshold, flags.throttle_delay_us);
    if let Some(delay_us) = delay_us {
        check_range("--throttle-delay-us", delay_us, 1, 10_000_000)?;
    }
    let paper = PaperConfig::default();
    let delay = delay_us.map(Duration::from_micros);
    match flags.throttle {
        ThrottleFlag::None if threshold.is_some() || delay.is_some() => Err(ConfigError::Conflict(
            "--throttle-threshold and --throttle-delay-us need --throttle paper or fixed",
        )),
        ThrottleFlag::Fixed if threshold.is_some() => Err(ConfigError::Conflict(
            "--throttle-threshold needs --throttle paper; fixed delays every write",
        )),
        ThrottleFlag::None => Ok(Throttle::None),
        ThrottleFlag::Fixed => Ok(Throttle::Fixed { delay: delay.unwrap_or(paper.delay) }),
        ThrottleFlag::Paper => Ok(Throttle::Paper {
            threshold_writes: threshold.unwrap_or(paper.threshold_writes),
            delay: delay.unwrap_or(paper.delay),
        }),
    }
}

fn check_range(flag: &'static str, found: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&found) {
        return Ok(());
    }
    Err(ConfigError::OutOfRange { flag, range: format!("from {min} to {max}"), found })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: ServeFlags,
    }

    /// A minimal valid command line and what is added to it.
    fn meant(added: &str) -> Result<Serve, String> {
        let line = format!("blockd --image /images/web_1.raw --nbd /run/n --control /run/c {added}");
        let parsed = Line::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        Serve::try_from(parsed.flags).map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let serve = meant("").unwrap();
        let batch_age = Duration::from_millis(20);
        let deltas =
            Deltas { budget_bytes: 64 << 20, window_bytes: 64 << 20, batch_bytes: 256 << 10, batch_age };
        assert_eq!(serve.deltas, deltas);
        assert_eq!((serve.export.as_str(), serve.cache), ("", CacheFlag::Buffered));
        assert_eq!((serve.throttle, serve.data_plane), (Throttle::None, DataPlaneFlag::Auto));
        assert_eq!(serve.confine, ConfineFlag::Auto);
        assert_eq!(serve.derived_disk_id().unwrap(), "web_1");
    }

    #[test]
    fn every_contradiction_is_refused_with_its_flags() {
        let cases = [
            ("--replica /run/n", "--nbd and --replica"),
            ("--size 1G", "--size is for a new replica"),
            ("--replica /run/r --size 1G --read-only", "--read-only and --replica"),
            ("--replica /run/r --size 0", "must not be 0"),
            ("--size 1GB --replica /run/r", "\"1GB\""),
            ("--disk-id a/b", "--disk-id"),
            ("--batch-bytes 1K", "--batch-bytes must be from 65536"),
            ("--window 128K", "--window must be from 262144"),
            ("--delta-budget 4K", "--delta-budget"),
            ("--batch-age-ms 0", "--batch-age-ms"),
            ("--throttle-delay-us 5", "need --throttle"),
            ("--throttle fixed --throttle-threshold 5", "needs --throttle paper"),
            ("--throttle fixed --throttle-delay-us 0", "--throttle-delay-us must be from 1"),
            ("--cache none", "possible values"),
            ("--format qcow2", "possible values: raw"),
        ];
        for (added, named) in cases {
            let text = meant(added).unwrap_err();
            assert!(text.contains(named), "{added}: {text}");
        }
    }

    #[test]
    fn a_throttle_has_the_papers_defaults() {
        let paper = meant("--throttle paper --throttle-delay-us 7").unwrap().throttle;
        assert_eq!(paper, Throttle::Paper { threshold_writes: 16384, delay: Duration::from_micros(7) });
        let fixed = meant("--throttle fixed").unwrap().throttle;
        assert_eq!(fixed, Throttle::Fixed { delay: Duration::from_micros(2048) });
        assert_eq!(paper.policy().name(), "paper");
        assert_eq!(fixed.policy().name(), "fixed");
        assert_eq!(Throttle::None.policy().name(), "none");
    }

    #[test]
    fn a_disk_id_is_made_of_the_images_name_where_that_is_possible() {
        let named = |image: &str| Serve { image: image.into(), ..meant("").unwrap() }.derived_disk_id();
        assert_eq!(named("/dev/vg/root disk").unwrap(), "root-disk");
        assert_eq!(named(&format!("/x/{}", "y".repeat(100))).unwrap().len(), 64);
        assert!(named("/").is_err());
    }
}
