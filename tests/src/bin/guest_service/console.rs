//! What the guest's programs say on the serial console, if there is one.

use std::io::{self, Write};

/// Say one line. A machine without a console loses it, and nothing else.
pub fn say(text: &str) {
    let _ = writeln!(io::stdout(), "guest: {text}");
}
