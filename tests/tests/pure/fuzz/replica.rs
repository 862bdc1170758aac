//! Hostile bytes against the replica protocol: headers, bodies, and a whole destination.
//!
//! Under plain `cargo test` each target runs a bounded number of inputs; under a fuzzing engine
//! (`cargo bolero test`) it runs for as long as it is let.

use blockd::buffer::PageBuf;
use blockd::delta::{Content, DataSlice};
use blockd::extent::{BLOCK_BYTES, Extent, LEAF_BYTES};
use blockd::replica::batch::{Encoder, Item, RAW_BYTES_MAX, Told, decode};
use blockd::replica::destination::{Destination, Identity, Op};
use blockd::replica::encoding::Effort;
use blockd::replica::wire::{
    DIFFERING_MAX, FrameType, HEADER_BYTES, Header, Hello, MAGIC, Refused, TEXT_BYTES_MAX, Welcome,
    decode_differing, decode_generation, decode_text, encode_differing, encode_generation, encode_text,
    frame,
};

/// Bounds each target to a second or two in an ordinary test run; a fuzzer ignores it.
const ITERATIONS: usize = 20_000;
/// A disk with a short last block and a short last leaf.
const SIZE: u64 = 40 * BLOCK_BYTES + 512;
const EPOCH: u64 = 9;

/// Makes the checksum of a header right.
fn reseal_header(header: &mut [u8]) {
    let crc = crc32(&header[..32]);
    header[32..36].copy_from_slice(&crc.to_le_bytes());
}

/// The checksum, by way of the code under test.
fn crc32(bytes: &[u8]) -> u32 {
    Header::for_body(FrameType::Hello, 0, 0, bytes).body_crc
}

#[test]
fn any_header_is_refused_or_is_written_as_it_was_read() {
    bolero::check!().with_type::<([u8; HEADER_BYTES], bool)>().with_iterations(ITERATIONS).for_each(
        |(bytes, plausible)| {
            let mut bytes = *bytes;
            if *plausible {
                bytes[..4].copy_from_slice(&MAGIC);
                bytes[4] %= 11;
                bytes[5..8].fill(0);
                bytes[26..28].fill(0);
                reseal_header(&mut bytes);
            }
            match Header::decode(&bytes) {
                Ok(header) => assert_eq!(header.encode(), bytes),
                Err(malformed) => assert!(!malformed.to_string().is_empty()),
            }
        },
    );
}

#[test]
fn any_body_is_refused_or_is_written_as_it_was_read() {
    bolero::check!().with_iterations(ITERATIONS).with_max_len(256).for_each(|body: &[u8]| {
        let written = [
            Hello::decode(body).map(|hello| hello.encode()),
            Welcome::decode(body).map(|welcome| welcome.encode()),
            Refused::decode(body).map(|refused| refused.encode()),
            decode_differing(body).map(|leaves| encode_differing(&leaves)),
            decode_generation(body).map(encode_generation),
            decode_text(body).map(|text| encode_text(&text)),
        ];
        written.into_iter().flatten().for_each(|again| assert_eq!(again, body));
    });
}

/// An item as a fuzzer finds it easy to make: kind, first block, blocks, fill.
type AnyItem = (u8, u8, u8, u8);

fn items(picks: &[AnyItem]) -> Vec<Item> {
    let item = |&(kind, start, count, fill): &AnyItem| {
        let (start, count) = (u64::from(start % 41), u64::from(count % 8) + 1);
        let blocks = Extent::of_blocks(start..start + count, SIZE);
        let leaves = |count| Extent::of_leaves(start / 16..start / 16 + count, SIZE);
        match kind % 5 {
            0 => {
                let mut buf = PageBuf::zeroed(blocks.len as usize);
                // Every third block stays zero.
                let filled = buf.chunks_mut(BLOCK_BYTES as usize).enumerate().filter(|(at, _)| at % 3 != 1);
                filled.for_each(|(_, block)| block.fill(fill));
                Item::Change(blocks, Content::Data(DataSlice::whole(buf)))
            }
            1 => Item::Change(blocks, Content::Hole),
            2 => Item::Change(blocks, Content::ZeroesAllocated),
            3 => Item::Digest(leaves(1), [fill; 32]),
            _ => Item::AllZeros(leaves(count)),
        }
    };
    picks.iter().map(item).collect()
}

fn batch_body(picks: &[AnyItem], compress: bool) -> Vec<u8> {
    let effort = if compress { Effort::Zstd(1) } else { Effort::Store };
    let mut body = Vec::new();
    Encoder::default().encode(&items(picks), effort, &mut body);
    body
}

/// One change of bytes: flip, cut or insert, where, and with what.
type Mutation = (u8, u16, u8);

fn mutate(bytes: &mut Vec<u8>, mutations: &[Mutation]) {
    for &(kind, at, with) in mutations.iter().take(8) {
        let at = usize::from(at) % (bytes.len() + 1);
        match kind % 4 {
            0 if at < bytes.len() => bytes[at] ^= with,
            1 => drop(bytes.drain(at..(at + usize::from(with)).min(bytes.len()))),
            2 => bytes.insert(at, with),
            3 => bytes.truncate(at),
            _ => {}
        }
    }
}

fn assert_batch_is_good_or_refused(body: &[u8]) {
    let Ok(received) = decode(body, SIZE) else { return };
    assert!(received.payload.len() <= RAW_BYTES_MAX);
    let mut data_bytes = 0;
    for told in &received.items {
        let (Told::Data(extent, _)
        | Told::Hole(extent)
        | Told::ZeroesAllocated(extent)
        | Told::Digest(extent, _)
        | Told::AllZeros(extent)) = told;
        assert!(!extent.is_empty() && extent.end() <= SIZE);
        if let Told::Data(extent, start) = told {
            assert_eq!(*start, data_bytes);
            data_bytes += extent.len as usize;
        }
    }
    assert_eq!(received.payload.len(), data_bytes);
}

#[test]
fn any_batch_is_refused_or_stays_on_the_disk() {
    bolero::check!()
        .with_type::<(Vec<AnyItem>, bool, Vec<Mutation>, Vec<u8>)>()
        .with_iterations(ITERATIONS / 4)
        .for_each(|(picks, compress, mutations, noise)| {
            assert_batch_is_good_or_refused(noise);
            let mut body = batch_body(&picks[..picks.len().min(20)], *compress);
            assert!(decode(&body, SIZE).is_ok());
            mutate(&mut body, mutations);
            assert_batch_is_good_or_refused(&body);
        });
}

/// What a fuzzer chooses of a session: its frames, and how they are spoilt.
type AnySession = (Vec<AnyFrame>, Vec<Mutation>, bool, u8);
/// Type, sequence number's offset, items of a batch, whether compressed.
type AnyFrame = (u8, u8, Vec<AnyItem>, bool);

fn hello_frame() -> Vec<u8> {
    let hello = Hello { version_min: 1, version_max: 1, size: SIZE, generation: 1, disk_id: "vda".into() };
    frame(FrameType::Hello, EPOCH, 0, &hello.encode())
}

/// A stream of good frames, most of them in order, each apart.
fn stream(frames: &[AnyFrame]) -> Vec<Vec<u8>> {
    let mut seq = 0;
    let body = |(kind, slip, picks, compress): &AnyFrame| match kind % 8 {
        0 => frame(FrameType::Seal, EPOCH, 0, &encode_generation(u64::from(*slip))),
        1 => frame(FrameType::Unseal, EPOCH, 0, &encode_generation(1)),
        2 if *slip > 200 => frame(FrameType::ALL[usize::from(*slip) % 9], EPOCH, 0, &encode_text("odd")),
        _ => {
            seq += 1 + u64::from(*slip > 250);
            frame(FrameType::Batch, EPOCH, seq, &batch_body(&picks[..picks.len().min(6)], *compress))
        }
    };
    std::iter::once(hello_frame()).chain(frames.iter().take(12).map(body)).collect()
}

/// Spoils one frame; half of the time its checksums and length are made right again.
fn spoil(frame: &mut Vec<u8>, mutations: &[Mutation], reseal: bool) {
    if !reseal {
        return mutate(frame, mutations);
    }
    let mut body = frame.split_off(HEADER_BYTES);
    mutate(&mut body, mutations);
    frame[24..28].copy_from_slice(&(body.len() as u32).to_le_bytes());
    frame[28..32].copy_from_slice(&crc32(&body).to_le_bytes());
    reseal_header(frame);
    frame.extend(body);
}

/// Does what the destination asks and checks that it makes sense; some ops fail, some leaves differ.
fn work(destination: &mut Destination, idle: bool, luck: u8) -> bool {
    while let Some(op) = destination.poll_op(idle) {
        let mut differing = Vec::new();
        match &op {
            Op::Write(extent, start) => {
                assert!(extent.end() <= SIZE);
                assert_eq!(destination.payload(extent, *start).len() as u64, extent.len);
            }
            Op::Zero { extent, .. } => assert!(!extent.is_empty() && extent.end() <= SIZE),
            Op::Compare(extent, _) | Op::CompareZeros(extent) => {
                assert!(extent.end() <= SIZE && extent.offset.is_multiple_of(LEAF_BYTES));
                differing.extend(extent.touched_leaves().filter(|leaf| leaf % 2 == u64::from(luck) % 2));
            }
            Op::Flush | Op::RecordEpoch(_) | Op::RecordSeal(_) => {}
        }
        let broken = luck == 255 && op == Op::Flush;
        let outcome = if broken { Err("broken".to_owned()) } else { Ok(differing) };
        if destination.handle_done(outcome).is_err() {
            assert!(broken);
            return false;
        }
    }
    true
}

/// Feeds bytes as a shell would. Returns what the source is told.
fn feed(destination: &mut Destination, mut bytes: &[u8], luck: u8) -> Vec<Vec<u8>> {
    while let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() {
        let Ok(header) = Header::decode(header) else { break };
        let Some((body, rest)) = rest.split_at_checked(header.body_bytes as usize) else { break };
        bytes = rest;
        if header.check_body(body).is_err() || destination.handle_frame(&header, body).is_err() {
            break;
        }
        if !work(destination, luck.is_multiple_of(2), luck) {
            break;
        }
    }
    work(destination, true, luck);
    std::iter::from_fn(|| destination.poll_transmit()).collect()
}

/// Every answer is well formed, of the right session, and acknowledgements only ever rise.
fn assert_answers_are_good(answers: &[Vec<u8>], sent: usize) {
    let (mut durable, mut over) = (0, false);
    for answer in answers {
        assert!(!over, "the session went on after its end");
        let header = Header::decode(answer.first_chunk().expect("a whole header")).expect("a good header");
        let body = &answer[HEADER_BYTES..];
        assert_eq!(header.check_body(body), Ok(()));
        match header.frame_type {
            FrameType::Welcome => assert!(Welcome::decode(body).is_ok()),
            FrameType::Ack => {
                assert!(header.seq > durable && header.seq <= sent as u64);
                durable = header.seq;
                assert!(decode_differing(body).expect("a good ack").len() <= DIFFERING_MAX);
            }
            FrameType::Sealed => assert_ne!(decode_generation(body), Ok(0)),
            FrameType::Refused => over = Refused::decode(body).is_ok(),
            FrameType::Failed => over = decode_text(body).expect("a text").len() <= TEXT_BYTES_MAX,
            other => panic!("a destination never sends {other:?}"),
        }
    }
}

#[test]
fn a_destination_takes_any_stream_without_harm() {
    bolero::check!().with_type::<AnySession>().with_iterations(ITERATIONS / 4).for_each(
        |(frames, mutations, reseal, luck)| {
            let mut stream = stream(frames);
            if let Some(&(_, at, _)) = mutations.first() {
                let spoilt = usize::from(at) % stream.len();
                spoil(&mut stream[spoilt], mutations, *reseal);
            }
            let identity = Identity {
                size: SIZE,
                disk_id: "vda".into(),
                generation: 0,
                epoch: EPOCH - 1,
                existing: true,
                sealed: u64::from(luck % 3),
                promoted: None,
            };
            let mut destination = Destination::new(identity);
            let answers = feed(&mut destination, &stream.concat(), *luck);
            assert_answers_are_good(&answers, frames.len());
        },
    );
}

#[test]
fn a_stream_that_nobody_spoilt_is_acknowledged_to_its_end() {
    bolero::check!().with_type::<Vec<Vec<AnyItem>>>().with_iterations(ITERATIONS / 10).for_each(|batches| {
        let batches: Vec<AnyFrame> =
            batches.iter().take(8).map(|picks| (7, 0, picks.clone(), true)).collect();
        let identity = Identity {
            size: SIZE,
            disk_id: "vda".into(),
            generation: 0,
            epoch: 0,
            existing: false,
            sealed: 0,
            promoted: None,
        };
        let mut destination = Destination::new(identity);
        let answers = feed(&mut destination, &stream(&batches).concat(), 1);
        assert_answers_are_good(&answers, batches.len());
        assert!(destination.is_streaming());
        assert_eq!(destination.durable_seq(), batches.len() as u64);
    });
}
