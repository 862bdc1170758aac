//! Requests: each command, and each way to be refused.

use proptest::prelude::{any, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Just;

use super::{Command, CommandKind, Parsed, Refusal, Request, Session};
use crate::extent::Extent;
use crate::nbd::error::ProtocolError;
use crate::nbd::export::{Export, Negotiated, PAYLOAD_BYTES_MAX, REQUEST_BYTES_MAX};
use crate::nbd::frame::RequestHeader;
use crate::nbd::wire::{
    NBD_CMD_BLOCK_STATUS, NBD_CMD_CACHE, NBD_CMD_DISC, NBD_CMD_FLAG_DF, NBD_CMD_FLAG_FAST_ZERO,
    NBD_CMD_FLAG_FUA, NBD_CMD_FLAG_NO_HOLE, NBD_CMD_FLAG_REQ_ONE, NBD_CMD_FLUSH, NBD_CMD_READ, NBD_CMD_TRIM,
    NBD_CMD_WRITE, NBD_CMD_WRITE_ZEROES, NbdError,
};

const GIB: u64 = 1 << 30;
const COOKIE: u64 = 0xfeed_0000_0000_0001;

fn session() -> Session {
    let negotiated = Negotiated { structured_replies: true, base_allocation: true, no_zeroes: true };
    Session { export: Export::new("vda", 8 * GIB), negotiated }
}

fn parse(session: &Session, command: u16, flags: u16, offset: u64, length: u32) -> Parsed {
    let header = RequestHeader { flags, command, cookie: COOKIE, offset, length };
    session.parse(&header.encode()).expect("no violation")
}

/// The error, the reason and the data to throw away of a request that must be refused.
fn refused(
    session: &Session,
    command: u16,
    flags: u16,
    offset: u64,
    length: u32,
) -> (NbdError, Refusal, u32) {
    match parse(session, command, flags, offset, length) {
        Parsed::Refused { cookie: COOKIE, error, reason, payload_to_discard, .. } => {
            (error, reason, payload_to_discard)
        }
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn every_command_is_understood() {
    let extent = Extent::new(4096, 512);
    let fua = NBD_CMD_FLAG_FUA;
    let cases = [
        (NBD_CMD_READ, 0, Command::Read { extent, dont_fragment: false }),
        (NBD_CMD_READ, NBD_CMD_FLAG_DF | fua, Command::Read { extent, dont_fragment: true }),
        (NBD_CMD_WRITE, 0, Command::Write { extent, fua: false }),
        (NBD_CMD_WRITE, fua, Command::Write { extent, fua: true }),
        (NBD_CMD_TRIM, fua, Command::Trim { extent, fua: true }),
        (NBD_CMD_WRITE_ZEROES, 0, Command::WriteZeroes { extent, fua: false, no_hole: false }),
        (
            NBD_CMD_WRITE_ZEROES,
            fua | NBD_CMD_FLAG_NO_HOLE,
            Command::WriteZeroes { extent, fua: true, no_hole: true },
        ),
        (NBD_CMD_CACHE, 0, Command::Cache { extent }),
        (NBD_CMD_BLOCK_STATUS, 0, Command::BlockStatus { extent, request_one: false }),
        (NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_REQ_ONE, Command::BlockStatus { extent, request_one: true }),
    ];
    for (number, flags, command) in cases {
        let request = Request { cookie: COOKIE, command };
        assert_eq!(parse(&session(), number, flags, 4096, 512), Parsed::Valid(request));
        assert_eq!(request.payload_bytes(), if number == NBD_CMD_WRITE { 512 } else { 0 });
    }
    let flush = parse(&session(), NBD_CMD_FLUSH, 0, 0, 0);
    assert_eq!(flush, Parsed::Valid(Request { cookie: COOKIE, command: Command::Flush }));
    let leave = parse(&session(), NBD_CMD_DISC, 0xffff, 1, 1);
    assert_eq!(leave, Parsed::Valid(Request { cookie: COOKIE, command: Command::Disconnect }));
}

#[test]
fn a_range_past_the_end_is_no_space_for_writers_and_invalid_for_others() {
    let session = session();
    for (offset, length) in [(8 * GIB, 1), (8 * GIB - 1, 2), (u64::MAX, 1), (u64::MAX - 3, 512)] {
        for (command, error) in [
            (NBD_CMD_READ, NbdError::Inval),
            (NBD_CMD_WRITE, NbdError::NoSpc),
            (NBD_CMD_TRIM, NbdError::Inval),
            (NBD_CMD_WRITE_ZEROES, NbdError::NoSpc),
            (NBD_CMD_CACHE, NbdError::Inval),
            (NBD_CMD_BLOCK_STATUS, NbdError::Inval),
        ] {
            let (got, reason, discard) = refused(&session, command, 0, offset, length);
            assert_eq!(got, error, "{command}");
            assert!(matches!(reason, Refusal::OutOfRange { size, .. } if size == 8 * GIB));
            assert_eq!(discard, if command == NBD_CMD_WRITE { length } else { 0 });
        }
    }
    assert!(matches!(parse(&session, NBD_CMD_READ, 0, 8 * GIB - 1, 1), Parsed::Valid(_)));
}

#[test]
fn unaligned_requests_are_invalid_where_the_export_has_blocks() {
    let mut session = session();
    session.export.block_size_min = 512;
    for command in [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_BLOCK_STATUS] {
        for (offset, length) in [(1, 512), (512, 511), (256, 256)] {
            let (error, reason, _) = refused(&session, command, 0, offset, length);
            assert_eq!(
                (error, reason),
                (NbdError::Inval, Refusal::Unaligned { offset, length, block_size_min: 512 })
            );
        }
        assert!(matches!(parse(&session, command, 0, 512, 1024), Parsed::Valid(_)));
    }
}

#[test]
fn only_reads_and_writes_are_bounded_and_not_by_what_clients_are_told() {
    let session = session();
    let max = REQUEST_BYTES_MAX;
    assert!(session.export.block_size_max < max);
    for command in [NBD_CMD_READ, NBD_CMD_WRITE] {
        assert!(matches!(parse(&session, command, 0, 0, max), Parsed::Valid(_)));
        let (error, reason, discard) = refused(&session, command, 0, 0, max + 1);
        assert_eq!(error, NbdError::Inval);
        assert!(matches!(reason, Refusal::TooLong { .. }));
        assert_eq!(discard, if command == NBD_CMD_WRITE { max + 1 } else { 0 });
    }
    for command in [NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE, NBD_CMD_BLOCK_STATUS] {
        assert!(matches!(parse(&session, command, 0, 0, u32::MAX), Parsed::Valid(_)));
    }
}

#[test]
fn a_write_too_large_to_throw_away_ends_the_connection() {
    let write = |length| {
        let header = RequestHeader { flags: 0, command: NBD_CMD_WRITE, cookie: 1, offset: 2, length };
        session().parse(&header.encode())
    };
    assert!(matches!(write(PAYLOAD_BYTES_MAX), Ok(Parsed::Refused { .. })));
    let length = PAYLOAD_BYTES_MAX + 1;
    let violation = ProtocolError::PayloadTooLarge { length, offset: 2, max: PAYLOAD_BYTES_MAX };
    assert_eq!(write(length), Err(violation));
}

#[test]
fn nothing_changes_a_read_only_export() {
    let mut session = session();
    session.export.read_only = true;
    for command in [NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES] {
        for length in [0, 512] {
            let (error, reason, discard) = refused(&session, command, 0, 0, length);
            assert_eq!(error, NbdError::Perm);
            assert!(matches!(reason, Refusal::ReadOnly { .. }));
            assert_eq!(discard, if command == NBD_CMD_WRITE { length } else { 0 });
        }
    }
    assert!(matches!(parse(&session, NBD_CMD_FLUSH, 0, 0, 0), Parsed::Valid(_)));
    assert!(matches!(parse(&session, NBD_CMD_READ, 0, 0, 512), Parsed::Valid(_)));
}

#[test]
fn flags_are_refused_on_commands_that_they_do_not_belong_to() {
    let session = session();
    for (command, flags) in [
        (NBD_CMD_READ, NBD_CMD_FLAG_NO_HOLE),
        (NBD_CMD_WRITE, NBD_CMD_FLAG_DF),
        (NBD_CMD_TRIM, NBD_CMD_FLAG_REQ_ONE),
        (NBD_CMD_WRITE_ZEROES, NBD_CMD_FLAG_FAST_ZERO),
        (NBD_CMD_BLOCK_STATUS, NBD_CMD_FLAG_DF),
        (NBD_CMD_CACHE, 0x8000),
    ] {
        let (error, reason, _) = refused(&session, command, flags | NBD_CMD_FLAG_FUA, 0, 512);
        assert_eq!(
            (error, reason),
            (NbdError::Inval, Refusal::Flags { flags, kind: CommandKind::of(command) })
        );
    }
    assert_eq!(refused(&session, NBD_CMD_WRITE, 0x8000, 0, 512).2, 512);
}

#[test]
fn what_was_not_negotiated_or_offered_is_invalid() {
    let plain = Session { negotiated: Negotiated::default(), ..session() };
    let flags = Refusal::Flags { flags: NBD_CMD_FLAG_DF, kind: CommandKind::Read };
    assert_eq!(refused(&plain, NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 512), (NbdError::Inval, flags, 0));
    let status = refused(&plain, NBD_CMD_BLOCK_STATUS, 0, 0, 512);
    assert_eq!(status, (NbdError::Inval, Refusal::NoMetaContext, 0));
    let mut no_trim = session();
    no_trim.export.can_trim = false;
    assert_eq!(refused(&no_trim, NBD_CMD_TRIM, 0, 0, 512), (NbdError::Inval, Refusal::NoTrim, 0));
}

#[test]
fn unknown_commands_and_flushes_of_a_range_are_invalid() {
    for command in [8, 9, 99, u16::MAX] {
        let want = (NbdError::Inval, Refusal::UnknownCommand { command }, 0);
        assert_eq!(refused(&session(), command, 0, 0, u32::MAX), want);
    }
    for (offset, length) in [(1, 0), (0, 1)] {
        let want = (NbdError::Inval, Refusal::FlushRange { offset, length }, 0);
        assert_eq!(refused(&session(), NBD_CMD_FLUSH, 0, offset, length), want);
    }
}

#[test]
fn requests_of_no_bytes_succeed_without_an_extent() {
    let session = session();
    for command in [NBD_CMD_READ, NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES, NBD_CMD_CACHE] {
        let empty = Parsed::Empty { cookie: COOKIE, kind: CommandKind::of(command) };
        assert_eq!(parse(&session, command, 0, 8 * GIB, 0), empty);
        let (_, reason, _) = refused(&session, command, 0, 8 * GIB + 1, 0);
        assert!(matches!(reason, Refusal::OutOfRange { .. }));
    }
    let status = refused(&session, NBD_CMD_BLOCK_STATUS, 0, 0, 0);
    assert_eq!(status, (NbdError::Inval, Refusal::EmptyBlockStatus, 0));
}

#[test]
fn a_wrong_magic_ends_the_connection() {
    let mut bytes = RequestHeader { flags: 0, command: 0, cookie: 0, offset: 0, length: 1 }.encode();
    bytes[3] ^= 1;
    assert_eq!(session().parse(&bytes), Err(ProtocolError::RequestMagic { found: 0x2560_9512 }));
}

#[test]
fn a_refusal_says_what_was_wrong() {
    let (_, reason, _) = refused(&session(), NBD_CMD_WRITE, 0, 8 * GIB, 512);
    assert_eq!(
        reason.to_string(),
        "Write of 512 bytes at offset 8589934592 leaves the disk of 8589934592 bytes"
    );
}

proptest! {
    #[test]
    fn whatever_passes_lies_on_the_disk_and_in_its_blocks(
        command in 0..10_u16, flags in prop_oneof![Just(0_u16), any::<u16>(), 0..16_u16],
        blocks in any::<u16>(), block_shift in 0..17_u32,
        offset in prop_oneof![any::<u64>(), 0..1_u64 << 32], length in prop_oneof![any::<u32>(), 0..65536_u32],
        read_only: bool, structured_replies: bool, base_allocation: bool,
    ) {
        let min = 1_u32 << block_shift;
        let export = Export {
            read_only,
            block_size_min: min,
            block_size_preferred: min.max(4096),
            ..Export::new("vda", u64::from(blocks) * u64::from(min))
        };
        prop_assert_eq!(export.validate(), Ok(()));
        let negotiated = Negotiated { structured_replies, base_allocation, no_zeroes: false };
        let session = Session { export, negotiated };
        // Aligned as often as not.
        for (offset, length) in [(offset, length), (offset & !u64::from(min - 1), length & !(min - 1))] {
            let header = RequestHeader { flags, command, cookie: 7, offset, length };
            let Ok(Parsed::Valid(request)) = session.parse(&header.encode()) else { continue };
            prop_assert_eq!(request.cookie, 7);
            prop_assert!(!read_only || !request.command.kind().mutates());
            let Some(extent) = request.command.extent() else { continue };
            prop_assert_eq!(extent, Extent::new(offset, u64::from(length)));
            prop_assert!(!extent.is_empty() && extent.end() <= session.export.size);
            prop_assert!(extent.offset % u64::from(min) == 0 && extent.len % u64::from(min) == 0);
        }
    }
}
