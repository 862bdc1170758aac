//! A name server with two zones and two keys, on a port of its own of the loopback: Knot or BIND, real ones.
//!
//! ```text
//! lab.test   its records are the test's; the key `mover` may change all of it
//! own.test   `mover` may change the addresses of web.own.test, and nothing else
//! stranger   a key that is known, and may change nothing
//! ```

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use tunnel::question::{Heard, ask_serial, read_serial};
use tunnel::{Authority, KeyAlgorithm, TsigKey};

use crate::binaries;
use crate::program::Tool;
use crate::requires::{self, Missing};
use crate::scratch::Scratch;
use crate::wait::{PATIENCE, wait_until};

/// The secret of every key.
pub const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// The same as it stands in a file.
pub const KEY_BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Which program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Knot DNS.
    Knot,
    /// BIND 9.
    Bind,
}

/// A running server.
pub struct NameServer {
    child: Child,
    /// Which program it is.
    pub kind: Kind,
    /// Where it answers.
    pub address: SocketAddr,
    _scratch: Scratch,
}

impl NameServer {
    /// Starts one whose zone `lab.test` has these records, a line each ("web 300 A 192.0.2.1").
    pub fn start(kind: Kind, records: &str) -> Result<Self, Missing> {
        requires::program("kdig")?;
        let program = match kind {
            Kind::Knot => requires::program("knotd")?,
            Kind::Bind => binaries::named()?,
        };
        let scratch = Scratch::new();
        let address = own_address();
        let config = scratch.join("config");
        let text = match kind {
            Kind::Knot => knot_config(scratch.path(), &format!("{}@{}", address.ip(), address.port())),
            Kind::Bind => bind_config(scratch.path(), address),
        };
        fs::write(&config, text).expect("write the configuration");
        fs::write(scratch.join("lab.zone"), zone("lab.test", records)).expect("write the zone");
        fs::write(scratch.join("own.zone"), zone("own.test", "web 60 A 10.1.0.100\n"))
            .expect("write the zone");
        let mut command = Command::new(program);
        if kind == Kind::Bind {
            // In the foreground, and no thread for each processor.
            command.args(["-f", "-n", "1", "-U", "1"]);
        }
        let child = command
            .arg("-c")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start a name server");
        let server = Self { child, kind, address, _scratch: scratch };
        wait_until(PATIENCE, "the name server to answer", || server.serial("own.test").is_some());
        Ok(server)
    }

    /// The right to change `zone` by the key called `key`.
    pub fn authority(&self, zone: &str, key: &str) -> Authority {
        let key = TsigKey { name: key.to_owned(), algorithm: KeyAlgorithm::HmacSha256, secret: KEY.to_vec() };
        Authority { server: self.address, zone: zone.to_owned(), key }
    }

    /// A zone's serial number: any change would count it on.
    pub fn serial(&self, zone: &str) -> Option<u32> {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a timeout");
        let question = ask_serial(1, zone).expect("a name");
        let mut answer = [0; 512];
        let _ = socket.send_to(&question, self.address);
        let len_bytes = socket.recv(&mut answer).ok()?;
        match read_serial(&question, &answer[..len_bytes]) {
            Heard::Answer(serial) => serial,
            _ => None,
        }
    }

    /// The records of a name, in order, as another program reads them: "300 A 192.0.2.1".
    pub fn records(&self, name: &str, kind: &str) -> Vec<String> {
        let (at, port) = (format!("@{}", self.address.ip()), self.address.port().to_string());
        let words = [&at, "-p", &port, name, kind, "+noall", "+answer", "+noclass", "+timeout=5"];
        let output = Tool::new("kdig").args(words).output();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let lines = said.lines().filter(|line| !line.is_empty() && !line.starts_with(';'));
        let mut records: Vec<String> =
            lines.map(|line| line.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")).collect();
        records.sort();
        records
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Knot's configuration, whose files are all in `folder`, as the server sees it.
pub fn knot_config(folder: &Path, listen: &str) -> String {
    let path = folder.display();
    format!(
        "server:\n  rundir: \"{path}\"\n  listen: {listen}\n\
         database:\n  storage: \"{path}\"\n\
         key:\n  - id: mover\n    algorithm: hmac-sha256\n    secret: {KEY_BASE64}\n  \
         - id: stranger\n    algorithm: hmac-sha256\n    secret: {KEY_BASE64}\n\
         acl:\n  - id: moves\n    key: mover\n    action: update\n  \
         - id: own\n    key: mover\n    action: update\n    update-type: A\n    \
         update-owner: name\n    update-owner-match: equal\n    update-owner-name: web\n\
         zone:\n  - domain: lab.test\n    storage: \"{path}\"\n    file: lab.zone\n    acl: moves\n  \
         - domain: own.test\n    storage: \"{path}\"\n    file: own.zone\n    acl: own\n"
    )
}

fn bind_config(folder: &Path, listen: SocketAddr) -> String {
    let (path, ip, port) = (folder.display(), listen.ip(), listen.port());
    let key = |name: &str| format!("key {name} {{ algorithm hmac-sha256; secret \"{KEY_BASE64}\"; }};\n");
    format!(
        "options {{ directory \"{path}\"; listen-on port {port} {{ {ip}; }}; listen-on-v6 {{ none; }};\n\
         pid-file none; session-keyfile none; recursion no; notify no; dnssec-validation no; }};\n\
         controls {{ }};\n{}{}\
         zone \"lab.test\" {{ type primary; file \"lab.zone\"; allow-update {{ key mover; }}; }};\n\
         zone \"own.test\" {{ type primary; file \"own.zone\"; update-policy {{ grant mover name web.own.test A; }}; }};\n",
        key("mover"),
        key("stranger"),
    )
}

/// A zone with these records.
pub fn zone(name: &str, records: &str) -> String {
    format!(
        "$ORIGIN {name}.\n@ 60 SOA ns.{name}. root.{name}. 1 3600 900 86400 60\n@ 60 NS ns\n\
         ns 60 A 127.0.0.1\n{records}"
    )
}

/// An address at a port that nobody else has. None of those that the kernel gives to whoever asks for any: a question of
/// another test would be in its way. BIND listens only where an interface has the address.
fn own_address() -> SocketAddr {
    static COUNT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Runs beside each other begin at different places.
        let begin = std::process::id() as u16 % 200 * 100;
        let port = 10_000 + (begin + COUNT.fetch_add(1, Ordering::Relaxed)) % 20_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if UdpSocket::bind(address).is_ok() && TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
