//! Sets the scene, saying what it sets up.

use std::net::Ipv4Addr;

use super::screen::Screen;
use super::wish::Wish;
use crate::guest_kit::ADDRESS;
use crate::hosts::Hosts;
use crate::hosts::names::{self, NAME, Names};
use crate::hosts::resident::Resident;
use crate::hosts::settings::Settings;
use crate::prober::Prober;
use crate::requires::Missing;
use crate::scratch::allocated_bytes;
use crate::wan::{End, Way};
use crate::world::Plan;
use migrated::quantity::size;

/// The first address of site B's pool: where new users will be sent.
pub const NEW_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 2, 0, 100);

/// Answers that tell what is usual, before the move begins.
const BASELINE_ANSWERS: u64 = 40;

/// Everything that takes part.
#[derive(Debug)]
pub struct Stage {
    /// The client, at work.
    pub prober: Prober,
    /// The guest.
    pub resident: Resident,
    /// The name server.
    pub names: Names,
    /// The sites.
    pub hosts: Hosts,
    /// What the guest's name led to before.
    pub names_before: Vec<Ipv4Addr>,
}

impl Stage {
    /// Set it.
    pub fn set(wish: &Wish, screen: &mut Screen) -> Result<Self, Missing> {
        let profile = wish.profile();
        screen.say("");
        screen.say(&format!("link    {profile} (tc netem, in both directions)"));
        let settings = Settings { dns: names::table("lab.test"), ..Settings::default() };
        let hosts = Hosts::with(Plan { profile: Some(profile), quiet: true, ..Plan::default() }, &settings)?;
        screen.say(
            "sites   site-a 10.1.0.0/24 and site-b 10.2.0.0/24: own network, files, processes and clock;",
        );
        screen.say("        on each a migrated, paired by a one-time token");
        let names = Names::start(&hosts, &[ADDRESS])?;
        screen.say(
            "guest   being prepared (the first time with this disk and memory it is booted: half a minute) …",
        );
        let work = wish.work();
        let resident = Resident::start_as(&hosts, &wish.recipe(), work, names::named)?;
        let used = size(allocated_bytes(&resident.image(&hosts, End::SiteA, 0)));
        let (memory, disk, writes, dirty) =
            (wish.memory_mib, wish.disk_mib, work.writes_per_s, work.dirty_mib);
        screen.say(&format!(
            "guest   web at site-a, {ADDRESS}: QEMU (emulated CPU), {memory} MiB of memory, {disk} MiB disk, {used} used"
        ));
        screen.say(&format!(
            "        it writes and fsyncs {writes} blocks a second, and overwrites {dirty} MiB of memory, {} pages a second",
            work.pages_per_s
        ));
        let mut prober = resident.watch(&hosts);
        prober.wait_for_answers(BASELINE_ANSWERS);
        prober.mark("send");
        screen.say("client  far away, behind the same link: one TCP session, a line every 50 ms; notes each confirmed write");
        let names_before = names.addresses(&hosts);
        screen.say(&format!("name    {NAME} is {} (a Knot server beside the client)", listed(&names_before)));
        Ok(Self { prober, resident, names, hosts, names_before })
    }

    /// How to look around by hand.
    pub fn directions(&self) -> Vec<String> {
        let enter = |end: End| format!("nsenter -a -t {}", self.hosts.site(end).pid());
        let migrated = self.hosts.program(End::SiteA).display().to_string();
        let mut lines = vec!["Everything is left running. As root, from another terminal:".to_owned()];
        for end in [End::SiteA, End::SiteB] {
            lines.push(format!("  {} {migrated} --socket /run/migrated/api.sock list", enter(end)));
        }
        lines.push(format!("  {} kdig @{} {NAME}", enter(End::Client), names::server().ip()));
        lines.push(format!(
            "  {} ping {ADDRESS}        (the old address; the new one is {NEW_ADDRESS})",
            enter(End::Client)
        ));
        lines.push("Enter ends it.".to_owned());
        lines
    }

    /// Bytes that have gone through the guest's tunnel at site A, and the tunnel's device; none: there is no tunnel.
    pub fn through_tunnel(&self) -> Option<(String, u64)> {
        let devices = self.hosts.site(End::SiteA).ip_json(&["link", "show", "type", "vxlan"]);
        let device = devices.as_array()?.first()?;
        let bytes = |way: Way| device["stats64"][if way == Way::In { "rx" } else { "tx" }]["bytes"].as_u64();
        Some((device["ifname"].as_str()?.to_owned(), bytes(Way::In)? + bytes(Way::Out)?))
    }
}

/// Addresses as people write them.
pub fn listed(addresses: &[Ipv4Addr]) -> String {
    match addresses {
        [] => "unknown".to_owned(),
        some => some.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>().join(", "),
    }
}
