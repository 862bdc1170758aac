//! When the guest has gone, nothing starts it where it was.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use tests::binaries;
use tests::guest_kit::Recipe;
use tests::hosts::Hosts;
use tests::hosts::resident::{Resident, Work};
use tests::require;
use tests::wan::End;
use tests::world::Plan;

use crate::MAIN_JOB;

/// What blockd says when it is asked to serve a guest's first disk at a host where it must not.
#[track_caller]
pub fn refused_disk(hosts: &Hosts, resident: &Resident, end: End) -> String {
    let blockd = binaries::blockd().expect("it was there a moment ago");
    let site = hosts.site(end);
    let image = site.inside("images").join(&resident.guest.disks[0].image);
    let (nbd, control) = (site.inside("x.nbd"), site.inside("x.ctl"));
    let serve = site.tool(&blockd).args(["serve", "--no-supervisor", "--image"]).arg(&image);
    let refused = serve.arg("--nbd").arg(&nbd).arg("--control").arg(&control).refused();
    assert!(!fs::exists(site.join("x.nbd")).expect("look for a socket"));
    refused
}

/// All that holds a disk of a guest at a host: open files and maps, locks, sockets, the folder of its sockets.
fn held(hosts: &Hosts, resident: &Resident, end: End) -> Vec<String> {
    let site = hosts.site(end);
    let images = resident.guest.disks.iter().map(|disk| disk.image.display().to_string());
    let names: Vec<String> = images.chain(["/run/migrated/web".to_owned()]).collect();
    let is_ours = |text: &str| names.iter().any(|name| text.contains(name));
    let mut found = Vec::new();
    for pid in site.pids() {
        let links = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        let files = links.filter_map(|entry| Some(fs::read_link(entry.path()).ok()?.display().to_string()));
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        let all = files.chain(maps.lines().map(str::to_owned));
        found.extend(all.filter(|text| is_ours(text)).map(|text| format!("process {pid}: {text}")));
    }
    let sockets = site.tool("ss").arg("-xanH").run();
    found.extend(sockets.lines().filter(|line| is_ours(line)).map(|line| format!("socket: {line}")));
    let locks = fs::read_to_string("/proc/locks").expect("list the locks");
    for name in resident.guest.disks.iter().map(|disk| site.join("images").join(&disk.image)) {
        for path in [name.clone(), PathBuf::from(format!("{}.blockd", name.display()))] {
            let number = format!(":{} ", fs::metadata(&path).expect("it stays where it was").ino());
            found.extend(
                locks.lines().filter(|line| line.contains(&number)).map(|line| format!("lock: {line}")),
            );
        }
    }
    found
}

/// S0-42: when the command returns, the source holds nothing of the guest's disks.
pub fn a_disk_that_was_left_is_fenced_and_nothing_starts_its_guest_there() {
    let hosts = require!(Hosts::new(Plan::default()));
    let resident = require!(Resident::start(&hosts, &Recipe::default(), Work::default()));
    let prober = resident.watch(&hosts);
    hosts.send(End::SiteA, &MAIN_JOB).end().moved();
    assert_eq!(hosts.states("web"), ["moved", "running"]);

    assert_eq!(held(&hosts, &resident, End::SiteA), [""; 0]);
    // The same look finds what serves it there.
    assert!(held(&hosts, &resident, End::SiteB).iter().any(|what| what.starts_with("lock: ")));

    // Nothing starts it by accident, and nothing serves its disk (M1, D11).
    let refused = hosts.migrated(End::SiteA, &["run", &hosts.description(End::SiteA)]).refused();
    assert!(refused.contains("moved to") && refused.contains("site-b"), "{refused}");
    let refused = refused_disk(&hosts, &resident, End::SiteA);
    assert!(refused.contains("moved") || refused.contains("fenced"), "{refused}");

    prober.wait_for_answers(20);
    resident.judge(&hosts, End::SiteB, prober);
}
