//! `migrated daemon`, `link-stdio` and `check-config`: what needs a configuration instead of a daemon.

use std::net::SocketAddr;
use std::path::Path;

use migrated::config::{self, Config};
use migrated::io::hold::HoldPoints;
use migrated::io::host::network::pool_faults;
use migrated::io::{daemon, files, link_stdio};
use serde_json::json;
use tracing_subscriber::EnvFilter;

use super::{DaemonLine, Exit, LogFormat};

/// Threads of the daemon: it decides and relays, others do the work.
const WORKERS: usize = 2;

/// Serves this host until it is told to end.
pub fn daemon(line: &DaemonLine) -> Exit {
    let config = match read(&line.config) {
        Ok(config) => config,
        Err(faults) => return wrong(&line.config, &faults),
    };
    let hold_points = match line.hold_points.as_deref().map_or(Ok(HoldPoints::OFF), HoldPoints::by) {
        Ok(hold_points) => hold_points,
        Err(error) => {
            eprintln!("migrated: {error:#}");
            return Exit::Usage;
        }
    };
    start_logging(line.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build();
    let ended =
        runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(daemon::run(config, hold_points)));
    match ended {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("migrated: {error:#}");
            Exit::Refused
        }
    }
}

/// Carries a link between stdin and stdout and the daemon of this host.
pub fn link_stdio(config: &Path, to: Option<SocketAddr>) -> Exit {
    let to = match to.map_or_else(|| read(config).map(|config| config.listen), Ok) {
        Ok(to) => to,
        Err(faults) => return wrong(config, &faults),
    };
    match link_stdio::carry(to) {
        Ok(()) => Exit::Done,
        Err(error) => {
            eprintln!("migrated: {error}");
            Exit::Refused
        }
    }
}

/// Says what is wrong with a configuration.
pub fn check_config(path: &Path, as_json: bool) -> Exit {
    let read = read(path).and_then(|config| match pool_faults(&config) {
        faults if faults.is_empty() => Ok(config),
        faults => Err(faults),
    });
    if as_json {
        let faults = read.as_ref().err().cloned().unwrap_or_default();
        println!("{}", json!({ "file": path, "faults": faults }));
        return if faults.is_empty() { Exit::Done } else { Exit::Usage };
    }
    match read {
        Ok(config) => {
            println!("{}: a configuration of host {:?}, with nothing wrong", path.display(), config.name);
            Exit::Done
        }
        Err(faults) => wrong(path, &faults),
    }
}

fn read(path: &Path) -> Result<Config, Vec<String>> {
    let text = files::text(path).map_err(|error| vec![error.to_string()])?;
    config::parse(&text).map_err(|error| match error {
        config::ConfigError::Text(fault) => vec![fault],
        config::ConfigError::Values(faults) => faults,
    })
}

fn wrong(path: &Path, faults: &[String]) -> Exit {
    eprintln!("migrated: the configuration {} is refused:", path.display());
    for fault in faults {
        eprintln!("{fault}");
    }
    Exit::Usage
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_env("MIGRATED_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
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
