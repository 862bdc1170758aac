//! What is said while a migration runs, by QEMU and by the destination, as notices for the decider.

use tokio::sync::broadcast::error::RecvError;

use super::Run;
use super::context::{Context, Heard};
use crate::qmp::Event as QmpEvent;
use crate::source::{Event, Notice};
use crate::trouble::of_the_guest;

impl Run {
    pub(super) fn handle_qemu(&mut self, event: Result<QmpEvent, RecvError>) {
        // What was missed with others is asked for where it matters (M4).
        if let Some(notice) = event.ok().and_then(|event| notice_of(&self.context, &event)) {
            self.hand_in(Event::Notice(notice));
        }
    }

    pub(super) fn handle_heard(&mut self, heard: &Heard) {
        let peer = &self.context.peer.name;
        let notice = match &heard.failed {
            Some(reason) => Notice::PeerFailed(format!("{peer}: {reason}")),
            None if heard.gone => {
                Notice::PeerGone(self.context.lost_link().unwrap_or_else(|| format!("{peer} has hung up")))
            }
            None => return,
        };
        self.hand_in(Event::Notice(notice));
    }
}

fn notice_of(context: &Context, event: &QmpEvent) -> Option<Notice> {
    Some(match event.name.as_str() {
        "STOP" => Notice::Stop,
        "RESUME" => Notice::Resume,
        "SHUTDOWN" => Notice::Shutdown,
        "RESET" => Notice::Reset,
        "BLOCK_IO_ERROR" => {
            let (disk, operation, reason) =
                (event.word("node-name"), event.word("operation"), event.word("reason"));
            let what = format!("QEMU has paused the guest, a {operation} on its {disk} failed: {reason}");
            Notice::DiskFailed(of_the_guest(&context.guest.name, &what))
        }
        _ => return None,
    })
}
