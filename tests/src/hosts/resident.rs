//! A guest that lives at the first host, with somebody who uses it and somebody who watches.

use std::fs;
use std::path::PathBuf;

use migrated::guest::Guest;

use super::Hosts;
use crate::guest_kit::place::Place;
use crate::guest_kit::service::{Answer, Service};
use crate::guest_kit::{ADDRESS, GuestKit, Recipe};
use crate::oracle::image::{Holds, WrittenDisk};
use crate::oracle::{self, Evidence, Kind, Violation};
use crate::prober::figures::{Figures, Threshold};
use crate::prober::record::Numbers;
use crate::prober::{Prober, Watch};
use crate::requires::Missing;
use crate::wait::{PATIENCE, wait_for};
use crate::wan::End;

/// Blocks that the guest's writers go round.
const SLOTS: u64 = 1024;

/// The guest's writers, one a disk.
const WRITERS: [&str; 2] = ["a", "b"];

/// What the guest does meanwhile.
#[derive(Debug, Clone, Copy)]
pub struct Work {
    /// Acknowledged writes a second.
    pub writes_per_s: u32,
    /// Memory that is dirtied.
    pub dirty_mib: u32,
    /// Pages that are dirtied a second.
    pub pages_per_s: u32,
}

impl Default for Work {
    fn default() -> Self {
        Self { writes_per_s: 50, dirty_mib: 8, pages_per_s: 200 }
    }
}

/// What a move has done to a guest and its users.
#[derive(Debug)]
pub struct Judged {
    /// What the users felt.
    pub figures: Figures,
    /// Everything that is wrong.
    pub violations: Vec<Violation>,
    /// Of each disk the highest number that the client heard of.
    pub acknowledged: Vec<u64>,
    /// What the guest said of its memory.
    pub memory: Answer,
}

/// A guest at work.
#[derive(Debug)]
pub struct Resident {
    /// Its description.
    pub guest: Guest,
    /// What it was made of.
    pub kit: GuestKit,
    /// Speaks to it from the client.
    pub service: Service,
}

/// A guest's description, in a site's folder.
const DESCRIPTION: &str = "guest.toml";

impl Hosts {
    /// The description of the guest that was installed, at a host, for `migrated run` there.
    pub fn description(&self, end: End) -> String {
        if end != End::SiteA {
            let [from, to] = [End::SiteA, end].map(|end| self.site(end).join(DESCRIPTION));
            fs::copy(from, to).expect("copy a description");
        }
        self.site(end).inside(DESCRIPTION).display().to_string()
    }
}

impl Resident {
    /// Install a guest at site A, let it go on from its saved state, and set it to work.
    pub fn start(hosts: &Hosts, recipe: &Recipe, work: Work) -> Result<Self, Missing> {
        Self::start_as(hosts, recipe, work, |guest| guest)
    }

    /// The same with another description.
    pub fn start_as(
        hosts: &Hosts,
        recipe: &Recipe,
        work: Work,
        change: impl FnOnce(Guest) -> Guest,
    ) -> Result<Self, Missing> {
        let kit = GuestKit::prepare(recipe)?;
        let site = hosts.site(End::SiteA);
        let state = kit.install(&site.seen("images"), &site.join("boot"));
        kit.install_boot(&hosts.site(End::SiteB).join("boot"));
        let guest = change(kit.guest().clone());
        let description = toml::to_string(&guest).expect("a description is made of plain values");
        fs::write(site.join(DESCRIPTION), description).expect("write a description");
        let saved = site.join("saved");
        // The same file under another name, where that is possible; it is only read.
        fs::hard_link(&state, &saved).or_else(|_| fs::copy(&state, &saved).map(drop)).expect("place a state");
        let (description, saved) = (site.inside(DESCRIPTION), site.inside("saved"));
        let words =
            [description.to_str().expect("a plain path"), "--restore", saved.to_str().expect("a plain path")];
        hosts.migrated(End::SiteA, &[&["run"], &words[..]].concat()).run();
        let service = Service::at(hosts.client(), ADDRESS);
        service.wait_until_it_answers();
        for (name, _) in WRITERS.iter().zip(&guest.disks) {
            let order = format!("writer disk={name} rate={} slots={SLOTS}", work.writes_per_s);
            assert!(service.ask(&order).is_ok());
        }
        let dirty = format!("dirty mib={} rate={}", work.dirty_mib, work.pages_per_s);
        assert!(service.ask(&dirty).is_ok());
        Ok(Self { guest, kit, service })
    }

    /// Begin to watch it from the client.
    pub fn watch(&self, hosts: &Hosts) -> Prober {
        let disks = self.guest.disks.len() as u16;
        let prober = Prober::start(&hosts.client(), &Watch { disks, ..Watch::over(ADDRESS) });
        prober.wait_for_answers(10);
        prober
    }

    /// Have its writers stop, its memory checked and itself switched off, and have the oracle judge: the guest was at
    /// `there` alone, everything that the client heard of is on that site's disks, and no session was harmed.
    #[track_caller]
    pub fn judge(&self, hosts: &Hosts, there: End, prober: Prober) -> Figures {
        let judged = self.examine(hosts, there, prober);
        let found: Vec<String> = judged.violations.iter().map(Violation::to_string).collect();
        assert!(found.is_empty(), "{} violations:\n{}", found.len(), found.join("\n"));
        judged.figures
    }

    /// The same, with everything that the oracle finds wrong.
    pub fn examine(&self, hosts: &Hosts, there: End, prober: Prober) -> Judged {
        let names = [End::SiteA, End::SiteB].map(|end| hosts.site(end).name());
        let states = hosts.states(&self.guest.name);
        let running: Vec<&str> = names
            .into_iter()
            .zip(&states)
            .filter(|(_, state)| *state == "running")
            .map(|(name, _)| name)
            .collect();
        for (disk, writer) in WRITERS.iter().enumerate().take(self.guest.disks.len()) {
            let last = self.service.ask(&format!("writer disk={writer} stop")).number("acknowledged");
            prober.wait_for_number(disk, last);
        }
        // What it finds broken is for the oracle to say.
        let checked = self.service.try_ask("check").unwrap_or_else(|why| Answer::parse(&why));
        let client = prober.finish();
        self.service.ask("poweroff");
        wait_for(PATIENCE, "the guest to be off", || {
            (hosts.states(&self.guest.name)[there as usize] == "stopped").then_some(())
        });
        let expected = hosts.site(there).name();
        let disks = self.written(hosts, there, |disk| Some(client.disks[disk].highest()));
        let evidence = Evidence {
            disks,
            identical: Vec::new(),
            memory: Some(&checked),
            running,
            expected,
            client: &client,
        };
        let violations = oracle::violations(&evidence, hosts.world.scratch.path());
        let figures = Figures::of(&client, Threshold::default());
        Judged {
            figures,
            violations,
            acknowledged: client.disks.iter().map(Numbers::highest).collect(),
            memory: checked,
        }
    }

    /// It has lost its memory and is off, and with it its sessions: have the oracle judge that everything that the client
    /// heard of is on the disks of the site where it is.
    #[track_caller]
    pub fn judge_disks(&self, hosts: &Hosts, there: End, prober: Prober) {
        let (client, expected) = (prober.finish(), hosts.site(there).name());
        let evidence = Evidence {
            disks: self.written(hosts, there, |_| None),
            identical: Vec::new(),
            memory: None,
            running: vec![expected],
            expected,
            client: &client,
        };
        let mut found = oracle::violations(&evidence, hosts.world.scratch.path());
        found.retain(|violation| violation.kind != Kind::Session);
        assert!(found.is_empty(), "{found:?}");
    }

    /// Its disks at a site; `most` is the highest number of one that was ever begun, where that is known.
    fn written(&self, hosts: &Hosts, there: End, most: impl Fn(usize) -> Option<u64>) -> Vec<WrittenDisk> {
        let disks = (0..self.guest.disks.len()).map(|disk| WrittenDisk {
            image: self.image(hosts, there, disk),
            holds: if disk == 0 { Holds::FileSystem } else { Holds::Numbers },
            slots: SLOTS,
            most: most(disk),
        });
        disks.collect()
    }

    /// The image of one of its disks at a site, as the test sees it.
    pub fn image(&self, hosts: &Hosts, end: End, disk: usize) -> PathBuf {
        hosts.site(end).seen("images").join(&self.guest.disks[disk].image)
    }
}

impl Hosts {
    /// Where the users are.
    pub fn client(&self) -> Place {
        Place::beside(self.world.client.pid())
    }
}
