//! Two hosts with `migrated`, paired, in a [`World`]: what an end-to-end test and the demonstration begin with.
//!
//! ```ignore
//! let hosts = require!(Hosts::new(Plan { profile: Some(WanProfile::wan20()), ..Plan::default() }));
//! let guest = require!(Resident::start(&hosts, &Recipe::default()));
//! let sent = hosts.migrated(End::SiteA, &["send", "--wan", "web", "site-b"]).output();
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::binaries;
use crate::program::Tool;
use crate::requires::{Missing, programs};
use crate::site::volume::Volume;
use crate::site::{Inmate, Site};
use crate::wait::{PATIENCE, wait_for};
use crate::wan::End;
use crate::world::{CONTROL, Plan, World};

pub mod clocks;
pub mod hold;
pub mod names;
pub mod monitor;
pub mod settings;
pub mod resident;
pub mod sending;
pub mod traces;

use sending::MOVE_LIMIT;
use settings::Settings;

/// Two hosts that know each other.
#[derive(Debug)]
pub struct Hosts {
    daemons: [Option<Inmate>; 2],
    /// The file systems of the hosts' `state_dir`, where they have one.
    pub state_dirs: Vec<Volume>,
    /// `migrated` and `blockd` of each.
    programs: [[PathBuf; 2]; 2],
    /// Which of them has those of an earlier version.
    older: Option<End>,
    /// More words for the daemons.
    words: &'static [&'static str],
    /// Each has a wall clock of its own.
    own_clocks: bool,
    /// Variables of their environment.
    environment: &'static [&'static str],
    /// Where they are.
    pub world: World,
}

impl Hosts {
    /// A world by plan, with both daemons running and paired.
    pub fn new(plan: Plan) -> Result<Self, Missing> {
        Self::with(plan, &Settings::default())
    }

    /// The same with settings of the daemons.
    pub fn with(mut plan: Plan, settings: &Settings) -> Result<Self, Missing> {
        programs(&["qemu-system-x86_64", "nft"])?;
        programs(if settings.own_clocks { &["cc"] } else { &[] })?;
        let ours = [binaries::migrated()?, binaries::blockd()?];
        let mut programs = [ours.clone(), ours];
        if let Some((end, older)) = &settings.older {
            programs[*end as usize].clone_from(older);
        }
        plan.shared.extend(programs.iter().flatten().filter_map(|path| Some(path.parent()?.to_owned())));
        let has_control_network = plan.control_network;
        let own_clocks = settings.own_clocks;
        let world = World::with(plan)?;
        let environment: &[&str] =
            if settings.qemu_logs { &["MIGRATED_LOG=info,migrated::io::qmp=debug"] } else { &[] };
        let words: &[&str] = if settings.json_logs { &["--log-format", "json"] } else { &[] };
        let (daemons, state_dirs) = ([None, None], Vec::new());
        let older = settings.older.as_ref().map(|(end, _)| *end);
        let mut hosts = Self { daemons, state_dirs, programs, older, words, own_clocks, environment, world };
        for (index, end) in [End::SiteA, End::SiteB].into_iter().enumerate() {
            let control = if has_control_network { CONTROL[index] } else { end.address() };
            let site = hosts.world.at(end);
            for folder in ["state", "images", "boot", hold::FOLDER] {
                fs::create_dir_all(site.join(folder)).expect("make a folder of a site");
            }
            hold::close(site);
            let state_dir = settings.state_mib.map(|mib| Volume::plain(site, "state", mib));
            hosts.state_dirs.extend(state_dir);
            if own_clocks {
                clocks::place(site);
            }
            let config = settings.config(site, end, control, &hosts.programs[index][1]);
            fs::write(site.join("config.toml"), config).expect("write a configuration");
            hosts.start(end);
        }
        hosts.pair();
        Ok(hosts)
    }

    /// The place of one of them.
    pub fn site(&self, end: End) -> &Site {
        self.world.at(end)
    }

    /// Start the daemon of a host, and wait until it answers.
    #[track_caller]
    pub fn start(&mut self, end: End) {
        let site = self.world.at(end);
        let config = site.inside("config.toml").display().to_string();
        let program = self.program(end).display().to_string();
        let holds = site.inside(hold::FOLDER).display().to_string();
        let holds = ["--hold-points", holds.as_str()];
        // An earlier version has none.
        let holds = if self.older == Some(end) { &holds[..0] } else { &holds };
        let words = [&["daemon", "--config", config.as_str()], holds, self.words].concat();
        let clock = self.own_clocks.then(|| clocks::environment(site));
        let variables = self.environment.iter().copied().chain(clock.iter().flatten().map(String::as_str));
        let line = variables.chain([program.as_str()]).chain(words);
        self.daemons[end as usize] = Some(site.start("env", line, "migrated.log"));
        wait_for(PATIENCE, "a daemon to answer", || {
            self.migrated(end, &["list"]).output().status.success().then_some(())
        });
    }

    /// The daemon of a host.
    pub fn daemon(&mut self, end: End) -> &mut Inmate {
        self.daemons[end as usize].as_mut().expect("it was started")
    }

    /// Everything that the daemon of a host has logged.
    pub fn log(&self, end: End) -> String {
        String::from_utf8_lossy(&fs::read(self.site(end).join("migrated.log")).unwrap_or_default())
            .into_owned()
    }

    /// Wait until the daemon of a host has logged something, looking closely: what is shown lags behind.
    #[track_caller]
    pub fn wait_for_event(&self, end: End, what: &str) {
        wait_for(MOVE_LIMIT, what, || self.log(end).contains(what).then_some(()));
    }

    /// Do something for which the link breaks, for a host, which may be over before it is shown.
    #[track_caller]
    pub fn wait_for_broken_link(&self, end: End, action: impl FnOnce()) {
        let logged = ["connection lost", "nothing heard for three seconds"];
        let count = || logged.iter().map(|what| self.log(end).matches(what).count()).sum::<usize>();
        let before = count();
        action();
        wait_for(PATIENCE, "the link to be lost", || (count() > before).then_some(()));
    }

    /// The command line at a host, to be run.
    pub fn migrated(&self, end: End, words: &[&str]) -> Tool {
        self.site(end).tool(self.program(end)).args(["--socket", "/run/migrated/api.sock"]).args(words)
    }

    /// The command line at a host, started beside the test, its output appended to the site's file `log`.
    pub fn begin(&self, end: End, words: &[&str], log: &str) -> Inmate {
        let words = [&["--socket", "/run/migrated/api.sock"], words].concat();
        self.site(end).start(self.program(end), words, log)
    }

    /// The program `migrated` of a host.
    pub fn program(&self, end: End) -> &Path {
        &self.programs[end as usize][0]
    }

    /// End the daemon of the host that has an earlier version, and start today's in its place. Processes of guests stay.
    #[track_caller]
    pub fn upgrade(&mut self) {
        let end = self.older.take().expect("a host has an earlier version");
        let ours = self.programs[1 - end as usize].clone();
        let before = std::mem::replace(&mut self.programs[end as usize], ours);
        self.daemon(end).kill();
        let path = self.site(end).join("config.toml");
        let config = fs::read_to_string(&path).expect("read a configuration");
        let [before, now] = [&before[1], &self.programs[end as usize][1]].map(|path| format!("{path:?}"));
        fs::write(&path, config.replace(&before, &now)).expect("write a configuration");
        self.start(end);
    }

    /// What a command answers as JSON.
    #[track_caller]
    pub fn ask(&self, end: End, words: &[&str]) -> Value {
        let text = self.migrated(end, &[&["--json"], words].concat()).run();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{words:?} answered {text:?}: {error}"))
    }

    #[track_caller]
    fn pair(&self) {
        let answer = self.ask(End::SiteB, &["pair"]);
        let token = answer.as_str().unwrap_or_else(|| panic!("no token in {answer}"));
        self.migrated(End::SiteA, &["pair", token]).run();
    }

    /// The state of a guest at a host, as `list` says it; empty: it is not known there.
    pub fn state(&self, end: End, guest: &str) -> String {
        let list = self.ask(end, &["list"]);
        let known = list.as_array().into_iter().flatten().find(|known| known["name"] == guest);
        known.map_or_else(String::new, |known| known["state"].as_str().unwrap_or_default().to_owned())
    }

    /// The states of a guest at both hosts.
    pub fn states(&self, guest: &str) -> [String; 2] {
        [End::SiteA, End::SiteB].map(|end| self.state(end, guest))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for end in [End::SiteA, End::SiteB] {
            let site = self.site(end);
            let last = |what: &str, text: &str, count: usize| {
                let lines: Vec<&str> = text.lines().collect();
                let lines = &lines[lines.len().saturating_sub(count)..];
                eprintln!("--- {what} of {} ended with:\n{}\n---", site.name(), lines.join("\n"));
            };
            last("the daemon", &self.log(end), 60);
            // What the guests' kernels said, and QEMU.
            for folder in fs::read_dir(site.join("state/guests")).into_iter().flatten().flatten() {
                for name in ["console.log", "qemu.log"] {
                    let bytes = fs::read(folder.path().join(name)).unwrap_or_default();
                    last(name, &String::from_utf8_lossy(&bytes), 40);
                }
            }
        }
    }
}
