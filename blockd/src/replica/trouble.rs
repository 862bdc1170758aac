//! Why the stream to the replica is down.
//!
//! A stream that broke says little: with a full disk at the other end, every other attempt ends by "Broken pipe". So a
//! cause that was told stays until the replica works again, whatever the attempts in between end by. It works when it has
//! everything, or has taken something in a session that has lasted: one whose disk is full welcomes each session, takes
//! what needs no room, and fails then.

use std::time::Duration;

/// A session that has lasted for so long is one that works.
const STEADY: Duration = Duration::from_secs(30);

/// The newest trouble, or none.
#[derive(Clone, Debug, Default)]
pub struct Trouble {
    text: String,
    is_cause: bool,
}

impl Trouble {
    /// What it is, for people; empty while all is well.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes in what is wrong. True: that is new.
    pub fn handle_cause(&mut self, text: String) -> bool {
        self.is_cause = true;
        self.replace(text)
    }

    /// Takes in that the stream is gone, with nothing but this known of it. True: that is new.
    pub fn handle_symptom(&mut self, text: String) -> bool {
        !self.is_cause && self.replace(text)
    }

    /// Takes in that the replica has taken something in a session that is `age` old, and whether it lacks nothing now.
    pub fn handle_progress(&mut self, age: Duration, has_everything: bool) {
        if has_everything || age >= STEADY {
            *self = Self::default();
        }
    }

    fn replace(&mut self, text: String) -> bool {
        let is_new = self.text != text;
        self.text = text;
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_stays_until_the_replica_works_again() {
        let mut trouble = Trouble::default();
        assert!(trouble.handle_symptom("broken pipe".into()));
        assert!(!trouble.handle_symptom("broken pipe".into()), "said once");
        assert!(trouble.handle_cause("no space".into()));
        assert!(!trouble.handle_symptom("broken pipe".into()));
        assert!(!trouble.handle_cause("no space".into()));
        assert_eq!(trouble.text(), "no space");
        assert!(trouble.handle_cause("disk broken".into()));
        trouble.handle_progress(STEADY - Duration::from_millis(1), false);
        assert!(!trouble.handle_symptom("broken pipe".into()));
        assert_eq!(trouble.text(), "disk broken");
        trouble.handle_progress(STEADY, false);
        assert_eq!(trouble.text(), "");
        assert!(trouble.handle_cause("disk broken".into()));
        trouble.handle_progress(Duration::ZERO, true);
        assert_eq!(trouble.text(), "");
        assert!(trouble.handle_symptom("broken pipe".into()));
        assert_eq!(trouble.text(), "broken pipe");
    }
}
