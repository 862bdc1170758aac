//! The configuration of a host's daemon.

use std::fmt::Write;
use std::path::{Path, PathBuf};

use super::clocks;
use crate::site::Site;
use crate::wan::End;

/// What differs from the usual.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Lines of the table `[migration]`.
    pub migration: String,
    /// Lines of the table `[limits]` of site B.
    pub limits_b: String,
    /// A `[[dns]]` table of both sites.
    pub dns: String,
    /// No `[network]`: no tunnels.
    pub without_network: bool,
    /// The bridge of site B that descriptions mean by `lan`; none: `br0`.
    pub bridge_b: Option<&'static str>,
    /// The program of site A that is started as QEMU, as the site sees it.
    pub qemu_a: Option<String>,
    /// Likewise of site B.
    pub qemu_b: Option<String>,
    /// What each host has for its `state_dir`, which is then a file system of its own.
    pub state_mib: Option<u64>,
    /// `listen_data` of each host, as TOML; none: its end of the WAN.
    pub listen_data: Option<[&'static str; 2]>,
    /// The daemons log one JSON object a line.
    pub json_logs: bool,
    /// The daemons log what they say to QEMU, and what QEMU says.
    pub qemu_logs: bool,
    /// The daemons of each host have a wall clock that a test can set.
    pub own_clocks: bool,
    /// Where the tunnels end; none: at the sites' ends of the WAN.
    pub tunnel_addresses: Option<[&'static str; 2]>,
    /// The host that has other programs than these: `migrated` and `blockd`.
    pub older: Option<(End, [PathBuf; 2])>,
}

impl Settings {
    /// The text of a configuration.
    pub fn config(&self, site: &Site, end: End, control: &str, blockd: &Path) -> String {
        let inside = |path: &str| site.inside(path).display().to_string();
        let mut text = format!(
            "name = {:?}\nlisten = \"{control}:7700\"\nlisten_data = {}\n",
            site.name(),
            self.listen_data
                .map_or_else(|| format!("\"{}:7701\"", end.address()), |both| both[end as usize].to_owned())
        );
        for (key, folder) in [("state_dir", "state"), ("images_dir", "images"), ("boot_dir", "boot")] {
            let _ = writeln!(text, "{key} = {:?}", inside(folder));
        }
        let _ = write!(text, "runtime_dir = \"/run/migrated\"\n\n[programs]\nblockd = {blockd:?}\n");
        let at_b = |setting| if end == End::SiteB { setting } else { None };
        let qemu = if end == End::SiteB { &self.qemu_b } else { &self.qemu_a };
        let with_kernels_clock = self.own_clocks.then(|| inside(clocks::QEMU));
        if let Some(qemu) = qemu.as_ref().or(with_kernels_clock.as_ref()) {
            let _ = writeln!(text, "qemu = {qemu:?}");
        }
        let bridge = at_b(self.bridge_b).unwrap_or("br0");
        let _ = write!(text, "\n[bridges]\nlan = {bridge:?}\n");
        if !self.without_network {
            let pool = if end == End::SiteB { "\"10.2.0.100\", \"10.2.0.101\"" } else { "\"10.1.0.100\"" };
            let tunnel_address =
                self.tunnel_addresses.map_or(end.address(), |addresses| addresses[end as usize]);
            let _ = write!(text, "\n[network]\ntunnel_address = \"{tunnel_address}\"\npool = [{pool}]\n");
        }
        let _ = write!(text, "\n[migration]\n{}\n", self.migration);
        if end == End::SiteB {
            let _ = write!(text, "\n[limits]\n{}\n", self.limits_b);
        }
        let _ = write!(text, "\n{}\n", self.dns);
        text
    }
}
