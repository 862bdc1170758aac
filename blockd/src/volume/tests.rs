//! What is called durable, also after a flush has failed.

use super::*;
use crate::extent::Extent;

const NOW: Duration = Duration::ZERO;
const FUA: Command = Command::Write { fua: true };

fn cached() -> Volume {
    let mut volume = Volume::new();
    volume.set_cached(true);
    volume
}

fn ask(volume: &mut Volume, cookie: u64, command: Command) {
    let (tag, extent) = (Tag { connection: 1, cookie, is_piece: false }, Extent::new(0, 4096));
    volume.handle_request(Request { tag, command, extent, buf: None }, NOW);
}

/// Everything that is answered now: the cookies, and whether with success.
fn answered(volume: &mut Volume) -> Vec<(u64, bool)> {
    let replies = std::iter::from_fn(|| volume.poll_reply(NOW));
    replies.map(|reply| (reply.tag.cookie, reply.result.is_ok())).collect()
}

/// What a request is answered whose store calls end like this.
fn answer(volume: &mut Volume, command: Command, outcomes: &[StoreOutcome]) -> Result<(), i32> {
    ask(volume, 1, command);
    for outcome in outcomes {
        let call = volume.poll_store().expect("a call");
        volume.handle_store(call.op, *outcome, NOW);
    }
    volume.poll_reply(NOW).expect("an answer").result
}

const DONE: StoreOutcome = Ok(Trimmed::Unspecified);

#[test]
fn after_a_failed_flush_of_a_cache_only_what_need_not_be_durable_succeeds() {
    for (command, outcomes) in [
        (Command::Flush, &[Err(libc::EIO)][..]),
        (Command::Flush, &[Err(libc::ENOSPC)]),
        (FUA, &[DONE, Err(libc::EIO)]),
        (Command::Trim { fua: true }, &[DONE, Err(libc::EIO)]),
    ] {
        let mut volume = cached();
        assert_eq!(answer(&mut volume, Command::Flush, &[DONE]), Ok(()));
        assert!(answer(&mut volume, command, outcomes).is_err() && volume.has_lost_writes());
        assert_eq!(answer(&mut volume, Command::Flush, &[DONE]), Err(libc::EIO));
        assert_eq!(answer(&mut volume, FUA, &[DONE, DONE]), Err(libc::EIO));
        assert_eq!(answer(&mut volume, Command::Trim { fua: true }, &[DONE, DONE]), Err(libc::EIO));
        assert_eq!(answer(&mut volume, Command::Write { fua: false }, &[DONE]), Ok(()));
        assert_eq!(answer(&mut volume, Command::Read, &[DONE]), Ok(()));
    }
}

#[test]
fn what_never_came_to_the_cache_is_not_lost_in_it() {
    for (mut volume, command, errno) in [
        (Volume::new(), Command::Flush, libc::EIO),
        (Volume::new(), FUA, libc::EIO),
        (cached(), FUA, libc::EIO),
        (cached(), FUA, libc::ENOSPC),
        (cached(), Command::Write { fua: false }, libc::EIO),
        (cached(), Command::Trim { fua: true }, libc::EIO),
        (cached(), Command::Read, libc::EIO),
    ] {
        assert_eq!(answer(&mut volume, command, &[Err(errno)]), Err(errno));
        assert!(!volume.has_lost_writes(), "{command:?}");
        assert_eq!(answer(&mut volume, Command::Flush, &[DONE]), Ok(()));
    }
}

#[test]
fn flushes_that_come_while_one_is_under_way_share_the_next() {
    for (mut volume, outcome) in [(Volume::new(), DONE), (cached(), DONE), (cached(), Err(libc::EIO))] {
        (1..=3).for_each(|cookie| ask(&mut volume, cookie, Command::Flush));
        let first = volume.poll_store().expect("a flush");
        assert_eq!((first.action, volume.poll_store()), (StoreAction::Flush, None));
        volume.handle_store(first.op, outcome, NOW);
        assert_eq!(answered(&mut volume), [(1, outcome.is_ok())]);
        // The one that comes now is behind the one that starts now.
        ask(&mut volume, 4, Command::Flush);
        let second = volume.poll_store().expect("another flush");
        assert_eq!((second.action, volume.poll_store()), (StoreAction::Flush, None));
        volume.handle_store(second.op, DONE, NOW);
        // A flush that waited for one that failed could have been told of no failure.
        assert_eq!(answered(&mut volume), [(2, outcome.is_ok()), (3, outcome.is_ok())]);
        let third = volume.poll_store().expect("the last flush");
        volume.handle_store(third.op, DONE, NOW);
        assert_eq!(answered(&mut volume), [(4, outcome.is_ok())]);
        assert_eq!((volume.poll_store(), volume.in_flight()), (None, 0));
    }
}

#[test]
fn nothing_makes_durable_beside_a_flush_of_a_cache() {
    let mut volume = cached();
    ask(&mut volume, 1, Command::Flush);
    ask(&mut volume, 2, FUA);
    ask(&mut volume, 3, FUA);
    let calls: Vec<_> = std::iter::from_fn(|| volume.poll_store()).collect();
    let actions: Vec<_> = calls.iter().map(|call| call.action).collect();
    let plain = StoreAction::Write { durable: false };
    assert_eq!(actions, [StoreAction::Flush, plain, plain]);
    calls[1..].iter().for_each(|call| volume.handle_store(call.op, DONE, NOW));
    assert_eq!((answered(&mut volume), volume.poll_store()), (vec![], None));
    volume.handle_store(calls[0].op, DONE, NOW);
    let shared = volume.poll_store().expect("a flush for both writes");
    assert_eq!((answered(&mut volume), volume.poll_store()), (vec![(1, true)], None));
    volume.handle_store(shared.op, DONE, NOW);
    assert_eq!(answered(&mut volume), [(2, true), (3, true)]);

    // A store without a cache does both in one.
    let mut volume = Volume::new();
    ask(&mut volume, 1, FUA);
    assert_eq!(volume.poll_store().map(|call| call.action), Some(StoreAction::Write { durable: true }));
}
