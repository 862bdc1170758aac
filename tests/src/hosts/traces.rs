//! What is to be found at a host: processes, devices, routes, rules, files. A guest that has not come leaves none.

use std::fs;

use super::Hosts;
use crate::wait::{PATIENCE, found_within};
use crate::wan::End;

impl Hosts {
    /// Everything at a host that a guest could leave behind, in words.
    pub fn traces(&self, end: End) -> Vec<String> {
        let site = self.site(end);
        let mut found: Vec<String> = site
            .pids()
            .into_iter()
            .filter_map(|pid| Some(format!("process: {}", command_line(pid)?)))
            .collect();
        let network = site.shell(
            "ip -o link | cut -d: -f2; ip route show table all; ip rule; nft list ruleset; \
                        ip neigh show nud permanent; ip neigh show proxy",
        );
        found.extend(network.lines().map(|line| format!("network: {}", line.trim())));
        let images = fs::read_dir(site.seen("images")).expect("list a site's images").flatten();
        found.extend(images.map(|file| format!("image: {}", file.file_name().display())));
        found.sort();
        found
    }

    /// Wait until a host is as it was before a guest began to come, `before` being its traces of then. Copies of
    /// disks that stay on purpose are among them if `keeps_disks`.
    #[track_caller]
    pub fn wait_until_clean(&self, end: End, before: &[String], keeps_disks: bool) {
        let mut left = Vec::new();
        let clean = found_within(PATIENCE, || {
            left = self.traces(end);
            left.retain(|trace| !before.contains(trace));
            if keeps_disks {
                left.retain(|trace| !trace.starts_with("image: "));
            }
            left.is_empty().then_some(())
        });
        assert!(clean.is_some(), "still at {}:\n{}", self.site(end).name(), left.join("\n"));
    }

    /// The tunnels' devices at a host.
    pub fn tunnels(&self, end: End) -> Vec<String> {
        let links = self.site(end).ip_json(&["link", "show", "type", "vxlan"]);
        let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str());
        names.map(str::to_owned).collect()
    }

    /// The processes at a host whose program's path ends so, as the test sees them.
    pub fn processes(&self, end: End, program: &str) -> Vec<u32> {
        let is_it = |pid: &u32| {
            let line = command_line(*pid).unwrap_or_default();
            line.split(' ').next().is_some_and(|first| first.ends_with(program))
        };
        self.site(end).pids().into_iter().filter(is_it).collect()
    }
}

/// None: it has ended.
fn command_line(pid: u32) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).ok().filter(|bytes| !bytes.is_empty())?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " "))
}
