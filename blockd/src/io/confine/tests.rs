//! Tests of what is left of the world after confinement.
//!
//! What confines holds for a thread and its children, so each test confines a thread of its own; where a process is to
//! be killed, the test starts itself again as a process of its own.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::{TcpListener, UdpSocket};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::process::Command;
use std::thread;

use super::{Confined, Needs, confine, restrict_paths};
use crate::config::ConfineFlag;
use crate::io::scratch::Scratch;

/// Tells the test that it is the process that shall be killed.
const VICTIM: &str = "BLOCKD_CONFINED_VICTIM";

fn in_a_thread<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    thread::Builder::new().spawn(act).unwrap().join().unwrap()
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().to_owned()
}

/// With nothing but what was opened before, a thread reads and writes; everything else is as if it were not there.
#[test]
fn what_is_open_goes_on_and_nothing_else_can_be_reached() {
    let scratch = Scratch::new();
    let (open, other, socket) = (scratch.path("open"), scratch.path("other"), scratch.path("socket"));
    fs::write(&open, "disk").unwrap();
    fs::write(&other, "secret").unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    in_a_thread(move || {
        let mut status = File::open("/proc/thread-self/status").unwrap();
        let disk = File::options().read(true).write(true).open(&open).unwrap();
        let confined = confine(ConfineFlag::Required, &Needs::default()).unwrap();
        assert!(confined.landlock.is_some() && confined.seccomp && confined.rights, "{confined}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut status, &mut text).unwrap();
        for (name, value) in [
            ("Seccomp:", "2"),
            ("NoNewPrivs:", "1"),
            ("CapEff:", "0000000000000000"),
            ("CapPrm:", "0000000000000000"),
        ] {
            assert_eq!(field(&text, name), value, "{name}");
        }
        std::os::unix::fs::FileExt::write_all_at(&disk, b"more", 4).unwrap();
        let (client, _) = (UnixStream::connect(&socket).unwrap(), listener.accept().unwrap());
        drop(client);
        thread::spawn(|| ()).join().unwrap();
        let refused = [
            File::open(&other).map(drop),
            File::create(other.with_extension("new")).map(drop),
            fs::remove_file(&other),
            fs::rename(&other, &open),
            fs::hard_link(&other, other.with_extension("link")),
            TcpListener::bind("127.0.0.1:0").map(drop),
            UdpSocket::bind("127.0.0.1:0").map(drop),
            io_uring::IoUring::new(4).map(drop),
        ];
        for (index, result) in refused.into_iter().enumerate() {
            let error = result.expect_err(&format!("attempt {index} was allowed"));
            assert_eq!(error.raw_os_error(), Some(libc::ENOSYS), "attempt {index}: {error}");
        }
    });
    assert_eq!(fs::read_to_string(scratch.path("open")).unwrap(), "diskmore");
    assert_eq!(fs::read_to_string(scratch.path("other")).unwrap(), "secret");
}

/// Landlock holds where seccomp does not see: it is about the files and not about the calls.
#[test]
fn landlock_alone_lets_no_path_be_opened_and_only_sockets_be_removed() {
    let scratch = Scratch::new();
    let (folder, other) = (scratch.path("run"), scratch.path("other"));
    fs::create_dir(&folder).unwrap();
    fs::write(&other, "secret").unwrap();
    let sockets = vec![folder.join("nbd")];
    drop(UnixListener::bind(&sockets[0]).unwrap());
    in_a_thread(move || {
        restrict_paths(&Needs { sockets: sockets.clone(), abstract_sockets: true }).unwrap();
        for result in [
            File::open(&other).map(drop),
            fs::remove_file(&other),
            TcpListener::bind("127.0.0.1:0").map(drop),
        ] {
            assert_eq!(result.unwrap_err().kind(), ErrorKind::PermissionDenied);
        }
        fs::remove_file(&sockets[0]).unwrap();
    });
    assert_eq!(fs::read_to_string(scratch.path("other")).unwrap(), "secret");
}

#[test]
fn whoever_starts_a_program_is_killed() {
    if std::env::var_os(VICTIM).is_some() {
        confine(ConfineFlag::Required, &Needs::default()).unwrap();
        let error = std::os::unix::process::CommandExt::exec(&mut Command::new("/bin/true"));
        panic!("it goes on: {error}");
    }
    let test = "io::confine::tests::whoever_starts_a_program_is_killed";
    let mut victim = Command::new(std::env::current_exe().unwrap());
    let status = victim.args([test, "--exact"]).env(VICTIM, "1").output().unwrap().status;
    assert_eq!(status.signal(), Some(libc::SIGSYS), "{status}");
}

#[test]
fn off_means_off_and_is_said() {
    let confined = in_a_thread(|| {
        let confined = confine(ConfineFlag::Off, &Needs::default()).unwrap();
        File::open("/proc/self/status").unwrap();
        confined
    });
    assert_eq!(confined.to_string(), "off");
    let partly = Confined { landlock: None, seccomp: true, rights: true };
    assert_eq!(partly.to_string(), "no landlock, seccomp, no capabilities");
}
