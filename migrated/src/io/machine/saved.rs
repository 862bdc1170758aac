//! A guest's state in a file: QEMU's own migration stream, nothing around it but what packs it.
//!
//! ```text
//! save     QEMU (paused) ─ migrate ─► UNIX socket ─► pack ─► FILE.part ─ fsync ─ rename ─► FILE
//! restore  FILE ─► unpack ─► UNIX socket ─ migrate-incoming ─► QEMU (held)
//! ```
//!
//! The state fits its disks only as they were at that moment: who keeps it keeps them too, or gets a guest that
//! believes in blocks which are no more.

mod packing;

use std::io;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use tokio::fs::{self, File};
use tokio::net::UnixListener;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::info;

use self::packing::{Packing, unpack};
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
    let written = write(qmp, &listener, &socket, part, Packing::of_name(path)).await;
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

async fn write(
    qmp: &Qmp,
    listener: &UnixListener,
    socket: &Path,
    part: &Path,
    packing: Packing,
) -> Result<(), MachineError> {
    let mut options = fs::OpenOptions::new();
    // The guest's memory is nobody else's business.
    options.write(true).create(true).truncate(true).mode(0o600);
    let file = options.open(part).await.map_err(MachineError::file("write", part))?;
    // The guest stands still: there is no reason to be slow.
    qmp.set_parameters(serde_json::json!({ "max-bandwidth": i64::MAX })).await?;
    qmp.migrate(socket).await?;
    let accepted = timeout(TIMEOUT, listener.accept()).await;
    let accepted = accepted.map_err(|_| MachineError::Saved("QEMU does not send its state".into()))?;
    let (stream, _) = accepted.map_err(MachineError::file("listen at", socket))?;
    let (stream, mut file) = (blocking(stream.into_std()), file.into_std().await);
    let copied = spawn_blocking(move || {
        packing.pack(&mut stream?, &mut file)?;
        file.sync_all()
    });
    if let Err(error) = copied.await.unwrap_or_else(|error| Err(io::Error::other(error))) {
        let _ = qmp.migrate_cancel().await;
        return Err(MachineError::file("write", part)(error));
    }
    ended(qmp).await
}

/// A socket that waits, for a thread that may.
fn blocking(stream: io::Result<UnixStream>) -> io::Result<UnixStream> {
    let stream = stream?;
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Reads a state into a QEMU that was started to wait for it; the guest is held afterwards.
pub async fn restore(qmp: &Qmp, layout: &Layout, path: &Path) -> Result<(), MachineError> {
    let file = File::open(path).await.map_err(MachineError::file("open", path))?.into_std().await;
    let socket = layout.stream();
    qmp.migrate_incoming(&socket).await?;
    let mut stream = UnixStream::connect(&socket).map_err(MachineError::file("connect to", &socket))?;
    // QEMU hangs up when it does not like what it reads; its own words say why.
    let copied = spawn_blocking(move || {
        let copied = unpack(file, &mut stream);
        let _ = stream.shutdown(Shutdown::Both);
        copied
    });
    let copied = copied.await.unwrap_or_else(|error| Err(io::Error::other(error)));
    let refused = |reason: String| MachineError::Saved(format!("{} is not taken: {reason}", path.display()));
    ended(qmp).await.map_err(|error| refused(error.to_string()))?;
    copied.map(drop).map_err(|error| refused(error.to_string()))
}

/// Waits until a migration has ended well.
async fn ended(qmp: &Qmp) -> Result<(), MachineError> {
    let looking = qmp.migration_until(LOOK_EVERY, MigrateInfo::has_ended);
    let late = || MachineError::Saved("QEMU does not come to an end with its state".into());
    let progress = timeout(TIMEOUT, looking).await.map_err(|_| late())??;
    if progress.is_completed() {
        return Ok(());
    }
    Err(MachineError::Saved(format!("QEMU says {} {}", progress.status, progress.error_desc)))
}
