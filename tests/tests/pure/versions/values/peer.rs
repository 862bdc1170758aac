//! One of every message of two daemons, as the fixtures hold it.

use std::net::Ipv4Addr;

use migrated::guest::{Accel, Boot, Disk, Guest, Nic};
use migrated::journal::Step;
use migrated::peer::{Answer, Call, DiskSize, Message, Notice, PathPrepare, Request, Reserve, Reserved};
use migrated::phase::{Outcome, Phase};
use migrated::status::{DiskProgress, LinkProgress, RamProgress, Status};

/// A guest that has everything that a description may hold.
pub fn guest() -> Guest {
    Guest {
        name: "web".into(),
        memory_mib: 512,
        vcpus: 2,
        machine: "pc-i440fx-7.2".into(),
        cpu: "qemu64".into(),
        accel: Accel::Tcg,
        boot: Some(Boot {
            kernel: "vmlinuz".into(),
            initrd: Some("sub/initrd".into()),
            append: "console=ttyS0".into(),
        }),
        disks: vec![
            Disk { id: "root".into(), image: "web.raw".into(), shared: false, format: None },
            Disk { id: "iso".into(), image: "tools.iso".into(), shared: true, format: None },
        ],
        nics: vec![
            Nic {
                id: "net0".into(),
                mac: "52:54:00:12:34:56".into(),
                bridge: "lan".into(),
                address: Some(Ipv4Addr::new(10, 1, 0, 10)),
                dns_name: Some("web.lab.test".into()),
            },
            Nic {
                id: "net1".into(),
                mac: "52:54:00:12:34:57".into(),
                bridge: "back".into(),
                address: None,
                dns_name: None,
            },
        ],
    }
}

/// A guest that has nothing but what it must have.
pub fn plain_guest() -> Guest {
    let disks = vec![Disk { id: "root".into(), image: "mail.raw".into(), shared: false, format: None }];
    let guest =
        Guest { name: "mail".into(), accel: Accel::Auto, boot: None, disks, nics: Vec::new(), ..guest() };
    Guest { memory_mib: 128, vcpus: 1, ..guest }
}

pub fn reserve() -> Reserve {
    Reserve {
        migration: "0e2f9a61".into(),
        generation: 3,
        guest: guest(),
        disks: vec![DiskSize { id: "root".into(), size_bytes: 1 << 30, allocated_bytes: 123_456_789 }],
        boot_digests: vec!["ab".repeat(32), "cd".repeat(32)],
        qemu_version: "7.2.22 (Debian 1:7.2+dfsg-7+deb12u18)".into(),
        architecture: "x86_64".into(),
        accel: "tcg".into(),
        wan: true,
        runs: true,
        dry_run: false,
        given_addresses: Default::default(),
    }
}

/// The same for the guest that has little.
pub fn plain_reserve() -> Reserve {
    let disks = vec![DiskSize { id: "root".into(), size_bytes: 4096, allocated_bytes: 0 }];
    let reserve = Reserve { guest: plain_guest(), disks, boot_digests: Vec::new(), ..reserve() };
    Reserve { wan: false, runs: false, dry_run: true, ..reserve }
}

pub fn reserved() -> Reserved {
    Reserved {
        reservation: "site-b/0e2f9a61".into(),
        qemu_version: "7.2.22".into(),
        tunnel_address: Some(Ipv4Addr::new(192, 0, 2, 6)),
        new_addresses: vec![Some(Ipv4Addr::new(10, 2, 0, 100)), None],
        is_home: true,
        warnings: vec!["there is no KVM here: the guest is emulated".into()],
    }
}

fn plain_reserved() -> Reserved {
    let reserved = Reserved { tunnel_address: None, new_addresses: Vec::new(), is_home: false, ..reserved() };
    Reserved { warnings: Vec::new(), ..reserved }
}

/// A migration in the middle, with a number of its own in every field.
pub fn status() -> Status {
    Status {
        id: "0e2f9a61".into(),
        guest: "web".into(),
        source: "site-a".into(),
        destination: "site-b".into(),
        incoming: false,
        phase: Phase::PreCopy,
        elapsed_ms: 61_001,
        phase_elapsed_ms: 1_002,
        disks: vec![DiskProgress {
            id: "root".into(),
            size_bytes: 1 << 30,
            total_bytes: 123_456_789,
            left_bytes: 1_003,
            delta_bytes: 1_004,
            sent_bytes: 1_005,
            deltas_total: 1_006,
            rate_bytes_per_s: 1_007,
            throttle_level: 8,
        }],
        ram: RamProgress {
            total_bytes: 512 << 20,
            left_bytes: 1_009,
            raw_bytes: 1_010,
            sent_bytes: 1_011,
            passes: 12,
            dirty_bytes_per_s: 1_013,
            rate_bytes_per_s: 1_014,
        },
        link: LinkProgress {
            up: true,
            goodput_bytes_per_s: 1_015,
            rtt_us: 20_016,
            quiet_ms: 17,
            sent_bytes: 1_018,
            segments: 0,
            resent_segments: 0,
            limit_bytes_per_s: Some(1_019),
            congestion_control: "bbr".into(),
            data_address: "192.0.2.6:7701".into(),
            control_address: "192.0.2.6:7700".into(),
        },
        predicted_downtime_ms: Some(120),
        eta_s: Some(21),
        time_limit_s: Some(1_022),
        warnings: vec!["bbr is not to be had".into()],
        outcome: None,
        reasons: Vec::new(),
        report: None,
    }
}

/// One that has just been asked for, and one that has ended.
fn other_statuses() -> [Status; 2] {
    let ended = Status { phase: Phase::RolledBack, outcome: Some(Outcome::Cancelled), ..status() };
    [
        Status::new("0e2f9a61", "web", "site-a", "site-b"),
        Status { reasons: vec!["it was cancelled".into()], ..ended },
    ]
}

pub fn calls() -> Vec<Call> {
    let migration = || "0e2f9a61".to_owned();
    let [begun, ended] = other_statuses().map(|status| Request::Mirror(Box::new(status)));
    let requests = [
        Request::Reserve(Box::new(reserve())),
        Request::Reserve(Box::new(plain_reserve())),
        Request::PathPrepare(PathPrepare { tunnel: 7, remote: Ipv4Addr::new(192, 0, 2, 2) }),
        Request::PathSwitch {},
        Request::PathBack {},
        Request::Take { migration: migration(), generation: 3, run: true },
        Request::Verdict { migration: migration(), generation: 3 },
        Request::Consult { migration: migration() },
        Request::Concluded { migration: migration() },
        Request::TakenBack { migration: migration(), guest: "web".into(), generation: 4 },
        Request::Readdress {},
        Request::Introduce {},
        Request::Abort { reason: "it was cancelled".into(), keep_disks: true },
        Request::Mirror(Box::new(status())),
        begun,
        ended,
    ];
    (1..).zip(requests).map(|(id, request)| Call { id, request }).collect()
}

pub fn messages() -> Vec<Message> {
    let promises = [None, Some(Step::Taken)].map(|promised| Answer::Consulted { promised });
    let [nothing, taken] = promises;
    let answers = [
        Answer::Done {},
        Answer::Reserved(reserved()),
        Answer::Reserved(plain_reserved()),
        Answer::Refused { reasons: vec!["there is no room".into(), "there is no bridge \"lan\"".into()] },
        Answer::Verdict { taken: true, running: false },
        nothing,
        taken,
        Answer::Introduced { version: "0.1.0".into() },
        Answer::Readdressed { names: vec!["web.lab.test".into()], troubles: vec!["back: no answer".into()] },
    ];
    let notices = [Notice::Loaded {}, Notice::Running {}, Notice::Failed { reason: "its QEMU ended".into() }];
    let answers = (1..).zip(answers).map(|(id, answer)| Message::Answer { id, answer });
    answers.chain(notices.map(|notice| Message::Notice { notice })).collect()
}
