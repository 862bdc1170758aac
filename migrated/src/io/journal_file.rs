//! The journal on disk: opened once, appended to, each record durable before the caller goes on.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, PosixFadviseAdvice, fallocate, posix_fadvise};
use thiserror::Error;
use tokio::task::block_in_place;

use crate::journal::{
    Account, Damaged, Record, Step, Subject, decode, encode, handed_over, is_from, last_step, verdict,
};
use crate::quantity::ms;

/// Why there is no journal, or no record in it.
#[derive(Debug, Error)]
pub enum JournalError {
    /// The system said no.
    #[error("cannot {verb} the journal {path}; look at the room and the disk of state_dir")]
    Io {
        /// What was tried.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be trusted.
    #[error("{path}: {damaged}; a copy of it and the other host's journal say what was promised")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        damaged: Damaged,
    },
    /// An earlier append failed half-way: what the file says is not known.
    #[error("an earlier record could not be written to {path}; restart the daemon when the disk has room")]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// Another host's migration, or one of this host.
    #[error("migration {migration} does not come from {peer}, which has no say about it")]
    Foreign {
        /// Its number.
        migration: String,
        /// Who wants a say.
        peer: String,
    },
}

/// Room that is taken when a migration begins, for everything that it will promise: what has begun is never stopped by
/// a full disk.
const ROOM_BYTES: i64 = 64 << 10;

/// A promise that is on the disk. Only the journal makes one: whoever says what depends on a promise asks for it (M2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable(Step);

impl Durable {
    /// What was promised.
    pub fn step(self) -> Step {
        self.0
    }
}

/// A host's journal.
#[derive(Debug)]
pub struct JournalFile {
    path: PathBuf,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    file: File,
    records: Vec<Record>,
    /// Bytes of the file that are whole records.
    whole_bytes: u64,
    broken: bool,
}

impl Inner {
    /// Takes room behind the last record, where the file system knows how to.
    fn take_room(&self) -> io::Result<()> {
        let from = i64::try_from(self.whole_bytes).map_err(io::Error::other)?;
        match fallocate(&self.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, ROOM_BYTES) {
            Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(()),
            taken => Ok(taken?),
        }
    }
}

impl JournalFile {
    /// Opens the journal at `path`, or makes it. A torn append is cut off.
    pub fn open(path: &Path) -> Result<Self, JournalError> {
        let failed = |verb| move |source| JournalError::Io { verb, path: path.to_owned(), source };
        let mut file =
            OpenOptions::new().read(true).append(true).create(true).open(path).map_err(failed("open"))?;
        // Only what the disk holds counts: a record whose sync failed is remembered as if it had been written.
        let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed("read"))?;
        let (records, whole) =
            decode(&bytes).map_err(|damaged| JournalError::Damaged { path: path.to_owned(), damaged })?;
        if whole < bytes.len() {
            tracing::warn!(path = %path.display(), "a torn last record was cut off");
            file.set_len(whole as u64).map_err(failed("cut"))?;
        }
        file.sync_all().map_err(failed("sync"))?;
        if let Some(folder) = path.parent() {
            fs::File::open(folder)
                .and_then(|folder| folder.sync_all())
                .map_err(failed("sync the folder of"))?;
        }
        let inner = Inner { file, records, whole_bytes: whole as u64, broken: false };
        Ok(Self { path: path.to_owned(), inner: Mutex::new(inner) })
    }

    /// Promises something; it is durable when this returns. The thread waits for as long as the disk takes, and others go on
    /// with its other tasks meanwhile.
    pub fn promise(&self, subject: Subject, step: Step) -> Result<Durable, JournalError> {
        block_in_place(|| self.append(&mut self.lock(), subject.record(step, unix_ms())))?;
        Ok(Durable(step))
    }

    fn append(&self, inner: &mut Inner, record: Record) -> Result<(), JournalError> {
        if inner.broken {
            return Err(JournalError::Broken { path: self.path.clone() });
        }
        let failed = |verb| move |source| JournalError::Io { verb, path: self.path.clone(), source };
        if matches!(record.step, Step::Begun | Step::Reserved) {
            inner.take_room().map_err(failed("take room for"))?;
        }
        let line = encode(&record);
        if let Err(source) = inner.file.write_all(&line) {
            // What there is of it is cut off; else what the file says is not known.
            let cut = inner.file.set_len(inner.whole_bytes).and_then(|()| inner.file.sync_all());
            inner.broken = cut.is_err();
            return Err(failed("append to")(source));
        }
        if let Err(source) = inner.file.sync_data() {
            inner.broken = true;
            return Err(failed("sync")(source));
        }
        inner.whole_bytes += line.len() as u64;
        inner.records.push(record);
        Ok(())
    }

    /// Promises *taken* or *refused*, unless one of them was promised before: that one holds for ever (M2). Gives what
    /// holds now, durable. Refused: a migration that does not come from the subject's peer. Waits like [`Self::promise`].
    pub fn decide(&self, subject: Subject, step: Step) -> Result<bool, JournalError> {
        block_in_place(|| {
            let mut inner = self.lock();
            if !is_from(&inner.records, &subject.migration, &subject.peer) {
                return Err(JournalError::Foreign { migration: subject.migration, peer: subject.peer });
            }
            if let Some(taken) = verdict(&inner.records, &subject.migration) {
                return Ok(taken);
            }
            self.append(&mut inner, subject.record(step, unix_ms()))?;
            Ok(step == Step::Taken)
        })
    }

    /// What is written about a migration.
    pub fn account(&self, migration: &str) -> Account {
        Account::of(&self.lock().records, migration)
    }

    /// The last promise of a migration.
    pub fn last_step(&self, migration: &str) -> Option<Step> {
        last_step(&self.lock().records, migration)
    }

    /// The last promise about a guest.
    pub fn last_of(&self, guest: &str) -> Option<Record> {
        self.lock().records.iter().rev().find(|record| record.guest == guest).cloned()
    }

    /// Whether this host, as a destination, has taken the guest.
    pub fn verdict(&self, migration: &str) -> Option<bool> {
        verdict(&self.lock().records, migration)
    }

    /// The promise by which a guest may be at another host, if there is one.
    pub fn handed_over(&self, guest: &str) -> Option<Record> {
        handed_over(&self.lock().records, guest).cloned()
    }

    /// All records, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing panics while it holds the journal")
    }
}

/// The time of a record, or of a report.
pub fn unix_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subject() -> Subject {
        Subject { migration: "m".into(), guest: "g".into(), generation: 1, peer: "p".into() }
    }

    #[test]
    fn a_journal_is_read_again_and_goes_on_after_a_torn_append() {
        let path = std::env::temp_dir().join(format!("journal-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let journal = JournalFile::open(&path).unwrap();
        journal.promise(subject(), Step::Begun).unwrap();
        journal.promise(subject(), Step::Releasing).unwrap();
        drop(journal);
        let torn = fs::metadata(&path).unwrap().len() - 3;
        OpenOptions::new().write(true).open(&path).unwrap().set_len(torn).unwrap();
        let journal = JournalFile::open(&path).unwrap();
        assert_eq!(journal.last_step("m"), Some(Step::Begun));
        journal.promise(subject(), Step::Taken).unwrap();
        drop(journal);
        let journal = JournalFile::open(&path).unwrap();
        assert_eq!((journal.records().len(), journal.verdict("m")), (2, Some(true)));
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_damaged_journal_is_refused_with_its_line() {
        let path = std::env::temp_dir().join(format!("journal-bad-{}", std::process::id()));
        fs::write(&path, "00000000 {}\nmore\n").unwrap();
        let error = JournalFile::open(&path).unwrap_err().to_string();
        assert!(error.contains("line 1"), "{error}");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn the_first_verdict_holds_for_ever() {
        let path = std::env::temp_dir().join(format!("journal-verdict-{}", std::process::id()));
        let _ = fs::remove_file(&path);
        let journal = JournalFile::open(&path).unwrap();
        assert!(!journal.decide(subject(), Step::Refused).unwrap());
        assert!(!journal.decide(subject(), Step::Taken).unwrap(), "refused before");
        assert_eq!(journal.records().len(), 1);
        let stranger = Subject { peer: "stranger".into(), ..subject() };
        assert!(matches!(journal.decide(stranger, Step::Refused), Err(JournalError::Foreign { .. })));
        assert_eq!(journal.records().len(), 1);
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn what_could_not_be_written_is_not_promised() {
        let full = JournalFile {
            path: "/dev/full".into(),
            inner: Mutex::new(Inner {
                file: OpenOptions::new().append(true).open("/dev/full").unwrap(),
                records: Vec::new(),
                whole_bytes: 0,
                broken: false,
            }),
        };
        assert!(matches!(full.promise(subject(), Step::Taken), Err(JournalError::Io { .. })));
        assert_eq!(full.verdict("m"), None);
        assert!(matches!(full.promise(subject(), Step::Taken), Err(JournalError::Broken { .. })));
    }
}
