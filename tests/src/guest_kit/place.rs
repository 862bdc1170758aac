//! Where a program runs: here, or inside the network namespace of a site.

use std::ffi::OsString;
use std::path::Path;

/// A place, as the words that come before a program that shall run there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    prefix: Vec<OsString>,
}

impl Place {
    /// Where this very program runs.
    pub fn here() -> Self {
        Self::default()
    }

    /// Behind any prefix (`ip netns exec client`).
    pub fn behind<W: Into<OsString>>(prefix: impl IntoIterator<Item = W>) -> Self {
        Self { prefix: prefix.into_iter().map(Into::into).collect() }
    }

    /// In the network namespace of a process.
    pub fn beside(pid: u32) -> Self {
        Self::behind(["nsenter".to_owned(), format!("--net=/proc/{pid}/ns/net"), "--".to_owned()])
    }

    /// The name of what to start, and all words behind it, for `program` with `words`.
    pub fn words<W: Into<OsString>>(
        &self,
        program: &Path,
        words: impl IntoIterator<Item = W>,
    ) -> (OsString, Vec<OsString>) {
        let words = words.into_iter().map(Into::into);
        let mut all = self.prefix.iter().cloned().chain([program.into()]).chain(words);
        let first = all.next().expect("there is at least the program");
        (first, all.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::Place;
    use std::path::Path;

    #[test]
    fn a_program_stands_behind_the_words_of_its_place() {
        let (name, words) = Place::here().words(Path::new("/x"), ["a"]);
        assert_eq!((name, words), ("/x".into(), vec!["a".into()]));
        let (name, words) = Place::beside(7).words(Path::new("/x"), ["a"]);
        assert_eq!(name, "nsenter");
        assert_eq!(words, ["--net=/proc/7/ns/net", "--", "/x", "a"]);
    }
}
