//! Seals, and what voids them.

use super::{Bench, EPOCH, ack, data, identity, leaf};
use crate::replica::batch::Item;
use crate::replica::destination::{Identity, Op, SessionError};
use crate::replica::wire::{self, FrameType};

#[test]
fn a_seal_is_durable_and_recorded_before_it_is_answered() {
    let mut bench = Bench::streaming(identity());
    bench.batch(1, &[data(0, 1)]).unwrap();
    bench.run(false);
    bench.seal(8).unwrap();
    assert_eq!(bench.destination.poll_op(false), Some(Op::Flush));
    bench.destination.handle_done(Ok(vec![])).unwrap();
    assert_eq!(bench.answers(), [ack(1, &[])]);
    assert_eq!(bench.destination.poll_op(false), Some(Op::RecordSeal(8)));
    assert_eq!(bench.answers(), []);
    bench.destination.handle_done(Ok(vec![])).unwrap();
    assert_eq!(bench.answers(), [(FrameType::Sealed, 0, wire::encode_generation(8))]);
}

#[test]
fn a_seal_without_a_generation_is_refused() {
    let mut bench = Bench::streaming(identity());
    assert_eq!(bench.seal(0), Err(SessionError::Protocol("a seal needs a generation")));
    assert_eq!(bench.run(true), []);
}

#[test]
fn a_seal_is_void_before_the_next_change_and_stands_for_questions() {
    let mut bench = Bench::streaming(Identity { sealed: 8, ..identity() });
    bench.batch(1, &[Item::Digest(leaf(0), [0; 32]), Item::AllZeros(leaf(1))]).unwrap();
    assert!(!bench.run(false).iter().any(|op| matches!(op, Op::RecordSeal(_))));
    bench.batch(2, &[Item::Digest(leaf(0), [0; 32]), data(0, 1)]).unwrap();
    assert_eq!(bench.run(false).first(), Some(&Op::RecordSeal(0)));
    bench.batch(3, &[data(0, 1)]).unwrap();
    assert!(!bench.run(false).iter().any(|op| matches!(op, Op::RecordSeal(_))), "it is void already");
}

#[test]
fn an_unseal_is_recorded_and_not_answered() {
    let mut bench = Bench::streaming(identity());
    bench.seal(8).unwrap();
    bench.run(false);
    bench.answers();
    bench.feed(FrameType::Unseal, EPOCH, 0, &wire::encode_generation(8)).unwrap();
    assert_eq!(bench.run(false), [Op::RecordSeal(0)]);
    assert_eq!(bench.answers(), []);
    bench.seal(9).unwrap();
    assert_eq!(bench.run(false), [Op::Flush, Op::RecordSeal(9)], "and sealed again");
}
