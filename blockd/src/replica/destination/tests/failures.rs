//! Ops that fail: the source is told why, and nothing is done or acknowledged any more.

use super::{Bench, EPOCH, data, hello, identity};
use crate::replica::destination::SessionError;

#[test]
fn an_op_that_fails_ends_the_session_and_the_source_is_told_why() {
    let mut bench = Bench::streaming(identity());
    bench.batch(1, &[data(0, 1), data(0, 2)]).unwrap();
    assert!(bench.destination.poll_op(false).is_some());
    let error = bench.destination.handle_done(Err("no space left".into())).unwrap_err();
    assert_eq!(error, SessionError::Disk("no space left".into()));
    assert_eq!(bench.failure(), "no space left");
    assert_eq!(bench.batch(2, &[data(0, 1)]), Err(SessionError::Protocol("a frame came out of turn")));
    assert!(!bench.destination.is_streaming());
}

#[test]
fn nothing_is_done_or_acknowledged_after_an_op_failed() {
    for ops_that_succeed in 0..3 {
        let mut bench = Bench::streaming(identity());
        bench.batch(1, &[data(0, 1), data(0, 2)]).unwrap();
        for _ in 0..ops_that_succeed {
            assert!(bench.destination.poll_op(true).is_some());
            bench.destination.handle_done(Ok(vec![])).unwrap();
        }
        assert!(bench.destination.poll_op(true).is_some());
        bench.destination.handle_done(Err("broken".into())).unwrap_err();
        assert_eq!(bench.run(true), [], "after {ops_that_succeed}");
        assert_eq!((bench.failure(), bench.destination.durable_seq()), ("broken".to_owned(), 0));
    }
}

#[test]
fn a_record_that_cannot_be_written_is_a_failure_and_no_welcome() {
    let mut bench = Bench::new(identity());
    bench.hello(EPOCH, &hello()).unwrap();
    assert!(bench.destination.poll_op(false).is_some());
    assert!(bench.destination.handle_done(Err("read-only".into())).is_err());
    assert_eq!(bench.failure(), "read-only");
}
