//! The handshake against bytes written by hand, and against bytes in any pieces.

use proptest::prelude::{Just, Strategy, any, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::{
    Export, Handshake, Negotiated, OPTION_BYTES_DISCARDED_MAX, OPTION_BYTES_KEPT_MAX, OPTIONS_MAX, Outcome,
    ProtocolError, REPLY_BYTES_MAX,
};
use crate::nbd::frame::{OPTION_REPLY_BYTES, OptionHeader, OptionReplyHeader};
use crate::nbd::wire::{
    NBD_OPT_ABORT, NBD_OPT_EXPORT_NAME, NBD_OPT_EXTENDED_HEADERS, NBD_OPT_GO, NBD_OPT_INFO, NBD_OPT_LIST,
    NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT, NBD_OPT_STARTTLS, NBD_OPT_STRUCTURED_REPLY,
    NBD_REP_ACK, NBD_REP_ERR_INVALID, NBD_REP_ERR_TOO_BIG, NBD_REP_ERR_UNKNOWN, NBD_REP_ERR_UNSUP,
    NBD_REP_INFO, NBD_REP_META_CONTEXT, NBD_REP_SERVER,
};

const FIXED_NO_ZEROES: [u8; 4] = [0, 0, 0, 3];

fn export() -> Export {
    Export { description: "a disk".to_owned(), ..Export::new("vda", 0x0010_0000) }
}

/// A handshake whose greeting is sent and whose client flags have come.
fn greeted() -> Handshake {
    let mut handshake = Handshake::new(export());
    handshake.poll_transmit().expect("a greeting");
    assert_eq!(handshake.handle_bytes(&FIXED_NO_ZEROES), Ok(4));
    handshake
}

fn option(option: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32;
    [&OptionHeader { option, length }.encode()[..], data].concat()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes()[..], text].concat()
}

fn go_data(name: &[u8], items: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((items.len() as u16).to_be_bytes());
    data.extend(items.iter().flat_map(|item| item.to_be_bytes()));
    data
}

fn meta_data(name: &[u8], queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query.as_bytes())));
    data
}

/// Sends one option and returns the raw answer.
fn ask(handshake: &mut Handshake, number: u32, data: &[u8]) -> Vec<u8> {
    let bytes = option(number, data);
    assert_eq!(handshake.handle_bytes(&bytes), Ok(bytes.len()));
    handshake.poll_transmit().unwrap_or_default()
}

/// Splits option replies into their type and data.
fn replies(mut bytes: &[u8], option: u32) -> Vec<(u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<OPTION_REPLY_BYTES>() {
        let header = OptionReplyHeader::decode(head).expect("an option reply");
        assert_eq!(header.option, option);
        let (data, rest) = rest.split_at(header.length as usize);
        replies.push((header.reply, data.to_vec()));
        bytes = rest;
    }
    assert!(bytes.is_empty());
    replies
}

/// The one error that an option got, and its message.
fn refusal(handshake: &mut Handshake, number: u32, data: &[u8]) -> (u32, String) {
    let mut replies = replies(&ask(handshake, number, data), number);
    assert_eq!(replies.len(), 1);
    let (reply, message) = replies.remove(0);
    (reply, String::from_utf8(message).expect("UTF-8"))
}

#[test]
fn the_greeting_has_its_golden_bytes() {
    let mut handshake = Handshake::new(export());
    assert_eq!(handshake.poll_transmit().as_deref(), Some(&b"NBDMAGICIHAVEOPT\0\x03"[..]));
    assert_eq!(handshake.poll_transmit(), None);
    assert_eq!(handshake.outcome(), None);
}

#[test]
fn go_has_its_golden_bytes_and_enters_transmission() {
    let mut handshake = greeted();
    let answer = ask(&mut handshake, NBD_OPT_GO, &go_data(b"vda", &[3, 1, 2, 0, 77]));
    let head = |reply: u8, length: u8| {
        [0, 3, 0xe8, 0x89, 4, 0x55, 0x65, 0xa9, 0, 0, 0, 7, 0, 0, 0, reply, 0, 0, 0, length]
    };
    let golden = [
        &head(3, 12)[..],
        &[0, 0, 0, 0, 0, 0, 0, 0x10, 0, 0, 0b101, 0b0110_1101],
        &head(3, 5),
        b"\0\x01vda",
        &head(3, 8),
        b"\0\x02a disk",
        &head(3, 14),
        &[0, 3, 0, 0, 0, 1, 0, 0, 0x10, 0, 0, 0x10, 0, 0],
        &head(1, 0),
    ]
    .concat();
    assert_eq!(answer, golden);
    let negotiated = Negotiated { no_zeroes: true, ..Negotiated::default() };
    assert_eq!(handshake.outcome(), Some(Outcome::Transmission(negotiated)));
}

#[test]
fn a_go_that_asks_for_nothing_gets_the_mandatory_item_alone() {
    let mut handshake = greeted();
    let got = replies(&ask(&mut handshake, NBD_OPT_GO, &go_data(b"", &[])), NBD_OPT_GO);
    assert_eq!(got.iter().map(|(reply, _)| *reply).collect::<Vec<_>>(), [NBD_REP_INFO, NBD_REP_ACK]);
    assert!(matches!(handshake.outcome(), Some(Outcome::Transmission(_))));
}

#[test]
fn info_tells_the_same_as_go_and_goes_on_haggling() {
    let (mut with_info, mut with_go) = (greeted(), greeted());
    let info = replies(&ask(&mut with_info, NBD_OPT_INFO, &go_data(b"vda", &[0, 3])), NBD_OPT_INFO);
    let go = replies(&ask(&mut with_go, NBD_OPT_GO, &go_data(b"vda", &[0, 3])), NBD_OPT_GO);
    assert_eq!(info, go);
    assert_eq!(with_info.outcome(), None);
}

#[test]
fn requests_that_follow_a_go_are_left_alone() {
    let mut handshake = greeted();
    let mut bytes = option(NBD_OPT_GO, &go_data(b"", &[]));
    let length = bytes.len();
    bytes.extend(b"requests");
    assert_eq!(handshake.handle_bytes(&bytes), Ok(length));
    assert_eq!(handshake.handle_bytes(b"requests"), Ok(0));
}

#[test]
fn export_name_is_padded_unless_the_client_declined() {
    let golden = [0, 0, 0, 0, 0, 0x10, 0, 0, 0b101, 0b0110_1101];
    assert_eq!(ask(&mut greeted(), NBD_OPT_EXPORT_NAME, b"vda"), golden);
    for flags in [0, 1] {
        let mut handshake = Handshake::new(export());
        handshake.poll_transmit();
        handshake.handle_bytes(&[0, 0, 0, flags]).expect("flags");
        let answer = ask(&mut handshake, NBD_OPT_EXPORT_NAME, b"");
        assert_eq!(answer, [&golden[..], &[0; 124]].concat());
        assert_eq!(handshake.outcome(), Some(Outcome::Transmission(Negotiated::default())));
    }
}

#[test]
fn a_wrong_export_name_is_named_where_the_option_has_an_error_reply() {
    let mut handshake = greeted();
    let (reply, message) = refusal(&mut handshake, NBD_OPT_GO, &go_data(b"vd\x07b", &[]));
    assert_eq!(reply, NBD_REP_ERR_UNKNOWN);
    assert_eq!(message, r#"no export "vd?b" here, this server has "vda""#);
    let long = vec![b'x'; 4096];
    let (_, message) = refusal(&mut handshake, NBD_OPT_INFO, &go_data(&long, &[]));
    assert!(message.len() < 400, "{message}");
    assert_eq!(handshake.outcome(), None);

    let error = handshake.handle_bytes(&option(NBD_OPT_EXPORT_NAME, b"vdb"));
    assert_eq!(error, Err(ProtocolError::UnknownExport { name: "vdb".to_owned() }));
    assert_eq!(handshake.outcome(), Some(Outcome::Closed));
}

#[test]
fn list_names_and_describes_the_export() {
    let got = replies(&ask(&mut greeted(), NBD_OPT_LIST, &[]), NBD_OPT_LIST);
    assert_eq!(got, [(NBD_REP_SERVER, b"\0\0\0\x03vdaa disk".to_vec()), (NBD_REP_ACK, vec![])]);
    assert_eq!(refusal(&mut greeted(), NBD_OPT_LIST, b"x").0, NBD_REP_ERR_INVALID);
}

#[test]
fn abort_is_acknowledged_and_closes() {
    let mut handshake = greeted();
    assert_eq!(replies(&ask(&mut handshake, NBD_OPT_ABORT, &[]), NBD_OPT_ABORT), [(NBD_REP_ACK, vec![])]);
    assert_eq!(handshake.outcome(), Some(Outcome::Closed));
}

#[test]
fn what_this_server_does_not_speak_is_unsupported_and_the_handshake_goes_on() {
    let mut handshake = greeted();
    for number in [NBD_OPT_STARTTLS, NBD_OPT_EXTENDED_HEADERS, 4, 0, 12, u32::MAX] {
        for data in [&[][..], b"some data", &[0; 70_000]] {
            assert_eq!(refusal(&mut handshake, number, data).0, NBD_REP_ERR_UNSUP);
        }
    }
    assert_eq!(replies(&ask(&mut handshake, NBD_OPT_LIST, &[]), NBD_OPT_LIST).len(), 2);
}

#[test]
fn metadata_contexts_need_structured_replies_first() {
    let mut handshake = greeted();
    let data = meta_data(b"vda", &["base:allocation"]);
    for number in [NBD_OPT_SET_META_CONTEXT, NBD_OPT_LIST_META_CONTEXT] {
        assert_eq!(refusal(&mut handshake, number, &data).0, NBD_REP_ERR_INVALID);
    }
    ask(&mut handshake, NBD_OPT_GO, &go_data(b"", &[]));
    let negotiated = Negotiated { no_zeroes: true, ..Negotiated::default() };
    assert_eq!(handshake.outcome(), Some(Outcome::Transmission(negotiated)));
}

/// An option, its queries, and the data of the context that it gets.
type MetaCase = (u32, &'static [&'static str], Option<&'static [u8]>);

#[test]
fn base_allocation_is_listed_and_set_where_a_query_matches() {
    let mut handshake = greeted();
    let got = ask(&mut handshake, NBD_OPT_STRUCTURED_REPLY, &[]);
    assert_eq!(replies(&got, NBD_OPT_STRUCTURED_REPLY), [(NBD_REP_ACK, vec![])]);
    let (list, set) = (NBD_OPT_LIST_META_CONTEXT, NBD_OPT_SET_META_CONTEXT);
    let cases: [MetaCase; 9] = [
        (list, &[], Some(b"\0\0\0\0base:allocation")),
        (list, &["base:"], Some(b"\0\0\0\0base:allocation")),
        (list, &["x-foo:bar", "base:allocation"], Some(b"\0\0\0\0base:allocation")),
        (list, &["x-foo:bar", "base:alloc"], None),
        (set, &["base:allocation"], Some(b"\0\0\0\x01base:allocation")),
        (set, &["base:allocation", "base:allocation"], Some(b"\0\0\0\x01base:allocation")),
        (set, &[], None),
        (set, &["base:"], None),
        (set, &["qemu:dirty-bitmap:b"], None),
    ];
    for (number, queries, context) in cases {
        let got = replies(&ask(&mut handshake, number, &meta_data(b"vda", queries)), number);
        let mut want = vec![(NBD_REP_ACK, vec![])];
        if let Some(context) = context {
            want.insert(0, (NBD_REP_META_CONTEXT, context.to_vec()));
        }
        assert_eq!(got, want, "{number} {queries:?}");
        assert_eq!(handshake.negotiated.base_allocation, number == set && context.is_some());
    }
}

#[test]
fn a_set_that_fails_unselects_what_was_selected() {
    let good = meta_data(b"vda", &["base:allocation"]);
    let too_big = vec![0; OPTION_BYTES_KEPT_MAX as usize + 1];
    let queries: Vec<&str> = std::iter::repeat_n("a:b", 257).collect();
    let bad = [
        (meta_data(b"other", &["base:allocation"]), NBD_REP_ERR_UNKNOWN),
        (meta_data(b"vda", &["no namespace"]), NBD_REP_ERR_INVALID),
        (good[..good.len() - 1].to_vec(), NBD_REP_ERR_INVALID),
        ([&good[..], b"x"].concat(), NBD_REP_ERR_INVALID),
        (meta_data(b"vda", &queries), NBD_REP_ERR_TOO_BIG),
        (too_big, NBD_REP_ERR_TOO_BIG),
        (vec![], NBD_REP_ERR_INVALID),
    ];
    for (data, error) in bad {
        let mut handshake = greeted();
        ask(&mut handshake, NBD_OPT_STRUCTURED_REPLY, &[]);
        ask(&mut handshake, NBD_OPT_SET_META_CONTEXT, &good);
        assert!(handshake.negotiated.base_allocation);
        assert_eq!(refusal(&mut handshake, NBD_OPT_SET_META_CONTEXT, &data).0, error);
        assert!(!handshake.negotiated.base_allocation);
    }
}

#[test]
fn structured_replies_offer_dont_fragment() {
    let mut handshake = greeted();
    ask(&mut handshake, NBD_OPT_STRUCTURED_REPLY, &[]);
    let got = replies(&ask(&mut handshake, NBD_OPT_GO, &go_data(b"", &[])), NBD_OPT_GO);
    assert_eq!(got[0].1[10..12], [0b101, 0b1110_1101]);
}

#[test]
fn a_malformed_go_is_invalid() {
    let good = go_data(b"vda", &[0, 3]);
    let bad: [&[u8]; 5] =
        [&[], &good[..5], &good[..good.len() - 1], &[&good[..], b"x"].concat(), &[0xff, 0xff, 0xff, 0xff, 0]];
    for data in bad {
        let mut handshake = greeted();
        assert_eq!(refusal(&mut handshake, NBD_OPT_GO, data).0, NBD_REP_ERR_INVALID);
        assert_eq!(handshake.outcome(), None);
    }
}

#[test]
fn every_violation_ends_the_handshake_with_an_error_that_names_it() {
    let flags = Handshake::new(export()).handle_bytes(&[0, 0, 0, 4]);
    assert_eq!(flags, Err(ProtocolError::ClientFlags { flags: 4 }));

    let mut old = Handshake::new(export());
    let bytes = [&[0, 0, 0, 0][..], &option(NBD_OPT_LIST, &[])].concat();
    assert_eq!(old.handle_bytes(&bytes), Err(ProtocolError::NotFixedNewstyle { option: NBD_OPT_LIST }));

    let magic = greeted().handle_bytes(b"IHAVEOPS\0\0\0\x07\0\0\0\0");
    assert_eq!(magic, Err(ProtocolError::OptionMagic { found: u64::from_be_bytes(*b"IHAVEOPS") }));

    for (option, max) in [
        (NBD_OPT_EXPORT_NAME, 4096),
        (NBD_OPT_GO, OPTION_BYTES_DISCARDED_MAX),
        (99, OPTION_BYTES_DISCARDED_MAX),
    ] {
        let length = max + 1;
        let header = OptionHeader { option, length }.encode();
        assert_eq!(
            greeted().handle_bytes(&header),
            Err(ProtocolError::OptionTooLarge { option, length, max })
        );
    }
}

#[test]
fn options_and_their_replies_are_bounded() {
    let mut handshake = greeted();
    for _ in 0..OPTIONS_MAX {
        ask(&mut handshake, 99, &[]);
    }
    let error = handshake.handle_bytes(&option(99, &[]));
    assert_eq!(error, Err(ProtocolError::TooManyOptions { max: OPTIONS_MAX }));

    let mut handshake = Handshake::new(Export::new("n".repeat(4096), 0));
    handshake.handle_bytes(&FIXED_NO_ZEROES).expect("flags");
    let error = (0..OPTIONS_MAX).find_map(|_| handshake.handle_bytes(&option(NBD_OPT_LIST, &[])).err());
    assert_eq!(error, Some(ProtocolError::TooManyReplies { max: REPLY_BYTES_MAX }));
}

/// What a whole input led to.
type Run = (Vec<u8>, Result<usize, ProtocolError>, Option<Outcome>);

/// Feeds `input` in pieces that end at `cuts`.
fn run(input: &[u8], cuts: &[usize]) -> Run {
    let mut handshake = Handshake::new(export());
    let (mut sent, mut consumed, mut start) = (Vec::new(), 0, 0);
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.push(input.len());
    cuts.sort_unstable();
    for end in cuts {
        let piece = handshake.handle_bytes(&input[start..end]);
        sent.extend(handshake.poll_transmit().unwrap_or_default());
        assert!(handshake.partial.capacity() <= 2 * OPTION_BYTES_KEPT_MAX as usize);
        start = end;
        match piece {
            Ok(bytes) => consumed += bytes,
            Err(error) => return (sent, Err(error), handshake.outcome()),
        }
    }
    (sent, Ok(consumed), handshake.outcome())
}

/// Options that make sense, nearly make sense, and do not.
fn any_option() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![Just(&b"vda"[..]), Just(&b""[..]), Just(&b"vdb"[..])];
    let query = prop_oneof![Just("base:allocation"), Just("base:"), Just("x"),];
    prop_oneof![
        (0..13_u32, proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(number, data)| option(number, &data)),
        (6..8_u32, name.clone(), proptest::collection::vec(0..5_u16, 0..4))
            .prop_map(|(number, name, items)| option(number, &go_data(name, &items))),
        (9..11_u32, name, proptest::collection::vec(query, 0..3))
            .prop_map(|(number, name, queries)| option(number, &meta_data(name, &queries))),
        Just(option(NBD_OPT_STRUCTURED_REPLY, &[])),
        Just(option(NBD_OPT_GO, &[0; 66_000])),
    ]
}

proptest! {
    #[test]
    fn any_split_of_the_input_gives_the_same_result(
        options in proptest::collection::vec(any_option(), 0..8),
        cuts in proptest::collection::vec(any::<usize>(), 0..12),
    ) {
        let input = [&FIXED_NO_ZEROES[..], &options.concat()].concat();
        prop_assert_eq!(run(&input, &[]), run(&input, &cuts));
    }

    #[test]
    fn random_bytes_end_in_an_error_or_wait_for_more(input in proptest::collection::vec(any::<u8>(), 0..200)) {
        let (_, result, outcome) = run(&input, &[]);
        prop_assert!(!matches!(outcome, Some(Outcome::Transmission(_))));
        prop_assert_eq!(result.is_err(), outcome == Some(Outcome::Closed));
    }
}
