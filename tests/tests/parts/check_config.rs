//! `migrated check-config` on a machine that does not fit its configuration: everything at once, and nothing is changed.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tests::name_server::{KEY_BASE64, Kind, NameServer};
use tests::program::Program;
use tests::scratch::Scratch;
use tests::wait::{PATIENCE, wait_until};
use tests::{binaries, require, requires};

struct Machine {
    program: PathBuf,
    scratch: Scratch,
}

impl Machine {
    /// A configuration with these lines, whose folders are there.
    fn new(program: PathBuf, lines: &str) -> Self {
        let machine = Self { program, scratch: Scratch::new() };
        for folder in ["images", "boot"] {
            fs::create_dir(machine.scratch.join(folder)).unwrap();
        }
        let path = |name: &str| machine.scratch.join(name).display().to_string();
        let text = format!(
            "name = \"site-a\"\nlisten = \"127.0.0.1:7070\"\nstate_dir = {:?}\nruntime_dir = {:?}\n\
             images_dir = {:?}\nboot_dir = {:?}\n",
            path("state"),
            path("run"),
            path("images"),
            path("boot")
        );
        let programs = "programs = { qemu = \"/bin/true\", blockd = \"/bin/true\" }\n";
        let programs = if lines.contains("[programs]") { "" } else { programs };
        fs::write(machine.scratch.join("config.toml"), format!("{text}{programs}{lines}")).unwrap();
        machine
    }

    fn check(&self, words: &[&str]) -> Output {
        let mut command = Command::new(&self.program);
        command.arg("check-config").arg(self.scratch.join("config.toml")).args(words).output().unwrap()
    }

    /// Every finding: its key, and what it says.
    fn findings(&self) -> Vec<(String, String)> {
        let output = self.check(&["--json"]);
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["faults"], serde_json::json!([]));
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        let all = found["findings"].as_array().unwrap();
        all.iter()
            .map(|one| (text(one, "key"), format!("{}; {}", text(one, "what"), text(one, "remedy"))))
            .collect()
    }

    /// Everything below the folder, with its mode.
    fn held(&self) -> Vec<(PathBuf, u32)> {
        let mut held = Vec::new();
        let mut folders = vec![self.scratch.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
                let mode = entry.metadata().unwrap().permissions().mode();
                held.push((entry.path(), mode));
                folders.extend(entry.path().is_dir().then(|| entry.path()));
            }
        }
        held.sort();
        held
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn everything_that_does_not_fit_is_found_at_once_and_nothing_is_changed() {
    let program = require!(binaries::migrated());
    let machine = Machine::new(
        program,
        "qemu = { user = \"no-such-user\" }\nbridges = { lan = \"nobridge0\", wan = \"lo\" }\n\
         network = { tunnel_address = \"192.0.2.77\", pool = [\"127.0.0.1\", \"203.0.113.9\"] }\n\
         [programs]\nqemu = \"no-such-qemu\"\nblockd = \"/etc/passwd\"\n\
         [[dns]]\nzone = \"example.org\"\nserver = \"127.0.0.1:9\"\nkey_name = \"k\"\nkey_file = \"/nonexistent/key\"\n",
    );
    fs::remove_dir(machine.scratch.join("images")).unwrap();
    fs::remove_dir(machine.scratch.join("boot")).unwrap();
    fs::write(machine.scratch.join("boot"), "no folder").unwrap();
    fs::create_dir(machine.scratch.join("state")).unwrap();
    set_mode(&machine.scratch.join("state"), 0o777);
    let before = machine.held();
    let findings = machine.findings();
    let expected = [
        ("state_dir", "can be written to by others (mode 777); chmod go-w"),
        ("images_dir", "is not there; mkdir -p"),
        ("boot_dir", "is no folder"),
        ("programs.qemu", "no-such-qemu is in no folder of $PATH"),
        ("programs.blockd", "/etc/passwd cannot be executed"),
        ("qemu.user", "there is no user \"no-such-user\""),
        ("bridges.lan", "nobridge0: there is no such device"),
        ("bridges.wan", "lo: this is no bridge"),
        ("network.tunnel_address", "192.0.2.77 is no address of this host"),
        ("network.pool", "127.0.0.1 is this host's own address"),
        ("network.pool", "203.0.113.9 lies in no network of this host"),
        ("dns[0].key_file", "cannot read the DNS key /nonexistent/key"),
    ];
    // A machine without nft has one more.
    let found: Vec<_> = findings.iter().filter(|(_, said)| !said.starts_with("nft ")).collect();
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for ((key, said), (wanted, what)) in found.into_iter().zip(expected) {
        assert!(key == wanted && said.contains(what), "{key}: {said}, and not {wanted}: {what}");
    }
    // The daemon would start with it, and warn.
    let told = machine.check(&[]);
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.status.success() && expected.iter().all(|(key, what)| said.contains(key) && said.contains(what)),
        "{said}"
    );
    assert_eq!(machine.check(&["--strict"]).status.code(), Some(1));
    let file = machine.check(&["--file-only"]);
    assert!(file.status.success() && String::from_utf8_lossy(&file.stdout).contains("with nothing wrong"));
    assert_eq!(machine.held(), before);
}

/// What does not fit may do so when it is needed: the daemon warns, and serves.
#[test]
fn the_daemon_warns_of_what_does_not_fit_and_serves_all_the_same() {
    let program = require!(binaries::migrated());
    let machine = Machine::new(program.clone(), "bridges = { lan = \"nobridge0\" }\n");
    let config = machine.scratch.join("config.toml");
    // An address that no other test has.
    let text = fs::read_to_string(&config).unwrap().replace("127.0.0.1:7070", "127.78.1.1:7070");
    fs::write(&config, text).unwrap();
    let log = machine.scratch.join("log");
    let words = ["daemon".into(), "--config".into(), config.into_os_string()];
    let _daemon = Program::start(&program, words, &log);
    let said = || fs::read_to_string(&log).unwrap_or_default();
    wait_until(PATIENCE, "the daemon to serve", || said().contains("serving"));
    wait_until(PATIENCE, "its warning", || {
        said().contains("bridges.lan: nobridge0: there is no such device")
    });
}

#[test]
fn the_key_of_a_zone_is_tried_at_its_server_as_each_program_writes_it() {
    let program = require!(binaries::migrated());
    let keygen = require!(binaries::tsig_keygen());
    let keymgr = require!(requires::program("keymgr"));
    let server = require!(NameServer::start(Kind::Knot, ""));
    let zone = |zone: &str, key_name: &str, key_file: &Path| {
        let server = server.address;
        format!(
            "[[dns]]\nzone = {zone:?}\nserver = \"{server}\"\nkey_name = {key_name:?}\nkey_file = {key_file:?}\n"
        )
    };
    let keys = Scratch::new();
    let key = |name: &str, text: &[u8]| {
        let path = keys.join(name);
        fs::write(&path, text).unwrap();
        set_mode(&path, 0o600);
        path
    };
    let good = key("good", KEY_BASE64.as_bytes());
    let found = |lines: String| Machine::new(program.clone(), &lines).findings();
    assert_eq!(found(zone("lab.test", "mover", &good)), []);

    // They are read, and the server has another secret.
    let made = |program: &Path, words: &[&str]| Command::new(program).args(words).output().unwrap().stdout;
    let of_bind = key("bind", &made(&keygen, &["-a", "hmac-sha512", "mover"]));
    let of_knot = key("knot", &made(&keymgr, &["-t", "mover", "hmac-sha256"]));
    let wrong = key("wrong", b"MDEy!");
    let open = key("open", KEY_BASE64.as_bytes());
    set_mode(&open, 0o640);
    for (zone, wanted, what) in [
        (zone("lab.test", "mover", &of_bind), "dns[0].key_name", "BAD"),
        (zone("lab.test", "mover", &of_knot), "dns[0].key_name", "the signature does not fit (BADSIG)"),
        (
            zone("lab.test", "other", &of_knot),
            "dns[0].key_file",
            "knot, line 3: it holds the key mover, and none called other",
        ),
        (zone("lab.test", "nobody", &good), "dns[0].key_name", "does not know the key nobody"),
        (zone("elsewhere.test", "mover", &good), "dns[0].zone", "not authoritative for elsewhere.test"),
        (zone("lab.test", "mover", &wrong), "dns[0].key_file", "wrong, line 1: the secret is not base64"),
        (zone("lab.test", "mover", &open), "dns[0].key_file", "mode 640); chmod 600"),
    ] {
        let [(key, said)] = &found(zone)[..] else { panic!("one finding is wanted: {what}") };
        assert!(key == wanted && said.contains(what), "{key}: {said}");
    }
    let zones = zone("lab.test", "mover", &good);
    drop(server);
    let [(key, said)] = &found(zones)[..] else { panic!("the server is gone") };
    assert!(key == "dns[0].server" && said.contains("does not answer"), "{key}: {said}");
}
