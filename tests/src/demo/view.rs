//! The picture of one moment: the migration's progress beside what the client feels. Lines of text; pure.

use std::collections::VecDeque;
use std::time::Duration;

use migrated::quantity::time;
use migrated::render::{plain, tty};
use migrated::status::Status;

use crate::prober::Progress;

/// Characters of a bar.
const BAR: u64 = 24;

/// The time over which answers are counted.
const SPAN: Duration = Duration::from_secs(1);

/// What the client has felt so far, from its progress again and again.
#[derive(Debug, Default)]
pub struct Users {
    /// When so many had been answered, over the last [`SPAN`].
    recent: VecDeque<(Duration, u64)>,
    last_answer: Duration,
    longest_gap: Duration,
    progress: Progress,
}

impl Users {
    /// Take in how far the client is.
    pub fn handle_progress(&mut self, now: Duration, progress: Progress) {
        if progress.answered > self.progress.answered || self.recent.is_empty() {
            self.last_answer = now;
        }
        self.longest_gap = self.longest_gap.max(now - self.last_answer);
        self.recent.push_back((now, progress.answered));
        while self.recent.len() > 1 && now - self.recent[1].0 >= SPAN {
            self.recent.pop_front();
        }
        self.progress = progress;
    }

    /// Answers in the last second.
    pub fn answers_per_s(&self) -> f64 {
        let Some(((from, first), (to, last))) = self.recent.front().copied().zip(self.recent.back().copied())
        else {
            return 0.0;
        };
        let span_s = (to - from).as_secs_f64();
        if span_s > 0.0 { (last - first) as f64 / span_s } else { 0.0 }
    }

    /// In words.
    pub fn line(&self, now: Duration) -> String {
        let (answered, gap) = (self.progress.answered, time(self.longest_gap.as_millis() as u64));
        let quiet = now - self.last_answer;
        let quiet = if quiet.as_millis() >= 200 {
            format!(", waiting for {}", time(quiet.as_millis() as u64))
        } else {
            String::new()
        };
        let writes = self.progress.acknowledged.iter().max().copied().unwrap_or(0);
        format!(
            "{:>4.0} answers/s{quiet}; {answered} so far, longest gap {gap}; {writes} writes confirmed",
            self.answers_per_s()
        )
    }
}

/// For a terminal.
pub fn block(status: &Status, users: &Users, now: Duration) -> Vec<String> {
    let mut lines = vec![String::new(), format!("  {}", tty::headline(status))];
    lines.extend(tty::bars(status).iter().map(|bar| {
        let filled = (bar.done * BAR).checked_div(bar.total).unwrap_or(0).min(BAR);
        let rest = BAR - filled;
        let (filled, rest) = ("#".repeat(filled as usize), "-".repeat(rest as usize));
        format!("  {:<12} [{filled}{rest}] {}", bar.label, bar.message)
    }));
    lines.push(format!("  {:<12} {}", "client", users.line(now)));
    lines
}

/// For a pipe.
pub fn line(status: &Status, users: &Users, now: Duration) -> String {
    format!("{} | client {}", plain::line(status), users.line(now).trim_start())
}

#[cfg(test)]
mod tests {
    use super::{Users, block, line};
    use crate::prober::Progress;
    use migrated::status::{RamProgress, Status};
    use std::time::Duration;

    const MS: Duration = Duration::from_millis(1);

    fn users(silent_from_ms: u32, until_ms: u32) -> Users {
        let mut users = Users::default();
        for ms in (0..=until_ms).step_by(50) {
            let answered = u64::from(ms.min(silent_from_ms) / 50);
            users.handle_progress(ms * MS, Progress { answered, acknowledged: vec![answered * 2] });
        }
        users
    }

    #[test]
    fn answers_are_counted_over_the_last_second_and_gaps_are_kept() {
        let said = users(9999, 3000).line(3000 * MS);
        assert_eq!(said, "  20 answers/s; 60 so far, longest gap 0 ms; 120 writes confirmed");
        let said = users(2000, 2500).line(2500 * MS);
        assert_eq!(
            said,
            "  10 answers/s, waiting for 500 ms; 40 so far, longest gap 500 ms; 80 writes confirmed"
        );
    }

    #[test]
    fn a_picture_has_the_move_and_the_client() {
        let mut status = Status::new("7", "web", "site-a", "site-b");
        status.ram = RamProgress { total_bytes: 100, left_bytes: 50, passes: 1, ..RamProgress::default() };
        let picture = block(&status, &users(9999, 1000), 1000 * MS);
        assert!(picture[1].contains("web site-a -> site-b"), "{picture:?}");
        assert!(picture[2].contains("[############------------]"), "{picture:?}");
        assert!(picture[3].trim_start().starts_with("client"), "{picture:?}");
        assert!(line(&status, &users(9999, 1000), 1000 * MS).contains("pre-migration | client 20 answers/s"));
    }
}
