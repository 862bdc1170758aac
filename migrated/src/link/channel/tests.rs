//! Offsets, credit and ends of one channel, rule by rule.

use std::time::Duration;

use super::{
    INITIAL_CREDIT_BYTES, Incoming, Outgoing, RETAINED_BYTES_MAX, Violation, WINDOW_BYTES_MAX,
    WINDOW_BYTES_MIN, WINDOW_BYTES_UNKNOWN as WINDOW_BYTES,
};
use crate::link::Label;

mod accounting;

fn sent(out: &mut Outgoing, max: usize) -> (u64, bool, Vec<u8>) {
    let (offset, fin, (first, second)) = out.next(max);
    (offset, fin, [first, second].concat())
}

#[test]
fn what_is_not_acknowledged_is_sent_again_after_a_rewind() {
    let mut out = Outgoing::new();
    assert_eq!(out.write(b"abcdef", 100), 6);
    assert_eq!(sent(&mut out, 4), (0, false, b"abcd".to_vec()));
    assert_eq!(out.handle_ack(2, false, 0), Ok(2));
    out.finish();
    assert_eq!(sent(&mut out, 100), (4, true, b"ef".to_vec()));
    assert!(!out.has_frame());
    out.rewind();
    assert_eq!(sent(&mut out, 100), (2, true, b"cdef".to_vec()));
    assert_eq!(out.handle_ack(6, true, 0), Ok(4));
    assert!(out.is_done() && !out.has_frame());
}

#[test]
fn an_acknowledgement_of_what_went_before_the_cut_counts() {
    let mut out = Outgoing::new();
    out.write(b"abcdef", 100);
    out.next(6);
    out.rewind();
    assert_eq!(out.handle_ack(5, false, 0), Ok(5));
    assert_eq!(sent(&mut out, 100), (5, false, b"f".to_vec()));
}

#[test]
fn an_end_alone_is_sent_and_acknowledged() {
    let mut out = Outgoing::new();
    out.finish();
    assert!(out.has_frame());
    assert_eq!(sent(&mut out, 100), (0, true, vec![]));
    assert!(!out.has_frame());
    assert_eq!(out.handle_ack(0, true, 0), Ok(0));
    assert!(out.is_done());
}

#[test]
fn made_up_acknowledgements_are_a_violation() {
    let mut out = Outgoing::new();
    out.write(b"abc", 100);
    assert_eq!(out.handle_ack(1, false, 0), Err(Violation::Ack));
    out.next(2);
    assert_eq!(out.handle_ack(3, false, 0), Err(Violation::Ack));
    assert_eq!(out.handle_ack(2, true, 0), Err(Violation::Ack));
    assert_eq!(out.handle_ack(2, false, 0), Ok(2));
    assert_eq!(out.handle_ack(1, false, 0), Ok(0), "an older one says nothing new");
}

#[test]
fn credit_pacing_and_memory_bound_what_is_taken() {
    let mut out = Outgoing::new();
    let block = vec![0; 1 << 20];
    assert_eq!(out.write(&block, 1000), 1000);
    assert_eq!(out.write(&block, 1000), 0);
    assert_eq!(out.write(&block, u64::MAX), 1 << 20);
    let mut frames = 0;
    while out.has_frame() {
        out.next(1000);
        frames += 1;
    }
    assert_eq!((out.sent(), frames), (INITIAL_CREDIT_BYTES, 66));
    out.handle_ack(0, false, INITIAL_CREDIT_BYTES + 5).unwrap();
    assert_eq!(sent(&mut out, 1000).2.len(), 5);
    out.handle_ack(0, false, 0).unwrap();
    assert!(!out.has_frame(), "credit is not taken back, nor given twice");
    while out.write(&block, u64::MAX) > 0 {}
    assert_eq!(out.written(), RETAINED_BYTES_MAX);
}

#[test]
fn bytes_that_are_known_are_passed_over() {
    let mut incoming = Incoming::new(Label::Ram(0));
    assert_eq!(incoming.handle_data(0, false, b"abc"), Ok(3));
    assert_eq!(incoming.handle_data(1, false, b"bcd"), Ok(1));
    assert_eq!(incoming.handle_data(0, false, b"ab"), Ok(0));
    let mut into = [0; 9];
    assert_eq!((incoming.read(&mut into), &into[..4]), (4, &b"abcd"[..]));
    assert_eq!(incoming.handle_data(5, false, b"f"), Err(Violation::Gap));
}

#[test]
fn an_end_stands_where_it_stood() {
    let mut incoming = Incoming::new(Label::Ram(0));
    assert_eq!(incoming.handle_data(0, true, b"abc"), Ok(3));
    assert_eq!(incoming.handle_data(1, true, b"bc"), Ok(0), "the same again");
    assert_eq!(incoming.handle_data(3, true, b""), Ok(0));
    assert_eq!(incoming.handle_data(0, true, b"ab"), Err(Violation::End));
    assert_eq!(incoming.handle_data(3, false, b"d"), Err(Violation::End));
    assert_eq!(incoming.handle_data(1, true, b"bcd"), Err(Violation::End));
    assert!(incoming.has_fin() && !incoming.owes_credit());
}

#[test]
fn credit_follows_the_reader_in_steps() {
    let mut incoming = Incoming::new(Label::Ram(0));
    assert!(incoming.owes_credit());
    assert_eq!(incoming.give_credit(), WINDOW_BYTES);
    let block = vec![0; (WINDOW_BYTES / 4) as usize];
    incoming.handle_data(0, false, &block).unwrap();
    assert!(!incoming.owes_credit(), "nothing was read");
    let mut into = block.clone();
    incoming.read(&mut into[1..]);
    assert!(!incoming.owes_credit(), "not enough was read");
    incoming.read(&mut into);
    assert!(incoming.owes_credit());
    assert_eq!(incoming.give_credit(), WINDOW_BYTES + WINDOW_BYTES / 4);
}

#[test]
fn who_reads_no_more_still_gives_credit() {
    let mut incoming = Incoming::new(Label::Ram(0));
    incoming.abandon();
    incoming.handle_data(0, false, &[0; 1000]).unwrap();
    assert_eq!((incoming.buffered_bytes(), incoming.give_credit()), (0, WINDOW_BYTES + 1000));
}

/// Reads `bytes` in a round trip of 50 ms, `count` times, and says what credit there is beyond what was read.
fn window_after(incoming: &mut Incoming, now: &mut Duration, bytes: u64, count: usize) -> u64 {
    let rtt = Duration::from_millis(50);
    let block = vec![0; bytes as usize];
    for _ in 0..count {
        *now += rtt;
        incoming.handle_data(incoming.received(), false, &block).unwrap();
        while incoming.read(&mut vec![0; 1 << 20]) > 0 {}
        incoming.tune(rtt, *now);
        incoming.give_credit();
    }
    incoming.give_credit() - incoming.received()
}

#[test]
fn the_window_follows_what_is_read_in_a_round_trip_within_its_bounds() {
    let mut incoming = Incoming::new(Label::Disk(0));
    let mut now = Duration::from_secs(1);
    incoming.give_credit();
    // 5 Mbit/s: a thin link comes down to the least.
    let thin = window_after(&mut incoming, &mut now, 31_250, 200);
    assert!((WINDOW_BYTES_MIN..WINDOW_BYTES_MIN + 1000).contains(&thin), "{thin}");
    // 200 Mbit/s are 1.25 MB in 50 ms.
    assert_eq!(window_after(&mut incoming, &mut now, 1_000_000, 1), 4_000_000);
    // As fast as the window lets it: four times as large with each round trip.
    let mut window = 4_000_000;
    for _ in 0..10 {
        window = window_after(&mut incoming, &mut now, window, 1);
    }
    assert_eq!(window, WINDOW_BYTES_MAX);
    // Credit that was given stays; a slower link gives no more until that is used up.
    assert!(window_after(&mut incoming, &mut now, 31_250, 1200) < WINDOW_BYTES_MIN + 1000);
}

#[test]
fn a_stalled_reader_and_a_control_channel_gain_no_window() {
    let mut incoming = Incoming::new(Label::Ram(0));
    let (rtt, mut now) = (Duration::from_millis(50), Duration::from_secs(1));
    incoming.give_credit();
    while incoming.handle_data(incoming.received(), false, &[0; 1 << 18]).is_ok() {
        now += rtt;
        incoming.tune(rtt, now);
        incoming.give_credit();
    }
    assert!(incoming.buffered_bytes() <= WINDOW_BYTES);
    let mut control = Incoming::new(Label::Control);
    let given = control.give_credit();
    control.handle_data(0, false, &[0; 1000]).unwrap();
    control.read(&mut [0; 1000]);
    control.tune(rtt, now);
    assert_eq!(control.give_credit(), given + 1000);
}
