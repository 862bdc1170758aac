//! Rules of a session one by one: breaches, bounds, heartbeat, pacing, the end.

use std::time::Duration;

use super::{Breach, CHANNELS_MAX, ChannelError, Event, Next, PING_EVERY, SILENCE_MAX, Session, Side};
use crate::link::channel::{CONTROL_WINDOW_BYTES, INITIAL_CREDIT_BYTES, Violation};
use crate::link::wire::{Frame, HEADER_BYTES, Header};
use crate::link::{Class, Label, Lane};

mod simulation;
mod every_byte;
mod redials;
mod outages;

const START: Duration = Duration::from_secs(10);

/// Frames as a test likes to look at them.
fn frames(bytes: &[u8]) -> Vec<Frame<'_>> {
    let mut found = Vec::new();
    let mut rest = bytes;
    while let Some((head, behind)) = rest.split_first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(head).unwrap();
        let (body, behind) = behind.split_at(header.body_bytes as usize);
        found.push(Frame::decode(&header, body).unwrap());
        rest = behind;
    }
    found
}

fn poll(session: &mut Session, lane: Lane, now: Duration) -> Vec<u8> {
    let mut out = Vec::new();
    while session.poll_frame(lane, now, &mut out) == Next::Frames {}
    out
}

/// Carries what each side has to say to the other, until both are silent.
fn carry(sides: &mut [Session; 2], now: Duration) {
    loop {
        let mut moved = false;
        for side in 0..2 {
            for lane in Lane::ALL {
                let bytes = poll(&mut sides[side], lane, now);
                moved |= !bytes.is_empty();
                for frame in frames(&bytes) {
                    sides[1 - side].handle_frame(lane, &frame, now).unwrap();
                }
            }
        }
        if !moved {
            return;
        }
    }
}

fn connected() -> [Session; 2] {
    let mut sides = [Session::new(Side::Dialler), Session::new(Side::Listener)];
    for session in &mut sides {
        Lane::ALL.into_iter().for_each(|lane| session.attach(lane, START));
    }
    carry(&mut sides, START);
    sides
}

/// A listener that has resumed, and channel 1 as `label`.
fn listener_with(label: Label) -> Session {
    let mut session = Session::new(Side::Listener);
    Lane::ALL.into_iter().for_each(|lane| session.attach(lane, START));
    for lane in Lane::ALL {
        session.handle_frame(lane, &Frame::Resumed, START).unwrap();
    }
    session.handle_frame(label.lane(), &Frame::Open { channel: 1, label, credit: 100 }, START).unwrap();
    session
}

#[test]
fn nothing_is_sent_as_data_before_the_other_side_has_said_what_it_has() {
    let mut session = Session::new(Side::Dialler);
    let id = session.open(Label::Ram(0)).unwrap();
    session.write(id, b"abc").unwrap();
    assert_eq!(session.poll_frame(Lane::Data, START, &mut Vec::new()), Next::Idle);
    session.attach(Lane::Data, START);
    let said = poll(&mut session, Lane::Data, START);
    assert!(matches!(frames(&said)[..], [Frame::Open { channel: 1, .. }, Frame::Ack { .. }, Frame::Resumed]));
    session.handle_frame(Lane::Data, &Frame::Resumed, START).unwrap();
    let said = poll(&mut session, Lane::Data, START);
    assert_eq!(frames(&said), [Frame::Data { channel: 1, offset: 0, fin: false, bytes: b"abc" }]);
}

#[test]
fn breaches_of_the_protocol_are_named() {
    let ram = Label::Ram(0);
    let open = |channel, label| Frame::Open { channel, label, credit: 0 };
    let data = |offset, bytes| Frame::Data { channel: 1, offset, fin: false, bytes };
    let ack = |received, fin| Frame::Ack { channel: 1, received, fin, credit: 0 };
    let long = vec![0; INITIAL_CREDIT_BYTES as usize + 1];
    let cases: [(Lane, Frame<'_>, &str); 11] = [
        (Lane::Data, open(4, ram), "a number that is not its own"),
        (Lane::Data, open(1, Label::Disk(0)), "with two labels"),
        (Lane::Control, open(3, ram), "a lane that is not for it"),
        (Lane::Data, open(3, Label::Control), "a lane that is not for it"),
        (Lane::Data, open(999_999, ram), "a number that is not its own"),
        (Lane::Control, data(0, b"x"), "a lane that is not its own"),
        (Lane::Data, data(1, b"x"), "left out bytes"),
        (Lane::Data, data(0, &long), "past the credit"),
        (Lane::Data, ack(1, false), "never sent"),
        (Lane::Data, ack(0, true), "never sent"),
        (Lane::Data, Frame::Resumed, "resumed a lane twice"),
    ];
    for (lane, frame, told) in cases {
        let mut session = listener_with(ram);
        let breach = session.handle_frame(lane, &frame, START).expect_err(told);
        assert!(breach.to_string().contains(told), "{breach} for {told}");
    }
    let mut session = listener_with(ram);
    let unknown = Frame::Data { channel: 7, offset: 0, fin: false, bytes: b"x" };
    assert!(matches!(session.handle_frame(Lane::Data, &unknown, START), Err(Breach::Link(_))));
}

#[test]
fn nothing_comes_behind_an_end() {
    let mut session = listener_with(Label::Control);
    let end = Frame::Data { channel: 1, offset: 0, fin: true, bytes: b"x" };
    session.handle_frame(Lane::Control, &end, START).unwrap();
    let more = Frame::Data { channel: 1, offset: 1, fin: false, bytes: b"y" };
    let breach = session.handle_frame(Lane::Control, &more, START);
    assert_eq!(breach, Err(Breach::Channel { channel: 1, violation: Violation::End }));
}

#[test]
fn a_stalled_reader_stalls_only_its_own_channel() {
    let mut sides = connected();
    let stalled = sides[0].open(Label::Disk(0)).unwrap();
    let other = sides[0].open(Label::Ram(0)).unwrap();
    let block = vec![1; 60_000];
    let mut taken = 0;
    for _ in 0..2000 {
        taken += sides[0].write(stalled, &block).unwrap();
        carry(&mut sides, START);
    }
    assert!(taken as u64 >= super::super::channel::WINDOW_BYTES_MIN);
    assert_eq!(sides[0].write(stalled, &block), Ok(0));
    sides[0].write(other, b"through").unwrap();
    carry(&mut sides, START);
    let mut into = [0; 16];
    assert_eq!(sides[1].read(other, &mut into), Ok(Some(7)));
}

#[test]
fn a_reader_that_comes_back_gets_the_stream_going_again() {
    let mut sides = connected();
    let id = sides[0].open(Label::Control).unwrap();
    let block = vec![1; 100_000];
    while sides[0].write(id, &block).unwrap() > 0 {
        carry(&mut sides, START);
    }
    let mut into = vec![0; CONTROL_WINDOW_BYTES as usize];
    while sides[0].poll_event().is_some() {}
    assert_eq!(sides[1].read(id, &mut into), Ok(Some(CONTROL_WINDOW_BYTES as usize)));
    carry(&mut sides, START);
    let told: Vec<Event> = std::iter::from_fn(|| sides[0].poll_event()).collect();
    assert!(told.contains(&Event::Writable(id)), "{told:?}");
    assert!(sides[0].write(id, &block).unwrap() > 0);
}

#[test]
fn channels_are_bounded() {
    let mut sides = connected();
    let ids: Vec<u32> = (0..CHANNELS_MAX).map(|_| sides[0].open(Label::Disk(0)).unwrap()).collect();
    assert_eq!(sides[0].open(Label::Disk(0)), Err(ChannelError::TooMany));
    assert!(sides[1].open(Label::Disk(0)).is_ok(), "the other side has its own count");
    carry(&mut sides, START);
    // A side that does not keep to it is told by a reset.
    let open = Frame::Open { channel: 999, label: Label::Disk(0), credit: 0 };
    sides[1].handle_frame(Lane::Data, &open, START).unwrap();
    let said = poll(&mut sides[1], Lane::Data, START);
    assert_eq!(frames(&said), [Frame::Reset { channel: 999 }]);
    ids.into_iter().for_each(|id| sides[0].release(id));
    carry(&mut sides, START);
    assert!(sides[0].open(Label::Disk(0)).is_ok());
}

#[test]
fn a_peer_that_is_not_heard_for_three_seconds_is_noticed_on_each_lane() {
    let mut sides = connected();
    while sides[0].poll_event().is_some() {}
    let later = START + PING_EVERY;
    sides[0].handle_timeout(later);
    assert!(matches!(frames(&poll(&mut sides[0], Lane::Control, later))[..], [Frame::Ping { .. }]));
    assert!(matches!(frames(&poll(&mut sides[0], Lane::Data, later))[..], [Frame::Ping { .. }]));
    // The control lane answers, the data lane does not.
    sides[0].handle_frame(Lane::Control, &Frame::Pong { nonce: 1 }, later).unwrap();
    sides[0].handle_timeout(START + SILENCE_MAX);
    let told: Vec<Event> = std::iter::from_fn(|| sides[0].poll_event()).collect();
    assert!(told.contains(&Event::Silent(Lane::Data)), "{told:?}");
    assert!(!told.contains(&Event::Silent(Lane::Control)), "{told:?}");
}

#[test]
fn an_echo_tells_the_round_trip_and_a_made_up_one_nothing() {
    let mut sides = connected();
    let nonce = sides[0].ping();
    let said = poll(&mut sides[0], Lane::Control, START);
    for frame in frames(&said) {
        sides[1].handle_frame(Lane::Control, &frame, START).unwrap();
    }
    let answer = poll(&mut sides[1], Lane::Control, START);
    assert_eq!(frames(&answer), [Frame::Pong { nonce }]);
    let later = START + Duration::from_millis(80);
    sides[0].handle_frame(Lane::Control, &Frame::Pong { nonce: 4711 }, later).unwrap();
    assert_eq!(sides[0].rtt(), None);
    sides[0].handle_frame(Lane::Control, &Frame::Pong { nonce }, later).unwrap();
    assert_eq!(sides[0].rtt(), Some(Duration::from_millis(80)));
    let told: Vec<Event> = std::iter::from_fn(|| sides[0].poll_event()).collect();
    assert!(told.contains(&Event::Pong { nonce, rtt: Duration::from_millis(80) }));
}

#[test]
fn a_flood_of_pings_owes_few_echoes() {
    let mut session = listener_with(Label::Control);
    poll(&mut session, Lane::Control, START);
    for nonce in 0..10_000 {
        session.handle_frame(Lane::Control, &Frame::Ping { nonce }, START).unwrap();
    }
    assert!(frames(&poll(&mut session, Lane::Control, START)).len() <= 8);
}

#[test]
fn memory_waits_in_twenty_milliseconds_of_the_link_and_not_more() {
    let mut sides = connected();
    sides[0].set_limit(Some(1_000_000), START);
    let id = sides[0].open(Label::Ram(0)).unwrap();
    let block = vec![1; 1 << 20];
    let mut now = START;
    for _ in 0..400 {
        now += Duration::from_millis(10);
        while {
            carry(&mut sides, now);
            sides[0].write(id, &block).unwrap() > 0
        } {}
        let mut into = vec![0; 1 << 20];
        while sides[1].read(id, &mut into).unwrap().is_some() {}
    }
    let rate = sides[0].goodput_bytes_per_s().unwrap();
    assert!((800_000..=1_000_000).contains(&rate), "{rate}");
    let most = sides[0].unsent_bytes_max(Label::Ram(0));
    assert!((10_000..=20_000).contains(&most), "{most}");
    assert!(sides[0].stats(|_, label| label.class() == Class::Ram).unsent_bytes() <= most);
}

#[test]
fn a_limit_holds_bulk_back_and_not_control() {
    let mut sides = connected();
    sides[0].set_limit(Some(1000), START);
    let bulk = sides[0].open(Label::Disk(0)).unwrap();
    let control = sides[0].open(Label::Control).unwrap();
    sides[0].write(bulk, &[0; 30_000]).unwrap();
    poll(&mut sides[0], Lane::Data, START);
    let mut out = Vec::new();
    sides[0].write(bulk, &[0; 30_000]).unwrap();
    assert!(matches!(sides[0].poll_frame(Lane::Data, START, &mut out), Next::Wait(until) if until > START));
    sides[0].write(control, b"now").unwrap();
    assert!(!poll(&mut sides[0], Lane::Control, START).is_empty());
}

#[test]
fn what_came_before_the_end_of_the_link_can_still_be_read() {
    let mut sides = connected();
    let id = sides[0].open(Label::Control).unwrap();
    sides[0].write(id, b"last words").unwrap();
    carry(&mut sides, START);
    sides[0].close("done");
    carry(&mut sides, START);
    assert!(sides[1].over().unwrap().contains("the peer ended the link: done"));
    let mut into = [0; 32];
    assert_eq!(sides[1].read(id, &mut into), Ok(Some(10)));
    assert!(matches!(sides[1].read(id, &mut into), Err(ChannelError::Over(_))));
    assert!(matches!(sides[1].write(id, b"x"), Err(ChannelError::Over(_))));
    assert!(matches!(sides[1].open(Label::Control), Err(ChannelError::Over(_))));
    assert_eq!(sides[1].poll_frame(Lane::Control, START, &mut Vec::new()), Next::Over);
    assert_eq!(sides[0].poll_frame(Lane::Control, START, &mut Vec::new()), Next::Over);
}
