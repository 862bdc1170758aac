//! The supervisor and the daemon as processes: deaths of either, wrong flags, signals.

use super::running::Running;
use blockd::control::Command;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

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
        [("nbd", "control", "another process listens"), ("n", "c", "(blockd); stop it first")]
    {
        let refused = running.serve_again(nbd, control);
        assert_eq!(refused.status.code(), Some(1));
        let text = String::from_utf8(refused.stderr).unwrap();
        assert!(text.contains(named), "{text}");
    }
    assert_eq!(&running.greeting(), b"NBDMAGIC");
}

/// The values of a field of each thread of a process.
fn of_each_thread(process: Pid, field: &str) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).unwrap();
    let value = |task: std::io::Result<std::fs::DirEntry>| {
        let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
        line.trim().to_owned()
    };
    tasks.map(value).collect()
}

/// The daemon confines itself, so one that is started again does so too, and the supervisor can start it.
#[test]
fn a_daemon_keeps_no_right_that_serving_does_not_take_and_a_restarted_one_neither() {
    let running = Running::launch(&["--confine", "required"]);
    running.wait_ready();
    for _ in 0..2 {
        let daemon = running.daemon();
        let none = "0000000000000000";
        let expected = [
            ("Seccomp:", "2"),
            ("NoNewPrivs:", "1"),
            ("CapEff:", none),
            ("CapPrm:", none),
            ("CapInh:", none),
        ];
        for (field, value) in expected {
            let found = of_each_thread(daemon, field);
            assert!(found.len() > 2 && found.iter().all(|found| found == value), "{field} {found:?}");
        }
        let status = running.control().call(Command::Status {}).unwrap();
        let said = status["identity"]["confinement"].as_str().unwrap();
        assert!(said.starts_with("landlock ") && said.ends_with(", seccomp, no capabilities"), "{said}");
        kill(daemon, Signal::SIGKILL).unwrap();
        assert_eq!(&running.greeting(), b"NBDMAGIC");
        running.wait_ready();
    }
    let supervisor = Pid::from_raw(running.supervisor.id() as i32);
    assert_eq!(of_each_thread(supervisor, "Seccomp:"), of_each_thread(Pid::this(), "Seccomp:")[..1]);
}

#[test]
fn confinement_can_be_switched_off_and_is_the_default() {
    for (flags, confined) in [(&[][..], true), (&["--confine", "off"][..], false)] {
        let running = Running::launch(flags);
        running.wait_ready();
        let status = running.control().call(Command::Status {}).unwrap();
        let said = status["identity"]["confinement"].as_str().unwrap();
        assert_eq!(said.contains("seccomp, no capabilities"), confined, "{said}");
        assert_eq!(said == "off", !confined, "{said}");
    }
}

/// The one thing that it then still has to reach by a path.
#[test]
fn a_confined_daemon_without_a_supervisor_removes_its_sockets() {
    let mut running = Running::launch(&["--no-supervisor", "--confine", "required"]);
    running.wait_ready();
    let daemon = Pid::from_raw(running.supervisor.id() as i32);
    assert_eq!(of_each_thread(daemon, "NoNewPrivs:")[0], "1");
    running.signal(Signal::SIGTERM);
    assert_eq!(running.wait().code(), Some(0));
    assert!(!running.path("nbd").exists() && !running.path("control").exists());
}
