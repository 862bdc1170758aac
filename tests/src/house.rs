//! The house rules that compiler and clippy do not know, each as a function from sources to findings.
//!
//! ```text
//! files of the workspace ──► Source (code apart from comments) ──► rules ──► findings (file:line: what to do)
//! ```
//!
//! Textual on purpose: no parser of Rust, so a rule is a few lines that anybody can change. Each
//! has a test beside it that feeds it bad code, for a rule that cannot fire is worth nothing.

pub mod source;
pub mod paths;
pub mod modules;
pub mod shape;
pub mod danger;
pub mod crates;

use std::fmt;

pub use source::Source;

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// From the root of the workspace.
    pub path: String,
    /// Counted from one.
    pub line: usize,
    /// What is wrong, and what to do.
    pub what: String,
}

impl Finding {
    /// A finding in a source.
    pub fn new(source: &Source, line: usize, what: impl Into<String>) -> Self {
        Self { path: source.path.clone(), line, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}
