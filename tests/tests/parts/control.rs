//! The control socket of the real program, by our client and by `blockd ctl`.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command as Process, Output};

use super::running::{PATIENCE, Running, program};
use blockd::control::{Command, Status};

fn ctl(running: &Running, arguments: &[&str]) -> Output {
    Process::new(program()).arg("ctl").arg(running.path("control")).args(arguments).output().unwrap()
}

fn status(running: &Running) -> Status {
    serde_json::from_value(running.control().call(Command::Status {}).unwrap()).unwrap()
}

#[test]
fn the_status_says_which_disk_is_served_and_how() {
    let running = Running::start();
    let status = status(&running);
    assert_eq!((status.identity.disk_id.as_str(), status.identity.role.as_str()), ("disk", "primary"));
    assert_eq!((status.identity.size_bytes, status.identity.cache.as_str()), (1 << 20, "buffered"));
    let printed = ctl(&running, &["status", "--json"]);
    let again: Status = serde_json::from_slice(&printed.stdout).unwrap();
    assert_eq!(again.identity, status.identity);
    let for_people = String::from_utf8(ctl(&running, &["status"]).stdout).unwrap();
    assert!(for_people.contains("disk         disk, primary, generation 0"), "{for_people}");
}

#[test]
fn limits_are_in_force_until_they_are_replaced() {
    let running = Running::start();
    let limits = |delay| ctl(&running, &["limits", "--delay-us", delay, "--valid-ms", "600000"]);
    assert!(limits("700").status.success());
    assert_eq!(status(&running).throttle.delay_us, 700);
    assert!(limits("0").status.success());
    assert_eq!(status(&running).throttle.delay_us, 0);
}

#[test]
fn nonsense_is_refused_by_name_and_the_connection_goes_on() {
    let running = Running::start();
    let mut stream = UnixStream::connect(running.path("control")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(b"{\"id\":1,\"command\":\"explode\"}\n{\"id\":2,\"command\":\"status\"}\n").unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("bad-request") && lines[0].contains("explode"), "{text}");
    assert!(lines[1].contains("\"id\":2") && lines[1].contains("\"ok\""), "{text}");
}

#[test]
fn the_exit_status_tells_refused_from_wrong() {
    let running = Running::start();
    let wrong = ctl(&running, &["record", "maybe"]);
    assert_eq!(wrong.status.code(), Some(2));
    let nobody = Process::new(program()).args(["ctl", "/nonexistent/socket", "status"]).output().unwrap();
    assert_eq!(nobody.status.code(), Some(1));
    let text = String::from_utf8(nobody.stderr).unwrap();
    assert!(text.contains("/nonexistent/socket") && text.contains("is it running?"), "{text}");
}

#[test]
fn a_shutdown_is_answered_and_ends_daemon_and_supervisor() {
    let mut running = Running::start();
    let done = ctl(&running, &["shutdown"]);
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "done\n");
    assert_eq!(running.wait().code(), Some(0));
    assert!(!running.path("control").exists());
}
