//! Two sites, a client and what lies between, as network namespaces that end with the value.
//!
//! ```text
//!  client 192.0.2.9 ─── wan (router) ─── site A 192.0.2.2 ── br0 10.1.0.1/24 ─┬─ tapA ── guest 10.1.0.100
//!                         │                                                    └─────── neighbour 10.1.0.50
//!                         └───────────── site B 192.0.2.6 ── br0 10.2.0.1/24 ─┬─ tapB ── the same guest
//!                                                                              └─────── stranger 10.2.0.60
//! ```
//!
//! The guest is one namespace with two cables of the same MAC, one into each site; it moves when its address does.
//! Its sockets and its table of MACs stay as they are, as those of a guest do that did not notice.
//!
//! A namespace lives as long as the thread in it, so nothing is left after a panic. Addresses and programs of the
//! host that runs this are out of reach of all of it.

use std::future::Future;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};

use crate::wait::{PATIENCE, wait_until};

type Work = Box<dyn FnOnce() + Send>;

/// A network namespace, and the thread that lives in it.
pub struct Space {
    name: &'static str,
    /// None once the thread is to end.
    work: Option<Sender<Work>>,
    thread: Option<thread::JoinHandle<()>>,
    /// The thread, by which other namespaces find this one.
    pub task: i32,
}

impl Space {
    /// Make an empty one, its loopback up.
    pub fn new(name: &'static str) -> Self {
        let (work, todo): (Sender<Work>, Receiver<Work>) = channel();
        let (told, task) = channel();
        let thread = thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).expect("make a network namespace");
            told.send(nix::unistd::gettid().as_raw()).expect("the maker waits");
            todo.into_iter().for_each(|work| work());
        });
        let task = task.recv().expect("the thread says its number");
        let space = Self { name, work: Some(work), thread: Some(thread), task };
        // It would send and join groups of its own accord.
        space.set("../ipv6/conf/all/disable_ipv6", 1);
        space.set("../ipv6/conf/default/disable_ipv6", 1);
        space.ip("link set lo up");
        space
    }

    /// Do `work` there, and wait for it.
    pub fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = channel();
        let work: Work = Box::new(move || {
            let _ = done.send(std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)));
        });
        self.work.as_ref().expect("open until dropped").send(work).expect("the thread lives");
        match result.recv().expect("the work ends") {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }

    /// Do async `work` there.
    pub fn block_on<T: Send + 'static, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send + 'static,
    ) -> T {
        self.run(|| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(work())
        })
    }

    /// Run a program there; what it wrote. Panics where it fails.
    pub fn program(&self, program: &str, arguments: &str) -> String {
        let name = self.name;
        let (program, arguments) = (program.to_owned(), arguments.to_owned());
        self.run(move || {
            let output = Command::new(&program)
                .args(arguments.split_whitespace())
                .output()
                .unwrap_or_else(|error| panic!("{name}: {program}: {error}"));
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success(), "{name}: {program} {arguments}: {said}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    }

    /// `ip`, with these arguments.
    pub fn ip(&self, arguments: &str) -> String {
        self.program("ip", arguments)
    }

    /// Set a number below `/proc/sys/net/ipv4`.
    pub fn set(&self, path: &'static str, value: u32) {
        self.run(move || std::fs::write(format!("/proc/sys/net/ipv4/{path}"), value.to_string()))
            .unwrap_or_else(|error| panic!("{}: {path}: {error}", self.name));
    }

    /// Every number of IPv4's settings and neighbour tables, with their paths.
    pub fn settings(&self) -> String {
        self.program("sysctl", "-a --pattern net.ipv4.(conf|neigh)")
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        drop(self.work.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Everything.
pub struct World {
    /// Somebody on the internet.
    pub client: Space,
    /// The router between all.
    pub wan: Space,
    /// The host that the guest comes from.
    pub site_a: Space,
    /// The host that the guest goes to.
    pub site_b: Space,
    /// The guest, with a cable into each site.
    pub guest: Space,
    /// A machine on site A's network.
    pub neighbour: Space,
    /// A machine on site B's network.
    pub stranger: Space,
}

/// The guest's MAC.
pub const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0, 0x12, 0x34, 0x56];

impl World {
    /// Everything plugged in, the guest at site A.
    pub fn new() -> Self {
        let world = Self {
            client: Space::new("client"),
            wan: Space::new("wan"),
            site_a: Space::new("site A"),
            site_b: Space::new("site B"),
            guest: Space::new("guest"),
            neighbour: Space::new("neighbour"),
            stranger: Space::new("stranger"),
        };
        world.wire_wan();
        world.wire_site(&world.site_a, 1, &world.neighbour, "10.1.0.50");
        world.wire_site(&world.site_b, 2, &world.stranger, "10.2.0.60");
        for (site, tap, end) in [(&world.site_a, "tapA", "atA"), (&world.site_b, "tapB", "atB")] {
            cable(site, tap, &world.guest, end);
            site.ip(&format!("link set {tap} master br0 up"));
            world.guest.ip(&format!("link set {end} address 52:54:00:12:34:56"));
        }
        world.guest.ip("link set atA up");
        world.guest_address("atA", "add");
        // A cable is up a while after both of its ends.
        for (site, ports) in
            [(&world.site_a, &["wan0", "lan0", "tapA", "br0"][..]), (&world.site_b, &["wan0", "lan0", "br0"])]
        {
            let is_up = |port: &&str| site.ip(&format!("link show {port}")).contains("state UP");
            wait_until(PATIENCE, "the site's cables", || ports.iter().all(is_up));
        }
        world
    }

    /// Unplug the guest at site A and plug it in at B, where `to_b`, or the other way. As for a guest, neither its
    /// sockets nor what it remembers of MACs change.
    pub fn move_guest(&self, to_b: bool) {
        let (from, to) = if to_b { ("atA", "atB") } else { ("atB", "atA") };
        let known = self.guest.ip("neigh show");
        // The address stays on while it changes the cable: on the loopback, where sockets still find it.
        self.guest.ip("addr add 10.1.0.100/32 dev lo");
        self.guest.ip(&format!("link set {from} down"));
        self.guest_address(from, "del");
        self.guest.ip(&format!("link set {to} up"));
        self.guest_address(to, "add");
        for line in known.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if let [address, "dev", _, "lladdr", mac, ..] = words[..] {
                self.guest.ip(&format!("neigh replace {address} lladdr {mac} dev {to} nud reachable"));
            }
        }
        self.guest.ip("addr del 10.1.0.100/32 dev lo");
    }

    /// What a site's kernel holds that a move could have changed, as text. Times and counters are left out.
    pub fn held(site: &Space) -> Held {
        let shown = [
            "link",
            "-4 addr",
            "-4 rule",
            "-4 route show table all",
            "-4 neigh show nud permanent",
            "-4 neigh show proxy",
        ];
        let mut text: Vec<String> = shown.iter().map(|what| site.ip(what)).collect();
        // What a bridge learned by itself comes and goes.
        let ports = site.program("bridge", "fdb show");
        let is_kept = |line: &&str| line.contains("permanent") || line.contains("static");
        text.extend(ports.lines().filter(is_kept).map(str::to_owned));
        text.push(site.program("nft", "-s list ruleset"));
        text.push(site.settings());
        Held(text.join("\n"))
    }

    fn guest_address(&self, end: &str, verb: &str) {
        self.guest.ip(&format!("addr {verb} 10.1.0.100/24 dev {end}"));
        if verb == "add" {
            self.guest.ip(&format!("route add default via 10.1.0.1 dev {end}"));
        }
    }

    fn wire_wan(&self) {
        let Self { wan, client, site_a, site_b, .. } = self;
        wan.set("ip_forward", 1);
        for (space, end, ours, theirs) in [
            (site_a, "to-a", "192.0.2.1/30", "192.0.2.2/30"),
            (site_b, "to-b", "192.0.2.5/30", "192.0.2.6/30"),
            (client, "to-client", "192.0.2.10/30", "192.0.2.9/30"),
        ] {
            cable(wan, end, space, "wan0");
            wan.ip(&format!("addr add {ours} dev {end}"));
            wan.ip(&format!("link set {end} up"));
            space.ip(&format!("addr add {theirs} dev wan0"));
            space.ip("link set wan0 up");
            space.ip(&format!("route add default via {}", ours.trim_end_matches("/30")));
        }
        wan.ip("route add 10.1.0.0/24 via 192.0.2.2");
        wan.ip("route add 10.2.0.0/24 via 192.0.2.6");
        wan.ip("route add 198.51.100.0/24 via 192.0.2.6");
    }

    fn wire_site(&self, site: &Space, number: u8, machine: &Space, address: &str) {
        site.set("ip_forward", 1);
        site.ip(&format!("link add br0 address 02:00:00:00:00:b{number} type bridge"));
        site.ip(&format!("addr add 10.{number}.0.1/24 dev br0"));
        site.ip("link set br0 up");
        cable(site, "lan0", machine, "eth0");
        site.ip("link set lan0 master br0 up");
        machine.ip(&format!("addr add {address}/24 dev eth0"));
        machine.ip("link set eth0 up");
        machine.ip(&format!("route add default via 10.{number}.0.1"));
    }
}

/// What a site's kernel holds, line by line. Printed, it is short: a comparison that fails shows where.
#[derive(Clone, PartialEq)]
pub struct Held(String);

impl Held {
    /// The lines that are here and not in `other`, and the other way.
    pub fn differences(&self, other: &Held) -> Vec<String> {
        let lacks = |held: &Held, line: &str| !held.0.lines().any(|known| known == line);
        let gone = self.0.lines().filter(|line| lacks(other, line)).map(|line| format!("- {line}"));
        let new = other.0.lines().filter(|line| lacks(self, line)).map(|line| format!("+ {line}"));
        gone.chain(new).collect()
    }
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

/// A cable between two namespaces.
fn cable(one: &Space, end: &str, other: &Space, other_end: &str) {
    one.ip(&format!("link add {end} type veth peer name {other_end} netns {}", other.task));
}
