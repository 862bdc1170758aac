//! For programs: one JSON object a line.

use std::time::Duration;

use serde::Serialize;
use serde_json::json;

use crate::api::Failure;
use crate::status::Status;

/// The shortest time between two lines of one migration.
const PACE: Duration = Duration::from_millis(250);

/// Any answer as a line.
pub fn line<T: Serialize + ?Sized>(value: &T) -> String {
    json!(value).to_string()
}

/// A refusal as a line.
pub fn refusal(failure: &Failure) -> String {
    json!({ "error": failure }).to_string()
}

/// When a migration's line is due: at a change, but not too often; its last one always.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    last: Option<(Duration, Status)>,
}

impl Pace {
    /// The line, if it is due.
    pub fn poll(&mut self, now: Duration, status: &Status) -> Option<String> {
        let is_due = match &self.last {
            None => true,
            Some((_, last)) if last == status => false,
            Some((at, _)) => now.saturating_sub(*at) >= PACE || status.outcome.is_some(),
        };
        if !is_due {
            return None;
        }
        self.last = Some((now, status.clone()));
        Some(line(status))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Outcome;

    #[test]
    fn a_line_comes_with_every_change_but_at_most_four_a_second_and_the_last_one_always() {
        let mut pace = Pace::default();
        let mut status = Status::new("1", "web", "a", "b");
        let mut lines = 0;
        for ms in 0..=1000 {
            status.elapsed_ms = ms;
            lines += u32::from(pace.poll(Duration::from_millis(ms), &status).is_some());
        }
        assert_eq!(lines, 5);
        assert_eq!(pace.poll(Duration::from_secs(9), &status), None, "nothing has changed");
        status.elapsed_ms += 1;
        assert!(pace.poll(Duration::from_secs(9), &status).is_some());
        status.outcome = Some(Outcome::Moved);
        let last = pace.poll(Duration::from_secs(9), &status).unwrap();
        assert!(last.contains("\"outcome\":\"moved\""), "{last}");
    }
}
