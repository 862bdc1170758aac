//! Replies against bytes written by hand.

use super::{REPLY_HEAD_BYTES_MAX, Replies, simple};
use crate::extent::Extent;
use crate::nbd::export::Negotiated;
use crate::nbd::frame::{CHUNK_BYTES, ChunkHeader};
use crate::nbd::request::CommandKind;
use crate::nbd::wire::{NBD_REPLY_TYPE_ERROR, NbdError};

const COOKIE: u64 = 0x0102_0304_0506_0708;
const ALL: [CommandKind; 8] = [
    CommandKind::Read,
    CommandKind::Write,
    CommandKind::Flush,
    CommandKind::Trim,
    CommandKind::Cache,
    CommandKind::WriteZeroes,
    CommandKind::BlockStatus,
    CommandKind::Unknown(99),
];

fn replies(structured_replies: bool) -> Replies {
    Replies::new(Negotiated { structured_replies, ..Negotiated::default() })
}

#[test]
fn a_simple_reply_has_its_golden_bytes() {
    assert_eq!(simple(COOKIE, None), [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8]);
    let error = simple(COOKIE, Some(NbdError::NoSpc));
    assert_eq!(error, [0x67, 0x44, 0x66, 0x98, 0, 0, 0, 28, 1, 2, 3, 4, 5, 6, 7, 8]);
}

#[test]
fn a_read_is_headed_as_negotiated() {
    let extent = Extent::new(0x1000, 0x200);
    assert_eq!(&*replies(false).read_header(COOKIE, extent), simple(COOKIE, None));
    let golden = [
        &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 2, 8][..],
        &[0, 0, 0, 0, 0, 0, 0x10, 0],
    ]
    .concat();
    let head = replies(true).read_header(COOKIE, extent);
    assert_eq!(*head, *golden);
    assert_eq!(head.len(), REPLY_HEAD_BYTES_MAX);
}

#[test]
fn only_the_last_part_of_a_read_says_that_all_is_said() {
    let extent = Extent::new(0x1000, 0x200);
    let part = replies(true).read_part(COOKIE, extent, false);
    let mut golden = replies(true).read_header(COOKIE, extent).to_vec();
    assert_eq!(*replies(true).read_part(COOKIE, extent, true), *golden);
    golden[5] = 0;
    assert_eq!(*part, *golden);
    assert!(replies(true).has_parts() && !replies(false).has_parts());
}

#[test]
fn only_an_empty_read_needs_a_chunk_to_be_done() {
    let none = [0x66, 0x8e, 0x33, 0xef, 0, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0];
    assert_eq!(*replies(true).done(COOKIE, CommandKind::Read), none);
    for kind in ALL {
        assert_eq!(*replies(false).done(COOKIE, kind), simple(COOKIE, None));
        if !matches!(kind, CommandKind::Read | CommandKind::BlockStatus) {
            assert_eq!(*replies(true).done(COOKIE, kind), simple(COOKIE, None));
        }
    }
}

#[test]
fn errors_are_chunks_for_reads_and_block_status_alone() {
    let chunk = [
        &[0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 6][..],
        &[0, 0, 0, 5, 0, 0],
    ]
    .concat();
    for kind in ALL {
        let is_chunk = matches!(kind, CommandKind::Read | CommandKind::BlockStatus);
        let want = if is_chunk { chunk.clone() } else { simple(COOKIE, Some(NbdError::Io)).to_vec() };
        assert_eq!(*replies(true).error(COOKIE, kind, NbdError::Io), *want);
        assert_eq!(*replies(false).error(COOKIE, kind, NbdError::Io), simple(COOKIE, Some(NbdError::Io)));
    }
}

#[test]
fn a_message_goes_where_there_is_room_for_one() {
    let mut out = vec![0xaa];
    replies(true).error_message(&mut out, COOKIE, CommandKind::Read, NbdError::Inval, "no");
    let golden = [
        &[0xaa, 0x66, 0x8e, 0x33, 0xef, 0, 1, 0x80, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 8][..],
        &[0, 0, 0, 22, 0, 2, b'n', b'o'],
    ]
    .concat();
    assert_eq!(out, golden);

    let mut out = Vec::new();
    replies(true).error_message(&mut out, COOKIE, CommandKind::Write, NbdError::Inval, "no");
    replies(false).error_message(&mut out, COOKIE, CommandKind::Read, NbdError::Inval, "no");
    assert_eq!(out, simple(COOKIE, Some(NbdError::Inval)).repeat(2));
}

#[test]
fn a_message_is_clipped_between_characters() {
    let mut out = Vec::new();
    let message = format!("x{}", "é".repeat(3000));
    replies(true).error_message(&mut out, COOKIE, CommandKind::Read, NbdError::Io, &message);
    let (head, payload) = out.split_first_chunk::<CHUNK_BYTES>().expect("a header");
    let header = ChunkHeader::decode(head).expect("a chunk");
    assert_eq!((header.kind, header.length as usize), (NBD_REPLY_TYPE_ERROR, payload.len()));
    assert_eq!(payload.len(), 6 + 4095);
    assert!(std::str::from_utf8(&payload[6..]).is_ok());
}
