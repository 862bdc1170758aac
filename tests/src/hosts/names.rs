//! A Knot name server beside the client that holds the guest's name, and lets both sites change it.
//!
//! ```text
//! client 192.0.2.9:53   knotd: web.lab.test A 10.1.0.10 ◄── update, signed ── the sites' daemons
//!                         ▲
//!                         └── kdig: what users are told
//! ```
//!
//! ```ignore
//! let settings = Settings { dns: names::table("lab.test"), ..Settings::default() };
//! let hosts = require!(Hosts::with(plan, &settings));
//! let names = require!(Names::start(&hosts, &[ADDRESS]));
//! ```

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;

use migrated::guest::Guest;

use super::Hosts;
use crate::name_server::{KEY_BASE64, knot_config, zone};
use crate::requires::{Missing, program};
use crate::site::Inmate;
use crate::wait::{PATIENCE, wait_until};
use crate::wan::End;

/// The guest's name.
pub const NAME: &str = "web.lab.test";

/// Where the key lies at each site.
pub const KEY_FILE: &str = "dns.key";

/// The guest, with that name.
pub fn named(mut guest: Guest) -> Guest {
    guest.nics[0].dns_name = Some(NAME.to_owned());
    guest
}

/// The `[[dns]]` table of a site for a zone.
pub fn table(zone: &str) -> String {
    format!(
        "[[dns]]\nzone = {zone:?}\nserver = \"{}\"\nkey_name = \"mover\"\nkey_file = \"/site/{KEY_FILE}\"\n",
        server()
    )
}

/// Where the server answers.
pub fn server() -> SocketAddr {
    let address: Ipv4Addr = End::Client.address().parse().expect("an address of ours");
    SocketAddr::from((address, 53))
}

/// A running server.
#[derive(Debug)]
pub struct Names {
    _daemon: Inmate,
}

impl Names {
    /// Start it with the guest's name at these addresses, and give both sites the key.
    pub fn start(hosts: &Hosts, web: &[Ipv4Addr]) -> Result<Self, Missing> {
        let knotd = program("knotd")?;
        program("kdig")?;
        let site = hosts.site(End::Client);
        fs::create_dir_all(site.join("knot")).expect("make a folder of a site");
        let config = knot_config(&site.inside("knot"), End::Client.address());
        fs::write(site.join("knot/knot.conf"), config).expect("write knot.conf");
        let records: String = web.iter().map(|address| format!("web 60 A {address}\n")).collect();
        fs::write(site.join("knot/lab.zone"), zone("lab.test", &records)).expect("write the zone");
        fs::write(site.join("knot/own.zone"), zone("own.test", "")).expect("write the zone");
        for end in [End::SiteA, End::SiteB] {
            let key = hosts.site(end).join(KEY_FILE);
            fs::write(&key, KEY_BASE64).expect("write a key");
            fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("keep a key to its owner");
        }
        let config = site.inside("knot/knot.conf").display().to_string();
        let names = Self { _daemon: site.start(knotd, ["-c", &config], "knot.log") };
        wait_until(PATIENCE, "knotd to answer", || names.addresses(hosts) == web);
        Ok(names)
    }

    /// The addresses that the client is told for the guest's name, in order.
    pub fn addresses(&self, hosts: &Hosts) -> Vec<Ipv4Addr> {
        let at = format!("@{}", End::Client.address());
        let output = hosts.site(End::Client).run("kdig", [&at, NAME, "A", "+short", "+timeout=2"]);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut addresses: Vec<Ipv4Addr> = said.lines().filter_map(|line| line.trim().parse().ok()).collect();
        addresses.sort();
        addresses
    }
}
