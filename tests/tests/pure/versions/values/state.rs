//! What a host keeps below its `state_dir`, as the fixtures hold it.

use std::net::Ipv4Addr;
use std::time::Duration;

use blockd::replica::encoding::Compression;
use migrated::convergence::TimeLimit;
use migrated::costs::Costs;
use migrated::io::destination::KeptArrival;
use migrated::io::keys::Peer;
use migrated::io::registry::GuestRecord;
use migrated::io::site::{KeptPaths, KeptTunnel};
use migrated::io::source::{Departure, Options};
use migrated::journal::{Record, Step};
use migrated::phase::{Op, Outcome, Phase, TABLE};
use migrated::report::{
    Abort, Cause, DiskReport, LinkReport, ProbeReport, QmpRefusal, RamReport, Report, Undone,
};
use migrated::transport::Transport;
use tunnel::record::Record as TunnelRecord;
use tunnel::transfer::{Move, Side};

use super::peer::{guest, plain_guest, plain_reserve, reserve, reserved};

/// A journal with every step.
pub fn journal() -> Vec<Record> {
    let steps = [
        Step::Begun,
        Step::Releasing,
        Step::Released,
        Step::RollingBack,
        Step::RolledBack,
        Step::Reserved,
        Step::Refused,
        Step::Taken,
        Step::Started,
        Step::HandedBack,
        Step::TakenBack,
        Step::Done,
    ];
    let record = |(number, step): (u64, Step)| Record {
        migration: format!("0e2f9a{number:02}"),
        guest: "web".into(),
        generation: number,
        peer: "site-b".into(),
        step,
        unix_ms: 1_764_201_600_000 + number,
    };
    (1..).zip(steps).map(record).collect()
}

pub fn guests() -> Vec<GuestRecord> {
    let (moved_to, came_from) = (Some("site-b".to_owned()), Some("site-c".to_owned()));
    vec![
        GuestRecord {
            guest: plain_guest(),
            generation: 0,
            moved_to: None,
            came_from: None,
            given_addresses: Default::default(),
        },
        GuestRecord {
            guest: guest(),
            generation: 3,
            moved_to,
            came_from,
            given_addresses: Default::default(),
        },
    ]
}

/// By their migrations.
pub fn departures() -> Vec<Departure> {
    let options = Options {
        wan: true,
        max_downtime: Duration::from_millis(300),
        ram_start: Duration::from_secs(5),
        transport: Some(Transport::Exec(
            ["ssh", "site-b", "migrated", "link-stdio"].map(str::to_owned).to_vec(),
        )),
        cold: true,
        compression: Compression::On,
        time_limit: TimeLimit::Given(Duration::from_secs(3600)),
    };
    let plain = Options { transport: None, cold: false, compression: Compression::Auto, ..options.clone() };
    let plain = Options { wan: false, time_limit: TimeLimit::Computed, ..plain };
    let tcp = Options { transport: Some(Transport::Tcp), compression: Compression::Off, ..plain.clone() };
    let tcp = Options { time_limit: TimeLimit::None, ..tcp };
    let departure = |migration: &str, options| Departure {
        migration: migration.to_owned(),
        guest: "web".into(),
        to: "site-b".into(),
        options,
        bandwidth_bytes_per_s: None,
        ran: true,
        generation: 3,
        is_taken_back: false,
        to_home: false,
        costs: Costs::default(),
    };
    let whole = Departure { bandwidth_bytes_per_s: Some(300_000), ..departure("0e2f9a61", options) };
    vec![
        Departure { ran: false, is_taken_back: true, to_home: true, ..whole },
        departure("0e2f9a62", plain),
        departure("0e2f9a63", tcp),
    ]
}

/// By their guests.
pub fn arrivals() -> Vec<KeptArrival> {
    let source = || "site-a".to_owned();
    vec![
        KeptArrival { source: source(), reserve: plain_reserve(), reserved: reserved() },
        KeptArrival { source: source(), reserve: reserve(), reserved: reserved() },
    ]
}

/// The move whose tunnel is kept.
pub fn moved_by() -> Move {
    Move {
        id: 7,
        guest_mac: [0x52, 0x54, 0, 0x12, 0x34, 0x56],
        guest_address: Ipv4Addr::new(10, 1, 0, 10),
        local: Ipv4Addr::new(192, 0, 2, 6),
        remote: Ipv4Addr::new(192, 0, 2, 2),
        bridge: "br0".into(),
        tap: None,
        new_address: Some(Ipv4Addr::new(10, 2, 0, 100)),
    }
}

pub fn paths() -> KeptPaths {
    let record = TunnelRecord { side: Side::Destination, moved: moved_by(), earlier: Vec::new() };
    let tunnels = vec![KeptTunnel { number: 7, tunnel: record.to_text() }];
    KeptPaths { guest: "web".into(), tunnels, is_home: true }
}

pub fn peers() -> Vec<Peer> {
    let mut key = [7; 44];
    key[..12].copy_from_slice(&[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00]);
    let other = {
        let mut key = key;
        key[43] = 8;
        key
    };
    let address = |text: &str| text.parse().expect("an address");
    vec![
        Peer {
            name: "site-b".into(),
            address: address("192.0.2.6:7700"),
            data_addresses: vec![address("192.0.2.6:7701"), address("[2001:db8::6]:7701")],
            key,
        },
        Peer {
            name: "site-c".into(),
            address: address("192.0.2.10:7700"),
            data_addresses: Vec::new(),
            key: other,
        },
    ]
}

/// One abort for each operation, and one of none.
fn aborts() -> Vec<Abort> {
    let refusal =
        QmpRefusal { command: "migrate".into(), class: "GenericError".into(), desc: "no socket".into() };
    let causes = vec![
        Cause { text: "the memory does not go".into(), errno: None, qmp: None },
        Cause { text: "QEMU refused".into(), errno: None, qmp: Some(refusal) },
        Cause { text: "no room".into(), errno: Some(28), qmp: None },
    ];
    let undone = vec![
        Undone::DisksUnsealed,
        Undone::PathBack,
        Undone::MemoryGivenUp,
        Undone::GuestResumed,
        Undone::RecordingEnded,
        Undone::TunnelsRemoved,
        Undone::DestinationTold,
        Undone::DestinationUnreached,
        Undone::ProcessesEnded,
        Undone::CopiesRemoved,
        Undone::CopiesKept,
        Undone::ReservationReleased,
    ];
    let abort = |operation, phase| Abort { phase, operation, causes: causes.clone(), undone: undone.clone() };
    let failed = OPERATIONS.iter().map(|(op, phase)| abort(Some(*op), *phase));
    std::iter::once(Abort::of(Phase::Bulk, "somebody wanted it")).chain(failed).collect()
}

/// The operations that 0.1.0 had, and the phase of each.
const OPERATIONS: [(Op, Phase); 20] = [
    (Op::Inspect, Phase::PreMigration),
    (Op::Connect, Phase::Connect),
    (Op::Reserve, Phase::Reservation),
    (Op::Replicate, Phase::Bulk),
    (Op::PreparePath, Phase::Bulk),
    (Op::StartRam, Phase::PreCopy),
    (Op::AwaitPause, Phase::PreCopy),
    (Op::SwitchPath, Phase::StopAndCopy),
    (Op::Seal, Phase::StopAndCopy),
    (Op::FinishRam, Phase::StopAndCopy),
    (Op::AwaitLoaded, Phase::StopAndCopy),
    (Op::Release, Phase::Commitment),
    (Op::HandOver, Phase::Commitment),
    (Op::AskVerdict, Phase::InDoubt),
    (Op::AwaitRunning, Phase::Resume),
    (Op::Fence, Phase::Readdress),
    (Op::Readdress, Phase::Readdress),
    (Op::CleanUp, Phase::Readdress),
    (Op::Retreat, Phase::Recovering),
    (Op::Restore, Phase::RollingBack),
];

/// By their migrations: a guest that has moved, and for each operation one that has not.
pub fn reports() -> Vec<Report> {
    let mut reports = vec![moved()];
    let outcomes = [Outcome::RolledBack, Outcome::Refused, Outcome::Cancelled, Outcome::InDoubt];
    for ((number, abort), outcome) in (1..).zip(aborts()).zip(outcomes.into_iter().cycle()) {
        reports.push(Report {
            id: format!("0e2f9b{number:02}"),
            outcome,
            reasons: vec!["why, and what to do".into()],
            abort: Some(abort),
            started_unix_s: 1_764_201_600 + number,
            phases: Vec::new(),
            events: Vec::new(),
            downtime_ms: None,
            predicted_downtime_ms: None,
            link: LinkReport::default(),
            ram: RamReport::default(),
            disks: Vec::new(),
            ..moved()
        });
    }
    reports
}

fn moved() -> Report {
    let probes = vec![
        ProbeReport {
            address: "192.0.2.6:7701".into(),
            goodput_bytes_per_s: Some(1_001),
            trouble: String::new(),
        },
        ProbeReport {
            address: "192.0.2.7:7701".into(),
            goodput_bytes_per_s: None,
            trouble: "no answer".into(),
        },
    ];
    let link = LinkReport {
        sent_bytes: 1_002,
        segments: 0,
        resent_segments: 0,
        rtt_min_us: 20_003,
        goodput_bytes_per_s: 1_004,
        congestion_control: "bbr".into(),
        data_address: "192.0.2.6:7701".into(),
        control_address: "192.0.2.6:7700".into(),
        probes,
    };
    let (total_bytes, raw_bytes, sent_bytes) = (512 << 20, 1_005, 1_006);
    let ram = RamReport {
        total_bytes,
        raw_bytes,
        sent_bytes,
        passes: 7,
        dirty_bytes_per_s: 0,
        final_pass_bytes: 1_008,
        final_pass_ms: 9,
    };
    let disk = DiskReport {
        id: "root".into(),
        size_bytes: 1 << 30,
        raw_bytes: 1_010,
        sent_bytes: 1_011,
        deltas_total: 12,
        delta_bytes: 1_013,
        deltas_per_s: 1.5,
        deltas_series: vec![3, 4, 5],
        deltas_series_step_s: 14,
        coalesced_total: 15,
        is_sealed: false,
        verified_leaves: Some(16_384),
        verified_before_leaves: None,
        seal_ms: 17,
    };
    let known_to_0_1_0 = TABLE.iter().filter(|row| row.phase != Phase::Releasing);
    Report {
        id: "0e2f9a61".into(),
        guest: "web".into(),
        source: "site-a".into(),
        destination: "site-b".into(),
        outcome: Outcome::Moved,
        reasons: Vec::new(),
        abort: None,
        started_unix_s: 1_764_201_600,
        total_ms: 61_018,
        phases: (1_019..).zip(known_to_0_1_0).map(|(took_ms, row)| (row.phase, took_ms)).collect(),
        events: vec![(20, "link: up".into()), (61_018, "readdress: done".into())],
        downtime_ms: Some(121),
        pauses: Vec::new(),
        downtime_error_ms: 10,
        predicted_downtime_ms: Some(122),
        blackout_round_trips: 4,
        link,
        ram,
        disks: vec![disk],
        reached: Vec::new(),
    }
}
