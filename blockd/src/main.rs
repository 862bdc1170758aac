//! The `blockd` program: reads the command line and hands over.

mod cli;

use std::process::ExitCode;

use anyhow::Result;
use blockd::config::Serve;
use blockd::io::daemon;
use blockd::io::listen::Listeners;
use blockd::io::supervisor::{EXIT_REFUSED, supervise};
use blockd::sidecar::Refusal;
use clap::Parser;
use tracing_subscriber::EnvFilter;

use crate::cli::{Action, Cli, LogFormat, ServeLine};

/// The command line is wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    match Cli::parse().action {
        Action::Ctl(line) => report(cli::run_ctl(&line)),
        Action::Serve(line) => serve(*line),
    }
}

fn serve(line: ServeLine) -> ExitCode {
    start_logging(line.log_format);
    let serve = match Serve::try_from(line.flags) {
        Ok(serve) => serve,
        Err(error) => {
            eprintln!("blockd: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    if let Some(list) = &line.listen_fds {
        return run_supervised(&serve, list, line.restarted);
    }
    if line.no_supervisor {
        return report(run_alone(&serve));
    }
    match supervise(&serve, std::env::args_os().skip(1).collect()) {
        Ok(code) => ExitCode::from(code),
        Err(error) => report(Err(error)),
    }
}

fn run_supervised(serve: &Serve, list: &str, restarted: bool) -> ExitCode {
    // Started as /proc/self/exe it would be called "exe" wherever processes are listed, in our own messages too.
    let _ = nix::sys::prctl::set_name(c"blockd");
    let listeners = Listeners::inherit(list).map_err(Into::into);
    let ended = listeners
        .and_then(|listeners| daemon::run(serve, listeners, daemon::Start { supervised: true, restarted }));
    let refused = ended.as_ref().is_err_and(|error| error.is::<Refusal>());
    let code = report(ended);
    if refused { ExitCode::from(EXIT_REFUSED) } else { code }
}

fn run_alone(serve: &Serve) -> Result<()> {
    let listeners = Listeners::bind(serve)?;
    let ended = daemon::run(serve, listeners, daemon::Start { supervised: false, restarted: false });
    Listeners::remove_paths(serve);
    ended
}

fn report(result: Result<()>) -> ExitCode {
    let Err(error) = result else { return ExitCode::SUCCESS };
    eprintln!("blockd: {error:#}");
    ExitCode::FAILURE
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("BLOCKD_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    // A log on a full disk loses lines. To complain of that on the same stderr would panic, in whatever thread it is.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match format {
        LogFormat::Text => builder.with_ansi(false).init(),
        LogFormat::Json => builder.json().flatten_event(true).init(),
    }
}
