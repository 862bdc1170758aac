//! What QEMU and the destination say without being asked, and what it means in which phase.
//!
//! QEMU's notices wake and time things; what its state is, queries say (M4).

use std::time::Duration;

use super::{Action, Notice, Source};
use crate::phase::{Copies, LeftBy, OnLostLink};

impl Source {
    pub(super) fn handle_notice(&mut self, notice: Notice, now: Duration) {
        let row = self.row();
        match notice {
            // One whose own disk has failed does not stand still because of the move.
            Notice::Stop if row.copies == Copies::Memory && !row.paused && !self.has_disk_failed => {
                self.actions.push_back(Action::NotePause);
                self.note("the guest is paused".to_owned());
            }
            Notice::Resume if row.paused && (self.may_turn_back() || row.left_by == LeftBy::Verdict) => {
                let reason = "QEMU let the guest go on by itself: its migration failed late";
                self.handle_failure(reason.to_owned(), now);
            }
            Notice::Stop | Notice::Resume => {}
            Notice::DiskFailed(why) => {
                self.has_disk_failed = true;
                match row.cancellable {
                    true => self.handle_failure(why, now),
                    false => self.actions.push_back(Action::Warn(why)),
                }
            }
            // Later it is we who end what the guest has left here.
            Notice::Shutdown if row.cancellable => {
                self.has_shut_down = true;
                self.note("the guest is shutting down".to_owned());
            }
            Notice::Shutdown => {}
            Notice::Reset => self.note("the guest restarted itself".to_owned()),
            Notice::QemuEnded if row.cancellable => {
                let reason = match self.has_shut_down {
                    true => "the guest has shut itself down",
                    false => "the guest's QEMU has ended; its log says more",
                };
                self.handle_failure(reason.to_owned(), now);
            }
            // The way back ends it by itself; after the guest has moved it is what is wanted.
            Notice::QemuEnded => {}
            Notice::PeerFailed(why) => self.handle_failure(why, now),
            Notice::PeerGone(how) if row.on_lost_link != OnLostLink::Fail => {
                self.note(how.clone());
                self.handle_lost_link(how, now);
            }
            // Operations that need it fail by themselves, or ask over a new link.
            Notice::PeerGone(_) => {}
        }
    }
}
