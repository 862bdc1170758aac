//! What goes wrong with links besides a plain cut: they flap, a NAT forgets, an address changes.

use crate::site::Site;

use super::{End, Wan};

/// Preference of the rules that part two ends.
const PARTED: u32 = 40;

/// Preferences of the rules that stand for what a NAT has forgotten; those of cuts come before.
const FORGOTTEN: u32 = 30;

impl Wan {
    /// Cut the link of an end for a time, by the router's own clock.
    pub fn cut_for(&self, end: End, seconds: u32) {
        self.cut(end);
        self.pass(seconds);
        self.restore(end);
    }

    /// Cut the link of an end again and again: so many seconds away, so many there.
    pub fn flap(&self, end: End, times: u32, seconds: u32) {
        for _ in 0..times {
            self.cut_for(end, seconds);
            self.pass(seconds);
        }
    }

    /// Let time pass in the router, which is how long an outage lasts and nothing that a test waits for.
    fn pass(&self, seconds: u32) {
        // One line at a time has to be answered in time.
        for _ in 0..seconds {
            self.ask("sleep 1");
        }
    }

    /// What a NAT does that has forgotten the TCP connections of `site` to `peer`: their packets vanish in both
    /// directions, nobody is told, and new connections work. Answers how many there were.
    pub fn forget_connections(&self, end: End, site: &Site, peer: End) -> usize {
        let listed = site.tool("ss").args(["-tnH", "state", "established", "dst", peer.address()]).run();
        // Queues, then the local address with its port, then the peer's.
        let local = listed.lines().filter_map(|line| line.split_whitespace().nth(2));
        let ports: Vec<u16> = local.filter_map(|address| address.rsplit_once(':')?.1.parse().ok()).collect();
        let device = end.device();
        for port in &ports {
            self.ask(&format!(
                "ip rule add pref {FORGOTTEN} iif {device} ipproto 6 sport {port} blackhole && \
                 ip rule add pref {FORGOTTEN} to {} ipproto 6 dport {port} blackhole",
                end.address()
            ));
        }
        ports.len()
    }

    /// Part two ends: nothing passes between them any more in either direction, and nobody is told. Others reach both.
    pub fn part(&self, one: End, other: End) {
        for (from, to) in [(one, other), (other, one)] {
            for network in to.networks() {
                self.ask(&format!("ip rule add pref {PARTED} iif {} to {network} blackhole", from.device()));
            }
        }
    }

    /// Undo all parting.
    pub fn join(&self) {
        self.ask(&format!("while ip rule del pref {PARTED} 2>/dev/null; do :; done"));
    }

    /// Give the link of an end a smaller largest packet, at both of its ends.
    pub fn set_mtu(&self, end: End, site: &Site, bytes: u32) {
        self.ask(&format!("ip link set {} mtu {bytes}", end.device()));
        site.shell(&format!("ip link set wan0 mtu {bytes}"));
    }

    /// Give an end another address: the old one is gone from both sides of its link, and with it what came from there.
    pub fn readdress(&self, end: End, site: &Site, [address, gateway]: [&str; 2]) {
        let (old, old_gateway, device) = (end.address(), end.gateway(), end.device());
        let (mac, gateway_mac) = (end.mac(), end.gateway_mac());
        // The networks behind it move with it.
        let moved: Vec<String> = end.networks()[1..]
            .iter()
            .map(|network| format!("ip route replace {network} via {address}"))
            .collect();
        self.ask(&format!(
            "ip addr add {gateway}/30 dev {device} && \
             ip neigh replace {address} lladdr {mac} nud permanent dev {device} && {} && \
             ip addr del {old_gateway}/30 dev {device}",
            moved.join(" && ")
        ));
        site.shell(&format!(
            "ip addr add {address}/30 dev wan0\n\
             ip neigh replace {gateway} lladdr {gateway_mac} nud permanent dev wan0\n\
             ip route replace default via {gateway}\nip addr del {old}/30 dev wan0\n"
        ));
    }
}
