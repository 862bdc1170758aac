//! Which file a program is at this moment: what is known of it holds until it is another one.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file with what changes when it is replaced or written anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileNow {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileNow {
    /// The file at `path`; none: there is none.
    pub fn at(path: &Path) -> Option<Self> {
        let found = fs::metadata(path).ok()?;
        Some(Self {
            device: found.dev(),
            inode: found.ino(),
            size_bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        })
    }

    /// The file that is started when `program` is: its path, or a name that is looked for in `PATH`.
    pub fn of_program(program: &Path) -> Option<Self> {
        let is_name = program.components().count() == 1 && !program.is_absolute();
        if !is_name {
            return Self::at(program);
        }
        let folders = std::env::var_os("PATH")?;
        let mut places = std::env::split_paths(&folders).map(|folder: PathBuf| folder.join(program));
        places.find(|place| place.is_file()).and_then(|place| Self::at(&place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_another_one_when_it_is_replaced_or_written_anew() {
        let folder = std::env::temp_dir().join(format!("migrated-program-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (program, next) = (folder.join("program"), folder.join("next"));
        let now = || FileNow::of_program(&program);
        assert_eq!(now(), None);
        fs::write(&program, "one").unwrap();
        let first = now();
        assert!(first.is_some());
        assert_eq!(now(), first);
        fs::write(&program, "two!").unwrap();
        let second = now();
        assert_ne!(second, first);
        // As a package does it: the new one takes the place of the old one, with the same size.
        fs::write(&next, "two?").unwrap();
        fs::rename(&next, &program).unwrap();
        assert_ne!(now(), second);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_name_is_looked_for_where_programs_are() {
        let shell = FileNow::of_program(Path::new("sh"));
        assert!(shell.is_some());
        assert_eq!(
            FileNow::of_program(Path::new("/bin/sh")).map(|file| file.size_bytes),
            shell.map(|file| file.size_bytes)
        );
        assert_eq!(FileNow::of_program(Path::new("no-such-program-of-ours")), None);
    }
}
