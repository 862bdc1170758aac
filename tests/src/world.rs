//! The world of an end-to-end test: two sites in different networks, routers between them, and a user far away.
//!
//! ```text
//!   lan-a 10.1.0.50 ─┐
//!            site-a: br0 10.1.0.1/24   wan0 192.0.2.1/30 ──┐
//!                    ctl0 198.51.100.1/30 ┐ (if wanted)    ├── Wan: a router with netem
//!                    ctl0 198.51.100.2/30 ┘                │
//!            site-b: br0 10.2.0.1/24   wan0 192.0.2.5/30 ──┤
//!            client:                   wan0 192.0.2.9/30 ──┘
//! ```
//!
//! No two of them share a layer 2, a file that can be written, or a process (S0-14, S0-15, S4-58).
//!
//! ```ignore
//! let world = require!(World::new(WanProfile::wan20()));
//! let daemon = world.site_a.start("migrated", ["daemon"], "daemon.log");
//! world.wan.cut(End::SiteB);
//! ```
//!
//! Everything of it is gone when the value is dropped, when the test panics, and when the test is killed.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::program::Tool;
use crate::requires::{Missing, programs, root};
use crate::scratch::Scratch;
use crate::site::{Ground, Site};
use crate::wan::{End, Wan, WanProfile};

/// What a world is made by, where [`World::new`] does not fit.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// The links. None: as fast as they are, for ever, and without a router VM.
    pub profile: Option<WanProfile>,
    /// A second, fast network between the sites alone, for what the daemons say to each other (S1-10).
    pub control_network: bool,
    /// Whoever makes it says what the links are like.
    pub quiet: bool,
    /// More of the host's files for all sites to see, read-only.
    pub shared: Vec<PathBuf>,
}

/// Addresses of the control network at the sites.
pub const CONTROL: [&str; 2] = ["198.51.100.1", "198.51.100.2"];

/// Two sites, a neighbour, a client, and the WAN.
#[derive(Debug)]
pub struct World {
    /// 10.1.0.0/24.
    pub site_a: Site,
    /// 10.2.0.0/24.
    pub site_b: Site,
    /// Where the users are.
    pub client: Site,
    /// A neighbour of site A's guests, on the same bridge.
    pub lan_a: Site,
    /// What is between them.
    pub wan: Wan,
    has_control_network: bool,
    /// Removed last. The test's own files may go here; no site sees them.
    pub scratch: Scratch,
}

impl World {
    /// A world whose links are all like `profile`.
    pub fn new(profile: WanProfile) -> Result<Self, Missing> {
        Self::with(Plan { profile: Some(profile), ..Plan::default() })
    }

    /// A world by plan.
    pub fn with(plan: Plan) -> Result<Self, Missing> {
        root()?;
        programs(&["unshare", "nsenter", "pivot_root", "setpriv", "timeout", "ip", "tc", "ethtool"])?;
        may_unshare()?;
        let scratch = Scratch::new();
        let wan = Wan::new(plan.profile, scratch.path())?;
        let boot = |name, hours: u64| {
            let (covered, shared) = (scratch.path().to_owned(), plan.shared.clone());
            Site::boot(Ground { name, covered, shared, clock_offset_s: hours * 3600 })
        };
        let world = Self {
            site_a: boot("site-a", 30),
            site_b: boot("site-b", 700),
            client: boot("client", 1),
            lan_a: boot("lan-a", 2),
            wan,
            has_control_network: plan.control_network,
            scratch,
        };
        for end in End::ALL {
            world.connect(end);
        }
        world.join_neighbour();
        world.join_sites();
        if let Some(profile) = plan.profile {
            match plan.quiet {
                true => world.wan.set_links(&End::ALL, profile),
                false => world.wan.set(profile),
            }
        }
        Ok(world)
    }

    /// The site at an end of the WAN.
    pub fn at(&self, end: End) -> &Site {
        match end {
            End::SiteA => &self.site_a,
            End::SiteB => &self.site_b,
            End::Client => &self.client,
        }
    }

    /// A place loses power: every process there is gone at once, and not one packet says so. Its files stay.
    pub fn crash(&mut self, end: End) {
        // Silence comes first: the kernel would end the connections of a process that is killed.
        self.wan.cut(end);
        self.at_other_ends(end, |device| format!("link set {device} down\n"));
        self.at_mut(end).crash();
        // The kernel takes its time for what is left of the network; the names are wanted again.
        self.wan.unplug(end);
        self.at_other_ends(end, |device| format!("link del {device}\n"));
    }

    /// Power comes back at a place that has crashed: its files, its network with no link cut, and no program.
    pub fn restart(&mut self, end: End) {
        self.at_mut(end).restart();
        self.connect(end);
        match end {
            End::SiteA => {
                self.join_neighbour();
                self.join_sites();
            }
            End::SiteB => self.join_sites(),
            End::Client => {}
        }
    }

    /// Lines of `ip` for the far ends of the cables that do not go over the WAN.
    fn at_other_ends(&self, end: End, line: impl Fn(&str) -> String) {
        let ends: &[(&Site, &str)] = match end {
            End::SiteA => &[(&self.lan_a, "lan0"), (&self.site_b, "ctl0")],
            End::SiteB => &[(&self.site_a, "ctl0")],
            End::Client => &[],
        };
        for (site, device) in ends.iter().filter(|(site, _)| site.is_up()) {
            site.spaces().ip_if_there(&line(device));
        }
    }

    fn at_mut(&mut self, end: End) -> &mut Site {
        match end {
            End::SiteA => &mut self.site_a,
            End::SiteB => &mut self.site_b,
            End::Client => &mut self.client,
        }
    }

    fn connect(&self, end: End) {
        let space = self.at(end).spaces();
        let mut lines = "link set lo up\n".to_owned();
        if let Some((mac, address)) = bridge_of(end) {
            lines += &format!("link add br0 address {mac} type bridge mcast_snooping 0\n");
            lines += &format!("addr add {address}/24 dev br0\nlink set br0 up\n");
        }
        space.ip(&lines);
        self.wan.plug(end, space);
    }

    /// The neighbour's cable goes when site A goes, whose bridge it is in.
    fn join_neighbour(&self) {
        let (site, neighbour) = (self.site_a.spaces(), self.lan_a.spaces());
        let pid = neighbour.pid();
        site.ip(&format!(
            "link add lan-a type veth peer name lan0 netns {pid}\nlink set lan-a master br0 up\n"
        ));
        neighbour.ip("link set lo up\naddr add 10.1.0.50/24 dev lan0\nlink set lan0 up\n\
                      route replace default via 10.1.0.1\n");
    }

    /// Join a bridge of site B with the bridge of site A: one layer 2, in which guests need no help to be found.
    pub fn join_bridges(&self, bridge_b: &str) {
        let (a, b) = (self.site_a.spaces(), self.site_b.spaces());
        let pid = b.pid();
        a.ip(&format!("link add far0 type veth peer name far0 netns {pid}\nlink set far0 master br0 up\n"));
        b.ip(&format!("link set far0 master {bridge_b} up\n"));
    }

    /// Put a machine with this address on site B's network: the client, by a second cable.
    pub fn join_stranger(&self, address: &str) {
        let (site, stranger) = (self.site_b.spaces(), self.client.spaces());
        let pid = stranger.pid();
        site.ip(&format!("link add s0 type veth peer name s0 netns {pid}\nlink set s0 master br0 up\n"));
        stranger.ip(&format!("addr add {address}/32 dev s0\nlink set s0 up\n"));
    }

    /// Cut the second network between the sites: what is sent there vanishes, and nobody is told.
    pub fn cut_control(&self) {
        for (site, other) in [(&self.site_a, CONTROL[1]), (&self.site_b, CONTROL[0])] {
            // Nobody has that address.
            site.spaces()
                .ip(&format!("neigh replace {other} lladdr 02:00:00:00:00:99 nud permanent dev ctl0\n"));
        }
    }

    /// Undo the cut of the second network.
    pub fn restore_control(&self) {
        for (site, other) in [(&self.site_a, CONTROL[1]), (&self.site_b, CONTROL[0])] {
            site.spaces().ip(&format!("neigh del {other} dev ctl0\n"));
        }
    }

    /// The network of control is one cable between the sites, if they are there.
    fn join_sites(&self) {
        if !self.has_control_network || !self.site_a.is_up() || !self.site_b.is_up() {
            return;
        }
        let (a, b) = (self.site_a.spaces(), self.site_b.spaces());
        let (pid, [at_a, at_b]) = (b.pid(), CONTROL);
        a.ip(&format!(
            "link add ctl0 type veth peer name ctl0 netns {pid}\naddr add {at_a}/30 dev ctl0\nlink set ctl0 up\n"
        ));
        b.ip(&format!("addr add {at_b}/30 dev ctl0\nlink set ctl0 up\n"));
    }
}

/// MAC and address of the bridge that guests of an end are on.
fn bridge_of(end: End) -> Option<(&'static str, &'static str)> {
    match end {
        End::SiteA => Some(("02:00:0a:01:00:01", "10.1.0.1")),
        End::SiteB => Some(("02:00:0a:02:00:01", "10.2.0.1")),
        End::Client => None,
    }
}

/// Root of a container may have been denied namespaces.
fn may_unshare() -> Result<(), Missing> {
    static ALLOWED: OnceLock<Result<(), Missing>> = OnceLock::new();
    let try_it = || {
        let words = ["--net", "--mount", "--pid", "--time", "--fork", "true"];
        let output = Tool::new("unshare").args(words).output();
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Err(Missing::Denied(format!("needs namespaces of its own: {said}")))
    };
    ALLOWED.get_or_init(try_it).clone()
}
