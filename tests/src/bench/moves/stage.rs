//! Where QEMU moves a guest by its own means: the same sites, the same guest, the same command line, plain files.
//!
//! ```text
//! site-a  QEMU ═ tap0 ── br0 ┄┄ (at the switch) ┄┄ vx0 ══ VXLAN over the WAN ══ vx0 ── brl ── tap0 ═ QEMU  site-b
//! ```
//!
//! The guest's network is stretched to the destination, which is what makes its own address live on there without
//! any of our parts. One command at the source joins the two, as soon as the guest stands still.

use std::fs::{self, File};
use std::io;
use std::os::unix::net::UnixStream;

use migrated::guest::Guest;
use migrated::qemu::{self, Accelerator, Backing, Paths};
use serde_json::json;

use crate::guest_kit::place::Place;
use crate::guest_kit::service::Service;
use crate::guest_kit::{ADDRESS, GuestKit, Recipe};
use crate::hosts::resident::Work;
use crate::prober::{Prober, Watch};
use crate::qmp::Qmp;
use crate::requires::Missing;
use crate::site::{Inmate, Site};
use crate::wan::{End, WanProfile};
use crate::world::World;

use super::sample::LONG;

/// A QEMU and its monitor.
#[derive(Debug)]
pub struct Machine {
    /// Its monitor.
    pub qmp: Qmp,
    _qemu: Inmate,
}

/// A world with a guest at site A, under nobody's hand.
#[derive(Debug)]
pub struct Stage {
    /// The guest.
    pub source: Machine,
    /// Speaks to it from the client.
    pub service: Service,
    /// Its description.
    pub guest: Guest,
    /// Where it is.
    pub world: World,
}

impl Stage {
    /// Restore the guest and set it to work.
    pub fn new(profile: WanProfile, recipe: &Recipe, work: Work) -> Result<Self, Missing> {
        let kit = GuestKit::prepare(recipe)?;
        let world = World::new(profile)?;
        for end in [End::SiteA, End::SiteB] {
            for folder in ["images", "boot"] {
                fs::create_dir_all(world.at(end).join(folder)).expect("make a folder of a site");
            }
        }
        let state = kit.install(&world.site_a.join("images"), &world.site_a.join("boot"));
        kit.install_boot(&world.site_b.join("boot"));
        let guest = kit.guest().clone();
        for disk in &guest.disks {
            let size_bytes =
                fs::metadata(world.site_a.join("images").join(&disk.image)).expect("an image").len();
            let empty = File::create(world.site_b.join("images").join(&disk.image)).expect("make an image");
            empty.set_len(size_bytes).expect("set the size of an image");
        }
        lay_network(&world);
        let mut source = start(&world.site_a, &guest);
        load(&mut source.qmp, &world.site_a, &state);
        let service = Service::at(Place::beside(world.client.pid()), ADDRESS);
        service.wait_until_it_answers();
        service.ask(&format!("writer disk=a rate={} slots=1024", work.writes_per_s));
        service.ask(&format!("dirty mib={} rate={}", work.dirty_mib, work.pages_per_s));
        Ok(Self { source, service, guest, world })
    }

    /// Watch the guest from the client.
    pub fn watch(&self) -> Prober {
        let prober = Prober::start(&Place::beside(self.world.client.pid()), &Watch::over(ADDRESS));
        prober.wait_for_answers(10);
        prober
    }

    /// A QEMU that waits for the guest at site B.
    pub fn destination(&self) -> Machine {
        start(&self.world.site_b, &self.guest)
    }
}

/// Packets to the guest go to site B from here on.
pub fn switch_network(world: &World, guest: &Guest) {
    let mac = &guest.nics[0].mac;
    world
        .site_a
        .shell(&format!("ip link set vx0 master br0\nbridge fdb replace {mac} dev vx0 master static"));
}

fn lay_network(world: &World) {
    let tunnel = |here: End, there: End| {
        format!(
            "ip link add vx0 type vxlan id 4242 local {} remote {} dstport 4789 df unset\n\
             ip link set vx0 mtu 1500 up\nip tuntap add dev tap0 mode tap vnet_hdr\n",
            here.address(),
            there.address()
        )
    };
    world.site_a.shell(&(tunnel(End::SiteA, End::SiteB) + "ip link set tap0 master br0 up\n"));
    let stretched = "ip link add brl type bridge mcast_snooping 0\nip link set brl up\n\
                     ip link set vx0 master brl\nip link set tap0 master brl up\n";
    world.site_b.shell(&(tunnel(End::SiteB, End::SiteA) + stretched));
}

fn start(site: &Site, guest: &Guest) -> Machine {
    let boot = guest.boot.as_ref().expect("the guest boots a kernel");
    let below_boot = |path| site.inside("boot").join(path);
    let paths = Paths {
        monitor: site.inside("qmp"),
        console: site.inside("console"),
        kernel: Some(below_boot(&boot.kernel)),
        initrd: boot.initrd.as_ref().map(below_boot),
        disks: guest
            .disks
            .iter()
            .map(|disk| Backing::File(site.inside("images").join(&disk.image)))
            .collect(),
        taps: vec!["tap0".to_owned()],
    };
    let words = qemu::words(guest, &paths, Accelerator::Tcg, true);
    let qemu = site.start("qemu-system-x86_64", words, "qemu.log");
    Machine { qmp: Qmp::connect(&site.join("qmp")), _qemu: qemu }
}

/// Go on from a saved state.
fn load(qmp: &mut Qmp, site: &Site, state: &std::path::Path) {
    let uri = format!("unix:{}", site.inside("stream").display());
    qmp.ask(
        "migrate-set-capabilities",
        json!({ "capabilities": [{ "capability": "events", "state": true }] }),
    );
    qmp.ask("migrate-incoming", json!({ "uri": uri }));
    let mut stream = UnixStream::connect(site.join("stream")).expect("connect to a QEMU that waits");
    io::copy(&mut File::open(state).expect("open a saved state"), &mut stream).expect("hand a state to QEMU");
    drop(stream);
    qmp.wait_for_event(LONG, "MIGRATION", |data| data["status"] == "completed");
    qmp.ask("cont", json!({}));
}
