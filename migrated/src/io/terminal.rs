//! Draws bars on a terminal (stderr). What they show is made by `render::tty`.

use std::collections::BTreeMap;
use std::io::{IsTerminal, stderr};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::render::tty::Bar;

/// A headline and bars, drawn over and over in the same place.
#[derive(Debug)]
pub struct Terminal {
    all: MultiProgress,
    headline: ProgressBar,
    bars: BTreeMap<String, ProgressBar>,
}

impl Terminal {
    /// The terminal, if stderr is one.
    pub fn open() -> Option<Self> {
        if !stderr().is_terminal() {
            return None;
        }
        let all = MultiProgress::new();
        let headline = all.add(ProgressBar::new(1).with_style(style("{msg}")));
        Some(Self { all, headline, bars: BTreeMap::new() })
    }

    /// Shows this instead of what was shown before.
    pub fn draw(&mut self, headline: &str, bars: &[Bar]) {
        self.headline.set_message(headline.to_owned());
        for bar in bars {
            let drawn = self.bars.entry(bar.label.clone()).or_insert_with(|| {
                let new = ProgressBar::new(bar.total).with_style(style("  {prefix:14} [{bar:24}] {msg}"));
                self.all.add(new.with_prefix(bar.label.clone()))
            });
            drawn.set_length(bar.total);
            drawn.set_position(bar.done);
            drawn.set_message(bar.message.clone());
        }
    }

    /// A line that stays, above the bars.
    pub fn say(&self, line: &str) {
        // Nobody looks at a terminal that is gone.
        let _ = self.all.println(line);
    }

    /// Takes the bars away.
    pub fn close(self) {
        let _ = self.all.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the template is well formed").progress_chars("=> ")
}
