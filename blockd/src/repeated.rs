//! Trouble that comes again and again: said at once, and from then on once a minute, with how often it came.

use std::time::Duration;

/// How long the same trouble is not said again.
const QUIET: Duration = Duration::from_secs(60);

/// One kind of trouble.
#[derive(Clone, Copy, Debug, Default)]
pub struct Repeated {
    /// What was said last, and when.
    said: Option<(i32, Duration)>,
    unsaid: u64,
}

impl Repeated {
    /// Takes in that it came, as this errno. If it is to be said now: how often it came since it was said last.
    pub fn handle(&mut self, errno: i32, now: Duration) -> Option<u64> {
        self.unsaid += 1;
        if self.said.is_some_and(|(said, at)| said == errno && now.saturating_sub(at) < QUIET) {
            return None;
        }
        self.said = Some((errno, now));
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_trouble_is_said_once_a_minute_and_counted() {
        let mut trouble = Repeated::default();
        let said: Vec<(u64, u64)> = (0..1250)
            .filter_map(|tenth| {
                Some((tenth, trouble.handle(libc::EMFILE, Duration::from_millis(tenth * 100))?))
            })
            .collect();
        assert_eq!(said, [(0, 1), (600, 600), (1200, 600)]);
    }

    #[test]
    fn another_trouble_is_said_at_once() {
        let mut trouble = Repeated::default();
        let ms = Duration::from_millis;
        assert_eq!(trouble.handle(libc::EMFILE, ms(0)), Some(1));
        assert_eq!(trouble.handle(libc::EMFILE, ms(100)), None);
        assert_eq!(trouble.handle(libc::ENOMEM, ms(200)), Some(2));
        assert_eq!(trouble.handle(libc::EMFILE, ms(300)), Some(1));
    }
}
