//! The command line of `blockd serve`, as it is written.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::size::parse_size;

/// What the bytes of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatFlag {
    /// The disk's own.
    Raw,
}

/// Whether the page cache is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheFlag {
    /// Past the page cache (O_DIRECT).
    Direct,
    /// Through the page cache.
    Buffered,
}

/// Who moves the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DataPlaneFlag {
    /// io_uring where the kernel allows it, else threads.
    Auto,
    /// io_uring, or fail.
    Ring,
    /// A few threads with plain system calls.
    Pool,
}

/// Whether the daemon gives up the rights that serving does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ConfineFlag {
    /// As far as the kernel can, saying what it cannot.
    Auto,
    /// All of it, or fail.
    Required,
    /// Keep every right.
    Off,
}

/// Who slows the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ThrottleFlag {
    /// Nobody.
    None,
    /// Threshold and delay double each time the threshold is passed.
    Paper,
    /// Every write by the same delay.
    Fixed,
}

/// Flags of `blockd serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeFlags {
    /// The disk: a raw image file or a block device, which nobody else writes to
    #[arg(long, value_name = "PATH")]
    pub image: PathBuf,
    /// The UNIX socket on which the guest's QEMU finds its disk
    #[arg(long, value_name = "SOCK")]
    pub nbd: PathBuf,
    /// The UNIX socket for `blockd ctl`
    #[arg(long, value_name = "SOCK")]
    pub control: PathBuf,
    /// The NBD export's name; clients that ask for the empty name get it too
    #[arg(long, value_name = "NAME", default_value = "")]
    pub export: String,
    /// Refuse writes
    #[arg(long)]
    pub read_only: bool,
    /// Serve an image's bytes as they are, also where they look like qcow2 or the like
    #[arg(long, value_enum)]
    pub format: Option<FormatFlag>,
    /// Whether reads and writes go through the host's page cache
    #[arg(long, value_enum, default_value_t = CacheFlag::Buffered)]
    pub cache: CacheFlag,
    /// Who moves the bytes
    #[arg(long, value_enum, default_value_t = DataPlaneFlag::Auto)]
    pub data_plane: DataPlaneFlag,
    /// Give up the rights that serving does not take: landlock, seccomp, capabilities
    #[arg(long, value_enum, default_value_t = ConfineFlag::Auto)]
    pub confine: ConfineFlag,
    /// Be the destination of a copy, and listen for it on this UNIX socket
    #[arg(long, value_name = "SOCK", help_heading = "Replica")]
    pub replica: Option<PathBuf>,
    /// The disk's size, for a replica that does not exist yet (like 10G)
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Replica")]
    pub size: Option<u64>,
    /// Let the copy overwrite an image that is there already, like a new logical volume
    #[arg(long, help_heading = "Replica")]
    pub claim: bool,
    /// The guest disk's name, the same at every host [default: the sidecar's, or the image's name]
    #[arg(long, value_name = "ID", help_heading = "Replica")]
    pub disk_id: Option<String>,
    /// What the disk remembers [default: IMAGE.blockd, for a device /var/lib/blockd/NAME.blockd]
    #[arg(long, value_name = "PATH", help_heading = "Replica")]
    pub sidecar: Option<PathBuf>,
    /// Memory for writes that the replica lacks; past it they are read back from the disk
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M", help_heading = "Replica")]
    pub delta_budget: u64,
    /// Bytes sent to the replica and not acknowledged, at most
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "64M", help_heading = "Replica")]
    pub window: u64,
    /// Send a batch when it has this many bytes…
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "256K", help_heading = "Replica")]
    pub batch_bytes: u64,
    /// … or is this old
    #[arg(long, value_name = "N", default_value_t = 20, help_heading = "Replica")]
    pub batch_age_ms: u64,
    /// Who slows the guest's writes
    #[arg(long, value_enum, default_value_t = ThrottleFlag::None, help_heading = "Throttle")]
    pub throttle: ThrottleFlag,
    /// Writes before the first delay (paper) [default: 16384]
    #[arg(long, value_name = "N", help_heading = "Throttle")]
    pub throttle_threshold: Option<u64>,
    /// The delay of a write, at first (paper) or always (fixed) [default: 2048]
    #[arg(long, value_name = "N", help_heading = "Throttle")]
    pub throttle_delay_us: Option<u64>,
}
