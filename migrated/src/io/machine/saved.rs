//! A guest's state in a file: QEMU's own migration stream, nothing around it.
//!
//! ```text
//! save     QEMU (paused) ─ migrate ─► UNIX socket ─► FILE.part ─ fsync ─ rename ─► FILE
//! restore  FILE ─► UNIX socket ─ migrate-incoming ─► QEMU (held)
//! ```
//!
//! The state fits its disks only as they were at that moment: who keeps it keeps them too, or gets a guest that
//! believes in blocks which are no more.

use std::path::Path;
use std::time::Duration;

use tokio::fs::{self, File};
use tokio::io::{AsyncWriteExt, copy};
use tokio::net::{UnixListener, UnixStream};
use tokio::time::timeout;
use tracing::info;

use super::{Layout, MachineError};
use crate::io::qmp::Qmp;
use crate::qmp::MigrateInfo;

/// How long a stream may stand still at its beginning and its end.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at how far QEMU is.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Writes the state of a paused guest. An earlier file stays until the new one is whole.
pub async fn save(qmp: &Qmp, layout: &Layout, path: &Path) -> Result<(), MachineError> {
    let socket = layout.stream();
    // Left over by an earlier life, perhaps.
    let _ = fs::remove_file(&socket).await;
    let listener = UnixListener::bind(&socket).map_err(MachineError::file("listen at", &socket))?;
    layout.lend_socket(&socket)?;
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = Path::new(&part);
    let written = write(qmp, &listener, &socket, part).await;
    let _ = fs::remove_file(&socket).await;
    if let Err(error) = written {
        let _ = fs::remove_file(part).await;
        return Err(error);
    }
    fs::rename(part, path).await.map_err(MachineError::file("write", path))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = async { File::open(folder).await?.sync_all().await };
    synced.await.map_err(MachineError::file("write", folder))?;
    info!(path = %path.display(), "saved the guest's state");
    Ok(())
}

async fn write(qmp: &Qmp, listener: &UnixListener, socket: &Path, part: &Path) -> Result<(), MachineError> {
    let mut options = fs::OpenOptions::new();
    // The guest's memory is nobody else's business.
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(part).await.map_err(MachineError::file("write", part))?;
    // The guest stands still: there is no reason to be slow.
    qmp.set_parameters(serde_json::json!({ "max-bandwidth": i64::MAX })).await?;
    qmp.migrate(socket).await?;
    let accepted = timeout(TIMEOUT, listener.accept()).await;
    let accepted = accepted.map_err(|_| MachineError::Saved("QEMU does not send its state".into()))?;
    let (mut stream, _) = accepted.map_err(MachineError::file("listen at", socket))?;
    let copied = copy(&mut stream, &mut file).await;
    if let Err(error) = copied {
        let _ = qmp.migrate_cancel().await;
        return Err(MachineError::file("write", part)(error));
    }
    file.flush().await.map_err(MachineError::file("write", part))?;
    file.sync_all().await.map_err(MachineError::file("write", part))?;
    ended(qmp).await
}

/// Reads a state into a QEMU that was started to wait for it; the guest is held afterwards.
pub async fn restore(qmp: &Qmp, layout: &Layout, path: &Path) -> Result<(), MachineError> {
    let mut file = File::open(path).await.map_err(MachineError::file("open", path))?;
    let socket = layout.stream();
    qmp.migrate_incoming(&socket).await?;
    let mut stream = UnixStream::connect(&socket).await.map_err(MachineError::file("connect to", &socket))?;
    // QEMU hangs up when it does not like what it reads; its own words say why.
    let copied = copy(&mut file, &mut stream).await;
    let _ = stream.shutdown().await;
    let refused = |reason: String| MachineError::Saved(format!("{} is not taken: {reason}", path.display()));
    ended(qmp).await.map_err(|error| refused(error.to_string()))?;
    copied.map(drop).map_err(|error| refused(error.to_string()))
}

/// Waits until a migration has ended well.
async fn ended(qmp: &Qmp) -> Result<(), MachineError> {
    let looking = qmp.migration_until(LOOK_EVERY, MigrateInfo::has_ended);
    let late = || MachineError::Saved("QEMU does not come to an end with its state".into());
    let progress = timeout(TIMEOUT, looking).await.map_err(|_| late())??;
    match progress.status.as_str() {
        "completed" => Ok(()),
        status => Err(MachineError::Saved(format!("QEMU says {status} {}", progress.error_desc))),
    }
}
