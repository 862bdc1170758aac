//! What `blockd` keeps and says, as the fixtures hold it: sidecars, the replica protocol, the control protocol.

use blockd::buffer::PageBuf;
use blockd::control::{
    Command, Failure, FailureCode, Identity, Receiving, Replication, Request, Requests, Status, Throttle,
    Verify,
};
use blockd::delta::{Content, DataSlice};
use blockd::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};
use blockd::replica::batch::Item;
use blockd::replica::encoding::Compression;
use blockd::replica::wire::{FrameType, Hello, RefusalCode, Refused, Welcome, frame};
use blockd::replica::wire::{encode_differing, encode_generation, encode_text};
use blockd::sidecar::{Header, Role};

/// The disk of the fixtures: 256 blocks, the last one short.
pub const SIZE: u64 = (1 << 20) - 512;

/// The session of the frames.
pub const EPOCH: u64 = 5;

/// The boot in which the sidecars were written.
const BOOT: [u8; 16] = [0xb0; 16];

/// Sidecars, each with a name: in every role, and in the states between.
pub fn sidecars() -> Vec<(&'static str, Header)> {
    let new = |role| Header::new("web-root", SIZE, role, BOOT).expect("a good name");
    let primary = Header { generation: 2, ..new(Role::Primary) };
    let (replica_epoch, known_epoch) = (EPOCH, 4);
    let recording = Header {
        recording: true,
        replica_epoch,
        known_epoch,
        replicate_to: "/run/migrated/web/disk-root/replicate".into(),
        ..primary.clone()
    };
    let replica = Header { generation: 2, replica_epoch, ..new(Role::Replica) };
    vec![
        ("new", new(Role::Primary)),
        ("primary", primary),
        ("recording", recording.clone()),
        ("sealed-source", Header { sealed: 3, ..recording.clone() }),
        ("replica", replica.clone()),
        ("sealed-replica", Header { sealed: 3, ..replica }),
        ("promoted", Header { generation: 3, replica_epoch, ..new(Role::Promoted) }),
        ("fenced", Header { generation: 3, moved_to: "site-b".into(), replica_epoch, ..new(Role::Fenced) }),
    ]
}

pub fn hello() -> Hello {
    Hello { version_min: 1, version_max: 1, size: SIZE, generation: 2, disk_id: "web-root".into() }
}

pub fn welcomes() -> [Welcome; 2] {
    let new = Welcome { version: 1, existing: false, previous_epoch: 0 };
    [new, Welcome { existing: true, previous_epoch: 4, ..new }]
}

pub fn refusals() -> Vec<Refused> {
    let text = || "why, and what to do".to_owned();
    RefusalCode::ALL.map(|code| Refused { code, detail: 6, text: text() }).to_vec()
}

/// Frames of the replica protocol but batches, each with a name.
pub fn frames() -> Vec<(String, Vec<u8>)> {
    let of = |frame_type, seq, body: &[u8]| frame(frame_type, EPOCH, seq, body);
    let mut all = vec![("hello".to_owned(), of(FrameType::Hello, 0, &hello().encode()))];
    let [first, later] = welcomes().map(|welcome| of(FrameType::Welcome, 0, &welcome.encode()));
    all.extend([("welcome".to_owned(), first), ("welcome again".to_owned(), later)]);
    all.extend(refusals().iter().map(|refused| {
        (format!("refused {:?}", refused.code), of(FrameType::Refused, 0, &refused.encode()))
    }));
    let generation = encode_generation(3);
    let rest = [
        ("ack", of(FrameType::Ack, 1, &encode_differing(&[]))),
        ("ack with leaves", of(FrameType::Ack, 2, &encode_differing(&[1, 15]))),
        ("seal", of(FrameType::Seal, 0, &generation)),
        ("sealed", of(FrameType::Sealed, 0, &generation)),
        ("unseal", of(FrameType::Unseal, 0, &generation)),
        ("failed", of(FrameType::Failed, 0, &encode_text("the disk is full"))),
    ];
    all.extend(rest.map(|(name, bytes)| (name.to_owned(), bytes)));
    all
}

/// What a batch of the fixtures changes and asks.
pub fn items() -> Vec<Item> {
    let blocks = |from: u64, count: u64| Extent::new(from * BLOCK_BYTES, count * BLOCK_BYTES);
    let data = Content::Data(DataSlice::whole(PageBuf::copy_of(&payload())));
    vec![
        Item::Change(blocks(0, 2), data),
        Item::Change(blocks(4, 3), Content::Hole),
        Item::Change(blocks(8, 1), Content::ZeroesAllocated),
        Item::Digest(Extent::new(0, LEAF_BYTES), [0xd1; 32]),
        Item::AllZeros(Extent::new(LEAF_BYTES, 2 * LEAF_BYTES)),
    ]
}

/// Two blocks that can be compressed.
pub fn payload() -> Vec<u8> {
    b"0123456789abcdef".repeat(2 * BLOCK_BYTES as usize / 16)
}

/// Blocks that the sidecar `recording` says the replica may lack.
pub const LACKING: [std::ops::Range<u64>; 2] = [3..70, 255..256];

/// Requests of the control socket.
pub fn requests() -> Vec<Request> {
    let replicate = |compression| Command::Replicate { to: "/run/replica.sock".into(), compression };
    let seal = |verify| Command::Seal { generation: 3, verify, timeout_ms: 9_000 };
    let commands = [
        Command::Status {},
        Command::Record { on: true },
        Command::Record { on: false },
        replicate(Compression::Auto),
        replicate(Compression::On),
        replicate(Compression::Off),
        Command::StopReplicating {},
        Command::Barrier { timeout_ms: 5_000 },
        seal(Verify::Stale),
        seal(Verify::All),
        Command::Unseal {},
        Command::Fence { generation: 3, moved_to: "site-b".into() },
        Command::Revoke { generation: 4, moved_to: "site-a".into() },
        Command::Promote { generation: 3 },
        Command::Limits { free_writes: 16_384, delay_us: 2_048, valid_ms: 1_000 },
        Command::Policy { name: "paper".into() },
        Command::Repair {},
        Command::Shutdown {},
    ];
    (1..).zip(commands).map(|(id, command)| Request { id, command }).collect()
}

/// Failures of every kind.
pub fn failures() -> Vec<Failure> {
    let codes = [
        FailureCode::BadRequest,
        FailureCode::Unsupported,
        FailureCode::Refused,
        FailureCode::WrongRole,
        FailureCode::WrongGeneration,
        FailureCode::NotRecording,
        FailureCode::NotConnected,
        FailureCode::Timeout,
        FailureCode::DigestMismatch,
        FailureCode::Busy,
        FailureCode::Io,
        FailureCode::Stopping,
    ];
    codes.map(|code| Failure::new(code, "what was wrong", "what to do")).to_vec()
}

/// What two disks say of themselves: a source and a replica.
pub fn statuses() -> [Status; 2] {
    let identity = Identity {
        image: "/var/lib/migrated/images/web.raw".into(),
        disk_id: "web-root".into(),
        size_bytes: SIZE,
        role: "primary".into(),
        generation: 2,
        sealed: 3,
        data_plane: "ring".into(),
        cache: "direct".into(),
        confinement: "landlock 7, seccomp, no capabilities".into(),
    };
    let throttle = Throttle { policy: "paper".into(), level: 1, delay_us: 2, delayed_writes_total: 3 };
    let source = Status {
        identity: identity.clone(),
        replication: replication(),
        receiving: None,
        requests: asked_for(),
        throttle,
    };
    let (epoch, applied_seq, durable_seq) = (EPOCH, 1_001, 1_000);
    let receiving = Receiving {
        epoch,
        applied_seq,
        durable_seq,
        unflushed_bytes: 1_002,
        applied_bytes_total: 1_003,
        compared_leaves_total: 1_004,
    };
    let identity = Identity { role: "replica".into(), ..identity };
    [source, Status { identity, receiving: Some(receiving), ..Status::default() }]
}

fn replication() -> Replication {
    Replication {
        recording: true,
        sealing: true,
        connected: true,
        epoch: EPOCH,
        dirty_blocks: 1_001,
        queued_deltas: 1_002,
        queued_bytes: 1_003,
        deltas_wait: true,
        unacknowledged_bytes: 1_004,
        backlog_bytes: 1_005,
        stale_leaves: 1_006,
        mismatched_leaves: 1_007,
        deltas_total: 1_008,
        delta_bytes_total: 1_009,
        coalesced_total: 1_010,
        sent_bytes_total: 1_011,
        raw_bytes_total: 1_012,
        ratio: 1.25,
        overflowed_total: 1_013,
        batches_total: 1_014,
        covered_bytes_total: 1_015,
        acknowledged_bytes_total: 1_016,
        spared_leaves_total: 1_017,
        link_bytes_per_s: 1_018,
        deltas_per_second: vec![1, 2, 3],
        replicate_to: "/run/replica.sock".into(),
        last_error: "the stream ended".into(),
        read_failures_total: 1_019,
        replica_failures_total: 1_020,
        last_failure: "no room (os error 28)".into(),
    }
}

fn asked_for() -> Requests {
    Requests {
        connections: 1,
        in_flight: 2,
        reads_total: 1_001,
        read_bytes_total: 1_002,
        writes_total: 1_003,
        written_bytes_total: 1_004,
        flushes_total: 1_005,
        trims_total: 1_006,
        zeroes_total: 1_007,
        errors_total: 1_008,
        has_lost_writes: true,
    }
}
