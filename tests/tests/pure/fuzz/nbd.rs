//! Hostile bytes against the NBD protocol code: handshake and requests.
//!
//! Under plain `cargo test` each target runs a bounded number of inputs; under a fuzzing engine
//! (`cargo bolero test`) it runs for as long as it is let.

use blockd::extent::Extent;
use blockd::nbd::block_status::{State, StatusMap};
use blockd::nbd::export::{Export, Negotiated, PAYLOAD_BYTES_MAX};
use blockd::nbd::frame::{REQUEST_BYTES, RequestHeader};
use blockd::nbd::handshake::{Handshake, Outcome, ProtocolError, REPLY_BYTES_MAX};
use blockd::nbd::reply::{REPLY_HEAD_BYTES_MAX, Replies};
use blockd::nbd::request::{Command, CommandKind, Parsed, Session};
use blockd::nbd::wire::{NBD_OPTS_MAGIC, NBD_REQUEST_MAGIC, NbdError};

/// The length of the greeting.
const GREETING_BYTES: usize = 18;

/// What a whole input led to.
#[derive(Debug, PartialEq)]
struct Ended {
    sent: Vec<u8>,
    consumed: Result<usize, ProtocolError>,
    outcome: Option<Outcome>,
}

fn shake_hands<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Ended {
    let mut handshake = Handshake::new(Export::new("vda", 1 << 30));
    let mut sent = handshake.poll_transmit().expect("a greeting");
    let mut consumed = Ok(0);
    for piece in pieces {
        let taken = handshake.handle_bytes(piece);
        sent.extend(handshake.poll_transmit().unwrap_or_default());
        match taken {
            Ok(bytes) => {
                assert!(bytes == piece.len() || handshake.outcome().is_some());
                consumed = consumed.map(|sum| sum + bytes);
            }
            Err(error) => {
                consumed = Err(error);
                break;
            }
        }
    }
    assert_eq!(handshake.handle_bytes(&[]), Ok(0));
    Ended { sent, consumed, outcome: handshake.outcome() }
}

/// One option as a fuzzer finds it easy to make: number, announced surplus of length, data.
type AnyOption = (u8, u8, Vec<u8>);

fn encode(client_flags: u8, options: &[AnyOption]) -> Vec<u8> {
    let mut bytes = u32::from(client_flags % 4).to_be_bytes().to_vec();
    for (option, surplus, data) in options {
        // Mostly honest lengths, or nothing behind the first option is ever reached.
        let surplus = usize::from(surplus.saturating_sub(200));
        bytes.extend(NBD_OPTS_MAGIC.to_be_bytes());
        bytes.extend(u32::from(option % 16).to_be_bytes());
        bytes.extend(((data.len() + surplus) as u32).to_be_bytes());
        bytes.extend(data);
    }
    bytes
}

fn assert_split_does_not_matter(input: &[u8], cut: usize) {
    let whole = shake_hands([input].into_iter());
    assert!(whole.sent.len() <= GREETING_BYTES + REPLY_BYTES_MAX + 16 * 1024);
    assert_eq!(whole, shake_hands(input.chunks(cut % 64 + 1)));
    let cut = cut % (input.len() + 1);
    assert_eq!(whole, shake_hands([&input[..cut], &input[cut..]].into_iter()));
}

#[test]
fn a_handshake_of_any_bytes_neither_panics_nor_depends_on_their_pieces() {
    bolero::check!().with_type::<(Vec<u8>, u16)>().with_iterations(20_000).for_each(|(input, cut)| {
        assert_split_does_not_matter(input, usize::from(*cut));
    });
}

#[test]
fn a_handshake_of_any_options_neither_panics_nor_depends_on_their_pieces() {
    bolero::check!().with_type::<(u8, Vec<AnyOption>, u16)>().with_iterations(20_000).for_each(
        |(client_flags, options, cut)| {
            assert_split_does_not_matter(&encode(*client_flags, options), usize::from(*cut));
        },
    );
}

/// What a fuzzer chooses of a connection: features, block size, and the disk's size in blocks.
type AnySession = (u8, u8, u16);

fn session((features, block_shift, blocks): AnySession) -> Session {
    let min = 1 << (block_shift % 17);
    let export = Export {
        read_only: features & 1 != 0,
        can_trim: features & 2 != 0,
        block_size_min: min,
        block_size_preferred: min.max(4096),
        ..Export::new("vda", u64::from(blocks) * u64::from(min))
    };
    assert_eq!(export.validate(), Ok(()));
    let negotiated = Negotiated {
        structured_replies: features & 4 != 0,
        base_allocation: features & 8 != 0,
        no_zeroes: features & 16 != 0,
    };
    Session { export, negotiated }
}

fn assert_valid(session: &Session, command: Command, payload_bytes: u32) {
    assert!(!session.export.read_only || !command.kind().mutates());
    let Some(extent) = command.extent() else { return };
    let min = u64::from(session.export.block_size_min);
    assert!(!extent.is_empty() && extent.end() <= session.export.size);
    assert!(extent.offset.is_multiple_of(min) && extent.len.is_multiple_of(min));
    match command {
        Command::Read { .. } => {
            assert!(extent.len <= u64::from(session.export.request_bytes_max()));
            let head = Replies::new(session.negotiated).read_header(1, extent);
            assert!(head.len() <= REPLY_HEAD_BYTES_MAX);
        }
        Command::Write { .. } => {
            assert!(extent.len <= u64::from(session.export.request_bytes_max()));
            assert_eq!(u64::from(payload_bytes), extent.len);
        }
        Command::BlockStatus { request_one, .. } => assert_one_hole_is_one_descriptor(extent, request_one),
        _ => {}
    }
}

fn assert_one_hole_is_one_descriptor(extent: Extent, request_one: bool) {
    let mut map = StatusMap::new(extent, request_one);
    map.push(extent.len, State::Hole);
    assert_eq!(map.wants(), None);
    let mut out = Vec::new();
    map.encode(&mut out, 1);
    assert_eq!(out.len(), 20 + 4 + 8);
}

fn assert_parses(session: &Session, bytes: &[u8; REQUEST_BYTES]) {
    let replies = Replies::new(session.negotiated);
    match session.parse(bytes) {
        Ok(Parsed::Valid(request)) => assert_valid(session, request.command, request.payload_bytes()),
        Ok(Parsed::Empty { cookie, kind }) => {
            assert!(!matches!(kind, CommandKind::BlockStatus | CommandKind::Flush | CommandKind::Disconnect));
            assert!(replies.done(cookie, kind).len() <= REPLY_HEAD_BYTES_MAX);
        }
        Ok(Parsed::Refused { cookie, kind, error, reason, payload_to_discard }) => {
            assert!(payload_to_discard <= PAYLOAD_BYTES_MAX);
            assert!(payload_to_discard == 0 || kind == CommandKind::Write);
            assert!(matches!(error, NbdError::Perm | NbdError::Inval | NbdError::NoSpc));
            let mut out = Vec::new();
            replies.error_message(&mut out, cookie, kind, error, &reason.to_string());
            assert!((16..300).contains(&out.len()));
        }
        Err(violation) => assert!(!violation.to_string().is_empty()),
    }
}

/// Flags, command, offset and length of a request.
type AnyHeader = (u8, u8, u64, u32);

#[test]
fn a_session_of_any_headers_lets_only_good_ones_pass() {
    bolero::check!().with_type::<(AnySession, Vec<AnyHeader>)>().with_iterations(20_000).for_each(
        |(chosen, headers)| {
            let session = session(*chosen);
            let min = session.export.block_size_min;
            for &(flags, command, offset, length) in headers {
                // As written, and moved to where it has a chance to be valid.
                let near = (offset % session.export.size.max(1)) & !u64::from(min - 1);
                let short = (length % (8 * min)) & !(min - 1);
                for (offset, length) in [(offset, length), (near, short), (near, length)] {
                    let (flags, command) = (u16::from(flags % 32), u16::from(command % 10));
                    let header = RequestHeader { flags, command, cookie: offset, offset, length };
                    assert_parses(&session, &header.encode());
                }
            }
        },
    );
}

#[test]
fn a_session_of_any_bytes_does_not_panic() {
    bolero::check!().with_type::<(AnySession, [u8; REQUEST_BYTES])>().with_iterations(20_000).for_each(
        |(chosen, bytes)| {
            let session = session(*chosen);
            assert_parses(&session, bytes);
            let mut with_magic = *bytes;
            with_magic[..4].copy_from_slice(&NBD_REQUEST_MAGIC.to_be_bytes());
            assert_parses(&session, &with_magic);
        },
    );
}
