//! The command line: what `migrated` can be told, and what each telling becomes.

mod asking;
mod ask;
mod exit;
mod follow;
mod send;
mod serve;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use blockd::replica::encoding::Compression;
use clap::{Args, Parser, Subcommand, ValueEnum};
use migrated::address::socket_address;
use migrated::api::Limit;
use migrated::quantity::{RateError, ms, parse_rate};
use migrated::transport::{Transport, TransportError};

pub use self::exit::Exit;

const EXAMPLES: &str = "\
Examples:
  On both hosts, once:
    migrated check-config /etc/migrated/config.toml
    migrated daemon --config /etc/migrated/config.toml
  Make two hosts known to each other: on one host, then with what it prints on the other
    migrated pair
    migrated pair site-a@192.0.2.1:7070/…
  Start a guest and move it to another site, over at most 20 Mbit/s:
    migrated run web.toml
    migrated send --wan web site-b --bandwidth 20Mbit
  Or in the background:
    migrated send --wan -d web site-b
    migrated status web --watch

Exit status:
    0  done; with `send`: the guest runs at the destination
    1  refused, cancelled, failed or rolled back; the guest is at the source, and the reason is on stderr
    2  the command line, the configuration or the guest's description is wrong
    3  in doubt: nobody here knows where the guest ended; what to do is on stderr
  130  Ctrl-C: the migration goes on in the background

Environment:
  MIGRATED_LOG   what the daemon logs, like info, debug or migrated::io=debug (default: info)
  NOTIFY_SOCKET  set by systemd; told when the daemon serves";

const SEND_EXAMPLES: &str = "\
Examples:
  migrated send web site-b                            in the same network: the address stays where it is
  migrated send --wan web site-b                      to another site: tunnel and DNS follow
  migrated send --wan web site-b --dry-run            only look whether it could be done
  migrated send --wan -d web site-b --max-downtime 500ms
  migrated send --wan web site-b --cold               suspended for the whole move
  migrated send --wan web site-b --json | jq -c '[.phase, .eta_s]'
  migrated send --wan web site-b --transport 'exec:ssh -o BatchMode=yes site-b migrated link-stdio'

In the foreground, progress goes to a terminal as bars, else as a line a second. Ctrl-C leaves the
migration alone and says how to look at it and how to cancel it.

Exit status: 0 moved, 1 refused, cancelled or rolled back (the guest runs at the source), 2 the command
line is wrong, 3 in doubt, 130 left alone by Ctrl-C. With -d: 0 it was started, 1 it was refused.";

const SET_EXAMPLES: &str = "\
Examples:
  migrated set web bandwidth=5Mbit      leave the link to others for a while
  migrated set 0e2f9a61 bandwidth=none  take all that the link gives

Give it at the source. The limit holds for disks, deltas and memory together, and until it is changed again.";

const RECOVER_EXAMPLES: &str = "\
Examples:
  migrated recover web                  what is known here and there, what is safe, what is being done
  migrated recover web --lost site-b    site-b burned down while it was taking the guest: it goes on here

The daemon does by itself whatever the two journals allow, also after a crash. Only a person can know that
the other host will not come back. If it does after all, it is told, and stops the guest if it has it.";

/// Moves a running guest with its disks, memory and address to another host
#[derive(Debug, Parser)]
#[command(name = "migrated", version, after_help = EXAMPLES, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub action: Action,
    /// The daemon's socket
    #[arg(long, global = true, value_name = "PATH", default_value = "/run/migrated/api.sock")]
    pub socket: PathBuf,
    /// Answer as JSON on stdout, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Action {
    /// Serve this host
    Daemon(DaemonLine),
    /// Carry a link between stdin and stdout and this host's daemon: the far end of `send --transport exec:…`
    LinkStdio {
        /// The daemon's configuration, which says where it listens
        #[arg(long, value_name = "FILE", default_value = "/etc/migrated/config.toml")]
        config: PathBuf,
        /// Where the daemon listens; then no configuration is read
        #[arg(long, value_name = "ADDRESS:PORT", value_parser = socket_address)]
        to: Option<SocketAddr>,
    },
    /// Say what is wrong with a configuration, and what of this machine does not fit it; changes nothing
    CheckConfig(CheckLine),
    /// Start a guest from its description
    Run {
        /// The description, like docs/examples/web.toml
        #[arg(value_name = "GUEST.toml")]
        description: PathBuf,
        /// Go on from a state that `stop --save` wrote, instead of booting; "-" reads it from stdin
        #[arg(long, value_name = "FILE")]
        restore: Option<PathBuf>,
    },
    /// End a guest
    Stop {
        /// Its name
        guest: String,
        /// Without asking it first
        #[arg(long, conflicts_with = "save")]
        now: bool,
        /// Save its state to go on from later; packed where the name ends in .zst or .gz
        #[arg(long, value_name = "FILE")]
        save: Option<PathBuf>,
    },
    /// Pause a guest
    Pause {
        /// Its name
        guest: String,
    },
    /// Let a paused guest go on
    Resume {
        /// Its name
        guest: String,
    },
    /// List the guests of this host
    List,
    /// Show migrations, or one of them with its report
    Status {
        /// A migration's number, or a guest's name for its latest one
        #[arg(value_name = "ID|GUEST")]
        migration: Option<String>,
        /// Go on showing it until it has ended
        #[arg(long, requires = "migration")]
        watch: bool,
    },
    /// Move a guest to another host
    #[command(after_help = SEND_EXAMPLES)]
    Send(SendLine),
    /// Give a migration up: the guest goes on at the source
    Cancel {
        /// The migration's number, or its guest's name
        #[arg(value_name = "ID|GUEST")]
        migration: String,
    },
    /// Change a migration while it runs
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// The migration's number, or its guest's name
        #[arg(value_name = "ID|GUEST")]
        migration: String,
        /// What to change: bandwidth=RATE like 20Mbit or 2.5MB (a second), or bandwidth=none
        #[arg(value_name = "bandwidth=RATE", value_parser = setting)]
        setting: Setting,
    },
    /// Say what both hosts have promised about a guest, and what is safe to do
    #[command(after_help = RECOVER_EXAMPLES)]
    Recover {
        /// Its name
        guest: String,
        /// Your word that this host is gone for good: a guest in doubt goes on here, and is stopped there
        #[arg(long, value_name = "HOST")]
        lost: Option<String>,
    },
    /// List the paired hosts, with whether and how fast they answer
    Hosts,
    /// Pair with another host: print a one-time token, or use one
    Pair {
        /// What `migrated pair` printed on the other host
        token: Option<String>,
    },
    /// Forget a paired host
    Unpair {
        /// Its name
        host: String,
    },
}

/// `migrated check-config …`.
#[derive(Args, Debug)]
pub struct CheckLine {
    /// The file
    #[arg(value_name = "FILE", default_value = "/etc/migrated/config.toml")]
    pub config: PathBuf,
    /// Look at the file alone, not at folders, programs, networks and name servers
    #[arg(long)]
    pub file_only: bool,
    /// Exit with 1 where the machine does not fit, which the daemon only warns of
    #[arg(long, conflicts_with = "file_only")]
    pub strict: bool,
}

/// `migrated daemon …`.
#[derive(Args, Debug)]
pub struct DaemonLine {
    /// The configuration, like docs/examples/site-a.toml
    #[arg(long, value_name = "FILE", default_value = "/etc/migrated/config.toml")]
    pub config: PathBuf,
    /// How log lines look
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// For tests: an operation waits before it begins while a file with its name lies in this folder of root's
    #[arg(long, value_name = "FOLDER", hide_short_help = true)]
    pub hold_points: Option<PathBuf>,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `migrated send …`.
#[derive(Args, Debug)]
pub struct SendLine {
    /// The guest's name
    pub guest: String,
    /// The name of a paired host
    #[arg(value_name = "HOST")]
    pub to: String,
    /// To another site: its address and its name in DNS follow
    #[arg(long)]
    pub wan: bool,
    /// Come back at once; `status` shows how it goes on
    #[arg(short, long)]
    pub detach: bool,
    /// Only look whether it could be done, and what is worth knowing; with --wan a packet goes through the tunnel
    #[arg(long, conflicts_with = "detach")]
    pub dry_run: bool,
    /// The most that all its channels may use, like 20Mbit or 2.5MB (a second)
    #[arg(long, value_name = "RATE", value_parser = bandwidth)]
    pub bandwidth: Option<u64>,
    /// How long the guest may stand still, like 300ms or 2s
    #[arg(long, value_name = "TIME", value_parser = downtime)]
    pub max_downtime: Option<Duration>,
    /// What carries the link: tcp, or exec:COMMAND for a program's stdin and stdout (no shell; quotes are honoured)
    #[arg(long, value_name = "TRANSPORT", value_parser = transport)]
    pub transport: Option<CheckedTransport>,
    /// Suspend the guest for the whole move: fewest bytes, and it stands still for as long as they take
    #[arg(long, conflicts_with = "max_downtime")]
    pub cold: bool,
    /// Whether to compress disks and memory; auto: where it gets more across
    #[arg(long, value_enum, value_name = "WHEN")]
    pub compress: Option<Compression>,
    /// Give up after so long with the link up, like 2h, or none; without: four times what the bytes should take, and 10 min
    #[arg(long, value_name = "TIME", value_parser = time_limit)]
    pub time_limit: Option<Limit>,
}

fn time_limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit::None);
    }
    let time = humantime::parse_duration(text)
        .map_err(|error| format!("{error}; write it like 30min or 2h, or none"))?;
    if time < Duration::from_secs(1) || time > Duration::from_secs(366 * 24 * 3600) {
        return Err("it must be from 1s to a year, or none".to_owned());
    }
    Ok(Limit::Ms(ms(time)))
}

/// A transport that was read, as it was written: the daemon reads it again.
#[derive(Clone, Debug)]
pub struct CheckedTransport {
    /// As it was written.
    pub written: String,
}

fn transport(text: &str) -> Result<CheckedTransport, TransportError> {
    Transport::parse(text).map(|_| CheckedTransport { written: text.to_owned() })
}

/// What `set` changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Setting {
    /// The most that all channels may use, in bytes a second; none: what the link gives.
    Bandwidth(Option<u64>),
}

fn setting(text: &str) -> Result<Setting, String> {
    match text.split_once('=') {
        Some(("bandwidth", "none")) => Ok(Setting::Bandwidth(None)),
        Some(("bandwidth", rate)) => {
            let rate = parse_rate(rate).map_err(|error| error.to_string())?;
            Ok(Setting::Bandwidth(Some(rate)))
        }
        _ => Err("write it like bandwidth=20Mbit or bandwidth=none".to_owned()),
    }
}

fn bandwidth(text: &str) -> Result<u64, RateError> {
    parse_rate(text)
}

fn downtime(text: &str) -> Result<Duration, String> {
    let time =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write it like 300ms or 2s"))?;
    if time < Duration::from_millis(1) || time > Duration::from_secs(3600) {
        return Err("it must be from 1ms to 1h".to_owned());
    }
    Ok(time)
}

/// Does what the command line says.
pub fn run(cli: Cli) -> ExitCode {
    let exit = match cli.action {
        Action::Daemon(line) => serve::daemon(&line),
        Action::CheckConfig(line) => serve::check_config(&line, cli.json),
        Action::LinkStdio { config, to } => serve::link_stdio(&config, to),
        action => ask::run(&cli.socket, cli.json, action),
    };
    ExitCode::from(exit.code())
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Action, Cli, Limit, Setting};

    fn refused(words: &[&str]) -> String {
        Cli::try_parse_from([&["migrated"], words].concat()).unwrap_err().to_string()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_and_argument_says_what_it_is_for() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_about().is_some(), "{}", command.get_name());
            for argument in command.get_arguments() {
                assert!(argument.get_help().is_some(), "{} {}", command.get_name(), argument.get_id());
            }
        }
    }

    #[test]
    fn rates_and_times_of_send_are_read_with_their_units() {
        let words = ["migrated", "send", "web", "b", "--bandwidth", "20Mbit", "--max-downtime", "300ms"];
        let Action::Send(line) = Cli::try_parse_from(words).unwrap().action else { panic!("it is send") };
        assert_eq!((line.bandwidth, line.max_downtime.unwrap().as_millis()), (Some(2_500_000), 300));
        assert!(refused(&["send", "web", "b", "--bandwidth", "20"]).contains("has no unit"));
        assert!(refused(&["send", "web", "b", "--bandwidth", "20Mb"]).contains("Mbit"));
        assert!(refused(&["send", "web", "b", "--max-downtime", "2"]).contains("300ms"));
        assert!(refused(&["send", "web", "b", "--max-downtime", "0s"]).contains("from 1ms"));
    }

    #[test]
    fn how_long_a_move_may_take_is_a_time_or_none() {
        let read = |word| {
            let words = ["migrated", "send", "web", "b", "--time-limit", word];
            let Action::Send(line) = Cli::try_parse_from(words).unwrap().action else { panic!("it is send") };
            line.time_limit
        };
        assert_eq!(read("none"), Some(Limit::None));
        assert_eq!(read("2h"), Some(Limit::Ms(7_200_000)));
        assert!(refused(&["send", "web", "b", "--time-limit", "0s"]).contains("from 1s"));
        assert!(refused(&["send", "web", "b", "--time-limit", "soon"]).contains("or none"));
        assert!(refused(&["send", "web", "b", "--cold", "--max-downtime", "1s"]).contains("--max-downtime"));
        assert!(refused(&["send", "web", "b", "--compress", "maybe"]).contains("auto"));
    }

    #[test]
    fn a_transport_is_refused_before_anything_is_asked() {
        assert!(Cli::try_parse_from(["migrated", "send", "web", "b", "--transport", "exec:nc b 7"]).is_ok());
        assert!(refused(&["send", "web", "b", "--transport", "exec:zstd | nc b 7"]).contains("shell"));
        assert!(refused(&["send", "web", "b", "--transport", "ssh b"]).contains("exec:ssh"));
    }

    #[test]
    fn a_limit_is_set_by_a_rate_or_none() {
        let read = |word| match Cli::try_parse_from(["migrated", "set", "web", word]).unwrap().action {
            Action::Set { setting, .. } => setting,
            other => panic!("it is set, not {other:?}"),
        };
        assert_eq!(read("bandwidth=20Mbit"), Setting::Bandwidth(Some(2_500_000)));
        assert_eq!(read("bandwidth=none"), Setting::Bandwidth(None));
        assert!(refused(&["set", "web", "bandwidth=20"]).contains("has no unit"));
        assert!(refused(&["set", "web", "bandwidth=0Mbit"]).contains("out of range"));
        assert!(refused(&["set", "web", "downtime=2s"]).contains("bandwidth=none"));
        assert!(refused(&["set", "web"]).contains("bandwidth=RATE"));
    }

    #[test]
    fn what_contradicts_itself_is_refused() {
        for words in [
            &["stop", "web", "--now", "--save", "f"][..],
            &["send", "web", "b", "-d", "--dry-run"],
            &["status", "--watch"],
            &["send", "web"],
            &["explode"],
        ] {
            refused(words);
        }
    }
}
