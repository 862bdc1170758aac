//! One of every message of the link, as the fixtures hold it; each with a name.

use migrated::link::Label;
use migrated::link::hello::{Hello, Message, Pair, Purpose, Reach, RefusalCode, Refused, Stripe, Welcome};
use migrated::link::probe::Probed;
use migrated::link::token::Token;
use migrated::link::wire::Frame;

/// What is said before the frames.
pub fn hellos() -> Vec<(String, Message)> {
    let link = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15];
    let hello = |purpose| {
        let link = if purpose == Purpose::Pair { [0; 16] } else { link };
        Message::Hello(Hello { version_min: 1, version_max: 1, purpose, link, name: "site-a".into() })
    };
    let refused = |code| Message::Refused(Refused { code, text: "why, and what to do".into() });
    let reach = |name: &str, data_addresses: &str| Reach {
        name: name.to_owned(),
        address: "192.0.2.2:7700".into(),
        data_addresses: data_addresses.to_owned(),
    };
    let mut all: Vec<(String, Message)> = Vec::new();
    all.extend(Purpose::ALL.map(|purpose| (format!("hello {purpose:?}"), hello(purpose))));
    all.push(("welcome".into(), Message::Welcome(Welcome { version: 1, name: "site-b".into() })));
    all.extend(RefusalCode::ALL.map(|code| (format!("refused {code:?}"), refused(code))));
    let pair = Pair { proof: [0xa5; 32], reach: reach("site-a", "192.0.2.2:7701,192.0.2.3:7701") };
    all.push(("pair".into(), Message::Pair(pair)));
    all.push(("paired".into(), Message::Paired(reach("site-b", ""))));
    all.push(("stripe".into(), Message::Stripe(Stripe { set: 0x0102_0304_0506_0708, count: 8, index: 7 })));
    all.push(("probed".into(), Message::Probed(Probed { bytes: 1_000_001, micros: 500_002 })));
    all
}

/// Frames of every type.
pub fn frames() -> Vec<(String, Frame<'static>)> {
    let open = |channel, label| Frame::Open { channel, label, credit: 65_536 };
    let (offset, received, credit) = (1_001, 1_012, 70_000);
    let all: [(&str, Frame<'static>); 12] = [
        ("open control", open(1, Label::Control)),
        ("open disk", open(3, Label::Disk(2))),
        ("open ram", open(5, Label::Ram(0))),
        ("data", Frame::Data { channel: 3, offset, fin: false, bytes: b"hello world" }),
        ("data with its end", Frame::Data { channel: 3, offset: 1_012, fin: true, bytes: b"" }),
        ("ack", Frame::Ack { channel: 3, received, fin: false, credit }),
        ("ack of the end", Frame::Ack { channel: 3, received, fin: true, credit }),
        ("reset", Frame::Reset { channel: 5 }),
        ("resumed", Frame::Resumed),
        ("ping", Frame::Ping { nonce: 42 }),
        ("pong", Frame::Pong { nonce: 42 }),
        ("close", Frame::Close { text: "the guest has moved".into() }),
    ];
    all.map(|(name, frame)| (name.to_owned(), frame)).to_vec()
}

pub fn token() -> Token {
    Token {
        name: "site-b".into(),
        address: "192.0.2.6:7700".parse().expect("an address"),
        secret: [0x5a; 16],
        key_hash: [0xc3; 32],
    }
}
