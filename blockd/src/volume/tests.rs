//! What is called durable after a flush has failed.

use super::*;
use crate::extent::Extent;

const NOW: Duration = Duration::ZERO;
const FUA: Command = Command::Write { fua: true };

fn cached() -> Volume {
    let mut volume = Volume::new();
    volume.set_cached(true);
    volume
}

/// What a request is answered whose store calls end like this.
fn answer(volume: &mut Volume, command: Command, outcomes: &[StoreOutcome]) -> Result<(), i32> {
    let (tag, extent) = (Tag { connection: 1, cookie: 1 }, Extent::new(0, 4096));
    volume.handle_request(Request { tag, command, extent, buf: None }, NOW);
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
        (FUA, &[Err(libc::EIO)]),
        (Command::Trim { fua: true }, &[DONE, Err(libc::EIO)]),
    ] {
        let mut volume = cached();
        assert_eq!(answer(&mut volume, Command::Flush, &[DONE]), Ok(()));
        assert!(answer(&mut volume, command, outcomes).is_err() && volume.has_lost_writes());
        assert_eq!(answer(&mut volume, Command::Flush, &[DONE]), Err(libc::EIO));
        assert_eq!(answer(&mut volume, FUA, &[DONE]), Err(libc::EIO));
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
