//! How the program ends: one of five numbers, written once.

use migrated::phase::Outcome;

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Done; a guest moved.
    Done,
    /// Refused, cancelled, failed or rolled back: a guest is where it was.
    Refused,
    /// What was typed, or a file that was named, is wrong.
    Usage,
    /// Nobody here knows where the guest ended.
    InDoubt,
    /// Ctrl-C: what was begun goes on.
    Left,
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Refused => 1,
            Self::Usage => 2,
            Self::InDoubt => 3,
            Self::Left => 130,
        }
    }

    /// What a migration's end means to the program that waited for it.
    pub fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Moved => Self::Done,
            Outcome::Refused | Outcome::Cancelled | Outcome::RolledBack => Self::Refused,
            Outcome::InDoubt => Self::InDoubt,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Exit;
    use migrated::phase::Outcome;

    #[test]
    fn each_end_has_the_number_that_the_help_names() {
        let ends = [
            (Exit::of(Outcome::Moved), 0),
            (Exit::of(Outcome::Refused), 1),
            (Exit::of(Outcome::Cancelled), 1),
            (Exit::of(Outcome::RolledBack), 1),
            (Exit::Usage, 2),
            (Exit::of(Outcome::InDoubt), 3),
            (Exit::Left, 130),
        ];
        for (exit, code) in ends {
            assert_eq!(exit.code(), code);
            assert!(super::super::EXAMPLES.contains(&format!("{code:>5}  ")), "{code} is in --help");
        }
    }
}
