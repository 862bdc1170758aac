//! What is heard while a migration runs, of QEMU, of the destination and of the link, as events of the migration.

use tokio::sync::broadcast;

use super::Run;
use super::context::Heard;
use crate::migration::Event;
use crate::phase::Phase;
use crate::trouble::of_the_guest;

impl Run {
    /// Events wake and time things; what QEMU's state is, queries say (M4).
    pub(super) fn handle_qemu(&mut self, event: Result<crate::qmp::Event, broadcast::error::RecvError>) {
        let Ok(event) = event else { return };
        let phase = self.migration.phase();
        match event.name.as_str() {
            // What its own disk has stopped does not stand still because of the move.
            "STOP" if phase == Phase::PreCopy && !self.has_disk_failed => {
                self.context.note_pause();
                self.context.keep_costs();
                let raw = self.context.known().ram.as_ref().map_or(0, |ram| ram.bytes().0);
                self.account.note_pause(raw);
                self.context.event("the guest is paused");
            }
            "RESUME" if matches!(phase, Phase::StopAndCopy | Phase::Commitment) => {
                let reason = "QEMU let the guest go on by itself: its migration failed late";
                self.hand_in(Event::Broken(reason.to_owned()));
            }
            "BLOCK_IO_ERROR" => {
                self.has_disk_failed = true;
                let (disk, operation, reason) =
                    (event.word("node-name"), event.word("operation"), event.word("reason"));
                let what = format!("QEMU has paused the guest, a {operation} on its {disk} failed: {reason}");
                let why = of_the_guest(&self.context.guest.name, &what);
                if phase < Phase::Commitment || phase == Phase::Recovering {
                    self.hand_in(Event::Broken(why));
                } else {
                    self.context.warn(why);
                }
            }
            // Later it is we who end what the guest has left here.
            "SHUTDOWN" if phase < Phase::Commitment => {
                self.has_shut_down = true;
                self.context.event("the guest is shutting down");
            }
            "RESET" => self.context.event("the guest restarted itself"),
            _ => {}
        }
    }

    pub(super) fn handle_heard(&mut self, heard: &Heard) {
        if let Some(reason) = &heard.failed {
            let reason = format!("{}: {reason}", self.context.peer.name);
            self.hand_in(Event::Broken(reason));
        } else if heard.gone && self.migration.phase().row().begins_again {
            let why = self.lost_link().unwrap_or_else(|| format!("{} has hung up", self.context.peer.name));
            self.lose_link(why);
        }
    }

    /// Why the link is over, if it is.
    pub(super) fn lost_link(&self) -> Option<String> {
        let over = self.context.known().link.as_ref().and_then(|link| link.over())?;
        Some(format!("the link to {} ended: {over}", self.context.peer.name))
    }

    fn lose_link(&mut self, why: String) {
        self.context.event(why.clone());
        self.hand_in(Event::LinkLost(why));
    }

    pub(super) fn handle_end_of_qemu(&mut self) {
        // After the guest has moved that is what is wanted.
        if self.migration.phase() <= Phase::StopAndCopy {
            let reason = match self.has_shut_down {
                true => "the guest has shut itself down",
                false => "the guest's QEMU has ended; its log says more",
            };
            self.hand_in(Event::Broken(reason.to_owned()));
        }
    }
}
