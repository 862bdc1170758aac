//! `blockd ctl`: one command to a running daemon, its answer to the terminal.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use blockd::control::{Command, Status, Verify};
use blockd::io::control_client::ControlClient;
use blockd::replica::encoding::Compression;
use clap::{Args, Subcommand, ValueEnum};
use serde_json::Value;

use super::{Switch, render};

/// How often `status --watch` looks.
const WATCH_EVERY: Duration = Duration::from_secs(1);

/// `blockd ctl …`.
#[derive(Args, Debug)]
pub struct CtlLine {
    /// The control socket of the daemon
    #[arg(value_name = "SOCK")]
    socket: PathBuf,
    /// Print the answer as JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Show the disk, its replica and its guest
    Status {
        /// Show one line a second until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Start or end recording of writes for a replica
    Record {
        /// Start or end
        #[arg(value_enum)]
        switch: Switch,
    },
    /// Keep the replica behind a socket in step
    Replicate {
        /// The replica's UNIX socket
        #[arg(value_name = "SOCK")]
        to: PathBuf,
        /// Whether to compress what is sent
        #[arg(long, value_enum, default_value_t = Compression::Auto)]
        compression: Compression,
    },
    /// End the session with the replica; recording goes on
    StopReplicating,
    /// Wait until everything written so far is durable at the replica
    Barrier {
        /// How long to wait
        #[arg(long, value_name = "N", default_value_t = 10_000)]
        timeout_ms: u64,
    },
    /// Hold writes, drain, and compare both disks
    Seal {
        /// For which handover
        #[arg(long, value_name = "N")]
        generation: u64,
        /// What to compare
        #[arg(long, value_enum, default_value_t = VerifyFlag::Stale)]
        verify: VerifyFlag,
        /// How long to wait
        #[arg(long, value_name = "N", default_value_t = 30_000)]
        timeout_ms: u64,
    },
    /// Let the writes of a sealed disk go on
    Unseal,
    /// Give the disk up for good: it lives elsewhere
    Fence {
        /// Its generation there
        #[arg(long, value_name = "N")]
        generation: u64,
        /// Where it is
        #[arg(long, value_name = "HOST", default_value = "")]
        moved_to: String,
    },
    /// Give the disk up, sealed or not: what was written here since is given up with it
    Revoke {
        /// Its generation where it is
        #[arg(long, value_name = "N")]
        generation: u64,
        /// Where it is
        #[arg(long, value_name = "HOST", default_value = "")]
        moved_to: String,
    },
    /// Make the replica the guest's disk
    Promote {
        /// Its generation here
        #[arg(long, value_name = "N")]
        generation: u64,
    },
    /// Slow writes until the limits expire
    Limits {
        /// Writes that still pass at once
        #[arg(long, value_name = "N", default_value_t = 0)]
        free_writes: u64,
        /// Delay of each further write
        #[arg(long, value_name = "N")]
        delay_us: u64,
        /// When the limits expire
        #[arg(long, value_name = "N", default_value_t = 5_000)]
        valid_ms: u64,
    },
    /// Choose who slows the guest: none, paper, fixed:MICROSECONDS
    Policy {
        /// The policy
        name: String,
    },
    /// Send again what the digests found to differ
    Repair,
    /// End the daemon, and its supervisor
    Shutdown,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum VerifyFlag {
    /// What was written since the last comparison
    Stale,
    /// The whole disk
    All,
}

impl Order {
    fn command(&self) -> Command {
        match self {
            Order::Status { .. } => Command::Status {},
            Order::Record { switch } => Command::Record { on: *switch == Switch::On },
            Order::Replicate { to, compression } => {
                Command::Replicate { to: to.clone(), compression: *compression }
            }
            Order::StopReplicating => Command::StopReplicating {},
            Order::Barrier { timeout_ms } => Command::Barrier { timeout_ms: *timeout_ms },
            Order::Seal { generation, verify, timeout_ms } => {
                let verify = match verify {
                    VerifyFlag::Stale => Verify::Stale,
                    VerifyFlag::All => Verify::All,
                };
                Command::Seal { generation: *generation, verify, timeout_ms: *timeout_ms }
            }
            Order::Unseal => Command::Unseal {},
            Order::Fence { generation, moved_to } => {
                Command::Fence { generation: *generation, moved_to: moved_to.clone() }
            }
            Order::Revoke { generation, moved_to } => {
                Command::Revoke { generation: *generation, moved_to: moved_to.clone() }
            }
            Order::Promote { generation } => Command::Promote { generation: *generation },
            Order::Limits { free_writes, delay_us, valid_ms } => {
                Command::Limits { free_writes: *free_writes, delay_us: *delay_us, valid_ms: *valid_ms }
            }
            Order::Policy { name } => Command::Policy { name: name.clone() },
            Order::Repair => Command::Repair {},
            Order::Shutdown => Command::Shutdown {},
        }
    }
}

/// Runs one order.
pub fn run(line: &CtlLine) -> Result<()> {
    let mut client = ControlClient::connect(&line.socket)?;
    if let Order::Status { watch: true } = line.order {
        return watch(&mut client, line.json);
    }
    let answer = client.call(line.order.command())?;
    let text = match line.order {
        _ if line.json => format!("{answer}\n"),
        Order::Status { .. } => render::status(&read_status(answer)?),
        _ => render::answer(&answer),
    };
    io::stdout().write_all(text.as_bytes()).context("cannot print")
}

/// One line a second: over itself on a terminal, below one another elsewhere.
fn watch(client: &mut ControlClient, json: bool) -> Result<()> {
    let mut stdout = io::stdout();
    let redraw = stdout.is_terminal() && !json;
    let mut before: Option<Status> = None;
    loop {
        let answer = client.call(Command::Status {})?;
        if json {
            writeln!(stdout, "{answer}")?;
        } else {
            let status = read_status(answer)?;
            let text = render::line(&status, before.as_ref(), WATCH_EVERY);
            if redraw {
                write!(stdout, "\r\x1b[K{text}")?
            } else {
                writeln!(stdout, "{text}")?
            }
            before = Some(status);
        }
        stdout.flush()?;
        thread::park_timeout(WATCH_EVERY);
    }
}

fn read_status(answer: Value) -> Result<Status> {
    serde_json::from_value(answer).context("cannot understand the status; is blockd of another version?")
}
