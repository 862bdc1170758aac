//! The supervisor and the daemon as processes: deaths of either, wrong flags, signals.

mod running;

use blockd::control::Command;
use nix::sys::signal::{Signal, kill};
use running::Running;

#[test]
fn a_killed_daemon_is_started_again_and_no_client_finds_the_socket_closed() {
    let running = Running::start();
    for _ in 0..3 {
        let daemon = running.daemon();
        kill(daemon, Signal::SIGKILL).unwrap();
        assert_eq!(&running.greeting(), b"NBDMAGIC");
        running.wait_ready();
        assert_ne!(running.daemon(), daemon);
        running.control().call(Command::Status {}).unwrap();
    }
}

#[test]
fn a_configuration_error_ends_both_with_its_status_and_its_reason() {
    let cases: [(&[&str], i32, &str); 4] = [
        (&["--no-such-flag"], 2, "--no-such-flag"),
        (&["--size", "1M"], 2, "--size is for a new replica"),
        (&["--sidecar", "notify"], 1, "cannot use the sidecar"),
        (&["--replica", "replica", "--size", "1M"], 1, "not overwritten"),
    ];
    for (flags, code, named) in cases {
        let mut running = Running::launch(flags);
        assert_eq!(running.wait().code(), Some(code), "{flags:?}");
        let log = std::fs::read_to_string(running.path("log")).unwrap();
        assert!(log.contains(named), "{flags:?}: {log}");
        assert!(!running.path("nbd").exists() && !running.path("replica").exists());
    }
}

#[test]
fn a_signal_ends_both_and_removes_the_sockets() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut running = Running::start();
        let daemon = running.daemon();
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(0));
        assert!(kill(daemon, None).is_err(), "the daemon is gone");
        assert!(!running.path("nbd").exists() && !running.path("control").exists());
    }
}

#[test]
fn the_daemon_goes_on_without_its_supervisor() {
    let mut running = Running::start();
    let daemon = running.daemon();
    running.supervisor.kill().unwrap();
    running.wait();
    assert_eq!(&running.greeting(), b"NBDMAGIC");
    assert!(running.control().call(Command::Shutdown {}).is_ok());
    let _ = kill(daemon, Signal::SIGKILL); // in case the shutdown did not end it
}

#[test]
fn a_second_daemon_is_refused_and_the_first_goes_on() {
    let running = Running::start();
    // By its sockets; and on sockets of its own, by the lock of the image (D12).
    for (nbd, control, named) in
        [("nbd", "control", "another process listens"), ("n", "c", "another blockd serves")]
    {
        let refused = running.serve_again(nbd, control);
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(named), "{text}");
    }
    assert_eq!(&running.greeting(), b"NBDMAGIC");
}
