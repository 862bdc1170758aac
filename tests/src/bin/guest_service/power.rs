//! Switches the guest off: by a command, or when somebody presses its power button.

use std::fs::{self, File};
use std::io::Read;
use std::process::Command;
use std::thread;

use crate::console::say;

/// `EV_KEY` and `KEY_POWER` of Linux's input events.
const POWER_KEY: (u16, u16) = (1, 116);

/// Bytes of an input event: two words of time, type, code, value.
const EVENT_BYTES: usize = 24;

/// End the guest: `poweroff` or `reboot`. Whoever asked for it has synced before, or wants the loss.
pub fn end(how: &str) {
    if let Err(error) = Command::new("/bin/busybox").args([how, "-f"]).status() {
        say(&format!("cannot {how}: {error}"));
    }
}

/// Everything that the file systems hold back goes to the disks.
pub fn sync() -> String {
    match Command::new("/bin/busybox").arg("sync").status() {
        Ok(status) if status.success() => "ok".to_owned(),
        other => format!("error sync: {other:?}"),
    }
}

/// Power off when the button is pressed, whichever device it is.
pub fn watch_buttons() {
    let devices = fs::read_dir("/dev/input").into_iter().flatten().flatten();
    for device in devices.filter(|device| device.file_name().to_string_lossy().starts_with("event")) {
        let Ok(mut file) = File::open(device.path()) else { continue };
        thread::spawn(move || {
            let mut event = [0; EVENT_BYTES];
            while file.read_exact(&mut event).is_ok() {
                let word = |at: usize| u16::from_le_bytes([event[at], event[at + 1]]);
                if (word(16), word(18)) == POWER_KEY && event[20] == 1 {
                    say("the power button was pressed");
                    say(&sync());
                    end("poweroff");
                }
            }
        });
    }
}
