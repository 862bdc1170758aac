//! Things that take long to make, kept below `<target>/guest-kit` under the hash of what they are made of.
//!
//! A thing is made in a folder beside its place and renamed when it is whole: a killed run leaves nothing that looks
//! finished. One process makes it, others wait for it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::binaries::target_dir;

/// What a kept thing depends on.
#[derive(Clone, Debug)]
pub struct Key(blake3::Hasher);

impl Key {
    /// A key for things of one kind; its name carries a number that grows with what makes them.
    pub fn new(kind: &str) -> Self {
        Self(blake3::Hasher::new()).text(kind)
    }

    /// It depends on these bytes.
    #[must_use]
    pub fn bytes(mut self, bytes: &[u8]) -> Self {
        // The length apart, so that no two lists of parts look the same.
        self.0.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        self
    }

    /// It depends on this text.
    #[must_use]
    pub fn text(self, text: &str) -> Self {
        self.bytes(text.as_bytes())
    }

    /// It depends on what is in a file.
    #[must_use]
    pub fn file(self, path: &Path) -> Self {
        let bytes = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()));
        self.bytes(&bytes)
    }

    fn name(&self) -> String {
        self.0.finalize().to_hex()[..16].to_owned()
    }
}

/// The folder of the thing `name`; `make` fills an empty one if it is not there yet.
pub fn kept(name: &str, key: &Key, make: impl FnOnce(&Path)) -> PathBuf {
    let shelf = target_dir().join("guest-kit");
    fs::create_dir_all(&shelf).expect("make a folder for guests");
    let place = shelf.join(format!("{name}-{}", key.name()));
    if place.exists() {
        return place;
    }
    let lock = File::create(shelf.join(format!("{name}.lock"))).expect("make a lock file");
    let _lock = Flock::lock(lock, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("lock a file");
    if !place.exists() {
        remove_others(&shelf, name);
        let unfinished = shelf.join(format!("{name}.new"));
        fs::create_dir_all(&unfinished).expect("make a folder for a guest");
        make(&unfinished);
        fs::rename(&unfinished, &place).expect("put a guest into its place");
    }
    place
}

/// What was made of other parts, or not to its end: nobody asks for it again.
fn remove_others(shelf: &Path, name: &str) {
    let is_old = |file: &str| {
        let rest = file.strip_prefix(name).unwrap_or_default();
        rest == ".new" || rest.strip_prefix('-').is_some_and(|key| key.len() == 16 && !key.contains('-'))
    };
    for entry in fs::read_dir(shelf).expect("look into the folder for guests").flatten() {
        if is_old(&entry.file_name().to_string_lossy()) {
            fs::remove_dir_all(entry.path()).expect("remove an old guest");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Key, kept};
    use std::fs;

    #[test]
    fn a_thing_is_made_once_for_a_key_and_an_older_one_goes() {
        let name = format!("cache-test-{}", std::process::id());
        let first = kept(&name, &Key::new("1"), |folder| fs::write(folder.join("a"), "").unwrap());
        assert!(first.join("a").exists());
        let again = kept(&name, &Key::new("1"), |_| panic!("it is there"));
        assert_eq!(first, again);
        let other = kept(&name, &Key::new("2"), |_| {});
        assert!(!first.exists() && other.exists());
        fs::remove_dir_all(&other).unwrap();
        fs::remove_file(other.with_file_name(format!("{name}.lock"))).unwrap();
    }

    #[test]
    fn a_key_tells_where_one_part_ends_and_the_next_begins() {
        assert_ne!(Key::new("a").text("bc").name(), Key::new("ab").text("c").name());
        assert_eq!(Key::new("a").text("b").name(), Key::new("a").bytes(b"b").name());
    }
}
