//! Room for a guest that is started here: it is promised under the lock under which guests on their way get theirs, so that
//! neither takes what the other has been promised.

use crate::api::{Failure, FailureCode};
use crate::guest::Guest;
use crate::host::network::{Occasion, findings};
use crate::host::{Wanted, check_start};
use crate::io::host::facts_to_start;
use crate::io::site::Site;

/// A promise of room, taken back when it is dropped.
pub(super) struct Promise<'a> {
    site: &'a Site,
    guest: Option<String>,
}

impl Promise<'_> {
    /// The guest runs: its room counts as that of a guest from now on.
    pub(super) fn keep(mut self) {
        self.guest = None;
    }
}

impl Drop for Promise<'_> {
    fn drop(&mut self) {
        if let Some(guest) = &self.guest {
            self.site.reservations().release(guest);
        }
    }
}

/// Promises room to a guest that is claimed to be started, unless another has its MAC or its address. Refused: every reason at
/// once. Gives what is worth knowing beside the promise.
pub(super) async fn promise<'a>(
    site: &'a Site,
    guest: &Guest,
) -> Result<(Promise<'a>, Vec<String>), Failure> {
    let failed = |code, message| Failure::new(code, message, "");
    let (looked, network) =
        tokio::join!(facts_to_start(&site.config, guest), site.network(guest, Occasion::Run, &[]));
    let (found, disks) = looked.map_err(|error| failed(FailureCode::Failed, error.to_string()))?;
    site.refresh_reservations();
    let wanted = Wanted {
        guest,
        disks: &disks,
        boot_digests: &[],
        architecture: "",
        qemu_version: "",
        accel: "",
        sender: None,
    };
    let mut promised = site.reservations();
    // What is left of its last run; one that comes from elsewhere meanwhile is another matter.
    if promised.get(&guest.name).is_some_and(|held| !held.is_arriving) {
        promised.release(&guest.name);
    }
    let mut reasons: Vec<String> =
        check_start(&found, &promised, &wanted).iter().map(ToString::to_string).collect();
    let clashes =
        network.map(|network| findings(&network, &promised, guest, Occasion::Run)).unwrap_or_default();
    reasons.extend(clashes.refusals.iter().map(ToString::to_string));
    if !reasons.is_empty() {
        return Err(failed(FailureCode::Conflict, reasons.join("\n")));
    }
    let holder = "it is being started here";
    let reserved = promised.reserve(&guest.name, found.reservation(&wanted, holder));
    reserved.map_err(|refusal| failed(FailureCode::Conflict, refusal.to_string()))?;
    for warning in &clashes.warnings {
        tracing::warn!(guest = guest.name, "{warning}");
    }
    Ok((Promise { site, guest: Some(guest.name.clone()) }, clashes.warnings))
}
