//! What a simulated pair of hosts keeps to: all of it, unless a test takes one thing away to see it missed.

use blockd::rules::Rules;

/// The invariants that are kept, by their numbers in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// Those of the product's own code.
    pub rules: Rules,
    /// D13, which the simulated replica host itself keeps: a new session begins when the old one has nothing in hand.
    pub d13: bool,
}

impl Kept {
    /// All.
    pub const ALL: Self = Self { rules: Rules::ALL, d13: true };

    /// One less, and its name.
    pub fn one_less() -> [(&'static str, Self); 6] {
        let without = |rules| Self { rules, ..Self::ALL };
        [
            ("D1", without(Rules { d1: false, ..Rules::ALL })),
            ("D2", without(Rules { d2: false, ..Rules::ALL })),
            ("D3", without(Rules { d3: false, ..Rules::ALL })),
            ("D4", without(Rules { d4: false, ..Rules::ALL })),
            ("D10", without(Rules { d10: false, ..Rules::ALL })),
            ("D13", Self { d13: false, ..Self::ALL }),
        ]
    }
}
