//! Where the lines go: a terminal, whose last lines are drawn again and again; or anything else, line by line.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde::Serialize;

/// Pause between two lines where there is no terminal, unless the phase changes.
const PACE: Duration = Duration::from_secs(1);

/// Takes the lines.
#[derive(Debug)]
pub struct Screen {
    /// People read the standard error; the standard output is one JSON object.
    is_json: bool,
    is_terminal: bool,
    /// Lines that are drawn again.
    drawn: usize,
    last: Option<(Duration, String)>,
}

impl Screen {
    /// Look where the lines will go.
    pub fn open(is_json: bool) -> Self {
        let is_terminal = if is_json { io::stderr().is_terminal() } else { io::stdout().is_terminal() };
        Self { is_json, is_terminal, drawn: 0, last: None }
    }

    /// A line that stays.
    pub fn say(&mut self, line: &str) {
        self.drawn = 0;
        self.write(&format!("{line}\n"));
    }

    /// The picture of now: `block` on a terminal; elsewhere `line`, once a second and at every change of `phase`.
    pub fn show(&mut self, now: Duration, phase: &str, block: &[String], line: impl FnOnce() -> String) {
        if self.is_terminal {
            self.draw(block);
            return;
        }
        let is_due = self.last.as_ref().is_none_or(|(at, last)| last != phase || now - *at >= PACE);
        if is_due {
            self.last = Some((now, phase.to_owned()));
            self.write(&format!("{}\n", line()));
        }
    }

    /// The result for programs, where that was wanted.
    pub fn end(&mut self, result: &impl Serialize) {
        if self.is_json {
            println!("{}", serde_json::to_string(result).expect("plain values"));
        }
    }

    fn draw(&mut self, block: &[String]) {
        let mut text = String::new();
        if self.drawn > 0 {
            text += &format!("\x1b[{}A", self.drawn);
        }
        // What is too long is cut off by the terminal: a line that wraps could not be drawn again.
        text += "\x1b[?7l";
        for line in block {
            text += &format!("\x1b[2K{line}\n");
        }
        text += "\x1b[?7h\x1b[J";
        self.drawn = block.len();
        self.write(&text);
    }

    fn write(&self, text: &str) {
        // A reader that has gone is no reason to stop in the middle of a move.
        let _ = match self.is_json {
            true => io::stderr().write_all(text.as_bytes()),
            false => io::stdout().write_all(text.as_bytes()).and_then(|()| io::stdout().flush()),
        };
    }
}
