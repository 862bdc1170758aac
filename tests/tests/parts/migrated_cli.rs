//! The real `migrated` program: its daemon on a host without guests, and its command line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU8, Ordering};

use serde_json::{Value, json};
use tests::program::Program;
use tests::scratch::Scratch;
use tests::wait::{PATIENCE, wait_for, wait_until};
use tests::{binaries, require, requires};

/// A daemon on an empty host.
struct Site {
    program: PathBuf,
    // Before the files: what it said is printed when a test fails.
    daemon: Option<Program>,
    scratch: Scratch,
}

/// Hosts of this test program so far.
static COUNT: AtomicU8 = AtomicU8::new(1);

impl Site {
    fn described(program: PathBuf) -> Self {
        let scratch = Scratch::new();
        let site = Self { program, scratch, daemon: None };
        let folder = |name: &str| site.scratch.join(name).display().to_string();
        // The tests run beside each other: each has an address of its own.
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let text = format!(
            "name = \"site-a\"\nlisten = \"127.77.{number}.1:7070\"\nstate_dir = {:?}\nruntime_dir = {:?}\n",
            folder("state"),
            folder("run")
        );
        fs::write(site.config(), text).unwrap();
        site
    }

    fn started(program: PathBuf) -> Self {
        let mut site = Self::described(program);
        site.daemon = Some(site.launch("log"));
        wait_until(PATIENCE, "the API's socket", || UnixStream::connect(site.socket()).is_ok());
        site
    }

    fn launch(&self, log: &str) -> Program {
        let arguments = ["daemon".into(), "--config".into(), self.config().into_os_string()];
        Program::start(&self.program, arguments, &self.scratch.join(log))
    }

    fn config(&self) -> PathBuf {
        self.scratch.join("config.toml")
    }

    fn socket(&self) -> PathBuf {
        self.scratch.join("run/api.sock")
    }

    fn cli(&self, words: &[&str]) -> Output {
        Command::new(&self.program).arg("--socket").arg(self.socket()).args(words).output().unwrap()
    }

    fn json(&self, words: &[&str]) -> Value {
        let output = self.cli(&[words, &["--json"]].concat());
        assert!(output.status.success(), "{words:?}: {}", stderr(&output));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    #[track_caller]
    fn refused(&self, words: &[&str], code: i32, named: &str) {
        let output = self.cli(words);
        assert_eq!(output.status.code(), Some(code), "{words:?}: {}", stderr(&output));
        assert!(stderr(&output).contains(named), "{words:?}: {}", stderr(&output));
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn check_config(program: &Path, config: &Path) -> Output {
    Command::new(program).arg("check-config").arg(config).output().unwrap()
}

#[test]
fn a_configuration_that_is_wrong_is_refused_with_line_and_column() {
    let program = require!(binaries::migrated());
    let site = Site::described(program.clone());
    assert!(check_config(&program, &site.config()).status.success());
    let text = fs::read_to_string(site.config()).unwrap();
    fs::write(site.config(), text.clone() + "colour = \"red\"\n").unwrap();
    let daemon = Command::new(&program).args(["daemon", "--config"]).arg(site.config()).output().unwrap();
    for output in [check_config(&program, &site.config()), daemon] {
        assert_eq!(output.status.code(), Some(2));
        let said = stderr(&output);
        assert!(said.contains("line 5, column 1") && said.contains("colour"), "{said}");
    }
    fs::write(site.config(), text.replace("site-a", "site a").replace("7070", "0")).unwrap();
    let said = stderr(&check_config(&program, &site.config()));
    assert!(said.contains("name: ") && said.contains("listen: "), "both at once: {said}");
    let pool = "[network]\ntunnel_address = \"192.0.2.1\"\npool = [\"127.0.0.1\", \"198.18.77.7\"]\n";
    fs::write(site.config(), text + pool).unwrap();
    let said = stderr(&check_config(&program, &site.config()));
    assert!(said.contains("127.0.0.1 is this host's own address on lo"), "{said}");
    assert!(said.contains("198.18.77.7 lies in no network of this host"), "{said}");
    let said = stderr(&check_config(&program, Path::new("/nonexistent/config.toml")));
    assert!(said.contains("/nonexistent/config.toml"), "{said}");
}

#[test]
fn an_empty_host_has_no_guests_no_migrations_and_no_peers() {
    let site = Site::started(require!(binaries::migrated()));
    for words in [["list"], ["status"], ["hosts"]] {
        assert_eq!(site.json(&words), json!([]), "{words:?}");
    }
    assert_eq!(String::from_utf8(site.cli(&["list"]).stdout).unwrap(), "no guests\n");
}

#[test]
fn what_is_not_known_is_refused_by_name_and_the_exit_status_tells_refused_from_wrong() {
    let site = Site::started(require!(binaries::migrated()));
    site.refused(&["send", "--wan", "web", "site-b"], 1, "no guest \"web\"");
    site.refused(&["stop", "web"], 1, "no guest \"web\"");
    site.refused(&["status", "0e2f9a61"], 1, "\"0e2f9a61\"");
    site.refused(&["cancel", "web"], 1, "\"web\"");
    site.refused(&["set", "web", "bandwidth=5Mbit"], 1, "\"web\"");
    site.refused(&["set", "web", "bandwidth=5"], 2, "no unit");
    site.refused(&["set", "web", "downtime=5s"], 2, "bandwidth=none");
    site.refused(&["unpair", "site-b"], 1, "\"site-b\"");
    site.refused(&["send", "web", "site-b", "--bandwidth", "20Mb"], 2, "Mbit");
    site.refused(&["run", "/nonexistent/web.toml"], 2, "/nonexistent/web.toml");
    let wrong = site.scratch.join("web.toml");
    fs::write(&wrong, "name = \"web\"\nmemory = 5\n").unwrap();
    site.refused(&["run", wrong.to_str().unwrap()], 2, "line 2, column 1");
    let output =
        Command::new(&site.program).args(["--socket", "/nonexistent/sock", "list"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/nonexistent/sock"), "{}", stderr(&output));
}

#[test]
fn a_second_daemon_for_the_same_host_is_refused_and_the_first_goes_on() {
    let site = Site::started(require!(binaries::migrated()));
    let mut second = site.launch("second.log");
    assert_eq!(wait_for(PATIENCE, "the second daemon to end", || second.ended()), 1);
    assert!(second.log().contains("another migrated uses"), "{}", second.log());
    assert_eq!(site.json(&["list"]), json!([]));
}

#[test]
fn garbage_on_the_socket_is_answered_and_the_connection_goes_on() {
    let site = Site::started(require!(binaries::migrated()));
    let mut stream = UnixStream::connect(site.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(b"\xff\x00what?\n{\"id\":7,\"command\":\"explode\"}\n{\"id\":8,\"command\":\"list\"}\n")
        .unwrap();
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map(Result::unwrap);
    for named in ["bad-request", "explode", "\"id\":8"] {
        let line = lines.next().unwrap();
        assert!(line.contains(named), "{line}");
    }
    // A line without end ends the connection, and nobody else's.
    let endless = vec![b'x'; migrated::api::line::REQUEST_BYTES_MAX + 1];
    stream.write_all(&endless).unwrap();
    let mut rest = String::new();
    BufReader::new(stream).read_to_string(&mut rest).unwrap();
    assert!(lines.next().unwrap_or(rest).contains("longer than"));
    assert_eq!(site.json(&["list"]), json!([]));
}

#[test]
fn another_user_is_turned_away_even_where_the_socket_lets_him_in() {
    require!(requires::root());
    let setpriv = require!(requires::program("setpriv"));
    let site = Site::started(require!(binaries::migrated()));
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(fs::metadata(site.socket()).unwrap().permissions().mode() & 0o777, 0o600);
    mode(&site.socket(), 0o666);
    mode(site.scratch.path(), 0o755);
    // The program may lie where only root may look.
    let program = site.scratch.join("migrated");
    fs::copy(&site.program, &program).unwrap();
    let mut stranger = Command::new(setpriv);
    stranger.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let output = stranger.arg(program).arg("--socket").arg(site.socket()).arg("list").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("user 65534 may not"), "{}", stderr(&output));
}

#[test]
fn sigterm_ends_the_daemon_in_order_and_the_next_one_takes_its_place() {
    let mut site = Site::started(require!(binaries::migrated()));
    let mut daemon = site.daemon.take().unwrap();
    daemon.terminate();
    assert_eq!(wait_for(PATIENCE, "the daemon to end", || daemon.ended()), 0);
    assert!(daemon.log().contains("guests go on"), "{}", daemon.log());
    assert!(!site.socket().exists());
    site.daemon = Some(site.launch("next.log"));
    wait_until(PATIENCE, "the next daemon's socket", || UnixStream::connect(site.socket()).is_ok());
    // One that was killed leaves its socket, which the next one replaces.
    site.daemon.as_mut().unwrap().kill();
    site.daemon = Some(site.launch("third.log"));
    wait_until(PATIENCE, "the third daemon's socket", || UnixStream::connect(site.socket()).is_ok());
    assert_eq!(site.json(&["list"]), json!([]));
}
