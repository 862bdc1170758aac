//! A Knot name server with one zone and one key, on a port of its own of the loopback.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::requires::{self, Missing};
use crate::scratch::Scratch;
use crate::wait::{PATIENCE, wait_until};

/// The key that may change the zone `lab.test`, and nothing else; `stranger` is known, but may do nothing.
pub const KEY: &[u8; 32] = b"0123456789abcdef0123456789abcdef";

/// The same as it stands in a file.
pub const KEY_BASE64: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A running server.
pub struct Knot {
    child: Child,
    /// Where it answers.
    pub address: SocketAddr,
    _scratch: Scratch,
}

impl Knot {
    /// Start one whose `web.lab.test` is at `web`.
    pub fn start(web: Ipv4Addr) -> Result<Self, Missing> {
        let program = requires::program("knotd")?;
        let scratch = Scratch::new();
        let address = free_port();
        let listen = format!("127.0.0.1@{}", address.port());
        fs::write(scratch.join("knot.conf"), config(scratch.path(), &listen)).expect("write knot.conf");
        fs::write(scratch.join("lab.zone"), zone(web)).expect("write the zone");
        let child = Command::new(program)
            .arg("-c")
            .arg(scratch.join("knot.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start knotd");
        let knot = Self { child, address, _scratch: scratch };
        wait_until(PATIENCE, "knotd to answer", || knot.answers());
        Ok(knot)
    }

    fn answers(&self) -> bool {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket.set_read_timeout(Some(std::time::Duration::from_millis(100))).expect("a timeout");
        let question = tunnel::update::ask_serial(1, "lab.test").expect("a name");
        let mut answer = [0; 512];
        let _ = socket.send_to(&question, self.address);
        let Ok(len_bytes) = socket.recv(&mut answer) else { return false };
        tunnel::update::read_serial(&question, &answer[..len_bytes]).is_some()
    }
}

impl Drop for Knot {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A configuration whose files are all in `folder`, as the server sees it.
pub fn config(folder: &Path, listen: &str) -> String {
    let path = folder.display();
    format!(
        "server:\n  rundir: \"{path}\"\n  listen: {listen}\n\
         database:\n  storage: \"{path}\"\n\
         key:\n  - id: mover\n    algorithm: hmac-sha256\n    secret: {KEY_BASE64}\n  \
         - id: stranger\n    algorithm: hmac-sha256\n    secret: {KEY_BASE64}\n\
         acl:\n  - id: moves\n    key: mover\n    action: update\n\
         zone:\n  - domain: lab.test\n    storage: \"{path}\"\n    file: lab.zone\n    acl: moves\n"
    )
}

/// The zone `lab.test`, with `web` in it.
pub fn zone(web: Ipv4Addr) -> String {
    format!(
        "$ORIGIN lab.test.\n@ 60 SOA ns.lab.test. root.lab.test. 1 3600 900 86400 60\n@ 60 NS ns\n\
         ns 60 A 127.0.0.1\nweb 60 A {web}\n"
    )
}

/// A port that nobody listens at.
fn free_port() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port")
}
