//! The WAN of a test: one router between two sites and a client, with a real netem on each of its links.
//!
//! ```text
//!  site-a  wan0 192.0.2.1 ──── .2 wa ┐          netem of wb: everything on its way to site-b
//!  site-b  wan0 192.0.2.5 ──── .6 wb ├ router   netem of wa: everything on its way to site-a
//!  client  wan0 192.0.2.9 ─── .10 wc ┘          netem of wc: everything on its way to the client
//!
//!  kernel with netem:  wan0 ── veth ── wa                  in the router's namespace
//!  without:            wan0 ── veth ── bridge ── tap ── wa  in the router VM (`router_vm`)
//! ```
//!
//! All that happens to the links happens in the router, while packets are on them: no socket of ours is closed, no
//! interface of a site goes down, and nobody is told: a cut link swallows what is sent, as an ocean does.

use std::fmt::Write;
use std::mem;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::Value;

use crate::netns::Namespaces;
use crate::requires::Missing;
use crate::router_vm::{Kit, MACS, RouterVm, TAPS};

pub mod profile;
mod outage;
pub use profile::WanProfile;

/// An end of the WAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The first site, 10.1.0.0/24.
    SiteA,
    /// The second site, 10.2.0.0/24.
    SiteB,
    /// The users of the guests.
    Client,
}

/// A direction, as seen from an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// What the end sends.
    Out,
    /// What is sent to the end.
    In,
}

impl End {
    /// All of them.
    pub const ALL: [End; 3] = [End::SiteA, End::SiteB, End::Client];

    /// The end's own address on its link.
    pub fn address(self) -> &'static str {
        ["192.0.2.1", "192.0.2.5", "192.0.2.9"][self as usize]
    }

    /// The router's address on the link, the end's gateway.
    pub fn gateway(self) -> &'static str {
        ["192.0.2.2", "192.0.2.6", "192.0.2.10"][self as usize]
    }

    /// The networks that are routed to this end.
    pub fn networks(self) -> &'static [&'static str] {
        [&["192.0.2.0/30", "10.1.0.0/24"][..], &["192.0.2.4/30", "10.2.0.0/24"], &["192.0.2.8/30"]]
            [self as usize]
    }

    fn mac(self) -> &'static str {
        ["02:00:00:00:0a:01", "02:00:00:00:0b:01", "02:00:00:00:0c:01"][self as usize]
    }

    fn gateway_mac(self) -> &'static str {
        MACS[self as usize]
    }

    /// The router's interface.
    fn device(self) -> &'static str {
        ["wa", "wb", "wc"][self as usize]
    }

    fn bridge(self) -> &'static str {
        ["ba", "bb", "bc"][self as usize]
    }
}

/// What has passed a link since the world began, as the router counts it: whole Ethernet frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Passed {
    /// Bytes that came from the end.
    pub from_end_bytes: u64,
    /// Bytes that went to the end.
    pub to_end_bytes: u64,
    /// Packets to the end that netem lost or that found its queue full.
    pub dropped_packets: u64,
    /// Packets to the end that netem holds at this moment.
    pub held_packets: u64,
}

/// The router and its links.
#[derive(Debug)]
pub struct Wan {
    // Before the namespace that its taps are in.
    machine: Option<Mutex<RouterVm>>,
    space: Namespaces,
    links: Mutex<[Link; 3]>,
}

/// What was asked for last of the link of an end.
#[derive(Debug, Default)]
struct Link {
    profile: Option<WanProfile>,
    /// By [`Way`].
    is_cut: [bool; 2],
}

impl Wan {
    /// Set the router up, without links. Without a profile it needs no netem and can never have one.
    pub(crate) fn new(profile: Option<WanProfile>, scratch: &Path) -> Result<Self, Missing> {
        let kit = if profile.is_none() || kernel_has_netem() { None } else { Some(Kit::find()?) };
        let space = Namespaces::network();
        let mut wan = Self { machine: None, space, links: Mutex::default() };
        if let Some(kit) = kit {
            let machine = kit.start(&wan.space, scratch);
            wan.machine = Some(Mutex::new(machine));
            wan.space.ip(&End::ALL.map(bridge).concat());
        }
        wan.ask(FORWARDING);
        Ok(wan)
    }

    /// Lay the cable to an end, whose namespace has none yet.
    pub(crate) fn plug(&self, end: End, site: &Namespaces) {
        let (device, mac, gateway_mac) = (end.device(), end.mac(), end.gateway_mac());
        let (address, gateway, bridge) = (end.address(), end.gateway(), end.bridge());
        let pid = site.pid();
        let far = match self.machine {
            Some(_) => format!("link set {device} master {bridge} up"),
            None => format!("link set {device} address {gateway_mac} up"),
        };
        self.space
            .ip(&format!("link add {device} type veth peer name wan0 address {mac} netns {pid}\n{far}\n"));
        // Segments as large as memory allows are no packets: they would cross the link as one.
        let offloads = ["-K", "wan0", "tso", "off", "gso", "off", "gro", "off"];
        site.net_tool("ethtool").args(offloads).run();
        // Neighbours that are known for ever: nobody notices a cut by an ARP that fails.
        site.ip(&format!(
            "addr add {address}/30 dev wan0\nlink set wan0 up\nroute add default via {gateway}\n\
             neigh replace {gateway} lladdr {gateway_mac} nud permanent dev wan0\n"
        ));
        // A rule that cuts also hides the gateway from the routes.
        self.restore(end);
        let mut lines = format!(
            "addr replace {gateway}/30 dev {device}\\nlink set {device} up\\n\
             neigh replace {address} lladdr {mac} nud permanent dev {device}\\n"
        );
        for network in &end.networks()[1..] {
            let _ = write!(lines, "route replace {network} via {address}\\n");
        }
        self.ask(&format!("printf '{lines}' | ip -batch -"));
        let profile = self.links()[end as usize].profile;
        if let Some(profile) = profile {
            self.set_links(&[end], profile);
        }
    }

    /// Pull the cable out. Cut the link before, or the site's sockets say goodbye as they are closed.
    pub(crate) fn unplug(&self, end: End) {
        self.space.ip_if_there(&format!("link del {}\n", end.device()));
    }

    /// Make all links like this, also while packets are on them.
    pub fn set(&self, profile: WanProfile) {
        println!("wan: {profile}");
        self.set_links(&End::ALL, profile);
    }

    /// Make what is sent to one end pass a link like this.
    pub fn set_link(&self, end: End, profile: WanProfile) {
        println!("wan: to {end:?}: {profile}");
        self.set_links(&[end], profile);
    }

    /// The same without a word, for some of them.
    pub(crate) fn set_links(&self, ends: &[End], profile: WanProfile) {
        let mut lines = String::new();
        for end in ends {
            self.links()[*end as usize].profile = Some(profile);
            let _ = write!(lines, "qdisc replace dev {} root netem {}\\n", end.device(), profile.netem());
        }
        // A per cent sign is one of printf's.
        self.ask(&format!("printf '{}' | tc -batch -", lines.replace('%', "%%")));
    }

    /// Cut the link of an end: nothing passes any more in either direction, and nobody is told.
    pub fn cut(&self, end: End) {
        self.cut_half(end, Way::Out);
        self.cut_half(end, Way::In);
    }

    /// Cut one direction: the link is half open.
    pub fn cut_half(&self, end: End, way: Way) {
        if mem::replace(&mut self.links()[end as usize].is_cut[way as usize], true) {
            return;
        }
        let pref = preference(end, way);
        let line = match way {
            Way::Out => format!("ip rule add pref {pref} iif {} blackhole", end.device()),
            Way::In => {
                let rule = |network: &&str| format!("ip rule add pref {pref} to {network} blackhole");
                end.networks().iter().map(rule).collect::<Vec<_>>().join(" && ")
            }
        };
        self.ask(&line);
    }

    /// Undo every cut of the link of an end.
    pub fn restore(&self, end: End) {
        for way in [Way::Out, Way::In] {
            if mem::replace(&mut self.links()[end as usize].is_cut[way as usize], false) {
                let pref = preference(end, way);
                self.ask(&format!("while ip rule del pref {pref} 2>/dev/null; do :; done"));
            }
        }
    }

    /// What has passed the link of an end.
    pub fn passed(&self, end: End) -> Passed {
        let device = end.device();
        let read = |line: String| -> Value {
            let text = self.ask(&line);
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{line} said {text:?}: {error}"))
        };
        let link = read(format!("ip -json -statistics link show dev {device}"));
        let qdisc = read(format!("tc -json -statistics qdisc show dev {device} root"));
        let bytes = |way: &str| link[0]["stats64"][way]["bytes"].as_u64().expect("ip counts bytes");
        Passed {
            from_end_bytes: bytes("rx"),
            to_end_bytes: bytes("tx"),
            // Without netem there is nothing that drops or holds.
            dropped_packets: qdisc[0]["drops"].as_u64().unwrap_or(0),
            held_packets: qdisc[0]["qlen"].as_u64().unwrap_or(0),
        }
    }

    fn links(&self) -> MutexGuard<'_, [Link; 3]> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Have the router execute a line of shell: an `ip` or `tc` that is not foreseen here.
    #[track_caller]
    pub fn ask(&self, line: &str) -> String {
        match &self.machine {
            Some(machine) => machine.lock().unwrap_or_else(PoisonError::into_inner).ask(line),
            None => self.space.net_tool("sh").args(["-c", line]).run(),
        }
    }
}

/// A router forwards, whatever the way back may be, and sends nobody elsewhere. One line, for [`Wan::ask`].
const FORWARDING: &str = "for of in all default; do \
     echo 0 >/proc/sys/net/ipv4/conf/$of/rp_filter; \
     echo 0 >/proc/sys/net/ipv4/conf/$of/send_redirects; \
     if [ -d /proc/sys/net/ipv6 ]; then echo 1 >/proc/sys/net/ipv6/conf/$of/disable_ipv6; fi; \
     done; echo 1 >/proc/sys/net/ipv4/ip_forward";

/// Lines of `ip` that join the tap of an end with the cable that will be plugged.
fn bridge(end: End) -> String {
    let (bridge, tap) = (end.bridge(), TAPS[end as usize]);
    format!(
        "link add {bridge} type bridge mcast_snooping 0\nlink set {bridge} up\nlink set {tap} master {bridge} up\n"
    )
}

/// The preference, and so the name, of the rules that cut.
fn preference(end: End, way: Way) -> u32 {
    10 + 2 * end as u32 + way as u32
}

/// Whether the kernel of this machine can do it all by itself.
fn kernel_has_netem() -> bool {
    static HAS: OnceLock<bool> = OnceLock::new();
    *HAS.get_or_init(|| {
        let space = Namespaces::network();
        let words = ["qdisc", "add", "dev", "lo", "root", "netem", "limit", "10"];
        space.net_tool("tc").args(words).output().status.success()
    })
}
