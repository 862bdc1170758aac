//! The command line: what `blockd` can be told, and what each telling becomes.

mod ctl;
mod render;

use blockd::config::ServeFlags;
use clap::{Args, Parser, Subcommand, ValueEnum};

pub use ctl::run as run_ctl;

const ABOUT_EXIT: &str = "\
Exit status:
  0  done
  1  refused or failed; the reason is on stderr
  2  the command line is wrong

Environment:
  BLOCKD_LOG     what to log, like info, debug or blockd::io=debug (default: info)
  NOTIFY_SOCKET  set by systemd; told when the disk is being served";

const SERVE_EXAMPLES: &str = "\
Examples:
  Serve a disk:
    blockd serve --image web.raw --nbd /run/web.nbd --control /run/web.ctl
  Attach a guest:
    qemu-system-x86_64 … -blockdev driver=nbd,node-name=disk,reconnect-delay=300,\\
      server.type=unix,server.path=/run/web.nbd -device virtio-blk-pci,drive=disk
  Be the other end of a copy:
    blockd serve --image copy.raw --size 10G --disk-id web --replica /run/copy.rep \\
      --nbd /run/copy.nbd --control /run/copy.ctl

An image has one who writes to it: one that anybody else writes to, or a device that is mounted, is refused, and
QEMU and its tools do not open the one that is served but to read it.

A small parent process holds the sockets and starts the daemon again if it dies; the guest only
waits. It passes SIGTERM and SIGINT on. With --no-supervisor somebody else has to do that.

Exit status: 0 ended as told, 1 refused or failed, 2 the command line is wrong.";

const CTL_EXAMPLES: &str = "\
Examples:
  blockd ctl /run/web.ctl status --watch
  blockd ctl /run/web.ctl record on
  blockd ctl /run/web.ctl replicate /run/copy.rep
  blockd ctl /run/web.ctl seal --generation 2 --verify all

Exit status: 0 done, 1 refused or failed, 2 the command line is wrong.";

/// Serves one guest disk over NBD and keeps a second copy of it in step
#[derive(Debug, Parser)]
#[command(name = "blockd", version, after_help = ABOUT_EXIT)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve a disk
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(Box<ServeLine>),
    /// Tell a running blockd what to do
    #[command(after_help = CTL_EXAMPLES)]
    Ctl(ctl::CtlLine),
}

/// `blockd serve …`.
#[derive(Args, Debug)]
pub struct ServeLine {
    /// What is served.
    #[command(flatten)]
    pub flags: ServeFlags,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Do not start a parent process that restarts the daemon
    #[arg(long)]
    pub no_supervisor: bool,
    /// The parent's sockets, as name=descriptor.
    #[arg(long, hide = true, value_name = "LIST")]
    pub listen_fds: Option<String>,
    /// Not the first start.
    #[arg(long, hide = true)]
    pub restarted: bool,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `record on|off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// Record writes.
    On,
    /// Do not.
    Off,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent_and_shows_its_exit_codes() {
        let mut command = Cli::command();
        command.clone().debug_assert();
        assert!(command.render_long_help().to_string().contains("Exit status"));
        for name in ["serve", "ctl"] {
            let help = command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
            assert!(help.contains("Exit status") && help.contains("Examples"), "{help}");
            assert!(!help.contains("listen-fds"), "{help}");
        }
    }
}
