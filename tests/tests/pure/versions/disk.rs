//! What `blockd` keeps beside an image, says to a copy, and is asked on its control socket.

use std::fs;

use blockd::control::{Command, FailureCode, Status, parse_line, parse_reply, reply_line, request_line};
use blockd::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};
use blockd::io::sidecar_file::SidecarFile;
use blockd::replica::batch::{self, Encoder, Told};
use blockd::replica::encoding::Effort;
use blockd::replica::wire::{
    FrameType, HEADER_BYTES, Header, Hello, Refused, Welcome, decode_differing, decode_generation,
    decode_text,
};
use blockd::sidecar::{Asked, ImageState, Refusal, Role, Start, startup};
use serde_json::{Value, json};
use tests::scratch::Scratch;

use super::values::disk;
use super::{assert_covered, assert_same_bytes, fixture, kinds, named_bytes, text};

#[test]
fn every_sidecar_of_0_1_0_says_what_its_disk_is() {
    let scratch = Scratch::new();
    for (name, expected) in disk::sidecars() {
        let path = scratch.join(name);
        fs::copy(fixture("sidecars").join(name), &path).unwrap();
        assert_eq!(SidecarFile::peek(&path).unwrap().as_ref(), Some(&expected), "{name}");
        let mut file = SidecarFile::open(&path).unwrap().unwrap();
        assert_eq!(file.header(), &expected, "{name}");
        if name == "recording" {
            let bits = file.bits().unwrap();
            let [first, second] = disk::LACKING;
            assert_eq!(bits.next_run(0), Some(first.clone()));
            assert_eq!(bits.next_run(first.end), Some(second));
        }
        // The one that 0.1.0 wrote last, not the first one beside it.
        file.update(|header| header.generation += 1).unwrap();
        assert_eq!(SidecarFile::peek(&path).unwrap().unwrap().generation, expected.generation + 1);
    }
    let files = fs::read_dir(fixture("sidecars")).unwrap().count();
    assert_eq!(files, disk::sidecars().len());
    let has = |role| disk::sidecars().iter().any(|(_, header)| header.role == role);
    assert!(Role::ALL.into_iter().all(has));
}

/// What was promised of a disk holds.
#[test]
fn a_disk_of_0_1_0_starts_as_what_it_is_and_as_nothing_else() {
    let served = Ok(Start::Disk { promoted: false });
    let moved = Refusal::Moved { moved_to: "site-b".into(), generation: 3 };
    for (name, _) in disk::sidecars() {
        let header = SidecarFile::peek(&fixture("sidecars").join(name)).unwrap();
        let start = startup(header.as_ref(), ImageState::Present(disk::SIZE), Asked::AsDisk, "web-root");
        let expected = match name {
            "replica" | "sealed-replica" => Err(Refusal::NotPromoted),
            "fenced" => Err(moved.clone()),
            _ => served.clone(),
        };
        assert_eq!(start, expected, "{name}");
    }
}

#[test]
fn every_frame_of_a_disks_stream_is_said_as_0_1_0_said_it() {
    let fixtures = named_bytes("replica/frames.hex");
    let mut said = disk::frames();
    let mut batch = Vec::new();
    Encoder::default().encode_frame((disk::EPOCH, 1), &disk::items(), Effort::Store, &mut batch);
    said.push(("batch stored".into(), batch));
    // Another zstd may compress another way.
    said.extend(fixtures.iter().filter(|(name, _)| name == "batch compressed").cloned());
    assert_same_bytes("replica/frames.hex", said);
    let has = |wanted: FrameType| fixtures.iter().any(|(_, bytes)| bytes[4] == wanted as u8);
    assert!(FrameType::ALL.into_iter().all(has));
}

#[test]
fn every_frame_of_a_disks_stream_of_0_1_0_is_read_as_it_was_meant() {
    let mut refusals = Vec::new();
    let mut welcomes = Vec::new();
    for (name, bytes) in named_bytes("replica/frames.hex") {
        let (header, body) = bytes.split_first_chunk::<HEADER_BYTES>().unwrap();
        let header = Header::decode(header).unwrap();
        header.check_body(body).unwrap();
        let seq = match name.as_str() {
            "ack" | "batch stored" | "batch compressed" => 1,
            "ack with leaves" => 2,
            _ => 0,
        };
        assert_eq!((header.epoch, header.seq), (disk::EPOCH, seq), "{name}");
        match header.frame_type {
            FrameType::Hello => assert_eq!(Hello::decode(body).unwrap(), disk::hello()),
            FrameType::Welcome => welcomes.push(Welcome::decode(body).unwrap()),
            FrameType::Refused => refusals.push(Refused::decode(body).unwrap()),
            FrameType::Batch => judge_batch(body),
            FrameType::Ack => {
                let leaves: &[u64] = if header.seq == 1 { &[] } else { &[1, 15] };
                assert_eq!(decode_differing(body).unwrap(), leaves);
            }
            FrameType::Seal | FrameType::Sealed | FrameType::Unseal => {
                assert_eq!(decode_generation(body).unwrap(), 3);
            }
            FrameType::Failed => assert_eq!(decode_text(body).unwrap(), "the disk is full"),
        }
    }
    assert_eq!((refusals, welcomes), (disk::refusals(), disk::welcomes().to_vec()));
}

fn judge_batch(body: &[u8]) {
    let blocks = |from: u64, count: u64| Extent::new(from * BLOCK_BYTES, count * BLOCK_BYTES);
    let received = batch::decode(body, disk::SIZE).unwrap();
    assert_eq!(
        received.items,
        [
            Told::Data(blocks(0, 2), 0),
            Told::Hole(blocks(4, 3)),
            Told::ZeroesAllocated(blocks(8, 1)),
            Told::Digest(Extent::new(0, LEAF_BYTES), [0xd1; 32]),
            Told::AllZeros(Extent::new(LEAF_BYTES, 2 * LEAF_BYTES)),
        ]
    );
    assert_eq!(received.payload, disk::payload());
}

fn json_of(line: &[u8]) -> Value {
    serde_json::from_slice(line).unwrap()
}

/// A daemon of a disk outlives the daemon of its host: the next one may be of another version.
#[test]
fn every_request_to_the_daemon_of_a_disk_is_read_as_it_was_meant_and_said_as_it_was_said() {
    let text = text("control/requests.jsonl");
    assert_eq!(text.lines().count(), disk::requests().len());
    for (line, meant) in text.lines().zip(disk::requests()) {
        assert_eq!(parse_line(line.as_bytes()).unwrap(), meant);
        assert_eq!(json_of(&request_line(&meant)), json_of(line.as_bytes()));
    }
    assert_covered("command", kinds::<Command>(json!({"?": {}})), |kind| {
        text.contains(&format!("\"command\":\"{kind}\""))
    });
}

#[test]
fn every_reply_of_the_daemon_of_a_disk_is_read_as_it_was_meant_and_said_as_it_was_said() {
    let mut expected = vec![(Some(1), Ok(json!({})))];
    expected.extend(disk::statuses().map(|status| (Some(2), Ok(serde_json::to_value(status).unwrap()))));
    expected.extend(disk::failures().into_iter().map(|failure| (Some(3), Err(failure))));
    expected.push((None, Err(disk::failures().remove(0))));
    let text = text("control/replies.jsonl");
    assert_eq!(text.lines().count(), expected.len());
    let mut statuses = Vec::new();
    for (line, (id, meant)) in text.lines().zip(expected) {
        assert_eq!(json_of(&reply_line(id, &meant)), json_of(line.as_bytes()));
        let (number, said) = parse_reply(line.as_bytes()).unwrap();
        assert_eq!((number, &said), (id, &meant));
        if let (Some(2), Ok(value)) = (id, said) {
            statuses.push(serde_json::from_value::<Status>(value).unwrap());
        }
    }
    assert_eq!(statuses, disk::statuses());
    assert_covered("failure", kinds::<FailureCode>("?".into()), |kind| {
        text.contains(&format!("\"code\":\"{kind}\""))
    });
}
